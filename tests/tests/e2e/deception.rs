//! Cache deception and smuggling: requests that are read in one way here and in another there. The client below sends the
//! very bytes it is told; behind the edge stands the worst origin, which answers every path with what is the viewer's own
//! and says that everybody may store it.
use e2e::api::{Api, SHARED};
use e2e::raw;
use e2e::upstream::ANY;
use std::time::Duration;

const SECRET: &str = "ada's own";

async fn send(api: &Api, first: &str, fields: &str) -> String {
    let text = format!("{first} HTTP/1.1\r\nhost: edge.example\r\nconnection: close\r\n{fields}\r\n");
    raw::ask(&api.fleet.url(0), &[&text], Duration::ZERO).await
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

/// A victim with a token is led to a URL; then the attacker asks for the same. What the attacker gets.
async fn after_a_victim(api: &Api, path: &str) -> Vec<String> {
    let (first, token) = (format!("GET {path}"), format!("authorization: Bearer {}\r\n", api.token("ada")));
    api.answer(ANY, &SHARED, "x", SECRET);
    send(api, &first, &token).await;
    api.answer(ANY, &SHARED, "x", "nothing");
    let mut answers = Vec::new();
    for fields in ["", "cookie: a=b\r\n", "range: bytes=0-8\r\n"] {
        answers.push(send(api, &first, fields).await);
    }
    answers
}

async fn deceive(paths: &[&str]) {
    let api = Api::start().await;
    // A page that is everybody's, whatever is in it: the attacker would see a secret if it were shared.
    for got in after_a_victim(&api, "/v1/genres").await {
        assert!(got.contains(SECRET), "what is shared is not found: {got}");
    }
    for path in paths {
        for got in after_a_victim(&api, path).await {
            assert!(!got.contains(SECRET), "{path}: {got}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_looks_like_a_file_is_not_cached() {
    deceive(&[
        "/v1/me/x.css",
        "/v1/me/x.js",
        "/v1/me.css",
        "/v1/me/watch-list.png",
        "/v1/me/watch-list/x.ico",
        "/v1/me/.css",
        "/v1/me/robots.txt",
        "/v1/me?x.css",
        "/v1/me/favicon.ico?v=1",
        "/admin/v1/titles/x.css",
        "/auth/session.js",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encoded_slashes_dots_and_control_characters_lead_nowhere() {
    deceive(&[
        "/v1/me%2Fx.css",
        "/v1/me%2fx.css",
        "/v1/me%5Cx.css",
        "/v1/me%3Bx.css",
        "/v1/me%00x.css",
        "/v1/me%0Ax.css",
        "/v1/me%0D%0Ax.css",
        "/v1/me%23x.css",
        "/v1/me%3Fx.css",
        "/v1/me%252Fx.css",
        "/v1/%6De",
        "/v1/titles/..%2Fme",
        "/v1/titles/%2e%2e/me",
        "/v1/titles/%2e%2e%2fme",
        "/v1/home%2f..%2fme",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dots_double_slashes_matrix_parameters_and_other_cases_lead_nowhere() {
    deceive(&[
        "/v1/me/.",
        "/v1/me/..",
        "/v1/titles/../me",
        "/v1/titles/./../me",
        "/v1/home/../me",
        "/v1/me/../../v1/me",
        "//v1/me",
        "/v1//me",
        "/v1/me//x.css",
        "/v1/me;x.css",
        "/v1/me;.css",
        "/v1;a=b/me",
        "/v1/me/;/x.css",
        "/V1/me",
        "/v1/ME",
        "/v1/Me/x.css",
        "/v1/me\\x.css",
        "\\v1\\me",
        "/v1/me ",
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_url_and_a_strange_host_are_the_same_page_and_origin_never_hears_of_them() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "the page");
    for (n, (first, fields)) in [
        ("GET http://evil.example/v1/home", ""),
        ("GET /v1/home", "x-forwarded-host: evil.example\r\n"),
        ("GET http://user:word@evil.example:99/v1/home?x=1", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let got = send(&api, first, fields).await;
        assert!(status(&got) == "200" && got.ends_with("the page"), "{first}: {got}");
        assert_eq!(got.contains("hit memory"), n > 0, "{got}");
    }
    let text = "GET /v1/home HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    let got = raw::ask(&api.fleet.url(0), &[text], Duration::ZERO).await;
    assert!(got.contains("hit memory"), "{got}");
    assert_eq!(api.upstream.count("/v1/home"), 1);
    let told = format!("{:?}", api.upstream.last().headers);
    assert!(!told.contains("evil"), "{told}");
}

/// Sends a request with what may be its content or a request of its own behind it; how many answers come on the connection.
async fn answers(api: &Api, method: &str, fields: &str, behind: &str) -> usize {
    let text = format!("{method} /v1/home HTTP/1.1\r\nhost: edge.example\r\n{fields}\r\n{behind}");
    // Where the runtime keeps the connection open for more, nothing more comes.
    let got = raw::ask_within(&api.fleet.url(0), &text, Duration::from_secs(2)).await;
    got.matches("HTTP/1.1 ").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_whose_end_can_be_read_in_two_ways_bring_no_second_request() {
    let api = Api::start().await;
    api.answer(ANY, &SHARED, "x", "any");
    // Below a path that is passed on: what the runtime reads as a request of its own, origin is asked for.
    let of = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: edge.example\r\n\r\n");
    let next = of("/media/next");
    assert_eq!(answers(&api, "GET", "content-length: 0\r\n", &next).await, 2);
    assert_eq!(answers(&api, "POST", "transfer-encoding: chunked\r\n", &format!("0\r\n\r\n{next}")).await, 2);
    assert_eq!(api.upstream.count("/media/next"), 2, "one request behind another is a request");
    let smuggled = of("/media/smuggled");
    for fields in [
        format!("content-length: 0\r\ncontent-length: {}\r\n", smuggled.len()),
        format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", smuggled.len()),
        format!("content-length: 0, {}\r\n", smuggled.len()),
        "content-length: +1\r\n".into(),
        "content-length: -1\r\n".into(),
        "content-length: 0x10\r\n".into(),
        "transfer-encoding: xchunked\r\n".into(),
        "transfer-encoding: chunked, identity\r\n".into(),
        "transfer-encoding : chunked\r\n".into(),
        " transfer-encoding: chunked\r\n".into(),
    ] {
        for method in ["GET", "POST"] {
            let behind = if fields.contains("chunked") { format!("0\r\n\r\n{smuggled}") } else { smuggled.clone() };
            assert_eq!(answers(&api, method, &fields, &behind).await, 1, "{method} {fields:?}");
            assert_eq!(api.upstream.count("/media/smuggled"), 0, "{method} {fields:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn line_breaks_in_values_make_no_fields() {
    let api = Api::start().await;
    for path in ["/v1/home", "/v1/search"] {
        api.answer(path, &SHARED, "x", "page");
    }
    for (first, want) in [
        ("GET /v1/search?q=a%0d%0aset-cookie:%20x", "200"),
        ("GET /v1/catalog?cursor=a%0d%0ab", "400"),
        ("GET /v1/home?x=%0d%0aset-cookie:%20x", "200"),
        ("GET /v1/titles/a%0d%0aset-cookie:%20x", "404"),
    ] {
        let got = send(&api, first, "").await;
        assert_eq!(status(&got), want, "{first}: {got}");
        assert!(!got.to_ascii_lowercase().contains("\r\nset-cookie"), "{got}");
    }
    api.answer(ANY, &SHARED, "x", "any");
    // On a path that is passed on with a client's fields: one that came in by another's value would be seen.
    send(&api, "GET /media/x", "x-injected: 1\r\n").await;
    assert!(api.upstream.last().headers.contains_key("x-injected"), "what is sent as a field arrives");
    let before = api.upstream.asked().len();
    for (first, fields, want) in [
        ("GET /media/x?a=%0d%0ax-injected:%201", "", "200"),
        ("GET /media/x%0d%0ax-injected:%201", "", "404"),
        ("GET /media/x", "x-a: b%0d%0ax-injected: 1\r\n", "200"),
        ("GET /media/x", "x-a: b\rx-injected: 1\r\n", "400"),
        ("GET /media/x", "x-a: b\0x-injected: 1\r\n", "400"),
    ] {
        assert_eq!(status(&send(&api, first, fields).await), want, "{first} {fields:?}");
    }
    let asked = api.upstream.asked().split_off(before);
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|asked| !asked.headers.contains_key("x-injected")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_behind_a_lone_line_feed_is_no_way_past_what_a_client_may_not_say() {
    let api = Api::start().await;
    api.answer(ANY, &SHARED, "x", "any");
    send(&api, "GET /media/x", "x-a: b\nx-other: c\nviewer-plan: premium\nedge-client: d\r\n").await;
    let headers = api.upstream.last().headers;
    let of = |name: &str| headers.get(name).map(String::as_str);
    // RFC 9112 section 2.2: "a recipient MAY recognize a single LF as a line terminator". The runtime does.
    assert_eq!((of("x-a"), of("x-other")), (Some("b"), Some("c")), "{headers:?}");
    assert_eq!((of("viewer-plan"), of("edge-client")), (None, None), "{headers:?}");
}
