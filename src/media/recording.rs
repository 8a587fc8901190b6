//! A file that a sink writes: under its own name only when it is whole, and by one run at a time.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::MediaError;
use crate::whole::{free_name, incomplete};

/// Ends of the hidden names beside a recording: of the file while it is written, and of the one whose lock says that it is.
const PART: &str = ".part";
const LOCK: &str = ".sonomask";

/// A file being written: under a temporary name until it is whole. Dropped without an end, it is removed.
#[derive(Debug)]
pub struct Recording {
    target: PathBuf,
    part: PathBuf,
    to_the_end: bool,
    ended: bool,
    _lock: Lock,
}

impl Drop for Recording {
    fn drop(&mut self) {
        // What a panic leaves is for the next recording to find, as is what a crash leaves.
        if !self.ended && !std::thread::panicking() {
            // It may never have been written, or its folder is gone; there is nothing left to save.
            std::fs::remove_file(&self.part).ok();
        }
    }
}

/// What is left of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// The whole file, under its own name.
    Whole(PathBuf),
    /// A beginning, under a name that says so.
    Incomplete(PathBuf),
    /// Nothing worth keeping.
    Nothing,
}

impl Recording {
    /// Reserves `target`: checks that its folder can be written to. Without `overwrite` an existing file is kept. What crashes left of
    /// recordings in that folder gets names that say so.
    ///
    /// # Errors
    /// If the folder is missing or not writable, `target` is a folder or written to by another run, or there is such a file that must
    /// be kept.
    pub fn begin(target: &Path, overwrite: bool) -> Result<Self, MediaError> {
        let refuse = |reason: String| MediaError::Output { path: target.to_owned(), reason };
        if target.is_dir() {
            return Err(refuse("it is a folder".into()));
        }
        if !overwrite && target.exists() {
            return Err(refuse("there is such a file; choose another name, or give --overwrite".into()));
        }
        target.file_name().ok_or_else(|| refuse("it names no file".into()))?;
        rescue(target);
        let lock = Lock::take(hidden(target, LOCK)).map_err(|e| refuse(e.to_string()))?;
        let lock = lock.ok_or_else(|| refuse("another run records to it".into()))?;
        let part = hidden(target, PART);
        keep(target, &part).map_err(|e| refuse(e.to_string()))?;
        File::create(&part).map_err(|e| refuse(e.to_string()))?;
        Ok(Self { target: target.to_owned(), part, to_the_end: false, ended: false, _lock: lock })
    }

    /// Its source has an end, before which it is not whole. Without this it is, whenever somebody stops it.
    pub fn to_the_end(mut self) -> Self {
        self.to_the_end = true;
        self
    }

    /// Whether it is whole if somebody stops it.
    pub fn may_be_stopped(&self) -> bool {
        !self.to_the_end
    }

    /// The file's own name.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where the sink writes for now.
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Gives the file its name: its own if `whole`, one with `.incomplete` before the extension if not.
    ///
    /// # Errors
    /// If renaming fails; the file then stays under its temporary name, which the message gives.
    pub fn end(mut self, whole: bool) -> Result<Left, MediaError> {
        let size = std::fs::metadata(&self.part).map_or(0, |m| m.len());
        if size == 0 {
            // Reserved but never written to.
            return Ok(Left::Nothing);
        }
        self.ended = true;
        let name = if whole { self.target.clone() } else { free_name(&incomplete(&self.target)) };
        std::fs::rename(&self.part, &name).map_err(|e| MediaError::Output {
            path: name.clone(),
            reason: format!("{e}; the recording stays at {}", self.part.display()),
        })?;
        Ok(if whole { Left::Whole(name) } else { Left::Incomplete(name) })
    }
}

/// A name that one run at a time has. The lock is that of a file of its own: some network file systems let nobody write to a file
/// that is locked.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    /// `None` if another run has it.
    fn take(path: PathBuf) -> io::Result<Option<Self>> {
        let is = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        loop {
            let made = File::options().create(true).truncate(false).write(true).open(&path);
            // What another user's crash left can still be read.
            let file = made.or_else(|e| File::open(&path).map_err(|_| e))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                // Some network file systems know no locks.
                Err(TryLockError::Error(e)) => tracing::warn!("cannot lock {}: {e}", path.display()),
            }
            // Whoever had it may have removed it just before.
            let (mine, now) = (file.metadata()?, std::fs::metadata(&path));
            if now.is_ok_and(|now| is(&mine, &now)) {
                return Ok(Some(Self { path, _file: file }));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // It serves nobody any more, and one that stays does no harm.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// The hidden name beside `target` that ends in `end`.
fn hidden(target: &Path, end: &str) -> PathBuf {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    target.with_file_name(format!(".{name}{end}"))
}

/// Gives what a crash left at `part` a name that says so: it may be all there is of an examination.
fn keep(target: &Path, part: &Path) -> io::Result<()> {
    match std::fs::metadata(part) {
        Ok(found) if found.len() > 0 => {}
        Ok(_) => return std::fs::remove_file(part),
        Err(_) => return Ok(()),
    }
    let kept = free_name(&incomplete(target));
    std::fs::rename(part, &kept)?;
    tracing::warn!("an earlier recording was cut off; what there is of it: {}", kept.display());
    Ok(())
}

/// Looks beside `target` for what crashes left of recordings of any name: they have locks that nobody holds.
fn rescue(target: &Path) {
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Some(name) = name.strip_prefix('.').and_then(|name| name.strip_suffix(LOCK)) else { continue };
        let other = dir.join(name);
        // What cannot be had or renamed stays as it is.
        if let Ok(Some(_lock)) = Lock::take(entry.path())
            && let Err(e) = keep(&other, &hidden(&other, PART))
        {
            tracing::warn!("an earlier recording was cut off, and stays hidden: {e}: {}", other.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_recording_has_one_run_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.mkv");
        let first = Recording::begin(&target, false).unwrap();
        let second = Recording::begin(&target, true).unwrap_err().to_string();
        assert!(second.contains("another run records to it"), "{second}");
        std::fs::write(first.part(), "frames").unwrap();
        assert_eq!(first.end(true).unwrap(), Left::Whole(target.clone()));
        assert_eq!(names(dir.path()), ["a.mkv"]);
        drop(Recording::begin(&target, true).unwrap());
        assert_eq!(names(dir.path()), ["a.mkv"]);
    }

    #[test]
    fn what_crashes_and_panics_left_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let begin = |name: &str| {
            let recording = Recording::begin(&dir.path().join(name), false).unwrap();
            std::fs::write(recording.part(), format!("frames of {name}")).unwrap();
            recording
        };
        // A process that is killed gives back its locks and removes nothing.
        let killed = begin("a.mkv");
        let (part, lock) = (hidden(&killed.target, PART), hidden(&killed.target, LOCK));
        drop(killed);
        std::fs::write(&part, "frames of a.mkv").unwrap();
        std::fs::write(&lock, "").unwrap();
        let panicked = std::thread::scope(|s| {
            s.spawn(|| {
                let _recording = begin("b.mkv");
                panic!("deliberate panic of the test");
            })
            .join()
        });
        assert!(panicked.is_err());
        // Before there were locks.
        std::fs::write(dir.path().join(".d.mkv.part"), "frames of d.mkv").unwrap();
        let running = begin("c.mkv");
        let next = begin("d.mkv");
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        for name in ["a", "b", "d"] {
            assert_eq!(read(&format!("{name}.incomplete.mkv")), format!("frames of {name}.mkv"));
        }
        drop(next);
        assert!(matches!(running.end(true).unwrap(), Left::Whole(_)));
        assert_eq!(names(dir.path()), ["a.incomplete.mkv", "b.incomplete.mkv", "c.mkv", "d.incomplete.mkv"]);
    }
}
