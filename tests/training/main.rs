//! A training run as its users start it, kill it, go on with it and use what it leaves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../training_support/mod.rs"]
mod training_support;

mod keeping;
mod learning;
mod refusals;
mod resuming;
mod studies;

use std::path::{Path, PathBuf};

use serde_json::Value;
use training_support::configure;

/// The configuration of [`configure`] with `split` in the place of its folds.
fn divided(root: &Path, data: &Path, split: &str) -> PathBuf {
    let file = configure(root, data);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("folds = 5\nfold = 1\n", split)).unwrap();
    file
}

/// Everything but the time that was taken.
fn timeless(mut lines: Vec<Value>) -> Vec<Value> {
    for line in &mut lines {
        assert!(line.as_object_mut().unwrap().remove("seconds").is_some());
    }
    lines
}
