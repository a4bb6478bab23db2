//! What is stored and exchanged, against the files of `golden/`: a change of any byte shows here, and is a new version.
//!
//! `GOLDEN_WRITE=1 cargo test -p kv-schemas` writes them anew; look at the difference before you commit it.
use kv_schemas::claims::{
    AUDIENCE_ADMIN, AUDIENCE_EDGE, AUDIENCE_VIEWER, AdminClaims, EdgeClaims, ISSUER, Scope, StaffRole, ViewerClaims,
    body_digest,
};
use kv_schemas::edge_secret::{EDGE_CLIENT, EdgeSecret, VIEWER_SEAL};
use kv_schemas::entry::EntryHead;
use kv_schemas::journal::{DeltaPurge, Floor, JournalClock, JournalDelta, JournalQuery, SharedSync};
use kv_schemas::receipt::{
    DryRun, EdgeReceipt, JournalSummary, LocationReceipt, LocationState, Percentiles, PurgeState,
};
use kv_schemas::store_key::{colo_url, kv_key, shared_sync_url};
use kv_schemas::surrogate_key::{hash_lists, url_key};
use kv_schemas::viewer::{Maturity, Plan};
use kv_schemas::warm::{Outcome, WarmAnswer, WarmDocument, WarmRequest, Warmed};
use kv_schemas::{
    AsOf, LogId, PerClass, Problem, Purge, PurgeAck, PurgeBatch, PurgeMode, PurgeRequest, SurrogateKey, Unannounced,
    header, viewer,
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
    let faults: Vec<String> = schema(of_type(name)).iter_errors(&json).map(|error| error.to_string()).collect();
    assert!(faults.is_empty(), "{name}: {faults:?}");
}

/// The type a file shows; of some, one value cannot have every member: `purge_request` and `purge_request.all`.
fn of_type(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
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
    check("purge_ack", &PurgeAck { log_id: log_id(), seq: None, next_seq: 9, accepted: 2 });
    check("purge_ack.numbered", &PurgeAck { log_id: log_id(), seq: Some(8), next_seq: 9, accepted: 1 });
    let request =
        PurgeRequest { keys: vec![key("home")], all: false, mode: PurgeMode::Soft, reason: Some("why".into()) };
    check("purge_request", &request);
    check("purge_request.all", &PurgeRequest { keys: vec![], all: true, mode: PurgeMode::Hard, reason: None });
}

#[test]
fn receipts_are_written_as_agreed() {
    let location = |location: &str, state, heard_ms_ago, lag_ms| LocationReceipt {
        location: location.into(),
        state,
        applied_seq: 6,
        heard_ms_ago,
        lag_ms,
    };
    let locations = vec![
        location("FRA", LocationState::Applied, Some(120), Some(80)),
        location("AMS", LocationState::Pending, Some(1_400), None),
        location("SYD", LocationState::Silent, None, None),
    ];
    let receipt = EdgeReceipt {
        log_id: log_id(),
        head: 8,
        mark: 9_007_199_254_740_991,
        seq: 7,
        state: PurgeState::Accepted,
        accepted_at_ms: Some(1_700_000_000_000),
        locations: locations.clone(),
        lag_ms: Some(Percentiles { p50: 80, p95: 81, p99: 82 }),
        laggards: vec!["AMS".into()],
    };
    check("edge_receipt", &receipt);
    let unknown = EdgeReceipt {
        head: 0,
        mark: 0,
        seq: 9,
        state: PurgeState::Pending,
        accepted_at_ms: None,
        locations: vec![],
        lag_ms: None,
        laggards: vec![],
        ..receipt
    };
    check("edge_receipt.unknown", &unknown);
    check("journal_summary", &JournalSummary { log_id: log_id(), head: 7, mark: 6_007, applied_seq: 6, locations });
    check("dry_run", &DryRun { location: "FRA".into(), touched: 3, held: 1_200 });
}

/// Computed by another implementation of HMAC (Python's), so that what is asked here is the grammar of the module's head and
/// not what the code happens to do.
#[test]
fn the_edge_names_a_clients_address_as_agreed() {
    const NOW_S: u64 = 1_700_000_000;
    let secret = EdgeSecret::new("an example of a secret of 32 bytes or more").unwrap();
    let sealed = ["192.0.2.1", "2001:db8::1"].map(|address| secret.seal_client(address, NOW_S).unwrap());
    same("edge_client.txt", &sealed.join("\n"));
    for (field, address) in sealed.iter().zip(["192.0.2.1", "2001:db8::1"]) {
        assert_eq!(secret.open_client(field, NOW_S), Some(address.parse().unwrap()));
    }
}

/// By the same other implementation.
#[test]
fn the_edge_proves_what_it_says_of_a_viewer_as_agreed() {
    const NOW_S: u64 = 1_700_000_000;
    let secret = EdgeSecret::new("an example of a secret of 32 bytes or more").unwrap();
    let all = [(viewer::REGION, "DE"), (viewer::LOCALE, "de"), (viewer::MATURITY, "18"), (viewer::PLAN, "none")];
    let sealed = [&all[..], &all[..1]].map(|said| {
        let find = |name: &str| said.iter().find(|(have, _)| *have == name).map(|(_, value)| *value);
        secret.seal_viewer(find, NOW_S).unwrap()
    });
    same("viewer_seal.txt", &sealed.join("\n"));
}

/// Names of fields, and the words that stand for values: each is compared somewhere as a text.
#[test]
fn names_and_words_are_as_agreed() {
    fn word(value: impl Serialize) -> String {
        serde_json::to_string(&value).unwrap()
    }
    fn line<T: Serialize>(what: &str, values: impl IntoIterator<Item = T>) -> String {
        let words: Vec<String> = values.into_iter().map(word).collect();
        format!("{what} {}", words.join(" "))
    }
    use Scope::{Debug, Metrics, PurgeBatch, PurgeReceipt, PurgeRequest, Warm};
    let fields = [
        header::SURROGATE_AS_OF,
        header::MIN_AS_OF,
        header::SURROGATE_KEY,
        header::CACHE_TAG,
        header::SURROGATE_CONTROL,
        header::CDN_CACHE_CONTROL,
        header::CACHE_STATUS,
        header::SEC_PURPOSE,
        EDGE_CLIENT,
        VIEWER_SEAL,
    ];
    let words = [
        line("fields", fields),
        line("viewer-fields", viewer::FIELDS),
        line("values", [header::PREFETCH, header::PROBLEM_JSON]),
        line("issuer", [ISSUER]),
        line("audiences", [AUDIENCE_EDGE, AUDIENCE_ADMIN, AUDIENCE_VIEWER]),
        line("scopes", [PurgeBatch, PurgeRequest, PurgeReceipt, Debug, Metrics, Warm]),
        line("roles", [StaffRole::Viewer, StaffRole::Editor, StaffRole::Admin]),
        line("plans", [Plan::None, Plan::Basic, Plan::Standard, Plan::Premium]),
        line("maturities", Maturity::CLASSES),
        line("modes", [PurgeMode::Soft, PurgeMode::Hard]),
        line("purge-states", [PurgeState::Pending, PurgeState::Accepted, PurgeState::Applied]),
        line("location-states", [LocationState::Pending, LocationState::Applied, LocationState::Silent]),
        line("warmed", [Outcome::Stored, Outcome::Fresh, Outcome::NotStored, Outcome::Failed]),
    ];
    same("words.txt", &words.join("\n"));
    // What the types write in JSON and what they say of themselves is one word.
    for plan in [Plan::None, Plan::Basic, Plan::Standard, Plan::Premium] {
        assert_eq!(word(plan), word(plan.as_str()));
    }
    for mode in [PurgeMode::Soft, PurgeMode::Hard] {
        assert_eq!(word(mode), word(mode.as_str()));
    }
    for state in [PurgeState::Pending, PurgeState::Accepted, PurgeState::Applied] {
        assert_eq!(word(state), word(state.as_str()));
    }
}

/// Where `schema` has members that no value of `values` has; below lists and objects, too.
fn unshown(schema: &Value, values: &[&Value], at: &str, faults: &mut Vec<String>) {
    let items = || values.iter().filter_map(|value| value.as_array()).flatten().collect::<Vec<_>>();
    if let Some(schema) = schema.get("items") {
        unshown(schema, &items(), &format!("{at}[]"), faults);
    }
    for (name, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let at = format!("{at}.{name}");
        let values: Vec<&Value> = values.iter().filter_map(|value| value.get(name)).collect();
        if values.is_empty() {
            faults.push(format!("{at} stands in no golden file"));
        }
        unshown(schema, &values, &at, faults);
    }
}

/// Or it could be renamed, and no file would show it: optional members are left out where they are not set.
#[test]
fn every_member_of_a_schema_stands_in_a_golden_file() {
    fn names(folder: &str) -> Vec<String> {
        let files = std::fs::read_dir(file(folder, "")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.strip_suffix(".json").map(String::from)).collect()
    }
    let (schemas, goldens) = (names("schema"), names("golden"));
    let mut faults: Vec<String> =
        goldens.iter().filter(|name| !schemas.iter().any(|one| one == of_type(name))).cloned().collect();
    assert!(faults.is_empty(), "without a schema: {faults:?}");
    for name in &schemas {
        let read = |folder, name: &str| -> Value {
            serde_json::from_str(&std::fs::read_to_string(file(folder, &format!("{name}.json"))).unwrap()).unwrap()
        };
        let values: Vec<Value> =
            goldens.iter().filter(|golden| of_type(golden) == name).map(|golden| read("golden", golden)).collect();
        unshown(&read("schema", name), &values.iter().collect::<Vec<_>>(), name, &mut faults);
    }
    assert!(faults.is_empty(), "{faults:#?}");
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
        format!("colo {}", colo_url("d", "GET /v1/home")),
        format!("shared-sync {}", shared_sync_url("d")),
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
    let of_session = AdminClaims { sid: Some("s1".into()), as_of: Some(AsOf::new(log_id(), 7)), ..claims };
    check("admin_claims.session", &of_session);
    let claims = ViewerClaims {
        iss: ISSUER.into(),
        aud: AUDIENCE_VIEWER.into(),
        sub: "u1".into(),
        sid: "s1".into(),
        as_of: AsOf::new(log_id(), 7),
        plan: Plan::Standard,
        maturity: Maturity::From16,
        locale: Some("de".parse().unwrap()),
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
