//! Cuts a JSON document to the members and the part of a list that a client wants, as its bytes come: no tree of it is
//! ever made, and what is left out is never kept. Fed with anything at all it ends in a document or an error; a document
//! that does not have the structure of JSON is an error and never half an answer, since the caller sends only what
//! [`Cutter::finish`] gave. How words and strings are spelt is not looked at: they go out as they came.
use crate::fields::{Rule, Selection};

/// Deeper documents are not cut.
pub const DEPTH_MAX: usize = 64;

/// Longest name that is compared, in bytes as written: 64 characters, each of which may be written in six.
const KEY_BYTES_MAX: usize = 64 * 6 + 2;

/// Longest cursor of origin that is handed on.
const CURSOR_BYTES_MAX: usize = 1_024;

/// The member that says where a list goes on.
const NEXT: &[u8] = b"next_cursor";

/// A part of a list: of each list at this path (names from the top; lists on the way are looked through).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub path: &'static [&'static str],
    pub offset: u64,
    pub limit: u64,
    /// The document gets a `next_cursor`: this text and the place where the part ends. If the list ends there, it is what
    /// the document itself has for one, or null.
    pub cursor: Option<String>,
}

/// Why a document cannot be cut: it is no JSON, or nested too deep. The place is that in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotCut {
    pub at: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Value,
    /// A value, or the end of the list just begun.
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    /// Nothing but white space.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    None,
    String {
        is_key: bool,
        escaped: bool,
    },
    /// Number, true, false, null.
    Word,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    is_list: bool,
    rule: Rule,
    /// How many names of the slice's path lead here.
    on_path: Option<u8>,
    /// The slice is of this very list.
    is_sliced: bool,
    has_written: bool,
    count: u64,
}

/// What becomes of the value that comes next.
#[derive(Clone, Copy, Debug)]
struct Next {
    rule: Rule,
    on_path: Option<u8>,
    /// It is origin's cursor: kept, not written.
    is_cursor: bool,
}

pub struct Cutter<'a> {
    selection: Option<&'a Selection>,
    slice: Option<&'a Slice>,
    frames: Vec<Frame>,
    expect: Expect,
    token: Token,
    next: Next,
    /// The name that is being read, as written, with its quotes; cut off where it can match nothing.
    key: Vec<u8>,
    /// Origin's own cursor, as written.
    cursor: Vec<u8>,
    writes_cursor: bool,
    items: u64,
    at: u64,
    out: Vec<u8>,
}

impl<'a> Cutter<'a> {
    pub fn new(selection: Option<&'a Selection>, slice: Option<&'a Slice>) -> Self {
        let rule = selection.map_or(Rule::Whole, |_| Selection::ROOT);
        let writes_cursor = slice.is_some_and(|slice| slice.cursor.is_some())
            && selection.is_none_or(|selection| selection.member(0, NEXT) != Rule::Left);
        Self {
            selection,
            slice,
            frames: Vec::new(),
            expect: Expect::Value,
            token: Token::None,
            next: Next { rule, on_path: slice.map(|_| 0), is_cursor: false },
            key: Vec::new(),
            cursor: Vec::new(),
            writes_cursor,
            items: 0,
            at: 0,
            out: Vec::new(),
        }
    }

    /// Takes the next bytes of the document.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), NotCut> {
        for byte in bytes {
            self.byte(*byte).ok_or(NotCut { at: self.at })?;
            self.at = self.at.saturating_add(1);
        }
        Ok(())
    }

    /// The cut document, if it was one.
    pub fn finish(mut self) -> Result<Vec<u8>, NotCut> {
        if self.token == Token::Word {
            self.end_of_value();
        }
        let is_whole = self.frames.is_empty() && self.expect == Expect::Nothing && self.token == Token::None;
        if is_whole { Ok(self.out) } else { Err(NotCut { at: self.at }) }
    }

    fn byte(&mut self, byte: u8) -> Option<()> {
        match self.token {
            Token::String { is_key, escaped } => return self.in_string(byte, is_key, escaped),
            Token::Word if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.') => {
                self.put(byte);
                return Some(());
            }
            Token::Word => self.end_of_value(),
            Token::None => {}
        }
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Some(());
        }
        match (self.expect, byte) {
            (Expect::Key | Expect::KeyOrEnd, b'"') => {
                self.key.clear();
                self.key.push(byte);
                self.token = Token::String { is_key: true, escaped: false };
                Some(())
            }
            (Expect::Colon, b':') => {
                self.expect = Expect::Value;
                Some(())
            }
            (Expect::KeyOrEnd, b'}') | (Expect::ValueOrEnd, b']') => self.close(byte),
            (Expect::Value | Expect::ValueOrEnd, _) => self.begin_value(byte),
            (Expect::CommaOrEnd, b',') => {
                let is_list = self.frames.last()?.is_list;
                self.expect = if is_list { Expect::Value } else { Expect::Key };
                Some(())
            }
            (Expect::CommaOrEnd, b']' | b'}') => self.close(byte),
            _ => None,
        }
    }

    /// Whether the value at hand is written.
    fn is_written(&self) -> bool {
        self.next.rule != Rule::Left && !self.next.is_cursor
    }

    fn put(&mut self, byte: u8) {
        if self.next.is_cursor {
            if self.cursor.len() < CURSOR_BYTES_MAX {
                self.cursor.push(byte);
            }
        } else if self.next.rule != Rule::Left {
            self.out.push(byte);
        }
    }

    fn begin_value(&mut self, byte: u8) -> Option<()> {
        if let Some(list) = self.frames.last_mut().filter(|frame| frame.is_list) {
            self.next = Next { rule: list.rule, on_path: list.on_path, is_cursor: false };
            if list.is_sliced {
                let (offset, limit) = self.slice.map_or((0, 0), |slice| (slice.offset, slice.limit));
                let is_in = list.count >= offset && list.count.saturating_sub(offset) < limit;
                list.count = list.count.saturating_add(1);
                if !is_in {
                    self.next.rule = Rule::Left;
                }
            }
        }
        let is_list = match byte {
            b'{' => false,
            b'[' => true,
            b'"' => {
                self.separate();
                self.put(byte);
                self.token = Token::String { is_key: false, escaped: false };
                return Some(());
            }
            _ if byte.is_ascii_alphanumeric() || byte == b'-' => {
                self.separate();
                self.put(byte);
                self.token = Token::Word;
                return Some(());
            }
            _ => return None,
        };
        if self.frames.len() >= DEPTH_MAX || self.next.is_cursor {
            return None;
        }
        self.separate();
        self.put(byte);
        let names = self.slice.map_or(0, |slice| slice.path.len());
        let is_sliced = is_list && self.next.on_path.is_some_and(|names_| usize::from(names_) == names);
        self.frames.push(Frame {
            is_list,
            rule: self.next.rule,
            // Nothing below a sliced list is on the path any more.
            on_path: self.next.on_path.filter(|_| !is_sliced),
            is_sliced,
            has_written: false,
            count: 0,
        });
        self.expect = if is_list { Expect::ValueOrEnd } else { Expect::KeyOrEnd };
        Some(())
    }

    /// Writes what stands between the value at hand and the one before it, and its name.
    fn separate(&mut self) {
        if !self.is_written() {
            return;
        }
        let Some(frame) = self.frames.last_mut() else { return };
        if frame.has_written {
            self.out.push(b',');
        }
        frame.has_written = true;
        if !frame.is_list {
            self.out.extend_from_slice(&self.key);
            self.out.push(b':');
        }
    }

    fn in_string(&mut self, byte: u8, is_key: bool, escaped: bool) -> Option<()> {
        if byte < 0x20 {
            return None;
        }
        if is_key {
            self.key.push(byte);
        } else {
            self.put(byte);
        }
        let is_end = byte == b'"' && !escaped;
        if !is_end {
            self.token = Token::String { is_key, escaped: byte == b'\\' && !escaped };
        } else if is_key {
            self.token = Token::None;
            self.expect = Expect::Colon;
            self.name_read()?;
        } else {
            self.end_of_value();
        }
        Some(())
    }

    /// A member's name is there: what becomes of its value.
    fn name_read(&mut self) -> Option<()> {
        let is_top = self.frames.len() == 1;
        let frame = self.frames.last()?;
        let name = if self.key.len() <= KEY_BYTES_MAX { unescaped(&self.key) } else { None };
        let rule = match (frame.rule, self.selection) {
            (Rule::Below(node), Some(selection)) => {
                name.as_deref().map_or(Rule::Left, |name| selection.member(node, name))
            }
            (rule, _) => rule,
        };
        let on_path = frame.on_path.and_then(|names| {
            let wanted = self.slice?.path.get(usize::from(names))?;
            (name.as_deref() == Some(wanted.as_bytes())).then(|| names.saturating_add(1))
        });
        let has_cursor = self.slice.is_some_and(|slice| slice.cursor.is_some());
        let is_cursor = is_top && has_cursor && name.as_deref() == Some(NEXT);
        if is_cursor {
            self.cursor.clear();
        }
        self.next = Next { rule, on_path, is_cursor };
        Some(())
    }

    fn end_of_value(&mut self) {
        self.token = Token::None;
        self.next.is_cursor = false;
        self.expect = if self.frames.is_empty() { Expect::Nothing } else { Expect::CommaOrEnd };
    }

    fn close(&mut self, byte: u8) -> Option<()> {
        let frame = self.frames.pop()?;
        if frame.is_list != (byte == b']') {
            return None;
        }
        if frame.is_sliced {
            self.items = self.items.max(frame.count);
        }
        if frame.rule != Rule::Left {
            if self.frames.is_empty() && !frame.is_list && self.writes_cursor {
                self.write_cursor(frame.has_written);
            }
            self.out.push(byte);
        }
        self.end_of_value();
        Some(())
    }

    fn write_cursor(&mut self, is_not_first: bool) {
        let Some((slice, prefix)) = self.slice.and_then(|slice| Some((slice, slice.cursor.as_ref()?))) else { return };
        if is_not_first {
            self.out.push(b',');
        }
        self.out.extend_from_slice(b"\"next_cursor\":");
        let end = slice.offset.saturating_add(slice.limit);
        if end < self.items {
            self.out.push(b'"');
            self.out.extend_from_slice(prefix.as_bytes());
            self.out.extend_from_slice(end.to_string().as_bytes());
            self.out.push(b'"');
        } else if self.cursor.is_empty() || self.cursor.len() >= CURSOR_BYTES_MAX {
            self.out.extend_from_slice(b"null");
        } else {
            self.out.extend_from_slice(&self.cursor);
        }
    }
}

/// A JSON string's text; `None` if it has escapes that stand for nothing a wanted name could have.
fn unescaped(quoted: &[u8]) -> Option<Vec<u8>> {
    let inner = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'\\' {
            text.push(*byte);
            continue;
        }
        if bytes.next() != Some(&b'u') {
            return None;
        }
        let mut code = 0u32;
        for _ in 0..4 {
            let digit = char::from(*bytes.next()?).to_digit(16)?;
            code = code.checked_mul(16)?.checked_add(digit)?;
        }
        text.push(u8::try_from(code).ok().filter(u8::is_ascii)?);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    fn cut(
        document: &str,
        selection: Option<&Selection>,
        slice: Option<&Slice>,
        piece: usize,
    ) -> Result<String, NotCut> {
        let mut cutter = Cutter::new(selection, slice);
        for bytes in document.as_bytes().chunks(piece) {
            cutter.feed(bytes)?;
        }
        cutter.finish().map(|bytes| String::from_utf8(bytes).expect("UTF-8"))
    }

    fn fields(document: &str, fields: &str) -> String {
        cut(document, Some(&Selection::parse(fields).unwrap()), None, 3).unwrap()
    }

    fn items(offset: u64, limit: u64, cursor: Option<&str>) -> Slice {
        Slice { path: &["items"], offset, limit, cursor: cursor.map(String::from) }
    }

    #[test]
    fn only_what_is_named_is_sent_and_lists_are_looked_through() {
        let home =
            r#"{ "rails" : [ {"id":"top","title":"T","items":[{"id":"a","n":1},{"id":"b"}]} ], "x": {"y":[1,2]} }"#;
        assert_eq!(fields(home, "rails.id"), r#"{"rails":[{"id":"top"}]}"#);
        assert_eq!(
            fields(home, "rails(items.id),x"),
            r#"{"rails":[{"items":[{"id":"a"},{"id":"b"}]}],"x":{"y":[1,2]}}"#
        );
        assert_eq!(fields(home, "nothing"), "{}");
        assert_eq!(
            fields(r#"{"a":null,"b":"x\"]}"}"#, "b.c,a.d"),
            r#"{"a":null,"b":"x\"]}"}"#,
            "what has nothing below"
        );
        assert_eq!(fields(r#"{"\u0069d":1,"a\\":2}"#, "id"), r#"{"\u0069d":1}"#, "the same name, written otherwise");
    }

    #[test]
    fn a_part_of_a_list_says_where_it_goes_on() {
        let page = r#"{"items":[1,2,3,4,5],"next_cursor":"abc"}"#;
        let of = |slice: &Slice| cut(page, None, Some(slice), 1).unwrap();
        assert_eq!(of(&items(0, 2, Some("~"))), r#"{"items":[1,2],"next_cursor":"~2"}"#);
        assert_eq!(of(&items(2, 2, Some("C~"))), r#"{"items":[3,4],"next_cursor":"C~4"}"#);
        assert_eq!(of(&items(4, 2, Some("C~"))), r#"{"items":[5],"next_cursor":"abc"}"#, "the document's own");
        assert_eq!(of(&items(9, 2, Some("C~"))), r#"{"items":[],"next_cursor":"abc"}"#);
        assert_eq!(of(&items(0, 2, None)), r#"{"items":[1,2],"next_cursor":"abc"}"#, "left as it is");
        let plain = items(1, 1, Some("~"));
        assert_eq!(cut(r#"{"items":[1,2]}"#, None, Some(&plain), 9).unwrap(), r#"{"items":[2],"next_cursor":null}"#);
        let selection = Selection::parse("items").unwrap();
        assert_eq!(cut(page, Some(&selection), Some(&plain), 9).unwrap(), r#"{"items":[2]}"#, "not asked for");
        let selection = Selection::parse("next_cursor").unwrap();
        assert_eq!(cut(page, Some(&selection), Some(&plain), 9).unwrap(), r#"{"next_cursor":"~2"}"#);
    }

    #[test]
    fn each_list_at_the_path_is_cut_and_no_other() {
        let home = r#"{"items":[1,2,3],"rails":[{"items":[1,2,[7,8,9]]},{"items":[4],"x":{"items":[1,2]}}]}"#;
        let slice = Slice { path: &["rails", "items"], offset: 0, limit: 1, cursor: None };
        let cut_ = cut(home, None, Some(&slice), 4).unwrap();
        assert_eq!(cut_, r#"{"items":[1,2,3],"rails":[{"items":[1]},{"items":[4],"x":{"items":[1,2]}}]}"#);
    }

    #[test]
    fn what_is_no_json_is_never_half_an_answer() {
        for text in [
            "",
            " ",
            "{",
            "[1",
            r#"{"a""#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            "[1,]",
            "[,1]",
            "{]",
            "[}",
            "1 2",
            r#"{"a":1}}"#,
            r#"{a:1}"#,
            "<html>",
            "\u{1f}",
            "\"a",
            "\"\n\"",
            r#"{"next_cursor":[1]}"#,
        ] {
            let slice = items(0, 1, Some("~"));
            assert!(cut(text, None, Some(&slice), 1).is_err(), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
        assert!(cut(&deep, None, None, 9).is_err());
        assert!(cut(&deep[1..129], None, None, 9).is_ok());
    }

    /// The same by way of a tree.
    fn project(value: &Value, selection: &Selection, rule: Rule) -> Value {
        match (value, rule) {
            (Value::Object(members), Rule::Below(node)) => {
                let kept = members.iter().filter_map(|(name, value)| match selection.member(node, name.as_bytes()) {
                    Rule::Left => None,
                    rule => Some((name.clone(), project(value, selection, rule))),
                });
                Value::Object(kept.collect())
            }
            (Value::Array(values), Rule::Below(_)) => {
                Value::Array(values.iter().map(|value| project(value, selection, rule)).collect())
            }
            (value, _) => value.clone(),
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
            "\\PC{0,8}".prop_map(Value::from),
            "[\\x00-\\x7f]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            let name = prop_oneof!["[a-d]", "[\\x00-\\x7f]{0,4}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(name, inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    fn any_fields() -> impl Strategy<Value = String> {
        let field = "[a-d](\\.[a-d]){0,3}".prop_recursive(3, 12, 4, |inner| {
            (("[a-d]"), prop::collection::vec(inner, 1..4))
                .prop_map(|(name, below)| format!("{name}({})", below.join(",")))
        });
        prop::collection::vec(field, 1..4).prop_map(|fields| fields.join(","))
    }

    proptest! {
        #[test]
        fn it_cuts_as_a_tree_would(value in any_json(), fields in any_fields(), piece in 1usize..20, pretty: bool) {
            let selection = Selection::parse(&fields).unwrap();
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let got: Value = serde_json::from_str(&cut(&text, Some(&selection), None, piece).unwrap()).unwrap();
            prop_assert_eq!(got, project(&value, &selection, Selection::ROOT));
            let whole: Value = serde_json::from_str(&cut(&text, None, None, piece).unwrap()).unwrap();
            prop_assert_eq!(whole, value);
        }

        #[test]
        fn walking_a_list_by_its_cursors_visits_each_item_once(
            list in prop::collection::vec(any_json(), 0..40), limit in 1u64..9
        ) {
            let document = json!({ "items": list, "total": 3 }).to_string();
            let (mut offset, mut seen) = (0, Vec::new());
            for _ in 0..50 {
                let slice = items(offset, limit, Some("C~"));
                let page: Value = serde_json::from_str(&cut(&document, None, Some(&slice), 7).unwrap()).unwrap();
                seen.extend(page["items"].as_array().unwrap().iter().cloned());
                match page["next_cursor"].as_str() {
                    Some(cursor) => offset = cursor.strip_prefix("C~").unwrap().parse().unwrap(),
                    None => break,
                }
            }
            prop_assert_eq!(seen, list);
        }

        #[test]
        fn no_bytes_make_it_panic_and_what_it_gives_out_of_json_is_json(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let selection = Selection::parse("a,b(c)").unwrap();
            let slice = items(1, 2, Some("~"));
            let mut cutter = Cutter::new(Some(&selection), Some(&slice));
            if cutter.feed(&bytes).is_ok()
                && let Ok(out) = cutter.finish()
                && serde_json::from_slice::<Value>(&bytes).is_ok()
            {
                serde_json::from_slice::<Value>(&out).unwrap();
            }
        }
    }
}
