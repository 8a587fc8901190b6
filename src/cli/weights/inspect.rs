//! `sonomask weights inspect`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::megabytes;
use crate::cli::{Exit, print, print_json, usage};
use crate::segment::compare;
use crate::weights::{Checkpoint, Comparison, Facts, Family, Published, sha256};

/// Say what a file is: family, version, size, types, parameters, format, missing and unexpected keys
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Checkpoint
    file: PathBuf,
    /// Family that it should be; another is an error
    #[arg(long, value_name = "FAMILY")]
    model: Option<String>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Report {
    schema: u32,
    file: PathBuf,
    bytes: u64,
    sha256: String,
    published: Option<&'static str>,
    /// Family, where the file is of one: by its checksum, else by keys and shapes.
    family: Option<&'static str>,
    #[serde(flatten)]
    facts: Facts,
    /// Against the family's network; `None` where the family is not known.
    keys: Option<Comparison>,
}

pub fn run(args: &Args) -> Result<Exit> {
    let asked = match args.model.as_deref().map(str::parse::<Family>).transpose() {
        Ok(asked) => asked,
        Err(e) => return usage(&e.to_string()),
    };
    let checkpoint = Checkpoint::open(&args.file)?;
    let sum = sha256(&args.file).with_context(|| format!("cannot read: {}", args.file.display()))?;
    let published = Published::of_sha256(&sum);
    let family = match (asked, published) {
        (Some(asked), _) => {
            Some(Family::expect(Some(asked), &checkpoint).with_context(|| args.file.display().to_string())?)
        }
        (None, Some(published)) => Some(published.family),
        (None, None) => Family::recognise(&checkpoint).ok(),
    };
    // A predictor of its own says which network it belongs to.
    let over = checkpoint.metadata().get("family").and_then(|name| name.parse::<Family>().ok());
    let named = || args.file.display().to_string();
    let keys = match (family, over) {
        (Some(family), _) => Some(compare(family, &checkpoint, false).with_context(named)?),
        (None, Some(over)) => Some(compare(over, &checkpoint, true).with_context(named)?),
        (None, None) => None,
    };
    let fits = keys.as_ref().is_some_and(Comparison::fits);
    let report = Report {
        schema: 1,
        bytes: args.file.metadata().map_or(0, |m| m.len()),
        file: args.file.clone(),
        sha256: sum,
        published: published.map(|p| p.name),
        family: family.map(Family::name),
        facts: Facts::of(&checkpoint),
        keys,
    };
    if args.json {
        print_json(&report)?;
    } else {
        show(&report);
    }
    Ok(if fits { Exit::Fine } else { Exit::Failed })
}

fn show(report: &Report) {
    let Report { facts, .. } = report;
    let line = |what: &str, value: &str| print(&format!("{what:<16} {value}"));
    let list = |what: &str, names: &[String]| {
        if !names.is_empty() {
            line(what, &names.join(", "));
        }
    };
    line("file", &format!("{} ({})", report.file.display(), megabytes(report.bytes)));
    line("sha256", &report.sha256);
    line("published as", report.published.unwrap_or("-"));
    line("family", report.family.unwrap_or("none that is known"));
    line("version", facts.version.unwrap_or("-"));
    let root = facts.under.map_or_else(String::new, |under| format!(", state dict under `{under}`"));
    line("format", &format!("{}{root}", facts.format));
    list("root keys", &facts.root_keys);
    let dtypes: Vec<_> = facts.dtypes.iter().map(|(dtype, n)| format!("{dtype} x {n}")).collect();
    line("tensors", &format!("{} ({})", facts.tensors, dtypes.join(", ")));
    line("parameters", &format!("{} with buffers", facts.elements));
    if let Some(rank) = facts.lora_rank {
        line("LoRA", &format!("rank {rank}"));
    }
    if let Some(rank) = facts.encoder_lora_rank {
        line("encoder LoRA", &format!("rank {rank}"));
    }
    if facts.adapters {
        line("adapters", "in the image encoder");
    }
    if facts.prompt_predictor {
        line("prompt predictor", "yes");
    }
    list("learned prompts", &facts.learned_prompts);
    for (key, value) in &facts.metadata {
        line("metadata", &format!("{key} = {value}"));
    }
    list("not executed", &facts.foreign);
    list("left out", &facts.set_aside);
    let Some(keys) = &report.keys else {
        return line("keys", "not compared: the file is of no known network");
    };
    if keys.fits() {
        line("keys", "all there, none unexpected");
    }
    list("missing", &keys.missing);
    list("unexpected", &keys.unexpected);
    for wrong in &keys.misshapen {
        line("wrong shape", &format!("{}: {:?}, expected {:?}", wrong.name, wrong.found, wrong.expected));
    }
}
