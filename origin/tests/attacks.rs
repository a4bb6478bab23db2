//! What an attacker tries at the auth service and the private routes, and what happens. Each test is a row of the security
//! table.
mod common;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use base64ct::{Base64UrlUnpadded, Encoding};
use common::EDGE_SECRET;
use common::people::{PASSWORD, People};
use futures_util::{FutureExt, StreamExt};
use kv_schemas::claims::{AUDIENCE_ADMIN, AUDIENCE_EDGE, AdminClaims, ISSUER, Scope, StaffRole, ViewerClaims};
use kv_schemas::edge_secret::{EDGE_CLIENT, EdgeSecret, VIEWER_SEAL};
use origin::auth::password::{Cost, Hasher};
use origin::auth::throttle::Throttle;
use origin::auth::{self, Auth, Unproven};
use origin::http::{App, Role, router};
use origin::keys::EXPECT_VIEWER;
use origin::store::accounts::Kind;
use serde_json::{Value, json};
use std::sync::Arc;
use tower::ServiceExt;

fn claims(service: &People, access: &str) -> ViewerClaims {
    service.app.keys.verify(access, EXPECT_VIEWER).unwrap()
}

const PRIVATE: [(&str, &str); 11] = [
    ("GET", "/v1/me"),
    ("PATCH", "/v1/me"),
    ("DELETE", "/v1/me"),
    ("GET", "/v1/me/watch-list"),
    ("PUT", "/v1/me/watch-list/heat"),
    ("DELETE", "/v1/me/watch-list/heat"),
    ("GET", "/v1/me/continue-watching"),
    ("PUT", "/v1/me/progress/heat"),
    ("GET", "/v1/me/progress/heat"),
    ("DELETE", "/v1/me/progress/heat"),
    ("GET", "/auth/sessions"),
];

#[tokio::test]
async fn a_token_for_one_audience_is_nothing_to_another() {
    let service = People::start().await;
    let ada = service.viewer("ada@example.org").await;
    let admin = service.admin_token();
    let edge = service.app.keys.edge_token(Scope::Debug, None, 60).unwrap();
    for (method, path) in PRIVATE {
        for token in [&admin, &edge] {
            let body = (method == "PATCH" || (method == "PUT" && path.contains("progress"))).then(|| json!({}));
            assert_eq!(service.call(method, path, token, body).await.problem(), "token-refused", "{method} {path}");
        }
    }
    for path in ["/admin/v1/titles", "/admin/v1/users", "/admin/v1/staff", "/admin/v1/purges"] {
        for token in [&ada.access, &edge] {
            assert_eq!(service.get(path, token).await.problem(), "token-refused", "{path}");
        }
    }
    // A viewer's claims under the admin audience, and the other way round: forms differ, so neither is read as the other.
    let crossed = ViewerClaims { aud: AUDIENCE_ADMIN.into(), ..claims(&service, &ada.access) };
    let crossed = service.app.keys.sign(crossed, 60).unwrap();
    assert_eq!(service.get("/admin/v1/titles", &crossed).await.problem(), "token-refused");
    for aud in [AUDIENCE_EDGE, "", "nextream-viewer "] {
        let other = ViewerClaims { aud: aud.into(), ..claims(&service, &ada.access) };
        let other = service.app.keys.sign(other, 60).unwrap();
        assert_eq!(service.get("/v1/me", &other).await.problem(), "token-refused", "{aud}");
    }
}

#[tokio::test]
async fn a_token_with_another_algorithm_key_or_signature_is_refused() {
    let service = People::start().await;
    let ada = service.viewer("ada@example.org").await;
    let parts: Vec<&str> = ada.access.split('.').collect();
    let header: Value = serde_json::from_slice(&Base64UrlUnpadded::decode_vec(parts[0]).unwrap()).unwrap();
    let kid = header["kid"].as_str().unwrap();
    let with_header = |header: Value| {
        format!("{}.{}.{}", Base64UrlUnpadded::encode_string(header.to_string().as_bytes()), parts[1], parts[2])
    };
    let stranger = {
        let mut bytes = [7; 32];
        bytes[0] = 1;
        tokens::SigningKey::from_random(kid, &bytes).unwrap()
    };
    let now_s = origin::now_ms() / 1000;
    let jwk_of_her_own: Value = serde_json::from_str(&stranger.public_jwks().unwrap()).unwrap();
    let mut payload = Base64UrlUnpadded::decode_vec(parts[1]).unwrap();
    let at = payload.len() / 2;
    payload[at] ^= 1;
    for (what, token) in [
        ("no algorithm", with_header(json!({"alg": "none", "kid": kid}))),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("the public key as an HMAC secret", with_header(json!({"alg": "HS256", "kid": kid}))),
        ("another curve", with_header(json!({"alg": "ES384", "kid": kid}))),
        ("no kid", with_header(json!({"alg": "ES256"}))),
        ("a path as kid", with_header(json!({"alg": "ES256", "kid": "../../etc/passwd"}))),
        ("SQL as kid", with_header(json!({"alg": "ES256", "kid": "' OR 1=1 --"}))),
        (
            "a key in the header",
            with_header(
                json!({"alg": "ES256", "kid": kid, "jwk": jwk_of_her_own["keys"][0], "jku": "https://evil.example"}),
            ),
        ),
        ("another key of that name", stranger.sign(claims(&service, &ada.access), now_s, 60).unwrap()),
        ("changed claims", format!("{}.{}.{}", parts[0], Base64UrlUnpadded::encode_string(&payload), parts[2])),
    ] {
        let got = service.get("/v1/me", &token).await;
        assert_eq!((got.status, got.problem().as_str()), (StatusCode::UNAUTHORIZED, "token-refused"), "{what}");
        assert_eq!(got.header("www-authenticate"), "Bearer");
    }
}

#[tokio::test]
async fn an_expired_or_too_long_lived_token_is_refused() {
    let service = People::start().await;
    let ada = service.viewer("ada@example.org").await;
    let dir = service.database.dir.path().join("keys/signing-key.jwk");
    let key = tokens::SigningKey::from_jwk(&std::fs::read_to_string(dir).unwrap()).unwrap();
    let (claims, now_s) = (claims(&service, &ada.access), origin::now_ms() / 1000);
    for (issued_s, lifetime_s) in [(now_s - 700, 600), (now_s + 60, 600), (now_s, 3600)] {
        let token = key.sign(claims.clone(), issued_s, lifetime_s).unwrap();
        assert_eq!(service.get("/v1/me", &token).await.problem(), "token-refused", "{issued_s} {lifetime_s}");
    }
}

#[tokio::test]
async fn a_session_id_made_up_or_of_somebody_else_opens_nothing() {
    let service = People::start().await;
    let ada = service.viewer("ada@example.org").await;
    let eve = service.viewer("eve@example.org").await;
    let (of_ada, of_eve) = (claims(&service, &ada.access), claims(&service, &eve.access));
    for (sub, sid) in [(&of_ada.sub, &of_eve.sid), (&of_ada.sub, &"0".repeat(32)), (&of_ada.sub, &String::new())] {
        let mixed = ViewerClaims { sub: sub.clone(), sid: sid.clone(), ..of_eve.clone() };
        let token = service.app.keys.sign(mixed, 60).unwrap();
        assert_eq!(service.get("/v1/me", &token).await.problem(), "token-revoked");
    }
    // Fixation: a client cannot name the session it gets.
    let body = json!({"email": "ada@example.org", "password": PASSWORD, "session": of_eve.sid, "sid": of_eve.sid});
    assert_eq!(service.post("/auth/login", body).await.problem(), "json-invalid");
    let again = service.log_in("ada@example.org").await;
    assert!(again.session != ada.session && again.session != eve.session);
    // Eve cannot end Ada's session by its id.
    let gone = service.call("DELETE", &format!("/auth/sessions/{}", ada.session), &eve.access, None).await;
    assert_eq!(gone.problem(), "not-found");
    assert_eq!(service.get("/v1/me", &ada.access).await.status, StatusCode::OK);
}

#[tokio::test]
async fn refresh_tokens_of_one_kind_are_nothing_to_the_other_and_guesses_never_reach_the_writer() {
    let service = People::start().await;
    service.staff("grace@example.org", StaffRole::Admin).await;
    let ada = service.viewer("ada@example.org").await;
    let grace = service.log_in_as("/auth/staff", "grace@example.org").await;
    let as_staff = service.post("/auth/staff/refresh", json!({"refresh_token": ada.refresh})).await;
    assert_eq!(as_staff.problem(), "refresh-refused");
    assert_eq!(service.refresh(&grace.refresh).await.unwrap_err(), "refresh-refused");
    let out = service.post("/auth/logout", json!({"refresh_token": grace.refresh})).await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert_eq!(
        service.get("/admin/v1/users", &grace.access).await.status,
        StatusCode::OK,
        "staff log out below /auth/staff"
    );
    // The writer is taken: whoever needs it would wait.
    let taken = service.app.store.write().await.unwrap();
    for guess in ["", "x", &"A".repeat(43), &"A".repeat(5000), "' OR 1=1 --"] {
        assert_eq!(service.refresh(guess).await.unwrap_err(), "refresh-refused", "{guess}");
    }
    drop(taken);
    // A viewer with the address of an admin is no admin.
    let namesake = service.viewer("grace@example.org").await;
    assert_eq!(service.get("/admin/v1/users", &namesake.access).await.problem(), "token-refused");
    let body = json!({"email": "ada@example.org", "password": PASSWORD});
    assert_eq!(service.post("/auth/staff/login", body).await.problem(), "credentials");
}

#[tokio::test]
async fn sessions_that_are_over_and_titles_nobody_sees_never_reach_the_writer() {
    let service = People::start().await;
    service.titles(&["heat"]).await;
    let (ada, eve) = (service.viewer("ada@example.org").await, service.viewer("eve@example.org").await);
    service.post("/auth/logout", json!({"refresh_token": ada.refresh})).await;
    let progress = json!({"position_s": 60, "duration_s": 600});
    let password = json!({"current_password": PASSWORD, "new_password": "another password"});
    let device = format!("/auth/sessions/{}", ada.session);
    // The writer is taken: whoever needs it would wait.
    let taken = service.app.store.write().await.unwrap();
    for (method, path, body) in [
        ("PATCH", "/v1/me", Some(json!({"name": "Ada"}))),
        ("DELETE", "/v1/me", None),
        ("PUT", "/v1/me/watch-list/heat", None),
        ("DELETE", "/v1/me/watch-list/heat", None),
        ("PUT", "/v1/me/progress/heat", Some(progress.clone())),
        ("DELETE", "/v1/me/progress/heat", None),
        ("POST", "/auth/password", Some(password)),
        ("POST", "/auth/logout-everywhere", None),
        ("DELETE", device.as_str(), None),
    ] {
        let got = service.call(method, path, &ada.access, body).await;
        assert_eq!(got.problem(), "token-revoked", "{method} {path}");
    }
    for (path, body) in [("/v1/me/watch-list/nothing", None), ("/v1/me/progress/nothing", Some(progress))] {
        assert_eq!(service.call("PUT", path, &eve.access, body).await.problem(), "not-found", "{path}");
    }
    drop(taken);
}

#[tokio::test]
async fn unknown_accounts_are_answered_like_wrong_passwords() {
    let service = People::start().await;
    service.viewer("ada@example.org").await;
    let wrong = |email: &str| json!({"email": email, "password": "not the password"});
    let known = service.post("/auth/login", wrong("ada@example.org")).await;
    let unknown = service.post("/auth/login", wrong("nobody@example.org")).await;
    let answer = |got: &common::people::Got| {
        let mut names: Vec<_> =
            got.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_string())).collect();
        names.retain(|(name, _)| name != "x-request-id");
        names.sort();
        (got.status, names, got.body.clone())
    };
    assert_eq!(answer(&known), answer(&unknown), "also in what is left of attempts");
    let hashes = service.app.auth.hasher.hashed();
    service.post("/auth/login", wrong("ada@example.org")).await;
    let for_known = service.app.auth.hasher.hashed() - hashes;
    service.post("/auth/login", wrong("nobody@example.org")).await;
    assert_eq!(service.app.auth.hasher.hashed() - hashes, 2 * for_known, "the same work");
    // Registering says nothing either, and changes nothing.
    let taken = service.post("/auth/register", json!({"email": "ada@example.org", "password": "a new password"})).await;
    let free = service.post("/auth/register", json!({"email": "bob@example.org", "password": "a new password"})).await;
    assert_eq!(answer(&taken), answer(&free));
    service.log_in("ada@example.org").await;
}

#[tokio::test]
async fn guessing_at_one_account_is_slowed_down_whoever_guesses() {
    let service = People::start().await;
    service.viewer("ada@example.org").await;
    let guess = |n: u32, email: &'static str| {
        let service = &service;
        async move {
            let body = json!({"email": email, "password": format!("not the password {n}")});
            service.post("/auth/login", body).await
        }
    };
    for email in ["ada@example.org", "nobody@example.org"] {
        let mut statuses = Vec::new();
        for n in 0..6 {
            statuses.push(guess(n, email).await.status.as_u16());
        }
        assert_eq!(statuses, [401, 401, 401, 401, 401, 429], "{email}");
    }
    let refused = guess(9, "ada@example.org").await;
    assert_eq!(refused.problem(), "too-many-attempts");
    assert!(matches!(refused.header("retry-after").parse::<u64>(), Ok(1..=60)), "{refused:?}");
    assert!(refused.header("ratelimit").starts_with("\"login-account\";r=0;t="), "{refused:?}");
    assert_eq!(refused.header("ratelimit-policy"), "\"login-account\";q=5;w=3600");
    // Not even the right password, or guessing on could tell.
    let right = service.post("/auth/login", json!({"email": "ADA@example.org", "password": PASSWORD})).await;
    assert_eq!(right.problem(), "too-many-attempts");
}

#[tokio::test]
async fn a_thousand_guesses_at_once_are_no_more_than_five() {
    let service = People::start().await;
    service.viewer("ada@example.org").await;
    let before = service.app.auth.hasher.hashed();
    let guesses = (0..200).map(|n| {
        service.post("/auth/login", json!({"email": "ada@example.org", "password": format!("not the password {n}")}))
    });
    let answers = futures_util::future::join_all(guesses).await;
    assert_eq!(service.app.auth.hasher.hashed() - before, 5);
    assert_eq!(answers.iter().filter(|got| got.status == StatusCode::TOO_MANY_REQUESTS).count(), 195);
}

#[tokio::test]
async fn one_address_guessing_at_many_accounts_is_slowed_down_and_only_the_edge_says_addresses() {
    let service = People::start().await;
    let secret = EdgeSecret::new(EDGE_SECRET).unwrap();
    let field = |address: &str| secret.seal_client(address, origin::now_ms() / 1000).unwrap();
    let guess = |n: u32, fields: Vec<(&'static str, String)>| {
        let service = &service;
        async move {
            let body = json!({"email": format!("user{n}@example.org"), "password": "not the password"});
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            service.call_with("POST", "/auth/login", "", Some(body), &fields).await
        }
    };
    let mut refused = None;
    for n in 0..40 {
        let got = guess(n, vec![(EDGE_CLIENT, field("192.0.2.1"))]).await;
        if got.status == StatusCode::TOO_MANY_REQUESTS {
            refused = Some((n, got));
            break;
        }
    }
    let (n, refused) = refused.expect("never slowed down");
    assert_eq!(n, 30);
    assert!(refused.header("ratelimit").starts_with("\"login-address\";r=0;t="), "{refused:?}");
    assert_eq!(guess(100, vec![(EDGE_CLIENT, field("192.0.2.2"))]).await.problem(), "credentials", "others go on");
    // Neither gets the attacker a new address, nor anybody else the attacker's.
    let stranger = EdgeSecret::new("another secret, which is as long as ours").unwrap();
    let forged = stranger.seal_client("192.0.2.1", origin::now_ms() / 1000).unwrap();
    let old = secret.seal_client("192.0.2.1", origin::now_ms() / 1000 - 3600).unwrap();
    let mut n = 200;
    for fields in [
        vec![("x-forwarded-for", "192.0.2.1".to_string())],
        vec![("cf-connecting-ip", "192.0.2.1".to_string()), ("forwarded", "for=192.0.2.1".to_string())],
        vec![(EDGE_CLIENT, "192.0.2.1".to_string())],
        vec![(EDGE_CLIENT, forged)],
        vec![(EDGE_CLIENT, old)],
        vec![(EDGE_CLIENT, field("192.0.2.1")), (EDGE_CLIENT, field("192.0.2.9"))],
    ] {
        n += 1;
        assert_eq!(guess(n, fields.clone()).await.problem(), "credentials", "{fields:?}");
    }
    // Whoever comes past the edge is one address, whatever is claimed.
    let mut past_the_edge = 0;
    while guess(1000 + past_the_edge, vec![("x-forwarded-for", format!("198.51.100.{past_the_edge}"))]).await.status
        == StatusCode::UNAUTHORIZED
    {
        past_the_edge += 1;
    }
    assert_eq!(past_the_edge, 24, "six of thirty were spent above");
    let with_more = vec![(EDGE_CLIENT, field("192.0.2.1")), ("x-forwarded-for", "192.0.2.77".to_string())];
    assert_eq!(guess(300, with_more).await.problem(), "too-many-attempts");
}

/// Has so many attempts fail, each as soon as it may be made, the last of them at this moment.
fn fail(service: &People, policy: Throttle, name: &str, failures: u32, last_ms: u64) {
    let wait_ms = |failures: u32| failures.checked_sub(policy.free).map_or(0, |over| 1_000u64 << over);
    let mut at_ms = last_ms - (1..failures).map(wait_ms).sum::<u64>();
    for failures in 1..=failures {
        let _failed = service.app.auth.throttles.begin(policy, name, at_ms).unwrap();
        at_ms += wait_ms(failures);
    }
}

#[tokio::test]
async fn only_wrong_guesses_make_anybody_wait_and_none_is_made_where_guessing_has_to_wait() {
    let service = People::start().await;
    service.viewer("ada@example.org").await;
    let secret = EdgeSecret::new(EDGE_SECRET).unwrap();
    let log_in = |address: &'static str, password: &'static str| {
        let (service, field) = (&service, secret.seal_client(address, origin::now_ms() / 1000).unwrap());
        async move {
            let body = json!({"email": "ada@example.org", "password": password});
            service.call_with("POST", "/auth/login", "", Some(body), &[(EDGE_CLIENT, &field)]).await
        }
    };
    let (now_ms, account) = (origin::now_ms(), auth::account_key(Kind::Viewer, "ada@example.org"));
    fail(&service, auth::THROTTLE_ACCOUNT, &account, 6, now_ms - 5_000);
    fail(&service, auth::THROTTLE_ADDRESS, "192.0.2.1", 36, now_ms);
    fail(&service, auth::THROTTLE_ADDRESS, "192.0.2.2", 35, now_ms - 40_000);
    let refused = log_in("192.0.2.1", "not the password").await;
    assert!(refused.header("ratelimit").starts_with("\"login-address\""), "{refused:?}");
    for n in 0..2 {
        let got = log_in("192.0.2.2", PASSWORD).await;
        assert_eq!(got.status, StatusCode::OK, "log-in {n}: {got:?}");
    }
    // With the database away nobody has guessed anything.
    service.app.store.close().await;
    for n in 0..10 {
        let got = log_in("192.0.2.2", "not the password").await;
        assert!(got.status.is_server_error(), "log-in {n}: {got:?}");
    }
    assert_eq!(service.app.auth.throttles.left(auth::THROTTLE_ACCOUNT, &account), 5);
}

#[tokio::test]
async fn what_is_said_of_a_viewer_is_answered_by_nothing_unless_an_edge_said_it() {
    let service = People::start().await;
    let premium =
        [("viewer-region", "DE"), ("viewer-locale", "en"), ("viewer-maturity", "18"), ("viewer-plan", "premium")];
    let seal = |secret: &EdgeSecret, now_s: u64| {
        let find = |name: &str| premium.iter().find(|(have, _)| *have == name).map(|(_, value)| *value);
        secret.seal_viewer(find, now_s).unwrap()
    };
    let now_s = origin::now_ms() / 1000;
    let secret = EdgeSecret::new(EDGE_SECRET).unwrap();
    let (good, old) = (seal(&secret, now_s), seal(&secret, now_s - 3_700));
    let foreign = seal(&EdgeSecret::new("another secret, which is as long as ours").unwrap(), now_s);
    let ada = service.viewer("ada@example.org").await;
    for path in ["/v1/home", "/v1/catalog", "/v1/search?q=a", "/v1/me/continue-watching"] {
        let ask = async |seal: &str, said: &[(&str, &str)]| {
            let fields: Vec<_> = said.iter().copied().chain([(VIEWER_SEAL, seal)]).collect();
            service.call_with("GET", path, &ada.access, None, &fields).await
        };
        assert_eq!(ask(&good, &premium).await.status, StatusCode::OK, "{path}");
        for forged in ["", "x", &old, &foreign] {
            let got = ask(forged, &premium).await;
            assert_eq!((got.status.as_u16(), got.problem().as_str()), (503, "viewer-unproven"), "{path} {forged}");
        }
        let other = [("viewer-region", "FR"), premium[1], premium[2], premium[3]];
        assert_eq!(ask(&good, &other).await.problem(), "viewer-unproven", "{path}: the seal of another viewer");
        assert_eq!(ask("", &[]).await.status, StatusCode::OK, "{path}: nothing is said");
    }
    let mut counting = Auth::new(Hasher::new(Cost::TRIFLING, 2).unwrap(), vec![secret]);
    counting.unproven = Unproven::Counted;
    let app = App { auth: Arc::new(counting), ..service.app.clone() };
    let unproven = Request::builder().uri("/v1/home").header("viewer-region", "DE").header(VIEWER_SEAL, "x");
    let answer = router(app, &[Role::Client]).oneshot(unproven.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "while edges are told the secret");
    let put = |seal: &'static str| {
        let fields = [("viewer-region", "DE"), (VIEWER_SEAL, seal)];
        let service = &service;
        let access = ada.access.clone();
        async move { service.call_with("PUT", "/v1/me/watch-list/heat", &access, None, &fields).await }
    };
    assert_eq!(put("x").await.problem(), "viewer-unproven", "a viewer's writes as well");
}

#[tokio::test]
async fn while_a_secret_takes_the_place_of_another_both_are_believed() {
    let [new, before, gone] = ["new", "before", "gone"].map(|word| EdgeSecret::new(&word.repeat(12)).unwrap());
    let auth = Auth::new(Hasher::new(Cost::TRIFLING, 2).unwrap(), vec![new.clone(), before.clone()]);
    let now_s = origin::now_ms() / 1000;
    let find = |name: &str| (name == "viewer-region").then_some("DE");
    for (secret, believed) in [(&new, true), (&before, true), (&gone, false)] {
        let seal = secret.seal_viewer(find, now_s).unwrap();
        assert_eq!(auth.is_viewer_proven(|name| if name == VIEWER_SEAL { Some(&seal) } else { find(name) }), believed);
        let client = secret.seal_client("192.0.2.1", now_s).unwrap();
        assert_eq!(auth.origin_of(Some(&client)).unwrap() == "192.0.2.1", believed);
    }
    let trusting = Auth::new(Hasher::new(Cost::TRIFLING, 2).unwrap(), Vec::new());
    assert!(trusting.is_viewer_proven(find) && trusting.origin_of(None).is_none(), "without a secret");
}

#[tokio::test]
async fn a_body_that_is_not_of_the_form_changes_nothing() {
    let service = People::start().await;
    let ada = service.viewer("ada@example.org").await;
    let before = service.get("/v1/me", &ada.access).await.body;
    for body in [
        json!({"plan": "premium"}),
        json!({"role": "admin"}),
        json!({"banned": false}),
        json!({"id": "x"}),
        json!({"email": "eve@example.org"}),
        json!({"password_hash": "x"}),
        json!({"name": "A", "kind": "staff"}),
        json!({"name": ""}),
        json!({"name": "a\u{0}b"}),
        json!({"maturity": 12}),
        json!({"locale": "EN"}),
        json!({"name": {"$ne": 1}}),
        json!([{"name": "A"}]),
    ] {
        let got = service.call("PATCH", "/v1/me", &ada.access, Some(body.clone())).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{body}");
    }
    for (email, password) in
        [("ada@example.org", "password123"), ("not an address", PASSWORD), ("new@example.org", "short")]
    {
        assert_eq!(
            service.post("/auth/register", json!({"email": email, "password": password})).await.problem(),
            "body-invalid"
        );
    }
    for more in ["role", "plan", "kind", "banned", "maturity"] {
        let body = json!({"email": "new@example.org", "password": PASSWORD, more: "admin"});
        assert_eq!(service.post("/auth/register", body).await.problem(), "json-invalid", "{more}");
    }
    let send = |content_type: &'static str, body: String| {
        let service = &service;
        let request = Request::builder().method("PATCH").uri("/v1/me").header("content-type", content_type);
        let request = request.header("authorization", format!("Bearer {}", ada.access)).body(Body::from(body)).unwrap();
        async move { service.send(request).await }
    };
    assert_eq!(send("text/plain", r#"{"name":"A"}"#.into()).await.problem(), "media-type", "no form of another site's");
    assert_eq!(send("application/json", r#"{"name":"A","name":"B"}"#.into()).await.problem(), "json-invalid");
    assert_eq!(
        send("application/json", format!("{}1{}", "[".repeat(2000), "]".repeat(2000))).await.problem(),
        "json-invalid"
    );
    assert_eq!(
        send("application/json", format!(r#"{{"name":"{}"}}"#, "a".repeat(5000))).await.problem(),
        "body-too-large"
    );
    assert_eq!(service.get("/v1/me", &ada.access).await.body, before);
}

#[tokio::test]
async fn a_child_with_the_device_cannot_raise_its_own_age_limit() {
    let service = People::start().await;
    let ada = service.viewer("ada@example.org").await;
    let change = async |access: &str, body: Value| service.call("PATCH", "/v1/me", access, Some(body)).await;
    // Lowered without a word, and as often as one likes.
    assert_eq!(change(&ada.access, json!({"maturity": 13})).await.json()["maturity"], 13);
    assert_eq!(change(&ada.access, json!({"maturity": 7})).await.json()["maturity"], 7);
    assert_eq!(change(&ada.access, json!({"maturity": 7, "name": "Ada"})).await.status, StatusCode::OK, "no change");
    let limit = async || service.get("/v1/me", &ada.access).await.json()["maturity"].clone();
    let (before, hashed) = (service.as_of().await, service.app.auth.hasher.hashed());
    let too_long = "x".repeat(257);
    for (body, at) in [
        (json!({"maturity": 18}), vec!["/password"]),
        (json!({"maturity": 18, "name": ""}), vec!["/name", "/password"]),
        (json!({"maturity": 18, "password": null}), vec!["/password"]),
        (json!({"maturity": 18, "password": too_long}), vec!["/password"]),
    ] {
        let got = change(&ada.access, body).await;
        assert_eq!((got.status, got.problem().as_str()), (StatusCode::BAD_REQUEST, "body-invalid"), "{got:?}");
        let faults = got.json()["errors"].as_array().unwrap().clone();
        assert_eq!(faults.iter().map(|fault| fault["at"].as_str().unwrap()).collect::<Vec<_>>(), at, "{got:?}");
    }
    let refused = change(&ada.access, json!({"maturity": 18})).await.json();
    assert_eq!(refused["errors"][0]["message"], "is needed to raise the age limit");
    assert_eq!(service.app.auth.hasher.hashed(), hashed, "nothing was looked at");
    // A guess is a guess at the account, and needs no writer to be refused.
    let taken = service.app.store.write().await.unwrap();
    for n in 0..5 {
        let got = change(&ada.access, json!({"maturity": 18, "password": format!("not the password {n}")})).await;
        assert_eq!((got.status, got.problem().as_str()), (StatusCode::UNAUTHORIZED, "credentials"), "{n}: {got:?}");
    }
    drop(taken);
    let got = change(&ada.access, json!({"maturity": 18, "password": PASSWORD})).await;
    assert_eq!(got.problem(), "too-many-attempts", "not even the right one, or guessing on could tell");
    let log_in = service.post("/auth/login", json!({"email": "ada@example.org", "password": PASSWORD})).await;
    assert_eq!(log_in.problem(), "too-many-attempts", "they count for logging in as well");
    assert_eq!((limit().await, service.as_of().await), (json!(7), before));
}

#[tokio::test]
async fn who_knows_the_password_raises_the_age_limit_and_who_has_none_cannot() {
    let service = People::start().await;
    let ada = service.viewer("ada@example.org").await;
    let change = async |access: &str, body: Value| service.call("PATCH", "/v1/me", access, Some(body)).await;
    change(&ada.access, json!({"maturity": 7})).await;
    let raised = change(&ada.access, json!({"maturity": 16, "password": PASSWORD})).await;
    assert_eq!((raised.status, &raised.json()["maturity"]), (StatusCode::OK, &json!(16)), "{raised:?}");
    assert!(!raised.body.contains(PASSWORD) && raised.json().get("password").is_none(), "{raised:?}");
    let purged: Vec<_> = service.last_purge().await.keys.iter().map(ToString::to_string).collect();
    assert!(purged.contains(&format!("user:{}", service.subject(&ada))), "tokens that say otherwise end: {purged:?}");
    // As an import leaves a viewer.
    let none = "UPDATE account SET password_hash = ''";
    service.database.sql(none, none).await;
    for password in ["", PASSWORD] {
        let got = change(&ada.access, json!({"maturity": 18, "password": password})).await;
        assert_eq!((got.status, got.problem().as_str()), (StatusCode::UNAUTHORIZED, "credentials"), "{password:?}");
    }
    assert_eq!(service.get("/v1/me", &ada.access).await.json()["maturity"], 16);
}

/// Looked at while the limit was 18, written once it is 7: to leave it as it was would raise it.
#[tokio::test]
async fn a_limit_that_is_lowered_meanwhile_is_not_raised_by_who_meant_to_leave_it() {
    let service = Arc::new(People::start().await);
    let ada = service.viewer("ada@example.org").await;
    let mut write = service.app.store.write().await.unwrap();
    let account = write.account(Kind::Viewer, &service.subject(&ada)).await.unwrap().unwrap();
    let leave = {
        let (service, access) = (Arc::clone(&service), ada.access.clone());
        tokio::spawn(async move { service.call("PATCH", "/v1/me", &access, Some(json!({"maturity": 18}))).await })
    };
    // Time enough to look; who has not by then sees 7, and is refused for that.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let lowered = origin::store::accounts::Account { maturity: kv_schemas::viewer::Maturity::From7, ..account };
    write.put_account(&lowered).await.unwrap();
    write.commit().await.unwrap();
    let refused = leave.await.unwrap();
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::BAD_REQUEST, "body-invalid"), "{refused:?}");
    assert_eq!(service.get("/v1/me", &ada.access).await.json()["maturity"], 7);
}

#[tokio::test]
async fn two_bearer_tokens_or_other_schemes_are_refused() {
    let service = People::start().await;
    let ada = service.viewer("ada@example.org").await;
    let bearer = format!("Bearer {}", ada.access);
    for fields in [
        vec![("authorization", bearer.as_str()), ("authorization", "Bearer x")],
        vec![("authorization", ada.access.as_str())],
        vec![("authorization", "Basic YWRhOng=")],
        vec![("x-authorization", bearer.as_str())],
        vec![("cookie", bearer.as_str())],
    ] {
        let got = service.call_with("GET", "/v1/me", "", None, &fields).await;
        assert_eq!(got.status, StatusCode::UNAUTHORIZED, "{fields:?}");
    }
    let in_query = service.get(&format!("/v1/me?access_token={}", ada.access), "").await;
    assert_eq!(in_query.problem(), "token-missing");
}

#[tokio::test]
async fn a_banned_viewer_is_out_at_once_and_learns_so_with_the_right_password_only() {
    let service = People::start().await;
    let ada = service.viewer("ada@example.org").await;
    let path = format!("/admin/v1/users/{}", service.subject(&ada));
    let banned = service.call("PATCH", &path, &service.admin_token(), Some(json!({"banned": true}))).await;
    assert_eq!(banned.status, StatusCode::OK, "{banned:?}");
    assert_eq!(service.last_purge().await.keys[0].as_str(), format!("user:{}", service.subject(&ada)));
    assert_eq!(service.get("/v1/me", &ada.access).await.problem(), "token-revoked");
    assert_eq!(service.refresh(&ada.refresh).await.unwrap_err(), "refresh-refused");
    let login = |password: &str| service.post("/auth/login", json!({"email": "ada@example.org", "password": password}));
    assert_eq!(login("not the password").await.problem(), "credentials");
    assert_eq!(login(PASSWORD).await.problem(), "account-banned");
    service.call("PATCH", &path, &service.admin_token(), Some(json!({"banned": false}))).await;
    assert_eq!(service.get("/v1/me", &ada.access).await.problem(), "token-revoked", "sessions do not come back");
    service.log_in("ada@example.org").await;
}

#[tokio::test]
async fn a_demoted_admin_is_one_no_longer_though_the_token_says_so() {
    let service = People::start().await;
    service.staff("root@example.org", StaffRole::Admin).await;
    let id = service.staff("grace@example.org", StaffRole::Admin).await;
    let grace = service.log_in_as("/auth/staff", "grace@example.org").await;
    assert_eq!(service.get("/admin/v1/users", &grace.access).await.status, StatusCode::OK);
    let path = format!("/admin/v1/staff/{id}");
    let demoted = service.call("PATCH", &path, &service.admin_token(), Some(json!({"role": "viewer"}))).await;
    assert_eq!(demoted.status, StatusCode::OK);
    assert_eq!(service.get("/admin/v1/users", &grace.access).await.problem(), "role");
    let promoted = service.call("PATCH", &path, &grace.access, Some(json!({"role": "admin"}))).await;
    assert_eq!(promoted.problem(), "role", "nobody raises herself");
}

#[tokio::test]
async fn editors_and_viewers_of_admin_data_see_no_accounts_and_the_last_admin_stays() {
    let service = People::start().await;
    let root = service.staff("root@example.org", StaffRole::Admin).await;
    for role in [StaffRole::Viewer, StaffRole::Editor] {
        let token = service.app.keys.admin_token("x", role, 60).unwrap();
        for (method, path) in [
            ("GET", "/admin/v1/users"),
            ("GET", "/admin/v1/users/x"),
            ("PATCH", "/admin/v1/users/x"),
            ("DELETE", "/admin/v1/users/x"),
            ("POST", "/admin/v1/users/x/invitation"),
            ("POST", "/admin/v1/users/x/logout-everywhere"),
            ("GET", "/admin/v1/staff"),
            ("POST", "/admin/v1/staff"),
            ("PATCH", "/admin/v1/staff/x"),
            ("POST", "/admin/v1/staff/x/invitation"),
        ] {
            assert_eq!(service.call(method, path, &token, None).await.problem(), "role", "{method} {path}");
        }
    }
    let path = format!("/admin/v1/staff/{root}");
    for change in [json!({"role": "editor"}), json!({"banned": true})] {
        let refused = service.call("PATCH", &path, &service.admin_token(), Some(change)).await;
        assert_eq!(refused.problem(), "last-admin");
    }
    let as_user = service.get(&format!("/admin/v1/users/{root}"), &service.admin_token()).await;
    assert_eq!(as_user.problem(), "not-found", "staff are no viewers");
    let listed = service.get("/admin/v1/staff", &service.admin_token()).await;
    assert!(!listed.body.contains("argon2") && listed.json()["items"][0]["role"] == "admin", "{listed:?}");
}

/// Of each row of the audit log who did what to what, and what it says of the account before and after.
async fn audit(service: &People, token: &str, query: &str) -> Vec<(String, Value, Value)> {
    let log = service.get(&format!("/admin/v1/audit?{query}"), token).await;
    assert!(!log.body.contains("example.org"), "no address outlives its account there: {log:?}");
    let row = |entry: &Value| {
        let what = ["actor", "action", "kind", "id"].map(|name| entry[name].as_str().unwrap());
        (what.join(" "), entry["before"].clone(), entry["after"].clone())
    };
    log.json()["items"].as_array().unwrap_or_else(|| panic!("{log:?}")).iter().map(row).collect()
}

#[tokio::test]
async fn whatever_is_done_to_accounts_is_noted_with_who_did_it_and_shown_to_admins_alone() {
    let service = People::start().await;
    service.titles(&["heat"]).await;
    let root = service.staff("root@example.org", StaffRole::Admin).await;
    let admin = service.log_in_as("/auth/staff", "root@example.org").await.access;
    let user = service.subject(&service.viewer("ada@example.org").await);
    let done = async |method: &str, path: &str, body: Value| {
        let got = service.call(method, path, &admin, (!body.is_null()).then_some(body)).await;
        assert!(got.status.is_success(), "{method} {path}: {got:?}");
        got
    };
    let invited = done("POST", "/admin/v1/staff", json!({"email": "hedy@example.org", "role": "editor"})).await.json();
    let hedy = invited["id"].as_str().unwrap();
    let (of_staff, of_user) = (format!("/admin/v1/staff/{hedy}"), format!("/admin/v1/users/{user}"));
    done("POST", &format!("{of_staff}/invitation"), Value::Null).await;
    done("PATCH", &of_staff, json!({"role": "admin"})).await;
    done("PATCH", &of_staff, json!({"role": "admin", "banned": false})).await;
    done("PATCH", &of_staff, json!({"role": "viewer", "banned": true})).await;
    done("PATCH", &of_user, json!({"plan": "premium"})).await;
    done("PATCH", &of_user, json!({"banned": true})).await;
    done("PATCH", &of_user, json!({"banned": false})).await;
    done("POST", &format!("{of_user}/invitation"), Value::Null).await;
    done("POST", &format!("{of_user}/logout-everywhere"), Value::Null).await;
    done("DELETE", &of_user, Value::Null).await;
    let staff = |role: &str, banned: bool| json!({"role": role, "banned": banned});
    let viewer = |plan: &str, banned: bool| json!({"plan": plan, "maturity": 18, "banned": banned});
    let row = |action: &str, before: Value, after: Value| {
        let what = if after.get("role").is_some() { format!("staff {hedy}") } else { format!("user {user}") };
        (format!("{root} {action} {what}"), before, after)
    };
    let mut expected = vec![
        row("invite", Value::Null, staff("editor", false)),
        row("invite", staff("editor", false), staff("editor", false)),
        row("edit", staff("editor", false), staff("admin", false)),
        row("ban", staff("admin", false), staff("viewer", true)),
        row("edit", staff("admin", false), staff("viewer", true)),
        row("edit", viewer("basic", false), viewer("premium", false)),
        row("ban", viewer("premium", false), viewer("premium", true)),
        row("unban", viewer("premium", true), viewer("premium", false)),
        row("invite", viewer("premium", false), viewer("premium", false)),
        row("logout", viewer("premium", false), viewer("premium", false)),
        row("delete", viewer("premium", false), Value::Null),
    ];
    expected.reverse();
    let all = audit(&service, &admin, "").await;
    assert_eq!(all[..11], expected);
    assert_eq!((all.len(), all[11].0.as_str()), (12, "test create title heat"));
    assert_eq!(audit(&service, &admin, "kind=user").await, expected[..6]);
    assert_eq!(audit(&service, &admin, "kind=staff").await, expected[6..]);
    assert_eq!(audit(&service, &admin, &format!("id={hedy}")).await, expected[6..]);
    // Editors: as if there were none.
    let editor = service.app.keys.admin_token("ed", StaffRole::Editor, 60).unwrap();
    for kind in ["user", "staff"] {
        for query in [format!("kind={kind}"), format!("kind={kind}&id={hedy}&actor={root}")] {
            assert_eq!(service.get(&format!("/admin/v1/audit?{query}"), &editor).await.problem(), "role", "{query}");
        }
    }
    for (query, count) in [
        ("", 1),
        ("limit=1", 1),
        ("kind=title", 1),
        ("from=1990-01-01T00:00:00Z", 1),
        ("until=2999-01-01T00:00:00Z&actor=test", 1),
        (&format!("actor={root}"), 0),
        (&format!("id={user}"), 0),
        (&format!("id={hedy}&from=1990-01-01T00:00:00Z"), 0),
    ] {
        let seen = audit(&service, &editor, query).await;
        assert!(
            seen.len() == count && seen.iter().all(|(what, ..)| what == "test create title heat"),
            "{query}: {seen:?}"
        );
    }
    let viewer = service.app.keys.admin_token("x", StaffRole::Viewer, 60).unwrap();
    assert_eq!(service.get("/admin/v1/audit", &viewer).await.problem(), "role");
}

#[tokio::test]
async fn what_cannot_be_noted_or_purged_is_not_done_to_an_account() {
    let service = People::start().await;
    let admin = service.admin_token();
    let hedy = service.staff("hedy@example.org", StaffRole::Editor).await;
    let ada = service.viewer("ada@example.org").await;
    let (of_staff, of_user) = (format!("/admin/v1/staff/{hedy}"), format!("/admin/v1/users/{}", service.subject(&ada)));
    let accounts = async || {
        let mut all = service.get(&of_staff, &admin).await.body;
        all.push_str(&service.get(&of_user, &admin).await.body);
        (all, service.database.count("account").await, service.as_of().await)
    };
    let before = accounts().await;
    for table in ["audit", "purge_log"] {
        service.database.refuse_inserts(table).await;
        for (method, path, body) in [
            ("POST", "/admin/v1/staff", Some(json!({"email": "eve@example.org", "role": "admin"}))),
            ("POST", &format!("{of_staff}/invitation"), None),
            ("POST", &format!("{of_user}/invitation"), None),
            ("PATCH", &of_staff, Some(json!({"role": "admin"}))),
            ("PATCH", &of_user, Some(json!({"banned": true}))),
            ("POST", &format!("{of_user}/logout-everywhere"), None),
            ("DELETE", &of_user, None),
        ] {
            assert_eq!(
                service.call(method, path, &admin, body).await.problem(),
                "internal",
                "{table}: {method} {path}"
            );
            assert_eq!(accounts().await, before, "{table}: {method} {path}");
        }
        service.database.accept_inserts(table).await;
    }
    assert_eq!((service.database.count("invitation").await, service.database.count("audit").await), (0, 0));
    assert_eq!(service.get("/v1/me", &ada.access).await.status, StatusCode::OK, "she is still in");
}

#[tokio::test]
async fn an_invitation_works_once_and_lets_nobody_else_choose_the_password() {
    let service = People::start().await;
    let body = json!({"email": "hedy@example.org", "role": "editor"});
    let invited = service.call("POST", "/admin/v1/staff", &service.admin_token(), Some(body.clone())).await;
    assert_eq!(invited.status, StatusCode::CREATED, "{invited:?}");
    let again = service.call("POST", "/admin/v1/staff", &service.admin_token(), Some(body)).await;
    assert_eq!(again.problem(), "exists");
    let id = invited.json()["id"].as_str().unwrap().to_string();
    let first = invited.json()["invitation"].as_str().unwrap().to_string();
    for password in ["", PASSWORD] {
        let early = service.post("/auth/staff/login", json!({"email": "hedy@example.org", "password": password})).await;
        assert_eq!(early.problem(), "credentials", "nothing opens an account without a password");
    }
    let path = format!("/admin/v1/staff/{id}/invitation");
    let renewed = service.call("POST", &path, &service.admin_token(), None).await.json();
    let second = renewed["invitation"].as_str().unwrap();
    let accept = |token: &str, password: &str| {
        service.post("/auth/staff/accept", json!({"invitation": token, "password": password}))
    };
    assert_eq!(accept(&first, PASSWORD).await.problem(), "invitation-refused", "void since the second");
    assert_eq!(accept(second, "short").await.problem(), "body-invalid");
    assert_eq!(accept(second, PASSWORD).await.status, StatusCode::NO_CONTENT);
    assert_eq!(accept(second, "another good one").await.problem(), "invitation-refused");
    service.log_in_as("/auth/staff", "hedy@example.org").await;
    let claims = AdminClaims {
        iss: ISSUER.into(),
        aud: AUDIENCE_ADMIN.into(),
        sub: id,
        role: StaffRole::Admin,
        sid: Some("made up".into()),
        as_of: None,
    };
    let forged = service.app.keys.sign(claims, 60).unwrap();
    assert_eq!(service.get("/admin/v1/titles", &forged).await.problem(), "token-revoked");
}

#[tokio::test]
async fn purges_of_people_and_keys_are_admins_alone() {
    let service = People::start().await;
    service.titles(&["heat"]).await;
    let ada = service.viewer("ada@example.org").await;
    service.call("PUT", "/v1/me/watch-list/heat", &ada.access, None).await;
    let private = service.as_of().await.seq;
    service.post("/auth/logout", json!({"refresh_token": ada.refresh})).await;
    let admin = service.admin_token();
    let seqs = |got: &common::people::Got| -> Vec<u64> {
        got.json()["items"].as_array().unwrap().iter().map(|item| item["seq"].as_u64().unwrap()).collect()
    };
    let all = service.get("/admin/v1/purges", &admin).await;
    assert_eq!(seqs(&all), [private + 1, private, 1]);
    for role in [StaffRole::Viewer, StaffRole::Editor] {
        let token = service.app.keys.admin_token("x", role, 60).unwrap();
        let sub = service.subject(&ada);
        for query in ["", "?mode=hard", &format!("?key=viewer:{sub}"), &format!("?actor={sub}")] {
            let got = service.get(&format!("/admin/v1/purges{query}"), &token).await;
            assert!(!got.body.contains(&sub) && !got.body.contains(&ada.session), "{role:?} {query}: {got:?}");
        }
        assert_eq!(seqs(&service.get("/admin/v1/purges?limit=1", &token).await), [1], "{role:?}: the page is full");
        for seq in [private, private + 1] {
            let got = service.get(&format!("/admin/v1/purges/{seq}"), &token).await;
            assert_eq!(got.problem(), "not-found", "{role:?}");
            assert_eq!(got.body, service.get("/admin/v1/purges/999", &token).await.body, "as if there were none");
            assert_eq!(service.get(&format!("/admin/v1/purges/{seq}"), &admin).await.status, StatusCode::OK);
        }
        assert_eq!(service.get("/admin/v1/purges/1", &token).await.status, StatusCode::OK);
    }
    let editor = service.app.keys.admin_token("ed", StaffRole::Editor, 60).unwrap();
    let before = service.as_of().await;
    for key in ["user:x", "session:x", "viewer:x", "jwks", "url:/.well-known/jwks.json", "url:/v1/me", "url:/%761/%6De"]
    {
        let body = json!({"keys": ["title:heat", key]});
        for path in ["/admin/v1/purges", "/admin/v1/purges?dry_run=true"] {
            let got = service.call("POST", path, &editor, Some(body.clone())).await;
            assert_eq!(got.problem(), "role", "{key} {path}");
        }
        let got = service.call("POST", "/admin/v1/purges?dry_run=true", &admin, Some(body)).await;
        assert_eq!(got.status, StatusCode::OK, "{key}");
    }
    assert_eq!(service.as_of().await, before);
    let body = json!({"keys": ["title:heat", "users", "url:/v1/home"]});
    let got = service.call("POST", "/admin/v1/purges", &editor, Some(body)).await;
    assert_eq!(got.status, StatusCode::ACCEPTED, "{got:?}");
}

/// PostgreSQL keeps no U+0000 in a text.
#[tokio::test]
async fn a_nul_in_a_path_a_parameter_or_a_body_is_refused_where_it_stands() {
    let service = People::start().await;
    service.titles(&["heat"]).await;
    let ada = service.viewer("ada@example.org").await;
    let admin = service.admin_token();
    let cursor = Base64UrlUnpadded::encode_string(br#"["||0|name|false",{"value":"a\u0000","id":"x"}]"#);
    for (path, token) in [
        ("/admin/v1/users/a%00b", &admin),
        ("/admin/v1/staff/a%00b", &admin),
        ("/admin/v1/titles/a%00b", &admin),
        ("/admin/v1/series/a%00b/seasons/1", &admin),
        ("/admin/v1/purges/1%00", &admin),
        ("/v1/people/a%00b", &admin),
        ("/v1/series/a%00b/seasons/1", &admin),
        ("/v1/series/a/seasons/1%00", &admin),
    ] {
        let got = service.get(path, token).await;
        assert!(matches!(got.status.as_u16(), 400 | 404), "{path}: {got:?}");
    }
    for (path, at) in [
        ("/admin/v1/purges?actor=a%00b", "actor"),
        ("/admin/v1/purges?key=a%00b", "key"),
        ("/admin/v1/users?email=a%00b", "email"),
        ("/admin/v1/users?cursor=a%00b", "cursor"),
        ("/admin/v1/titles?cursor=a%00b", "cursor"),
        ("/admin/v1/audit?actor=a%00b", "actor"),
        ("/admin/v1/audit?id=a%00b", "id"),
        ("/v1/search?q=a%00b", "q"),
        (&format!("/v1/catalog?cursor={cursor}"), "cursor"),
    ] {
        let got = service.get(path, &admin).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST, "{path}: {got:?}");
        assert_eq!(got.json()["errors"][0]["at"], at, "{path}: {got:?}");
    }
    for method in ["DELETE", "PUT"] {
        for path in ["/v1/me/watch-list/a%00b", "/auth/sessions/a%00b"] {
            let got = service.call(method, path, &ada.access, None).await;
            assert!(matches!(got.status.as_u16(), 400 | 404 | 405), "{method} {path}: {got:?}");
        }
    }
    let email = "eve@example.org";
    for (method, path, token, body, at) in [
        ("POST", "/auth/login", "", json!({"email": email, "password": "a\0b"}), "/password"),
        ("POST", "/auth/register", "", json!({"email": email, "password": "correct\0horse"}), "/password"),
        ("PATCH", "/v1/me", &ada.access, json!({"name": "a\0b"}), "/name"),
        ("POST", "/admin/v1/purges", &admin, json!({"keys": ["a"], "reason": "a\0b"}), "/reason"),
        ("POST", "/admin/v1/titles", &admin, json!({"name": "a\0b"}), "/name"),
        ("PUT", "/admin/v1/titles/x", &admin, json!({"name": "X", "translations": {"d\0": {}}}), "/translations/d\0"),
        ("POST", "/admin/v1/titles/bulk", &admin, json!({"items": [{"id": "a\0", "delete": true}]}), "/items/0/id"),
        ("POST", "/admin/v1/staff", &admin, json!({"email": email, "role": "editor", "name": "a\0"}), "/name"),
    ] {
        let got = service.call(method, path, token, Some(body)).await;
        assert!(matches!(got.status.as_u16(), 400 | 422), "{path}: {got:?}");
        assert_eq!(got.json()["errors"][0]["at"], at, "{path}: {got:?}");
    }
}

/// Bodies are read before anybody knows who sends them.
#[tokio::test]
async fn bodies_that_are_sent_slowly_have_room_for_so_many_bytes_together_and_leave_it_when_they_end() {
    let service = People::start().await;
    let router = router(service.app.clone(), &[Role::Admin, Role::Auth]);
    let post = |body: Body| {
        let request = Request::post("/admin/v1/purges").header("content-type", "application/json").body(body).unwrap();
        router.clone().oneshot(request)
    };
    // As long as one may be, and never at its end.
    let slow = || {
        let begun = futures_util::stream::iter([Ok::<_, std::io::Error>(vec![b' '; 4 * 1024 * 1024 - 1])]);
        let mut asking = Box::pin(post(Body::from_stream(begun.chain(futures_util::stream::pending()))));
        assert!(asking.as_mut().now_or_never().is_none(), "it is not at its end");
        asking
    };
    let mut all: Vec<_> = (0..16).map(|_| slow()).collect();
    let got = post(Body::from("{}")).await.unwrap();
    assert_eq!(got.status(), StatusCode::SERVICE_UNAVAILABLE, "64 MiB are held");
    assert!(got.headers().contains_key("retry-after"));
    let read = service.call("GET", "/admin/v1/purges", &service.admin_token(), None).await;
    assert_eq!(read.status, StatusCode::OK, "what has no body needs no room");
    all.pop();
    let got = post(Body::from("{}")).await.unwrap();
    assert_eq!(got.status(), StatusCode::UNAUTHORIZED, "there is room again, and no token");
    drop(all);
    // As many pieces as there are KiB, of a byte each, and never an end.
    let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '])).take(65_536);
    let mut asking = Box::pin(post(Body::from_stream(pieces.chain(futures_util::stream::pending()))));
    assert!(asking.as_mut().now_or_never().is_none(), "it is not at its end");
    let got = post(Body::from("{}")).await.unwrap();
    assert_eq!(got.status(), StatusCode::UNAUTHORIZED, "they take the room of their bytes");
}
