// The least a Worker can do: the runtime's own limit.
export default {
  fetch() {
    return new Response("ok");
  },
};
