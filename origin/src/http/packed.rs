//! Documents packed with gzip: what the edge asks for, stores and passes on. A document is packed once, when it was rendered,
//! and kept in that form alone; whoever does not take it gets it unpacked. Nothing that is one viewer's own passes here, so no
//! secret is packed together with what a stranger chose.
use super::conditional::client_has;
use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::io::{Read, Write};
use surrogate_cache::encoding::{self, PACKED_BYTES_MIN};
use surrogate_cache::fields::Fields;

/// Half a millisecond for a home page of 69 kB, which becomes 9.5; the next levels take twice as long and save a tenth.
const LEVEL: u32 = 4;
/// What the tag of a packed document has at its end: other bytes are another strong tag (RFC 9110 section 8.8.3.3).
const SUFFIX: &str = "-gzip\"";

/// A document's fields and body as they are kept: packed where that is worth it.
pub fn packed(mut fields: Fields, body: Bytes) -> (Fields, Bytes) {
    let tag = fields.get("etag").and_then(|tag| Some(format!("{}{SUFFIX}", tag.strip_suffix('"')?)));
    let (true, false, Some(tag)) = (body.len() >= PACKED_BYTES_MIN, fields.has("content-encoding"), tag) else {
        return (fields, body);
    };
    let Some(smaller) = pack(&body).filter(|smaller| smaller.len() < body.len()) else { return (fields, body) };
    for (name, value) in [("etag", tag.as_str()), ("content-encoding", "gzip")] {
        fields.remove(name);
        fields.push(name, value);
    }
    fields.push("vary", "accept-encoding");
    (fields, smaller.into())
}

fn pack(body: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(LEVEL));
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

fn unpack(body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    GzDecoder::new(body).read_to_end(&mut whole).ok()?;
    Some(whole)
}

/// How a kept document goes out to one client.
pub struct Form {
    is_kept_packed: bool,
    unpacks: bool,
    pub tag: String,
}

impl Form {
    /// `fields`: as it is kept.
    pub fn of(asked: &HeaderMap, fields: &Fields) -> Self {
        let is_kept_packed = encoding::is_packed(fields);
        let accepted = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let accepted: Fields = accepted.map(|value| ("accept-encoding", value)).collect();
        let unpacks = is_kept_packed && !encoding::takes_packed(&accepted);
        let tag = fields.get("etag").unwrap_or_default();
        Self { is_kept_packed, unpacks, tag: if unpacks { plain_tag(tag) } else { tag.into() } }
    }

    /// The tag by which the client has this document already: that of the form it would get, or that of the other one, which is
    /// as current.
    pub fn held(&self, asked: &HeaderMap) -> Option<String> {
        let other = match (self.is_kept_packed, self.unpacks) {
            (false, _) => String::new(),
            (true, true) => format!("{}{SUFFIX}", self.tag.strip_suffix('"').unwrap_or_default()),
            (true, false) => plain_tag(&self.tag),
        };
        [self.tag.clone(), other].into_iter().filter(|tag| !tag.is_empty()).find(|tag| client_has(asked, tag))
    }

    /// The body as it goes out; `None` if what is kept is damaged.
    pub fn body(&self, kept: Bytes) -> Option<Bytes> {
        if self.unpacks { unpack(&kept).map(Bytes::from) } else { Some(kept) }
    }

    /// Whether this field of the kept form is one of the form that goes out.
    pub fn has_field(&self, name: &str) -> bool {
        !(self.unpacks && name.eq_ignore_ascii_case("content-encoding"))
    }
}

fn plain_tag(tag: &str) -> String {
    tag.strip_suffix(SUFFIX).map_or(tag.to_string(), |begin| format!("{begin}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(more: &[(&'static str, &'static str)]) -> Fields {
        [("etag", "\"a\"")].iter().chain(more).copied().collect()
    }

    #[test]
    fn what_is_small_or_packed_already_or_has_no_tag_stays_as_it_is() {
        let long = Bytes::from("x".repeat(PACKED_BYTES_MIN));
        for (fields, body) in [
            (fields(&[]), long.slice(1..)),
            (fields(&[("content-encoding", "gzip")]), long.clone()),
            (Fields::new(), long.clone()),
        ] {
            let (after, same) = packed(fields.clone(), body.clone());
            assert_eq!((after.get("etag"), same), (fields.get("etag"), body));
            assert!(!after.has("vary"));
        }
        // Nothing is saved by packing these.
        let mut bytes = vec![0; 2_000];
        getrandom::fill(&mut bytes).unwrap();
        assert_eq!(packed(fields(&[]), bytes.clone().into()).1, bytes);
    }

    #[test]
    fn a_packed_document_unpacks_to_itself_under_its_own_tag() {
        let whole = Bytes::from("{\"name\":\"Heat\"}".repeat(200));
        let (fields, body) = packed(fields(&[]), whole.clone());
        assert_eq!((fields.get("etag"), fields.get("content-encoding")), (Some("\"a-gzip\""), Some("gzip")));
        assert!(body.len() < whole.len() / 10);
        let plain = Form::of(&HeaderMap::new(), &fields);
        assert_eq!((plain.tag.as_str(), plain.body(body)), ("\"a\"", Some(whole)));
        assert_eq!(plain.body(Bytes::from_static(b"damaged")), None);
    }
}
