//! Evaluations that were made before: put together, and compared picture by picture.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::cli::{Exit, print, print_json, usage};
use crate::dataset::patients;
use crate::eval::{Difference, Evaluation, Kept, difference_table, differences, table};

/// What is to be done.
pub struct Asked<'a> {
    /// Files of cases, put together.
    pub cases: &'a [PathBuf],
    /// Those that they are compared with; empty without.
    pub against: &'a [PathBuf],
    /// What a picture's name has behind the patient's.
    pub patient: Option<&'a str>,
    /// Print JSON.
    pub json: bool,
}

pub fn run(asked: &Asked<'_>) -> Result<Exit> {
    let (evaluations, differences) = match read(asked) {
        Ok(read) => read,
        Err(e) => return usage(&format!("{e:#}")),
    };
    if asked.json {
        let mut out = serde_json::json!({ "schema": 1, "evaluations": evaluations });
        if !differences.is_empty() {
            out["differences"] = serde_json::to_value(&differences)?;
        }
        print_json(&out)?;
        return Ok(Exit::Fine);
    }
    // In millimetres where all are: the mean of some would pass for that of all.
    let measured = || evaluations.iter().flat_map(|e| &e.cases).filter(|case| case.px.is_some());
    let calibrated = measured().next().is_some() && measured().all(|case| case.mm.is_some());
    print(table(&evaluations, calibrated).trim_end());
    // What only some of the files were asked is not the whole's.
    let images =
        |e: &Evaluation| e.cases.iter().map(|case| case.image.as_str()).collect::<BTreeSet<_>>().len();
    let most = evaluations.iter().map(images).max().unwrap_or(0);
    for evaluation in evaluations.iter().filter(|e| images(e) < most) {
        print(&format!("\n{} is of {} of {most} pictures", evaluation.mode, images(evaluation)));
    }
    if !differences.is_empty() {
        print("");
        print(difference_table(&differences).trim_end());
        let compared = |mode| differences.iter().any(|d| d.mode == mode);
        for evaluation in evaluations.iter().filter(|e| !compared(e.mode)) {
            print(&format!("\n{} is not compared: it has no picture in common", evaluation.mode));
        }
        let left_out = differences.iter().filter(|d| d.class == "mean").map(|d| d.left_out).max();
        if let Some(left_out) = left_out.filter(|n| *n > 0) {
            print(&format!(
                "\n{left_out} pictures are in one of the two alone and have no part in differences"
            ));
        }
    }
    Ok(Exit::Fine)
}

fn read(asked: &Asked<'_>) -> Result<(Vec<Evaluation>, Vec<Difference>)> {
    let open = |files: &[PathBuf]| -> Result<Kept> {
        let kept = Kept::read(files)?;
        let images: BTreeSet<&str> = kept.modes.values().flatten().map(|case| case.image.as_str()).collect();
        patients(&images.into_iter().collect::<Vec<_>>(), asked.patient).context("--patient")?;
        Ok(kept)
    };
    let kept = open(asked.cases)?;
    let differences = if asked.against.is_empty() {
        Vec::new()
    } else {
        differences(&kept, &open(asked.against).context("--against")?, asked.patient)?
    };
    let Kept { names, modes } = kept;
    let evaluations =
        modes.into_iter().map(|(mode, cases)| Evaluation::new(mode, &names, cases, asked.patient)).collect();
    Ok((evaluations, differences))
}
