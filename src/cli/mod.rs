//! The commands. Each file reads its arguments and calls the layers below; messages go to stderr, results to stdout.

mod began;
mod bench;
mod doctor;
mod eval;
mod guide;
mod model;
mod phantom;
mod plan;
mod process;
mod progress;
mod prompts;
mod run;
mod segment;
mod settings;
mod signal;
mod train;
mod weights;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::config::ClassConfig;
use crate::overlay::ClassStyle;
use crate::segment::{DeviceChoice, ModelSpec, Precision, Resolved};
use crate::weights::{Family, Published, find_weights, own_weights_dirs};
use crate::whole;

/// Weights that set-up fetches.
const DEFAULT_WEIGHTS: &str = "lite_medsam.pth";

/// How deep pictures are.
#[derive(Clone, Copy, Debug, clap::Args)]
struct Depth {
    /// How many of their bits PNG and TIFF images of 16 bits a value use, 12 for values from 0 to 4095
    #[arg(long, value_name = "8-16", default_value_t = 16, value_parser = clap::value_parser!(u8).range(8..=16))]
    bits: u8,
}

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
    Eval(Box<eval::Args>),
    Bench(bench::Args),
    Phantom(phantom::Args),
    Train(train::Args),
    Doctor(doctor::Args),
    Weights(weights::Args),
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
        Command::Eval(args) => eval::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Phantom(args) => phantom::run(args),
        Command::Train(args) => train::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Weights(args) => weights::run(args),
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

/// Writes texts under their names, each whole.
fn write_all(dir: &Path, texts: &[(&str, String)]) -> Result<()> {
    for (name, text) in texts {
        let file = dir.join(name);
        whole::write(&file, text.as_bytes()).with_context(|| format!("cannot write: {}", file.display()))?;
    }
    Ok(())
}

/// The environment as far as it is text.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
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
    /// Checkpoint of the model; LiteMedSAM's if not given, from where `sonomask doctor` finds it
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Prompt predictor over the checkpoint, with whatever was tuned with it
    #[arg(long, value_name = "FILE")]
    ppn: Option<PathBuf>,
    /// Which of the predictor's data sets, where it has several
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// fp32 (if not given), bf16 or, on CUDA, fp16
    #[arg(long)]
    precision: Option<Precision>,
    /// Side of the network's input in pixels; the predictor's or the family's own if not given
    #[arg(long, value_name = "PIXELS")]
    input_size: Option<usize>,
    /// Certainty, 0 to 1, below which a class is not there; 0.5 if not given
    #[arg(long, value_name = "SCORE")]
    presence_threshold: Option<f32>,
    /// Show each picture to the network in so many views, 1 to 8 (mirrored, closer, turned), and take the mean of what the predictor
    /// finds: more often whole, a little better on average, and as many times as long; 1 if not given
    #[arg(long, value_name = "N")]
    views: Option<usize>,
    /// Fill holes of the low-resolution mask up to so many pixels
    #[arg(long, value_name = "PIXELS")]
    max_hole_area: Option<usize>,
    /// Remove islands of the low-resolution mask up to so many pixels
    #[arg(long, value_name = "PIXELS")]
    max_sprinkle_area: Option<usize>,
    /// Where classes overlap, give a pixel to the one with the highest logit
    #[arg(long)]
    non_overlapping: bool,
    /// auto (if not given), cpu or cuda:N
    #[arg(long)]
    device: Option<DeviceChoice>,
    /// CPU threads, 0 = libtorch's choice
    #[arg(long)]
    threads: Option<usize>,
}

impl ModelArgs {
    /// What to load, and where it runs.
    fn resolve(&self) -> Result<(ModelSpec, Resolved), String> {
        self.over(ModelSpec::new(default_weights()), DeviceChoice::Auto)
    }

    /// The same, where what was not given is as in `spec` and on `device`. Other weights are of whatever family they are.
    fn over(&self, mut spec: ModelSpec, device: DeviceChoice) -> Result<(ModelSpec, Resolved), String> {
        if let Some(weights) = &self.weights {
            (spec.weights, spec.family) = (weights.clone(), None);
        }
        if let Some(name) = &self.model {
            spec.family = Some(name.parse::<Family>().map_err(|e| e.to_string())?);
        }
        spec.ppn = self.ppn.clone().or(spec.ppn);
        spec.dataset = self.dataset.clone().or(spec.dataset);
        spec.precision = self.precision.unwrap_or(spec.precision);
        spec.input_size = self.input_size.or(spec.input_size);
        spec.views = self.views.unwrap_or(spec.views);
        spec.presence_threshold = self.presence_threshold.unwrap_or(spec.presence_threshold);
        spec.max_hole_area = self.max_hole_area.unwrap_or(spec.max_hole_area);
        spec.max_sprinkle_area = self.max_sprinkle_area.unwrap_or(spec.max_sprinkle_area);
        spec.non_overlapping |= self.non_overlapping;
        spec.threads = self.threads.unwrap_or(spec.threads);
        for file in std::iter::once(&spec.weights).chain(&spec.ppn) {
            check_weights(file)?;
        }
        spec.check()?;
        let device = self.device.unwrap_or(device).resolve().map_err(|e| e.to_string())?;
        tracing::info!("{}", device.line);
        Ok((spec, device))
    }
}

/// LiteMedSAM's weights, from where set-up puts them or `sonomask doctor` finds them.
fn default_weights() -> PathBuf {
    find_weights(Path::new(DEFAULT_WEIGHTS), &own_weights_dirs())
}

/// How to come by weights.
const GET_WEIGHTS: &str = "`make setup` in a checkout fetches LiteMedSAM's; `sonomask doctor` says in which folders those of presets are searched";

/// A missing weights file, with the way to get one.
fn check_weights(path: &Path) -> Result<(), String> {
    if path.is_file() {
        return Ok(());
    }
    // A path that a person gave is not searched for anywhere else.
    let published = path.file_name().and_then(|name| Published::named(name.to_str()?));
    let way = match published.filter(|p| p.family != Family::LiteMedSam) {
        Some(Published { name, .. }) => format!("`sonomask weights download {name}` puts them into weights/"),
        None => GET_WEIGHTS.to_owned(),
    };
    Err(format!("there are no weights at this path ({way}): {}", path.display()))
}

/// The control plane's threads: buses, signals, statistics, the watchdog. From here on signals ask the work to end.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).thread_name("control").enable_all().build()?;
    runtime.block_on(async { signal::install() });
    Ok(runtime)
}
