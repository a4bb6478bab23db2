//! A large catalogue that is the same for the same seed: for measurements, and for looking at plans. Films, series with their
//! seasons, collections and rails go the way an import goes; viewers, of whom there are many more, are written in rows of
//! hundreds.
use crate::import::{self, ImportError, Report};
use crate::store::Store;
use serde_json::{Value, json};

/// Lines of one import.
const CHUNK: u64 = 2_000;
/// Viewers of one transaction.
const VIEWERS: u64 = 10_000;
/// Titles of a rail, and of a collection.
const RAIL_ITEMS: u64 = 20;
/// Of so many titles the last is a series, and for so many there is a collection.
const SERIES_EACH: u64 = 10;
const COLLECTION_EACH: u64 = 100;
const EPISODES: u64 = 8;

/// How much of what.
#[derive(Clone, Debug, clap::Args)]
pub struct Amounts {
    #[arg(long, default_value_t = 100_000)]
    pub titles: u64,
    #[arg(long, default_value_t = 1_000)]
    pub rails: u64,
    #[arg(long, default_value_t = 1_000_000)]
    pub users: u64,
    /// The same seed, the same catalogue.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

const GENRES: [&str; 18] = [
    "Action",
    "Adventure",
    "Animation",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Family",
    "Fantasy",
    "History",
    "Horror",
    "Music",
    "Mystery",
    "Romance",
    "Science Fiction",
    "Thriller",
    "War",
    "Western",
];
const MATURITY: [&str; 5] = ["G", "PG", "PG-13", "R", "NC-17"];
const FIRST: [&str; 24] = [
    "Silent", "Broken", "Golden", "Hidden", "Last", "Lost", "Distant", "Burning", "Frozen", "Secret", "Crimson",
    "Endless", "Empty", "Savage", "Gentle", "Iron", "Paper", "Velvet", "Hollow", "Electric", "Midnight", "Northern",
    "Quiet", "Wild",
];
const SECOND: [&str; 24] = [
    "River", "City", "Harbour", "Garden", "Winter", "Summer", "Mountain", "Empire", "Promise", "Shadow", "Mirror",
    "Voyage", "Letter", "Orchard", "Station", "Island", "Signal", "Horizon", "Kingdom", "Bridge", "Forest", "Stranger",
    "Machine", "Highway",
];
const GIVEN: [&str; 20] = [
    "Ada", "Boris", "Clara", "David", "Elena", "Femi", "Greta", "Hugo", "Ines", "Jonas", "Kenji", "Lucia", "Mira",
    "Nils", "Olga", "Pedro", "Rosa", "Samir", "Tessa", "Viktor",
];
const FAMILY: [&str; 25] = [
    "Adler", "Bauer", "Costa", "Dubois", "Eriksen", "Ferrari", "Garcia", "Haas", "Ivanov", "Jensen", "Kowalski",
    "Larsen", "Moreau", "Novak", "Okafor", "Petrov", "Quinn", "Rossi", "Silva", "Tanaka", "Ueda", "Vogel", "Weber",
    "Yilmaz", "Zhang",
];

/// splitmix64: small, and the same everywhere for ever.
struct Random(u64);

impl Random {
    /// Each thing has numbers of its own, however many came before it.
    fn of(seed: u64, kind: u64, n: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ kind.rotate_left(56) ^ n.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// Small numbers much more often than large ones, as people choose.
    fn popular(&mut self, bound: u64) -> u64 {
        let one = self.below(bound).saturating_add(1);
        self.below(one)
    }

    fn word<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let at = self.below(u64::try_from(words.len()).unwrap_or(1));
        usize::try_from(at).ok().and_then(|at| words.get(at)).copied().unwrap_or_default()
    }
}

pub fn title_id(n: u64) -> String {
    format!("title-{n}")
}

fn name(random: &mut Random, n: u64) -> String {
    format!("The {} {} {n}", random.word(&FIRST), random.word(&SECOND))
}

fn title(seed: u64, n: u64) -> Value {
    let random = &mut Random::of(seed, 1, n);
    let mut genres: Vec<&str> = (0..=random.below(3)).map(|_| random.word(&GENRES)).collect();
    genres.sort_unstable();
    genres.dedup();
    let mut people: Vec<Value> = Vec::new();
    for role in ["director", "actor", "actor", "writer"] {
        let name = format!("{} {} {}", random.word(&GIVEN), random.word(&FAMILY), random.popular(40));
        if !people.iter().any(|person| person["name"] == name.as_str()) {
            people.push(json!({"name": name, "role": role}));
        }
    }
    let synopsis = format!(
        "{} {} must cross the {} before the {} falls. A {} story of a {} and a {}.",
        random.word(&GIVEN),
        random.word(&FAMILY),
        random.word(&SECOND).to_lowercase(),
        random.word(&SECOND).to_lowercase(),
        random.word(&FIRST).to_lowercase(),
        random.word(&SECOND).to_lowercase(),
        random.word(&SECOND).to_lowercase()
    );
    json!({
        "type": "title", "id": title_id(n), "kind": if is_series(n) { "series" } else { "film" },
        "name": name(random, n), "year": 1950 + random.below(76), "genres": genres,
        "people": people, "synopsis": synopsis, "maturity": random.word(&MATURITY), "runtime_min": 70 + random.below(110),
        "rating": (random.below(80) + 20) as f64 / 10.0, "votes": random.popular(2_000_000),
    })
}

fn is_series(n: u64) -> bool {
    n % SERIES_EACH == SERIES_EACH - 1
}

/// A series has one to three.
fn seasons(seed: u64, n: u64) -> Vec<Value> {
    let id = title_id(n);
    let count = if is_series(n) { 1 + Random::of(seed, 4, n).below(3) } else { 0 };
    let season = |number: u64| {
        let episode =
            |at: u64| json!({"id": format!("{id}-{number}-{at}"), "number": at, "name": format!("Part {at}")});
        let episodes: Vec<Value> = (1..=EPISODES).map(episode).collect();
        json!({"type": "season", "id": format!("{id}/{number}"), "name": format!("Season {number}"), "episodes": episodes})
    };
    (1..=count).map(season).collect()
}

fn some_titles(random: &mut Random, titles: u64) -> Vec<String> {
    let mut items: Vec<String> = (0..RAIL_ITEMS.min(titles)).map(|_| title_id(random.popular(titles))).collect();
    items.sort_unstable();
    items.dedup();
    items
}

fn collection(seed: u64, n: u64, titles: u64) -> Value {
    let random = &mut Random::of(seed, 5, n);
    let items = some_titles(random, titles);
    json!({"type": "collection", "id": format!("collection-{n}"), "name": name(random, n), "items": items})
}

fn rail(seed: u64, n: u64, titles: u64) -> Value {
    let random = &mut Random::of(seed, 2, n);
    let items = some_titles(random, titles);
    json!({"type": "rail", "id": format!("rail-{n}"), "title": name(random, n), "position": n, "items": items})
}

/// A viewer who comes with a catalogue, by what differs between them.
#[derive(Clone, Debug)]
pub struct Viewer {
    pub id: String,
    pub email: String,
    pub name: String,
    pub plan: &'static str,
    pub maturity: i64,
}

pub fn viewer(seed: u64, n: u64) -> Viewer {
    let random = &mut Random::of(seed, 3, n);
    let name = format!("{} {}", random.word(&GIVEN), random.word(&FAMILY));
    let (plan, maturity) = (["basic", "standard", "premium"], [18, 18, 16, 13, 7]);
    let at = |random: &mut Random, count| usize::try_from(random.below(count)).unwrap_or(0);
    Viewer {
        id: format!("{:016x}{n:016x}", random.next()),
        email: format!("viewer-{n}@example.com"),
        name,
        plan: plan.get(at(random, 3)).copied().unwrap_or("basic"),
        maturity: maturity.get(at(random, 5)).copied().unwrap_or(18),
    }
}

fn lines(values: impl Iterator<Item = Value>) -> String {
    values.map(|value| format!("{value}\n")).collect()
}

/// Writes all of it. Run again with the same amounts, it changes nothing. `progress`: what, done, of how many.
pub async fn run(
    store: &Store,
    amounts: &Amounts,
    progress: impl Fn(&'static str, u64, u64),
) -> Result<Vec<Report>, ImportError> {
    let Amounts { titles, rails, users, seed } = *amounts;
    let mut reports = Vec::new();
    let mut done = 0;
    while done < titles {
        let end = done.saturating_add(CHUNK).min(titles);
        let records = (done..end).flat_map(|n| std::iter::once(title(seed, n)).chain(seasons(seed, n)));
        reports.push(import::text(store, &lines(records)).await?);
        done = end;
        progress("titles", done, titles);
    }
    let collections = (0..titles / COLLECTION_EACH).map(|n| collection(seed, n, titles));
    reports.push(import::text(store, &lines(collections)).await?);
    let mut done = 0;
    while done < rails {
        let end = done.saturating_add(CHUNK).min(rails);
        reports.push(import::text(store, &lines((done..end).map(|n| rail(seed, n, titles)))).await?);
        done = end;
        progress("rails", done, rails);
    }
    let mut done = 0;
    while done < users {
        let end = done.saturating_add(VIEWERS).min(users);
        let mut write = store.write().await?;
        write.put_viewers(&(done..end).map(|n| viewer(seed, n)).collect::<Vec<_>>()).await?;
        // No document shows them: nothing to purge.
        write.commit().await?;
        done = end;
        progress("users", done, users);
    }
    store.analyze().await?;
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_catalogue_and_another_seed_another() {
        let all =
            |seed| (0..50).map(|n| title(seed, n).to_string() + &rail(seed, n, 50).to_string()).collect::<String>();
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        let series = (0..200).flat_map(|n| std::iter::once(title(7, n)).chain(seasons(7, n)));
        let report = import::read_text(&lines(series.chain([collection(7, 0, 200)]))).report;
        assert!(report.refused.is_empty(), "{report}");
    }

    #[tokio::test]
    async fn made_twice_it_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db.sqlite")).await.unwrap();
        let amounts = Amounts { titles: 130, rails: 3, users: 0, seed: 1 };
        run(&store, &amounts, |_, _, _| {}).await.unwrap();
        let as_of = store.snapshot().await.unwrap().as_of;
        run(&store, &amounts, |_, _, _| {}).await.unwrap();
        assert_eq!(store.snapshot().await.unwrap().as_of, as_of);
    }
}
