//! Who sees what: the dimensions of shared documents, and who a token makes of its bearer.
use e2e::api::{Api, SHARED};
use e2e::eventually;
use e2e::http::{ask, send};
use e2e::stack::{LEASE_OVER, sign};
use kv_schemas::claims::{AUDIENCE_ADMIN, ViewerClaims};
use kv_schemas::viewer::{Maturity, Plan};
use reqwest::Method;

#[tokio::test(flavor = "multi_thread")]
async fn each_dimension_a_document_depends_on_has_entries_of_its_own_and_origin_is_told_it() {
    let api = Api::start().await;
    for path in ["/v1/home", "/v1/titles/heat", "/v1/genres"] {
        api.answer(path, &SHARED, "x", "{}");
    }
    let debug = api.debug_token();
    let german = sign(&api.key, ViewerClaims { locale: Some("de".parse().unwrap()), ..api.claims("ada") }, 600);
    let bearer = format!("Bearer {german}");
    let cases: [(&str, &[(&str, &str)], &str); 9] = [
        ("/v1/home", &[], "ZZ en 18 none"),
        ("/v1/home", &[("edge-debug", &debug), ("edge-region", "DE")], "DE en 18 none"),
        ("/v1/home", &[("accept-language", "it, fr;q=0.5")], "ZZ fr 18 none"),
        ("/v1/home?locale=de", &[("accept-language", "fr")], "ZZ de 18 none"),
        ("/v1/home", &[("authorization", &bearer), ("accept-language", "fr")], "ZZ de 13 basic"),
        ("/v1/titles/heat", &[("authorization", &bearer)], "ZZ de 13 -"),
        ("/v1/titles/heat", &[], "ZZ en 18 -"),
        ("/v1/genres", &[("authorization", &bearer)], "- de - -"),
        ("/v1/genres", &[("accept-language", "de-AT")], "- de - -"),
    ];
    for (path, fields, told) in cases {
        let asked = api.upstream.count(path.split('?').next().unwrap());
        let first = api.get(path, fields).await;
        let is_new = api.upstream.count(path.split('?').next().unwrap()) > asked;
        assert_eq!(first.status, 200, "{first:?}");
        // Genres in German are the same for whoever asks.
        assert_eq!(is_new, !(path == "/v1/genres" && fields[0].0 == "accept-language"), "{path} {told}");
        if is_new {
            assert_eq!(api.told(), told, "{path} {fields:?}");
        }
        assert!(api.get(path, fields).await.is_hit(), "{path} {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dimension_is_never_what_a_client_says_it_is() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "{}");
    api.get("/v1/home", &[]).await;
    for field in [
        ("viewer-region", "DE"),
        ("viewer-locale", "de"),
        ("viewer-maturity", "0"),
        ("viewer-plan", "premium"),
        ("Viewer-Plan", "premium"),
        ("viewer-seal", "t=1;mac=x"),
        ("edge-region", "DE"),
        ("cf-ipcountry", "DE"),
    ] {
        let got = api.get("/v1/home", &[field]).await;
        assert!(got.is_hit(), "{field:?}: {got:?}");
    }
    assert_eq!(api.upstream.count("/v1/home"), 1);
    // On a way that is not cached, too.
    api.upstream.script("/v1/home", 405, &[], "");
    api.call(
        Method::POST,
        "/v1/home",
        &[("viewer-plan", "premium"), ("viewer-seal", "t=1;mac=x"), ("edge-region", "DE")],
    )
    .await;
    let headers = api.upstream.last().headers;
    let forged = ["viewer-plan", "viewer-seal", "edge-region"].into_iter().find(|name| headers.contains_key(*name));
    assert_eq!(forged, None, "{headers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn regions_and_locales_beyond_the_settings_make_no_entries() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "{}");
    api.get("/v1/home", &[]).await;
    let debug = api.debug_token();
    for n in 0..30_u8 {
        let letter = char::from(b'A' + n % 26);
        let (region, language) = (format!("X{letter}"), format!("x{}", letter.to_ascii_lowercase()));
        let fields = [("edge-debug", debug.as_str()), ("edge-region", &region), ("accept-language", &language)];
        assert!(api.get(&format!("/v1/home?locale={language}"), &fields).await.is_hit());
    }
    assert_eq!(api.upstream.count("/v1/home"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_of_the_url_reaches_every_variant_of_it() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "old");
    let token = api.token("ada");
    api.get("/v1/home", &[]).await;
    api.get("/v1/home", &[("accept-language", "de")]).await;
    api.get_as(&token, "/v1/home").await;
    api.purge("hard", &["url:/v1/home"]).await;
    api.answer("/v1/home", &SHARED, "home", "new");
    assert_eq!(api.get("/v1/home", &[]).await.body, "new");
    assert_eq!(api.get("/v1/home", &[("accept-language", "de")]).await.body, "new");
    assert_eq!(api.get_as(&token, "/v1/home").await.body, "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_refreshed_ahead_is_asked_for_with_the_dimensions_it_is_stored_under() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "old");
    let token = api.token("ada");
    // What was asked for once is not refreshed ahead.
    for _ in 0..3 {
        api.get("/v1/home", &[("authorization", &format!("Bearer {token}")), ("accept-language", "fr")]).await;
    }
    assert_eq!(api.told(), "ZZ fr 13 basic");
    api.get("/v1/genres", &[]).await;
    api.answer("/v1/home", &SHARED, "home", "new");
    let asked = api.upstream.count("/v1/home");
    api.purge("soft", &["home"]).await;
    // Nobody asks for it: whatever asks keeps the isolate awake.
    eventually("the refresh", || async {
        api.get("/__edge/health", &[]).await;
        api.get("/v1/genres", &[]).await;
        (api.upstream.count("/v1/home") > asked).then_some(())
    })
    .await;
    let refreshed = api.upstream.asked().into_iter().rev().find(|asked| asked.target == "/v1/home").unwrap();
    let of = |name: &str| refreshed.headers.get(name).map(String::as_str);
    assert_eq!(
        [of("viewer-region"), of("viewer-locale"), of("viewer-maturity"), of("viewer-plan"), of("authorization")],
        [Some("ZZ"), Some("fr"), Some("13"), Some("basic"), None]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_good_is_refused_and_never_taken_for_none() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "{}");
    api.get("/v1/home", &[]).await;
    let good = api.token("ada");
    let (rest, _) = good.rsplit_once('.').unwrap();
    let stranger = xtask::proxy::new_key(api.key.kid()).unwrap();
    let staff = ViewerClaims { aud: AUDIENCE_ADMIN.into(), ..api.claims("ada") };
    let elsewhere = ViewerClaims { iss: "somebody".into(), ..api.claims("ada") };
    let early = api.key.sign(api.claims("ada"), e2e::stack::now_s() + 60, 600).unwrap();
    for (what, value, slug) in [
        ("nonsense", "Bearer nonsense".to_string(), "token-refused"),
        ("no token", "Bearer ".into(), "token-refused"),
        ("another scheme", "Basic YTpi".into(), "token-refused"),
        ("a bad signature", format!("Bearer {rest}.{}", "A".repeat(86)), "token-refused"),
        ("another's key of that name", format!("Bearer {}", sign(&stranger, api.claims("ada"), 600)), "token-refused"),
        ("another audience", format!("Bearer {}", sign(&api.key, staff, 600)), "token-refused"),
        ("another issuer", format!("Bearer {}", sign(&api.key, elsewhere, 600)), "token-refused"),
        ("a life too long", format!("Bearer {}", sign(&api.key, api.claims("ada"), 3600)), "token-refused"),
        ("not valid yet", format!("Bearer {early}"), "token-refused"),
        ("expired", format!("Bearer {}", api.expired_token("ada")), "token-expired"),
    ] {
        for path in ["/v1/home", "/v1/me"] {
            let got = api.get(path, &[("authorization", &value)]).await;
            assert_eq!((got.status, got.problem().as_str()), (401, slug), "{what} at {path}: {got:?}");
            assert_eq!(got.header("cache-control"), Some("no-store"));
        }
    }
    assert_eq!(api.get_as(&good, "/v1/home").await.status, 200);
    let twice = [("authorization", format!("Bearer {good}")), ("authorization", "Bearer x".into())];
    let twice: Vec<_> = twice.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(api.get("/v1/home", &twice).await.status, 401, "two tokens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_refused_within_the_bound_even_if_it_was_remembered() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "{}");
    let (ada, bob) = (api.token("ada"), api.token("bob"));
    for token in [&ada, &bob] {
        assert_eq!(api.get_as(token, "/v1/home").await.status, 200);
    }
    api.purge("soft", &["user:ada", "session:ada-phone"]).await;
    assert_eq!(api.get_as(&ada, "/v1/home").await.status, 200, "a soft purge revokes nothing");
    for (key, path) in [("session:ada-phone", "/v1/home"), ("user:bob", "/v1/me")] {
        api.purge("hard", &[key]).await;
        let token = if key.contains("ada") { &ada } else { &bob };
        let got = api.get_as(token, path).await;
        assert_eq!((got.status, got.problem().as_str()), (401, "token-revoked"), "{got:?}");
    }
    // A new session of the same viewer is another matter.
    assert_eq!(api.get_as(&api.token("ada"), "/v1/home").await.status, 200);
    assert_eq!(api.get("/v1/home", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_what_origin_publishes_and_change_with_a_purge_without_logging_anybody_out() {
    let api = Api::start().await;
    let [old, new] = ["old", "new"].map(|name| xtask::proxy::new_key(name).unwrap());
    api.answer("/v1/home", &SHARED, "home", "{}");
    api.publish(&[&old]);
    let with_old = sign(&old, api.claims("ada"), 600);
    assert_eq!(api.get_as(&with_old, "/v1/home").await.status, 200);
    assert!(api.get_as(&with_old, "/v1/home").await.is_hit());
    assert_eq!(api.get_as(&api.token("ada"), "/v1/home").await.status, 401, "the settings are for the beginning");
    api.publish(&[&old, &new]);
    api.purge("soft", &["jwks"]).await;
    api.answer("/v1/home", &SHARED, "home", "{}");
    eventually("the new key", || async {
        (api.get_as(&sign(&new, api.claims("ada"), 600), "/v1/home").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(api.get_as(&with_old, "/v1/home").await.status, 200, "logged in before, logged in now");
    // A key that leaked: whoever bears a token of it is out, remembered or not.
    api.publish(&[&new]);
    api.purge("hard", &["jwks"]).await;
    api.publish(&[&new]);
    assert_eq!(api.get_as(&with_old, "/v1/home").await.status, 401);
    assert_eq!(api.get_as(&sign(&new, api.claims("ada"), 600), "/v1/home").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_token_outlives_a_change_of_keys_takes_the_short_way_again() {
    let api = Api::start().await;
    let [old, new] = ["old", "new"].map(|name| xtask::proxy::new_key(name).unwrap());
    api.answer("/v1/home", &SHARED, "home", "{}");
    api.publish(&[&old]);
    let token = sign(&old, api.claims("ada"), 600);
    let takes_the_short_way = async |when: &str| {
        eventually(when, || async {
            let before = api.metric("edge_ready_hits_total").await;
            assert_eq!(api.get_as(&token, "/v1/home").await.status, 200);
            (api.metric("edge_ready_hits_total").await > before).then_some(())
        })
        .await;
    };
    takes_the_short_way("before").await;
    api.publish(&[&old, &new]);
    api.purge("soft", &["jwks"]).await;
    api.publish(&[&old, &new]);
    eventually("the new key", || async {
        (api.get_as(&sign(&new, api.claims("bob"), 600), "/v1/home").await.status == 200).then_some(())
    })
    .await;
    takes_the_short_way("after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_keys_nobody_knows_do_not_hammer_origin() {
    let api = Api::start().await;
    let known = xtask::proxy::new_key("known").unwrap();
    api.answer("/v1/home", &SHARED, "home", "{}");
    api.publish(&[&known]);
    api.get_as(&sign(&known, api.claims("ada"), 600), "/v1/home").await;
    let before = api.upstream.count("/.well-known/jwks.json");
    for n in 0..40 {
        let stranger = xtask::proxy::new_key(&format!("kid-{n}")).unwrap();
        let got = api.get_as(&sign(&stranger, api.claims("ada"), 600), "/v1/home").await;
        assert_eq!(got.status, 401, "{got:?}");
    }
    let asked = api.upstream.count("/.well-known/jwks.json") - before;
    assert!(asked <= 2, "{asked} questions for 40 strange keys");
    assert_eq!(api.get_as(&sign(&known, api.claims("bob"), 600), "/v1/home").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_published_a_moment_ago_is_fetched_for_the_first_token_that_names_it() {
    let api = Api::start().await;
    let [old, new] = ["old", "new"].map(|name| xtask::proxy::new_key(name).unwrap());
    api.answer("/v1/home", &SHARED, "home", "{}");
    api.publish(&[&old]);
    assert_eq!(api.get_as(&sign(&old, api.claims("ada"), 600), "/v1/home").await.status, 200);
    // Without a purge.
    api.publish(&[&old, &new]);
    assert_eq!(api.get_as(&sign(&new, api.claims("ada"), 600), "/v1/home").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_auth_service_down_viewers_whose_keys_are_known_go_on_being_served() {
    let api = Api::start().await;
    let key = xtask::proxy::new_key("key").unwrap();
    api.answer("/v1/home", &SHARED, "home", "{}");
    api.publish(&[&key]);
    assert_eq!(api.get_as(&sign(&key, api.claims("ada"), 600), "/v1/home").await.status, 200);
    api.upstream.script("/.well-known/jwks.json", 503, &[], "");
    api.purge("soft", &["jwks"]).await;
    assert_eq!(api.get_as(&sign(&key, api.claims("bob"), 600), "/v1/home").await.status, 200);
    api.purge("hard", &["jwks"]).await;
    let got = api.get_as(&sign(&key, api.claims("eve"), 600), "/v1/home").await;
    assert_eq!((got.status, got.problem().as_str()), (503, "keys-unavailable"), "withdrawn keys verify nobody");
    assert_eq!(api.get("/v1/home", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_on_the_way_are_told_what_an_answer_depends_on() {
    let api = Api::start().await;
    for path in ["/v1/home", "/v1/genres", "/.well-known/jwks.json"] {
        api.answer(path, &SHARED, "x", "{}");
    }
    let vary = |got: &e2e::http::Got| {
        let all: Vec<_> = got.headers.iter().filter(|(name, _)| name == "vary").map(|(_, v)| v.clone()).collect();
        all.join(", ").to_ascii_lowercase()
    };
    for round in ["miss", "hit"] {
        let stranger = api.get("/v1/home", &[]).await;
        assert_eq!(stranger.header("cache-control"), Some("public, max-age=0, must-revalidate"), "{round}");
        assert_eq!(vary(&stranger), "authorization, accept-language", "{round}");
        let viewer = api.get_as(&api.token("ada"), "/v1/home").await;
        assert_eq!(viewer.header("cache-control"), Some("private, no-cache"), "{round}");
        assert_eq!(vary(&viewer), "authorization, accept-language", "{round}");
        assert_eq!(vary(&api.get("/.well-known/jwks.json", &[]).await), "", "{round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_child_is_answered_is_never_what_others_are() {
    let api = Api::start().await;
    api.answer("/v1/home", &SHARED, "home", "for adults");
    api.get("/v1/home", &[]).await;
    let claims = ViewerClaims { maturity: Maturity::All, plan: Plan::Premium, ..api.claims("kid") };
    let child = sign(&api.key, claims, 600);
    api.answer("/v1/home", &SHARED, "home", "for children");
    assert_eq!(api.get_as(&child, "/v1/home").await.body, "for children");
    assert_eq!(api.told(), "ZZ en 0 premium");
    assert_eq!(api.get("/v1/home", &[]).await.body, "for adults");
    assert_eq!(api.get_as(&child, "/v1/home").await.body, "for children");
}

/// Says nothing, as it is no date, and sends the request the long way.
const LONG_WAY: (&str, &str) = ("if-modified-since", "never");

#[tokio::test(flavor = "multi_thread")]
async fn viewers_take_the_short_way_and_are_answered_there_as_on_the_long_one() {
    let api = Api::start().await;
    let policy: Vec<_> = SHARED.into_iter().chain([("etag", "\"a\"")]).collect();
    for path in ["/v1/home", "/v1/titles/heat", "/v1/genres"] {
        api.answer(path, &policy, "x", "page");
    }
    // Of an adult with a plan, whose titles are a stranger's too.
    let adult = ViewerClaims { maturity: Maturity::From18, ..api.claims("ada") };
    let adult = format!("Bearer {}", sign(&api.key, adult, 600));
    let child = ViewerClaims { maturity: Maturity::All, ..api.claims("kid") };
    let child = format!("Bearer {}", sign(&api.key, child, 600));
    let who: [Vec<(&str, &str)>; 4] = [
        vec![],
        vec![("authorization", &adult)],
        vec![("authorization", &child), ("accept-language", "de")],
        vec![("authorization", &adult), ("if-none-match", "\"a\"")],
    ];
    for path in ["/v1/home", "/v1/titles/heat", "/v1/genres"] {
        for fields in &who {
            let long: Vec<_> = fields.iter().copied().chain([LONG_WAY]).collect();
            let get = async |fields: &[(&str, &str)]| {
                let mut got = api.get(path, fields).await;
                // Another each time.
                got.headers.retain(|(name, _)| !matches!(name.as_str(), "server-timing" | "x-request-id"));
                got
            };
            eventually("both ways within one second", || async {
                get(fields).await;
                let before = api.metric("edge_ready_hits_total").await;
                let short = get(fields).await;
                let is_short = api.metric("edge_ready_hits_total").await > before;
                let (long, again) = (get(&long).await, get(fields).await);
                if !is_short || short.headers != again.headers {
                    return None;
                }
                let sorted = |got: &e2e::http::Got| {
                    let mut all = got.headers.clone();
                    all.sort();
                    (got.status, got.body.clone(), all)
                };
                assert_eq!(sorted(&short), sorted(&long), "{path} {fields:?}");
                Some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_services_go_on_being_taken_when_origins_key_has_changed() {
    let api = Api::start().await;
    let new = xtask::proxy::new_key("new").unwrap();
    let edge = api.fleet.url(0);
    let metrics = async |key: &tokens::SigningKey| e2e::stack::metrics(&edge, key).await.status;
    api.publish(&[&new]);
    assert_eq!(metrics(&new).await, 200);
    assert_eq!(metrics(&api.key).await, 200, "that of the settings is good for services all the while");
    assert_eq!(metrics(&xtask::proxy::new_key("strange").unwrap()).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_location_that_was_idle_hears_of_a_revocation_before_it_looks_at_a_token() {
    let api = Api::of(2, &[]).await;
    api.answer("/v1/home", &SHARED, "home", "page");
    let token = api.token("ada");
    let there = format!("{}/v1/home", api.fleet.url(1));
    let ask_there = || send(ask(Method::GET, &there).bearer_auth(&token));
    assert_eq!(ask_there().await.status, 200);
    // It has said what it knows and asks no more.
    tokio::time::sleep(3 * LEASE_OVER).await;
    api.purge("hard", &["session:ada-phone"]).await;
    let got = ask_there().await;
    assert_eq!((got.status, got.problem().as_str()), (401, "token-revoked"), "{got:?}");
}
