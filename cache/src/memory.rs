//! The memory tier: what all share and what is one viewer's own lie in rooms of their own, each bounded in bytes and entries.
//!
//! In one room pages would drive out what a viewer asks for every few minutes, though nobody but origin has it besides; and one
//! who logs in again and again could drive out pages.
use crate::entry::{Entry, viewer_of};
use quick_cache::Weighter;
use quick_cache::unsync::Cache;
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
    changes: u64,
}

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
        self.room_mut(&entry.key).insert(entry.key.clone(), entry);
    }

    pub fn remove(&mut self, key: &str) {
        self.room_mut(key).remove(key);
    }

    /// Keeps of what is viewers' own what `keeps` says.
    pub fn retain_own(&mut self, keeps: impl Fn(&str) -> bool) {
        self.changes = self.changes.wrapping_add(1);
        self.own.retain(|key, _| keeps(key));
    }

    /// Keeps of all what `keeps` says.
    pub fn retain(&mut self, keeps: impl Fn(&str) -> bool) {
        self.shared.retain(|key, _| keeps(key));
        self.retain_own(keeps);
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
