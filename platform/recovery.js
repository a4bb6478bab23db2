// What brings Wasm back after a panic or a trap, for both Workers' entries: the instance must not be used any more, and
// what it was working on is lost.
import * as wasm from "./index.js";

Error.stackTraceLimit = 100;

// Set by the panic hook, or here, when Wasm has trapped.
const state = wasm.__worker_init_state();

export function note(error) {
  if (error instanceof WebAssembly.RuntimeError) {
    console.error("Critical", error);
    state.criticalError = true;
  }
}

// A trap in a callback reaches nobody else.
addEventListener("error", (event) => note(event.error));

// The number of the instance that is good for use: another one than before has nothing remembered.
export function instance() {
  if (state.criticalError) {
    console.log("Reinitializing Wasm application");
    wasm.__wbg_reset_state();
    state.criticalError = false;
    state.instanceId++;
  }
  return state.instanceId;
}
