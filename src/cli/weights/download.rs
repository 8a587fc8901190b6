//! `sonomask weights download`.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use super::{FOLDER, megabytes};
use crate::cli::{Exit, print, say, usage};
use crate::weights::{DownloadError, Published, Wanted, download, sha256};

const BAR: &str = "{prefix} {bar:28} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";

/// Fetch a published checkpoint from its publisher, going on where an earlier try stopped
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the checkpoint, as `weights list` prints it
    name: String,
    /// Folder to put it in
    #[arg(long, value_name = "DIR", default_value = FOLDER)]
    to: PathBuf,
}

pub fn run(args: &Args) -> Result<Exit> {
    let Some(wanted) = Published::named(&args.name) else {
        let names: Vec<_> = Published::ALL.iter().map(|p| p.name).collect();
        return usage(&format!(
            "no published checkpoint is called {:?}; known are {}",
            args.name,
            names.join(", ")
        ));
    };
    let path = args.to.join(wanted.file);
    if path.exists() {
        if sha256(&path).is_ok_and(|sum| sum == wanted.sha256) {
            say("the published file is here already");
            print(&path.display().to_string());
            return Ok(Exit::Fine);
        }
        say(&format!("another file has that name, and is not replaced: {}", path.display()));
        return Ok(Exit::Failed);
    }
    say(&format!("{}, {}, licence: {}", wanted.file, megabytes(wanted.bytes), wanted.licence));
    let bar = std::io::stderr().is_terminal().then(|| {
        let bar = ProgressBar::new(wanted.bytes);
        // The template is a constant; the default stands in should indicatif ever refuse it.
        bar.set_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(wanted.name);
        bar
    });
    let mut tenth = None;
    let progress = |got: u64| match &bar {
        Some(bar) => bar.set_position(got),
        None => {
            let now = got.saturating_mul(10) / wanted.bytes.max(1);
            if tenth.replace(now) != Some(now) {
                say(&format!("{} of {}", megabytes(got), megabytes(wanted.bytes)));
            }
        }
    };
    let request = Wanted { address: wanted.address, bytes: wanted.bytes, sha256: wanted.sha256 };
    let done = download(&request, &path, progress);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    match done {
        Ok(()) => {
            print(&path.display().to_string());
            Ok(Exit::Fine)
        }
        Err(e @ DownloadError::Unreachable { .. }) => {
            say(&e.to_string());
            let sum = wanted.sha256;
            say(&format!(
                "a copy from elsewhere serves as well: put it at {} (sha256 {sum})",
                path.display()
            ));
            Ok(Exit::Failed)
        }
        Err(e) => Err(e.into()),
    }
}
