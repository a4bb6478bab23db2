//! What is stored and exchanged, against the files of `golden/`: a change of any byte shows here, and is a new version.
//!
//! `GOLDEN_WRITE=1 cargo test -p kv-schemas` writes them anew; look at the difference before you commit it.
use kv_schemas::claims::{
    AUDIENCE_ADMIN, AUDIENCE_EDGE, AUDIENCE_VIEWER, AdminClaims, EdgeClaims, ISSUER, Scope, StaffRole, ViewerClaims,
    body_digest,
};
use kv_schemas::entry::EntryHead;
use kv_schemas::journal::{DeltaPurge, Floor, JournalClock, JournalDelta, JournalQuery, SharedSync};
use kv_schemas::store_key::{SHARED_SYNC_URL, colo_url, kv_key};
use kv_schemas::surrogate_key::{hash_lists, url_key};
use kv_schemas::viewer::{Maturity, Plan};
use kv_schemas::warm::{Outcome, WarmAnswer, WarmDocument, WarmRequest, Warmed};
use kv_schemas::{
    AsOf, LogId, PerClass, Problem, Purge, PurgeAck, PurgeBatch, PurgeMode, PurgeRequest, SurrogateKey, Unannounced,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt::Debug;
use std::path::PathBuf;

fn file(folder: &str, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder).join(name)
}

fn same(name: &str, text: &str) {
    let path = file("golden", name);
    if std::env::var_os("GOLDEN_WRITE").is_some() {
        std::fs::write(&path, format!("{text}\n")).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, golden.trim_end(), "{name} is not as it was; a change here is a new version of the format");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn schema(name: &str) -> jsonschema::Validator {
    let text = std::fs::read_to_string(file("schema", &format!("{name}.json"))).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) {
    let text = serde_json::to_string(value).unwrap();
    same(&format!("{name}.json"), &text);
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value, "{name} does not come back as it went");
    let json: Value = serde_json::from_str(&text).unwrap();
    let faults: Vec<String> = schema(name).iter_errors(&json).map(|error| error.to_string()).collect();
    assert!(faults.is_empty(), "{name}: {faults:?}");
}

fn key(text: &str) -> SurrogateKey {
    SurrogateKey::new(text).unwrap()
}

fn log_id() -> LogId {
    LogId::from_random(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef)
}

fn purge() -> Purge {
    Purge {
        seq: 7,
        keys: vec![key("title:heat-1995"), key("genre:crime")],
        all: false,
        mode: PurgeMode::Soft,
        reason: Some("edit".into()),
        actor: Some("ada".into()),
        committed_at_ms: 1_700_000_000_000,
        mark: 5,
    }
}

fn head() -> EntryHead {
    EntryHead {
        key: "GET /v1/home".into(),
        status: 200,
        fields: [("content-type", "application/json"), ("surrogate-key", "home title:heat-1995")].into_iter().collect(),
        as_of: Some(AsOf::new(log_id(), 7)),
        request_time_ms: 1_700_000_000_000,
        response_time_ms: 1_700_000_000_012,
        body_bytes: 2,
        varies_on: vec![],
        keys: hash_lists(Some("home title:heat-1995"), None).unwrap(),
    }
}

#[test]
fn purges_travel_as_agreed() {
    let all = Purge { seq: 8, keys: vec![], all: true, mode: PurgeMode::Hard, reason: None, actor: None, ..purge() };
    let replaces = vec![LogId::from_random(1)];
    let purges = vec![purge(), all];
    let batch = PurgeBatch { log_id: log_id(), replaces, first_seq: 7, after_mark: 4, challenge: 9, purges };
    check("purge_batch", &batch);
    check("purge_ack", &PurgeAck { log_id: log_id(), next_seq: 9, accepted: 2 });
    let request =
        PurgeRequest { keys: vec![key("home")], all: false, mode: PurgeMode::Soft, reason: Some("why".into()) };
    check("purge_request", &request);
}

#[test]
fn the_journal_speaks_as_agreed() {
    let query = JournalQuery { log_id: Some(log_id()), since: 6, location: "FRA".into() };
    same("journal_query.hex", &hex(&query.encode()));
    let purges = vec![
        DeltaPurge { seq: 7, mode: PurgeMode::Soft, all: false, keys: vec![key("home").hash()] },
        DeltaPurge { seq: 8, mode: PurgeMode::Hard, all: true, keys: vec![] },
    ];
    let clock = JournalClock { epoch: 77, at_ms: 1_700_000_000_000 };
    let floors = PerClass { content: Floor { soft: 0, hard: 3 }, session: Floor::hard(2), viewer: Floor::hard(5) };
    let delta = JournalDelta { log_id: log_id(), clock, head: 8, floors, until: 8, purges };
    same("journal_delta.hex", &hex(&delta.encode()));
    same("shared_sync.hex", &hex(&SharedSync { asked: query, delta, asking_ms: 1_700_000_000_001 }.encode()));
}

#[test]
fn entries_are_stored_as_agreed() {
    let mut bytes = head().encode().unwrap();
    bytes.extend_from_slice(b"{}");
    same("entry.hex", &hex(&bytes));
    assert_eq!(EntryHead::split(&bytes).unwrap(), (head(), &b"{}"[..]));
}

#[test]
fn keys_digests_and_states_are_written_as_agreed() {
    let lines = [
        format!("kv {}", kv_key("GET /v1/home")),
        format!("kv {}", kv_key("GET /v1/home\naccept:text/html")),
        format!("colo {}", colo_url("GET /v1/home")),
        format!("shared-sync {SHARED_SYNC_URL}"),
        format!("hash {:016x}", key("title:heat-1995").hash()),
        format!("hash {:016x}", key("session:s1").hash()),
        format!("hash {:016x}", key("viewer:u1").hash()),
        format!("url {}", url_key("/v1/catalog?genre=a,b")),
        format!("url {}", url_key("/ä")),
        format!("digest {}", body_digest(b"{}")),
        format!("as-of {}", AsOf::new(log_id(), 7)),
    ];
    same("keys.txt", &lines.join("\n"));
    assert!(kv_key(&"x".repeat(100_000)).len() <= 512);
}

#[test]
fn claims_and_errors_are_written_as_agreed() {
    let claims = EdgeClaims {
        iss: ISSUER.into(),
        aud: AUDIENCE_EDGE.into(),
        scope: Scope::PurgeBatch,
        body_sha256: Some(body_digest(b"{}")),
    };
    check("edge_claims", &claims);
    let claims = AdminClaims {
        iss: ISSUER.into(),
        aud: AUDIENCE_ADMIN.into(),
        sub: "ada".into(),
        role: StaffRole::Editor,
        sid: None,
        as_of: None,
    };
    check("admin_claims", &claims);
    let claims = ViewerClaims {
        iss: ISSUER.into(),
        aud: AUDIENCE_VIEWER.into(),
        sub: "u1".into(),
        sid: "s1".into(),
        as_of: AsOf::new(log_id(), 7),
        plan: Plan::Standard,
        maturity: Maturity::From16,
        region: Some("DE".parse().unwrap()),
        locale: None,
    };
    check("viewer_claims", &claims);
    let german = WarmDocument {
        target: "/v1/home".into(),
        region: Some("DE".parse().unwrap()),
        locale: Some("de".parse().unwrap()),
        maturity: Some(Maturity::From13),
        plan: Some(Plan::Basic),
    };
    let strangers =
        WarmDocument { target: "/v1/genres".into(), region: None, locale: None, maturity: None, plan: None };
    check("warm_request", &WarmRequest { min_as_of: AsOf::new(log_id(), 9), documents: vec![german, strangers] });
    let warmed = |outcome, status| Warmed { target: "/v1/home".into(), outcome, status };
    let documents = [(Outcome::Stored, 200), (Outcome::Fresh, 200), (Outcome::NotStored, 404), (Outcome::Failed, 503)];
    let documents = documents.map(|(outcome, status)| warmed(outcome, status)).to_vec();
    check("warm_answer", &WarmAnswer { documents });
    let problem =
        Problem::new(422, "invalid-title", "The title has faults").detail("more").fault("/name", "is required");
    check("problem", &problem);
    check("log_unannounced", &Unannounced::new(9));
}

#[test]
fn the_schemas_refuse_what_the_types_refuse() {
    for (name, bad) in [
        ("warm_request", r#"{}"#),
        ("warm_request", r#"{"min_as_of":"a:1","documents":[{"target":"/v1/home","maturity":12}]}"#),
        ("warm_request", r#"{"min_as_of":"a:1","documents":[{"target":"/v1/home","region":"de"}]}"#),
        ("warm_request", r#"{"min_as_of":"a:1","documents":[{"target":"/v1/home","body":"x"}]}"#),
        ("purge_request", r#"{}"#),
        ("purge_request", r#"{"keys":["a"],"all":true}"#),
        ("purge_request", r#"{"keys":["a b"]}"#),
        ("purge_request", r#"{"keys":["a,b"]}"#),
        ("purge_request", r#"{"keys":["a"],"mode":"firm"}"#),
        ("purge_batch", r#"{"log_id":"A","first_seq":1,"purges":[]}"#),
        ("purge_batch", r#"{"log_id":"a","first_seq":0,"purges":[]}"#),
        ("purge_batch", r#"{"log_id":"a","first_seq":1,"purges":[{"seq":1,"mode":"soft","committed_at_ms":0}]}"#),
    ] {
        assert!(!schema(name).is_valid(&serde_json::from_str(bad).unwrap()), "{name} takes {bad}");
        let refused = match name {
            "warm_request" => serde_json::from_str::<WarmRequest>(bad).is_err(),
            "purge_request" => serde_json::from_str::<PurgeRequest>(bad).map_or(true, |value| value.check().is_err()),
            "purge_batch" => serde_json::from_str::<PurgeBatch>(bad).map_or(true, |value| value.check().is_err()),
            other => panic!("which type is {other}?"),
        };
        assert!(refused, "{name}: the type takes {bad}");
    }
}
