//! What isolates and the purge journal say to each other, once a lease from every location.
//!
//! ```text
//! query = number format (3) | text log_id (empty: none) | number since | text location
//! delta = number format (3) | text log_id | number epoch | number at_ms | number head
//!       | ( number floor_soft | number floor_hard ) of content, session, viewer
//!       | number until | number purges_count | ( number seq | number flags | number keys_count | hash* )*
//! flags = 1 if hard | 2 if all
//! shared = query | delta | number asking_ms
//! ```
//! Numbers, texts and hashes as in [`crate::wire`].
use crate::as_of::{LogId, Seq};
use crate::key_class::PerClass;
use crate::purge::PurgeMode;
use crate::surrogate_key::KeyHash;
use crate::wire::{Reader, put_hashes, put_number, put_text};

/// What an isolate asks the journal: everything after the state it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalQuery {
    /// The log the isolate knows; another one, or none, makes `since` meaningless.
    pub log_id: Option<LogId>,
    /// The highest `seq` this isolate has applied. Reported, it is also the receipt of its location.
    pub since: Seq,
    /// Where the isolate runs (`request.cf.colo`).
    pub location: String,
}

/// When the journal spoke, by its own clock. Only times of one epoch are compared, and only with each other: an isolate
/// that asked once knows by them how old an answer is that another isolate of its location was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalClock {
    /// Random, made when the object starts.
    pub epoch: u64,
    pub at_ms: u64,
}

/// What was read below these states counts as purged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    pub soft: Seq,
    pub hard: Seq,
}

impl Floor {
    /// Everything up to `seq` counts as hard purged.
    pub fn hard(seq: Seq) -> Self {
        Self { soft: 0, hard: seq }
    }

    pub fn raise(&mut self, to: Floor) {
        self.soft = self.soft.max(to.soft);
        self.hard = self.hard.max(to.hard);
    }
}

/// The journal's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalDelta {
    pub log_id: LogId,
    pub clock: JournalClock,
    /// Highest `seq` the journal holds.
    pub head: Seq,
    /// For what has keys of a class (content: for everything); details below are forgotten.
    pub floors: PerClass<Floor>,
    /// Highest `seq` this answer reaches; below `head` there is more to ask for.
    pub until: Seq,
    pub purges: Vec<DeltaPurge>,
}

/// One purge as isolates need it: hashes in place of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaPurge {
    pub seq: Seq,
    pub mode: PurgeMode,
    pub all: bool,
    pub keys: Vec<KeyHash>,
}

/// An answer of the journal as isolates of one location share it, with the question it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedSync {
    pub asked: JournalQuery,
    pub delta: JournalDelta,
    /// When one of them began to ask for what is newer, by the journal's clock; 0: none does.
    pub asking_ms: u64,
}

impl SharedSync {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = [self.asked.encode(), self.delta.encode()].concat();
        put_number(&mut bytes, self.asking_ms);
        bytes
    }

    /// `None`: not what this version writes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (asked, delta) = (JournalQuery::read(&mut reader)?, JournalDelta::read(&mut reader)?);
        let shared = Self { asked, delta, asking_ms: reader.number()? };
        reader.end()?;
        Some(shared)
    }
}

/// Isolates and journals of two versions do not understand each other; then nothing counts as fresh.
const FORMAT: u64 = 3;
const HARD: u64 = 1;
const ALL: u64 = 2;

impl JournalQuery {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_number(&mut bytes, FORMAT);
        put_text(&mut bytes, self.log_id.as_ref().map_or("", LogId::as_str));
        put_number(&mut bytes, self.since);
        put_text(&mut bytes, &self.location);
        bytes
    }

    /// `None`: not what this version writes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let query = Self::read(&mut reader)?;
        reader.end()?;
        Some(query)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.number().filter(|format| *format == FORMAT)?;
        let log_id = match reader.text()? {
            "" => None,
            text => Some(LogId::new(text).ok()?),
        };
        Some(Self { log_id, since: reader.number()?, location: reader.text()?.to_string() })
    }
}

impl JournalDelta {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_number(&mut bytes, FORMAT);
        put_text(&mut bytes, self.log_id.as_str());
        let JournalClock { epoch, at_ms } = self.clock;
        for number in [epoch, at_ms, self.head] {
            put_number(&mut bytes, number);
        }
        for floor in self.floors.iter() {
            put_number(&mut bytes, floor.soft);
            put_number(&mut bytes, floor.hard);
        }
        put_number(&mut bytes, self.until);
        put_number(&mut bytes, self.purges.len() as u64);
        for purge in &self.purges {
            let hard = if purge.mode == PurgeMode::Hard { HARD } else { 0 };
            let all = if purge.all { ALL } else { 0 };
            put_number(&mut bytes, purge.seq);
            put_number(&mut bytes, hard | all);
            put_hashes(&mut bytes, &purge.keys);
        }
        bytes
    }

    /// `None`: not what this version writes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let delta = Self::read(&mut reader)?;
        reader.end()?;
        Some(delta)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        reader.number().filter(|format| *format == FORMAT)?;
        let log_id = LogId::new(reader.text()?).ok()?;
        let clock = JournalClock { epoch: reader.number()?, at_ms: reader.number()? };
        let head = reader.number()?;
        let mut floors = PerClass::<Floor>::default();
        for floor in floors.iter_mut() {
            *floor = Floor { soft: reader.number()?, hard: reader.number()? };
        }
        let until = reader.number()?;
        let mut purges = Vec::new();
        for _ in 0..reader.number()? {
            let (seq, flags) = (reader.number()?, reader.number()?);
            if flags > HARD | ALL {
                return None;
            }
            let keys = reader.hashes()?;
            let mode = if flags & HARD == 0 { PurgeMode::Soft } else { PurgeMode::Hard };
            purges.push(DeltaPurge { seq, mode, all: flags & ALL != 0, keys });
        }
        Some(Self { log_id, clock, head, floors, until, purges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn delta() -> JournalDelta {
        let purges = vec![
            DeltaPurge { seq: 7, mode: PurgeMode::Soft, all: false, keys: vec![1, u64::MAX] },
            DeltaPurge { seq: 8, mode: PurgeMode::Hard, all: true, keys: vec![] },
        ];
        let clock = JournalClock { epoch: u64::MAX, at_ms: 1_700_000_000_000 };
        let log_id = LogId::new("log").unwrap();
        let floors =
            PerClass { content: Floor { soft: 2, hard: 1 }, session: Floor::hard(300), viewer: Floor::hard(4) };
        JournalDelta { log_id, clock, head: 300, floors, until: 8, purges }
    }

    #[test]
    fn what_is_written_is_read_back_and_every_truncation_noticed() {
        let bytes = delta().encode();
        assert_eq!(JournalDelta::decode(&bytes), Some(delta()));
        let query = JournalQuery { log_id: None, since: 3, location: "FRA".into() };
        assert_eq!(JournalQuery::decode(&query.encode()), Some(query.clone()));
        for end in 0..bytes.len() {
            assert_eq!(JournalDelta::decode(&bytes[..end]), None, "cut at {end}");
        }
        for end in 0..query.encode().len() {
            assert_eq!(JournalQuery::decode(&query.encode()[..end]), None, "cut at {end}");
        }
        assert_eq!(JournalDelta::decode(&[bytes, vec![0]].concat()), None, "too long");
        let shared = SharedSync { asked: query, delta: delta(), asking_ms: 1_700_000_000_001 };
        let bytes = shared.encode();
        assert_eq!(SharedSync::decode(&bytes), Some(shared));
        for end in 0..bytes.len() {
            assert_eq!(SharedSync::decode(&bytes[..end]), None, "cut at {end}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_whatever_it_is(
            log in "[a-z0-9-]{1,64}", location in ".{0,9}", numbers: [u64; 6], floors: [(u64, u64); 3],
            purges in prop::collection::vec((any::<u64>(), any::<bool>(), any::<bool>(), any::<Vec<u64>>()), 0..4),
        ) {
            let log_id = LogId::new(log).unwrap();
            let [content, session, viewer] = floors.map(|(soft, hard)| Floor { soft, hard });
            let purge = |(seq, is_hard, all, keys)| {
                DeltaPurge { seq, mode: if is_hard { PurgeMode::Hard } else { PurgeMode::Soft }, all, keys }
            };
            let [epoch, at_ms, head, until, since, asking_ms] = numbers;
            let asked = JournalQuery { log_id: Some(log_id.clone()), since, location };
            let delta = JournalDelta {
                log_id,
                clock: JournalClock { epoch, at_ms },
                head,
                floors: PerClass { content, session, viewer },
                until,
                purges: purges.into_iter().map(purge).collect(),
            };
            let shared = SharedSync { asked, delta, asking_ms };
            prop_assert_eq!(JournalQuery::decode(&shared.asked.encode()), Some(shared.asked.clone()));
            prop_assert_eq!(JournalDelta::decode(&shared.delta.encode()), Some(shared.delta.clone()));
            prop_assert_eq!(SharedSync::decode(&shared.encode()), Some(shared));
        }

        /// A purge that is left out is a page that is served though it was purged.
        #[test]
        fn damaged_bytes_are_refused_or_read_as_what_they_say(
            at: prop::sample::Index, byte: u8, cut in 0_usize..3, grow: bool,
        ) {
            let damaged = |mut bytes: Vec<u8>| {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                if grow {
                    bytes.insert(at, byte);
                }
                bytes.drain(at..bytes.len().min(at + cut));
                bytes
            };
            let asked = JournalQuery { log_id: Some(LogId::new("log").unwrap()), since: 300, location: "FRA".into() };
            let shared = SharedSync { asked: asked.clone(), delta: delta(), asking_ms: 7 };
            let all = [damaged(asked.encode()), damaged(delta().encode()), damaged(shared.encode())];
            let again = [
                JournalQuery::decode(&all[0]).map(|read| read.encode()),
                JournalDelta::decode(&all[1]).map(|read| read.encode()),
                SharedSync::decode(&all[2]).map(|read| read.encode()),
            ];
            for (bytes, again) in all.into_iter().zip(again) {
                // A number may be spelt longer than it must be; nothing else says the same in another way.
                prop_assert!(again.is_none_or(|again| again == bytes || again.len() < bytes.len()), "{:?}", bytes);
            }
        }
    }
}
