//! `sonomask phantom`: writes a simulated cine-loop, with its truth.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::plan::{ConfigOptions, Session, phantom_config};
use super::progress::Progress;
use super::prompts::PromptArgs;
use super::{Exit, process::settle, say, signal, usage};
use crate::config::PHANTOM;
use crate::media::template::Params;
use crate::phantom::{Phantom, PhantomConfig};
use crate::pipeline;

/// Frames written when the configuration leaves the loop endless.
const DEFAULT_FRAMES: u64 = 150;

/// Write a simulated B-mode cine-loop (the source `phantom`) to a file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// File (.mp4 or .mkv)
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Also write the true masks to this folder, as NNNNNN_CLASS.png
    #[arg(long, value_name = "DIR")]
    truth: Option<PathBuf>,
    /// Number of frames
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
    let plan = args.config.load("cine", &flags).and_then(|mut config| {
        config.source.params = Params::default();
        let mut phantom = phantom_config(&config)?;
        let frames = *phantom.frames.get_or_insert(DEFAULT_FRAMES);
        config.phantom.insert("frames".into(), toml::Value::Integer(i64::try_from(frames)?));
        let session = Session::new(config, &PromptArgs::default())?;
        let source = session.source()?;
        let sink = session.record_to(&args.output)?;
        Ok((session.plan(source, sink, None, None)?, phantom))
    });
    let (plan, phantom) = match plan {
        Ok(plan) => plan,
        Err(e) => return usage(&format!("{e:#}")),
    };
    let frames = phantom.frames;
    let mut progress = Progress::new("phantom".into(), frames, false);
    let finished =
        super::runtime()?.block_on(pipeline::run(plan, |now| progress.update(now), signal::stop()));
    progress.end();
    let finished = finished?;
    let exit = settle(&finished, None, true)?;
    if let Some(dir) = &args.truth {
        write_truth(phantom, finished.report.frames.out, dir)?;
        say(&format!("truth written: {}", dir.display()));
    }
    Ok(exit)
}

fn write_truth(config: PhantomConfig, frames: u64, dir: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder: {}", dir.display()))?;
    let (w, h) = (u32::try_from(config.width)?, u32::try_from(config.height)?);
    let phantom = Phantom::new(config)?;
    for index in 0..frames {
        for truth in phantom.truth(index) {
            let file = dir.join(format!("{index:06}_{}.png", truth.class.name()));
            let pixels: Vec<u8> = truth.mask.data().iter().map(|v| v * 255).collect();
            image::save_buffer(&file, &pixels, w, h, image::ExtendedColorType::L8)
                .with_context(|| format!("cannot write: {}", file.display()))?;
        }
    }
    Ok(())
}
