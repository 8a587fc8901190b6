//! A file that a sink writes: under its own name only when it is whole, and by one run at a time.

use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
        Self::rescue(folder_of(target));
        let (part, path) = (hidden(target, PART), hidden(target, LOCK));
        let take = || Lock::take(&path, File::try_lock).map_err(|e| refuse(e.to_string()));
        let mut taken = take()?;
        for _ in 0..TRIES {
            if !matches!(taken, Taken::Held) {
                break;
            }
            // Another run that begins looks whether this one is a crash's, and has the lock for a moment.
            std::thread::sleep(TRY_AGAIN);
            taken = take()?;
        }
        let lock = match taken {
            Taken::Got(lock) => lock,
            Taken::Held => return Err(refuse("another run records to it".into())),
            Taken::Unknown(e) => {
                tracing::warn!("cannot tell whether another run records to it: {}: {e}", target.display());
                Lock { path, file: None }
            }
        };
        keep(target, &part).map_err(|e| refuse(e.to_string()))?;
        let created = File::create(&part).or_else(|e| match &lock.file {
            // An empty file that another user's crash left, which only they may write to.
            Some(_) => std::fs::remove_file(&part).and_then(|()| File::create(&part)),
            None => Err(e),
        });
        created.map_err(|e| refuse(e.to_string()))?;
        Ok(Self { target: target.to_owned(), part, to_the_end: false, ended: false, _lock: lock })
    }

    /// Gives what crashes left of recordings in the folder `dir` names that say so, unless another run may be writing there.
    pub fn rescue(dir: &Path) {
        rescue(dir, File::try_lock);
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
    /// If the file has vanished, or renaming fails; it then stays under its temporary name, which the message gives.
    pub fn end(self, whole: bool) -> Result<Left, MediaError> {
        let size = std::fs::metadata(&self.part).map(|found| found.len());
        let size = size.map_err(|e| MediaError::Output {
            path: self.part.clone(),
            reason: format!("what was recorded so far has vanished: {e}"),
        })?;
        if size == 0 {
            // Reserved but never written to.
            return Ok(Left::Nothing);
        }
        let name = self.give_name(whole)?;
        Ok(if whole { Left::Whole(name) } else { Left::Incomplete(name) })
    }

    /// As [`Recording::end`], whether or not there is anything in it; the name.
    ///
    /// # Errors
    /// As [`Recording::end`].
    pub fn give_name(mut self, whole: bool) -> Result<PathBuf, MediaError> {
        self.ended = true;
        let name = if whole { self.target.clone() } else { free_name(&incomplete(&self.target)) };
        // On the disk before it has a name that promises it: if the machine loses its power after this, nothing of it is lost.
        let synced = File::open(&self.part).and_then(|file| file.sync_all()).or_else(|e| match e.kind() {
            // Some network file systems know no such thing.
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
            _ => Err(e),
        });
        synced.and_then(|()| std::fs::rename(&self.part, &name)).map_err(|e| MediaError::Output {
            path: name.clone(),
            reason: format!("{e}; what was written stays at {}", self.part.display()),
        })?;
        // Some file systems cannot do it with a folder; the file is safe either way.
        File::open(folder_of(&name)).and_then(|folder| folder.sync_all()).ok();
        Ok(name)
    }
}

/// How often a lock that is held is tried again, and after how long.
const TRIES: usize = 5;
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// A name that one run at a time has. The lock is that of a file of its own: some network file systems let nobody write to a file
/// that is locked.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    /// None where there are no locks.
    file: Option<File>,
}

/// Who has a lock.
enum Taken {
    /// We.
    Got(Lock),
    /// Another run.
    Held,
    /// Nobody can say: some network file systems know no locks, or give them only to those who may write.
    Unknown(io::Error),
}

impl Lock {
    /// Tries to have the lock at `path`, by `try_lock`.
    fn take(path: &Path, try_lock: impl Fn(&File) -> Result<(), TryLockError>) -> io::Result<Taken> {
        let is = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        loop {
            let made = File::options().create(true).truncate(false).write(true).open(path);
            // What another user's crash left can still be read.
            let file = made.or_else(|e| File::open(path).map_err(|_| e))?;
            match try_lock(&file) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Taken::Held),
                Err(TryLockError::Error(e)) => return Ok(Taken::Unknown(e)),
            }
            // Whoever had it may have removed it just before.
            let (mine, now) = (file.metadata()?, std::fs::metadata(path));
            if now.is_ok_and(|now| is(&mine, &now)) {
                return Ok(Taken::Got(Self { path: path.to_owned(), file: Some(file) }));
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

/// Gives what a crash left at `part` a name that says so: it may be all there is of an examination. An empty file is left alone:
/// where nobody knows of locks, somebody may be about to write to it.
fn keep(target: &Path, part: &Path) -> io::Result<()> {
    if !std::fs::metadata(part).is_ok_and(|found| found.len() > 0) {
        return Ok(());
    }
    let kept = free_name(&incomplete(target));
    std::fs::rename(part, &kept)?;
    tracing::warn!("an earlier recording was cut off; what there is of it: {}", kept.display());
    Ok(())
}

/// The folder of `target`.
fn folder_of(target: &Path) -> &Path {
    target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Looks in `dir` for what crashes left of recordings of any name: they have locks that nobody holds, as far as that can be known.
fn rescue(dir: &Path, try_lock: impl Fn(&File) -> Result<(), TryLockError>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let Some(name) = name.strip_prefix('.').and_then(|name| name.strip_suffix(LOCK)) else { continue };
        let other = dir.join(name);
        // What cannot be had or renamed stays as it is.
        let Ok(Taken::Got(_lock)) = Lock::take(&entry.path(), &try_lock) else { continue };
        let part = hidden(&other, PART);
        match keep(&other, &part) {
            // What is left is empty, and nobody's: the lock says so.
            Ok(()) => drop(std::fs::remove_file(&part)),
            Err(e) => {
                tracing::warn!(
                    "an earlier recording was cut off, and stays hidden: {e}: {}",
                    other.display()
                );
            }
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
    fn a_recording_that_vanished_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let recording = Recording::begin(&dir.path().join("a.mkv"), false).unwrap();
        std::fs::remove_file(recording.part()).unwrap();
        let said = recording.end(true).unwrap_err().to_string();
        assert!(said.contains("has vanished") && said.contains(".a.mkv.part"), "{said}");
    }

    #[test]
    fn what_may_be_another_runs_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for (name, frames) in [("a", ""), ("b", "frames")] {
            std::fs::write(dir.path().join(format!(".{name}.mkv.part")), frames).unwrap();
            std::fs::write(dir.path().join(format!(".{name}.mkv.sonomask")), "").unwrap();
        }
        let all = [".a.mkv.part", ".a.mkv.sonomask", ".b.mkv.part", ".b.mkv.sonomask"];
        // On a file system without locks nobody knows who writes there.
        rescue(dir.path(), |_| Err(TryLockError::Error(io::ErrorKind::Unsupported.into())));
        assert_eq!(names(dir.path()), all);
        // With locks, these are of crashes. What is empty holds nothing to be saved.
        Recording::rescue(dir.path());
        assert_eq!(names(dir.path()), ["b.incomplete.mkv"]);
        drop(Recording::begin(&dir.path().join("a.mkv"), false).unwrap());
        assert_eq!(names(dir.path()), ["b.incomplete.mkv"]);
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
