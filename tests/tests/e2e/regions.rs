//! Where a request comes from is the platform's word, and one country's page is never another's, whichever way it is given.
use e2e::api::{Api, SHARED};
use e2e::http::{Got, ask, send};
use e2e::stack::{Shape, Stack, metrics};
use reqwest::Method;
use serde_json::json;
use tokens::SigningKey;
use xtask::fleet::PLATFORM_FIELD;

/// Asks from a country, or from one that the platform does not know.
async fn get_from(url: &str, country: Option<&str>) -> Got {
    let request = ask(Method::GET, url);
    send(match country {
        Some(country) => request.header(PLATFORM_FIELD, json!({"country": country}).to_string()),
        None => request,
    })
    .await
}

/// Asks from each country in turn, until each was answered so often without the gateway; every answer is looked at.
async fn the_short_way_is_taken_from_each(
    (edge, key): (&str, &SigningKey),
    path: &str,
    countries: &[Option<&str>],
    is_right: impl Fn(usize, &Got),
) {
    const TIMES: u64 = 3;
    const ROUNDS: usize = 400;
    let ready = async || metrics(edge, key).await.figure("edge_ready_hits_total").expect("no count");
    let mut short = vec![0; countries.len()];
    for _ in 0..ROUNDS {
        for (n, country) in countries.iter().enumerate() {
            let before = ready().await;
            is_right(n, &get_from(&format!("{edge}{path}"), *country).await);
            short[n] += ready().await - before;
        }
        if short.iter().all(|times| *times >= TIMES) {
            return;
        }
    }
    panic!("{path}: the short way was taken {short:?} times from {countries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_country_of_the_settings_has_pages_of_its_own_and_origin_is_told_which() {
    let api = Api::of(1, &[("LEASE_MS", "1000")]).await;
    let long = "DE".repeat(200);
    // The platform may know nothing, and what it says may be none of ours.
    let countries = [Some("DE"), Some("FR"), Some("US"), None, Some("de"), Some(long.as_str())];
    let regions = ["DE", "FR", "ZZ", "ZZ", "ZZ", "ZZ"];
    for path in ["/v1/home", "/v1/titles/heat", "/v1/catalog"] {
        for (n, (country, region)) in countries.into_iter().zip(regions).enumerate() {
            api.answer(path, &SHARED, "x", &format!("page of {region}"));
            let asked = api.upstream.count(path);
            let first = get_from(&api.url(path), country).await;
            assert_eq!(first.body, format!("page of {region}"), "{country:?}: {first:?}");
            let is_new = api.upstream.count(path) > asked;
            assert_eq!(is_new, n < 3, "{country:?}: others are one");
            if is_new {
                assert_eq!(api.told().split(' ').next(), Some(region), "{country:?}");
            }
        }
        // A country that is too long to be remembered has no short way.
        let with_a_slot = &countries[..5];
        the_short_way_is_taken_from_each((&api.url(""), &api.key), path, with_a_slot, |n, got| {
            assert_eq!(got.body, format!("page of {}", regions[n]), "{path} from {:?}: {got:?}", countries[n]);
        })
        .await;
        assert_eq!(get_from(&api.url(path), countries[5]).await.body, "page of ZZ");
    }
    // Genres are the same everywhere.
    api.answer("/v1/genres", &SHARED, "x", "genres");
    for country in countries {
        assert_eq!(get_from(&api.url("/v1/genres"), country).await.body, "genres");
    }
    assert_eq!(api.upstream.count("/v1/genres"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_title_that_a_country_may_not_see_is_on_none_of_its_pages_however_they_are_given() {
    let stack = Stack::of(Shape {
        lease_ms: 1_000,
        vars: vec![("REGIONS".into(), "DE,US".into())],
        platform_field: Some(PLATFORM_FIELD.into()),
        ..Shape::default()
    })
    .await;
    let body = json!({"regions": {"US": {"blocked": true}}});
    let blocked = stack.admin(Method::PATCH, "/admin/v1/titles/heat", Some(body)).await;
    assert_eq!(blocked.status, 200, "{blocked:?}");
    stack.applied(&blocked).await;
    let countries = [Some("DE"), Some("US"), Some("FR")];
    for path in ["/v1/titles/heat", "/v1/home", "/v1/catalog?genre=crime"] {
        the_short_way_is_taken_from_each((&stack.url(""), &stack.key), path, &countries, |n, got| {
            let is_shown = got.status == 200 && got.body.contains("\"Heat\"");
            assert_eq!(is_shown, countries[n] != Some("US"), "{path} from {:?}: {got:?}", countries[n]);
            assert_eq!(got.status == 404, !is_shown && path == "/v1/titles/heat", "{got:?}");
        })
        .await;
    }
}
