//! From a configuration to a [`Plan`]: builds the source, the sink, the overlay and the model's worker.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};

use super::began::Began;
use super::model::SharedModel;
use super::prompts::{PromptArgs, with_learned};
use super::{check_weights, class_styles};
use crate::cine::{self, CineReader, OpenOptions, Timing};
use crate::config::{Config, DisplayChoice, MasksFormat, Origin, QueueChoice};
use crate::media::template::{Bound, Kind, Params, Template};
use crate::media::{MediaError, Pace, Recording, SinkPipeline, SourcePipeline};
use crate::overlay::{Overlay, Style};
use crate::phantom::{PhantomConfig, PhantomReader};
use crate::pipeline::{
    DisplayMode, ExchangeConfig, Guide, MaskFormat, Plan, QueueMode, SidecarConfig, WorkerConfig, file_safe,
};
use crate::segment::{Mode, ModelSpec, learned_classes};

/// Template of recordings that GStreamer decodes.
const FILE: &str = "file";

/// Everything of a configuration that several runs share.
pub struct Session {
    /// The configuration.
    pub config: Config,
    guide: Arc<Guide>,
    model: Option<Arc<SharedModel>>,
}

/// A source with what is known of it before it starts.
pub struct Source {
    pipeline: SourcePipeline,
    /// For the report.
    pub name: String,
    /// Number of frames, where known.
    pub frames: Option<u64>,
}

/// Where frames go.
pub struct Sink {
    pipeline: SinkPipeline,
    recording: Option<Recording>,
    /// For the report.
    pub name: String,
}

impl Session {
    /// Checks the configuration against what is there: weights, device, prompts. Loads nothing yet.
    ///
    /// # Errors
    /// A request that cannot be met, in words for the person.
    pub fn new(mut config: Config, args: &PromptArgs) -> Result<Self> {
        if !args.is_empty() {
            config.classes = args.classes()?;
        }
        let mut spec = if config.model.enabled { Some(model_spec(&config)?) } else { None };
        if let Some(spec) = &mut spec {
            // Here alone: stills have no frames before them.
            spec.memory = config.memory.settings;
        }
        let learned = spec.as_ref().map_or_else(|| Ok(Vec::new()), learned_classes)?;
        if !learned.is_empty() && config.model.mode != Some(Mode::Manual) {
            // A preset's box is an example of where something may lie; a predictor knows what it looks for.
            config.classes.retain(|c| learned.contains(&c.name) || !matches!(c.at, Origin::Preset(..)));
        }
        config.check_prompts(&learned)?;
        config.classes = with_learned(&learned, std::mem::take(&mut config.classes));
        let guide = Arc::new(args.guide(&config.classes, &learned, config.model.mode)?);
        let mut files = std::collections::BTreeSet::new();
        if let Some(twice) = config.classes.iter().find(|c| !files.insert(file_safe(&c.name))) {
            return Err(anyhow!(
                "the class {:?} and another would write the same mask files; rename one",
                twice.name
            ));
        }
        phantom_config(&config)?;
        let model = match spec {
            Some(spec) => {
                let device = config.model.device.resolve()?;
                tracing::info!("{}", device.line);
                Some(Arc::new(SharedModel::new(spec, device)))
            }
            None => None,
        };
        if args.control {
            args.follow(&config.classes, &learned, config.model.mode, guide.clone())?;
        }
        Ok(Self { config, guide, model })
    }

    /// Loads the model now, so that unusable weights are an error before anything is written.
    ///
    /// # Errors
    /// Whatever keeps the model from being loaded.
    pub fn preload(&self) -> Result<()> {
        self.model.as_ref().map_or(Ok(()), |m| m.preload().map_err(|e| anyhow!(e)))
    }

    /// The source that the configuration names.
    ///
    /// # Errors
    /// An unknown template, a wrong parameter, a missing plugin, a wrong phantom.
    pub fn source(&self) -> Result<Source> {
        let s = &self.config.source;
        let Some(bound) = self.config.bind_source()? else {
            self.config.check(false)?;
            let phantom = phantom_config(&self.config)?;
            let frames = phantom.frames;
            let reader = PhantomReader::new(phantom)?;
            let name = reader.describe();
            let pipeline = SourcePipeline::from_reader(Box::new(reader), self.pace(true), s.keep_gray)?;
            return Ok(Source { pipeline, name, frames });
        };
        let live = bound.is_live();
        self.config.check(live)?;
        let pipeline = SourcePipeline::from_bin(bound.launch()?, live, self.pace(live), s.keep_gray)?;
        Ok(Source { pipeline, name: s.kind.clone(), frames: None })
    }

    /// Refuses what cannot work for recordings, before anything is opened.
    ///
    /// # Errors
    /// Impossible combinations, and settings that the templates of recordings do not have.
    pub fn check_recordings(&self, output: &Path) -> Result<()> {
        let c = &self.config;
        c.check(false)?;
        if c.source.kind == FILE {
            self.file_source(Path::new("-"))?;
        }
        let template = Template::find(Kind::Sink, &c.sink.kind, &c.template_dirs)?;
        let mut params = c.sink.params.clone();
        params.set("path", path_value(output)?, "--output");
        template.bind(&params)?;
        Ok(())
    }

    fn file_source(&self, path: &Path) -> Result<Bound> {
        let s = &self.config.source;
        let mut params = if s.kind == FILE { s.params.clone() } else { Params::default() };
        params.set("path", path_value(path)?, "the command line");
        Ok(Template::find(Kind::Source, FILE, &self.config.template_dirs)?.bind(&params)?)
    }

    /// A recording as a source: a cine-loop of our own readers, else whatever GStreamer decodes.
    ///
    /// # Errors
    /// An input that is not there or cannot be read.
    pub fn recording(&self, path: &Path, options: OpenOptions) -> Result<Source> {
        let s = &self.config.source;
        let name = path.display().to_string();
        if cine::recognise(path).is_some() {
            let reader = cine::open_with(path, options)?;
            tracing::info!("{name}: {}", reader.describe());
            match reader.timing() {
                Timing::File(from) => tracing::info!("{name}: times from {from}"),
                Timing::Assumed(rate) => tracing::warn!("{name}: the file gives no times, assumed {rate}"),
            }
            let frames = Some(reader.frames() as u64);
            let pipeline = SourcePipeline::from_reader(reader, self.pace(false), s.keep_gray)?;
            return Ok(Source { pipeline, name, frames });
        }
        // A plain error here rather than GStreamer's.
        std::fs::File::open(path).with_context(|| format!("cannot open the input: {name}"))?;
        let bound = self.file_source(path)?;
        let pipeline = SourcePipeline::from_bin(bound.launch()?, false, self.pace(false), s.keep_gray)?;
        Ok(Source { pipeline, name, frames: None })
    }

    /// The sink that the configuration names; a recording's name may have the time at which the run `began`.
    ///
    /// # Errors
    /// An unknown template, a wrong parameter, a missing plugin, an output that cannot be written.
    pub fn sink(&self, live: bool, overwrite: bool, began: &Began) -> Result<Sink> {
        let c = &self.config;
        let template = Template::find(Kind::Sink, &c.sink.kind, &c.template_dirs)?;
        make_sink(&template, c.sink.params.clone(), live, |path| {
            Recording::begin(&began.name(path), overwrite)
        })
    }

    /// A recording as a sink, over a file of that name; the configuration's sink is the one for its extension.
    ///
    /// # Errors
    /// As [`Session::sink`].
    pub fn record_to(&self, path: &Path) -> Result<Sink> {
        let c = &self.config;
        let mut params = c.sink.params.clone();
        params.set("path", path_value(path)?, "--output");
        let template = Template::find(Kind::Sink, &c.sink.kind, &c.template_dirs)?;
        make_sink(&template, params, false, |path| Recording::begin(path, true).map(Recording::to_the_end))
    }

    /// Puts a run together. `masks` and `sheet` are where its files beside the video go.
    ///
    /// # Errors
    /// A combination of source and modes that cannot work.
    pub fn plan(
        &self,
        source: Source,
        sink: Sink,
        masks: Option<PathBuf>,
        sheet: Option<PathBuf>,
    ) -> Result<Plan> {
        let c = &self.config;
        let live = source.pipeline.is_live();
        c.check(live)?;
        let queue = match c.stream.queue {
            QueueChoice::Latest => QueueMode::Latest,
            QueueChoice::Lossless => QueueMode::Lossless,
        };
        let style = if c.overlay.enabled { c.overlay.style.clone() } else { Style::off() };
        let format = match c.output.masks_format {
            MasksFormat::Png => MaskFormat::Png,
            MasksFormat::Rle => MaskFormat::Rle,
        };
        let names: Vec<String> = c.classes.iter().map(|class| class.name.clone()).collect();
        let worker = WorkerConfig {
            guide: self.guide.clone(),
            classes: names.clone(),
            watchdog: c.model.watchdog,
            backoff: c.model.restart_backoff,
            max_restarts: c.model.max_restarts,
        };
        Ok(Plan {
            exchange: ExchangeConfig {
                display: match c.stream.display {
                    DisplayChoice::Paired => DisplayMode::Paired,
                    DisplayChoice::Latest => DisplayMode::Latest,
                },
                queue,
                display_depth: c.stream.display_depth,
                model_depth: c.stream.queue_depth,
            },
            model: self.model.clone().map(|m| (worker, m as Arc<dyn crate::pipeline::ModelFactory>)),
            overlay: Overlay::new(style, class_styles(&c.classes)),
            classes: names.clone(),
            max_mask_age: c.stream.max_mask_age,
            sidecar: SidecarConfig {
                masks: masks.map(|dir| (dir, format)),
                contact_sheet: sheet,
                expected_frames: source.frames,
                classes: names,
                lossless: queue == QueueMode::Lossless,
            },
            latency: c.sink.latency,
            reconnect: c.source.reconnect,
            no_signal: c.stream.no_signal,
            tick: c.output.report_interval,
            tape: None,
            input: source.name,
            output: sink.name,
            source: source.pipeline,
            sink: sink.pipeline,
            recording: sink.recording,
        })
    }

    /// How frames are paced; a source that stands for a scanner runs in real time unless told otherwise.
    fn pace(&self, scanner: bool) -> Pace {
        if self.config.realtime(scanner) { Pace::Realtime } else { Pace::Fast }
    }
}

/// The model that a configuration names.
///
/// # Errors
/// No weights, or a file that is not there.
pub fn model_spec(config: &Config) -> Result<ModelSpec> {
    let m = &config.model;
    let weights = m.weights.clone().ok_or_else(|| anyhow!("model.weights is not set"))?;
    for file in std::iter::once(&weights).chain(&m.ppn) {
        check_weights(file).map_err(|e| anyhow!(e))?;
    }
    Ok(ModelSpec {
        family: Some(m.family.parse()?),
        ppn: m.ppn.clone(),
        dataset: m.dataset.clone(),
        only: m.only.clone(),
        precision: m.precision,
        input_size: m.input_size,
        presence_threshold: m.presence_threshold,
        views: m.views,
        max_hole_area: m.max_hole_area,
        max_sprinkle_area: m.max_sprinkle_area,
        non_overlapping: m.non_overlapping,
        threads: m.threads,
        cuda_graphs: m.cuda_graphs,
        ..ModelSpec::new(weights)
    })
}

/// The settings of the phantom.
///
/// # Errors
/// An unknown key, a value of the wrong type, a setting out of range.
pub fn phantom_config(config: &Config) -> Result<PhantomConfig> {
    let phantom: PhantomConfig =
        toml::Value::Table(config.phantom.clone()).try_into().context("[phantom]")?;
    phantom.validate().context("[phantom]")?;
    Ok(phantom)
}

fn make_sink(
    template: &Template,
    mut params: Params,
    live: bool,
    begin: impl FnOnce(&Path) -> Result<Recording, MediaError>,
) -> Result<Sink> {
    let mut name = template.name().to_owned();
    let mut recording = None;
    if template.records() {
        let bound = template.bind(&params)?;
        let target =
            bound.records().with_context(|| format!("the sink {name} records, but has no `path`"))?;
        let begun = begin(target)?;
        name = begun.target().display().to_string();
        params.set("path", path_value(begun.part())?, "the recording");
        recording = Some(begun);
    }
    let built = template
        .bind(&params)
        .and_then(|b: Bound| b.launch())
        .map_err(anyhow::Error::from)
        .and_then(|bin| Ok(SinkPipeline::new(bin, live)?));
    Ok(Sink { pipeline: built?, recording, name })
}

impl Source {
    /// Whether frames come whether or not anybody takes them.
    pub fn is_live(&self) -> bool {
        self.pipeline.is_live()
    }
}

fn path_value(path: &Path) -> Result<String> {
    let text =
        path.to_str().with_context(|| format!("GStreamer needs a path in UTF-8: {}", path.display()))?;
    Ok(text.to_owned())
}
