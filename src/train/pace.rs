//! How long a run will still take.

use std::time::{Duration, Instant};

/// Of a stage in hand and those behind it. A step of one stage may take ten times as long as one of another, so that each has a rate of its own:
/// the stage in hand the one that it has shown, with its measurements, and the others what a rehearsal took, without any.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    steps: u32,
    /// Seconds that all stages behind this one take.
    later: f64,
}

impl Pace {
    /// A stage begins, or goes on, now; those behind it take `later` seconds.
    pub fn new(later: f64) -> Self {
        Self { began: Instant::now(), steps: 0, later }
    }

    /// A step was made, and `left` of the stage are still to be made: how long the run will take.
    pub fn step(&mut self, left: u64) -> Duration {
        self.steps = self.steps.saturating_add(1);
        self.expect(self.began.elapsed(), left)
    }

    /// Where that is longer than any `Duration`, the longest.
    fn expect(&self, taken: Duration, left: u64) -> Duration {
        let step = taken.as_secs_f64() / f64::from(self.steps.max(1));
        Duration::try_from_secs_f64(self.later + step * left as f64).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_in_hand_has_its_own_rate_and_those_behind_it_theirs() {
        let mut pace = Pace::new(100.0);
        pace.step(9);
        pace.step(8);
        assert_eq!(pace.expect(Duration::from_secs(4), 8), Duration::from_secs(100 + 16));
        assert_eq!(pace.expect(Duration::from_secs(4), 0), Duration::from_secs(100));
        assert_eq!(pace.expect(Duration::MAX, u64::MAX), Duration::MAX);
    }
}
