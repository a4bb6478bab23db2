//! `Edge-Client`, edge to origin: the address a request came from, and the proof that the edge says so.
//!
//! `Edge-Client: <address>;t=<seconds since 1970>;mac=<base64url>`, where the MAC is HMAC-SHA256 (RFC 2104) with a secret
//! that edge and origin share, over `edge-client\n<address>\n<t>`. Good for a minute. The edge drops whatever a client
//! sends in this field; origin believes nothing else about addresses, `X-Forwarded-For` least of all.
use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::net::IpAddr;

/// The field's name.
pub const EDGE_CLIENT: &str = "edge-client";
/// How far the clocks of edge and origin may lie apart, and how long a field may be under way, in seconds.
pub const AGE_S_MAX: u64 = 60;
/// A shorter secret could be searched for.
pub const SECRET_BYTES_MIN: usize = 32;
/// The longest field: an IPv6 address, a time, a MAC.
const FIELD_BYTES_MAX: usize = 160;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret shared by edge and origin has at least 32 bytes")]
pub struct SecretTooShort;

/// What edge and origin share.
#[derive(Clone)]
pub struct EdgeSecret(Vec<u8>);

impl std::fmt::Debug for EdgeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EdgeSecret")
    }
}

impl EdgeSecret {
    pub fn new(text: &str) -> Result<Self, SecretTooShort> {
        let text = text.trim();
        if text.len() < SECRET_BYTES_MIN { Err(SecretTooShort) } else { Ok(Self(text.into())) }
    }

    fn mac(&self, address: &str, time: &str) -> Option<Hmac<Sha256>> {
        // HMAC takes a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for part in ["edge-client\n", address, "\n", time] {
            mac.update(part.as_bytes());
        }
        Some(mac)
    }

    /// The field's value for a request from `address`, as the platform writes it; what is no address is refused by who opens
    /// it, so that the Worker need not know their forms.
    pub fn seal(&self, address: &str, now_s: u64) -> Option<String> {
        let time = now_s.to_string();
        let mac = self.mac(address, &time)?.finalize().into_bytes();
        Some(format!("{address};t={time};mac={}", Base64UrlUnpadded::encode_string(&mac)))
    }

    /// The address, if the edge wrote this not long ago.
    pub fn open(&self, field: &str, now_s: u64) -> Option<IpAddr> {
        if field.len() > FIELD_BYTES_MAX {
            return None;
        }
        let (address, rest) = field.split_once(";t=")?;
        let (time, mac) = rest.split_once(";mac=")?;
        let mac = Base64UrlUnpadded::decode_vec(mac).ok()?;
        // Compared in constant time.
        self.mac(address, time)?.verify_slice(&mac).ok()?;
        let written_s: u64 = time.parse().ok()?;
        if written_s.abs_diff(now_s) > AGE_S_MAX {
            return None;
        }
        address.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_S: u64 = 1_700_000_000;

    fn secret(byte: char) -> EdgeSecret {
        EdgeSecret::new(&byte.to_string().repeat(32)).unwrap()
    }

    #[test]
    fn an_address_comes_back_as_it_went_for_a_minute() {
        for address in ["192.0.2.1", "2001:db8::1"] {
            let field = secret('s').seal(address, NOW_S).unwrap();
            let address: IpAddr = address.parse().unwrap();
            for (now_s, opened) in [(0, true), (60, true), (61, false)] {
                assert_eq!(secret('s').open(&field, NOW_S + now_s).is_some(), opened, "{now_s}");
                assert_eq!(secret('s').open(&field, NOW_S - now_s), opened.then_some(address));
            }
        }
    }

    #[test]
    fn nobody_else_can_name_an_address() {
        let field = secret('s').seal("192.0.2.1", NOW_S).unwrap();
        assert_eq!(secret('t').open(&field, NOW_S), None);
        let mac = field.rsplit_once("mac=").unwrap().1;
        for forged in [
            field.replace("192.0.2.1", "192.0.2.2"),
            field.replace("t=1700000000", "t=1700000001"),
            field.replace(mac, ""),
            field.replace(mac, &mac[..mac.len() - 1]),
            format!("{field}, {field}"),
            "192.0.2.1".into(),
            String::new(),
            secret('s').seal("localhost", NOW_S).unwrap(),
            secret('s').seal("192.0.2.1, 192.0.2.2", NOW_S).unwrap(),
        ] {
            assert_eq!(secret('s').open(&forged, NOW_S), None, "{forged}");
        }
        assert!(EdgeSecret::new("too short").is_err());
    }

    proptest! {
        #[test]
        fn any_field_is_read_or_refused(field in ".{0,200}") {
            prop_assert_eq!(secret('s').open(&field, NOW_S), None);
        }
    }
}
