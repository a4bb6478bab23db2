//! Web apps on other origins: which of them a browser lets read the API's answers (Fetch standard, "CORS protocol"). It keeps
//! nobody out but scripts in browsers; who may see what is decided by tokens.

/// The setting `WEB_ORIGINS`: none, `*` by itself, or a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebOrigins(Vec<String>);

/// More are rather a question for a registry.
const ORIGINS_MAX: usize = 16;
const ANY: &str = "*";

pub const ALLOWED: &str = "access-control-allow-origin";

/// Fields of answers that a script sees beside those it always does. Not `*`: older browsers take that for a name.
pub const EXPOSED: (&str, &str) = (
    "access-control-expose-headers",
    "etag, location, retry-after, ratelimit, ratelimit-policy, surrogate-as-of, x-request-id, cache-status, \
     idempotency-replayed",
);

/// What is said of an answer to a preflight, besides what is said of every answer.
pub const PREFLIGHT: [(&str, &str); 3] = [
    ("access-control-allow-methods", "GET, HEAD, POST, PUT, PATCH, DELETE"),
    // One by one: `*` would not stand for `authorization`.
    (
        "access-control-allow-headers",
        "authorization, content-type, if-match, if-none-match, if-modified-since, min-as-of, idempotency-key, traceparent, \
         tracestate",
    ),
    // Longer no widespread browser remembers it.
    ("access-control-max-age", "7200"),
];

/// Whether an answer's field speaks of this. Where the setting is on, no service has a say.
pub fn is_about_web_apps(name: &str) -> bool {
    name.starts_with("access-control-")
}

impl WebOrigins {
    /// `None`: it cannot be right.
    pub fn read(text: &str) -> Option<Self> {
        let mut origins = Vec::new();
        for one in text.split_whitespace() {
            if origins.len() == ORIGINS_MAX || !(is_origin(one) || text == ANY) {
                return None;
            }
            origins.push(one.to_string());
        }
        Some(Self(origins))
    }

    pub fn is_on(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether answers differ by who asks. With `*`, or one origin, all say the same, and browsers compare.
    pub fn depends_on_origin(&self) -> bool {
        self.0.len() > 1
    }

    /// Whether apps of this origin may use the API.
    pub fn admits(&self, origin: &str) -> bool {
        self.named(Some(origin)).is_some_and(|named| named == ANY || named == origin)
    }

    /// Whom an answer to a request from this origin names ([`ALLOWED`]), if anybody; then it has [`EXPOSED`] as well. Never that a
    /// browser may send credentials of its own (`Access-Control-Allow-Credentials`): the API knows none.
    pub fn named(&self, origin: Option<&str>) -> Option<&str> {
        let is_for_all = !self.depends_on_origin();
        self.0.iter().map(String::as_str).find(|one| is_for_all || Some(*one) == origin)
    }
}

/// An origin as browsers serialise it (HTML standard, "ASCII serialization of an origin"), its host a name or an address of IPv4:
/// anything else would never be met.
fn is_origin(text: &str) -> bool {
    // What ends the parts: the scheme, nothing, nothing, the host. The last is a port.
    const ENDS: &[u8] = b"://:";
    let (mut part, mut is_empty) = (0_usize, true);
    for byte in text.bytes() {
        let is_taken = match byte {
            b'0'..=b'9' => matches!(part, 0 | 3 | 4),
            b'a'..=b'z' | b'+' | b'-' | b'.' | b'_' => matches!(part, 0 | 3),
            _ => false,
        };
        let is_end = ENDS.get(part) == Some(&byte) && is_empty == matches!(part, 1 | 2);
        if !is_taken && !is_end {
            return false;
        }
        is_empty = is_end;
        part = part.saturating_add(usize::from(is_end));
    }
    part > 2 && !is_empty
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named<'a>(origins: &'a WebOrigins, origin: &str) -> Option<&'a str> {
        origins.named(Some(origin).filter(|origin| !origin.is_empty()))
    }

    #[test]
    fn origins_are_taken_as_browsers_write_them_and_in_no_other_form() {
        for good in [
            "https://app.example",
            "http://localhost:5173",
            "http://127.0.0.1:3000",
            "https://xn--bcher-kva.example",
            "capacitor://localhost",
            "https://a.example:80",
        ] {
            let origins = WebOrigins::read(good).unwrap_or_else(|| panic!("{good}"));
            assert!(origins.admits(good) && origins.is_on() && !origins.depends_on_origin(), "{good}");
        }
        for bad in [
            "app.example",
            "https://",
            "https:///",
            "https://app.example/",
            "https://app.example/path",
            "https://app.example?a",
            "https://App.example",
            "HTTPS://app.example",
            "https://*.app.example",
            "https://user@app.example",
            "https://b\u{fc}cher.example",
            "https://app.example,https://b.example",
            "https://app.example:",
            "https://app.example:+1",
            "https://app.example:8443a",
            "https:/app.example",
            "https:///app.example",
            "https:app.example",
            "https://a:1:2",
            "https://[::1]",
            "https://::1",
            "://app.example",
            "null",
            "https://app.example *",
            "* *",
        ] {
            assert_eq!(WebOrigins::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_list_has_an_end() {
        let list = |count: usize| (0..count).map(|n| format!("https://{n}.example ")).collect::<String>();
        assert!(WebOrigins::read(&list(16)).is_some());
        assert_eq!(WebOrigins::read(&list(17)), None);
    }

    #[test]
    fn nothing_is_said_unless_it_is_set() {
        for empty in ["", " \n "] {
            let none = WebOrigins::read(empty).unwrap();
            assert_eq!(
                (none.is_on(), none.depends_on_origin(), none.admits("https://a.example")),
                (false, false, false)
            );
            assert_eq!((named(&none, "https://a.example"), named(&none, "")), (None, None));
        }
    }

    #[test]
    fn one_origin_or_any_is_said_to_all_alike_and_of_a_list_each_its_own() {
        let (a, b, c) = ("https://a.example", "https://b.example", "https://c.example");
        let any = WebOrigins::read("*").unwrap();
        let one = WebOrigins::read(a).unwrap();
        let list = WebOrigins::read("https://a.example  https://b.example").unwrap();
        for (origins, asks, said, admits) in [
            (&any, a, Some("*"), true),
            (&any, "null", Some("*"), true),
            (&one, a, Some(a), true),
            (&one, b, Some(a), false),
            (&one, "", Some(a), false),
            (&list, a, Some(a), true),
            (&list, b, Some(b), true),
            (&list, c, None, false),
            (&list, "https://a.example.evil", None, false),
            (&list, "https://a.example https://b.example", None, false),
            (&list, "*", None, false),
            (&list, "null", None, false),
            (&list, "", None, false),
        ] {
            assert_eq!((named(origins, asks), origins.admits(asks)), (said, admits), "{origins:?} {asks}");
        }
        assert_eq!([&any, &one, &list].map(WebOrigins::depends_on_origin), [false, false, true]);
    }
}
