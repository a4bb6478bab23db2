//! The youngest purges of the keys of one class, and the floor below which the details are forgotten.
use kv_schemas::journal::Floor;
use kv_schemas::{KeyHash, PurgeMode, Seq};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Keys are hashes already.
#[derive(Default, Clone, Copy)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// The youngest purges of a key, or of everything.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Last {
    pub soft: Seq,
    /// The soft purge before that: tells an entry which only the youngest one hit from one that was stale before.
    soft_before: Seq,
    pub hard: Seq,
}

impl Last {
    pub fn take(&mut self, seq: Seq, mode: PurgeMode) {
        match mode {
            PurgeMode::Hard => self.hard = self.hard.max(seq),
            PurgeMode::Soft if seq > self.soft => (self.soft_before, self.soft) = (self.soft, seq),
            PurgeMode::Soft if seq < self.soft => self.soft_before = self.soft_before.max(seq),
            PurgeMode::Soft => {}
        }
    }

    /// The oldest soft purge this entry has not seen, as far as is known: 0 is "long ago".
    pub fn unseen(&self, as_of: Seq) -> Option<Seq> {
        (self.soft > as_of).then_some(if self.soft_before > as_of { 0 } else { self.soft })
    }
}

/// The purged keys of one class. Bounded: what does not fit raises the floor.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Below it purges are forgotten, or everything was purged.
    floor: Last,
    keys: HashMap<KeyHash, Last, BuildHasherDefault<Identity>>,
    keys_max: usize,
}

impl Table {
    pub fn new(keys_max: usize) -> Self {
        Self { floor: Last::default(), keys: HashMap::default(), keys_max: keys_max.max(1) }
    }

    pub fn floor(&self) -> &Last {
        &self.floor
    }

    pub fn last(&self, key: KeyHash) -> Option<&Last> {
        self.keys.get(&key)
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn clear(&mut self) {
        self.floor = Last::default();
        self.keys.clear();
    }

    /// Whether that says anything new.
    pub fn raise(&mut self, floor: Floor) -> bool {
        let is_news = floor.soft > self.floor.soft || floor.hard > self.floor.hard;
        self.floor.take(floor.soft, PurgeMode::Soft);
        self.floor.take(floor.hard, PurgeMode::Hard);
        is_news
    }

    pub fn take_all(&mut self, seq: Seq, mode: PurgeMode) {
        self.floor.take(seq, mode);
    }

    pub fn take(&mut self, seq: Seq, mode: PurgeMode, key: KeyHash) {
        self.keys.entry(key).or_default().take(seq, mode);
        if self.keys.len() > self.keys_max {
            self.forget_oldest();
        }
    }

    /// Forgets the older half of the keys and raises the floor to what was forgotten: softly for soft purges, hard for
    /// hard ones, since a hard purge must never come back as stale.
    fn forget_oldest(&mut self) {
        let mut seqs: Vec<Seq> = self.keys.values().map(|last| last.soft.max(last.hard)).collect();
        seqs.sort_unstable();
        let limit = seqs.get(seqs.len() / 2).copied().unwrap_or(0);
        let floor = &mut self.floor;
        self.keys.retain(|_, last| {
            if last.soft.max(last.hard) > limit {
                return true;
            }
            // Each by itself: the floor's age is that of the youngest only to who missed no other.
            floor.take(last.soft, PurgeMode::Soft);
            floor.take(last.soft_before, PurgeMode::Soft);
            floor.take(last.hard, PurgeMode::Hard);
            false
        });
    }
}
