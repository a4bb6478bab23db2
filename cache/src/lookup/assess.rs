//! Whether an entry may be answered now: the freshness rule, RFC 9111, and what the client demands, in one place.
use super::Lookup;
use crate::directives::RequestDirectives;
use crate::engine::{Engine, LogOwner, came_before};
use crate::entry::Entry;
use crate::phase::Reason;
use crate::view::{Cause, Verdict};
use kv_schemas::AsOf;

/// What may be done with an entry now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Fresh,
    Stale {
        reason: Reason,
        /// May be answered at once while it is refreshed.
        at_once: bool,
        /// May be answered if origin fails.
        on_error: bool,
    },
    /// Must not be answered; `validate` tells whether origin may be asked to confirm it.
    Dead {
        reason: Reason,
        validate: bool,
    },
}

/// What a request demands of what is stored.
pub(crate) struct Demands<'a> {
    pub directives: &'a RequestDirectives,
    pub min_as_of: Option<&'a AsOf>,
    /// When it came.
    pub arrived_ms: Option<u64>,
}

impl<B: Clone + Default> Lookup<B> {
    fn demands(&self) -> Demands<'_> {
        let request = &self.request;
        Demands { directives: &request.directives, min_as_of: request.min_as_of.as_ref(), arrived_ms: self.arrived_ms }
    }

    /// Whether the client demands a state this view has not heard of. Where answers are stamped with the view's own
    /// state, only a sync can bring one that satisfies it.
    pub(super) fn is_ahead_of(&self, engine: &Engine<B>) -> bool {
        let Some(min) = self.demand_of_views(engine) else { return false };
        let covers = |state: &AsOf| state.covers(min);
        let is_held = || engine.recall(&self.request.key).is_some_and(|held| held.as_of.as_ref().is_some_and(covers));
        !engine.view.newest().as_ref().is_some_and(covers) && !is_held()
    }

    /// The state the client demands, where answers are stamped with the view's own.
    fn demand_of_views(&self, engine: &Engine<B>) -> Option<&AsOf> {
        self.request.min_as_of.as_ref().filter(|_| engine.config.log_owner == LogOwner::Journal)
    }

    /// Whether no answer that is asked for now can satisfy the client: it would be stamped with less than is demanded.
    pub(super) fn is_out_of_reach(&self, engine: &Engine<B>) -> bool {
        self.demand_of_views(engine).is_some_and(|min| !engine.asked_at().is_some_and(|newest| newest.covers(min)))
    }

    /// Whether an entry may be answered now, and how.
    pub(super) fn assess(&self, engine: &Engine<B>, entry: &Entry<B>, now_ms: u64) -> Use {
        let verdict = engine.view.judge(entry.as_of.as_ref(), &entry.keys);
        assess(engine, entry, verdict, &self.demands(), now_ms)
    }
}

/// Whether an entry may be answered now, and how, after what the log says of it.
pub(crate) fn assess<B: Clone + Default>(
    engine: &Engine<B>,
    entry: &Entry<B>,
    verdict: Verdict,
    demands: &Demands<'_>,
    now_ms: u64,
) -> Use {
    let bound_ms = engine.config.bound_ms;
    let of_request_time = |ms: u64| now_ms.checked_sub(ms).is_some_and(|age_ms| age_ms <= bound_ms);
    let confirmed_ms = entry.origin_confirmed.and_then(|at| engine.by_this_clock(at));
    let confirmed = confirmed_ms.is_some_and(of_request_time) || came_before(demands.arrived_ms, confirmed_ms, now_ms);
    let known = engine.knows_for(demands.arrived_ms, now_ms);
    let wanted = demands.directives;
    let policy = &entry.policy;

    let purged = match verdict {
        Verdict::Hard(Cause::OtherLog) => return Use::Dead { reason: Reason::OtherLog, validate: false },
        Verdict::Hard(Cause::Floor) => return Use::Dead { reason: Reason::BelowFloor, validate: false },
        Verdict::Hard(_) => return Use::Dead { reason: Reason::PurgedHard, validate: false },
        Verdict::Clear => None,
        // Origin itself confirmed it to this isolate within the bound: that is as good as the journal's word.
        Verdict::Soft(Cause::NoLog) if confirmed => None,
        // The view may have learnt since of a purge that came after it.
        Verdict::Soft(Cause::NoAsOf) => Some(Reason::NoAsOf),
        Verdict::Soft(Cause::NoLog) => Some(Reason::JournalUnreachable),
        Verdict::Soft(Cause::Floor) => Some(Reason::BelowFloor),
        Verdict::Soft(_) => Some(Reason::PurgedSoft),
    };
    if let Some(min) = demands.min_as_of
        && !entry.as_of.as_ref().is_some_and(|as_of| as_of.covers(min))
    {
        return Use::Dead { reason: Reason::MinAsOf, validate: true };
    }

    let age_ms = policy.age_ms(now_ms);
    let seconds = |s: u64| s.saturating_mul(1000);
    // RFC 9111 section 5.2.1: what the client demands on top.
    let refused = wanted.no_cache
        || wanted.max_age_s.is_some_and(|max| age_ms > seconds(max))
        || wanted.min_fresh_s.is_some_and(|min| policy.lifetime_ms < age_ms.saturating_add(seconds(min)));
    let expired = !policy.is_fresh(now_ms);
    let unproven = !known && !confirmed;

    let reason = match (purged, unproven) {
        (Some(reason), _) => Some(reason),
        (None, true) => Some(Reason::JournalUnreachable),
        (None, false) if policy.no_cache => Some(Reason::MustValidate),
        (None, false) if expired => Some(Reason::Expired),
        (None, false) if refused => Some(Reason::RequestDirective),
        (None, false) => None,
    };
    let Some(reason) = reason else { return Use::Fresh };

    let staleness_ms = policy.staleness_ms(now_ms);
    let within = |window_ms: u64| window_ms > 0 && staleness_ms <= window_ms;
    let client_window_ms = |s: Option<u64>| s.filter(|_| !policy.forbids_ungranted_stale).map(seconds);
    let max_stale =
        client_window_ms(wanted.max_stale_s).is_some_and(|max_ms| purged.is_none() && staleness_ms <= max_ms);
    // RFC 5861 section 3 and RFC 9111 section 4.2.4. With the purge state unknown, a stale answer is for errors
    // only: origin is asked first. A soft purge makes stale from when it came, and that may be long ago for an
    // entry from a tier, or for an isolate that was idle: then the page is fetched, and not the old one shown again.
    let window_ms = policy.stale_while_revalidate_ms.min(engine.config.soft_window_ms_max);
    let as_of = entry.as_of.as_ref().map_or(0, |as_of| as_of.seq);
    let purged_ms_ago = engine.view.purged_ms_ago(as_of, &entry.keys, now_ms).filter(|_| purged.is_some());
    let late = purged_ms_ago.is_some_and(|ago_ms| ago_ms > window_ms);
    let at_once = !policy.forbids_stale
        && !refused
        && !unproven
        && !late
        && (within(policy.stale_while_revalidate_ms) || max_stale);
    let on_error_ms = policy.stale_if_error_ms.max(client_window_ms(wanted.stale_if_error_s).unwrap_or(0));
    let on_error = !policy.forbids_stale && within(on_error_ms);
    Use::Stale { reason, at_once, on_error }
}
