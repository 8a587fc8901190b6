//! Several training runs for one question, and what they come to on pictures that they did not learn from.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Args, Bars, is_wrong};
use crate::cli::progress::Count;
use crate::cli::{Exit, print, print_json, say, signal, usage, write_all};
use crate::dataset::{Dataset, named, patient};
use crate::eval::{Material, Prompting, Study as Table, evaluate};
use crate::segment::{self, ModelSpec, Resolved};
use crate::train::{self, DataSpec, Ending, Split, TrainSpec};
use crate::whole;

/// Shares of damaged masks.
const NOISE: [f64; 4] = [0.0, 0.25, 0.5, 0.75];
/// Numbers of pictures that few-shot goes through, and how often each is drawn, unless somebody says.
const SHOTS: [usize; 4] = [5, 10, 20, 50];
const DRAWS: u64 = 3;
/// What marks a run that is done, with everything that the table needs.
const RESULT: &str = "result.json";

/// A question that takes several runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Study {
    /// Every part is held out once; the cases of all runs are put together.
    Folds,
    /// Few pictures, drawn several times (Sam2Rad, figure 6).
    FewShot,
    /// Damaged masks (Sam2Rad, section 4.9).
    Noise,
}

/// One run of a study.
struct Run {
    /// Its folder.
    name: String,
    /// What it belongs to: runs of one group are put together.
    group: String,
    spec: TrainSpec,
}

pub(super) fn run(
    args: &Args,
    study: Study,
    spec: &TrainSpec,
    device: &Resolved,
    settings: &str,
) -> Result<Exit> {
    let runs = match runs(args, study, spec) {
        Ok(runs) => runs,
        Err(e) => return usage(&format!("{e:#}")),
    };
    let _runtime = crate::cli::runtime()?;
    let mut seen = BTreeSet::new();
    let modes: Vec<Prompting> = args.mode.iter().copied().filter(|mode| seen.insert(*mode)).collect();
    let mut table = Table::new(study == Study::Folds);
    for (i, run) in runs.iter().enumerate() {
        say(&format!("run {} of {}: {}", i + 1, runs.len(), run.name));
        let found = match one(run, &modes, device, settings) {
            Ok(Some(found)) => found,
            Ok(None) => {
                say("stopped; the same command goes on");
                return Ok(Exit::Failed);
            }
            Err(e) => match e.downcast_ref::<train::TrainError>() {
                Some(wrong) if is_wrong(wrong) => return usage(&wrong.to_string()),
                _ => return Err(e),
            },
        };
        for found in found {
            let units = found.units(&run.spec.datasets);
            table.add(&run.group, found.mode.parse::<Prompting>()?, &found.class, &units);
        }
    }
    let markdown = table.markdown();
    let json = serde_json::to_value(&table)?;
    let mut texts = vec![
        ("study.md", markdown.clone()),
        ("study.csv", table.csv()),
        ("study.json", serde_json::to_string_pretty(&json)? + "\n"),
    ];
    if study != Study::Folds {
        let across = if study == Study::Noise { "damaged masks" } else { "pictures learned from" };
        texts.push(("study.svg", table.chart(across)?));
    }
    write_all(&spec.out, &texts)?;
    if args.json {
        print_json(&json)?
    } else {
        print(markdown.trim_end())
    }
    say(&format!("written to {}", spec.out.display()));
    Ok(Exit::Fine)
}

/// The runs, each in a folder of its own, with one cache for all.
fn runs(args: &Args, study: Study, spec: &TrainSpec) -> Result<Vec<Run>> {
    if spec.datasets.iter().any(|data| data.split == Split::Nothing) {
        bail!("a study measures held-out pictures: expected folds or validation in every data set");
    }
    if study == Study::Folds && args.draws.is_some() {
        bail!("--draws: the study folds has one run for each part: expected few-shot or noise");
    }
    if study != Study::FewShot && !args.shots.is_empty() {
        bail!("--shots: this study goes through no numbers of pictures: expected few-shot");
    }
    if study == Study::FewShot && spec.datasets.iter().any(|data| data.limit.is_some()) {
        bail!("the study few-shot draws few pictures itself: expected no limit in the data sets");
    }
    if study == Study::Noise && spec.datasets.iter().any(|data| data.noise > 0.0) {
        bail!("the study noise damages masks itself: expected no noise in the data sets");
    }
    if spec.patience > 0 {
        tracing::info!("run.patience is not looked at: a study judges by pictures that may choose nothing");
    }
    let asked: &[usize] = if args.shots.is_empty() { &SHOTS } else { &args.shots };
    let mut runs = Vec::new();
    let mut add = |name: String, group: &str, change: &dyn Fn(&mut TrainSpec)| {
        let mut spec = TrainSpec { out: spec.out.join(&name), ..spec.clone() };
        change(&mut spec);
        runs.push(Run { name, group: group.to_owned(), spec });
    };
    let draws = |of: String| (0..args.draws.unwrap_or(DRAWS)).map(move |draw| (format!("{of}-{draw}"), draw));
    match study {
        Study::Folds => {
            let folds = |split: &Split| match split {
                Split::Folds { folds, .. } => Some(*folds),
                _ => None,
            };
            let mut counts = spec.datasets.iter().map(|data| folds(&data.split));
            let Some(count) = counts.next().flatten().filter(|first| counts.all(|n| n == Some(*first)))
            else {
                bail!("the study folds needs folds, equally many in every data set");
            };
            for held in 0..count {
                add(format!("fold-{held}"), "all", &|spec| {
                    for data in &mut spec.datasets {
                        if let Split::Folds { fold, .. } = &mut data.split {
                            *fold = held;
                        }
                    }
                });
            }
        }
        Study::FewShot => {
            if asked.contains(&0) || asked.iter().collect::<BTreeSet<_>>().len() < asked.len() {
                bail!("--shots: expected different numbers above 0");
            }
            let learned = train::learned_from(spec)?;
            for shot in shots(asked, &learned) {
                let group = shot.map_or_else(|| "all".to_owned(), |n| n.to_string());
                for (name, draw) in draws(format!("shots-{group}")) {
                    add(name, &group, &|spec| {
                        *spec = spec.few_shot(shot, &learned);
                        spec.seed = spec.seed.wrapping_add(draw);
                    });
                }
            }
        }
        Study::Noise => {
            for share in NOISE {
                let percent = (share * 100.0).round();
                for (name, draw) in draws(format!("noise-{percent}")) {
                    add(name, &format!("{percent} %"), &|spec| {
                        spec.seed = spec.seed.wrapping_add(draw);
                        spec.datasets.iter_mut().for_each(|data| data.noise = share);
                    });
                }
            }
        }
    }
    // Each part holds out others, and a class may be in one part alone: said now, not after hours.
    for run in runs.iter().filter(|_| study == Study::Folds) {
        train::learned_from(&run.spec).with_context(|| run.name.clone())?;
    }
    Ok(runs)
}

/// The numbers of pictures that are gone through, `None` for all. A number that no data set has more of is all of them, too.
fn shots(asked: &[usize], learned: &[usize]) -> Vec<Option<usize>> {
    let fewer = asked.iter().filter(|&shot| learned.iter().any(|n| shot < n));
    fewer.map(|&shot| Some(shot)).chain([None]).collect()
}

/// What a mode came to for a class of a data set.
#[derive(Serialize, Deserialize)]
struct Found {
    /// Name of the mode.
    mode: String,
    /// Name of the data set.
    dataset: String,
    /// Name of the class in tables.
    class: String,
    /// Name and Dice of every held-out picture that has the class.
    dice: Vec<(String, f64)>,
}

impl Found {
    /// Dice with the patient, or with the picture where patients are not known.
    fn units(&self, datasets: &[DataSpec]) -> Vec<(&str, f64)> {
        let data = datasets.iter().find(|data| data.set.name == self.dataset);
        let mark = data.and_then(|data| data.split.patient());
        // Every name has the mark, or there would have been no run.
        self.dice.iter().map(|(name, dice)| (patient(name, mark).unwrap_or(name), *dice)).collect()
    }
}

/// What is kept of a run: of which run it is, of which modes, and what was found.
type Kept = (String, Vec<String>, Vec<Found>);

/// Trains and measures, or reads what was found before; `None` if somebody asked to end.
///
/// The last epoch is measured, and patience is not looked at: what a held-out picture has chosen it cannot judge.
fn one(run: &Run, modes: &[Prompting], device: &Resolved, settings: &str) -> Result<Option<Vec<Found>>> {
    let file = run.spec.out.join(RESULT);
    std::fs::create_dir_all(&run.spec.out)
        .with_context(|| format!("cannot make the folder: {}", run.spec.out.display()))?;
    let spec = TrainSpec { patience: 0, ..run.spec.clone() };
    let mut bars = Bars::new();
    let began = Instant::now();
    // A run that is done ends at once, and one that differs is refused.
    let resume = train::can_resume(&spec.out);
    let outcome = train::train(&spec, device, &settings_of(&spec, settings), resume, &mut bars);
    bars.clear();
    let outcome = outcome?;
    if outcome.ending == Ending::Stopped {
        return Ok(None);
    }
    // What run it was, and what of the settings only judges it.
    let judged =
        format!("{} threshold={} half={}", outcome.fingerprint, spec.model.presence_threshold, spec.half);
    if let Ok(text) = std::fs::read_to_string(&file)
        && let Ok((fingerprint, known, found)) = serde_json::from_str::<Kept>(&text)
        && fingerprint == judged
        && known.iter().eq(modes.iter().map(|mode| mode.name()))
    {
        return Ok(Some(found));
    }
    say(&format!("{}: trained in {:.0} s", run.name, began.elapsed().as_secs_f64()));
    let mut found = Vec::new();
    for data in &spec.datasets {
        let set = Dataset::open(&data.set, |_, _| ())?;
        let one = spec.datasets.len() == 1;
        let list = train::held_out_list(&spec.out, &set.name, spec.datasets.len());
        let list = std::fs::read_to_string(&list)
            .with_context(|| format!("cannot read what was held out: {}", list.display()))?;
        let names: Vec<&str> = set.samples.iter().map(|s| s.name.as_str()).collect();
        let chosen = named(&names, &list)?;
        let held: Vec<_> = set.samples.iter().zip(chosen).filter(|(_, held)| *held).map(|(s, _)| s).collect();
        let (ppn, dataset) = (Some(outcome.last.clone()), Some(set.name.clone()));
        let mut model = segment::load(&ModelSpec { ppn, dataset, ..spec.model.clone() }, device)?;
        let material = Material { data: &set, chosen: &held, spacing: None, augmented: 0 };
        for &mode in modes {
            if signal::stopped() {
                return Ok(None);
            }
            let mut count = Count::new(format!("{} {mode}", run.name), held.len());
            let cases = evaluate(model.as_mut(), &material, mode, |done| count.update(done))?;
            for (i, class) in set.classes.iter().enumerate() {
                let own = cases.iter().filter(|c| c.class == i);
                let dice = own.filter_map(|c| Some((c.image.clone(), c.dice()?))).collect();
                let name = if one { class.name.clone() } else { format!("{}/{}", set.name, class.name) };
                let (mode, dataset) = (mode.name().to_owned(), set.name.clone());
                found.push(Found { mode, dataset, class: name, dice });
            }
        }
    }
    let names: Vec<&str> = modes.iter().map(|mode| mode.name()).collect();
    let text = serde_json::to_string(&(&judged, names, &found))?;
    whole::write(&file, text.as_bytes()).with_context(|| format!("cannot write: {}", file.display()))?;
    Ok(Some(found))
}

/// The configuration with what this run has of its own, for its files.
fn settings_of(spec: &TrainSpec, settings: &str) -> String {
    let epochs: Vec<u64> = spec.stages.iter().map(|stage| stage.epochs).collect();
    let mut text = format!("{settings}\n# In this run of a study: seed {}, epochs {epochs:?}", spec.seed);
    for DataSpec { set, split, noise, limit } in &spec.datasets {
        text += &format!("\n# {}: {split:?}, limit {limit:?}, noise {noise}", set.name);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{DatasetSpec, MaskLayout};

    #[test]
    fn as_many_pictures_as_there_are_are_gone_through_once() {
        assert_eq!(shots(&[5, 10, 20, 50], &[20]), [Some(5), Some(10), None]);
        assert_eq!(shots(&[5, 10, 20, 50], &[20, 30]), [Some(5), Some(10), Some(20), None]);
        assert_eq!(shots(&[5], &[3]), [None]);
    }

    #[test]
    fn pictures_of_a_patient_are_one_unit_whatever_a_run_is_read_from() {
        let set = |name: &str| DatasetSpec {
            name: name.to_owned(),
            root: "data".into(),
            images: None,
            masks: None,
            classes: Vec::new(),
            layout: MaskLayout::Index,
            bits: 16,
        };
        let data = |name: &str, patient: Option<&str>| DataSpec {
            set: set(name),
            split: Split::Folds { folds: 2, fold: 0, patient: patient.map(str::to_owned), seed: 0 },
            noise: 0.0,
            limit: None,
        };
        let datasets = [data("hips", None), data("arms", Some("_"))];
        let dice = vec![("p1_a".to_owned(), 0.5), ("p1_b".to_owned(), 0.25)];
        let text = |dataset: &str| {
            let (mode, dataset, class) = ("auto".to_owned(), dataset.to_owned(), "nerve".to_owned());
            serde_json::to_string(&Found { mode, dataset, class, dice: dice.clone() }).unwrap()
        };
        let read = |dataset: &str| serde_json::from_str::<Found>(&text(dataset)).unwrap();
        assert_eq!(read("arms").units(&datasets), [("p1", 0.5), ("p1", 0.25)]);
        assert_eq!(read("hips").units(&datasets), [("p1_a", 0.5), ("p1_b", 0.25)]);
    }
}
