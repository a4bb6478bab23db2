//! Reading the query of a client's request: every fault of the known parameters is named, unknown ones are ignored, and a
//! cursor is taken only by the list it came from.
use base64ct::{Base64UrlUnpadded, Encoding};
use kv_schemas::Problem;
use std::collections::HashMap;

/// Decoded parameters, each of which may be given once.
pub struct Query {
    given: HashMap<String, String>,
    problem: Problem,
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

impl Query {
    pub fn read(query: &str, known: &[&str]) -> Self {
        let mut given = HashMap::new();
        let mut problem = Problem::new(400, "query-invalid", "The query has faults");
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                continue;
            }
            match decoded(value) {
                None => problem = problem.fault(name, "is not percent-encoded UTF-8"),
                Some(value) if value.contains('\0') => problem = problem.fault(name, "must not contain U+0000"),
                Some(value) => {
                    if given.insert(name.to_string(), value).is_some() {
                        problem = problem.fault(name, "must be given once");
                    }
                }
            }
        }
        Self { given, problem }
    }

    pub fn fault(&mut self, name: &str, message: impl Into<String>) {
        let problem = std::mem::replace(&mut self.problem, Problem::new(400, "", ""));
        self.problem = problem.fault(name, message);
    }

    /// `expected`: as in "must be …".
    pub fn take<T>(&mut self, name: &str, expected: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.given.remove(name)?;
        let value = read(&text);
        if value.is_none() {
            self.fault(name, format!("must be {expected}"));
        }
        value
    }

    /// One that must be there; `expected` as for [`Self::take`].
    pub fn require(&mut self, name: &str, expected: &str) {
        let is_named = self.given.contains_key(name) || self.problem.errors.iter().any(|fault| fault.at == name);
        if !is_named {
            self.fault(name, format!("must be {expected}"));
        }
    }

    pub fn limit(&mut self, default: u32, max: u32) -> u32 {
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let read = |text: &str| text.parse().ok().filter(|n| (1..=max).contains(n) && plain(text));
        self.take("limit", &format!("a whole number from 1 to {max}"), read).unwrap_or(default)
    }

    pub fn end(self) -> Result<(), Problem> {
        if self.problem.errors.is_empty() { Ok(()) } else { Err(self.problem) }
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
            let mut query = Query::read(query, &["limit", "q"]);
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
}
