//! What about a viewer changes an answer: worked out from what can be trusted, bounded by the settings, written into cache
//! keys and sent to origin. Pure, tested natively. It never reads a dimension from a field of the client's of that name.
//!
//! In a key they stand as `;region=DE;locale=de;maturity=18;plan=none`, those alone which the document depends on, always
//! in this order. The fields origin is sent are read from the key again, so that a page that is refreshed without its
//! viewer is asked for with the very dimensions it is stored under.
use kv_schemas::edge_secret::VIEWER_SEAL;
use kv_schemas::viewer::{self, Dimensions, LOCALE, Locale, MATURITY, PLAN, REGION, Region};
use std::fmt::Write;
use surrogate_cache::Fields;
use surrogate_cache::vary::thousandths;

/// Which dimensions a document depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depends {
    pub region: bool,
    pub locale: bool,
    pub maturity: bool,
    pub plan: bool,
}

impl Depends {
    pub const NOTHING: Self = Self { region: false, locale: false, maturity: false, plan: false };
    pub const EVERYTHING: Self = Self { region: true, locale: true, maturity: true, plan: true };
}

/// Regions and locales the service makes a difference between.
#[derive(Clone, Debug)]
pub struct Known {
    pub regions: Vec<Region>,
    /// The first is what is answered to who wants none of them. Never empty.
    pub locales: Vec<Locale>,
}

/// So many of each at most: each is another copy of every document.
const REGIONS_MAX: usize = 64;
const LOCALES_MAX: usize = 32;
// `entry.js` finds slots by numbers of regions and locales below 128 (`NUMBERS`).
const _: () = assert!(REGIONS_MAX < 128 && LOCALES_MAX < 128);

impl Known {
    /// Reads the settings `REGIONS` and `LOCALES`.
    pub fn read(regions: &str, locales: &str) -> Result<Self, String> {
        fn list<T: std::str::FromStr>(name: &str, text: &str, max: usize) -> Result<Vec<T>, String>
        where
            T::Err: std::fmt::Display,
        {
            let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            let all = words.map(|word| word.parse().map_err(|error| format!("{name}: '{word}': {error}")));
            let all = all.collect::<Result<Vec<T>, String>>()?;
            if all.len() > max { Err(format!("{name} has {} members; at most {max}", all.len())) } else { Ok(all) }
        }
        let mut locales: Vec<Locale> = list("LOCALES", locales, LOCALES_MAX)?;
        if locales.is_empty() {
            locales.push(Locale::default());
        }
        Ok(Self { regions: list("REGIONS", regions, REGIONS_MAX)?, locales })
    }

    /// The region of a country, as the platform names it.
    pub fn region(&self, country: Option<&str>) -> Region {
        let country = country.and_then(|country| country.parse().ok());
        country.filter(|region| self.regions.contains(region)).unwrap_or(Region::OTHER)
    }

    /// The region of a country as a number: of its place, or one more than there are.
    pub fn region_number(&self, country: Option<&str>) -> usize {
        let region = self.region(country);
        self.regions.iter().position(|known| *known == region).unwrap_or(self.regions.len())
    }

    /// What `Accept-Language` wants, as the number of its place.
    pub fn locale_number(&self, accept_language: Option<&str>) -> usize {
        let locale = self.negotiated(accept_language);
        self.locales.iter().position(|known| *known == locale).unwrap_or(0)
    }

    /// One of the known locales, by its tag.
    pub fn locale(&self, tag: &str) -> Option<&Locale> {
        self.locales.iter().find(|locale| locale.as_str() == tag)
    }

    /// The locale `Accept-Language` (RFC 9110 section 12.5.4) wants most; of equals the first. Ranges count by their primary
    /// subtag (RFC 4647 section 3.4, shortened at once); what does not parse counts for nothing.
    pub fn negotiated(&self, accept_language: Option<&str>) -> Locale {
        // Nobody ranks more; the rest is there to cost time.
        const RANGES_MAX: usize = 20;
        let mut best: Option<(&Locale, u16)> = None;
        for member in accept_language.unwrap_or("").split(',').take(RANGES_MAX) {
            let (range, weight) = member.split_once(';').map_or((member, None), |(range, rest)| (range, Some(rest)));
            let primary = range.trim().split('-').next().unwrap_or_default();
            let Some(weight) = weight.map_or(Some(1000), thousandths).filter(|weight| *weight > 0) else { continue };
            let wanted = self.locales.iter().find(|locale| locale.as_str().eq_ignore_ascii_case(primary));
            if let Some(locale) = wanted.filter(|_| best.is_none_or(|(_, most)| weight > most)) {
                best = Some((locale, weight));
            }
        }
        best.map(|(locale, _)| locale).or(self.locales.first()).cloned().unwrap_or_default()
    }
}

/// The part of a cache key that says what the answer depends on.
pub fn about(depends: Depends, dimensions: &Dimensions) -> String {
    let mut about = String::with_capacity(48);
    if depends.region {
        about.push_str(";region=");
        about.push_str(dimensions.region.as_str());
    }
    if depends.locale {
        about.push_str(";locale=");
        about.push_str(dimensions.locale.as_str());
    }
    if depends.maturity {
        let _ = write!(about, ";maturity={}", dimensions.maturity.years());
    }
    if depends.plan {
        about.push_str(";plan=");
        about.push_str(dimensions.plan.as_str());
    }
    about
}

/// The request fields that tell origin what a key says.
pub fn fields_of(about: &str) -> impl Iterator<Item = (&str, &str)> {
    about.split(';').filter_map(|part| {
        let (name, value) = part.split_once('=')?;
        let name = match name {
            "region" => REGION,
            "locale" => LOCALE,
            "maturity" => MATURITY,
            "plan" => PLAN,
            _ => return None,
        };
        Some((name, value))
    })
}

/// Takes out what a client says about itself in our words, and puts in what the key says.
pub fn tell(fields: &mut Fields, about: &str) {
    fields.retain(|name| !is_ours(name));
    for (name, value) in fields_of(about) {
        fields.push(name, value);
    }
}

/// Whether a request field is one the edge alone may send to origin.
pub fn is_ours(name: &str) -> bool {
    name == VIEWER_SEAL || viewer::FIELDS.contains(&name)
}

/// The first `locale` of a target's query.
pub fn locale_asked(target: &str) -> Option<&str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("locale="))
}

/// What caches between the client and this edge have to know (RFC 9110 section 12.5.5): another token may get another
/// answer, and so may another language. The region is that of the way to the client, for all behind it.
pub fn varies(about: &str) -> &'static [&'static str] {
    let depends_on = |name: &str| fields_of(about).any(|(field, _)| field == name);
    match (depends_on(LOCALE), depends_on(MATURITY) || depends_on(PLAN)) {
        (true, _) => &["authorization", "accept-language"],
        (false, true) => &["authorization"],
        (false, false) => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv_schemas::viewer::{Maturity, Plan};

    fn known() -> Known {
        Known::read("DE, FR,GB", "en,de,fr").unwrap()
    }

    #[test]
    fn regions_are_those_of_the_settings_and_all_others_are_one() {
        for (country, region) in [
            (Some("DE"), "DE"),
            (Some("GB"), "GB"),
            (Some("US"), "ZZ"),
            (Some("T1"), "ZZ"),
            (Some("de"), "ZZ"),
            (None, "ZZ"),
        ] {
            assert_eq!(known().region(country).as_str(), region, "{country:?}");
        }
    }

    #[test]
    fn the_language_wanted_most_is_given_and_otherwise_the_first() {
        for (accepted, locale) in [
            (None, "en"),
            (Some(""), "en"),
            (Some("de"), "de"),
            (Some("DE-at, en;q=0.5"), "de"),
            (Some("it, fr;q=0.8, de;q=0.9"), "de"),
            (Some("de;q=0, fr;q=0.1"), "fr"),
            (Some("*"), "en"),
            (Some("fr;q=x, de;q=0.1"), "de"),
            (Some("fr;q=1.5"), "en"),
            (Some("fr, de"), "fr"),
            (Some("english"), "en"),
            (Some("de\u{e9}, \u{0}"), "en"),
        ] {
            assert_eq!(known().negotiated(accepted).as_str(), locale, "{accepted:?}");
        }
    }

    #[test]
    fn a_key_names_what_the_document_depends_on_and_origin_is_told_the_same() {
        let dimensions = Dimensions {
            region: "DE".parse().unwrap(),
            locale: "fr".parse().unwrap(),
            maturity: Maturity::From7,
            plan: Plan::Basic,
        };
        let all = about(Depends::EVERYTHING, &dimensions);
        assert_eq!(all, ";region=DE;locale=fr;maturity=7;plan=basic");
        assert_eq!(about(Depends { locale: true, ..Depends::NOTHING }, &dimensions), ";locale=fr");
        assert_eq!(about(Depends::NOTHING, &dimensions), "");
        let mut fields: Fields =
            [("viewer-region", "US"), ("viewer-plan", "premium"), ("a", "b")].into_iter().collect();
        tell(&mut fields, &all);
        let told = Dimensions::from_fields(|name| fields.get(name));
        assert_eq!((told, fields.get("a"), fields.all("viewer-region").count()), (dimensions, Some("b"), 1));
        tell(&mut fields, ";viewer=x;session=y");
        assert_eq!(fields.len(), 1);
    }

    #[test]
    fn settings_that_cannot_be_right_are_refused() {
        for (regions, locales) in [("DE,Germany", "en"), ("DE", "en,EN"), (&"DE,".repeat(65), "en")] {
            assert!(Known::read(regions, locales).is_err(), "{regions} {locales}");
        }
        assert_eq!(Known::read("", "").unwrap().negotiated(Some("de")).as_str(), "en");
    }
}
