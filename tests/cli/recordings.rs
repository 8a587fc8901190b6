//! Recordings that are cut off, interrupted or change their size, and what is left of them under which name.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use super::{NO_MODEL, decode, files, folder, json, picture, run};
use crate::program_support::{said, sonomask};

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

/// Asks a started program to end, as a terminal does.
fn signal(child: &mut Child) {
    assert!(child.try_wait().expect("a child").is_none(), "it has ended by itself");
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: plain system call with the id of a child that was still there when it was asked for, and is not waited for meanwhile: the id is
    // its own.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
}

/// Ends a started program after a while.
fn interrupt(mut child: Child, after: Duration) -> Output {
    std::thread::sleep(after);
    signal(&mut child);
    child.wait_with_output().expect("it ends")
}

#[test]
fn interrupting_twice_ends_a_network_at_work_at_once() {
    let dir = folder();
    let weights = format!("model.weights={}/weights/lite_medsam.pth", env!("CARGO_MANIFEST_DIR"));
    let mut child = sonomask(dir.path())
        .args(["run", "--preset", "benchmark", "--set", &weights])
        // On a busy machine a frame may take long, and the stream shall not end before it is done.
        .args(["--set", "model.watchdog=300s", "--set", "phantom.frames=1000000"])
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let works = |line: String| line.contains(" segmented,") && !line.contains(" 0 segmented,");
    assert!(lines.any(works), "the network never worked");
    signal(&mut child);
    // Heard: two at once would be one.
    assert!(lines.any(|line| line.contains("once more to end at once")), "it did not say that it stops");
    signal(&mut child);
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{rest:?}");
    assert!(rest.iter().all(|line| !line.contains("AI OFF")), "{rest:?}");
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
    assert_eq!(files(&dir.path().join("m")), ["masks.jsonl"], "without a model there were none to keep");
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
