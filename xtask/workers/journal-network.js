// Stands before the Worker of the purge journal. Other processes reach the Durable Object through it, as through the
// platform's own network: by the name of the object.
export default {
  fetch(request, env) {
    const name = request.headers.get("x-object-name") ?? "global";
    return env.JOURNAL.get(env.JOURNAL.idFromName(name)).fetch(request);
  },
};
