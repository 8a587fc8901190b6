//! `sonomask eval`: how good a model's masks are on labelled pictures.

mod compare;
mod data;
mod kept;
mod tables;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::plan::model_spec;
use super::progress::Count;
use super::settings::ConfigOptions;
use super::{Exit, ModelArgs, default_weights, print, print_json, say, usage, write_all};
use crate::config::{Config, Origin};
use crate::dataset::Dataset;
use crate::eval::{Evaluation, MAX_VIEWS, Material, Prompting, Report, evaluate, places};
use crate::segment::{self, ModelSpec, Resolved, Segmenter, learned_classes};

/// Evaluate a model on labelled images: Dice, IoU, HD95, centroid error, presence, with 95 % intervals.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    data: data::DataArgs,
    /// What the model is told: auto (its predictor alone), auto+box, auto+points, box, box-regions, points, or all that it can do;
    /// repeat it for several. Without it auto where there is a predictor, else box
    #[arg(long)]
    mode: Vec<Asked>,
    /// Evaluate so many augmented views of each image too (flips, moves, turns and cuts as in the paper's training), and report
    /// them beside the images as they are
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=MAX_VIEWS as i64))]
    augmented: u8,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    config: ConfigOptions,
    /// Compare the models that this file lists on the data sets that it lists, as the paper's tables 2 to 4 do; the files in
    /// --out are then tables.md, tables.html, tables.csv and tables.json
    #[arg(long, value_name = "FILE.toml", requires = "out", conflicts_with_all = ["data", "augmented", "classes", "only", "layout", "bits",
        "spacing", "patient", "mode", "model", "weights", "ppn", "dataset", "config", "preset", "set", "print_config"])]
    tables: Option<PathBuf>,
    /// Compare masks that are there already, NAME_CLASS.png as `process --masks` writes them, with --truth; no model is asked
    #[arg(long, value_name = "DIR", requires = "truth", conflicts_with_all = ["data", "tables", "out", "augmented", "classes", "only", "layout", "bits",
        "spacing", "patient", "mode", "model", "weights", "ppn", "dataset", "config", "preset", "set", "print_config"])]
    masks: Option<PathBuf>,
    /// True masks of --masks, as `phantom --truth` writes them
    #[arg(long, value_name = "DIR", requires = "masks")]
    truth: Option<PathBuf>,
    /// Put the cases.csv of earlier evaluations together, of all parts of a cross-validation for example, and print what they come to; no
    /// model is asked
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["data", "tables", "masks", "out", "augmented", "classes", "only",
        "limit", "layout", "bits", "spacing", "mode", "model", "weights", "ppn", "dataset", "precision", "input_size", "presence_threshold", "views",
        "max_hole_area", "max_sprinkle_area", "non_overlapping", "device", "threads", "config", "preset", "set", "print_config"])]
    cases: Vec<PathBuf>,
    /// Cases of another model or recipe on the same pictures: print by how much --cases are better, with 95 % intervals
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "cases")]
    against: Vec<PathBuf>,
    /// Folder for report.html, summary.md, summary.csv, summary.json and cases.csv
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// A word after `--mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    All,
    One(Prompting),
}

impl std::str::FromStr for Asked {
    type Err = crate::eval::PromptingError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        if word == "all" { Ok(Self::All) } else { word.parse().map(Self::One) }
    }
}

/// Everything that is there before the work begins.
struct Ready {
    model: Box<dyn Segmenter>,
    data: Dataset,
    modes: Vec<Prompting>,
    /// For the report.
    settings: BTreeMap<String, String>,
}

pub fn run(args: &Args) -> Result<Exit> {
    if let (Some(masks), Some(truth)) = (&args.masks, &args.truth) {
        return compare::run(masks, truth, args.json);
    }
    if !args.cases.is_empty() {
        let (cases, against) = (&args.cases, &args.against);
        return kept::run(&kept::Asked {
            cases,
            against,
            patient: args.data.patient.as_deref(),
            json: args.json,
        });
    }
    if let (Some(file), Some(out)) = (&args.tables, &args.out) {
        return tables::run(args, file, out);
    }
    let config = match args.config.load(None, &[], &[]) {
        Ok(config) => config,
        Err(e) => return usage(&format!("{e:#}")),
    };
    if args.config.print_config {
        print(&config.to_toml());
        return Ok(Exit::Fine);
    }
    let mut ready = match prepare(args, config) {
        Ok(ready) => ready,
        Err(e) => return usage(&format!("{e:#}")),
    };
    let chosen = match args.data.choose(&ready.data) {
        Ok(chosen) => chosen,
        Err(e) => return usage(&format!("{e:#}")),
    };
    if let Some(dir) = &args.out {
        // Not after an hour's work.
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder: {}", dir.display()))?;
    }
    let material = Material {
        data: &ready.data,
        chosen: &chosen,
        spacing: args.data.spacing,
        augmented: args.augmented.into(),
    };
    let model = ready.model.info().clone();
    let mut report = Report {
        dataset: ready.data.name.clone(),
        n: chosen.len(),
        names: names(&ready.data),
        device: model.device.clone(),
        model,
        spacing_mm: args.data.spacing,
        patient: args.data.patient.clone(),
        augmented_views: args.augmented.into(),
        settings: std::mem::take(&mut ready.settings),
        evaluations: Vec::with_capacity(ready.modes.len()),
    };
    for &mode in &ready.modes {
        let mut count = Count::new(format!("{} {mode}", material.data.name), material.chosen.len());
        let cases = evaluate(ready.model.as_mut(), &material, mode, |done| count.update(done))?;
        report.evaluations.push(Evaluation::new(mode, &report.names, cases, args.data.patient.as_deref()));
        if let Some(dir) = &args.out {
            // After each mode: what the next one fails at, or somebody ends, takes nothing from the figures. Nor does a picture below.
            write_figures(dir, &report)?;
        }
    }
    if let Some(dir) = &args.out {
        let mut pictures = Vec::with_capacity(report.evaluations.len());
        for evaluation in &report.evaluations {
            pictures.push(evaluation.pictures(ready.model.as_mut(), &material)?);
        }
        write_all(dir, &[("report.html", report.html(&pictures))])?;
    }
    if args.json {
        print_json(&report.json(single(args))?)?;
    } else {
        print(report.table().trim_end());
    }
    if let Some(dir) = &args.out {
        say(&format!("written to {}", dir.display()));
    }
    Ok(Exit::Fine)
}

/// Whether one mode was asked for by its name.
fn single(args: &Args) -> bool {
    args.mode.len() < 2 && args.mode.first() != Some(&Asked::All)
}

/// Checks all that was asked for, and loads the model.
fn prepare(args: &Args, config: Config) -> Result<Ready> {
    let classes: Vec<String> = config.classes.iter().map(|c| c.name.clone()).collect();
    let (spec, device) = model(args, config)?;
    let learned = learned_classes(&spec)?;
    if !spec.only.is_empty() && args.data.numbers_classes() {
        // Numbered from 1 the ones that are left would have other classes' labels.
        bail!(
            "model.only leaves out classes of the predictor: expected --class NAME=LABEL for each that is left"
        );
    }
    let data = args.data.open(if learned.is_empty() { &classes } else { &learned })?;
    args.data.choose(&data)?;
    let modes = modes(&args.mode, &data, &learned)?;
    let mut settings = args.data.settings(&data);
    settings.insert("presence threshold".into(), spec.presence_threshold.to_string());
    if spec.max_hole_area > 0 || spec.max_sprinkle_area > 0 {
        let cleaned = format!("holes up to {}, islands up to {}", spec.max_hole_area, spec.max_sprinkle_area);
        settings.insert("cleaned away, pixels of the low-resolution mask".into(), cleaned);
    }
    if spec.non_overlapping {
        settings.insert("where classes overlap".into(), "the one with the highest logit".into());
    }
    let model = segment::load(&spec, &device)?;
    if model.info().ppn.is_some() {
        settings.insert("views of a picture, of the predictor alone".into(), spec.views.to_string());
    }
    Ok(Ready { model, data, modes, settings })
}

/// The configuration's model, with the flags over it.
fn model(args: &Args, mut config: Config) -> Result<(ModelSpec, Resolved)> {
    if !config.model.enabled {
        bail!("model.enabled = false: there is nothing to evaluate ({})", config.origin("model.enabled"));
    }
    let family_given = config.origin("model.family") != Origin::Default;
    let m = &mut config.model;
    // A file that a flag replaces need not be there.
    m.ppn = args.model.ppn.clone().or(m.ppn.take());
    m.weights = args.model.weights.clone().or(m.weights.take()).or_else(|| Some(default_weights()));
    let mut spec = model_spec(&config)?;
    spec.family = spec.family.filter(|_| family_given);
    args.model.over(spec, config.model.device).map_err(anyhow::Error::msg)
}

/// What is evaluated, each once; every mode must be one that the model can do.
fn modes(asked: &[Asked], data: &Dataset, learned: &[String]) -> Result<Vec<Prompting>> {
    let able = |mode: &Prompting| places(&data.classes, learned, *mode);
    let mut modes: Vec<Prompting> = Vec::new();
    let usual = [Asked::One(if learned.is_empty() { Prompting::Box } else { Prompting::Auto })];
    for asked in if asked.is_empty() { &usual } else { asked } {
        match asked {
            Asked::One(mode) => modes.push(*mode),
            Asked::All => {
                for mode in Prompting::ALL {
                    match able(&mode) {
                        Ok(_) => modes.push(mode),
                        Err(e) => tracing::info!("left out: {e}"),
                    }
                }
            }
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    modes.retain(|mode| seen.insert(*mode));
    for mode in &modes {
        able(mode)?;
    }
    Ok(modes)
}

fn names(data: &Dataset) -> Vec<String> {
    data.classes.iter().map(|c| c.name.clone()).collect()
}

/// Writes every form of the report without pictures.
fn write_figures(dir: &Path, report: &Report) -> Result<()> {
    let json = serde_json::to_string_pretty(&report.json(false)?)? + "\n";
    let texts = [
        ("summary.md", report.markdown()),
        ("summary.csv", report.summary_csv()),
        ("cases.csv", report.cases_csv()),
        ("summary.json", json),
    ];
    write_all(dir, &texts)
}
