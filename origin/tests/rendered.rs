//! Documents rendered before: what is answered from memory or from Redis is what would be rendered now, at every state.
mod common;

use axum::http::StatusCode;
use common::{Database, Service, text};
use flate2::read::GzDecoder;
use http_body_util::BodyExt;
use std::io::Read;
use xtask::redis::Redis;

/// The state an answer says it was read at, and the title's name in it.
async fn read(service: &Service, fields: &[(&str, &str)]) -> (StatusCode, String, String) {
    let response = service.ask("GET", "/v1/titles/heat", "", fields).await;
    let status = response.status();
    // An edge that reads two takes neither, and the answer for one of no state.
    assert!(response.headers().get_all("surrogate-as-of").iter().count() <= 1, "it says so once");
    let as_of = response.headers().get("surrogate-as-of").map(|value| value.to_str().unwrap().to_string());
    let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap_or_default();
    (status, as_of.unwrap_or_default(), body["name"].as_str().unwrap_or_default().to_string())
}

/// Rewrites the row as nothing of ours does, with no purge: whoever still shows the old name did not render.
async fn rewrite_behind_the_log(service: &Service, name: &str) {
    let statement = format!("UPDATE title SET name = '{name}' WHERE id = 'heat'");
    service.database.sql(&statement, &statement).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_rendered_once_and_again_after_its_purge() {
    let service = Service::start().await;
    service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
    assert_eq!(read(&service, &[]).await.2, "Heat");
    rewrite_behind_the_log(&service, "Rendered anew").await;
    assert_eq!(read(&service, &[]).await.2, "Heat", "not rendered again");
    // Somebody else's change: the document is as it was, and is said to be of the newest state.
    let other = service.call("PUT", "/admin/v1/titles/up", r#"{"name":"Up"}"#).await;
    let newest = other.headers()["surrogate-as-of"].to_str().unwrap().to_string();
    let demanded = read(&service, &[("min-as-of", &newest)]).await;
    assert_eq!((demanded.0, demanded.1, demanded.2.as_str()), (StatusCode::OK, newest, "Heat"));
    let purged = service.call("POST", "/admin/v1/purges", r#"{"keys":["title:heat"],"mode":"soft"}"#).await;
    assert_eq!(purged.status(), StatusCode::ACCEPTED);
    assert_eq!(read(&service, &[]).await.2, "Rendered anew");
}

/// Anybody can demand one: it must cost no more than the question.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_there_is_not_is_refused_without_rendering() {
    let service = Service::start().await;
    let written = service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
    let newest: kv_schemas::AsOf = written.headers()["surrogate-as-of"].to_str().unwrap().parse().unwrap();
    // Whoever renders a title now fails.
    let without = "ALTER TABLE title RENAME TO taken_away";
    service.database.sql(without, without).await;
    for demanded in [format!("{}:{}", newest.log_id, newest.seq + 1), "another-log:1".to_string()] {
        let refused = service.ask("GET", "/v1/titles/heat", "", &[("min-as-of", &demanded)]).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "{demanded}");
        let body = text(refused).await;
        assert!(body.contains("problem:origin-behind\""), "{demanded}: {body}");
    }
    let rendered = service.ask("GET", "/v1/titles/heat", "", &[]).await;
    assert_eq!(rendered.status(), StatusCode::INTERNAL_SERVER_ERROR, "rendering is what fails");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_is_for_those_it_was_rendered_for_and_tags_are_answered_from_it() {
    let service = Service::start().await;
    service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
    let first = service.ask("GET", "/v1/titles/heat", "", &[]).await;
    let etag = first.headers()["etag"].to_str().unwrap().to_string();
    rewrite_behind_the_log(&service, "Rendered anew").await;
    assert_eq!(read(&service, &[("viewer-region", "DE")]).await.2, "Rendered anew");
    assert_eq!(read(&service, &[]).await.2, "Heat");
    let again = service.ask("GET", "/v1/titles/heat", "", &[("if-none-match", &etag)]).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(
        (again.headers()["etag"].to_str().unwrap(), again.headers().contains_key("surrogate-key")),
        (etag.as_str(), true)
    );
}

/// Rounded down, whoever is downstream would add the rest of a second to the life of what is shown.
#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_a_kept_document_is_rounded_up() {
    let service = Service::start().await;
    service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
    let age = || async { service.ask("GET", "/v1/titles/heat", "", &[]).await.headers().get("age").cloned() };
    assert_eq!(age().await, None, "rendered now");
    let began = std::time::Instant::now();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    let young = age().await.expect("it was kept");
    if began.elapsed().as_millis() < 900 {
        assert_eq!(young, "1", "a fiftieth of a second is a second");
    }
    let etag = service.ask("GET", "/v1/titles/heat", "", &[]).await.headers()["etag"].to_str().unwrap().to_string();
    let again = service.ask("GET", "/v1/titles/heat", "", &[("if-none-match", &etag)]).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert!(again.headers().contains_key("age"), "a 304 says how old what it confirms is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_log_makes_everything_be_rendered_anew() {
    let service = Service::start().await;
    service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
    read(&service, &[]).await;
    rewrite_behind_the_log(&service, "Rendered anew").await;
    service.app.store.replace_log().await.unwrap();
    assert_eq!(read(&service, &[]).await.2, "Rendered anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_what_they_rendered_through_redis_and_none_answers_what_was_purged() {
    let mut redis = Redis::start().unwrap();
    let database = Database { redis: Some(redis.url()), ..Database::fresh() };
    let again = database.again();
    let one = Service::over(database).await;
    let two = Service::over(again).await;
    one.call("PUT", "/admin/v1/titles/heat", &long_title()).await;
    // The other process knows the log from here on.
    assert_eq!(two.call("GET", "/v1/genres", "").await.status(), StatusCode::OK);
    assert_eq!(read(&one, &[]).await.2, "Heat");
    rewrite_behind_the_log(&one, "Rendered anew").await;
    assert_eq!(read(&two, &[]).await.2, "Heat", "what the first rendered");
    let written = one.call("PATCH", "/admin/v1/titles/heat", r#"{"name":"Heat II"}"#).await;
    assert_eq!(written.status(), StatusCode::OK);
    assert_eq!(read(&two, &[]).await.2, "Heat II", "Redis has the old one still");
    redis.stop();
    assert_eq!(read(&two, &[("viewer-region", "DE")]).await.2, "Heat II", "without Redis it is rendered");
}

/// Two releases at once, over one Redis: each reads what it stored itself.
#[tokio::test(flavor = "multi_thread")]
async fn documents_of_another_form_are_not_used_however_they_came_into_redis() {
    let redis = Redis::start().unwrap();
    let database = Database { redis: Some(redis.url()), ..Database::fresh() };
    let others = [database.again(), database.again()];
    let service = Service::over(database).await;
    service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
    assert_eq!(read(&service, &[]).await.2, "Heat");
    let mut connection = redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys = async |connection: &mut redis::aio::MultiplexedConnection| {
        redis::cmd("KEYS").arg("*").query_async::<Vec<String>>(connection).await.unwrap()
    };
    let first = keys(&mut connection).await.pop().expect("it was stored");
    let form: i64 = first.split(':').nth(3).and_then(|form| form.parse().ok()).unwrap();
    assert_eq!(service.database.count(&format!("derived WHERE form = {form}")).await, 1, "{first}");
    let own = format!("nextream:rendered:3:{form}:");
    let forms = [format!("nextream:rendered:2:{form}:"), format!("nextream:rendered:3:{}:", form + 1)];
    for (other, form) in others.into_iter().zip(forms) {
        for key in keys(&mut connection).await {
            let Some(rest) = key.strip_prefix(&own) else {
                assert!(key.starts_with("nextream:rendered:2:"), "{key}: moved before");
                continue;
            };
            redis::cmd("RENAME").arg(&key).arg(format!("{form}{rest}")).exec_async(&mut connection).await.unwrap();
        }
        let name = format!("Rendered anew, beside {form}");
        rewrite_behind_the_log(&service, &name).await;
        let other = Service::over(other).await;
        assert_eq!(read(&other, &[]).await.2, name, "{form}");
        assert!(keys(&mut connection).await.iter().any(|key| key.starts_with(&own)), "and stored");
    }
}

/// A title whose page is worth packing.
fn long_title() -> String {
    serde_json::json!({"name": "Heat", "synopsis": "A thief and a detective. ".repeat(100)}).to_string()
}

/// An answer by its fields and the bytes of its body.
struct Sent {
    status: StatusCode,
    fields: axum::http::HeaderMap,
    bytes: Vec<u8>,
}

impl Sent {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().unwrap())
    }
}

async fn sent(service: &Service, method: &str, fields: &[(&str, &str)]) -> Sent {
    let response = service.ask(method, "/v1/titles/heat", "", fields).await;
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes().to_vec();
    Sent { status: parts.status, fields: parts.headers, bytes }
}

const GZIP: (&str, &str) = ("accept-encoding", "br, gzip");

#[tokio::test(flavor = "multi_thread")]
async fn a_long_document_is_packed_once_and_each_client_gets_the_form_it_takes() {
    let service = Service::start().await;
    service.call("PUT", "/admin/v1/titles/heat", &long_title()).await;
    let rendered = sent(&service, "GET", &[GZIP]).await;
    rewrite_behind_the_log(&service, "Rendered anew").await;
    let packed = sent(&service, "GET", &[GZIP]).await;
    assert_eq!(packed.field("content-encoding"), Some("gzip"));
    assert_eq!(packed.bytes, rendered.bytes, "kept as it was packed");
    let mut unpacked = Vec::new();
    GzDecoder::new(&packed.bytes[..]).read_to_end(&mut unpacked).unwrap();
    for refusing in ["", "identity", "br", "gzip;q=0"] {
        let plain = sent(&service, "GET", &[("accept-encoding", refusing)]).await;
        assert_eq!((plain.field("content-encoding"), &plain.bytes), (None, &unpacked), "{refusing:?}");
        assert_eq!((plain.field("vary"), packed.field("vary")), (Some("accept-encoding"), Some("accept-encoding")));
        assert_ne!(plain.field("etag"), packed.field("etag"), "other bytes are another strong tag");
    }
    assert!(unpacked.starts_with(b"{") && packed.bytes.len() * 5 < unpacked.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tag_of_either_form_is_one_the_client_has() {
    let service = Service::start().await;
    service.call("PUT", "/admin/v1/titles/heat", &long_title()).await;
    let tag = async |fields: &[(&str, &str)]| sent(&service, "GET", fields).await.field("etag").unwrap().to_string();
    let (plain, packed) = (tag(&[]).await, tag(&[GZIP]).await);
    for accepted in [GZIP, ("accept-encoding", "identity")] {
        for held in [&plain, &packed] {
            for asked in [held.clone(), format!("W/{held}"), format!("\"other\", {held}")] {
                let again = sent(&service, "GET", &[accepted, ("if-none-match", &asked)]).await;
                assert_eq!(again.status, StatusCode::NOT_MODIFIED, "{accepted:?} {asked}");
                assert_eq!((again.field("etag"), again.field("vary")), (Some(held.as_str()), Some("accept-encoding")));
                assert_eq!((again.field("content-encoding"), again.bytes.len()), (None, 0));
            }
        }
        let changed = sent(&service, "GET", &[accepted, ("if-none-match", "\"other-gzip\"")]).await;
        assert_eq!(changed.status, StatusCode::OK);
    }
    let any = sent(&service, "GET", &[GZIP, ("if-none-match", "*")]).await;
    assert_eq!((any.status, any.field("etag")), (StatusCode::NOT_MODIFIED, Some(packed.as_str())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_says_of_either_form_what_a_get_says_of_it() {
    let service = Service::start().await;
    service.call("PUT", "/admin/v1/titles/heat", &long_title()).await;
    for accepted in [GZIP, ("accept-encoding", "identity")] {
        let (get, head) = (sent(&service, "GET", &[accepted]).await, sent(&service, "HEAD", &[accepted]).await);
        assert!(head.bytes.is_empty());
        let length = get.bytes.len().to_string();
        assert_eq!(head.field("content-length"), Some(length.as_str()));
        for name in ["etag", "content-encoding", "content-type", "vary", "surrogate-key"] {
            assert_eq!(head.field(name), get.field(name), "{accepted:?} {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_document_is_packed_for_nobody() {
    let service = Service::start().await;
    service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
    let short = sent(&service, "GET", &[GZIP]).await;
    assert_eq!((short.field("content-encoding"), short.field("vary")), (None, None));
    assert!(!short.field("etag").unwrap().contains("gzip"));
}

#[tokio::test(flavor = "multi_thread")]
async fn under_concurrent_writes_no_answer_is_older_than_it_says() {
    let service = Service::start().await;
    service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat 1"}"#).await;
    let writer = async {
        for n in 2..40 {
            service.call("PATCH", "/admin/v1/titles/heat", &format!(r#"{{"name":"Heat {n}"}}"#)).await;
        }
    };
    let reader = async {
        for _ in 0..120 {
            let (status, as_of, name) = read(&service, &[]).await;
            let seq = as_of.rsplit(':').next().unwrap().to_string();
            assert_eq!((status, name), (StatusCode::OK, format!("Heat {seq}")));
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(writer, reader);
}

/// As a failover to a replica that had not got the last commits does, or a copy of the database.
async fn put_back(service: &Service, name: &str, seq: u64) {
    rewrite_behind_the_log(service, name).await;
    let lost = format!(
        "DELETE FROM purge_log WHERE seq > {seq}; DELETE FROM audit WHERE seq > {seq}; UPDATE log_head SET seq = {seq}"
    );
    service.database.sql(&lost, &lost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rendered_of_commits_that_were_lost_is_answered_no_more() {
    let mut redis = Redis::start().unwrap();
    for shared in [None, Some(redis.url())] {
        let service = Service::over(Database { redis: shared.clone(), ..Database::fresh() }).await;
        service.call("PUT", "/admin/v1/titles/heat", r#"{"name":"Heat"}"#).await;
        service.call("PATCH", "/admin/v1/titles/heat", r#"{"name":"Lost"}"#).await;
        assert_eq!(read(&service, &[]).await.2, "Lost");
        put_back(&service, "Heat", 1).await;
        let (status, as_of, name) = read(&service, &[]).await;
        assert_eq!((status, name.as_str()), (StatusCode::OK, "Heat"), "{shared:?}");
        assert!(as_of.ends_with(":1"), "{shared:?}: {as_of}");
        // Numbers are used again, for other things.
        let up = service.call("PUT", "/admin/v1/titles/up", r#"{"name":"Up"}"#).await;
        assert_eq!(up.status(), StatusCode::CREATED);
        let (_, as_of, name) = read(&service, &[]).await;
        assert_eq!(name, "Heat", "{shared:?}");
        assert!(as_of.ends_with(":2"), "{shared:?}: {as_of}");
    }
    redis.stop();
}
