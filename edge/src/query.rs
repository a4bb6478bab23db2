//! Query parameters of documents, each brought into one spelling: a value that can be written in two ways would be two
//! cache keys, and one that origin reads otherwise than the edge would be somebody else's key.
use gateway_rules::percent;
use gateway_rules::wanted::CURSOR_BYTES_MAX;
use kv_schemas::Problem;
use std::fmt::Write;

const SLUG_BYTES_MAX: usize = 100;
/// Characters of a search that are looked at.
pub const SEARCH_CHARS_MAX: usize = 100;

/// What a parameter's value may be.
#[derive(Clone, Copy, Debug)]
pub enum Parameter {
    /// Four digits.
    Year,
    Slug,
    /// What an earlier answer gave, as it gave it; what of it is origin's, `gateway_rules::wanted` has found.
    Cursor,
    /// What somebody typed: spaces are single, ASCII letters small.
    Search,
    OneOf(&'static [&'static str]),
}

/// RFC 3986 section 2.3.
pub fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The path with those parameters that are on the list, in the list's order. Unknown ones are dropped, and so are empty
/// ones; one that is given twice is refused, since two readers may take two different values.
pub fn normalise(path: &str, query: &str, allowed: &[(&str, Parameter)]) -> Result<String, Problem> {
    let mut target = path.to_string();
    let mut problem: Option<Problem> = None;
    for (name, parameter) in allowed {
        let mut values = query.split('&').filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == *name).then_some(value)
        });
        let Some(first) = values.next() else { continue };
        let value = match values.next() {
            Some(_) => Err("must be given once".to_string()),
            None => decoded(first).and_then(|value| parameter.one_spelling(&value)),
        };
        match value {
            Ok(value) if value.is_empty() => {}
            Ok(value) => {
                target.push(if target.contains('?') { '&' } else { '?' });
                target.push_str(name);
                target.push('=');
                encode(&mut target, &value);
            }
            Err(fault) => {
                let so_far =
                    problem.take().unwrap_or_else(|| Problem::new(400, "query-invalid", "The query has faults"));
                problem = Some(so_far.fault(*name, fault));
            }
        }
    }
    problem.map_or(Ok(target), Err)
}

impl Parameter {
    fn one_spelling(self, value: &str) -> Result<String, String> {
        let must = |what: &str| Err(format!("must be {what}"));
        let fits = |max: usize, legal: fn(u8) -> bool| value.len() <= max && value.bytes().all(legal);
        match self {
            _ if value.is_empty() => Ok(String::new()),
            Self::Year if value.len() == 4 && fits(4, |b| b.is_ascii_digit()) => Ok(value.into()),
            Self::Year => must("a year of four digits"),
            Self::Slug if fits(SLUG_BYTES_MAX, is_unreserved) => Ok(value.into()),
            Self::Slug => must("letters, digits and hyphens, at most 100"),
            Self::Cursor if fits(CURSOR_BYTES_MAX, is_unreserved) => Ok(value.into()),
            Self::Cursor => must("one an earlier page gave"),
            Self::OneOf(values) if values.contains(&value) => Ok(value.into()),
            Self::OneOf(values) => must(&format!("one of {}", values.join(", "))),
            Self::Search => searched(value).map_err(String::from),
        }
    }
}

fn searched(value: &str) -> Result<String, &'static str> {
    let mut text = String::with_capacity(value.len());
    for word in value.split([' ', '\t', '\n', '\r']).filter(|word| !word.is_empty()) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
    }
    text.make_ascii_lowercase();
    if text.chars().any(char::is_control) {
        return Err("has control characters");
    }
    if text.chars().count() > SEARCH_CHARS_MAX { Err("has more than 100 characters") } else { Ok(text) }
}

/// As `application/x-www-form-urlencoded`: a space may be a plus.
fn decoded(text: &str) -> Result<String, String> {
    percent::decoded(&text.replace('+', " ")).ok_or_else(|| "is not percent-encoded UTF-8".to_string())
}

fn encode(target: &mut String, value: &str) {
    for byte in value.bytes() {
        if is_unreserved(byte) {
            target.push(char::from(byte));
        } else {
            let _ = write!(target, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(&str, Parameter); 6] = [
        ("cursor", Parameter::Cursor),
        ("genre", Parameter::Slug),
        ("limit", Parameter::OneOf(&["100"])),
        ("q", Parameter::Search),
        ("sort", Parameter::OneOf(&["name", "-name"])),
        ("year", Parameter::Year),
    ];

    fn of(query: &str) -> Result<String, String> {
        normalise("/x", query, &ALL)
            .map_err(|problem| problem.errors.iter().map(|fault| fault.at.as_str()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn each_value_has_one_spelling_and_each_query_one_order() {
        for (query, target) in [
            ("", "/x"),
            ("limit=", "/x"),
            ("limit", "/x"),
            ("unknown=1&%6Cimit=100", "/x"),
            ("limit=100&genre=crime", "/x?genre=crime&limit=100"),
            ("genre=%63rime", "/x?genre=crime"),
            ("q=The+Wire", "/x?q=the%20wire"),
            ("q=%20the%20%20WIRE%20", "/x?q=the%20wire"),
            ("q=am%C3%A9lie", "/x?q=am%C3%A9lie"),
            ("q=+", "/x"),
            ("q=a%26limit%3D1", "/x?q=a%26limit%3D1"),
            ("sort=-name", "/x?sort=-name"),
            ("year=1995", "/x?year=1995"),
        ] {
            assert_eq!(of(query).as_deref(), Ok(target), "{query}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (query, faults) in [
            ("limit=ten", "limit"),
            ("limit=0100", "limit"),
            ("limit=100&limit=100", "limit"),
            ("limit=100&sort=size&year=95", "sort year"),
            ("genre=a%2Fb", "genre"),
            ("genre=%zz", "genre"),
            ("q=%FF", "q"),
            ("q=a%00b", "q"),
            (&format!("q={}", "a".repeat(101)), "q"),
            (&format!("cursor={}", "a".repeat(1_001)), "cursor"),
            ("cursor=a%0d%0ab", "cursor"),
        ] {
            assert_eq!(of(query), Err(faults.into()), "{query}");
        }
    }
}
