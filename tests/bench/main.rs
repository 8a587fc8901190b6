//! `sonomask bench` as its users call it: the files are there, whole, and agree with each other.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../cine_inputs/mod.rs"]
mod cine_inputs;
#[path = "../program_support/mod.rs"]
mod program_support;

mod agreement;
mod comparisons;
mod marks;
mod matrix;
mod sources;

use std::path::Path;
use std::process::{Command, Output};

use program_support::sonomask;

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = sonomask(dir);
    command.arg("bench").args(args);
    command
}

fn bench(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}
