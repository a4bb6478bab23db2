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
            if names.len() > VARY_FIELDS_MAX {
                return None;
            }
        }
    }
    Some(names)
}

/// The key of the variant these request fields select.
///
/// RFC 9111 section 4.1: fields match if they can be made equal by "adding or removing whitespace", by "combining
/// multiple header field lines" and by "normalizing both header field values in a way that is known to have identical
/// semantics"; absent matches only absent. A value is length-prefixed and a normalised one has another mark, so that no
/// client can write a value that reads as two, or as what another one normalises to.
pub fn variant_key(primary: &str, varies_on: &[String], request: &Fields) -> String {
    use std::fmt::Write;
    let mut key = String::from(primary);
    for name in varies_on {
        let value = request.joined(name);
        let ranges = value.as_deref().filter(|_| name == LANGUAGE).and_then(language_ranges);
        let _ = match (value, ranges) {
            (None, _) => write!(key, "\n{name}:-"),
            (_, Some(ranges)) => write!(key, "\n{name}={}", rendered(&ranges)),
            (Some(value), None) => {
                let value = value.split(',').map(str::trim).collect::<Vec<_>>().join(",");
                write!(key, "\n{name}:{}:{value}", value.len())
            }
        };
    }
    key
}

const LANGUAGE: &str = "accept-language";
/// Whoever sends more is compared letter by letter.
const RANGES_MAX: usize = 64;

/// A language range in lower case, and its weight in thousandths.
type LanguageRange = (String, u16);

/// `Accept-Language` (RFC 9110 section 12.5.4) as a set: most wanted first, then by name, since the order of ranges of
/// one weight carries no meaning that can be relied on. `None` if it does not parse, or has more ranges than anybody reads.
fn language_ranges(value: &str) -> Option<Vec<LanguageRange>> {
    let mut ranges: Vec<LanguageRange> = Vec::new();
    for member in value.split(',').map(str::trim).filter(|member| !member.is_empty()) {
        let (range, weight) = member.split_once(';').map_or((member, None), |(range, weight)| (range, Some(weight)));
        let range = range.trim().to_ascii_lowercase();
        let legal = !range.is_empty() && range.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'*');
        let weight = weight.map_or(Some(1000), thousandths)?;
        if !legal {
            return None;
        }
        if ranges.len() >= RANGES_MAX {
            return None;
        }
        let after = |other: &LanguageRange| {
            (1000_u16.saturating_sub(other.1), &other.0) < (1000_u16.saturating_sub(weight), &range)
        };
        let place = ranges.partition_point(after);
        if ranges.get(place).is_none_or(|other| *other != (range.clone(), weight)) {
            ranges.insert(place, (range, weight));
        }
    }
    (!ranges.is_empty()).then_some(ranges)
}

/// A `weight` (RFC 9110 section 12.4.2), such as `q=0.8`, in thousandths: at most three decimals, at most 1.
pub fn thousandths(weight: &str) -> Option<u16> {
    let (name, value) = weight.trim().split_once('=')?;
    let (whole, decimals) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
    let legal = name.trim().eq_ignore_ascii_case("q")
        && matches!(whole, "0" | "1")
        && decimals.len() <= 3
        && decimals.bytes().all(|b| b.is_ascii_digit());
    if !legal {
        return None;
    }
    let decimals: u16 = format!("{decimals:0<3}").parse().ok()?;
    let whole: u16 = if whole == "1" { 1000 } else { 0 };
    whole.checked_add(decimals).filter(|weight| *weight <= 1000)
}

fn rendered(ranges: &[LanguageRange]) -> String {
    let members =
        ranges.iter().map(|(range, weight)| if *weight == 1000 { range.clone() } else { format!("{range};{weight}") });
    members.collect::<Vec<_>>().join(",")
}

/// Where an answer in one language is found by whoever wants that language most.
///
/// A deviation from RFC 9111 section 4.1, by which a stored answer is for requests whose selecting fields match, and a
/// ranking of preferences chooses among such answers only. `en, de` and `de` do not match. Yet an origin that was asked
/// for either and chose German has said what it has for whoever wants German; so the answer is given to requests that
/// want this one language above all others, and these requests alone. What was only a second choice says less (who wants
/// `en-GB` and takes `en` may get British text that calls itself `en`) and is not given to others.
fn language_key(primary: &str, varies_on: &[String], request: &Fields, language: &str) -> Option<String> {
    if !varies_on.iter().any(|name| name == LANGUAGE) {
        return None;
    }
    let others: Vec<String> = varies_on.iter().filter(|name| *name != LANGUAGE).cloned().collect();
    Some(format!("{}\ncontent-language={language}", variant_key(primary, &others, request)))
}

/// The key an answer in a single language is also kept under, if its request wanted none more.
pub fn content_language_key(
    primary: &str,
    varies_on: &[String],
    request: &Fields,
    response: &Fields,
) -> Option<String> {
    let language = response.joined("content-language")?.trim().to_ascii_lowercase();
    let ranges = language_ranges(&request.joined(LANGUAGE)?)?;
    let (_, most) = ranges.first()?;
    let is_most_wanted = ranges.iter().any(|(range, weight)| *range == language && weight == most && *weight > 0);
    if is_most_wanted { language_key(primary, varies_on, request, &language) } else { None }
}

/// The key under which an answer in the one language a request wants most would be found.
pub fn wanted_language_key(primary: &str, varies_on: &[String], request: &Fields) -> Option<String> {
    let ranges = language_ranges(&request.joined(LANGUAGE)?)?;
    let (first, weight) = ranges.first()?;
    let is_alone = *weight > 0 && ranges.get(1).is_none_or(|(_, next)| next < weight) && !first.contains('*');
    if is_alone { language_key(primary, varies_on, request, first) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_more_languages_than_anybody_reads_the_letters_count() {
        let ranges = |count: usize| (0..count).rev().map(|n| format!("a{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(language_ranges(&ranges(RANGES_MAX)).map(|ranges| ranges.len()), Some(RANGES_MAX));
        assert_eq!(language_ranges(&ranges(RANGES_MAX + 1)), None);
    }
    use proptest::prelude::*;

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

    fn language(value: &str) -> String {
        variant_key("k", &["accept-language".to_string()], &[("accept-language", value)].into_iter().collect())
    }

    #[test]
    fn languages_are_a_weighted_set_without_case_or_order() {
        for same in ["de, en", "EN ,de", "de;q=1, en;q=1.000", "en,,de,de"] {
            assert_eq!(language(same), language("en, de"), "{same:?}");
        }
        assert_ne!(language("en;500"), language("en;q=0.5"), "no value reads as what another one normalises to");
        assert_ne!(language("=de,en"), language("en, de"));
        for other in ["en", "en, de;q=0.5", "en;q=0.5, de", "en, de, fr", "en-GB, de", "en, de;q=2", "en de", "\u{e9}"]
        {
            assert_ne!(language(other), language("en, de"), "{other:?}");
        }
    }

    #[test]
    fn an_answer_in_the_one_language_wanted_most_is_found_whatever_else_was_wanted() {
        let on = vec!["accept-language".to_string(), "x".to_string()];
        let wanted = |value: &str| {
            wanted_language_key("k", &on, &[("accept-language", value), ("x", "1")].into_iter().collect())
        };
        let made = |language: &str, x: &str| {
            let request = [("accept-language", "en, de"), ("x", x)].into_iter().collect();
            content_language_key("k", &on, &request, &[("content-language", language)].into_iter().collect())
        };
        assert_eq!(wanted("fr;q=0.5, DE;q=1.0"), made("de", "1"));
        assert!(made("de", "1").is_some());
        assert_ne!(wanted("de"), made("de", "2"), "other fields still select");
        for undecided in ["de, en", "*", "de;q=0", "de-*", "", "de;q=x"] {
            assert_eq!(wanted(undecided), None, "{undecided:?}");
        }
        assert_eq!(made("de, en", "1"), None, "two languages at once are not the one");
        let second = |accepted: &str| {
            let request = [("accept-language", accepted), ("x", "1")].into_iter().collect();
            content_language_key("k", &on, &request, &[("content-language", "en")].into_iter().collect())
        };
        assert!(second("en;q=0.8, de;q=0.8").is_some());
        for other in ["en-GB, en;q=0.8", "en-GB", "*", "en;q=0", "de", "en;q=x"] {
            assert_eq!(second(other), None, "origin chose it for want of something better: {other:?}");
        }
        assert_eq!(
            wanted_language_key("k", &["x".to_string()], &[("accept-language", "de")].into_iter().collect()),
            None
        );
    }

    /// A range, its weight in thousandths, and both as a client may write them.
    fn range() -> impl Strategy<Value = ((String, u16), String)> {
        let weight = prop::sample::select(vec![
            ("", 1000),
            (";q=1", 1000),
            (" ; Q=1.0", 1000),
            (";q=0.5", 500),
            (";q=0.500", 500),
            (";q=0.05", 50),
            (";q=0", 0),
        ]);
        ("(de|en|fr|\\*)(-at)?", any::<bool>(), weight).prop_map(|(range, upper, (written, weight))| {
            let cased = if upper { range.to_uppercase() } else { range.clone() };
            ((range, weight), format!("{cased}{written}"))
        })
    }

    fn list() -> impl Strategy<Value = (std::collections::BTreeSet<(String, u16)>, String)> {
        prop::collection::vec(range(), 1..4).prop_map(|ranges| {
            let (meant, written): (Vec<_>, Vec<_>) = ranges.into_iter().unzip();
            (meant.into_iter().collect(), written.join(" ,"))
        })
    }

    proptest! {
        /// A page in the wrong language comes of a key too few, a miss of one too many.
        #[test]
        fn two_lists_select_one_variant_if_they_want_the_same_and_only_then(one in list(), other in list()) {
            prop_assert_eq!(language(&one.1) == language(&other.1), one.0 == other.0, "{:?} and {:?}", one.1, other.1);
        }

        #[test]
        fn the_language_wanted_most_is_the_one_that_is_looked_for((meant, written) in list()) {
            let on = ["accept-language".to_string()];
            let key =
                |wanted: &str| wanted_language_key("k", &on, &[("accept-language", wanted)].into_iter().collect());
            let most = meant.iter().map(|(_, weight)| *weight).max().unwrap();
            let wanted: Vec<&String> =
                meant.iter().filter(|(_, weight)| *weight == most && most > 0).map(|(range, _)| range).collect();
            let looked_for = match wanted.as_slice() {
                [one] if !one.contains('*') => Some(format!("k\ncontent-language={one}")),
                _ => None,
            };
            prop_assert_eq!(key(&written), looked_for, "{:?}", written);
        }

        /// What does not parse selects by its letters, and no client can write what another's list comes to.
        #[test]
        fn no_value_reads_as_what_another_one_comes_to(any in "[ -~]{0,40}", (_, written) in list()) {
            let is_read = language_ranges(&any).is_some();
            prop_assert!(is_read || language(&any) != language(&written), "{:?} and {:?}", any, written);
            prop_assert!(is_read || language(&any).starts_with("k\naccept-language:"));
            prop_assert_ne!(variant_key("k", &["x".into()], &[("x", any.as_str())].into_iter().collect()), "k\nx:-");
            let on = ["accept-language".to_string()];
            let wanted = wanted_language_key("k", &on, &[("accept-language", any.as_str())].into_iter().collect());
            prop_assert!(wanted.is_none_or(|wanted| wanted != language(&any)), "an alias is never a variant's own key");
        }
    }
}
