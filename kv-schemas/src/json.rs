//! Reads JSON (RFC 8259) into the types of this crate. The Workers' own reader, a fifth of the size of the library's in Wasm:
//! it knows integers and no fractions, objects for structs, strings for enums, and one way to say what is wrong.
use serde::de::value::StringDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
};
use serde::de::{Unexpected, Visitor};
use std::fmt::Display;

/// As the library's.
const DEPTH_MAX: u8 = 127;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct JsonError {
    what: String,
    at: usize,
}

impl JsonError {
    #[cold]
    fn of(what: &str) -> Self {
        Self { what: what.into(), at: 0 }
    }
}

/// Texts that name no value: values are a client's, and numbers would bring the printing of fractions along.
impl de::Error for JsonError {
    fn custom<T: Display>(what: T) -> Self {
        Self { what: what.to_string(), at: 0 }
    }
    fn invalid_type(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self::of("a value of another type than belongs here")
    }
    fn invalid_value(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self::of("a value that cannot be here")
    }
    fn invalid_length(_: usize, _: &dyn Expected) -> Self {
        Self::of("a list of another length than belongs here")
    }
    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Self::of("a word that is not one of those possible here")
    }
    fn unknown_field(field: &str, _: &'static [&'static str]) -> Self {
        Self { what: ["unknown field `", field, "`"].concat(), at: 0 }
    }
    fn missing_field(field: &'static str) -> Self {
        Self { what: ["missing field `", field, "`"].concat(), at: 0 }
    }
    fn duplicate_field(field: &'static str) -> Self {
        Self { what: ["duplicate field `", field, "`"].concat(), at: 0 }
    }
}

type Result<T> = std::result::Result<T, JsonError>;

/// Reads a whole text.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    let mut reader =
        Reader { rest: std::str::from_utf8(text).map_err(|_| JsonError::of("text that is not UTF-8"))?, depth: 0 };
    let read = T::deserialize(&mut reader);
    let read = read.and_then(|value| match reader.peek() {
        None => Ok(value),
        Some(_) => Err(JsonError::of("something after the end")),
    });
    read.map_err(|error| JsonError { at: text.len().saturating_sub(reader.rest.len()), ..error })
}

struct Reader<'a> {
    rest: &'a str,
    depth: u8,
}

impl Reader<'_> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.rest.bytes().next()
    }

    fn takes(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, text: &str) -> Result<()> {
        self.peek();
        if self.takes(text) { Ok(()) } else { Err(JsonError { what: ["expected ", text].concat(), at: 0 }) }
    }

    fn string(&mut self) -> Result<String> {
        self.expect("\"")?;
        let mut text = String::new();
        loop {
            let plain = self.rest.find(|c: char| matches!(c, '"' | '\\' | '\0'..='\x1f'));
            let (before, after) = plain.and_then(|at| self.rest.split_at_checked(at)).unwrap_or((self.rest, ""));
            text.push_str(before);
            self.rest = after;
            if self.takes("\"") {
                return Ok(text);
            }
            if !self.takes("\\") {
                return Err(JsonError::of("a string that does not end, or a control character in one"));
            }
            text.push(self.escaped()?);
        }
    }

    fn escaped(&mut self) -> Result<char> {
        let mut rest = self.rest.chars();
        let named = rest.next();
        self.rest = rest.as_str();
        match named {
            Some(same @ ('"' | '\\' | '/')) => Ok(same),
            Some('b') => Ok('\x08'),
            Some('f') => Ok('\x0c'),
            Some('n') => Ok('\n'),
            Some('r') => Ok('\r'),
            Some('t') => Ok('\t'),
            Some('u') => {
                let unit = self.unit()?;
                // RFC 8259 section 7: "a 12-character sequence, encoding the UTF-16 surrogate pair".
                let second =
                    if (0xd800..0xdc00).contains(&unit) && self.takes("\\u") { Some(self.unit()?) } else { None };
                let units = std::iter::once(unit).chain(second);
                let mut decoded = char::decode_utf16(units);
                match (decoded.next(), decoded.next()) {
                    (Some(Ok(c)), None) => Ok(c),
                    _ => Err(JsonError::of("half of a surrogate pair")),
                }
            }
            _ => Err(JsonError::of("an escape that is none")),
        }
    }

    fn unit(&mut self) -> Result<u16> {
        let wrong = || JsonError::of("an escape that is none");
        let (digits, rest) = self.rest.split_at_checked(4).ok_or_else(wrong)?;
        self.rest = rest;
        digits.bytes().try_fold(0, |unit: u16, digit| {
            let digit = char::from(digit).to_digit(16).and_then(|digit| u16::try_from(digit).ok()).ok_or_else(wrong)?;
            Ok((unit << 4) | digit)
        })
    }

    /// The text of a number.
    fn number(&mut self) -> Result<&str> {
        let end = self.rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'));
        let (number, rest) = end.and_then(|at| self.rest.split_at_checked(at)).unwrap_or((self.rest, ""));
        self.rest = rest;
        let (whole, exponent) =
            number.split_once(['e', 'E']).map_or((number, None), |(whole, power)| (whole, Some(power)));
        let (whole, fraction) = whole.split_once('.').map_or((whole, None), |(whole, rest)| (whole, Some(rest)));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let whole = whole.strip_prefix('-').unwrap_or(whole);
        let is_number = digits(whole)
            && (whole == "0" || !whole.starts_with('0'))
            && fraction.is_none_or(digits)
            && exponent.is_none_or(|power| digits(power.strip_prefix(['+', '-']).unwrap_or(power)));
        if is_number { Ok(number) } else { Err(JsonError::of("expected a value")) }
    }

    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= DEPTH_MAX {
            return Err(JsonError::of("too many values within values"));
        }
        self.depth = self.depth.saturating_add(1);
        let done = work(self);
        self.depth = self.depth.saturating_sub(1);
        done
    }

    fn map<'de, V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        self.expect("{")?;
        self.deeper(|reader| {
            let value = visitor.visit_map(Members { reader, is_first: true })?;
            reader.expect("}")?;
            Ok(value)
        })
    }

    fn list<'de, V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        self.expect("[")?;
        self.deeper(|reader| {
            let value = visitor.visit_seq(Members { reader, is_first: true })?;
            reader.expect("]")?;
            Ok(value)
        })
    }

    /// Reads over one value.
    fn skip(&mut self) -> Result<()> {
        match self.peek() {
            Some(b'{') => self.map(de::IgnoredAny).map(|_| ()),
            Some(b'[') => self.list(de::IgnoredAny).map(|_| ()),
            Some(b'"') => self.string().map(|_| ()),
            _ if self.takes("null") || self.takes("true") || self.takes("false") => Ok(()),
            _ => self.number().map(|_| ()),
        }
    }
}

/// What lies between the brackets of a list or an object.
struct Members<'r, 'a> {
    reader: &'r mut Reader<'a>,
    is_first: bool,
}

impl Members<'_, '_> {
    /// Whether another one follows; the comma before it is read.
    fn more(&mut self, end: u8) -> Result<bool> {
        if self.reader.peek() == Some(end) {
            return Ok(false);
        }
        if !std::mem::take(&mut self.is_first) {
            self.reader.expect(",")?;
        }
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for Members<'_, '_> {
    type Error = JsonError;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if self.more(b']')? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for Members<'_, '_> {
    type Error = JsonError;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if !self.more(b'}')? {
            return Ok(None);
        }
        let name: StringDeserializer<JsonError> = self.reader.string()?.into_deserializer();
        seed.deserialize(name).map(Some)
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        self.reader.expect(":")?;
        seed.deserialize(&mut *self.reader)
    }
}

impl<'de> Deserializer<'de> for &mut Reader<'_> {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek() {
            Some(b'{') => self.map(visitor),
            Some(b'[') => self.list(visitor),
            Some(b'"') => self.deserialize_string(visitor),
            _ if self.takes("null") => visitor.visit_unit(),
            _ if self.takes("true") => visitor.visit_bool(true),
            _ if self.takes("false") => visitor.visit_bool(false),
            _ => self.deserialize_u64(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.peek() {
            Some(b'"') => visitor.visit_string(self.string()?),
            _ => Err(JsonError::of("expected a string")),
        }
    }
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_string(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.peek();
        let number = self.number()?.parse();
        visitor.visit_u64(number.map_err(|_| JsonError::of("expected a whole number, not below zero"))?)
    }
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_u64(visitor)
    }
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.peek();
        let value = self.takes("true");
        if value || self.takes("false") {
            visitor.visit_bool(value)
        } else {
            Err(JsonError::of("expected true or false"))
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.peek();
        if self.takes("null") { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.list(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let word: StringDeserializer<JsonError> = self.string()?.into_deserializer();
        visitor.visit_enum(word)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.skip()?;
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u16 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct map identifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PurgeBatch, PurgeRequest};
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::Value;

    /// Every kind of value the crate's types are made of.
    #[derive(Debug, PartialEq, Deserialize)]
    struct Every {
        text: Option<String>,
        number: Option<u64>,
        small: Option<u8>,
        truth: Option<bool>,
        list: Option<Vec<Every>>,
        word: Option<crate::PurgeMode>,
    }

    fn same<T: DeserializeOwned + PartialEq + std::fmt::Debug>(text: &[u8]) -> std::result::Result<(), TestCaseError> {
        prop_assert_eq!(from_slice::<T>(text).ok(), serde_json::from_slice::<T>(text).ok());
        Ok(())
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (0_u64..300).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[a-z\"\\\\\u{1f600}é\n\0]{0,6}".prop_map(Value::from),
            prop_oneof![Just("soft"), Just("hard")].prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            let name = prop_oneof![
                prop_oneof![Just("text"), Just("number"), Just("small"), Just("truth"), Just("list"), Just("word")]
                    .prop_map(String::from),
                "[a-z]{1,3}"
            ];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((name, inner), 0..6).prop_map(|members| members.into_iter().collect())
            ]
        })
    }

    /// The library takes lists for structs too; nobody here sends them.
    fn lists_stand_where_lists_belong(value: &Value) -> bool {
        let members = value.as_object().into_iter().flatten();
        members.into_iter().all(|(name, member)| match member {
            Value::Array(list) => {
                name != "list" || list.iter().all(|one| one.is_object() && lists_stand_where_lists_belong(one))
            }
            _ => true,
        }) && value.is_object()
    }

    proptest! {
        #[test]
        fn values_are_read_as_the_library_reads_them(value in value(), pretty: bool) {
            if lists_stand_where_lists_belong(&value) {
                let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
                same::<Every>(&text)?;
            }
        }

        #[test]
        fn a_text_that_is_damaged_is_refused_when_the_library_refuses_it(
            at in 0_usize..200, byte: u8, cut in 0_usize..200,
        ) {
            let good = br#"{"keys":["a","b\u00e9\ud83d\ude00"],"mode":"soft","reason":"x\ny"}"#;
            let mut bad = good.to_vec();
            if let Some(place) = bad.get_mut(at) {
                *place = byte;
            }
            bad.truncate(cut.max(3));
            same::<PurgeRequest>(&bad)?;
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"a-e\\\\u0-9.eE+ -]{0,40}") {
            let ours = from_slice::<de::IgnoredAny>(text.as_bytes()).is_ok();
            let library = serde_json::from_str::<de::IgnoredAny>(&text).is_ok();
            // Of what it reads over the library does not look at escapes.
            let is_right = if text.contains("\\u") { !ours || library } else { ours == library };
            prop_assert!(is_right, "{}", text);
        }
    }

    #[test]
    fn the_golden_batch_is_read() {
        let golden =
            br#"{"log_id":"a","first_seq":1,"purges":[{"seq":1,"keys":["k"],"mode":"hard","committed_at_ms":1}]}"#;
        assert_eq!(from_slice::<PurgeBatch>(golden).unwrap(), serde_json::from_slice::<PurgeBatch>(golden).unwrap());
    }

    #[test]
    fn depth_is_bounded_and_errors_say_where() {
        let deep = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(from_slice::<de::IgnoredAny>(&deep(127)).is_ok());
        assert!(from_slice::<de::IgnoredAny>(&deep(100_000)).is_err());
        let error = from_slice::<PurgeRequest>(br#"{"keys":["a"],"mod":"soft"}"#).unwrap_err();
        assert_eq!(error.to_string(), "unknown field `mod` at byte 19");
        let error = from_slice::<PurgeRequest>(br#"{"keys":["a b"]}"#).unwrap_err();
        assert_eq!(error.to_string(), "a surrogate key is visible ASCII without comma at byte 14");
        for fraction in ["1.5", "1e3", "-1", "18446744073709551616"] {
            assert!(from_slice::<u64>(fraction.as_bytes()).is_err(), "{fraction}");
        }
    }
}
