//! Variants: which request fields select between several stored answers to one URL (RFC 9111 section 4.1).
use crate::fields::Fields;

/// More selecting fields than this, and the answer is not stored.
pub const VARY_FIELDS_MAX: usize = 8;

/// Request fields the edge always sends in one form, so that varying on them selects nothing.
const NORMALISED_AWAY: [&str; 1] = ["accept-encoding"];

/// The selecting fields of an answer: lower case, sorted, without repeats. `None`: it can match no later request.
pub fn selecting_fields(response: &Fields) -> Option<Vec<String>> {
    let Some(vary) = response.joined("vary") else { return Some(Vec::new()) };
    let mut names = Vec::new();
    for name in vary.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()) {
        if name == "*" {
            return None;
        }
        if !NORMALISED_AWAY.contains(&name.as_str())
            && let Err(place) = names.binary_search(&name)
        {
            names.insert(place, name);
        }
    }
    if names.len() > VARY_FIELDS_MAX { None } else { Some(names) }
}

/// The key of the variant these request fields select.
///
/// RFC 9111 section 4.1: fields match if they can be made equal by white space or by joining lines; absent matches
/// only absent. Values are length-prefixed, so that no client can write a value that reads as two.
pub fn variant_key(primary: &str, varies_on: &[String], request: &Fields) -> String {
    use std::fmt::Write;
    let mut key = String::from(primary);
    for name in varies_on {
        match request.joined(name) {
            None => {
                let _ = write!(key, "\n{name}:-");
            }
            Some(value) => {
                let value = value.split(',').map(str::trim).collect::<Vec<_>>().join(",");
                let _ = write!(key, "\n{name}:{}:{value}", value.len());
            }
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(vary: &str) -> Option<Vec<String>> {
        selecting_fields(&[("vary", vary)].into_iter().collect())
    }

    #[test]
    fn vary_is_a_sorted_set_without_accept_encoding() {
        assert_eq!(names("Foo, accept-encoding,bar, foo").unwrap(), ["bar", "foo"]);
        assert_eq!(names("a, *"), None);
        assert_eq!(names("a,b,c,d,e,f,g,h,i"), None);
    }

    #[test]
    fn variants_differ_by_value_and_absence_but_not_by_white_space() {
        let on = vec!["a".to_string()];
        let key = |fields: &[(&str, &str)]| variant_key("k", &on, &fields.iter().copied().collect());
        assert_eq!(key(&[("a", "1, 2")]), key(&[("a", "1"), ("a", " 2")]));
        assert_ne!(key(&[("a", "1")]), key(&[("a", "2")]));
        assert_ne!(key(&[]), key(&[("a", "")]));
        assert_ne!(key(&[("a", "-")]), key(&[]));
    }
}
