//! `sonomask train`: a prompt predictor from labelled pictures.

mod bars;
mod study;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::bars::Bars;
use self::study::Study;
use super::{Exit, check_weights, print, print_json, usage};
use crate::config::{LoadArgs, TrainConfig};
use crate::eval::Prompting;
use crate::train::{self, DataSpec, Ending, TrainError};

/// Train a prompt predictor on labelled pictures; the result is used with --ppn or model.ppn.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file; configs/train.toml in a checkout explains every key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One setting, before the file's and the environment's: run.seed=1
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder for the predictor, its state and the record of the run
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in that folder as if it had never been interrupted
    #[arg(long)]
    resume: bool,
    /// Begin anew in a folder that has a run
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Several runs for one question, with a table of what they come to: folds (every part held out once), few-shot (how good
    /// with how few pictures) or noise (how good with how many damaged masks). What is done already is not done again
    #[arg(long, value_name = "STUDY", conflicts_with_all = ["resume", "overwrite"])]
    study: Option<Study>,
    /// Numbers of pictures that few-shot goes through, 5,10,20,50 if not given; all is the last
    #[arg(long, value_name = "N", value_delimiter = ',', requires = "study")]
    shots: Vec<usize>,
    /// Draws of pictures for each number (few-shot) or seeds (noise); 3 if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100), requires = "study")]
    draws: Option<u64>,
    /// What a study asks of held-out pictures
    #[arg(long, value_name = "MODE", default_values_t = [Prompting::Auto, Prompting::Box, Prompting::AutoBox], requires = "study")]
    mode: Vec<Prompting>,
    /// Print the configuration in force, with the origin of every value, and end
    #[arg(long)]
    print_config: bool,
    /// Print what came of it as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Exit> {
    let out = args.out.as_deref().map(|out| toml::Value::String(out.to_string_lossy().into_owned()));
    let flags: Vec<_> = out.into_iter().map(|out| ("run.out", out, "--out")).collect();
    let loaded = TrainConfig::load(LoadArgs {
        preset: None,
        file: args.config.as_deref(),
        env: super::environment(),
        set: &args.set,
        flags: &flags,
    });
    let config = match loaded {
        Ok(config) => config,
        Err(e) => return usage(&e.to_string()),
    };
    if args.print_config {
        print(&config.to_toml());
        return Ok(Exit::Fine);
    }
    let settings = config.portable();
    let spec = &config.spec;
    let mut weights = std::iter::once(&spec.model.weights).chain(&spec.model.ppn);
    if let Err(e) = weights.try_for_each(|file| check_weights(file)) {
        return usage(&e);
    }
    let device = match config.device.resolve() {
        Ok(device) => device,
        Err(e) => return usage(&e.to_string()),
    };
    tracing::info!("{}", device.line);
    if let Some(said) = config.left_out() {
        tracing::info!("{said}");
    }
    if let Some(study) = args.study {
        return study::run(args, study, spec, &device, &settings);
    }
    if let Err(e) = check(args, &spec.out) {
        return usage(&e);
    }
    std::fs::create_dir_all(&spec.out)
        .with_context(|| format!("cannot make the folder: {}", spec.out.display()))?;
    // Signals are heard by the control plane's threads.
    let _runtime = super::runtime()?;
    let mut bars = Bars::new();
    let outcome = train::train(spec, &device, &settings, args.resume, &mut bars);
    bars.clear();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(e) if is_wrong(&e) => return usage(&e.to_string()),
        Err(e) => return Err(e.into()),
    };
    let best = outcome.best.map(|(dice, epoch)| format!("best mean Dice {dice:.4} in epoch {epoch}"));
    let ended = match outcome.ending {
        Ending::Done => "done",
        Ending::Early => "ended early, as it got no better",
        Ending::Stopped => "stopped; --resume goes on",
    };
    if args.json {
        print_json(&serde_json::json!({
            "schema": 1,
            "ending": match outcome.ending { Ending::Done => "done", Ending::Early => "early", Ending::Stopped => "stopped" },
            "epochs": outcome.epochs,
            "best": outcome.best.map(|(dice, epoch)| serde_json::json!({"mean_dice": dice, "epoch": epoch})),
            // Stopped before its first epoch a run has none.
            "predictor": outcome.file.is_file().then_some(&outcome.file),
        }))?;
    } else {
        let epochs = outcome.epochs;
        print(&format!(
            "{ended} after {epochs} epochs{}",
            best.map_or_else(String::new, |b| format!(", {b}"))
        ));
        if outcome.ending != Ending::Stopped {
            let weights = spec.model.weights.display();
            print(&format!("use it with: --weights {weights} --ppn {}", outcome.file.display()));
            if spec.datasets.len() > 1 {
                let names: Vec<&str> = spec.datasets.iter().map(|data| data.set.name.as_str()).collect();
                print(&format!("and --dataset, one of {}", names.join(", ")));
            }
            for DataSpec { set, .. } in spec.datasets.iter().filter(|data| data.set.bits < 16) {
                print(&format!("and --bits {} for pictures like those of {:?}", set.bits, set.name));
            }
        }
    }
    Ok(if outcome.ending == Ending::Stopped { Exit::Failed } else { Exit::Fine })
}

/// Whether the request was wrong, and not the work.
fn is_wrong(e: &TrainError) -> bool {
    if let TrainError::Rehearsal { why, .. } = e {
        return is_wrong(why);
    }
    matches!(
        e,
        TrainError::Data(_)
            | TrainError::Setting(_)
            | TrainError::Busy(_)
            | TrainError::Read { .. }
            | TrainError::Load(_)
            | TrainError::Resume { .. }
    )
}

fn check(args: &Args, out: &Path) -> Result<(), String> {
    if args.resume && !train::can_resume(out) {
        return Err(format!("there is no run to go on with in this folder: {}", out.display()));
    }
    if train::is_begun(out) && !args.resume && !args.overwrite {
        let what = "this folder has a run: --resume goes on with it, --overwrite begins anew";
        return Err(format!("{what}: {}", out.display()));
    }
    Ok(())
}
