//! What is told of a load: figures as JSON, and a page with plots for people, in `target/bench/load/`.
use super::line::Way;
use super::plot::Plot;
use super::tally::{Second, Seen, Times, ms, times};
use super::{Busy, Options};
use crate::wanted::Wanted;
use serde::Serialize;
use std::fmt::{self, Write};
use std::time::Duration;

/// Points of a plot.
const POINTS: usize = 300;
const P95_MS_MAX: f64 = 250.0;
const WRITES_P95_MS_MAX: f64 = 2_000.0;
const ORIGIN_PERCENT_MAX: f64 = 1.0;

/// Milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latencies {
    pub name: String,
    pub count: u64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Latencies {
    fn of(name: &str, times: &Times) -> Self {
        let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|quantile| ms(times, quantile));
        Self { name: name.into(), count: times.len(), p50, p95, p99, max }
    }
}

#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub connections: u32,
    pub edges: u32,
    pub seconds: f64,
    pub rate: f64,
    pub edits_per_s: f64,
    pub titles: u64,
    pub seed: u64,
    /// Documents that were read once before anything was counted.
    pub filled: usize,
    pub viewers: Latencies,
    pub pages: Vec<Latencies>,
    pub writes: Latencies,
    pub writes_by_kind: Vec<Latencies>,
    /// From a write's answer to the word that the edge's journal has its purge.
    pub landing: Latencies,
    /// How late requests were sent.
    pub lateness: Latencies,
    pub hit_percent: f64,
    pub stale_percent: f64,
    pub forwarded_percent: f64,
    pub passed_percent: f64,
    pub not_modified_percent: f64,
    /// By kind of page: hits, stale ones, forwarded, passed.
    pub ways_by_page: Vec<(String, [u64; 4])>,
    /// What the edge says of those that were no hits, by kind of page.
    pub details: Vec<(String, String, u64)>,
    pub origin_requests: u64,
    pub origin_by_route: Vec<(String, u64)>,
    /// Of these, ahead of viewers.
    pub origin_warmed: u64,
    pub origin_percent: f64,
    pub open_least: usize,
    pub open_most: usize,
    /// Connections that had to be opened anew.
    pub reopened: u64,
    pub megabytes_per_s: f64,
    pub errors: u64,
    pub errors_by_kind: Vec<(String, u64)>,
    /// Words of edited titles that were compared with what had landed.
    pub compared: u64,
    pub violations: u64,
    pub examples: Vec<String>,
    /// Edits that were acknowledged and are not shown in the end.
    pub lost: Vec<String>,
    pub busy: Busy,
    pub wanted: Vec<Wanted>,
}

impl Figures {
    pub(super) fn of(
        options: &Options,
        seen: &Seen,
        time: Duration,
        busy: Busy,
        filled: usize,
        lost: Vec<String>,
    ) -> Self {
        let seconds = time.as_secs_f64();
        let mut writes = times();
        for second in &seen.seconds {
            // Bounds are the same everywhere.
            let _ = writes.add(&second.writes);
        }
        let ways: Vec<u64> =
            (0..Way::ALL.len()).map(|way| seen.seconds.iter().map(|second| second.ways[way]).sum()).collect();
        let count = seen.all.len();
        let percent = |part: u64| 100.0 * part as f64 / count.max(1) as f64;
        let of_way = |way: Way| Way::ALL.iter().position(|one| *one == way).map_or(0.0, |at| percent(ways[at]));
        let origin_requests = seen.seconds.iter().map(|second| second.origin).sum();
        let open = || seen.seconds.iter().map(|second| second.open).filter(|open| *open > 0);
        let mut figures = Self {
            connections: options.connections,
            edges: options.edges,
            seconds,
            rate: options.rate,
            edits_per_s: options.edits,
            titles: options.titles,
            seed: options.seed,
            filled,
            viewers: Latencies::of("all", &seen.all),
            pages: seen.pages.iter().map(|(page, times)| Latencies::of(page.name(), times)).collect(),
            writes: Latencies::of("all", &writes),
            writes_by_kind: seen.writes.iter().map(|(name, times)| Latencies::of(name, times)).collect(),
            landing: Latencies::of("landing", &seen.landing),
            lateness: Latencies::of("lateness", &seen.lateness),
            hit_percent: of_way(Way::Hit),
            stale_percent: of_way(Way::Stale),
            forwarded_percent: of_way(Way::Forwarded),
            passed_percent: of_way(Way::Passed),
            not_modified_percent: percent(seen.not_modified),
            ways_by_page: seen.ways.iter().map(|(page, ways)| (page.name().into(), *ways)).collect(),
            details: (seen.details.iter())
                .map(|((page, detail), count)| (page.name().into(), detail.clone(), *count))
                .collect(),
            origin_requests,
            origin_by_route: seen.asked.iter().map(|(route, count)| (route.clone(), *count)).collect(),
            origin_warmed: seen.warmed,
            origin_percent: percent(origin_requests),
            open_least: open().min().unwrap_or(0),
            open_most: open().max().unwrap_or(0),
            reopened: seen.reopened,
            megabytes_per_s: seen.bytes as f64 / 1e6 / seconds.max(1.0),
            errors: seen.error_count(),
            errors_by_kind: seen.errors.iter().map(|(what, count)| (what.clone(), *count)).collect(),
            compared: seen.compared,
            violations: seen.violation_count,
            examples: seen.violations.clone(),
            lost,
            busy,
            wanted: Vec::new(),
        };
        figures.wanted = figures.wanted();
        figures
    }

    fn wanted(&self) -> Vec<Wanted> {
        let (open, connections) = (self.open_least as f64, f64::from(self.connections));
        vec![
            Wanted::at_least("connections open all the time, at least", connections, open),
            Wanted::none("errors", self.errors),
            Wanted::none("answers older than the bound", self.violations),
            Wanted::none("edits lost", self.lost.len() as u64),
            Wanted::below("viewers' p95, ms", P95_MS_MAX, self.viewers.p95),
            Wanted::below("editors' p95, ms", WRITES_P95_MS_MAX, self.writes.p95),
            Wanted::below("requests that reached origin, % of viewers'", ORIGIN_PERCENT_MAX, self.origin_percent),
        ]
    }

    /// Whether viewers and editors got what they should; how fast is not asked.
    pub fn is_true(&self) -> bool {
        self.errors == 0 && self.violations == 0 && self.lost.is_empty() && self.compared > 0
    }

    pub(super) fn write(&self, seen: &Seen, time: Duration) -> xtask::Result<()> {
        let folder = xtask::target().join("bench/load");
        let put = |name: &str, text: String| {
            std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::write(folder.join(name), text))
                .map_err(|error| xtask::Error::Said(format!("the report could not be written: {error}")))
        };
        let plots = plots(&seen.seconds, time.as_secs_f64());
        for (name, plot) in &plots {
            put(&format!("{name}.svg"), plot.svg())?;
        }
        put("report.json", format!("{:#}\n", serde_json::to_value(self).unwrap_or_default()))?;
        put("report.md", self.page(&plots.iter().map(|(name, plot)| (*name, plot.title)).collect::<Vec<_>>()))
    }

    fn page(&self, plots: &[(&str, &str)]) -> String {
        let mut page = format!(
            "# Load: {} connections, {:.0} requests/s, {:.1} minutes\n\n",
            self.connections,
            self.viewers.count as f64 / self.seconds.max(1.0),
            self.seconds / 60.0
        );
        let _ = writeln!(
            page,
            "{} locations on this machine (bare workerd, KV, journal, origin on SQLite), the generator on the same processors. {} titles, \
             seed {}. Of a hundred viewers {} are logged in. Latencies count from the moment a request was due. Caches were filled \
             with {} documents before, by a crawler that says it is none (`Sec-Purpose: prefetch`).\n",
            self.edges,
            self.titles,
            self.seed,
            super::LOGGED_IN,
            self.filled
        );
        page.push_str("| wanted | limit | measured | |\n|---|---:|---:|---|\n");
        for Wanted { what, limit, measured, is_met } in &self.wanted {
            let measured = if measured.fract() == 0.0 { format!("{measured}") } else { format!("{measured:.2}") };
            let _ = writeln!(page, "| {what} | {limit} | {measured} | {} |", if *is_met { "yes" } else { "**no**" });
        }
        page.push('\n');
        for (name, title) in plots {
            let _ = writeln!(page, "![{title}]({name}.svg)\n");
        }
        page.push_str("## Milliseconds\n\n| | requests | p50 | p95 | p99 | most |\n|---|---:|---:|---:|---:|---:|\n");
        let mut rows = vec![("**viewers**".to_string(), &self.viewers)];
        rows.extend(self.pages.iter().map(|page| (page.name.clone(), page)));
        rows.push(("**editors**".into(), &self.writes));
        rows.extend(self.writes_by_kind.iter().map(|kind| (kind.name.clone(), kind)));
        rows.push(("from a write's answer to the journal's receipt".into(), &self.landing));
        rows.push(("how late the generator sent".into(), &self.lateness));
        for (name, Latencies { count, p50, p95, p99, max, .. }) in rows {
            let _ = writeln!(page, "| {name} | {count} | {p50:.2} | {p95:.2} | {p99:.2} | {max:.1} |");
        }
        let _ = write!(
            page,
            "\n## How they were answered\n\n| | % of viewers' requests |\n|---|---:|\n| hit | {:.2} |\n| stale, fetched anew behind it | {:.2} |\n\
             | waited for origin, or for another's fetch | {:.2} |\n| passed (writes; what is not cached) | {:.2} |\n| 304 among all | {:.2} |\n\
             | reached origin, refreshes behind answers included | {:.2} ({}) |\n",
            self.hit_percent,
            self.stale_percent,
            self.forwarded_percent,
            self.passed_percent,
            self.not_modified_percent,
            self.origin_percent,
            self.origin_requests
        );
        page.push_str("\n| | hit | stale | waited | passed |\n|---|---:|---:|---:|---:|\n");
        for (name, [hit, stale, forwarded, passed]) in &self.ways_by_page {
            let _ = writeln!(page, "| {name} | {hit} | {stale} | {forwarded} | {passed} |");
        }
        page.push_str("\n| no hit | what the edge says | requests |\n|---|---|---:|\n");
        for (name, detail, count) in &self.details {
            let _ = writeln!(page, "| {name} | `{detail}` | {count} |");
        }
        let _ = write!(
            page,
            "\nOrigin was asked for {} documents of them ahead of viewers (warming).\n\n| asked of origin | requests |\n|---|---:|\n",
            self.origin_warmed
        );
        for (route, count) in &self.origin_by_route {
            let _ = writeln!(page, "| `{route}` | {count} |");
        }
        let _ = write!(
            page,
            "\nConnections open: {} to {}, {} opened anew. {:.1} MB/s. {}.\n\nWords of edited titles compared with what had landed: {}; wrong: \
             {}. Edits lost: {}. Errors: {}.\n",
            self.open_least,
            self.open_most,
            self.reopened,
            self.megabytes_per_s,
            self.busy,
            self.compared,
            self.violations,
            self.lost.len(),
            self.errors
        );
        for (error, count) in &self.errors_by_kind {
            let _ = writeln!(page, "- {count} times {error}");
        }
        for wrong in self.examples.iter().chain(&self.lost) {
            let _ = writeln!(page, "- {wrong}");
        }
        page
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.wanted.iter().try_for_each(|wanted| writeln!(f, "{wanted}"))?;
        for (error, count) in &self.errors_by_kind {
            writeln!(f, "  {count} times {error}")?;
        }
        for wrong in self.examples.iter().chain(&self.lost) {
            writeln!(f, "  {wrong}")?;
        }
        write!(
            f,
            "{} requests, p50 {:.2} ms, p99 {:.2} ms; {:.2} % hits; {} words compared; {}",
            self.viewers.count, self.viewers.p50, self.viewers.p99, self.hit_percent, self.compared, self.busy
        )
    }
}

fn plots(seconds: &[Second], time: f64) -> Vec<(&'static str, Plot<'static>)> {
    let whole = seconds.len().min(time as usize);
    let seconds = &seconds[..whole];
    let width = whole.div_ceil(POINTS).max(1);
    let parts: Vec<&[Second]> = seconds.chunks(width).collect();
    let quantile = |of: fn(&Second) -> &Times, quantile: f64| -> Vec<f64> {
        let value = |part: &&[Second]| {
            let mut all = times();
            for second in *part {
                let _ = all.add(of(second));
            }
            ms(&all, quantile)
        };
        parts.iter().map(value).collect()
    };
    let share = |of: fn(&Second) -> u64| -> Vec<f64> {
        let sum = |part: &[Second], of: fn(&Second) -> u64| part.iter().map(of).sum::<u64>() as f64;
        let value = |part: &&[Second]| 100.0 * sum(part, of) / sum(part, |second| second.latencies.len()).max(1.0);
        parts.iter().map(value).collect()
    };
    let mean = |of: fn(&Second) -> f64| -> Vec<f64> {
        parts.iter().map(|part| part.iter().map(of).sum::<f64>() / part.len().max(1) as f64).collect()
    };
    let plot = |title, unit, limit, lines| Plot { title, unit, lines, limit, seconds: time };
    vec![
        (
            "latency",
            plot(
                "Viewers' latency",
                "ms",
                Some(P95_MS_MAX),
                vec![
                    ("p50", quantile(|second| &second.latencies, 0.5)),
                    ("p95", quantile(|second| &second.latencies, 0.95)),
                    ("p99", quantile(|second| &second.latencies, 0.99)),
                ],
            ),
        ),
        ("connections", plot("Open connections", "count", None, vec![("open", mean(|second| second.open as f64))])),
        (
            "rate",
            plot(
                "Viewers' requests",
                "a second",
                None,
                vec![
                    ("answered", mean(|second| second.latencies.len() as f64)),
                    ("errors", mean(|second| second.errors as f64)),
                ],
            ),
        ),
        ("hits", plot("Hits", "% of viewers' requests", None, vec![("hits", share(|second| second.ways[0]))])),
        (
            "origin",
            plot(
                "Reached origin",
                "% of viewers' requests",
                Some(ORIGIN_PERCENT_MAX),
                vec![("reached origin", share(|second| second.origin))],
            ),
        ),
        (
            "writes",
            plot(
                "Editors' writes",
                "ms",
                Some(WRITES_P95_MS_MAX),
                vec![("p50", quantile(|second| &second.writes, 0.5)), ("most", quantile(|second| &second.writes, 1.0))],
            ),
        ),
    ]
}
