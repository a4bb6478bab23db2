// What a careful author would write by hand to answer from the isolate's memory with the same promises as the edge: each
// surrogate key of a page looked up among the purges, a lease, If-None-Match, Age, Cache-Status, and origin's fields.
// READS_FIELDS: it also looks at what an API's pages depend on, and at what makes a request unusual. LOGS: it writes the
// same line for each request.
const READS_FIELDS = false;
const LOGS = false;
const ORIGIN = "http://127.0.0.1:ORIGIN_PORT";
const LIFETIME_MS = 300_000;
const LEASE_MS = 1000;
const OWN = ["cdn-cache-control", "content-length", "connection", "date", "surrogate-as-of", "surrogate-key"];
const entries = new Map();
const purges = new Map(Array.from({ length: 1000 }, (_, n) => [`purged-${n}`, { soft: n, hard: n }]));
const view = { confirmed: 0, floor: 0 };

async function fill(key, target) {
  const response = await fetch(ORIGIN + target);
  const keys = (response.headers.get("surrogate-key") ?? "").split(" ").concat(`url:${target}`);
  const headers = Object.fromEntries([...response.headers].filter(([name]) => !OWN.includes(name)));
  headers.vary = "authorization, accept-language";
  const body = new Uint8Array(await response.arrayBuffer());
  const entry = { body, headers, etag: headers.etag, keys, asOf: 5000, at: Date.now() };
  entries.set(key, entry);
  return entry;
}

function isPurged(entry, now) {
  // Here it would ask the journal.
  if (now - view.confirmed > LEASE_MS) view.confirmed = now;
  if (entry.asOf < view.floor) return true;
  for (const key of entry.keys) {
    const last = purges.get(key);
    if (last !== undefined && (last.soft > entry.asOf || last.hard > entry.asOf)) return true;
  }
  return false;
}

function log(request, headers, entry, phase, status) {
  const id = crypto.randomUUID();
  headers["x-request-id"] = id.slice(0, 16);
  const line = { log: "access", method: request.method, route: "/v1/titles/*", status, duration_ms: 0, phase, tier: "memory" };
  console.log(JSON.stringify({ ...line, bytes: entry.body.length, trace_id: id, request_id: headers["x-request-id"] }));
}

const UNUSUAL = ["edge-debug", "min-as-of", "if-modified-since"];

// The variant of a page for who asks; nothing for a request that is unusual.
function variant(request) {
  const headers = request.headers;
  if (UNUSUAL.some((name) => headers.has(name))) return undefined;
  const country = request.cf?.country ?? "";
  return `${country} ${headers.get("accept-language") ?? ""} ${headers.get("authorization") ?? ""}`;
}

function answer(request, entry, now, phase) {
  const age = Math.floor((now - entry.at) / 1000);
  const ttl = Math.floor((LIFETIME_MS - now + entry.at) / 1000);
  const headers = { ...entry.headers, age: `${age}`, "cache-status": `peer; hit; ttl=${ttl}; detail="${phase} memory"` };
  const match = request.headers.get("if-none-match");
  const known = match !== null && match.split(",").some((tag) => tag.trim() === entry.etag || tag.trim() === "*");
  if (LOGS) log(request, headers, entry, phase, known ? 304 : 200);
  if (!known) return new Response(request.method === "HEAD" ? null : entry.body, { headers });
  delete headers["content-type"];
  return new Response(null, { status: 304, headers });
}

export default {
  fetch(request) {
    if (request.method !== "GET" && request.method !== "HEAD") return new Response(null, { status: 405 });
    const url = request.url;
    const at = url.indexOf("/", 8);
    const target = at < 0 ? "/" : url.slice(at);
    const key = READS_FIELDS ? `GET ${target} ${variant(request)}` : `GET ${target}`;
    const entry = entries.get(key);
    const now = Date.now();
    const isFresh = entry !== undefined && now - entry.at < LIFETIME_MS;
    if (isFresh && !request.headers.has("authorization") && !request.headers.has("range") && !isPurged(entry, now)) {
      return answer(request, entry, now, "hit");
    }
    return fill(key, target).then((entry) => answer(request, entry, Date.now(), "miss"));
  },
};
