//! What the edge tells origin, and proves with a secret that the two share, so that origin need not take everybody's word
//! who can reach it. Both proofs are HMAC-SHA256 (RFC 2104), in base64url without padding, over lines that begin with the
//! name of the field, and say in `t` when they were written, in seconds since 1970.
//!
//! - `Edge-Client: <address>;t=<t>;mac=<mac>`: the address a request came from, over `edge-client\n<address>\n<t>`. Good for
//!   a minute. Origin believes nothing else about addresses, `X-Forwarded-For` least of all.
//! - `Viewer-Seal: t=<t>;mac=<mac>`: that the request's `Viewer-*` fields are the edge's, over
//!   `viewer-seal\n<region>\n<locale>\n<maturity>\n<plan>\n<t>`, with nothing for one that was not sent. Good for an hour: clocks
//!   that lie further apart make tokens worthless too, and who can listen between edge and origin need not replay.
//!
//! The edge drops whatever a client sends in either field.
use crate::viewer;
use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::net::IpAddr;

/// Names of the fields.
pub const EDGE_CLIENT: &str = "edge-client";
pub const VIEWER_SEAL: &str = "viewer-seal";
/// How far the clocks of edge and origin may lie apart, and how long an `Edge-Client` may be under way, in seconds.
pub const CLIENT_AGE_S_MAX: u64 = 60;
/// The same for a `Viewer-Seal`.
pub const VIEWER_AGE_S_MAX: u64 = 3_600;
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

    fn mac(&self, lines: &[&str], time: &str) -> Option<Hmac<Sha256>> {
        // HMAC takes a key of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for line in lines {
            mac.update(line.as_bytes());
            mac.update(b"\n");
        }
        mac.update(time.as_bytes());
        Some(mac)
    }

    /// `t=<t>;mac=<mac>`.
    fn proof(&self, lines: &[&str], now_s: u64) -> Option<String> {
        let time = now_s.to_string();
        let mac = self.mac(lines, &time)?.finalize().into_bytes();
        Some(format!("t={time};mac={}", Base64UrlUnpadded::encode_string(&mac)))
    }

    fn is_proven(&self, lines: &[&str], proof: &str, now_s: u64, age_s_max: u64) -> Option<()> {
        let (time, mac) = proof.strip_prefix("t=")?.split_once(";mac=")?;
        let mac = Base64UrlUnpadded::decode_vec(mac).ok()?;
        // Compared in constant time.
        self.mac(lines, time)?.verify_slice(&mac).ok()?;
        let written_s: u64 = time.parse().ok()?;
        (written_s.abs_diff(now_s) <= age_s_max).then_some(())
    }

    /// `Edge-Client` for a request from `address`, as the platform writes it; what is no address is refused by who opens
    /// it, so that the Worker need not know their forms.
    pub fn seal_client(&self, address: &str, now_s: u64) -> Option<String> {
        Some(format!("{address};{}", self.proof(&[EDGE_CLIENT, address], now_s)?))
    }

    /// The address in an `Edge-Client`, if the edge wrote this not long ago.
    pub fn open_client(&self, field: &str, now_s: u64) -> Option<IpAddr> {
        if field.len() > FIELD_BYTES_MAX {
            return None;
        }
        let (address, proof) = field.split_once(';')?;
        self.is_proven(&[EDGE_CLIENT, address], proof, now_s, CLIENT_AGE_S_MAX)?;
        address.parse().ok()
    }

    /// `Viewer-Seal` for a request with these fields; none if it says nothing of its viewer.
    pub fn seal_viewer<'a>(&self, field: impl Fn(&str) -> Option<&'a str>, now_s: u64) -> Option<String> {
        self.proof(&viewer_lines(field)?, now_s)
    }

    /// Whether the edge said this of a viewer not long ago: the request's fields, `Viewer-Seal` among them. A request that says
    /// nothing of its viewer needs no proof.
    pub fn proves_viewer<'a>(&self, field: impl Fn(&str) -> Option<&'a str>, now_s: u64) -> bool {
        let proof = field(VIEWER_SEAL).filter(|proof| proof.len() <= FIELD_BYTES_MAX).unwrap_or_default();
        let Some(lines) = viewer_lines(field) else { return true };
        self.is_proven(&lines, proof, now_s, VIEWER_AGE_S_MAX).is_some()
    }
}

/// What a `Viewer-Seal` is about, if it is about anything.
fn viewer_lines<'a>(field: impl Fn(&str) -> Option<&'a str>) -> Option<[&'a str; 5]> {
    let said = viewer::FIELDS.map(field);
    if said.iter().all(Option::is_none) {
        return None;
    }
    let [region, locale, maturity, plan] = said.map(Option::unwrap_or_default);
    Some([VIEWER_SEAL, region, locale, maturity, plan])
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
            let field = secret('s').seal_client(address, NOW_S).unwrap();
            let address: IpAddr = address.parse().unwrap();
            for (now_s, opened) in [(0, true), (60, true), (61, false)] {
                assert_eq!(secret('s').open_client(&field, NOW_S + now_s).is_some(), opened, "{now_s}");
                assert_eq!(secret('s').open_client(&field, NOW_S - now_s), opened.then_some(address));
            }
        }
    }

    #[test]
    fn nobody_else_can_name_an_address() {
        let field = secret('s').seal_client("192.0.2.1", NOW_S).unwrap();
        assert_eq!(secret('t').open_client(&field, NOW_S), None);
        let mac = field.rsplit_once("mac=").unwrap().1;
        for forged in [
            field.replace("192.0.2.1", "192.0.2.2"),
            field.replace("t=1700000000", "t=1700000001"),
            field.replace(mac, ""),
            field.replace(mac, &mac[..mac.len() - 1]),
            format!("{field}, {field}"),
            "192.0.2.1".into(),
            String::new(),
            secret('s').seal_client("localhost", NOW_S).unwrap(),
            secret('s').seal_client("192.0.2.1, 192.0.2.2", NOW_S).unwrap(),
        ] {
            assert_eq!(secret('s').open_client(&forged, NOW_S), None, "{forged}");
        }
        assert!(EdgeSecret::new("too short").is_err());
    }

    #[test]
    fn what_is_said_of_a_viewer_is_believed_for_an_hour_and_only_as_it_was_said() {
        let said = [(viewer::REGION, "DE"), (viewer::MATURITY, "18")];
        let of = |fields: &[(&'static str, &'static str)], seal: &str| {
            let (fields, seal) = (fields.to_vec(), seal.to_string());
            move |now_s: u64, byte: char| {
                let find = |name: &str| {
                    let own = (name == VIEWER_SEAL && !seal.is_empty()).then_some(seal.as_str());
                    own.or_else(|| fields.iter().find(|(have, _)| *have == name).map(|(_, value)| *value))
                };
                secret(byte).proves_viewer(find, now_s)
            }
        };
        let find = |name: &str| said.iter().find(|(have, _)| *have == name).map(|(_, value)| *value);
        let seal = secret('s').seal_viewer(find, NOW_S).unwrap();
        for (now_s, believed) in [(0, true), (3_600, true), (3_601, false)] {
            assert_eq!(of(&said, &seal)(NOW_S + now_s, 's'), believed, "{now_s}");
            assert_eq!(of(&said, &seal)(NOW_S - now_s, 's'), believed, "-{now_s}");
        }
        assert!(!of(&said, &seal)(NOW_S, 't'), "another's secret");
        for other in [
            &[(viewer::REGION, "DE")][..],
            &[(viewer::REGION, "DE"), (viewer::MATURITY, "18"), (viewer::PLAN, "premium")],
            &[(viewer::REGION, "FR"), (viewer::MATURITY, "18")],
            &[(viewer::LOCALE, "DE"), (viewer::MATURITY, "18")],
        ] {
            assert!(!of(other, &seal)(NOW_S, 's'), "{other:?}");
        }
        let of_client = secret('s').seal_client("DE", NOW_S).unwrap();
        for forged in ["", "t=1700000000;mac=", &seal.replace("t=1700000000", "t=1700000001"), &of_client[3..]] {
            assert!(!of(&said, forged)(NOW_S, 's'), "{forged}");
        }
        assert!(of(&[], "")(NOW_S, 's'), "nothing is said, and nothing has to be proven");
    }

    proptest! {
        #[test]
        fn any_field_is_read_or_refused(field in ".{0,200}") {
            prop_assert_eq!(secret('s').open_client(&field, NOW_S), None);
        }
    }
}
