//! What leaves for viewers: each answer says which state of the database it was read at, by which keys it can be purged,
//! and how long it may be kept.
//!
//! There is no `Vary` here, but for the coding (`packed.rs`), although answers differ by `Viewer-*`: the edge keys on these
//! fields. Any other cache is told `max-age=0, must-revalidate`, so that it asks here each time, and entity tags are digests
//! of the body: it is told 304 for just what it should have. Only a cache that follows `CDN-Cache-Control` would keep more,
//! and it has to key on these fields as the edge does.
use super::conditional::{client_has, etag_of};
use super::error::{ApiError, problem_response};
use super::{ApiResult, App, viewer};
use crate::catalog::documents::{Document, Kind, Schedule};
use crate::store::{Eye, Snapshot};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kv_schemas::header::{CDN_CACHE_CONTROL, MIN_AS_OF, SURROGATE_AS_OF, SURROGATE_KEY};
use kv_schemas::viewer::Dimensions;
use kv_schemas::{AsOf, Problem, SurrogateKey};

/// A viewer's read: whom it is for, and the one state all of it is read at.
pub struct Reading {
    pub viewer: Dimensions,
    pub eye: Eye,
    pub snapshot: Snapshot,
    next_change_ms: Option<i64>,
    headers: HeaderMap,
}

impl FromRequestParts<App> for Reading {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let headers = parts.headers.clone();
        let viewer = viewer::said(&headers);
        let now_ms = crate::moment();
        let eye = Eye::of(&viewer, now_ms);
        let mut snapshot = snapshot(app, &headers).await?;
        let next_change_ms = snapshot.next_change_ms(now_ms).await?;
        Ok(Self { viewer, eye, snapshot, next_change_ms, headers })
    }
}

/// A snapshot that is new enough for the client.
async fn snapshot(app: &App, headers: &HeaderMap) -> Result<Snapshot, ApiError> {
    let min = demanded(headers)?;
    reached(app.store.client_snapshot(min.as_ref()).await?, min)
}

/// The primary's: for what must not be behind, such as whether a session is over.
pub async fn newest_snapshot(app: &App, headers: &HeaderMap) -> Result<Snapshot, ApiError> {
    let min = demanded(headers)?;
    reached(app.store.snapshot().await?, min)
}

/// `Min-As-Of`, if the client sent it.
fn demanded(headers: &HeaderMap) -> Result<Option<AsOf>, Problem> {
    let read = |value: &HeaderValue| {
        value.to_str().unwrap_or("").parse::<AsOf>().map_err(|error| {
            Problem::new(400, "min-as-of-invalid", "Min-As-Of is not of the form a write answers with")
                .fault("Min-As-Of", error.to_string())
        })
    };
    headers.get(MIN_AS_OF).map(read).transpose()
}

fn reached(snapshot: Snapshot, min: Option<AsOf>) -> Result<Snapshot, ApiError> {
    match min {
        Some(min) if !snapshot.as_of.covers(&min) => {
            metrics::counter!("origin_behind_total").increment(1);
            Err(Problem::new(503, "origin-behind", "This database has not reached the demanded state")
                .detail(format!("it is at {}", snapshot.as_of))
                .into())
        }
        _ => Ok(snapshot),
    }
}

pub fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}

/// The state an answer was read at, or a write has made.
pub fn as_of_field(as_of: &AsOf) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(SURROGATE_AS_OF), text(&as_of.to_string()))
}

fn joined(keys: &[SurrogateKey]) -> String {
    keys.iter().map(SurrogateKey::as_str).collect::<Vec<_>>().join(" ")
}

/// The fields every cacheable answer carries.
pub fn cache_fields(
    kind: Kind,
    keys: &[SurrogateKey],
    schedule: Schedule,
    now_ms: i64,
    as_of: &AsOf,
) -> [(HeaderName, HeaderValue); 4] {
    [
        (header::CACHE_CONTROL, HeaderValue::from_static(kind.cache_control())),
        (HeaderName::from_static(CDN_CACHE_CONTROL), text(&kind.cdn_cache_control(schedule, now_ms))),
        (HeaderName::from_static(SURROGATE_KEY), text(&joined(keys))),
        as_of_field(as_of),
    ]
}

impl Reading {
    fn fields(&self, kind: Kind, keys: &[SurrogateKey], schedule: Schedule) -> [(HeaderName, HeaderValue); 4] {
        cache_fields(kind, keys, schedule, self.eye.now_ms, &self.snapshot.as_of)
    }

    /// `gone_ms`: until when each thing that is shown may be seen.
    pub fn answer(self, document: Document, gone_ms: impl IntoIterator<Item = i64>) -> ApiResult {
        let schedule = Schedule::of(self.next_change_ms, gone_ms);
        let etag = etag_of(document.body.as_bytes());
        let fields = self.fields(Kind::Page, &document.keys, schedule);
        let etag_field = [(header::ETAG, text(&etag))];
        if client_has(&self.headers, &etag) {
            return Ok((StatusCode::NOT_MODIFIED, etag_field, fields).into_response());
        }
        let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Ok((etag_field, fields, json, document.body).into_response())
    }

    /// A 404 the edge may keep until the thing appears.
    pub fn absent(self, title: &str, keys: impl IntoIterator<Item = Option<SurrogateKey>>) -> ApiResult {
        let mut response: Response = problem_response(&absent(title));
        let keys: Vec<_> = keys.into_iter().flatten().collect();
        if !keys.is_empty() {
            for (name, value) in self.fields(Kind::Absent, &keys, Schedule::of(self.next_change_ms, [])) {
                response.headers_mut().insert(name, value);
            }
        }
        Ok(response)
    }
}

pub fn absent(title: &str) -> Problem {
    Problem::new(404, "not-found", title)
}
