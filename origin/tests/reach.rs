//! A change reaches every page that shows what changed, and none that does not: random edits through the real router, and
//! a cache that keeps every page until one of its surrogate keys is purged. After each edit every kept page is compared
//! with one rendered anew. One that differs and was not purged is a miss, and there may be none; one that was purged and
//! does not differ is purged too much, which is counted. On the way, no page may show a title its viewer may not see. Each
//! viewer has all titles on lists of her own, which are kept like pages.
mod common;
use axum::http::{Request, StatusCode};
use common::people::People;
use common::text;
use fastrand::Rng;
use origin::http::{Role, router};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

const MARKS: [(&str, u64); 4] = [("G", 0), ("PG-13", 13), ("R", 16), ("NC-17", 18)];
const GENRES: [&str; 4] = ["Crime", "Drama", "War", "Comedy"];
const WORDS: [&str; 6] = ["Heat", "Ronin", "Night", "Dark", "River", "Stone"];
const PEOPLE: [&str; 5] = ["ann", "bob", "cem", "dia", "eva"];
/// About as many titles begin so as a search finds before it tries other words than those typed.
const SAGA: [&str; 5] = ["Saga", "Saga", "Saga", "Saga", "Song"];
const TITLES: usize = 20;

/// Region, locale, maturity, plan.
const VIEWERS: [[&str; 4]; 4] =
    [["ZZ", "en", "18", "none"], ["DE", "de", "13", "premium"], ["US", "en", "7", "none"], ["DE", "en", "18", "basic"]];

#[derive(Clone, Debug, PartialEq)]
struct Page {
    status: StatusCode,
    body: String,
    keys: BTreeSet<String>,
}

/// Of each viewer alone.
const OWN: [&str; 2] = ["/v1/me/watch-list", "/v1/me/continue-watching"];

/// Pages that show titles.
const SHOW: [&str; 10] = [
    "/v1/home",
    "/v1/catalog?limit",
    "/v1/catalog?genre",
    "/v1/search",
    "/v1/titles/",
    "/similar",
    "/v1/collections/",
    "/v1/people/",
    "/watch-list",
    "/continue-watching",
];

struct World {
    service: People,
    tokens: Vec<String>,
    rng: Rng,
    kept: HashMap<(String, usize), Page>,
    seq: u64,
    purged_rightly: usize,
    purged_for_nothing: usize,
    /// Titles that were found on pages of each kind and looked at, whether their viewer may see them.
    looked_at: [usize; SHOW.len()],
    /// What editors asked for, and what was done of it.
    asked: AtomicUsize,
    done: AtomicUsize,
}

impl World {
    async fn start(seed: u64) -> Self {
        let mut service = People::start().await;
        // Rendered anew each time: origin's own cache goes by the same keys, and would agree with what is kept here.
        service.0.app.rendered = None;
        service.0.router = router(service.app.clone(), &[Role::Client, Role::Admin, Role::Auth]);
        let mut tokens = Vec::new();
        for (viewer, [_, _, maturity, _]) in VIEWERS.iter().enumerate() {
            tokens.push(own_lists(&service, viewer, maturity.parse().unwrap()).await);
        }
        let (rng, kept) = (Rng::with_seed(seed), HashMap::new());
        let mut world = Self {
            service,
            tokens,
            rng,
            kept,
            seq: 0,
            purged_rightly: 0,
            purged_for_nothing: 0,
            looked_at: [0; SHOW.len()],
            asked: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
        };
        for n in 0..TITLES {
            world.write_title(n).await;
        }
        for n in 0..3 {
            world.edit_rail(n).await;
            world.edit_collection(n).await;
            world.edit_season().await;
        }
        world.settle().await;
        world.seq = world.service.app.store.snapshot().await.unwrap().as_of.seq;
        for path in world.paths().await {
            for viewer in 0..VIEWERS.len() {
                let page = world.fetch(&path, viewer).await;
                world.kept.insert((path.clone(), viewer), page);
            }
        }
        world
    }

    /// Every page there is to know, with some that begin at a cursor.
    async fn paths(&mut self) -> Vec<String> {
        let mut paths: Vec<String> =
            ["/v1/home", "/v1/genres", "/v1/catalog", "/v1/search?q=heat", "/v1/search?q=nigth"]
                .map(String::from)
                .into();
        for list in [
            "sort=name",
            "sort=-name",
            "sort=year",
            "sort=-year",
            "sort=rating",
            "sort=-rating",
            "sort=added",
            "sort=name&genre=war",
            "sort=-rating&kind=film",
            "sort=-year&year=2021",
        ] {
            let first = format!("/v1/catalog?limit=2&{list}");
            let mut next = Some(first.clone());
            // To the end of the list: each page has keys for the stretch it reaches over.
            while let Some(path) = next.take() {
                let body: Value = serde_json::from_str(&self.fetch(&path, 0).await.body).unwrap();
                next = body["next_cursor"].as_str().map(|cursor| format!("{first}&cursor={cursor}"));
                paths.push(path);
            }
        }
        paths.extend(GENRES.map(|genre| format!("/v1/catalog?genre={}", genre.to_lowercase())));
        paths.extend(
            [
                "/v1/catalog?genre=war&sort=-rating&limit=2",
                "/v1/catalog?year=2021",
                "/v1/catalog?kind=series",
                "/v1/search?q=ann",
                "/v1/search?q=saga",
                "/v1/search?q=saga&limit=3",
                "/v1/search?q=heat%20sag",
            ]
            .map(String::from),
        );
        for n in 0..TITLES {
            paths.extend([format!("/v1/titles/t{n}"), format!("/v1/titles/t{n}/similar")]);
        }
        for n in 0..3 {
            paths.extend([
                format!("/v1/series/t{n}"),
                format!("/v1/series/t{n}/seasons/1"),
                format!("/v1/collections/c{n}"),
            ]);
        }
        paths.extend(PEOPLE.map(|id| format!("/v1/people/{id}")));
        paths.extend(OWN.map(String::from));
        paths
    }

    async fn fetch(&self, path: &str, viewer: usize) -> Page {
        let mut request = Request::builder().uri(path);
        for (name, value) in
            ["viewer-region", "viewer-locale", "viewer-maturity", "viewer-plan"].into_iter().zip(VIEWERS[viewer])
        {
            request = request.header(name, value);
        }
        if OWN.contains(&path) {
            request = request.header("authorization", format!("Bearer {}", self.tokens[viewer]));
        }
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = self.service.answer(request).await;
        let keys = response.headers().get("surrogate-key").map(|value| value.to_str().unwrap().to_string());
        let keys = keys.unwrap_or_default().split(' ').map(String::from).collect();
        Page { status: response.status(), keys, body: text(response).await }
    }

    async fn admin(&self, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let is_there = method != "POST" && self.service.0.call("GET", path, "").await.status() == StatusCode::OK;
        let fields: &[(&str, &str)] = if is_there && method == "PUT" { &[("if-match", "*")] } else { &[] };
        let response = self.service.ask(method, path, &body.to_string(), fields).await;
        let status = response.status();
        if method != "GET" {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.done.fetch_add(usize::from(status.is_success()), Ordering::Relaxed);
        }
        assert!(status.as_u16() < 500, "{method} {path} {body}: {}", text(response).await);
        (status, serde_json::from_str(&text(response).await).unwrap_or_default())
    }

    fn any<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.rng.usize(..all.len())]
    }

    fn ids(&mut self) -> Vec<String> {
        (0..self.rng.usize(0..5)).map(|_| format!("t{}", self.rng.usize(..TITLES + 1))).collect()
    }

    /// Some field of a title, with some value.
    fn field(&mut self) -> Value {
        let name = format!("{} {} {}", self.any(&SAGA), self.any(&WORDS), self.any(&WORDS));
        match self.rng.u32(0..15) {
            0 => json!({"name": name}),
            1 => json!({"synopsis": name}),
            2 => json!({"sort_name": name.to_lowercase()}),
            3 => json!({"year": self.rng.i64(2019..2025)}),
            4 => json!({"rating": self.rng.i64(70..99) as f64 / 10.0}),
            5 => json!({"maturity": self.any(&MARKS).0}),
            6 => json!({"genres": [self.any(&GENRES), self.any(&GENRES)]}),
            7 => json!({"people": [{"name": self.any(&PEOPLE), "role": self.any(&["actor", "director"])}]}),
            8 => {
                json!({"images": [{"kind": self.any(&["poster", "backdrop"]), "url": format!("/media/{}", self.rng.u32(0..3))}]})
            }
            9 => json!({"translations": {"de": {"name": name}}}),
            10 => json!({"translations": {"de": {"synopsis": name}}}),
            11 => json!({"state": self.any(&["draft", "published", "published"])}),
            12 => json!({"regions": {(self.any(&["DE", "US"])): {"blocked": self.rng.bool()}}}),
            13 => json!({"votes": self.rng.i64(0..5)}),
            _ => json!({"runtime_min": self.rng.i64(60..63)}),
        }
    }

    async fn write_title(&mut self, n: usize) {
        let mut value = json!({"name": format!("{} {} {n}", self.any(&SAGA), self.any(&WORDS)), "kind": if n < 3 { "series" } else { "film" }});
        for _ in 0..5 {
            let field = self.field();
            origin::catalog::validate::merge_patch(&mut value, &field);
        }
        if self.admin("PUT", &format!("/admin/v1/titles/t{n}"), &value).await.0 == StatusCode::CONFLICT {
            self.admin("POST", &format!("/admin/v1/titles/t{n}/restore"), &json!({})).await;
        }
    }

    async fn edit_rail(&mut self, n: usize) {
        let mut rail = json!({"title": self.any(&WORDS), "position": self.rng.i64(0..4), "items": self.ids(), "size": self.rng.i64(1..5)});
        if self.rng.bool() {
            rail["fill"] = json!({"sort": self.any(&["rating", "year", "added", "name"])});
            if self.rng.bool() {
                rail["fill"]["genre"] = json!(self.any(&GENRES).to_lowercase());
            }
        }
        match self.rng.u32(0..5) {
            0 => rail["regions"] = json!([self.any(&["DE", "US"])]),
            1 => rail["plans"] = json!([self.any(&["none", "premium"])]),
            2 => rail["maturity_from"] = json!(self.any(&[7, 13, 18])),
            3 => rail["state"] = json!("draft"),
            _ => rail["translations"] = json!({"de": {"name": self.any(&WORDS)}}),
        }
        self.admin("PUT", &format!("/admin/v1/rails/r{n}"), &rail).await;
    }

    async fn edit_collection(&mut self, n: usize) {
        let state = self.any(&["draft", "published", "published"]);
        let body = json!({"name": self.any(&WORDS), "items": self.ids(), "state": state});
        self.admin("PUT", &format!("/admin/v1/collections/c{n}"), &body).await;
    }

    async fn edit_season(&mut self) {
        let series = self.rng.usize(0..3);
        let count = self.rng.i64(0..3);
        let episodes: Vec<Value> = (0..count)
            .map(|n| json!({"id": format!("e{series}-{n}"), "number": n, "name": self.any(&WORDS)}))
            .collect();
        let body = json!({"name": self.any(&["One", "First"]), "episodes": episodes});
        self.admin("PUT", &format!("/admin/v1/series/t{series}/seasons/1"), &body).await;
    }

    async fn edit(&mut self) -> String {
        let title = format!("/admin/v1/titles/t{}", self.rng.usize(..TITLES));
        let person = format!("/admin/v1/people/{}", self.any(&PEOPLE));
        let genre = format!("/admin/v1/genres/{}", self.any(&GENRES).to_lowercase());
        let n = self.rng.usize(0..3);
        let word = self.any(&WORDS);
        match self.rng.u32(0..26) {
            0..12 => {
                let field = self.field();
                let (status, _) = self.admin("PATCH", &title, &field).await;
                format!("PATCH {title} {field}: {status}")
            }
            12 => format!("DELETE {title}: {}", self.admin("DELETE", &title, &json!({})).await.0),
            13 => {
                let n = self.rng.usize(..TITLES);
                self.write_title(n).await;
                format!("PUT or restore t{n}")
            }
            14 => {
                let said = if self.rng.bool() {
                    json!({"name": word})
                } else {
                    json!({"translations": {"de": {"name": word}}})
                };
                format!("PATCH {person} {said}: {}", self.admin("PATCH", &person, &said).await.0)
            }
            15 => format!("PATCH {person}: {}", self.admin("PATCH", &person, &json!({"biography": word})).await.0),
            16 => format!("DELETE {person}: {}", self.admin("DELETE", &person, &json!({})).await.0),
            17 => {
                let said = if self.rng.bool() {
                    json!({"name": word})
                } else {
                    json!({"translations": {"de": {"name": word}}})
                };
                format!("PATCH {genre} {said}: {}", self.admin("PATCH", &genre, &said).await.0)
            }
            18 => format!("DELETE {genre}: {}", self.admin("DELETE", &genre, &json!({})).await.0),
            19 | 20 => {
                self.edit_rail(n).await;
                format!("PUT rail r{n}")
            }
            21 => {
                let path = format!("/admin/v1/rails/r{n}");
                let gone = self.admin("DELETE", &path, &json!({})).await.0;
                if gone == StatusCode::NOT_FOUND {
                    self.admin("POST", &format!("{path}/restore"), &json!({})).await;
                }
                format!("DELETE or restore {path}")
            }
            22 => {
                self.edit_collection(n).await;
                format!("PUT collection c{n}")
            }
            23 => {
                self.edit_season().await;
                "PUT season".into()
            }
            24 => {
                let path = format!("/admin/v1/series/t{n}/seasons/1");
                format!("DELETE {path}: {}", self.admin("DELETE", &path, &json!({})).await.0)
            }
            _ => {
                let (a, b) = (self.field(), self.field());
                let items = json!({"items": [{"id": "t1", "patch": a}, {"id": "t2", "patch": b}]});
                format!("bulk {items}: {}", self.admin("POST", "/admin/v1/titles/bulk", &items).await.0)
            }
        }
    }

    /// The job of recommendations has nothing more to do.
    async fn settle(&self) {
        while origin::similar::turn(&self.service.app.store).await.unwrap() {}
    }

    /// What may be shown to a viewer, told from what editors see.
    async fn seen_by(&self) -> Vec<BTreeSet<String>> {
        let (_, all) = self.admin("GET", "/admin/v1/titles", &json!({})).await;
        let mut seen = vec![BTreeSet::new(); VIEWERS.len()];
        for title in all["items"].as_array().unwrap() {
            let mark = title["maturity"].as_str().unwrap_or("unrated");
            let age = MARKS.iter().find(|(known, _)| *known == mark).map_or(16, |(_, age)| *age);
            for (viewer, [region, _, maturity, _]) in VIEWERS.iter().enumerate() {
                let blocked = title["regions"][region]["blocked"] == true;
                if title["state"] == "published" && !blocked && age <= maturity.parse().unwrap() {
                    seen[viewer].insert(title["id"].as_str().unwrap().to_string());
                }
            }
        }
        seen
    }

    async fn step(&mut self, what: &str) {
        let mut snapshot = self.service.app.store.snapshot().await.unwrap();
        let purges = snapshot.purges_after(self.seq, 100).await.unwrap();
        self.seq = snapshot.as_of.seq;
        drop(snapshot);
        let purged: BTreeSet<String> =
            purges.iter().flat_map(|purge| purge.keys.iter().map(|key| key.to_string())).collect();
        assert!(purges.iter().all(|purge| !purge.all), "{what}");
        let seen = self.seen_by().await;
        let places: Vec<(String, usize)> = self.kept.keys().cloned().collect();
        for (path, viewer) in places {
            let fresh = self.fetch(&path, viewer).await;
            assert!(fresh.status.as_u16() < 500);
            let ids = shown(&fresh);
            for (looked_at, kind) in self.looked_at.iter_mut().zip(SHOW) {
                *looked_at += if path.contains(kind) { ids.len() } else { 0 };
            }
            for id in ids {
                assert!(
                    seen[viewer].contains(&id),
                    "{what}: {path} shows {id} to {:?}: {}",
                    VIEWERS[viewer],
                    fresh.body
                );
            }
            let kept = &self.kept[&(path.clone(), viewer)];
            let is_purged = kept.keys.intersection(&purged).next().is_some();
            let differs = (kept.status, &kept.body) != (fresh.status, &fresh.body);
            assert!(
                is_purged || !differs,
                "{what}: {path} for {:?} is another and was not purged\nbefore {}\nnow    {}\nkeys   {:?}\npurged {purged:?}",
                VIEWERS[viewer],
                kept.body,
                fresh.body,
                kept.keys
            );
            // A page that is not purged stays as it was, keys and all.
            if is_purged {
                *(if differs { &mut self.purged_rightly } else { &mut self.purged_for_nothing }) += 1;
                self.kept.insert((path, viewer), fresh);
            }
        }
    }
}

/// A viewer with every title on both lists, and one that there never is; the token.
async fn own_lists(service: &People, viewer: usize, maturity: u8) -> String {
    let tokens = service.viewer(&format!("viewer-{viewer}@example.org")).await;
    let limit = service.call("PATCH", "/v1/me", &tokens.access, Some(json!({"maturity": maturity}))).await;
    assert_eq!(limit.status, StatusCode::OK, "{limit:?}");
    let tokens = service.refresh(&tokens.refresh).await.unwrap();
    let id = service.subject(&tokens);
    service.keeps_titles(&id, TITLES + 1).await;
    tokens.access
}

/// Ids of the titles a page shows.
fn shown(page: &Page) -> Vec<String> {
    fn walk(value: &Value, ids: &mut Vec<String>) {
        match value {
            Value::Array(all) => all.iter().for_each(|value| walk(value, ids)),
            Value::Object(object) => {
                let is_card = ["genres", "added_at", "position_s"].iter().any(|name| object.contains_key(*name));
                if let (Some(id), true) = (object.get("id").and_then(Value::as_str), is_card) {
                    ids.push(id.to_string());
                }
                object.values().for_each(|value| walk(value, ids));
            }
            _ => {}
        }
    }
    let mut ids = Vec::new();
    walk(&serde_json::from_str(&page.body).unwrap_or_default(), &mut ids);
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_every_page_that_shows_it_and_no_viewer_who_may_not_see_it() {
    let number =
        |name: &str, otherwise: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise);
    let (first, seeds, steps) = (number("REACH_SEED", 1), number("REACH_SEEDS", 3), number("REACH_STEPS", 40));
    let (mut rightly, mut for_nothing, mut asked, mut done) = (0, 0, 0, 0);
    let mut looked_at = [0; SHOW.len()];
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for seed in first..first + seeds {
        let mut world = World::start(seed).await;
        for step in 0..steps {
            let what = world.edit().await;
            *kinds.entry(what.split(['/', ' ']).next().unwrap_or_default().to_string()).or_default() += 1;
            if step % 3 == 0 {
                world.settle().await;
            }
            world.step(&format!("seed {seed}, step {step}: {what}")).await;
        }
        rightly += world.purged_rightly;
        for_nothing += world.purged_for_nothing;
        looked_at.iter_mut().zip(world.looked_at).for_each(|(sum, count)| *sum += count);
        asked += world.asked.into_inner();
        done += world.done.into_inner();
    }
    println!("{rightly} pages purged that had changed, {for_nothing} that had not; edits {kinds:?}");
    let looked_at: BTreeMap<&str, usize> = SHOW.into_iter().zip(looked_at).collect();
    println!("titles on pages looked at {looked_at:?}; {done} of {asked} edits done");
    assert!(rightly > 0);
    // Else nothing of the above was put to the test.
    let steps = usize::try_from(seeds * steps).unwrap();
    assert!(looked_at.values().all(|count| *count > 4 * steps), "{looked_at:?}");
    assert!(done * 4 > asked * 3, "{done} of {asked}");
}
