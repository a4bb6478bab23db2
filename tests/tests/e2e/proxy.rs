//! The edge in front of any origin.
use e2e::gate::Mode;
use e2e::http::{ask, send, send_to};
use e2e::stack::{LEASE_OVER, Proxy, ProxyShape, set_var};
use e2e::{eventually, kv};
use reqwest::Method;
use std::path::Path;
use xtask::fleet::{Fleet, Options};

const FRESH: (&str, &str) = ("cache-control", "max-age=600");
const STALE_TOO: (&str, &str) = ("cache-control", "max-age=1, stale-while-revalidate=60, stale-if-error=60");

#[tokio::test(flavor = "multi_thread")]
async fn a_hit_asks_origin_nothing() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH, ("surrogate-key", "k")], "one");
    let miss = proxy.get("/a").await;
    assert!(miss.cache().contains("fwd=uri-miss") && miss.cache().contains("stored"), "{miss:?}");
    for _ in 0..5 {
        let hit = proxy.get("/a").await;
        assert!(hit.is_hit() && hit.header("age").is_some() && hit.body == "one", "{hit:?}");
        assert_eq!(hit.header("surrogate-key"), None, "internal fields stay inside");
    }
    assert_eq!(proxy.upstream.count("/a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_requests_for_one_cold_key_cause_one_origin_request() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/cold", &[FRESH], "one");
    proxy.upstream.hold(true);
    let asking: Vec<_> = (0..500).map(|_| tokio::spawn(e2e::http::get(proxy.url("/cold")))).collect();
    eventually("the first request reaches origin", || async { (proxy.upstream.count("/cold") > 0).then_some(()) })
        .await;
    tokio::time::sleep(LEASE_OVER).await;
    proxy.upstream.hold(false);
    for answer in asking {
        assert_eq!(answer.await.unwrap().body, "one");
    }
    assert_eq!(proxy.upstream.count("/cold"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_with_two_keys_goes_with_either() {
    let proxy = Proxy::start().await;
    for (path, purged) in [("/a", "left"), ("/b", "right")] {
        proxy.upstream.answer(path, &[FRESH, ("surrogate-key", "left right")], "old");
        proxy.get(path).await;
        assert!(proxy.get(path).await.is_hit());
        proxy.upstream.answer(path, &[FRESH, ("surrogate-key", "left right")], "new");
        proxy.purged(&format!(r#"{{"keys":["{purged}"]}}"#)).await;
        let after = proxy.get(path).await;
        assert_eq!(after.body, "new", "{after:?}");
        assert!(after.cache().contains("purged-hard"), "{after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_tag_is_read_as_well_and_all_purges_everything() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH, ("cache-tag", "x, y")], "1");
    proxy.upstream.answer("/b", &[FRESH], "1");
    for path in ["/a", "/b"] {
        proxy.get(path).await;
    }
    proxy.purged(r#"{"keys":["y"],"mode":"hard"}"#).await;
    assert!(!proxy.get("/a").await.is_hit());
    assert!(proxy.get("/b").await.is_hit());
    proxy.purged(r#"{"all":true}"#).await;
    assert!(!proxy.get("/b").await.is_hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_begun_before_a_purge_is_never_served_fresh_after_it() {
    for mode in ["soft", "hard"] {
        let proxy = Proxy::start().await;
        proxy.upstream.answer("/race", &[FRESH, ("surrogate-key", "k")], "old");
        // Origin has decided on "old" and holds it. The purge lands. Then "old" arrives.
        proxy.upstream.hold(true);
        let filling = tokio::spawn(e2e::http::get(proxy.url("/race")));
        eventually("the fill reaches origin", || async { (proxy.upstream.count("/race") == 1).then_some(()) }).await;
        proxy.upstream.answer("/race", &[FRESH, ("surrogate-key", "k")], "new");
        proxy.purged(&format!(r#"{{"keys":["k"],"mode":"{mode}"}}"#)).await;
        // The isolate learns of the purge while the fill is still on its way.
        proxy.upstream.answer("/other", &[FRESH], "x");
        let other = tokio::spawn(e2e::http::get(proxy.url("/other")));
        tokio::time::sleep(LEASE_OVER).await;
        proxy.upstream.hold(false);
        filling.await.unwrap();
        other.await.unwrap();
        let next = proxy.get("/race").await;
        assert!(next.body == "new" || !next.is_hit(), "{mode}: old content is a hit: {next:?}");
        let settled = eventually("the new content is a hit", || async {
            let got = proxy.get("/race").await;
            assert!(got.body == "new" || !got.is_hit(), "{mode}: {got:?}");
            (got.body == "new" && got.is_hit()).then_some(got)
        });
        settled.await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soft_purge_answers_the_next_viewer_at_once_and_costs_a_304_if_nothing_changed() {
    let proxy = Proxy::start().await;
    let fields =
        [("cache-control", "max-age=600, stale-while-revalidate=60"), ("etag", "\"1\""), ("surrogate-key", "k")];
    proxy.upstream.answer("/a", &fields, "same");
    proxy.get("/a").await;
    proxy.purged(r#"{"keys":["k"],"mode":"soft"}"#).await;
    let next = proxy.get("/a").await;
    assert!(next.cache().contains("stale memory purged-soft"), "{next:?}");
    let after = eventually("the copy is fresh again", || async {
        let got = proxy.get("/a").await;
        got.is_hit().then_some(got)
    })
    .await;
    assert_eq!(after.body, "same");
    assert_eq!(proxy.upstream.count("/a"), 2);
    assert_eq!(proxy.upstream.last().headers.get("if-none-match").map(String::as_str), Some("\"1\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn origin_down_serves_stale_within_its_window_and_says_so() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[("cache-control", "max-age=1, stale-if-error=5")], "kept");
    proxy.get("/a").await;
    proxy.gate.set(Mode::Cut);
    let stale =
        eventually("it is fresh no more", || async { Some(proxy.get("/a").await).filter(|got| !got.is_hit()) }).await;
    assert_eq!((stale.status, stale.body.as_str()), (200, "kept"), "{stale:?}");
    assert!(stale.cache().contains("detail=\"stale-error"), "{stale:?}");
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    let over = proxy.get("/a").await;
    assert_eq!((over.status, over.problem().as_str()), (502, "origin-unreachable"));
    let never = proxy.get("/never").await;
    assert_eq!(never.status, 502, "{never:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_entry_is_answered_at_once_and_refreshed_behind() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[STALE_TOO], "one");
    proxy.get("/a").await;
    proxy.upstream.answer("/a", &[STALE_TOO], "two");
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    let stale = proxy.get("/a").await;
    assert!(stale.body == "one" && stale.cache().contains("detail=\"stale memory expired"), "{stale:?}");
    eventually("the refresh", || async { (proxy.get("/a").await.body == "two").then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_outlive_the_edge_and_are_still_fenced() {
    let mut proxy = Proxy::start().await;
    proxy.upstream.answer("/kept", &[FRESH, ("surrogate-key", "kept")], "1");
    proxy.upstream.answer("/purged", &[FRESH, ("surrogate-key", "purged")], "1");
    for path in ["/kept", "/purged"] {
        proxy.get(path).await;
    }
    // KV is written last of the tiers.
    kv::await_pages(&proxy.fleet, &["/kept", "/purged"]).await;
    proxy.purged(r#"{"keys":["purged"]}"#).await;
    proxy.fleet.kill_edge(0);
    proxy.fleet.start_edge(0).unwrap();
    let kept = proxy.get("/kept").await;
    assert!(kept.cache().contains("hit colo"), "{kept:?}");
    proxy.upstream.answer("/purged", &[FRESH, ("surrogate-key", "purged")], "2");
    let purged = proxy.get("/purged").await;
    assert!(purged.body == "2" && purged.cache().contains("purged-hard"), "{purged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_kv_alone_kept_a_restarted_edge_finds_its_entries_and_they_are_still_fenced() {
    let mut proxy = Proxy::start().await;
    for path in ["/kept", "/purged"] {
        proxy.upstream.answer(path, &[FRESH, ("surrogate-key", &path[1..])], "1");
        proxy.get(path).await;
    }
    kv::await_pages(&proxy.fleet, &["/kept", "/purged"]).await;
    proxy.purged(r#"{"keys":["purged"],"mode":"soft"}"#).await;
    proxy.fleet.kill_edge(0);
    proxy.fleet.kill_global();
    let colo = proxy.fleet.state().join("cache-edge-1");
    std::fs::remove_dir_all(&colo).unwrap();
    std::fs::create_dir(&colo).unwrap();
    proxy.fleet.start_global().unwrap();
    proxy.fleet.start_edge(0).unwrap();
    let kept = proxy.get("/kept").await;
    assert!(kept.cache().contains("hit kv"), "{kept:?}");
    assert_eq!(proxy.upstream.count("/kept"), 1);
    proxy.upstream.answer("/purged", &[FRESH, ("surrogate-key", "purged")], "2");
    let purged = proxy.get("/purged").await;
    assert!(purged.body == "2" && purged.cache().contains("purged-soft"), "{purged:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_location_finds_entries_in_kv_and_learns_of_the_same_purges() {
    let proxy = Proxy::with_edges(2).await;
    proxy.upstream.answer("/a", &[FRESH, ("surrogate-key", "k")], "1");
    proxy.get("/a").await;
    let second = format!("{}/a", proxy.fleet.url(1));
    eventually("KV has it", || async {
        let got = e2e::http::get(&second).await;
        got.cache().contains("hit kv").then_some(())
    })
    .await;
    assert_eq!(proxy.upstream.count("/a"), 1);
    proxy.upstream.answer("/a", &[FRESH, ("surrogate-key", "k")], "2");
    proxy.purged(r#"{"keys":["k"]}"#).await;
    assert_eq!(e2e::http::get(&second).await.body, "2");
}

/// Paths are keys of KV as they stand: none may be taken for another one on the way there or back.
#[tokio::test(flavor = "multi_thread")]
async fn kv_keeps_apart_what_differs_in_its_escapes_and_what_is_too_long_for_it() {
    let proxy = Proxy::with_edges(2).await;
    let (long, longer) = ("/l".repeat(400), "/l".repeat(401));
    let paths = ["/a%2Fb", "/a/b", "/a%252Fb", "/a+b", "/a%20b", "/a%2Bb", "/a%3Fb", &long, &longer];
    for path in paths {
        proxy.upstream.answer(path, &[FRESH], path);
        assert_eq!(proxy.get(path).await.body, path);
    }
    for path in paths {
        let there = format!("{}{path}", proxy.fleet.url(1));
        let got = eventually("KV has it", || async {
            let got = e2e::http::get(&there).await;
            got.cache().contains("hit kv").then_some(got)
        });
        assert_eq!(got.await.body, path);
        assert_eq!(proxy.upstream.count(path), 1, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn purges_outlive_the_journals_process() {
    let mut proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH, ("surrogate-key", "k")], "1");
    proxy.get("/a").await;
    // From there it would come back.
    kv::await_pages(&proxy.fleet, &["/a"]).await;
    let ack = proxy.purge(r#"{"keys":["k"]}"#).await.json();
    proxy.fleet.kill_global();
    proxy.fleet.kill_edge(0);
    proxy.fleet.start_global().unwrap();
    proxy.fleet.start_edge(0).unwrap();
    proxy.upstream.answer("/a", &[FRESH, ("surrogate-key", "k")], "2");
    let got = proxy.get("/a").await;
    assert!(got.body == "2" && got.cache().contains("purged-hard"), "{got:?}");
    let next = proxy.purge(r#"{"keys":["k"]}"#).await.json();
    assert_eq!(next["log_id"], ack["log_id"], "the log kept its identity");
    assert!(next["next_seq"].as_u64() > ack["next_seq"].as_u64(), "{ack} {next}");
}

/// It would number other purges as those that were lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_numbers_purges_itself_and_was_put_back_begins_another_log() {
    let mut proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH, ("surrogate-key", "a")], "1");
    proxy.get("/a").await;
    let first = proxy.purge(r#"{"keys":["other"]}"#).await.json();
    let (journal, backup) = (proxy.fleet.state().join("journal"), proxy.fleet.state().join("journal-backup"));
    let copy = |from: &Path, to: &Path| {
        let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status();
        assert!(copied.is_ok_and(|status| status.success()), "{} to {}", from.display(), to.display());
    };
    proxy.fleet.kill_global();
    copy(&journal, &backup);
    proxy.fleet.start_global().unwrap();
    proxy.upstream.answer("/a", &[FRESH, ("surrogate-key", "a")], "2");
    let lost = proxy.purge(r#"{"keys":["a"]}"#).await;
    assert_eq!(lost.json()["log_id"], first["log_id"]);
    eventually("the purge is known", || async { (proxy.get("/a").await.body == "2").then_some(()) }).await;
    proxy.fleet.kill_global();
    std::fs::remove_dir_all(&journal).unwrap();
    copy(&backup, &journal);
    proxy.fleet.start_global().unwrap();
    // As many purges as were lost, before anybody has asked for more than there is.
    let other = proxy.purge(r#"{"keys":["other"]}"#).await.json();
    assert!(other["next_seq"].as_u64() > lost.json()["next_seq"].as_u64(), "numbers are not given again: {other}");
    // All that was known of the log that is gone counts as purged.
    proxy.upstream.answer("/a", &[FRESH, ("surrogate-key", "a")], "3");
    eventually("it is fetched anew", || async { (proxy.get("/a").await.body == "3").then_some(()) }).await;
    // Perhaps because the journal could not be reached for a moment: then it is told by the next who asks.
    let next = eventually("the edge has told the journal", || async {
        proxy.get("/a").await;
        let next = proxy.purge(r#"{"keys":["other"]}"#).await.json();
        (next["log_id"] != first["log_id"]).then_some(next)
    })
    .await;
    // And stays with it.
    for _ in 0..2 {
        proxy.get("/a").await;
        tokio::time::sleep(LEASE_OVER).await;
        let later = proxy.purge(r#"{"keys":["other"]}"#).await.json();
        assert!(later["seq"].as_u64() > other["seq"].as_u64() && later["log_id"] == next["log_id"], "{next} {later}");
        let (url, seq) = (proxy.url("/__edge/purges"), &later["seq"]);
        eventually("it is applied", || async {
            proxy.get("/a").await;
            let receipt = send(ask(Method::GET, format!("{url}/{seq}")).bearer_auth(&proxy.token)).await;
            (receipt.json()["state"] == "applied").then_some(())
        })
        .await;
    }
    eventually("hits again", || async { proxy.get("/a").await.is_hit().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_journal_gone_nothing_passes_for_fresh_and_origin_is_asked() {
    let mut proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[("cache-control", "max-age=600, stale-if-error=60"), ("etag", "\"1\"")], "1");
    proxy.get("/a").await;
    proxy.fleet.kill_global();
    tokio::time::sleep(LEASE_OVER).await;
    let got = proxy.get("/a").await;
    assert!(!got.is_hit() && got.cache().contains("journal-unreachable"), "{got:?}");
    assert_eq!(proxy.upstream.count("/a"), 2);
    proxy.gate.set(Mode::Cut);
    tokio::time::sleep(LEASE_OVER).await;
    let both_gone = proxy.get("/a").await;
    assert!(both_gone.status == 200 && both_gone.cache().contains("stale-error journal-unreachable"), "{both_gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_and_path_passes_with_body_and_fields() {
    let proxy = Proxy::start().await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        proxy.upstream.script("/x%2Fy", 418, &[("x-answer", "1"), ("set-cookie", "a=b")], "tea");
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = ask(method.clone(), proxy.url("/x%2Fy?q=1&q=2")).header("x-custom", "v").body("payload");
        let got = send(request).await;
        assert_eq!((got.status, got.body.as_str(), got.header("x-answer")), (418, "tea", Some("1")), "{method}");
        assert!(got.cache().contains("fwd=method"), "{got:?}");
        let asked = proxy.upstream.last();
        assert_eq!((asked.method.as_str(), asked.target.as_str()), (method.as_str(), "/x%2Fy?q=1&q=2"));
        assert_eq!((asked.headers["x-custom"].as_str(), &asked.body[..]), ("v", &b"payload"[..]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_the_edge_takes_the_stored_copy_away() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH], "1");
    proxy.get("/a").await;
    assert!(proxy.get("/a").await.is_hit());
    send(ask(Method::POST, proxy.url("/a")).body("x")).await;
    proxy.upstream.answer("/a", &[FRESH], "2");
    tokio::time::sleep(LEASE_OVER).await;
    assert_eq!(proxy.get("/a").await.body, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_are_kept_apart_and_private_answers_are_not_kept() {
    let proxy = Proxy::start().await;
    let ask_in = |language: &'static str| send(ask(Method::GET, proxy.url("/v")).header("accept-language", language));
    proxy.upstream.answer("/v", &[FRESH, ("vary", "accept-language")], "de");
    ask_in("de").await;
    proxy.upstream.answer("/v", &[FRESH, ("vary", "accept-language")], "en");
    assert_eq!(ask_in("en").await.body, "en");
    assert_eq!(ask_in("de").await.body, "de");
    assert!(ask_in("de").await.is_hit());
    for (path, field) in [("/p", ("cache-control", "private, max-age=60")), ("/s", ("set-cookie", "sid=1"))] {
        proxy.upstream.answer(path, &[field, ("cache-control", "max-age=60")], "mine");
        proxy.get(path).await;
        let again = proxy.get(path).await;
        assert!(!again.is_hit(), "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_whole_and_are_stored_up_to_the_limit() {
    let proxy = Proxy::start().await;
    let (large, huge) = ("x".repeat(3_000_000), "y".repeat(9_000_000));
    proxy.upstream.answer("/large", &[FRESH], &large);
    proxy.upstream.answer("/huge", &[FRESH], &huge);
    for _ in 0..2 {
        assert!(proxy.get("/large").await.body == large);
        assert!(proxy.get("/huge").await.body == huge);
        tokio::time::sleep(LEASE_OVER).await;
    }
    assert_eq!((proxy.upstream.count("/large"), proxy.upstream.count("/huge")), (1, 2));
    let got = proxy.get("/huge").await;
    assert!(got.cache().contains("unstored:too-large"), "{}", got.cache());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_spoil_the_entry() {
    let proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH], "1");
    proxy.upstream.hold(true);
    let leaving = tokio::spawn(e2e::http::get(proxy.url("/a")));
    eventually("the fill reaches origin", || async { (proxy.upstream.count("/a") == 1).then_some(()) }).await;
    leaving.abort();
    let _ = leaving.await;
    let waiting = tokio::spawn(e2e::http::get(proxy.url("/a")));
    tokio::time::sleep(LEASE_OVER).await;
    proxy.upstream.hold(false);
    assert_eq!(waiting.await.unwrap().body, "1");
    assert!(proxy.get("/a").await.is_hit());
    assert_eq!(proxy.upstream.count("/a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_whose_port_another_one_has_does_not_take_that_ones_answers_for_its_own() {
    let first = Proxy::start().await;
    let state = tempfile::tempdir().unwrap();
    let options = Options {
        state: state.path().into(),
        ports: vec![vec![first.url("").rsplit(':').next().unwrap().parse().unwrap()]],
        mode: xtask::fleet::Mode::Proxy,
        origin_url: "http://127.0.0.1:9".into(),
        token_keys: first.key.public_jwks().unwrap(),
        lease_ms: None,
        vars: Vec::new(),
        platform_field: None,
        counters: None,
        tied: false,
    };
    let refused = Fleet::start(options).err().unwrap().to_string();
    assert!(refused.contains("ended by itself"), "{refused}");
}

/// Asks in these very words: clients write a URL in its usual form first.
async fn in_these_words(proxy: &Proxy, method: &str, target: &str) -> String {
    let head = format!("{method} {target} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    e2e::raw::ask(&proxy.fleet.url(0), &[&head], std::time::Duration::ZERO).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_path_leads_out_of_the_part_of_the_site_the_edge_stands_before() {
    let proxy = Proxy::of(ProxyShape { base: "/public", ..ProxyShape::default() }).await;
    proxy.upstream.answer("*", &[FRESH], "public");
    for path in ["/private/x", "/publicity", "/x", "/"] {
        proxy.upstream.answer(path, &[FRESH], "private");
    }
    for target in [
        "/../private/x",
        "/%2e%2e/private/x",
        "/.%2E/private/x",
        "/a/../../private/x",
        "/a/..;/../../private/x",
        "/..\\private/x",
        "/\\../private/x",
        "/..",
        "/a/%2e%2e/..",
        "/./../x",
        "/..?x",
        "http://edge/../private/x",
        "//../../private/x",
    ] {
        for method in ["GET", "POST"] {
            let before = proxy.upstream.asked().len();
            let answer = in_these_words(&proxy, method, target).await;
            assert!(!answer.ends_with("private"), "{method} {target}: {answer}");
            for asked in &proxy.upstream.asked()[before..] {
                assert!(asked.target.starts_with("/public/"), "{method} {target}: {asked:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_one_url_to_origin_is_one_to_the_cache_and_to_writes_however_it_is_written() {
    let proxy = Proxy::start().await;
    // Whatever the edge takes for the usual form the platform leaves as it is.
    for usual in ["/-._~!$&()*+,;=:@%2Fx%/[]|/...//a", "/q?-._~!$&()*+,;=:@%2F%/?[]|/../%2e"] {
        in_these_words(&proxy, "GET", usual).await;
        assert_eq!(proxy.upstream.last().target, usual);
    }
    for (url, path, spellings) in [
        ("/a", "/a", &["/x/../a", "/./a", "/x/%2E%2e/a", "/x\\..\\a"][..]),
        ("/a%22b", "/a%22b", &["/a\"b"]),
        ("/q?x=%27", "/q", &["/q?x='"]),
    ] {
        for spelling in spellings {
            proxy.purged(r#"{"all":true}"#).await;
            let asked = proxy.upstream.asked().len();
            proxy.upstream.answer(path, &[FRESH], "old");
            // Both, and each again: from memory, the short way if there is one.
            for target in [url, spelling, url, spelling, url, spelling] {
                let answer = in_these_words(&proxy, "GET", target).await;
                assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("old"), "{target}: {answer}");
            }
            proxy.upstream.answer(path, &[FRESH], "new");
            // A write by either is one of both.
            in_these_words(&proxy, "PUT", spelling).await;
            for target in [url, spelling] {
                let answer = in_these_words(&proxy, "GET", target).await;
                assert!(answer.ends_with("new"), "{spelling}, {target}: {answer}");
            }
            proxy.upstream.answer(path, &[FRESH], "newer");
            in_these_words(&proxy, "PUT", url).await;
            for target in [spelling, url] {
                let answer = in_these_words(&proxy, "GET", target).await;
                assert!(answer.ends_with("newer"), "{spelling}, {target}: {answer}");
            }
            let asked = &proxy.upstream.asked()[asked..];
            let reads = asked.iter().filter(|asked| asked.method == "GET").count();
            assert_eq!(reads, 3, "one read each for old, new and newer: {asked:?}");
            assert!(asked.iter().all(|asked| asked.target == url), "{asked:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_takes_away_what_is_stored_under_another_spelling_of_its_escapes() {
    let proxy = Proxy::start().await;
    for (one, other) in [("/caf%C3%A9", "/caf%c3%a9"), ("/~ada", "/%7Eada")] {
        let answer =
            |body: &'static str| [one, other].iter().for_each(|path| proxy.upstream.answer(path, &[FRESH], body));
        for (stored, written) in [(one, other), (other, one)] {
            answer("old");
            in_these_words(&proxy, "GET", stored).await;
            let asked = proxy.upstream.asked().len();
            assert!(in_these_words(&proxy, "GET", stored).await.ends_with("old"));
            assert_eq!(proxy.upstream.asked().len(), asked, "{stored} is stored");
            answer("new");
            in_these_words(&proxy, "PUT", written).await;
            assert_eq!(proxy.upstream.last().target, written, "origin is asked as the client wrote it");
            let after = in_these_words(&proxy, "GET", stored).await;
            assert!(after.ends_with("new"), "{stored}, after a write to {written}: {after}");
        }
        proxy.purged(r#"{"all":true}"#).await;
        // So does a purge by hand.
        answer("newer");
        in_these_words(&proxy, "GET", one).await;
        answer("newest");
        proxy.purged(&format!(r#"{{"keys":["url:{other}"]}}"#)).await;
        assert!(in_these_words(&proxy, "GET", one).await.ends_with("newest"), "{one}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_with_a_setting_that_cannot_be_right_serves_nothing_and_its_log_says_which_it_is() {
    let mut proxy = Proxy::start().await;
    proxy.upstream.answer("/a", &[FRESH], "page");
    assert_eq!(proxy.get("/a").await.status, 200);
    let log = proxy.fleet.state().join("edge-1.log");
    let mut begins = 0;
    for (name, value) in [
        ("LIMITS", "reads=5/60"),
        ("SERVICES", "/admin http://127.0.0.1:9"),
        ("WEB_ORIGINS", "*"),
        ("BOUND_MS", "1"),
        ("BODY_BYTES_MAX", "many"),
    ] {
        proxy.fleet.kill_edge(0);
        begins += std::fs::read_to_string(&log).unwrap()[begins..].len();
        set_var(&proxy.fleet, "edge-1", name, Some(value));
        proxy.fleet.spawn_edge(0).unwrap();
        for path in ["/a", "/__edge/health"] {
            let got = eventually("an answer", || send_to(ask(Method::GET, proxy.url(path)))).await;
            assert_eq!((got.status, got.problem().as_str()), (500, "misconfigured"), "{name}: {got:?}");
        }
        eventually("the log says which", || async {
            let log = std::fs::read_to_string(&log).unwrap();
            let mut faults = log[begins..].lines().filter_map(|line| line.split_once("settings: "));
            faults.any(|(_, fault)| fault.contains(name)).then_some(())
        })
        .await;
        set_var(&proxy.fleet, "edge-1", name, None);
    }
    proxy.fleet.kill_edge(0);
    proxy.fleet.start_edge(0).unwrap();
    assert_eq!(proxy.get("/a").await.status, 200);
}

/// On the platform a request to origin goes through a cache of the platform's own, unless it says that it is not to. The runtime has
/// no such cache where it runs by itself: there it is seen by what it tells origin.
#[tokio::test(flavor = "multi_thread")]
async fn no_cache_of_the_platforms_own_stands_between_the_edge_and_origin() {
    let proxy = Proxy::start().await;
    let told = |what: &str| {
        let headers = proxy.upstream.last().headers;
        let both = ["cache-control", "pragma"].map(|name| headers.get(name).cloned());
        assert_eq!(both, [Some("no-cache".to_string()), Some("no-cache".to_string())], "{what}");
    };
    proxy.upstream.answer("/app.js", &[("cache-control", "max-age=0"), ("etag", "\"1\"")], "1");
    proxy.get("/app.js").await;
    told("a fill");
    let again = proxy.get("/app.js").await;
    assert!(again.cache().contains("fwd-status=304"), "{again:?}");
    told("a validation");
    send(ask(Method::POST, proxy.url("/app.js")).body("x")).await;
    told("a write");
    send(ask(Method::OPTIONS, proxy.url("/app.js"))).await;
    told("what is passed");
}
