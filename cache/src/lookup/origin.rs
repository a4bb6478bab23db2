//! Asking origin, and what its answer means: stored, confirmed, refused, or replaced by what is stored.
use super::assess::Use;
use super::{Again, Answer, Failure, Fetch, Lookup, Request, State, Step, Tier};
use crate::conditional::{
    head_speaks_of, is_not_modified, not_modified_speaks_of, strongly_equal, update_stored, validators,
};
use crate::engine::{Engine, LogOwner, StorePlan};
use crate::entry::{Entry, LocalTime, Stamp, part_key, surrogate_keys, viewer_of};
use crate::fields::Fields;
use crate::phase::{CacheStatus, Phase, Reason};
use crate::policy::{ResponseHead, check_storable, fields_to_store, has_explicit_freshness};
use crate::range::{ContentRange, OF_ONE_MESSAGE};
use crate::vary::{content_language_key, selecting_fields, variant_key};
use crate::view::{Cause, Verdict};
use kv_schemas::header::SURROGATE_AS_OF;
use kv_schemas::{AsOf, KeyHash};
use std::sync::Arc;

/// Troubles of the moment that have a status below 500 (RFC 9110 section 15.5.9, RFC 8470, RFC 6585): Request Timeout, Too Early,
/// Too Many Requests.
const PASSING_TROUBLES: [u16; 3] = [408, 425, 429];

impl<B: Clone + Default> Lookup<B> {
    pub(super) fn fetch(&mut self, engine: &mut Engine<B>) -> Step<B> {
        self.state = State::Fetch;
        self.sent_at = engine.asked_at();
        self.asked = engine.next_event();
        let candidate = self.best.as_ref().filter(|best| best.validate && !self.request.is_head);
        let mut fields = candidate.map(|best| validators(&best.entry.head.fields)).unwrap_or_default();
        self.sent_validators = !fields.is_empty();
        if self.best.is_none() {
            fields = self.range_fields();
        }
        let known = self.best.as_ref().map_or(&[][..], |best| &best.entry.keys);
        Step::Fetch(Fetch { fields, min_as_of: self.demand(engine, known) })
    }

    /// With nothing stored that could be confirmed: the client's range as it came, or the rest of what is held.
    fn range_fields(&self) -> Vec<(String, String)> {
        if let Some(beginning) = &self.beginning {
            // RFC 9111 section 3.3: "A cache MAY complete a stored incomplete response by making a subsequent range
            // request". Without a strong tag If-Range has nothing to hold, and only a whole answer is of use.
            let rest = ("range".to_string(), format!("bytes={}-", beginning.body_bytes));
            let etag = beginning.head.fields.get("etag").filter(|etag| strongly_equal(etag, etag));
            return [rest].into_iter().chain(etag.map(|etag| ("if-range".to_string(), etag.to_string()))).collect();
        }
        let client = |name: &str| Some((name.to_string(), self.request.fields.joined(name)?.into_owned()));
        match client("range").filter(|_| !self.request.is_head && !self.whole_only) {
            Some(range) => [range].into_iter().chain(client("if-range")).collect(),
            None => Vec::new(),
        }
    }

    /// Asks for the whole, without what was hoped to be of use; nor is it of use to the next one who asks for the whole.
    fn fetch_whole(&mut self, engine: &mut Engine<B>) -> Step<B> {
        if let Some(beginning) = self.beginning.take() {
            engine.forget(&beginning.key);
        }
        self.rest = None;
        self.fetch(engine)
    }

    /// What origin must at least have seen: the purges that made this fetch necessary, and what the client demands.
    pub(super) fn demand(&self, engine: &Engine<B>, keys: &[KeyHash]) -> Option<AsOf> {
        if engine.config.log_owner == LogOwner::Journal {
            return self.request.min_as_of.clone();
        }
        let purge = engine.view.at(engine.view.youngest_purge(keys)).filter(|as_of| as_of.seq > 0);
        match (&self.request.min_as_of, purge) {
            (Some(client), Some(purge)) if client.log_id == purge.log_id && client.seq < purge.seq => Some(purge),
            (Some(client), _) => Some(client.clone()),
            (None, purge) => purge.filter(|_| !keys.is_empty() || matches!(self.again, Again::Hard | Again::Soft)),
        }
    }

    /// Asks once more, for what comes, if what had come was older than a soft purge and nothing that is younger can be had: an
    /// origin whose primary fails has its replicas' pages shown, as it had before the purge was known.
    fn fetch_anyhow(&mut self, engine: &mut Engine<B>) -> Option<Step<B>> {
        if self.again != Again::Soft {
            return None;
        }
        self.again = Again::Anyhow;
        Some(self.fetch(engine))
    }

    pub(super) fn origin_answered(&mut self, engine: &mut Engine<B>, head: ResponseHead, now_ms: u64) -> Step<B> {
        if matches!(head.status, 500 | 502 | 503 | 504)
            && let Some(step) =
                self.stale_on_error(engine, Some(head.status), now_ms).or_else(|| self.fetch_anyhow(engine))
        {
            return step;
        }
        if head.status == 304 {
            let candidate = self.best.take().filter(|_| self.sent_validators);
            let Some(candidate) = candidate else {
                // Nothing was asked conditionally, so there is nothing a 304 could speak of.
                let title = "Origin answered 304 to an unconditional request";
                return self.fail(engine, Failure::Invalid(title), now_ms);
            };
            if !not_modified_speaks_of(&head.fields, &candidate.entry.head.fields) {
                return self.confirmed_for_once(engine, candidate.entry, now_ms);
            }
            return self.revalidated(engine, &candidate.entry, head, now_ms);
        }
        if let Some(beginning) = self.beginning.clone()
            && matches!(head.status, 206 | 416)
        {
            return self.rest_answered(engine, &beginning, head);
        }
        if head.status == 206 && !self.takes_as_stored(&head.fields) {
            return self.packed_part_answered(engine, now_ms);
        }
        let freshened = self.best.as_ref().filter(|best| {
            self.request.is_head
                && head.status == 200
                && best.validate
                && head_speaks_of(&head.fields, &best.entry.head.fields, best.entry.body_bytes)
        });
        if let Some(old) = freshened.map(|best| Arc::clone(&best.entry)) {
            return self.revalidated(engine, &old, head, now_ms);
        }
        let keys = surrogate_keys(&self.request.key, &head.fields);
        let as_of = self.as_of(engine, &head.fields);
        if speaks_of_state(&head)
            && let Some(step) = self.check_state(engine, as_of.as_ref().ok(), keys.as_deref().unwrap_or(&[]), now_ms)
        {
            return step;
        }
        self.forward(engine, head, keys.ok(), as_of, now_ms)
    }

    /// The state an answer was read at; `Err` if it says so in a form that cannot be read.
    pub(super) fn as_of(&self, engine: &Engine<B>, fields: &Fields) -> Result<Option<AsOf>, Reason> {
        match (engine.config.log_owner, fields.get(SURROGATE_AS_OF)) {
            (LogOwner::Origin, Some(text)) => text.parse().map(Some).map_err(|_| Reason::BadSurrogate),
            _ => Ok(self.sent_at.clone()),
        }
    }

    /// Refuses an answer that is older than a hard purge of its keys or than what the client demands. Origin is
    /// asked once more, with the state it must have seen, if it was not told of that; then it is a failure. One that is older
    /// than a soft purge is asked for once more too, and no failure: which purges a page's keys have is not known before it has
    /// come, and a replica that lags knew nothing of the youngest.
    pub(super) fn check_state(
        &mut self,
        engine: &mut Engine<B>,
        as_of: Option<&Option<AsOf>>,
        keys: &[KeyHash],
        now_ms: u64,
    ) -> Option<Step<B>> {
        let as_of = as_of.and_then(Option::as_ref);
        let verdict = engine.view.judge(as_of, keys);
        let purged = match verdict {
            Verdict::Hard(Cause::Purged | Cause::Floor) => true,
            // Where origin numbers, the answer may be of a log that is yet to be heard of. Of a journal's own it was what was known
            // when origin was asked, and another has begun since: a log begins by purging everything.
            Verdict::Hard(Cause::OtherLog) => engine.config.log_owner == LogOwner::Journal,
            _ => false,
        };
        // What was learnt of after origin was asked is for whoever comes next.
        let knew_less = matches!((as_of, &self.sent_at), (Some(as_of), Some(sent_at)) if !as_of.covers(sent_at));
        // Of what is stored origin was told.
        let is_cold = self.best.is_none() && !self.sent_validators;
        let softly = self.again == Again::No
            && is_cold
            && knew_less
            && engine.config.log_owner == LogOwner::Origin
            && matches!(verdict, Verdict::Soft(Cause::Purged | Cause::Floor));
        let demanded = self.request.min_as_of.as_ref();
        let behind = demanded.is_some_and(|min| !as_of.is_some_and(|as_of| as_of.covers(min)));
        if !purged && !behind && !softly {
            return None;
        }
        let newest = engine.asked_at();
        // What the client demands it was told the first time. Where it knows of no states, the view's own may have come to that.
        let reached = |as_of: &Option<AsOf>| matches!((as_of, demanded), (Some(as_of), Some(min)) if as_of.covers(min));
        let helps = purged || softly || (!reached(&self.sent_at) && reached(&newest));
        if self.again == Again::Hard || !helps {
            self.note(Reason::OriginBehind);
            return Some(self.fail(engine, Failure::Behind, now_ms));
        }
        self.again = if purged || behind { Again::Hard } else { Again::Soft };
        // It may have been learnt of while the rest of a body was read.
        self.state = State::Fetch;
        self.best = None;
        self.sent_validators = false;
        self.sent_at = newest;
        self.asked = engine.next_event();
        let min_as_of = self.demand(engine, keys);
        let fields = self.range_fields();
        Some(Step::Fetch(Fetch { fields, min_as_of }))
    }

    /// RFC 9111 section 4.3.4: origin confirmed what is stored, and its state moves forward without a body.
    pub(super) fn revalidated(
        &mut self,
        engine: &mut Engine<B>,
        old: &Arc<Entry<B>>,
        update: ResponseHead,
        now_ms: u64,
    ) -> Step<B> {
        let as_of = self.as_of(engine, &update.fields);
        let answered = update.status;
        let fields = update_stored(&old.head.fields, &update.fields);
        // With keys that cannot be read nothing could purge it: it is not kept, and judged by those it is known by.
        let keys = surrogate_keys(&old.key, &fields).ok();
        let known = keys.as_ref().unwrap_or(&old.keys).clone();
        if let Some(step) = self.check_state(engine, as_of.as_ref().ok(), &known, now_ms) {
            return step;
        }
        let head = ResponseHead { status: old.head.status, fields, ..update };
        // Section 4.1: a stored answer is for requests with the same selecting fields. Where these are others now, what
        // was confirmed is for requests like this one, and no longer for all that its old key stood for.
        let is_moved = selecting_fields(&head.fields) != selecting_fields(&old.head.fields);
        if is_moved {
            engine.forget(&old.key);
        }
        let mut behind = self.behind(engine, now_ms);
        let (entry, stored) = match plan(engine, &self.request.of_the_whole(), &head, keys, as_of.clone(), self.asked) {
            Ok(plan) => {
                let plan = StorePlan { ticket: self.ticket.take(), ..plan };
                let entry = engine.complete(plan, old.body.clone(), old.body_bytes).entry;
                // The tiers below know the body already, and whoever finds there what has to be validated at each use asks
                // origin anyway: a write a request would be for nothing. Moved, it needs a marker to be found by, which
                // they get with a whole answer only; what they hold is asked about again by whoever finds it.
                if entry.policy.is_fresh(now_ms) && !entry.policy.no_cache && !is_moved {
                    behind.write = vec![Tier::Colo, Tier::Kv];
                }
                (entry, Ok(()))
            }
            Err(reason) => {
                self.end_unstored(engine, answered, now_ms);
                let confirmed = Some(LocalTime { event: self.asked, at_ms: head.request_time_ms });
                let stamp = Stamp { key: old.key.clone(), as_of: as_of.ok().flatten(), keys: known };
                let entry = Entry::new(stamp, head, engine.config.rules, old.body.clone(), old.body_bytes);
                // Kept by nobody: its viewer may see what the 304 brought for him alone.
                (Arc::new(Entry { origin_confirmed: confirmed, ..entry }), Err(reason))
            }
        };
        let status = CacheStatus {
            reason: Some(self.reason),
            fwd_status: Some(answered),
            stored: Some(stored),
            ..CacheStatus::new(Phase::Revalidated)
        };
        self.answer_stored(entry, status, behind, now_ms)
    }

    /// Origin says that what is stored may be used, and speaks of another answer: it is used for this request, and
    /// nothing is learnt for the next.
    fn confirmed_for_once(&mut self, engine: &mut Engine<B>, entry: Arc<Entry<B>>, now_ms: u64) -> Step<B> {
        if let Use::Dead { .. } = self.assess(engine, &entry, now_ms) {
            // Purged meanwhile: nothing is left to confirm.
            return self.fetch_whole(engine);
        }
        // Whoever waits would get as little.
        self.end_unstored(engine, 304, now_ms);
        let status = CacheStatus {
            reason: Some(self.reason),
            fwd_status: Some(304),
            stored: Some(Err(Reason::OtherVariant)),
            ..CacheStatus::new(Phase::Revalidated)
        };
        let behind = self.behind(engine, now_ms);
        self.answer_stored(entry, status, behind, now_ms)
    }

    pub(super) fn forward(
        &mut self,
        engine: &mut Engine<B>,
        head: ResponseHead,
        keys: Option<Vec<KeyHash>>,
        as_of: Result<Option<AsOf>, Reason>,
        now_ms: u64,
    ) -> Step<B> {
        let phase = match self.reason {
            Reason::Uncacheable => Phase::Bypass,
            Reason::NotStored | Reason::OtherVariant | Reason::Part => Phase::Miss,
            _ => Phase::Expired,
        };
        let planned = self.plan(engine, &head, keys, as_of);
        let status = CacheStatus {
            reason: Some(self.reason),
            fwd_status: Some(head.status),
            stored: Some(planned.as_ref().map(|_| ()).map_err(|reason| *reason)),
            collapsed: self.collapsed,
            ..CacheStatus::new(phase)
        };
        let store = match planned {
            Ok(plan) => Some(Box::new(plan)),
            Err(_) => {
                self.end_unstored(engine, head.status, now_ms);
                None
            }
        };
        self.state = State::Done;
        // RFC 9110 section 13.2.2: a range counts only where the client does not have the answer already.
        let not_modified = matches!(head.status, 200 | 206) && is_not_modified(&self.request.fields, &head);
        Step::Answer(Box::new(Answer::Forwarded {
            head,
            not_modified,
            status,
            store,
            behind: self.behind(engine, now_ms),
        }))
    }

    /// Nothing comes of the fill. An origin that fails, or wants to be asked less, is not the same as an uncacheable answer: only
    /// for the latter others need not wait.
    pub(super) fn end_unstored(&mut self, engine: &mut Engine<B>, status: u16, now_ms: u64) {
        let Some(ticket) = self.ticket.take() else { return };
        if status >= 500 || PASSING_TROUBLES.contains(&status) {
            engine.fills.release(&ticket);
        } else {
            engine.fills.pass(&ticket, now_ms, engine.config.pass_ms);
        }
    }

    pub(super) fn plan(
        &mut self,
        engine: &Engine<B>,
        head: &ResponseHead,
        keys: Option<Vec<KeyHash>>,
        as_of: Result<Option<AsOf>, Reason>,
    ) -> Result<StorePlan, Reason> {
        if self.request.is_head {
            return Err(Reason::Method);
        }
        let mut plan = plan(engine, &self.request, head, keys, as_of, self.asked)?;
        plan.ticket = self.ticket.take();
        Ok(plan)
    }

    /// Origin is asked for gzip by everybody, and has cut the client's range out of packed bytes, which this client would
    /// get unpacked. RFC 9110 section 14.2: "A server MAY ignore the Range header field", so the whole is asked for. Not
    /// before this: little of what is asked for in ranges is packed, and whoever asks (media players, `fetch` with a
    /// `Range`) takes no coding as a rule.
    fn packed_part_answered(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Step<B> {
        if self.whole_only {
            let title = "Origin answered with a part of what was asked for whole";
            return self.fail(engine, Failure::Invalid(title), now_ms);
        }
        self.whole_only = true;
        self.fetch_whole(engine)
    }

    /// Origin's answer to the request for the rest. RFC 9110 section 15.3.7.3: parts are combined only "if they all
    /// share the same strong validator".
    fn rest_answered(&mut self, engine: &mut Engine<B>, beginning: &Arc<Entry<B>>, head: ResponseHead) -> Step<B> {
        let etag = |fields: &Fields| fields.get("etag").map(str::to_string).unwrap_or_default();
        let is_same = strongly_equal(&etag(&beginning.head.fields), &etag(&head.fields));
        let whole = beginning.part().and_then(|part| part.complete);
        let rest = ContentRange::of(&head.fields).filter(|rest| {
            head.status == 206
                && rest.first == beginning.body_bytes
                && rest.complete == whole
                && rest.complete.is_some_and(|complete| complete == rest.last.saturating_add(1))
        });
        let bytes = whole.unwrap_or(u64::MAX);
        if rest.is_none() || !is_same || bytes > engine.config.body_bytes_max {
            return self.fetch_whole(engine);
        }
        self.state = State::Join;
        self.rest = Some(head);
        Step::Join { stored: Arc::clone(beginning), rest_bytes_max: bytes.saturating_sub(beginning.body_bytes) }
    }

    /// The two parts are one body now: it is stored and answered as what it is, a 200.
    pub(super) fn joined(&mut self, engine: &mut Engine<B>, body: Option<(B, u64)>, now_ms: u64) -> Step<B> {
        let (beginning, rest) = (self.beginning.take(), self.rest.take());
        let (Some(beginning), Some(rest), Some((body, bytes))) = (beginning, rest, body) else {
            return self.fetch_whole(engine);
        };
        if beginning.part().and_then(|part| part.complete) != Some(bytes) {
            return self.fetch_whole(engine);
        }
        // RFC 9111 section 3.4: "it MUST [...] use other header fields provided in the new response [...] to replace
        // all instances of the corresponding header fields in the stored response."
        let mut fields = update_stored(&beginning.head.fields, &rest.fields);
        fields.retain(|name| name != "content-range" && !OF_ONE_MESSAGE.contains(&name));
        let keys = surrogate_keys(&self.request.key, &fields);
        let as_of = self.as_of(engine, &rest.fields);
        if let Some(step) = self.check_state(engine, as_of.as_ref().ok(), keys.as_deref().unwrap_or(&[]), now_ms) {
            return step;
        }
        let head = ResponseHead { status: 200, fields, ..rest };
        let mut status =
            CacheStatus { reason: Some(Reason::Part), fwd_status: Some(206), ..CacheStatus::new(Phase::Miss) };
        let mut behind = self.behind(engine, now_ms);
        // Of no use any more, whatever becomes of the whole.
        engine.forget(&part_key(&self.request.key));
        let entry = match self.plan(engine, &head, keys.ok(), as_of) {
            Ok(plan) => {
                status.stored = Some(Ok(()));
                behind.write = vec![Tier::Colo, Tier::Kv];
                engine.complete(plan, body, bytes).entry
            }
            Err(reason) => {
                self.end_unstored(engine, head.status, now_ms);
                status.stored = Some(Err(reason));
                let stamp = Stamp { key: self.request.key.clone(), as_of: None, keys: Vec::new() };
                Arc::new(Entry::new(stamp, head, engine.config.rules, body, bytes))
            }
        };
        self.answer_stored(entry, status, behind, now_ms)
    }

    pub(super) fn origin_failed(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Step<B> {
        if let Some(step) = self.stale_on_error(engine, None, now_ms).or_else(|| self.fetch_anyhow(engine)) {
            return step;
        }
        self.note(Reason::OriginFailed);
        self.fail(engine, Failure::Unreachable, now_ms)
    }

    /// RFC 5861 section 4: what is stored, if origin fails and the window allows it.
    pub(super) fn stale_on_error(
        &mut self,
        engine: &mut Engine<B>,
        status: Option<u16>,
        now_ms: u64,
    ) -> Option<Step<B>> {
        let candidate = self.best.as_ref().filter(|best| best.on_error)?;
        let entry = Arc::clone(&candidate.entry);
        // A purge may have been learnt of while origin was asked.
        let Use::Stale { reason, on_error: true, .. } = self.assess(engine, &entry, now_ms) else { return None };
        self.give_back(engine);
        let status = CacheStatus { reason: Some(reason), fwd_status: status, ..CacheStatus::new(Phase::StaleError) };
        let behind = self.behind(engine, now_ms);
        Some(self.answer_stored(entry, status, behind, now_ms))
    }
}

/// RFC 9111 section 3: how an answer is to be stored, or why it is not.
fn plan<B>(
    engine: &Engine<B>,
    request: &Request,
    head: &ResponseHead,
    keys: Option<Vec<KeyHash>>,
    as_of: Result<Option<AsOf>, Reason>,
    asked: u64,
) -> Result<StorePlan, Reason> {
    check_storable(&request.fields, request.directives.no_store, head, engine.config.rules)?;
    let keys = keys.ok_or(Reason::BadSurrogate)?;
    let as_of = as_of?;
    let mut varies_on = selecting_fields(&head.fields).ok_or(Reason::Vary)?;
    if viewer_of(&request.key).is_some() {
        // Whose it is stands in the key; a marker beside each would take the place of another viewer's.
        varies_on.retain(|name| name != "authorization");
    }
    let length = head.fields.get("content-length").and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|bytes| bytes > engine.config.body_bytes_max) {
        return Err(Reason::TooLarge);
    }
    let key = if head.status == 206 {
        // Section 3.3 forbids to keep a part without understanding its Content-Range. Nor are parts kept for each
        // variant: a URL has one.
        let is_part = ContentRange::of(&head.fields).is_some() && has_explicit_freshness(head);
        if !is_part || !varies_on.is_empty() {
            return Err(Reason::Range);
        }
        part_key(&request.key)
    } else if request.fields.has("range") && head.status != 200 {
        // An error about a range says nothing of the whole.
        return Err(Reason::Range);
    } else {
        variant_key(&request.key, &varies_on, &request.fields)
    };
    let language_key = content_language_key(&request.key, &varies_on, &request.fields, &head.fields);
    // Section 3.1. Of a merged head, too: what a stored answer keeps from others it keeps whoever brings it.
    let head = ResponseHead { fields: fields_to_store(&head.fields), ..head.clone() };
    Ok(StorePlan {
        stamp: Stamp { key, as_of, keys },
        primary: request.key.clone(),
        head,
        varies_on,
        language_key,
        ticket: None,
        asked,
        body_bytes_max: engine.config.body_bytes_max,
    })
}

/// RFC 9110 section 9.3.3: an answer to a POST may be stored "when they include explicit freshness information [...] and
/// a Content-Location header field that has the same value as the POST's target URI", and answers later GETs.
///
/// `as_of` is the state after the purge the POST itself caused; the caller knows that no other purge lies between it
/// and the state the POST was sent at. `asked`: the event of sending it ([`Engine::next_event`]).
pub fn plan_written<B>(
    engine: &Engine<B>,
    request: &Request,
    head: &ResponseHead,
    as_of: AsOf,
    asked: u64,
) -> Result<StorePlan, Reason> {
    if !matches!(head.status, 200..=299) || head.status == 206 || !has_explicit_freshness(head) {
        return Err(Reason::Method);
    }
    let keys = surrogate_keys(&request.key, &head.fields).ok();
    plan(engine, request, head, keys, Ok(Some(as_of)), asked)
}

/// Whether an answer says how something is at origin. What refuses the request, or says that origin is in trouble, is no older
/// than a purge, and stands as it is; unless origin says at which state it was made.
fn speaks_of_state(head: &ResponseHead) -> bool {
    head.status < 400 || matches!(head.status, 404 | 410) || head.fields.has(SURROGATE_AS_OF)
}
