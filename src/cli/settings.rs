//! A configuration, and settings of it, from the command line.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::config::{Config, LoadArgs};

/// Options of commands that take a configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigOptions {
    /// Configuration file; `sonomask run --print-config` shows every key (with `--preset benchmark` the phantom's too)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Built-in preset to start from: bedside, cine, benchmark, demo or nerve-vessel
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// One setting, before the file's and the environment's: model.device=cpu
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print the configuration in force, with the origin of every value, and end
    #[arg(long)]
    pub print_config: bool,
}

impl ConfigOptions {
    /// Reads the layers: preset < file < environment < `--set` < `flags` of the command itself.
    /// `first` are settings as of `--set`, before those.
    ///
    /// # Errors
    /// What is wrong, where, and what was expected.
    pub fn load<'a>(
        &'a self,
        default_preset: impl Into<Option<&'a str>>,
        first: &[String],
        flags: &[(&str, toml::Value, &str)],
    ) -> Result<Config> {
        let set: Vec<String> = first.iter().chain(&self.set).cloned().collect();
        Ok(Config::load(LoadArgs {
            preset: self.preset.as_deref().or(default_preset.into()),
            file: self.config.as_deref(),
            env: super::environment(),
            set: &set,
            flags,
        })?)
    }
}

/// The sink for the extension of `file`, as settings that come before `--set`, so that those are for this sink.
///
/// # Errors
/// An extension that no sink writes.
pub fn record_kind(file: &Path) -> Result<Vec<String>> {
    let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    let kind = match extension.as_str() {
        "mp4" | "m4v" | "mov" => "record-mp4",
        "mkv" => "record-mkv",
        other => {
            return Err(anyhow!("the output ends in `{other}`; expected .mp4 or .mkv: {}", file.display()));
        }
    };
    Ok(vec![format!("sink.kind=\"{kind}\"")])
}

/// A path on the command line as a setting: relative to the current directory.
pub fn path_flag(path: &Path) -> toml::Value {
    toml::Value::String(path.to_string_lossy().into_owned())
}
