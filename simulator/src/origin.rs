//! The database: commits in one order, replicas that lag, backups that are restored.
use crate::DOC_KEYS;
use kv_schemas::purge::REPLACED_LOGS_MAX;
use kv_schemas::surrogate_key::{SurrogateKey, url_key};
use kv_schemas::{AsOf, LogId, Purge, PurgeBatch, PurgeMode, Seq};

/// Identifies what a write left behind; later writes have larger ones. 0: as it was at the beginning.
pub type WriteId = u64;

/// One row of the purge log, and the write it belongs to.
#[derive(Clone, Debug)]
pub struct Commit {
    pub keys: Vec<usize>,
    /// The document a write through an edge was to: its URL is purged.
    pub url: Option<usize>,
    pub all: bool,
    pub mode: PurgeMode,
    /// None: a purge by hand, which changes nothing.
    pub write: Option<WriteId>,
    /// The random number of its row.
    pub mark: u64,
}

impl Default for Commit {
    /// Hard, as a purge is if nobody says otherwise.
    fn default() -> Self {
        Self { keys: Vec::new(), url: None, all: false, mode: PurgeMode::Hard, write: None, mark: 0 }
    }
}

impl Commit {
    pub fn touches(&self, doc: usize) -> bool {
        self.all || self.url == Some(doc) || DOC_KEYS[doc].iter().any(|key| self.keys.contains(key))
    }

    pub fn surrogate_keys(&self) -> Vec<SurrogateKey> {
        self.keys.iter().map(|index| key(*index)).chain(self.url.map(url)).collect()
    }
}

/// Keys of every class, some of documents that have others too.
pub fn key(index: usize) -> SurrogateKey {
    let class = match index {
        1 | 4 => "viewer:",
        3 | 6 => "session:",
        _ => "",
    };
    SurrogateKey::new(format!("{class}k{index}")).expect("a legal key")
}

/// What every answer to a request for this document can be purged by.
pub fn url(doc: usize) -> SurrogateKey {
    url_key(&format!("/{doc}"))
}

fn log_id_of(era: u32) -> LogId {
    LogId::new(format!("log-{era}")).expect("a legal id")
}

pub struct Database {
    era: u32,
    /// The purge of `commits[n]` has seq n + 1.
    pub commits: Vec<Commit>,
    /// How far each replica has come.
    pub replicas: Vec<Seq>,
    writes: WriteId,
    marks: u64,
}

impl Database {
    pub fn new(replicas: usize) -> Self {
        Self { era: 0, commits: Vec::new(), replicas: vec![0; replicas], writes: 0, marks: 0 }
    }

    pub fn log_id(&self) -> LogId {
        log_id_of(self.era)
    }

    /// Identities the log had before. A restored database knows them: its backup carries the one it was made from.
    pub fn past(&self) -> Vec<LogId> {
        (0..self.era).rev().take(REPLACED_LOGS_MAX).map(log_id_of).collect()
    }

    pub fn batch(&self, first_seq: Seq, count: usize) -> PurgeBatch {
        let purges = self.purges_from(first_seq, count);
        let before = first_seq.checked_sub(2).and_then(|index| self.commits.get(index as usize));
        let after_mark = before.map_or(0, |commit| commit.mark);
        PurgeBatch { log_id: self.log_id(), replaces: self.past(), first_seq, after_mark, challenge: 0, purges }
    }

    pub fn head(&self) -> Seq {
        self.commits.len() as Seq
    }

    /// Commits this, as a write if `is_write`.
    pub fn commit(&mut self, commit: Commit, is_write: bool) -> Commit {
        let write = is_write.then(|| {
            self.writes += 1;
            self.writes
        });
        self.marks += 1;
        let commit = Commit { write, mark: self.marks, ..commit };
        self.commits.push(commit.clone());
        commit
    }

    /// What a document holds in a state.
    pub fn content(&self, doc: usize, seq: Seq) -> WriteId {
        let until = self.commits.iter().take(seq as usize).rev();
        until.filter(|commit| commit.touches(doc)).find_map(|commit| commit.write).unwrap_or(0)
    }

    /// A state a reader may be given: any replica's, or the primary's if none has what is demanded. `None`: not even
    /// that has it.
    pub fn read_at(&self, random: &mut fastrand::Rng, demanded: Option<&AsOf>) -> Option<Seq> {
        let least = match demanded {
            None => 0,
            Some(min) if min.log_id == self.log_id() => min.seq,
            Some(_) => return None,
        };
        let mut able: Vec<Seq> = self.replicas.iter().copied().filter(|seq| *seq >= least).collect();
        able.extend((self.head() >= least).then_some(self.head()));
        random.choice(able)
    }

    /// An older copy of the file takes the database's place, and nobody says so.
    pub fn put_back(&mut self, to: Seq) {
        self.commits.truncate(to as usize);
        for replica in &mut self.replicas {
            *replica = (*replica).min(to);
        }
    }

    /// The log gets another identity, the data stay.
    pub fn replace_log(&mut self) {
        self.era += 1;
    }

    fn purges_from(&self, first: Seq, count: usize) -> Vec<Purge> {
        let rows = self.commits.iter().enumerate().skip(first.saturating_sub(1) as usize).take(count);
        rows.map(|(index, commit)| Purge {
            seq: index as Seq + 1,
            keys: commit.surrogate_keys(),
            all: commit.all,
            mode: commit.mode,
            reason: None,
            actor: None,
            committed_at_ms: 0,
            mark: commit.mark,
        })
        .collect()
    }
}
