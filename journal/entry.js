// What the runtime calls: the Durable Object's class. It passes calls to Wasm and brings Wasm back after a panic.
import { DurableObject } from "cloudflare:workers";
import * as wasm from "./index.js";
import { instance, note } from "./recovery.js";

// The object's state is in its storage: after a trap another instance of the class goes on with it.
export class PurgeJournal extends DurableObject {
  #journal;
  #instance;

  #current() {
    const current = instance();
    if (this.#instance !== current) {
      this.#journal = new wasm.PurgeJournal(this.ctx, this.env);
      this.#instance = current;
    }
    return this.#journal;
  }

  async fetch(request) {
    try {
      return await this.#current().fetch(request);
    } catch (error) {
      note(error);
      throw error;
    }
  }

  // Thrown on: the platform tries again later.
  alarm() {
    try {
      this.#current().alarm();
    } catch (error) {
      note(error);
      throw error;
    }
  }
}

// The platform takes no Worker without a handler. No route leads here.
export default {
  fetch() {
    return new Response(null, { status: 404 });
  },
};
