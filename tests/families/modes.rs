//! The modes of guidance, for pictures of several families and from frame to frame of one recording.

use std::path::Path;

use serde_json::Value;

use super::{PICTURE, classes, generated, json, sonomask, utf8};

/// Size of the picture.
const WIDTH: u32 = 534;

const HEIGHT: u32 = 512;

fn modes(family: &str, form: &str, size: Option<&str>) {
    let dir = tempfile::tempdir().unwrap();
    let weights = generated(dir.path(), family, form);
    let out = dir.path().join("out");
    let with = |more: &[&str]| {
        let mut args = vec!["segment", PICTURE, "--json", "--out", utf8(&out), "--weights", &weights];
        if let Some(size) = size {
            args.extend(["--input-size", size]);
        }
        args.extend(more);
        json(&args)
    };
    let alone = with(&["--mode", "autonomous", "--presence-threshold", "0"]);
    assert_eq!(classes(&alone), ["nerve", "vessel"], "{family} {form}");
    assert_eq!(alone["model"]["ppn"]["form"], form);
    assert!(alone["model"]["weights_bytes"].as_u64().unwrap() > 1_000_000);

    let bounded = ["--box", "vessel=40,40,120,110", "--presence-threshold", "0"];
    let assisted = with(&[&bounded[..], &["--mode", "assisted"]].concat());
    assert_eq!(classes(&assisted), ["nerve", "vessel"], "{family} {form}");
    let score = |result: &Value, class: &str| {
        let all = result["results"].as_array().unwrap();
        all.iter().find(|r| r["class"] == class).unwrap()["score"].as_f64().unwrap()
    };
    // Round-off only: classes with a box are decoded apart from those without.
    let differ = |a: &Value, b: &Value, class| (score(a, class) - score(b, class)).abs();
    assert!(differ(&assisted, &alone, "nerve") < 1e-5, "{family} {form}: a box of another class changed it");
    assert!(differ(&assisted, &alone, "vessel") > 1e-4, "{family} {form}: the box changed nothing");

    // Points and masks, of a class that the predictor knows and of one that it does not.
    let rough = dir.path().join("rough.png");
    let mut drawn = image::GrayImage::new(WIDTH, HEIGHT);
    for (x, y) in (40..110).flat_map(|y| (40..120).map(move |x| (x, y))) {
        drawn.put_pixel(x, y, image::Luma([255]));
    }
    drawn.save(&rough).unwrap();
    for (option, place) in [("--point", "80,75,+"), ("--mask-prompt", utf8(&rough))] {
        let (known, new) = (format!("vessel={place}"), format!("other={place}"));
        let by_hand =
            with(&[option, &known, option, &new, "--mode", "assisted", "--presence-threshold", "0"]);
        assert_eq!(classes(&by_hand), ["nerve", "vessel", "other"], "{family} {form} {option}");
        assert!(differ(&by_hand, &alone, "nerve") < 1e-5, "{family} {form} {option}");
        assert!(differ(&by_hand, &alone, "vessel") > 1e-5, "{family} {form}: {option} changed nothing");
        let manual = with(&[option, &known, "--mode", "manual", "--presence-threshold", "0"]);
        assert_eq!(classes(&manual), ["vessel"], "{family} {form} {option}");
        let apart = (score(&manual, "vessel") - score(&by_hand, "other")).abs();
        assert!(apart < 1e-5, "{family} {form} {option}: {apart} between manual and beside a predictor");
    }

    let manual = with(&[&bounded[..], &["--mode", "manual"]].concat());
    assert_eq!(classes(&manual), ["vessel"], "{family} {form}");
    assert_ne!(
        score(&manual, "vessel"),
        score(&assisted, "vessel"),
        "the predictor took part in manual mode"
    );
}

#[test]
fn modes_of_lite_medsam() {
    modes("lite-medsam", "single-scale", None);
}

#[test]
fn modes_of_sam2_with_three_scales() {
    modes("sam2.1-hiera-tiny", "high-res", Some("256"));
}

#[test]
fn modes_of_sam2_with_one_scale() {
    modes("sam2-hiera-small", "single-scale", Some("256"));
}

#[test]
fn modes_of_mobile_sam_with_three_scales() {
    modes("mobile-sam", "high-res", None);
}

/// The modes change from frame to frame of one recording, and a class that is not certain enough has no mask.
#[test]
fn a_recording_changes_its_mode_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| utf8(&dir.path().join(name)).to_owned();
    let weights = generated(dir.path(), "sam2.1-hiera-tiny", "single-scale");
    let (code, _, stderr) = sonomask(&["phantom", "-o", &file("loop.mkv"), "--frames", "4"]);
    assert_eq!(code, 0, "{stderr}");
    let guide = r#"{"frame": 1, "mode": "manual", "prompts": [{"class": "vessel", "box": [40, 40, 120, 110]}]}
{"frame": 2, "mode": "assisted"}
{"frame": 3, "mode": "autonomous", "clear": ["vessel"]}
"#;
    std::fs::write(file("guide.jsonl"), guide).unwrap();
    let (weights, masks) = (format!("model.weights={weights:?}"), file("masks"));
    let report = |threshold: &str| {
        let _ = std::fs::remove_dir_all(&masks);
        let threshold = format!("model.presence_threshold={threshold}");
        json(&[
            "process",
            &file("loop.mkv"),
            "-o",
            &file("out.mkv"),
            "--json",
            "--masks",
            &masks,
            "--guide",
            &file("guide.jsonl"),
            "--set",
            &weights,
            "--set",
            "model.family=sam2.1-hiera-tiny",
            "--set",
            "model.input_size=256",
            "--set",
            "model.mode=autonomous",
            "--set",
            &threshold,
            "--set",
            "output.masks_format=rle",
        ])
    };
    let all = report("0.0");
    assert_eq!((&all["frames"]["in"], &all["frames"]["segmented"]), (&4.into(), &4.into()), "{all}");
    assert!(all["peak_rss_bytes"].as_u64().unwrap() > all["model"]["weights_bytes"].as_u64().unwrap());
    // Per frame: the classes that have a mask. The box that the preset brings along is none of them.
    let found = || {
        let mut frames = vec![(Vec::new(), 0); 4];
        for line in std::fs::read_to_string(Path::new(&masks).join("masks.jsonl")).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let frame = &mut frames[line["frame"].as_u64().unwrap() as usize];
            frame.0.push(line["class"].as_str().unwrap().to_owned());
            // One run over the whole picture: an empty mask.
            frame.1 += usize::from(line["counts"].as_array().unwrap().len() == 1);
        }
        frames
    };
    let classes: Vec<_> = found().into_iter().map(|(classes, _)| classes).collect();
    let by_frame = [&["nerve", "vessel"][..], &["vessel"], &["nerve", "vessel"], &["nerve", "vessel"]];
    assert_eq!(classes, by_frame);
    report("1.0");
    assert!(found().iter().all(|(classes, empty)| classes.len() == *empty), "uncertain classes have masks");
}
