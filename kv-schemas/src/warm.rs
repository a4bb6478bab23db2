//! `POST /__edge/warm`: documents an edge is to fetch ahead of viewers. No content is sent, so that nobody can plant any.
use crate::AsOf;
use crate::viewer::{Locale, Maturity, Plan, Region};
use serde::{Deserialize, Serialize};

/// Documents in one call.
pub const DOCUMENTS_MAX: usize = 50;
/// Largest body of a call, in bytes.
pub const WARM_BYTES_MAX: usize = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmRequest {
    /// What is held and at least this new is left as it is.
    pub min_as_of: AsOf,
    /// 1 to 50.
    pub documents: Vec<WarmDocument>,
}

/// A shared document as a viewer of these dimensions would ask for it; those not named are a stranger's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmDocument {
    /// Path and query.
    pub target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<Locale>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maturity: Option<Maturity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
}

/// What has become of each, in the order of the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WarmAnswer {
    pub documents: Vec<Warmed>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warmed {
    pub target: String,
    pub outcome: Outcome,
    /// What a viewer would be answered.
    pub status: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Fetched or confirmed, and stored in memory and every tier.
    Stored,
    /// What is held is new enough.
    Fresh,
    /// Fetched, but not to be stored.
    NotStored,
    /// No answer could be had.
    Failed,
}
