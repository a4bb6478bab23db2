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

/// The members in order, the last of a repeated key in the first one's place. `None`: the field does not parse.
pub fn dictionary(text: &str) -> Option<Vec<(&str, Value)>> {
    let mut at = Cursor { rest: text.trim_matches(' ') };
    let mut members: Vec<(&str, Value)> = Vec::new();
    while !at.rest.is_empty() {
        let key = at.key()?;
        let value = if at.eat('=') { at.item_or_list()? } else { Value::True };
        at.parameters()?;
        match members.iter_mut().find(|(k, _)| *k == key) {
            Some(member) => member.1 = value,
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
            "1=a",
            "a=\u{e9}",
            "a==1",
            "a=1234567890123456",
            "\ta",
        ] {
            assert_eq!(dictionary(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,120}") {
            dictionary(&text);
        }

        #[test]
        fn any_likely_text_is_read_or_refused(text in "[a-c=;,?\"(): 0-9.@%-]{0,40}") {
            dictionary(&text);
        }
    }
}
