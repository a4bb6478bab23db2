//! Web apps on other origins (`WEB_ORIGINS`): what browsers are told, on every way an answer can take, and to whom.
use e2e::api::{Api, OWN, SHARED};
use e2e::http::{Got, ask, send};
use reqwest::Method;
use serde_json::json;

const APP: &str = "https://app.example";
const TV: &str = "https://tv.example:8443";
const FOREIGN: &str = "https://evil.example";
const LIST: &str = "https://app.example https://tv.example:8443";

/// What a service of its own accord says to web apps.
const OF_SERVICE: [(&str, &str); 3] = [
    ("access-control-allow-origin", "https://of-service.example"),
    ("access-control-allow-credentials", "true"),
    ("access-control-expose-headers", "x-inner"),
];

/// Everything an answer says to web apps, and whether caches on the way are told that it differs by origin.
fn told(got: &Got) -> (Vec<&str>, bool) {
    let fields = got.headers.iter().filter(|(name, _)| name.starts_with("access-control-"));
    let varies = got.headers.iter().any(|(name, value)| name == "vary" && value.to_lowercase().contains("origin"));
    let mut fields: Vec<_> = fields
        .map(|(name, value)| match name.as_str() {
            "access-control-expose-headers" => {
                let names: Vec<_> = value.split(", ").collect();
                assert!(names.contains(&"etag") && names.contains(&"surrogate-as-of"), "{got:?}");
                "exposed"
            }
            "access-control-allow-origin" => value,
            _ => panic!("{name}: {got:?}"),
        })
        .collect();
    fields.sort_unstable();
    (fields, varies)
}

async fn preflight(api: &Api, path: &str, origin: &str) -> Got {
    let fields = [
        ("origin", origin),
        ("access-control-request-method", "PATCH"),
        ("access-control-request-headers", "authorization,if-match"),
    ];
    api.call(Method::OPTIONS, path, &fields).await
}

/// An edge with this setting, pages that origin has something of its own to say of, and a service that is not there.
async fn with(origins: &str) -> Api {
    let vars =
        [("WEB_ORIGINS", origins), ("LIMITS", "auth=1/60 search=1/60"), ("SERVICES", "/media http://127.0.0.1:1")];
    let api = Api::of(1, &vars).await;
    let own: Vec<_> = OWN.into_iter().chain(OF_SERVICE).collect();
    api.answer("/v1/me", &own, "viewer:ada", "{}");
    api.upstream.script("/auth/login", 401, &OF_SERVICE, "no");
    api
}

/// The page is asked for anew.
async fn purged(api: &Api) {
    api.purge("hard", &["home"]).await;
    let policy: Vec<_> = SHARED.into_iter().chain(OF_SERVICE).chain([("etag", "\"1\"")]).collect();
    api.answer("/v1/home", &policy, "home", r#"{"a":1,"b":2}"#);
}

/// One answer of each kind, as an app of this origin has them: hits often enough for each way there is.
async fn answers(api: &Api, origin: &str, is_short_way_taken: bool) -> Vec<Got> {
    let from = ("origin", origin);
    let mut all = Vec::new();
    let mut keep = |status: u16, got: Got| {
        assert_eq!(got.status, status, "{got:?}");
        all.push(got);
    };
    purged(api).await;
    let miss = api.get("/v1/home", &[from]).await;
    assert!(!miss.is_hit(), "{miss:?}");
    keep(200, miss);
    let before = api.metric("edge_ready_hits_total").await;
    let ready = e2e::eventually("many hits", || async {
        let mut hits = Vec::new();
        for _ in 0..6 {
            hits.push((200, api.get("/v1/home", &[from]).await));
            hits.push((304, api.get("/v1/home", &[from, ("if-none-match", "\"1\"")]).await));
        }
        let is_short = api.metric("edge_ready_hits_total").await > before;
        assert!(is_short_way_taken || !is_short, "it is the same for all origins");
        (is_short == is_short_way_taken).then_some(hits)
    });
    ready.await.into_iter().for_each(|(status, got)| keep(status, got));
    keep(200, api.get("/v1/home?fields=a", &[from]).await);
    let token = format!("Bearer {}", api.token("ada"));
    for _ in 0..2 {
        keep(200, api.get("/v1/me", &[from, ("authorization", &token)]).await);
    }
    keep(401, api.get("/v1/me", &[from]).await);
    keep(404, api.get("/elsewhere", &[from]).await);
    keep(404, api.call(Method::DELETE, "/v1/titles/heat", &[from]).await);
    // Nobody is there; asked often enough, its breaker says so.
    let dead = api.get("/media/film", &[from]).await;
    keep(if dead.status == 503 { 503 } else { 502 }, dead);
    let batch = json!({"requests": [{"path": "/v1/home"}]}).to_string();
    let got = send(ask(Method::POST, api.url("/v1/batch")).header("origin", origin).body(batch)).await;
    assert_eq!(got.json()["responses"][0]["status"], 200, "{got:?}");
    keep(200, got);
    let refused = e2e::eventually("a refusal", || async {
        let got = api.get("/v1/search?q=heat", &[from]).await;
        (got.status == 429).then_some(got)
    });
    keep(429, refused.await);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_of_the_setting_may_read_every_answer_and_what_services_say_of_it_is_replaced() {
    for (origins, origin, named) in [("*", FOREIGN, "*"), (APP, APP, APP)] {
        let api = with(origins).await;
        for got in answers(&api, origin, true).await {
            assert_eq!(
                told(&got),
                (
                    {
                        let mut fields = vec!["exposed", named];
                        fields.sort_unstable();
                        fields
                    },
                    false
                ),
                "{origins}: {got:?}"
            );
        }
        // To who asks from nowhere the same is said: nothing depends on it.
        assert_eq!(told(&api.get("/v1/home", &[]).await).0, told(&api.get("/v1/home", &[("origin", origin)]).await).0);
        assert_eq!(told(&api.get("/__edge/health", &[("origin", origin)]).await), (vec![], false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_list_each_origin_is_named_to_itself_alone_though_the_page_is_one() {
    let api = with(LIST).await;
    for origin in [APP, TV] {
        for got in answers(&api, origin, false).await {
            assert_eq!(told(&got), (vec!["exposed", origin], true), "{got:?}");
        }
    }
    for got in answers(&api, FOREIGN, false).await {
        assert_eq!(told(&got), (vec![], true), "{got:?}");
    }
    purged(&api).await;
    let asked = api.upstream.count("/v1/home");
    for _ in 0..4 {
        for (origin, named) in [(APP, vec!["exposed", APP]), (FOREIGN, vec![]), (TV, vec!["exposed", TV])] {
            assert_eq!(told(&api.get("/v1/home", &[("origin", origin)]).await), (named, true));
        }
        // The short way, in between.
        assert_eq!(told(&api.get("/v1/home", &[]).await), (vec![], true));
    }
    assert_eq!(api.upstream.count("/v1/home"), asked + 1, "one entry for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_of_an_app_that_may_asks_no_service_and_is_counted_as_a_read() {
    for origins in ["*", LIST] {
        let api = with(origins).await;
        let asked = api.upstream.asked().len();
        for path in ["/v1/me", "/v1/home?fields=a", "/v1/batch", "/auth/login", "/auth/login", "/auth/login"] {
            let got = preflight(&api, path, APP).await;
            assert_eq!((got.status, got.body.as_str()), (204, ""), "{path}: {got:?}");
            let named = if origins == "*" { "*" } else { APP };
            assert_eq!(got.header("access-control-allow-origin"), Some(named), "{got:?}");
            assert_eq!(got.header("access-control-allow-methods"), Some("GET, HEAD, POST, PUT, PATCH, DELETE"));
            assert_eq!(got.header("access-control-max-age"), Some("7200"));
            let fields: Vec<_> = got.header("access-control-allow-headers").unwrap().split(", ").collect();
            for field in ["authorization", "content-type", "if-match", "min-as-of", "idempotency-key", "traceparent"] {
                assert!(fields.contains(&field), "{field}: {got:?}");
            }
            assert_eq!(got.header("ratelimit-policy"), None, "{got:?}");
            assert!(got.cache().contains("bypass"), "{got:?}");
        }
        for (path, status) in [("/elsewhere", 404), ("/__edge/health", 405)] {
            assert_eq!(preflight(&api, path, APP).await.status, status, "{path}");
        }
        assert_eq!(api.upstream.asked().len(), asked, "{origins}");
        // No preflight: it is the service's.
        api.call(Method::OPTIONS, "/v1/genres", &[("origin", APP)]).await;
        assert_eq!(api.upstream.asked().len(), asked + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_or_for_another_origin_a_preflight_is_the_services() {
    for (origins, is_off) in [("", true), (LIST, false)] {
        let api = with(origins).await;
        let got = preflight(&api, "/auth/login", FOREIGN).await;
        let asked = api.upstream.last();
        assert_eq!((got.status, asked.method.as_str(), asked.target.as_str()), (401, "OPTIONS", "/auth/login"));
        let of_service = got.header("access-control-allow-origin");
        assert_eq!(of_service, is_off.then_some(OF_SERVICE[0].1), "{got:?}");
        if is_off {
            for path in ["/v1/genres", "/elsewhere", "/v1/me"] {
                assert_eq!(told(&api.get(path, &[("origin", APP)]).await), (vec![], false), "{path}");
            }
        }
    }
}
