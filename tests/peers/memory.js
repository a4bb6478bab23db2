// What a careful author would write by hand to answer from the isolate's memory with the same promises as the edge:
// key check against a map of purges, If-None-Match, Age, Cache-Status. READS_FIELDS: it also looks at what an API's
// pages depend on, and at what makes a request unusual. LOGS: it writes the same line for each request.
const READS_FIELDS = false;
const LOGS = false;
const ORIGIN = "http://127.0.0.1:ORIGIN_PORT";
const LIFETIME_S = 3600;
const entries = new Map();
const purges = new Map(Array.from({ length: 1000 }, (_, n) => [`purged-${n}`, { soft: n, hard: n }]));
const view = { confirmed: Date.now(), floor: 0 };

async function fill(key, target) {
  const response = await fetch(ORIGIN + target);
  const keys = (response.headers.get("surrogate-key") ?? "").split(" ").concat(`url:${target}`);
  const entry = {
    body: new Uint8Array(await response.arrayBuffer()),
    headers: { "content-type": response.headers.get("content-type"), "cache-control": response.headers.get("cache-control"), etag: response.headers.get("etag") },
    etag: response.headers.get("etag"),
    keys,
    asOf: 5000,
    at: Date.now(),
  };
  entries.set(key, entry);
  return entry;
}

function isPurged(entry) {
  if (entry.asOf < view.floor) return true;
  for (const key of entry.keys) {
    const last = purges.get(key);
    if (last !== undefined && (last.soft > entry.asOf || last.hard > entry.asOf)) return true;
  }
  return false;
}

function log(request, headers, entry, phase) {
  const id = crypto.randomUUID();
  headers["x-request-id"] = id.slice(0, 16);
  const bytes = entry.body.length;
  const line = { log: "access", method: request.method, route: "/v1/titles/*", status: 200, duration_ms: 0, phase, bytes };
  console.log(JSON.stringify({ ...line, trace_id: id, request_id: headers["x-request-id"] }));
}

const UNUSUAL = ["edge-debug", "min-as-of", "if-modified-since"];

// The variant of a page for who asks; nothing for a request that is unusual.
function variant(request) {
  const headers = request.headers;
  if (UNUSUAL.some((name) => headers.has(name))) return undefined;
  const country = request.cf?.country ?? "";
  return `${country} ${headers.get("accept-language") ?? ""} ${headers.get("authorization") ?? ""}`;
}

function answer(request, entry, status) {
  const age = Math.floor((Date.now() - entry.at) / 1000);
  const headers = { ...entry.headers, age: `${age}`, "cache-status": `peer; hit; ttl=${LIFETIME_S - age}; detail="${status}"` };
  const match = request.headers.get("if-none-match");
  if (match !== null && match.split(",").some((tag) => tag.trim() === entry.etag || tag.trim() === "*")) {
    return new Response(null, { status: 304, headers });
  }
  if (LOGS) log(request, headers, entry, status);
  return new Response(request.method === "HEAD" ? null : entry.body, { headers });
}

export default {
  fetch(request) {
    if (request.method !== "GET" && request.method !== "HEAD") return new Response(null, { status: 405 });
    const url = request.url;
    const at = url.indexOf("/", 8);
    const target = at < 0 ? "/" : url.slice(at);
    const key = READS_FIELDS ? `GET ${target} ${variant(request)}` : `GET ${target}`;
    const entry = entries.get(key);
    const isFresh = entry !== undefined && Date.now() - entry.at < LIFETIME_S * 1000;
    if (isFresh && !request.headers.has("authorization") && !request.headers.has("range") && !isPurged(entry)) {
      return answer(request, entry, "hit memory");
    }
    return fill(key, target).then((entry) => answer(request, entry, "miss"));
  },
};
