//! RFC 9457 problem details: the one error body of every service here.
use serde::{Deserialize, Serialize};

/// Every `type` is this prefix and a stable slug.
pub const TYPE_PREFIX: &str = "urn:nextream:problem:";

/// An error as a client sees it. Internals never stand here; they go to the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Every fault of the input, each with the place it stands at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}

/// One fault of the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// JSON Pointer (RFC 6901) into the body, or the name of a query parameter or header.
    pub at: String,
    pub message: String,
}

impl Problem {
    pub fn new(status: u16, slug: &str, title: impl Into<String>) -> Self {
        Self { kind: format!("{TYPE_PREFIX}{slug}"), title: title.into(), status, detail: None, errors: Vec::new() }
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn fault(mut self, at: impl Into<String>, message: impl Into<String>) -> Self {
        self.errors.push(Fault { at: at.into(), message: message.into() });
        self
    }

    /// The stable part of `type`.
    pub fn slug(&self) -> &str {
        self.kind.strip_prefix(TYPE_PREFIX).unwrap_or(&self.kind)
    }

    pub fn to_json(&self) -> String {
        // A struct of strings and numbers cannot fail to serialise; the fallback keeps this total.
        serde_json::to_string(self).unwrap_or_else(|_| String::from("{\"type\":\"about:blank\"}"))
    }
}
