//! `fields=`: which members of a document a client wants.
//!
//! ```text
//! fields = field *( "," field )
//! field  = name [ "." field / "(" fields ")" ]
//! name   = 1*64( ALPHA / DIGIT / "_" / "-" )
//! ```
//!
//! `a.b` means the same as `a(b)`. A name stands for the member with everything below it, unless members below are named;
//! what is named whole anywhere is sent whole. Lists are looked through: `items.id` is the `id` of every item. Names that
//! a document does not have are left out without a word, since a document need not always have them.

use std::cmp::Ordering;

pub const BYTES_MAX: usize = 1_024;
pub const DEPTH_MAX: usize = 8;
pub const NAMES_MAX: usize = 64;
pub const NAME_BYTES_MAX: usize = 64;

/// What is wrong with a value of `fields`, and at which byte of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: usize,
    pub what: &'static str,
}

/// A node's place in the tree.
pub type Node = u16;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Member {
    name: String,
    /// In the order of their names.
    below: Vec<Node>,
    /// Everything below is wanted.
    whole: bool,
}

/// The members that are wanted, as a tree; node 0 is the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    members: Vec<Member>,
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Whole,
    Below(Node),
    Left,
}

impl Selection {
    /// Reads the value of a `fields` parameter, already without percent-encoding.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        if text.len() > BYTES_MAX {
            return Err(Fault { at: BYTES_MAX, what: "longer than 1,024 bytes" });
        }
        let mut reader = Reader { text, at: 0, tree: Self { members: vec![Member::default()] } };
        reader.fields(0, 1)?;
        match text.as_bytes().get(reader.at) {
            None => Ok(reader.tree),
            Some(_) => Err(reader.fault("a name, comma, dot or parenthesis in the wrong place")),
        }
    }

    pub const ROOT: Rule = Rule::Below(0);

    /// What becomes of a member below `node`.
    pub fn member(&self, node: Node, name: &[u8]) -> Rule {
        let below = self.members.get(usize::from(node)).map(|member| member.below.as_slice()).unwrap_or_default();
        let found = below.iter().find_map(|node| {
            let member = self.members.get(usize::from(*node))?;
            (member.name.as_bytes() == name).then_some((*node, member.whole))
        });
        match found {
            Some((_, true)) => Rule::Whole,
            Some((node, false)) => Rule::Below(node),
            None => Rule::Left,
        }
    }

    /// One text for all ways to write the same wish.
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        self.write(0, &mut text);
        text
    }

    fn write(&self, node: Node, text: &mut String) {
        let Some(member) = self.members.get(usize::from(node)) else { return };
        text.push_str(&member.name);
        if member.whole {
            return;
        }
        text.push('(');
        for node in &member.below {
            self.write(*node, text);
            text.push(',');
        }
        text.push(')');
    }

    fn add(&mut self, parent: Node, name: &str) -> Option<Node> {
        let mut place = 0_usize;
        for node in &self.members.get(usize::from(parent))?.below {
            match self.members.get(usize::from(*node))?.name.as_str().cmp(name) {
                Ordering::Equal => return Some(*node),
                Ordering::Less => place = place.saturating_add(1),
                Ordering::Greater => break,
            }
        }
        if self.members.len() > NAMES_MAX {
            return None;
        }
        let node = Node::try_from(self.members.len()).ok()?;
        self.members.push(Member { name: name.into(), ..Member::default() });
        self.members.get_mut(usize::from(parent))?.below.insert(place, node);
        Some(node)
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    tree: Selection,
}

impl Reader<'_> {
    fn fault(&self, what: &'static str) -> Fault {
        Fault { at: self.at, what }
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is_there = self.text.as_bytes().get(self.at) == Some(&byte);
        self.at = self.at.saturating_add(usize::from(is_there));
        is_there
    }

    fn fields(&mut self, parent: Node, depth: usize) -> Result<(), Fault> {
        loop {
            self.field(parent, depth)?;
            if !self.takes(b',') {
                return Ok(());
            }
        }
    }

    fn field(&mut self, parent: Node, depth: usize) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            return Err(self.fault("deeper than 8 names"));
        }
        let node = self.name(parent)?;
        if self.takes(b'.') {
            return self.field(node, depth.saturating_add(1));
        }
        if self.takes(b'(') {
            self.fields(node, depth.saturating_add(1))?;
            return if self.takes(b')') { Ok(()) } else { Err(self.fault("a closing parenthesis is missing")) };
        }
        if let Some(member) = self.tree.members.get_mut(usize::from(node)) {
            member.whole = true;
        }
        Ok(())
    }

    fn name(&mut self, parent: Node) -> Result<Node, Fault> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let name = rest.split(|c| !is_of_name(c)).next().unwrap_or_default();
        if name.is_empty() {
            return Err(self.fault("a name is missing: letters, digits, _ and -"));
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(self.fault("a name longer than 64 bytes"));
        }
        let node = self.tree.add(parent, name).ok_or(self.fault("more than 64 names"))?;
        self.at = self.at.saturating_add(name.len());
        Ok(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Selection::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}")).canonical()
    }

    #[test]
    fn dots_and_parentheses_mean_the_same() {
        assert_eq!(canonical("id,rails.items(id,name)"), canonical("rails(items.name,items(id)),id"));
        assert_eq!(canonical("a"), "(a,)");
        assert_eq!(canonical("a.b.c,a.b.d"), "(a(b(c,d,),),)");
    }

    #[test]
    fn what_is_named_whole_anywhere_is_whole() {
        for text in ["a,a.b", "a.b,a", "a(b),a,a(c)"] {
            assert_eq!(canonical(text), "(a,)", "{text}");
        }
    }

    #[test]
    fn bad_ones_are_refused_with_the_place() {
        for (text, at) in [
            ("", 0),
            (",", 0),
            ("a,", 2),
            ("a,,b", 2),
            ("a..b", 2),
            ("a.", 2),
            ("a(", 2),
            ("a()", 2),
            ("a(b", 3),
            ("a)", 1),
            ("a(b)c", 4),
            ("a b", 1),
            ("*", 0),
            ("a.b.c.d.e.f.g.h.i", 16),
            ("ä", 0),
        ] {
            assert_eq!(Selection::parse(text).expect_err(text).at, at, "{text}");
        }
        let many: Vec<String> = (0..65).map(|n| format!("n{n}")).collect();
        assert_eq!(Selection::parse(&many.join(",")).unwrap_err().what, "more than 64 names");
        assert!(Selection::parse(&many[..64].join(",")).is_ok());
        assert!(Selection::parse(&"a".repeat(65)).is_err());
        assert!(Selection::parse(&"a,".repeat(600)).is_err());
    }
}
