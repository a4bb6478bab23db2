//! What the first viewers after an edit get, with documents fetched ahead of them and without. Each title is edited in
//! turn; nobody reads its page or home until every location must know of the edit, then one viewer at each location does,
//! all at once. Cases run side by side: nothing here is a time.
use crate::http::get;
use crate::stack::{Shape, Stack};
use reqwest::Method;
use serde_json::json;
use std::fmt;
use std::time::Duration;

const LEASE_MS: u64 = 500;
/// A lease and half of one is when every view has been confirmed anew; and a moment for origin and KV. More than a second,
/// since nothing is warmed twice within one.
const UNREAD: Duration = Duration::from_millis(LEASE_MS + LEASE_MS / 2 + 450);

/// What is edited, and where its page was read before.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    /// Also at the location where purges come in, whose isolate then refreshes by itself what it holds.
    is_held_at_intake: bool,
    purge: &'static str,
}

pub const CASES: [Case; 3] = [
    Case { name: "soft purge, held where purges come in", is_held_at_intake: true, purge: "soft" },
    Case { name: "soft purge, held elsewhere", is_held_at_intake: false, purge: "soft" },
    Case { name: "hard purge, held elsewhere", is_held_at_intake: false, purge: "hard" },
];

/// What first viewers of one kind of page got.
#[derive(Debug, Default, serde::Serialize)]
pub struct Share {
    pub viewers: u64,
    /// Hits that show the edit.
    pub fresh_hits: u64,
    /// Old copies, given out while a new one was fetched.
    pub stale: u64,
    /// Answers that were waited for.
    pub forwarded: u64,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |count: u64| 100.0 * count as f64 / self.viewers.max(1) as f64;
        let [fresh, stale, forwarded] = [self.fresh_hits, self.stale, self.forwarded].map(percent);
        write!(f, "{fresh:>5.1} % hit, {stale:>5.1} % old, {forwarded:>5.1} % waited")
    }
}

#[derive(Debug, serde::Serialize)]
pub struct Row {
    pub case: &'static str,
    pub warm: u16,
    pub title: Share,
    pub home: Share,
    /// Requests for these pages that reached origin, whoever made them.
    pub origin_requests: u64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, warm, title, home, origin_requests } = self;
        writeln!(f, "{case}, --warm {warm}: origin was asked {origin_requests} times")?;
        write!(f, "    title {title}\n    home  {home}")
    }
}

async fn origin_requests(stack: &Stack) -> u64 {
    stack.origin_count("/v1/titles/{id}").await + stack.origin_count("/v1/home").await
}

/// Edits each of `titles` once.
async fn run_case(case: Case, warm: u16, titles: usize, edges: usize) -> Row {
    let before = |n: usize| format!("before {n}.");
    let title = |n: usize| json!({"type": "title", "id": format!("t{n}"), "name": before(n)});
    let ids: Vec<_> = (0..titles).map(|n| format!("t{n}")).collect();
    let rail = json!({"type": "rail", "id": "top", "title": "Top", "position": 1, "items": ids});
    let catalogue = (0..titles).map(title).chain([rail]).map(|row| format!("{row}\n")).collect();
    let stack = Stack::of(Shape { edges, lease_ms: LEASE_MS, catalogue, warm, ..Shape::default() }).await;
    // Purges come in at the first location.
    for edge in usize::from(!case.is_held_at_intake)..edges {
        for n in 0..titles {
            get(format!("{}/v1/titles/t{n}", stack.fleet.url(edge))).await;
        }
        get(format!("{}/v1/home", stack.fleet.url(edge))).await;
    }
    let asked = origin_requests(&stack).await;
    let (mut of_title, mut of_home) = (Share::default(), Share::default());
    for n in 0..titles {
        let name = format!("after {n}.");
        let path = format!("/admin/v1/titles/t{n}?purge={}", case.purge);
        let written = stack.admin(Method::PATCH, &path, Some(json!({"name": name}))).await;
        assert_eq!(written.status, 200, "{written:?}");
        tokio::time::sleep(UNREAD).await;
        let mut viewers = tokio::task::JoinSet::new();
        for edge in 0..edges {
            for (is_title, page) in [(true, format!("/v1/titles/t{n}")), (false, "/v1/home".into())] {
                let got = get(format!("{}{page}", stack.fleet.url(edge)));
                viewers.spawn(async move { (is_title, got.await) });
            }
        }
        for (is_title, got) in viewers.join_all().await {
            let share = if is_title { &mut of_title } else { &mut of_home };
            share.viewers += 1;
            let (is_hit, is_old) = (got.is_hit(), got.body.contains(&before(n)));
            assert!(got.status == 200 && !(is_hit && is_old), "an old copy passes for fresh: {got:?}");
            match (is_hit, got.is_fresh_or_forwarded()) {
                (true, _) => share.fresh_hits += 1,
                (false, true) => share.forwarded += 1,
                (false, false) => share.stale += 1,
            }
        }
    }
    let origin_requests = origin_requests(&stack).await - asked;
    Row { case: case.name, warm, title: of_title, home: of_home, origin_requests }
}

/// Without warming, then with up to `warm` documents.
pub async fn run(warm: u16, titles: usize, edges: usize) -> Vec<Row> {
    let mut rows = Vec::new();
    for warm in [0, warm] {
        let [first, second, third] = CASES.map(|case| tokio::spawn(run_case(case, warm, titles, edges)));
        for case in [first, second, third] {
            rows.push(case.await.expect("a case failed"));
        }
    }
    rows
}
