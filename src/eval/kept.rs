//! Cases of evaluations that were made before, read back from the `cases.csv` that they left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Case, Distances, Overlap, Prompting};
use crate::csv::unguarded;

/// Why a file of cases cannot be read, or does not go together with another.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// It is no such file.
    #[error("cannot read the cases: {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong, with the line.
        source: csv::Error,
    },
    /// A line says what cannot be.
    #[error("{}, case {row}: {what}", file.display())]
    Wrong {
        /// The file.
        file: PathBuf,
        /// Counted from 1, without the line of heads.
        row: usize,
        /// What it says.
        what: String,
    },
    /// Nothing is in it.
    #[error("no cases are in this file: {}", .0.display())]
    Empty(PathBuf),
    /// Classes of one file are not those of another.
    #[error("{} has the classes {found}, the file before it {expected}", file.display())]
    Classes {
        /// The second file.
        file: PathBuf,
        /// Its classes.
        found: String,
        /// Those of the first.
        expected: String,
    },
}

/// Cases of several evaluations, put together: of all parts of a cross-validation, for example.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// Names of the classes, in the order in which the first file has them.
    pub names: Vec<String>,
    /// What each mode came to.
    pub modes: BTreeMap<Prompting, Vec<Case>>,
}

/// A line of `cases.csv`. What it has beside these follows from them.
#[derive(Debug, Deserialize)]
struct Line {
    mode: String,
    image: String,
    view: usize,
    class: String,
    asked: bool,
    truth_px: u64,
    mask_px: u64,
    common_px: u64,
    regions: usize,
    hd95_px: Option<f64>,
    centroid_px: Option<f64>,
    hd95_mm: Option<f64>,
    centroid_mm: Option<f64>,
    score: Option<f32>,
    presence: Option<f32>,
    milliseconds: Option<f64>,
}

impl Line {
    /// The case of class number `class`.
    fn case(&self, class: usize) -> Result<Case, String> {
        let beyond = |whole: &str| format!("more pixels in common than the {whole} has");
        let overlap = Overlap {
            both: self.common_px,
            extra: self.mask_px.checked_sub(self.common_px).ok_or_else(|| beyond("mask"))?,
            missed: self.truth_px.checked_sub(self.common_px).ok_or_else(|| beyond("truth"))?,
        };
        let distances = |hd95: Option<f64>, centroid: Option<f64>| {
            hd95.zip(centroid).map(|(hd95, centroid)| Distances { hd95, centroid })
        };
        Ok(Case {
            image: unguarded(&self.image).to_owned(),
            view: self.view,
            class,
            asked: self.asked,
            overlap,
            regions: self.regions,
            px: distances(self.hd95_px, self.centroid_px),
            mm: distances(self.hd95_mm, self.centroid_mm),
            score: self.score.unwrap_or(f32::NAN),
            presence: self.presence.unwrap_or(f32::NAN),
            milliseconds: self.milliseconds,
        })
    }
}

impl Kept {
    /// Reads `files` and puts their cases together.
    ///
    /// # Errors
    /// A file that is none of cases, other classes in one than in another, a picture that two have in the same mode: it would count
    /// twice.
    pub fn read(files: &[PathBuf]) -> Result<Self, KeptError> {
        let mut kept = Self::default();
        let mut seen = BTreeSet::new();
        for file in files {
            let lines = lines(file)?;
            let mut own: Vec<String> = Vec::new();
            for line in &lines {
                let name = unguarded(&line.class);
                if !own.iter().any(|known| known == name) {
                    own.push(name.to_owned());
                }
            }
            if kept.names.is_empty() {
                kept.names.clone_from(&own);
            }
            if kept.names.iter().collect::<BTreeSet<_>>() != own.iter().collect() {
                let (found, expected) = (own.join(", "), kept.names.join(", "));
                return Err(KeptError::Classes { file: file.clone(), found, expected });
            }
            for (row, line) in (1..).zip(&lines) {
                let wrong = |what: String| KeptError::Wrong { file: file.clone(), row, what };
                let mode: Prompting = line.mode.parse().map_err(|e| wrong(format!("{e}")))?;
                let class = kept.names.iter().position(|name| name == unguarded(&line.class));
                let case = line.case(class.unwrap_or_default()).map_err(wrong)?;
                if !seen.insert((mode, case.image.clone(), case.view, case.class)) {
                    let what = format!("{} {} of {} is there twice", line.class, mode, case.image);
                    return Err(wrong(what));
                }
                kept.modes.entry(mode).or_default().push(case);
            }
        }
        Ok(kept)
    }
}

fn lines(file: &Path) -> Result<Vec<Line>, KeptError> {
    let unreadable = |source| KeptError::Unreadable { file: file.to_owned(), source };
    let mut reader = csv::Reader::from_path(file).map_err(unreadable)?;
    let lines = reader.deserialize().collect::<Result<Vec<Line>, _>>().map_err(unreadable)?;
    if lines.is_empty() { Err(KeptError::Empty(file.to_owned())) } else { Ok(lines) }
}
