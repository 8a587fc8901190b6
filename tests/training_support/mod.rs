//! Training runs of some small pictures, for the tests of them.
#![allow(dead_code, reason = "every test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use image::{GrayImage, Luma};
use parking_lot::Mutex;
use serde_json::Value;
use sonomask::config::{LoadArgs, TrainConfig};
use sonomask::segment::DeviceChoice;
use sonomask::train::{Epoch, Observer, Outcome, TrainError, TrainSpec, train as train_run};
use sonomask::weights::Checkpoint;

pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// Five pictures: a bright disc (label 1) and, in all but one, a dark one (label 2) on noise.
pub fn pictures(root: &Path) -> PathBuf {
    let data = root.join("data");
    for part in ["imgs", "gts"] {
        std::fs::create_dir_all(data.join(part)).unwrap();
    }
    for i in 0..5u32 {
        let discs = [(20 + 6 * i, 24, 9), (60, 20 + 4 * i, 11)];
        let class = |x: u32, y: u32| {
            let within =
                |&&(cx, cy, r): &&(u32, u32, u32)| x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) < r * r;
            let found = discs.iter().enumerate().find(|(_, disc)| within(disc));
            found.map_or(0, |(class, _)| class as u8 + 1)
        };
        let class = |x, y| if i == 4 && class(x, y) == 2 { 0 } else { class(x, y) };
        let noise = |x: u32, y: u32| ((x * 7919 + y * 104_729 + i * 31) % 37) as u8;
        let image =
            GrayImage::from_fn(96, 64, |x, y| Luma([[90, 200, 20][usize::from(class(x, y))] + noise(x, y)]));
        image.save(data.join(format!("imgs/p{i}.png"))).unwrap();
        let mask = GrayImage::from_fn(96, 64, |x, y| Luma([class(x, y)]));
        mask.save(data.join(format!("gts/p{i}.png"))).unwrap();
    }
    data
}

/// Of [`configure`]: a small input, a seventh of the time of LiteMedSAM's own.
pub const SIDE: &str = "input_size = 96";

/// A short run: the pyramid, then everything; two pictures a step, one view beside each picture.
pub fn configure(root: &Path, data: &Path) -> PathBuf {
    let file = root.join("train.toml");
    let weights = format!("{}/weights/lite_medsam.pth", env!("CARGO_MANIFEST_DIR"));
    let text = format!(
        r#"
[model]
weights = "{weights}"
{SIDE}
[[datasets]]
name = "discs"
data = "{}"
classes = ["bright", "dark"]
folds = 5
fold = 1
[decoder]
tuning = "lora"
[augment]
views = 1
[[stages]]
name = "pyramid"
trains = "pyramid"
epochs = 2
predictor = 1e-3
[[stages]]
name = "everything"
epochs = 2
predictor = 3e-4
decoder = 1e-4
[run]
batch = 2
average = 0.9
cache = "{}"
"#,
        data.display(),
        root.join("features").display(),
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// Changes the text of a configuration.
pub fn rewrite(config: &Path, change: impl Fn(&str) -> String) {
    let text = std::fs::read_to_string(config).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text, "what was to be replaced is not there");
    std::fs::write(config, changed).unwrap();
}

pub fn read(config: &Path, flags: &[(&str, toml::Value, &str)]) -> TrainSpec {
    try_read(config, flags).unwrap()
}

pub fn try_read(config: &Path, flags: &[(&str, toml::Value, &str)]) -> Result<TrainSpec, String> {
    let args = LoadArgs { preset: None, file: Some(config), env: std::iter::empty(), set: &[], flags };
    TrainConfig::load(args).map(|config| config.spec).map_err(|e| e.to_string())
}

pub fn sonomask() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sonomask"));
    command.env_remove("RUST_LOG").env("GOMP_SPINCOUNT", "0").stdin(Stdio::null());
    command
}

pub fn train(config: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = sonomask();
    command.arg("train").arg("--config").arg(config).arg("--out").arg(out).args(more);
    command
}

/// Checks how the program ended; what it said on stderr.
#[track_caller]
pub fn ended(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// What the run in `out` has noted of each epoch.
pub fn lines(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap_or_default();
    // A line that is being written is none yet.
    text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
}

/// The tensors of a file, by their names.
pub fn tensors(file: &Path) -> BTreeMap<String, Vec<u8>> {
    let found = Checkpoint::open(file).unwrap();
    let bytes = |name: &str| found.data(name).unwrap().into_owned();
    found.tensors().map(|(name, _)| (name.to_owned(), bytes(name))).collect()
}

/// The configuration, with its run in a folder beside it.
pub fn read_into(config: &Path, out: &str) -> TrainSpec {
    let out = toml::Value::String(config.with_file_name(out).to_string_lossy().into_owned());
    read(config, &[("run.out", out, "--out")])
}

/// Runs within this process take turns: what they drop at random comes from libtorch's one generator.
pub static TURN: Mutex<()> = Mutex::new(());

/// A run within this process, which is asked to end after so many steps.
pub fn try_run(spec: &TrainSpec, resume: bool, stop: u64) -> Result<Outcome, TrainError> {
    try_watched(spec, resume, stop).map(|(outcome, _)| outcome)
}

/// The same, and which of how many stages it rehearsed.
pub fn try_watched(
    spec: &TrainSpec,
    resume: bool,
    stop: u64,
) -> Result<(Outcome, Vec<(usize, usize)>), TrainError> {
    let _turn = TURN.lock();
    let device = DeviceChoice::Cpu.resolve().unwrap();
    let mut observer = StopAfter { stop, rehearsed: Vec::new() };
    let outcome = train_run(spec, &device, "", resume, &mut observer)?;
    Ok((outcome, observer.rehearsed))
}

pub fn run(spec: &TrainSpec, resume: bool, stop: u64) -> Outcome {
    try_run(spec, resume, stop).unwrap()
}

/// Asks a run to end after so many steps.
struct StopAfter {
    stop: u64,
    rehearsed: Vec<(usize, usize)>,
}

impl Observer for StopAfter {
    fn checked(&mut self, _: usize, _: usize) {}
    fn encoded(&mut self, _: usize, _: usize) {}
    fn rehearsed(&mut self, stage: usize, stages: usize) {
        self.rehearsed.push((stage, stages));
    }
    fn stepped(&mut self, _: (u64, u64), (done, _): (u64, u64), _: f64, _: Duration) {
        self.stop = if done >= self.stop { 0 } else { self.stop };
    }
    fn measured(&mut self, _: usize, _: usize) {}
    fn ended(&mut self, _: &Epoch, _: bool) {}
    fn stopped(&self) -> bool {
        self.stop == 0
    }
}
