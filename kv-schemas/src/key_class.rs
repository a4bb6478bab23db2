//! What the purges of a surrogate key are about. How much of the purge log is remembered is bounded for each class by
//! itself: viewers who watch write all day, and must not crowd out what is known of the catalogue.
use crate::surrogate_key::KeyHash;

/// The class of a key, by its name. Anybody's origin may use these names; the class decides only what is remembered how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyClass {
    /// Whatever is not of the others: what is shown to many.
    Content,
    /// `session:` and `user:`: their hard purge revokes tokens.
    Session,
    /// `viewer:`: what is one viewer's own.
    Viewer,
}

/// Two bits of each hash: neither those by which a hash table finds the bucket of a key, nor those it compares first, with
/// addresses of 32 bits as of 64.
const SHIFT: u32 = 48;
const BITS: u64 = 0b11 << SHIFT;

/// What begins keys that name one person, whose purge says who did what, and when. Origin purges by them, edges look for them:
/// here alone they are spelled.
pub const PERSONAL: [&str; 3] = [SESSION, USER, VIEWER];
const SESSION: &str = "session:";
const USER: &str = "user:";
const VIEWER: &str = "viewer:";

/// The surrogate key of one log-in: its hard purge revokes the tokens of that session.
pub fn session_key(session: &str) -> String {
    format!("{SESSION}{session}")
}

/// The surrogate key of one account: its hard purge revokes all tokens.
pub fn user_key(user: &str) -> String {
    format!("{USER}{user}")
}

/// The surrogate key of everything that is one viewer's own.
pub fn viewer_key(viewer: &str) -> String {
    format!("{VIEWER}{viewer}")
}

impl KeyClass {
    pub const ALL: [Self; 3] = [Self::Content, Self::Session, Self::Viewer];

    /// The class of the key with this hash.
    pub fn of(key: KeyHash) -> Self {
        match (key & BITS) >> SHIFT {
            1 => Self::Session,
            2 => Self::Viewer,
            _ => Self::Content,
        }
    }

    fn of_name(text: &str) -> Self {
        // Each key of each answer comes by here, and hardly any is of these.
        match text.as_bytes().first() {
            Some(b's') if text.starts_with(SESSION) => Self::Session,
            Some(b'u') if text.starts_with(USER) => Self::Session,
            Some(b'v') if text.starts_with(VIEWER) => Self::Viewer,
            _ => Self::Content,
        }
    }

    /// Whether no key is of another class than content, as with nearly every entry.
    pub fn are_content(keys: &[KeyHash]) -> bool {
        keys.iter().fold(0, |bits, key| bits | key) & BITS == 0
    }

    /// One bit for each class, so that a purge of several says so in one number.
    pub fn bit(self) -> u8 {
        match self {
            Self::Content => 1,
            Self::Session => 2,
            Self::Viewer => 4,
        }
    }

    /// The classes a purge touches, a bit each.
    pub fn bits_of(all: bool, keys: &[KeyHash]) -> u8 {
        let every = if all { Self::ALL.iter().fold(0, |bits, class| bits | class.bit()) } else { 0 };
        keys.iter().fold(every, |bits, key| bits | Self::of(*key).bit())
    }

    /// The class a purge of several is remembered with: that of the longest memory.
    pub fn kept_with(bits: u8) -> Self {
        Self::ALL.into_iter().find(|class| bits & class.bit() != 0).unwrap_or(Self::Content)
    }
}

/// Writes the class of a key into its hash.
pub(crate) fn with_class(hash: u64, text: &str) -> KeyHash {
    let class = match KeyClass::of_name(text) {
        KeyClass::Content => 0,
        KeyClass::Session => 1,
        KeyClass::Viewer => 2,
    };
    hash & !BITS | class << SHIFT
}

/// One for each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerClass<T> {
    pub content: T,
    pub session: T,
    pub viewer: T,
}

impl<T> PerClass<T> {
    pub fn new(mut make: impl FnMut(KeyClass) -> T) -> Self {
        Self { content: make(KeyClass::Content), session: make(KeyClass::Session), viewer: make(KeyClass::Viewer) }
    }

    pub fn get(&self, class: KeyClass) -> &T {
        match class {
            KeyClass::Content => &self.content,
            KeyClass::Session => &self.session,
            KeyClass::Viewer => &self.viewer,
        }
    }

    pub fn get_mut(&mut self, class: KeyClass) -> &mut T {
        match class {
            KeyClass::Content => &mut self.content,
            KeyClass::Session => &mut self.session,
            KeyClass::Viewer => &mut self.viewer,
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.content, &self.session, &self.viewer].into_iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        [&mut self.content, &mut self.session, &mut self.viewer].into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surrogate_key::hash;
    use KeyClass::{Content, Session, Viewer};

    #[test]
    fn the_class_is_in_the_name_and_in_the_hash() {
        let table = [
            ("title:heat-1995", Content),
            ("viewer", Content),
            ("viewers:1", Content),
            ("url:/user:7", Content),
            ("viewer:", Viewer),
            ("viewer:u1", Viewer),
            ("user:u1", Session),
            ("session:s1", Session),
        ];
        for (name, class) in table {
            assert_eq!(KeyClass::of(hash(name)), class, "{name}");
        }
        for (key, spelled) in
            [(session_key("1"), "session:1"), (user_key("1"), "user:1"), (viewer_key("1"), "viewer:1")]
        {
            assert_eq!(key, spelled, "part of the exchanged format");
            assert_ne!(KeyClass::of(hash(&key)), Content, "{key}");
        }
        let random = (0..1_000).map(|n| hash(&format!("title:{n}")));
        let random: Vec<_> = random.collect();
        assert!(random.iter().all(|key| KeyClass::of(*key) == Content) && KeyClass::are_content(&random));
        assert!(
            !KeyClass::are_content(&[hash("home"), hash("user:u1")]) && !KeyClass::are_content(&[hash("viewer:u1")])
        );
    }

    #[test]
    fn a_purge_of_several_classes_is_kept_as_long_as_any_of_them() {
        let bits = |names: &[&str]| KeyClass::bits_of(false, &names.iter().map(|name| hash(name)).collect::<Vec<_>>());
        assert_eq!(bits(&["viewer:u1", "user:u1"]), 0b110);
        assert_eq!(KeyClass::kept_with(bits(&["viewer:u1", "user:u1"])), Session);
        assert_eq!(KeyClass::kept_with(bits(&["viewer:u1", "home"])), Content);
        assert_eq!(KeyClass::kept_with(bits(&["viewer:u1"])), Viewer);
        assert_eq!(KeyClass::bits_of(true, &[]), 0b111);
        assert_eq!(KeyClass::kept_with(0), Content);
    }
}
