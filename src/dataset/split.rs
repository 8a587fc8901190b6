//! Which pictures are learned from and which are held out.

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Why a data set cannot be split as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Fewer patients than parts.
    #[error("{groups} patients cannot make {folds} parts: expected 2 to {groups} parts")]
    Folds {
        /// Asked for.
        folds: usize,
        /// Patients, or pictures where patients are unknown.
        groups: usize,
    },
    /// Names in a list that the data set does not have.
    #[error("the list names pictures that the data set does not have: {}", names.join(", "))]
    Unknown {
        /// The names.
        names: Vec<String>,
    },
}

/// A part, 0 to `folds` - 1, for each of `names`. With `patient` the name up to its first occurrence is the patient, and
/// all pictures of a patient are in one part. Parts are as equal as the patients allow, and the same on every machine.
///
/// # Errors
/// Fewer than two parts, more parts than patients.
pub fn folds(
    names: &[&str],
    patient: Option<&str>,
    folds: usize,
    seed: u64,
) -> Result<Vec<usize>, SplitError> {
    let group = |name: &str| match patient.and_then(|mark| name.split_once(mark)) {
        Some((patient, _)) => patient.to_owned(),
        None => name.to_owned(),
    };
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, name) in names.iter().enumerate() {
        groups.entry(group(name)).or_default().push(at);
    }
    if folds < 2 || folds > groups.len() {
        return Err(SplitError::Folds { folds, groups: groups.len() });
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

/// Which of `names` a list names: one name a line, with or without its extension; empty lines and `#` comments are passed over.
///
/// # Errors
/// Names that are not among `names`.
pub fn named(names: &[&str], list: &str) -> Result<Vec<bool>, SplitError> {
    let lines = list.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let wanted: BTreeSet<&str> = lines.filter(|line| !line.is_empty()).collect();
    let stem = |line: &str| line.rsplit_once('.').map_or(line, |(stem, _)| stem).to_owned();
    let known = |line: &str| names.iter().position(|name| *name == line || *name == stem(line));
    let mut chosen = vec![false; names.len()];
    let mut unknown = Vec::new();
    for line in wanted {
        match known(line) {
            Some(at) => chosen[at] = true,
            None => unknown.push(line.to_owned()),
        }
    }
    if unknown.is_empty() { Ok(chosen) } else { Err(SplitError::Unknown { names: unknown }) }
}
