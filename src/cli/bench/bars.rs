//! How far a benchmark is and how long it will take, on stderr.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::bench::{CaseResult, CaseSpec, Drive};

/// A known number of frames; a known time.
const COUNTED: &str = "{msg} {bar:24} {pos}/{len} frames";
const TIMED: &str = "{msg} {spinner} {pos} frames";
/// Starting a process, loading the model, making the pictures: a guess until the first case has shown it.
const START: f64 = 5.0;
/// One call of a model that has not been seen yet: a guess, seconds.
const CALL: f64 = 0.5;
/// Between two lines where there is no terminal.
const QUIET: Duration = Duration::from_secs(10);

/// Follows the cases of a benchmark.
pub struct Bars {
    bar: Option<ProgressBar>,
    /// What each case is expected to take, seconds.
    expected: Vec<f64>,
    at: usize,
    begun: Instant,
    said: Instant,
    /// Seconds taken and seconds expected, of the cases that are done: how wrong the guesses are.
    learned: (f64, f64),
    frames: Option<u64>,
    /// Which case of how many.
    head: String,
}

impl Bars {
    /// For these cases.
    pub fn new(cases: &[CaseSpec]) -> Self {
        Self {
            bar: std::io::stderr().is_terminal().then(|| ProgressBar::new(1)),
            expected: cases.iter().map(guess).collect(),
            at: 0,
            begun: Instant::now(),
            said: Instant::now(),
            learned: (0.0, 0.0),
            frames: None,
            head: String::new(),
        }
    }

    /// A case begins.
    pub fn begin(&mut self, case: &CaseSpec) {
        (self.begun, self.said) = (Instant::now(), Instant::now());
        self.frames = case.expected().map(|n| n + case.warmup);
        self.head = format!("{}/{} {}", self.at + 1, self.expected.len(), case.name);
        let message = self.message();
        match &self.bar {
            Some(bar) => {
                let template = if self.frames.is_some() { COUNTED } else { TIMED };
                // The templates are constants; the default stands in should indicatif ever refuse them.
                bar.set_style(
                    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
                );
                bar.set_length(self.frames.unwrap_or(0));
                bar.set_position(0);
                bar.set_message(message);
            }
            None => tracing::info!("{message}"),
        }
    }

    /// So many frames were sent.
    pub fn sent(&mut self, frames: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(frames);
                bar.set_message(self.message());
            }
            None if self.said.elapsed() >= QUIET => {
                self.said = Instant::now();
                let of = self.frames.map_or_else(String::new, |n| format!("/{n}"));
                tracing::info!("{frames}{of} frames, about {} left", self.left());
            }
            None => {}
        }
    }

    fn message(&self) -> String {
        format!("{}, about {} left", self.head, self.left())
    }

    /// A case is over.
    pub fn end(&mut self, case: &CaseSpec, found: &CaseResult) {
        let guessed = self.expected.get(self.at).copied().unwrap_or(0.0);
        self.learned.0 += self.begun.elapsed().as_secs_f64();
        self.learned.1 += guessed;
        self.at += 1;
        let line = format!("{}/{} {}: {}", self.at, self.expected.len(), case.name, super::line(found));
        match &self.bar {
            Some(bar) => bar.suspend(|| tracing::info!("{line}")),
            None => tracing::info!("{line}"),
        }
    }

    /// How long it still takes, in words.
    fn left(&self) -> String {
        let error = if self.learned.1 > 0.0 { self.learned.0 / self.learned.1 } else { 1.0 };
        let ahead: f64 = self.expected.iter().skip(self.at).sum();
        let seconds = (ahead * error - self.begun.elapsed().as_secs_f64()).max(1.0);
        if seconds < 90.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
    }
}

impl Drop for Bars {
    /// Removes the bar, after an error too.
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn guess(case: &CaseSpec) -> f64 {
    let frames = (case.expected().unwrap_or(1) + case.warmup) as f64;
    let by_frames = match case.drive {
        Drive::Open { rate, .. } => frames / rate,
        Drive::Closed => frames * CALL,
    };
    START + case.seconds.map_or(by_frames, |s| by_frames.max(s))
}
