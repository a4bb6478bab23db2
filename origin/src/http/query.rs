//! Reading the query of a request: every fault of the parameters a call knows is named, unknown ones are ignored, and a
//! cursor is taken only by the list it came from.
use super::extract::NUL_MESSAGE;
use crate::catalog::validate::check_id;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use base64ct::{Base64UrlUnpadded, Encoding};
use kv_schemas::Problem;
use kv_schemas::problem::Fault;
use std::convert::Infallible;
use std::str::FromStr;

/// Of the lists for staff: how many things a page has, and at most.
const PAGE_DEFAULT: u32 = 50;
pub const PAGE_MAX: u32 = 200;

/// The parameters of a request, each of which may be given once.
pub struct Query {
    /// Name and value as they came, names decoded.
    given: Vec<(String, String)>,
    /// Names that the call has asked for.
    known: Vec<String>,
    /// Whether what the call does not know is a fault. Of staff it is: a `dry-run` that is not understood would purge. What
    /// viewers' links carry besides is nobody's business, and the edge takes it off.
    refuses_strangers: bool,
    faults: Vec<Fault>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let refuses_strangers = parts.uri.path().starts_with("/admin/");
        Ok(Self { refuses_strangers, ..Self::read(parts.uri.query().unwrap_or("")) })
    }
}

/// `%xx` and `+`; `None` if it is no UTF-8.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                // Digits alone: `from_str_radix` takes a sign as well.
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// A whole number in digits alone.
pub fn whole<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The cursor of a list by id: the last one shown. Ids of viewers an import brought are those of the system they come from.
pub fn id_cursor(text: &str) -> Option<String> {
    check_id(text).is_ok().then(|| text.to_string())
}

impl Query {
    pub fn read(query: &str) -> Self {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decoded(name)?, value.to_string()))
        };
        // What has no readable name is none that is known.
        let given = query.split('&').filter(|pair| !pair.is_empty()).filter_map(pair).collect();
        Self { given, known: Vec::new(), refuses_strangers: false, faults: Vec::new() }
    }

    pub fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.faults.push(Fault { at: name.into(), message: message.into() });
    }

    /// `expected`: as in "must be …".
    pub fn take<T>(&mut self, name: &str, expected: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.known.push(name.into());
        let mut values = self.given.iter().filter(|(given, _)| given == name).map(|(_, value)| value);
        let value = decoded(values.next()?);
        let message = match value {
            _ if values.next().is_some() => "must be given once".to_string(),
            None => "is not percent-encoded UTF-8".to_string(),
            Some(value) if value.contains('\0') => NUL_MESSAGE.to_string(),
            Some(value) => match read(&value) {
                Some(value) => return Some(value),
                None => format!("must be {expected}"),
            },
        };
        self.fault(name, message);
        None
    }

    /// As [`Self::take`], of one that must be there.
    pub fn require<T>(&mut self, name: &str, expected: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        if self.given.iter().all(|(given, _)| given != name) {
            self.fault(name, format!("must be {expected}"));
        }
        self.take(name, expected, read)
    }

    pub fn limit(&mut self, default: u32, max: u32) -> u32 {
        let read = |text: &str| whole(text).filter(|n| (1..=max).contains(n));
        self.take("limit", &format!("a whole number from 1 to {max}"), read).unwrap_or(default)
    }

    /// Which part of a list for staff: how many, and after which place.
    pub fn page<T>(&mut self, place: impl Fn(&str) -> Option<T>) -> (u32, Option<T>) {
        let after = self.take("cursor", "a next_cursor of this list", place);
        (self.limit(PAGE_DEFAULT, PAGE_MAX), after)
    }

    pub fn end(mut self) -> Result<(), Problem> {
        if self.refuses_strangers {
            for (name, _) in self.given {
                if !self.known.contains(&name) {
                    self.faults.push(Fault { at: name.clone(), message: "is no parameter of this call".into() });
                    self.known.push(name);
                }
            }
        }
        if self.faults.is_empty() {
            return Ok(());
        }
        Err(Problem { errors: self.faults, ..Problem::new(400, "query-invalid", "The query has faults") })
    }
}

/// A cursor: opaque to clients, and bound to its list.
pub fn cursor<T: serde::Serialize>(list: &str, place: &T) -> String {
    Base64UrlUnpadded::encode_string(serde_json::json!([list, place]).to_string().as_bytes())
}

pub fn place<T: serde::de::DeserializeOwned>(list: &str, cursor: &str) -> Option<T> {
    let bytes = Base64UrlUnpadded::decode_vec(cursor).ok()?;
    // None of ours has a U+0000, which a database may not take.
    if bytes.windows(6).any(|six| six == br"\u0000") {
        return None;
    }
    let (of, place): (String, T) = serde_json::from_slice(&bytes).ok()?;
    (of == list).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_to_its_own_list_as_it_went() {
        let text = cursor("genre=drama", &("heat \"1\"", 3));
        assert_eq!(place::<(String, i64)>("genre=drama", &text), Some(("heat \"1\"".into(), 3)));
        assert_eq!(place::<(String, i64)>("genre=war", &text), None);
        for bad in ["", "x", "e30", "WyJhIl0", "ééé"] {
            assert_eq!(place::<(String, i64)>("", bad), None, "{bad:?}");
        }
    }

    #[test]
    fn percent_encoding_is_two_hexadecimal_digits() {
        assert_eq!(decoded("%c3%A4+%2B"), Some("ä +".into()));
        for bad in ["%+5", "%5+", "% 5", "%-1", "%g0", "%5", "%", "%ff"] {
            assert_eq!(decoded(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_fault_of_a_query_is_named_and_strangers_are_ignored() {
        let at = |query: &str| {
            let mut query = Query::read(query);
            query.limit(5, 100);
            query.take("q", "an x", |text| (text == "x y").then_some(()));
            query.end().map_err(|p| p.errors.into_iter().map(|fault| fault.at).collect::<Vec<_>>())
        };
        assert_eq!(at("limit=0&q=z"), Err(vec!["limit".to_string(), "q".to_string()]));
        for bad in ["limit=1&limit=2", "limit=101", "limit=+5", "limit=", "limit=%ff"] {
            assert_eq!(at(bad), Err(vec!["limit".to_string()]), "{bad}");
        }
        assert_eq!(at("utm=1&limit=5&q=x+y"), Ok(()));
        assert_eq!(at("q=x%20y"), Ok(()));
    }

    #[test]
    fn what_staff_misspell_is_a_fault() {
        let at = |text: &str| {
            let mut query = Query { refuses_strangers: true, ..Query::read(text) };
            query.take("dry_run", "true", |text| (text == "true").then_some(()));
            query.end().map_err(|p| p.errors.into_iter().map(|fault| fault.at).collect::<Vec<_>>())
        };
        assert_eq!(at("dry_run=true"), Ok(()));
        assert_eq!(at(""), Ok(()));
        assert_eq!(at("dry-run=true&wait=applied&wait="), Err(vec!["dry-run".to_string(), "wait".to_string()]));
    }
}
