//! The configuration: layers, units, validation.
//!
//! preset < file < environment < `--set` < flags. Every value remembers which of them set it, so a refusal names the
//! line or the argument, and a path is relative to the file that wrote it down.

mod bench;
mod check;
mod classes;
mod error;
mod layers;
mod origin;
mod print;
mod read;
mod schema;
mod stages;
mod tables;
mod training;
mod tree;

use std::path::{Path, PathBuf};

pub use bench::{BenchConfig, BenchConfigError};
pub use classes::ClassConfig;
pub use error::ConfigError;
pub use layers::preset_names;
pub use origin::Origin;
pub use schema::{
    DisplayChoice, MasksFormat, MemoryConfig, ModelConfig, OutputConfig, OverlayConfig, PaceChoice,
    QueueChoice, SinkConfig, SourceConfig, StreamConfig,
};
pub use tables::{TableDataset, TableModel, TablesConfig};
pub use training::TrainConfig;

use crate::media::template::{Bound, Kind, Template};
use read::{Log, Section};

/// Source kind that is no template: the simulated cine-loop.
pub const PHANTOM: &str = "phantom";

/// What a configuration is made from, weakest first.
#[derive(Debug, Default)]
pub struct LoadArgs<'a, E> {
    /// Preset that applies if nothing else names one.
    pub preset: Option<&'a str>,
    /// Configuration file.
    pub file: Option<&'a Path>,
    /// The environment; `SONOMASK__TABLE__KEY` sets `table.key`.
    pub env: E,
    /// `key=value` arguments of `--set`.
    pub set: &'a [String],
    /// Values of flags that have a key: the key with its dots, the value, the flag for messages.
    pub flags: &'a [(&'a str, toml::Value, &'a str)],
}

/// A whole configuration. [`Config::check`] must be called once the source is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Name of the preset it builds on.
    pub preset: Option<String>,
    /// Where frames come from.
    pub source: SourceConfig,
    /// Settings of the phantom, for the phantom to read.
    pub phantom: toml::Table,
    /// The network.
    pub model: ModelConfig,
    /// Memory across frames.
    pub memory: MemoryConfig,
    /// What is to be found.
    pub classes: Vec<ClassConfig>,
    /// Hand-off and display.
    pub stream: StreamConfig,
    /// Drawing.
    pub overlay: OverlayConfig,
    /// Where frames go.
    pub sink: SinkConfig,
    /// Files besides the sink's.
    pub output: OutputConfig,
    /// Folders searched for templates, best first.
    pub template_dirs: Vec<PathBuf>,
    log: Log,
}

impl Config {
    /// Reads and merges all layers.
    ///
    /// # Errors
    /// A file that cannot be read, bad TOML, an unknown key or preset, a value of the wrong type, range or unit.
    pub fn load(args: LoadArgs<'_, impl Iterator<Item = (String, String)>>) -> Result<Self, ConfigError> {
        let (tree, preset, template_dirs) = layers::merge(args)?;
        let mut log = Log::new();
        let mut top = Section::new("", Some(tree), &mut log)?;
        // Already followed while merging.
        top.take("preset");
        let tables =
            ["source", "phantom", "model", "memory", "classes", "stream", "overlay", "sink", "output"]
                .map(|key| top.take(key));
        top.finish()?;
        let [source, phantom, model, memory, classes, stream, overlay, sink, output] = tables;
        let source = SourceConfig::read(source, &mut log)?;
        let mut section = Section::new(PHANTOM, phantom, &mut log)?;
        let phantom =
            section.remaining().iter().map(|(key, given)| (key.to_owned(), given.value.clone())).collect();
        Ok(Self {
            preset,
            source,
            phantom,
            model: ModelConfig::read(model, &mut log)?,
            memory: MemoryConfig::read(memory, &mut log)?,
            stream: StreamConfig::read(stream, &mut log)?,
            overlay: OverlayConfig::read(overlay, &mut log)?,
            sink: SinkConfig::read(sink, &mut log)?,
            output: OutputConfig::read(output, &mut log)?,
            classes: ClassConfig::read_all(classes, &mut log)?,
            template_dirs,
            log,
        })
    }

    /// Where `key` (`model.device`, `classes[0].box`) got its value.
    pub fn origin(&self, key: &str) -> Origin {
        let found = self.log.iter().find(|e| key == format!("{}.{}", e.section, e.key));
        found.map_or(Origin::Default, |e| e.at.clone())
    }

    /// The source's template with its values; `None` for the phantom.
    ///
    /// # Errors
    /// An unknown template or parameter, a bad or missing value.
    pub fn bind_source(&self) -> Result<Option<Bound>, ConfigError> {
        if self.source.kind == PHANTOM {
            return match self.source.params.iter().next() {
                None => Ok(None),
                Some((key, given)) => Err(ConfigError::Combination {
                    what: format!(
                        "source.{key} = {}: the phantom takes its settings from [phantom]",
                        given.value
                    ),
                    at: vec![self.origin(&format!("source.{key}"))],
                }),
            };
        }
        let template = Template::find(Kind::Source, &self.source.kind, &self.template_dirs)?;
        Ok(Some(template.bind(&self.source.params)?))
    }
}
