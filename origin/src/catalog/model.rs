//! The things of the catalogue as the service holds them.
use serde::{Deserialize, Serialize};

/// Who took part in a title.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    pub name: String,
    pub role: String,
}

/// What an editor may write of a title.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TitleInput {
    pub name: String,
    /// What lists are ordered by.
    pub sort_name: String,
    pub year: Option<i64>,
    /// `YYYY-MM-DD`
    pub release_date: Option<String>,
    pub synopsis: Option<String>,
    /// The rating board's mark, such as `PG-13`.
    pub maturity: Option<String>,
    pub runtime_min: Option<i64>,
    /// 0 to 10.
    pub rating: Option<f64>,
    pub votes: Option<i64>,
    pub distributor: Option<String>,
    /// Names, in order.
    pub genres: Vec<String>,
    pub people: Vec<Credit>,
    /// Whether viewers see it.
    pub published: bool,
}

/// A title as stored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Title {
    pub id: String,
    pub version: i64,
    #[serde(flatten)]
    pub input: TitleInput,
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
}

/// A row of titles on the home page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rail {
    pub id: String,
    pub title: String,
    pub position: i64,
    /// Title ids in order.
    pub items: Vec<String>,
}

/// The part of a name that can stand in ids, keys and URLs: `a-z`, `0-9`, `-`.
pub fn slug(name: &str) -> String {
    let slug = slug::slugify(name);
    slug.chars().take(60).collect::<String>().trim_end_matches('-').to_string()
}

/// The order people expect in a list: articles at the front do not count, nor do case and accents.
pub fn sort_name(name: &str) -> String {
    let plain = slug::slugify(name).replace('-', " ");
    let stripped = ["the ", "a ", "an "].iter().find_map(|article| plain.strip_prefix(article));
    let sorted = stripped.filter(|rest| !rest.is_empty()).unwrap_or(&plain);
    if sorted.is_empty() { name.to_lowercase() } else { sorted.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_plain_and_short() {
        assert_eq!(slug("Amélie: le fabuleux destin!"), "amelie-le-fabuleux-destin");
        assert!(slug(&"x ".repeat(200)).len() <= 60);
        assert_eq!(slug("???"), "");
    }

    #[test]
    fn articles_do_not_count_in_order() {
        assert_eq!(sort_name("The Matrix"), "matrix");
        assert_eq!(sort_name("A"), "a");
        assert_eq!(sort_name("Éclair"), "eclair");
        assert_eq!(sort_name("???"), "???");
    }
}
