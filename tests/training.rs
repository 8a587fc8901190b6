//! A training run as its users start it, kill it, go on with it and use what it leaves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod training_support;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use image::{GrayImage, Luma};
use serde_json::Value;
use sonomask::dataset::Augment;
use sonomask::segment::{DeviceChoice, EncoderLora};
use sonomask::train::{
    Ending, Epoch, Observer, Split, TrainError, TrainSpec, can_resume, learned_from, train as train_run,
};
use sonomask::weights::{Checkpoint, Source as _};
use tch::Kind;
use training_support::{
    TURN, configure, ended, folder, lines, pictures, read, read_into, rewrite, run, sonomask, tensors, train,
    try_read, try_run,
};

/// Longest wait for a step of a run on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// The configuration of [`configure`] with `split` in the place of its folds.
fn divided(root: &Path, data: &Path, split: &str) -> PathBuf {
    let file = configure(root, data);
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("folds = 5\nfold = 1\n", split)).unwrap();
    file
}

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

/// Everything but the time that was taken.
fn timeless(mut lines: Vec<Value>) -> Vec<Value> {
    for line in &mut lines {
        assert!(line.as_object_mut().unwrap().remove("seconds").is_some());
    }
    lines
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
    // Two steps an epoch: in the first stage's first, and in the second stage's last.
    for (resume, stop) in [(false, 1), (true, 7)] {
        let outcome = run(&stopped, resume, stop);
        assert_eq!((outcome.ending, outcome.epochs), (Ending::Stopped, stop / 2));
    }
    let mut otherwise = stopped.clone();
    otherwise.datasets[0].set.bits = 12;
    assert!(
        matches!(try_run(&otherwise, true, u64::MAX), Err(TrainError::Resume { .. })),
        "it would see other pictures"
    );
    assert_eq!(run(&stopped, true, u64::MAX).ending, Ending::Done);
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
    fn stepped(&mut self, _: (u64, u64), _: (u64, u64), _: f64) {}
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

#[test]
fn where_nothing_can_be_measured_no_epoch_is_the_best() {
    let root = folder();
    let data = pictures(root.path());
    std::fs::write(root.path().join("held.txt"), "p4\n").unwrap();
    GrayImage::new(96, 64).save(data.join("gts/p4.png")).unwrap();
    let config = divided(root.path(), &data, "validation = \"held.txt\"\n");
    let mut spec = read_into(&config, "out");
    // Nothing gets better, and nothing gets worse: patience has nothing to look at.
    (spec.patience, spec.views) = (1, 0);
    spec.stages.remove(0);
    spec.stages[0].epochs = 3;
    let outcome = run(&spec, false, u64::MAX);
    assert_eq!((outcome.ending, outcome.epochs, outcome.best), (Ending::Done, 3, None));
    assert_eq!(outcome.file, spec.out.join("last.safetensors"));
    assert!(lines(&spec.out).iter().all(|line| line.get("validation").is_none() && line["best"] == false));
}

#[test]
fn a_frozen_decoder_is_left_as_it_is_and_a_new_run_forgets_the_old_one() {
    let root = folder();
    let data = pictures(root.path());
    let config = configure(root.path(), &data);
    // Without an object score nothing of the decoder learns, also of a person's prompts alone.
    rewrite(&config, |text| {
        text.replace(
            "tuning = \"lora\"",
            "tuning = \"frozen\"\nobject_score = false\n[prompts]\nmanual = 0.9",
        )
        .replace("trains = \"pyramid\"\nepochs = 2", "trains = \"pyramid\"\nepochs = 1")
        .replace("\"everything\"\nepochs = 2", "\"everything\"\nepochs = 1")
    });
    let out = root.path().join("out");
    std::fs::create_dir(&out).unwrap();
    for old in ["best.safetensors", "state.safetensors"] {
        std::fs::write(out.join(old), "of another run").unwrap();
    }
    ended(&train(&config, &out, &[]).output().unwrap(), 2);
    // Stopped while it encodes a new run has not taken the old one's place.
    let unbegun = try_run(&read_into(&config, "out"), false, 0).unwrap_err();
    assert!(matches!(unbegun, TrainError::Unbegun(_)), "{unbegun}");
    for old in ["best.safetensors", "state.safetensors"] {
        assert_eq!(std::fs::read_to_string(out.join(old)).unwrap(), "of another run");
    }
    ended(&train(&config, &out, &["--overwrite"]).output().unwrap(), 0);
    for file in ["best.safetensors", "last.safetensors"] {
        let names: Vec<String> = tensors(&out.join(file)).into_keys().collect();
        assert!(names.len() > 50 && names.iter().all(|name| name.starts_with("ppn.")), "{names:?}");
    }
    // A run that goes on with this predictor finds the encoder's features as the one before has left them.
    let encoded = || {
        let pattern = root.path().join("features/*/*.safetensors");
        glob::glob(&pattern.to_string_lossy()).unwrap().count()
    };
    let before = encoded();
    assert!(before > 5, "{before}");
    let ppn = format!("model.ppn={}", out.join("last.safetensors").display());
    ended(&train(&config, &root.path().join("further"), &["--set", &ppn]).output().unwrap(), 0);
    assert_eq!(encoded(), before);
}

#[test]
fn sam2_is_taught_as_well() {
    let root = folder();
    let data = pictures(root.path());
    let config = configure(root.path(), &data);
    let weights = root.path().join("sam2.safetensors");
    let made = sonomask().args(["weights", "generate", "sam2.1-hiera-tiny"]).arg(&weights).output().unwrap();
    ended(&made, 0);
    let own = format!("{}/weights/lite_medsam.pth", env!("CARGO_MANIFEST_DIR"));
    // The smallest input that leaves the pyramid its grid. The encoder's last stage is adapted too.
    rewrite(&config, |text| {
        text.replace(&format!("weights = \"{own}\""), &format!("weights = {weights:?}\ninput_size = 128"))
            .replace("[decoder]", "[encoder]\ntuning = \"lora\"\n[decoder]")
            .replace("decoder = 1e-4", "decoder = 1e-4\nencoder = 1e-3")
    });
    let out = root.path().join("out");
    ended(&train(&config, &out, &[]).output().unwrap(), 0);
    let losses: Vec<f64> = lines(&out).iter().map(|line| line["losses"]["total"].as_f64().unwrap()).collect();
    assert!(losses.len() == 4 && losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
    let names = tensors(&out.join("last.safetensors"));
    assert!(names.keys().any(|name| name.starts_with("sam_mask_decoder.transformer.")));
    // It began as zeros.
    let factor = &names["image_encoder.trunk.blocks.11.attn.qkv.w_b.weight"];
    assert!(factor.iter().any(|&byte| byte != 0));
    let output = sonomask()
        .args(["segment", "--input-size", "128", "--presence-threshold", "0", "--weights"])
        .arg(&weights)
        .arg("--ppn")
        .arg(out.join("last.safetensors"))
        .arg("--out")
        .arg(root.path().join("stills"))
        .arg(data.join("imgs/p0.png"))
        .output()
        .unwrap();
    ended(&output, 0);
}

#[test]
fn an_adapted_encoder_comes_to_the_same_end_when_it_is_stopped() {
    let root = folder();
    let data = pictures(root.path());
    let config = configure(root.path(), &data);
    // It learns beside the pyramid, and is left as it is where everything else learns. Some views are kept, and some drawn anew.
    rewrite(&config, |text| {
        text.replace("[decoder]", "[encoder]\ntuning = \"lora\"\nrank = 2\n[decoder]")
            .replace("predictor = 1e-3", "predictor = 1e-3\nencoder = 3e-3")
            .replace("views = 1", "views = 1\nfresh = true")
    });
    let (whole, stopped) = (read_into(&config, "whole"), read_into(&config, "stopped"));
    assert_eq!(run(&whole, false, u64::MAX).ending, Ending::Done);
    // Where the encoder learns, and where it has learned.
    for (resume, stop) in [(false, 3), (true, 6)] {
        assert_eq!(run(&stopped, resume, stop).ending, Ending::Stopped);
    }
    // Features that are lost are encoded as they were, by the encoder as it was.
    let kept = |file: &Path| std::fs::read(file).unwrap();
    let pattern = root.path().join("features/*/*.safetensors").to_string_lossy().into_owned();
    let lost = glob::glob(&pattern).unwrap().next().unwrap().unwrap();
    let before = kept(&lost);
    std::fs::remove_file(&lost).unwrap();
    assert_eq!(run(&stopped, true, u64::MAX).ending, Ending::Done);
    assert!(kept(&lost) == before, "the features are another encoder's");
    assert_eq!(timeless(lines(&whole.out)), timeless(lines(&stopped.out)));
    let last = whole.out.join("last.safetensors");
    let learned = tensors(&last);
    assert!(learned == tensors(&stopped.out.join("last.safetensors")));
    let factors = learned.iter().filter(|(name, _)| name.starts_with("image_encoder."));
    let (names, bytes): (Vec<_>, Vec<_>) = factors.unzip();
    // Two blocks of four layers, each with two factors; the second of which began as zeros.
    assert!(names.len() == 16 && names.iter().all(|name| name.starts_with("image_encoder.layers.3.blocks.")));
    assert!(bytes.iter().all(|bytes| bytes.iter().any(|&byte| byte != 0)));
    let shown = sonomask().args(["weights", "inspect", "--json"]).arg(&last).output().unwrap();
    ended(&shown, 0);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&shown["encoder_lora_rank"], &shown["lora_rank"]), (&2.into(), &8.into()));

    // A run that goes on with it keeps features of its own, and adapts it further.
    let encoded = || glob::glob(&pattern).unwrap().count();
    let before = encoded();
    let ppn = toml::Value::String(last.to_string_lossy().into_owned());
    let mut further =
        TrainSpec { out: root.path().join("further"), ..read(&config, &[("model.ppn", ppn, "--ppn")]) };
    let refused = |spec: &TrainSpec| try_run(spec, false, 1).unwrap_err().to_string();
    further.encoder = further.encoder.map(|lora| EncoderLora { rank: 4, ..lora });
    assert!(refused(&further).contains("encoder.rank = 4: the predictor that is gone on with has 2"));
    further.encoder = further.encoder.map(|lora| EncoderLora { rank: 2, ..lora });
    further.stages.truncate(1);
    further.stages[0].epochs = 1;
    assert_eq!(run(&further, false, u64::MAX).ending, Ending::Done);
    assert_eq!(encoded(), 2 * before);
    let further = tensors(&further.out.join("last.safetensors"));
    let same =
        learned.keys().filter(|name| name.starts_with("image_encoder.") && learned[*name] == further[*name]);
    assert_eq!(same.count(), 0);
}

#[test]
fn fresh_views_are_those_of_an_adapted_encoder() {
    let root = folder();
    let data = pictures(root.path());
    let config = configure(root.path(), &data);
    rewrite(&config, |text| {
        text.replace("[decoder]", "[encoder]\ntuning = \"lora\"\nrank = 2\n[decoder]")
            .replace("predictor = 3e-4", "predictor = 3e-4\nencoder = 1e-3")
            .replace("epochs = 2", "epochs = 1")
            .replace("views = 1", "views = 4")
    });
    let kept = read_into(&config, "kept");
    // Views that change nothing: drawn anew they are the pictures themselves, as those that are kept.
    let fresh = TrainSpec { fresh: true, ..read_into(&config, "fresh") };
    let plain = |spec: &TrainSpec, out: &str| TrainSpec {
        augment: Augment::NONE,
        out: root.path().join(out),
        ..spec.clone()
    };
    let losses = |spec: &TrainSpec| -> Vec<f64> {
        assert_eq!(run(spec, false, u64::MAX).ending, Ending::Done);
        lines(&spec.out).iter().map(|line| line["losses"]["total"].as_f64().unwrap()).collect()
    };
    let (plainly, freshly) = (plain(&kept, "plain"), plain(&fresh, "anew"));
    let (same, anew) = (losses(&plainly), losses(&freshly));
    assert_eq!(same[0], anew[0]);
    for (same, anew) in same.iter().zip(&anew) {
        // Kept features have 16 bits.
        assert!((same - anew).abs() < 2e-3 * same.abs(), "{same} {anew}");
    }
    // And the encoder learns the same: four of five pictures were encoded on the spot.
    let [kept_file, fresh_file] =
        [&plainly, &freshly].map(|spec| Checkpoint::open(&spec.out.join("last.safetensors")).unwrap());
    let factors = tensors(&plainly.out.join("last.safetensors"));
    let mut compared = 0;
    for name in factors.keys().filter(|name| name.starts_with("image_encoder.") && name.contains("w_b")) {
        let shape = kept_file.shape(name).unwrap();
        let [a, b] =
            [&kept_file, &fresh_file].map(|file| file.read(name, &shape).unwrap().to_kind(Kind::Double));
        let cosine = f64::try_from((&a * &b).sum(Kind::Double) / (a.norm() * b.norm())).unwrap();
        assert!(cosine > 0.98, "{name}: {cosine}");
        compared += 1;
    }
    assert_eq!(compared, 8);
    let (kept, drawn) = (losses(&kept), losses(&fresh));
    // Before the encoder moves the views are those that are kept, then others.
    assert_eq!(kept[0], drawn[0]);
    assert!((kept[1] - drawn[1]).abs() > 1e-2 * kept[1].abs(), "{kept:?} {drawn:?}");
}

#[test]
fn few_pictures_are_shown_more_often_unless_somebody_says_how_often() {
    let root = folder();
    let data = pictures(root.path());
    let given = configure(root.path(), &data);
    let text = std::fs::read_to_string(&given).unwrap();
    let (before, rest) = text.split_once("[[stages]]").unwrap();
    let usual = root.path().join("usual.toml");
    std::fs::write(&usual, format!("{before}[run]{}", rest.split_once("[run]").unwrap().1)).unwrap();
    let epochs = |file: &Path, learned: usize| {
        let spec = read(file, &[]);
        let spec = spec.repeated(spec.repeats(learned));
        (spec.stages.iter().map(|stage| stage.epochs).collect::<Vec<_>>(), spec.validate_every)
    };
    assert_eq!(epochs(&usual, 4), (vec![240, 32], 8));
    assert_eq!(epochs(&usual, 50), (vec![90, 12], 3));
    assert_eq!(epochs(&usual, 160), (vec![30, 4], 1));
    assert_eq!(epochs(&usual, 2000), (vec![30, 4], 1));
    assert_eq!(epochs(&given, 4), (vec![2, 2], 1));
    // A study has runs like any other: the usual epochs are those of so many pictures.
    let shot = |file: &Path, shot: Option<usize>, learned: &[usize]| {
        let spec = read(file, &[]).few_shot(shot, learned);
        assert!(spec.datasets.iter().all(|data| data.limit == shot));
        let used = learned.iter().map(|&n| n.min(shot.unwrap_or(n))).sum();
        let spec = spec.repeated(spec.repeats(used));
        spec.stages.iter().map(|stage| stage.epochs).collect::<Vec<_>>()
    };
    assert_eq!(shot(&usual, Some(50), &[400]), epochs(&usual, 50).0);
    assert_eq!(shot(&usual, None, &[50]), epochs(&usual, 50).0);
    // Given ones make about as many steps as all pictures.
    assert_eq!(shot(&given, Some(100), &[400]), [8, 8]);
    assert_eq!(shot(&given, Some(50), &[100, 30]), [2, 2]);
    assert_eq!(shot(&given, None, &[400]), [2, 2]);
    let text = std::fs::read_to_string(&usual).unwrap();
    std::fs::write(&usual, text.replace("[decoder]", "[encoder]\ntuning = \"lora\"\n[decoder]")).unwrap();
    assert_eq!(epochs(&usual, 160), (vec![20, 10, 4], 1));
    assert_eq!(epochs(&usual, 4), (vec![160, 80, 32], 8));
}

#[test]
fn mistakes_in_the_data_are_told_at_once_and_before_anything_is_written() {
    let root = folder();
    let data = pictures(root.path());
    std::fs::remove_file(data.join("gts/p1.png")).unwrap();
    GrayImage::new(5, 5).save(data.join("gts/p2.png")).unwrap();
    GrayImage::from_pixel(96, 64, Luma([9])).save(data.join("gts/p3.png")).unwrap();
    std::fs::write(data.join("imgs/p4.png"), "no picture").unwrap();
    GrayImage::from_pixel(96, 64, Luma([7])).save(data.join("gts/p4.png")).unwrap();
    let config = configure(root.path(), &data);
    let out = root.path().join("out");
    let said = ended(&train(&config, &out, &[]).output().unwrap(), 2);
    for part in ["5 mistakes", "p1.png", "5x5", "label 9", "p4.png", "label 7"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!out.join("state.safetensors").exists() && !root.path().join("features").exists());
}

#[test]
fn what_is_measured_was_not_learned_from() {
    let root = folder();
    let data = pictures(root.path());
    let refused = |split: &str| {
        let spec = read_into(&divided(root.path(), &data, split), "out");
        // Before any network is loaded.
        let told = try_run(&spec, false, 1).unwrap_err().to_string();
        assert!(learned_from(&spec).is_err(), "{told}");
        told
    };
    let told = refused("folds = 2\npatient = \"_\"\n");
    assert!(told.contains("5 of 5 names have no \"_\" behind the patient's part: p0, p1"), "{told}");
    // Five pictures of one patient.
    std::fs::write(root.path().join("held.txt"), "p1\n").unwrap();
    let held = "validation = \"held.txt\"\n";
    let told = refused(&format!("{held}patient = \"p\"\n"));
    assert!(told.contains("patients are both learned from and held out"), "{told}");
    assert_eq!(learned_from(&read(&divided(root.path(), &data, held), &[])).unwrap(), [4]);
    // A class that only a held-out picture has.
    for name in ["p0", "p2", "p3", "p4"] {
        GrayImage::from_pixel(96, 64, Luma([1])).save(data.join(format!("gts/{name}.png"))).unwrap();
    }
    let told = refused(held);
    assert!(told.contains("class \"dark\" is in no image that is learned from"), "{told}");
}

#[test]
fn what_is_wrong_with_lists_is_told_at_once_for_every_data_set() {
    let root = folder();
    let data = pictures(root.path());
    std::fs::write(root.path().join("held.txt"), "p1\nq1\n").unwrap();
    std::fs::write(root.path().join("learned.txt"), "q2\np2\n").unwrap();
    let lists = "validation = \"held.txt\"\ntrain = \"learned.txt\"\npatient = \"_\"\n";
    let mut spec = read_into(&divided(root.path(), &data, lists), "out");
    let mut other = spec.datasets[0].clone();
    other.set.name = "other".into();
    other.split = Split::Lists { validation: root.path().join("gone.txt"), train: None, patient: None };
    spec.datasets.push(other);
    let told = try_run(&spec, false, 1).unwrap_err().to_string();
    let name = &spec.datasets[0].set.name;
    let (held, learned) = (root.path().join("held.txt"), root.path().join("learned.txt"));
    let unknown = |name: &str, list: &Path| format!("does not have: {name}: {}", list.display());
    for part in [
        &format!("{name:?} has 3 mistakes"),
        &unknown("q1", &held),
        &unknown("q2", &learned),
        "5 of 5 names",
        "\"other\" has 1 mistake:",
        "gone.txt",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }

    // Lists that can be read: a picture in both, a patient on both sides, and a class that is only held out.
    let rename = |part: &str, old: &str, new: &str| {
        std::fs::rename(
            data.join(part).join(format!("{old}.png")),
            data.join(part).join(format!("{new}.png")),
        )
        .unwrap();
    };
    for i in 0..5 {
        for part in ["imgs", "gts"] {
            rename(part, &format!("p{i}"), &format!("{}_{i}", if i < 3 { "anna" } else { "ben" }));
        }
    }
    // Label 2 is in pictures 0 to 3.
    std::fs::write(root.path().join("held.txt"), "anna_0\nanna_1\nanna_2\nben_3\n").unwrap();
    std::fs::write(root.path().join("learned.txt"), "anna_0\nben_4\n").unwrap();
    spec.datasets.truncate(1);
    let told = try_run(&spec, false, 1).unwrap_err().to_string();
    for part in [
        "3 mistakes",
        "in both lists: anna_0",
        "both learned from and held out: ben",
        "class \"dark\" is in no image",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn settings_of_a_split_are_refused_where_nothing_comes_of_them() {
    let root = folder();
    let data = pictures(root.path());
    let split = |split: &str| try_read(&divided(root.path(), &data, split), &[]);
    for (given, expected) in [
        ("fold = 2\n", "datasets[0].fold says nothing without parts"),
        ("validation = \"v.txt\"\nfold = 2\n", "datasets[0].fold says nothing without parts"),
        ("split_seed = 3\n", "datasets[0].split_seed says nothing without parts"),
        ("patient = \"_\"\n", "datasets[0].patient keeps pictures together where some are held out"),
        ("folds = 3\nfold = 3\n", "expected 0 to 2"),
    ] {
        let told = split(given).unwrap_err();
        assert!(told.contains(expected), "{given}: {told}");
    }
    let list = split("validation = \"v.txt\"\npatient = \"_\"\n").unwrap();
    assert_eq!(list.datasets[0].split.patient(), Some("_"));
    // As they stand in the annotated configuration.
    assert!(split("folds = 0\nfold = 0\npatient = \"\"\nsplit_seed = 0\n").is_ok());
}

#[test]
fn settings_that_cannot_be_meant_are_refused_with_their_place() {
    let root = folder();
    let data = pictures(root.path());
    let config = configure(root.path(), &data);
    let out = root.path().join("out");
    for (set, expected) in [
        ("run.batch=0", "run.batch = 0: expected a whole number from 1"),
        ("run.sed=1", "unknown key run.sed"),
        ("loss.preset=dice", "expected \"sonomask\" or \"paper\" or \"authors\""),
        ("predictor.form=triple", "\"pyramid\""),
        ("encoder.tuning=full", "expected \"frozen\" or \"lora\""),
        ("decoder.tuning=some", "expected \"frozen\" or \"lora\" or \"attention\" or \"full\""),
        ("model.weights=nothing.pth", "there are no weights"),
    ] {
        let said = ended(&train(&config, &out, &["--set", set]).output().unwrap(), 2);
        assert!(said.contains(expected), "{set}: {said}");
    }
    let said = ended(&train(&config, &out, &["--set", "predictor.form=single-scale"]).output().unwrap(), 2);
    assert!(said.contains("has no pyramid"), "{said}");
    let shown = train(&config, &out, &["--print-config"]).output().unwrap();
    ended(&shown, 0);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("seed = 0 # default") && shown.contains("epochs = 2"), "{shown}");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("predictor = 1e-3", "predictor = 1e-3\nencoder = 1e-3")).unwrap();
    let said = ended(&train(&config, &out, &[]).output().unwrap(), 2);
    assert!(said.contains("expected encoder.tuning = \"lora\""), "{said}");
    let never = ["--set", "encoder.tuning=lora"];
    std::fs::write(&config, &text).unwrap();
    let said = ended(&train(&config, &out, &never).output().unwrap(), 2);
    assert!(said.contains("no stage tunes the encoder"), "{said}");
    std::fs::write(&config, text.replace("predictor = 1e-3", "predictor = 1e-3\nencoder = 1e-3")).unwrap();
    for (set, expected) in [
        (
            ["augment.fresh=true", "encoder.tuning=frozen"],
            "augment.fresh draws views while the encoder is adapted",
        ),
        (
            ["augment.fresh=true", "augment.views=0"],
            "augment.fresh draws views where views = 0 asks for none",
        ),
    ] {
        let tuned = ["--set", "encoder.tuning=lora", "--set", set[0], "--set", set[1]];
        let said = ended(&train(&config, &out, &tuned).output().unwrap(), 2);
        assert!(said.contains(expected), "{said}");
    }
    let many = ["--set", "encoder.tuning=lora", "--set", "encoder.blocks=9"];
    let said = ended(&train(&config, &out, &many).output().unwrap(), 2);
    assert!(said.contains("encoder.blocks = 9: expected 1 to 8 of lite-medsam"), "{said}");
}
