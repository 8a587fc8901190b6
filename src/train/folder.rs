//! The folder that a run writes into: one run at a time has it.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::{Split, TrainError, TrainSpec};
use crate::whole;

/// The file whose lock says that a run is at work. It stays when the run ends; the lock does not, however the run ends.
const LOCK: &str = ".lock";

/// A folder that no other run can write into for as long as this is held.
#[derive(Debug)]
pub(super) struct Folder {
    _lock: File,
}

impl Folder {
    /// Takes the folder `out`, makes it if need be, and removes what a killed run had begun to write.
    ///
    /// # Errors
    /// Another run is at work in it; a folder that cannot be written to.
    pub(super) fn take(out: &Path) -> Result<Self, TrainError> {
        let file = out.join(LOCK);
        let failed = |e| TrainError::write(&file, e);
        std::fs::create_dir_all(out).map_err(failed)?;
        let lock = File::options().create(true).truncate(false).write(true).open(&file).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => whole::sweep(out).map_err(|e| TrainError::write(out, e))?,
            Err(TryLockError::WouldBlock) => return Err(TrainError::Busy(out.to_owned())),
            // Some network file systems know no locks. Then what lies there may be another run's.
            Err(TryLockError::Error(e)) => tracing::warn!("cannot lock {}: {e}", file.display()),
        }
        Ok(Self { _lock: lock })
    }
}

/// What a run leaves in its folder.
pub(super) const STATE: &str = "state.safetensors";
pub(super) const LAST: &str = "last.safetensors";
pub(super) const BEST: &str = "best.safetensors";
/// Begins the names of the lists of what is held out.
const HELD_OUT: &str = "validation";

/// Whether `out` has a run that can be gone on with.
pub fn can_resume(out: &Path) -> bool {
    out.join(STATE).is_file()
}

/// Whether `out` has anything that a new run would replace.
pub fn is_begun(out: &Path) -> bool {
    [STATE, LAST, BEST].iter().any(|name| out.join(name).exists())
}

/// The list of what the run in `out` held out of the data set `name`, one of `sets`.
pub fn held_out_list(out: &Path, name: &str, sets: usize) -> PathBuf {
    out.join(if sets == 1 { format!("{HELD_OUT}.txt") } else { format!("{HELD_OUT}.{name}.txt") })
}

/// What a new run replaces in its folder.
fn replaced(spec: &TrainSpec) -> impl Iterator<Item = PathBuf> {
    let sets = spec.datasets.len();
    let lists = spec.datasets.iter().map(move |data| held_out_list(&spec.out, &data.set.name, sets));
    [STATE, BEST, LAST].map(|name| spec.out.join(name)).into_iter().chain(lists)
}

/// A run must not write over what it begins with: it could not be gone on with, and the file would be lost.
pub(super) fn keeps_inputs(spec: &TrainSpec) -> Result<(), TrainError> {
    let written: Vec<PathBuf> = replaced(spec).filter_map(|file| file.canonicalize().ok()).collect();
    let mut begun_with: Vec<&PathBuf> = std::iter::once(&spec.model.weights).chain(&spec.model.ppn).collect();
    for data in &spec.datasets {
        if let Split::Lists { validation, train, .. } = &data.split {
            begun_with.push(validation);
            begun_with.extend(train);
        }
    }
    for file in begun_with {
        if file.canonicalize().is_ok_and(|real| written.contains(&real)) {
            let file = file.display();
            let what = format!(
                "the run begins with this file and would replace it: expected another run.out: {file}"
            );
            return Err(TrainError::Setting(what));
        }
    }
    Ok(())
}

/// Removes what an earlier run left, first of all what it could be gone on from: from here on there is no such run.
pub(super) fn forget(spec: &TrainSpec) -> Result<(), TrainError> {
    for file in replaced(spec) {
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(TrainError::write(&file, e)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_at_a_time_has_a_folder() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("run");
        let first = Folder::take(&out).unwrap();
        let second = Folder::take(&out).unwrap_err().to_string();
        assert!(second.contains("another run") && second.contains("run"), "{second}");
        drop(first);
        // What a killed run leaves.
        std::mem::forget(whole::begin(&out.join("state.safetensors")).unwrap());
        let begun = || std::fs::read_dir(&out).unwrap().count();
        assert_eq!(begun(), 2);
        let _third = Folder::take(&out).unwrap();
        assert_eq!(begun(), 1);
    }
}
