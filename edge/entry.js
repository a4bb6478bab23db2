// What the runtime calls: a plain object, since a class of the `cloudflare:workers` kind, made anew for each request, costs
// more than a hit does. It passes requests to Wasm and brings Wasm back after a panic; it decides nothing. Which requests
// may take the short way, and by which fields they differ, `edge/src/hits.rs` says; here is only counted and remembered.
import * as wasm from "./index.js";
import { instance, note } from "./recovery.js";

// Slots that Wasm gave out, by URL and by what of a request the page depends on. As many as there can be; then both sides
// start over.
const SLOTS_MAX = 4096;
// Longer URLs are rare, and would fill memory.
const URL_LENGTH_MAX = 1024;
// By URL.
const pages = new Map();
let slots = 0;
// What a page may depend on, as Wasm says it.
const VIEWER = 1;
const REGION = 2;
const LOCALE = 4;
// Numbers and kinds of who has shown a good token, by the whole of `Authorization`; as many as there can be.
const BEARERS_MAX = 4096;
// The longest token, and its scheme: one token in many spellings would fill memory.
const AUTHORIZATION_LENGTH_MAX = 4096 + 8;
const bearers = new Map();
let lastBearer = 0;
// What bearers of a kind are answered alike by, and its number, which stays: pages remember slots by it. Strangers are of
// kind 0.
const KINDS_MAX = 4096;
const kinds = new Map();
let guards;
// The field that says who asks, if reads are counted.
let client;
let logs;
let mindsContent;

// What Wasm says of a text, remembered: there are few such texts, and strangers can make up others.
const TEXTS_MAX = 512;
const TEXT_LENGTH_MAX = 256;
class Memo {
  #told = new Map();
  #none;
  #ask;
  constructor(ask) {
    this.#ask = ask;
  }
  // A number, or nothing of texts that are too long.
  of(text) {
    if (text === null || text === undefined) return (this.#none ??= Number(this.#ask(undefined)));
    let number = this.#told.get(text);
    if (number !== undefined) return number;
    if (text.length > TEXT_LENGTH_MAX) return undefined;
    if (this.#told.size >= TEXTS_MAX) this.#told.clear();
    number = Number(this.#ask(text));
    this.#told.set(text, number);
    return number;
  }
  clear() {
    this.#told.clear();
    this.#none = undefined;
  }
}
const regions = new Memo(wasm.region_of);
const locales = new Memo(wasm.locale_of);
const codings = new Memo((text) => text !== undefined && wasm.takes_packed(text));
// More than there are regions or locales.
const NUMBERS = 128;

let lives = instance();

// After a trap a new instance takes over, with nothing remembered.
function revive() {
  const current = instance();
  if (current !== lives) {
    lives = current;
    forgetPages();
    told = new Uint32Array(0);
    again = 0;
    ids = "";
    idsAt = 0;
    bearers.clear();
    lastBearer = 0;
    kinds.clear();
    regions.clear();
    locales.clear();
    guards = undefined;
  }
}

function forgetPages() {
  letGo();
  pages.clear();
  slots = 0;
}

// What Wasm tells without a call: [0] changes with whatever a hit hangs on besides the clock, [1] says for how many
// milliseconds the hit told last may be answered again, [2] which request was begun last. Gone when Wasm's memory grows.
let told = new Uint32Array(0);
// Slots with an answer that may be given again, as long as told[0] is this.
const held = [];
let heldAt;

// Nothing is kept here that Wasm may have let go.
function letGo() {
  for (const slot of held) slot.parts = undefined;
  held.length = 0;
  heldAt = undefined;
}

function look() {
  if (told.length === 0) told = new Uint32Array(wasm.own_memory().buffer, wasm.told_at(), 3);
  if (told[0] !== heldAt) {
    letGo();
    heldAt = told[0];
  }
}

// An answer that Wasm has just given: until its time is over, or told[0] changes, it is good for requests that are alike.
function hold(slot, parts, now) {
  look();
  if (slot.parts === undefined) held.push(slot);
  slot.parts = parts;
  slot.from = now;
  slot.until = now + told[1];
}

// Hits answered again, of which Wasm does not know yet.
let again = 0;

// Before anybody can ask Wasm for its counts.
function report() {
  if (again > 0) wasm.count_hits(again);
  again = 0;
}

// Ids for hits to come, 48 characters each.
let ids = "";
let idsAt = 0;

function readRules() {
  const rules = wasm.rules();
  if (rules === undefined) return false;
  const lines = rules.split("\n");
  guards = lines[0].split(",");
  client = lines[1] === "" ? undefined : lines[1];
  logs = lines[2] !== "";
  mindsContent = lines[3] !== "";
  return true;
}

// What is known of who asks; `undefined` if the long way has to find out.
function bearerOf(authorization) {
  const known = bearers.get(authorization);
  if (known !== undefined) return known;
  if (authorization.length > AUTHORIZATION_LENGTH_MAX) return undefined;
  // Those that are over have left this side, but not their numbers.
  if (bearers.size >= BEARERS_MAX || kinds.size >= KINDS_MAX || lastBearer >= 2 * BEARERS_MAX) {
    bearers.clear();
    wasm.forget_bearers();
    lastBearer = 0;
  }
  if (kinds.size >= KINDS_MAX) {
    // Pages know their slots by the kind of who asks: this request holds such a page, and goes the long way.
    kinds.clear();
    forgetPages();
    wasm.forget_slots();
    return undefined;
  }
  const told = wasm.bearer_of(authorization);
  if (told === undefined) return undefined;
  const [number, group] = told.split("\n");
  let kind = kinds.get(group);
  if (kind === undefined) {
    kinds.set(group, (kind = kinds.size + 1));
  }
  lastBearer = Number(number);
  const bearer = { number: lastBearer, kind };
  bearers.set(authorization, bearer);
  return bearer;
}

// A URL of which memory has something for the first time; nothing if it is not answered here.
function pageOf(url) {
  const depends = wasm.page(url);
  // What takes the long way each time, such as a search, would take the places of pages.
  if (depends < 0) return undefined;
  if (pages.size >= SLOTS_MAX) {
    forgetPages();
    wasm.forget_slots();
  }
  const page = { depends, isPacked: false, slots: new Map() };
  pages.set(url, page);
  return page;
}

function slotOf(page, kind, url, request) {
  if (slots >= SLOTS_MAX) {
    // Nothing is found in this page any more; the next request begins with a new one.
    forgetPages();
    wasm.forget_slots();
    return undefined;
  }
  const number = wasm.slot_of(url, request, page.isPacked);
  const slot = { number, parts: undefined, from: 0, until: 0 };
  if (number > -2) {
    page.slots.set(kind, slot);
    slots++;
  }
  return slot;
}

// An answer out of its parts (`src/parts.js`), and its line of the log.
function answerOf(parts) {
  if (!logs) return new Response(parts.body, parts.init);
  if (idsAt === ids.length) {
    ids = wasm.ids_of_hits();
    idsAt = 0;
  }
  const trace = ids.slice(idsAt, idsAt + 32);
  const id = ids.slice(idsAt + 32, idsAt + 48);
  idsAt += 48;
  // By sampling some get no line.
  if (id[0] === " ") {
    if (parts.named) parts.init.headers.delete("x-request-id");
    parts.named = false;
  } else {
    parts.init.headers.set("x-request-id", id);
    parts.named = true;
    console.log(`${parts.line}${trace}","request_id":"${id}"}`);
  }
  return new Response(parts.body, parts.init);
}

// Longer a read of KV does not take, or it counts as a miss. Wasm has the same.
const KV_MS = 1000;
const AS_BUFFER = { type: "arrayBuffer" };
const NOTHING = new ArrayBuffer(0);
// The heads of most entries fit into so many bytes. Wasm has the same.
const BEGINNING_BYTES = 2048;

// Reads KV for a request that Wasm has begun. If the client leaves, that is its end: nobody else waits for it, and to have the
// runtime see to its end would cost half as much as the read.
function fromKv(key, number, request, env, context) {
  const began = lives;
  const had = (value) => {
    revive();
    // Of the old instance's requests the new one knows nothing.
    if (lives !== began) return longWay(request, env, context);
    try {
      const whole = value ?? NOTHING;
      const bytes = whole.byteLength;
      const beginning = new Uint8Array(whole, 0, Math.min(BEGINNING_BYTES, bytes));
      const headers = request.headers;
      const known = headers.get("if-none-match") ?? undefined;
      const takes = headers.get("accept-encoding") ?? undefined;
      const parts = wasm.kv_had(number, whole, beginning, bytes, Date.now(), known, takes);
      return parts === undefined ? longWay(request, env, context, number) : answerOf(parts);
    } catch (error) {
      note(error);
      throw error;
    }
  };
  return new Promise((resolve, reject) => {
    let is_open = true;
    const end = (value) => {
      if (!is_open) return;
      is_open = false;
      clearTimeout(timer);
      try {
        resolve(had(value));
      } catch (error) {
        reject(error);
      }
    };
    const timer = setTimeout(end, KV_MS);
    try {
      // `get` goes through this, and adds to it a promise of its own.
      env.CACHE_KV.getWithMetadata(key, AS_BUFFER).then((read) => end(read.value), () => end());
    } catch {
      // Not bound: it has nothing.
      end();
    }
  });
}

function longWay(request, env, context, begun) {
  report();
  const answer = wasm.fetch(request, env, context, begun);
  if (answer instanceof Promise) {
    // A client that leaves would take the request with it: what waits for its content, or for the journal, would wait for ever
    // and keep all it has, in Wasm's memory and here. So it goes on to its end.
    context.waitUntil(answer.catch(note));
  }
  return answer;
}

// The answer to a request that memory has nothing for: from KV, or the long way.
function begin(url, request, now, asks, env, context) {
  const key = wasm.begin(url, request, now, asks);
  if (key === undefined) return undefined;
  if (key === "") return longWay(request, env, context);
  look();
  return fromKv(key, told[2], request, env, context);
}

// The answer, if it is a plain hit in memory, or may be one in KV.
function hit(request, env, context) {
  if (request.method !== "GET" || (guards === undefined && !readRules())) return undefined;
  const headers = request.headers;
  for (let at = 0; at < guards.length; at++) if (headers.has(guards[at])) return undefined;
  if (mindsContent && request.body !== null) return undefined;
  const url = request.url;
  const asks = client === undefined ? undefined : (headers.get(client) ?? undefined);
  const now = Date.now();
  let page = pages.get(url);
  if (page === undefined) {
    if (url.length > URL_LENGTH_MAX) return undefined;
    // Many pages are asked for once in a long while: a slot is for what is asked for again.
    const answer = begin(url, request, now, asks, env, context);
    if (answer !== undefined) return answer;
    page = pageOf(url);
    if (page === undefined) return undefined;
  }
  const depends = page.depends;
  let authorization = null;
  let number = -1;
  let kind = 0;
  if (depends !== 0) {
    if (depends & VIEWER) {
      authorization = headers.get("authorization");
      if (authorization !== null) {
        const bearer = bearerOf(authorization);
        if (bearer === undefined) return undefined;
        number = bearer.number;
        kind = bearer.kind;
      }
    }
    if (depends & REGION) kind = kind * NUMBERS + regions.of(request.cf?.country);
    if (depends & LOCALE) kind = kind * NUMBERS + locales.of(headers.get("accept-language"));
  }
  if (page.isPacked) kind = kind * 2 + codings.of(headers.get("accept-encoding"));
  let slot = page.slots.get(kind);
  if (slot === undefined) {
    // A text was too long to be remembered.
    if (Number.isNaN(kind)) return undefined;
    slot = slotOf(page, kind, url, request);
  }
  if (slot === undefined || slot.number < 0) return undefined;
  const known = headers.get("if-none-match") ?? undefined;
  // Whose token has to be looked at, and who has to be counted, Wasm is asked each time.
  const alike = number < 0 && client === undefined && known === undefined;
  if (alike && slot.parts !== undefined && heldAt === told[0] && slot.from <= now && now < slot.until) {
    again++;
    return answerOf(slot.parts);
  }
  const parts = wasm.hit(slot.number, now, known, number, asks);
  if (parts === undefined) return undefined;
  if (parts === null) {
    // The long way verifies the token, and the next request has a number of its own.
    bearers.delete(authorization);
    return undefined;
  }
  if (parts === true) {
    if (!page.isPacked) {
      page.isPacked = true;
      page.slots.clear();
    }
    return undefined;
  }
  if (parts === false) {
    return number >= 0 ? undefined : begin(url, request, now, asks, env, context);
  }
  if (alike) hold(slot, parts, now);
  return answerOf(parts);
}

export default {
  fetch(request, env, context) {
    revive();
    try {
      return hit(request, env, context) ?? longWay(request, env, context);
    } catch (error) {
      note(error);
      throw error;
    }
  },
};
