//! Content codings: one stored form of a body, and who can take it as it is.
//!
//! Origin is asked for gzip, always and by everybody, so that `Vary: Accept-Encoding` selects nothing and each URL is
//! stored once. Whoever does not take gzip gets it unpacked on the way out.
use crate::fields::Fields;

/// What origin is asked for.
pub const ASKED: &str = "gzip";

/// Below so many bytes packing costs more than it saves.
pub const PACKED_BYTES_MIN: usize = 1_024;

fn is_gzip(coding: &str) -> bool {
    // RFC 9110 section 8.4.1.3: "A recipient SHOULD consider \"x-gzip\" to be equivalent to \"gzip\"."
    coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip")
}

/// Whether a body is packed with gzip and nothing else.
pub fn is_packed(response: &Fields) -> bool {
    response.joined("content-encoding").is_some_and(|coding| is_gzip(coding.trim()))
}

/// Whether a client takes gzip (RFC 9110 section 12.5.3). Without the field any coding is acceptable by the letter, yet
/// whoever does not send it is most likely to be unable to unpack.
pub fn takes_packed(request: &Fields) -> bool {
    let Some(accepted) = request.joined("accept-encoding") else { return false };
    let mut any = None;
    for member in accepted.split(',') {
        let (coding, parameters) = member.split_once(';').unwrap_or((member, ""));
        let coding = coding.trim();
        // "not acceptable" is a weight of 0, 0.0, 0.00 or 0.000.
        let weight = parameters.trim().trim_start_matches(['q', 'Q']).trim_start_matches('=');
        let refused = !weight.is_empty() && weight.bytes().all(|b| matches!(b, b'0' | b'.'));
        if is_gzip(coding) {
            return !refused;
        }
        if coding == "*" {
            any = Some(!refused);
        }
    }
    any.unwrap_or(false)
}

/// RFC 9110 section 8.8.3.3: another coding is another body to a strong tag. Unpacked, it can only be the same weakly.
pub fn weakened(etag: &str) -> String {
    if etag.starts_with('"') { format!("W/{etag}") } else { etag.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_takes_gzip() {
        let takes = |value: &str| takes_packed(&[("accept-encoding", value)].into_iter().collect());
        for yes in ["gzip", "br, GZIP;q=0.5", "x-gzip", "*", "deflate, *;q=0.1", "gzip;q=1.0"] {
            assert!(takes(yes), "{yes:?}");
        }
        for no in ["", "identity", "br", "gzip;q=0", "gzip; q=0.000, *", "*;q=0", "gzipped"] {
            assert!(!takes(no), "{no:?}");
        }
        assert!(!takes_packed(&Fields::new()));
    }

    #[test]
    fn only_plain_gzip_can_be_unpacked_here() {
        let packed = |value: &str| is_packed(&[("content-encoding", value)].into_iter().collect());
        assert!(packed("gzip") && packed(" X-GZIP"));
        assert!(!packed("br") && !packed("gzip, gzip") && !packed("identity"));
        assert_eq!((weakened("\"a\""), weakened("W/\"a\"")), ("W/\"a\"".to_string(), "W/\"a\"".to_string()));
    }

    proptest! {
        /// RFC 9110 section 12.5.3: a coding that is listed is acceptable unless its weight is 0, whatever `*` says; one that is
        /// not, as `*` says.
        #[test]
        fn gzip_is_taken_as_the_list_says(
            members in prop::collection::vec(
                ("gzip|x-gzip|GZip|br|identity|\\*|gzipped", prop::option::of("0|0\\.0{0,3}|0\\.00[1-9]|0\\.5|1(\\.0)?")),
                0..5,
            ),
        ) {
            let written = |(coding, weight): &(String, Option<String>)| match weight {
                None => coding.clone(),
                Some(weight) => format!("{coding} ;q={weight}"),
            };
            let value = members.iter().map(written).collect::<Vec<_>>().join(" ,");
            let weight = |coding: &str| {
                let plain = |name: &str| name.to_ascii_lowercase().trim_start_matches("x-").to_string();
                let (_, weight) = members.iter().find(|(name, _)| plain(name) == coding)?;
                Some(weight.as_deref().map_or(1.0, |weight| weight.parse::<f64>().unwrap()))
            };
            // Of several `*` the last counts; which one is nobody's to say.
            let stars: Vec<_> = members.iter().filter(|(name, _)| name == "*").collect();
            prop_assume!(stars.len() < 2);
            let taken = weight("gzip").or_else(|| weight("*")).is_some_and(|weight| weight > 0.0);
            let request = [("accept-encoding", value.as_str())].into_iter().collect();
            prop_assert_eq!(takes_packed(&request), taken, "{:?}", value);
        }

        /// Who names neither gets what everybody can read.
        #[test]
        fn who_does_not_name_gzip_is_not_sent_it(value in ".{0,60}") {
            let names_it = value.to_ascii_lowercase().contains("gzip") || value.contains('*');
            let takes = takes_packed(&[("accept-encoding", value.as_str())].into_iter().collect());
            prop_assert!(names_it || !takes, "{:?}", value);
        }
    }
}
