//! `sonomask weights convert`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use super::megabytes;
use crate::cli::{Exit, print, usage};
use crate::weights::{Checkpoint, Dtype, Family, Published, SOURCE_SHA256, convert, sha256};

/// Write a checkpoint as safetensors, with the official names
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Checkpoint
    file: PathBuf,
    /// File to write
    #[arg(value_name = "OUT.safetensors")]
    out: PathBuf,
    /// Type of the floating-point tensors; by default the file's own
    #[arg(long)]
    dtype: Option<Float>,
    /// Replace the file if it exists
    #[arg(long)]
    overwrite: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Float {
    F32,
    F16,
    Bf16,
}

impl From<Float> for Dtype {
    fn from(float: Float) -> Self {
        match float {
            Float::F32 => Self::F32,
            Float::F16 => Self::F16,
            Float::Bf16 => Self::BF16,
        }
    }
}

pub fn run(args: &Args) -> Result<Exit> {
    if args.out.extension().is_none_or(|e| e != "safetensors") {
        return usage(&format!("the output must be called NAME.safetensors: {}", args.out.display()));
    }
    let same =
        args.out.canonicalize().is_ok_and(|out| args.file.canonicalize().is_ok_and(|file| file == out));
    if same {
        return usage(&format!("the output would replace the input: {}", args.out.display()));
    }
    if args.out.exists() && !args.overwrite {
        return usage(&format!("the file exists, --overwrite replaces it: {}", args.out.display()));
    }
    let checkpoint = Checkpoint::open(&args.file)?;
    let sum = sha256(&args.file).with_context(|| format!("cannot read: {}", args.file.display()))?;
    // MedSAM has the keys and shapes of SAM's ViT-B; only the checksum tells.
    let family = Published::of_sha256(&sum).map(|p| p.family).or_else(|| Family::recognise(&checkpoint).ok());
    let mut metadata = BTreeMap::from([(SOURCE_SHA256.to_owned(), sum)]);
    if let Some(family) = family {
        metadata.insert("family".into(), family.name().into());
    }
    convert(&checkpoint, &args.out, args.dtype.map(Into::into), &metadata)
        .with_context(|| args.out.display().to_string())?;
    let bytes = args.out.metadata().map_or(0, |m| m.len());
    let tensors = checkpoint.tensors().count();
    print(&format!("{}: {tensors} tensors, {}", args.out.display(), megabytes(bytes)));
    Ok(Exit::Fine)
}
