//! movies.json of the npm package vega-datasets: 3,201 films as they were collected, with what such collections have:
//! no ids, titles that are numbers or missing, repeats, and two-digit years read into the wrong century.
use super::Batch;
use crate::catalog::model::{Credit, RailInput, TitleInput, slug, sort_name};
use jiff::civil::Date;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// The collection ends here: a later year is one of a century before.
const LAST_YEAR: i16 = 2011;
const RAIL_ITEMS: usize = 12;
/// Ratings by fewer people say little.
const VOTES_MIN: i64 = 10_000;

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "Title")]
    title: Value,
    #[serde(rename = "Release Date")]
    release_date: Option<String>,
    #[serde(rename = "MPAA Rating")]
    maturity: Option<String>,
    #[serde(rename = "Running Time min")]
    runtime_min: Option<i64>,
    #[serde(rename = "Distributor")]
    distributor: Option<String>,
    #[serde(rename = "Major Genre")]
    genre: Option<String>,
    #[serde(rename = "Director")]
    director: Option<String>,
    #[serde(rename = "Rotten Tomatoes Rating")]
    critics: Option<i64>,
    #[serde(rename = "IMDB Rating")]
    rating: Option<f64>,
    #[serde(rename = "IMDB Votes")]
    votes: Option<i64>,
}

/// What rails are made of.
struct Film {
    id: String,
    genre: Option<String>,
    critics: i64,
    rating: f64,
    votes: i64,
}

pub fn read(text: &str) -> Result<Batch, String> {
    let records: Vec<Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut batch = Batch::default();
    let mut films = Vec::new();
    // Which record has an id, and its release date: the same film again, or another one of that name and year.
    let mut taken: HashMap<String, Option<String>> = HashMap::new();
    for (number, value) in (1..).zip(records) {
        batch.report.read += 1;
        let record: Record = match serde_json::from_value(value) {
            Ok(record) => record,
            Err(error) => {
                batch.report.refuse("not a film", format!("record {number}: {error}"));
                continue;
            }
        };
        if let Some((id, input)) = title(&mut batch, &mut taken, number, &record) {
            films.push(Film {
                id: id.clone(),
                genre: input.genres.first().cloned(),
                critics: record.critics.unwrap_or(0),
                rating: input.rating.unwrap_or(0.0),
                votes: input.votes.unwrap_or(0),
            });
            batch.titles.push((id, input));
        }
    }
    batch.rails = rails(&films);
    Ok(batch)
}

fn title(
    batch: &mut Batch,
    taken: &mut HashMap<String, Option<String>>,
    number: usize,
    record: &Record,
) -> Option<(String, TitleInput)> {
    let name = match &record.title {
        Value::String(name) if !name.trim().is_empty() => name.trim().to_string(),
        Value::Number(name) => {
            batch.report.mend("a number for a title", format!("record {number}: {name}"));
            name.to_string()
        }
        _ => {
            batch.report.refuse("no title", format!("record {number}"));
            return None;
        }
    };
    let date = date(batch, number, record.release_date.as_deref());
    let release_date = date.map(|date| date.to_string());
    let id = id(&name, date, record, &release_date, taken);
    let Some(id) = id else {
        batch.report.refuse("the same film again", format!("record {number}: {name}"));
        return None;
    };
    taken.insert(id.clone(), release_date.clone());
    let people = record.director.iter().map(|name| Credit {
        id: slug(name),
        name: name.clone(),
        role: "director".into(),
        character: None,
    });
    let input = TitleInput {
        sort_name: sort_name(&name),
        name,
        year: date.map(|date| i64::from(date.year())),
        release_date,
        maturity: record.maturity.clone(),
        runtime_min: record.runtime_min.filter(|minutes| *minutes > 0),
        rating: record.rating,
        votes: record.votes,
        distributor: record.distributor.clone(),
        genres: record.genre.iter().cloned().collect(),
        people: people.filter(|credit| !credit.id.is_empty()).collect(),
        ..TitleInput::default()
    };
    Some((id, input))
}

/// Stable across imports: name and year, then the director, then a counter. `None` for a repeat.
fn id(
    name: &str,
    date: Option<Date>,
    record: &Record,
    release_date: &Option<String>,
    taken: &HashMap<String, Option<String>>,
) -> Option<String> {
    let slug_of_name = slug(name);
    let stem = if slug_of_name.is_empty() { "untitled".to_string() } else { slug_of_name };
    let first = date.map_or(stem.clone(), |date| format!("{stem}-{}", date.year()));
    let by_director = record.director.as_deref().map(|name| format!("{first}-{}", slug(name)));
    let counted = (2..).map(|n| format!("{first}-{n}"));
    let candidates = std::iter::once(first.clone()).chain(by_director).chain(counted);
    for candidate in candidates {
        let candidate: String = candidate.chars().take(crate::catalog::validate::ID_BYTES_MAX).collect();
        let candidate = candidate.trim_end_matches('-').to_string();
        match taken.get(&candidate) {
            None => return Some(candidate),
            Some(other) if other == release_date => return None,
            Some(_) => {}
        }
    }
    None
}

fn date(batch: &mut Batch, number: usize, text: Option<&str>) -> Option<Date> {
    let text = text?.trim();
    let Ok(date) = Date::strptime("%b %d %Y", text) else {
        batch.report.mend("a release date that cannot be read is left out", format!("record {number}: {text}"));
        return None;
    };
    if date.year() <= LAST_YEAR {
        return Some(date);
    }
    batch.report.mend("a release in the future is one of a century before", format!("record {number}: {text}"));
    // 29 February exists a century earlier too, but for 1900.
    date.with().year(date.year() - 100).build().ok()
}

/// Editors would choose; the sample chooses by what it knows. The order is the same each time.
fn rails(films: &[Film]) -> Vec<(String, RailInput)> {
    let pick = |id: &str, title: &str, position: i64, of: &dyn Fn(&Film) -> bool, by: &dyn Fn(&Film) -> (i64, i64)| {
        let mut chosen: Vec<&Film> = films.iter().filter(|film| of(film)).collect();
        chosen.sort_by(|a, b| by(b).cmp(&by(a)).then_with(|| a.id.cmp(&b.id)));
        let items = chosen.iter().take(RAIL_ITEMS).map(|film| film.id.clone()).collect();
        (id.to_string(), RailInput::of(title, position, items))
    };
    let known = |film: &Film| film.votes >= VOTES_MIN;
    let tenths = |film: &Film| (film.rating * 10.0) as i64;
    let mut rails = vec![
        pick("popular", "Popular", 1, &|_| true, &|film| (film.votes, 0)),
        pick("top-rated", "Top rated", 2, &known, &|film| (tenths(film), film.votes)),
        pick("critics-choice", "Critics' choice", 3, &known, &|film| (film.critics, film.votes)),
    ];
    for (position, genre) in (4..).zip(["Drama", "Comedy", "Adventure"]) {
        let of = |film: &Film| film.genre.as_deref() == Some(genre);
        let id = format!("genre-{}", slug(genre));
        rails.push(pick(&id, genre, position, &of, &|film| (film.votes, 0)));
    }
    rails
}

#[cfg(test)]
mod tests {
    use super::*;

    fn films(json: &str) -> Batch {
        read(json).unwrap()
    }

    fn film(title: &str, date: &str, director: &str) -> String {
        format!(
            r#"{{"Title":{title},"Release Date":{date},"MPAA Rating":"R","Running Time min":null,"Distributor":null,
            "Major Genre":"Drama","Director":{director},"Rotten Tomatoes Rating":9,"IMDB Rating":6.1,"IMDB Votes":10}}"#
        )
    }

    #[test]
    fn odd_titles_and_dates_are_mended_or_refused_with_reasons() {
        let records = [
            film("\"Heat\"", "\"Dec 15 1995\"", "null"),
            film("1776", "\"Nov 09 1972\"", "null"),
            film("null", "\"Nov 09 1972\"", "null"),
            film("\"Old\"", "\"Jan 01 2046\"", "null"),
            film("\"Undated\"", "\"1998\"", "null"),
        ];
        let batch = films(&format!("[{}]", records.join(",")));
        let ids: Vec<_> = batch.titles.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["heat-1995", "1776-1972", "old-1946", "undated"]);
        assert_eq!(batch.titles[2].1.release_date.as_deref(), Some("1946-01-01"));
        assert_eq!(batch.report.mended.values().map(|c| c.count).sum::<usize>(), 3);
        assert_eq!(batch.report.refused["no title"].count, 1);
    }

    #[test]
    fn repeats_are_refused_and_namesakes_kept_apart() {
        let records = [
            film("\"Heat\"", "\"Dec 15 1995\"", "\"Michael Mann\""),
            film("\"Heat\"", "\"Dec 15 1995\"", "\"Michael Mann\""),
            film("\"Heat\"", "\"Jan 02 1995\"", "\"Ann Other\""),
            film("\"Heat\"", "\"Jan 03 1995\"", "null"),
        ];
        let batch = films(&format!("[{}]", records.join(",")));
        let ids: Vec<_> = batch.titles.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["heat-1995", "heat-1995-ann-other", "heat-1995-2"]);
        assert_eq!(batch.report.refused["the same film again"].count, 1);
    }

    #[test]
    fn what_is_no_list_of_films_is_refused_as_a_whole() {
        assert!(read("{}").is_err());
        assert_eq!(films("[{\"a\":1}]").report.refused["not a film"].count, 1);
    }
}
