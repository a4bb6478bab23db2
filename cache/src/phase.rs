//! Every outcome has a name, and every name is written in one place: headers, logs and metrics use [`Phase::as_str`]
//! and [`Reason::as_str`] alike.

/// How an answer came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// From the cache, fresh.
    Hit,
    /// From the cache, stale, while a fresh copy is fetched behind (RFC 5861 section 3, or the client allowed it).
    Stale,
    /// From the cache, stale, since origin failed (RFC 5861 section 4).
    StaleError,
    /// From the cache, after origin confirmed it.
    Revalidated,
    /// From origin: nothing usable was stored.
    Miss,
    /// From origin: what was stored may not be used any more.
    Expired,
    /// From origin, and the cache had no part in it.
    Bypass,
    /// Neither cache nor origin gave an answer.
    Failed,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::StaleError => "stale-error",
            Self::Revalidated => "revalidated",
            Self::Miss => "miss",
            Self::Expired => "expired",
            Self::Bypass => "bypass",
            Self::Failed => "failed",
        }
    }

    /// Its place in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// Every phase, for counters.
    pub const ALL: [Self; 8] = [
        Self::Hit,
        Self::Stale,
        Self::StaleError,
        Self::Revalidated,
        Self::Miss,
        Self::Expired,
        Self::Bypass,
        Self::Failed,
    ];
}

/// Why an answer was not a plain hit, or why it was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No tier holds the key.
    NotStored,
    /// The key is held, but not for these request fields.
    OtherVariant,
    /// Its freshness lifetime is over.
    Expired,
    /// A soft purge of one of its keys is younger than it.
    PurgedSoft,
    /// A hard purge of one of its keys is younger than it.
    PurgedHard,
    /// It is older than what the journal remembers in detail.
    BelowFloor,
    /// It was read from a database with another purge log.
    OtherLog,
    /// Nothing tells which state it was read at.
    NoAsOf,
    /// The purge journal could not be asked within the bound.
    JournalUnreachable,
    /// It is older than the client demands (`Min-As-Of`).
    MinAsOf,
    /// The request forbids an answer from the cache.
    RequestDirective,
    /// More requests, fields or content than this client may send.
    Limited,
    /// Something in the request is not as it has to be.
    Invalid,
    /// The answer wants to be validated each time (`no-cache`, `must-revalidate`).
    MustValidate,
    /// The request's method is not served from caches.
    Method,
    /// A part is held, and it is not all that was asked for.
    Part,
    /// The answer to a range that is neither the whole nor one part that can be kept.
    Range,
    /// The request's preconditions guard a write; they are origin's business.
    Precondition,
    /// The route is never cached.
    Route,
    /// The key proved uncacheable a moment ago.
    Uncacheable,
    /// `no-store` in request or answer.
    NoStore,
    /// `private` in the answer.
    Private,
    /// The request carried credentials and the answer does not allow sharing.
    Authorization,
    /// The answer sets a cookie.
    SetCookie,
    /// The answer says nothing about freshness.
    NoFreshness,
    /// The status code cannot be stored here.
    Status,
    /// `Vary: *`, or too many fields.
    Vary,
    /// The body is larger than the limit, or of unknown length beyond it.
    TooLarge,
    /// Surrogate keys or `Surrogate-As-Of` that are not well-formed: what could not be purged is not stored.
    BadSurrogate,
    /// Origin refused, broke off or did not answer in time.
    OriginFailed,
    /// Origin answered from a state before a purge that is known here.
    OriginBehind,
    /// A fault of this cache.
    EdgeFailed,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotStored => "not-stored",
            Self::OtherVariant => "other-variant",
            Self::Expired => "expired",
            Self::PurgedSoft => "purged-soft",
            Self::PurgedHard => "purged-hard",
            Self::BelowFloor => "below-floor",
            Self::OtherLog => "other-log",
            Self::NoAsOf => "no-as-of",
            Self::JournalUnreachable => "journal-unreachable",
            Self::MinAsOf => "min-as-of",
            Self::RequestDirective => "request-directive",
            Self::Limited => "limited",
            Self::Invalid => "invalid",
            Self::MustValidate => "must-validate",
            Self::Method => "method",
            Self::Part => "part",
            Self::Range => "range",
            Self::Precondition => "precondition",
            Self::Route => "route",
            Self::Uncacheable => "uncacheable",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::NoFreshness => "no-freshness",
            Self::Status => "status",
            Self::Vary => "vary",
            Self::TooLarge => "too-large",
            Self::BadSurrogate => "bad-surrogate",
            Self::OriginFailed => "origin-failed",
            Self::OriginBehind => "origin-behind",
            Self::EdgeFailed => "edge-failed",
        }
    }

    /// RFC 9211 section 2.2: the registered reasons a request went forward.
    pub fn fwd(self) -> &'static str {
        match self {
            Self::OtherVariant => "vary-miss",
            Self::Expired
            | Self::PurgedSoft
            | Self::BelowFloor
            | Self::NoAsOf
            | Self::JournalUnreachable
            | Self::MustValidate => "stale",
            Self::RequestDirective | Self::MinAsOf => "request",
            Self::Method => "method",
            Self::Route | Self::Uncacheable | Self::Precondition => "bypass",
            Self::Part => "partial",
            _ => "uri-miss",
        }
    }
}

/// RFC 9211: the `Cache-Status` member of this cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    pub phase: Phase,
    /// Where a stored answer was found (`memory`, `colo`, `kv`).
    pub tier: Option<&'static str>,
    pub reason: Option<Reason>,
    /// Remaining freshness in whole seconds; negative when stale. Absent when nothing stored was used.
    pub ttl_s: Option<i64>,
    /// What origin answered, when it was asked.
    pub fwd_status: Option<u16>,
    /// Whether the forwarded answer is being stored; if not, why.
    pub stored: Option<Result<(), Reason>>,
    /// Whether another request's fetch was waited for.
    pub collapsed: bool,
}

impl CacheStatus {
    pub fn new(phase: Phase) -> Self {
        Self { phase, tier: None, reason: None, ttl_s: None, fwd_status: None, stored: None, collapsed: false }
    }

    /// The field value. `name` is this cache's name, a token.
    pub fn render(&self, name: &str) -> String {
        use std::fmt::Write;
        let mut text = String::with_capacity(96);
        text.push_str(name);
        // RFC 9211 section 2.1: "hit" only if the request was satisfied without being forwarded, and "fwd" (section 2.2) only if
        // it "went forward towards the origin". What was refused here is neither.
        let asked_in_vain = matches!(self.reason, Some(Reason::OriginFailed | Reason::OriginBehind));
        if matches!(self.phase, Phase::Hit | Phase::Stale) {
            text.push_str("; hit");
        } else if self.phase != Phase::Failed || asked_in_vain {
            let fwd = self.reason.map_or("uri-miss", Reason::fwd);
            let _ = write!(text, "; fwd={fwd}");
        }
        if let Some(status) = self.fwd_status {
            let _ = write!(text, "; fwd-status={status}");
        }
        if let Some(ttl_s) = self.ttl_s {
            let _ = write!(text, "; ttl={ttl_s}");
        }
        if self.stored == Some(Ok(())) {
            text.push_str("; stored");
        }
        if self.collapsed {
            text.push_str("; collapsed");
        }
        let _ = write!(text, "; detail=\"{}", self.phase.as_str());
        if let Some(tier) = self.tier {
            let _ = write!(text, " {tier}");
        }
        if let Some(reason) = self.reason {
            let _ = write!(text, " {}", reason.as_str());
        }
        if let Some(Err(why)) = self.stored {
            let _ = write!(text, " unstored:{}", why.as_str());
        }
        text.push('"');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_its_place_among_all() {
        for (place, phase) in Phase::ALL.into_iter().enumerate() {
            assert_eq!(phase.index(), place, "{phase:?}");
        }
    }

    #[test]
    fn a_hit_and_a_miss_read_as_rfc_9211_wants() {
        let hit = CacheStatus { tier: Some("memory"), ttl_s: Some(12), ..CacheStatus::new(Phase::Hit) };
        assert_eq!(hit.render("edge"), "edge; hit; ttl=12; detail=\"hit memory\"");
        let miss = CacheStatus {
            reason: Some(Reason::NotStored),
            fwd_status: Some(200),
            stored: Some(Ok(())),
            ..CacheStatus::new(Phase::Miss)
        };
        assert_eq!(miss.render("edge"), "edge; fwd=uri-miss; fwd-status=200; stored; detail=\"miss not-stored\"");
        let unstored = CacheStatus {
            reason: Some(Reason::PurgedSoft),
            fwd_status: Some(200),
            stored: Some(Err(Reason::SetCookie)),
            collapsed: true,
            ..CacheStatus::new(Phase::Expired)
        };
        assert_eq!(
            unstored.render("edge"),
            "edge; fwd=stale; fwd-status=200; collapsed; detail=\"expired purged-soft unstored:set-cookie\""
        );
        let failed = |reason| CacheStatus { reason: Some(reason), ..CacheStatus::new(Phase::Failed) }.render("edge");
        assert_eq!(failed(Reason::OriginFailed), "edge; fwd=uri-miss; detail=\"failed origin-failed\"");
        assert_eq!(failed(Reason::Limited), "edge; detail=\"failed limited\"", "nobody was asked");
    }
}
