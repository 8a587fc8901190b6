//! What a run teaches and what it leaves alone: decoder, encoder and predictor, their views and their epochs.

use std::path::Path;

use image::GrayImage;
use serde_json::Value;
use sonomask::dataset::Augment;
use sonomask::segment::{EncoderLora, Precision};
use sonomask::train::{Ending, TrainError, TrainSpec};
use sonomask::weights::{Checkpoint, Source as _};
use tch::Kind;

use super::{divided, timeless};
use crate::training_support::{
    SIDE, configure, ended, folder, lines, pictures, read, read_into, rewrite, run, sonomask, tensors, train,
    try_run,
};

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
        text.replace(&format!("weights = \"{own}\""), &format!("weights = {weights:?}"))
            .replace(SIDE, "input_size = 128")
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
    // It learns beside the pyramid, and is left as it is where everything else learns. Some views are kept, and some drawn anew. As what comes with
    // sonomask was taught: in bfloat16, of which what learns has a copy in `f32`.
    rewrite(&config, |text| {
        text.replace("[model]", "[model]\nprecision = \"bf16\"")
            .replace("[decoder]", "[encoder]\ntuning = \"lora\"\nrank = 2\n[decoder]")
            .replace("predictor = 1e-3", "predictor = 1e-3\nencoder = 3e-3")
            .replace("views = 1", "views = 1\nfresh = true")
    });
    let (whole, stopped) = (read_into(&config, "whole"), read_into(&config, "stopped"));
    assert_eq!(whole.model.precision, Precision::Bf16);
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
