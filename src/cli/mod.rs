//! The commands. Each file reads its arguments and calls the layers below; messages go to stderr, results to stdout.

mod doctor;
mod model;
mod phantom;
mod plan;
mod process;
mod progress;
mod prompts;
mod run;
mod segment;
mod signal;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::config::ClassConfig;
use crate::overlay::ClassStyle;
use crate::segment::{DeviceChoice, Segmenter, load};

/// Weights that set-up fetches.
const DEFAULT_WEIGHTS: &str = "weights/lite_medsam.pth";

/// Real-time ultrasound segmentation. Research use only: not for diagnosis.
#[derive(Debug, Parser)]
#[command(name = "sonomask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say more (-v, -vv) on stderr; RUST_LOG has the last word
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Process(process::Args),
    Segment(segment::Args),
    Phantom(phantom::Args),
    Doctor(doctor::Args),
}

/// How a command ended, as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: everything that was asked for was done.
    Fine,
    /// 1: the work failed, or a part of it.
    Failed,
    /// 2: the request was wrong; nothing was begun.
    Wrong,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Printing can only fail when nobody reads.
            e.print().ok();
            return if e.use_stderr() { Exit::Wrong.into() } else { Exit::Fine.into() };
        }
    };
    log_to_stderr(cli.verbose);
    let done = match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Process(args) => process::run(args),
        Command::Segment(args) => segment::run(args),
        Command::Phantom(args) => phantom::run(args),
        Command::Doctor(args) => doctor::run(args),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(e) => {
            say(&format!("{e:#}"));
            Exit::Failed.into()
        }
    }
}

fn log_to_stderr(verbose: u8) {
    let level = ["sonomask=info", "sonomask=debug", "debug"][usize::from(verbose.min(2))];
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| level.into());
    let stderr =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let stderr = stderr.with_ansi(std::io::stderr().is_terminal());
    // Fails only if there is a logger already, which then does the work.
    stderr.compact().try_init().ok();
}

/// A message for the person, on stderr.
fn say(message: &str) {
    // Nobody left to tell.
    writeln!(std::io::stderr(), "sonomask: {message}").ok();
}

/// A line of the result, on stdout.
fn print(line: &str) {
    // A reader that went away (`| head`) is not an error of the work.
    writeln!(std::io::stdout(), "{line}").ok();
}

/// The result, on stdout.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(&serde_json::to_string_pretty(value)?);
    Ok(())
}

/// The request was wrong, and this is why.
fn usage(message: &str) -> Result<Exit> {
    say(message);
    Ok(Exit::Wrong)
}

/// Names and colours for the overlay.
fn class_styles(classes: &[ClassConfig]) -> Vec<ClassStyle> {
    classes.iter().map(|c| ClassStyle { name: c.name.clone(), color: c.color }).collect()
}

/// Which model, from which file, on which device.
#[derive(Clone, Debug, clap::Args)]
struct ModelArgs {
    /// Family of the model; recognised from the weights if not given
    #[arg(long, value_name = "FAMILY")]
    model: Option<String>,
    /// Checkpoint of the model
    #[arg(long, value_name = "FILE", default_value = DEFAULT_WEIGHTS)]
    weights: PathBuf,
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// CPU threads, 0 = libtorch's choice
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

impl ModelArgs {
    fn load(&self) -> Result<Box<dyn Segmenter>, String> {
        check_weights(&self.weights)?;
        let device = self.device.resolve().map_err(|e| e.to_string())?;
        tracing::info!("{}", device.line);
        load(self.model.as_deref(), &self.weights, &device, self.threads).map_err(|e| e.to_string())
    }
}

/// A missing weights file, with the way to get one.
fn check_weights(path: &Path) -> Result<(), String> {
    if path.is_file() {
        return Ok(());
    }
    Err(format!("there are no weights at this path (`make setup` fetches LiteMedSAM's): {}", path.display()))
}

/// The control plane's threads: buses, signals, statistics, the watchdog. From here on signals ask the work to end.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).thread_name("control").enable_all().build()?;
    runtime.block_on(async { signal::install() });
    Ok(runtime)
}
