//! What browsers are told for web apps on other origins (`WEB_ORIGINS`; Fetch standard, "CORS protocol"). An answer says it when
//! all else is done: here on the long way, and by `respond::ready` on the short one, where nothing may be said that depends on
//! who asks.
use crate::drive::Call;
use crate::js;
use crate::respond;
use gateway_rules::web::{ALLOWED, EXPOSED, PREFLIGHT};
use wasm_bindgen::JsValue;

pub const ORIGIN: &str = "origin";

/// Whether a browser asks, before it sends what an app wants to, whether it may, for an app that may. Any other OPTIONS is its
/// service's.
#[inline(never)]
pub fn is_preflight(call: &Call) -> bool {
    let origins = &call.settings.web_origins;
    origins.is_on()
        && call.request.method() == "OPTIONS"
        && call.request.headers().has("access-control-request-method").unwrap_or(false)
        && origin_of(call).is_some_and(|origin| origins.admits(&origin))
}

#[inline(never)]
fn origin_of(call: &Call) -> Option<String> {
    call.request.headers().get(ORIGIN).ok().flatten()
}

/// Its answer; who may read it is said with [`tell`].
pub fn preflight() -> Result<web_sys::Response, JsValue> {
    let headers = respond::bypassed()?;
    respond::set(&headers, &PREFLIGHT)?;
    js::respond(&JsValue::NULL, 204, &headers)
}

/// Says on an answer whether the app that asks may read it. What is below `/__edge/` is for no app.
pub fn tell(call: &Call, target: &str, answer: &web_sys::Response) -> Result<(), JsValue> {
    let origins = &call.settings.web_origins;
    if !origins.is_on() || target.starts_with("/__edge/") {
        return Ok(());
    }
    let headers = answer.headers();
    if let Some(named) = origins.named(origin_of(call).as_deref()) {
        respond::set(&headers, &[(ALLOWED, named), EXPOSED])?;
    }
    if origins.depends_on_origin() { headers.append("vary", ORIGIN) } else { Ok(()) }
}
