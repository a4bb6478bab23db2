//! The route table: what a path is, which cache key it has, and what origin is asked for. Pure, tested natively.
//!
//! A cache key is made of what is on the list and of nothing else, so that no stranger's query parameter or header
//! can fragment the cache or put an answer under a key it does not belong to.
use crate::settings::Mode;

/// Longest path with query that is served.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/__edge/…`
    Edge(String),
    /// A GET or HEAD that may be answered from the cache: its key is "GET " and this target, which origin is asked
    /// for.
    Cached {
        target: String,
    },
    /// To origin and back, never stored.
    Pass {
        target: String,
    },
    NotFound,
    TooLong,
}

/// A shared document: path segments (`*` is one of any value) and the query parameters that change the answer.
struct Document {
    segments: &'static [&'static str],
    query: &'static [&'static str],
}

const DOCUMENTS: [Document; 4] = [
    Document { segments: &["v1", "home"], query: &[] },
    Document { segments: &["v1", "catalog"], query: &["cursor", "genre", "limit"] },
    Document { segments: &["v1", "titles", "*"], query: &[] },
    Document { segments: &["v1", "genres"], query: &[] },
];

/// Paths handed to origin's services as they are.
const PASSED: [&str; 5] = ["admin", "auth", "media", "v1", ".well-known"];

/// Path and query of an absolute URL, without its fragment.
pub fn target_of(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let target = after_scheme.find(['/', '?']).and_then(|at| after_scheme.get(at..)).unwrap_or("/");
    target.split('#').next().unwrap_or(target)
}

pub fn classify(mode: Mode, method: &str, target: &str) -> Route {
    if target.len() > TARGET_BYTES_MAX {
        return Route::TooLong;
    }
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    if let Some(rest) = path.strip_prefix("/__edge/") {
        return Route::Edge(rest.to_string());
    }
    let is_read = matches!(method, "GET" | "HEAD");
    if mode == Mode::Proxy {
        let target = if target.starts_with('/') { target.to_string() } else { format!("/{target}") };
        return if is_read { Route::Cached { target } } else { Route::Pass { target } };
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    if segments.iter().any(|segment| is_evasive(segment)) {
        return Route::NotFound;
    }
    if is_read && let Some(document) = DOCUMENTS.iter().find(|document| matches_segments(document.segments, &segments))
    {
        return Route::Cached { target: normalise(path, query.unwrap_or(""), document.query) };
    }
    match segments.first() {
        Some(first) if PASSED.contains(first) => Route::Pass { target: target.to_string() },
        _ => Route::NotFound,
    }
}

/// Encoded slashes, backslashes and dots are how one path is made to look like another on the way.
fn is_evasive(segment: &str) -> bool {
    let lower = segment.to_ascii_lowercase();
    segment == "."
        || segment == ".."
        || ["%2f", "%5c", "%2e", "%00", "\\", ";"].iter().any(|trick| lower.contains(trick))
}

fn matches_segments(pattern: &[&str], segments: &[&str]) -> bool {
    pattern.len() == segments.len()
        && pattern.iter().zip(segments).all(|(want, have)| if *want == "*" { !have.is_empty() } else { want == have })
}

/// The path with those parameters that are on the list, in the list's order; repeats keep theirs, since it may matter
/// to origin.
fn normalise(path: &str, query: &str, allowed: &[&str]) -> String {
    let pairs: Vec<&str> = allowed
        .iter()
        .flat_map(|name| query.split('&').filter(move |pair| pair.split('=').next() == Some(name)))
        .collect();
    if pairs.is_empty() {
        return path.to_string();
    }
    format!("{path}?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str) -> Route {
        classify(Mode::Gateway, "GET", target)
    }

    fn cached(target: &str) -> Route {
        Route::Cached { target: target.into() }
    }

    #[test]
    fn unknown_parameters_neither_fragment_nor_poison() {
        assert_eq!(get("/v1/home?utm_source=x&a"), cached("/v1/home"));
        assert_eq!(get("/v1/catalog?limit=2&x=1&genre=drama"), cached("/v1/catalog?genre=drama&limit=2"));
        assert_eq!(get("/v1/catalog?limit=2&genre=b&genre=a"), cached("/v1/catalog?genre=b&genre=a&limit=2"));
    }

    #[test]
    fn only_listed_documents_are_cached() {
        assert_eq!(get("/v1/titles/heat-1995"), cached("/v1/titles/heat-1995"));
        for passed in ["/v1/titles/", "/v1/me/x.css", "/v1/home/x", "/v1/home.css", "/admin/v1/titles", "/auth/login"] {
            assert_eq!(get(passed), Route::Pass { target: passed.into() }, "{passed}");
        }
        for lost in ["/", "/internal/purges", "/metrics", "/v2/home", "//v1/home", "/V1/home"] {
            assert_eq!(get(lost), Route::NotFound, "{lost}");
        }
        assert_eq!(
            classify(Mode::Gateway, "POST", "/v1/home"),
            Route::Pass { target: "/v1/home".into() },
            "origin knows which methods it takes"
        );
    }

    #[test]
    fn path_tricks_lead_nowhere() {
        for trick in ["/v1/titles/a%2Fb", "/v1/%2e%2e/admin", "/v1/titles/..", "/v1/me;x.css", "/v1/titles/a%00"] {
            assert_eq!(get(trick), Route::NotFound, "{trick}");
        }
        assert_eq!(get(&format!("/v1/home?{}", "a".repeat(9000))), Route::TooLong);
    }

    #[test]
    fn a_proxy_keeps_paths_and_queries_as_they_are() {
        let of = |method, target| classify(Mode::Proxy, method, target);
        assert_eq!(of("GET", "/a%2Fb?z=1&a=2"), cached("/a%2Fb?z=1&a=2"));
        assert_eq!(of("DELETE", "/a"), Route::Pass { target: "/a".into() });
        assert_eq!(of("GET", "/__edge/health"), Route::Edge("health".into()));
    }

    #[test]
    fn the_target_is_path_and_query() {
        for (url, target) in
            [("http://h:1/a?b#c", "/a?b"), ("http://h", "/"), ("http://h?x=/y", "?x=/y"), ("https://h/a://b", "/a://b")]
        {
            assert_eq!(target_of(url), target);
        }
    }
}
