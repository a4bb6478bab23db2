//! Asking origin, and what its answer means: stored, confirmed, refused, or replaced by what is stored.
use super::assess::Use;
use super::{Answer, Fetch, Lookup, State, Step, Tier};
use crate::conditional::{is_not_modified, update_stored, validators};
use crate::engine::{Engine, LogOwner, StorePlan};
use crate::entry::{Entry, surrogate_keys};
use crate::fields::Fields;
use crate::phase::{CacheStatus, Phase, Reason};
use crate::policy::{ResponseHead, check_storable, fields_to_store};
use crate::vary::{selecting_fields, variant_key};
use crate::view::{Cause, Verdict};
use kv_schemas::header::SURROGATE_AS_OF;
use kv_schemas::{AsOf, KeyHash};
use std::sync::Arc;

impl<B: Clone> Lookup<B> {
    pub(super) fn fetch(&mut self, engine: &mut Engine<B>) -> Step<B> {
        self.state = State::Fetch;
        self.sent_at = engine.view.newest();
        let candidate = self.best.as_ref().filter(|best| best.validate && !self.request.is_head);
        let validators = candidate.map(|best| validators(&best.entry.head.fields)).unwrap_or_default();
        self.sent_validators = !validators.is_empty();
        let known = self.best.as_ref().map_or(&[][..], |best| &best.entry.keys);
        Step::Fetch(Fetch { validators, min_as_of: self.demand(engine, known) })
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
            (None, purge) => purge.filter(|_| !keys.is_empty() || self.asked_again),
        }
    }

    pub(super) fn origin_answered(&mut self, engine: &mut Engine<B>, head: ResponseHead, now_ms: u64) -> Step<B> {
        if matches!(head.status, 500 | 502 | 503 | 504)
            && let Some(answer) = self.stale_on_error(engine, Some(head.status), now_ms)
        {
            return answer;
        }
        if head.status == 304 {
            let candidate = self.best.take().filter(|_| self.sent_validators);
            let Some(candidate) = candidate else {
                // Nothing was asked conditionally, so there is nothing a 304 could speak of.
                return self.fail(
                    engine,
                    502,
                    "origin-invalid",
                    "Origin answered 304 to an unconditional request",
                    now_ms,
                );
            };
            return self.revalidated(engine, &candidate.entry, head, now_ms);
        }
        let keys = surrogate_keys(&head.fields);
        let as_of = self.as_of(engine, &head.fields);
        if let Some(step) = self.check_state(engine, as_of.as_ref().ok(), keys.as_deref().unwrap_or(&[]), now_ms) {
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
    /// asked once more, with the state it must have seen; then it is a failure.
    pub(super) fn check_state(
        &mut self,
        engine: &mut Engine<B>,
        as_of: Option<&Option<AsOf>>,
        keys: &[KeyHash],
        now_ms: u64,
    ) -> Option<Step<B>> {
        let as_of = as_of.and_then(Option::as_ref);
        let verdict = engine.view.judge(as_of, keys);
        let purged = matches!(verdict, Verdict::Hard(Cause::Purged | Cause::Floor));
        let demanded = self.request.min_as_of.as_ref();
        let behind = demanded.is_some_and(|min| !as_of.is_some_and(|as_of| as_of.covers(min)));
        if !purged && !behind {
            return None;
        }
        if self.asked_again {
            self.note(Reason::OriginBehind);
            return Some(self.fail(
                engine,
                503,
                "origin-behind",
                "Origin has not reached the demanded state yet",
                now_ms,
            ));
        }
        self.asked_again = true;
        self.best = None;
        self.sent_validators = false;
        self.sent_at = engine.view.newest();
        let min_as_of = self.demand(engine, keys);
        Some(Step::Fetch(Fetch { validators: Vec::new(), min_as_of }))
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
        let fields = update_stored(&old.head.fields, &update.fields);
        let keys = surrogate_keys(&fields).unwrap_or_default();
        if let Some(step) = self.check_state(engine, as_of.as_ref().ok(), &keys, now_ms) {
            return step;
        }
        let head = ResponseHead { status: old.head.status, fields, ..update };
        let storable = check_storable(&self.request.fields, self.request.directives.no_store, &head);
        let stored = storable.and_then(|()| as_of.as_ref().map(|_| ()).map_err(|reason| *reason));
        let confirmed_ms = head.request_time_ms;
        let mut entry = Entry::new(old.key.clone(), head, as_of.ok().flatten(), keys, old.body.clone(), old.body_bytes);
        entry.origin_confirmed_ms = Some(confirmed_ms);
        let entry = Arc::new(entry);
        let mut behind = self.behind(engine, now_ms);
        if stored.is_ok() {
            engine.keep(Arc::clone(&entry));
            behind.write = vec![Tier::Colo, Tier::Kv];
        }
        self.give_back(engine);
        let status = CacheStatus {
            reason: Some(self.reason),
            fwd_status: Some(304),
            stored: Some(stored),
            ..CacheStatus::new(Phase::Revalidated)
        };
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
            Reason::NotStored | Reason::OtherVariant => Phase::Miss,
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
        let not_modified = head.status == 200 && is_not_modified(&self.request.fields, &head.fields);
        Step::Answer(Box::new(Answer::Forwarded {
            head,
            not_modified,
            status,
            store,
            behind: self.behind(engine, now_ms),
        }))
    }

    /// Nothing comes of the fill. A failing origin is not the same as an uncacheable answer: only for the latter
    /// others need not wait.
    pub(super) fn end_unstored(&mut self, engine: &mut Engine<B>, status: u16, now_ms: u64) {
        let Some(ticket) = self.ticket.take() else { return };
        if status >= 500 {
            engine.fills.release(&self.request.key, ticket);
        } else {
            engine.fills.pass(&self.request.key, ticket, now_ms.saturating_add(engine.config.pass_ms));
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
        check_storable(&self.request.fields, self.request.directives.no_store, head)?;
        let keys = keys.ok_or(Reason::BadSurrogate)?;
        let as_of = as_of?;
        let varies_on = selecting_fields(&head.fields).ok_or(Reason::Vary)?;
        let length = head.fields.get("content-length").and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|bytes| bytes > engine.config.body_bytes_max) {
            return Err(Reason::TooLarge);
        }
        let key = variant_key(&self.request.key, &varies_on, &self.request.fields);
        let head = ResponseHead { fields: fields_to_store(&head.fields), ..head.clone() };
        Ok(StorePlan {
            key,
            primary: self.request.key.clone(),
            head,
            as_of,
            keys,
            varies_on,
            ticket: self.ticket.take(),
            body_bytes_max: engine.config.body_bytes_max,
        })
    }

    pub(super) fn origin_failed(&mut self, engine: &mut Engine<B>, now_ms: u64) -> Step<B> {
        if let Some(answer) = self.stale_on_error(engine, None, now_ms) {
            return answer;
        }
        self.note(Reason::OriginFailed);
        self.fail(engine, 502, "origin-unreachable", "The origin did not answer", now_ms)
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
