// Stands in each location for the class that lives in another process, so that the edge uses the same Durable Object
// binding here as in production.
import { DurableObject } from "cloudflare:workers";

export class PurgeJournal extends DurableObject {
  fetch(request) {
    const forwarded = new Request(request);
    forwarded.headers.set("x-object-name", this.ctx.id.name ?? "global");
    return this.env.OWNER.fetch(forwarded);
  }
}

export default {
  fetch() {
    return new Response(null, { status: 404 });
  },
};
