//! Finding titles by what a viewer types. Whole words and the beginning of the last one come from the engine's word index;
//! when they give little, short words are tried with one letter changed (`search_word` knows which such words there are),
//! and the engine's index of three letters finds what is misspelt otherwise. What a viewer may not see is no candidate. What is typed becomes words of a-z and 0-9
//! before it comes here, so none of it can be syntax. Which of the found is best is decided in one place for both engines.
use super::titles::Eye;
use super::{Engine, Snapshot, Sql, Write};
use crate::catalog::documents::Card;
use crate::error::StoreError;
use sqlx::Row;
use std::collections::{BTreeSet, HashMap};

/// What one search looks at, for each way to find something.
const CANDIDATES: u32 = 300;
/// Fewer than this found by words, and three letters are tried.
const ENOUGH: usize = 12;
/// Words of a query that are looked at.
const WORDS_MAX: usize = 8;
/// Sequences of three letters that are looked at.
const GRAMS_MAX: usize = 24;
/// In how many texts they may be, together (SQLite, which ranks each of them).
const GRAM_TEXTS_MAX: i64 = 8_000;
/// Letters of words that are found with one of them changed; longer ones have enough in common by threes.
const SHORT: std::ops::RangeInclusive<usize> = 4..=8;
/// Rows of one statement.
const PAIRS_MAX: usize = 1_000;
/// Words that are tried in place of one that was typed.
const NEAR_MAX: usize = 20;
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

/// A word by itself and without each one of its letters; words are of a-z and 0-9.
fn forms(word: &str) -> BTreeSet<String> {
    let without = |at: usize| {
        let (before, after) =
            (word.get(..at).unwrap_or_default(), word.get(at.saturating_add(1)..).unwrap_or_default());
        format!("{before}{after}")
    };
    (0..word.len()).map(without).chain([word.to_string()]).collect()
}

/// Whether one word becomes the other by one letter: another, one more, one less, or two neighbours swapped. `word`: one
/// that titles have.
fn is_near(typed: &str, word: &str) -> bool {
    if !SHORT.contains(&word.len()) || typed.len().abs_diff(word.len()) > 1 || typed == word {
        return false;
    }
    let (typed, word) = (typed.as_bytes(), word.as_bytes());
    let same = typed.iter().zip(word).take_while(|(a, b)| a == b).count();
    let (typed, word) = (typed.get(same..).unwrap_or_default(), word.get(same..).unwrap_or_default());
    match (typed, word) {
        ([a, b, typed @ ..], [c, d, word @ ..]) if (a, b) == (d, c) && typed == word => true,
        ([_, typed @ ..], [_, word @ ..]) if typed == word => true,
        (typed, [_, word @ ..]) if typed == word => true,
        ([_, typed @ ..], word) if typed == word => true,
        _ => false,
    }
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
    let is_there = |word: &str, among: &[&str]| among.iter().any(|have| *have == word || is_near(word, have));
    let begins = |word: &str| have.iter().any(|have| have.starts_with(word));
    if others.iter().all(|word| is_there(word, &have)) && (is_there(last, &have) || begins(last)) {
        let in_name: Vec<&str> = name.split(' ').collect();
        let in_name = words.iter().filter(|word| is_there(word, &in_name)).count();
        return Some(500 + u32::try_from(in_name).unwrap_or(0).saturating_mul(10));
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

/// What the engine's word index is asked: for each word that was typed, those that will do in its place; the last one may
/// be the beginning of one. Each word stands in quotes.
fn match_words(engine: Engine, words: &[Vec<&str>]) -> String {
    let (quote, or, and, prefix) = match engine {
        Engine::Sqlite => ('"', " OR ", " AND ", "*"),
        Engine::Postgres => ('\'', " | ", " & ", ":*"),
    };
    let last = words.len().saturating_sub(1);
    let groups = words.iter().enumerate().map(|(at, any)| {
        let quoted = any.iter().enumerate().map(|(n, word)| {
            // What was typed comes first.
            let prefix = if at == last && n == 0 { prefix } else { "" };
            format!("{quote}{word}{quote}{prefix}")
        });
        format!("({})", quoted.collect::<Vec<_>>().join(or))
    });
    groups.collect::<Vec<_>>().join(and)
}

/// Every three letters that were typed.
fn grams_typed(words: &[String]) -> Vec<String> {
    let phrase = words.join(" ");
    grams(&phrase).into_iter().take(GRAMS_MAX).map(String::from).collect()
}

/// The rarest of these, each with the number of texts that have it, as long as they are not in too many: what stands in half of
/// all texts tells nothing, and ranking those would take longer than all the rest of a search.
fn telling(mut counted: Vec<(String, i64)>) -> Vec<String> {
    counted.sort_by(|a, b| a.1.cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
    let mut texts = 0i64;
    let few = |(_, count): &(String, i64)| {
        let is_first = texts == 0;
        texts = texts.saturating_add(*count);
        is_first || texts <= GRAM_TEXTS_MAX
    };
    counted.into_iter().take_while(few).map(|(gram, _)| gram).collect()
}

impl Snapshot {
    /// What is found and seen, best first, and whether texts without the words that were typed may be among it, or decide what
    /// is: which page is to be purged with which text depends on it.
    pub async fn search(&mut self, words: &[String], eye: Eye) -> Result<(Vec<Found>, bool), StoreError> {
        if words.is_empty() {
            return Ok((Vec::new(), false));
        }
        let typed: Vec<Vec<&str>> = words.iter().map(|word| vec![word.as_str()]).collect();
        let mut texts = self.with_words(&typed, eye).await?;
        // Where more match than are looked at, the engine's ranks decide, which are relative to all texts.
        let far = !(ENOUGH..usize::try_from(CANDIDATES).unwrap_or(0)).contains(&texts.len());
        if texts.len() < ENOUGH {
            let near = self.near(words).await?;
            if near.iter().any(|words| !words.is_empty()) {
                let any = typed
                    .iter()
                    .zip(&near)
                    .map(|(typed, near)| typed.iter().copied().chain(near.iter().map(String::as_str)).collect());
                let any: Vec<Vec<&str>> = any.collect();
                texts.extend(self.with_words(&any, eye).await?);
            }
            texts.extend(self.misspelt(words, eye).await?);
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
        Ok((found, far))
    }

    async fn with_words(&mut self, words: &[Vec<&str>], eye: Eye) -> Result<Vec<(String, String)>, StoreError> {
        let statement = match self.engine {
            Engine::Sqlite => SQLITE_WORDS,
            Engine::Postgres => POSTGRES_WORDS,
        };
        self.texts(statement, &match_words(self.engine, words), eye).await
    }

    /// For each word the ones titles have that are a letter away from it.
    async fn near(&mut self, words: &[String]) -> Result<Vec<Vec<String>>, StoreError> {
        let forms: BTreeSet<String> = words
            .iter()
            .filter(|word| word.len() <= SHORT.end().saturating_add(1))
            .flat_map(|word| forms(word))
            .collect();
        if forms.is_empty() {
            return Ok(vec![Vec::new(); words.len()]);
        }
        let mut query = Sql::new("SELECT DISTINCT word FROM search_word WHERE form IN (");
        query.bind_all(forms).push(") ORDER BY word");
        let rows = query.build()?.fetch_all(&mut *self.tx).await?;
        let known = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<String>, StoreError>>()?;
        let near = |typed: &String| known.iter().filter(|word| is_near(typed, word)).take(NEAR_MAX).cloned().collect();
        Ok(words.iter().map(near).collect())
    }

    async fn misspelt(&mut self, words: &[String], eye: Eye) -> Result<Vec<(String, String)>, StoreError> {
        let grams = grams_typed(words);
        if grams.is_empty() {
            return Ok(Vec::new());
        }
        match self.engine {
            Engine::Sqlite => {
                let mut query = Sql::new("SELECT term, doc FROM title_gram_count WHERE term IN (");
                query.bind_all(grams).push(")");
                let rows = query.build()?.fetch_all(&mut *self.tx).await?;
                let counted = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
                let telling = telling(counted.collect::<Result<_, StoreError>>()?);
                if telling.is_empty() {
                    return Ok(Vec::new());
                }
                let quoted: Vec<String> = telling.iter().map(|gram| format!("\"{gram}\"")).collect();
                self.texts(SQLITE_GRAMS, &quoted.join(" OR "), eye).await
            }
            Engine::Postgres => {
                // For this transaction alone.
                sqlx::query("SELECT set_config('pg_trgm.word_similarity_threshold', '0.35', true)")
                    .execute(&mut *self.tx)
                    .await?;
                self.texts(POSTGRES_GRAMS, &words.join(" "), eye).await
            }
        }
    }

    async fn texts(
        &mut self,
        statement: &'static str,
        matching: &str,
        eye: Eye,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let rows = sqlx::query(statement)
            .bind(matching.to_string())
            .bind(i64::from(CANDIDATES))
            .bind(eye.region.as_str().to_string())
            .bind(eye.maturity)
            .bind(eye.now_ms)
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

/// Texts of titles this viewer sees. SQLite walks its index best first and stops when it has enough, if the index is the
/// outer loop.
macro_rules! texts {
    ($from:literal, $matching:literal, $order:literal) => {
        concat!(
            "SELECT title_text.title_id, title_text.words FROM ",
            $from,
            " JOIN title ON title.id = title_text.title_id
              LEFT JOIN title_window own ON own.title_id = title.id AND own.region = $3
              WHERE ",
            $matching,
            " AND title.age <= $4 AND COALESCE(own.gone_ms, title.gone_ms) > $5 ORDER BY ",
            $order,
            " LIMIT $2"
        )
    };
}

const SQLITE_WORDS: &str = texts!(
    "title_word CROSS JOIN title_text ON title_text.n = title_word.rowid",
    "title_word MATCH $1",
    "title_word.rank"
);
const SQLITE_GRAMS: &str = texts!(
    "title_gram CROSS JOIN title_text ON title_text.n = title_gram.rowid",
    "title_gram MATCH $1",
    "title_gram.rank"
);
const POSTGRES_WORDS: &str = texts!(
    "title_text",
    "tokens @@ to_tsquery('simple', $1)",
    "ts_rank(tokens, to_tsquery('simple', $1)) DESC, title_text.title_id"
);
const POSTGRES_GRAMS: &str =
    texts!("title_text", "words %> $1", "word_similarity($1, words) DESC, title_text.title_id");

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
        self.put_short_words(words).await
    }

    /// Words stay when the last title that has them goes: then they find nothing.
    pub(super) async fn put_short_words(&mut self, text: &str) -> Result<(), StoreError> {
        let mut words: BTreeSet<&str> = text.split([' ', '\n']).filter(|word| SHORT.contains(&word.len())).collect();
        if words.is_empty() {
            return Ok(());
        }
        let mut known = Sql::new("SELECT word FROM search_word WHERE form = word AND form IN (");
        known.bind_all(words.iter().map(|word| word.to_string())).push(")");
        for row in known.build()?.fetch_all(&mut *self.tx).await? {
            words.remove(row.try_get::<String, _>(0)?.as_str());
        }
        let pairs: Vec<(String, &str)> =
            words.iter().flat_map(|word| forms(word).into_iter().map(move |form| (form, *word))).collect();
        for pairs in pairs.chunks(PAIRS_MAX) {
            let mut sql = Sql::new("INSERT INTO search_word (form, word) VALUES ");
            for (at, (form, word)) in pairs.iter().enumerate() {
                sql.push(if at == 0 { "(" } else { ", (" })
                    .bind(form.clone())
                    .push(", ")
                    .bind(word.to_string())
                    .push(")");
            }
            sql.push(" ON CONFLICT DO NOTHING");
            sql.build()?.persistent(false).execute(&mut *self.tx).await?;
        }
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
        let any = [vec!["dark", "dork"], vec!["kni", "knit"]];
        assert_eq!(match_words(Engine::Sqlite, &any), r#"("dark" OR "dork") AND ("kni"* OR "knit")"#);
        assert_eq!(match_words(Engine::Postgres, &any), "('dark' | 'dork') & ('kni':* | 'knit')");
        assert!(words_of(&"x ".repeat(100)).len() <= WORDS_MAX);
    }

    #[test]
    fn words_are_near_if_one_letter_makes_them_the_same_and_then_they_share_a_form() {
        for (typed, word) in [
            ("haet", "heat"),
            ("ehat", "heat"),
            ("heta", "heat"),
            ("hezt", "heat"),
            ("zeat", "heat"),
            ("heaz", "heat"),
            ("eat", "heat"),
            ("hea", "heat"),
            ("heeat", "heat"),
            ("heatt", "heat"),
        ] {
            assert!(is_near(typed, word), "{typed}");
            assert!(!forms(typed).is_disjoint(&forms(word)), "{typed}");
        }
        for typed in ["heat", "teah", "hzzt", "he", "heatzz", "haete", ""] {
            assert!(!is_near(typed, "heat"), "{typed}");
        }
        assert!(!is_near("ca", "cat") && !is_near("dog", "dig"), "too short to tell");
        assert!(!is_near("casablanco", "casablanca"), "long ones are found by threes");
    }

    #[test]
    fn three_letters_that_many_texts_have_are_left_out_while_rarer_ones_are_there() {
        let of =
            |counts: &[(&str, i64)]| telling(counts.iter().map(|(gram, count)| (gram.to_string(), *count)).collect());
        assert_eq!(of(&[("er ", 54_536), ("391", 300), ("riv", 4_151)]), ["391", "riv"]);
        assert_eq!(of(&[("er ", 54_536)]), ["er "], "rather slow than blind");
        assert!(of(&[]).is_empty());
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
