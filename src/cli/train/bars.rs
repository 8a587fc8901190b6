//! What a person sees while a training run goes on.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::progress::{QUIET, in_words};
use crate::cli::{say, signal};
use crate::train::{Epoch, Observer};

/// Bars on a terminal, lines in the log elsewhere.
pub struct Bars {
    bar: ProgressBar,
    what: &'static str,
    /// How long it will still take, as it was said last.
    left: String,
    logged: Instant,
}

impl Bars {
    /// Nothing is shown yet.
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        bar.set_style(
            ProgressStyle::with_template("{prefix:10} {bar:28} {pos}/{len} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self { bar, what: "", left: String::new(), logged: Instant::now() }
    }

    /// `left` is how long it will take where that is known better than by how it went so far.
    fn at(&mut self, what: &'static str, done: u64, total: u64, message: &str, left: Option<Duration>) {
        let begun = self.what != what;
        if begun {
            self.what = what;
            self.bar.reset();
            self.bar.set_prefix(what);
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        if begun {
            // Views that were kept already took none of this run's time.
            self.bar.reset_eta();
        }
        self.left = in_words(left.unwrap_or_else(|| self.bar.eta()));
        self.bar.set_message(format!("{message}{}", self.left));
        if self.bar.is_hidden() && self.logged.elapsed() >= QUIET {
            self.logged = Instant::now();
            tracing::info!("{what} {done}/{total} {}", self.bar.message());
        }
    }

    /// Removes the bar.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Bars {
    fn checked(&mut self, done: usize, total: usize) {
        self.at("checking", done as u64, total as u64, "pictures", None);
    }

    fn encoded(&mut self, done: usize, total: usize) {
        self.at("encoding", done as u64, total as u64, "views", None);
    }

    fn rehearsed(&mut self, stage: usize, stages: usize) {
        self.at("rehearsing", stage as u64, stages as u64, "stages, with some pictures each", None);
    }

    fn stepped(&mut self, (step, of): (u64, u64), (done, total): (u64, u64), loss: f64, left: Duration) {
        let epoch = (done - 1) / of.max(1) + 1;
        let message = format!("epoch {epoch} step {step}/{of} loss {loss:.4}");
        self.at("training", done, total, &message, Some(left));
    }

    fn measured(&mut self, done: usize, total: usize) {
        if !self.bar.is_hidden() {
            self.bar.set_message(format!("measuring {done}/{total}{}", self.left));
        }
    }

    fn ended(&mut self, epoch: &Epoch, best: bool) {
        let loss = epoch.losses.get("total").copied().unwrap_or(f64::NAN);
        let seconds: Vec<String> = epoch.seconds.iter().map(|(k, v)| format!("{k} {v:.1} s")).collect();
        let dice = epoch.validation.as_ref().map_or_else(String::new, |v| {
            let classes: Vec<String> = v.dice.iter().map(|(k, d)| format!("{k} {d:.4}")).collect();
            let mark = if best { ", the best so far" } else { "" };
            format!(", Dice {:.4} ({}){mark}", v.mean_dice, classes.join(", "))
        });
        let line =
            format!("epoch {} ({}): loss {loss:.4}{dice}; {}", epoch.epoch, epoch.stage, seconds.join(", "));
        self.bar.suspend(|| say(&line));
    }

    fn stopped(&self) -> bool {
        signal::stopped()
    }
}
