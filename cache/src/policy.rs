//! What RFC 9111 lets a shared cache do with one answer: store it or not, and for how long it is fresh.
use crate::date::parse_date_ms;
use crate::directives::ResponseDirectives;
use crate::fields::Fields;
use crate::phase::Reason;

const MS_PER_S: u64 = 1000;

/// RFC 9110 section 15.1: status codes that are cacheable by default. 206 is left out: a part
/// is kept only for as long as its origin says.
const HEURISTICALLY_CACHEABLE: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];

/// Status codes whose caching rules are understood here (RFC 9111 section 3, must-understand).
const UNDERSTOOD: [u16; 22] =
    [200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 410, 414, 421, 451, 500, 501, 503, 504];

/// The head of an answer, with the times RFC 9111 section 4.2.3 calls request_time and response_time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    pub status: u16,
    pub fields: Fields,
    pub request_time_ms: u64,
    pub response_time_ms: u64,
}

impl ResponseHead {
    /// A date field, read as of when the answer came.
    pub fn date_ms(&self, name: &str) -> Option<u64> {
        self.fields.get(name).and_then(|value| parse_date_ms(value, self.response_time_ms))
    }
}

/// How long an answer may be used. All in milliseconds, by the edge's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub lifetime_ms: u64,
    pub stale_while_revalidate_ms: u64,
    pub stale_if_error_ms: u64,
    /// RFC 9111 section 4.2.4: stale answers are forbidden whatever else is said.
    pub forbids_stale: bool,
    /// Stale answers are forbidden but for the windows the answer itself grants: a client has no say.
    pub forbids_ungranted_stale: bool,
    /// Every use needs a validation first.
    pub no_cache: bool,
    corrected_initial_age_ms: u64,
    response_time_ms: u64,
}

/// What RFC 9111 leaves to the cache, and an operator may switch on. Both are off by default: what an origin did not
/// say is not guessed, and a session is not shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Section 4.2.2: a lifetime from `Last-Modified` where the answer gives none.
    pub heuristic_freshness: bool,
    /// Section 7.3: answers with `Set-Cookie` are stored if nothing else forbids it.
    pub store_set_cookie: bool,
}

/// Section 4.2.2: "A typical setting of this fraction might be 10%."
const HEURISTIC_DIVISOR: u64 = 10;
/// No guess lasts longer.
const HEURISTIC_MS_MAX: u64 = 24 * 3600 * MS_PER_S;

fn seconds_ms(seconds: u64) -> u64 {
    seconds.saturating_mul(MS_PER_S)
}

impl Policy {
    pub fn of(head: &ResponseHead, rules: Rules) -> Self {
        let (directives, targeted) = ResponseDirectives::of(&head.fields);
        let date_ms = head.date_ms("date").unwrap_or(head.response_time_ms);
        let heuristic = || heuristic_ms(head, &directives, date_ms).filter(|_| rules.heuristic_freshness && !targeted);
        Self {
            lifetime_ms: lifetime_ms(head, &directives, targeted, date_ms).or_else(heuristic).unwrap_or(0),
            stale_while_revalidate_ms: seconds_ms(directives.stale_while_revalidate_s.unwrap_or(0)),
            stale_if_error_ms: seconds_ms(directives.stale_if_error_s.unwrap_or(0)),
            forbids_stale: directives.forbids_stale(),
            forbids_ungranted_stale: directives.forbids_ungranted_stale(),
            no_cache: directives.no_cache,
            corrected_initial_age_ms: corrected_initial_age_ms(head, date_ms),
            response_time_ms: head.response_time_ms,
        }
    }

    /// RFC 9111 section 4.2.3: current_age = corrected_initial_age + resident_time.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        self.corrected_initial_age_ms.saturating_add(now_ms.saturating_sub(self.response_time_ms))
    }

    /// RFC 9111 section 4.2: response_is_fresh = (freshness_lifetime > current_age)
    pub fn is_fresh(&self, now_ms: u64) -> bool {
        self.lifetime_ms > self.age_ms(now_ms)
    }

    /// When it is fresh no more, by a clock that does not go back.
    pub fn fresh_until_ms(&self) -> u64 {
        let left_ms = self.lifetime_ms.saturating_sub(self.corrected_initial_age_ms);
        self.response_time_ms.saturating_add(left_ms)
    }

    /// For how long it has been stale; 0 while fresh.
    pub fn staleness_ms(&self, now_ms: u64) -> u64 {
        self.age_ms(now_ms).saturating_sub(self.lifetime_ms)
    }

    /// Remaining freshness in whole seconds, negative when stale.
    pub fn ttl_s(&self, now_ms: u64) -> i64 {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        signed(self.lifetime_ms).saturating_sub(signed(self.age_ms(now_ms))).div_euclid(1000)
    }

    /// How long it is worth keeping: freshness and the longer of its stale windows.
    pub fn retention_ms(&self) -> u64 {
        self.lifetime_ms.saturating_add(self.stale_while_revalidate_ms.max(self.stale_if_error_ms))
    }
}

/// RFC 9111 section 4.2.1, for a shared cache: s-maxage, max-age, Expires, in this order. `None`: nothing was said.
fn lifetime_ms(head: &ResponseHead, directives: &ResponseDirectives, targeted: bool, date_ms: u64) -> Option<u64> {
    if let Some(seconds) = directives.s_maxage_s.or(directives.max_age_s) {
        return Some(seconds_ms(seconds));
    }
    if targeted {
        return None;
    }
    // Section 5.3: "A cache recipient MUST interpret invalid date formats, especially the value '0', as representing
    // a time in the past (i.e., 'already expired')." Several Expires lines are invalid as well.
    let expires = head.fields.joined("expires")?;
    Some(parse_date_ms(&expires, head.response_time_ms).unwrap_or(0).saturating_sub(date_ms))
}

/// RFC 9111 section 4.2.2: "a cache MAY assign a heuristic expiration time when an explicit time is not specified",
/// for status codes that are heuristically cacheable or answers marked `public`.
fn heuristic_ms(head: &ResponseHead, directives: &ResponseDirectives, date_ms: u64) -> Option<u64> {
    if !HEURISTICALLY_CACHEABLE.contains(&head.status) && !directives.public {
        return None;
    }
    let unchanged_ms = date_ms.saturating_sub(head.date_ms("last-modified")?);
    Some((unchanged_ms / HEURISTIC_DIVISOR).min(HEURISTIC_MS_MAX))
}

/// RFC 9111 section 4.2.3.
fn corrected_initial_age_ms(head: &ResponseHead, date_ms: u64) -> u64 {
    let apparent_age_ms = head.response_time_ms.saturating_sub(date_ms);
    // Section 5.1: "If a cache receives a value larger than the greatest integer it can represent [...]"; of several
    // members the first is taken, and what is no number says nothing.
    let age = head.fields.get("age").map(|value| value.split(',').next().unwrap_or("").trim());
    let age_s = age.filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
    let age_s = age_s.map_or(0, |digits| digits.parse().unwrap_or(crate::directives::DELTA_S_MAX));
    let response_delay_ms = head.response_time_ms.saturating_sub(head.request_time_ms);
    let corrected_age_ms = seconds_ms(age_s.min(crate::directives::DELTA_S_MAX)).saturating_add(response_delay_ms);
    apparent_age_ms.max(corrected_age_ms)
}

/// Whether the answer itself says how long it is fresh.
pub fn has_explicit_freshness(head: &ResponseHead) -> bool {
    let (directives, targeted) = ResponseDirectives::of(&head.fields);
    directives.s_maxage_s.or(directives.max_age_s).is_some() || (!targeted && head.fields.has("expires"))
}

/// RFC 9111 section 3: whether a shared cache may store this answer to a GET, and why not. A 206 is judged like any
/// other; whether it is of use is `range`'s business.
pub fn check_storable(
    request: &Fields,
    request_no_store: bool,
    head: &ResponseHead,
    rules: Rules,
) -> Result<(), Reason> {
    let (directives, _) = ResponseDirectives::of(&head.fields);
    // "the response status code is final"; a 304 speaks of another answer.
    if head.status < 200 || head.status == 304 {
        return Err(Reason::Status);
    }
    let understood = UNDERSTOOD.contains(&head.status);
    // "if the response status code is 206 or 304, or the must-understand cache directive is present: the cache
    // understands the response status code"
    if directives.must_understand && !understood {
        return Err(Reason::Status);
    }
    // "the no-store cache directive is not present in the response"; section 5.2.2.3 lets must-understand override
    // it where the status is understood.
    if request_no_store || (directives.no_store && !(directives.must_understand && understood)) {
        return Err(Reason::NoStore);
    }
    // "if the cache is shared: the private response directive is either not present or allows a shared cache to
    // store a modified response"
    if directives.private {
        return Err(Reason::Private);
    }
    // Section 3.5: "A shared cache MUST NOT use a cached response to a request with an Authorization header field
    // [...] unless the response contains a Cache-Control field with a response directive that allows it [...]:
    // must-revalidate, public, and s-maxage."
    let shareable = directives.must_revalidate || directives.public || directives.s_maxage_s.is_some();
    if request.has("authorization") && !shareable {
        return Err(Reason::Authorization);
    }
    // Section 7.3: "The Set-Cookie response header field does not inhibit caching". Yet one viewer's session must not
    // reach another because an origin forgot a directive: such an answer is kept out unless origin names the field in
    // no-cache or private, or the operator knows better.
    let stripped = |name: &str| directives.no_cache_fields.iter().chain(&directives.private_fields).any(|f| f == name);
    if head.fields.has("set-cookie") && !stripped("set-cookie") && !rules.store_set_cookie {
        return Err(Reason::SetCookie);
    }
    if head.fields.joined("vary").is_some_and(|vary| vary.split(',').any(|name| name.trim() == "*")) {
        return Err(Reason::Vary);
    }
    let explicit = has_explicit_freshness(head);
    let validator = head.fields.has("etag") || head.fields.has("last-modified");
    // "the response contains at least one of: public, Expires, max-age, s-maxage, [...] a status code that is
    // defined as heuristically cacheable". Of the latter, without a validator the entry would be of no use.
    let by_default = (HEURISTICALLY_CACHEABLE.contains(&head.status) || directives.public) && validator;
    if !explicit && !by_default {
        return Err(Reason::NoFreshness);
    }
    let policy = Policy::of(head, rules);
    let dead_on_arrival = policy.retention_ms() <= policy.age_ms(head.response_time_ms);
    if dead_on_arrival && !validator {
        return Err(Reason::NoFreshness);
    }
    Ok(())
}

/// Fields a shared cache must leave out of what it stores (RFC 9111 section 3.1).
pub fn fields_to_store(fields: &Fields) -> Fields {
    let (directives, _) = ResponseDirectives::of(fields);
    let mut stored = fields.clone();
    crate::fields::remove_hop_by_hop(&mut stored);
    stored.retain(|name| {
        let unshared = directives.no_cache_fields.iter().chain(&directives.private_fields).any(|f| f == name);
        // The length is the body's own; a copy could disagree with it.
        !unshared && name != "content-length"
    });
    // It stays in memory, and is weighed by what it says.
    stored.shrink();
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    const T_MS: u64 = 1_700_000_000_000;

    fn head(status: u16, fields: &[(&str, &str)]) -> ResponseHead {
        ResponseHead { status, fields: fields.iter().copied().collect(), request_time_ms: T_MS, response_time_ms: T_MS }
    }

    fn policy(head: &ResponseHead) -> Policy {
        Policy::of(head, Rules::default())
    }

    fn date(offset_s: i64) -> String {
        let ms = T_MS.saturating_add_signed(offset_s * 1000);
        httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms))
    }

    #[test]
    fn lifetime_follows_s_maxage_then_max_age_then_expires() {
        let (now, later) = (date(0), date(50));
        let table: [(&[(&str, &str)], u64); 9] = [
            (&[("cache-control", "max-age=10, s-maxage=20")], 20),
            (&[("cache-control", "max-age=10"), ("expires", &later)], 10),
            (&[("date", &now), ("expires", &later)], 50),
            (&[("expires", &later)], 50),
            (&[("date", &now), ("expires", "0")], 0),
            (&[("date", &now), ("expires", "tomorrow")], 0),
            (&[("date", &later), ("expires", &now)], 0),
            (&[("cdn-cache-control", "max-age=7"), ("cache-control", "s-maxage=9")], 7),
            (&[("cdn-cache-control", "stale-if-error=7"), ("expires", &later)], 0),
        ];
        for (fields, seconds) in table {
            assert_eq!(policy(&head(200, fields)).lifetime_ms, seconds * 1000, "{fields:?}");
        }
    }

    #[test]
    fn age_counts_what_passed_before_on_the_way_and_here() {
        let early = date(-30);
        let mut slow = head(200, &[("cache-control", "max-age=60"), ("age", "10")]);
        slow.request_time_ms = T_MS - 2000;
        assert_eq!(policy(&slow).age_ms(T_MS + 1000), 13_000);
        let apparent = head(200, &[("cache-control", "max-age=60"), ("age", "10"), ("date", &early)]);
        assert_eq!(policy(&apparent).age_ms(T_MS), 30_000);
        for odd in ["-5", "x", "", "1.5"] {
            assert_eq!(policy(&head(200, &[("age", odd)])).age_ms(T_MS), 0, "{odd:?}");
        }
        assert_eq!(policy(&head(200, &[("age", "7, 5")])).age_ms(T_MS), 7000);
    }

    #[test]
    fn freshness_ends_when_age_reaches_lifetime() {
        let policy = policy(&head(200, &[("cache-control", "max-age=10")]));
        assert!(policy.is_fresh(T_MS + 9_999) && !policy.is_fresh(T_MS + 10_000));
        assert_eq!((policy.ttl_s(T_MS), policy.ttl_s(T_MS + 11_000)), (10, -1));
        assert!(policy.is_fresh(T_MS - 5000), "a clock that went back gives no age below zero");
    }

    #[test]
    fn what_may_be_stored() {
        let plain = Fields::new();
        let auth: Fields = [("authorization", "Bearer x")].into_iter().collect();
        let etag = ("etag", "\"a\"");
        let cc = |value| ("cache-control", value);
        let table: [(&Fields, u16, &[(&str, &str)], Result<(), Reason>); 20] = [
            (&plain, 200, &[cc("max-age=5")], Ok(())),
            (&plain, 200, &[], Err(Reason::NoFreshness)),
            (&plain, 200, &[etag], Ok(())),
            (&plain, 200, &[cc("max-age=0")], Err(Reason::NoFreshness)),
            (&plain, 200, &[cc("max-age=0"), etag], Ok(())),
            (&plain, 200, &[cc("no-store, max-age=5")], Err(Reason::NoStore)),
            (&plain, 200, &[cc("no-store, must-understand, max-age=5")], Ok(())),
            (&plain, 299, &[cc("must-understand, max-age=5")], Err(Reason::Status)),
            (&plain, 299, &[cc("max-age=5")], Ok(())),
            (&plain, 200, &[cc("private, max-age=5")], Err(Reason::Private)),
            (&plain, 200, &[cc("private=\"x\", max-age=5")], Ok(())),
            (&plain, 200, &[cc("max-age=5"), ("set-cookie", "a=b")], Err(Reason::SetCookie)),
            (&plain, 200, &[cc("max-age=5, no-cache=\"set-cookie\""), ("set-cookie", "a=b")], Ok(())),
            (&plain, 200, &[cc("max-age=5"), ("vary", "a, *")], Err(Reason::Vary)),
            (&plain, 304, &[cc("max-age=5")], Err(Reason::Status)),
            (&plain, 500, &[etag], Err(Reason::NoFreshness)),
            (&plain, 404, &[cc("max-age=5")], Ok(())),
            (&auth, 200, &[cc("max-age=5")], Err(Reason::Authorization)),
            (&auth, 200, &[cc("max-age=5, public")], Ok(())),
            (&auth, 200, &[cc("s-maxage=5")], Ok(())),
        ];
        for (request, status, fields, expected) in table {
            assert_eq!(
                check_storable(request, false, &head(status, fields), Rules::default()),
                expected,
                "{status} {fields:?}"
            );
        }
        let stored =
            |no_store, fields: &[(&str, &str)], rules| check_storable(&plain, no_store, &head(200, fields), rules);
        assert_eq!(stored(true, &[cc("max-age=5")], Rules::default()), Err(Reason::NoStore));
        let cookies = Rules { store_set_cookie: true, ..Rules::default() };
        assert_eq!(stored(false, &[cc("max-age=5"), ("set-cookie", "a=b")], cookies), Ok(()));
        assert_eq!(stored(false, &[cc("private"), ("set-cookie", "a=b")], cookies), Err(Reason::Private));
    }

    #[test]
    fn fields_named_private_or_no_cache_are_left_out() {
        let fields: Fields = [
            ("cache-control", "max-age=5, private=\"x-a\", no-cache=\"x-b\""),
            ("x-a", "1"),
            ("x-b", "1"),
            ("x-c", "1"),
            ("content-length", "3"),
            ("connection", "x-d"),
            ("x-d", "1"),
        ]
        .into_iter()
        .collect();
        let names = fields_to_store(&fields);
        assert!(names.iter().map(|(name, _)| name).eq(["cache-control", "x-c"]));
    }

    #[test]
    fn a_lifetime_is_guessed_only_where_it_is_allowed_and_nothing_was_said() {
        let (old, older, now) = (date(-1000), date(-100 * 24 * 3600), date(0));
        let guess = Rules { heuristic_freshness: true, ..Rules::default() };
        let lm = ("last-modified", old.as_str());
        let table: [(u16, &[(&str, &str)], u64); 8] = [
            (200, &[lm, ("date", &now)], 100),
            (200, &[lm], 100),
            (404, &[lm], 100),
            (200, &[("last-modified", &older)], 24 * 3600),
            (200, &[lm, ("cache-control", "max-age=5")], 5),
            (200, &[lm, ("expires", "0")], 0),
            (503, &[lm], 0),
            (503, &[lm, ("cache-control", "public")], 100),
        ];
        for (status, fields, seconds) in table {
            let head = head(status, fields);
            assert_eq!(Policy::of(&head, guess).lifetime_ms, seconds * 1000, "{status} {fields:?}");
            if !has_explicit_freshness(&head) {
                assert_eq!(policy(&head).lifetime_ms, 0, "off by default");
            }
        }
    }
}
