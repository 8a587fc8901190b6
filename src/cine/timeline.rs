//! Start and duration of every frame of a loop.

use std::time::Duration;

use super::{CineError, Timing};
use crate::frame::Pts;

/// Rate taken where neither the file nor the caller says one.
const DEFAULT_FPS: f64 = 30.0;

/// When each frame starts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Timeline {
    /// Every frame lasts this many nanoseconds; a fraction, so that a long loop does not drift.
    Constant(f64),
    /// Start of each frame in nanoseconds, strictly rising from 0, and the duration of the last.
    Starts(Vec<u64>, u64),
}

impl Timeline {
    /// A constant frame time in seconds; `None` unless it is a finite time of 1 µs to 1 h.
    pub(super) fn every(seconds: f64) -> Option<Self> {
        (1e-6..=3600.0).contains(&seconds).then_some(Self::Constant(seconds * 1e9))
    }

    /// From the time of each frame in seconds, on any clock.
    ///
    /// # Errors
    /// A sentence saying why these times cannot be used: they must be finite and rise by at least a nanosecond.
    pub(super) fn from_seconds(times: &[f64]) -> Result<Self, String> {
        let Some(&first) = times.first() else { return Err("there are none".into()) };
        let mut starts: Vec<u64> = Vec::with_capacity(times.len());
        for (i, &t) in times.iter().enumerate() {
            let ns = ((t - first) * 1e9).round();
            // 1e18 ns are 31 years; beyond, the conversion below would saturate.
            if !ns.is_finite() || ns > 1e18 || (i > 0 && starts.last().is_some_and(|&last| ns <= last as f64))
            {
                return Err(format!("they do not rise at frame {i}"));
            }
            starts.push(ns as u64);
        }
        let last = match starts.as_slice() {
            [.., a, b] => b - a,
            _ => (1e9 / DEFAULT_FPS) as u64,
        };
        Ok(Self::Starts(starts, last))
    }

    /// The rate the caller gave, or the default one, for a file that says none; `why` goes into the report.
    ///
    /// # Errors
    /// A rate that is not in 0 (exclusive) to 1000.
    pub(super) fn assumed(fps: Option<f64>, why: &str) -> Result<(Self, Timing), CineError> {
        let rate = fps.unwrap_or(DEFAULT_FPS);
        let timeline = (rate > 0.0 && rate <= 1000.0).then(|| Self::every(1.0 / rate)).flatten();
        let timeline = timeline.ok_or(CineError::Rate { fps: rate })?;
        let by = if fps.is_some() { "as given" } else { "by default" };
        Ok((timeline, Timing::Assumed(format!("{rate} frames a second {by}: {why}"))))
    }

    /// Start and duration of frame `index`; past the listed starts the last one is continued.
    pub(super) fn at(&self, index: usize) -> (Pts, Duration) {
        let start = |i: usize| match self {
            Self::Constant(ns) => (i as f64 * ns).round() as u64,
            Self::Starts(starts, last) => starts.get(i).copied().unwrap_or_else(|| {
                let beyond = (i + 1 - starts.len()) as u64;
                starts.last().copied().unwrap_or(0).saturating_add(last.saturating_mul(beyond))
            }),
        };
        let (from, to) = (start(index), start(index.saturating_add(1)));
        (Pts(from), Duration::from_nanos(to.saturating_sub(from)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_rate_does_not_drift() {
        let t = Timeline::every(1.0 / 30.0).unwrap();
        assert_eq!(t.at(0).0, Pts(0));
        assert_eq!(t.at(30 * 3600).0, Pts(3_600_000_000_000));
        let (pts, duration) = t.at(1);
        assert_eq!((pts, duration), (Pts(33_333_333), Duration::from_nanos(33_333_334)));
    }

    #[test]
    fn times_are_taken_from_the_first_and_must_rise() {
        let t = Timeline::from_seconds(&[10.0, 10.25, 11.0]).unwrap();
        assert_eq!(t.at(1), (Pts(250_000_000), Duration::from_millis(750)));
        assert_eq!(t.at(2), (Pts(1_000_000_000), Duration::from_millis(750)));
        assert!(Timeline::from_seconds(&[1.0, 1.0]).unwrap_err().contains("frame 1"));
        assert!(Timeline::from_seconds(&[1.0, f64::NAN]).is_err());
        assert!(Timeline::from_seconds(&[f64::NAN]).is_err());
        assert!(Timeline::from_seconds(&[]).is_err());
    }

    #[test]
    fn senseless_rates_are_refused() {
        for fps in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(Timeline::assumed(Some(fps), "").is_err(), "{fps}");
        }
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Timeline::every(seconds).is_none(), "{seconds}");
        }
    }
}
