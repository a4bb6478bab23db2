//! What an answer costs, side by side with Workers written by hand and with the caches people run: the server on one
//! processor, the load on the other. Short stints take turns, in another order each round, and ratios are taken within a
//! round, so that a machine whose speed drifts wrongs nobody; how sure a ratio is stands beside it. Absolute figures do not
//! hold. The peers' set-up is in `tests/peers`.
use crate::api::{Api, SHARED};
use crate::hits_peers::{Peers, start_peers};
use crate::pump::{self, Load, Stint};
use crate::stack::{Proxy, ProxyShape};
use crate::statistics::median;
use crate::wanted::Wanted;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// How often each row takes its turn.
    #[arg(long, default_value_t = 12)]
    pub rounds: usize,
    /// Milliseconds of each turn of a row.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    pub millis: u64,
    /// How often the two of each wanted ratio take turns, with nobody else between them.
    #[arg(long, default_value_t = 200)]
    pub turns: usize,
    /// Only rows whose names contain one of these, with a semicolon between them.
    #[arg(long, value_delimiter = ';')]
    pub rows: Vec<String>,
}

/// One thing that is measured.
pub struct Target {
    pub name: &'static str,
    /// What it is, in a few words, and the file that says all of it.
    pub setup: &'static str,
    pub load: Load,
    /// Whose viewer asks. Her token ends sooner than a long run does, so each turn has one of its own.
    viewer_of: Option<Arc<Api>>,
    /// Whose processor time is taken.
    pub process: u32,
    /// Each request is for another page, of which none is asked for twice: from this one on they are new.
    pub pages: Option<usize>,
    /// How often it is warmed up, with the same pages.
    warm_ups: usize,
    /// By round; nothing in rounds it sits out.
    stints: Vec<Option<Stint>>,
}

impl Target {
    pub fn new(name: &'static str, setup: &'static str, url: impl AsRef<str>, process: u32) -> Self {
        let load = Load::new(url.as_ref());
        Self { name, setup, load, viewer_of: None, process, pages: None, warm_ups: 1, stints: Vec::new() }
    }

    fn by_a_viewer_of(mut self, api: &Arc<Api>) -> Self {
        self.viewer_of = Some(Arc::clone(api));
        self
    }

    /// What its next turn sends.
    fn load(&self) -> Load {
        let mut load = self.load.clone();
        load.fields.extend(self.viewer_of.as_ref().map(|api| format!("authorization: Bearer {}", api.token("ada"))));
        load
    }

    pub fn with(mut self, field: &str) -> Self {
        self.load.fields.push(field.into());
        self
    }

    pub fn of_pages(mut self) -> Self {
        (self.pages, self.load.numbered) = (Some(0), true);
        self.warm_ups = WARM_UPS_OF_PAGES;
        self
    }

    /// Pages that are found nowhere: asked for again, they would be.
    fn of_absent_pages(self) -> Self {
        Self { warm_ups: 1, ..self.of_pages() }
    }

    /// The numbers for a turn, at most so many.
    fn numbers(&mut self, most: usize) -> std::ops::Range<usize> {
        match &mut self.pages {
            Some(next) => {
                let first = *next;
                *next += most;
                first..*next
            }
            None => 0..usize::MAX,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}{}", self.load.authority, self.load.target)
    }

    async fn ask(&self) -> crate::http::Got {
        let request = crate::http::ask(reqwest::Method::GET, self.url());
        let load = self.load();
        let fields = load.fields.iter().filter_map(|field| field.split_once(": "));
        crate::http::send(fields.fold(request, |request, (name, value)| request.header(name, value))).await
    }
}

/// A median over the rounds, and where it lies with a probability of 95 % (bootstrap over the rounds).
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Ratio {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Ratio {
    fn of(ratios: &[f64]) -> Self {
        if ratios.is_empty() {
            return Self::default();
        }
        let mut random = fastrand::Rng::with_seed(1);
        let again = |_| median((0..ratios.len()).map(|_| ratios[random.usize(..ratios.len())]).collect());
        let mut medians: Vec<f64> = (0..2_000).map(again).collect();
        medians.sort_by(f64::total_cmp);
        Self { median: median(ratios.to_vec()), low: medians[49], high: medians[1_949] }
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} [{:.2}, {:.2}]", self.median, self.low, self.high)
    }
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub name: &'static str,
    pub setup: &'static str,
    /// Medians over the rounds.
    pub requests_per_s: f64,
    pub cpu_us: f64,
    /// Of requests a second, within each round.
    pub to_js_empty: Ratio,
    pub to_js_memory: Ratio,
    pub to_js_kv: Ratio,
}

/// A ratio of two, and what it is wanted to be.
#[derive(Debug, Serialize)]
pub struct Duel {
    pub what: &'static str,
    /// Of requests a second, while the two took turns with nobody else between them.
    pub ratio: Ratio,
    pub at_least: f64,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub rounds: usize,
    pub millis: u64,
    pub turns: usize,
    pub rows: Vec<Row>,
    pub duels: Vec<Duel>,
}

impl Report {
    pub fn wanted(&self) -> Vec<Wanted> {
        let of = |Duel { what, ratio, at_least }: &Duel| Wanted::at_least(*what, *at_least, ratio.median);
        let left_out = Wanted::none("duels that were left out", self.left_out().len() as u64);
        self.duels.iter().map(of).chain([left_out]).collect()
    }

    /// What is wanted, and was not compared: a row of it was not asked for.
    fn left_out(&self) -> Vec<&'static str> {
        let all = WANTED.iter().map(|(what, ..)| *what);
        all.filter(|what| self.duels.iter().all(|duel| duel.what != *what)).collect()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, rate, cpu) = ("", "requests/s", "cpu µs");
        writeln!(f, "{name:<26}{rate:>10}{cpu:>8}{:>22}{:>22}{:>22}", "to js empty", "to js memory", "to js kv")?;
        for row in &self.rows {
            let ratios = [row.to_js_empty, row.to_js_memory, row.to_js_kv].map(|ratio| ratio.to_string());
            write!(f, "{:<26}{:>10.0}{:>8.1}", row.name, row.requests_per_s, row.cpu_us)?;
            writeln!(f, "{:>22}{:>22}{:>22}", ratios[0], ratios[1], ratios[2])?;
        }
        writeln!(f, "medians of {} rounds; in brackets where they lie with 95 %", self.rounds)?;
        writeln!(f, "two alone, in {} turns of {} ms each:", self.turns, DUEL_TURN.as_millis())?;
        for Duel { what, ratio, at_least } in &self.duels {
            let word = if ratio.median >= *at_least { "reached" } else { "NOT reached" };
            writeln!(f, "{what}: {ratio}, wanted {at_least:.2}: {word}")?;
        }
        for what in self.left_out() {
            writeln!(f, "{what}: not compared, a row of it was left out")?;
        }
        for row in &self.rows {
            writeln!(f, "{}: {}", row.name, row.setup)?;
        }
        Ok(())
    }
}

const EMPTY: &str = "js empty";
const MEMORY: &str = "js memory";
const KV: &str = "js kv";
/// Pages that are asked for once each, in a turn of a row; what has to be prepared for them is much, so not each round has
/// such turns.
const PAGES: usize = 700;
const PAGES_EVERY: usize = 4;
/// Asked for before anything is measured: memory is as full as it gets, and what is used much the runtime has compiled once
/// more, and better. For that a page a request is slow: such rows go through theirs several times, in a memory that has room
/// for less than half of them.
const WARM_UP_PAGES: usize = 8_000;
const WARM_UPS_OF_PAGES: usize = 6;
const WARM_UP: Duration = Duration::from_millis(3_000);
/// While two take turns alone.
const DUEL_PAGES: usize = 28_000;
/// For so many turns of each that is enough.
const DUEL_TURNS_OF_PAGES: usize = 200;
const DUEL_TURN: Duration = Duration::from_millis(25);
/// What is wanted of whom beside whom: requests a second, as a ratio.
const WANTED: [(&str, &str, &str, f64); 10] = [
    ("memory hit to js memory", "edge memory, 20 keys", MEMORY, 0.95),
    ("memory hit to js memory, same fields", "edge memory, 20 keys", "js memory, same fields", 0.95),
    ("304 to js memory, 304", "edge memory, 304", "js memory, 304", 0.95),
    ("logged hit to js memory, fields + log", "edge memory, with a log", "js memory, fields + log", 0.95),
    // That Worker counts nobody's reads.
    ("as deployed to js memory, fields + log", "edge memory, log + limit", "js memory, fields + log", 0.95),
    ("memory hit to js kv", "edge memory, 20 keys", KV, 2.0),
    ("100 keys to 1 key", "edge memory, 100 keys", "edge memory, 1 key", 1.0 / 1.05),
    ("a viewer's hit to a stranger's", "edge memory, a viewer", "edge memory, 20 keys", 1.0 / 1.3),
    ("kv hit to js kv", "edge kv", "js kv, pages", 1.0),
    ("kv hit to js kv, same work", "edge kv", "js kv, same work, pages", 0.95),
];
/// Purges that everybody's knowledge begins with.
const PURGES: usize = 1_000;

/// 9.8 kB of JSON, as a home page has.
fn page() -> String {
    let items: Vec<_> =
        (0..100).map(|n| serde_json::json!({"id": format!("title-{n}"), "name": "x".repeat(62)})).collect();
    serde_json::json!({"items": items}).to_string()
}

/// Asks for pages once each, some at a time.
async fn ask_for_all(url: &str, pages: usize) {
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let askers = (0..32).map(|_| {
        let (next, url) = (Arc::clone(&next), url.to_string());
        tokio::spawn(async move {
            let client = crate::http::client();
            loop {
                let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if n >= pages {
                    return;
                }
                if let Ok(answer) = client.get(format!("{url}{n}")).send().await {
                    let _ = answer.bytes().await;
                }
            }
        })
    });
    for asker in askers.collect::<Vec<_>>() {
        let _ = asker.await;
    }
}

/// The gateway of the API, with pages of 1, 20 and 100 keys.
async fn gateway(log: &str, limits: &str) -> Result<Api, String> {
    let api = Api::of(1, &[("LEASE_MS", "1000"), ("ACCESS_LOG", log), ("LIMITS", limits)]).await;
    api.fleet.pin_edge(0, 0).map_err(|error| error.to_string())?;
    api.purge_each((0..PURGES).map(|n| format!("purged-{n}"))).await;
    let policy: Vec<_> = SHARED.into_iter().chain([("etag", "\"a-page\"")]).collect();
    for keys in [1, 20, 100] {
        let list = (0..keys).map(|n| format!("key-{n}")).collect::<Vec<_>>().join(" ");
        api.answer(&format!("/v1/titles/keys-{keys}"), &policy, &list, &page());
    }
    Ok(api)
}

/// Field names of an answer, without those the runtime adds by itself.
async fn field_names(target: &Target) -> BTreeSet<String> {
    let names = target.ask().await.headers.into_iter().map(|(name, _)| name);
    names.filter(|name| name != "date" && name != "transfer-encoding").collect()
}

/// Measures.
pub async fn run(options: &Options) -> Result<Report, String> {
    // Three locations: one that is warm, one whose second isolate finds what the first has left in their cache, and one
    // that finds its pages in KV.
    let proxy =
        Proxy::of(ProxyShape { isolates: &[1, 2, 1], lease_ms: 1_000, quiet: true, ..ProxyShape::default() }).await;
    for location in 0..3 {
        proxy.fleet.pin_edge(location, 0).map_err(|error| error.to_string())?;
    }
    let fields = [
        ("content-type", "application/json"),
        ("cache-control", "max-age=3600"),
        ("etag", "\"a-page\""),
        ("surrogate-key", &(0..20).map(|n| format!("key-{n}")).collect::<Vec<_>>().join(" ")),
    ];
    for path in ["/", "/keys-20", "/page", "/miss"] {
        proxy.upstream.answer(path, &fields, &page());
    }
    // Viewers meet the gateway of the API; other tiers are reached more easily through a proxy for any origin.
    let quiet = Arc::new(gateway("off", "").await?);
    let logging = gateway("all", "").await?;
    // As `wrangler.toml` has it, but for a number of reads that the load would use up at once.
    let deployed = gateway("all", "reads=1000000/1").await?;
    let of = |api: &Api, name, setup, path: &str| Target::new(name, setup, api.url(path), api.fleet.edge_id(0));
    let edge = |name, setup, (location, isolate), path: &str| {
        let url = format!("{}{path}", proxy.fleet.isolate_url(location, isolate));
        Target::new(name, setup, url, proxy.fleet.edge_id(location))
    };
    let (k1, k20, k100) = ("/v1/titles/keys-1", "/v1/titles/keys-20", "/v1/titles/keys-100");
    // What is no date says nothing, and sends a request through the whole gateway.
    let long_way = "if-modified-since: never";
    let not_modified = "if-none-match: \"a-page\"";
    let no_log = "gateway, ACCESS_LOG=off";
    let Peers { mut targets, processes } = start_peers(&proxy, &quiet, k20, not_modified).await?;
    // What is compared stands near what it is compared with.
    let ours = [
        (MEMORY, of(&quiet, "edge memory, 20 keys", no_log, k20)),
        ("edge memory, 20 keys", of(&quiet, "edge memory, 1 key", no_log, k1)),
        ("edge memory, 1 key", of(&quiet, "edge memory, 100 keys", no_log, k100)),
        (
            "edge memory, 20 keys",
            of(&quiet, "edge memory, a viewer", "gateway, with a viewer's token", k20).by_a_viewer_of(&quiet),
        ),
        ("js memory, 304", of(&quiet, "edge memory, 304", no_log, k20).with(not_modified)),
        ("js memory, fields + log", of(&logging, "edge memory, with a log", "gateway, ACCESS_LOG=all", k20)),
        (
            "edge memory, with a log",
            of(&deployed, "edge memory, log + limit", "gateway, ACCESS_LOG=all, reads of each client counted", k20)
                .with("cf-connecting-ip: 192.0.2.1"),
        ),
        ("", of(&quiet, "edge memory, fields=", "gateway, a cut of the page", &format!("{k20}?fields=items.id"))),
        ("", of(&quiet, "edge memory, long way", "gateway, by a lookup in place of a slot", k20).with(long_way)),
        ("", edge("edge memory, any origin", "MODE=proxy", (0, 0), "/keys-20")),
        (
            "js caches.default, pages",
            edge("edge colo", "MODE=proxy, pages only in the location's cache", (1, 1), "/page?n=").of_pages(),
        ),
        ("js kv, same work, pages", edge("edge kv", "MODE=proxy, pages only in KV", (2, 0), "/page?n=").of_pages()),
        ("", edge("edge miss", "MODE=proxy, pages nobody has", (0, 0), "/miss?n=").of_absent_pages()),
    ];
    for (beside, target) in ours {
        let place = targets.iter().position(|one| one.name == beside).map_or(targets.len(), |place| place + 1);
        targets.insert(place, target);
    }
    targets.retain(|one| options.rows.is_empty() || options.rows.iter().any(|part| one.name.contains(part.as_str())));
    for one in targets.iter().filter(|one| one.pages.is_none()) {
        for _ in 0..3 {
            one.ask().await;
        }
    }
    same_fields(&targets, &[("edge memory, 20 keys", MEMORY), ("edge memory, 304", "js memory, 304")]).await?;
    same_fields(&targets, &[("edge memory, with a log", "js memory, fields + log")]).await?;
    let pages = WARM_UP_PAGES + PAGES * options.rounds.div_ceil(PAGES_EVERY);
    // Written to KV and to this location's cache: the second isolate finds them there, the third location in KV.
    for (name, url) in [
        ("edge", Some(edge("", "", (1, 0), "/page?n=").url())),
        ("js kv, pages", None),
        ("js kv, same work, pages", None),
        ("js caches.default, pages", None),
    ] {
        let is_wanted = targets.iter().any(|one| one.pages.is_some() && one.name.starts_with(name));
        let own = || targets.iter().find(|one| one.name == name).map(Target::url);
        // Duels are two with the edge's, none with this one.
        let duels = if name == "edge" { 2 } else { usize::from(name != "js caches.default, pages") };
        let pages = pages + duels * DUEL_PAGES;
        if let Some(url) = url.or_else(own).filter(|_| is_wanted) {
            println!("{pages} pages for {name} …");
            ask_for_all(&url, pages).await;
        }
    }
    let options_ = options.clone();
    let measured = tokio::task::spawn_blocking(move || -> Result<_, String> {
        let mut targets = measure(targets, &options_)?;
        let duels = duels(&mut targets, options_.turns)?;
        Ok((targets, duels))
    });
    let (targets, duels) = measured.await.map_err(|error| error.to_string())??;
    drop((processes, quiet, logging, deployed, proxy));
    Ok(report(&targets, duels, options))
}

/// What is compared is to say the same: a peer that leaves something out would be quicker for it.
async fn same_fields(targets: &[Target], pairs: &[(&str, &str)]) -> Result<(), String> {
    for (ours, theirs) in pairs {
        let of = |name: &str| targets.iter().find(|one| one.name == name);
        let (Some(ours), Some(theirs)) = (of(ours), of(theirs)) else { continue };
        let (said, wanted) = (field_names(theirs).await, field_names(ours).await);
        if said != wanted {
            return Err(format!("{} says {said:?}, {} says {wanted:?}", theirs.name, ours.name));
        }
    }
    Ok(())
}

/// The rounds. Each begins at another row, and each other goes backwards.
fn measure(mut targets: Vec<Target>, options: &Options) -> Result<Vec<Target>, String> {
    let length = Duration::from_millis(options.millis);
    for one in &mut targets {
        let numbers = one.numbers(WARM_UP_PAGES);
        for _ in 0..one.warm_ups {
            pump::stint(&one.load(), numbers.clone(), WARM_UP, one.process)?;
        }
        pump::await_calm(one.process);
    }
    for round in 0..options.rounds {
        let count = targets.len();
        for step in 0..count {
            let step = if round % 2 == 0 { step } else { count - 1 - step };
            let place = (step + round * 7) % count;
            let one = &mut targets[place];
            if one.pages.is_some() && round % PAGES_EVERY != 0 {
                one.stints.push(None);
                continue;
            }
            let numbers = one.numbers(PAGES);
            one.stints.push(Some(pump::stint(&one.load(), numbers, length, one.process)?));
            if one.pages.is_some() {
                pump::await_calm(one.process);
            }
        }
    }
    Ok(targets)
}

/// The wanted ratios.
fn duels(targets: &mut [Target], turns: usize) -> Result<Vec<Duel>, String> {
    let mut all = Vec::new();
    for (what, ours, theirs, at_least) in WANTED {
        let mut of = |name: &str| {
            let one = targets.iter_mut().find(|one| one.name == name)?;
            let numbers = one.numbers(DUEL_PAGES);
            Some((one.load(), numbers))
        };
        let (Some(ours), Some(theirs)) = (of(ours), of(theirs)) else { continue };
        let turns = if ours.0.numbered { turns.min(DUEL_TURNS_OF_PAGES) } else { turns };
        let ratios = pump::duel((&ours.0, ours.1), (&theirs.0, theirs.1), turns, DUEL_TURN)?;
        all.push(Duel { what, ratio: Ratio::of(&ratios), at_least });
    }
    Ok(all)
}

fn report(targets: &[Target], duels: Vec<Duel>, options: &Options) -> Report {
    let of = |name: &str| targets.iter().find(|one| one.name == name);
    let stints = |one: &Target| one.stints.iter().flatten().copied().collect::<Vec<Stint>>();
    let pairs = |ours: &Target, theirs: Option<&Target>| -> Vec<(Stint, Stint)> {
        let theirs = theirs.map_or(&[][..], |theirs| &theirs.stints);
        ours.stints.iter().zip(theirs).filter_map(|(ours, theirs)| ours.zip(*theirs)).collect()
    };
    let ratio = |ours: &Target, theirs: Option<&Target>| {
        let rates = pairs(ours, theirs).into_iter().map(|(a, b)| a.requests_per_s / b.requests_per_s);
        Ratio::of(&rates.collect::<Vec<_>>())
    };
    let rows = targets.iter().map(|one| Row {
        name: one.name,
        setup: one.setup,
        requests_per_s: median(stints(one).iter().map(|stint| stint.requests_per_s).collect()),
        cpu_us: median(stints(one).iter().map(|stint| stint.cpu_us).collect()),
        to_js_empty: ratio(one, of(EMPTY)),
        to_js_memory: ratio(one, of(MEMORY)),
        to_js_kv: ratio(one, of(KV)),
    });
    let &Options { rounds, millis, turns, .. } = options;
    Report { rounds, millis, turns, rows: rows.collect(), duels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duel_that_was_left_out_is_named_and_not_what_is_wanted() {
        let of = |left_out: usize| {
            let duels = WANTED[left_out..].iter().map(|&(what, _, _, at_least)| {
                let ratio = Ratio { median: at_least, low: at_least, high: at_least };
                Duel { what, ratio, at_least }
            });
            Report { rounds: 1, millis: 1, turns: 1, rows: Vec::new(), duels: duels.collect() }
        };
        assert!(of(0).left_out().is_empty() && of(0).wanted().iter().all(|wanted| wanted.is_met));
        assert_eq!(of(1).left_out(), [WANTED[0].0]);
        assert_eq!(of(1).wanted().iter().filter(|wanted| !wanted.is_met).count(), 1);
        assert!(of(1).to_string().contains("memory hit to js memory: not compared"));
    }
}
