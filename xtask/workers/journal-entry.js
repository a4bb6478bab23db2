// Runs in the process that owns the purge journal. Other processes reach the Durable Object through this entry, as
// the platform's own network would: by the name of the object.
export default {
  fetch(request, env) {
    const name = request.headers.get("x-object-name") ?? "global";
    return env.JOURNAL.get(env.JOURNAL.idFromName(name)).fetch(request);
  },
};
