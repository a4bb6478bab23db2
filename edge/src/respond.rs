//! Answers to clients: which fields leave, and what the edge adds. `Surrogate-*` stays inside unless a debug token
//! asks for it.
use crate::access::REQUEST_ID;
use crate::isolate::{self, Body};
use crate::js;
use crate::web::ORIGIN;
use gateway_rules::web::{ALLOWED, EXPOSED, WebOrigins, is_about_web_apps};
use kv_schemas::Problem;
use kv_schemas::header::{CACHE_STATUS, CDN_CACHE_CONTROL, PROBLEM_JSON, SURROGATE_AS_OF, is_internal};
use surrogate_cache::encoding::weakened;
use surrogate_cache::lookup::Show;
use surrogate_cache::phase::CacheStatus;
use surrogate_cache::policy::ResponseHead;
use surrogate_cache::range::Cut;
use surrogate_cache::{Entry, Fields, Phase, Reason};
use wasm_bindgen::{JsCast, JsValue};

/// This cache's name in `Cache-Status`.
pub const NAME: &str = "nextream-edge";

/// RFC 9110 section 15.4.5: what a 304 carries.
const OF_A_304: [&str; 7] = ["cache-control", "content-location", "date", "etag", "expires", "vary", "last-modified"];

/// What is said of an answer that is for one viewer.
const PRIVATE: (&str, &str, bool) = ("cache-control", "private, no-cache", true);

const NO_STORE: (&str, &str) = ("cache-control", "no-store");

/// What an answer is to look like.
#[derive(Clone, Copy, Default)]
pub struct Shape {
    pub is_head: bool,
    /// Keep every `Surrogate-*` field.
    pub debug: bool,
    /// Keep `Surrogate-As-Of`: whoever writes through the edge is told what to demand afterwards.
    pub as_of: bool,
    /// It is any origin's. Then the request's id is origin's to give, and `CDN-Cache-Control` is kept. RFC 9213 section 3.1: caches of
    /// this kind "will typically forward this header so that downstream CDN caches can use it as well. However, they MAY remove
    /// it", as in front of one API's viewers.
    pub proxied: bool,
    /// What it says of web apps is the edge's to say (`WEB_ORIGINS`).
    pub web: bool,
    /// The client does not take the body's coding.
    pub unpack: bool,
    /// The answer is for who bears this token: no shared cache on the way may keep it, and a browser has to ask again, since
    /// somebody else may sit there then.
    pub private: bool,
    /// Request fields another value of which may get another answer.
    pub varies: &'static [&'static str],
}

impl Shape {
    fn keeps(&self, name: &str) -> bool {
        // In front of the API the edge names each request itself. Origin says the id it was asked with: of a stored answer that is
        // another request's.
        (self.proxied || name != REQUEST_ID)
            && !(self.web && is_about_web_apps(name))
            && (self.debug
                || !is_internal(name)
                || (self.proxied && name == CDN_CACHE_CONTROL)
                || (self.as_of && name == SURROGATE_AS_OF))
    }

    /// What caches between client and edge are told, in place of or beside what origin says: field, value, and whether it
    /// takes the place of what is there.
    fn told(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        let private = self.private.then_some(PRIVATE);
        private.into_iter().chain(self.varies.iter().map(|name| ("vary", *name, false)))
    }
}

/// `coded`: the body's bytes are already what `Content-Encoding` says, so that the platform must not pack them again.
fn build(
    body: Option<JsValue>,
    status: u16,
    headers: &web_sys::Headers,
    coded: bool,
    unpack: bool,
) -> Result<web_sys::Response, JsValue> {
    let mut body = body.filter(|_| !is_null_body(status)).unwrap_or(JsValue::NULL);
    if coded {
        say_that_coding_varies(headers)?;
    }
    if unpack {
        describe_unpacked(headers)?;
        if !body.is_null() {
            body = unpacked(&body)?.into();
        }
    }
    let init = web_sys::ResponseInit::new();
    init.set_status(status);
    init.set_headers(headers);
    new_response(&body, &init, coded && !unpack)
}

#[wasm_bindgen::prelude::wasm_bindgen]
extern "C" {
    type DecompressionStream;
    #[wasm_bindgen(constructor, catch)]
    fn new(format: &str) -> Result<DecompressionStream, JsValue>;

    type Pipeable;
    #[wasm_bindgen(method, catch, js_name = pipeThrough)]
    fn pipe_through(this: &Pipeable, through: &DecompressionStream) -> Result<JsValue, JsValue>;
}

/// A body as a stream.
pub fn stream_of(body: &JsValue) -> Result<web_sys::ReadableStream, JsValue> {
    match body.dyn_ref::<web_sys::ReadableStream>() {
        Some(stream) => Ok(stream.clone()),
        None => new_response(body, &web_sys::ResponseInit::new(), false)?.body().ok_or(JsValue::NULL),
    }
}

/// A gzipped body as a stream of what it holds.
pub fn unpacked(body: &JsValue) -> Result<web_sys::ReadableStream, JsValue> {
    let through = DecompressionStream::new("gzip")?;
    Ok(stream_of(body)?.unchecked_ref::<Pipeable>().pipe_through(&through)?.unchecked_into())
}

/// What is said of the very bytes of a content (RFC 9530 section 2, RFC 1864), and of those of the whole in its coding.
const OF_THE_CONTENT: [&str; 2] = ["content-digest", "content-md5"];
const OF_THE_CODED: [&str; 4] = ["content-encoding", "content-length", "repr-digest", "digest"];

pub fn set(headers: &web_sys::Headers, fields: &[(&str, &str)]) -> Result<(), JsValue> {
    fields.iter().try_for_each(|(name, value)| headers.set(name, value))
}

fn delete(headers: &web_sys::Headers, names: &[&str]) -> Result<(), JsValue> {
    names.iter().try_for_each(|name| headers.delete(name))
}

/// What the fields say of a body that is unpacked on its way out.
fn describe_unpacked(headers: &web_sys::Headers) -> Result<(), JsValue> {
    delete(headers, &OF_THE_CODED)?;
    delete(headers, &OF_THE_CONTENT)?;
    if let Some(etag) = headers.get("etag")? {
        headers.set("etag", &weakened(&etag))?;
    }
    Ok(())
}

/// RFC 9110 section 12.5.5: caches behind this one have to know that the coding was chosen.
pub fn say_that_coding_varies(headers: &web_sys::Headers) -> Result<(), JsValue> {
    if !has_member(&headers.get("vary")?.unwrap_or_default(), &["accept-encoding", "*"]) {
        headers.append("vary", "accept-encoding")?;
    }
    Ok(())
}

/// Whether a list has one of these members.
pub fn has_member(list: &str, members: &[&str]) -> bool {
    list.split(',').any(|member| members.iter().any(|one| member.trim().eq_ignore_ascii_case(one)))
}

fn new_response(body: &JsValue, init: &web_sys::ResponseInit, coded: bool) -> Result<web_sys::Response, JsValue> {
    if coded {
        js_sys::Reflect::set(init, &"encodeBody".into(), &"manual".into())?;
    }
    js::with_init(body, init)
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

/// What is said of a stored answer.
fn fields_of(entry: &Entry<Body>, not_modified: bool, age_ms: u64, status: &CacheStatus, shape: &Shape) -> Fields {
    let stored = &entry.head.fields;
    let mut fields = Fields::with_capacity(stored.len().saturating_add(8), stored.bytes().saturating_add(256));
    for (name, value) in stored.iter() {
        // Of what is told, this alone takes the place of what is there.
        let is_told = name == "age" || (shape.private && name == PRIVATE.0);
        if !is_told && shape.keeps(name) && (!not_modified || OF_A_304.contains(&name)) {
            fields.push(name, value);
        }
    }
    for (name, value, _) in shape.told() {
        fields.push(name, value);
    }
    fields.push("age", (age_ms / 1000).to_string());
    fields.push(CACHE_STATUS, rendered(status, shape, &entry.key));
    if shape.debug
        && let Some(as_of) = &entry.as_of
    {
        fields.set(SURROGATE_AS_OF, as_of.to_string());
    }
    fields
}

/// The second argument of `new Response`, as JSON, for the whole of a stored answer or that it is not modified. It is for whoever
/// asks, so it names no web app but one that it names to all.
pub fn ready(
    entry: &Entry<Body>,
    code: u16,
    age_ms: u64,
    status: &CacheStatus,
    shape: &Shape,
    web_origins: &WebOrigins,
) -> String {
    let mut fields = fields_of(entry, code == 304, age_ms, status, shape);
    let coded = mark_coded(entry, &mut fields);
    if let Some(named) = web_origins.named(None) {
        fields.push(ALLOWED, named);
        fields.push(EXPOSED.0, EXPOSED.1);
    }
    if web_origins.depends_on_origin() {
        fields.push("vary", ORIGIN);
    }
    init_text(code, &fields, coded)
}

/// Whether the body is packed; then the fields say that the coding was chosen.
fn mark_coded(entry: &Entry<Body>, fields: &mut Fields) -> bool {
    let coded = entry.head.fields.has("content-encoding");
    if coded && !has_member(&fields.joined("vary").unwrap_or_default(), &["accept-encoding", "*"]) {
        fields.push("vary", "accept-encoding");
    }
    coded
}

/// A stored answer, or what of it the client is to have.
pub fn stored(
    entry: &Entry<Body>,
    show: &Show,
    age_ms: u64,
    status: &CacheStatus,
    shape: &Shape,
) -> Result<web_sys::Response, JsValue> {
    let mut fields = fields_of(entry, *show == Show::NotModified, age_ms, status, shape);
    let mut code = entry.head.status;
    let body = match show {
        Show::NotModified => {
            code = 304;
            None
        }
        Show::Range(Cut::Unsatisfiable { content_range }) => {
            fields.set("content-range", content_range.as_str());
            code = 416;
            None
        }
        Show::Range(Cut::Bytes { offset, length, content_range }) => {
            fields.set("content-range", content_range.as_str());
            fields.retain(|name| !OF_THE_CONTENT.contains(&name));
            code = 206;
            // Bodies are far below 4 GiB: an isolate has 128 MB.
            let place = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            Some(entry.body.bytes.subarray(place(*offset), place(offset.saturating_add(*length))))
        }
        Show::Whole if shape.is_head => {
            // RFC 9110 section 8.6: "A server MUST NOT send a Content-Length header field in any response with a status code of
            // 1xx (Informational) or 204 (No Content)".
            if !is_null_body(code) {
                fields.set("content-length", entry.body_bytes.to_string());
            }
            None
        }
        Show::Whole => Some(entry.body.bytes.clone()),
    };
    let coded = mark_coded(entry, &mut fields);
    let mut body = body.filter(|_| !is_null_body(code)).map_or(JsValue::NULL, JsValue::from);
    if shape.unpack {
        fields.retain(|name| !OF_THE_CODED.contains(&name) && !OF_THE_CONTENT.contains(&name));
        if let Some(weak) = fields.get("etag").map(weakened) {
            fields.set("etag", weak);
        }
        if !body.is_null() {
            body = unpacked(&body)?.into();
        }
    }
    from_text(&body, code, &fields, coded && !shape.unpack)
}

/// Statuses whose answers have no body (Fetch standard, "null body status").
pub fn is_null_body(status: u16) -> bool {
    matches!(status, 101 | 204 | 205 | 304)
}

/// The one field whose lines must not be joined (RFC 9110 section 5.3).
const LINES: &str = "set-cookie";

/// `new Response(body, init)`, all of `init` in one string: each crossing costs more than the bytes it carries.
fn from_text(body: &JsValue, status: u16, fields: &Fields, coded: bool) -> Result<web_sys::Response, JsValue> {
    let init: web_sys::ResponseInit = js_sys::JSON::parse(&init_text(status, fields, coded))?.unchecked_into();
    let response = js::with_init(body, &init)?;
    for line in fields.all(LINES) {
        response.headers().append(LINES, line)?;
    }
    Ok(response)
}

/// An init for `new Response` as JSON.
fn init_text(status: u16, fields: &Fields, coded: bool) -> String {
    let mut init = String::with_capacity(fields.bytes().saturating_add(256));
    init.push_str("{\"status\":");
    init.push_str(&status.to_string());
    if coded {
        init.push_str(",\"encodeBody\":\"manual\"");
    }
    init.push_str(",\"headers\":{");
    let mut names: Vec<&str> = Vec::with_capacity(24);
    for (name, value) in fields.iter() {
        if name == LINES || names.contains(&name) {
            continue;
        }
        if !names.is_empty() {
            init.push(',');
        }
        names.push(name);
        push_json(&mut init, name);
        init.push(':');
        match fields.all(name).nth(1) {
            None => push_json(&mut init, value),
            Some(_) => push_json(&mut init, &fields.joined(name).unwrap_or_default()),
        }
    }
    init.push_str("}}");
    init
}

/// A JSON string (RFC 8259 section 7).
pub fn push_json(text: &mut String, value: &str) {
    text.push('"');
    let mut rest = value;
    // What has to be escaped is ASCII; all before it stays as it is.
    while let Some(at) = rest.bytes().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)) {
        let (plain, special) = rest.split_at_checked(at).unwrap_or_default();
        text.push_str(plain);
        let mut others = special.chars();
        match others.next() {
            Some(c @ ('"' | '\\')) => {
                text.push('\\');
                text.push(c);
            }
            Some(c) => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            None => {}
        }
        rest = others.as_str();
    }
    text.push_str(rest);
    text.push('"');
}

/// Origin's answer on its way through, with this body in place of its own.
pub struct Forwarded<'a> {
    pub response: &'a web_sys::Response,
    pub head: &'a ResponseHead,
    pub body: Option<JsValue>,
    /// The client has it already: 304.
    pub not_modified: bool,
    pub key: &'a str,
}

pub fn forwarded(from: Forwarded<'_>, status: &CacheStatus, shape: &Shape) -> Result<web_sys::Response, JsValue> {
    let headers = web_sys::Headers::new_with_headers(&from.response.headers())?;
    js::strip(&headers, &from.head.fields, &|name| shape.keeps(name))?;
    if let Some(date) = from.head.fields.get("date") {
        headers.set("date", date)?;
    }
    for (name, value, replaces) in shape.told() {
        if replaces { headers.set(name, value) } else { headers.append(name, value) }?;
    }
    let mut code = from.head.status;
    if from.not_modified {
        code = 304;
        delete(&headers, &["content-length", "content-type", "content-range"])?;
    }
    let origin_ms = from.head.response_time_ms.saturating_sub(from.head.request_time_ms);
    headers.append("server-timing", &format!("origin;dur={origin_ms}"))?;
    headers.append(CACHE_STATUS, &rendered(status, shape, from.key))?;
    build(from.body, code, &headers, from.head.fields.has("content-encoding"), shape.unpack)
}

/// An RFC 9457 error of the edge's own.
pub fn problem(problem: &Problem, status: Option<&CacheStatus>) -> Result<web_sys::Response, JsValue> {
    let headers = web_sys::Headers::new()?;
    set(&headers, &[("content-type", PROBLEM_JSON), NO_STORE])?;
    match problem.status {
        401 => headers.set("www-authenticate", "Bearer")?,
        405 => headers.set("allow", "POST")?,
        503 => headers.set("retry-after", "1")?,
        _ => {}
    }
    if let Some(status) = status {
        headers.set(CACHE_STATUS, &status.render(NAME))?;
    }
    build(Some(JsValue::from_str(&problem.to_json())), problem.status, &headers, false, false)
}

/// A request that got no answer from cache or origin, and is counted so.
pub fn fail(problem_: &Problem, reason: Reason) -> Result<web_sys::Response, JsValue> {
    let status = CacheStatus { reason: Some(reason), ..CacheStatus::new(Phase::Failed) };
    isolate::count(&status);
    problem(problem_, Some(&status))
}

/// The same, for a problem that needs no more than a title.
pub fn refuse(status: u16, slug: &str, title: &str, reason: Reason) -> Result<web_sys::Response, JsValue> {
    fail(&Problem::new(status, slug, title), reason)
}

/// What is said of an answer that the edge makes to what is never stored; it is counted so.
pub fn bypassed() -> Result<web_sys::Headers, JsValue> {
    let status = CacheStatus { reason: Some(Reason::Method), ..CacheStatus::new(Phase::Bypass) };
    isolate::count(&status);
    let headers = web_sys::Headers::new()?;
    set(&headers, &[NO_STORE, (CACHE_STATUS, &status.render(NAME))])?;
    Ok(headers)
}

/// A small JSON document of the edge's own.
pub fn json(status: u16, text: &str) -> web_sys::Response {
    plain(status, "application/json", text)
}

pub fn plain(status: u16, content_type: &str, text: &str) -> web_sys::Response {
    let make = || {
        let headers = web_sys::Headers::new()?;
        set(&headers, &[("content-type", content_type), NO_STORE])?;
        build(Some(JsValue::from_str(text)), status, &headers, false, false)
    };
    make().unwrap_or_else(|_: JsValue| web_sys::Response::error())
}
