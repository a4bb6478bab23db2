//! HTTP header fields as plain data: names in lower case, order kept, repeats kept.
//!
//! A list beats a hash map here: a message has some twenty fields. And one text for all of them beats two for each: an
//! answer out of a tier is two allocations in place of thirty, and so is the copy of it that leaves.
use std::borrow::Cow;
use std::fmt;

/// Header fields of one message: their names and values stand behind each other in one text.
#[derive(Clone, Default)]
pub struct Fields {
    text: String,
    places: Vec<Place>,
}

/// Where in the text a field's name begins and ends, and its value ends, in bytes.
#[derive(Clone, Copy)]
struct Place {
    name: u32,
    value: u32,
    end: u32,
}

impl Fields {
    pub const NONE: Self = Self { text: String::new(), places: Vec::new() };

    pub fn new() -> Self {
        Self::default()
    }

    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), places: Vec::with_capacity(fields) }
    }

    /// One field.
    pub fn one(name: &str, value: impl AsRef<str>) -> Self {
        let mut fields = Self::new();
        fields.push(name, value);
        fields
    }

    // Usize has at least 32 bits where this runs; places are those of this text.
    fn part(&self, from: u32, to: u32) -> &str {
        self.text.get(from as usize..to as usize).unwrap_or_default()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.places.iter().map(|place| (self.part(place.name, place.value), self.part(place.value, place.end)))
    }

    /// Whether this is the field's place; most names differ in length.
    fn is_named(&self, place: &Place, name: &str) -> bool {
        let bytes = self.text.as_bytes().get(place.name as usize..place.value as usize);
        bytes.is_some_and(|bytes| bytes == name.as_bytes())
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// First value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of a field, in order.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let places = self.places.iter().filter(move |place| self.is_named(place, name));
        places.map(|place| self.part(place.value, place.end))
    }

    /// RFC 9110 section 5.3: the field's lines joined by comma, which means the same as the lines. Most have one.
    pub fn joined(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.all(name);
        let mut joined = Cow::Borrowed(values.next()?);
        for value in values {
            let joined = joined.to_mut();
            joined.push_str(", ");
            joined.push_str(value);
        }
        Some(joined)
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Replaces all lines of a field by one.
    pub fn set(&mut self, name: &str, value: impl AsRef<str>) {
        self.remove(name);
        self.push(name, value);
    }

    pub fn push(&mut self, name: &str, value: impl AsRef<str>) {
        self.push_text(name, value.as_ref());
    }

    fn push_text(&mut self, name: &str, value: &str) {
        // Places have 32 bits: what is longer than all of them is no message.
        let mark = |text: &String| u32::try_from(text.len()).ok();
        let Some(from) = mark(&self.text) else { return };
        self.text.push_str(name);
        self.text.get_mut(from as usize..).unwrap_or_default().make_ascii_lowercase();
        let middle = mark(&self.text);
        self.text.push_str(value);
        match (middle, mark(&self.text)) {
            (Some(value), Some(end)) => self.places.push(Place { name: from, value, end }),
            _ => self.text.truncate(from as usize),
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.retain(|n| n != name);
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.retain_named(&mut keep);
    }

    fn retain_named(&mut self, keep: &mut dyn FnMut(&str) -> bool) {
        let first = self.iter().position(|(name, _)| !keep(name));
        if let Some(first) = first {
            // Written anew, so that no text stays behind that no field has.
            let whole = std::mem::take(self);
            *self = Self::with_capacity(whole.len(), whole.text.len());
            for (place, (name, value)) in whole.iter().enumerate() {
                if place < first || (place > first && keep(name)) {
                    self.push(name, value);
                }
            }
        }
    }

    /// Gives room back that no field needs.
    pub fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.places.shrink_to_fit();
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// What [`Fields::put_lengths`] and [`Fields::over`] take.
    pub(crate) fn parts(&self) -> (&str, impl Iterator<Item = (usize, usize)>) {
        (&self.text, self.iter().map(|(name, value)| (name.len(), value.len())))
    }

    /// Fields whose names and values will stand behind each other in a text: as many as are said to come, at most.
    pub(crate) fn of_lengths(most: usize) -> Self {
        Self::with_capacity(most, 0)
    }

    /// How long the next of them is.
    pub(crate) fn put_lengths(&mut self, name_bytes: u64, value_bytes: u64) -> Option<()> {
        let name = self.places.last().map_or(0, |place| place.end);
        let value = name.checked_add(u32::try_from(name_bytes).ok()?)?;
        let end = value.checked_add(u32::try_from(value_bytes).ok()?)?;
        self.places.push(Place { name, value, end });
        Some(())
    }

    /// The text, names in lower case; nothing if they do not fill it exactly.
    pub(crate) fn over(mut self, text: &str) -> Option<Self> {
        let is_cut = |at: u32| !text.is_char_boundary(at as usize);
        let end = self.places.last().map_or(0, |place| place.end as usize);
        if end != text.len() || self.places.iter().any(|place| is_cut(place.value) || is_cut(place.end)) {
            return None;
        }
        self.text = text.into();
        Some(self)
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        // Most have more than one field, and more than one word in each.
        let mut fields = Self::with_capacity(4, 128);
        for (name, value) in pairs {
            fields.push(name.as_ref(), value);
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn repeated_fields_keep_their_order_and_join_by_comma() {
        let fields: Fields = [("A", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert_eq!(fields.get("a"), Some("1"));
        assert_eq!(fields.joined("a").as_deref(), Some("1, 3"));
        assert_eq!(fields.joined("c"), None);
    }

    fn of_parts(text: &str, lengths: &[(u64, u64)]) -> Option<Fields> {
        let mut fields = Fields::of_lengths(lengths.len());
        for (name, value) in lengths {
            fields.put_lengths(*name, *value)?;
        }
        fields.over(text)
    }

    #[test]
    fn lengths_that_cut_a_letter_or_miss_the_end_are_refused() {
        for (text, lengths, is_good) in [
            ("a\u{e9}", &[(1, 2)][..], true),
            ("a\u{e9}", &[(2, 1)], false),
            ("ab", &[(1, 0)], false),
            ("ab", &[(1, 2)], false),
            ("ab", &[(1, u64::MAX)], false),
            ("", &[], true),
            ("", &[(0, 0), (0, 0)], true),
        ] {
            assert_eq!(of_parts(text, lengths).is_some(), is_good, "{text:?} {lengths:?}");
        }
    }

    proptest! {
        /// Whatever is done to a list of pairs, done to fields comes to the same.
        #[test]
        fn fields_are_a_list_of_pairs(
            steps in proptest::collection::vec((0..4, "[a-c]{0,2}", "[xyz\u{e9}]{0,3}"), 0..12),
        ) {
            let mut fields = Fields::new();
            let mut pairs: Vec<(String, String)> = Vec::new();
            for (step, name, value) in steps {
                match step {
                    0 => {
                        fields.set(&name, &value);
                        pairs.retain(|(n, _)| *n != name);
                        pairs.push((name, value));
                    }
                    1 => {
                        fields.remove(&name);
                        pairs.retain(|(n, _)| *n != name);
                    }
                    2 => {
                        fields.retain(|n| n < name.as_str());
                        pairs.retain(|(n, _)| *n < name);
                    }
                    _ => {
                        fields.push(&name.to_uppercase(), &value);
                        pairs.push((name, value));
                    }
                }
                let pairs = || pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                prop_assert!(fields.iter().eq(pairs()), "{:?}", fields);
                prop_assert_eq!(fields.bytes(), pairs().map(|(name, value)| name.len() + value.len()).sum::<usize>());
                prop_assert_eq!(&fields, &pairs().collect::<Fields>());
                let (text, lengths) = fields.parts();
                let lengths: Vec<_> = lengths.map(|(name, value)| (name as u64, value as u64)).collect();
                prop_assert_eq!(of_parts(text, &lengths), Some(fields.clone()));
            }
        }
    }
}
