//! Masks that are there already against the truth: of a recording, for example.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cli::{Exit, print, print_json, usage};
use crate::dataset::Labels;
use crate::eval::{Answer, Case, Figure, Summary};
use crate::mask::Mask;

/// Masks of a frame by class, as `process --masks` and `phantom --truth` write them: `NAME_CLASS.png`.
type Masks = BTreeMap<(String, String), PathBuf>;

pub fn run(masks: &Path, truth: &Path, json: bool) -> Result<Exit> {
    let (found, expected) = match (list(masks), list(truth)) {
        (Ok(found), Ok(expected)) => (found, expected),
        (Err(e), _) | (_, Err(e)) => return usage(&format!("{e:#}")),
    };
    // Classes that nobody looked for are not missed, and of what has no truth nothing is known.
    let of = |masks: &Masks| masks.keys().map(|(_, class)| class.clone()).collect::<BTreeSet<String>>();
    let (drawn, true_ones) = (of(&found), of(&expected));
    for (one, other, lack) in [(&true_ones, &drawn, "masks"), (&drawn, &true_ones, "truth")] {
        let left_out: Vec<&str> = one.difference(other).map(String::as_str).collect();
        if !left_out.is_empty() {
            tracing::warn!("left out, without {lack}: {}", left_out.join(", "));
        }
    }
    let classes: Vec<String> = drawn.intersection(&true_ones).cloned().collect();
    let mut cases = Vec::new();
    let mut frames = BTreeSet::new();
    for ((frame, class), file) in &expected {
        let Some(at) = classes.iter().position(|name| name == class) else { continue };
        let truth = read(file)?;
        let key = (frame.clone(), class.clone());
        let mask = match found.get(&key) {
            Some(file) => read(file)?,
            None => Mask::empty(truth.width(), truth.height()),
        };
        let answer = Answer { asked: true, mask, score: f32::NAN, presence: f32::NAN };
        let case = Case::of((frame, 0), at, &answer, &truth, None, None);
        cases.push(
            case.with_context(|| format!("the mask has another size than its truth: {}", file.display()))?,
        );
        frames.insert(frame);
    }
    if cases.is_empty() {
        return usage("the folders have no frame and class in common: expected NAME_CLASS.png in both");
    }
    let summary = Summary::of(&classes, &cases, None);
    if json {
        let classes: serde_json::Map<String, serde_json::Value> = summary
            .classes
            .iter()
            .map(|class| Ok((class.name.clone(), serde_json::to_value(class)?)))
            .collect::<Result<_>>()?;
        let mean = serde_json::to_value(summary.mean)?;
        print_json(&serde_json::json!({"schema": 1, "n": frames.len(), "classes": classes, "mean": mean}))?;
    } else {
        for class in &summary.classes {
            let frames = class.n_present;
            print(&format!("{}: Dice {} over {frames} frames", class.name, shown(class.scores.dice)));
        }
        print(&format!("mean: Dice {}", shown(summary.mean.dice)));
    }
    Ok(Exit::Fine)
}

fn shown(figure: Figure) -> String {
    match (figure.value(), figure.range()) {
        (Some(value), Some([low, high])) => format!("{value:.3} ({low:.3} to {high:.3})"),
        _ => "-".into(),
    }
}

fn list(dir: &Path) -> Result<Masks> {
    let mut masks = Masks::new();
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("cannot read the folder: {}", dir.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read the folder: {}", dir.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".png"));
        if let Some((frame, class)) = name.and_then(|name| name.split_once('_')) {
            masks.insert((frame.to_owned(), class.to_owned()), path.clone());
        }
    }
    if masks.is_empty() {
        bail!("there are no masks NAME_CLASS.png in this folder: {}", dir.display());
    }
    Ok(masks)
}

fn read(file: &Path) -> Result<Mask> {
    let labels = Labels::inside(file).map_err(|what| anyhow::anyhow!("{what}: {}", file.display()))?;
    labels.mask(|v| v != 0).with_context(|| format!("it holds no mask: {}", file.display()))
}
