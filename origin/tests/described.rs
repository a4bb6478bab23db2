//! The API's description and the router say the same: each route and method that is served is described, and the other way
//! round.
mod common;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use common::{Database, Service, text};
use origin::http::Role;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use tower::ServiceExt;

/// The description itself, and the page to browse it.
const NOT_API: [&str; 4] = ["/openapi.json", "/docs", "/docs/", "/docs/{*path}"];

type Routes = BTreeMap<String, BTreeSet<String>>;

/// Paths as the router itself has them, each with the methods it says it takes.
async fn served(service: &Service) -> Routes {
    // The one place where axum tells its paths: `paths: {RouteId(0): "/healthz", …}`.
    let all = format!("{:?}", service.router);
    let (own, _) = all.split_once("fallback_router").expect("axum tells otherwise by now");
    let paths = own.split("RouteId(").filter_map(|part| part.split_once("): \"")?.1.split('"').next());
    let paths: BTreeSet<&str> = paths.filter(|path| path.starts_with('/') && !NOT_API.contains(path)).collect();
    let mut routes = Routes::new();
    for path in paths {
        let request = Request::builder().method("BREW").uri(path.replace(['{', '}'], "")).body(Body::empty()).unwrap();
        let refused = service.router.clone().oneshot(request).await.unwrap();
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allow = refused.headers()["allow"].to_str().unwrap();
        // GET answers HEAD as well.
        let methods = allow.split(',').filter(|method| *method != "HEAD").map(str::to_lowercase);
        routes.insert(path.into(), methods.collect());
    }
    routes
}

async fn description(service: &Service) -> Value {
    serde_json::from_str(&text(service.call("GET", "/openapi.json", "").await).await).unwrap()
}

#[tokio::test]
async fn every_route_is_described_and_every_described_one_is_served_by_role() {
    let all = [Role::Client, Role::Admin, Role::Auth, Role::Jobs];
    for roles in [&all[..], &all[..1], &all[1..2], &all[2..3], &all[3..]] {
        let service = Service::shaped(Database::fresh(), roles, &[]).await;
        let described = description(&service).await;
        let of_path = |item: &Value| -> BTreeSet<String> { item.as_object().unwrap().keys().cloned().collect() };
        let described: Routes =
            described["paths"].as_object().unwrap().iter().map(|(path, item)| (path.clone(), of_path(item))).collect();
        let served = served(&service).await;
        assert_eq!(described, served, "{roles:?}");
        assert!(roles.len() == 1 || served.len() > 45, "{served:?}");
    }
}

/// Paths of a table of the edge's, with `*` for what a path has in braces.
fn in_table_of_the_edge(name: &str) -> BTreeSet<String> {
    let source = include_str!("../../edge/src/route.rs");
    let (_, table) = source.split_once(&format!("\nconst {name}: ")).expect("the edge has another table by now");
    let (table, _) = table.split_once("\n];").expect("the edge has another table by now");
    let lists = table.split("&[\"").skip(1).filter_map(|rest| rest.split("\"]").next());
    let paths = lists.map(|segments| format!("/{}", segments.replace("\", \"", "/")));
    // What a parameter may be is a list as well.
    paths.filter(|path| path.starts_with("/v1/") || path.starts_with("/.well-known/")).collect()
}

/// What one player asks for once, when it begins, and then changes each half minute.
const PASSED_EACH_TIME: &str = "/v1/me/progress/*";

/// The edge would pass on each time what it does not know as a document, and nobody would notice but by the load.
#[tokio::test]
async fn every_document_that_is_served_is_one_that_the_edge_knows() {
    let service = Service::start().await;
    let described = description(&service).await;
    let reads = described["paths"].as_object().unwrap().iter().filter(|(_, item)| item["get"].is_object());
    let pattern = |path: &String| -> String {
        let segments = path.split('/').map(|segment| if segment.starts_with('{') { "*" } else { segment });
        segments.collect::<Vec<_>>().join("/")
    };
    let (own, shared): (BTreeSet<_>, BTreeSet<_>) = reads
        .map(|(path, _)| pattern(path))
        .filter(|path| path.starts_with("/v1/") || path.starts_with("/.well-known/"))
        .filter(|path| path != PASSED_EACH_TIME)
        .partition(|path| path == "/v1/me" || path.starts_with("/v1/me/"));
    assert_eq!(in_table_of_the_edge("DOCUMENTS"), shared);
    assert_eq!(in_table_of_the_edge("OWN"), own);
}

/// Its log has nothing but `*` for other words.
#[tokio::test]
async fn every_name_in_a_path_is_one_that_the_edges_log_has() {
    let source = include_str!("../../gateway-rules/src/access.rs");
    let (_, names) = source.split_once("const NAMES: &str = \"").expect("the edge has another list by now");
    let (names, _) = names.split_once('"').expect("the edge has another list by now");
    let names: BTreeSet<&str> = names.split([' ', '\n', '\\']).collect();
    let service = Service::start().await;
    for path in description(&service).await["paths"].as_object().unwrap().keys() {
        let mut segments = path.split('/').skip(1);
        if !matches!(segments.next(), Some("v1" | "admin" | "auth" | ".well-known")) {
            continue;
        }
        let unknown =
            segments.find(|name| !name.starts_with('{') && !names.contains(name) && !["v1", "me"].contains(name));
        assert_eq!(unknown, None, "{path}");
    }
}

#[tokio::test]
async fn every_operation_says_who_may_call_it_and_every_schema_it_names_is_there() {
    let service = Service::start().await;
    let described = description(&service).await;
    let mut operations = 0;
    for (path, item) in described["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            let tag = &operation["tags"][0];
            assert!(
                described["tags"].as_array().unwrap().iter().any(|one| one["name"] == *tag),
                "{method} {path}: {tag}"
            );
            let who = operation["security"][0].as_object().and_then(|who| who.keys().next()).map(String::as_str);
            let expected = match path.as_str() {
                "/auth/staff/password" | "/auth/staff/logout-everywhere" => Some("staff"),
                "/auth/password" | "/auth/logout-everywhere" => Some("viewer"),
                _ if path.starts_with("/auth/sessions") || path.starts_with("/v1/me") => Some("viewer"),
                _ if path.starts_with("/admin/") || path.starts_with("/internal/") => Some("staff"),
                _ => None,
            };
            assert_eq!(who, expected, "{method} {path}");
            assert_eq!(
                operation["responses"]["401"].is_object(),
                expected.is_some() || path.starts_with("/auth/") && path != "/auth/register",
                "{method} {path}"
            );
            // Whatever is no plain read may find no room.
            assert_eq!(operation["responses"]["507"].is_object(), method != "get", "{method} {path}");
            for (_, name) in
                path.match_indices('{').filter_map(|(at, _)| path[at + 1..].split_once('}').map(|(name, _)| (at, name)))
            {
                let parameters = operation["parameters"].as_array().unwrap();
                assert!(
                    parameters.iter().any(|one| one["in"] == "path" && one["name"] == name),
                    "{method} {path}: {name}"
                );
            }
        }
    }
    assert!(operations > 75, "{operations}");
    let text = described.to_string();
    for name in text.split("\"#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(described["components"]["schemas"][name].is_object(), "{name}");
    }
}

/// What a receipt and a dry run say of locations is described member by member, as it is sent.
#[tokio::test]
async fn what_edges_say_of_purges_is_described_as_it_is_sent() {
    use kv_schemas::receipt::{DryRun, LocationReceipt, LocationState, Percentiles};
    let service = Service::start().await;
    let schemas = description(&service).await["components"]["schemas"].take();
    let location = LocationReceipt {
        location: "FRA".into(),
        state: LocationState::Applied,
        applied_seq: 1,
        heard_ms_ago: Some(1),
        lag_ms: Some(1),
    };
    let dry_run = DryRun { location: "FRA".into(), touched: 1, held: 1 };
    let members = |value: Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    for (name, sent) in [
        ("LocationReceipt", serde_json::to_value(location).unwrap()),
        ("Percentiles", serde_json::to_value(Percentiles { p50: 1, p95: 1, p99: 1 }).unwrap()),
        ("DryRun", serde_json::to_value(dry_run).unwrap()),
    ] {
        assert_eq!(members(schemas[name]["properties"].clone()), members(sent), "{name}");
        assert!(schemas.to_string().contains(&format!("\"#/components/schemas/{name}\"")), "{name} is referred to");
    }
}

/// Nothing from elsewhere, and no script within the page.
const POLICY: [&str; 4] = ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"];

#[tokio::test]
async fn the_page_to_browse_it_and_all_it_loads_are_served_under_a_strict_policy() {
    let service = Service::start().await;
    let got = async |path: String| {
        let response = service.call("GET", &path, "").await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let field = |name: &str| response.headers()[name].to_str().unwrap().to_string();
        let (kind, policy) = (field("content-type"), field("content-security-policy"));
        let rules: Vec<&str> = policy.split(';').map(str::trim).collect();
        assert!(POLICY.iter().all(|rule| rules.contains(rule)), "{path}: {policy}");
        assert!(rules.iter().all(|rule| !rule.contains("http") && !rule.contains("unsafe-eval")), "{path}: {policy}");
        assert_eq!(field("x-content-type-options"), "nosniff", "{path}");
        (kind, text(response).await)
    };
    let (kind, page) = got("/docs/".into()).await;
    assert!(kind.starts_with("text/html") && page.contains("swagger-ui"), "{kind}: {page}");
    // A relative address is one below /docs/.
    let named = page.split(['"', '\'']).filter_map(|word| word.strip_prefix("./"));
    let loaded: BTreeSet<String> = named.map(|name| format!("/docs/{name}")).collect();
    let kinds = [(".js", "javascript"), (".css", "text/css"), (".png", "image/png")];
    for path in &loaded {
        let (ending, expected) = kinds.iter().find(|(ending, _)| path.ends_with(ending)).expect(path);
        let (kind, body) = if *ending == ".png" {
            let response = service.call("GET", path, "").await;
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            (response.headers()["content-type"].to_str().unwrap().to_string(), "a picture".into())
        } else {
            got(path.clone()).await
        };
        assert!(kind.contains(expected) && !body.is_empty(), "{path}: {kind}");
    }
    assert!(loaded.iter().filter(|path| path.ends_with(".js")).count() >= 2, "{loaded:?}");
    assert!(page.lines().all(|line| !line.contains("<script>") && !line.contains("//unpkg")), "{page}");
    let redirect = service.call("GET", "/docs", "").await;
    assert_eq!((redirect.status().as_u16(), redirect.headers()["location"].to_str().unwrap()), (308, "/docs/"));
    assert_eq!(service.call("GET", "/docs/nothing.js", "").await.status(), StatusCode::NOT_FOUND);
}
