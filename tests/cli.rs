//! The program as its users call it: exit codes, messages, files.

mod program_support;

use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use program_support::{said, sonomask, weights};
use serde_json::Value;
use sonomask::phantom::{Phantom, PhantomConfig};

fn run(dir: &Path, args: &[&str]) -> Output {
    sonomask(dir).args(args).output().expect("the program starts")
}

#[track_caller]
fn said_stdout(output: &Output) -> String {
    said(output, 0);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .expect("a folder")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// Frames and sizes that a player would see.
fn decode(path: &Path) -> (usize, Option<(i32, i32)>) {
    gst::init().expect("GStreamer starts");
    let text = "filesrc name=src ! decodebin ! videoconvert ! video/x-raw,format=I420 ! appsink name=sink sync=false";
    let pipeline =
        gst::parse::launch(text).expect("a pipeline").downcast::<gst::Pipeline>().expect("a pipeline");
    pipeline.by_name("src").expect("src").set_property("location", path.to_str().expect("UTF-8"));
    let sink = pipeline.by_name("sink").and_downcast::<gstreamer_app::AppSink>().expect("an appsink");
    pipeline.set_state(gst::State::Playing).expect("it plays");
    let (mut frames, mut size) = (0, None);
    while let Ok(sample) = sink.pull_sample() {
        frames += 1;
        let s = sample.caps().and_then(|c| c.structure(0)).expect("caps");
        size = Some((s.get("width").expect("width"), s.get("height").expect("height")));
    }
    pipeline.set_state(gst::State::Null).expect("it stops");
    (frames, size)
}

fn picture(path: &Path, width: usize, height: usize, index: u64) {
    let config = PhantomConfig { width, height, frames: None, ..PhantomConfig::default() };
    let image = Phantom::new(config).expect("a phantom").image(index);
    image::save_buffer(path, &image, width as u32, height as u32, image::ExtendedColorType::L8)
        .expect("a picture");
}

const NO_MODEL: [&str; 2] = ["--set", "model.enabled=false"];

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
fn wrong_requests_end_with_2_and_write_nothing() {
    let dir = folder();
    picture(&dir.path().join("a.png"), 64, 64, 0);
    std::fs::write(dir.path().join("garbage.pth"), [7; 3000]).expect("a file");
    std::fs::write(dir.path().join("c.toml"), "[model]\nenabled = true\nfamly = \"x\"\n").expect("a file");
    std::fs::write(dir.path().join("d.toml"), "[stream]\nmax_mask_age = 200\n").expect("a file");
    let before = files(dir.path());
    let w = weights();
    let good = format!("model.weights=\"{w}\"");
    let cases: &[(&[&str], &str)] = &[
        (
            &[
                "process",
                "a.png",
                "--output",
                "o.mp4",
                "--set",
                "model.weights=\"none.pth\"",
                "--box",
                "1,1,9,9",
            ],
            "there are no weights",
        ),
        (
            &[
                "process",
                "a.png",
                "--output",
                "o.mp4",
                "--set",
                "model.weights=\"garbage.pth\"",
                "--box",
                "1,1,9,9",
            ],
            "garbage.pth",
        ),
        (&["process", "a.png", "--output", "o.mp4", "--config", "c.toml"], "c.toml:3"),
        (&["run", "--config", "d.toml"], "d.toml:2"),
        (
            &["process", "a.png", "--output", "o.mp4", "--set", &good, "--box", "1,1,9"],
            "expected [NAME=]x0,y0,x1,y1",
        ),
        (
            &[
                "process",
                "a.png",
                "--output",
                "o.mp4",
                "--set",
                &good,
                "--set",
                "model.device=cuda:99",
                "--box",
                "1,1,9,9",
            ],
            "cuda:99",
        ),
        (&["segment", "a.png", "--weights", &w, "--out", "o"], "--box"),
        (
            &["segment", "a.png", "--weights", &w, "--model", "sam-vit-b", "--box", "1,1,9,9", "--out", "o"],
            "lite-medsam",
        ),
        (&["process", "--output", "o.mp4"], "there is no input"),
        (&["process", "a.png"], "--output is missing"),
        (&["process", "absent.mp4", "--output", "o.mp4"], "there is no such input"),
        (
            &[
                "process",
                "a.png",
                "--output",
                "o.mp4",
                "--set",
                "model.enabled=false",
                "--set",
                "sink.qualty=3",
            ],
            "qualty",
        ),
        (
            &[
                "process",
                "a.png",
                "--output",
                "o.mkv",
                "--set",
                "model.enabled=false",
                "--set",
                "sink.quality=99",
            ],
            "quality",
        ),
        (
            &[
                "process",
                "a.png",
                "--output",
                "o.mp4",
                "--set",
                "model.enabled=false",
                "--set",
                "source.bogus=3",
            ],
            "bogus",
        ),
        (
            &[
                "process",
                "a.png",
                "--output",
                "o.mp4",
                "--set",
                "model.enabled=false",
                "--set",
                "phantom.seeed=3",
            ],
            "seeed",
        ),
        (
            &["process", "a.png", "--output", "o.mp4", "--report", "o.mp4", "--set", "model.enabled=false"],
            "same path",
        ),
        (
            &["process", "a.png", "--output", "o.mp4", "--report", "a.png", "--set", "model.enabled=false"],
            "would replace an input",
        ),
        (&["process", "a.png", "--output", "o.mp4", "--box", "nan,1,3,3"], "expected [NAME=]x0,y0,x1,y1"),
        (&["process", "a.png", "--output", "o.mp4", "--box", "5,5,3,9"], "no area"),
        (
            &[
                "process",
                "a.png",
                "--output",
                "o.mp4",
                "--set",
                &good,
                "--box",
                "a b=1,1,9,9",
                "--box",
                "a_b=1,1,9,9",
            ],
            "same mask files",
        ),
        (
            &[
                "run",
                "--set",
                "source.kind=\"test\"",
                "--set",
                "stream.queue=\"lossless\"",
                "--set",
                "stream.display=\"paired\"",
                "--set",
                "model.enabled=false",
            ],
            "a live source cannot wait",
        ),
    ];
    for (args, expected) in cases {
        let text = said(&run(dir.path(), args), 2);
        assert!(text.contains(expected), "{args:?}: {text}");
    }
    assert_eq!(files(dir.path()), before);
}

#[test]
fn broken_recordings_end_with_1_and_leave_nothing() {
    let dir = folder();
    std::fs::write(dir.path().join("garbage.mp4"), [0x5a; 9000]).expect("a file");
    std::fs::write(dir.path().join("empty.mp4"), []).expect("a file");
    let mut dicom = vec![0; 128];
    dicom.extend(b"DICM");
    dicom.extend([0x33; 500]);
    std::fs::write(dir.path().join("garbage.dcm"), dicom).expect("a file");
    std::fs::write(dir.path().join("short.mha"), "ObjectType = Image\nNDims = 3\nDimSize = 64 64 9\nElementType = MET_UCHAR\nElementDataFile = LOCAL\nabc").expect("a file");
    let before = files(dir.path());
    for input in ["garbage.mp4", "empty.mp4", "garbage.dcm", "short.mha"] {
        let output = run(dir.path(), &[&["process", input, "--output", "o.mp4"][..], &NO_MODEL].concat());
        let text = said(&output, 1);
        assert!(text.lines().filter(|l| l.starts_with("sonomask: ")).count() <= 3, "{input}: {text}");
        assert_eq!(files(dir.path()), before, "{input}: {text}");
    }
}

#[test]
fn a_truncated_recording_gives_what_there_is_and_says_so() {
    let dir = folder();
    said(
        &run(
            dir.path(),
            &[
                "phantom",
                "--output",
                "p.mkv",
                "--frames",
                "60",
                "--set",
                "phantom.width=320",
                "--set",
                "phantom.height=240",
            ],
        ),
        0,
    );
    let whole = std::fs::read(dir.path().join("p.mkv")).expect("the clip");
    std::fs::write(dir.path().join("cut.mkv"), &whole[..whole.len() * 6 / 10]).expect("a file");
    let output = run(
        dir.path(),
        &[&["process", "cut.mkv", "--output", "o.mp4", "--report", "r.json"][..], &NO_MODEL].concat(),
    );
    let report = json(&dir.path().join("r.json"));
    let (entered, out) =
        (report["frames"]["in"].as_u64().expect("in"), report["frames"]["out"].as_u64().expect("out"));
    assert_eq!(entered, out + report["frames"]["dropped"].as_u64().expect("dropped"));
    assert!((20..60).contains(&entered), "{entered}");
    // Matroska may simply end; where the demuxer calls it an error the result must not look whole.
    let name = if output.status.success() { "o.mp4" } else { "o.incomplete.mp4" };
    assert_eq!(decode(&dir.path().join(name)).0 as u64, out);
    assert!(!files(dir.path()).iter().any(|f| f.contains("part")));
}

#[test]
fn outputs_that_cannot_be_written_are_one_clear_error() {
    let dir = folder();
    picture(&dir.path().join("a.png"), 64, 64, 0);
    let text = said(
        &run(dir.path(), &[&["process", "a.png", "--output", "no/such/o.mp4"][..], &NO_MODEL].concat()),
        1,
    );
    assert!(text.contains("cannot write the output"), "{text}");
    let text =
        said(&run(dir.path(), &[&["process", "a.png", "--output", "o.gif"][..], &NO_MODEL].concat()), 2);
    assert!(text.contains("expected .mp4 or .mkv"), "{text}");
    std::fs::copy(dir.path().join("a.png"), dir.path().join("a.mp4")).expect("a copy");
    let text =
        said(&run(dir.path(), &[&["process", "a.mp4", "--output", "a.mp4"][..], &NO_MODEL].concat()), 2);
    assert!(text.contains("would replace an input"), "{text}");
    std::fs::write(dir.path().join("kept.mp4"), "precious").expect("a file");
    let text = said(
        &run(
            dir.path(),
            &[
                &[
                    "run",
                    "--preset",
                    "benchmark",
                    "--set",
                    "sink.kind=\"record-mp4\"",
                    "--set",
                    "sink.path=\"kept.mp4\"",
                ][..],
                &NO_MODEL,
            ]
            .concat(),
        ),
        2,
    );
    assert!(text.contains("--overwrite"), "{text}");
    assert_eq!(std::fs::read(dir.path().join("kept.mp4")).expect("the file"), b"precious");
    std::fs::create_dir(dir.path().join("kept")).expect("a folder");
    std::fs::write(dir.path().join("kept/000000_nerve.png"), "precious").expect("a file");
    let again = ["run", "--preset", "benchmark", "--masks", "kept", "--set", "phantom.frames=2"];
    let text = said(&run(dir.path(), &[&again[..], &NO_MODEL].concat()), 2);
    assert!(text.contains("--overwrite"), "{text}");
    assert_eq!(std::fs::read(dir.path().join("kept/000000_nerve.png")).expect("the file"), b"precious");
    said(&run(dir.path(), &[&again[..], &["--overwrite"], &NO_MODEL].concat()), 0);
}

#[test]
fn a_batch_goes_on_after_a_bad_file_and_names_never_collide() {
    let dir = folder();
    std::fs::create_dir(dir.path().join("x")).expect("a folder");
    picture(&dir.path().join("a.png"), 64, 64, 0);
    picture(&dir.path().join("x/a.png"), 80, 64, 0);
    std::fs::write(dir.path().join("bad.dcm"), b"no").expect("a file");
    let output = run(
        dir.path(),
        &[&["process", "a.png", "bad.dcm", "x/a.png", "--output", "o", "--report", "r.json"][..], &NO_MODEL]
            .concat(),
    );
    let text = said(&output, 1);
    assert!(text.contains("2 of 3 inputs processed"), "{text}");
    assert_eq!(files(&dir.path().join("o")), ["a-2.mp4", "a.mp4"]);
    assert_eq!(decode(&dir.path().join("o/a-2.mp4")), (1, Some((80, 64))));
    let report = json(&dir.path().join("r.json"));
    assert!(
        report["files"][1]["error"].is_string() || report["files"][1]["report"]["ended"]["how"] == "failed",
        "{report}"
    );
}

/// Ends a started program as a terminal does, after a while.
fn interrupt(child: Child, after: Duration) -> Output {
    std::thread::sleep(after);
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: plain system call with the id of a child that has not been waited for, so the id is its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
    child.wait_with_output().expect("it ends")
}

#[test]
fn interrupting_finishes_the_recording() {
    let dir = folder();
    for (sink, file) in [("record-mp4", "live.mp4"), ("record-mkv", "live.mkv")] {
        let child = sonomask(dir.path())
            .args(["run", "--preset", "benchmark", "--report", "r.json", "--set", "model.enabled=false"])
            .args(["--set", &format!("sink.kind={sink}"), "--set", &format!("sink.path=\"{file}\"")])
            .args(["--set", "phantom.width=320", "--set", "phantom.height=240"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        std::thread::sleep(Duration::from_millis(2000));
        assert!(!dir.path().join(file).exists(), "not under its name before it is whole");
        let second = run(
            dir.path(),
            &["run", "--preset", "benchmark", "--set", "model.enabled=false", "--overwrite"]
                .into_iter()
                .chain(["--set", &format!("sink.kind={sink}"), "--set", &format!("sink.path=\"{file}\"")])
                .collect::<Vec<_>>(),
        );
        assert!(said(&second, 2).contains("another run records to it"));
        let output = interrupt(child, Duration::from_secs(1));
        let text = said(&output, 0);
        let report = json(&dir.path().join("r.json"));
        assert_eq!(report["ended"]["how"], "interrupted", "{text}");
        let f = &report["frames"];
        let (entered, out) = (f["in"].as_u64().expect("in"), f["out"].as_u64().expect("out"));
        assert_eq!(entered, out + f["dropped"].as_u64().expect("dropped"));
        assert!(out > 10, "{text}");
        assert_eq!(
            decode(&dir.path().join(file)),
            (usize::try_from(out).expect("a count"), Some((320, 240))),
            "{text}"
        );
    }
}

#[test]
fn the_time_at_which_a_run_began_names_its_files() {
    let dir = folder();
    let output = run(
        dir.path(),
        &[
            &["run", "--preset", "benchmark", "--report", "r-{start}.json", "--masks", "m-{start}"][..],
            &["--set", "sink.kind=record-mkv", "--set", "sink.path=\"a-{start}.mkv\""],
            &["--set", "phantom.frames=5", "--set", "phantom.width=320", "--set", "phantom.height=240"],
            &NO_MODEL[..],
        ]
        .concat(),
    );
    said(&output, 0);
    let names = files(dir.path());
    let [recording, masks, report] = &names[..] else { panic!("{names:?}") };
    let time = recording.strip_prefix("a-").and_then(|n| n.strip_suffix(".mkv")).expect("a recording");
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00T00-00-00");
    assert_eq!(*masks, format!("m-{time}"));
    assert_eq!(*report, format!("r-{time}.json"));
    assert_eq!(decode(&dir.path().join(recording)).0, 5);
}

#[test]
fn an_interrupted_recording_does_not_replace_a_whole_one() {
    let dir = folder();
    let clip = ["phantom", "--output", "p.mkv", "--frames", "300"];
    let small = ["--set", "phantom.width=320", "--set", "phantom.height=240"];
    said(&run(dir.path(), &[&clip[..], &small].concat()), 0);
    std::fs::create_dir(dir.path().join("m")).expect("a folder");
    for whole in ["o.mkv", "m/masks.jsonl", "s.png"] {
        std::fs::write(dir.path().join(whole), "the whole of an earlier run").expect("a file");
    }
    // In real time, so that there is something to interrupt; how the source is queued has no say in what is whole.
    let child = sonomask(dir.path())
        .args(["process", "p.mkv", "--output", "o.mkv", "--masks", "m", "--contact-sheet", "s.png"])
        .args([
            "--set",
            "source.pace=realtime",
            "--set",
            "stream.queue=latest",
            "--set",
            "output.masks_format=rle",
        ])
        .args(NO_MODEL)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let output = interrupt(child, Duration::from_secs(3));
    let text = said(&output, 1);
    assert!(text.contains("what there is of it: o.incomplete.mkv"), "{text}");
    let (frames, size) = decode(&dir.path().join("o.incomplete.mkv"));
    assert!((10..300).contains(&frames), "{frames}");
    assert_eq!(size, Some((320, 240)));
    for whole in ["o.mkv", "m/masks.jsonl", "s.png"] {
        let before = std::fs::read(dir.path().join(whole)).expect("it is still there");
        assert_eq!(before, b"the whole of an earlier run", "{whole}");
    }
    assert_eq!(files(&dir.path().join("m")), ["masks.incomplete.jsonl", "masks.jsonl"]);
    assert_eq!(files(dir.path()), ["m", "o.incomplete.mkv", "o.mkv", "p.mkv", "s.incomplete.png", "s.png"]);
}

#[test]
fn a_recording_keeps_its_size_when_the_source_changes() {
    let dir = folder();
    let input = dir.path().join("mixed");
    std::fs::create_dir(&input).expect("a folder");
    for (i, (w, h)) in [(100, 80), (100, 80), (64, 90), (201, 99)].into_iter().enumerate() {
        picture(&input.join(format!("{i}.png")), w, h, 0);
    }
    let output = run(
        dir.path(),
        &[&["process", "mixed", "--output", "o.mp4", "--report", "r.json"][..], &NO_MODEL].concat(),
    );
    said(&output, 0);
    assert_eq!(decode(&dir.path().join("o.mp4")), (4, Some((100, 80))));
    assert_eq!(json(&dir.path().join("r.json"))["resets"], 2);
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
fn doctor_tells_what_is_here() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = run(root, &["doctor", "--json"]);
    said(&output, 0);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names: Vec<&str> =
        found["pipelines"].as_array().expect("pipelines").iter().filter_map(|p| p["name"].as_str()).collect();
    for name in [
        "source-file",
        "source-v4l2",
        "source-decklink",
        "source-rtsp",
        "source-srt",
        "source-udp",
        "source-test",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    assert!(
        found["weights"]
            .as_array()
            .expect("weights")
            .iter()
            .any(|w| w["verdict"].as_str().is_some_and(|v| v.contains("published")))
    );
    let here = folder();
    let output = run(here.path(), &["doctor", "--weights", "absent.pth"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "without weights: {text}");
    assert!(text.contains("make setup"), "{text}");
}

#[test]
fn presets_and_defaults_find_their_weights_outside_of_a_checkout() {
    let here = folder();
    // The checkout's, seen from the program.
    let text = said_stdout(&run(here.path(), &["doctor"]));
    assert!(text.contains("lite_medsam.pth  lite-medsam"), "{text}");
    let config = ["run", "--preset", "cine", "--print-config"];
    let text = said_stdout(&run(here.path(), &config));
    let line = |text: &str| text.lines().find(|l| l.starts_with("weights = ")).unwrap_or_default().to_owned();
    assert!(line(&text).contains("/weights/lite_medsam.pth"), "{text}");
    assert!(!line(&text).contains(&here.path().display().to_string()), "{text}");
    // One's own folder comes first, and a path of one's own is taken as it stands.
    std::fs::create_dir(here.path().join("weights")).expect("a folder");
    std::fs::write(here.path().join("weights/lite_medsam.pth"), "mine").expect("a file");
    let text = said_stdout(&run(here.path(), &config));
    let mine = std::fs::canonicalize(here.path()).expect("a path").join("weights/lite_medsam.pth");
    assert!(line(&text).contains(&mine.display().to_string()), "{text}");
    let text = said_stdout(&run(
        here.path(),
        &[&config[..], &["--set", "model.weights=\"weights/none.pth\""]].concat(),
    ));
    assert!(line(&text).contains(&mine.with_file_name("none.pth").display().to_string()), "{text}");
}

#[test]
fn nothing_that_is_written_replaces_an_input() {
    let dir = folder();
    std::fs::create_dir(dir.path().join("x")).expect("a folder");
    said(&run(dir.path(), &["phantom", "--output", "v.mp4", "--frames", "3"]), 0);
    said(&run(dir.path(), &["phantom", "--output", "x/v.mp4", "--frames", "3"]), 0);
    let before = std::fs::read(dir.path().join("v.mp4")).expect("the clip");
    let output =
        run(dir.path(), &[&["process", "x/v.mp4", "v.mp4", "--output", "."][..], &NO_MODEL].concat());
    assert!(said(&output, 2).contains("would replace an input"));
    assert_eq!(std::fs::read(dir.path().join("v.mp4")).expect("the clip"), before);

    picture(&dir.path().join("a.png"), 64, 64, 0);
    let before = std::fs::read(dir.path().join("a.png")).expect("the picture");
    let output =
        run(dir.path(), &["segment", "a.png", "--weights", &weights(), "--box", "9,9,40,40", "--out", "."]);
    assert!(said(&output, 1).contains("would replace an input"));
    assert_eq!(std::fs::read(dir.path().join("a.png")).expect("the picture"), before);
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

#[test]
fn a_run_that_cannot_start_leaves_no_file() {
    let dir = folder();
    picture(&dir.path().join("a.png"), 64, 64, 0);
    std::fs::write(dir.path().join("notdir"), "a file").expect("a file");
    let before = files(dir.path());
    let output = run(
        dir.path(),
        &[&["process", "a.png", "--output", "o.mp4", "--masks", "notdir/m"][..], &NO_MODEL].concat(),
    );
    assert_ne!(output.status.code(), Some(0));
    let output = run(
        dir.path(),
        &[
            &[
                "run",
                "--preset",
                "benchmark",
                "--set",
                "stream.queue=lossless",
                "--set",
                "sink.kind=record-mp4",
            ][..],
            &["--set", "sink.path=\"o.mp4\""],
            &NO_MODEL,
        ]
        .concat(),
    );
    said(&output, 2);
    assert_eq!(files(dir.path()), before);
}

#[test]
fn the_printed_configuration_can_be_loaded_from_anywhere() {
    let dir = folder();
    let printed = run(Path::new(env!("CARGO_MANIFEST_DIR")), &["process", "--print-config"]);
    said(&printed, 0);
    std::fs::write(dir.path().join("c.toml"), &printed.stdout).expect("a file");
    picture(&dir.path().join("a.png"), 64, 64, 0);
    let output = run(
        dir.path(),
        &["process", "a.png", "--config", "c.toml", "--output", "o.mp4", "--box", "9,9,40,40"],
    );
    said(&output, 0);
}
