//! Answers to clients: which fields leave, and what the edge adds. `Surrogate-*` stays inside unless a debug token
//! asks for it.
use crate::isolate::Body;
use kv_schemas::Problem;
use kv_schemas::header::{CACHE_STATUS, PROBLEM_JSON, is_internal};
use surrogate_cache::Entry;
use surrogate_cache::phase::CacheStatus;
use wasm_bindgen::JsValue;

/// This cache's name in `Cache-Status`.
pub const NAME: &str = "nextream-edge";

/// RFC 9110 section 15.4.5: what a 304 carries.
const OF_A_304: [&str; 7] = ["cache-control", "content-location", "date", "etag", "expires", "vary", "last-modified"];

/// What an answer is to look like.
#[derive(Clone, Copy, Default)]
pub struct Shape {
    pub is_head: bool,
    pub not_modified: bool,
    /// Keep every `Surrogate-*` field.
    pub debug: bool,
    /// Keep `Surrogate-As-Of`: whoever writes through the edge is told what to demand afterwards.
    pub as_of: bool,
}

fn build(body: Option<&JsValue>, status: u16, headers: &web_sys::Headers) -> Result<web_sys::Response, JsValue> {
    let init = web_sys::ResponseInit::new();
    init.set_status(status);
    init.set_headers(headers);
    let body = body.filter(|_| !matches!(status, 101 | 204 | 205 | 304));
    new_response(body.unwrap_or(&JsValue::NULL), &init)
}

#[wasm_bindgen::prelude::wasm_bindgen]
extern "C" {
    /// `new Response(body, init)` with any kind of body, for which `web-sys` has a dozen forms.
    #[wasm_bindgen(js_name = Response)]
    type AnyResponse;
    #[wasm_bindgen(constructor, catch, js_class = "Response")]
    fn new(body: &JsValue, init: &web_sys::ResponseInit) -> Result<AnyResponse, JsValue>;
}

fn new_response(body: &JsValue, init: &web_sys::ResponseInit) -> Result<web_sys::Response, JsValue> {
    use wasm_bindgen::JsCast;
    AnyResponse::new(body, init).map(|response| response.unchecked_into())
}

/// Our member of `Cache-Status`, with the cache key (RFC 9211 section 2.7) for debug tokens.
fn rendered(status: &CacheStatus, shape: &Shape, key: &str) -> String {
    let mut text = status.render(NAME);
    if shape.debug {
        text.push_str("; key=\"");
        // A Structured Field string is printable ASCII, with quotes and backslashes escaped.
        for c in key.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }) {
            if matches!(c, '"' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push('"');
    }
    text
}

/// A stored answer.
pub fn stored(
    entry: &Entry<Body>,
    age_ms: u64,
    status: &CacheStatus,
    shape: &Shape,
) -> Result<web_sys::Response, JsValue> {
    let headers = web_sys::Headers::new()?;
    for (name, value) in entry.head.fields.iter() {
        let leaves = (shape.debug || !is_internal(name)) && (!shape.not_modified || OF_A_304.contains(&name));
        if leaves {
            headers.append(name, value)?;
        }
    }
    headers.set("age", &(age_ms / 1000).to_string())?;
    headers.append(CACHE_STATUS, &rendered(status, shape, &entry.key))?;
    if shape.debug
        && let Some(as_of) = &entry.as_of
    {
        headers.set(kv_schemas::header::SURROGATE_AS_OF, &as_of.to_string())?;
    }
    if shape.not_modified {
        return build(None, 304, &headers);
    }
    if shape.is_head {
        headers.set("content-length", &entry.body_bytes.to_string())?;
        return build(None, entry.head.status, &headers);
    }
    build(Some(entry.body.0.as_ref()), entry.head.status, &headers)
}

/// Origin's answer on its way through, with this body in place of its own. `origin_ms`: how long its head took.
pub fn forwarded(
    response: &web_sys::Response,
    body: Option<&JsValue>,
    status: &CacheStatus,
    shape: &Shape,
    key: &str,
    origin_ms: u64,
) -> Result<web_sys::Response, JsValue> {
    let init = web_sys::ResponseInit::new();
    init.set_status(if shape.not_modified { 304 } else { response.status() });
    init.set_status_text(&if shape.not_modified { "Not Modified".into() } else { response.status_text() });
    init.set_headers(&response.headers());
    let has_body = !shape.not_modified && !shape.is_head && !matches!(response.status(), 101 | 204 | 205 | 304);
    let answer = new_response(body.filter(|_| has_body).unwrap_or(&JsValue::NULL), &init)?;
    let headers = answer.headers();
    if !shape.debug {
        for name in ["surrogate-key", "cache-tag", "surrogate-control", "cdn-cache-control"] {
            headers.delete(name)?;
        }
        if !shape.as_of {
            headers.delete("surrogate-as-of")?;
        }
    }
    for name in ["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"] {
        headers.delete(name)?;
    }
    if shape.not_modified {
        headers.delete("content-length")?;
        headers.delete("content-type")?;
    }
    headers.append("server-timing", &format!("origin;dur={origin_ms}"))?;
    headers.append(CACHE_STATUS, &rendered(status, shape, key))?;
    Ok(answer)
}

/// An RFC 9457 error of the edge's own.
pub fn problem(problem: &Problem, status: Option<&CacheStatus>) -> Result<web_sys::Response, JsValue> {
    let headers = web_sys::Headers::new()?;
    headers.set("content-type", PROBLEM_JSON)?;
    headers.set("cache-control", "no-store")?;
    match problem.status {
        401 => headers.set("www-authenticate", "Bearer")?,
        405 => headers.set("allow", "POST")?,
        503 => headers.set("retry-after", "1")?,
        _ => {}
    }
    if let Some(status) = status {
        headers.set(CACHE_STATUS, &status.render(NAME))?;
    }
    build(Some(&JsValue::from_str(&problem.to_json())), problem.status, &headers)
}

/// A small JSON document of the edge's own.
pub fn json(status: u16, text: &str) -> web_sys::Response {
    plain(status, "application/json", text)
}

pub fn plain(status: u16, content_type: &str, text: &str) -> web_sys::Response {
    let make = || {
        let headers = web_sys::Headers::new()?;
        headers.set("content-type", content_type)?;
        headers.set("cache-control", "no-store")?;
        build(Some(&JsValue::from_str(text)), status, &headers)
    };
    make().unwrap_or_else(|_: JsValue| web_sys::Response::error())
}
