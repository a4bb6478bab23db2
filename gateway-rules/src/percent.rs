//! Percent-encoding (RFC 3986 section 2.1), read strictly: what another reader might read otherwise is no text at all.

/// What was encoded; `None` if a `%` has no two hex digits after it, or the bytes are no UTF-8.
pub fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high.checked_mul(16)?.checked_add(low)?).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hex_digits_are_a_byte_and_nothing_else_is() {
        for (text, read) in [("a%20b", "a b"), ("%C3%a9", "é"), ("", ""), ("1+1", "1+1"), ("%2525", "%25")] {
            assert_eq!(decoded(text).as_deref(), Some(read), "{text}");
        }
        for text in ["%", "%2", "%+5", "%g0", "% 5", "%ff", "a%"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }
}
