//! The folder that a run writes into: one run at a time has it.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::TrainError;
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
