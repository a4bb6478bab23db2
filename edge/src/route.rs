//! The route table: what a path is, which cache key it has, and what origin is asked for. Pure, tested natively.
//!
//! A cache key is made of what is on the list and of nothing else, so that no stranger's query parameter or header
//! can fragment the cache or put an answer under a key it does not belong to.
use crate::query::{self, Parameter};
use crate::settings::Mode;
use crate::viewer::Depends;
use kv_schemas::Problem;

pub use platform::target_of;

/// Longest path with query that is served.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Longest identifier in a document's path.
const ID_BYTES_MAX: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/__edge/…`
    Edge(String),
    /// A GET or HEAD that may be answered from the cache. Origin is asked for the target; the key is that and the
    /// dimensions the document depends on.
    Cached {
        target: String,
        depends: Depends,
    },
    /// A GET or HEAD of what is the viewer's own.
    Own {
        target: String,
    },
    /// Another method on what is the viewer's own.
    OwnWrite {
        target: String,
    },
    /// To origin and back, never stored.
    Pass {
        target: String,
    },
    /// Query parameters nobody can make sense of.
    Invalid(Problem),
    NotFound,
    TooLong,
}

/// A document: path segments (`*` is an identifier), the query parameters that change the answer, and what about the
/// viewer does.
struct Document {
    segments: &'static [&'static str],
    query: &'static [(&'static str, Parameter)],
    depends: Depends,
}

const NONE: &[(&str, Parameter)] = &[];
const RATED: Depends = Depends { region: true, locale: true, maturity: true, plan: false };

const fn document(segments: &'static [&'static str], query: &'static [(&'static str, Parameter)]) -> Document {
    Document { segments, query, depends: RATED }
}

/// Pages of origin have one of two lengths, and the shorter one is not said (`gateway_rules::wanted`).
const PAGE: Parameter = Parameter::OneOf(&["100"]);

/// What anybody may read, out of entries that many share. A test of origin's reads these two tables: what it serves and they
/// do not have would be passed on each time.
const DOCUMENTS: [Document; 11] = [
    Document { depends: Depends { plan: true, ..RATED }, ..document(&["v1", "home"], NONE) },
    document(
        &["v1", "catalog"],
        &[
            ("cursor", Parameter::Cursor),
            ("genre", Parameter::Slug),
            ("kind", Parameter::OneOf(&["film", "series"])),
            ("limit", PAGE),
            ("sort", Parameter::OneOf(&["name", "-name", "year", "-year", "rating", "-rating", "added", "-added"])),
            ("year", Parameter::Year),
        ],
    ),
    document(&["v1", "titles", "*"], NONE),
    document(&["v1", "titles", "*", "similar"], NONE),
    document(&["v1", "series", "*"], NONE),
    document(&["v1", "series", "*", "seasons", "*"], NONE),
    document(&["v1", "people", "*"], NONE),
    document(&["v1", "collections", "*"], NONE),
    document(&["v1", "search"], &[("cursor", Parameter::Cursor), ("limit", PAGE), ("q", Parameter::Search)]),
    Document { depends: Depends { locale: true, ..Depends::NOTHING }, ..document(&["v1", "genres"], NONE) },
    Document { depends: Depends::NOTHING, ..document(&[".well-known", "jwks.json"], NONE) },
];

/// What is the viewer's own. Origin gives its lists whole.
const OWN: [Document; 3] = [
    document(&["v1", "me"], NONE),
    document(&["v1", "me", "continue-watching"], NONE),
    document(&["v1", "me", "watch-list"], NONE),
];

/// Paths handed to origin's services as they are.
const PASSED: [&str; 5] = ["admin", "auth", "media", "v1", ".well-known"];

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
        let depends = Depends::NOTHING;
        return if is_read { Route::Cached { target, depends } } else { Route::Pass { target } };
    }
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    if is_evasive(&segments) {
        return Route::NotFound;
    }
    // No id of ours is written with escapes, and origin would undo them: the same document by a way that knows no viewer.
    if path.contains('%') && matches!(segments.first(), Some(&"v1" | &".well-known")) {
        return Route::NotFound;
    }
    let query = query.unwrap_or("");
    let own = segments.starts_with(&["v1", "me"]);
    if is_read {
        let shared = find(&DOCUMENTS, &segments).map(|document| (document, false));
        if let Some((document, is_own)) = shared.or_else(|| find(&OWN, &segments).map(|document| (document, true))) {
            return match query::normalise(path, query, document.query) {
                Err(problem) => Route::Invalid(problem),
                Ok(target) if is_own => Route::Own { target },
                Ok(target) => Route::Cached { target, depends: document.depends },
            };
        }
    } else if own {
        return Route::OwnWrite { target: target.to_string() };
    }
    match segments.first() {
        Some(first) if PASSED.contains(first) => Route::Pass { target: target.to_string() },
        _ => Route::NotFound,
    }
}

/// Whether the platform keeps a target as it is when it makes origin's URL of it: it has no segments of dots, and no characters that
/// are written otherwise in a URL. If not, the target is written as the platform would before anything is looked up: so a path
/// leads nowhere above `ORIGIN_URL`, and a write makes invalid what it has changed, however its URL is spelt.
pub fn is_usual(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or(target);
    target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&()*+,;=:@%/?[]|".contains(&byte))
        && !(path.contains("%2e") || path.contains("%2E"))
        && !path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Encoded slashes, backslashes, dots and control characters, parameters in a path, and segments without a name are how
/// one path is made to look like another on the way.
fn is_evasive(segments: &[&str]) -> bool {
    const TRICKS: [&str; 8] = ["%2f", "%5c", "%2e", "%3b", "%0", "%1", "\\", ";"];
    let last = segments.len().saturating_sub(1);
    segments.iter().enumerate().any(|(place, segment)| {
        let lower = segment.to_ascii_lowercase();
        matches!(*segment, "." | "..")
            || (segment.is_empty() && place != last)
            || TRICKS.iter().any(|trick| lower.contains(trick))
    })
}

fn find<'a>(documents: &'a [Document], segments: &[&str]) -> Option<&'a Document> {
    documents.iter().find(|document| matches_segments(document.segments, segments))
}

fn matches_segments(pattern: &[&str], segments: &[&str]) -> bool {
    let fits = |(want, have): (&&str, &&str)| if *want == "*" { is_id(have) } else { want == have };
    pattern.len() == segments.len() && pattern.iter().zip(segments).all(fits)
}

/// In one spelling only: an encoded letter would be a second key for the same answer.
fn is_id(segment: &str) -> bool {
    !segment.is_empty() && segment.len() <= ID_BYTES_MAX && segment.bytes().all(query::is_unreserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(target: &str) -> Route {
        classify(Mode::Gateway, "GET", target)
    }

    fn target(route: Route) -> String {
        let Route::Cached { target, .. } = route else { panic!("not cached: {route:?}") };
        target
    }

    #[test]
    fn unknown_parameters_neither_fragment_nor_poison() {
        for (asked, kept) in [
            ("/v1/home?utm_source=x&a", "/v1/home"),
            ("/v1/catalog?limit=100&x=1&genre=drama", "/v1/catalog?genre=drama&limit=100"),
            ("/v1/titles/heat?cb=1", "/v1/titles/heat"),
            ("/.well-known/jwks.json?x=1", "/.well-known/jwks.json"),
        ] {
            assert_eq!(target(get(asked)), kept);
        }
    }

    #[test]
    fn every_document_of_the_contract_is_on_the_table() {
        let all = "region locale maturity plan";
        let rated = "region locale maturity";
        for (path, depends) in [
            ("/v1/home", all),
            ("/v1/catalog", rated),
            ("/v1/titles/heat", rated),
            ("/v1/titles/heat/similar", rated),
            ("/v1/series/lost", rated),
            ("/v1/series/lost/seasons/1", rated),
            ("/v1/people/al-pacino", rated),
            ("/v1/collections/noir", rated),
            ("/v1/search", rated),
            ("/v1/genres", "locale"),
            ("/.well-known/jwks.json", ""),
        ] {
            let Route::Cached { depends: has, .. } = get(path) else { panic!("{path}") };
            let names =
                [("region", has.region), ("locale", has.locale), ("maturity", has.maturity), ("plan", has.plan)];
            let names: Vec<_> = names.into_iter().filter_map(|(name, is)| is.then_some(name)).collect();
            assert_eq!(names.join(" "), depends, "{path}");
        }
        for path in ["/v1/me", "/v1/me/continue-watching", "/v1/me/watch-list"] {
            assert_eq!(get(&format!("{path}?cursor=a&limit=5&x=1")), Route::Own { target: path.into() });
            let target = path.to_string();
            assert_eq!(classify(Mode::Gateway, "PUT", path), Route::OwnWrite { target });
        }
    }

    #[test]
    fn what_else_goes_by_path_knows_the_same_documents() {
        use gateway_rules::access;
        use gateway_rules::limits::Class;
        use gateway_rules::wanted::{LISTS, Pages};
        for list in &LISTS {
            assert!(DOCUMENTS.iter().any(|document| document.segments == list.segments), "{:?}", list.segments);
        }
        for document in DOCUMENTS.iter().chain(&OWN) {
            let pattern = format!("/{}", document.segments.join("/"));
            let is_in_pages =
                LISTS.iter().any(|list| list.segments == document.segments && list.pages == Pages::Origins);
            for name in ["cursor", "limit"] {
                let is_taken = document.query.iter().any(|(taken, _)| *taken == name);
                assert_eq!(is_taken, is_in_pages, "{pattern}: {name}");
            }
            // An id may be one of the names.
            let target = pattern.replace('*', "home");
            assert_eq!(access::route(&target), pattern);
            let class = if pattern == "/v1/search" { Class::Search } else { Class::Reads };
            assert_eq!(Class::of(&target), Some(class), "{pattern}");
        }
    }

    #[test]
    fn only_listed_documents_are_cached() {
        for passed in [
            "/v1/titles/",
            "/v1/me/x.css",
            "/v1/me/watch-list/x.css",
            "/v1/me/progress/heat",
            "/v1/me/",
            "/v1/me.css",
            "/v1/home/x",
            "/v1/home.css",
            "/v1/home/",
            "/v1/Me",
            "/admin/v1/titles",
            "/auth/login",
        ] {
            assert_eq!(get(passed), Route::Pass { target: passed.into() }, "{passed}");
        }
        for lost in ["/", "/internal/purges", "/metrics", "/v2/home", "//v1/home", "/V1/home", "/v1//home", "/v1//me"] {
            assert_eq!(get(lost), Route::NotFound, "{lost}");
        }
        // Origin undoes escapes: the same document, by a way that knows no viewer.
        for escaped in ["/v1/titles/%68eat", "/v1/%6De", "/v1/series/dark/seasons/%31", "/.well-known/%6Awks.json"] {
            assert_eq!(get(escaped), Route::NotFound, "{escaped}");
        }
        assert_eq!(
            classify(Mode::Gateway, "POST", "/v1/home"),
            Route::Pass { target: "/v1/home".into() },
            "origin knows which methods it takes"
        );
    }

    #[test]
    fn path_tricks_lead_nowhere() {
        for trick in [
            "/v1/titles/a%2Fb",
            "/v1/%2e%2e/admin",
            "/v1/titles/..",
            "/v1/me;x.css",
            "/v1/me%3Bx.css",
            "/v1/titles/a%00",
            "/v1/titles/a%0d%0aX:1",
            "/v1/titles/a%0A",
            "/v1/me%5cx",
        ] {
            assert_eq!(get(trick), Route::NotFound, "{trick}");
        }
        assert_eq!(get(&format!("/v1/home?{}", "a".repeat(9000))), Route::TooLong);
    }

    #[test]
    fn targets_that_the_platform_writes_in_another_way_are_told() {
        for usual in ["/", "/a%2Fb?z=1&a=2", "/...", "/.a/b..", "//a", "/a?x=/../", "/a?x[]=%2e%2e", "/a;b|c"] {
            assert!(is_usual(usual), "{usual}");
        }
        for other in [
            "/..",
            "/a/../b",
            "/./",
            "/a/.",
            "/%2e%2E/a",
            "/.%2e",
            "/a%2eb",
            "/a\\b",
            "/a\"",
            "/a b",
            "/a\tb",
            "/é",
            "/{a}",
            "/a?x='",
            "/a#b",
        ] {
            assert!(!is_usual(other), "{other}");
        }
    }

    #[test]
    fn a_proxy_keeps_paths_and_queries_as_they_are() {
        let of = |method, target| classify(Mode::Proxy, method, target);
        assert_eq!(target(of("GET", "/a%2Fb?z=1&a=2")), "/a%2Fb?z=1&a=2");
        assert_eq!(of("DELETE", "/a"), Route::Pass { target: "/a".into() });
        assert_eq!(of("GET", "/__edge/health"), Route::Edge("health".into()));
    }
}
