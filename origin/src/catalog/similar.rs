//! How alike two titles are: shared people count most, then shared genres, then nearness of rating and year. Symmetric,
//! and made of what cards and credits hold, so that a job can work it out beforehand.
use crate::catalog::model::{Credit, slug};
use std::collections::BTreeSet;

/// How many are kept of each title; fewer may be shown, since not every viewer sees all.
pub const KEPT: usize = 24;
/// How many are shown.
pub const SHOWN: usize = 12;
/// How many candidates are looked at for each genre, and for each person.
pub const CANDIDATES: u32 = 60;

/// What titles are compared by.
#[derive(Clone, Debug)]
pub struct Traits {
    /// Slugs.
    pub genres: BTreeSet<String>,
    /// Ids.
    pub people: BTreeSet<String>,
    rating: Option<f64>,
    year: Option<f64>,
}

impl Traits {
    pub fn of(genres: &[String], people: &[Credit], rating: Option<f64>, year: Option<i64>) -> Self {
        // Rows of the first release have no ids.
        let person = |credit: &Credit| if credit.id.is_empty() { slug(&credit.name) } else { credit.id.clone() };
        Self {
            genres: genres.iter().map(|name| slug(name)).collect(),
            people: people.iter().map(person).collect(),
            rating,
            year: year.map(|year| year as f64),
        }
    }
}

/// 0 for titles that share nothing.
pub fn likeness(a: &Traits, b: &Traits) -> u32 {
    let shared = |a: &BTreeSet<String>, b: &BTreeSet<String>| u32::try_from(a.intersection(b).count()).unwrap_or(0);
    let (genres, people) = (shared(&a.genres, &b.genres), shared(&a.people, &b.people));
    if genres == 0 && people == 0 {
        return 0;
    }
    let near = |a: Option<f64>, b: Option<f64>, span: f64, weight: f64| {
        let distance = a.zip(b).map_or(span, |(a, b)| (a - b).abs()).min(span);
        ((1.0 - distance / span) * weight) as u32
    };
    let base = people.min(5).saturating_mul(300).saturating_add(genres.min(5).saturating_mul(200));
    base.saturating_add(near(a.rating, b.rating, 5.0, 100.0)).saturating_add(near(a.year, b.year, 30.0, 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn title(value: Value) -> Traits {
        let input = crate::catalog::validate::title(&value).unwrap();
        Traits::of(&input.genres, &input.people, input.rating, input.year)
    }

    #[test]
    fn people_count_more_than_genres_and_nearness_settles_the_rest() {
        let heat = title(json!({"name": "Heat", "genres": ["Crime"], "year": 1995, "rating": 8.2,
            "people": [{"name": "Michael Mann", "role": "director"}]}));
        let collateral = title(json!({"name": "Collateral", "genres": ["Drama"], "year": 2004, "rating": 7.5,
            "people": [{"name": "Michael Mann", "role": "director"}]}));
        let ronin = title(json!({"name": "Ronin", "genres": ["Crime"], "year": 1998, "rating": 7.2}));
        let old = title(json!({"name": "M", "genres": ["Crime"], "year": 1931}));
        let up = title(json!({"name": "Up", "genres": ["Animation"]}));
        let scores = [&collateral, &ronin, &old, &up].map(|other| likeness(&heat, other));
        assert!(scores[0] > scores[1] && scores[1] > scores[2] && scores[2] > 0 && scores[3] == 0, "{scores:?}");
        assert_eq!(likeness(&heat, &ronin), likeness(&ronin, &heat));
    }
}
