//! Asking origin: the client's request as the cache sends it, with a bounded wait.
use crate::drive::Call;
use crate::identity::EDGE_DEBUG;
use crate::isolate::now_ms;
use crate::settings::{Mode, Settings};
use crate::{access, js, limits, upstream};
use gateway_rules::access::route;
use gateway_rules::services::Index;
use gateway_rules::trace::Context;
use kv_schemas::edge_secret::VIEWER_SEAL;
use kv_schemas::header::{MIN_AS_OF, PREFETCH, SEC_PURPOSE};
use surrogate_cache::Fields;
use surrogate_cache::conditional::CONDITIONAL;
use surrogate_cache::lookup::Fetch;
use surrogate_cache::policy::ResponseHead;
use wasm_bindgen::JsValue;

/// A request as origin is to see it, before validators.
#[derive(Clone, Debug)]
pub struct OriginRequest {
    pub url: String,
    pub is_head: bool,
    pub fields: Fields,
    pub service: Index,
    /// What it is told of the trace; a proxy's origin gets what the client sent.
    pub trace: Option<Context>,
}

impl OriginRequest {
    /// `target`: path and query, as the service is to see them.
    pub fn of(call: &Call, target: &str, is_head: bool, fields: Fields) -> Self {
        let services = &call.settings.services;
        let service = services.of(target);
        let base = services.get(service).map_or("", |service| service.url.as_str());
        let trace = (call.settings.mode == Mode::Gateway).then_some(call.trace);
        Self { url: format!("{base}{target}"), is_head, fields, service, trace }
    }

    /// For the log, in which nothing stands that a client made up: the service, and the route.
    pub fn named(&self, call: &Call) -> String {
        let Some(service) = call.settings.services.get(self.service) else { return String::new() };
        let target = self.url.strip_prefix(&service.url).unwrap_or_default();
        format!("service {}, {}", service.name, route(target))
    }

    /// No viewer asks for it: origin must not take it for a document in use.
    pub fn ahead(mut self) -> Self {
        self.fields.push(SEC_PURPOSE, PREFETCH);
        self
    }
}

/// The cache asks in its own words: its validators and ranges, and one coding for everybody. A token for this edge is for
/// nobody else to see.
const NOT_SENT: [&str; 4] = ["host", MIN_AS_OF, "accept-encoding", EDGE_DEBUG];

/// RFC 9110 section 7.6.3.
pub const VIA: &str = "1.1 nextream-edge";

pub async fn send(
    settings: &Settings,
    request: &OriginRequest,
    fetch: &Fetch,
) -> Result<(ResponseHead, web_sys::Response), js::CallError> {
    let refused = |_| js::CallError::Refused("the request could not be built".into());
    let headers = web_sys::Headers::new().map_err(refused)?;
    for (name, value) in request.fields.iter() {
        if !CONDITIONAL.contains(&name) && !NOT_SENT.contains(&name) {
            headers.append(name, value).map_err(refused)?;
        }
    }
    seal_viewer(settings, &headers, &request.fields).map_err(refused)?;
    headers.set("accept-encoding", surrogate_cache::encoding::ASKED).map_err(refused)?;
    headers.append("via", VIA).map_err(refused)?;
    for (name, value) in &fetch.fields {
        headers.set(name, value).map_err(refused)?;
    }
    if let Some(context) = &request.trace {
        access::tell_origin(&headers, context).map_err(refused)?;
    }
    if let Some(min) = &fetch.min_as_of {
        headers.set(MIN_AS_OF, &min.to_string()).map_err(refused)?;
    }
    let init = web_sys::RequestInit::new();
    init.set_method(if request.is_head { "HEAD" } else { "GET" });
    init.set_headers(&headers);
    let request_ = web_sys::Request::new_with_str_and_init(&request.url, &init).map_err(refused)?;
    exchange(settings, request.service, &request_, upstream::Content::None).await
}

/// Proves to origin that what `fields` say of the viewer is this edge's word. In a proxy it is the client's.
pub fn seal_viewer(settings: &Settings, headers: &web_sys::Headers, fields: &Fields) -> Result<(), JsValue> {
    let secret = settings.edge_secret.as_ref().filter(|_| settings.mode == Mode::Gateway);
    match secret.and_then(|secret| secret.seal_viewer(|name| fields.get(name), now_ms() / 1000)) {
        Some(seal) => headers.set(VIEWER_SEAL, &seal),
        None => Ok(()),
    }
}

/// Origin's answer to a request, and its head as the cache sees it.
pub async fn exchange(
    settings: &Settings,
    service: Index,
    request: &web_sys::Request,
    content: upstream::Content,
) -> Result<(ResponseHead, web_sys::Response), js::CallError> {
    let request_time_ms = now_ms();
    let response = upstream::ask(settings, service, request, content).await?;
    let status = js::final_status(&response)?;
    let mut fields = js::fields(&response.headers());
    if fields.len() > limits::FIELDS_MAX {
        if let Some(body) = response.body() {
            let _ = body.cancel();
        }
        return Err(js::CallError::Refused("its answer has more header fields than are read".into()));
    }
    // RFC 9110 section 6.6.1: "A recipient with a clock that receives a response message without a Date header field MUST
    // record the time it was received and append a corresponding Date header field to the message's header section if
    // it is cached or forwarded downstream."
    if !fields.has("date") {
        let now: JsValue = js_sys::Date::new_0().to_utc_string().into();
        fields.push("date", now.as_string().unwrap_or_default());
    }
    Ok((ResponseHead { status, fields, request_time_ms, response_time_ms: now_ms() }, response))
}
