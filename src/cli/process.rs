//! `sonomask process`: recordings in, recordings with overlays out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::plan::Session;
use super::progress::Progress;
use super::prompts::PromptArgs;
use super::settings::{ConfigOptions, path_flag, record_kind};
use super::{Depth, Exit, print, print_json, say, signal, usage};
use crate::cine::{self, OpenOptions};
use crate::config::{Config, DisplayChoice};
use crate::media::Left;
use crate::media::template::Params;
use crate::pipeline::{self, Ended, Finished, Report};
use crate::whole;

/// Process recordings: video files, DICOM multi-frame, MetaImage sequences, folders or globs of images.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Recordings
    inputs: Vec<PathBuf>,
    /// File (.mp4 or .mkv); for several inputs a folder, which gets one .mp4 per input
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Write the report (of a batch: all reports) to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write masks to this folder (of a batch: to one folder per input in it)
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// Write a picture with frames of the whole recording to this file (of a batch: to this folder)
    #[arg(long, value_name = "PNG")]
    contact_sheet: Option<PathBuf>,
    /// Frames per second of inputs that do not say it themselves (images, some DICOM and MetaImage files)
    #[arg(long)]
    fps: Option<f64>,
    #[command(flatten)]
    depth: Depth,
    /// Prompt predictor over the model's weights, with whatever was tuned with it: model.ppn
    #[arg(long, value_name = "FILE")]
    ppn: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigOptions,
    #[command(flatten)]
    prompts: PromptArgs,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// One input of a batch and where its results go.
struct Job {
    input: PathBuf,
    output: PathBuf,
    masks: Option<PathBuf>,
    sheet: Option<PathBuf>,
}

#[derive(serde::Serialize)]
struct Batch {
    schema: u32,
    files: Vec<BatchEntry>,
}

#[derive(serde::Serialize)]
struct BatchEntry {
    input: PathBuf,
    output: PathBuf,
    error: Option<String>,
    report: Option<Report>,
}

pub fn run(args: &Args) -> Result<Exit> {
    crate::media::init()?;
    let runtime = super::runtime()?;
    let (session, jobs, batch) = match prepare(args) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return Ok(Exit::Fine),
        Err(e) => return usage(&format!("{e:#}")),
    };
    let report_file = session.config.output.report.clone();
    let mut exit = Exit::Fine;
    let mut entries = Vec::new();
    let many = jobs.len();
    for (i, job) in jobs.into_iter().enumerate() {
        let name = job.input.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = if many > 1 { format!("{}/{many} {name}", i + 1) } else { name };
        let done = one(&session, args, &job, name, &runtime);
        let mut error = None;
        let report = match done {
            Ok(finished) => {
                let settled = settle(&finished, if batch { None } else { report_file.as_deref() }, true);
                match settled {
                    Ok(Exit::Fine) => {}
                    Ok(_) => exit = Exit::Failed,
                    Err(e) => {
                        say(&format!("{e:#}"));
                        exit = Exit::Failed;
                    }
                }
                Some(finished.report)
            }
            Err(e) => {
                let reason = format!("{e:#}");
                say(&format!("{}: {reason}", job.input.display()));
                error = Some(reason);
                exit = Exit::Failed;
                None
            }
        };
        entries.push(BatchEntry { input: job.input, output: job.output, error, report });
        if signal::stopped() {
            break;
        }
    }
    if batch {
        let failed = entries
            .iter()
            .filter(|e| !e.report.as_ref().is_some_and(|r| r.ended == Ended::EndOfStream))
            .count();
        say(&format!("{} of {many} inputs processed", entries.len() - failed));
        let all = Batch { schema: 1, files: entries };
        if args.json {
            print_json(&all)?;
        }
        if let Some(file) = &report_file {
            write_json(file, &all)?;
        }
    } else if args.json
        && let Some(report) = entries.first().and_then(|e| e.report.as_ref())
    {
        print_json(report)?;
    }
    Ok(exit)
}

fn one(
    session: &Session,
    args: &Args,
    job: &Job,
    name: String,
    runtime: &tokio::runtime::Runtime,
) -> Result<Finished> {
    let source = session.recording(&job.input, OpenOptions { fps: args.fps, bits: args.depth.bits })?;
    let mut progress = Progress::new(name, source.frames);
    let sink = session.record_to(&job.output)?;
    let plan = session.plan(source, sink, job.masks.clone(), job.sheet.clone())?;
    let finished = runtime.block_on(pipeline::run(plan, |now| progress.update(now), signal::stop()));
    progress.end();
    Ok(finished?)
}

/// Everything that can be said of a request before the work begins. `None`: only the configuration was asked for.
fn prepare(args: &Args) -> Result<Option<(Session, Vec<Job>, bool)>> {
    let output = args.output.as_deref();
    let batch = args.inputs.len() > 1 || output.is_some_and(Path::is_dir);
    let mut flags = Vec::new();
    let files = [
        ("sink.path", output.filter(|_| !batch), "--output"),
        ("output.report", args.report.as_deref(), "--report"),
        ("output.masks", args.masks.as_deref(), "--masks"),
        ("output.contact_sheet", args.contact_sheet.as_deref(), "--contact-sheet"),
        ("model.ppn", args.ppn.as_deref(), "--ppn"),
    ];
    flags.extend(files.into_iter().filter_map(|(key, path, flag)| Some((key, path_flag(path?), flag))));
    let first = match output {
        Some(file) if !batch => record_kind(file)?,
        _ => Vec::new(),
    };
    let mut config = args.config.load("cine", &first, &flags)?;
    if args.config.print_config {
        print(&config.to_toml());
        return Ok(None);
    }
    let output = output.context("--output is missing: a file (.mp4 or .mkv), for several inputs a folder")?;
    if args.inputs.is_empty() {
        bail!("there is no input: expected video files, DICOM, MetaImage, images, folders or globs");
    }
    if let Some(absent) =
        args.inputs.iter().find(|i| !i.exists() && cine::recognise(i) != Some(cine::Kind::Glob))
    {
        bail!("there is no such input: {}", absent.display());
    }
    let extension = if config.sink.kind == "record-mkv" { "mkv" } else { "mp4" };
    if batch && !config.sink.kind.starts_with("record-") {
        config.sink.kind = "record-mp4".into();
        config.sink.params = Params::default();
    }
    let jobs = jobs(&args.inputs, output, batch, extension, &config)?;
    if config.stream.display == DisplayChoice::Latest {
        tracing::warn!(
            "stream.display = \"latest\": masks older than stream.max_mask_age are not drawn; recordings want \"paired\""
        );
    }
    let session = Session::new(config, &args.prompts)?;
    session.check_recordings(&jobs[0].output)?;
    session.preload()?;
    Ok(Some((session, jobs, batch)))
}

/// One job per input. Nothing that is written replaces an input or another output.
fn jobs(
    inputs: &[PathBuf],
    output: &Path,
    batch: bool,
    extension: &str,
    config: &Config,
) -> Result<Vec<Job>> {
    let (masks, sheet) = (&config.output.masks, &config.output.contact_sheet);
    let mut jobs = Vec::new();
    let mut taken = BTreeSet::new();
    for input in inputs {
        if !batch {
            let (input, output) = (input.clone(), output.to_owned());
            jobs.push(Job { input, output, masks: masks.clone(), sheet: sheet.clone() });
            break;
        }
        let stem = input.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut name = stem.clone();
        let mut n = 2;
        while !taken.insert(name.clone()) {
            name = format!("{stem}-{n}");
            n += 1;
        }
        jobs.push(Job {
            input: input.clone(),
            output: output.join(format!("{name}.{extension}")),
            masks: masks.as_ref().map(|dir| dir.join(&name)),
            sheet: sheet.as_ref().map(|dir| dir.join(format!("{name}.png"))),
        });
    }
    let inputs: BTreeSet<PathBuf> = inputs.iter().filter_map(|i| i.canonicalize().ok()).collect();
    let outputs = jobs.iter().flat_map(|j| [Some(&j.output), j.sheet.as_ref()]).flatten();
    for path in outputs.chain(&config.output.report) {
        if path.canonicalize().is_ok_and(|p| inputs.contains(&p)) {
            bail!("the output would replace an input: {}", path.display());
        }
    }
    if batch {
        std::fs::create_dir_all(output)
            .with_context(|| format!("cannot make the folder: {}", output.display()))?;
    }
    Ok(jobs)
}

/// Says how a run ended, judges it, and then writes its report: a disk that is full must not hide the rest. A `strict` run
/// has failed if the model was off for a part of it.
pub fn settle(finished: &Finished, report_file: Option<&Path>, strict: bool) -> Result<Exit> {
    let report = &finished.report;
    let f = report.frames;
    say(&format!(
        "{} frames in, {} out, {} dropped, {} segmented, {} passed through, {:.1} s on {}",
        f.entered, f.out, f.dropped, f.segmented, f.passed_through, report.seconds, report.device
    ));
    match &finished.left {
        Left::Whole(path) => say(&format!("written: {}", path.display())),
        Left::Incomplete(path) => say(&format!("what there is of it: {}", path.display())),
        Left::Nothing => {}
    }
    let mut exit = Exit::Fine;
    match &report.ended {
        Ended::EndOfStream => {}
        Ended::Interrupted => {
            say(&format!("interrupted after {} frames", f.out));
            if strict {
                exit = Exit::Failed;
            }
        }
        Ended::Failed(reason) => {
            say(&format!("failed: {reason}"));
            exit = Exit::Failed;
        }
    }
    if let Some(off) = report.ai_off.first() {
        say(&format!("AI OFF {} times, first: {}", report.ai_off.len(), off.reason));
        if strict {
            exit = Exit::Failed;
        }
    }
    if let Some(reason) = &finished.sidecar_error {
        say(reason);
        exit = Exit::Failed;
    }
    if report.sidecar_dropped > 0 {
        say(&format!("the disk could not take {} mask files in time", report.sidecar_dropped));
    }
    if let Some(file) = report_file {
        write_json(file, report)?;
    }
    Ok(exit)
}

fn write_json(file: &Path, value: &impl serde::Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    whole::write(file, &text).with_context(|| format!("cannot write the report: {}", file.display()))
}
