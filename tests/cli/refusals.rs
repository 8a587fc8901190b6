//! Requests that cannot be met: the exit code, the one clear message, and nothing written or replaced.

use super::{NO_MODEL, files, folder, picture, run};
use crate::program_support::{said, weights};

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
