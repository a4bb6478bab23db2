//! How often requests may be tried again: a tenth of those that were sent, so that a failing upstream gets at most a
//! tenth more load from us and not twice as much.

/// In thousandths of a retry.
const RETRY: u32 = 1_000;
const PER_REQUEST: u32 = RETRY / 10;
const KEPT_MAX: u32 = 10 * RETRY;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    kept: u32,
}

/// One retry is there from the start: the first request of an isolate may meet a connection that has just ended.
impl Default for RetryBudget {
    fn default() -> Self {
        Self { kept: RETRY }
    }
}

impl RetryBudget {
    /// A request is sent.
    pub fn earn(&mut self) {
        self.kept = self.kept.saturating_add(PER_REQUEST).min(KEPT_MAX);
    }

    /// Whether one may be sent again; if so, it is paid for.
    pub fn spend(&mut self) -> bool {
        match self.kept.checked_sub(RETRY) {
            Some(left) => {
                self.kept = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_all_requests_is_tried_again_and_no_more() {
        let mut budget = RetryBudget::default();
        let mut retries = 0;
        for _ in 0..1_000 {
            budget.earn();
            retries += u32::from(budget.spend());
        }
        assert_eq!(retries, 101, "a tenth, and the one from the start");
    }

    #[test]
    fn calm_times_save_up_for_ten() {
        let mut budget = RetryBudget::default();
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..100).filter(|_| budget.spend()).count(), 10);
    }
}
