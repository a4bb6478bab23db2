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
use crate::{access, gateway, identity, js, limits, respond};
use gateway_rules::limits::Class;
use gateway_rules::wanted::plan;
use surrogate_cache::directives::RequestDirectives;
use surrogate_cache::entry::about_of;
use surrogate_cache::lookup::is_known_to;
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

/// What the answer to a request of this slot is made of ([`Parts`]), or `undefined`; `true`: it is stored packed, and which
/// clients take that has to be minded.
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
            let is_packed = isolate.engine.is_packed(slot);
            return Err(if is_packed { JsValue::TRUE } else { JsValue::UNDEFINED });
        };
        // Who asks too often is told so on the long way.
        if !limits::may_read(&isolate.settings, client.as_deref(), now_ms) {
            return Err(JsValue::UNDEFINED);
        }
        isolate.count_phase(Phase::Hit);
        isolate.ready_hits = isolate.ready_hits.saturating_add(1);
        Ok(entry)
    });
    let entry = match found {
        Some(Ok(entry)) => entry,
        Some(Err(other)) => return other,
        None => return JsValue::UNDEFINED,
    };
    let not_modified = if_none_match
        .is_some_and(|tags| is_known_to(&Fields::from_lower(vec![("if-none-match".into(), tags)]), &entry));
    parts(&entry, not_modified, now_ms, is_private).map_or(JsValue::UNDEFINED, JsValue::from)
}

/// What an answer is made of, kept for as long as nothing in it changes.
fn parts(entry: &Entry<Body>, not_modified: bool, now_ms: u64, private: bool) -> Result<Parts, JsValue> {
    let place = if private { &entry.body.ready_private } else { &entry.body.ready };
    let Ok(mut slot) = place.try_borrow_mut() else { return Err(JsValue::UNDEFINED) };
    let ready = match slot.take().filter(|ready| ready.from_ms <= now_ms && now_ms < ready.until_ms) {
        Some(ready) => slot.insert(ready),
        None => slot.insert(make_ready(entry, now_ms, private)?),
    };
    if !not_modified {
        return Ok(ready.whole.clone());
    }
    if let Some(parts) = &ready.not_modified {
        return Ok(parts.clone());
    }
    let parts = make_parts(entry, true, now_ms, private)?;
    ready.not_modified = Some(parts.clone());
    Ok(parts)
}

fn make_parts(entry: &Entry<Body>, not_modified: bool, now_ms: u64, private: bool) -> Result<Parts, JsValue> {
    let status =
        CacheStatus { tier: Some("memory"), ttl_s: Some(entry.policy.ttl_s(now_ms)), ..CacheStatus::new(Phase::Hit) };
    let mode = isolate::with(|isolate| isolate.settings.mode);
    let varies = viewer::varies(about_of(&entry.key));
    let shape = respond::Shape { cdn_policy: mode == Some(Mode::Proxy), private, varies, ..respond::Shape::default() };
    let init = respond::ready(entry, not_modified, entry.policy.age_ms(now_ms), &status, &shape)?;
    let parts: Parts = js_sys::Object::new().unchecked_into();
    let status = if not_modified { 304 } else { entry.head.status };
    let body = if respond::is_null_body(status) { JsValue::NULL } else { entry.body.bytes.clone().into() };
    parts.set_body(&body);
    parts.set_init(&init);
    parts.set_line(&access::line_of_hit(entry, status));
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
        whole: make_parts(entry, false, now_ms, private)?,
        not_modified: None,
    })
}
