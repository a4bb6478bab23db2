//! Hits that need nothing but memory: what is asked for again and again has a slot, by which it is found and judged
//! without a string or an allocation.
//!
//! Nothing is decided differently here. A slot remembers where its entry lies and at which version of the view the rule
//! found no purge of it; as soon as memory or the view has changed, both are asked again. Whatever is not a plain fresh
//! hit has no answer here, and goes the way of all requests through [`crate::Lookup`].
use crate::directives::RequestDirectives;
use crate::encoding::is_packed;
use crate::engine::Engine;
use crate::entry::Entry;
use crate::lookup::{Demands, Use, assess};
use crate::view::{Knowledge, Verdict};
use std::sync::{Arc, Weak};

/// More slots than this are not given out; the caller starts over.
pub const SLOTS_MAX: u32 = 4_096;

/// Requests that are answered alike: of one key, from clients that take gzip or that do not, without demands of their own.
#[derive(Debug)]
struct Slot<B> {
    key: String,
    takes_packed: bool,
    /// Weak: a slot keeps nothing in memory that was evicted.
    entry: Weak<Entry<B>>,
    /// Memory had changed so often when the entry was looked up.
    memory_changes: u64,
    /// The version of the view at which the rule cleared this entry.
    cleared_at: Option<u64>,
}

/// What a hit hangs on besides the clock. While it stays, and until [`Engine::holds_until`], what was answered may be answered
/// again without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Of the view: every purge, floor and change of log moves it.
    view_version: u64,
    view_confirmed_ms: Option<u64>,
    memory_changes: u64,
}

#[derive(Debug)]
pub(crate) struct Slots<B>(Vec<Slot<B>>);

impl<B> Default for Slots<B> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<B> Slots<B> {
    fn get(&self, slot: u32) -> Option<&Slot<B>> {
        self.0.get(usize::try_from(slot).ok()?)
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|slot| slot.key.as_str())
    }
}

/// Neither a marker of variants nor a part, nor an answer whose form is made for each client.
fn is_plain<B>(entry: &Entry<B>) -> bool {
    !entry.is_marker() && entry.head.status != 206 && !entry.head.fields.has("set-cookie")
}

impl<B: Clone + Default> Engine<B> {
    /// A slot for requests of this key; `None` if there are too many.
    pub fn slot(&mut self, key: &str, takes_packed: bool) -> Option<u32> {
        let slots = &mut self.slots.0;
        let number = u32::try_from(slots.len()).ok().filter(|number| *number < SLOTS_MAX)?;
        slots.push(Slot { key: key.into(), takes_packed, entry: Weak::new(), memory_changes: 0, cleared_at: None });
        Some(number)
    }

    /// All slots are given up.
    pub fn forget_slots(&mut self) {
        self.slots.0.clear();
    }

    /// The entry that answers a request of this slot, if that is a fresh hit in memory with nothing to be done behind it.
    pub fn hit(&mut self, slot: u32, now_ms: u64) -> Option<Arc<Entry<B>>> {
        // Past its lease the view is to be synced, by the lookup.
        if self.knowledge(now_ms) != Knowledge::Leased {
            return None;
        }
        let number = usize::try_from(slot).ok()?;
        let (memory, changes) = (&self.memory, self.memory.changes());
        let slot = self.slots.0.get_mut(number)?;
        let held = slot.entry.upgrade().filter(|_| slot.memory_changes == changes);
        let entry = match held {
            Some(entry) => entry,
            None => {
                // Asking memory is also what tells it that the entry is in use.
                let entry = memory.get(&slot.key)?;
                if !std::ptr::eq(slot.entry.as_ptr(), Arc::as_ptr(entry)) {
                    slot.entry = Arc::downgrade(entry);
                    slot.cleared_at = None;
                }
                slot.memory_changes = changes;
                Arc::clone(entry)
            }
        };
        let version = self.view.version();
        let cleared = slot.cleared_at == Some(version);
        if !cleared {
            if !is_plain(&entry) || (!slot.takes_packed && is_packed(&entry.head.fields)) {
                return None;
            }
            if self.view.judge(entry.as_of.as_ref(), &entry.keys) != Verdict::Clear {
                return None;
            }
            slot.cleared_at = Some(version);
        }
        self.is_fresh(&entry, Verdict::Clear, now_ms).then_some(entry)
    }

    /// For a request that demands nothing.
    fn is_fresh(&self, entry: &Entry<B>, verdict: Verdict, now_ms: u64) -> bool {
        let demands = Demands { directives: &RequestDirectives::default(), min_as_of: None, arrived_ms: Some(now_ms) };
        assess(self, entry, verdict, &demands, now_ms) == Use::Fresh
    }

    /// What KV had, if anything, for a request that read it before anything else ([`Self::reads_kv_first`]): the answer, if that
    /// is a fresh hit with nothing to be done behind it; memory keeps it then. It needed no mark: whoever came meanwhile has
    /// read KV as well. Anything else is given back and goes the way of all requests ([`crate::Lookup::with_kv`]).
    pub fn hit_in_kv(
        &mut self,
        key: &str,
        found: Option<Entry<B>>,
        now_ms: u64,
    ) -> Result<Arc<Entry<B>>, Option<Box<Entry<B>>>> {
        let Some(entry) = found else { return Err(None) };
        // What somebody fetched while it was read may be of a later state.
        let is_hit = entry.key == key
            && self.knowledge(now_ms) == Knowledge::Leased
            && !self.has(key)
            && is_plain(&entry)
            && self.is_fresh(&entry, self.view.judge(entry.as_of.as_ref(), &entry.keys), now_ms);
        if !is_hit {
            return Err(Some(Box::new(entry)));
        }
        let entry = Arc::new(entry);
        self.keep_fresh(Arc::clone(&entry));
        Ok(entry)
    }

    pub fn state(&self) -> State {
        State {
            view_version: self.view.version(),
            view_confirmed_ms: self.view.confirmed_ms(),
            memory_changes: self.memory.changes(),
        }
    }

    /// From when on an entry that [`Self::hit`] found is to be looked at again, though nothing else has changed: its lifetime
    /// is over then, or the view's lease.
    pub fn holds_until(&self, entry: &Entry<B>) -> u64 {
        let lease_ends_ms = self.view.confirmed_ms().map_or(0, |at_ms| at_ms.saturating_add(self.config.lease_ms));
        lease_ends_ms.saturating_add(1).min(entry.policy.fresh_until_ms())
    }

    /// Whether memory has nothing for a slot.
    pub fn lacks(&self, slot: u32) -> bool {
        self.slots.get(slot).is_some_and(|slot| !self.has(&slot.key))
    }

    /// Whether memory has something under a key.
    pub fn has(&self, key: &str) -> bool {
        self.memory.peek(key).is_some()
    }

    /// Whether a slot's entry is packed, as of the last time it was asked for.
    pub fn is_packed(&self, slot: u32) -> bool {
        self.slots.get(slot).and_then(|slot| slot.entry.upgrade()).is_some_and(|entry| is_packed(&entry.head.fields))
    }
}
