//! Pictures and recordings with the real model: what is written of their masks, logits and figures.

use std::process::Stdio;

use serde_json::Value;

use super::{decode, files, folder, json, picture, run};
use crate::program_support::{said, weights};

#[test]
fn a_folder_of_images_with_the_real_model() {
    let dir = folder();
    let input = dir.path().join("loop");
    std::fs::create_dir(&input).expect("a folder");
    for i in 0..3 {
        picture(&input.join(format!("img{i}.png")), 201, 151, i * 10);
    }
    let set = format!("model.weights=\"{}\"", weights());
    let output = run(
        dir.path(),
        &[
            "process",
            "loop",
            "--output",
            "out.mp4",
            "--report",
            "r.json",
            "--masks",
            "masks",
            "--contact-sheet",
            "sheet.png",
            "--box",
            "vessel=80,40,140,90",
            "--point",
            "nerve=50,60,+",
            "--fps",
            "10",
            "--set",
            &set,
        ],
    );
    let text = said(&output, 0);
    assert!(text.contains("3 frames in, 3 out, 0 dropped, 3 segmented"), "{text}");
    let report = json(&dir.path().join("r.json"));
    assert_eq!(report["schema"], 1);
    for (key, expected) in [("in", 3), ("out", 3), ("dropped", 0), ("segmented", 3), ("passed_through", 0)] {
        assert_eq!(report["frames"][key], expected, "{key}");
    }
    for stage in [
        "capture",
        "queue_wait",
        "upload",
        "preprocess",
        "encode",
        "prompt",
        "decode",
        "postprocess",
        "overlay",
        "push",
    ] {
        let s = &report["stages_ms"][stage];
        assert_eq!(s["count"], 3, "{stage}");
        for q in ["mean", "p50", "p90", "p95", "p99", "p999", "max"] {
            assert!(s[q].as_f64().is_some_and(f64::is_finite), "{stage} {q}");
        }
    }
    assert_eq!(report["capture_to_push_ms"]["count"], 3);
    assert_eq!(report["model"]["family"], "lite-medsam");
    assert_eq!(
        report["model"]["weights_sha256"],
        "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"
    );
    assert_eq!(report["model"]["input_size"], 256);
    assert_eq!(report["model"]["precision"], "fp32");
    assert!(report["peak_rss_bytes"].as_u64().is_some_and(|b| b > 50_000_000));
    assert_eq!(report["ai_off"], serde_json::json!([]));
    assert!(report["versions"]["libtorch"].as_str().is_some_and(|v| v.starts_with("2.11")));
    assert_eq!(decode(&dir.path().join("out.mp4")), (3, Some((202, 152))), "odd sides are rounded up");
    assert_eq!(
        files(&dir.path().join("masks")),
        [
            "000000_nerve.png",
            "000000_vessel.png",
            "000001_nerve.png",
            "000001_vessel.png",
            "000002_nerve.png",
            "000002_vessel.png"
        ]
    );
    let mask = image::open(dir.path().join("masks/000000_vessel.png")).expect("a mask").into_luma8();
    assert_eq!(mask.dimensions(), (201, 151));
    assert!(image::open(dir.path().join("sheet.png")).is_ok());
    assert_eq!(
        files(dir.path()),
        ["loop", "masks", "out.mp4", "r.json", "sheet.png"],
        "nothing else is left"
    );
}

#[test]
fn stills_give_pictures_masks_and_logits() {
    let dir = folder();
    picture(&dir.path().join("a.png"), 200, 150, 0);
    let args = [
        "segment",
        "a.png",
        "--model",
        "lite-medsam",
        "--weights",
        &weights(),
        "--box",
        "60,40,140,100",
        "--box",
        "20,20,60,60",
        "--out",
        "o",
        "--logits",
        "l.safetensors",
        "--json",
    ];
    let output = run(dir.path(), &args);
    said(&output, 0);
    let printed: Value = serde_json::from_slice(&output.stdout).expect("JSON on stdout");
    assert_eq!(printed["results"].as_array().map(Vec::len), Some(2));
    assert_eq!(files(&dir.path().join("o")), ["a.object.png", "a.object2.png", "a.png"]);
    let bytes = std::fs::read(dir.path().join("l.safetensors")).expect("logits");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    for class in ["object", "object2"] {
        assert_eq!(tensors.tensor(&format!("a.{class}")).expect("logits").shape(), [256, 256]);
        assert_eq!(tensors.tensor(&format!("a.{class}.score")).expect("score").shape(), [1]);
        assert_eq!(tensors.tensor(&format!("a.{class}.presence")).expect("presence").shape(), [1]);
    }
}

#[test]
fn run_lengths_go_to_one_file() {
    let dir = folder();
    picture(&dir.path().join("a.png"), 120, 90, 0);
    let set = format!("model.weights=\"{}\"", weights());
    let output = run(
        dir.path(),
        &[
            "process",
            "a.png",
            "--output",
            "o.mp4",
            "--masks",
            "m",
            "--set",
            "output.masks_format=\"rle\"",
            "--set",
            &set,
            "--box",
            "30,20,90,70",
        ],
    );
    said(&output, 0);
    let lines = std::fs::read_to_string(dir.path().join("m/masks.jsonl")).expect("lines");
    let line: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!(
        (&line["frame"], &line["class"], &line["size"]),
        (&0.into(), &"object".into(), &serde_json::json!([90, 120]))
    );
    let total: u64 = line["counts"].as_array().expect("runs").iter().filter_map(Value::as_u64).sum();
    assert_eq!(total, 90 * 120);
}

#[test]
fn what_a_full_disk_took_of_the_masks_is_kept() {
    let dir = folder();
    std::fs::create_dir(dir.path().join("m")).expect("a folder");
    std::fs::write(dir.path().join("m/masks.incomplete.jsonl"), "of another day").expect("a file");
    let set = format!("model.weights=\"{}\"", weights());
    let run = "run --preset benchmark --set source.pace=\"fast\" --set phantom.width=640 --set phantom.height=480 \
               --set phantom.frames=12 --set stream.display=\"paired\" --set stream.queue=\"lossless\" \
               --masks m --overwrite --report r.json --set output.masks_format=\"rle\" --box 200,100,400,300 --set";
    // No file may have more than sixteen kilobytes, and the masks of twelve frames have more.
    let output = std::process::Command::new("bash")
        .args(["-c", "ulimit -f 16; trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sonomask")])
        .args(run.split_whitespace())
        .arg(set)
        .current_dir(dir.path())
        .env("GOMP_SPINCOUNT", "0")
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let text = said(&output, 1);
    assert!(text.contains("what there is of them: m/masks.incomplete-2.jsonl"), "{text}");
    assert_eq!(files(&dir.path().join("m")), ["masks.incomplete-2.jsonl", "masks.incomplete.jsonl"]);
    let lines = std::fs::read_to_string(dir.path().join("m/masks.incomplete-2.jsonl")).expect("lines");
    let line: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!(line["size"], serde_json::json!([480, 640]));
    assert_eq!(json(&dir.path().join("r.json"))["frames"]["out"], 12, "the video goes on");
}

#[test]
fn a_box_outside_the_picture_is_said_once_and_costs_no_restart() {
    let dir = folder();
    let input = dir.path().join("loop");
    std::fs::create_dir(&input).expect("a folder");
    for i in 0..12 {
        picture(&input.join(format!("{i}.png")), 64, 64, i);
    }
    let set = format!("model.weights=\"{}\"", weights());
    let args = [
        "process",
        "loop",
        "--output",
        "o.mp4",
        "--report",
        "r.json",
        "--box",
        "10,10,600,60",
        "--set",
        &set,
    ];
    let text = said(&run(dir.path(), &args), 1);
    assert!(text.contains("outside the 64x64 frame"), "{text}");
    let report = json(&dir.path().join("r.json"));
    assert_eq!(report["ai_off"].as_array().map(Vec::len), Some(1), "{report}");
    assert_eq!((&report["frames"]["out"], &report["frames"]["passed_through"]), (&12.into(), &12.into()));
}
