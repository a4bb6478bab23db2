//! The layer before the viewers' shared documents: answers what was rendered before, and keeps what is rendered now. What
//! is one viewer's own does not pass here.
use super::App;
use super::answers::as_of_field;
use super::error::ApiError;
use super::packed::{Form, packed};
use super::viewer::{self, field};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use kv_schemas::AsOf;
use kv_schemas::header::{MIN_AS_OF, PREFETCH, SEC_PURPOSE, SURROGATE_AS_OF, SURROGATE_KEY};
use kv_schemas::surrogate_key::KeyHash;
use kv_schemas::viewer::Dimensions;
use surrogate_cache::entry::{key_of, surrogate_keys};
use surrogate_cache::fields::Fields;

const SEARCH: &str = "/v1/search";

/// The URL, and whom the answer is for.
fn key(target: &str, viewer: &Dimensions) -> String {
    let Dimensions { region, locale, maturity, plan } = viewer;
    format!("{}\n{} {} {} {}", key_of(target), region.as_str(), locale.as_str(), maturity.years(), plan.as_str())
}

pub async fn serve(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let min = field(request.headers(), MIN_AS_OF).map(str::parse::<AsOf>);
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_string();
    let viewer = viewer::said(request.headers());
    let is_ahead = field(request.headers(), SEC_PURPOSE).is_some_and(|purpose| purpose.starts_with(PREFETCH));
    let note = |key: &str, keys: &[KeyHash]| match &app.in_use {
        // What one viewer typed the next seldom does: warmed, it would take the place of a page that is wanted.
        Some(_) if target.starts_with(SEARCH) => {}
        Some(in_use) if is_ahead => in_use.fetched_ahead(key, keys.to_vec()),
        Some(in_use) => in_use.note(key, &target, &viewer, keys.to_vec()),
        None => {}
    };
    // HEAD as well: what it says is what is said of a GET.
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let (Some(rendered), true, None | Some(Ok(_))) = (&app.rendered, is_read, &min) else {
        return next.run(request).await;
    };
    let min = min.and_then(Result::ok);
    let key = key(&target, &viewer);
    let found = async {
        let mut snapshot = app.store.client_snapshot(min.as_ref()).await?;
        rendered.find(&key, &mut snapshot).await
    };
    match found.await {
        Ok(Some((document, as_of))) if min.as_ref().is_none_or(|min| as_of.covers(min)) => {
            metrics::counter!("origin_rendered_total", "outcome" => "hit").increment(1);
            note(&key, &document.keys);
            // Rounded up: what is downstream must not hold it longer than it may be shown.
            let age_s = document.policy.age_ms(crate::now_ms()).div_ceil(1_000);
            return answer(request.headers(), &document.head.fields, document.body.clone(), &as_of, age_s);
        }
        Ok(_) => metrics::counter!("origin_rendered_total", "outcome" => "miss").increment(1),
        Err(error) => return ApiError::from(error).into_response(),
    }
    let began_ms = crate::now_ms();
    // The whole document is wanted here, whatever the edge has of it.
    let asked = request.headers().clone();
    request.headers_mut().remove(header::IF_NONE_MATCH);
    let response = next.run(request).await;
    let is_kept = response.status() == StatusCode::OK
        && [SURROGATE_KEY, SURROGATE_AS_OF].iter().all(|name| response.headers().contains_key(*name));
    let Some(as_of) = field(response.headers(), SURROGATE_AS_OF).and_then(|as_of| as_of.parse::<AsOf>().ok()) else {
        return response;
    };
    if !is_kept {
        return response;
    }
    let (head, body) = response.into_parts();
    // Rendered in this process: its body is whole, in memory.
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return ApiError::Failed("a rendered body broke off".into()).into_response();
    };
    let texts = head.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let fields: Fields = texts.collect();
    let keys = surrogate_keys(&key, &fields);
    note(&key, keys.as_deref().unwrap_or_default());
    let (fields, body) = packed(fields, body);
    rendered.keep(&key, fields.clone(), body.clone(), began_ms).await;
    answer(&asked, &fields, body, &as_of, 0)
}

/// The document in the form the client takes, or that the client has it. `fields`, `body`: as they are kept.
fn answer(asked: &HeaderMap, fields: &Fields, body: Bytes, as_of: &AsOf, age_s: u64) -> Response {
    let form = Form::of(asked, fields);
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter().filter(|(name, _)| form.has_field(name)) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    // In place of the one it was rendered with.
    let (name, as_of) = as_of_field(as_of);
    headers.insert(name, as_of);
    if age_s > 0 {
        headers.insert(header::AGE, HeaderValue::from(age_s));
    }
    let held = form.held(asked);
    let tag = held.as_deref().unwrap_or(&form.tag);
    if let (false, Ok(tag)) = (tag.is_empty(), HeaderValue::from_str(tag)) {
        headers.insert(header::ETAG, tag);
    }
    if held.is_some() {
        for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING] {
            headers.remove(name);
        }
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    match form.body(body) {
        Some(body) => (headers, Body::from(body)).into_response(),
        None => ApiError::Failed("a kept document does not unpack".into()).into_response(),
    }
}
