// What a user would write instead of an edge: bodies in Workers KV, the headers that matter in its metadata.
const ORIGIN = "http://127.0.0.1:ORIGIN_PORT";

export default {
  async fetch(request, env, context) {
    const url = request.url;
    const at = url.indexOf("/", 8);
    const target = at < 0 ? "/" : url.slice(at);
    const { value, metadata } = await env.CACHE_KV.getWithMetadata(target, { type: "stream" });
    if (value !== null) {
      if (request.headers.get("if-none-match") === metadata.etag) return new Response(null, { status: 304, headers: metadata });
      return new Response(value, { headers: metadata });
    }
    const response = await fetch(ORIGIN + target);
    const headers = { "content-type": response.headers.get("content-type"), etag: response.headers.get("etag") };
    const body = await response.arrayBuffer();
    context.waitUntil(env.CACHE_KV.put(target, body, { metadata: headers, expirationTtl: 3600 }));
    return new Response(body, { headers });
  },
};
