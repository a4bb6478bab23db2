//! The client API: what viewers' apps read, through the edge. Every answer says which state of the database it was
//! read at and by which keys it can be purged.
use super::conditional::{client_has, etag_of};
use super::extract::Segment;
use super::{ApiResult, App};
use crate::catalog::documents::{self, Document, Kind, Schedule};
use crate::catalog::keys;
use crate::catalog::validate::check_id;
use crate::error::{ApiError, problem_response};
use crate::store::{Page, Snapshot};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64ct::{Base64UrlUnpadded, Encoding};
use kv_schemas::header::{CDN_CACHE_CONTROL, MIN_AS_OF, SURROGATE_AS_OF, SURROGATE_KEY};
use kv_schemas::{AsOf, Problem, SurrogateKey};
use std::collections::HashMap;

const LIMIT_DEFAULT: u32 = 24;
const LIMIT_MAX: u32 = 100;

pub fn routes() -> Router<App> {
    Router::new()
        .route("/v1/home", get(home))
        .route("/v1/catalog", get(catalog))
        .route("/v1/genres", get(genres))
        .route("/v1/titles/{id}", get(title))
}

async fn home(State(app): State<App>, headers: HeaderMap) -> ApiResult {
    let mut snapshot = snapshot(&app, &headers).await?;
    let now_ms = moment();
    let rails = snapshot.rails(now_ms).await?;
    let schedule = Schedule::of(snapshot.next_change_ms(now_ms).await?, rails.iter().flat_map(|(_, titles)| titles));
    Ok(answer(&documents::home(&rails), (&snapshot.as_of, schedule, now_ms), &headers))
}

async fn title(State(app): State<App>, Segment(id): Segment, headers: HeaderMap) -> ApiResult {
    let mut snapshot = snapshot(&app, &headers).await?;
    let now_ms = moment();
    let next_change_ms = snapshot.next_change_ms(now_ms).await?;
    let found = match check_id(&id) {
        Ok(()) => snapshot.visible_title(&id, now_ms).await?,
        // No title can ever have this id: nothing to purge by, nothing to keep.
        Err(_) => return Err(absent("There is no title of this id").into()),
    };
    match found {
        Some(title) => {
            let state = (&snapshot.as_of, Schedule::of(next_change_ms, [&title]), now_ms);
            Ok(answer(&documents::title(&title), state, &headers))
        }
        None => {
            let state = (&snapshot.as_of, Schedule::of(next_change_ms, []), now_ms);
            Ok(answer_absent("There is no title of this id", keys::title(&id), state))
        }
    }
}

async fn genres(State(app): State<App>, headers: HeaderMap) -> ApiResult {
    let mut snapshot = snapshot(&app, &headers).await?;
    let now_ms = moment();
    let genres = snapshot.genres().await?;
    let schedule = Schedule::of(snapshot.next_change_ms(now_ms).await?, []);
    Ok(answer(&documents::genres(&genres), (&snapshot.as_of, schedule, now_ms), &headers))
}

async fn catalog(State(app): State<App>, RawQuery(query): RawQuery, headers: HeaderMap) -> ApiResult {
    let query = CatalogQuery::read(query.as_deref().unwrap_or(""))?;
    let mut snapshot = snapshot(&app, &headers).await?;
    let now_ms = moment();
    let next_change_ms = snapshot.next_change_ms(now_ms).await?;
    let list = query.genre.as_deref().unwrap_or("");
    if !list.is_empty() && !snapshot.has_genre(list).await? {
        let state = (&snapshot.as_of, Schedule::of(next_change_ms, []), now_ms);
        return Ok(answer_absent("There is no such genre", keys::genre(list), state));
    }
    let after = query.cursor.as_ref().map(|cursor| (cursor.sort_name.as_str(), cursor.id.as_str()));
    // One more than asked for tells whether there is a next page.
    let mut titles = snapshot.list(Page { list, after, limit: query.limit + 1 }, now_ms).await?;
    let shown = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let has_next = titles.len() > shown;
    titles.truncate(shown);
    let next = titles.last().filter(|_| has_next).map(|last| {
        let cursor = Cursor { list: list.into(), sort_name: last.input.sort_name.clone(), id: last.id.clone() };
        cursor.encode()
    });
    let document = documents::catalog(&titles, query.genre.as_deref(), next);
    Ok(answer(&document, (&snapshot.as_of, Schedule::of(next_change_ms, &titles), now_ms), &headers))
}

fn moment() -> i64 {
    i64::try_from(crate::now_ms()).unwrap_or(i64::MAX)
}

/// The state a page was read at, when it changes by itself, and now.
type ReadAt<'a> = (&'a AsOf, Schedule, i64);

/// A snapshot that is new enough for the client.
async fn snapshot(app: &App, headers: &HeaderMap) -> Result<Snapshot, ApiError> {
    let min = demanded(headers)?;
    reached(app.store.client_snapshot(min.as_ref()).await?, min)
}

/// The primary's: for what must not be behind, such as whether a session is over.
pub(super) async fn newest_snapshot(app: &App, headers: &HeaderMap) -> Result<Snapshot, ApiError> {
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
            Err(Problem::new(503, "behind", "This database has not reached the demanded state")
                .detail(format!("it is at {}", snapshot.as_of))
                .into())
        }
        _ => Ok(snapshot),
    }
}

fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}

fn joined(keys: &[SurrogateKey]) -> String {
    keys.iter().map(SurrogateKey::as_str).collect::<Vec<_>>().join(" ")
}

/// The fields every cacheable answer carries.
fn cache_fields(kind: Kind, keys: &[SurrogateKey], read_at: ReadAt<'_>) -> [(HeaderName, HeaderValue); 4] {
    let (as_of, schedule, now_ms) = read_at;
    [
        (header::CACHE_CONTROL, HeaderValue::from_static(kind.cache_control())),
        (HeaderName::from_static(CDN_CACHE_CONTROL), text(&kind.cdn_cache_control(schedule, now_ms))),
        (HeaderName::from_static(SURROGATE_KEY), text(&joined(keys))),
        (HeaderName::from_static(SURROGATE_AS_OF), text(&as_of.to_string())),
    ]
}

fn answer(document: &Document, read_at: ReadAt<'_>, headers: &HeaderMap) -> Response {
    let etag = etag_of(document.body.as_bytes());
    let fields = cache_fields(document.kind, &document.keys, read_at);
    let etag_field = [(header::ETAG, text(&etag))];
    if client_has(headers, &etag) {
        return (StatusCode::NOT_MODIFIED, etag_field, fields).into_response();
    }
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (etag_field, fields, json, document.body.clone()).into_response()
}

fn absent(title: &str) -> Problem {
    Problem::new(404, "not-found", title)
}

/// A 404 the edge may keep until the thing appears.
fn answer_absent(title: &str, key: Option<SurrogateKey>, read_at: ReadAt<'_>) -> Response {
    let mut response = problem_response(&absent(title));
    let keys: Vec<_> = key.into_iter().collect();
    if !keys.is_empty() {
        for (name, value) in cache_fields(Kind::Absent, &keys, read_at) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Where a page of a list begins. Opaque to clients.
#[derive(Debug, PartialEq, Eq)]
struct Cursor {
    list: String,
    sort_name: String,
    id: String,
}

impl Cursor {
    fn encode(&self) -> String {
        let json = serde_json::json!([self.list, self.sort_name, self.id]);
        Base64UrlUnpadded::encode_string(json.to_string().as_bytes())
    }

    fn decode(text: &str) -> Option<Self> {
        let bytes = Base64UrlUnpadded::decode_vec(text).ok()?;
        let (list, sort_name, id) = serde_json::from_slice(&bytes).ok()?;
        Some(Self { list, sort_name, id })
    }
}

#[derive(Debug)]
struct CatalogQuery {
    genre: Option<String>,
    cursor: Option<Cursor>,
    limit: u32,
}

impl CatalogQuery {
    /// Every fault of the known parameters is named; unknown ones are ignored.
    fn read(query: &str) -> Result<Self, Problem> {
        let mut problem = Problem::new(400, "query-invalid", "The query has faults");
        let mut given: HashMap<&str, String> = HashMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !["genre", "limit", "cursor"].contains(&name) {
                continue;
            }
            if given.insert(name, value.to_string()).is_some() {
                problem = problem.fault(name, "must be given once");
            }
        }
        let mut limit = LIMIT_DEFAULT;
        if let Some(text) = given.remove("limit") {
            match text.parse::<u32>().ok().filter(|n| (1..=LIMIT_MAX).contains(n) && !text.starts_with('+')) {
                Some(n) => limit = n,
                None => problem = problem.fault("limit", format!("must be a whole number from 1 to {LIMIT_MAX}")),
            }
        }
        let genre = given.remove("genre");
        if genre.as_deref().is_some_and(|genre| check_id(genre).is_err()) {
            problem = problem.fault("genre", "must be the slug of a genre, as /v1/genres lists them");
        }
        let mut cursor = None;
        if let Some(text) = given.remove("cursor") {
            let list = genre.as_deref().unwrap_or("");
            cursor = Cursor::decode(&text).filter(|cursor| cursor.list == list);
            if cursor.is_none() {
                problem = problem.fault("cursor", "must be a next_cursor of the same list");
            }
        }
        if problem.errors.is_empty() { Ok(Self { genre, cursor, limit }) } else { Err(problem) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let cursor = Cursor { list: "drama".into(), sort_name: "heat \"1\"".into(), id: "heat".into() };
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        for bad in ["", "x", "e30", "WyJhIl0", "ééé"] {
            assert_eq!(Cursor::decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_fault_of_a_query_is_named_and_strangers_are_ignored() {
        let at = |query| {
            let faults = CatalogQuery::read(query).unwrap_err().errors;
            faults.into_iter().map(|fault| fault.at).collect::<Vec<_>>()
        };
        assert_eq!(at("limit=0&genre=A&cursor=x"), ["limit", "genre", "cursor"]);
        assert_eq!(at("limit=1&limit=2"), ["limit"]);
        assert_eq!(at("limit=101"), ["limit"]);
        assert_eq!(at("limit=+5"), ["limit"]);
        let foreign = Cursor { list: "drama".into(), sort_name: "a".into(), id: "a".into() }.encode();
        assert_eq!(at(&format!("genre=war&cursor={foreign}")), ["cursor"]);
        assert_eq!(CatalogQuery::read("utm=1&limit=5").unwrap().limit, 5);
    }
}
