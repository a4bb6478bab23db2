//! The memory tier: what all share and what is one viewer's own lie in rooms of their own, each bounded in bytes and entries.
//!
//! In one room pages would drive out what a viewer asks for every few minutes, though nobody but origin has it besides; and one
//! who logs in again and again could drive out pages.
use crate::entry::{Entry, viewer_of};
use kv_schemas::surrogate_key::{KeyHash, hash};
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
use std::collections::VecDeque;
use std::sync::Arc;

/// A room is bounded by weight alone, so the share of one entry is the least that any weighs.
#[derive(Clone)]
struct Weight {
    least: u64,
}

impl<B> Weighter<String, Arc<Entry<B>>> for Weight {
    fn weight(&self, _key: &String, entry: &Arc<Entry<B>>) -> u64 {
        entry.weight().max(self.least)
    }
}

type Room<B> = Cache<String, Arc<Entry<B>>, Weight>;

pub(crate) struct Memory<B> {
    shared: Room<B>,
    own: Room<B>,
    /// Whose own was forgotten last, and at which event: an answer that was asked for before that is not taken any more.
    forgotten: VecDeque<(KeyHash, u64)>,
    changes: u64,
}

/// More than write within the time an answer of origin takes.
const FORGOTTEN_MAX: usize = 512;

impl<B> Memory<B> {
    /// `bytes_max` and `entries_max`: of what all share. Of viewers' own as many entries as have their least share of
    /// `own_bytes_max`.
    pub fn new(entries_max: usize, bytes_max: u64, own_bytes_max: u64) -> Self {
        let least = bytes_max.checked_div(u64::try_from(entries_max).unwrap_or(u64::MAX)).unwrap_or(0);
        let own_entries = own_bytes_max.checked_div(least).and_then(|entries| usize::try_from(entries).ok());
        let weight = Weight { least };
        Self {
            shared: Cache::with_weighter(entries_max, bytes_max, weight.clone()),
            own: Cache::with_weighter(own_entries.unwrap_or(entries_max), own_bytes_max, weight),
            forgotten: VecDeque::new(),
            changes: 0,
        }
    }

    fn room(&self, key: &str) -> &Room<B> {
        if viewer_of(key).is_some() { &self.own } else { &self.shared }
    }

    /// The room to change something in.
    fn room_mut(&mut self, key: &str) -> &mut Room<B> {
        self.changes = self.changes.wrapping_add(1);
        if viewer_of(key).is_some() { &mut self.own } else { &mut self.shared }
    }

    /// How often something changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The entry of a key, which counts as asked for.
    pub fn get(&self, key: &str) -> Option<&Arc<Entry<B>>> {
        self.room(key).get(key)
    }

    /// The same for who only looks.
    pub fn peek(&self, key: &str) -> Option<&Arc<Entry<B>>> {
        self.room(key).peek(key)
    }

    pub fn insert(&mut self, entry: Arc<Entry<B>>) {
        if let Some(viewer) = viewer_of(&entry.key).map(hash) {
            let asked = entry.origin_confirmed.map(|at| at.event);
            let is_older = |(whose, event): &(KeyHash, u64)| *whose == viewer && asked < Some(*event);
            if self.forgotten.iter().any(is_older) {
                return;
            }
        }
        self.room_mut(&entry.key).insert(entry.key.clone(), entry);
    }

    pub fn remove(&mut self, key: &str) {
        self.room_mut(key).remove(key);
    }

    /// Forgets what is one viewer's own, and what is under way of it.
    pub fn forget_viewer(&mut self, viewer: &str, event: u64) {
        self.changes = self.changes.wrapping_add(1);
        self.own.retain(|key, _| viewer_of(key) != Some(viewer));
        if self.forgotten.len() >= FORGOTTEN_MAX {
            self.forgotten.pop_front();
        }
        self.forgotten.push_back((hash(viewer), event));
    }

    /// Keeps what `keeps` says, by the keys.
    pub fn retain(&mut self, keeps: impl Fn(&str) -> bool) {
        self.changes = self.changes.wrapping_add(1);
        self.shared.retain(|key, _| keeps(key));
        self.own.retain(|key, _| keeps(key));
    }

    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry<B>>> {
        self.shared.iter().chain(self.own.iter()).map(|(_, entry)| entry)
    }

    pub fn len(&self) -> usize {
        self.shared.len().saturating_add(self.own.len())
    }

    /// Bytes of what all share, and of viewers' own.
    pub fn weights(&self) -> (u64, u64) {
        (self.shared.weight(), self.own.weight())
    }
}
