//! What a lookup and its caller say to each other: requests, steps, events, answers.
use super::Lookup;
use crate::directives::RequestDirectives;
use crate::engine::StorePlan;
use crate::entry::Entry;
use crate::fields::Fields;
use crate::phase::CacheStatus;
use crate::policy::ResponseHead;
use crate::range::Cut;
use kv_schemas::AsOf;
use std::sync::Arc;

/// A GET or HEAD that may be answered from the cache.
#[derive(Clone, Debug)]
pub struct Request {
    /// The cache key: normalised, bounded, and made of nothing a stranger could fragment or poison it with.
    pub key: String,
    pub is_head: bool,
    pub fields: Fields,
    /// What the client may demand of the cache; empty where clients have no say.
    pub directives: RequestDirectives,
    /// The answer must be at least this new.
    pub min_as_of: Option<AsOf>,
}

impl Request {
    /// The same request for the whole answer, as a refresh or a validation asks for it.
    pub(super) fn of_the_whole(&self) -> Self {
        let mut request = self.clone();
        request.fields.retain(|name| name != "range" && name != "if-range");
        request
    }
}

/// Where an entry lies: in the isolate, or outside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    Memory,
    Colo,
    Kv,
}

impl Tier {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Colo => "colo",
            Self::Kv => "kv",
        }
    }
}

/// What the caller is to do next.
#[derive(Debug)]
pub enum Step<B> {
    /// Ask the journal, tell the engine the outcome, then feed [`Event::Synced`]. With `shared`, what it told another
    /// isolate of this location a moment ago will do.
    Sync {
        shared: bool,
    },
    /// Sleep, then feed [`Event::Waited`].
    Wait {
        ms: u64,
    },
    /// Read an entry from a tier (never `Memory`), then feed [`Event::Read`].
    Read {
        tier: Tier,
        key: String,
    },
    /// Ask origin, then feed [`Event::Origin`] or [`Event::OriginFailed`].
    Fetch(Fetch),
    /// Read the body of origin's answer to its end, at most so many bytes, put the stored one before it, and feed
    /// [`Event::Joined`].
    Join {
        stored: Arc<Entry<B>>,
        rest_bytes_max: u64,
    },
    Answer(Box<Answer<B>>),
}

/// How origin is to be asked: the client's request with these changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Conditional and range fields of the cache's own; the client's are not sent.
    pub fields: Vec<(String, String)>,
    pub min_as_of: Option<AsOf>,
}

#[derive(Debug)]
pub enum Event<B> {
    Start,
    Synced,
    Waited,
    Read(Option<Entry<B>>),
    Origin(ResponseHead),
    OriginFailed,
    /// The joined body and its length; `None` if the rest broke off or was too long.
    Joined(Option<(B, u64)>),
}

/// What is to be done after the answer has gone out.
#[derive(Debug)]
pub struct Behind<B> {
    /// Drive this lookup to its end.
    pub refresh: Option<Lookup<B>>,
    /// The sync is claimed: ask the journal.
    pub sync: bool,
    /// Write the answered entry to these tiers.
    pub write: Vec<Tier>,
    /// What KV held, if it was read: a writer compares before it overwrites.
    pub seen_in_kv: Option<Arc<Entry<B>>>,
}

impl<B> Default for Behind<B> {
    fn default() -> Self {
        Self { refresh: None, sync: false, write: Vec::new(), seen_in_kv: None }
    }
}

/// What of a stored answer goes to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    Whole,
    /// 304: the client has it.
    NotModified,
    /// 206, or 416 if no byte of the range exists.
    Range(Cut),
}

#[derive(Debug)]
pub enum Answer<B> {
    /// A stored answer.
    Stored { entry: Arc<Entry<B>>, show: Show, age_ms: u64, status: CacheStatus, behind: Behind<B> },
    /// Origin's answer, whose body the caller still holds; with a plan it is stored on the way.
    Forwarded {
        head: ResponseHead,
        not_modified: bool,
        status: CacheStatus,
        store: Option<Box<StorePlan>>,
        behind: Behind<B>,
    },
    /// No answer could be had.
    Failed { failure: Failure, status: CacheStatus, behind: Behind<B> },
}

/// Why there is no answer to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Origin did not answer. The lookup knows no more; its caller may know that it was one of the next two.
    Unreachable,
    /// Origin did not answer in time.
    TimedOut,
    /// Origin is failing, and was not asked.
    LeftAlone,
    /// Origin answered what was not asked; in words.
    Invalid(&'static str),
    /// Origin has not reached a state that is needed.
    Behind,
    /// Nothing usable is stored, and nothing else was wanted.
    OnlyIfCached,
    /// The caller did not follow the steps.
    OutOfOrder,
}

impl Failure {
    /// Status, slug and title of the error a client gets for it.
    pub fn problem(self) -> (u16, &'static str, &'static str) {
        match self {
            Self::Unreachable => (502, "origin-unreachable", "The origin did not answer"),
            Self::TimedOut => (504, "origin-timeout", "The origin did not answer in time"),
            Self::LeftAlone => (503, "service-unavailable", "The service is failing and is given a pause"),
            Self::Invalid(title) => (502, "origin-invalid", title),
            Self::Behind => (503, "origin-behind", "Origin has not reached the demanded state yet"),
            Self::OnlyIfCached => (504, "only-if-cached", "Nothing usable is stored and only-if-cached was asked"),
            Self::OutOfOrder => (500, "lookup-out-of-order", "The lookup was driven out of order"),
        }
    }
}

static NO_FIELDS: Fields = Fields::NONE;

impl<B> Answer<B> {
    pub fn status(&self) -> &CacheStatus {
        match self {
            Self::Stored { status, .. } | Self::Forwarded { status, .. } | Self::Failed { status, .. } => status,
        }
    }

    /// The fields of the answer that is shown; none of an error of the cache's own.
    pub fn fields(&self) -> &Fields {
        match self {
            Self::Stored { entry, .. } => &entry.head.fields,
            Self::Forwarded { head, .. } => &head.fields,
            Self::Failed { .. } => &NO_FIELDS,
        }
    }

    pub fn behind(&mut self) -> &mut Behind<B> {
        match self {
            Self::Stored { behind, .. } | Self::Forwarded { behind, .. } | Self::Failed { behind, .. } => behind,
        }
    }
}
