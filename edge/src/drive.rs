//! Drives lookups: performs each step the engine asks for and feeds the result back; then does what is to be done
//! behind the answer. It decides nothing about freshness.
use crate::held::Share;
use crate::hits::KvRead;
use crate::isolate::{self, Body, Isolate, now_ms};
use crate::journal_client::Neighbours;
use crate::js::{self, Patience, ReadError, Whole};
use crate::origin_fetch::{self, OriginRequest};
use crate::settings::{Mode, Settings};
use crate::{colo_cache, entry_bytes, invalidate, journal_client, kv, viewer};
use futures_channel::oneshot;
use gateway_rules::trace;
use js_sys::Uint8Array;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;
use surrogate_cache::engine::{StorePlan, Stored};
use surrogate_cache::entry::{about_of, target_of};
use surrogate_cache::lookup::{Behind, Failure, Tier};
use surrogate_cache::{Answer, Entry, Event, Lookup, Reason, Step};
use worker::{Context, Delay, Env};

/// A body that brings nothing for so long, or takes so long in all, is not stored. When a client has left the platform lets work go
/// on for 30 s, and what is cut off then waits for ever, with all it has read.
const BODY_PATIENCE: Patience = Patience { idle_ms: 15_000, total_ms: 25_000 };
/// The rest of a body is waited for by its client.
const JOIN_PATIENCE: Patience = Patience { idle_ms: 15_000, total_ms: u64::MAX };
/// How often a location without viewers tries to say what it has.
const CONFIRM_TRIES: u32 = 5;

/// One request and what it may use of the platform. Cheap to clone into work that goes on behind the answer.
#[derive(Clone)]
pub struct Call {
    pub request: web_sys::Request,
    pub env: Env,
    pub context: Rc<Context>,
    pub settings: Rc<Settings>,
    pub location: Rc<str>,
    /// Where it stands in its trace.
    pub trace: trace::Context,
    /// It was begun before (`hits::begin`): what KV had, for who is the first to look something up.
    pub begun: Option<Rc<Cell<KvRead>>>,
}

impl Call {
    /// Goes on with this after the answer has gone out, or its client has left. Boxed: what the platform needs around a
    /// future is compiled once, not for each.
    pub fn behind(&self, work: impl Future<Output = ()> + 'static) {
        let work: Pin<Box<dyn Future<Output = ()>>> = Box::pin(work);
        self.context.wait_until(work);
    }

    /// Brings the view up to the journal behind the answer, unless that is under way.
    pub fn sync_behind(&self, neighbours: Neighbours) {
        if isolate::with(|isolate| isolate.engine.claim_sync(now_ms())) == Some(true) {
            self.sync_claimed(neighbours);
        }
    }

    fn sync_claimed(&self, neighbours: Neighbours) {
        let call = self.clone();
        self.behind(async move {
            let known = isolate::with(|isolate| isolate.engine.view.newest());
            call.sync(neighbours).await;
            let lease_ms = isolate::with(|isolate| {
                (Some(isolate.engine.view.newest()) != known).then_some(isolate.engine.config.lease_ms)
            });
            if let Some(lease_ms) = lease_ms.flatten() {
                // What is wanted most is refreshed by those who want it meanwhile, and what origin has warmed is in KV by then:
                // of what is left, origin is asked.
                Delay::from(Duration::from_millis(lease_ms / 2)).await;
                refresh_ahead(&call).await;
            }
        });
    }

    /// The caller holds the engine's sync claim.
    pub async fn sync(&self, neighbours: Neighbours) {
        let began_ms = now_ms();
        if journal_client::sync(self, neighbours).await {
            self.confirm_later();
        }
        invalidate::pay_behind(self, began_ms);
    }

    /// A location says what it has when it next asks. If nobody comes meanwhile, it asks once more for that alone, so that
    /// the receipt of a purge does not wait for a viewer. What it hears then is confirmed in its turn.
    fn confirm_later(&self) {
        let call = self.clone();
        let said = isolate::with(|isolate| (isolate.engine.view.confirmed_ms(), isolate.engine.config.lease_ms));
        let Some((confirmed_ms, lease_ms)) = said else { return };
        self.behind(async move {
            for _ in 0..CONFIRM_TRIES {
                Delay::from(Duration::from_millis(lease_ms)).await;
                let asked_since = |isolate: &mut Isolate| isolate.engine.view.confirmed_ms() != confirmed_ms;
                let is_due = |isolate: &mut Isolate| !asked_since(isolate) && isolate.engine.claim_sync(now_ms());
                if isolate::with(is_due) == Some(true) {
                    call.sync(Neighbours::Ignored).await;
                }
                if isolate::with(asked_since) != Some(false) {
                    return;
                }
            }
        });
    }
}

/// How many entries are refreshed when purges were learnt of.
const AHEAD_MAX: usize = 16;

/// Refreshes what memory holds of softly purged pages that were asked for again, so that the next viewer need not be the one who gets the old
/// one. Only for the API's shared documents: they depend on nothing but their key.
async fn refresh_ahead(call: &Call) {
    if call.settings.mode != Mode::Gateway {
        return;
    }
    let entries = isolate::with(|isolate| isolate.engine.softly_purged(AHEAD_MAX));
    for entry in entries.unwrap_or_default() {
        // Marked when its turn comes, not before: who finds a mark waits for its fetch.
        let lookup = isolate::with(|isolate| Lookup::ahead(&mut isolate.engine, &entry, now_ms()));
        let Some(lookup) = lookup.flatten() else { continue };
        // The very dimensions the page is stored under.
        let (target, about) = (target_of(lookup.key()), about_of(lookup.key()));
        let origin = OriginRequest::of(call, target, false, viewer::fields_of(about).collect()).ahead();
        refresh_behind(call, &origin, lookup).await;
    }
}

/// How a lookup ended, with origin's answer if there is one to pass on.
pub struct Outcome {
    pub answer: Answer<Body>,
    pub response: Option<web_sys::Response>,
    /// When it is worth asking again, if the answer is that the origin is left alone.
    pub retry_after_s: Option<u64>,
}

impl Outcome {
    pub fn new(answer: Answer<Body>, response: Option<web_sys::Response>) -> Self {
        Self { answer, response, retry_after_s: None }
    }

    /// What the engine knows as a failed fetch, told by its cause.
    fn explained(mut self, cause: Option<js::CallError>) -> Self {
        if let (Answer::Failed { failure, .. }, Some(cause)) = (&mut self.answer, cause)
            && *failure == Failure::Unreachable
        {
            *failure = cause.failure();
            self.retry_after_s = cause.retry_after_s();
        }
        self
    }
}

/// Runs a lookup to its answer. A hit in memory needs no promise; everything else goes on to its end, so that whoever
/// waits for the fill gets it.
pub async fn answer(call: &Call, origin: &OriginRequest, lookup: Lookup<Body>) -> Option<Outcome> {
    let mut lookup = match call.begun.as_ref().and_then(|read| read.take()) {
        Some(found) => lookup.with_kv(found.map(|entry| *entry)),
        None => lookup,
    };
    let step = isolate::with(|isolate| lookup.step(&mut isolate.engine, Event::Start, now_ms()))?;
    let step = match step {
        Step::Answer(answer) => return Some(Outcome::new(*answer, None)),
        other => other,
    };
    let (call_, origin) = (call.clone(), origin.clone());
    to_its_end(call, Box::pin(async move { run(&call_, &origin, &mut lookup, step).await })).await
}

/// Works for a client, and goes on if the client leaves.
pub async fn to_its_end(call: &Call, work: Pin<Box<dyn Future<Output = Option<Outcome>>>>) -> Option<Outcome> {
    let (send, receive) = oneshot::channel();
    let call_ = call.clone();
    call.behind(async move {
        if let Some(outcome) = work.await {
            // If nobody listens any more, the client has left; what it asked for is stored all the same.
            if let Err(mut unheard) = send.send(outcome) {
                finish_unheard(&call_, &mut unheard).await;
            }
        }
    });
    receive.await.ok()
}

async fn run(call: &Call, origin: &OriginRequest, lookup: &mut Lookup<Body>, first: Step<Body>) -> Option<Outcome> {
    let rules = call.settings.engine.rules;
    let mut step = first;
    let mut response: Option<web_sys::Response> = None;
    let mut failure = None;
    loop {
        let event = match step {
            Step::Sync { shared } => {
                call.sync(if shared { Neighbours::Heard } else { Neighbours::Ignored }).await;
                Event::Synced
            }
            Step::Wait { ms } => {
                Delay::from(Duration::from_millis(ms)).await;
                Event::Waited
            }
            Step::Read { tier, key } => Event::Read(match tier {
                Tier::Kv => kv::read(&call.env, &key, rules).await,
                Tier::Colo | Tier::Memory => colo_cache::read(&key, rules).await,
            }),
            Step::Join { stored, rest_bytes_max } => {
                let rest = response.take().and_then(|response| response.body());
                Event::Joined(join(&stored.body, rest, rest_bytes_max).await)
            }
            Step::Fetch(fetch) => {
                discard(response.take().and_then(|response| response.body()));
                match origin_fetch::send(&call.settings, origin, &fetch).await {
                    Ok((head, answer)) => {
                        response = Some(answer);
                        Event::Origin(head)
                    }
                    Err(error) => {
                        worker::console_warn!("{}: {}", origin.named(call), error.text());
                        failure = Some(error);
                        Event::OriginFailed
                    }
                }
            }
            Step::Answer(answer) => {
                if !matches!(*answer, Answer::Forwarded { .. }) {
                    discard(response.take().and_then(|response| response.body()));
                }
                return Some(Outcome::new(*answer, response).explained(failure));
            }
        };
        step = isolate::with(|isolate| lookup.step(&mut isolate.engine, event, now_ms()))?;
    }
}

/// The stored beginning of a body and the rest of it, as one.
async fn join(beginning: &Body, rest: Option<web_sys::ReadableStream>, bytes_max: u64) -> Option<(Body, u64)> {
    let rest = js::read_all(&rest?, bytes_max, JOIN_PATIENCE, Share::Fills).await.ok()?.bytes;
    let whole = Uint8Array::new_with_length(beginning.bytes.length().checked_add(rest.length())?);
    whole.set(&beginning.bytes, 0);
    whole.set(&rest, beginning.bytes.length());
    let bytes = u64::from(whole.length());
    Some((Body::new(whole), bytes))
}

/// Lets go of a body nobody reads: unread, it would hold one of the request's few connections.
fn discard(body: Option<web_sys::ReadableStream>) {
    if let Some(body) = body {
        let _ = body.cancel();
    }
}

/// The body of a forwarded answer: one branch for the client, and one that is stored if the answer may be.
pub fn split_for_store(
    call: &Call,
    origin: &OriginRequest,
    response: &web_sys::Response,
    store: Option<Box<StorePlan>>,
    wanted: bool,
    behind: Behind<Body>,
) -> Option<web_sys::ReadableStream> {
    let Some(plan) = store else {
        do_behind(call, origin, behind, None);
        if !wanted {
            discard(response.body());
            return None;
        }
        return response.body();
    };
    let (for_client, for_store) = match response.body() {
        None => (None, None),
        Some(body) if !wanted => (None, Some(body)),
        Some(body) => {
            let branches = body.tee();
            let branch = |index: u32| wasm_bindgen::JsCast::unchecked_into(branches.get(index));
            (Some(branch(0)), Some(branch(1)))
        }
    };
    let (call, origin) = (call.clone(), origin.clone());
    let headers = response.headers();
    call.clone().behind(async move {
        // Claimed, and wanted by those who come meanwhile: not after a body that may take long.
        if behind.sync {
            call.sync_claimed(Neighbours::Awaited);
        }
        store_body(&call, *plan, for_store, headers, behind.seen_in_kv.as_deref()).await;
        perform(&call, &origin, Behind { seen_in_kv: None, sync: false, ..behind }, None).await;
    });
    for_client
}

/// Reads a body to its end and stores the entry in every tier. A body that breaks off or is too large is dropped.
async fn store_body(
    call: &Call,
    plan: StorePlan,
    body: Option<web_sys::ReadableStream>,
    headers: web_sys::Headers,
    seen_in_kv: Option<&Entry<Body>>,
) {
    let read = match body {
        None => Ok(Whole::none()),
        Some(stream) => js::read_all(&stream, plan.body_bytes_max, BODY_PATIENCE, Share::Fills).await,
    };
    let bytes = read.as_ref().map_or(0, |body| u64::from(body.bytes.length()));
    // workerd breaks such a stream off by itself; a truncated page for everybody is too much to rely on that.
    let declared = headers.get("content-length").ok().flatten();
    let is_short = declared.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length != bytes);
    let read = read.and_then(|body| if is_short { Err(ReadError::Broken) } else { Ok(body) });
    // Kept until the tiers have their copies.
    let stored = isolate::with(|isolate| match &read {
        Ok(body) => Some(isolate.engine.complete(plan, Body::new(body.bytes.clone()), bytes)),
        Err(error) => {
            // Of neither will there be anything soon: nobody is to wait for it.
            let is_large = matches!(error, ReadError::TooLarge | ReadError::Crowded);
            let why = if is_large { Reason::TooLarge } else { Reason::OriginFailed };
            isolate.engine.abandon(&plan, why, now_ms());
            None
        }
    });
    if let Some(Some(stored)) = stored {
        write_tiers(call, &stored, &[Tier::Colo, Tier::Kv], seen_in_kv).await;
    }
}

async fn write_tiers(call: &Call, stored: &Stored<Body>, tiers: &[Tier], seen_in_kv: Option<&Entry<Body>>) {
    let retention_ms_max = call.settings.engine.retention_ms_max;
    for entry in stored.for_tiers() {
        let Some(value) = entry_bytes::encode(entry) else { continue };
        let kept_ms = entry.policy.retention_ms().min(retention_ms_max);
        if tiers.contains(&Tier::Colo) {
            colo_cache::write(&entry.key, &value, kept_ms).await;
        }
        if tiers.contains(&Tier::Kv) && seen_in_kv.is_none_or(|seen| entry.is_newer_than(seen)) {
            kv::write(&call.env, &entry.key, &value, kept_ms).await;
        }
    }
}

/// Does what is to be done behind an answer, after it has gone out.
pub fn do_behind(call: &Call, origin: &OriginRequest, behind: Behind<Body>, answered: Option<Rc<Stored<Body>>>) {
    let idle = behind.refresh.is_none() && !behind.sync && (behind.write.is_empty() || answered.is_none());
    if idle {
        return;
    }
    let (call, origin) = (call.clone(), origin.clone());
    call.clone().behind(async move { perform(&call, &origin, behind, answered).await });
}

async fn perform(call: &Call, origin: &OriginRequest, behind: Behind<Body>, answered: Option<Rc<Stored<Body>>>) {
    if behind.sync {
        call.sync_claimed(Neighbours::Awaited);
    }
    if let Some(stored) = answered {
        write_tiers(call, &stored, &behind.write, behind.seen_in_kv.as_deref()).await;
    }
    if let Some(refresh) = behind.refresh {
        refresh_behind(call, origin, refresh).await;
    }
}

async fn refresh_behind(call: &Call, origin: &OriginRequest, mut refresh: Lookup<Body>) {
    let first = isolate::with(|isolate| refresh.step(&mut isolate.engine, Event::Start, now_ms()));
    let Some(first) = first else { return };
    let origin = OriginRequest { is_head: false, ..origin.clone() };
    if let Some(mut outcome) = run(call, &origin, &mut refresh, first).await {
        finish_unheard(call, &mut outcome).await;
    }
}

/// Ends a lookup whose answer nobody reads: its body goes to the tiers all the same.
pub async fn finish_unheard(call: &Call, outcome: &mut Outcome) {
    let mut behind = std::mem::take(outcome.answer.behind());
    if behind.sync {
        call.sync_claimed(Neighbours::Awaited);
    }
    // A refresh's own refresh does not exist; a client's that left is not worth another fetch. Nobody is to wait for it.
    if let Some(mut refresh) = behind.refresh.take() {
        isolate::with(|isolate| refresh.cancel(&mut isolate.engine));
    }
    match &mut outcome.answer {
        Answer::Forwarded { store, .. } => {
            let Some(response) = outcome.response.take() else { return };
            let Some(plan) = store.take() else {
                discard(response.body());
                return;
            };
            store_body(call, *plan, response.body(), response.headers(), behind.seen_in_kv.as_deref()).await;
        }
        Answer::Stored { entry, .. } => {
            let stored = Stored { entry: entry.clone(), marker: None };
            write_tiers(call, &stored, &behind.write, behind.seen_in_kv.as_deref()).await;
        }
        Answer::Failed { .. } => {}
    }
}
