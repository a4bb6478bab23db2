//! Cache-Control (RFC 9111 section 5.2), CDN-Cache-Control (RFC 9213) and Pragma, as data.
//!
//! Parsing never fails as a whole: what is not understood is left out, and what is understood but malformed is read
//! in the way that stores or serves less.
use crate::fields::Fields;
use crate::targeted::{Value, dictionary};
use kv_schemas::header::{CDN_CACHE_CONTROL, SURROGATE_CONTROL};

/// RFC 9111 section 1.2.2: a larger number of seconds counts as this one.
pub const DELTA_S_MAX: u64 = 2_147_483_648;

/// Splits a list at commas that stand outside of quoted strings. A quote that is never closed hides nothing: what follows
/// may forbid something.
fn members(value: &str) -> impl Iterator<Item = &str> {
    let (mut rest, mut are_closed) = (Some(value), true);
    std::iter::from_fn(move || {
        let list = rest?;
        let quoted_end = if are_closed { end_of_member(list) } else { None };
        are_closed = quoted_end.is_some();
        let end = quoted_end.or_else(|| list.find(',')).unwrap_or(list.len());
        rest = list.get(end..).and_then(|rest| rest.strip_prefix(','));
        list.get(..end)
    })
    .map(|member| member.trim_matches([' ', '\t']))
    .filter(|member| !member.is_empty())
}

/// Where the first member of a list ends; `None`: in a quote that is never closed.
fn end_of_member(list: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return Some(at),
            _ => {}
        }
    }
    (!quoted).then_some(list.len())
}

/// Name in lower case, and the argument without its quotes.
fn directive(member: &str) -> (String, Option<String>) {
    match member.split_once('=') {
        None => (member.trim_end().to_ascii_lowercase(), None),
        Some((name, argument)) => {
            let argument = argument.trim_start();
            let argument = match argument.strip_prefix('"') {
                Some(rest) => rest.strip_suffix('"').unwrap_or(rest).replace('\\', ""),
                None => argument.to_string(),
            };
            (name.trim_end().to_ascii_lowercase(), Some(argument))
        }
    }
}

/// RFC 9111 section 1.2.2: delta-seconds is `1*DIGIT`. A malformed one is 0.
///
/// Section 4.2.1: "Caches are encouraged to consider responses that have invalid freshness information (e.g., a
/// max-age directive with a non-integer value) to be stale."
fn delta_s(argument: Option<&str>) -> u64 {
    let digits = argument.unwrap_or("");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return 0;
    }
    digits.parse::<u64>().map_or(DELTA_S_MAX, |seconds| seconds.min(DELTA_S_MAX))
}

/// RFC 9110 section 5.1: `field-name = token`, and section 16.3.2.1 wants names to begin with a letter: `private=1` is more
/// likely somebody's idea of "yes" than a field.
fn is_field_name(name: &str) -> bool {
    let is_token_char = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(is_token_char)
}

/// The field names `private` or `no-cache` is limited to; `None`: it holds for the whole answer.
///
/// RFC 9111 sections 5.2.2.4 and 5.2.2.7 know the directive "without an argument" and with one that "lists one or more
/// field names". An argument that names no field must not be taken for a list of none, which would limit it to nothing; and
/// one with something else among its names not for a list of the others.
fn field_names(argument: Option<&str>) -> Option<Vec<String>> {
    let names = argument?.split(',').map(|name| name.trim().to_ascii_lowercase());
    let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
    (!names.is_empty() && names.iter().all(|name| is_field_name(name))).then_some(names)
}

/// Directives that let less be done with an answer.
const FORBIDDING: [&str; 5] = ["private", "no-cache", "no-store", "must-revalidate", "proxy-revalidate"];

/// What an answer says about caching it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    pub no_store: bool,
    /// Without field names: validate each time.
    pub no_cache: bool,
    /// `no-cache="field"`: these fields must not be reused without validation.
    pub no_cache_fields: Vec<String>,
    pub private: bool,
    /// `private="field"`: these fields must not be stored by a shared cache.
    pub private_fields: Vec<String>,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub max_age_s: Option<u64>,
    pub s_maxage_s: Option<u64>,
    pub stale_while_revalidate_s: Option<u64>,
    pub stale_if_error_s: Option<u64>,
}

impl ResponseDirectives {
    /// Reads `Cache-Control`.
    pub fn from_cache_control(value: &str) -> Self {
        let mut read = Self::default();
        for member in members(value) {
            let (name, argument) = directive(member);
            read.take(&name, argument.as_deref());
        }
        read
    }

    /// Reads a targeted field (RFC 9213). `None` when it is absent, empty or no Structured Field dictionary.
    ///
    /// Section 2.1: "If a targeted field in a given message is empty, or if a parsing error is encountered, that
    /// field MUST be ignored by the cache".
    pub fn from_targeted(value: &str) -> Option<Self> {
        let members = dictionary(value)?;
        if members.is_empty() {
            return None;
        }
        let mut read = Self::default();
        for (key, value) in members {
            // RFC 9213 section 2.1 takes types from the directives' own definitions: a lifetime is an Integer. One of
            // another type is an error like any other, and the field is ignored.
            let is_lifetime = matches!(key, "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error");
            if is_lifetime && !matches!(value, Value::Integer(seconds) if seconds >= 0) {
                return None;
            }
            match value {
                Value::True => read.take(key, None),
                Value::Integer(seconds) if seconds >= 0 => read.take(key, Some(&seconds.to_string())),
                Value::String(names) => read.take(key, Some(&names)),
                // `private=("set-cookie")` limits as little as `private` does: what is no String names no field. And who writes
                // `no-store=yes` does not mean that it may be stored.
                Value::Integer(_) | Value::Other if FORBIDDING.contains(&key) => read.take(key, None),
                Value::False | Value::Integer(_) | Value::Other => {}
            }
        }
        Some(read)
    }

    fn take(&mut self, name: &str, argument: Option<&str>) {
        // RFC 9111 section 4.2.1: "When there is more than one value present for a given directive [...] either the
        // first occurrence should be used or the response should be considered stale."
        let first = |slot: &mut Option<u64>| {
            slot.get_or_insert(delta_s(argument));
        };
        match name {
            "no-store" => self.no_store = true,
            "no-cache" => match field_names(argument) {
                None => self.no_cache = true,
                Some(names) => self.no_cache_fields.extend(names),
            },
            "private" => match field_names(argument) {
                None => self.private = true,
                Some(names) => self.private_fields.extend(names),
            },
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "max-age" => first(&mut self.max_age_s),
            "s-maxage" => first(&mut self.s_maxage_s),
            "stale-while-revalidate" => first(&mut self.stale_while_revalidate_s),
            "stale-if-error" => first(&mut self.stale_if_error_s),
            _ => {}
        }
    }

    /// Reads `Surrogate-Control` (W3C Note "Edge Architecture Specification", 2001), what networks understood before RFC
    /// 9213: a lifetime or `no-store`. Directives with a parameter are meant for a named surrogate, which is none of
    /// ours. `None` if it says neither.
    pub fn from_surrogate_control(value: &str) -> Option<Self> {
        let mut read = Self::default();
        for (name, argument) in members(value).filter(|member| !member.contains(';')).map(directive) {
            // "max-age=60+10": the second number extends the use of a stale answer.
            let seconds = argument.as_deref().map(|argument| argument.split('+').next().unwrap_or(argument));
            if matches!(name.as_str(), "max-age" | "no-store") {
                read.take(&name, seconds);
            }
        }
        (read != Self::default()).then_some(read)
    }

    /// The directives that hold for this cache. RFC 9213 section 2.2 has each cache keep a list of targeted fields, of
    /// which the first usable one counts; here `CDN-Cache-Control`, then `Surrogate-Control`, then `Cache-Control`. The
    /// flag tells whether it was a targeted one, which also outranks `Expires`.
    pub fn of(fields: &Fields) -> (Self, bool) {
        let read = |name: &str, read: fn(&str) -> Option<Self>| fields.joined(name).as_deref().and_then(read);
        let targeted = read(CDN_CACHE_CONTROL, Self::from_targeted)
            .or_else(|| read(SURROGATE_CONTROL, Self::from_surrogate_control));
        if let Some(targeted) = targeted {
            return (targeted, true);
        }
        (Self::from_cache_control(&fields.joined("cache-control").unwrap_or_default()), false)
    }

    /// RFC 9111 section 4.2.4: "A cache MUST NOT generate a stale response if it is prohibited by an explicit in-protocol
    /// directive".
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.no_cache
    }

    /// Section 5.2.2.10: s-maxage "incorporates the semantics of the proxy-revalidate response directive". An origin that
    /// also grants a stale window (RFC 5861) has spoken more precisely, of this window and of nothing else: what the
    /// client would put up with stays forbidden.
    pub fn forbids_ungranted_stale(&self) -> bool {
        self.forbids_stale() || self.s_maxage_s.is_some()
    }
}

/// What a request demands of the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    pub no_store: bool,
    pub no_cache: bool,
    pub only_if_cached: bool,
    pub max_age_s: Option<u64>,
    pub min_fresh_s: Option<u64>,
    /// `max-stale` without argument is any staleness.
    pub max_stale_s: Option<u64>,
    pub stale_if_error_s: Option<u64>,
}

impl RequestDirectives {
    pub fn of(fields: &Fields) -> Self {
        let mut read = Self::default();
        let Some(value) = fields.joined("cache-control") else {
            // RFC 9111 section 5.4: "When the Cache-Control header field is not present in a request, caches MUST
            // consider the no-cache request pragma-directive as having the same effect as if 'Cache-Control:
            // no-cache' were present". (RFC 7234's wording; 9111 keeps Pragma as deprecated input.)
            read.no_cache =
                members(&fields.joined("pragma").unwrap_or_default()).any(|member| directive(member).0 == "no-cache");
            return read;
        };
        for member in members(&value) {
            let (name, argument) = directive(member);
            let seconds = delta_s(argument.as_deref());
            match name.as_str() {
                "no-store" => read.no_store = true,
                "no-cache" => read.no_cache = true,
                "only-if-cached" => read.only_if_cached = true,
                "max-age" => read.max_age_s = Some(seconds),
                "min-fresh" => read.min_fresh_s = Some(seconds),
                "max-stale" => read.max_stale_s = Some(argument.map_or(DELTA_S_MAX, |_| seconds)),
                "stale-if-error" => read.stale_if_error_s = Some(seconds),
                _ => {}
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_and_is_written_wrong_forbids_all_the_same() {
        for value in
            ["no-store=yes", "no-store=1.5", "no-store=(a)", "no-store=2", "no-store=\"a\"", "max-age=60, no-store=yes"]
        {
            let read = ResponseDirectives::from_targeted(value);
            assert!(read.as_ref().is_some_and(|read| read.no_store), "{value}: {read:?}");
        }
        assert!(!ResponseDirectives::from_targeted("max-age=60, no-store=?0").expect("it parses").no_store);
        for value in ["must-revalidate=yes, max-age=1", "proxy-revalidate=(a), max-age=1"] {
            let read = ResponseDirectives::from_targeted(value).expect("it parses");
            assert!(read.must_revalidate || read.proxy_revalidate, "{value}: {read:?}");
        }
        // A list that holds something else than names limits nothing.
        for value in ["private=\"a b, set-cookie\"", "no-cache=\"x, =\""] {
            let read = ResponseDirectives::from_cache_control(value);
            assert!(read.private || read.no_cache, "{value}: {read:?}");
            assert!(read.private_fields.is_empty() && read.no_cache_fields.is_empty(), "{value}: {read:?}");
        }
    }
    use proptest::prelude::*;

    fn cc(value: &str) -> ResponseDirectives {
        ResponseDirectives::from_cache_control(value)
    }

    #[test]
    fn cache_control_in_its_odd_forms() {
        let table: [(&str, Option<u64>); 14] = [
            ("max-age=10", Some(10)),
            ("MAX-AGE=10", Some(10)),
            ("max-age=\"10\"", Some(10)),
            ("  max-age=10 , public", Some(10)),
            ("a=\"x, max-age=5\", max-age=10", Some(10)),
            ("a=\"\\\", max-age=5\", max-age=10", Some(10)),
            ("max-age=10, max-age=20", Some(10)),
            ("max-age", Some(0)),
            ("max-age=", Some(0)),
            ("max-age=-1", Some(0)),
            ("max-age=1.5", Some(0)),
            ("max-age=99999999999999999999999", Some(DELTA_S_MAX)),
            ("max-age10", None),
            ("", None),
        ];
        for (value, expected) in table {
            assert_eq!(cc(value).max_age_s, expected, "{value:?}");
        }
    }

    #[test]
    fn no_cache_with_fields_is_not_no_cache() {
        let read = cc("no-cache=\"Set-Cookie, x\", private=\"a\"");
        assert!(!read.no_cache && !read.private);
        assert_eq!(read.no_cache_fields, ["set-cookie", "x"]);
        assert_eq!(read.private_fields, ["a"]);
    }

    #[test]
    fn private_and_no_cache_without_a_field_name_hold_for_the_whole_answer() {
        for argument in ["", "=\"\"", "=", "=1", "=\" \"", "=\", ,\"", "=\"a b\"", "=\"\u{e9}\"", "=\"1\""] {
            let read = cc(&format!("private{argument}, no-cache{argument}"));
            assert!(read.private && read.no_cache, "{argument:?}");
            assert!(read.private_fields.is_empty() && read.no_cache_fields.is_empty(), "{argument:?}");
        }
        assert_eq!(cc("private=x-user").private_fields, ["x-user"], "the token form is a name as well");
        for value in ["=(\"set-cookie\")", "=()", "=1", "=-1", "=1.5", "=token", "=\"\"", "=:aGk=:", "=@1", "=?1", ""] {
            let field = format!("max-age=60, private{value}, no-cache{value}");
            let read = ResponseDirectives::from_targeted(&field).unwrap();
            assert!(read.private && read.no_cache, "{value:?}");
        }
        let absent = ResponseDirectives::from_targeted("max-age=60, private=?0, no-cache=?0").unwrap();
        assert!(!absent.private && !absent.no_cache);
    }

    #[test]
    fn a_quote_that_is_never_closed_hides_nothing_that_forbids() {
        for forbidding in ["no-store", "private", "no-cache"] {
            for value in
                ["ext=\"x, {}", "max-age=60, ext=\"x, y, {}", "ext=\"x\\\", {}", "\", a=\"b\", {}", "{}, ext=\"x, y"]
            {
                let value = value.replace("{}", forbidding);
                let (read, plain) = (cc(&value), cc(forbidding));
                let of = |read: &ResponseDirectives| (read.no_store, read.private, read.no_cache);
                assert_eq!(of(&read), of(&plain), "{value}");
            }
        }
        assert!(!cc("ext=\"x, no-store\", max-age=60").no_store, "closed, it is a word of somebody's");
        // In one pass, however many commas follow.
        assert_eq!(members(&format!("\"{}", ",".repeat(1_000_000))).count(), 1);
    }

    #[test]
    fn a_targeted_field_is_a_structured_field_or_nothing() {
        let read = |value| ResponseDirectives::from_targeted(value);
        assert_eq!(read("max-age=60, stale-if-error=5").unwrap().stale_if_error_s, Some(5));
        assert!(read("no-store").unwrap().no_store);
        assert!(!read("no-store=?0").unwrap().no_store);
        for ignored in [
            "max-age=\"60\"",
            "max-age=6.5",
            "max-age",
            "max-age=-1",
            "",
            "max-age=60,",
            "Max-Age=60",
            "max-age=;",
            "=",
            "max-age=60 public",
        ] {
            assert_eq!(read(ignored), None, "{ignored:?}");
        }
    }

    #[test]
    fn the_targeted_field_wins_over_cache_control() {
        let fields: Fields = [("cache-control", "no-store"), ("cdn-cache-control", "max-age=9")].into_iter().collect();
        let (read, targeted) = ResponseDirectives::of(&fields);
        assert!(targeted && !read.no_store && read.max_age_s == Some(9));
    }

    #[test]
    fn surrogate_control_is_read_where_nothing_newer_is() {
        let read = |value| ResponseDirectives::from_surrogate_control(value);
        assert_eq!(read("content=\"ESI/1.0\", MAX-AGE=60+10").unwrap().max_age_s, Some(60));
        assert!(read("no-store").unwrap().no_store);
        for none in ["", "foo", "max-age=60;not-for-you", "private"] {
            assert_eq!(read(none), None, "{none:?}");
        }
        let fields: Fields =
            [("surrogate-control", "max-age=9"), ("cdn-cache-control", "max-age=5"), ("cache-control", "no-store")]
                .into_iter()
                .collect();
        assert_eq!(ResponseDirectives::of(&fields).0.max_age_s, Some(5));
        let fields: Fields = [("surrogate-control", "max-age=9"), ("cache-control", "no-store")].into_iter().collect();
        assert_eq!(ResponseDirectives::of(&fields).0.max_age_s, Some(9));
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        let with: Fields = [("pragma", "no-cache")].into_iter().collect();
        assert!(RequestDirectives::of(&with).no_cache);
        let both: Fields = [("pragma", "no-cache"), ("cache-control", "max-age=1")].into_iter().collect();
        assert!(!RequestDirectives::of(&both).no_cache);
    }

    /// Names in any letter case, numbers bare or quoted, and between them what nobody knows, which may have in quotes what is a
    /// directive outside of them.
    fn directive_list() -> impl Strategy<Value = (String, Vec<(String, Option<u64>)>)> {
        const FLAGS: [&str; 8] = [
            "no-store",
            "no-cache",
            "private",
            "public",
            "must-revalidate",
            "proxy-revalidate",
            "must-understand",
            "only-if-cached",
        ];
        const LIFETIMES: [&str; 6] =
            ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "min-fresh", "max-stale"];
        let cased = |names: &'static [&'static str]| {
            (prop::sample::select(names), any::<u32>()).prop_map(|(name, upper)| {
                let cased = name.char_indices().map(|(at, c)| match upper >> (at % 32) & 1 {
                    1 => c.to_ascii_uppercase(),
                    _ => c,
                });
                (name.to_string(), cased.collect::<String>())
            })
        };
        let member = prop_oneof![
            cased(&FLAGS).prop_map(|(name, written)| (written, Some((name, None)))),
            (cased(&LIFETIMES), 0..3_000_000_000_u64, any::<bool>()).prop_map(|((name, written), seconds, quoted)| {
                let quote = if quoted { "\"" } else { "" };
                (format!("{written}={quote}{seconds}{quote}"), Some((name, Some(seconds))))
            }),
            "x[a-z]{0,3}".prop_map(|name| (name, None)),
            ("x[a-z]{0,3}", r#"([ -!#-\[\]-~]|no-store,|max-age=7|\\.){0,8}"#)
                .prop_map(|(name, quoted)| (format!("{name}=\"{quoted}\""), None)),
        ];
        prop::collection::vec((member, "[ \t]{0,2},[ ,\t]{0,2}"), 1..8).prop_map(|members| {
            let text = members.iter().map(|((written, _), comma)| format!("{written}{comma}")).collect();
            (text, members.into_iter().filter_map(|((_, meant), _)| meant).collect())
        })
    }

    proptest! {
        #[test]
        fn a_list_is_read_as_it_was_meant((text, meant) in directive_list()) {
            let has = |name: &str| meant.iter().any(|(other, _)| other == name);
            let all = |name: &str| -> Vec<u64> {
                let of = meant.iter().filter(|(other, _)| other == name);
                of.filter_map(|(_, seconds)| seconds.map(|seconds| seconds.min(DELTA_S_MAX))).collect()
            };
            let (first, last) = (|name: &str| all(name).first().copied(), |name: &str| all(name).last().copied());
            let answer = ResponseDirectives {
                no_store: has("no-store"),
                no_cache: has("no-cache"),
                private: has("private"),
                public: has("public"),
                must_revalidate: has("must-revalidate"),
                proxy_revalidate: has("proxy-revalidate"),
                must_understand: has("must-understand"),
                max_age_s: first("max-age"),
                s_maxage_s: first("s-maxage"),
                stale_while_revalidate_s: first("stale-while-revalidate"),
                stale_if_error_s: first("stale-if-error"),
                ..ResponseDirectives::default()
            };
            prop_assert_eq!(&cc(&text), &answer, "{:?}", text);
            let request = RequestDirectives {
                no_store: has("no-store"),
                no_cache: has("no-cache"),
                only_if_cached: has("only-if-cached"),
                max_age_s: last("max-age"),
                min_fresh_s: last("min-fresh"),
                max_stale_s: last("max-stale"),
                stale_if_error_s: last("stale-if-error"),
            };
            let fields = [("cache-control", text.as_str())].into_iter().collect();
            prop_assert_eq!(RequestDirectives::of(&fields), request, "{:?}", text);
            // Whichever lists of fields it comes in.
            let (one, other) = text.split_at(text.find(',').unwrap_or(text.len()));
            if !one.contains('"') {
                let lines = [("cache-control", one), ("cache-control", other)].into_iter().collect();
                prop_assert_eq!(ResponseDirectives::of(&lines), (answer, false));
            }
        }

        /// What stands first is read, whatever follows; and no number is larger than the largest.
        #[test]
        fn what_forbids_is_not_undone_by_what_follows(any in ".{0,100}", likely in "[a-z=\", 0-9-]{0,60}") {
            for value in [any, likely] {
                let read = cc(&value);
                for seconds in [read.max_age_s, read.s_maxage_s, read.stale_while_revalidate_s, read.stale_if_error_s] {
                    prop_assert!(seconds.is_none_or(|seconds| seconds <= DELTA_S_MAX), "{:?}", value);
                }
                let forbidding = cc(&format!("no-store, private, no-cache, max-age=0, {value}"));
                prop_assert!(forbidding.no_store && forbidding.private && forbidding.no_cache, "{:?}", value);
                prop_assert_eq!(forbidding.max_age_s, Some(0));
                let field = format!("no-store, no-cache, only-if-cached, {value}");
                let asked = RequestDirectives::of(&[("cache-control", field.as_str())].into_iter().collect());
                prop_assert!(asked.no_store && asked.no_cache && asked.only_if_cached, "{:?}", value);
            }
        }

        /// A targeted field says what Cache-Control of the same words says, where both can be said (RFC 9213 section 2.2).
        #[test]
        fn the_same_words_mean_the_same_in_either_field(
            members in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(vec!["no-store", "no-cache", "private", "must-revalidate", "x"])
                        .prop_map(String::from),
                    ("max-age|s-maxage|stale-if-error", 0..4_000_000_000_u64)
                        .prop_map(|(name, seconds)| format!("{name}={seconds}")),
                    ("private|no-cache", "[a-z]{1,4}(, ?[a-z]{1,4}){0,2}")
                        .prop_map(|(name, fields)| format!("{name}=\"{fields}\"")),
                ],
                1..6,
            ),
        ) {
            // A dictionary has one value for a key.
            let by_key = members.into_iter().map(|member| (member.split('=').next().unwrap().to_string(), member));
            let by_key: std::collections::BTreeMap<String, String> = by_key.collect();
            let text = by_key.into_values().collect::<Vec<_>>().join(", ");
            prop_assert_eq!(ResponseDirectives::from_targeted(&text), Some(cc(&text)), "{:?}", text);
        }
    }
}
