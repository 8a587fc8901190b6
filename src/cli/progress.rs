//! What a person sees while a run goes on: a bar on a terminal, elsewhere a line now and then. All on stderr.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::pipeline::{Phase, Snapshot};

/// A known number of frames; a known length in milliseconds; neither.
const COUNTED: &str = "{prefix} {bar:28} {pos}/{len} {msg} {eta} left";
const TIMED: &str = "{prefix} {bar:28} {percent} % {msg} {eta} left";
const OPEN: &str = "{prefix} {spinner} {pos} frames {msg}";

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; the default stands in should indicatif ever refuse them.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Follows one run.
pub struct Progress {
    bar: Option<ProgressBar>,
    name: String,
    total: Option<u64>,
    last: (Duration, u64),
}

impl Progress {
    /// `total` frames where known. `name` says which input of how many.
    pub fn new(name: String, total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
            bar.set_style(style(if total.is_some() { COUNTED } else { OPEN }));
            bar.set_prefix(name.clone());
            bar
        });
        Self { bar, name, total, last: (Duration::ZERO, 0) }
    }

    /// Shows where the run is.
    pub fn update(&mut self, now: &Snapshot) {
        let line = self.line(now);
        match &self.bar {
            Some(bar) => {
                match (self.total, now.duration) {
                    // The number of frames of a video file is not known, its length is.
                    (None, Some(length)) => {
                        if bar.length().is_none() {
                            bar.set_style(style(TIMED));
                        }
                        bar.set_length(length.as_millis() as u64);
                        bar.set_position(now.position.as_millis() as u64);
                    }
                    _ => bar.set_position(now.frames.out + now.frames.dropped),
                }
                bar.set_message(line);
            }
            None => {
                let of = self.total.map_or_else(String::new, |t| format!("/{t}"));
                let left = in_words(self.left(now));
                tracing::info!("{}: {}{of} frames, {line}{left}", self.name, now.frames.out);
            }
        }
        self.last = (now.elapsed, now.frames.out);
    }

    /// How long the rest will take at the rate so far; zero where that is not known.
    fn left(&self, now: &Snapshot) -> Duration {
        let (done, all) = match (self.total, now.duration) {
            (Some(total), _) => ((now.frames.out + now.frames.dropped) as f64, total as f64),
            (None, Some(length)) => (now.position.as_secs_f64(), length.as_secs_f64()),
            (None, None) => return Duration::ZERO,
        };
        Duration::try_from_secs_f64(now.elapsed.as_secs_f64() * (all - done) / done).unwrap_or_default()
    }

    /// Removes the bar.
    pub fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, now: &Snapshot) -> String {
        let f = &now.frames;
        let seconds = now.elapsed.saturating_sub(self.last.0).as_secs_f64();
        let fps = if seconds > 0.0 { f.out.saturating_sub(self.last.1) as f64 / seconds } else { 0.0 };
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        let ai = match &now.phase {
            Phase::Starting => "AI STARTING".to_owned(),
            Phase::Live => "AI LIVE".to_owned(),
            Phase::Off { reason, .. } | Phase::Unfit { reason } => format!("AI OFF: {reason}"),
        };
        let lost = if f.dropped > 0 { format!(", {} dropped", f.dropped) } else { String::new() };
        format!(
            "{fps:.1}/s, {} segmented, {} without a mask{lost}; capture to push {:.1} ms (p99 {:.1}), mask age p95 {:.0} ms; {ai}",
            f.segmented,
            f.passed_through,
            ms(now.latency.push_p50),
            ms(now.latency.push_p99),
            ms(now.latency.age_p95),
        )
    }
}

/// Between two lines where there is no terminal.
pub const QUIET: Duration = Duration::from_secs(10);

/// How long something will still take, for the end of a line; nothing where that is not known.
pub fn in_words(left: Duration) -> String {
    if left.as_secs() == 0 { String::new() } else { format!(", {} left", HumanDuration(left)) }
}

/// Follows work on pictures, whose number is known.
pub struct Count {
    bar: ProgressBar,
    name: String,
    said: Instant,
}

impl Count {
    /// `name` says what is done with `total` pictures.
    pub fn new(name: String, total: usize) -> Self {
        // Without a terminal it draws nothing, and still knows how fast it gets on.
        let bar = ProgressBar::new(total as u64);
        bar.set_style(style(COUNTED));
        bar.set_prefix(name.clone());
        Self { bar, name, said: Instant::now() }
    }

    /// So many are done.
    pub fn update(&mut self, done: usize) {
        self.bar.set_position(done as u64);
        if self.bar.is_hidden() && self.said.elapsed() >= QUIET {
            let total = self.bar.length().unwrap_or_default();
            tracing::info!("{}: {done}/{total}{}", self.name, in_words(self.bar.eta()));
            self.said = Instant::now();
        }
    }
}

impl Drop for Count {
    /// Removes the bar, after an error too.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
