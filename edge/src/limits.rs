//! Who asks too often is told so, before anything is looked up. First by this isolate's own count, which costs no call and
//! is all that a cached answer costs; then, for the classes that always cost a service something, by the platform's
//! counter of the whole location.
use crate::drive::Call;
use crate::isolate::now_ms;
use crate::js;
use crate::respond::fail;
use crate::settings::{Mode, Settings};
use gateway_rules::limits::{Class, Meter, Policy, client, used_up};
use js_sys::{Object, Promise, Reflect};
use kv_schemas::Problem;
use std::cell::RefCell;
use surrogate_cache::{Fields, Reason};
use wasm_bindgen::prelude::*;

/// The platform's counter answers at once or is away; a limit that cannot be asked about does not stop the service.
const COUNTER_MS_MAX: u64 = 250;

/// Longest request fields, names and values together. The platform's own limit is higher.
pub const FIELDS_BYTES_MAX: usize = 16 * 1024;

/// As many request fields are taken, and as many of an answer's. Each is looked for among all others here and there.
pub const FIELDS_MAX: usize = 256;

/// Who asks, by the platform's word: it sets this field, whatever a client sends.
pub const CLIENT: &str = "cf-connecting-ip";

thread_local! {
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

#[wasm_bindgen]
extern "C" {
    type Counter;
    #[wasm_bindgen(method, catch)]
    fn limit(this: &Counter, options: &Object) -> Result<Promise, JsValue>;
}

/// The refusal of a request with too many or too long fields, where a service would have to read them. Of a proxy's origin
/// nobody knows how long the fields are that it reads.
pub fn fields_refused(call: &Call, fields: &Fields) -> Option<Result<web_sys::Response, JsValue>> {
    let is_long = call.settings.mode == Mode::Gateway && fields.bytes() > FIELDS_BYTES_MAX;
    (is_long || fields.len() > FIELDS_MAX).then(|| fail(&problem(), Reason::Limited))
}

fn problem() -> Problem {
    Problem::new(431, "fields-too-large", "The request's header fields are longer than is taken here")
        .detail(format!("at most {FIELDS_MAX} of them, and {FIELDS_BYTES_MAX} bytes where services read them"))
}

/// The refusal, if there is one.
pub async fn refusal(call: &Call, class: Option<Class>) -> Option<Result<web_sys::Response, JsValue>> {
    let class = class?;
    let policy = call.settings.limits.of(class)?;
    let address = call.request.headers().get(CLIENT).ok().flatten().unwrap_or_default();
    let who = client(&address);
    if let Some(retry_after_ms) = refused_for_ms(class, policy, who, now_ms()) {
        return Some(refused(class, call, retry_after_ms.div_ceil(1_000).max(1)));
    }
    let name = class.binding()?;
    let counter = js::binding(&call.env, name)?;
    match counted(&counter, who).await {
        // Windows of the platform are whole ones: the next begins after a window at most.
        Some(false) => Some(refused(class, call, policy.window_s)),
        _ => None,
    }
}

/// Counts a request in this isolate; if there is no room for it, how long there is none.
fn refused_for_ms(class: Class, policy: Policy, who: &str, now_ms: u64) -> Option<u64> {
    METER.with(|cell| {
        let mut meter = cell.try_borrow_mut().ok()?;
        meter.get_or_insert_with(|| Meter::seeded(js::random())).take(class, policy, who, now_ms).err()
    })
}

/// Whether reads are counted at all.
pub fn counts_reads(settings: &Settings) -> bool {
    settings.mode == Mode::Gateway && settings.limits.of(Class::Reads).is_some()
}

/// Counts a read that is about to be answered the short way.
pub fn may_read(settings: &Settings, address: Option<&str>, now_ms: u64) -> bool {
    match settings.limits.of(Class::Reads).filter(|_| settings.mode == Mode::Gateway) {
        Some(policy) => refused_for_ms(Class::Reads, policy, client(address.unwrap_or_default()), now_ms).is_none(),
        None => true,
    }
}

async fn counted(counter: &JsValue, who: &str) -> Option<bool> {
    let options = Object::new();
    Reflect::set(&options, &"key".into(), &who.into()).ok()?;
    let asked = counter.unchecked_ref::<Counter>().limit(&options).ok()?;
    let outcome = js::within(asked, COUNTER_MS_MAX).await.ok()?;
    Reflect::get(&outcome, &"success".into()).ok()?.as_bool()
}

fn refused(class: Class, call: &Call, retry_after_s: u64) -> Result<web_sys::Response, JsValue> {
    let problem = Problem::new(429, "rate-limited", "This client asks too often")
        .detail(format!("limit of the class {}; ask again after {retry_after_s} s", class.as_str()));
    let answer = fail(&problem, Reason::Limited)?;
    let headers = answer.headers();
    headers.set("retry-after", &retry_after_s.to_string())?;
    headers.set("ratelimit", &used_up(class, retry_after_s))?;
    describe(&answer, class, call)?;
    Ok(answer)
}

/// Names the policy a request was counted by.
fn describe(answer: &web_sys::Response, class: Class, call: &Call) -> Result<(), JsValue> {
    match call.settings.limits.of(class) {
        Some(policy) => answer.headers().set("ratelimit-policy", &policy.field(class)),
        None => Ok(()),
    }
}

/// The same on answers of the classes that the platform counts. A cached read is answered as it is: a field more for each
/// hit would say nothing its client could use.
pub fn note(answer: &web_sys::Response, class: Option<Class>, call: &Call) -> Result<(), JsValue> {
    match class.filter(|class| class.binding().is_some()) {
        Some(class) => describe(answer, class, call),
        None => Ok(()),
    }
}
