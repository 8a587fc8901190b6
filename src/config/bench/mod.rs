//! `sonomask bench --config FILE`: the matrix that is measured. Every mistake of a file is told at once.

mod words;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use self::words::{fractions, list, loop_word, rate, side, size, stream};
use super::layers::file;
use super::read::{Log, Section, text, wrong};
use super::tree::{Item, Node};
use super::{ConfigError, Origin, print};
use crate::bench::{DEFAULT_BOX, Drive, MAX_CASES, Matrix, ModelAxes, ModelChoice, SourceChoice, StreamMode};
use crate::frame::PixelFormat;
use crate::segment::{DeviceChoice, MAX_INPUT_SIZE, MAX_THREADS, Precision};
use crate::weights::Family;

/// Most frames of a case.
const MAX_FRAMES: u32 = 1_000_000;
/// Most entries of an axis.
const MAX_ENTRIES: usize = 64;
/// Word for weights that are made from a rule.
const GENERATE: &str = "generate";
const SIZES: &str = "a list of sizes such as \"640x480\", each side 64 to 4096 pixels";

/// A whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchConfig {
    /// What is to be measured.
    pub matrix: Matrix,
    log: Log,
}

/// Everything that is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub struct BenchConfigError(pub Vec<ConfigError>);

impl fmt::Display for BenchConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ConfigError::to_string).collect();
        f.write_str(&lines.join("\n  "))
    }
}

/// Collects mistakes, so that one does not hide the next.
#[derive(Default)]
struct Mistakes(Vec<ConfigError>);

impl Mistakes {
    /// The value, or what stands in for it while the others are read.
    fn or<T>(&mut self, read: Result<T, ConfigError>, instead: T) -> T {
        read.unwrap_or_else(|e| {
            self.0.push(e);
            instead
        })
    }

    fn add(&mut self, what: impl Into<String>, at: &Origin) {
        self.0.push(ConfigError::Combination { what: what.into(), at: vec![at.clone()] });
    }

    fn finish(&mut self, section: Section<'_>) {
        self.0.extend(section.finish_all());
    }

    /// The tables of an array.
    fn tables(&mut self, key: &str, node: Option<Node>) -> Vec<Node> {
        match node {
            None => Vec::new(),
            Some(Node { item: Item::Array(items), .. }) => items,
            Some(node) => {
                self.0.push(wrong(key, &node, format!("[[{key}]] tables")));
                Vec::new()
            }
        }
    }
}

/// The axes that models share unless they have their own.
struct Axes {
    input_sizes: Vec<Option<usize>>,
    precisions: Vec<String>,
    devices: Vec<String>,
    memory: Vec<bool>,
}

impl BenchConfig {
    /// Reads a file and checks it against what is there.
    ///
    /// # Errors
    /// Every mistake: bad TOML, unknown keys, wrong values, files that are not there, with file and line.
    pub fn read(path: &Path) -> Result<Self, BenchConfigError> {
        let tree = file(path).map_err(|e| BenchConfigError(vec![e]))?;
        let (mut log, mut mistakes) = (Log::new(), Mistakes::default());
        let matrix = read_matrix(tree, &mut log, &mut mistakes);
        match matrix {
            Ok(matrix) if mistakes.0.is_empty() => Ok(Self { matrix, log }),
            Ok(_) => Err(BenchConfigError(mistakes.0)),
            Err(e) => {
                mistakes.0.push(e);
                Err(BenchConfigError(mistakes.0))
            }
        }
    }

    /// The effective settings as TOML: paths as they were written.
    pub fn portable(&self) -> String {
        print::portable(&self.log)
    }
}

fn read_matrix(tree: Node, log: &mut Log, mistakes: &mut Mistakes) -> Result<Matrix, ConfigError> {
    let mut top = Section::new("", Some(tree), log)?;
    let at = top.at().clone();
    let tables = ["bench", "source", "matrix", "models"].map(|key| top.take(key));
    mistakes.finish(top);
    let [bench, source, axes, models] = tables;
    let mut matrix = Matrix {
        name: String::new(),
        warmup: 0,
        frames: None,
        seconds: None,
        timeout: 0.0,
        max_mask_age_ms: 0,
        source: SourceChoice::Phantom(1),
        pictures: 1,
        format: None,
        sizes: Vec::new(),
        drives: Vec::new(),
        models: Vec::new(),
    };
    read_bench(bench, log, mistakes, &mut matrix)?;
    read_source(source, log, mistakes, &mut matrix)?;
    let shared = read_axes(axes, log, mistakes, &mut matrix)?;
    let mut names = BTreeSet::new();
    let models = mistakes.tables("models", models);
    if models.is_empty() || models.len() > MAX_ENTRIES {
        mistakes.add(format!("{} models: expected 1 to {MAX_ENTRIES} [[models]] tables", models.len()), &at);
    }
    for (i, node) in models.into_iter().take(MAX_ENTRIES).enumerate() {
        let section = format!("models[{i}]");
        let read = read_model(&section, node, &shared, &mut names, log, mistakes);
        match read {
            Ok(model) => matrix.models.push(model),
            Err(e) => mistakes.0.push(e),
        }
    }
    if matrix.count() > MAX_CASES {
        mistakes.add(format!("{} cases: expected at most {MAX_CASES}", matrix.count()), &at);
    }
    Ok(matrix)
}

fn read_bench(
    node: Option<Node>,
    log: &mut Log,
    mistakes: &mut Mistakes,
    m: &mut Matrix,
) -> Result<(), ConfigError> {
    let mut s = Section::new("bench", node, log)?;
    let at = s.at().clone();
    let word = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    m.name = mistakes.or(s.text("name", "a name", ("bench", "bench".to_owned()), word), String::new());
    m.warmup = u64::from(mistakes.or(s.int("warmup", 3, 0, MAX_FRAMES), 0));
    let frames = u64::from(mistakes.or(s.int("frames", 100, 0, MAX_FRAMES), 1));
    let seconds = mistakes.or(s.duration("seconds", Duration::ZERO, Duration::ZERO), Duration::ZERO);
    m.frames = Some(frames).filter(|&n| n > 0);
    m.seconds = Some(seconds.as_secs_f64()).filter(|&s| s > 0.0);
    if m.frames.is_none() && m.seconds.is_none() {
        mistakes.add(
            "bench.frames = 0 and bench.seconds = \"0s\": a case would never end; expected one of them",
            &at,
        );
    }
    let second = Duration::from_secs(1);
    m.timeout = mistakes.or(s.duration("timeout", 600 * second, second), second).as_secs_f64();
    let age = mistakes.or(s.duration("max_mask_age", second / 5, second / 1000), second);
    m.max_mask_age_ms = age.as_millis() as u64;
    mistakes.finish(s);
    Ok(())
}

fn read_source(
    node: Option<Node>,
    log: &mut Log,
    mistakes: &mut Mistakes,
    m: &mut Matrix,
) -> Result<(), ConfigError> {
    let mut s = Section::new("source", node, log)?;
    let at = s.at().clone();
    let is_file = mistakes.or(s.choice("kind", false, &[("phantom", false), ("file", true)]), false);
    let seed = u64::from(mistakes.or(s.int("seed", 1, 0, u32::MAX), 1));
    let path = mistakes.or(s.path_opt("path"), None);
    m.pictures = mistakes.or(s.int("pictures", 60, 1, 10_000), 1) as usize;
    let formats: Vec<_> = std::iter::once(("own", None))
        .chain(PixelFormat::ALL.into_iter().map(|f| (f.name(), Some(f))))
        .collect();
    m.format = mistakes.or(s.choice("format", None, &formats), None);
    m.source = match (is_file, path) {
        (false, None) => SourceChoice::Phantom(seed),
        (false, Some(_)) => {
            mistakes.add("source.path is for source.kind = \"file\"; a phantom has none", &at);
            SourceChoice::Phantom(seed)
        }
        (true, Some(path)) => {
            if !path.exists() {
                mistakes.add(format!("source.path: there is no such file: {}", path.display()), &at);
            }
            SourceChoice::File(path)
        }
        (true, None) => {
            mistakes.add("source.path is missing: expected the recording that is played", &at);
            SourceChoice::Phantom(seed)
        }
    };
    mistakes.finish(s);
    Ok(())
}

fn read_axes(
    node: Option<Node>,
    log: &mut Log,
    mistakes: &mut Mistakes,
    m: &mut Matrix,
) -> Result<Axes, ConfigError> {
    let mut s = Section::new("matrix", node, log)?;
    let at = s.at().clone();
    m.sizes = mistakes.or(list(&mut s, "sizes", SIZES, size), None).unwrap_or_else(|| match &m.source {
        SourceChoice::Phantom(_) => vec![Some((640, 480))],
        SourceChoice::File(_) => vec![None],
    });
    let loops = mistakes.or(list(&mut s, "loops", "a list of \"closed\" and \"open\"", loop_word), None);
    let loops = loops.unwrap_or_else(|| vec![false, true]);
    const RATES: &str = "a list of frames per second, each 0.1 to 1000";
    let rates = mistakes.or(list(&mut s, "rates", RATES, rate), None).unwrap_or_else(|| vec![30.0]);
    const STREAMS: &str = "a list of \"latest\", \"paired\" and \"lossless\"";
    let streams = mistakes.or(list(&mut s, "streams", STREAMS, stream), None);
    let streams = streams.unwrap_or_else(|| vec![StreamMode::Latest]);
    for open in loops {
        if open {
            let of = |&rate: &f64| streams.iter().map(move |&stream| Drive::Open { rate, stream });
            m.drives.extend(rates.iter().flat_map(of));
        } else {
            m.drives.push(Drive::Closed);
        }
    }
    if m.drives.is_empty() || m.sizes.is_empty() {
        mistakes.add("an axis of [matrix] is empty: nothing would be measured", &at);
    }
    let shared = Axes {
        input_sizes: vec![None],
        precisions: vec![Precision::Fp32.name().to_owned()],
        devices: vec![DeviceChoice::Auto.to_string()],
        memory: vec![false],
    };
    let axes = model_axes(&mut s, &shared, mistakes);
    mistakes.finish(s);
    Ok(axes)
}

/// The axes that a model may have of its own.
fn model_axes(s: &mut Section<'_>, shared: &Axes, mistakes: &mut Mistakes) -> Axes {
    let sides =
        format!("a list of sides in pixels, 0 (the predictor's or the family's own) to {MAX_INPUT_SIZE}");
    let precisions = "a list of \"fp32\", \"bf16\" and \"fp16\"";
    let devices = "a list of \"auto\", \"cpu\" and \"cuda:N\"";
    Axes {
        input_sizes: mistakes
            .or(list(s, "input_sizes", &sides, side), None)
            .unwrap_or_else(|| shared.input_sizes.clone()),
        precisions: mistakes
            .or(
                list(s, "precisions", precisions, |n| {
                    Some(text(n)?.parse::<Precision>().ok()?.name().to_owned())
                }),
                None,
            )
            .unwrap_or_else(|| shared.precisions.clone()),
        devices: mistakes
            .or(
                list(s, "devices", devices, |n| Some(text(n)?.parse::<DeviceChoice>().ok()?.to_string())),
                None,
            )
            .unwrap_or_else(|| shared.devices.clone()),
        memory: mistakes
            .or(list(s, "memory", "a list of true and false", |n| n.value().as_bool()), None)
            .unwrap_or_else(|| shared.memory.clone()),
    }
}

fn read_model(
    section: &str,
    node: Node,
    shared: &Axes,
    names: &mut BTreeSet<String>,
    log: &mut Log,
    mistakes: &mut Mistakes,
) -> Result<ModelAxes, ConfigError> {
    let mut s = Section::new(section, Some(node), log)?;
    let at = s.at().clone();
    let families = format!("one of {}", Family::ALL.map(Family::name).join(", "));
    let family = mistakes.or(s.optional("family", &families, |n| text(n)?.parse::<Family>().ok()), None);
    const WEIGHTS: &str = "the path of a checkpoint, or \"generate\"";
    let weights = mistakes.or(
        s.optional("weights", WEIGHTS, |n| {
            let text = text(n).filter(|t| !t.is_empty() && !t.contains('\0'))?;
            Some((text == GENERATE, n.at.resolve(&text)))
        }),
        None,
    );
    let ppn = mistakes.or(s.path_opt("ppn"), None);
    let file = weights.as_ref().and_then(|w| w.1.file_stem()).map(|stem| stem.to_string_lossy().into_owned());
    let unnamed = family.map(|f| f.name().to_owned()).or(file);
    let unnamed = unnamed.unwrap_or_else(|| format!("model {}", names.len() + 1));
    let name = mistakes.or(
        s.text("name", "a name that no other model has", (&unnamed, unnamed.clone()), |t| {
            (!t.is_empty()).then(|| t.to_owned())
        }),
        unnamed.clone(),
    );
    if !names.insert(name.clone()) {
        mistakes.add(format!("{section}.name = {name:?}: another model has that name"), &at);
    }
    const BOXES: &str = "1 to 64 boxes [x0, y0, x1, y1] in fractions of the picture, x0 < x1 and y0 < y1";
    let boxes =
        mistakes.or(list(&mut s, "boxes", BOXES, fractions), None).unwrap_or_else(|| vec![DEFAULT_BOX]);
    let threads = mistakes.or(s.int("threads", 0, 0, MAX_THREADS as u32), 0) as usize;
    let cuda_graphs = mistakes.or(s.bool("cuda_graphs", false), false);
    let frames = format!("a whole number from 0 to {MAX_FRAMES}");
    let warmup = mistakes.or(
        s.optional("warmup", &frames, |n| {
            u64::try_from(n.value().as_integer()?).ok().filter(|&n| n <= u64::from(MAX_FRAMES))
        }),
        None,
    );
    let axes = model_axes(&mut s, shared, mistakes);
    mistakes.finish(s);
    let generated = weights.as_ref().is_some_and(|w| w.0);
    match &weights {
        None => mistakes.add(format!("{section}.weights is missing: expected {WEIGHTS}"), &at),
        Some((true, _)) if family.is_none() => {
            mistakes
                .add(format!("{section}.weights = \"{GENERATE}\" needs a family: expected {families}"), &at);
        }
        Some((false, path)) if !path.is_file() => {
            mistakes.add(format!("{section}.weights: there is no such file: {}", path.display()), &at);
        }
        Some(_) => {}
    }
    if let Some(path) = ppn.as_ref().filter(|path| !path.is_file()) {
        mistakes.add(format!("{section}.ppn: there is no such file: {}", path.display()), &at);
    }
    if let Some(family) = family.filter(|f| !f.is_sam2() && axes.memory.contains(&true)) {
        let what = format!("{section}: {family} has no memory; expected memory = [false]");
        mistakes.add(what, &at);
    }
    Ok(ModelAxes {
        model: ModelChoice {
            name,
            family: family.map(|f| f.name().to_owned()),
            weights: weights.filter(|w| !w.0).map(|w| w.1),
            generated,
            ppn,
            boxes,
            threads,
            cuda_graphs,
        },
        input_sizes: axes.input_sizes,
        precisions: axes.precisions,
        devices: axes.devices,
        memory: axes.memory,
        warmup,
    })
}
