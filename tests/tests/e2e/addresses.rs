//! Who guesses at passwords is known by the address the platform says, through the edge and up to the accounts.
use e2e::api::Api;
use e2e::http::{Got, ask, send};
use e2e::stack::{Shape, Stack, now_s};
use kv_schemas::edge_client::{EDGE_CLIENT, EdgeSecret};
use reqwest::Method;
use serde_json::json;

const SECRET: &str = "a secret that edge and origin share";
/// Guesses from one address that are free.
const FREE: usize = 30;

/// A guess at an account of its own, so that no account's count is in the way.
async fn guess(stack: &Stack, account: usize, fields: &[(&str, &str)]) -> Got {
    let body = json!({"email": format!("user{account}@example.org"), "password": "not the password"});
    let request = ask(Method::POST, stack.url("/auth/login")).header("content-type", "application/json");
    let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    send(request.body(body.to_string())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_that_guesses_is_slowed_down_through_the_edge_and_can_name_no_other() {
    let stack = Stack::of(Shape {
        vars: vec![("EDGE_SECRET".into(), SECRET.into())],
        origin_settings: vec![("--edge-secret", SECRET.into())],
        ..Shape::default()
    })
    .await;
    const GUESSER: (&str, &str) = ("cf-connecting-ip", "192.0.2.1");
    const OTHER: (&str, &str) = ("cf-connecting-ip", "192.0.2.2");
    for n in 0..FREE {
        let got = guess(&stack, n, &[GUESSER]).await;
        assert_eq!((got.status, got.problem().as_str()), (401, "credentials"), "guess {n}: {got:?}");
    }
    let refused = guess(&stack, FREE, &[GUESSER]).await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "too-many-attempts"), "{refused:?}");
    let limit = refused.header("ratelimit").unwrap_or_default();
    assert!(limit.starts_with("\"login-address\";r=0;t="), "{refused:?}");
    assert_eq!(guess(&stack, 100, &[OTHER]).await.problem(), "credentials", "others go on");
    // Even words that this edge has said of somebody else are not heard from a client.
    let secret = EdgeSecret::new(SECRET).unwrap();
    let [of_guesser, of_other] = ["192.0.2.1", "192.0.2.2"].map(|address| secret.seal(address, now_s()).unwrap());
    for (n, fields) in [
        vec![(EDGE_CLIENT, "192.0.2.3")],
        vec![(EDGE_CLIENT, of_other.as_str())],
        vec![(EDGE_CLIENT, of_other.as_str()), (EDGE_CLIENT, of_other.as_str())],
        vec![("x-forwarded-for", "192.0.2.3"), ("forwarded", "for=192.0.2.3")],
    ]
    .into_iter()
    .enumerate()
    {
        let all: Vec<_> = [GUESSER].into_iter().chain(fields).collect();
        assert_eq!(guess(&stack, 200 + n, &all).await.problem(), "too-many-attempts", "{all:?}");
    }
    let framed = guess(&stack, 300, &[OTHER, (EDGE_CLIENT, &of_guesser)]).await;
    assert_eq!(framed.problem(), "credentials", "nor can anybody be taken for the guesser: {framed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_in_the_edges_field_reaches_no_service() {
    let secret = EdgeSecret::new(SECRET).unwrap();
    let said = secret.seal("192.0.2.9", now_s()).unwrap();
    for (vars, has_secret) in [(vec![], false), (vec![("EDGE_SECRET", SECRET)], true)] {
        let api = Api::of(1, &vars).await;
        let paths = [
            (Method::POST, "/auth/login"),
            (Method::GET, "/admin/v1/titles"),
            (Method::GET, "/v1/me"),
            (Method::PUT, "/v1/me/watch-list/heat"),
        ];
        for (method, path) in paths {
            let is_passed = method != Method::GET || path != "/v1/me";
            let token = format!("Bearer {}", api.token("ada"));
            let fields = [
                (EDGE_CLIENT, said.as_str()),
                ("Edge-Client", said.as_str()),
                ("cf-connecting-ip", "192.0.2.1"),
                ("authorization", &token),
            ];
            api.call(method, path, &fields).await;
            let asked = api.upstream.asked().into_iter().find(|asked| asked.target == path).expect("not asked");
            let told = asked.headers.get(EDGE_CLIENT).cloned();
            let address = told.as_ref().and_then(|told| secret.open(told, now_s()));
            // A read that is looked up is not about where its client is.
            let is_said = has_secret && is_passed;
            let expected = is_said.then(|| "192.0.2.1".parse().unwrap());
            assert_eq!((address, told.is_some()), (expected, is_said), "{path}: {told:?}");
        }
    }
}
