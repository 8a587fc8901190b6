//! Mistakes in data, splits and settings: all of them told at once, before anything is written.

use std::path::Path;

use image::{GrayImage, Luma};
use sonomask::train::{Split, learned_from};

use super::divided;
use crate::training_support::{
    configure, ended, folder, pictures, read, read_into, train, try_read, try_run,
};

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
fn a_list_without_names_holds_nothing_out_and_is_refused() {
    let root = folder();
    let data = pictures(root.path());
    std::fs::write(root.path().join("held.txt"), "\n").unwrap();
    let spec = read_into(&divided(root.path(), &data, "validation = \"held.txt\"\n"), "out");
    let told = try_run(&spec, false, 1).unwrap_err().to_string();
    assert!(told.contains("the list names no pictures: ") && told.contains("held.txt"), "{told}");
}

#[test]
fn a_run_does_not_replace_what_it_begins_with() {
    let root = folder();
    let data = pictures(root.path());
    let out = root.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let (list, names) = (out.join("validation.txt"), "p1\n");
    std::fs::write(&list, names).unwrap();
    let split = "validation = \"out/validation.txt\"\n";
    let mut spec = read_into(&divided(root.path(), &data, split), "out");
    let told = try_run(&spec, false, 1).unwrap_err().to_string();
    assert!(
        told.contains("would replace it: expected another run.out") && told.contains("validation.txt"),
        "{told}"
    );
    assert_eq!(std::fs::read_to_string(&list).unwrap(), names);
    // A predictor to go on with, by another way to the same file.
    spec.datasets[0].split = Split::Nothing;
    let best = out.join("best.safetensors");
    std::fs::write(&best, "weights").unwrap();
    spec.model.ppn = Some(root.path().join("out/../out/best.safetensors"));
    let told = try_run(&spec, false, 1).unwrap_err().to_string();
    assert!(told.contains("would replace it") && told.contains("best.safetensors"), "{told}");
    assert_eq!(std::fs::read_to_string(&best).unwrap(), "weights");
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
    for (keys, expected) in [
        (["autonomous", "assisted", "manual"], "prompts.autonomous, assisted and manual are all 0"),
        (["boxes", "points", "masks"], "prompts.boxes, points and masks are all 0"),
    ] {
        let sets = keys.map(|key| format!("prompts.{key}=0"));
        let more: Vec<&str> = sets.iter().flat_map(|set| ["--set", set.as_str()]).collect();
        let said = ended(&train(&config, &out, &more).output().unwrap(), 2);
        assert!(said.contains(expected), "{said}");
    }
    for (more, expected) in [
        (&["folds", "--draws", "2"][..], "the study folds has one run for each part"),
        (&["noise", "--shots", "2"], "--shots: this study goes through no numbers"),
        (
            &[
                "few-shot",
                "--set",
                "datasets=[{ data = \"data\", classes = [\"bright\"], folds = 5, limit = 2 }]",
            ],
            "expected no limit",
        ),
        (
            &[
                "noise",
                "--set",
                "datasets=[{ data = \"data\", classes = [\"bright\"], folds = 5, noise = 0.5 }]",
            ],
            "expected no noise",
        ),
    ] {
        let said = ended(&train(&config, &out, &[&["--study"], more].concat()).output().unwrap(), 2);
        assert!(said.contains(expected), "{said}");
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
