// Bodies in Workers KV, with what the edge does for such a hit: the page is kept in memory (32 MiB, oldest out first), each
// surrogate key is looked up among the purges, KV is given a second, and the answer has the edge's fields.
const ORIGIN = "http://127.0.0.1:ORIGIN_PORT";
const LIFETIME_MS = 3_600_000;
const LEASE_MS = 1000;
const KV_MS = 1000;
const MEMORY_BYTES_MAX = 32 * 1024 * 1024;
const OWN = ["content-length", "connection", "surrogate-as-of", "surrogate-key"];
const entries = new Map();
let bytes = 0;
const purges = new Map(Array.from({ length: 1000 }, (_, n) => [`purged-${n}`, { soft: n, hard: n }]));
const view = { confirmed: 0, floor: 0 };

function keep(key, entry) {
  entries.set(key, entry);
  bytes += entry.body.byteLength;
  for (const [oldest, { body }] of entries) {
    if (bytes <= MEMORY_BYTES_MAX) return;
    entries.delete(oldest);
    bytes -= body.byteLength;
  }
}

function isPurged({ keys, asOf }, now) {
  // Here it would ask the journal.
  if (now - view.confirmed > LEASE_MS) view.confirmed = now;
  if (asOf < view.floor) return true;
  for (const key of keys) {
    const last = purges.get(key);
    if (last !== undefined && (last.soft > asOf || last.hard > asOf)) return true;
  }
  return false;
}

// Within its second, or nothing.
async function read(kv, key) {
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, KV_MS, {})));
  try {
    return await Promise.race([kv.getWithMetadata(key, { type: "arrayBuffer" }), late]);
  } catch {
    return {};
  } finally {
    clearTimeout(timer);
  }
}

function answer(request, { body, about }, now, detail) {
  const age = Math.floor((now - about.at) / 1000);
  const ttl = Math.floor((LIFETIME_MS - now + about.at) / 1000);
  const headers = { ...about.headers, age: `${age}`, "cache-status": `peer; hit; ttl=${ttl}; detail="${detail}"` };
  const match = request.headers.get("if-none-match");
  const known = match !== null && match.split(",").some((tag) => tag.trim() === about.headers.etag || tag.trim() === "*");
  return new Response(known ? null : body, { status: known ? 304 : 200, headers });
}

export default {
  async fetch(request, env, context) {
    if (request.method !== "GET") return new Response(null, { status: 405 });
    const url = request.url;
    const at = url.indexOf("/", 8);
    const target = at < 0 ? "/" : url.slice(at);
    const held = entries.get(target);
    if (held !== undefined && Date.now() - held.about.at < LIFETIME_MS && !isPurged(held.about, Date.now())) {
      return answer(request, held, Date.now(), "hit memory");
    }
    const { value, metadata: about } = await read(env.CACHE_KV, target);
    const now = Date.now();
    if (value && now - about.at < LIFETIME_MS && !isPurged(about, now)) {
      const entry = { body: value, about };
      keep(target, entry);
      return answer(request, entry, now, "hit kv");
    }
    const response = await fetch(ORIGIN + target);
    const keys = (response.headers.get("surrogate-key") ?? "").split(" ").concat(`url:${target}`);
    const headers = Object.fromEntries([...response.headers].filter(([name]) => !OWN.includes(name)));
    const entry = { body: await response.arrayBuffer(), about: { headers, keys, asOf: 5000, at: Date.now() } };
    // What a fresh isolate would have: pages in KV alone.
    context.waitUntil(env.CACHE_KV.put(target, entry.body, { metadata: entry.about, expirationTtl: 3600 }));
    return answer(request, entry, now, "miss");
  },
};
