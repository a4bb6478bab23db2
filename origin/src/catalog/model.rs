//! The things of the catalogue as the service holds them.
use jiff::Timestamp;
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
    /// Whether viewers may see it at all.
    pub published: bool,
    /// When they may, from (inclusive) and until (exclusive); open where nothing is said.
    pub available_from: Option<Timestamp>,
    pub available_until: Option<Timestamp>,
}

impl TitleInput {
    /// Whether viewers see it at a moment.
    pub fn visible_at(&self, now_ms: i64) -> bool {
        let has_begun = self.available_from.is_none_or(|from| from.as_millisecond() <= now_ms);
        let has_ended = self.available_until.is_some_and(|until| until.as_millisecond() <= now_ms);
        self.published && has_begun && !has_ended
    }

    /// The next moment after this at which that changes by itself.
    pub fn next_change_ms(&self, now_ms: i64) -> Option<i64> {
        let edges = [self.available_from, self.available_until].into_iter().flatten();
        edges.map(Timestamp::as_millisecond).filter(|at_ms| self.published && *at_ms > now_ms).min()
    }
}

/// A title as stored.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Title {
    pub id: String,
    pub version: i64,
    #[serde(flatten)]
    pub input: TitleInput,
    /// Whether viewers see it, as of its last write or the last change by schedule.
    pub visible: bool,
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
    fn a_window_opens_inclusively_and_closes_exclusively() {
        let mut input = crate::catalog::validate::title(&serde_json::json!({"name": "Heat",
            "available_from": "1970-01-01T00:00:10Z", "available_until": "1970-01-01T00:00:20+00:00"}))
        .unwrap();
        let at = |ms| (input.visible_at(ms), input.next_change_ms(ms));
        assert_eq!([at(9_999), at(10_000)], [(false, Some(10_000)), (true, Some(20_000))]);
        assert_eq!([at(19_999), at(20_000)], [(true, Some(20_000)), (false, None)]);
        input.published = false;
        assert_eq!((input.visible_at(15_000), input.next_change_ms(15_000)), (false, None));
    }

    #[test]
    fn articles_do_not_count_in_order() {
        assert_eq!(sort_name("The Matrix"), "matrix");
        assert_eq!(sort_name("A"), "a");
        assert_eq!(sort_name("Éclair"), "eclair");
        assert_eq!(sort_name("???"), "???");
    }
}
