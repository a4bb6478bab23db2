//! What about a viewer may change a shared answer: four dimensions, each with few values. The edge works them out, makes
//! those a document depends on part of its cache key, and sends them to origin as request fields; nobody else's fields of
//! these names get there.
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Request fields, edge to origin.
pub const REGION: &str = "viewer-region";
pub const LOCALE: &str = "viewer-locale";
pub const MATURITY: &str = "viewer-maturity";
pub const PLAN: &str = "viewer-plan";
/// All of them.
pub const FIELDS: [&str; 4] = [REGION, LOCALE, MATURITY, PLAN];

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewerError {
    #[error("a region is two upper-case letters (ISO 3166-1 alpha-2)")]
    Region,
    #[error("a locale is two or three lower-case letters (a primary language subtag, RFC 5646)")]
    Locale,
    #[error("an age class is 0, 7, 13, 16 or 18")]
    Maturity,
    #[error("a plan is none, basic, standard or premium")]
    Plan,
}

/// A country, or `ZZ` for those the service makes no difference between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Region([u8; 2]);

impl Region {
    pub const OTHER: Self = Self(*b"ZZ");

    pub fn as_str(&self) -> &str {
        // Two ASCII letters, by construction.
        std::str::from_utf8(&self.0).unwrap_or("ZZ")
    }
}

impl FromStr for Region {
    type Err = ViewerError;

    fn from_str(text: &str) -> Result<Self, ViewerError> {
        match text.as_bytes() {
            [a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => Ok(Self([*a, *b])),
            _ => Err(ViewerError::Region),
        }
    }
}

/// A language, by its primary subtag.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Locale(String);

impl Locale {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Locale {
    fn default() -> Self {
        Self("en".into())
    }
}

impl FromStr for Locale {
    type Err = ViewerError;

    fn from_str(text: &str) -> Result<Self, ViewerError> {
        let fits = matches!(text.len(), 2 | 3) && text.bytes().all(|byte| byte.is_ascii_lowercase());
        if fits { Ok(Self(text.into())) } else { Err(ViewerError::Locale) }
    }
}

/// The highest age class a viewer may see, or the one a title has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Maturity {
    All,
    From7,
    From13,
    From16,
    From18,
}

impl Maturity {
    pub const CLASSES: [Self; 5] = [Self::All, Self::From7, Self::From13, Self::From16, Self::From18];

    /// Years of age.
    pub fn years(self) -> u8 {
        match self {
            Self::All => 0,
            Self::From7 => 7,
            Self::From13 => 13,
            Self::From16 => 16,
            Self::From18 => 18,
        }
    }
}

impl TryFrom<u8> for Maturity {
    type Error = ViewerError;

    fn try_from(years: u8) -> Result<Self, ViewerError> {
        Self::CLASSES.into_iter().find(|class| class.years() == years).ok_or(ViewerError::Maturity)
    }
}

impl From<Maturity> for u8 {
    fn from(maturity: Maturity) -> u8 {
        maturity.years()
    }
}

impl FromStr for Maturity {
    type Err = ViewerError;

    fn from_str(text: &str) -> Result<Self, ViewerError> {
        // One spelling each, since it stands in cache keys: no "+7", no "07".
        match text {
            "0" => Ok(Self::All),
            "7" => Ok(Self::From7),
            "13" => Ok(Self::From13),
            "16" => Ok(Self::From16),
            "18" => Ok(Self::From18),
            _ => Err(ViewerError::Maturity),
        }
    }
}

/// What a viewer pays for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plan {
    /// Not logged in.
    #[default]
    None,
    Basic,
    Standard,
    Premium,
}

impl Plan {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "basic",
            Self::Standard => "standard",
            Self::Premium => "premium",
        }
    }
}

impl FromStr for Plan {
    type Err = ViewerError;

    fn from_str(text: &str) -> Result<Self, ViewerError> {
        [Self::None, Self::Basic, Self::Standard, Self::Premium]
            .into_iter()
            .find(|plan| plan.as_str() == text)
            .ok_or(ViewerError::Plan)
    }
}

/// A viewer as far as shared answers may depend on one. The default is a stranger.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dimensions {
    pub region: Region,
    pub locale: Locale,
    pub maturity: Maturity,
    pub plan: Plan,
}

impl Default for Dimensions {
    fn default() -> Self {
        Self { region: Region::OTHER, locale: Locale::default(), maturity: Maturity::From18, plan: Plan::None }
    }
}

impl Dimensions {
    /// As origin reads them; what is missing or malformed is as for a stranger.
    pub fn from_fields<'a>(field: impl Fn(&str) -> Option<&'a str>) -> Self {
        let stranger = Self::default();
        fn read<T: FromStr>(value: Option<&str>, otherwise: T) -> T {
            value.and_then(|value| value.parse().ok()).unwrap_or(otherwise)
        }
        Self {
            region: read(field(REGION), stranger.region),
            locale: read(field(LOCALE), stranger.locale),
            maturity: read(field(MATURITY), stranger.maturity),
            plan: read(field(PLAN), stranger.plan),
        }
    }
}

macro_rules! text_conversions {
    ($($type:ty),*) => {$(
        impl TryFrom<String> for $type {
            type Error = ViewerError;

            fn try_from(text: String) -> Result<Self, ViewerError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.as_str().to_string()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

text_conversions!(Region, Locale);

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Maturity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.years())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_one_spelling() {
        for region in ["DE", "ZZ"] {
            assert_eq!(region.parse::<Region>().unwrap().as_str(), region);
        }
        for bad in ["de", "D", "DEU", "D1", "", "ÄÖ"] {
            assert_eq!(bad.parse::<Region>(), Err(ViewerError::Region), "{bad}");
        }
        for bad in ["EN", "e", "en-US", "", "e1"] {
            assert_eq!(bad.parse::<Locale>(), Err(ViewerError::Locale), "{bad}");
        }
        for bad in ["+7", "07", "12", "", "7 "] {
            assert_eq!(bad.parse::<Maturity>(), Err(ViewerError::Maturity), "{bad}");
        }
        for class in Maturity::CLASSES {
            assert_eq!(class.to_string().parse(), Ok(class));
        }
        for bad in ["Basic", "", "free"] {
            assert_eq!(bad.parse::<Plan>(), Err(ViewerError::Plan), "{bad}");
        }
    }

    #[test]
    fn what_is_missing_or_malformed_is_as_for_a_stranger() {
        let fields = [(REGION, "DE"), (LOCALE, "EN"), (MATURITY, "13")];
        let read =
            Dimensions::from_fields(|name| fields.iter().find(|(have, _)| *have == name).map(|(_, value)| *value));
        let want = Dimensions { region: "DE".parse().unwrap(), maturity: Maturity::From13, ..Dimensions::default() };
        assert_eq!(read, want);
    }
}
