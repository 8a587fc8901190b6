//! `sonomask run`: a live stream, from a configuration.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::began::Began;
use super::plan::Session;
use super::progress::Progress;
use super::prompts::PromptArgs;
use super::settings::{ConfigOptions, path_flag};
use super::{Exit, print, print_json, process::settle, say, signal};
use crate::media::Recording;
use crate::pipeline;

/// Run a live stream: source, model, overlay, sink, as the configuration says. Ends with Ctrl-C or with the source.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Prompt predictor over the model's weights, with whatever was tuned with it: model.ppn
    #[arg(long, value_name = "FILE")]
    ppn: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigOptions,
    #[command(flatten)]
    prompts: PromptArgs,
    /// Write the report of the run to this file; `{start}` in a name, also in sink.path, becomes the time at which the run began
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write masks to this folder
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Let the recording replace a file, and masks go into a folder that has files
    #[arg(long)]
    overwrite: bool,
    /// Print the report as JSON at the end
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Exit> {
    crate::media::init()?;
    let wrong = |e: anyhow::Error| {
        say(&format!("{e:#}"));
        Ok(Exit::Wrong)
    };
    let mut flags = Vec::new();
    for (key, path, flag) in [
        ("output.report", &args.report, "--report"),
        ("output.masks", &args.masks, "--masks"),
        ("model.ppn", &args.ppn, "--ppn"),
    ] {
        flags.extend(path.as_deref().map(|p| (key, path_flag(p), flag)));
    }
    let config = match args.config.load("bedside", &[], &flags) {
        Ok(loaded) => loaded,
        Err(e) => return wrong(e),
    };
    if args.config.print_config {
        print(&config.to_toml());
        return Ok(Exit::Fine);
    }
    let (began, out) = (Began::now(), &config.output);
    let [report, masks, sheet] =
        [&out.report, &out.masks, &out.contact_sheet].map(|path| path.as_deref().map(|p| began.name(p)));
    if let Some(dir) = &masks {
        // What a crash left of an earlier examination is hidden: "there are files" has to be seen to be true.
        Recording::rescue(dir);
    }
    if let Some(dir) = masks.as_deref().filter(|dir| !args.overwrite && holds_something(dir)) {
        // Of an earlier examination, which is not there to be filmed again.
        let what = "there are files in the folder for masks; choose another one, or give --overwrite";
        return wrong(anyhow::anyhow!("{what}: {}", dir.display()));
    }
    let plan = Session::new(config, &args.prompts).and_then(|session| {
        let source = session.source()?;
        let sink = session.sink(source.is_live(), args.overwrite, &began)?;
        session.plan(source, sink, masks, sheet)
    });
    let plan = match plan {
        Ok(plan) => plan,
        Err(e) => return wrong(e),
    };
    let mut progress = Progress::new(plan.input.clone(), None);
    let finished =
        super::runtime()?.block_on(pipeline::run(plan, |now| progress.update(now), signal::stop()));
    progress.end();
    let finished = finished?;
    let exit = settle(&finished, report.as_deref(), false);
    if args.json {
        print_json(&finished.report)?;
    }
    exit
}

fn holds_something(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}
