//! `sonomask eval --tables`: models against data sets.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{Args, data, names};
use crate::cli::progress::Count;
use crate::cli::{Exit, print, print_json, say, usage, write_all};
use crate::config::TablesConfig;
use crate::dataset::{Dataset, Sample};
use crate::eval::{Cell, Material, Prompting, Row, Summary, Tables, Tuning, evaluate, places};
use crate::segment::{self, ModelSpec, Resolved, learned_classes, trained_decoder};

/// A data set, open.
struct Column {
    data: Dataset,
    only: Option<std::path::PathBuf>,
    patient: Option<String>,
}

/// One model on one data set: what is to be done.
struct Job {
    /// Places of model and data set.
    at: (usize, usize),
    spec: ModelSpec,
    device: Resolved,
    modes: Vec<Prompting>,
}

pub fn run(args: &Args, file: &Path, out: &Path) -> Result<Exit> {
    let (columns, mut tables, jobs) = match prepare(args, file) {
        Ok(ready) => ready,
        Err(e) => return usage(&format!("{e:#}")),
    };
    for job in &jobs {
        let Some(column) = columns.get(job.at.1) else { continue };
        work(args, job, column, &mut tables).with_context(|| {
            let model = tables.models.get(job.at.0).map_or("", |row| &row.name);
            format!("{model} on {}", column.data.name)
        })?;
        // After each model, so that what took hours is not lost to a later mistake.
        write(out, &tables)?;
    }
    if args.json {
        print_json(&tables.json()?)?;
    } else {
        print(tables.markdown().trim_end());
    }
    say(&format!("written to {}", out.display()));
    Ok(Exit::Fine)
}

/// Opens every data set and looks into every file of weights; all that is wrong with the models is told at once.
fn prepare(args: &Args, file: &Path) -> Result<(Vec<Column>, Tables, Vec<Job>)> {
    let config = TablesConfig::read(file)?;
    let mut columns = Vec::with_capacity(config.datasets.len());
    for dataset in config.datasets {
        let data = data::open(&dataset.spec)?;
        let chosen = data::choose(&data, dataset.only.as_deref())?;
        data::check_patients(&chosen, dataset.patient.as_deref())
            .with_context(|| format!("{}: the data set {:?}", file.display(), data.name))?;
        columns.push(Column { data, only: dataset.only, patient: dataset.patient });
    }
    let (mut rows, mut jobs, mut wrong) = (Vec::new(), Vec::new(), Vec::new());
    for (model, entry) in config.models.iter().enumerate() {
        let mut row = Row { name: entry.name.clone(), decoder: entry.decoder, learned: false };
        for (dataset, column) in columns.iter().enumerate() {
            let Some(spec) = entry.spec(&column.data.name) else { continue };
            match job(args, &mut row, spec, column, &config.others) {
                Ok((spec, device, modes)) => jobs.push(Job { at: (model, dataset), spec, device, modes }),
                Err(e) => wrong.push(format!("{} on {}: {e:#}", entry.name, column.data.name)),
            }
        }
        rows.push(row);
    }
    // Each model is spared what it cannot do; what none can do was meant for one that is not there.
    let learned = config.others.iter().find(|other| other.is_learned());
    if let Some(other) = learned.filter(|_| wrong.is_empty() && rows.iter().all(|row: &Row| !row.learned)) {
        wrong.push(format!("others = [{:?}]: no model has a prompt predictor", other.name()));
    }
    if !wrong.is_empty() {
        bail!("{}: {}", file.display(), wrong.join("\n  "));
    }
    let datasets = columns.iter().map(|c| c.data.name.clone()).collect();
    Ok((columns, Tables { datasets, models: rows, ..Tables::default() }, jobs))
}

/// What a model is asked on a data set, if it can do that.
fn job(
    args: &Args,
    row: &mut Row,
    spec: ModelSpec,
    column: &Column,
    others: &[Prompting],
) -> Result<(ModelSpec, Resolved, Vec<Prompting>)> {
    let (spec, device) = args.model.over(spec, segment::DeviceChoice::Auto).map_err(anyhow::Error::msg)?;
    let said = row.decoder.name();
    let known = |trained: &String| Tuning::ALL.iter().any(|tuning| tuning.name() == trained);
    if let Some(trained) = trained_decoder(&spec)?.filter(|trained| known(trained) && trained != said) {
        bail!(
            "decoder = {said:?}, and the predictor was trained with another: expected decoder = {trained:?}"
        );
    }
    let learned = learned_classes(&spec)?;
    row.learned |= !learned.is_empty();
    let here = Row { learned: !learned.is_empty(), ..row.clone() };
    let modes = here.asked(others);
    for mode in &modes {
        places(&column.data.classes, &learned, *mode)?;
    }
    Ok((spec, device, modes))
}

/// Evaluates one model on one data set.
fn work(args: &Args, job: &Job, column: &Column, tables: &mut Tables) -> Result<()> {
    let data = &column.data;
    let mut chosen: Vec<&Sample> = data::choose(data, column.only.as_deref())?;
    chosen.truncate(args.data.limit());
    let mut model = segment::load(&job.spec, &job.device)?;
    let name = tables.models.get(job.at.0).map_or_else(String::new, |row| row.name.clone());
    let material = Material { data, chosen: &chosen, spacing: None, augmented: 0 };
    for &mode in &job.modes {
        let mut count = Count::new(format!("{name}, {}, {mode}", data.name), chosen.len());
        let cases = evaluate(model.as_mut(), &material, mode, |done| count.update(done))?;
        let info = model.info();
        let cell = Cell {
            weights_sha256: info.weights_sha256.clone(),
            ppn_sha256: info.ppn.as_ref().and_then(|ppn| ppn.sha256.clone()),
            views: job.spec.views,
            n: chosen.len(),
            mean: Summary::of(&names(data), &cases, column.patient.as_deref()).mean,
        };
        tables.cells.insert((job.at.0, job.at.1, mode), cell);
    }
    Ok(())
}

fn write(out: &Path, tables: &Tables) -> Result<()> {
    let json = serde_json::to_string_pretty(&tables.json()?)? + "\n";
    let texts = [
        ("tables.md", tables.markdown()),
        ("tables.html", tables.html()),
        ("tables.csv", tables.csv()),
        ("tables.json", json),
    ];
    write_all(out, &texts)
}
