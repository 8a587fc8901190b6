//! The program as its users call it.
#![allow(dead_code, reason = "every test file uses its own part of this")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// LiteMedSAM's, which set-up fetches.
pub fn weights() -> String {
    format!("{}/weights/lite_medsam.pth", env!("CARGO_MANIFEST_DIR"))
}

/// The program in `dir`, without anything to read.
pub fn sonomask(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sonomask"));
    command.current_dir(dir).env_remove("RUST_LOG").env("GOMP_SPINCOUNT", "0").stdin(Stdio::null());
    command
}

/// What it said on stderr when it ended with `code`, which is no panic.
#[track_caller]
pub fn said(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}{}", String::from_utf8_lossy(&output.stdout));
    assert!(!text.contains("panicked"), "{text}");
    text
}
