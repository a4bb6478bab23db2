//! The table of services: which upstream a path belongs to. An operator writes it as text, one row a line (or divided by
//! `;`): a path prefix, a URL, and what differs from the defaults.
//!
//! ```text
//! /admin  https://admin.origin.example  timeout_ms=30000
//! /auth   https://auth.origin.example   timeout_ms=5000 request_bytes_max=16384
//! ```
//!
//! The longest prefix that ends where a path segment ends wins; what no row names goes to the default service.

/// How long a service may take, and how much it may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Until its answer begins.
    pub timeout_ms: u64,
    /// From there to its end; 0: however long it takes.
    pub body_timeout_ms: u64,
    /// The longest content of a request.
    pub request_bytes_max: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The prefix without its first slash; `default` for what no row names.
    pub name: String,
    prefix: String,
    /// Scheme and authority, maybe a path, without a slash at the end.
    pub url: String,
    pub terms: Terms,
}

/// At least the default service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// The default's, whose prefix is empty, is first.
    rows: Vec<Service>,
}

const ROWS_MAX: usize = 32;

/// A service's place in the table.
pub type Index = usize;

impl Services {
    pub fn read(table: &str, default_url: &str, terms: Terms) -> Result<Self, String> {
        let mut rows = vec![Service { name: "default".into(), prefix: String::new(), url: url(default_url)?, terms }];
        for row in table.split(['\n', ';']) {
            let row = row.split('#').next().unwrap_or_default();
            let mut words = row.split_whitespace();
            let Some(prefix) = words.next() else { continue };
            let service = read_row(prefix, words, terms).map_err(|fault| format!("row '{}': {fault}", row.trim()))?;
            if rows.iter().any(|other| other.prefix == service.prefix) {
                return Err(format!("{prefix} is there twice"));
            }
            rows.push(service);
        }
        if rows.len() > ROWS_MAX {
            return Err(format!("more than {ROWS_MAX} services"));
        }
        Ok(Self { rows })
    }

    /// The service a path, or path with query, belongs to.
    pub fn of(&self, target: &str) -> Index {
        let path = target.split('?').next().unwrap_or(target);
        let is_of = |row: &Service| {
            path.strip_prefix(row.prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut longest = (0, 0);
        for (index, row) in self.rows.iter().enumerate() {
            if row.prefix.len() > longest.1 && is_of(row) {
                longest = (index, row.prefix.len());
            }
        }
        longest.0
    }

    pub fn get(&self, index: Index) -> Option<&Service> {
        self.rows.get(index)
    }

    /// Where requests go that no row names.
    pub fn default_url(&self) -> &str {
        self.rows.first().map_or("", |row| row.url.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.rows.iter()
    }
}

fn read_row<'a>(prefix: &str, mut words: impl Iterator<Item = &'a str>, mut terms: Terms) -> Result<Service, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
    let segments = prefix.strip_prefix('/').unwrap_or_default();
    if segments.split('/').any(|segment| segment.is_empty() || !segment.chars().all(is_plain)) {
        return Err("the prefix must be a path like /admin or /v1/search".into());
    }
    let url = url(words.next().ok_or("the URL is missing")?)?;
    for word in words {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let value = value.parse::<u64>().map_err(|_| format!("{name} must be a whole number"))?;
        match name {
            "timeout_ms" if value > 0 => terms.timeout_ms = value,
            "body_timeout_ms" => terms.body_timeout_ms = value,
            "request_bytes_max" => terms.request_bytes_max = value,
            _ => {
                let known = "timeout_ms=N (1 or more), body_timeout_ms=N or request_bytes_max=N";
                return Err(format!("'{word}' is not {known}"));
            }
        }
    }
    Ok(Service { name: segments.into(), prefix: prefix.into(), url, terms })
}

fn url(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or_default();
    if host.is_empty() || text.contains(['?', '#', ' ', '@']) {
        return Err(format!("'{text}' must be a URL beginning with http:// or https://, without query or user"));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { timeout_ms: 10_000, body_timeout_ms: 30_000, request_bytes_max: 1_000 };

    fn read(table: &str) -> Result<Services, String> {
        Services::read(table, "http://client:1/", TERMS)
    }

    #[test]
    fn the_longest_prefix_wins_where_a_segment_ends() {
        let services = read("/admin http://a:1\n  # a remark\n/v1/search http://s:1/base/ ; /v1 http://v:1\n").unwrap();
        let name = |target: &str| services.get(services.of(target)).unwrap().name.clone();
        for (target, service) in [
            ("/admin", "admin"),
            ("/admin/v1/titles?x=/v1", "admin"),
            ("/administrator", "default"),
            ("/v1/search?q=heat", "v1/search"),
            ("/v1/searching", "v1"),
            ("/v1/home", "v1"),
            ("/", "default"),
            ("", "default"),
        ] {
            assert_eq!(name(target), service, "{target}");
        }
        assert_eq!(services.get(services.of("/v1/search")).unwrap().url, "http://s:1/base");
        assert_eq!(services.get(services.of("/x")).unwrap().url, "http://client:1");
    }

    #[test]
    fn a_row_may_have_terms_of_its_own() {
        let services = read("/auth http://a:1 timeout_ms=5000;/media https://m body_timeout_ms=0").unwrap();
        let terms = |target: &str| services.get(services.of(target)).unwrap().terms;
        assert_eq!(terms("/auth/login"), Terms { timeout_ms: 5_000, ..TERMS });
        assert_eq!(terms("/media/1"), Terms { body_timeout_ms: 0, ..TERMS });
        assert_eq!(terms("/"), TERMS);
    }

    #[test]
    fn what_cannot_be_right_is_refused_with_its_row() {
        for (table, says) in [
            ("admin http://a", "prefix"),
            ("/ http://a", "prefix"),
            ("/a//b http://a", "prefix"),
            ("/a?b http://a", "prefix"),
            ("/admin", "URL is missing"),
            ("/admin ftp://a", "http://"),
            ("/admin http://", "http://"),
            ("/admin http://user@host", "user"),
            ("/admin http://a timeout_ms=x", "whole number"),
            ("/admin http://a timeout_ms=0", "1 or more"),
            ("/admin http://a colour=1", "is not"),
            ("/admin http://a\n/admin http://b", "twice"),
        ] {
            let fault = read(table).unwrap_err();
            assert!(fault.contains(says), "{table}: {fault}");
        }
    }
}
