//! Finding titles by what a viewer types. Whole words and the beginning of the last one come from the engine's word index.
//! When they give little, words that titles have take the place of those that were typed: `search_word` knows which differ in
//! one letter, and, when nothing is found so, which have the most groups of three letters in common; then words are also
//! tried apart, together, and all but one. What a viewer may not see is no candidate. What is typed becomes words of a-z and
//! 0-9 before it comes here, so none of it can be syntax. Which of the found is best is decided in one place.
//!
//! What matches is taken in order of votes (`title_text.n`), as much of it as one search looks at: an index gives it in that
//! order, where ranking all that match takes as long as there are matches, thousands for a common word. A name that is
//! just what was typed is looked for by itself, however few voted for it. Given up: a title that has the words in a better
//! place than hundreds with more votes, but by another name.
use super::titles::Eye;
use super::{Engine, Snapshot, Sql, Write};
use crate::catalog::documents::Card;
use crate::catalog::keys;
use crate::catalog::model::Title;
use crate::error::StoreError;
use sqlx::Row;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// What one search looks at, for each way to find something.
const CANDIDATES: u32 = 300;
/// Fewer than this found by words, and words near them are tried.
const ENOUGH: usize = 12;
/// Votes that make a difference.
const VOTES_MAX: i64 = (1 << 38) - 1;
/// Places for titles of equal votes, as a power of two.
const PLACES_BITS: u32 = 24;
/// Letters of a name that are compared with what was typed.
const NAME_MAX: usize = 200;
/// Words of a query that are looked at.
const WORDS_MAX: usize = 8;
/// Letters of words that are found with one of them changed.
const SHORT: std::ops::RangeInclusive<usize> = 4..=8;
/// Letters of words that are found by three of them.
const LONG: std::ops::RangeInclusive<usize> = 4..=32;
/// Words with some of these groups that are compared.
const ALIKE_MAX: u32 = 200;
/// Rows, or words, of one statement.
const PAIRS_MAX: usize = 1_000;
/// Words that are tried in place of one that was typed.
const NEAR_MAX: usize = 20;
/// Words no title has that others are looked for in place of, the longest first: each such look reads thousands of rows.
const ALIKE_WORDS_MAX: usize = 3;
/// How much of the query's letters a find must have, in hundredths.
const LIKENESS_MIN: u32 = 34;

/// What is typed, as words. A character may become fifteen letters: of what is longer than any word that is compared, the
/// beginning stands for the whole.
pub fn words_of(typed: &str) -> Vec<String> {
    let plain = slug::slugify(typed);
    let words = plain.split('-').filter(|word| !word.is_empty()).take(WORDS_MAX);
    words.map(|word| word.chars().take(*LONG.end()).collect()).collect()
}

/// Whether a word that was typed may be the beginning of a longer one: what comes after it was cut.
fn is_cut(typed: &str) -> bool {
    typed.len() >= *LONG.end()
}

/// Whether a word is the one that was typed.
fn is_same(typed: &str, word: &str) -> bool {
    typed == word || is_cut(typed) && word.starts_with(typed)
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

/// Groups of three letters, as forms of the word; its beginning and its end count as letters.
fn gram_forms(word: &str) -> BTreeSet<String> {
    grams(&format!(" {word} ")).into_iter().filter(|gram| gram.len() == 3).map(|gram| format!("~{gram}")).collect()
}

/// Everything a word is looked up by.
fn all_forms(word: &str) -> BTreeSet<String> {
    let mut all = gram_forms(word);
    match SHORT.contains(&word.len()) {
        true => all.extend(forms(word)),
        false => _ = all.insert(word.to_string()),
    }
    all
}

/// Words of texts that can be found misspelt.
pub(super) fn long_words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', '\n']).filter(|word| LONG.contains(&word.len()))
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
    let whole = others.iter().all(|word| have.iter().any(|have| is_same(word, have)));
    if whole && have.iter().any(|word| word.starts_with(last.as_str())) {
        let exact = if text.lines().any(|line| line == phrase) { 400 } else { 0 };
        let begins = if name.starts_with(&phrase) { 300 } else { 0 };
        let in_name = words.iter().filter(|word| name.split(' ').any(|n| n.starts_with(word.as_str()))).count();
        return Some(1_000 + exact + begins + u32::try_from(in_name).unwrap_or(0).saturating_mul(10));
    }
    let is_there = |word: &str, among: &[&str]| among.iter().any(|have| is_same(word, have) || is_near(word, have));
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

/// A place among what is found, best first: better texts, then more votes, then by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Rank(Reverse<u32>, Reverse<i64>, String);

/// A title that was found, and where.
pub struct Found {
    pub card: Card,
    pub rank: Rank,
}

/// A title with the words that were typed, or nearly.
struct Candidate {
    id: String,
    text: String,
    votes: i64,
}

/// The first of the places of titles with so many votes.
fn first_place(votes: i64) -> i64 {
    let fewer = VOTES_MAX.saturating_add(1).saturating_sub(votes.clamp(0, VOTES_MAX));
    fewer << PLACES_BITS
}

/// Of a title in this place.
fn votes_at(n: i64) -> i64 {
    VOTES_MAX.saturating_add(1).saturating_sub(n >> PLACES_BITS)
}

fn name_of(words: &str) -> String {
    words.lines().next().unwrap_or_default().chars().take(NAME_MAX).collect()
}

/// What the engine's word index is asked: for each word that was typed, what will do in its place, a word or several with
/// spaces between them; the last one may be the beginning of one, as may one that was cut. Each word stands in quotes.
fn match_words(engine: Engine, words: &[Vec<String>]) -> String {
    let (quote, or, and, prefix) = match engine {
        Engine::Sqlite => ('"', " OR ", " AND ", "*"),
        Engine::Postgres => ('\'', " | ", " & ", ":*"),
    };
    let last = words.len().saturating_sub(1);
    let groups = words.iter().enumerate().map(|(at, any)| {
        let quoted = any.iter().enumerate().map(|(n, words)| {
            // What was typed comes first.
            let prefix = if n == 0 && (at == last || is_cut(words)) { prefix } else { "" };
            let all: Vec<_> = words.split(' ').map(|word| format!("{quote}{word}{quote}{prefix}")).collect();
            if all.len() == 1 { all.concat() } else { format!("({})", all.join(and)) }
        });
        format!("({})", quoted.collect::<Vec<_>>().join(or))
    });
    groups.collect::<Vec<_>>().join(and)
}

/// A word in two, at each place where it can be.
fn apart(word: &str) -> impl Iterator<Item = String> {
    let two = |at: usize| Some(format!("{} {}", word.get(..at)?, word.get(at..)?));
    (2..word.len().saturating_sub(1)).filter_map(two)
}

/// How much of their groups of three letters two words have in common, in hundredths.
fn likeness(typed: &BTreeSet<String>, word: &str) -> usize {
    let has = gram_forms(word);
    let both = typed.intersection(&has).count().saturating_mul(200);
    both.checked_div(typed.len().saturating_add(has.len())).unwrap_or(0)
}

impl Snapshot {
    /// What is found and seen after a place, best first, at most so much; and whether texts without the words that were typed
    /// may be among it, on which depends with which texts the page is to be purged.
    pub async fn search(
        &mut self,
        words: &[String],
        eye: Eye,
        after: Option<&Rank>,
        limit: usize,
    ) -> Result<(Vec<Found>, bool), StoreError> {
        let (found, far) = self.candidates(words, eye).await?;
        let mut ranks: Vec<Rank> = found
            .into_iter()
            .filter_map(|found| Some(Rank(Reverse(score(words, &found.text)?), Reverse(found.votes), found.id)))
            .filter(|rank| after.is_none_or(|after| rank > after))
            .collect();
        ranks.sort_unstable();
        ranks.dedup();
        ranks.truncate(limit);
        let ids: Vec<&str> = ranks.iter().map(|Rank(.., id)| id.as_str()).collect();
        let mut cards = super::lists::cards_of(&mut self.tx, &ids, eye).await?;
        let found = ranks.into_iter().filter_map(|rank| Some(Found { card: cards.remove(&rank.2)?, rank }));
        Ok((found.collect(), far))
    }

    /// What may be meant, some of it twice; and whether other words than those typed were tried.
    async fn candidates(&mut self, words: &[String], eye: Eye) -> Result<(Vec<Candidate>, bool), StoreError> {
        if words.is_empty() {
            return Ok((Vec::new(), false));
        }
        if self.engine == Engine::Postgres {
            // For this transaction alone: whether it is quicker to look for a word or to walk along by votes until enough
            // titles have it depends on the word.
            sqlx::query("SELECT set_config('plan_cache_mode', 'force_custom_plan', true)")
                .execute(&mut *self.tx)
                .await?;
        }
        let typed: Vec<Vec<String>> = words.iter().map(|word| vec![word.clone()]).collect();
        let mut found = self.with_words(&typed, eye).await?;
        if found.len() >= usize::try_from(CANDIDATES).unwrap_or(usize::MAX) {
            found.extend(self.texts(NAMED, &name_of(&words.join(" ")), eye).await?);
        }
        let far = found.len() < ENOUGH;
        if far {
            let mut any = typed;
            for (any, near) in any.iter_mut().zip(self.near(words).await?) {
                any.extend(near);
            }
            if any.iter().any(|any| any.len() > 1) {
                found.extend(self.with_words(&any, eye).await?);
            }
            if found.is_empty() {
                found = self.misspelt(any, eye).await?;
            }
        }
        Ok((found, far))
    }

    /// `any`: for each word that was typed, first itself, then those near it.
    async fn misspelt(&mut self, mut any: Vec<Vec<String>>, eye: Eye) -> Result<Vec<Candidate>, StoreError> {
        let mut longest: Vec<&mut Vec<String>> = any.iter_mut().collect();
        longest.sort_by_key(|any| Reverse(any.first().map_or(0, String::len)));
        let mut looks = 0;
        for any in longest {
            let Some(typed) = any.first().cloned() else { continue };
            if looks < ALIKE_WORDS_MAX
                && let Some(alike) = self.alike(&typed).await?
            {
                looks += 1;
                any.extend(alike);
            }
            any.extend(apart(&typed));
        }
        let mut found = self.with_words(&any, eye).await?;
        if found.is_empty() && any.len() > 1 {
            for at in 0..any.len() {
                let mut together = any.clone();
                let without = together.remove(at);
                found.extend(self.with_words(&together, eye).await?);
                if let (Some(next), Some(typed)) = (together.get_mut(at), without.first()) {
                    *next = next.first().map(|next| format!("{typed}{next}")).into_iter().collect();
                    found.extend(self.with_words(&together, eye).await?);
                }
            }
        }
        Ok(found)
    }

    async fn with_words(&mut self, words: &[Vec<String>], eye: Eye) -> Result<Vec<Candidate>, StoreError> {
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

    /// The words most like one that no title has; `None` if some title has it, or it is of no length that is compared.
    async fn alike(&mut self, typed: &str) -> Result<Option<Vec<String>>, StoreError> {
        if !LONG.contains(&typed.len()) {
            return Ok(None);
        }
        let known = sqlx::query("SELECT 1 FROM search_word WHERE form = $1 AND word = $1").bind(typed.to_string());
        if known.fetch_optional(&mut *self.tx).await?.is_some() {
            return Ok(None);
        }
        let grams = gram_forms(typed);
        let mut query = Sql::new("SELECT word FROM search_word WHERE form IN (");
        query.bind_all(grams.iter().cloned()).push(") GROUP BY word HAVING count(*) > 1 ORDER BY count(*) DESC, word");
        query.push(" LIMIT ").bind(i64::from(ALIKE_MAX));
        let rows = query.build()?.fetch_all(&mut *self.tx).await?;
        let words = rows.iter().map(|row| Ok(row.try_get(0)?)).collect::<Result<Vec<String>, StoreError>>()?;
        let mut alike: Vec<_> = words.into_iter().map(|word| (Reverse(likeness(&grams, &word)), word)).collect();
        alike.sort_unstable();
        Ok(Some(alike.into_iter().take(NEAR_MAX).map(|(_, word)| word).collect()))
    }

    async fn texts(&mut self, statement: &'static str, matching: &str, eye: Eye) -> Result<Vec<Candidate>, StoreError> {
        let rows = sqlx::query(statement)
            .bind(matching.to_string())
            .bind(i64::from(CANDIDATES))
            .bind(eye.region.as_str().to_string())
            .bind(eye.maturity)
            .bind(eye.now_ms)
            .fetch_all(&mut *self.tx)
            .await?;
        let candidate = |row: &super::Row| {
            Ok(Candidate { id: row.try_get(0)?, text: row.try_get(1)?, votes: votes_at(row.try_get(2)?) })
        };
        rows.iter().map(candidate).collect()
    }
}

/// Texts of titles this viewer sees. SQLite walks its index in order and stops when it has enough, if the index is the
/// outer loop.
macro_rules! texts {
    ($from:literal, $matching:literal, $order:literal) => {
        concat!(
            "SELECT title_text.title_id, title_text.words, title_text.n FROM ",
            $from,
            " LEFT JOIN title_window own ON own.title_id = title_text.title_id AND own.region = $3
              WHERE ",
            $matching,
            " AND title_text.age <= $4 AND COALESCE(own.gone_ms, title_text.gone_ms) > $5 ORDER BY ",
            $order,
            " LIMIT $2"
        )
    };
}

const NAMED: &str = texts!("title_text", "title_text.name = $1", "title_text.n");
const SQLITE_WORDS: &str = texts!(
    "title_word CROSS JOIN title_text ON title_text.n = title_word.rowid",
    "title_word MATCH $1",
    "title_word.rowid"
);
const POSTGRES_WORDS: &str = texts!("title_text", "tokens @@ to_tsquery('simple', $1)", "title_text.n");

impl Write {
    /// The text a title is found by. Most edits change nothing of it, and then nothing is written.
    pub(super) async fn put_text(&mut self, title: &Title) -> Result<(), StoreError> {
        let id = &title.id;
        if !title.visible {
            sqlx::query("DELETE FROM title_text WHERE title_id = $1").bind(id).execute(&mut *self.tx).await?;
            return Ok(());
        }
        let words = keys::search_text(&title.input);
        let (age, gone_ms) = (i64::from(title.input.age().years()), title.input.gone_ms(&title.shown).0);
        let places = first_place(title.input.votes.unwrap_or(0));
        let places = places..places.saturating_add(1 << PLACES_BITS);
        let row = sqlx::query("SELECT n, words, age, gone_ms FROM title_text WHERE title_id = $1")
            .bind(id)
            .fetch_optional(&mut *self.tx)
            .await?;
        if let Some(row) = row
            && places.contains(&row.try_get::<i64, _>(0)?)
            && row.try_get::<String, _>(1)? == words
        {
            if (row.try_get::<i64, _>(2)?, row.try_get::<i64, _>(3)?) != (age, gone_ms) {
                sqlx::query("UPDATE title_text SET age = $2, gone_ms = $3 WHERE title_id = $1")
                    .bind(id)
                    .bind(age)
                    .bind(gone_ms)
                    .execute(&mut *self.tx)
                    .await?;
            }
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO title_text (n, title_id, words, name, age, gone_ms)
              VALUES ((SELECT COALESCE(max(n) + 1, $1) FROM title_text WHERE n >= $1 AND n < $2), $3, $4, $5, $6, $7)
              ON CONFLICT (title_id) DO UPDATE SET n = excluded.n, words = excluded.words, name = excluded.name,
                age = excluded.age, gone_ms = excluded.gone_ms",
        )
        .bind(places.start)
        .bind(places.end)
        .bind(id)
        .bind(&words)
        .bind(name_of(&words))
        .bind(age)
        .bind(gone_ms)
        .execute(&mut *self.tx)
        .await?;
        self.put_words(long_words(&words).collect()).await
    }

    /// The texts of titles of which nothing but people's names has changed. What nobody sees has no text, and gets none.
    pub(super) async fn reword(&mut self, titles: &[Title]) -> Result<(), StoreError> {
        let texts: Vec<(&str, String)> =
            titles.iter().map(|title| (title.id.as_str(), keys::search_text(&title.input))).collect();
        let mut query = Sql::new("WITH renamed (id, words) AS (VALUES ");
        query.rows(&texts, |row, (id, words)| _ = row.bind(id.to_string()).bind(words.clone()));
        query.push(") UPDATE title_text SET words = renamed.words FROM renamed WHERE title_text.title_id = renamed.id");
        query.build()?.persistent(false).execute(&mut *self.tx).await?;
        self.put_words(texts.iter().flat_map(|(_, words)| long_words(words)).collect()).await
    }

    /// Words stay when the last title that has them goes: then they find nothing.
    pub(super) async fn put_words(&mut self, mut words: BTreeSet<&str>) -> Result<(), StoreError> {
        // A release that makes all words anew brings those of hundreds of texts, more than a statement takes values.
        let asked: Vec<&str> = words.iter().copied().collect();
        for asked in asked.chunks(PAIRS_MAX) {
            let mut known = Sql::new("SELECT word FROM search_word WHERE form = word AND form IN (");
            known.bind_all(asked.iter().map(|word| word.to_string())).push(")");
            for row in known.build()?.fetch_all(&mut *self.tx).await? {
                words.remove(row.try_get::<String, _>(0)?.as_str());
            }
        }
        let pairs: Vec<(String, &str)> =
            words.iter().flat_map(|word| all_forms(word).into_iter().map(move |form| (form, *word))).collect();
        for pairs in pairs.chunks(PAIRS_MAX) {
            let mut sql = Sql::new("INSERT INTO search_word (form, word) VALUES ");
            sql.rows(pairs, |row, (form, word)| _ = row.bind(form.clone()).bind(word.to_string()));
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
        let any = [["dark", "dork"], ["kni", "kn it"]].map(|any| any.map(String::from).to_vec());
        assert_eq!(match_words(Engine::Sqlite, &any), r#"("dark" OR "dork") AND ("kni"* OR ("kn" AND "it"))"#);
        assert_eq!(match_words(Engine::Postgres, &any), "('dark' | 'dork') & ('kni':* | ('kn' & 'it'))");
        assert!(words_of(&"x ".repeat(100)).len() <= WORDS_MAX);
    }

    #[test]
    fn however_many_letters_are_made_of_what_is_typed_what_the_engines_are_asked_stays_short() {
        // One character, fifteen letters.
        let grown = "\u{1f16d}";
        assert_eq!(slug::slugify(grown), "creativecommons");
        let several = [grown.repeat(11).as_str()].repeat(8).join(" ");
        for typed in [grown.repeat(100), several] {
            let words = words_of(&typed);
            assert!(typed.chars().count() <= 100 && words.iter().all(|word| word.len() <= *LONG.end()), "{words:?}");
            let any: Vec<Vec<String>> =
                words.iter().map(|word| [word.clone()].into_iter().chain(apart(word)).collect()).collect();
            for engine in [Engine::Sqlite, Engine::Postgres] {
                assert!(match_words(engine, &any).len() < 16 * 1024, "{engine:?}");
            }
        }
    }

    #[test]
    fn a_word_that_was_cut_stands_for_the_whole_wherever_it_was_typed() {
        let long = "donaudampfschifffahrtsgesellschaft";
        let (first, last) = (words_of(&format!("{long} wien")), words_of(&format!("wien {long}")));
        let cut = first.first().unwrap();
        assert!(cut.len() == *LONG.end() && long.starts_with(cut.as_str()));
        let asked = [[cut.clone()].to_vec(), ["wien".to_string()].to_vec()];
        assert_eq!(match_words(Engine::Sqlite, &asked), format!("(\"{cut}\"*) AND (\"wien\"*)"));
        for typed in [&first, &last] {
            assert!(score(typed, &format!("{long} wien")) > Some(1_000), "{typed:?}");
            assert!(score(typed, "donaudampfschifffahrtsgesetz wien") < Some(1_000), "{typed:?}");
        }
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
    fn more_votes_have_an_earlier_place_and_a_place_tells_the_votes() {
        for votes in [0, 1, 2_000_000, VOTES_MAX] {
            let place = first_place(votes);
            assert_eq!(votes_at(place), votes);
            assert_eq!(votes_at(place + (1 << PLACES_BITS) - 1), votes, "the last of them");
            assert!(votes == 0 || place < first_place(votes - 1));
        }
        assert_eq!(votes_at(first_place(i64::MAX)), VOTES_MAX);
        assert_eq!(votes_at(first_place(-1)), 0);
    }

    #[test]
    fn the_letters_of_a_word_tell_which_it_is_like_and_never_look_like_a_word() {
        let typed = gram_forms("casablanco");
        assert!(likeness(&typed, "casablanca") > likeness(&typed, "canberra"));
        assert_eq!((likeness(&typed, "casablanco"), likeness(&typed, "zzyzx")), (100, 0));
        assert!(all_forms("heat").contains("hea") && all_forms("heat").contains("~hea"));
        assert_eq!(all_forms("casablanca").iter().filter(|form| !form.starts_with('~')).count(), 1);
        assert_eq!(apart("xmen").collect::<Vec<_>>(), ["xm en"]);
        assert!(apart("é").chain(apart("")).chain(apart("abc")).next().is_none());
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
