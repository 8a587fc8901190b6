//! Runs that are killed or stopped and gone on with: they come to the end that they would have come to.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sonomask::segment::DeviceChoice;
use sonomask::train::{Ending, Epoch, Observer, TrainError, TrainSpec, can_resume, train as train_run};
use sonomask::weights::Checkpoint;

use super::timeless;
use crate::training_support::{
    TURN, configure, ended, folder, lines, pictures, read_into, rewrite, run, sonomask, tensors, train,
    try_run, try_watched,
};

/// Longest wait for a step of a run on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

fn kill_when(mut child: Child, reached: impl Fn() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it could be killed");
        assert!(began.elapsed() < PATIENCE, "the run does not get on");
        std::thread::sleep(Duration::from_millis(5));
    }
    // SIGKILL: nothing is tidied up.
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_run_that_is_killed_three_times_comes_to_the_same_end() {
    let root = folder();
    let data = pictures(root.path());
    let config = configure(root.path(), &data);
    let (whole, killed) = (root.path().join("whole"), root.path().join("killed"));
    let output = train(&config, &whole, &["--json"]).output().unwrap();
    let said = ended(&output, 0);
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["ending"], &result["epochs"]), (&"done".into(), &4.into()), "{said}");
    assert_eq!(std::fs::read_to_string(whole.join("validation.txt")).unwrap().lines().count(), 1);
    for file in ["best.safetensors", "last.safetensors", "metrics.jsonl", "curves.svg"] {
        assert!(whole.join(file).metadata().unwrap().len() > 0, "{file}");
    }

    // Killed in the first epoch, when nothing has been learned; after the first stage's first epoch; in the second stage.
    let start = |more: &[&str]| {
        let mut command = train(&config, &killed, more);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    kill_when(start(&[]), || killed.join("validation.txt").is_file());
    kill_when(start(&["--resume"]), || !lines(&killed).is_empty());
    kill_when(start(&["--resume"]), || lines(&killed).len() >= 3);
    ended(&train(&config, &killed, &["--resume"]).output().unwrap(), 0);

    assert_eq!(timeless(lines(&whole)), timeless(lines(&killed)));
    for file in ["state.safetensors", "last.safetensors", "best.safetensors"] {
        let (one, other) = (tensors(&whole.join(file)), tensors(&killed.join(file)));
        assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
        for (name, bytes) in &one {
            assert!(bytes == &other[name], "{file}: {name} is not what it was");
        }
    }

    // What it leaves is used as it is, and says what it is.
    let last = Checkpoint::open(&whole.join("last.safetensors")).unwrap();
    let says = |key: &str| last.metadata().get(key).cloned().unwrap_or_default();
    assert_eq!(says("classes.discs"), r#"["bright","dark"]"#);
    assert_eq!(
        (says("family"), says("decoder"), says("epoch")),
        ("lite-medsam".into(), "lora".into(), "4".into())
    );
    assert!(says("config").contains("[[datasets]]") && says("metrics").contains("mean_dice"));
    assert_eq!(says("data_sha256").len(), 64);
    let output = sonomask()
        .args(["segment", "--json", "--presence-threshold", "0"])
        .arg(data.join("imgs/p0.png"))
        .arg("--ppn")
        .arg(whole.join("last.safetensors"))
        .arg("--weights")
        .arg(format!("{}/weights/lite_medsam.pth", env!("CARGO_MANIFEST_DIR")))
        .arg("--out")
        .arg(root.path().join("stills"))
        .output()
        .unwrap();
    ended(&output, 0);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let classes: Vec<_> = found["results"].as_array().unwrap().iter().map(|r| r["class"].clone()).collect();
    assert_eq!(classes, ["bright", "dark"]);

    // The line that the README tells.
    let output = sonomask()
        .current_dir(root.path())
        .args(["process", "data/imgs", "--ppn", "whole/best.safetensors", "--set", "model.mode=autonomous"])
        .args(["--output", "seen.mp4", "--report", "seen.json", "--set"])
        .arg(format!("model.weights=\"{}/weights/lite_medsam.pth\"", env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap();
    ended(&output, 0);
    let report: Value =
        serde_json::from_slice(&std::fs::read(root.path().join("seen.json")).unwrap()).unwrap();
    assert_eq!(
        (&report["frames"]["out"], &report["frames"]["passed_through"]),
        (&5.into(), &0.into()),
        "{report}"
    );
    assert_eq!(report["model"]["ppn"]["classes"], serde_json::json!(["bright", "dark"]), "{report}");

    // Neither another run nor none is gone on with, and none is replaced unasked.
    let again = train(&config, &whole, &[]).output().unwrap();
    assert!(ended(&again, 2).contains("--resume goes on with it"));
    let other = train(&config, &whole, &["--resume", "--set", "run.seed=7"]).output().unwrap();
    assert!(ended(&other, 2).contains("other settings"));
    let none = train(&config, &root.path().join("none"), &["--resume"]).output().unwrap();
    assert!(ended(&none, 2).contains("no run to go on with"));
}

/// What `config` asks for, into the folder `out` beside it.
#[test]
fn a_run_that_is_stopped_within_an_epoch_comes_to_the_same_end() {
    let root = folder();
    let data = pictures(root.path());
    let config = configure(root.path(), &data);
    let (whole, stopped) = (read_into(&config, "whole"), read_into(&config, "stopped"));
    assert_eq!(run(&whole, false, u64::MAX).ending, Ending::Done);
    // Two steps an epoch: in the first stage's first, and in the second stage's last. Both try the second stage first, of which nothing stays.
    for (resume, stop) in [(false, 1), (true, 7)] {
        let (outcome, rehearsed) = try_watched(&stopped, resume, stop).unwrap();
        assert_eq!((outcome.ending, outcome.epochs, rehearsed), (Ending::Stopped, stop / 2, vec![(1, 2)]));
    }
    let mut otherwise = stopped.clone();
    otherwise.datasets[0].set.bits = 12;
    assert!(
        matches!(try_run(&otherwise, true, u64::MAX), Err(TrainError::Resume { .. })),
        "it would see other pictures"
    );
    // What is measured and written may be another thing.
    let stopped = TrainSpec { patience: 100, ..stopped };
    let (outcome, rehearsed) = try_watched(&stopped, true, u64::MAX).unwrap();
    assert_eq!((outcome.ending, rehearsed), (Ending::Done, vec![]), "a stage in hand is tried by being run");
    assert_eq!(timeless(lines(&whole.out)), timeless(lines(&stopped.out)));
    for file in ["state.safetensors", "last.safetensors"] {
        assert!(
            tensors(&whole.out.join(file)) == tensors(&stopped.out.join(file)),
            "{file} is not what it was"
        );
    }
    // Features with a value that is none say so, and not that the run diverged.
    for file in glob::glob(&root.path().join("features/*/*.safetensors").to_string_lossy()).unwrap() {
        let file = file.unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        let end = bytes.len() - 2;
        bytes[end..].copy_from_slice(&[0, 0x7e]);
        std::fs::write(&file, bytes).unwrap();
    }
    let refused = try_run(&read_into(&config, "damaged"), false, u64::MAX).unwrap_err().to_string();
    assert!(refused.contains("no numbers"), "{refused}");
}

/// Ends a run at the first view that it encodes, and knows whether it could have been gone on with if it had been killed there.
struct Killer {
    out: PathBuf,
    can_resume: Option<bool>,
}

impl Observer for Killer {
    fn checked(&mut self, _: usize, _: usize) {}
    fn encoded(&mut self, _: usize, _: usize) {
        self.can_resume = Some(can_resume(&self.out));
    }
    fn rehearsed(&mut self, _: usize, _: usize) {}
    fn stepped(&mut self, _: (u64, u64), _: (u64, u64), _: f64, _: Duration) {}
    fn measured(&mut self, _: usize, _: usize) {}
    fn ended(&mut self, _: &Epoch, _: bool) {}
    fn stopped(&self) -> bool {
        self.can_resume.is_some()
    }
}

#[test]
fn a_run_that_is_killed_while_it_encodes_can_be_gone_on_with() {
    let root = folder();
    let data = pictures(root.path());
    let spec = read_into(&configure(root.path(), &data), "out");
    let mut killer = Killer { out: spec.out.clone(), can_resume: None };
    let device = DeviceChoice::Cpu.resolve().unwrap();
    let outcome = {
        let _turn = TURN.lock();
        train_run(&spec, &device, "", false, &mut killer).unwrap()
    };
    assert_eq!((outcome.ending, killer.can_resume), (Ending::Stopped, Some(true)));
    assert_eq!(run(&spec, true, 1).ending, Ending::Stopped);
}

/// Ends a run at the first held-out picture that it measures.
struct Impatient {
    asked: bool,
}

impl Observer for Impatient {
    fn checked(&mut self, _: usize, _: usize) {}
    fn encoded(&mut self, _: usize, _: usize) {}
    fn rehearsed(&mut self, _: usize, _: usize) {}
    fn stepped(&mut self, _: (u64, u64), _: (u64, u64), _: f64, _: Duration) {}
    fn measured(&mut self, done: usize, total: usize) {
        assert!(total > 1 && done == 1, "it went on measuring: {done} of {total}");
        self.asked = true;
    }
    fn ended(&mut self, _: &Epoch, _: bool) {}
    fn stopped(&self) -> bool {
        self.asked
    }
}

#[test]
fn a_run_that_is_stopped_while_it_measures_measures_again() {
    let root = folder();
    let data = pictures(root.path());
    let config = configure(root.path(), &data);
    rewrite(&config, |text| text.replace("folds = 5", "folds = 2"));
    let (mut whole, mut stopped) = (read_into(&config, "whole"), read_into(&config, "stopped"));
    for spec in [&mut whole, &mut stopped] {
        spec.stages.truncate(1);
        spec.stages[0].epochs = 1;
    }
    run(&whole, false, u64::MAX);
    let device = DeviceChoice::Cpu.resolve().unwrap();
    let outcome = {
        let _turn = TURN.lock();
        train_run(&stopped, &device, "", false, &mut Impatient { asked: false }).unwrap()
    };
    assert_eq!((outcome.ending, outcome.epochs), (Ending::Stopped, 0));
    assert_eq!(run(&stopped, true, u64::MAX).ending, Ending::Done);
    assert_eq!(timeless(lines(&whole.out)), timeless(lines(&stopped.out)));
    assert!(tensors(&whole.out.join("state.safetensors")) == tensors(&stopped.out.join("state.safetensors")));
}

#[test]
fn of_a_rehearsal_nothing_stays() {
    let root = folder();
    let data = pictures(root.path());
    let config = configure(root.path(), &data);
    rewrite(&config, |text| {
        text.replace("[decoder]", "[encoder]\ntuning = \"lora\"\nrank = 4\n[decoder]")
            .replace("predictor = 3e-4", "predictor = 3e-4\nencoder = 1e-3")
    });
    let (both, mut first) = (read_into(&config, "both"), read_into(&config, "first"));
    // The second stage, which adapts the encoder and the decoder, is rehearsed in one of them.
    first.stages.truncate(1);
    let steps = 2 * first.stages[0].epochs;
    let (outcome, rehearsed) = try_watched(&both, false, steps).unwrap();
    assert_eq!((outcome.ending, rehearsed), (Ending::Stopped, vec![(1, 2)]));
    let (outcome, rehearsed) = try_watched(&first, false, u64::MAX).unwrap();
    assert_eq!((outcome.ending, rehearsed), (Ending::Done, vec![]));
    // By itself the first stage teaches no decoder, which has no head for presence then.
    let state = |out: &Path| {
        let mut state = tensors(&out.join("state.safetensors"));
        state.retain(|name, _| !name.contains("obj_score"));
        state
    };
    assert!(state(&both.out) == state(&first.out), "what was rehearsed was learned from");
    // Nothing has learned to tell whether a class is there: that is not in the file, and empties no mask by chance.
    let names: Vec<String> = tensors(&first.out.join("last.safetensors")).into_keys().collect();
    assert!(names.iter().any(|name| name.starts_with("ppn.pyramid.")), "{names:?}");
    let tells = |out: &Path| {
        tensors(&out.join("last.safetensors")).into_keys().filter(|name| name.contains("obj_score")).count()
    };
    assert_eq!((tells(&first.out), tells(&both.out)), (0, 0));
    run(&both, true, u64::MAX);
    assert_eq!(tells(&both.out), 7, "a token and three layers");
}

#[test]
fn a_mask_that_moves_to_another_class_is_another_truth() {
    let root = folder();
    let data = pictures(root.path());
    // One folder a class; in p4 the second class is absent.
    for (label, class) in [(1, "bright"), (2, "dark")] {
        let masks = data.join("classes").join(class);
        std::fs::create_dir_all(&masks).unwrap();
        for i in 0..5 {
            let mask = image::open(data.join(format!("gts/p{i}.png"))).unwrap().to_luma8();
            if mask.pixels().any(|p| p.0 == [label]) {
                let inside = |x, y| image::Luma([255 * u8::from(mask.get_pixel(x, y).0 == [label])]);
                image::GrayImage::from_fn(96, 64, inside).save(masks.join(format!("p{i}.png"))).unwrap();
            }
        }
    }
    let config = configure(root.path(), &data);
    let layout = "layout = \"per-class\"\nmasks = \"data/classes\"\nfolds = 5\n";
    rewrite(&config, |text| text.replace("folds = 5\n", layout));
    let spec = read_into(&config, "out");
    run(&spec, false, 1);
    let [from, to] = ["bright", "dark"].map(|class| data.join("classes").join(class).join("p4.png"));
    std::fs::rename(&from, &to).unwrap();
    let told = try_run(&spec, true, 1).unwrap_err().to_string();
    assert!(told.contains("begun with other pictures, masks or another division of them"), "{told}");
    std::fs::rename(to, from).unwrap();
    run(&spec, true, 2);
}
