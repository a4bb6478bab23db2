//! Finding titles by what a viewer types. Whole words and the beginning of the last one come from the engine's word index;
//! when they give little, its index of three letters finds what is misspelt. What is typed becomes words of a-z and 0-9
//! before it comes here, so none of it can be syntax. Which of the found is best is decided in one place for both engines.
use super::titles::Eye;
use super::{Engine, Snapshot, Write};
use crate::catalog::documents::Card;
use crate::error::StoreError;
use sqlx::Row;
use std::collections::{BTreeSet, HashMap};

/// What one search looks at, for each of the two indexes.
const CANDIDATES: u32 = 300;
/// Fewer than this found by words, and three letters are tried.
const ENOUGH: usize = 12;
/// Words of a query that are looked at.
const WORDS_MAX: usize = 8;
/// Sequences of three letters that are looked at.
const GRAMS_MAX: usize = 24;
/// How much of the query's letters a find must have, in hundredths.
const LIKENESS_MIN: u32 = 34;

/// What is typed, as words.
pub fn words_of(typed: &str) -> Vec<String> {
    let plain = slug::slugify(typed);
    plain.split('-').filter(|word| !word.is_empty()).take(WORDS_MAX).map(String::from).collect()
}

fn grams(text: &str) -> BTreeSet<&str> {
    let letters = (0..text.len()).filter_map(|at| text.get(at..at.saturating_add(3)));
    letters.filter(|gram| !gram.contains('\n')).collect()
}

/// How well a text answers words: higher is better, `None` not at all. Depends on nothing but the two, so that a cursor
/// stays where it is when other titles change.
pub fn score(words: &[String], text: &str) -> Option<u32> {
    let phrase = words.join(" ");
    let name = text.lines().next().unwrap_or_default();
    let have: Vec<&str> = text.split([' ', '\n']).collect();
    let (last, others) = words.split_last()?;
    let whole = others.iter().all(|word| have.contains(&word.as_str()));
    if whole && have.iter().any(|word| word.starts_with(last.as_str())) {
        let exact = if text.lines().any(|line| line == phrase) { 400 } else { 0 };
        let begins = if name.starts_with(&phrase) { 300 } else { 0 };
        let in_name = words.iter().filter(|word| name.split(' ').any(|n| n.starts_with(word.as_str()))).count();
        return Some(1_000 + exact + begins + u32::try_from(in_name).unwrap_or(0).saturating_mul(10));
    }
    let wanted = grams(&phrase);
    let shared = |line: &str| {
        let has = grams(line);
        wanted.iter().filter(|gram| has.contains(*gram)).count()
    };
    let best = text.lines().map(shared).max().unwrap_or(0);
    let part = u32::try_from(best.saturating_mul(100).checked_div(wanted.len()).unwrap_or(0)).unwrap_or(0);
    (part >= LIKENESS_MIN).then_some(part)
}

/// A title that was found, and how well.
pub struct Found {
    pub card: Card,
    pub score: u32,
}

/// FTS5's query language, made of words and letters alone, each in quotes.
fn match_words(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!("{}*", quoted.join(" AND "))
}

/// PostgreSQL's, of the same words.
fn tsquery(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    format!("{}:*", quoted.join(" & "))
}

fn match_grams(words: &[String]) -> Option<String> {
    let phrase = words.join(" ");
    let quoted: Vec<String> = grams(&phrase).iter().take(GRAMS_MAX).map(|gram| format!("\"{gram}\"")).collect();
    if quoted.is_empty() { None } else { Some(quoted.join(" OR ")) }
}

impl Snapshot {
    /// What is found and seen, best first.
    pub async fn search(&mut self, words: &[String], eye: Eye) -> Result<Vec<Found>, StoreError> {
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let mut texts = match self.engine {
            Engine::Sqlite => self.texts(SQLITE_WORDS, &match_words(words)).await?,
            Engine::Postgres => self.texts(POSTGRES_WORDS, &tsquery(words)).await?,
        };
        if texts.len() < ENOUGH {
            texts.extend(self.misspelt(words).await?);
        }
        let scored: HashMap<&str, u32> =
            texts.iter().filter_map(|(id, text)| Some((id.as_str(), score(words, text)?))).collect();
        let ids: Vec<&str> = scored.keys().copied().collect();
        let cards = super::lists::cards_of(&mut self.tx, &ids, eye).await?;
        let mut found: Vec<Found> = cards
            .into_values()
            .filter_map(|card| Some(Found { score: *scored.get(card.id.as_str())?, card }))
            .collect();
        found.sort_by(|a, b| b.rank().cmp(&a.rank()).then_with(|| a.card.id.cmp(&b.card.id)));
        Ok(found)
    }

    async fn misspelt(&mut self, words: &[String]) -> Result<Vec<(String, String)>, StoreError> {
        match (self.engine, match_grams(words)) {
            (_, None) => Ok(Vec::new()),
            (Engine::Sqlite, Some(grams)) => self.texts(SQLITE_GRAMS, &grams).await,
            (Engine::Postgres, Some(_)) => {
                // For this transaction alone.
                sqlx::query("SELECT set_config('pg_trgm.word_similarity_threshold', '0.35', true)")
                    .execute(&mut *self.tx)
                    .await?;
                self.texts(POSTGRES_GRAMS, &words.join(" ")).await
            }
        }
    }

    async fn texts(&mut self, statement: &'static str, matching: &str) -> Result<Vec<(String, String)>, StoreError> {
        let rows = sqlx::query(statement)
            .bind(matching.to_string())
            .bind(i64::from(CANDIDATES))
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }
}

impl Found {
    /// Better texts first, then what more people voted for.
    pub fn rank(&self) -> (u32, i64) {
        (self.score, self.card.votes.unwrap_or(0))
    }
}

const SQLITE_WORDS: &str = "SELECT title_text.title_id, title_text.words FROM title_word
  JOIN title_text ON title_text.n = title_word.rowid WHERE title_word MATCH $1 ORDER BY title_word.rank LIMIT $2";
const SQLITE_GRAMS: &str = "SELECT title_text.title_id, title_text.words FROM title_gram
  JOIN title_text ON title_text.n = title_gram.rowid WHERE title_gram MATCH $1 ORDER BY title_gram.rank LIMIT $2";
const POSTGRES_WORDS: &str = "SELECT title_id, words FROM title_text WHERE tokens @@ to_tsquery('simple', $1)
  ORDER BY ts_rank(tokens, to_tsquery('simple', $1)) DESC, title_id LIMIT $2";
const POSTGRES_GRAMS: &str = "SELECT title_id, words FROM title_text WHERE words %> $1
  ORDER BY word_similarity($1, words) DESC, title_id LIMIT $2";

impl Write {
    /// The text a title is found by; `None`: it is not to be found.
    pub(super) async fn put_text(&mut self, title_id: &str, words: Option<&str>) -> Result<(), StoreError> {
        let Some(words) = words else {
            let gone = sqlx::query("DELETE FROM title_text WHERE title_id = $1").bind(title_id.to_string());
            gone.execute(&mut *self.tx).await?;
            return Ok(());
        };
        sqlx::query(
            "INSERT INTO title_text (n, title_id, words)
              VALUES ((SELECT COALESCE(max(n), 0) + 1 FROM title_text), $1, $2)
              ON CONFLICT (title_id) DO UPDATE SET words = excluded.words WHERE title_text.words <> excluded.words",
        )
        .bind(title_id.to_string())
        .bind(words.to_string())
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_becomes_plain_words_and_never_syntax() {
        assert_eq!(words_of("  Amélie* OR \"x\" NEAR(y) -z ^a:b"), ["amelie", "or", "x", "near", "y", "z", "a", "b"]);
        assert!(words_of("\"*()").is_empty());
        assert_eq!(match_words(&words_of("dark kni")), "\"dark\" AND \"kni\"*");
        assert_eq!(tsquery(&words_of("dark kni")), "'dark' & 'kni':*");
        assert!(words_of(&"x ".repeat(100)).len() <= WORDS_MAX);
    }

    #[test]
    fn whole_words_come_before_misspelt_ones_and_strangers_not_at_all() {
        let text = "the dark knight\nder dunkle ritter\nchristopher nolan";
        let of = |typed: &str| score(&words_of(typed), text);
        let (exact, begun, person, misspelt) = (of("the dark knight"), of("dark kni"), of("nolan"), of("drak knight"));
        assert!(
            exact > begun && begun > person && person > misspelt && misspelt.is_some(),
            "{exact:?} {begun:?} {person:?} {misspelt:?}"
        );
        assert!(of("dunkle ritter").is_some());
        assert_eq!(of("casablanca"), None);
        assert_eq!(of(""), None);
    }
}
