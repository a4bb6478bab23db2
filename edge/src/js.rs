//! The few calls into the platform that the `worker` crate has no thin form for, each typed once.
use crate::held::{Held, Share};
use js_sys::{Array, Function, Object, Promise, Reflect, Uint8Array};
use std::time::Duration;
use surrogate_cache::Fields;
use surrogate_cache::fields::remove_hop_by_hop;
use surrogate_cache::lookup::Failure;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use worker::Delay;

pub use platform::{binding, random};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(catch, js_name = fetch)]
    fn global_fetch(request: &web_sys::Request, init: &web_sys::RequestInit) -> Result<Promise, JsValue>;

    /// `String(error)`.
    #[wasm_bindgen(js_name = String)]
    pub fn text_of(error: &JsValue) -> String;

    #[wasm_bindgen(js_name = setTimeout)]
    fn call_after(callback: &Function, ms: f64) -> JsValue;

    /// What is written into it comes out as it is; a write ends when its bytes were read.
    type Pipe;
    #[wasm_bindgen(constructor, catch, js_class = "FixedLengthStream")]
    fn of_length(length: f64) -> Result<Pipe, JsValue>;
    #[wasm_bindgen(constructor, catch, js_class = "IdentityTransformStream")]
    fn of_any_length() -> Result<Pipe, JsValue>;
    #[wasm_bindgen(method, getter)]
    fn readable(this: &Pipe) -> JsValue;
    #[wasm_bindgen(method, getter)]
    fn writable(this: &Pipe) -> JsValue;

    /// `new Response(body, init)` with any kind of body, for which `web-sys` has a dozen forms.
    #[wasm_bindgen(js_name = Response)]
    type AnyResponse;
    #[wasm_bindgen(constructor, catch, js_class = "Response")]
    fn new(body: &JsValue, init: &web_sys::ResponseInit) -> Result<AnyResponse, JsValue>;

    #[wasm_bindgen(js_name = URL)]
    type Url;
    #[wasm_bindgen(constructor, catch, js_class = "URL")]
    fn new(url: &str, base: &str) -> Result<Url, JsValue>;
    #[wasm_bindgen(method, getter)]
    fn href(this: &Url) -> String;

    type Content;
    #[wasm_bindgen(method, js_name = pipeTo)]
    fn pipe_to(this: &Content, writable: &JsValue, options: &Object) -> Promise;
}

/// A URL as the platform writes it: so `Request` does what it is made of.
pub fn href(url: &str, base: &str) -> Option<String> {
    Url::new(url, base).ok().map(|url| url.href())
}

/// What the platform knows of a request: where its client is, and the location it came to.
pub fn place(request: &web_sys::Request) -> Option<JsValue> {
    Reflect::get(request, &"cf".into()).ok().filter(JsValue::is_object)
}

/// One word of that: the `country` of the client, the `colo` of the location.
pub fn place_word(request: &web_sys::Request, name: &str) -> Option<String> {
    Reflect::get(&place(request)?, &name.into()).ok()?.as_string()
}

/// Why a call to another party brought nothing.
pub enum CallError {
    Timeout,
    Refused(JsValue),
    /// The request's content did not arrive whole, so nobody can have done what it asks for.
    Unsent(JsValue),
    /// Not even asked: the upstream has failed so often that it is left alone for so long.
    LeftAlone {
        retry_after_ms: u64,
    },
}

impl CallError {
    /// For the log.
    pub fn text(&self) -> String {
        match self {
            Self::Timeout => "no answer in time".into(),
            Self::Refused(error) => text_of(error),
            Self::Unsent(error) => format!("its content was not sent to the end: {}", text_of(error)),
            Self::LeftAlone { retry_after_ms } => format!("not asked for {retry_after_ms} ms"),
        }
    }

    /// What it is to who waits for an answer of origin.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Timeout => Failure::TimedOut,
            Self::Refused(_) | Self::Unsent(_) => Failure::Unreachable,
            Self::LeftAlone { .. } => Failure::LeftAlone,
        }
    }

    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::LeftAlone { retry_after_ms } => Some(retry_after_ms.div_ceil(1_000).max(1)),
            _ => None,
        }
    }
}

/// Awaits a promise for at most `ms`.
pub async fn within(promise: Promise, ms: u64) -> Result<JsValue, CallError> {
    let delay = Delay::from(Duration::from_millis(ms));
    futures_util::pin_mut!(delay);
    match futures_util::future::select(JsFuture::from(promise), delay).await {
        futures_util::future::Either::Left((Ok(value), _)) => Ok(value),
        futures_util::future::Either::Left((Err(error), _)) => Err(CallError::Refused(error)),
        futures_util::future::Either::Right(_) => Err(CallError::Timeout),
    }
}

pub fn refused(error: JsValue) -> CallError {
    CallError::Refused(error)
}

/// How long a request's content may take to be sent, however much it is and however slow its client.
const CONTENT_MS_MAX: u64 = 3_600_000;

/// How long an answer may be on its way here when the request's content cannot be sent any further.
const EARLY_MS: u64 = 500;

/// Leads a request's content through a pipe, of which `init` gets the other end. Settled when all of it was taken, or its
/// client has left. Then the pipe stays open: the runtime ends a chunked request whose content breaks off as if that were all
/// of it, so the request itself has to be broken off.
fn pipe(request: &web_sys::Request, content: &JsValue, init: &web_sys::RequestInit) -> Result<Promise, JsValue> {
    let length = request.headers().get("content-length")?.and_then(|length| length.parse::<u64>().ok());
    let pipe = match length {
        // Below 2^53, or else nobody could send it.
        Some(length) => Pipe::of_length(length as f64),
        None => Pipe::of_any_length(),
    }?;
    init.set_body(&pipe.readable());
    let options = Object::new();
    Reflect::set(&options, &"preventAbort".into(), &JsValue::TRUE)?;
    Ok(content.unchecked_ref::<Content>().pipe_to(&pipe.writable(), &options))
}

/// Sends a request, waiting at most `ms` for the head of the answer once the request's content is sent: it comes as fast
/// as its client sends it. A coded body is not unpacked when it is read: what is stored and passed on is what origin
/// sent, and its length is the one origin declared. Unless `body_ms` is 0, the answer is broken off when it has not
/// ended so long after its head was due.
pub async fn send(request: &web_sys::Request, ms: u64, body_ms: u64) -> Result<web_sys::Response, CallError> {
    let abort = web_sys::AbortController::new().map_err(refused)?;
    let init = web_sys::RequestInit::new();
    init.set_signal(Some(&abort.signal()));
    // The edge passes redirects on: following them would cache one URL under another's name.
    init.set_redirect(web_sys::RequestRedirect::Manual);
    Reflect::set(&init, &"encodeResponseBody".into(), &"manual".into()).map_err(refused)?;
    // Or the platform looks into a cache of its own first, and keeps what it thinks may be kept: by default whatever looks like a
    // file, by its URL alone, and no purge reaches it.
    init.set_cache(web_sys::RequestCache::NoStore);
    // `fetch` takes the content of a GET or HEAD with the request alone, not from a pipe; little of it is ever sent.
    let sent = match request.body() {
        Some(content) if !matches!(request.method().as_str(), "GET" | "HEAD") => {
            Some(pipe(request, &content, &init).map_err(refused)?)
        }
        _ => None,
    };
    let answer = global_fetch(request, &init).map_err(refused)?;
    if let Some(sent) = &sent {
        // Origin may answer before it has read all, and a client that leaves breaks the pipe.
        if let Err(CallError::Refused(error)) = within(Promise::race(&Array::of2(sent, &answer)), CONTENT_MS_MAX).await
        {
            // So does an origin that answers, or goes away, without reading what it was sent: then the request has an end by
            // itself. With a client gone it has none.
            match within(answer.clone(), EARLY_MS).await {
                Ok(_) => {}
                Err(CallError::Timeout) => {
                    abort.abort();
                    return Err(CallError::Unsent(error));
                }
                Err(other) => return Err(other),
            }
        }
    }
    if body_ms > 0 {
        let stop: Function = Reflect::get(&abort, &"abort".into()).map_err(refused)?.unchecked_into();
        // Below 2^53: an operator's setting.
        call_after(&stop.bind0(&abort), ms.saturating_add(body_ms) as f64);
    }
    match within(answer, ms).await {
        Ok(answer) => of_origin(answer.unchecked_into()),
        Err(error) => {
            abort.abort();
            Err(error)
        }
    }
}

/// Where origin cannot be reached the platform answers in its place, with a page of its own and a status that no origin has; by
/// itself the runtime fails.
fn of_origin(response: web_sys::Response) -> Result<web_sys::Response, CallError> {
    let status = response.status();
    if !matches!(status, 520..=527 | 530) {
        return Ok(response);
    }
    if let Some(body) = response.body() {
        let _ = body.cancel();
    }
    Err(match status {
        // No connection within the platform's time, or no answer.
        522 | 524 => CallError::Timeout,
        _ => CallError::Refused(format!("the platform answers {status} for it").into()),
    })
}

/// RFC 9110 section 15: "Values outside the range 100..599 are invalid", and are to be taken for a server error. The
/// platform cannot pass them on either.
pub fn final_status(response: &web_sys::Response) -> Result<u16, CallError> {
    match response.status() {
        status @ 200..=599 => Ok(status),
        status => Err(CallError::Refused(format!("an answer with status {status}").into())),
    }
}

/// All header fields, names in lower case. One string for all of them: each crossing into Wasm costs more than the
/// bytes it carries.
pub fn fields(headers: &web_sys::Headers) -> Fields {
    // Headers iterate as [name, value] pairs, names already in lower case. Neither holds a NUL (RFC 9110 section 5.5).
    let joined = String::from(Array::from(headers).flat(1).join("\0"));
    let mut fields = Fields::with_capacity(24, joined.len());
    let mut parts = joined.split('\0');
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        fields.push(name, value);
    }
    fields
}

/// A response of the edge's own making. What `content-encoding` it names is for the platform to apply.
pub fn respond(body: &JsValue, status: u16, headers: &web_sys::Headers) -> Result<web_sys::Response, JsValue> {
    let init = web_sys::ResponseInit::new();
    init.set_status(status);
    init.set_headers(headers);
    with_init(body, &init)
}

/// `new Response(body, init)`.
pub fn with_init(body: &JsValue, init: &web_sys::ResponseInit) -> Result<web_sys::Response, JsValue> {
    AnyResponse::new(body, init).map(JsCast::unchecked_into)
}

/// The same answer as a HEAD has it.
pub fn without_body(response: &web_sys::Response) -> Result<web_sys::Response, JsValue> {
    if let Some(body) = response.body() {
        let _ = body.cancel();
    }
    respond(&JsValue::NULL, response.status(), &response.headers())
}

/// Takes out of a message on its way what speaks of one connection, and what is not to be kept. What `all` of it was is
/// known already.
///
/// In place: a value that is no UTF-8 survives only where nobody reads it.
pub fn strip(headers: &web_sys::Headers, all: &Fields, keeps: &dyn Fn(&str) -> bool) -> Result<(), JsValue> {
    let mut forwardable = all.clone();
    remove_hop_by_hop(&mut forwardable);
    for (name, _) in all.iter() {
        if !(forwardable.has(name) && keeps(name)) {
            headers.delete(name)?;
        }
    }
    Ok(())
}

/// A stream, piece by piece. Whoever lets go of it before its end cancels it.
pub struct Pieces(Option<web_sys::ReadableStreamDefaultReader>);

impl Pieces {
    pub fn of(stream: &web_sys::ReadableStream) -> Self {
        Self(Some(stream.get_reader().unchecked_into()))
    }

    /// The next one, if it comes within `ms`; `None` at the end.
    pub async fn next(&mut self, ms: u64) -> Result<Option<Uint8Array>, ReadError> {
        let Some(reader) = &self.0 else { return Ok(None) };
        let step = match within(reader.read(), ms).await {
            Ok(step) => step,
            Err(error) => {
                // What has broken cannot be cancelled any more.
                if !matches!(error, CallError::Timeout) {
                    self.0 = None;
                }
                return Err(ReadError::Broken);
            }
        };
        let get = |name: &str| Reflect::get(&step, &name.into()).unwrap_or(JsValue::UNDEFINED);
        if get("done").is_truthy() {
            self.0 = None;
            return Ok(None);
        }
        Ok(Some(get("value").unchecked_into()))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let Some(reader) = &self.0 {
            let _ = reader.cancel();
        }
    }
}

/// How long a stream is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From one piece to the next.
    pub idle_ms: u64,
    pub total_ms: u64,
}

/// A stream's content, which counts among what is held for as long as this is kept.
pub struct Whole {
    pub bytes: Uint8Array,
    _held: Held,
}

impl Whole {
    pub fn none() -> Self {
        Self { bytes: Uint8Array::new_with_length(0), _held: Held::begin(Share::Exempt) }
    }
}

/// Reads a stream to its end, or gives up: beyond `bytes_max`, when it breaks off, when it takes too long, or when others hold
/// what there is room for.
pub async fn read_all(
    stream: &web_sys::ReadableStream,
    bytes_max: u64,
    patience: Patience,
    share: Share,
) -> Result<Whole, ReadError> {
    let held = Held::begin(share);
    let due_ms = platform::now_ms().saturating_add(patience.total_ms);
    let mut pieces = Pieces::of(stream);
    let mut gathered = Gathered { bytes: Uint8Array::new_with_length(0), length: 0 };
    while let Some(piece) = pieces.next(patience.idle_ms.min(due_ms.saturating_sub(platform::now_ms()))).await? {
        let Some(length) = gathered.length.checked_add(piece.length()).filter(|all| u64::from(*all) <= bytes_max)
        else {
            return Err(ReadError::TooLarge);
        };
        let room = gathered.room_for(length, bytes_max);
        if !held.takes(u64::from(room)) {
            return Err(ReadError::Crowded);
        }
        gathered.add(&piece, length, room);
    }
    let bytes = gathered.whole();
    held.takes(u64::from(bytes.length()));
    Ok(Whole { bytes, _held: held })
}

/// What has come of a stream, in one buffer. The pieces themselves are let go: each may lie in a buffer of 4 KiB, if it brings
/// but a byte.
struct Gathered {
    bytes: Uint8Array,
    length: u32,
}

impl Gathered {
    /// How large the buffer is to be for `length` bytes, of at most so many.
    fn room_for(&self, length: u32, bytes_max: u64) -> u32 {
        let room = self.bytes.length();
        let ahead = room.saturating_add(room / 2).min(u32::try_from(bytes_max).unwrap_or(u32::MAX));
        if length <= room { room } else { length.max(ahead) }
    }

    /// `length`: of all, with this piece; `room`: for so many.
    fn add(&mut self, piece: &Uint8Array, length: u32, room: u32) {
        if self.length == 0 {
            // Most bodies come in one.
            self.bytes = alone(piece);
        } else {
            if room > self.bytes.length() {
                let larger = Uint8Array::new_with_length(room);
                larger.set(&self.bytes, 0);
                self.bytes = larger;
            }
            self.bytes.set(piece, self.length);
        }
        self.length = length;
    }

    fn whole(self) -> Uint8Array {
        if self.length < self.bytes.length() { self.bytes.slice(0, self.length) } else { self.bytes }
    }
}

/// The same bytes in a buffer that holds nothing else.
fn alone(bytes: &Uint8Array) -> Uint8Array {
    match bytes.length() {
        length if length < bytes.buffer().byte_length() => bytes.slice(0, length),
        _ => bytes.clone(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// Others' contents leave no room for it now.
    Crowded,
    TooLarge,
    Broken,
}
