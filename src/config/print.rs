//! The effective configuration as TOML, each line with where it came from.

use std::fmt::Write;

use super::Config;
use super::read::{Effective, Log};

/// Settings that are paths. They are printed whole, so that the text means the same wherever it is saved.
const PATHS: &[&str] = &[
    "weights",
    "ppn",
    "masks",
    "report",
    "contact_sheet",
    "mask_prompt",
    "path",
    "data",
    "images",
    "validation",
    "train",
    "out",
    "cache",
];
/// Keys whose values are not for a log.
const HIDDEN: &[&str] = &["passphrase", "password"];

impl Config {
    /// The effective settings, defaults included, as TOML that [`Config::load`] reads back; every key is followed by a
    /// comment that says where its value came from. Passwords and passphrases are left out.
    pub fn to_toml(&self) -> String {
        to_toml(&self.log)
    }
}

/// Effective settings as TOML, each with where it came from; paths are whole.
pub(super) fn to_toml(log: &Log) -> String {
    written(log, |e| {
        let at = e.at.to_string().replace(char::is_control, "?");
        format!("{} # {at}", shown(e))
    })
}

/// The same for whoever gets a file that was made with them: paths as they were written, and nothing of where.
pub(super) fn portable(log: &Log) -> String {
    written(log, |e| e.value.to_string())
}

fn written(log: &Log, value: impl Fn(&Effective) -> String) -> String {
    let mut out = String::new();
    let mut section = "";
    for e in log {
        if e.section != section {
            section = &e.section;
            let header = match section.split_once('[') {
                Some((array, _)) => format!("[[{array}]]"),
                None => format!("[{section}]"),
            };
            let blank = if out.is_empty() { "" } else { "\n" };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{blank}{header}");
        }
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let key = if e.key.chars().all(bare) && !e.key.is_empty() {
            e.key.clone()
        } else {
            toml::Value::String(e.key.clone()).to_string()
        };
        let _ = if HIDDEN.contains(&e.key.as_str()) {
            writeln!(out, "# {key} = (hidden) # {}", e.at)
        } else {
            writeln!(out, "{key} = {}", value(e))
        };
    }
    out
}

fn shown(e: &Effective) -> toml::Value {
    match &e.value {
        toml::Value::String(path) if PATHS.contains(&e.key.as_str()) && !path.is_empty() => {
            let path = e.at.resolve(path);
            toml::Value::String(std::path::absolute(&path).unwrap_or(path).to_string_lossy().into_owned())
        }
        other => other.clone(),
    }
}
