//! Structured Field dictionaries (RFC 9651 section 4.2.2), as far as a targeted cache field needs them: every form is
//! recognised, so that a malformed field is refused as a whole, but only booleans, integers and strings are kept.
//!
//! A reader of our own, since a full one with its maps and decimals would be a twentieth of the Worker.

/// A member's value; parameters are read and dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    True,
    False,
    Integer(i64),
    String(String),
    /// Decimals, tokens, byte sequences, dates, display strings, inner lists.
    Other,
}

/// There are fewer directives than that; RFC 9651 section 3.2 has parsers take 1,024 at least, and each is looked for among all
/// the others here.
const MEMBERS_MAX: usize = 1_024;

/// The members in order, the last of a repeated key in the first one's place. `None`: the field does not parse.
pub fn dictionary(text: &str) -> Option<Vec<(&str, Value)>> {
    let mut at = Cursor { rest: text.trim_matches(' ') };
    let mut members: Vec<(&str, Value)> = Vec::new();
    while !at.rest.is_empty() {
        let key = at.key()?;
        let value = if at.eat('=') { at.item_or_list()? } else { Value::True };
        at.parameters()?;
        let is_full = members.len() == MEMBERS_MAX;
        match members.iter_mut().find(|(k, _)| *k == key) {
            Some(member) => member.1 = value,
            None if is_full => return None,
            None => members.push((key, value)),
        }
        at.optional_white_space();
        if at.rest.is_empty() {
            return Some(members);
        }
        if !at.eat(',') {
            return None;
        }
        at.optional_white_space();
        if at.rest.is_empty() {
            // A trailing comma.
            return None;
        }
    }
    Some(members)
}

struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn eat(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn optional_white_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !keep(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn key(&mut self) -> Option<&'a str> {
        let starts = self.peek().is_some_and(|c| c.is_ascii_lowercase() || c == '*');
        starts.then(|| self.take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-.*".contains(c)))
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(';') {
            self.rest = self.rest.trim_start_matches(' ');
            self.key()?;
            if self.eat('=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    fn item_or_list(&mut self) -> Option<Value> {
        if !self.eat('(') {
            return self.bare_item();
        }
        loop {
            self.rest = self.rest.trim_start_matches(' ');
            if self.eat(')') {
                return Some(Value::Other);
            }
            self.bare_item()?;
            self.parameters()?;
            if !matches!(self.peek(), Some(' ' | ')')) {
                return None;
            }
        }
    }

    fn bare_item(&mut self) -> Option<Value> {
        match self.peek()? {
            '"' => self.string().map(Value::String),
            '?' => match self.rest.get(..2)? {
                "?1" => self.skip(2, Value::True),
                "?0" => self.skip(2, Value::False),
                _ => None,
            },
            '-' | '0'..='9' => self.number(),
            ':' => self.delimited(':', |c| c.is_ascii_alphanumeric() || "+/=".contains(c)),
            '@' => {
                self.eat('@');
                matches!(self.number()?, Value::Integer(_)).then_some(Value::Other)
            }
            '%' => {
                self.eat('%');
                self.delimited('"', |c| c.is_ascii() && !c.is_ascii_control())
            }
            c if c.is_ascii_alphabetic() || c == '*' => {
                self.take_while(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(c));
                Some(Value::Other)
            }
            _ => None,
        }
    }

    fn skip(&mut self, bytes: usize, value: Value) -> Option<Value> {
        self.rest = self.rest.get(bytes..)?;
        Some(value)
    }

    fn delimited(&mut self, delimiter: char, legal: impl Fn(char) -> bool) -> Option<Value> {
        self.eat(delimiter);
        self.take_while(|c| c != delimiter && legal(c));
        self.eat(delimiter).then_some(Value::Other)
    }

    fn number(&mut self) -> Option<Value> {
        let negative = self.eat('-');
        let digits = self.take_while(|c| c.is_ascii_digit());
        if digits.is_empty() {
            return None;
        }
        if self.eat('.') {
            let fraction = self.take_while(|c| c.is_ascii_digit());
            return (digits.len() <= 12 && (1..=3).contains(&fraction.len())).then_some(Value::Other);
        }
        if digits.len() > 15 {
            return None;
        }
        let number: i64 = digits.parse().ok()?;
        Some(Value::Integer(if negative { number.saturating_neg() } else { number }))
    }

    fn string(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut escaped = false;
        for (index, c) in self.rest.char_indices().skip(1) {
            match c {
                '"' | '\\' if escaped => {
                    escaped = false;
                    value.push(c);
                }
                _ if escaped => return None,
                '\\' => escaped = true,
                '"' => {
                    self.rest = self.rest.get(index.saturating_add(1)..)?;
                    return Some(value);
                }
                ' '..='~' => value.push(c),
                _ => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_rfc_9651_is_recognised() {
        let members = dictionary(
            "a=1, b, c=?0, d=\"x\\\"y\", e=1.5, f=tok/en, g=:aGk=:, h=(1 \"a\";p=1  b);q, i=-7;x=?1;y, j=@12, k=%\"a\"",
        );
        let members = members.unwrap();
        assert_eq!(members.len(), 11);
        assert_eq!(members[0], ("a", Value::Integer(1)));
        assert_eq!(members[1], ("b", Value::True));
        assert_eq!(members[2], ("c", Value::False));
        assert_eq!(members[3], ("d", Value::String("x\"y".into())));
        assert_eq!(members[8], ("i", Value::Integer(-7)));
        assert_eq!(dictionary("a=1, a=2").unwrap(), [("a", Value::Integer(2))]);
        assert_eq!(dictionary("  a=1 \t, b  ").unwrap().len(), 2);
    }

    #[test]
    fn one_fault_refuses_the_whole() {
        for bad in [
            "a=1,",
            ",a",
            "A=1",
            "a=1 b",
            "a=",
            "a=\"x",
            "a=(1",
            "a=(1,2)",
            "a=1.",
            "a=1.2345",
            "a=?2",
            "a=:x",
            "a;=1",
            "a=1;B",
            "a;b=",
            "a;b=,c",
            "a=(1\"x\")",
            "a=(1;b=)",
            "1=a",
            "a=\u{e9}",
            "a==1",
            "a=1234567890123456",
            "\ta",
        ] {
            assert_eq!(dictionary(bad), None, "{bad:?}");
        }
    }

    /// A bare item, as RFC 9651 section 3.3 has it written and as it is read.
    fn item() -> impl Strategy<Value = (String, Value)> {
        let string = "[ -~]{0,12}"
            .prop_map(|text| (format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")), Value::String(text)));
        let other = [
            "-?[0-9]{1,12}\\.[0-9]{1,3}",
            "[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]{0,6}",
            ":([A-Za-z0-9+/]{4}){0,2}:",
            "@-?[0-9]{1,15}",
            "%\"[ !#-$&-~]{0,6}\"",
        ];
        prop_oneof![
            Just(("?1".to_string(), Value::True)),
            Just(("?0".to_string(), Value::False)),
            (-999_999_999_999_999_i64..=999_999_999_999_999).prop_map(|n| (n.to_string(), Value::Integer(n))),
            string,
            prop::strategy::Union::new(other).prop_map(|text| (text, Value::Other)),
        ]
    }

    const KEY: &str = "[a-c*][a-c0-9_.*-]{0,2}";

    fn parameters() -> impl Strategy<Value = String> {
        let one = (" {0,2}", KEY, prop::option::of(item()));
        prop::collection::vec(one, 0..3).prop_map(|all| {
            let written = |(space, key, value): (String, String, Option<(String, Value)>)| match value {
                None => format!(";{space}{key}"),
                Some((text, _)) => format!(";{space}{key}={text}"),
            };
            all.into_iter().map(written).collect()
        })
    }

    /// A member as it is written, its key, and its value as it is read.
    fn member() -> impl Strategy<Value = (String, String, Value)> {
        let list = prop::collection::vec((item(), parameters(), " {1,2}"), 0..3).prop_map(|items| {
            let items: String =
                items.into_iter().map(|((text, _), more, space)| format!("{text}{more}{space}")).collect();
            (format!("=({items})"), Value::Other)
        });
        let value = prop_oneof![
            Just((String::new(), Value::True)),
            item().prop_map(|(text, value)| (format!("={text}"), value)),
            list,
        ];
        (KEY, value, parameters()).prop_map(|(key, (text, value), more)| (format!("{key}{text}{more}"), key, value))
    }

    /// The same of the library.
    fn value_of(entry: &sfv::ListEntry) -> Value {
        let sfv::ListEntry::Item(item) = entry else { return Value::Other };
        match &item.bare_item {
            sfv::BareItem::Boolean(true) => Value::True,
            sfv::BareItem::Boolean(false) => Value::False,
            sfv::BareItem::Integer(n) => Value::Integer(i64::from(*n)),
            sfv::BareItem::String(text) => Value::String(text.as_str().into()),
            _ => Value::Other,
        }
    }

    proptest! {
        #[test]
        fn what_the_rfc_lets_be_written_is_read_as_it_was_meant(
            members in prop::collection::vec((member(), "[ \t]{0,2},[ \t]{0,2}"), 1..6),
            space in " {0,2}",
        ) {
            let mut meant: Vec<(&str, Value)> = Vec::new();
            let mut text = space.clone();
            for (at, ((written, key, value), comma)) in members.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { comma });
                text.push_str(written);
                match meant.iter_mut().find(|(other, _)| other == key) {
                    Some(other) => other.1 = value.clone(),
                    None => meant.push((key, value.clone())),
                }
            }
            text.push_str(&space);
            prop_assert_eq!(dictionary(&text), Some(meant), "{:?}", text);
        }

        /// Where the reader is lenient: what a byte sequence or a display string decodes to is nobody's business here.
        #[test]
        fn it_reads_what_a_full_reader_reads_and_refuses_what_it_refuses(
            any in ".{0,60}", likely in "[a-c=;,?\"(): 0-9.@%-]{0,30}", near in prop::collection::vec(member(), 1..4),
            at: prop::sample::Index, other in "[a-c=;,?\"(): 1.@%\\\\-]",
        ) {
            let near: Vec<String> = near.into_iter().map(|(written, _, _)| written).collect();
            let near = near.join(", ");
            let (mut damaged, at) = (near.clone(), at.index(near.len()));
            damaged.replace_range(at..=at, &other);
            for text in [any, likely, near, damaged] {
                let full: Option<sfv::Dictionary> = sfv::Parser::new(&text).parse().ok();
                let pair = |(key, entry): (&sfv::Key, &sfv::ListEntry)| (key.to_string(), value_of(entry));
                let full: Option<Vec<(String, Value)>> = full.map(|members| members.iter().map(pair).collect());
                let owned = |(key, value): (&str, Value)| (key.to_string(), value);
                let read: Option<Vec<_>> = dictionary(&text).map(|members| members.into_iter().map(owned).collect());
                let is_lenient = full.is_none() && text.contains([':', '%']);
                prop_assert!(read == full || is_lenient, "{:?} is {:?}, not {:?}", text, read, full);
            }
        }

        /// RFC 9651 section 4.2: "it is important that they fail parsing as a whole".
        #[test]
        fn nothing_hides_what_is_wrong_behind_it(
            (good, _, _) in member(), likely in "[a-c=;,?\"(): 0-9.@%-]{0,12}", any in ".{0,40}"
        ) {
            for rest in [likely, any] {
                let whole = format!("{good},{rest}");
                // What comes next may begin with any white space; a field only with spaces.
                let rest = rest.trim_start_matches([' ', '\t']);
                let is_good = !rest.trim_matches(' ').is_empty() && dictionary(rest).is_some();
                prop_assert_eq!(dictionary(&whole).is_some(), is_good, "{:?}", whole);
            }
        }

        #[test]
        fn what_is_read_has_keys_of_the_right_form_each_once(
            any in ".{0,120}", likely in "[a-c=;,?\"(): 0-9.@%-]{0,40}"
        ) {
            for text in [any, likely] {
                let members = dictionary(&text).unwrap_or_default();
                for (at, (key, value)) in members.iter().enumerate() {
                    prop_assert!(key.starts_with(|c: char| c.is_ascii_lowercase() || c == '*'), "{:?}", text);
                    prop_assert!(members[..at].iter().all(|(other, _)| other != key) && text.contains(key));
                    // Section 3.3.1: "-999,999,999,999,999 to 999,999,999,999,999 inclusive".
                    prop_assert!(!matches!(value, Value::Integer(n) if n.abs() > 999_999_999_999_999), "{:?}", text);
                }
            }
        }
    }
}
