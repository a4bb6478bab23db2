//! Cache poisoning: whatever one client sends, the next one is answered what origin says to a plain request.
use e2e::api::{Api, SHARED};
use e2e::eventually;
use e2e::http::{Got, ask, send};
use e2e::stack::{Proxy, Stack};
use reqwest::Method;

/// Each field on a page of its own that nothing is stored of yet; then a plain client asks for the same page, and once more
/// one with the field.
async fn cold_and_warm(fields: &[(&str, &str)]) {
    let api = Api::start().await;
    api.answer("/v1/titles/plain", &SHARED, "t", "page");
    api.get("/v1/titles/plain", &[]).await;
    let usual = api.upstream.last().headers;
    for (n, field) in fields.iter().enumerate() {
        let path = format!("/v1/titles/t{n}");
        api.answer(&path, &SHARED, "t", "page");
        let first = api.get(&path, &[*field]).await;
        assert_eq!((first.status, first.body.as_str()), (200, "page"), "{field:?}: {first:?}");
        let told = api.upstream.last().headers;
        let name = field.0.to_ascii_lowercase();
        assert_eq!(told.get(&name), usual.get(&name), "{field:?} reached origin");
        let plain = api.get(&path, &[]).await;
        assert!(plain.is_hit() && plain.body == "page", "{field:?}: {plain:?}");
        let warm = api.get(&path, &[*field]).await;
        assert!(warm.is_hit() && warm.body == "page", "{field:?}: {warm:?}");
        assert_eq!(api.upstream.count(&path), 1, "{field:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_not_in_the_key_reach_neither_origin_nor_what_is_stored() {
    cold_and_warm(&[
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-prefix", "/evil"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "host=evil.example"),
        ("x-host", "evil.example"),
        ("x-original-host", "evil.example"),
        ("x-original-url", "/admin/v1/titles"),
        ("x-rewrite-url", "/admin/v1/titles"),
        ("x-real-ip", "127.0.0.1"),
        ("true-client-ip", "127.0.0.1"),
        ("cf-connecting-ip", "127.0.0.1"),
        ("origin", "https://evil.example"),
        ("referer", "https://evil.example"),
        ("user-agent", "<script>"),
        ("accept", "text/evil"),
        ("accept-charset", "utf-7"),
        ("x-request-origin", "evil"),
        ("content-type", "text/evil"),
        ("transfer", "evil"),
        ("surrogate-key", "evil"),
        ("surrogate-as-of", "evil:1"),
        ("cdn-cache-control", "no-store"),
        ("x-evil", "1"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_have_no_say_over_the_cache() {
    cold_and_warm(&[
        ("cache-control", "no-store"),
        ("cache-control", "no-cache"),
        ("cache-control", "max-age=0"),
        ("pragma", "no-cache"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_method_in_a_field_is_not_another_method() {
    cold_and_warm(&[
        ("x-http-method-override", "DELETE"),
        ("x-http-method", "PUT"),
        ("x-method-override", "POST"),
        ("_method", "DELETE"),
    ])
    .await;
    // On a way to origin that is not cached it is dropped, so that a POST stays one.
    let api = Api::start().await;
    api.upstream.script("/auth/login", 204, &[], "");
    for name in ["x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-forwarded-host"] {
        api.call(Method::POST, "/auth/login", &[(name, "DELETE")]).await;
        let asked = api.upstream.last();
        assert!(asked.method == "POST" && !asked.headers.contains_key(name), "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_and_tokens_of_shared_documents_stay_at_the_edge_and_cookies_are_not_shared() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "page");
    let bearer = format!("Bearer {}", api.token("ada"));
    api.get("/v1/home", &[("cookie", "session=1"), ("authorization", &bearer)]).await;
    let told = api.upstream.last().headers;
    assert!(!told.contains_key("cookie") && !told.contains_key("authorization"), "{told:?}");
    let fields: Vec<_> = SHARED.into_iter().chain([("set-cookie", "session=ada")]).collect();
    api.answer("/v1/titles/heat", &fields, "t", "page");
    for _ in 0..2 {
        let got = api.get("/v1/titles/heat", &[]).await;
        assert!(got.cache().contains("unstored:set-cookie"), "{got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_are_unknown_doubled_or_disguised_make_no_entries_and_no_questions() {
    let api = Api::start().await;
    for path in ["/v1/home", "/v1/catalog", "/v1/search"] {
        api.answer(path, &SHARED, "x", "page");
    }
    api.get("/v1/catalog?genre=crime&year=1995", &[]).await;
    assert_eq!(api.upstream.last().target, "/v1/catalog?genre=crime&year=1995");
    for same in [
        "/v1/catalog?year=1995&genre=crime",
        "/v1/catalog?year=%31995&genre=%63rime",
        "/v1/catalog?genre=crime&utm_source=x&year=1995&callback=evil",
        "/v1/catalog?genre=crime&year=1995&Genre=x&YEAR=9&%79ear=9",
        "/v1/catalog?&&genre=crime&&year=1995&sort=&",
        "/v1/catalog?genre=crime&year=1995&genre%5B%5D=x&genre[]=y",
    ] {
        assert!(api.get(same, &[]).await.is_hit(), "{same}");
    }
    for refused in [
        "/v1/catalog?limit=5&limit=6",
        "/v1/catalog?genre=a&genre=b",
        "/v1/catalog?genre=crime;year=1995",
        "/v1/catalog?limit=5;sort=name",
        "/v1/catalog?limit=5%26limit=6",
        "/v1/catalog?limit=100000",
        "/v1/catalog?sort=price",
        "/v1/catalog?kind=all",
        "/v1/catalog?year=19955",
        "/v1/search?q=%ff",
    ] {
        let got = api.get(refused, &[]).await;
        assert_eq!((got.status, got.problem().as_str()), (400, "query-invalid"), "{refused}");
    }
    assert_eq!(api.upstream.count("/v1/catalog"), 1);
    api.get("/v1/search?q=The%20+Wire", &[]).await;
    assert_eq!(api.upstream.last().target, "/v1/search?q=the%20wire");
    assert!(api.get("/v1/search?q=+the++WIRE+&x=1", &[]).await.is_hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_with_content_is_answered_as_if_it_had_none() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "page");
    let fat = |body: &'static str| {
        send(ask(Method::GET, api.url("/v1/home")).header("content-type", "text/plain").body(body))
    };
    assert_eq!(fat("evil").await.body, "page");
    let asked = api.upstream.last();
    assert!(asked.body.is_empty() && !asked.headers.contains_key("content-length"), "{asked:?}");
    assert!(api.get("/v1/home", &[]).await.is_hit());
    assert!(fat("worse").await.is_hit());
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_preconditions_and_head_leave_the_whole_page_for_the_next_client() {
    let api = Api::start().await;
    for (n, (method, fields)) in [
        (Method::GET, vec![("range", "bytes=0-1")]),
        (Method::GET, vec![("range", "bytes=0-1"), ("if-range", "\"x\"")]),
        (Method::GET, vec![("range", "bytes=999-")]),
        (Method::GET, vec![("if-none-match", "*")]),
        (Method::GET, vec![("if-none-match", "\"e\"")]),
        (Method::GET, vec![("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT")]),
        (Method::GET, vec![("if-match", "\"other\"")]),
        (Method::GET, vec![("if-unmodified-since", "Mon, 01 Jan 1990 00:00:00 GMT")]),
        (Method::HEAD, vec![]),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/v1/titles/t{n}");
        let policy: Vec<_> = SHARED.into_iter().chain([("etag", "\"e\"")]).collect();
        api.answer(&path, &policy, "t", "the whole page");
        let first = api.call(method.clone(), &path, &fields).await;
        assert!(matches!(first.status, 200 | 304), "{fields:?}: {first:?}");
        let told = api.upstream.last().headers;
        for (name, value) in &fields {
            assert_ne!(told.get(*name).map(String::as_str), Some(*value), "{fields:?} reached origin");
        }
        let plain = api.get(&path, &[]).await;
        assert_eq!((plain.status, plain.body.as_str()), (200, "the whole page"), "{method} {fields:?}: {plain:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_fields_make_no_error_for_others() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "page");
    for bytes in [4_000, 16_000, 60_000, 200_000] {
        let value = "x".repeat(bytes);
        let request = ask(Method::GET, api.url("/v1/home")).header("x-big", &value);
        if let Some(got) = e2e::http::send_to(request).await {
            assert!(matches!(got.status, 200 | 400 | 413 | 431), "{bytes}: {}", got.status);
        }
        let plain = api.get("/v1/home", &[]).await;
        assert_eq!((plain.status, plain.body.as_str()), (200, "page"), "{bytes}: {plain:?}");
    }
    let told = api.upstream.last().headers;
    assert!(!told.contains_key("x-big"));
    let long = api.get(&format!("/v1/home?x={}", "x".repeat(9_000)), &[]).await;
    assert_eq!((long.status, long.problem().as_str()), (414, "uri-too-long"));
    let token = format!("Bearer {}", "x".repeat(5_000));
    assert_eq!(api.get("/v1/home", &[("authorization", &token)]).await.problem(), "token-refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_somebody_caused_is_not_stored_for_others() {
    let api = Api::start().await;
    // An error is stored if it is given a lifetime; origin's are given none.
    for (kind, policy) in [("bare", None), ("no-store", Some(("cache-control", "no-store")))] {
        for status in [400, 403, 413, 431, 500, 503] {
            let path = format!("/v1/titles/{kind}-{status}");
            let fields: Vec<_> = [("content-type", "application/problem+json")].into_iter().chain(policy).collect();
            api.upstream.script(&path, status, &fields, "{}");
            assert_eq!(api.get(&path, &[]).await.status, status);
            api.answer(&path, &SHARED, "t", "page");
            let plain: Got = api.get(&path, &[]).await;
            assert_eq!((plain.status, plain.body.as_str()), (200, "page"), "{kind}, {status}: {plain:?}");
        }
    }
    let stack = Stack::start().await;
    let future = format!("{}:999999", stack.as_of().await.log_id);
    for (path, field, status) in [
        ("/v1/catalog?sort=price", ("accept", "*/*"), 400),
        ("/v1/me", ("accept", "*/*"), 401),
        ("/v1/home", ("min-as-of", future.as_str()), 503),
    ] {
        let got = send(ask(Method::GET, stack.origin_url(path)).header(field.0, field.1)).await;
        let lifetimes =
            ["cache-control", "cdn-cache-control", "surrogate-control", "expires"].map(|name| got.header(name));
        assert_eq!((got.status, lifetimes), (status, [Some("no-store"), None, None, None]), "{path}: {got:?}");
    }
}

/// In front of any origin its `Vary` says what an answer depends on; these make of one URL another, and no origin names them.
#[tokio::test(flavor = "multi_thread")]
async fn fields_by_which_a_request_is_taken_for_another_reach_no_origin_whose_answers_are_stored() {
    let proxy = Proxy::start().await;
    let fields = [
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-port", "1"),
        ("x-forwarded-scheme", "http"),
        ("x-forwarded-prefix", "/evil"),
        ("forwarded", "host=evil.example"),
        ("x-host", "evil.example"),
        ("x-original-host", "evil.example"),
        ("x-original-url", "/other"),
        ("x-rewrite-url", "/other"),
        ("x-http-method", "HEAD"),
        ("x-http-method-override", "HEAD"),
        ("x-method-override", "HEAD"),
    ];
    for (n, (name, value)) in fields.into_iter().enumerate() {
        let path = format!("/{n}");
        proxy.upstream.answer(&path, &[("cache-control", "max-age=60")], "page");
        let first = send(ask(Method::GET, proxy.url(&path)).header(name, value).header("x-end", "1")).await;
        assert_eq!(first.status, 200, "{name}: {first:?}");
        let told = proxy.upstream.last().headers;
        assert_eq!((told.get(name), told.get("x-end").map(String::as_str)), (None, Some("1")), "{name}");
        assert!(proxy.get(&path).await.is_hit(), "{name}");
    }
    // A read that is never stored is passed on with its fields, but for those that would make a write of it which nobody purges.
    for (name, goes_on) in [("x-http-method-override", false), ("x-method-override", false), ("x-forwarded-port", true)]
    {
        let passed = ask(Method::GET, proxy.url("/0")).header("if-match", "*").header(name, "PUT");
        send(passed).await;
        let told = proxy.upstream.last().headers;
        assert_eq!((told.contains_key("if-match"), told.contains_key(name)), (true, goes_on), "{name}");
    }
    // Nor is what a write answers with, whose fields go on as they are, stored as its URL's page.
    let own = [("cache-control", "max-age=60"), ("content-location", "/written")];
    proxy.upstream.answer("/written", &own, "page");
    let write =
        async |name: &str| send(ask(Method::POST, proxy.url("/written")).header(name, "evil.example").body("x")).await;
    for _ in 0..3 {
        // While the isolate has not heard of all purges that came before its own, it stores nothing that a write answers with.
        eventually("a write's answer is stored", || async {
            write("x-end").await.cache().contains("; stored").then_some(())
        })
        .await;
        let written = write("x-forwarded-host").await;
        assert!(!written.cache().contains("; stored"), "{written:?}");
    }
}
