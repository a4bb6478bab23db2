//! How often one client may ask, for each class of routes. Every class is counted in the isolate, which costs no call and
//! is therefore done for every request; classes whose requests always cost a service something are counted by the
//! platform for the whole location too, which costs one.
//!
//! In the isolate by the generic cell rate algorithm (a leaky bucket as a meter: ITU-T I.371, Annex A): one time for each
//! client, in a table of fixed size. Where too many clients share a place, the one that has asked least of late is
//! forgotten, and begins with a full allowance again.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Admin,
    Auth,
    /// A session's next tokens, and its end: each device of many behind one address asks every few minutes, and what it
    /// shows cannot be guessed.
    Refresh,
    Batch,
    Search,
    /// Every other route of the API.
    Reads,
}

/// These very paths: what is spelt in another way is counted with log-ins.
const REFRESHES: [&str; 4] = ["/auth/refresh", "/auth/logout", "/auth/staff/refresh", "/auth/staff/logout"];

impl Class {
    pub const ALL: [Self; 6] = [Self::Admin, Self::Auth, Self::Refresh, Self::Batch, Self::Search, Self::Reads];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Auth => "auth",
            Self::Refresh => "refresh",
            Self::Batch => "batch",
            Self::Search => "search",
            Self::Reads => "reads",
        }
    }

    /// The name of the platform's counter, if one may be bound for this class.
    pub fn binding(self) -> Option<&'static str> {
        match self {
            Self::Admin => Some("LIMIT_ADMIN"),
            Self::Auth => Some("LIMIT_AUTH"),
            Self::Refresh => Some("LIMIT_REFRESH"),
            Self::Batch => Some("LIMIT_BATCH"),
            Self::Search => Some("LIMIT_SEARCH"),
            Self::Reads => None,
        }
    }

    /// The class of a path, or path with query. What is the edge's own (`/__edge/`) has tokens and no class.
    pub fn of(target: &str) -> Option<Self> {
        let path = target.split('?').next().unwrap_or(target);
        let is_below =
            |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        match () {
            () if is_below("/__edge") => None,
            () if is_below("/admin") => Some(Self::Admin),
            () if REFRESHES.contains(&path) => Some(Self::Refresh),
            () if is_below("/auth") => Some(Self::Auth),
            () if is_below("/v1/batch") => Some(Self::Batch),
            () if is_below("/v1/search") => Some(Self::Search),
            () => Some(Self::Reads),
        }
    }
}

/// So many requests in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub quota: u64,
    pub window_s: u64,
}

/// The policy of each class; a class without one is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits([Option<Policy>; Class::ALL.len()]);

impl Limits {
    /// Reads `admin=60/60 auth=20/60 …`: requests and seconds.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut limits = Self::default();
        for word in text.split_whitespace() {
            let fault = || {
                format!(
                    "'{word}' must be CLASS=REQUESTS/SECONDS, the class admin, auth, refresh, batch, search or reads"
                )
            };
            let (name, policy) = word.split_once('=').ok_or_else(fault)?;
            let (quota, window) = policy.split_once('/').ok_or_else(fault)?;
            let class = Class::ALL.into_iter().find(|class| class.as_str() == name).ok_or_else(fault)?;
            let number = |text: &str| text.parse::<u64>().ok().filter(|n| (1..=1_000_000).contains(n));
            let (quota, window_s) = (number(quota).ok_or_else(fault)?, number(window).ok_or_else(fault)?);
            if let Some(slot) = limits.0.get_mut(class as usize) {
                *slot = Some(Policy { quota, window_s });
            }
        }
        Ok(limits)
    }

    pub fn of(&self, class: Class) -> Option<Policy> {
        self.0.get(class as usize).copied().flatten()
    }
}

impl Policy {
    /// The field `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers, section 3).
    pub fn field(&self, class: Class) -> String {
        format!("\"{}\";q={};w={}", class.as_str(), self.quota, self.window_s)
    }
}

/// The field `RateLimit` of a refusal: nothing is left, and more is there after so long (the draft, section 4). What is
/// left of an allowance that is not used up nobody knows: the platform does not say, and an isolate is one of many.
pub fn used_up(class: Class, retry_after_s: u64) -> String {
    format!("\"{}\";r=0;t={retry_after_s}", class.as_str())
}

/// Who asks, as far as limits go: an address, of IPv6 the network that one household has (the first 64 bits).
pub fn client(address: &str) -> &str {
    if !address.contains(':') {
        return address;
    }
    let end = match address.find("::") {
        // All of what stands before belongs to the network, if it is no longer than that.
        Some(at) if address.get(..at).is_some_and(|start| start.matches(':').count() < 4) => Some(at),
        _ => address.match_indices(':').nth(3).map(|(at, _)| at),
    };
    end.and_then(|end| address.get(..end)).unwrap_or(address)
}

const WAYS: usize = 4;
const SETS: usize = 1_024;
const MASK: u64 = SETS as u64 - 1;

/// The last moment, in microseconds, to which a client has used its allowance up.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    used_to_us: u64,
}

/// What each client of an isolate has asked of late.
pub struct Meter {
    seed: u64,
    slots: Vec<[Slot; WAYS]>,
}

impl Meter {
    /// The seed decides which clients share a place, so that nobody can choose to.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, slots: vec![[Slot::default(); WAYS]; SETS] }
    }

    /// Counts a request, or says after how many milliseconds there is room for one more.
    pub fn take(&mut self, class: Class, policy: Policy, client: &str, now_ms: u64) -> Result<(), u64> {
        let window_us = policy.window_s.saturating_mul(1_000_000);
        let Some(each_us) = window_us.checked_div(policy.quota) else { return Ok(()) };
        let now_us = now_ms.saturating_mul(1_000);
        let key = self.key(class, client);
        let place = usize::try_from(key & MASK).unwrap_or(0);
        let Some(set) = self.slots.get_mut(place) else { return Ok(()) };
        let known = set.iter().position(|slot| slot.key == key);
        let least = || set.iter().enumerate().min_by_key(|(_, slot)| slot.used_to_us).map_or(0, |(at, _)| at);
        let at = known.unwrap_or_else(least);
        let Some(slot) = set.get_mut(at) else { return Ok(()) };
        if slot.key != key {
            *slot = Slot { key, used_to_us: 0 };
        }
        // An allowance reaches no further than its window: what lies beyond was used before the clock was set back.
        let used_to_us = Some(slot.used_to_us).filter(|us| *us <= now_us.saturating_add(window_us)).unwrap_or(0);
        let used_to_us = used_to_us.max(now_us).saturating_add(each_us);
        match used_to_us.saturating_sub(now_us).checked_sub(window_us) {
            None | Some(0) => {
                slot.used_to_us = used_to_us;
                Ok(())
            }
            Some(over_us) => Err(over_us.div_ceil(1_000)),
        }
    }

    /// FNV-1a from a secret start; never 0, the key of an empty place.
    fn key(&self, class: Class, client: &str) -> u64 {
        // The class is a byte of its own: xored with the first byte of the address, some pairs of both would be one.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = client.bytes().fold(step(self.seed, class as u8), step);
        (hash ^ (hash >> 32)).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy { quota: 5, window_s: 10 };

    #[test]
    fn a_clock_that_is_set_back_refuses_nobody_for_longer() {
        let mut meter = Meter::seeded(1);
        let mut take = |now_ms| meter.take(Class::Reads, POLICY, "a", now_ms);
        for _ in 0..5 {
            assert_eq!(take(1_000_000), Ok(()));
        }
        assert!(take(1_000_000).is_err());
        assert_eq!(take(500_000), Ok(()), "what was used then is not used now");
    }

    #[test]
    fn one_clients_reads_are_not_anothers_searches() {
        for seed in [1, 7, u64::MAX] {
            let meter = Meter::seeded(seed);
            let mut keys = Vec::new();
            for class in Class::ALL {
                keys.extend((0..200).map(|n| meter.key(class, &format!("{n}.2.3.4"))));
            }
            let count = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), count, "seed {seed}");
        }
    }

    #[test]
    fn an_allowance_is_used_up_and_comes_back_evenly() {
        let mut meter = Meter::seeded(1);
        let mut take = |now_ms| meter.take(Class::Auth, POLICY, "1.2.3.4", now_ms);
        for _ in 0..5 {
            assert_eq!(take(1_000), Ok(()));
        }
        assert_eq!(take(1_000), Err(2_000));
        assert_eq!(take(2_500), Err(500), "a refused request costs nothing");
        assert_eq!(take(3_000), Ok(()));
        assert_eq!(take(3_000), Err(2_000));
        assert_eq!(take(60_000), Ok(()));
    }

    #[test]
    fn clients_and_classes_are_counted_apart() {
        let mut meter = Meter::seeded(1);
        for client in ["a", "b"] {
            for class in [Class::Admin, Class::Reads] {
                for _ in 0..5 {
                    assert_eq!(meter.take(class, POLICY, client, 0), Ok(()));
                }
                assert!(meter.take(class, POLICY, client, 0).is_err());
            }
        }
    }

    #[test]
    fn many_clients_cannot_free_the_one_that_asks_most() {
        let mut meter = Meter::seeded(42);
        (0..5).for_each(|_| meter.take(Class::Reads, POLICY, "greedy", 1).unwrap());
        for n in 0..3_000 {
            let _ = meter.take(Class::Reads, POLICY, &format!("10.0.0.{n}"), 2);
        }
        assert!(meter.take(Class::Reads, POLICY, "greedy", 3).is_err());
    }

    #[test]
    fn a_household_is_one_client() {
        for (address, client_) in [
            ("203.0.113.7", "203.0.113.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2"),
            ("2001:db8:1:2::6", "2001:db8:1:2"),
            ("2001:db8::6", "2001:db8"),
            ("::1", ""),
            ("2001:db8:1:2:3::6", "2001:db8:1:2"),
        ] {
            assert_eq!(client(address), client_, "{address}");
        }
    }

    #[test]
    fn classes_go_by_path() {
        for (target, class) in [
            ("/admin/v1/titles", Some(Class::Admin)),
            ("/auth/login", Some(Class::Auth)),
            ("/auth/refresh?x=1", Some(Class::Refresh)),
            ("/auth/logout", Some(Class::Refresh)),
            ("/auth/staff/refresh", Some(Class::Refresh)),
            ("/auth/staff/logout", Some(Class::Refresh)),
            ("/auth/logout-everywhere", Some(Class::Auth)),
            ("/auth/refresh/", Some(Class::Auth)),
            ("/auth/refresh/../login", Some(Class::Auth)),
            ("/auth/Refresh", Some(Class::Auth)),
            ("/v1/batch", Some(Class::Batch)),
            ("/v1/search?q=/admin", Some(Class::Search)),
            ("/v1/searching", Some(Class::Reads)),
            ("/administrator", Some(Class::Reads)),
            ("/__edge/health", None),
        ] {
            assert_eq!(Class::of(target), class, "{target}");
        }
    }

    #[test]
    fn policies_are_read_and_written_as_the_draft_has_them() {
        let limits = Limits::read("admin=60/10  reads=1000/60").unwrap();
        assert_eq!(limits.of(Class::Admin), Some(Policy { quota: 60, window_s: 10 }));
        assert_eq!(limits.of(Class::Auth), None);
        assert_eq!(limits.of(Class::Admin).unwrap().field(Class::Admin), "\"admin\";q=60;w=10");
        assert_eq!(used_up(Class::Admin, 3), "\"admin\";r=0;t=3");
        for bad in ["admin", "admin=1", "admin=0/1", "admin=1/x", "other=1/1"] {
            assert!(Limits::read(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn in_no_window_are_more_than_twice_the_quota_taken(steps in prop::collection::vec(0u64..3_000, 1..300)) {
            let mut meter = Meter::seeded(9);
            let (mut now_ms, mut taken) = (0, Vec::new());
            for step in steps {
                now_ms += step;
                if meter.take(Class::Reads, POLICY, "x", now_ms).is_ok() {
                    taken.push(now_ms);
                }
            }
            for at in &taken {
                let in_window = taken.iter().filter(|t| (*at..at + 10_000).contains(*t)).count();
                prop_assert!(in_window <= 10, "{in_window}");
            }
        }
    }
}
