//! Figures that are wanted of a measurement, and whether they were reached.
use serde::Serialize;
use std::fmt;

#[derive(Clone, Debug, Serialize)]
pub struct Wanted {
    pub what: String,
    pub limit: f64,
    pub measured: f64,
    pub is_met: bool,
}

impl Wanted {
    pub fn at_least(what: impl Into<String>, limit: f64, measured: f64) -> Self {
        Self { what: what.into(), limit, measured, is_met: measured >= limit }
    }

    pub fn below(what: impl Into<String>, limit: f64, measured: f64) -> Self {
        Self { what: what.into(), limit, measured, is_met: measured < limit }
    }

    /// That something never happened.
    pub fn none(what: impl Into<String>, measured: u64) -> Self {
        Self { what: what.into(), limit: 0.0, measured: measured as f64, is_met: measured == 0 }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, limit, measured, is_met } = self;
        write!(f, "{what:<44}{measured:>10.2} (wanted {limit:.2}){}", if *is_met { "" } else { " NOT MET" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_cannot_be_told_is_not_reached() {
        for (wanted, is_met) in [
            (Wanted::at_least("", 1.0, 1.0), true),
            (Wanted::at_least("", 1.0, 0.99), false),
            (Wanted::at_least("", 1.0, f64::NAN), false),
            (Wanted::below("", 1.0, 0.99), true),
            (Wanted::below("", 1.0, 1.0), false),
            (Wanted::below("", 1.0, f64::NAN), false),
            (Wanted::none("", 0), true),
            (Wanted::none("", 1), false),
        ] {
            assert_eq!(wanted.is_met, is_met, "{wanted}");
        }
    }
}
