//! How long a page may be kept: what purges bound anyway, what the schedule ends, and what browsers are told.
use crate::catalog::model::FOR_EVER_MS;

/// What kind of page it is, which decides how long it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What viewers are shown: lists and searches are purged as exactly as titles are, so one lifetime does for all.
    Page,
    /// Something that is not there, kept so that asking for it again and again stays cheap; purged when it appears.
    Absent,
    /// One viewer's own: what its viewer does purges it, and so does whatever it shows or leaves out.
    Own,
}

/// RFC 9213 and RFC 5861, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    max_age_s: i64,
    stale_while_revalidate_s: i64,
    stale_if_error_s: i64,
}

/// When a page changes by itself, by schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The next moment anything in the catalogue does: until then the page is what it is.
    pub next_change_ms: Option<i64>,
    /// When something the page shows must no longer be seen.
    pub ends_at_ms: Option<i64>,
}

impl Schedule {
    /// `gone_ms`: until when each thing that is shown may be seen.
    pub fn of(next_change_ms: Option<i64>, gone_ms: impl IntoIterator<Item = i64>) -> Self {
        Self { next_change_ms, ends_at_ms: gone_ms.into_iter().filter(|ms| *ms != FOR_EVER_MS).min() }
    }
}

impl Kind {
    /// The edge's policy. Purges make pages current, so these times are long: what is asked for less often than that costs
    /// this service a request each time. They bound what a purge that was never logged could cost (a database changed by
    /// hand), and how long the edge goes on alone while this service is down.
    fn policy(self) -> Policy {
        let (max_age_s, stale_while_revalidate_s, stale_if_error_s) = match self {
            Self::Page => (86_400, 3_600, 86_400),
            Self::Absent => (60, 0, 0),
            Self::Own => (600, 0, 0),
        };
        Policy { max_age_s, stale_while_revalidate_s, stale_if_error_s }
    }

    /// `CDN-Cache-Control` of a page that is read now: fresh no longer than until the next change, and in no way longer
    /// than what it shows may be seen. A purge comes at that moment too; this holds without it.
    pub fn cdn_cache_control(self, schedule: Schedule, now_ms: i64) -> String {
        let Policy { max_age_s, stale_while_revalidate_s, stale_if_error_s } = self.policy();
        let left_s = |at_ms: Option<i64>| at_ms.map_or(i64::MAX, |at_ms| at_ms.saturating_sub(now_ms).max(0) / 1_000);
        let end_s = left_s(schedule.ends_at_ms);
        let max_age_s = max_age_s.min(left_s(schedule.next_change_ms)).min(end_s);
        let stale_s = |window_s: i64| window_s.min(end_s.saturating_sub(max_age_s));
        let mut policy = format!("max-age={max_age_s}");
        for (name, window_s) in [
            ("stale-while-revalidate", stale_s(stale_while_revalidate_s)),
            ("stale-if-error", stale_s(stale_if_error_s)),
        ] {
            if window_s > 0 {
                policy.push_str(&format!(", {name}={window_s}"));
            }
        }
        policy
    }

    /// Browsers ask each time and are told 304: the edge is near, and a purge does not reach browsers.
    pub fn cache_control(self) -> &'static str {
        match self {
            Self::Own => "private, no-cache",
            Self::Page | Self::Absent => "public, max-age=0, must-revalidate",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_fresh_until_the_next_change_and_never_outlives_what_it_shows() {
        let at = |next_change_ms, ends_at_ms| {
            Kind::Page.cdn_cache_control(Schedule { next_change_ms, ends_at_ms }, 1_000_000)
        };
        assert_eq!(at(None, None), "max-age=86400, stale-while-revalidate=3600, stale-if-error=86400");
        assert_eq!(at(Some(1_009_999), None), "max-age=9, stale-while-revalidate=3600, stale-if-error=86400");
        assert_eq!(at(Some(1_009_999), Some(1_030_000)), "max-age=9, stale-while-revalidate=21, stale-if-error=21");
        assert_eq!(at(Some(1_009_999), Some(1_009_999)), "max-age=9");
        assert_eq!(at(None, Some(1_000_400)), "max-age=0");
        assert_eq!(at(None, Some(999_000)), "max-age=0", "overdue");
    }
}
