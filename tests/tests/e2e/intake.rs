//! The purge intake: who may purge, and what is taken.
use e2e::http::{Got, ask, send};
use e2e::raw;
use e2e::stack::{Proxy, Stack, edge_claims, metrics, now_s, set_var, sign};
use kv_schemas::AsOf;
use kv_schemas::claims::{AUDIENCE_ADMIN, EdgeClaims, Scope, body_digest};
use reqwest::Method;
use serde_json::json;
use tokens::SigningKey;

async fn post(url: &str, token: &str, body: &str) -> Got {
    send(ask(Method::POST, url).bearer_auth(token).body(body.to_string())).await
}

fn batch_token(key: &SigningKey, body: &str) -> String {
    sign(key, edge_claims(Scope::PurgeBatch, Some(body_digest(body.as_bytes()))), 60)
}

/// The batch origin would send next, by the log the journal holds.
async fn next_batch(stack: &Stack) -> String {
    let AsOf { log_id, seq } = stack.as_of().await;
    let seq = seq + 1;
    let purge = json!({"seq": seq, "all": true, "mode": "hard", "committed_at_ms": 0});
    json!({"log_id": log_id, "first_seq": seq, "purges": [purge]}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_batch_signed_by_origin_for_this_very_body_is_taken() {
    let mut stack = Stack::start().await;
    let body = next_batch(&stack).await;
    // Nobody else delivers meanwhile.
    stack.kill_origin();
    let url = stack.url("/__edge/purges");
    let digest = Some(body_digest(body.as_bytes()));
    let good = edge_claims(Scope::PurgeBatch, digest.clone());
    let stranger = xtask::proxy::new_key(stack.key.kid()).unwrap();
    let unknown = xtask::proxy::new_key("unknown").unwrap();
    let elsewhere = EdgeClaims { aud: AUDIENCE_ADMIN.into(), ..good.clone() };
    let by_other = EdgeClaims { iss: "somebody".into(), ..good.clone() };
    let expired = stack.key.sign(good.clone(), now_s() - 120, 60).unwrap();
    let not_yet = stack.key.sign(good.clone(), now_s() + 120, 60).unwrap();
    let forged = {
        let token = batch_token(&stack.key, &body);
        let (rest, _) = token.rsplit_once('.').unwrap();
        format!("{rest}.{}", "A".repeat(86))
    };
    for (what, token, status, slug) in [
        ("a bad signature", forged, 401, "token-refused"),
        ("another's key under our key's name", sign(&stranger, good.clone(), 60), 401, "token-refused"),
        ("an unknown key", sign(&unknown, good.clone(), 60), 401, "token-refused"),
        ("a wrong audience", sign(&stack.key, elsewhere, 60), 401, "token-refused"),
        ("a wrong issuer", sign(&stack.key, by_other, 60), 401, "token-refused"),
        ("an expired token", expired, 401, "token-refused"),
        ("a token not valid yet", not_yet, 401, "token-refused"),
        ("a token that lives too long", sign(&stack.key, good.clone(), 3600), 401, "token-refused"),
        ("another scope", sign(&stack.key, edge_claims(Scope::Metrics, digest.clone()), 60), 403, "token-scope"),
        (
            "one for an edge with a log of its own",
            sign(&stack.key, edge_claims(Scope::PurgeRequest, digest), 60),
            409,
            "log-from-origin",
        ),
        ("no digest", sign(&stack.key, edge_claims(Scope::PurgeBatch, None), 60), 401, "token-digest"),
        ("another body's digest", batch_token(&stack.key, "{}"), 401, "token-digest"),
        ("nonsense", "nonsense".into(), 401, "token-refused"),
    ] {
        let got = post(&url, &token, &body).await;
        assert_eq!((got.status, got.problem().as_str()), (status, slug), "{what}: {got:?}");
    }
    let changed = body.replace("hard", "soft");
    let got = post(&url, &batch_token(&stack.key, &body), &changed).await;
    assert_eq!(got.problem(), "token-digest", "a changed body");
    let bare = send(ask(Method::POST, &url).body(body.clone())).await;
    assert_eq!((bare.status, bare.problem().as_str()), (401, "token-missing"));
    // And the good one is new to the journal: none of the others got through.
    let taken = post(&url, &batch_token(&stack.key, &body), &body).await;
    assert_eq!((taken.status, taken.json()["accepted"].as_u64()), (200, Some(1)), "{taken:?}");
    let again = post(&url, &batch_token(&stack.key, &body), &body).await;
    assert_eq!(again.json()["accepted"].as_u64(), Some(0), "repeated delivery is harmless");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_out_of_order_malformed_or_of_an_old_log_change_nothing() {
    let mut stack = Stack::start().await;
    let AsOf { log_id, seq } = stack.as_of().await;
    let log_id = log_id.to_string();
    stack.kill_origin();
    let url = stack.url("/__edge/purges");
    let send_batch = async |body: String| post(&url, &batch_token(&stack.key, &body), &body).await;
    let purge = |seq: u64| json!({"seq": seq, "keys": ["k"], "mode": "soft", "committed_at_ms": 0});
    let batch = |log: &str, first: u64, seqs: &[u64]| {
        let purges: Vec<_> = seqs.iter().map(|seq| purge(*seq)).collect();
        json!({"log_id": log, "first_seq": first, "purges": purges}).to_string()
    };
    for (what, body) in [
        ("a gap inside", batch(&log_id, seq + 1, &[seq + 1, seq + 3])),
        ("another first seq", batch(&log_id, seq + 2, &[seq + 1])),
        ("seq 0", batch(&log_id, 0, &[])),
        ("no log id", batch("", 1, &[])),
        ("a log id with capitals", batch("ABC", 1, &[])),
        ("seq beyond 2^53", batch(&log_id, 1 << 53, &[])),
        ("a bad key", batch(&log_id, seq + 1, &[seq + 1]).replace("\"k\"", "\"a b\"")),
        ("a key too long", batch(&log_id, seq + 1, &[seq + 1]).replace("\"k\"", &format!("\"{}\"", "k".repeat(1025)))),
        ("keys and all", batch(&log_id, seq + 1, &[seq + 1]).replace("\"mode\"", "\"all\":true,\"mode\"")),
        ("an unknown mode", batch(&log_id, seq + 1, &[seq + 1]).replace("soft", "firm")),
        ("an unknown field", batch(&log_id, seq + 1, &[seq + 1]).replace("\"mode\"", "\"x\":1,\"mode\"")),
        ("no JSON", "nonsense".into()),
        ("nothing", String::new()),
    ] {
        let got = send_batch(body).await;
        assert_eq!((got.status, got.problem().as_str()), (400, "purge-invalid"), "{what}: {got:?}");
    }
    let huge = "x".repeat(4 * 1024 * 1024 + 1);
    assert_eq!(send_batch(huge).await.problem(), "body-too-large");
    let gap = send_batch(batch(&log_id, seq + 5, &[seq + 5])).await.json();
    assert_eq!((gap["accepted"].as_u64(), gap["next_seq"].as_u64()), (Some(0), Some(seq + 1)), "it says what it needs");
    let strange = send_batch(batch("another-log", 1, &[1])).await;
    assert_eq!((strange.status, strange.problem().as_str()), (409, "log-unannounced"), "{strange:?}");
    let challenge = strange.json()["challenge"].as_u64().unwrap();
    let announcement = |first: u64, challenge: u64, seqs: &[u64]| {
        let purges: Vec<_> = seqs.iter().map(|seq| purge(*seq)).collect();
        json!({"log_id": "another-log", "first_seq": first, "challenge": challenge, "purges": purges}).to_string()
    };
    for (what, body) in [
        ("no answer to the challenge", announcement(1, 0, &[])),
        ("an answer to another", announcement(1, challenge ^ 1, &[])),
        ("purges from its beginning", announcement(1, challenge, &[1])),
    ] {
        let got = send_batch(body).await;
        assert_eq!((got.status, got.problem().as_str()), (409, "log-unannounced"), "{what}: {got:?}");
        assert_eq!(got.json()["challenge"].as_u64(), Some(challenge), "{what}");
    }
    let held = send_batch(batch(&log_id, seq + 1, &[])).await;
    assert_eq!(held.json()["next_seq"].as_u64(), Some(seq + 1), "the log held so far still is: {held:?}");
    let replaced = send_batch(announcement(9, challenge, &[])).await;
    assert_eq!((replaced.status, replaced.json()["next_seq"].as_u64()), (200, Some(9)), "{replaced:?}");
    let old = send_batch(batch(&log_id, seq + 1, &[seq + 1])).await;
    assert_eq!((old.status, old.problem().as_str()), (409, "log-retired"), "{old:?}");
    let deleted = send(ask(Method::DELETE, &url)).await;
    assert_eq!((deleted.status, deleted.problem().as_str()), (405, "method-not-allowed"));
    assert_eq!(e2e::http::get(&url).await.problem(), "token-missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_batch_of_a_replaced_log_and_another_history_of_this_one_are_refused() {
    let mut stack = Stack::start().await;
    let AsOf { log_id, seq } = stack.as_of().await;
    let log_id = log_id.to_string();
    stack.kill_origin();
    let url = stack.url("/__edge/purges");
    let send_batch = async |body: serde_json::Value| {
        let body = body.to_string();
        post(&url, &batch_token(&stack.key, &body), &body).await
    };
    let purge = json!({"seq": seq + 1, "keys": ["k"], "mode": "soft", "committed_at_ms": 0, "mark": 5});
    let taken = send_batch(json!({"log_id": log_id, "first_seq": seq + 1, "purges": [purge]})).await;
    assert_eq!(taken.json()["accepted"], 1, "{taken:?}");
    assert_eq!(taken.header("surrogate-as-of"), Some(format!("{log_id}:{}", seq + 1).as_str()));
    for after_mark in [5, 0] {
        let same = json!({"log_id": log_id, "first_seq": seq + 2, "after_mark": after_mark, "purges": []});
        assert_eq!(send_batch(same).await.status, 200);
    }
    let other = json!({"log_id": log_id, "first_seq": seq + 2, "after_mark": 6, "purges": []});
    assert_eq!(send_batch(other).await.problem(), "log-forked");
    // A log this journal never held, which the new one says it replaces.
    let mut new = json!({"log_id": "new", "replaces": ["older", log_id], "first_seq": 1, "purges": []});
    new["challenge"] = send_batch(new.clone()).await.json()["challenge"].clone();
    assert_eq!(send_batch(new).await.status, 200);
    let refused = async || metrics(&stack.fleet.url(0), &stack.key).await.figure("edge_purges_refused_total");
    let before = refused().await.unwrap();
    for (count, old) in (1..).zip(["older", &log_id]) {
        let late = send_batch(json!({"log_id": old, "first_seq": 1, "purges": []})).await;
        assert_eq!(late.problem(), "log-retired", "{old}");
        assert_eq!(refused().await, Some(before + count), "what the journal refuses is counted, too");
    }
}

/// Set wrongly, and put right again: neither log is harmed.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_set_to_number_purges_itself_refuses_origins_until_it_is_put_back_and_none_is_lost() {
    let mut stack = Stack::start().await;
    assert!(stack.get("/v1/titles/heat").await.body.contains("\"Heat\""));
    let AsOf { log_id, seq } = stack.as_of().await;
    let restart = |stack: &mut Stack, numbers: &str| {
        stack.fleet.kill_global();
        set_var(&stack.fleet, "global", "PURGE_LOG", Some(numbers));
        stack.fleet.start_global().unwrap();
    };
    restart(&mut stack, "journal");
    let failures = async |stack: &Stack| {
        let metrics = e2e::http::get(stack.origin_url("/metrics")).await;
        metrics.figure("origin_purge_delivery_failures_total").unwrap_or_default()
    };
    let before = failures(&stack).await;
    let edited = json!({"name": "Heat II"});
    let written = stack.admin(Method::PATCH, "/admin/v1/titles/heat?purge=hard", Some(edited)).await;
    assert_eq!(written.status, 200, "{written:?}");
    e2e::eventually("origin tries in vain", || async { (failures(&stack).await > before).then_some(()) }).await;
    let batch = next_batch(&stack).await;
    let refused = post(&stack.url("/__edge/purges"), &batch_token(&stack.key, &batch), &batch).await;
    assert_eq!((refused.status, refused.problem().as_str()), (409, "log-not-from-origin"), "{refused:?}");
    let kept = stack.as_of().await;
    assert!(kept.log_id == log_id && kept.seq > seq, "origin's log is what it was, and goes on: {kept}");
    restart(&mut stack, "origin");
    stack.applied(&written).await;
    assert_eq!(stack.as_of().await.log_id, log_id);
    e2e::eventually("the edit shows", || async {
        stack.get("/v1/titles/heat").await.body.contains("Heat II").then_some(())
    })
    .await;
}

/// What can stand in no `Surrogate-Key` names nothing: taken for a key, it would be a purge that purges nothing.
#[tokio::test(flavor = "multi_thread")]
async fn keys_with_control_characters_are_refused_by_the_edge_and_by_origin_and_change_nothing() {
    // As JSON has them: escaped, which is the only way for most, and bare where JSON allows it.
    let controls = (0..0x20).chain(0x7f..0xa0).map(|code: u32| format!("\\u{code:04x}"));
    let texts: Vec<String> = controls.chain(["\u{7f}", "\u{9f}", " ", ",", "é", "\\u2028"].map(String::from)).collect();
    let (proxy, stack) = tokio::join!(Proxy::start(), Stack::start());
    let head = async || {
        let summary = send(ask(Method::GET, proxy.url("/__edge/purges")).bearer_auth(&proxy.token)).await;
        summary.json()["head"].as_u64().unwrap_or_else(|| panic!("{summary:?}"))
    };
    proxy.upstream.answer("/a", &[("cache-control", "max-age=600"), ("surrogate-key", "k")], "a");
    assert_eq!(proxy.purge(r#"{"keys":["other"]}"#).await.status, 200);
    for page in [proxy.url("/a"), stack.url("/v1/home")] {
        e2e::eventually("a hit", || async { e2e::http::get(&page).await.is_hit().then_some(()) }).await;
    }
    let before = (head().await, stack.as_of().await);
    let url = stack.url("/__edge/purges");
    for text in texts {
        for (at, key) in
            [format!("{text}k"), format!("k{text}"), format!("k{text}k"), text.clone()].into_iter().enumerate()
        {
            let keys = format!("[\"k\",\"{key}\",\"home\"]");
            let by_hand = proxy.purge(&format!("{{\"keys\":{keys}}}")).await;
            assert_eq!((by_hand.status, by_hand.problem().as_str()), (400, "purge-invalid"), "{key}");
            if at == 2 {
                let AsOf { log_id, seq } = &before.1;
                let purge = format!("{{\"seq\":{0},\"keys\":{keys},\"mode\":\"hard\",\"committed_at_ms\":0}}", seq + 1);
                let batch = format!("{{\"log_id\":\"{log_id}\",\"first_seq\":{},\"purges\":[{purge}]}}", seq + 1);
                let batch = post(&url, &batch_token(&stack.key, &batch), &batch).await;
                assert_eq!((batch.status, batch.problem().as_str()), (400, "purge-invalid"), "{key}");
                for dry_run in ["", "?dry_run=true"] {
                    let request = ask(Method::POST, stack.url(&format!("/admin/v1/purges{dry_run}")));
                    let request = request.bearer_auth(&stack.admin_token).header("content-type", "application/json");
                    let refused = send(request.body(format!("{{\"keys\":{keys}}}"))).await;
                    // U+0000 is refused wherever it stands.
                    let expected = if text.contains("0000") { (400, "body-invalid") } else { (422, "purge-invalid") };
                    assert_eq!((refused.status, refused.problem().as_str()), expected, "{key}: {refused:?}");
                }
            }
        }
    }
    assert_eq!((head().await, stack.as_of().await), before, "no purge was numbered");
    tokio::time::sleep(e2e::stack::LEASE_OVER).await;
    for page in [proxy.url("/a"), stack.url("/v1/home")] {
        assert!(e2e::http::get(&page).await.is_hit(), "{page}: none of the keys beside it was purged");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_with_its_own_log_takes_keys_and_no_batches() {
    let proxy = Proxy::start().await;
    let ack = proxy.purge(r#"{"keys":["a","b"],"mode":"soft","reason":"why"}"#).await;
    assert_eq!((ack.status, ack.json()["accepted"].as_u64()), (200, Some(1)), "{ack:?}");
    for bad in [
        r#"{}"#,
        r#"{"keys":[]}"#,
        r#"{"keys":["a"],"all":true}"#,
        r#"{"keys":["a b"]}"#,
        r#"{"keys":["url:http://127.0.0.1/a"]}"#,
        r#"{"keys":["a"],"mode":"firm"}"#,
        r#"{"keys":["a"],"surprise":1}"#,
        r#"{"keys":"a"}"#,
        r#"["a"]"#,
        "nonsense",
        "",
    ] {
        let got = proxy.purge(bad).await;
        assert_eq!((got.status, got.problem().as_str()), (400, "purge-invalid"), "{bad}");
    }
    // Elsewhere a dry run is asked for so; here it would purge.
    let url = proxy.url("/__edge/purges");
    let misled = ask(Method::POST, format!("{url}?dry_run=true")).bearer_auth(&proxy.token).body(r#"{"keys":["a"]}"#);
    assert_eq!(send(misled).await.problem(), "query-invalid");
    let many: Vec<String> = (0..1001).map(|n| format!("\"k{n}\"")).collect();
    assert_eq!(proxy.purge(&format!("{{\"keys\":[{}]}}", many.join(","))).await.problem(), "purge-invalid");
    let batch = r#"{"log_id":"x","first_seq":1,"purges":[]}"#;
    assert_eq!(post(&url, &batch_token(&proxy.key, batch), batch).await.problem(), "token-scope");
    let next = proxy.purge(r#"{"all":true}"#).await.json();
    let taken = next["next_seq"].as_u64().zip(ack.json()["next_seq"].as_u64()).map(|(next, first)| next - first);
    assert_eq!(taken, Some(1), "none of those was taken: {next}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_whose_content_comes_slowly_is_given_up_as_any_slow_content_is() {
    let proxy = Proxy::start().await;
    let head = format!(
        "POST /__edge/purges HTTP/1.1\r\nhost: edge\r\nconnection: close\r\nauthorization: Bearer {}\r\ncontent-length: 14\r\n\r\n",
        proxy.token
    );
    let began = std::time::Instant::now();
    let answer = raw::ask(&proxy.fleet.url(0), &[&head, "{\"keys\""], std::time::Duration::ZERO).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("problem:request-timeout\""), "{answer}");
    assert!(began.elapsed() > std::time::Duration::from_secs(4), "it had its time");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_of_the_edge_says_what_methods_it_takes() {
    let stack = Stack::start().await;
    for (path, method, allowed) in [
        ("health", Method::PUT, "GET, HEAD"),
        ("metrics", Method::POST, "GET, HEAD"),
        ("purges", Method::DELETE, "GET, POST"),
        ("purges/1", Method::POST, "GET"),
        ("purges/dry-run", Method::GET, "POST"),
        ("warm", Method::GET, "POST"),
    ] {
        let got = send(ask(method.clone(), stack.url(&format!("/__edge/{path}")))).await;
        assert_eq!((got.status, got.header("allow")), (405, Some(allowed)), "{method} {path}: {got:?}");
        assert_eq!(got.problem(), "method-not-allowed");
    }
    for path in ["purge", "purges/", "purges/x", "purges/1/2", "", "panic"] {
        let got = send(ask(Method::GET, stack.url(&format!("/__edge/{path}")))).await;
        assert_eq!((got.status, got.problem().as_str()), (404, "not-found"), "{path}: {got:?}");
    }
    assert_eq!(e2e::http::get(stack.url("/__edge/health?probe=1")).await.status, 200);
}
