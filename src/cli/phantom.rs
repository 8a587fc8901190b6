//! `sonomask phantom`: writes a simulated cine-loop with its truth, or labelled pictures to train on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;

use super::plan::{Session, phantom_config};
use super::progress::Progress;
use super::prompts::PromptArgs;
use super::settings::{ConfigOptions, record_kind};
use super::{Exit, print, process::settle, say, signal, usage};
use crate::config::{Config, PHANTOM};
use crate::media::template::Params;
use crate::phantom::{Phantom, PhantomConfig};
use crate::pipeline::{self, Plan};
use crate::whole;

/// Frames written when the configuration leaves the loop endless.
const DEFAULT_FRAMES: u64 = 150;

/// Pictures written where nothing else is said.
const DEFAULT_PICTURES: u64 = 50;
/// Frames that a patient is looked at: a picture is one of them.
const VISIT: u64 = 150;

/// Write a simulated B-mode cine-loop (the source `phantom`) to a file, or labelled pictures for `sonomask train`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File (.mp4 or .mkv)
    #[arg(long, short, value_name = "FILE", required_unless_present = "dataset")]
    output: Option<PathBuf>,
    /// Also write the true masks to this folder, as NNNNNN_CLASS.png
    #[arg(long, value_name = "DIR", conflicts_with = "dataset")]
    truth: Option<PathBuf>,
    /// Write pictures instead, each of another patient: DIR/imgs and DIR/gts with 1 nerve, 2 vessel, 3 bone
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    dataset: Option<PathBuf>,
    /// Number of frames, or of pictures
    #[arg(long)]
    frames: Option<u64>,
    #[command(flatten)]
    config: ConfigOptions,
}

pub fn run(args: &Args) -> Result<Exit> {
    crate::media::init()?;
    let (text, no) = (|t: &str| toml::Value::String(t.into()), toml::Value::Boolean(false));
    let mut flags = vec![
        ("source.kind", text(PHANTOM), "sonomask phantom"),
        ("source.pace", text("fast"), "sonomask phantom"),
        ("model.enabled", no.clone(), "sonomask phantom"),
        ("overlay.enabled", no, "sonomask phantom"),
    ];
    if let Some(n) = args.frames {
        flags.push(("phantom.frames", toml::Value::Integer(i64::try_from(n)?), "--frames"));
    }
    let kind = args.output.as_deref().map_or_else(|| Ok(Vec::new()), record_kind);
    let config = match kind.and_then(|kind| args.config.load("cine", &kind, &flags)) {
        Ok(config) => config,
        Err(e) => return usage(&format!("{e:#}")),
    };
    if args.config.print_config {
        print(&config.to_toml());
        return Ok(Exit::Fine);
    }
    let runtime = super::runtime()?;
    let Some(output) = &args.output else {
        let Some(dir) = &args.dataset else { return usage("expected --output or --dataset") };
        return match phantom_config(&config) {
            Ok(phantom) => write_pictures(&phantom, args.frames.unwrap_or(DEFAULT_PICTURES), dir),
            Err(e) => usage(&format!("{e:#}")),
        };
    };
    let plan = plan(config, output);
    let (plan, phantom) = match plan {
        Ok(plan) => plan,
        Err(e) => return usage(&format!("{e:#}")),
    };
    let frames = phantom.frames;
    let mut progress = Progress::new("phantom".into(), frames);
    let finished = runtime.block_on(pipeline::run(plan, |now| progress.update(now), signal::stop()));
    progress.end();
    let finished = finished?;
    let exit = settle(&finished, None, true)?;
    if let Some(dir) = &args.truth {
        write_truth(phantom, finished.report.frames.out, dir)?;
        say(&format!("truth written: {}", dir.display()));
    }
    Ok(exit)
}

/// The run that writes the phantom of `config`, and the phantom.
fn plan(mut config: Config, output: &Path) -> Result<(Plan, PhantomConfig)> {
    config.source.params = Params::default();
    let mut phantom = phantom_config(&config)?;
    let frames = *phantom.frames.get_or_insert(DEFAULT_FRAMES);
    config.phantom.insert("frames".into(), toml::Value::Integer(i64::try_from(frames)?));
    let session = Session::new(config, &PromptArgs::default())?;
    let source = session.source()?;
    let sink = session.record_to(output)?;
    Ok((session.plan(source, sink, None, None)?, phantom))
}

fn write_truth(config: PhantomConfig, frames: u64, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder: {}", dir.display()))?;
    let (w, h) = (config.width, config.height);
    let phantom = Phantom::new(config)?;
    for index in 0..frames {
        if signal::stopped() {
            bail!("interrupted after the truth of {index} frames");
        }
        for truth in phantom.truth(index) {
            let file = dir.join(format!("{index:06}_{}.png", truth.class.name()));
            let pixels: Vec<u8> = truth.mask.data().iter().map(|v| v * 255).collect();
            whole::write_png(&file, &pixels, w, h, image::ExtendedColorType::L8)
                .with_context(|| format!("cannot write: {}", file.display()))?;
        }
    }
    Ok(())
}

/// Pictures of patients with the seeds that follow the configuration's, each at another moment.
fn write_pictures(config: &PhantomConfig, pictures: u64, dir: &Path) -> Result<Exit> {
    for part in ["imgs", "gts"] {
        if std::fs::read_dir(dir.join(part)).is_ok_and(|mut entries| entries.next().is_some()) {
            return usage(&format!("this folder has pictures already: {}", dir.join(part).display()));
        }
    }
    let bar = ProgressBar::new(pictures);
    for i in 0..pictures {
        if signal::stopped() {
            bail!("interrupted after {i} of {pictures} pictures");
        }
        let config = PhantomConfig { seed: config.seed.wrapping_add(i), frames: None, ..config.clone() };
        let (w, h) = (config.width, config.height);
        // A step that has no common part with the visit's length: moments spread evenly.
        let frame = Phantom::new(config)?.frame(i * 37 % VISIT);
        let mut labels = vec![0u8; w * h];
        for (label, truth) in (1..).zip(&frame.truth) {
            for (out, &inside) in labels.iter_mut().zip(truth.mask.data()) {
                *out = if inside != 0 { label } else { *out };
            }
        }
        for (part, pixels) in [("imgs", &frame.image), ("gts", &labels)] {
            let file = dir.join(part).join(format!("{i:04}.png"));
            whole::write_png(&file, pixels, w, h, image::ExtendedColorType::L8)
                .with_context(|| format!("cannot write: {}", file.display()))?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    print(&format!("{pictures} pictures written to {}", dir.display()));
    Ok(Exit::Fine)
}
