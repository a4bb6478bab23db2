//! Which countries rights may name. What is none would be a right of nobody, and nobody would notice: `UK` blocks no viewer, since
//! they come from `GB`.
use kv_schemas::viewer::Region;

/// The 249 codes that ISO 3166-1 has assigned, as `iso3166.tab` of the time zone database (2025b) lists them, in order.
const ASSIGNED: &str = "\
    AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ \
    CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO \
    FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE \
    JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO \
    MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW \
    PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM \
    TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW";
/// Kosovo, by the code that the platform and others use for want of one.
const KOSOVO: &str = "XK";

/// A country as rights name it, or all that have none of their own (`ZZ`).
pub fn named(text: &str) -> Option<Region> {
    let region = text.parse::<Region>().ok()?;
    let is_there = region == Region::OTHER || text == KOSOVO || ASSIGNED.split(' ').any(|code| code == text);
    is_there.then_some(region)
}

/// The code of a country that goes by another outside the standard: what old systems have in its place.
pub fn mended(text: &str) -> Option<&'static str> {
    match text {
        "UK" => Some("GB"),
        "EL" => Some("GR"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_are_those_of_the_standard() {
        let codes: Vec<_> = ASSIGNED.split(' ').collect();
        assert_eq!(codes.len(), 249);
        assert!(
            codes.is_sorted() && codes.iter().all(|code| named(code).is_some_and(|region| region.as_str() == *code))
        );
        for other in ["XK", "ZZ"] {
            assert!(named(other).is_some(), "{other}");
        }
        for none in ["UK", "EL", "EU", "XX", "T1", "AN", "de", "DEU", "", "D E", "AD AE"] {
            assert!(named(none).is_none(), "{none}");
        }
        for (old, code) in ["UK", "EL"].map(|old| (old, mended(old))) {
            assert!(code.is_some_and(|code| named(code).is_some()), "{old}");
        }
    }
}
