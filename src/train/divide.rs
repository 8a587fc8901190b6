//! Which pictures of a data set a run learns from, and which it holds out.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;

use super::{DataSpec, Split};
use crate::dataset::{Dataset, Problem, SplitError, folds, named, patients};

/// For each picture of a data set whether it is held out; `None`: neither held out nor learned from.
pub(super) type Parts = Vec<Option<bool>>;

/// The pictures of a data set as they are divided, `None` where that cannot be told; what is wrong goes to `problems`.
pub(super) fn divide(data: &DataSpec, set: &Dataset, problems: &mut Vec<Problem>) -> Option<Parts> {
    let names: Vec<&str> = set.samples.iter().map(|s| s.name.as_str()).collect();
    match &data.split {
        Split::Nothing => Some(vec![Some(false); names.len()]),
        Split::Folds { folds: parts, fold, patient, seed } => {
            let found = folds(&names, patient.as_deref(), *parts, *seed);
            let found = found.map_err(|reason| problems.push(reason.into())).ok()?;
            Some(found.into_iter().map(|part| Some(part == *fold)).collect())
        }
        Split::Lists { validation, train, patient } => {
            let mut read = |file: &PathBuf| {
                let text = std::fs::read_to_string(file).map_err(|e| e.to_string());
                let text = text.map_err(|what| Problem::Unreadable { file: file.clone(), what });
                let wrong = |reason| Problem::List { file: file.clone(), reason };
                let chosen = text.and_then(|text| {
                    let chosen = named(&names, &text).map_err(wrong)?;
                    if chosen.contains(&true) { Ok(chosen) } else { Err(wrong(SplitError::NamesNothing)) }
                });
                chosen.map_err(|problem| problems.push(problem)).ok()
            };
            let (held_out, learned) = (read(validation), train.as_ref().map(&mut read));
            let patients = patients(&names, patient.as_deref());
            let patients = patients.map_err(|reason| problems.push(reason.into())).ok();
            let held_out = held_out?;
            let learned = match learned {
                Some(learned) => learned?,
                None => held_out.iter().map(|held| !held).collect(),
            };
            let both = names
                .iter()
                .zip(held_out.iter().zip(&learned))
                .filter(|(_, (held, learned))| **held && **learned);
            let both: Vec<String> = both.map(|(name, _)| (*name).to_owned()).collect();
            if !both.is_empty() {
                problems.push(SplitError::Both { names: both }.into());
            }
            let part = |(held_out, learned): (bool, bool)| {
                if held_out { Some(true) } else { learned.then_some(false) }
            };
            let parts: Parts = held_out.into_iter().zip(learned).map(part).collect();
            let of = |side: bool| -> BTreeSet<&str> {
                let own = patients.iter().flatten().zip(&parts).filter(|(_, part)| **part == Some(side));
                own.map(|(patient, _)| *patient).collect()
            };
            let torn: Vec<String> = of(true).intersection(&of(false)).map(ToString::to_string).collect();
            if !torn.is_empty() {
                problems.push(SplitError::Torn { patients: torn }.into());
            }
            Some(parts)
        }
    }
}

/// Leaves `limit` pictures to learn from, drawn by `seed`. Of the same seed a smaller draw is a part of a larger one.
pub(super) fn limit(parts: &mut [Option<bool>], limit: Option<usize>, seed: u64) {
    let Some(limit) = limit else { return };
    let mut learned: Vec<usize> = (0..parts.len()).filter(|&i| parts[i] == Some(false)).collect();
    learned.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    for &at in learned.iter().skip(limit) {
        parts[at] = None;
    }
}
