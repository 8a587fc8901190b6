//! Which pictures are learned from and which are held out.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::files::is_extension;

/// Names that a message has at most; the rest is counted.
const SHOWN: usize = 5;

/// Why a data set cannot be split as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Fewer patients than parts.
    #[error("{}", too_few(*folds, *groups, if *patients { "patient" } else { "picture" }))]
    Folds {
        /// Asked for.
        folds: usize,
        /// Patients, or pictures where patients are unknown.
        groups: usize,
        /// Whether patients are known.
        patients: bool,
    },
    /// Names in a list that the data set does not have.
    #[error("the list names pictures that the data set does not have: {}", names.join(", "))]
    Unknown {
        /// The names.
        names: Vec<String>,
    },
    /// A list without names: what was to be held out would be learned from.
    #[error("the list names no pictures")]
    NamesNothing,
    /// Nothing is to end the patient's part of a name.
    #[error("the mark behind the patient's part of a name is empty: expected a text like _ or -")]
    EmptyMark,
    /// Names without the mark that ends the patient's part: whose pictures they are is not known.
    #[error("{} of {total} names have no {mark:?} behind the patient's part: {}", names.len(), first(names))]
    Unmarked {
        /// The mark.
        mark: String,
        /// The names without it.
        names: Vec<String>,
        /// All names.
        total: usize,
    },
    /// Lists that learn from a picture and measure on the same one.
    #[error("pictures are in both lists: {}", first(names))]
    Both {
        /// The names.
        names: Vec<String>,
    },
    /// Lists that learn from a patient and measure on the same one.
    #[error("patients are both learned from and held out: {}", first(patients))]
    Torn {
        /// The patients.
        patients: Vec<String>,
    },
}

/// What is said where `groups` patients or pictures, one of which is `one`, cannot make `folds` parts.
fn too_few(folds: usize, groups: usize, one: &str) -> String {
    match groups {
        1 => format!("one {one} cannot make {folds} parts: expected more {one}s, or folds = 0"),
        _ => format!("{groups} {one}s cannot make {folds} parts: expected 2 to {groups} parts"),
    }
}

/// The first few, and how many more.
fn first(names: &[String]) -> String {
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Whose picture `name` is: with `mark` the name up to its first occurrence is the patient, without it each picture stands for
/// itself. `None` if the name lacks the mark; see [`patients`].
pub fn patient<'a>(name: &'a str, mark: Option<&str>) -> Option<&'a str> {
    let Some(mark) = mark else { return Some(name) };
    name.split_once(mark).map(|(patient, _)| patient)
}

/// Whose picture each of `names` is; see [`patient`].
///
/// # Errors
/// An empty mark; names without it. To take each of these for a patient of its own would learn from patients that are held out.
pub fn patients<'a>(names: &[&'a str], mark: Option<&str>) -> Result<Vec<&'a str>, SplitError> {
    let Some(mark) = mark else { return Ok(names.to_vec()) };
    if mark.is_empty() {
        return Err(SplitError::EmptyMark);
    }
    let mut found = Vec::with_capacity(names.len());
    let mut unmarked = Vec::new();
    for &name in names {
        match patient(name, Some(mark)) {
            Some(patient) => found.push(patient),
            None => unmarked.push(name.to_owned()),
        }
    }
    if unmarked.is_empty() {
        return Ok(found);
    }
    Err(SplitError::Unmarked { mark: mark.to_owned(), names: unmarked, total: names.len() })
}

/// A part, 0 to `folds` - 1, for each of `names`. All pictures of a patient are in one part; see [`patients`]. Parts are as equal
/// as the patients allow, and the same on every machine.
///
/// # Errors
/// Fewer than two parts, more parts than patients; those of [`patients`].
pub fn folds(
    names: &[&str],
    patient: Option<&str>,
    folds: usize,
    seed: u64,
) -> Result<Vec<usize>, SplitError> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, patient) in patients(names, patient)?.into_iter().enumerate() {
        groups.entry(patient).or_default().push(at);
    }
    if folds < 2 || folds > groups.len() {
        return Err(SplitError::Folds { folds, groups: groups.len(), patients: patient.is_some() });
    }
    let mut groups: Vec<Vec<usize>> = groups.into_values().collect();
    groups.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    // The largest first, each to the smallest part.
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    let mut sizes = vec![0; folds];
    let mut parts = vec![0; names.len()];
    for group in groups {
        let smallest = (0..folds).min_by_key(|&part| sizes[part]).unwrap_or(0);
        sizes[smallest] += group.len();
        for at in group {
            parts[at] = smallest;
        }
    }
    Ok(parts)
}

/// Which of `names` a list names: one name a line, with or without a picture's extension; empty lines and comments (`#` at the
/// beginning or behind a space) are passed over. A name that is itself among `names` is always meant, whatever signs it has.
///
/// # Errors
/// Names that are not among `names`.
pub fn named(names: &[&str], list: &str) -> Result<Vec<bool>, SplitError> {
    let places: BTreeMap<&str, usize> = names.iter().enumerate().map(|(at, &name)| (name, at)).collect();
    let mut chosen = vec![false; names.len()];
    let mut unknown = BTreeSet::new();
    for line in list.lines() {
        let readings = readings(line);
        let place = |text: &str| places.get(text).copied();
        match readings.iter().find_map(|text| place(text).or_else(|| place(stem(text)?))) {
            Some(at) => chosen[at] = true,
            // What is left without comments is what was meant.
            None => unknown.extend(readings.last().filter(|text| !text.is_empty()).map(|&t| t.to_owned())),
        }
    }
    if unknown.is_empty() {
        Ok(chosen)
    } else {
        Err(SplitError::Unknown { names: unknown.into_iter().collect() })
    }
}

/// What a line may mean, most of it first: all of it, without the spaces at its ends, and what stands before each comment, the
/// last comment first. A name may have spaces at its ends and `#` within.
fn readings(line: &str) -> Vec<&str> {
    let mut found = vec![line, line.trim()];
    let mut rest = line;
    while let Some(at) = rest.rfind('#') {
        rest = &rest[..at];
        if rest.is_empty() || rest.ends_with(char::is_whitespace) {
            found.push(rest.trim());
        }
    }
    found
}

/// A file's name without its extension, if that is a picture's: what stands behind the point in `scan.2` is part of the name.
fn stem(text: &str) -> Option<&str> {
    let (stem, extension) = text.rsplit_once('.')?;
    is_extension(extension).then_some(stem)
}
