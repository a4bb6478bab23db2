//! What is read of streams and held, all requests together: an isolate has 128 MB, of which entries in memory take a third, and
//! whatever is stored is copied once for each tier. Beyond it the platform would end all requests there are.
use platform::now_ms;
use std::cell::{Cell, RefCell};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// What strangers send.
    Uploads,
    /// What is to be stored.
    Fills,
    /// Small, or of somebody known: others leave room for it.
    Exempt,
}

impl Share {
    pub const fn bytes_max(self) -> u64 {
        match self {
            Self::Uploads => 12 * 1024 * 1024,
            Self::Fills => 16 * 1024 * 1024,
            Self::Exempt => u64::MAX,
        }
    }
}

/// Up to here a content takes nothing of its share: log-ins and batches go on whatever others send.
const EXEMPT_BYTES: u64 = 64 * 1024;
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

/// What is held of both shares, for `/__edge/metrics`.
pub fn bytes() -> u64 {
    HOLDS.with(|holds| {
        holds.try_borrow().map_or(0, |holds| holds.iter().fold(0, |all, hold| hold.bytes.saturating_add(all)))
    })
}

/// Counts among what is held until it is let go.
pub struct Held(u64);

impl Held {
    pub fn begin(share: Share) -> Self {
        let number = HOLDS_BEGUN.get().wrapping_add(1);
        HOLDS_BEGUN.set(number);
        let hold = Hold { number, share, bytes: 0, began_ms: now_ms() };
        HOLDS.with(|holds| {
            if let Ok(mut holds) = holds.try_borrow_mut() {
                holds.retain(|hold| now_ms().abs_diff(hold.began_ms) < HELD_MS_MAX);
                holds.push(hold);
            }
        });
        Self(number)
    }

    /// Whether there is room for what has been read by now.
    pub fn takes(&self, bytes: u64) -> bool {
        HOLDS.with(|holds| {
            let Ok(mut holds) = holds.try_borrow_mut() else { return false };
            let Some(share) = holds.iter().find(|hold| hold.number == self.0).map(|hold| hold.share) else {
                return true;
            };
            let others = holds.iter().filter(|hold| hold.share == share && hold.number != self.0);
            let all = others.fold(bytes, |all, hold| hold.bytes.saturating_add(all));
            let has_room = bytes <= EXEMPT_BYTES || all <= share.bytes_max();
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
