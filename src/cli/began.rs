//! When a run began, in the names of what it writes.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use gstreamer::glib;

/// What stands for that time in a name. A service that is started again then finds no file of the run before in its way.
const PLACE: &str = "{start}";

/// The local date and time at which a run began.
pub struct Began(String);

impl Began {
    /// It begins now.
    pub fn now() -> Self {
        let local = glib::DateTime::now_local().and_then(|now| now.format("%Y-%m-%dT%H-%M-%S"));
        // Where the time zone cannot be told.
        let seconds = || UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs()).to_string();
        Self(local.map_or_else(|_| seconds(), Into::into))
    }

    /// `path` with the time in place of every `{start}`.
    pub fn name(&self, path: &Path) -> PathBuf {
        path.to_str().map_or_else(|| path.to_owned(), |text| text.replace(PLACE, &self.0).into())
    }
}
