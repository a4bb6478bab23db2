// The usual advice: the Cache API in front of the origin. No surrogate keys, no purge across locations.
const ORIGIN = "http://127.0.0.1:ORIGIN_PORT";

export default {
  async fetch(request, env, context) {
    const held = await caches.default.match(request);
    if (held !== undefined) return held;
    const url = request.url;
    const response = await fetch(ORIGIN + url.slice(url.indexOf("/", 8)));
    context.waitUntil(caches.default.put(request, response.clone()));
    return response;
  },
};
