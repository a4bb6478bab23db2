//! What is read of streams and held, all requests together: an isolate has 128 MB, of which entries in memory take a third, and
//! whatever is stored is copied once for each tier. Beyond it the platform would end all requests there are.
use platform::now_ms;
use std::cell::{Cell, RefCell};

/// No body that is to be stored may be longer.
pub const FILLS_BYTES_MAX: u64 = 16 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// What strangers send.
    Uploads,
    /// What is to be stored.
    Fills,
    /// Of somebody known: others leave room for it.
    Exempt,
}

impl Share {
    const fn bytes_max(self) -> Option<u64> {
        match self {
            Self::Uploads => Some(12 * 1024 * 1024),
            Self::Fills => Some(FILLS_BYTES_MAX),
            Self::Exempt => None,
        }
    }
}

/// Up to here a content has room besides its share: log-ins and batches go on whatever others send at length, and pages are stored.
const SMALL_BYTES: u64 = 64 * 1024;
/// For all such contents that strangers send. What they are read with is not seen here, so none counts for less than the second.
const SMALL_BYTES_MAX: u64 = 12 * 1024 * 1024;
const HOLD_BYTES_MIN: u64 = 4 * 1024;
/// What has been held for so long belonged to a request the platform has cut off: nobody lets it go any more.
const HELD_MS_MAX: u64 = 120_000;

struct Hold {
    number: u64,
    share: Share,
    bytes: u64,
    began_ms: u64,
}

thread_local! {
    static HOLDS: RefCell<Vec<Hold>> = const { RefCell::new(Vec::new()) };
    static HOLDS_BEGUN: Cell<u64> = const { Cell::new(0) };
}

/// What is held of all shares, for `/__edge/metrics`.
pub fn bytes() -> u64 {
    HOLDS.with(|holds| {
        holds.try_borrow().map_or(0, |holds| holds.iter().fold(0, |all, hold| hold.bytes.saturating_add(all)))
    })
}

/// Counts among what is held until it is let go.
pub struct Held(u64);

impl Held {
    pub fn begin(share: Share) -> Self {
        Self::begin_at(share, now_ms())
    }

    fn begin_at(share: Share, now_ms: u64) -> Self {
        let number = HOLDS_BEGUN.get().wrapping_add(1);
        HOLDS_BEGUN.set(number);
        let hold = Hold { number, share, bytes: 0, began_ms: now_ms };
        HOLDS.with(|holds| {
            if let Ok(mut holds) = holds.try_borrow_mut() {
                holds.retain(|hold| now_ms.abs_diff(hold.began_ms) < HELD_MS_MAX);
                holds.push(hold);
            }
        });
        Self(number)
    }

    /// Whether there is room for what has been read by now.
    pub fn takes(&self, bytes: u64) -> bool {
        HOLDS.with(|holds| {
            let Ok(mut holds) = holds.try_borrow_mut() else { return false };
            // It was let go for its age, and yet it is read on: what nobody counts grows no more.
            let Some(share) = holds.iter().find(|hold| hold.number == self.0).map(|hold| hold.share) else {
                return false;
            };
            let others = holds.iter().filter(|hold| hold.share == share && hold.number != self.0);
            let has_room = match share.bytes_max() {
                None => true,
                Some(_) if bytes <= SMALL_BYTES && share == Share::Fills => true,
                Some(_) if bytes <= SMALL_BYTES => {
                    let small = others.map(|hold| hold.bytes).filter(|bytes| *bytes <= SMALL_BYTES);
                    let counted = small.map(|bytes| bytes.max(HOLD_BYTES_MIN));
                    counted.fold(bytes.max(HOLD_BYTES_MIN), u64::saturating_add) <= SMALL_BYTES_MAX
                }
                Some(bytes_max) => others.map(|hold| hold.bytes).fold(bytes, u64::saturating_add) <= bytes_max,
            };
            if let Some(own) = holds.iter_mut().find(|hold| hold.number == self.0 && has_room) {
                own.bytes = bytes;
            }
            has_room
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HOLDS.with(|holds| {
            if let Ok(mut holds) = holds.try_borrow_mut() {
                holds.retain(|hold| hold.number != self.0);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    fn begin(share: Share) -> Held {
        Held::begin_at(share, 0)
    }

    fn holding(share: Share, bytes: u64, count: u64) -> Vec<Held> {
        let all: Vec<_> = (0..count).map(|_| begin(share)).collect();
        assert!(all.iter().all(|held| held.takes(bytes)), "{share:?} {bytes}");
        all
    }

    #[test]
    fn long_contents_leave_room_for_short_ones_and_both_have_an_end() {
        let long = holding(Share::Uploads, 1024 * KIB, 12);
        assert!(!begin(Share::Uploads).takes(65 * KIB));
        // Of a byte each, they are more than they seem.
        let short = holding(Share::Uploads, 1, 1_024);
        let longest = holding(Share::Uploads, 64 * KIB, 128);
        assert!(!begin(Share::Uploads).takes(1));
        assert!(begin(Share::Exempt).takes(u64::MAX) && begin(Share::Fills).takes(1024 * KIB));
        let pages = holding(Share::Fills, 64 * KIB, 1_000);
        assert!(!begin(Share::Fills).takes(65 * KIB) && begin(Share::Fills).takes(64 * KIB));
        drop(pages);
        drop((long, longest));
        assert!(begin(Share::Uploads).takes(1));
        drop(short);
        assert_eq!(bytes(), 0);
    }

    #[test]
    fn what_lasts_longer_than_requests_may_grows_no_more_uncounted() {
        let old = begin(Share::Fills);
        assert!(old.takes(1024 * KIB));
        let later = Held::begin_at(Share::Fills, HELD_MS_MAX);
        assert!(!old.takes(1025 * KIB) && later.takes(1024 * KIB));
    }
}
