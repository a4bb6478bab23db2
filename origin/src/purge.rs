//! Delivering the purge log to the edge's journal: at least once, in order, with backoff.
//!
//! The journal says what it needs next, so nothing here has to be remembered across a crash; what is kept of the
//! journal's answers is for people. A purge is on the wire milliseconds after its commit.
use crate::edges::{Call, CallError, Client};
use crate::error::StoreError;
use crate::keys::Keys;
use crate::store::Store;
use kv_schemas::claims::Scope;
use kv_schemas::{AsOf, LogId, Purge, PurgeAck, PurgeBatch, Seq, Unannounced};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const BATCH_PURGES: u32 = 256;
const BATCH_KEYS: usize = 5_000;
const BATCH_BYTES: usize = 1024 * 1024;
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Even with nothing to deliver, the journal is asked this often: it may have lost its state.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// What the journal has confirmed is noted this often at most: each note waits for the writer, and for the disk.
pub const NOTE_PAUSE: Duration = Duration::from_millis(150);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
enum DeliveryError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the journal acknowledged purges of another log, {0}")]
    OtherLog(LogId),
    #[error("the journal holds the purge log {0} to be replaced by another")]
    Retired(LogId),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub struct Dispatcher {
    store: Store,
    client: Client,
    edge: usize,
    /// What the journal needs next, as far as it said.
    next_seq: Option<Seq>,
    /// What the journal, which does not hold this log, wants to see in the announcement of it; 0: nothing.
    challenge: u64,
    /// The youngest purge that was seen in the database, with its mark.
    seen: Option<(AsOf, u64)>,
    /// Commits were found to be lost, and nothing was delivered since.
    found_loss: bool,
    /// A log of which it was said that the journal takes nothing of it any more.
    retired: Option<LogId>,
    /// How far the journal has confirmed, for [`note`].
    acked: watch::Sender<Option<AsOf>>,
}

impl Dispatcher {
    /// `edges`: base URLs, tried in turn; each leads to the same journal.
    pub fn new(store: Store, keys: Arc<Keys>, edges: Vec<String>) -> reqwest::Result<Self> {
        let client = Client::new(keys, &edges, CALL_TIMEOUT)?;
        let acked = watch::Sender::new(None);
        let (next_seq, challenge, seen, found_loss, retired) = Default::default();
        Ok(Self { store, client, edge: 0, next_seq, challenge, seen, found_loss, retired, acked })
    }

    /// Runs until `stop` turns true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        if self.client.edges().is_empty() {
            return;
        }
        let noting = tokio::spawn(note(self.store.clone(), self.acked.subscribe()));
        self.deliver_until(&mut stop).await;
        // What was confirmed last is noted yet.
        drop(self);
        let _ = noting.await;
    }

    async fn deliver_until(&mut self, stop: &mut watch::Receiver<bool>) {
        let mut backoff = BACKOFF_MIN;
        loop {
            let pause = match self.deliver().await {
                Ok(()) => {
                    metrics::gauge!("origin_log_retired").set(0.0);
                    if backoff > BACKOFF_MIN {
                        tracing::info!("purges are delivered again");
                    }
                    backoff = BACKOFF_MIN;
                    None
                }
                Err(error) => {
                    metrics::counter!("origin_purge_delivery_failures_total").increment(1);
                    self.tell_retired(&error);
                    if backoff == BACKOFF_MIN {
                        tracing::warn!(%error, "purges are not delivered; trying again");
                    } else {
                        tracing::debug!(%error, "purges are not delivered; trying again");
                    }
                    self.edge = (self.edge + 1) % self.client.edges().len();
                    let pause = jittered(backoff);
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    Some(pause)
                }
            };
            let rest = async {
                match (pause, &self.seen) {
                    (None, Some((seen, _))) => self.store.await_news(&self.store.committed, seen, HEARTBEAT).await,
                    // While the edge is away a new commit is no reason to hurry.
                    (pause, _) => tokio::time::sleep(pause.unwrap_or(HEARTBEAT)).await,
                }
            };
            tokio::select! {
                _ = stop.changed() => return,
                () = rest => {}
            }
        }
    }

    /// Delivers until the journal has everything.
    async fn deliver(&mut self) -> Result<(), DeliveryError> {
        loop {
            let mut snapshot = self.store.snapshot().await?;
            let head = snapshot.as_of.clone();
            // The edge may have been answered out of what is lost now, though its journal never had it.
            let is_told = match &self.seen {
                Some((seen, mark)) if seen.log_id == head.log_id => {
                    snapshot.has_told((&seen.log_id, seen.seq, *mark)).await?
                }
                _ => true,
            };
            if snapshot.lacks || !is_told {
                drop(snapshot);
                if self.found_loss {
                    // Were it that connections lead to databases of two states, this would have no end.
                    tokio::time::sleep(BACKOFF_MAX).await;
                }
                self.found_loss = true;
                self.replace_log(&head, "the database has lost commits that were seen").await?;
                continue;
            }
            self.seen = Some((head.clone(), snapshot.mark_of(head.seq).await?));
            // Before anything can fail: what is not delivered is what is between this and what was acknowledged.
            metrics::gauge!("origin_purge_head").set(head.seq as f64);
            if self.next_seq.is_none() && self.challenge == 0 {
                // Until the journal says what it has, what it last said: an alert would wait for ever for what is not there.
                metrics::gauge!("origin_purge_delivered").set(snapshot.delivered().await? as f64);
            }
            // Not knowing what the journal needs, an empty batch at the end of the log asks for it.
            let first_seq = self.next_seq.unwrap_or(head.seq + 1).clamp(1, head.seq + 1);
            let mut purges = snapshot.purges_after(first_seq - 1, BATCH_PURGES).await?;
            if purges.first().is_some_and(|first| first.seq > first_seq) {
                drop(snapshot);
                self.replace_log(&head, "the edge needs purges that are kept no longer").await?;
                continue;
            }
            let replaces = snapshot.replaced_logs().await?;
            let after_mark = snapshot.mark_of(first_seq - 1).await?;
            drop(snapshot);
            purges.truncate(fitting(&purges));
            let challenge = self.challenge;
            let batch = PurgeBatch { log_id: head.log_id.clone(), replaces, first_seq, after_mark, challenge, purges };
            let ack = match self.send(&batch).await {
                // What the edge holds under these numbers is another history of this log: the database was put back.
                Err(CallError::Refused { status: 409, body }) if body.contains(":log-forked\"") => {
                    self.replace_log(&head, "the edge holds another history of this purge log").await?;
                    continue;
                }
                // Another log has taken this one's place. Whether this is the database that viewers are to be shown, or one
                // that was forgotten somewhere, only people know: it takes the place back by nothing it does itself.
                Err(CallError::Refused { status: 409, body }) if body.contains(":log-retired\"") => {
                    if self.store.snapshot().await?.as_of.log_id != head.log_id {
                        // It has a new identity by now.
                        continue;
                    }
                    return Err(DeliveryError::Retired(head.log_id));
                }
                // The journal has lost this log, or never had it. It is announced from a snapshot taken after this answer,
                // so that nothing the journal ever acknowledged lies beyond it.
                Err(CallError::Refused { status: 409, body })
                    if Unannounced::read(&body).is_some_and(|asked| asked.challenge != self.challenge) =>
                {
                    self.challenge = Unannounced::read(&body).map_or(0, |asked| asked.challenge);
                    self.next_seq = None;
                    continue;
                }
                answer => answer?,
            };
            self.challenge = 0;
            if ack.log_id != head.log_id {
                return Err(DeliveryError::OtherLog(ack.log_id));
            }
            if ack.next_seq > head.seq + 1 {
                self.went_back(&ack).await?;
                continue;
            }
            self.next_seq = Some(ack.next_seq);
            self.found_loss = false;
            let acked = AsOf::new(ack.log_id, ack.next_seq - 1);
            metrics::gauge!("origin_purge_delivered").set(acked.seq as f64);
            let has_all = acked.seq >= head.seq;
            if ack.accepted > 0 || batch.purges.is_empty() {
                self.acked.send_replace(Some(acked));
            }
            if has_all {
                return Ok(());
            }
        }
    }

    /// Once for each log: it stays so until somebody does something.
    fn tell_retired(&mut self, error: &DeliveryError) {
        let DeliveryError::Retired(log_id) = error else { return };
        metrics::gauge!("origin_log_retired").set(1.0);
        if self.retired.as_ref() != Some(log_id) {
            tracing::error!(
                "{error}, and the edge takes no purges from here: if this database was put back and is the one to be shown, \
                 give its log a new identity with `origin log renew`; if it is an old one, end this service"
            );
            self.retired = Some(log_id.clone());
        }
    }

    /// The edge has seen more of this log than the database has: the database was put back. Numbers would be used a
    /// second time and old copies pass for new, so the log gets another identity.
    async fn went_back(&mut self, ack: &PurgeAck) -> Result<(), StoreError> {
        let as_of = self.store.snapshot().await?.as_of;
        // A commit between the batch and its answer is no step back.
        if ack.next_seq <= as_of.seq + 1 {
            return Ok(());
        }
        self.replace_log(&as_of, "the edge has seen more of this purge log than the database holds").await
    }

    /// The database was put back, and numbers were or would be used a second time.
    async fn replace_log(&mut self, old: &AsOf, why: &str) -> Result<(), StoreError> {
        match self.store.replace_log_of(&old.log_id).await? {
            Some(new) => tracing::error!(%old, %new, "{why}; the log gets a new identity, which purges everything"),
            None => tracing::warn!(%old, "{why}; another process has given the log a new identity"),
        }
        self.next_seq = None;
        Ok(())
    }

    async fn send(&self, batch: &PurgeBatch) -> Result<PurgeAck, CallError> {
        let edge = self.client.edges().get(self.edge).ok_or(CallError::NoEdge)?;
        self.client.call(edge, &Call::post("/__edge/purges", Scope::PurgeBatch, batch)?).await
    }
}

/// Notes how far the journal has confirmed, until nobody says it any more. Beside the deliveries, which a writer that is held for
/// long would hold up, and would make look as if the edge were away.
async fn note(store: Store, mut acked: watch::Receiver<Option<AsOf>>) {
    let mut fails = false;
    while acked.changed().await.is_ok() {
        let Some(as_of) = acked.borrow_and_update().clone() else { continue };
        match note_once(&store, &as_of).await {
            Ok(()) => fails = false,
            // The journal is asked again in a moment, and says it again.
            Err(error) if !fails => {
                tracing::warn!(%error, "how far purges are delivered is not noted; trying again");
                fails = true;
            }
            Err(error) => tracing::debug!(%error, "how far purges are delivered is not noted; trying again"),
        }
        tokio::time::sleep(NOTE_PAUSE).await;
    }
}

async fn note_once(store: &Store, acked: &AsOf) -> Result<(), StoreError> {
    let mut snapshot = store.snapshot().await?;
    let is_noted = snapshot.as_of.log_id != acked.log_id || snapshot.delivered().await? == acked.seq;
    drop(snapshot);
    if is_noted { Ok(()) } else { store.set_delivered(acked).await }
}

/// How many of these purges go into one batch; at least one, which always fits by itself.
fn fitting(purges: &[Purge]) -> usize {
    let (mut keys, mut bytes) = (0, 0);
    let fits = purges.iter().take_while(|purge| {
        keys += purge.keys.len();
        // In JSON a byte of a key becomes two at the most, one of a note six.
        let notes = purge.reason.iter().chain(&purge.actor).map(String::len).sum::<usize>();
        bytes += 200 + 6 * notes + purge.keys.iter().map(|key| 3 + 2 * key.as_str().len()).sum::<usize>();
        keys <= BATCH_KEYS && bytes <= BATCH_BYTES
    });
    fits.count().max(1)
}

/// Between half and the whole of `backoff`, so that many do not come back at once.
fn jittered(backoff: Duration) -> Duration {
    let mut random = [0u8; 1];
    if getrandom::fill(&mut random).is_err() {
        return backoff;
    }
    backoff.mul_f64(0.5 + f64::from(random[0]) / 510.0)
}
