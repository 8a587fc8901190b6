//! `sonomask weights`: the checkpoints that there are, and what is in one.

mod convert;
mod download;
mod generate;
mod inspect;
mod list;
mod verify;

use anyhow::Result;
use clap::Subcommand;

use super::Exit;

/// Where set-up and `download` put weights.
const FOLDER: &str = "weights";

/// List, verify, inspect, convert, download and generate checkpoints.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::Args),
    Verify(verify::Args),
    Inspect(inspect::Args),
    Convert(convert::Args),
    Download(download::Args),
    Generate(generate::Args),
}

pub fn run(args: &Args) -> Result<Exit> {
    match &args.command {
        Command::List(args) => list::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Download(args) => download::run(args),
        Command::Generate(args) => generate::run(args),
    }
}

/// A size for a person to read.
fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
