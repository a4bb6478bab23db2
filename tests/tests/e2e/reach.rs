//! A change reaches every page that shows what changed: random edits through the edge's admin API, and after each of them
//! every page of a list as the edge answers it, compared with the same page as an origin renders it anew for the same
//! viewer. That origin is a second process on the same database, which keeps nothing it rendered and of which the edge
//! knows nothing. A page that stays another is a failure; one that was fetched again and is what it was is counted. Which
//! keys a page and an edit have is tested in the origin alone, with more edits, in its own test of this name; here it is
//! their whole way: log, journal, lease, soft and hard purge, refresh.
use e2e::http::{Got, ask, send};
use e2e::stack::{Shape, Stack, sign};
use e2e::{eventually, free_port};
use fastrand::Rng;
use kv_schemas::claims::{AUDIENCE_VIEWER, ISSUER, Scope, ViewerClaims};
use kv_schemas::viewer::{Maturity, Plan};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use xtask::origin::Database;
use xtask::process::Process;

const TITLES: usize = 12;
const EDITS: usize = 40;
const GENRES: [&str; 3] = ["Crime", "Drama", "War"];
const WORDS: [&str; 5] = ["Heat", "Ronin", "Night", "River", "Stone"];
const PEOPLE: [&str; 4] = ["ann", "bob", "cem", "dia"];
const MARKS: [&str; 4] = ["G", "PG-13", "R", "NC-17"];

/// Two viewers: what the edge is sent, and what it makes of that for origin.
struct Viewer {
    sent: Vec<(&'static str, String)>,
    dimensions: [&'static str; 4],
}

struct World {
    stack: Stack,
    fresh_port: u16,
    _fresh: Process,
    viewers: [Viewer; 2],
    paths: Vec<String>,
    rng: Rng,
    /// What each page was before the edit.
    known: HashMap<(usize, usize), (u16, String)>,
    changed: usize,
    fetched_for_nothing: usize,
}

impl World {
    async fn start(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let catalogue = (0..TITLES).map(|n| title(&mut rng, n).to_string() + "\n").collect();
        let vars = [("REGIONS", "DE"), ("LOCALES", "en,de")].map(|(name, value)| (name.to_string(), value.to_string()));
        let stack = Stack::of(Shape { catalogue, vars: vars.into(), ..Shape::default() }).await;
        let fresh_port = free_port();
        let database = Database::sqlite(stack.state()).with("--rendered-mib", 0).with("--role", "client");
        let fresh = xtask::origin::serve_on(&database, stack.state(), fresh_port, &[], false).unwrap();
        let viewers = viewers(&stack).await;
        let mut world = Self {
            stack,
            fresh_port,
            _fresh: fresh,
            viewers,
            paths: Vec::new(),
            rng,
            known: HashMap::new(),
            changed: 0,
            fetched_for_nothing: 0,
        };
        for n in 0..2 {
            for (path, body) in [world.rail(n), world.collection(n), world.season(n)] {
                let made = world.write(Method::PUT, &path, Some(body), false).await;
                assert!(made.status < 300, "{path}: {made:?}");
                world.stack.applied(&made).await;
            }
        }
        world.paths = world.list().await;
        world.compare("at the start").await;
        (world.changed, world.fetched_for_nothing) = (0, 0);
        world
    }

    async fn list(&self) -> Vec<String> {
        let fixed = [
            "/v1/home",
            "/v1/genres",
            "/v1/catalog",
            "/v1/catalog?genre=crime",
            "/v1/catalog?genre=drama&sort=-rating",
            "/v1/catalog?kind=series",
            "/v1/catalog?year=1995",
            "/v1/catalog?sort=-year",
            "/v1/catalog?sort=added",
            "/v1/catalog?limit=24",
            "/v1/series/t0",
            "/v1/series/t1",
            "/v1/series/t0/seasons/1",
            "/v1/collections/c0",
            "/v1/collections/c1",
            "/v1/search?q=heat",
            "/v1/search?q=nigth",
            "/v1/search?q=ann",
        ];
        let mut paths: Vec<String> = fixed.map(String::from).into();
        paths.extend((0..TITLES).step_by(2).map(|n| format!("/v1/titles/t{n}")));
        paths.extend([1, 3, 5].map(|n| format!("/v1/titles/t{n}")));
        paths.extend([0, 3, 6].map(|n| format!("/v1/titles/t{n}/similar")));
        paths.extend(PEOPLE.map(|id| format!("/v1/people/{id}")));
        paths
    }

    async fn at_edge(&self, path: &str, viewer: usize) -> Got {
        let request = ask(Method::GET, self.stack.url(path));
        let sent = self.viewers[viewer].sent.iter();
        send(sent.fold(request, |request, (name, value)| request.header(*name, value))).await
    }

    async fn at_origin(&self, path: &str, viewer: usize) -> Got {
        self.stack.ask_as_edge(self.fresh_port, path, self.viewers[viewer].dimensions).await
    }

    /// A call of the admin API, through the edge.
    async fn write(&self, method: Method, path: &str, body: Option<Value>, is_there: bool) -> Got {
        let mut request = ask(method, self.stack.url(&format!("/admin/v1{path}"))).bearer_auth(&self.stack.admin_token);
        if is_there {
            request = request.header("if-match", "*");
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        send(request).await
    }

    fn any<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.rng.usize(..all.len())]
    }

    fn ids(&mut self) -> Vec<String> {
        (0..self.rng.usize(2..6)).map(|_| format!("t{}", self.rng.usize(..TITLES))).collect()
    }

    fn rail(&mut self, n: usize) -> (String, Value) {
        let (title, items) = (self.any(&WORDS), self.ids());
        (format!("/rails/r{n}"), json!({"title": title, "position": self.rng.i64(0..3), "items": items, "size": 4}))
    }

    fn collection(&mut self, n: usize) -> (String, Value) {
        (format!("/collections/c{n}"), json!({"name": self.any(&WORDS), "items": self.ids(), "state": "published"}))
    }

    fn season(&mut self, series: usize) -> (String, Value) {
        let episodes: Vec<_> = (0..self.rng.i64(1..4))
            .map(|n| json!({"id": format!("e{series}-{n}"), "number": n, "name": self.any(&WORDS)}))
            .collect();
        (format!("/series/t{series}/seasons/1"), json!({"name": self.any(&WORDS), "episodes": episodes}))
    }

    /// Some edit, made; what it was and what was answered.
    async fn edit(&mut self) -> (String, Got) {
        let path = format!("/titles/t{}", self.rng.usize(..TITLES));
        let (n, word, person) = (self.rng.usize(0..2), self.any(&WORDS), self.any(&PEOPLE));
        let (genre, other) = (self.any(&GENRES), self.any(&GENRES));
        let patch = |path: String, body: Value| (Method::PATCH, path, Some(body));
        let (method, path, body) = match self.rng.u32(0..18) {
            0 | 1 => patch(path, json!({"name": format!("{word} {}", self.rng.u32(0..100))})),
            2 => patch(path, json!({"translations": {"de": {"name": format!("{word} auf deutsch")}}})),
            3 => patch(path, json!({"synopsis": format!("{word} {}", self.rng.u32(0..100))})),
            4 => patch(path, json!({"genres": [genre, other]})),
            5 => patch(path, json!({"people": [{"name": person, "role": self.any(&["actor", "director"])}]})),
            6 => patch(path, json!({"maturity": self.any(&MARKS)})),
            7 | 8 => patch(path, json!({"regions": {"DE": {"blocked": self.rng.bool()}}})),
            9 => patch(path, json!({"year": self.rng.i64(1994..1997), "rating": self.rng.i64(1..9)})),
            10 => patch(path, json!({"state": self.any(&["draft", "published"])})),
            11 | 12 => (Method::DELETE, path, None),
            13 => {
                let (path, body) = self.rail(n);
                (Method::PUT, path, Some(body))
            }
            14 => patch(format!("/people/{person}"), json!({"name": format!("{person} {word}")})),
            15 => {
                let (path, body) = self.collection(n);
                (Method::PUT, path, Some(body))
            }
            16 => {
                let (path, body) = self.season(n);
                (Method::PUT, path, Some(body))
            }
            _ => patch(format!("/genres/{}", genre.to_lowercase()), json!({"name": format!("{genre} {word}")})),
        };
        let said = body.as_ref().map(Value::to_string).unwrap_or_default();
        let got = self.write(method.clone(), &path, body, true).await;
        // What is deleted is brought back by the next edit that comes to it.
        if got.status == 404 && path.starts_with("/titles/") {
            let path = format!("{path}/restore");
            let got = self.write(Method::POST, &path, Some(json!({})), true).await;
            return (format!("POST {path}: {}", got.status), got);
        }
        (format!("{method} {path} {said}: {}", got.status), got)
    }

    /// Every page of every viewer: what the edge says comes to be what is rendered anew.
    async fn compare(&mut self, what: &str) {
        for (place, path) in self.paths.iter().enumerate() {
            for viewer in 0..self.viewers.len() {
                let first = self.at_edge(path, viewer).await;
                let mut fresh = self.at_origin(path, viewer).await;
                assert!(matches!(fresh.status, 200 | 404), "{what}: {path}: {fresh:?}");
                if seen(&first) != seen(&fresh) {
                    let dimensions = self.viewers[viewer].dimensions;
                    let stale = format!(
                        "{what}: {path} for {dimensions:?} is not what it is at origin\nedge   {} {}\norigin {}\n",
                        first.cache(),
                        first.body,
                        fresh.body
                    );
                    // A job works on after the edit; both are asked again.
                    fresh = eventually(&stale, || async {
                        let (edge, fresh) = (self.at_edge(path, viewer).await, self.at_origin(path, viewer).await);
                        (seen(&edge) == seen(&fresh)).then_some(fresh)
                    })
                    .await;
                }
                let now = seen(&fresh);
                match self.known.insert((place, viewer), now.clone()) {
                    Some(before) if before == now && !first.is_hit() => self.fetched_for_nothing += 1,
                    Some(before) if before != now => self.changed += 1,
                    _ => {}
                }
            }
        }
    }
}

fn seen(got: &Got) -> (u16, String) {
    (got.status, got.body.clone())
}

fn title(rng: &mut Rng, n: usize) -> Value {
    let mut any = |all: &[&str]| all[rng.usize(..all.len())].to_string();
    let (word, genre, person, mark) = (any(&WORDS), any(&GENRES), any(&PEOPLE), any(&MARKS[..3]));
    let (year, rating) = (rng.i64(1994..1997), rng.i64(1..9));
    json!({
        "type": "title", "id": format!("t{n}"), "kind": if n < 2 { "series" } else { "film" }, "name": format!("{word} {n}"),
        "year": year, "rating": rating, "maturity": mark, "genres": [genre],
        "people": [{"name": person, "role": "actor"}, {"name": PEOPLE[n % PEOPLE.len()], "role": "director"}],
    })
}

/// Nobody, and somebody of whom every dimension is another.
async fn viewers(stack: &Stack) -> [Viewer; 2] {
    let claims = ViewerClaims {
        iss: ISSUER.into(),
        aud: AUDIENCE_VIEWER.into(),
        sub: "ada".into(),
        sid: "ada-phone".into(),
        as_of: stack.as_of().await,
        plan: Plan::Basic,
        maturity: Maturity::From13,
        locale: None,
    };
    let token = format!("Bearer {}", sign(&stack.key, claims, 600));
    let debug = sign(&stack.key, e2e::stack::edge_claims(Scope::Debug, None), 600);
    let sent = [
        ("authorization", token),
        ("accept-language", "de".into()),
        ("edge-debug", debug),
        ("edge-region", "DE".into()),
    ];
    [
        Viewer { sent: Vec::new(), dimensions: ["ZZ", "en", "18", "none"] },
        Viewer { sent: sent.into(), dimensions: ["DE", "de", "13", "basic"] },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn after_each_edit_every_page_at_the_edge_is_what_origin_would_render_for_that_viewer() {
    let seed = std::env::var("EDGE_REACH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut world = World::start(seed).await;
    let mut kinds: BTreeMap<u16, usize> = BTreeMap::new();
    for n in 0..EDITS {
        let (what, written) = world.edit().await;
        *kinds.entry(written.status).or_default() += 1;
        assert!(written.status < 500, "seed {seed}, edit {n}: {what}: {written:?}");
        if written.status < 300 {
            world.stack.applied(&written).await;
        }
        world.compare(&format!("EDGE_REACH_SEED={seed}, edit {n}, {what}")).await;
    }
    let (changed, for_nothing, pages) = (world.changed, world.fetched_for_nothing, world.known.len());
    println!(
        "{EDITS} edits ({kinds:?}), {pages} pages: {changed} times one changed, {for_nothing} times one was fetched for nothing"
    );
    assert!(changed > EDITS, "the edits hardly showed anywhere: {changed}");
}
