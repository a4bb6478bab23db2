//! The short way: a fresh hit in memory is answered at once, without a promise, a string or a future.
//!
//! `entry.js` sees to it that a request has nothing unusual about it ([`rules`]), and finds the slot it had before by its
//! URL and by what of the request that page depends on ([`page`]). Which key a slot stands for is decided once, by the same
//! functions that serve all other requests; whether its entry may be answered is decided each time, by the engine, and so is
//! how the token of who asks stands. Whatever is not a plain hit gets `undefined` here and goes through `gateway`. Nothing
//! may be answered here in another way than there: a test compares both, field by field.
use crate::identity::Who;
use crate::isolate::{self, Body};
use crate::route::{self, Route};
use crate::settings::{Mode, Settings};
use crate::viewer::{self, Depends};
use crate::{access, entry_bytes, gateway, identity, js, limits, respond};
use gateway_rules::limits::Class;
use gateway_rules::wanted::plan;
use kv_schemas::store_key::kv_key;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use surrogate_cache::directives::RequestDirectives;
use surrogate_cache::entry::{about_of, key_about};
use surrogate_cache::lookup::{Tier, is_known_to};
use surrogate_cache::phase::CacheStatus;
use surrogate_cache::{Entry, Fields, Phase, encoding};
use wasm_bindgen::prelude::*;

/// What an answer is made of, and for how long: `Age` and the rest of the lifetime count in seconds.
pub struct Ready {
    from_ms: u64,
    until_ms: u64,
    whole: Parts,
    not_modified: Option<Parts>,
}

impl Ready {
    pub fn is_good(&self, now_ms: u64) -> bool {
        self.from_ms <= now_ms && now_ms < self.until_ms
    }
}

/// Entries that answers were made ready of, first the one of longest ago. Their weight is that of their bytes: the objects that
/// JavaScript holds beside them, some kilobytes each, are let go once they are over.
#[derive(Default)]
pub struct MadeReady(VecDeque<(Weak<Entry<Body>>, u64)>);

/// More are not kept beyond their second.
const MADE_READY_MAX: usize = 1_024;
/// None is good for longer.
const READY_MS_MAX: u64 = 1_000;

impl MadeReady {
    fn note(&mut self, entry: &Arc<Entry<Body>>, now_ms: u64) {
        self.0.push_back((Arc::downgrade(entry), now_ms));
        // Two for one: after a second with many there are fewer again.
        for _ in 0..2 {
            let is_over = |first: &mut (_, u64)| first.1.abs_diff(now_ms) >= READY_MS_MAX;
            let over = if self.0.len() > MADE_READY_MAX { self.0.pop_front_if(is_over) } else { None };
            let Some((first, _)) = over else { return };
            if let Some(first) = first.upgrade() {
                // What was made ready anew since stands further back as well.
                first.body.let_go(now_ms);
            }
        }
    }
}

#[wasm_bindgen(module = "/src/parts.js")]
extern "C" {
    /// Both arguments of `new Response`, and its line of the access log but for the ids. JavaScript makes the answer of
    /// them: that is a crossing less.
    #[derive(Clone)]
    pub type Parts;
    #[wasm_bindgen(js_name = partsOf)]
    fn parts_of(body: &JsValue, init: &str, kept: bool, line: Option<&str>) -> Option<Parts>;
}

/// Request fields that send a request the long way, whatever they say. In front of the API the content of a GET is nobody's.
const GUARDS_OF_GATEWAY: &str = "edge-debug,min-as-of,if-modified-since";
const GUARDS_OF_PROXY: &str =
    "edge-debug,min-as-of,if-modified-since,authorization,range,cache-control,pragma,if-match,if-unmodified-since";

/// What `entry.js` has to look at, a line each: guards, the field that says who asks, if reads are counted, whether hits are
/// logged, and whether content sends a request the long way. Nothing before the isolate is ready.
#[wasm_bindgen]
pub fn rules() -> Option<String> {
    isolate::with(|isolate| {
        let settings = &isolate.settings;
        let logs = access::logs_hits(settings.access_log);
        let (guards, content) = match settings.mode {
            Mode::Gateway => (GUARDS_OF_GATEWAY, ""),
            Mode::Proxy => (GUARDS_OF_PROXY, "content"),
        };
        // A trace is gone on with in the log and at origin; where there is neither, it changes nothing.
        let trace = if logs { ",traceparent" } else { "" };
        // Kept answers are for apps of all origins.
        let origin = if settings.web_origins.depends_on_origin() { ",origin" } else { "" };
        let client = if limits::counts_reads(settings) { limits::CLIENT } else { "" };
        format!("{guards}{trace}{origin}\n{client}\n{}\n{content}", if logs { "log" } else { "" })
    })
}

/// What of a request decides which entry answers it: a sum of these. `entry.js` has the same.
const VIEWER: i32 = 1;
const REGION: i32 = 2;
const LOCALE: i32 = 4;

/// What the page of this URL depends on; below 0 if it is not answered here.
#[wasm_bindgen]
pub fn page(url: &str) -> i32 {
    let depends = |isolate: &mut isolate::Isolate| {
        let (_, depends) = depends(&isolate.settings, route::target_of(url))?;
        let known = &isolate.settings.known;
        // With one region, or one language, there is nothing to tell apart.
        let bits = [
            (depends != Depends::NOTHING, VIEWER),
            (depends.region && !known.regions.is_empty(), REGION),
            (depends.locale && known.locales.len() > 1, LOCALE),
        ];
        Some(bits.into_iter().fold(0, |all, (is_set, bit)| if is_set { all | bit } else { all }))
    };
    isolate::with(depends).flatten().unwrap_or(-1)
}

/// The document of a target that may be answered here, and what it depends on.
fn depends(settings: &Settings, target: &str) -> Option<(String, Depends)> {
    let is_plain = match settings.mode {
        // Cuts are made of what is answered, anew for each request.
        Mode::Gateway => matches!(plan(target), Ok(None)),
        Mode::Proxy => route::is_usual(target),
    };
    if !is_plain {
        return None;
    }
    // What is counted in another class than reads is counted on the long way.
    if Class::of(target) != Some(Class::Reads) {
        return None;
    }
    match route::classify(settings.mode, "GET", target) {
        Route::Cached { target, depends } => Some((target, depends)),
        _ => None,
    }
}

/// The number of a country's region. A page is the same for all countries of one number.
#[wasm_bindgen]
pub fn region_of(country: Option<String>) -> Option<usize> {
    isolate::with(|isolate| isolate.settings.known.region_number(country.as_deref()))
}

/// The same for `Accept-Language`.
#[wasm_bindgen]
pub fn locale_of(accept_language: Option<String>) -> Option<usize> {
    isolate::with(|isolate| isolate.settings.known.locale_number(accept_language.as_deref()))
}

/// Whether who sends this `Accept-Encoding` takes what is stored packed.
#[wasm_bindgen]
pub fn takes_packed(accept_encoding: String) -> bool {
    encoding::takes_packed(&Fields::one("accept-encoding", accept_encoding))
}

/// The slot for requests like this one, a GET without guarded fields and content; below 0 if they are not answered here.
/// Unless `minds_coding`, packed entries are not answered in it, to anybody.
#[wasm_bindgen]
pub fn slot_of(url: &str, request: &web_sys::Request, minds_coding: bool) -> i32 {
    const NONE: i32 = -1;
    // Another time, perhaps: nothing to remember.
    const NOT_NOW: i32 = -2;
    let Some(settings) = isolate::with(|isolate| isolate.settings.clone()) else { return NONE };
    let target = route::target_of(url);
    let locale = viewer::locale_asked(target);
    let Some((target, depends)) = depends(&settings, target) else { return NONE };
    let fields = js::fields(&request.headers());
    let who = match settings.mode {
        Mode::Gateway if depends != Depends::NOTHING => identity::known(&fields),
        Mode::Gateway | Mode::Proxy => Some(Ok(Who::Stranger)),
    };
    let Some(Ok(who)) = who else { return NOT_NOW };
    let about =
        viewer::about(depends, &identity::dimensions(&settings, &fields, &who, depends, (locale, (request, false))));
    let Ok(prepared) = gateway::prepare(&settings, &target, &about, fields, false) else { return NONE };
    if prepared.min_as_of.is_some() || prepared.directives != RequestDirectives::default() {
        return NONE;
    }
    let takes_packed = minds_coding && encoding::takes_packed(&prepared.fields);
    let slot = isolate::with(|isolate| isolate.engine.slot(&prepared.key, takes_packed)).flatten();
    slot.and_then(|slot| i32::try_from(slot).ok()).unwrap_or(NONE)
}

/// What is known of who sends this `Authorization`: a number, by which the token is looked at on each use, and what its
/// bearers are answered alike by. `undefined`: nothing, or that it is not good; the long way finds out.
#[wasm_bindgen]
pub fn bearer_of(authorization: &str) -> Option<String> {
    let fields = Fields::one("authorization", authorization);
    let Some(Ok(Who::Viewer(viewer))) = identity::known(&fields) else { return None };
    let enlisted = isolate::with(|isolate| isolate.identities.enlist(viewer, &isolate.settings.known));
    enlisted.map(|(number, class)| format!("{number}\n{class}"))
}

/// `entry.js` has forgotten all bearers.
#[wasm_bindgen]
pub fn forget_bearers() {
    isolate::with(|isolate| isolate.identities.dismiss());
}

/// `entry.js` has forgotten all slots.
#[wasm_bindgen]
pub fn forget_slots() {
    isolate::with(|isolate| isolate.engine.forget_slots());
}

/// The Wasm's memory, and where in it lies what JavaScript reads of the isolate without a call (`isolate::told_at`).
#[wasm_bindgen]
pub fn own_memory() -> JsValue {
    wasm_bindgen::memory()
}

#[wasm_bindgen]
pub fn told_at() -> u32 {
    isolate::told_at()
}

/// Hits that `entry.js` has answered again by itself.
#[wasm_bindgen]
pub fn count_hits(hits: u32) {
    isolate::with(|isolate| {
        isolate.count_ready_hits(u64::from(hits));
    });
}

/// What the answer to a request of this slot is made of ([`Parts`]), or `undefined`; `true`: it is stored packed, and which
/// clients take that has to be minded; `false`: memory has nothing; `null`: its bearer's number is good for nothing any more. For how long the same may be answered again to the same
/// kind of request is told (`isolate::tell_holds`).
#[wasm_bindgen]
pub fn hit(slot: u32, now_ms: f64, if_none_match: Option<String>, bearer: i32, client: Option<String>) -> JsValue {
    // A whole number of milliseconds, far below 2^53.
    let now_ms = now_ms as u64;
    // Below 0 nobody says who asks.
    let is_private = bearer >= 0;
    let found = isolate::with(|isolate| {
        if is_private && !isolate.identities.stands(bearer, &isolate.engine, now_ms) {
            let is_over = isolate.identities.is_over(bearer, now_ms);
            return Err(if is_over { JsValue::NULL } else { JsValue::UNDEFINED });
        }
        let Some(entry) = isolate.engine.hit(slot, now_ms) else {
            return Err(match () {
                () if isolate.engine.lacks(slot) => JsValue::FALSE,
                () if isolate.engine.is_packed(slot) => JsValue::TRUE,
                () => JsValue::UNDEFINED,
            });
        };
        let holds_until_ms = isolate.engine.holds_until(&entry);
        // Who asks too often is told so on the long way.
        if !limits::may_read(&isolate.settings, client.as_deref(), now_ms) {
            return Err(JsValue::UNDEFINED);
        }
        isolate.count_ready_hits(1);
        Ok((entry, holds_until_ms))
    });
    let (entry, holds_until_ms) = match found {
        Some(Ok(found)) => found,
        Some(Err(other)) => return other,
        None => return JsValue::UNDEFINED,
    };
    match parts(&entry, is_known(if_none_match, &entry), now_ms, is_private) {
        Some((parts, until_ms)) => {
            isolate::tell_holds(holds_until_ms.min(until_ms).saturating_sub(now_ms));
            parts.into()
        }
        None => JsValue::UNDEFINED,
    }
}

/// What an answer is made of, kept for as long as nothing in it changes, and until when that is.
fn parts(entry: &Arc<Entry<Body>>, not_modified: bool, now_ms: u64, private: bool) -> Option<(Parts, u64)> {
    let place = if private { &entry.body.ready_private } else { &entry.body.ready };
    let mut slot = place.try_borrow_mut().ok()?;
    let ready = match slot.take().filter(|ready| ready.is_good(now_ms)) {
        Some(ready) => slot.insert(ready),
        None => {
            isolate::with(|isolate| isolate.made_ready.note(entry, now_ms));
            slot.insert(make_ready(entry, now_ms, private)?)
        }
    };
    if !not_modified {
        return Some((ready.whole.clone(), ready.until_ms));
    }
    if ready.not_modified.is_none() {
        ready.not_modified = make_parts(entry, true, (now_ms, None), private, &status(entry, now_ms));
    }
    Some((ready.not_modified.clone()?, ready.until_ms))
}

fn status(entry: &Entry<Body>, now_ms: u64) -> CacheStatus {
    CacheStatus { tier: Some("memory"), ttl_s: Some(entry.policy.ttl_s(now_ms)), ..CacheStatus::new(Phase::Hit) }
}

/// `began_ms`: when the one request came that it is for; nothing if the parts are kept for more.
fn make_parts(
    entry: &Entry<Body>,
    not_modified: bool,
    (now_ms, began_ms): (u64, Option<u64>),
    private: bool,
    told: &CacheStatus,
) -> Option<Parts> {
    let settings = isolate::with(|isolate| isolate.settings.clone())?;
    let logs = access::logs_hits(settings.access_log);
    let (proxied, web) = (settings.mode == Mode::Proxy, settings.web_origins.is_on());
    let varies = viewer::varies(about_of(&entry.key));
    let shape = respond::Shape { proxied, web, private, varies, ..respond::Shape::default() };
    // The log's id is set among them.
    let kept = began_ms.is_none() || logs;
    let status = if not_modified { 304 } else { entry.head.status };
    let init = respond::ready(entry, status, entry.policy.age_ms(now_ms), told, &shape, &settings.web_origins);
    let body = if respond::is_null_body(status) { &JsValue::NULL } else { entry.body.bytes.as_ref() };
    let duration_ms = now_ms.saturating_sub(began_ms.unwrap_or(now_ms));
    let line = logs.then(|| access::line_of_hit(entry, status, told.tier, duration_ms));
    parts_of(body, &init, kept, line.as_deref())
}

fn make_ready(entry: &Entry<Body>, now_ms: u64, private: bool) -> Option<Ready> {
    // The age is rounded down, and so is what is left of the lifetime: each changes at a moment of its own.
    let age_ms = entry.policy.age_ms(now_ms);
    let age_holds_ms = 1000_u64.saturating_sub(age_ms % 1000);
    let ttl_holds_ms = (entry.policy.lifetime_ms.saturating_sub(age_ms) % 1000).saturating_add(1);
    Some(Ready {
        from_ms: now_ms,
        until_ms: now_ms.saturating_add(age_holds_ms.min(ttl_holds_ms)),
        whole: make_parts(entry, false, (now_ms, None), private, &status(entry, now_ms))?,
        not_modified: None,
    })
}

/// Requests that read KV before anything else, which `entry.js` does: a promise of its own costs less than a future here.
/// Nothing sees to it that they come to their end, since that would cost half as much as the read: a client that leaves takes
/// its request with it. So they hold no mark that others wait for, and those that are overdue are swept.
#[derive(Default)]
pub struct Begun {
    last: u32,
    /// Few at a time.
    requests: Vec<(u32, OnItsWay)>,
}

/// What KV had, if it was read: perhaps nothing.
pub type KvRead = Option<Option<Box<Entry<Body>>>>;

/// Such a request.
pub struct OnItsWay {
    key: String,
    pub began_ms: u64,
    /// What KV had, if it has answered and there is more to it than a hit.
    pub read: KvRead,
}

/// More are not under way at once: what comes then goes the long way.
const BEGUN_MAX: usize = 1_024;
/// From so many on, those are swept whose clients must have left. A read of KV ends sooner (`kv`).
const BEGUN_SWEPT: usize = 64;
const BEGUN_MS_MAX: u64 = 5_000;

impl Begun {
    /// Whether there is room for a request of this key. What another one reads is not read beside it: the long way makes the
    /// mark that all others wait for.
    fn has_room(&mut self, key: &str, now_ms: u64) -> bool {
        if self.requests.len() >= BEGUN_SWEPT {
            self.requests.retain(|(_, one)| now_ms.abs_diff(one.began_ms) < BEGUN_MS_MAX);
        }
        self.requests.len() < BEGUN_MAX && self.requests.iter().all(|(_, one)| one.key != key)
    }

    fn keep(&mut self, key: String, began_ms: u64) {
        self.last = self.last.wrapping_add(1);
        isolate::tell_begun(self.last);
        self.requests.push((self.last, OnItsWay { key, began_ms, read: None }));
    }

    fn place(&self, number: u32) -> Option<usize> {
        self.requests.iter().position(|(one, _)| *one == number)
    }

    pub fn take(&mut self, number: u32) -> Option<OnItsWay> {
        let place = self.place(number)?;
        Some(self.requests.swap_remove(place).1)
    }
}

/// The key of a page as a stranger sees it, who sends none of the guarded fields; nothing if that has to be found out.
fn key_of(settings: &Settings, url: &str, request: &web_sys::Request) -> Option<String> {
    let target = route::target_of(url);
    let locale = viewer::locale_asked(target);
    let (target, depends) = depends(settings, target)?;
    if depends == Depends::NOTHING {
        return Some(key_about("", &target));
    }
    let headers = request.headers();
    if headers.has("authorization").ok()? {
        return None;
    }
    let wanted = headers.get("accept-language").ok()?;
    let fields = wanted.map(|wanted| Fields::one("accept-language", wanted)).unwrap_or_default();
    let dimensions = identity::dimensions(settings, &fields, &Who::Stranger, depends, (locale, (request, false)));
    Some(key_about(&viewer::about(depends, &dimensions), &target))
}

/// Begins a request of a stranger's that is to read KV before anything else: the key to read there. Its number is told
/// (`isolate::tell_begun`); what is not ended by [`kv_had`] is gone on with by `fetch`. Empty: it goes the long way, and
/// as memory has nothing for it there is nothing to be remembered of the page; `undefined`: there may be.
#[wasm_bindgen]
pub fn begin(url: &str, request: &web_sys::Request, now_ms: f64, client: Option<String>) -> Option<String> {
    // A whole number of milliseconds, far below 2^53.
    let now_ms = now_ms as u64;
    let settings = isolate::with(|isolate| isolate.settings.clone())?;
    let key = key_of(&settings, url, request)?;
    isolate::with(|isolate| {
        if isolate.engine.has(&key) {
            return None;
        }
        if !isolate.begun.has_room(&key, now_ms)
            || !isolate.engine.reads_kv_first(&key, now_ms)
            || !limits::may_read(&settings, client.as_deref(), now_ms)
        {
            return Some(String::new());
        }
        let kv_key = kv_key(&key);
        isolate.begun.keep(key, now_ms);
        Some(kv_key)
    })
    .flatten()
}

/// What KV had for a request that brings these fields, its first bytes and how many there are, none if it had nothing: what
/// its answer is made of ([`Parts`]), or `undefined` if there is more to it.
#[wasm_bindgen]
pub fn kv_had(
    number: u32,
    value: &js_sys::ArrayBuffer,
    beginning: Vec<u8>,
    bytes: u32,
    now_ms: f64,
    if_none_match: Option<String>,
    accept_encoding: Option<String>,
) -> JsValue {
    // A whole number of milliseconds, far below 2^53.
    let now_ms = now_ms as u64;
    let found = isolate::with(|isolate| isolate.settings.engine.rules)
        .and_then(|rules| entry_bytes::decode_begun(value, beginning, bytes, rules));
    let is_packed = found.as_ref().is_some_and(|entry| encoding::is_packed(&entry.head.fields));
    // Unpacked on the way, it is more than a hit.
    let is_taken = !is_packed || accept_encoding.is_some_and(takes_packed);
    let hit = isolate::with(|isolate| {
        let place = isolate.begun.place(number)?;
        let (_, one) = isolate.begun.requests.get_mut(place)?;
        let began_ms = one.began_ms;
        let hit = match is_taken {
            true => isolate.engine.hit_in_kv(&one.key, found, now_ms),
            false => Err(found.map(Box::new)),
        };
        match hit {
            Ok(entry) => {
                isolate.begun.requests.swap_remove(place);
                isolate.count_ready_hit_in_kv(now_ms.saturating_sub(began_ms));
                return Some((entry, began_ms));
            }
            Err(found) => one.read = Some(found),
        }
        None
    })
    .flatten();
    let Some((entry, began_ms)) = hit else { return JsValue::UNDEFINED };
    let status = CacheStatus { tier: Some(Tier::Kv.as_str()), ..status(&entry, now_ms) };
    let parts = make_parts(&entry, is_known(if_none_match, &entry), (now_ms, Some(began_ms)), false, &status);
    parts.map_or(JsValue::UNDEFINED, Into::into)
}

/// Whether a client that names these tags has the answer already.
fn is_known(tags: Option<String>, entry: &Entry<Body>) -> bool {
    tags.is_some_and(|tags| is_known_to(&Fields::one("if-none-match", tags), entry))
}
