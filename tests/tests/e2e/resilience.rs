//! Services that are cut off, slow, stalled or spoilt, each by itself: what is cached is served all the same, what is not
//! is answered within its bound, and a service that fails is left alone.
use e2e::api::Api;
use e2e::gate::Mode;
use e2e::http::{Got, ask, send, send_to};
use e2e::stack::{LEASE_OVER, Shape, Stack, metrics};
use e2e::{eventually, raw};
use reqwest::Method;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const TIMEOUT_MS: u64 = 400;
const BODY_TIMEOUT_MS: u64 = 600;

/// What the documents promise a client for the head of an answer: two fetches, and another's it may wait for. Where there is
/// no other that leaves a busy machine five seconds.
const PROMISED: Duration = Duration::from_millis(2 * TIMEOUT_MS + OTHERS_FILL_MS);
const OTHERS_FILL_MS: u64 = 5_000;
/// For who waits for nobody else's.
const PROMISED_ALONE: Duration = Duration::from_millis(2 * TIMEOUT_MS);

/// Pages may be shown while they are fetched anew, for an hour by origin's word; once softly purged, for one bound at most.
async fn stack() -> Stack {
    Stack::of(Shape {
        origin_timeout_ms: TIMEOUT_MS,
        vars: vec![("BODY_TIMEOUT_MS".into(), BODY_TIMEOUT_MS.to_string())],
        ..Shape::default()
    })
    .await
}

async fn within_promise(got: impl Future<Output = Got>) -> Got {
    tokio::time::timeout(PROMISED, got).await.expect("a client waited longer than it is promised")
}

async fn metric(stack: &Stack, name: &str) -> u64 {
    metrics(&stack.fleet.url(0), &stack.key).await.figure(name).unwrap_or(0)
}

const PAGES: [&str; 4] = ["/v1/home", "/v1/catalog", "/v1/titles/heat", "/v1/genres"];

/// Every way in which an upstream can be away.
fn faults() -> [Mode; 8] {
    [
        Mode::Cut,
        Mode::Hold,
        Mode::StallAfter(0),
        Mode::StallAfter(60),
        Mode::CutAfter(60),
        Mode::TrickleAfter(0),
        Mode::TrickleAfter(60),
        Mode::Garble,
    ]
}

/// Whether an answer says that a service is away, in one of the ways that are documented.
fn is_away(got: &Got) -> bool {
    matches!(
        (got.status, got.problem().as_str()),
        (502, "origin-unreachable") | (503, "service-unavailable") | (504, "origin-timeout")
    )
}

/// Lets a service go on, and waits until it is asked again.
async fn mend(stack: &Stack, gate: &e2e::gate::Gate, service: &str, probe: impl AsyncFn() -> bool) {
    gate.set(Mode::Open);
    let series = format!("edge_breaker_open{{service=\"{service}\"}}");
    eventually("the service is trusted again", || async {
        (probe().await && metric(stack, &series).await == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_client_service_does_every_cached_page_is_served() {
    let stack = stack().await;
    for page in PAGES {
        assert_eq!(stack.get(page).await.status, 200);
    }
    for fault in faults() {
        stack.to_origin.set(fault);
        // Soft: the pages are old, and there is nobody to ask.
        let purged = stack.admin(Method::POST, "/admin/v1/purges", Some(json!({"all": true, "mode": "soft"}))).await;
        assert!(purged.status < 300, "{purged:?}");
        stack.applied(&purged).await;
        // Past the bound in which they may be shown without asking.
        tokio::time::sleep(2 * LEASE_OVER).await;
        for round in 0..10 {
            for page in PAGES {
                let got = within_promise(stack.get(page)).await;
                assert_eq!(got.status, 200, "{fault:?}, round {round}, {page}: {got:?}");
                assert!(got.cache().contains("detail=\"stale-error"), "{fault:?}, round {round}, {page}: {got:?}");
            }
        }
        let missing = within_promise(stack.get("/v1/titles/ronin")).await;
        assert!(is_away(&missing), "{fault:?}: {missing:?}");
        mend(&stack, &stack.to_origin, "default", async || stack.get("/v1/titles/none").await.status == 404).await;
    }
}

/// Each is asked for what it has never been asked for, while it is trusted: nothing spares anybody the wait. A busy machine
/// may be late now and then; an edge without the bound is late each time.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_service_does_who_asks_waits_for_two_fetches_at_most_and_for_another_who_asks() {
    const TRIES: u64 = 5;
    let stack = stack().await;
    let mut pages = 0_u64;
    for fault in faults() {
        let mut quickest = [Duration::MAX; 2];
        for _ in 0..TRIES {
            pages += 1;
            stack.to_origin.set(fault);
            let page = format!("/v1/titles/none-{pages}");
            // The second finds the mark of the first.
            let asks = async || {
                let began = Instant::now();
                let got = within_promise(stack.get(&page)).await;
                assert!(is_away(&got), "{fault:?}: {got:?}");
                began.elapsed()
            };
            let (first, second) = tokio::join!(asks(), asks());
            quickest = [quickest[0].min(first.min(second)), quickest[1].min(first.max(second))];
            mend(&stack, &stack.to_origin, "default", async || stack.get(&page).await.status == 404).await;
            if quickest[0] <= PROMISED_ALONE {
                break;
            }
        }
        assert!(quickest[0] <= PROMISED_ALONE && quickest[1] <= PROMISED, "{fault:?}: {quickest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_takes_no_other_with_it() {
    let stack = stack().await;
    let titles = || send(ask(Method::GET, stack.url("/admin/v1/titles")).bearer_auth(&stack.admin_token));
    let log_in = || {
        let request = ask(Method::POST, stack.url("/auth/login")).header("content-type", "application/json");
        send(request.body(r#"{"email":"nobody@example.org","password":"not the password"}"#))
    };
    for fault in faults() {
        stack.to_admin.set(fault);
        for _ in 0..5 {
            for got in [within_promise(titles()).await, within_promise(log_in()).await] {
                assert!(is_away(&got), "{fault:?}: {got:?}");
            }
        }
        // Nothing of it is cached: each asks origin.
        let page = format!("/v1/catalog?limit={}", 10 + faults().iter().position(|one| *one == fault).unwrap());
        assert_eq!(stack.get(&page).await.status, 200, "{fault:?}");
        assert_eq!(metric(&stack, "edge_breaker_open{service=\"default\"}").await, 0, "{fault:?}");
        for service in ["admin", "auth"] {
            let series = format!("edge_breaker_open{{service=\"{service}\"}}");
            assert_eq!(metric(&stack, &series).await, 1, "{fault:?}: {service} is left alone");
        }
        mend(&stack, &stack.to_admin, "admin", async || titles().await.status == 200).await;
        mend(&stack, &stack.to_admin, "auth", async || log_in().await.status < 500).await;
    }
}

/// What is one request's fault, or what a client can ask for, is no sign that nobody is there.
#[tokio::test(flavor = "multi_thread")]
async fn clients_cannot_make_a_service_seem_down() {
    const TIMES: u64 = 12;
    let api = Api::start().await;
    let breaker = async |service: &str| {
        let of = |name: &str| format!("{name}{{service=\"{service}\"}}");
        (api.metric(&of("edge_breaker_open")).await, api.metric(&of("edge_breaker_opened_total")).await)
    };
    for status in [500, 503, 501, 505, 404, 429] {
        for path in ["/v1/home", "/v1/titles/heat", "/auth/login"] {
            api.upstream.script(path, status, &[("cache-control", "no-store")], "no");
            let before = api.upstream.count(path);
            for _ in 0..TIMES {
                let method = if path == "/auth/login" { Method::POST } else { Method::GET };
                assert_eq!(api.call(method, path, &[]).await.status, status, "{path}");
            }
            let asked = api.upstream.count(path) - before;
            assert!(asked >= usize::try_from(TIMES).unwrap(), "{path}, {status}: asked {asked} times");
        }
        assert_eq!(breaker("default").await, (0, 0), "{status}");
    }
    // Those that say that nobody is there do.
    api.upstream.script("/v1/home", 502, &[], "no");
    for _ in 0..3 {
        assert_eq!(api.get("/v1/home", &[]).await.status, 502);
    }
    assert_eq!(breaker("default").await, (1, 1));

    // The real origin's 503 to a state that there is not, and uploads that break off.
    let stack = stack().await;
    let future = format!("{}:999999", stack.as_of().await.log_id);
    let edge = stack.fleet.url(0);
    let upload =
        "POST /auth/login HTTP/1.1\r\nhost: edge\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    for _ in 0..TIMES {
        let got = send(ask(Method::GET, stack.url("/v1/home")).header("min-as-of", &future)).await;
        assert_eq!((got.status, got.problem().as_str()), (503, "origin-behind"));
        raw::break_off(&edge, upload).await;
    }
    for service in ["default", "auth"] {
        let series = format!("edge_breaker_opened_total{{service=\"{service}\"}}");
        assert_eq!(metric(&stack, &series).await, 0, "{service}");
    }
    assert_eq!(stack.get("/v1/home").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_service_is_left_alone_and_found_again_by_one_probe() {
    let stack = stack().await;
    stack.to_admin.set(Mode::Hold);
    let admin = || send(ask(Method::GET, stack.url("/admin/v1/titles")).bearer_auth(&stack.admin_token));
    for _ in 0..3 {
        let slow = within_promise(admin()).await;
        assert_eq!((slow.status, slow.problem().as_str()), (504, "origin-timeout"));
    }
    let asked = stack.to_admin.asked();
    // The pause is a second: what has ended before it is over was no probe.
    const PAUSE: Duration = Duration::from_millis(900);
    let began = Instant::now();
    let mut refused = 0;
    loop {
        let (got, asked_since) = (admin().await, stack.to_admin.asked() - asked);
        if began.elapsed() > PAUSE {
            break;
        }
        assert_eq!(asked_since, 0, "nobody was asked");
        assert_eq!((got.status, got.problem().as_str()), (503, "service-unavailable"));
        let retry_after_s: u64 = got.header("retry-after").expect("Retry-After").parse().unwrap();
        assert!((1..=30).contains(&retry_after_s), "{got:?}");
        refused += 1;
    }
    assert!(refused > 0);
    assert_eq!(metric(&stack, "edge_breaker_open{service=\"admin\"}").await, 1);
    stack.to_admin.set(Mode::Open);
    eventually("the service is trusted again", || async { (admin().await.status == 200).then_some(()) }).await;
    assert_eq!(metric(&stack, "edge_breaker_open{service=\"admin\"}").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_whose_connection_broke_is_tried_once_more_and_a_write_is_not() {
    let stack = stack().await;
    let send_to_admin = |method: Method| {
        ask(method, stack.url("/admin/v1/titles")).bearer_auth(&stack.admin_token).header("if-match", "*")
    };
    // The budget has saved up one retry.
    stack.to_admin.set(Mode::CutAfter(0));
    let before = stack.to_admin.asked();
    let read = send(send_to_admin(Method::GET)).await;
    assert_eq!(read.problem(), "origin-unreachable");
    assert_eq!(stack.to_admin.asked() - before, 2);
    assert_eq!(metric(&stack, "edge_upstream_retries_total{service=\"admin\"}").await, 1);
    // It is spent now; a write would not get one anyway.
    let write = send(send_to_admin(Method::POST).body("{}")).await;
    assert!(matches!(write.status, 502 | 503), "{write:?}");
    assert_eq!(metric(&stack, "edge_upstream_retries_total{service=\"admin\"}").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stalls_is_broken_off_and_not_stored() {
    let stack = stack().await;
    // The head passes, and a part of the body.
    let head = send(ask(Method::HEAD, stack.origin_url("/v1/catalog")).header("accept-encoding", "gzip")).await;
    let head_bytes: usize = head.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>() + 60;
    for (page, fault) in ["/v1/catalog", "/v1/catalog?genre=crime"]
        .into_iter()
        .zip([Mode::StallAfter(head_bytes), Mode::TrickleAfter(head_bytes)])
    {
        stack.to_origin.set(fault);
        let broken = async {
            let response = ask(Method::GET, stack.url(page)).send().await.expect("the head passed");
            (response.status().as_u16(), response.bytes().await.is_err())
        };
        let got = tokio::time::timeout(PROMISED + Duration::from_millis(BODY_TIMEOUT_MS), broken).await;
        let got = got.expect("a client waited longer than it is promised");
        assert_eq!(got, (200, true), "{fault:?}: it is the body that is broken off");
        stack.to_origin.set(Mode::Open);
        eventually("a whole answer", || async {
            let got = send_to(ask(Method::GET, stack.url(page))).await?;
            (got.status == 200 && got.json()["items"].is_array()).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_are_bounded_in_length_and_reach_no_service_before_they_are_whole() {
    let stack = stack().await;
    let before = stack.to_admin.asked();
    let post =
        |body: Vec<u8>| ask(Method::POST, stack.url("/admin/v1/titles")).bearer_auth(&stack.admin_token).body(body);
    let long = send(post(vec![b' '; 1024 * 1024 + 1])).await;
    assert_eq!((long.status, long.problem().as_str()), (413, "body-too-large"));
    let pieces = [
        "POST /admin/v1/titles HTTP/1.1\r\nhost: edge\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ];
    let url = stack.fleet.url(0);
    let unsaid = raw::ask(&url, &pieces, Duration::ZERO);
    let unsaid = tokio::time::timeout(PROMISED, unsaid).await.expect("no answer");
    assert!(unsaid.starts_with("HTTP/1.1 411"), "{unsaid}");
    assert_eq!(stack.to_admin.asked(), before, "no service heard of either");
    assert_eq!(send(post(vec![b'{'; 1000])).await.problem(), "media-type", "origin reads what fits");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_comes_slowly_is_given_up_and_reaches_no_service() {
    let stack = stack().await;
    let before = stack.to_admin.asked();
    let half = ["POST /admin/v1/titles HTTP/1.1\r\nhost: edge\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{"];
    // Ten seconds without a byte are too long.
    let url = stack.fleet.url(0);
    let given_up = raw::ask(&url, &half, Duration::ZERO);
    let given_up = tokio::time::timeout(Duration::from_secs(30), given_up).await.expect("no answer");
    assert!(given_up.starts_with("HTTP/1.1 408") && given_up.contains(":request-timeout\""), "{given_up}");
    assert_eq!(stack.to_admin.asked(), before, "no service heard of it");
}

/// Memory of a process, in bytes.
#[cfg(target_os = "linux")]
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("{status}")) * 1024
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_comes_byte_by_byte_takes_no_page_of_memory_for_each() {
    const PIECES: usize = 250;
    const AT_ONCE: usize = 400;
    let api = Api::of(1, &[("ACCESS_LOG", "off")]).await;
    let edge = api.fleet.edge_id(0);
    let head = format!("POST /auth/login HTTP/1.1\r\nhost: edge\r\ncontent-length: {}\r\n\r\n", PIECES + 1);
    let slow = async |at_once: usize| {
        let all = (0..at_once).map(|_| {
            let (url, head) = (api.fleet.url(0), head.clone());
            tokio::spawn(async move { raw::send_slowly(&url, &head, PIECES, Duration::from_millis(60)).await })
        });
        let mut open = Vec::new();
        for one in all.collect::<Vec<_>>() {
            open.push(one.await.unwrap());
        }
        open
    };
    let early = resident(edge);
    let open = slow(AT_ONCE).await;
    let grown = resident(edge).saturating_sub(early);
    let pages = (AT_ONCE * PIECES * 4096) as u64;
    println!("{early} bytes resident, and {grown} more with {} pieces", AT_ONCE * PIECES);
    assert!(grown < pages / 4 * 3, "{grown} bytes more, where each piece in a page of its own would be {pages}");
    assert!(api.metric("edge_held_bytes").await <= (AT_ONCE * 2 * PIECES) as u64);
    drop(open);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn of_uploads_whose_clients_leave_nothing_is_kept() {
    const SENT: usize = 900_000;
    const AT_ONCE: usize = 50;
    const EARLY_ROUNDS: usize = 12;
    const LATE_ROUNDS: usize = 8;
    let api = Api::of(1, &[("ACCESS_LOG", "off")]).await;
    let upload =
        format!("POST /auth/login HTTP/1.1\r\nhost: edge\r\ncontent-length: {}\r\n\r\n{}", SENT + 1, "x".repeat(SENT));
    let upload: Arc<str> = upload.into();
    let edge = api.fleet.edge_id(0);
    let port = api.fleet.url(0).rsplit(':').next().and_then(|port| port.parse().ok()).unwrap();
    let round = async || {
        let sent = Arc::new(AtomicU64::new(0));
        let uploads: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (edge, upload, sent) = (api.fleet.url(0), upload.clone(), Arc::clone(&sent));
                tokio::spawn(async move { raw::ask_counting(&edge, &upload, &sent).await })
            })
            .collect();
        let most = (AT_ONCE * SENT / 10 * 9) as u64;
        eventually("most of it is read", || async {
            (sent.load(Ordering::Relaxed) > most + raw::unread(port)).then_some(())
        })
        .await;
        for one in uploads {
            // Dropped, it resets its connection.
            one.abort();
            let _ = one.await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    // What the runtime keeps for what is under way at once it keeps, and has by then.
    for _ in 0..EARLY_ROUNDS {
        round().await;
    }
    let early = resident(edge);
    for _ in 0..LATE_ROUNDS {
        round().await;
    }
    let grown = resident(edge).saturating_sub(early);
    let sent = (LATE_ROUNDS * AT_ONCE * SENT) as u64;
    println!("{early} bytes resident, and {grown} more after {sent} more were sent");
    assert!(grown < sent / 4, "of {sent} bytes that came to nothing {grown} are kept, beside {early} from before");
    assert_eq!(api.upstream.count("/auth/login"), 0);
}
