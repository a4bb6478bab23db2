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
use crate::{access, gateway, identity, js, kv, limits, respond};
use gateway_rules::limits::Class;
use gateway_rules::wanted::plan;
use kv_schemas::store_key::kv_key;
use std::sync::Arc;
use surrogate_cache::directives::RequestDirectives;
use surrogate_cache::entry::{about_of, target_of};
use surrogate_cache::lookup::{Behind, Show, Tier, is_known_to};
use surrogate_cache::phase::CacheStatus;
use surrogate_cache::{Answer, Entry, Event, Fields, Lookup, Phase, Step, encoding};
use wasm_bindgen::prelude::*;

/// What an answer is made of, and for how long: `Age` and the rest of the lifetime count in seconds.
pub struct Ready {
    from_ms: u64,
    until_ms: u64,
    whole: Parts,
    not_modified: Option<Parts>,
}

#[wasm_bindgen]
extern "C" {
    /// Both arguments of `new Response`, and its line of the access log but for the ids. JavaScript makes the answer of
    /// them: that is a crossing less.
    #[wasm_bindgen(extends = js_sys::Object)]
    #[derive(Clone)]
    type Parts;
    #[wasm_bindgen(method, setter)]
    fn set_body(this: &Parts, body: &JsValue);
    #[wasm_bindgen(method, setter)]
    fn set_init(this: &Parts, init: &JsValue);
    #[wasm_bindgen(method, setter)]
    fn set_line(this: &Parts, line: &str);
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
        let client = if limits::counts_reads(settings) { limits::CLIENT } else { "" };
        format!("{guards}{trace}\n{client}\n{}\n{content}", if logs { "log" } else { "" })
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
    // Cuts are made of what is answered, anew for each request.
    if settings.mode == Mode::Gateway && !matches!(plan(target), Ok(None)) {
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
    encoding::takes_packed(&Fields::from_lower(vec![("accept-encoding".into(), accept_encoding)]))
}

/// The slot for requests like this one, a GET without guarded fields and content; below 0 if they are not answered here.
/// Unless `minds_coding`, packed entries are not answered in it, to anybody.
#[wasm_bindgen]
pub fn slot_of(request: &web_sys::Request, minds_coding: bool) -> i32 {
    const NONE: i32 = -1;
    // Another time, perhaps: nothing to remember.
    const NOT_NOW: i32 = -2;
    let Some(settings) = isolate::with(|isolate| isolate.settings.clone()) else { return NONE };
    let url = request.url();
    let target = route::target_of(&url);
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
    let fields = Fields::from_lower(vec![("authorization".into(), authorization.into())]);
    let Some(Ok(Who::Viewer(viewer))) = identity::known(&fields) else { return None };
    isolate::with(|isolate| isolate.identities.enlist(viewer)).map(|(number, class)| format!("{number}\n{class}"))
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
        isolate.count_phases(Phase::Hit, u64::from(hits));
        isolate.ready_hits = isolate.ready_hits.saturating_add(u64::from(hits));
    });
}

/// What the answer to a request of this slot is made of ([`Parts`]), or `undefined`; `true`: it is stored packed, and which
/// clients take that has to be minded; `false`: memory has nothing. For how long the same may be answered again to the same
/// kind of request is told (`isolate::tell_holds`).
#[wasm_bindgen]
pub fn hit(slot: u32, now_ms: f64, if_none_match: Option<String>, bearer: i32, client: Option<String>) -> JsValue {
    // A whole number of milliseconds, far below 2^53.
    let now_ms = now_ms as u64;
    // Below 0 nobody says who asks.
    let is_private = bearer >= 0;
    let found = isolate::with(|isolate| {
        if is_private && !isolate.identities.stands(bearer, &isolate.engine, now_ms) {
            return Err(JsValue::UNDEFINED);
        }
        let Some(entry) = isolate.engine.hit(slot, now_ms) else {
            return Err(match () {
                () if isolate.engine.missing(slot).is_some() => JsValue::FALSE,
                () if isolate.engine.is_packed(slot) => JsValue::TRUE,
                () => JsValue::UNDEFINED,
            });
        };
        let holds_until_ms = isolate.engine.holds_until(&entry);
        // Who asks too often is told so on the long way.
        if !limits::may_read(&isolate.settings, client.as_deref(), now_ms) {
            return Err(JsValue::UNDEFINED);
        }
        isolate.count_phases(Phase::Hit, 1);
        isolate.ready_hits = isolate.ready_hits.saturating_add(1);
        Ok((entry, holds_until_ms))
    });
    let (entry, holds_until_ms) = match found {
        Some(Ok(found)) => found,
        Some(Err(other)) => return other,
        None => return JsValue::UNDEFINED,
    };
    let not_modified = if_none_match
        .is_some_and(|tags| is_known_to(&Fields::from_lower(vec![("if-none-match".into(), tags)]), &entry));
    match parts(&entry, not_modified, now_ms, is_private) {
        Ok((parts, until_ms)) => {
            isolate::tell_holds(holds_until_ms.min(until_ms).saturating_sub(now_ms));
            parts.into()
        }
        Err(_) => JsValue::UNDEFINED,
    }
}

/// What an answer is made of, kept for as long as nothing in it changes, and until when that is.
fn parts(entry: &Entry<Body>, not_modified: bool, now_ms: u64, private: bool) -> Result<(Parts, u64), JsValue> {
    let place = if private { &entry.body.ready_private } else { &entry.body.ready };
    let Ok(mut slot) = place.try_borrow_mut() else { return Err(JsValue::UNDEFINED) };
    let ready = match slot.take().filter(|ready| ready.from_ms <= now_ms && now_ms < ready.until_ms) {
        Some(ready) => slot.insert(ready),
        None => slot.insert(make_ready(entry, now_ms, private)?),
    };
    if !not_modified {
        return Ok((ready.whole.clone(), ready.until_ms));
    }
    if let Some(parts) = &ready.not_modified {
        return Ok((parts.clone(), ready.until_ms));
    }
    let parts = make_parts(entry, true, (now_ms, 0), private, &status(entry, now_ms))?;
    ready.not_modified = Some(parts.clone());
    Ok((parts, ready.until_ms))
}

fn status(entry: &Entry<Body>, now_ms: u64) -> CacheStatus {
    CacheStatus { tier: Some("memory"), ttl_s: Some(entry.policy.ttl_s(now_ms)), ..CacheStatus::new(Phase::Hit) }
}

fn make_parts(
    entry: &Entry<Body>,
    not_modified: bool,
    (now_ms, duration_ms): (u64, u64),
    private: bool,
    told: &CacheStatus,
) -> Result<Parts, JsValue> {
    let mode = isolate::with(|isolate| isolate.settings.mode);
    let varies = viewer::varies(about_of(&entry.key));
    let shape = respond::Shape { cdn_policy: mode == Some(Mode::Proxy), private, varies, ..respond::Shape::default() };
    let init = respond::ready(entry, not_modified, entry.policy.age_ms(now_ms), told, &shape)?;
    let parts: Parts = js_sys::Object::new().unchecked_into();
    let status = if not_modified { 304 } else { entry.head.status };
    let body = if respond::is_null_body(status) { JsValue::NULL } else { entry.body.bytes.clone().into() };
    parts.set_body(&body);
    parts.set_init(&init);
    parts.set_line(&access::line_of_hit(entry, status, told.tier, duration_ms));
    Ok(parts)
}

fn make_ready(entry: &Entry<Body>, now_ms: u64, private: bool) -> Result<Ready, JsValue> {
    // The age is rounded down, and so is what is left of the lifetime: each changes at a moment of its own.
    let age_ms = entry.policy.age_ms(now_ms);
    let age_holds_ms = 1000_u64.saturating_sub(age_ms % 1000);
    let ttl_holds_ms = (entry.policy.lifetime_ms.saturating_sub(age_ms) % 1000).saturating_add(1);
    Ok(Ready {
        from_ms: now_ms,
        until_ms: now_ms.saturating_add(age_holds_ms.min(ttl_holds_ms)),
        whole: make_parts(entry, false, (now_ms, 0), private, &status(entry, now_ms))?,
        not_modified: None,
    })
}

/// Lookups that `entry.js` reads KV for: a promise of its own costs less than a future here does.
#[derive(Default)]
pub struct Begun {
    last: u32,
    /// Few at a time.
    lookups: Vec<(u32, Box<OnItsWay>)>,
}

/// A lookup, and its next step unless that is to feed it what KV had.
pub struct OnItsWay {
    pub lookup: Lookup<Body>,
    pub step: Option<Step<Body>>,
    began_ms: u64,
    takes_packed: bool,
}

/// More are not under way at once: what comes then goes the long way.
const BEGUN_MAX: usize = 1_024;

impl Begun {
    fn keep(&mut self, one: OnItsWay) -> u32 {
        // 0 is none.
        self.last = self.last.wrapping_add(1).max(1);
        self.lookups.push((self.last, Box::new(one)));
        self.last
    }

    fn place(&self, number: u32) -> Option<usize> {
        self.lookups.iter().position(|(one, _)| *one == number)
    }

    /// When the request of a lookup came.
    pub fn began_ms(&self, number: u32) -> Option<u64> {
        self.lookups.get(self.place(number)?).map(|(_, one)| one.began_ms)
    }

    pub fn take(&mut self, number: u32) -> Option<Box<OnItsWay>> {
        let place = self.place(number)?;
        Some(self.lookups.swap_remove(place).1)
    }
}

/// Begins the lookup of a request whose slot memory has nothing for: a stranger's, without guarded fields and content. The key
/// to read from KV; or `undefined`: it has begun otherwise, or not at all. Its number is told (`isolate::tell_begun`), 0 if
/// there is none; what is not ended by [`kv_had`] is gone on with by `fetch`.
#[wasm_bindgen]
pub fn begin(slot: u32, request: &web_sys::Request, now_ms: f64, client: Option<String>) -> Option<String> {
    // A whole number of milliseconds, far below 2^53.
    let now_ms = now_ms as u64;
    isolate::tell_begun(0);
    let fields = js::fields(&request.headers());
    isolate::with(|isolate| {
        let settings = &isolate.settings;
        if isolate.begun.lookups.len() >= BEGUN_MAX
            || (settings.mode == Mode::Gateway && fields.bytes() > limits::FIELDS_BYTES_MAX)
        {
            return None;
        }
        let key = isolate.engine.missing(slot)?;
        let request = gateway::prepare(settings, target_of(key), about_of(key), fields, false).ok()?;
        if !limits::may_read(settings, client.as_deref(), now_ms) {
            return None;
        }
        let takes_packed = encoding::takes_packed(&request.fields);
        let mut lookup = Lookup::new(request);
        let (step, kv_key) = match lookup.step(&mut isolate.engine, Event::Start, now_ms) {
            Step::Read { tier: Tier::Kv, key } => (None, Some(kv_key(&key))),
            other => (Some(other), None),
        };
        isolate::tell_begun(isolate.begun.keep(OnItsWay { lookup, step, began_ms: now_ms, takes_packed }));
        kv_key
    })
    .flatten()
}

/// What KV had for a lookup that was begun: what its answer is made of ([`Parts`]), or `undefined` if there is more to it.
#[wasm_bindgen]
pub fn kv_had(number: u32, value: JsValue, now_ms: f64) -> Option<js_sys::Object> {
    // A whole number of milliseconds, far below 2^53.
    let now_ms = now_ms as u64;
    let rules = isolate::with(|isolate| isolate.settings.engine.rules)?;
    let read = value.dyn_into().ok().and_then(|buffer| kv::decode(&buffer, rules));
    let (entry, not_modified, status, began_ms) = isolate::with(|isolate| {
        let place = isolate.begun.place(number)?;
        let (_, one) = isolate.begun.lookups.get_mut(place)?;
        let step = one.step.insert(one.lookup.step(&mut isolate.engine, Event::Read(read), now_ms));
        let Step::Answer(answer) = step else { return None };
        let Answer::Stored { entry, show, status, behind, .. } = &**answer else { return None };
        if !is_plain(entry, show, status, behind, one.takes_packed) {
            return None;
        }
        let plain = (Arc::clone(entry), *show == Show::NotModified, status.clone(), one.began_ms);
        isolate.begun.lookups.swap_remove(place);
        isolate.count_phases(Phase::Hit, 1);
        isolate.ready_hits = isolate.ready_hits.saturating_add(1);
        Some(plain)
    })
    .flatten()?;
    make_parts(&entry, not_modified, (now_ms, now_ms.saturating_sub(began_ms)), false, &status).ok().map(Into::into)
}

/// Whether that is a hit of which nothing more is to be made, with nothing to be done behind it.
fn is_plain(entry: &Entry<Body>, show: &Show, status: &CacheStatus, behind: &Behind<Body>, takes_packed: bool) -> bool {
    let fields = &entry.head.fields;
    status.phase == Phase::Hit
        && matches!(show, Show::Whole | Show::NotModified)
        && entry.head.status != 206
        && !fields.has("set-cookie")
        && (takes_packed || !encoding::is_packed(fields))
        && behind.refresh.is_none()
        && !behind.sync
        && behind.write.is_empty()
}
