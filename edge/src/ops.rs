//! `/__edge/*`: health for load balancers, metrics for operators, and the purge intake.
use crate::drive::Call;
use crate::exposition::Exposition;
use crate::isolate::{self, now_ms};
use crate::{held, purge_intake};
use crate::{respond, upstream, warm};
use kv_schemas::as_of::parse_seq;
use kv_schemas::claims::Scope;
use kv_schemas::{LogId, Problem, Seq};
use serde::Serialize;
use surrogate_cache::Phase;
use wasm_bindgen::JsValue;

/// What lies below `/__edge/`.
enum Page<'a> {
    Health,
    Metrics,
    Warm,
    Purges,
    DryRun,
    /// Its path below that of purges.
    Receipt(&'a str),
    Panic,
}

impl<'a> Page<'a> {
    fn of(call: &Call, path: &'a str) -> Option<Self> {
        let receipt = || path.strip_prefix("purges").filter(|rest| rest.strip_prefix('/').is_some_and(is_seq));
        match path {
            "health" => Some(Self::Health),
            "metrics" => Some(Self::Metrics),
            "warm" => Some(Self::Warm),
            "purges" => Some(Self::Purges),
            "purges/dry-run" => Some(Self::DryRun),
            "panic" if call.settings.panics => Some(Self::Panic),
            _ => receipt().map(Self::Receipt),
        }
    }

    fn allowed(&self) -> &'static str {
        match self {
            Self::Health | Self::Metrics | Self::Panic => "GET, HEAD",
            Self::Receipt(_) => "GET",
            Self::Purges => "GET, POST",
            Self::Warm | Self::DryRun => "POST",
        }
    }
}

fn is_seq(text: &str) -> bool {
    parse_seq(text).is_ok()
}

pub async fn handle(call: &Call, path: &str) -> Result<web_sys::Response, JsValue> {
    let Some(page) = Page::of(call, path) else {
        return respond::problem(&Problem::new(404, "not-found", "The edge has no such page"), None);
    };
    let (method, allowed) = (call.request.method(), page.allowed());
    if !allowed.split(", ").any(|one| one == method) {
        let title = "This page of the edge does not take the method";
        let refusal = respond::problem(&Problem::new(405, "method-not-allowed", title), None)?;
        refusal.headers().set("allow", allowed)?;
        return Ok(refusal);
    }
    answer(call, &page, &method).await.or_else(|problem| respond::problem(&problem, None))
}

async fn answer(call: &Call, page: &Page<'_>, method: &str) -> Result<web_sys::Response, Problem> {
    // What is asked for in the query, such as a dry run, would not be done.
    if !matches!(page, Page::Health) && call.request.url().split_once('?').is_some_and(|(_, query)| !query.is_empty()) {
        return Err(Problem::new(400, "query-invalid", "This page of the edge takes no parameters"));
    }
    match page {
        Page::Health => Ok(health(call)),
        #[allow(clippy::panic, reason = "the one that is asked for")]
        Page::Panic => panic!("a panic was asked for"),
        Page::Metrics => {
            purge_intake::authorize(call, &[Scope::Metrics]).await?;
            Ok(metrics(call))
        }
        Page::Warm => warm::handle(call).await,
        Page::Purges if method == "POST" => purge_intake::take(call).await,
        Page::Purges => purge_intake::ask(call, "/summary").await,
        Page::DryRun => purge_intake::dry_run(call).await,
        Page::Receipt(seq) => purge_intake::ask(call, &format!("/receipt{seq}")).await,
    }
}

#[derive(Serialize)]
struct Health<'a> {
    status: &'a str,
    location: &'a str,
    purge_view: Option<PurgeView>,
}

/// What this isolate knows of the purge log.
#[derive(Serialize)]
struct PurgeView {
    log_id: Option<LogId>,
    applied_seq: Seq,
    confirmed_age_ms: Option<u64>,
}

/// The isolate answers; how current its purge knowledge is stands beside it.
fn health(call: &Call) -> web_sys::Response {
    let view = isolate::with(|isolate| {
        let view = &isolate.engine.view;
        PurgeView {
            log_id: view.log_id().cloned(),
            applied_seq: view.applied(),
            confirmed_age_ms: view.confirmed_ms().map(|at_ms| now_ms().saturating_sub(at_ms)),
        }
    });
    let health = Health { status: "ok", location: &call.location, purge_view: view };
    let body = serde_json::to_string(&health).unwrap_or_default();
    respond::json(200, &body)
}

/// Counters are this isolate's own.
fn metrics(call: &Call) -> web_sys::Response {
    let text = isolate::with(|isolate| {
        let mut text = Exposition::of(isolate.number);
        text.metric("edge_answers_total");
        for (phase, count) in Phase::ALL.iter().zip(&isolate.answers) {
            text.series(&[("phase", phase.as_str())], *count);
        }
        text.metric("edge_answer_seconds");
        for (phase, durations) in Phase::ALL.iter().zip(&isolate.durations) {
            text.histogram(("phase", phase.as_str()), durations);
        }
        for (name, reasons) in [("edge_reasons_total", &isolate.reasons), ("edge_unstored_total", &isolate.unstored)] {
            text.metric(name);
            for (phase, reason, count) in reasons {
                text.series(&[("phase", phase.as_str()), ("reason", reason.as_str())], *count);
            }
        }
        text.metric("edge_journal_syncs_total");
        text.series(&[("by", "itself")], isolate.syncs_itself);
        text.series(&[("by", "neighbour")], isolate.syncs_neighbour);
        let engine = &isolate.engine;
        let (memory_bytes, memory_own_bytes) = engine.memory_bytes();
        for &(name, value) in &[
            ("edge_ready_hits_total", isolate.ready_hits),
            ("edge_purges_refused_total", isolate.purges_refused),
            ("edge_purges_owed", u64::try_from(isolate.owed.len()).unwrap_or(u64::MAX)),
            ("edge_held_bytes", held::bytes()),
            ("edge_memory_entries", u64::try_from(engine.memory_len()).unwrap_or(u64::MAX)),
            ("edge_memory_bytes", memory_bytes),
            ("edge_memory_own_bytes", memory_own_bytes),
            ("edge_view_keys", u64::try_from(engine.view.keys_len()).unwrap_or(u64::MAX)),
            ("edge_view_applied_seq", engine.view.applied()),
        ] {
            text.metric(name);
            text.series(&[], value);
        }
        text
    });
    let text = text.map(|mut text| {
        upstream::metrics(&call.settings.services, &mut text);
        text.into_text()
    });
    respond::plain(200, "text/plain; version=0.0.4", &text.unwrap_or_default())
}
