//! Who guesses at passwords is known by the address the platform says, through the edge and up to the accounts.
use e2e::api::Api;
use e2e::http::{Got, ask, send};
use e2e::stack::{Stack, now_s};
use kv_schemas::edge_secret::{EDGE_CLIENT, EdgeSecret};
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
    let stack = Stack::start().await;
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
    let secret = &stack.edge_secret;
    let [of_guesser, of_other] =
        ["192.0.2.1", "192.0.2.2"].map(|address| secret.seal_client(address, now_s()).unwrap());
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
async fn origin_believes_an_edge_what_it_says_of_a_viewer_and_nobody_else() {
    const PREMIUM: [&str; 4] = ["ZZ", "en", "18", "premium"];
    let mut stack = Stack::start().await;
    // Looked up, passed as a write, in a batch.
    for path in ["/v1/home", "/v1/titles/heat", "/v1/search?q=heat"] {
        let got = stack.get(path).await;
        assert_eq!(got.status, 200, "{path}: {got:?}");
        assert_eq!(stack.ask_as_edge(stack.origin_port, path, PREMIUM).await.status, 200, "{path}");
        let forged = ask(Method::GET, stack.origin_url(path)).header("viewer-plan", "premium");
        let forged = send(forged.header("viewer-maturity", "18")).await;
        assert_eq!((forged.status, forged.problem().as_str()), (503, "viewer-unproven"), "{path}: {forged:?}");
    }
    let batch = json!({"requests": [{"path": "/v1/catalog"}, {"path": "/v1/genres"}]});
    let batch =
        ask(Method::POST, stack.url("/v1/batch")).header("content-type", "application/json").body(batch.to_string());
    let batch = send(batch).await.json();
    assert!(batch["responses"].as_array().unwrap().iter().all(|one| one["status"] == 200), "{batch}");
    // Where the two do not agree, what is held is answered, and the rest says what is wrong.
    stack.kill_origin();
    std::fs::write(stack.state().join("edge-secret"), "a secret this edge has never been told").unwrap();
    stack.start_origin();
    let purge = json!({"keys": ["home"], "mode": "soft", "reason": "a test"});
    let purged = stack.admin(Method::POST, "/admin/v1/purges", Some(purge)).await;
    stack.applied(&purged).await;
    let new = stack.get("/v1/titles/up").await;
    assert_eq!((new.status, new.problem().as_str()), (503, "viewer-unproven"), "{new:?}");
    let held = stack.get("/v1/home").await;
    assert_eq!(held.status, 200, "{held:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_in_the_edges_field_reaches_no_service() {
    let secret = EdgeSecret::new(SECRET).unwrap();
    let said = secret.seal_client("192.0.2.9", now_s()).unwrap();
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
            let address = told.as_ref().and_then(|told| secret.open_client(told, now_s()));
            // A read that is looked up is not about where its client is.
            let is_said = has_secret && is_passed;
            let expected = is_said.then(|| "192.0.2.1".parse().unwrap());
            assert_eq!((address, told.is_some()), (expected, is_said), "{path}: {told:?}");
        }
    }
}
