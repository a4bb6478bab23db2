//! The short way: a fresh hit in memory is answered at once, without a promise, a string or a future.
//!
//! `entry.js` sees to it that a request has nothing unusual about it ([`guards`]), and finds the slot it had before by its
//! URL and a few fields ([`selects`]). Which key a slot stands for is decided once, by the same functions that serve all
//! other requests; whether its entry may be answered is decided each time, by the engine. Whatever is not a plain hit gets
//! `undefined` here and goes through `gateway`. Nothing may be answered here in another way than there: a test compares
//! both, field by field.
use crate::identity::Who;
use crate::isolate::{self, Body};
use crate::route::{self, Route};
use crate::settings::Mode;
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
    whole: web_sys::ResponseInit,
    not_modified: Option<web_sys::ResponseInit>,
}

/// Request fields that send a request the long way, whatever they say.
const GUARDS_OF_GATEWAY: &str = "edge-debug,min-as-of,if-modified-since,traceparent";
const GUARDS_OF_PROXY: &str =
    "edge-debug,min-as-of,if-modified-since,authorization,range,cache-control,pragma,if-match,if-unmodified-since";
/// Request fields that decide which slot a request has; in front of the API the bearer and the country do, too.
const SELECTS_OF_GATEWAY: &str = "accept-encoding,accept-language";
const SELECTS_OF_PROXY: &str = "accept-encoding";

/// What `entry.js` has to look at, a line each: guards, selecting fields, whether bearers count, whether the country does,
/// and the field that says who asks, if reads are counted. Nothing before the isolate is ready.
#[wasm_bindgen]
pub fn rules() -> Option<String> {
    isolate::with(|isolate| {
        let settings = &isolate.settings;
        match settings.mode {
            Mode::Gateway => {
                let country = if settings.known.regions.is_empty() { "" } else { "country" };
                let client = if limits::counts_reads(settings) { limits::CLIENT } else { "" };
                format!("{GUARDS_OF_GATEWAY}\n{SELECTS_OF_GATEWAY}\nbearer\n{country}\n{client}")
            }
            Mode::Proxy => format!("{GUARDS_OF_PROXY}\n{SELECTS_OF_PROXY}\n\n\n"),
        }
    })
}

/// The slot for requests like this one, a GET without guarded fields and content; below 0 if they are not answered here.
#[wasm_bindgen]
pub fn slot_of(request: &web_sys::Request) -> i32 {
    const NONE: i32 = -1;
    // Another time, perhaps: nothing to remember.
    const NOT_NOW: i32 = -2;
    let Some(settings) = isolate::with(|isolate| isolate.settings.clone()) else { return NONE };
    let url = request.url();
    let target = route::target_of(&url);
    // Cuts are made of what is answered, anew for each request.
    if settings.mode == Mode::Gateway && !matches!(plan(target), Ok(None)) {
        return NONE;
    }
    // What is counted in another class than reads is counted on the long way.
    if Class::of(target) != Some(Class::Reads) {
        return NONE;
    }
    let locale = viewer::locale_asked(target);
    let Route::Cached { target, depends } = route::classify(settings.mode, "GET", target) else { return NONE };
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
    let takes_packed = encoding::takes_packed(&prepared.fields);
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

/// The answer to a request of this slot, or `undefined`.
#[wasm_bindgen]
pub fn hit(
    slot: u32,
    now_ms: f64,
    if_none_match: Option<String>,
    bearer: i32,
    client: Option<String>,
) -> Result<JsValue, JsValue> {
    // A whole number of milliseconds, far below 2^53.
    let now_ms = now_ms as u64;
    // Below 0 nobody says who asks.
    let is_private = bearer >= 0;
    let found = isolate::with(|isolate| {
        if is_private && !isolate.identities.stands(bearer, &isolate.engine, now_ms) {
            return None;
        }
        let entry = isolate.engine.hit(slot, now_ms)?;
        // Who asks too often is told so on the long way.
        if !limits::may_read(&isolate.settings, client.as_deref(), now_ms) {
            return None;
        }
        isolate.count_phase(Phase::Hit);
        isolate.ready_hits = isolate.ready_hits.saturating_add(1);
        Some((entry, isolate.settings.access_log))
    });
    let Some((entry, access_log)) = found.flatten() else { return Ok(JsValue::UNDEFINED) };
    let not_modified = if_none_match
        .is_some_and(|tags| is_known_to(&Fields::from_lower(vec![("if-none-match".into(), tags)]), &entry));
    let place = if is_private { &entry.body.ready_private } else { &entry.body.ready };
    let Ok(mut slot) = place.try_borrow_mut() else { return Ok(JsValue::UNDEFINED) };
    let ready = match slot.take().filter(|ready| ready.from_ms <= now_ms && now_ms < ready.until_ms) {
        Some(ready) => slot.insert(ready),
        None => slot.insert(make_ready(&entry, now_ms, is_private)?),
    };
    let response = if not_modified {
        if ready.not_modified.is_none() {
            ready.not_modified = Some(init(&entry, true, now_ms, is_private)?);
        }
        respond::with_init(&JsValue::NULL, ready.not_modified.as_ref().unwrap_or(&ready.whole))?
    } else {
        respond::with_init(&entry.body.bytes, &ready.whole)?
    };
    access::hit(access_log, &entry.key, &response)?;
    Ok(response.into())
}

fn init(entry: &Entry<Body>, not_modified: bool, now_ms: u64, private: bool) -> Result<web_sys::ResponseInit, JsValue> {
    let status =
        CacheStatus { tier: Some("memory"), ttl_s: Some(entry.policy.ttl_s(now_ms)), ..CacheStatus::new(Phase::Hit) };
    let mode = isolate::with(|isolate| isolate.settings.mode);
    let varies = viewer::varies(about_of(&entry.key));
    let shape = respond::Shape { cdn_policy: mode == Some(Mode::Proxy), private, varies, ..respond::Shape::default() };
    respond::ready(entry, not_modified, entry.policy.age_ms(now_ms), &status, &shape)
}

fn make_ready(entry: &Entry<Body>, now_ms: u64, private: bool) -> Result<Ready, JsValue> {
    // The age is rounded down, and so is what is left of the lifetime: each changes at a moment of its own.
    let age_ms = entry.policy.age_ms(now_ms);
    let age_holds_ms = 1000_u64.saturating_sub(age_ms % 1000);
    let ttl_holds_ms = (entry.policy.lifetime_ms.saturating_sub(age_ms) % 1000).saturating_add(1);
    Ok(Ready {
        from_ms: now_ms,
        until_ms: now_ms.saturating_add(age_holds_ms.min(ttl_holds_ms)),
        whole: init(entry, false, now_ms, private)?,
        not_modified: None,
    })
}
