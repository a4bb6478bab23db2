//! What the edge says of a purge that is under way: `GET /__edge/purges/{seq}` and `GET /__edge/purges`.
use crate::as_of::{LogId, Seq};
use crate::purge::is_zero;
use serde::{Deserialize, Serialize};

/// How far a purge has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PurgeState {
    /// The edge's journal does not have it yet.
    Pending,
    /// Durable in the journal; some location has not confirmed it, or none was heard from.
    Accepted,
    /// Every location that was heard from of late has it, and no isolate of theirs can still be without it.
    Applied,
}

impl PurgeState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Applied => "applied",
        }
    }
}

/// Where one location stands with a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LocationState {
    /// It was heard from and has not confirmed the purge.
    Pending,
    Applied,
    /// Not heard from for three times the view's bound: it serves nobody, or cannot reach the journal and serves
    /// nothing as fresh.
    Silent,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocationReceipt {
    pub location: String,
    pub state: LocationState,
    /// The highest `seq` it said it has; 0 if it has not said.
    pub applied_seq: Seq,
    /// Time since it was last heard from; absent if that was before the journal object started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_ms_ago: Option<u64>,
    /// From the journal's acceptance to this location's word that it has the purge: an upper bound, since a location
    /// says so when it next asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
}

/// Nearest-rank percentiles over locations, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Percentiles {
    pub p50: u64,
    pub p95: u64,
    pub p99: u64,
}

/// `GET /__edge/purges/{seq}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeReceipt {
    pub log_id: LogId,
    /// The highest `seq` accepted, of whatever purge, and that purge's mark: whoever has the log sees by it whether the journal
    /// holds the same history. 0: it has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub head: Seq,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mark: u64,
    pub seq: Seq,
    pub state: PurgeState,
    /// By the journal's clock; absent if not accepted, or so long ago that the details are forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at_ms: Option<u64>,
    pub locations: Vec<LocationReceipt>,
    /// Over the locations that confirmed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<Percentiles>,
    /// Locations that are pending.
    pub laggards: Vec<String>,
}

/// `GET /__edge/purges`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalSummary {
    pub log_id: LogId,
    /// The highest `seq` accepted.
    pub head: Seq,
    /// As in a receipt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mark: u64,
    /// Every purge up to here is applied; 0 if of none it can be said.
    pub applied_seq: Seq,
    /// As for a purge numbered `head`.
    pub locations: Vec<LocationReceipt>,
}

/// `POST /__edge/purges/dry-run`: what one isolate knows of what a purge would touch. What the location's cache and KV
/// hold cannot be listed by key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRun {
    pub location: String,
    /// Entries in this isolate's memory the purge would touch.
    pub touched: u64,
    /// Entries in this isolate's memory.
    pub held: u64,
}
