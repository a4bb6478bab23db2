//! Which header fields end at this hop.
pub use kv_schemas::Fields;

/// RFC 9110 section 7.6.1: fields that speak of one connection and end there. And what a client expects of whoever reads its
/// content (section 10.1.1), which the platform has told it to send by then: origin may refuse what it would be asked to expect.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "expect",
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
    fn connection_names_what_else_ends_here() {
        let mut fields: Fields =
            [("connection", "close, X-Hop"), ("x-hop", "1"), ("te", "gzip"), ("etag", "\"a\"")].into_iter().collect();
        remove_hop_by_hop(&mut fields);
        assert_eq!(fields, Fields::one("etag", "\"a\""));
    }
}
