// What the runtime calls: a plain object, since a class of the `cloudflare:workers` kind, made anew for each request, costs
// more than a hit does. It passes requests to Wasm and brings Wasm back after a panic; it decides nothing. Which requests
// may take the short way, and by which fields they differ, `edge/src/hits.rs` says; here is only counted and remembered.
import * as wasm from "./index.js";
import { instance, note } from "./recovery.js";

// Slots that Wasm gave out, by URL and selecting fields. As many as there can be; then both sides start over.
const SLOTS_MAX = 4096;
// Longer URLs are rare, and would fill memory.
const SIGNATURE_LENGTH_MAX = 1024;
const slots = new Map();
// Numbers and classes of who has shown a good token, by the whole of `Authorization`; as many as there can be.
const BEARERS_MAX = 4096;
// The longest token, and its scheme: one token in many spellings would fill memory.
const AUTHORIZATION_LENGTH_MAX = 4096 + 8;
const bearers = new Map();
let guards;
let selects;
let countsBearers;
let countsCountry;
// The field that says who asks, if reads are counted.
let client;

let lives = instance();

// After a trap a new instance takes over, with nothing remembered.
function revive() {
  const current = instance();
  if (current !== lives) {
    lives = current;
    slots.clear();
    bearers.clear();
    guards = undefined;
  }
}

function readRules() {
  const rules = wasm.rules();
  if (rules === undefined) return false;
  const lines = rules.split("\n");
  [guards, selects] = lines.map((line) => line.split(","));
  [countsBearers, countsCountry] = [lines[2] !== "", lines[3] !== ""];
  client = lines[4];
  return true;
}

// What is known of who asks; `undefined` if the long way has to find out.
function bearerOf(authorization) {
  if (authorization.length > AUTHORIZATION_LENGTH_MAX) return undefined;
  const known = bearers.get(authorization);
  if (known !== undefined) return known;
  const told = wasm.bearer_of(authorization);
  if (told === undefined) return undefined;
  const [number, group] = told.split("\n");
  const bearer = { number: Number(number), group };
  bearers.set(authorization, bearer);
  return bearer;
}

// The answer, if it is a plain hit in memory.
function hit(request) {
  if (request.method !== "GET" || (guards === undefined && !readRules())) return undefined;
  const headers = request.headers;
  for (let at = 0; at < guards.length; at++) if (headers.has(guards[at])) return undefined;
  if (request.body !== null) return undefined;
  let signature = request.url;
  let number = -1;
  if (countsBearers) {
    const authorization = headers.get("authorization");
    if (authorization !== null) {
      if (bearers.size >= BEARERS_MAX) {
        bearers.clear();
        wasm.forget_bearers();
      }
      const bearer = bearerOf(authorization);
      if (bearer === undefined) return undefined;
      number = bearer.number;
      signature += `\n${bearer.group}`;
    }
    if (countsCountry) signature += `\n${request.cf?.country ?? "\0"}`;
  }
  // No field holds a NUL.
  for (let at = 0; at < selects.length; at++) signature += `\n${headers.get(selects[at]) ?? "\0"}`;
  let slot = slots.get(signature);
  if (slot === undefined) {
    if (signature.length > SIGNATURE_LENGTH_MAX) return undefined;
    if (slots.size >= SLOTS_MAX) {
      slots.clear();
      wasm.forget_slots();
    }
    slot = wasm.slot_of(request);
    if (slot > -2) slots.set(signature, slot);
  }
  if (slot < 0) return undefined;
  const asks = client === "" ? undefined : (headers.get(client) ?? undefined);
  return wasm.hit(slot, Date.now(), headers.get("if-none-match") ?? undefined, number, asks);
}

export default {
  fetch(request, env, context) {
    revive();
    try {
      const answer = hit(request) ?? wasm.fetch(request, env, context);
      if (answer instanceof Promise) answer.catch(note);
      return answer;
    } catch (error) {
      note(error);
      throw error;
    }
  },
};
