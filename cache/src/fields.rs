//! HTTP header fields as plain data: names in lower case, order kept, repeats kept.
//!
//! A list beats a hash map here: a message has some twenty fields, and the Worker hands them over in one crossing.

use std::borrow::Cow;

/// Header fields of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    pub const NONE: Self = Self(Vec::new());

    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over pairs whose names are already in lower case.
    pub fn from_lower(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    /// First value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a field, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// RFC 9110 section 5.3: the field's lines joined by comma, which means the same as the lines. Most have one.
    pub fn joined(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values = self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
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
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.push(name, value);
    }

    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_ascii_lowercase(), value.into()));
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn into_inner(self) -> Vec<(String, String)> {
        self.0
    }

    /// Bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.0.iter().fold(0, |sum, (name, value)| sum.saturating_add(name.len()).saturating_add(value.len()))
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        let mut fields = Self::new();
        for (name, value) in pairs {
            fields.push(name, value);
        }
        fields
    }
}

/// RFC 9110 section 7.6.1: fields that speak of one connection and end there.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Removes the fields that must not be forwarded or stored.
///
/// RFC 9110 section 7.6.1: "Intermediaries MUST parse a received Connection header field before a message is
/// forwarded and, for each connection-option in this field, remove any header or trailer field(s) from the message
/// with the same name as the connection-option".
pub fn remove_hop_by_hop(fields: &mut Fields) {
    let named = fields.joined("connection").unwrap_or_default().to_ascii_lowercase();
    let named: Vec<&str> = named.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    fields.retain(|name| !HOP_BY_HOP.contains(&name) && !named.contains(&name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_fields_keep_their_order_and_join_by_comma() {
        let fields: Fields = [("A", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert_eq!(fields.get("a"), Some("1"));
        assert_eq!(fields.joined("a").as_deref(), Some("1, 3"));
        assert_eq!(fields.joined("c"), None);
    }

    #[test]
    fn connection_names_what_else_ends_here() {
        let mut fields: Fields =
            [("connection", "close, X-Hop"), ("x-hop", "1"), ("te", "gzip"), ("etag", "\"a\"")].into_iter().collect();
        remove_hop_by_hop(&mut fields);
        assert_eq!(fields.into_inner(), [("etag".to_string(), "\"a\"".to_string())]);
    }
}
