//! `sonomask process`: recordings in, recordings with overlays out.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::plan::{ConfigOptions, Session};
use super::progress::Progress;
use super::prompts::PromptArgs;
use super::{Exit, print, print_json, say, signal, usage};
use crate::media::Left;
use crate::pipeline::{self, Ended, Finished, Report};

/// Process recordings: video files, DICOM multi-frame, MetaImage sequences, folders or globs of images.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Recordings
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// File (.mp4 or .mkv); for several inputs a folder, which gets one .mp4 per input
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,
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
    let config = match args.config.load("cine", &[]) {
        Ok(loaded) => loaded,
        Err(e) => return usage(&format!("{e:#}")),
    };
    if args.config.print_config {
        print(&config.to_toml());
        return Ok(Exit::Fine);
    }
    let batch = args.inputs.len() > 1 || args.output.is_dir();
    let jobs = match jobs(args, batch, config.output.masks.as_deref(), config.output.contact_sheet.as_deref())
    {
        Ok(jobs) => jobs,
        Err(e) => return usage(&format!("{e:#}")),
    };
    let report_file = args.report.clone().or_else(|| config.output.report.clone());
    let session = match Session::new(config, &args.prompts).and_then(|s| s.preload().map(|()| s)) {
        Ok(session) => session,
        Err(e) => return usage(&format!("{e:#}")),
    };
    let runtime = super::runtime()?;
    let mut exit = Exit::Fine;
    let mut entries = Vec::new();
    let many = jobs.len();
    for (i, job) in jobs.into_iter().enumerate() {
        let name = job.input.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = if many > 1 { format!("{}/{many} {name}", i + 1) } else { name };
        let done = one(&session, args, &job, name, &runtime);
        let mut error = None;
        let mut interrupted = false;
        let report = match done {
            Ok(finished) => {
                interrupted = finished.report.ended == Ended::Interrupted;
                if settle(&finished, if batch { None } else { report_file.as_deref() }, true)? != Exit::Fine {
                    exit = Exit::Failed;
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
        if interrupted {
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
        if let Some(file) = &report_file {
            write_json(file, &all)?;
        }
        if args.json {
            print_json(&all)?;
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
    let source = session.recording(&job.input, args.fps)?;
    let mut progress = Progress::new(name, source.frames, false);
    let sink = session.record_to(&job.output)?;
    let plan = session.plan(source, sink, job.masks.clone(), job.sheet.clone())?;
    let finished = runtime.block_on(pipeline::run(plan, |now| progress.update(now), signal::stop()));
    progress.end();
    Ok(finished?)
}

/// One job per input; outputs of a batch never overwrite each other.
fn jobs(args: &Args, batch: bool, masks: Option<&Path>, sheet: Option<&Path>) -> Result<Vec<Job>> {
    let masks = args.masks.as_deref().or(masks);
    let sheet = args.contact_sheet.as_deref().or(sheet);
    if !batch {
        let own = |p: Option<&Path>| p.map(Path::to_owned);
        let input = args.inputs[0].clone();
        keep_input(&input, &args.output)?;
        return Ok(vec![Job { input, output: args.output.clone(), masks: own(masks), sheet: own(sheet) }]);
    }
    let make = |dir: &Path| {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder: {}", dir.display()))
    };
    make(&args.output)?;
    if let Some(dir) = sheet {
        make(dir)?;
    }
    let mut taken = BTreeSet::new();
    let mut jobs = Vec::new();
    for input in &args.inputs {
        let stem = input.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut name = stem.clone();
        let mut n = 2;
        while !taken.insert(name.clone()) {
            name = format!("{stem}-{n}");
            n += 1;
        }
        let output = args.output.join(format!("{name}.mp4"));
        keep_input(input, &output)?;
        jobs.push(Job {
            input: input.clone(),
            output,
            masks: masks.map(|dir| dir.join(&name)),
            sheet: sheet.map(|dir| dir.join(format!("{name}.png"))),
        });
    }
    Ok(jobs)
}

/// An output never replaces the recording it is made from.
fn keep_input(input: &Path, output: &Path) -> Result<()> {
    match (input.canonicalize(), output.canonicalize()) {
        (Ok(input), Ok(output)) if input == output => {
            anyhow::bail!("the output would replace the input: {}", output.display())
        }
        _ => Ok(()),
    }
}

/// Says how a run ended, writes its report, and judges it. A `strict` run has failed if the model was off for a part of it.
pub fn settle(finished: &Finished, report_file: Option<&Path>, strict: bool) -> Result<Exit> {
    let report = &finished.report;
    if let Some(file) = report_file {
        write_json(file, report)?;
    }
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
    Ok(exit)
}

/// Writes under a temporary name first, so that a report is whole or not there.
fn write_json(file: &Path, value: &impl serde::Serialize) -> Result<()> {
    let dir = file.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        // The usual permissions, not those of a secret.
        let usual = std::fs::Permissions::from_mode(0o644);
        let mut part = tempfile::Builder::new().permissions(usual).tempfile_in(dir)?;
        serde_json::to_writer_pretty(&mut part, value)?;
        writeln!(part)?;
        part.persist(file)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write the report: {}", file.display()))
}
