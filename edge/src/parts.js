// What Wasm has for an answer, as `entry.js` gives it to `new Response`. One call in place of one for each part.
//
// `kept`: for more than one answer; the platform copies its own kind of headers quicker than it reads an object's. Nothing, if
// these are no header fields: bytes of a tier are not looked at for that. An exception would be the end of the instance.
export function partsOf(body, text, kept, line) {
  try {
    const init = JSON.parse(text);
    if (kept) init.headers = new Headers(init.headers);
    return { body, init, line, named: false };
  } catch {
    return undefined;
  }
}
