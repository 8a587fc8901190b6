//! Runs of a matrix: what they leave, whole or interrupted, and what is wrong with the file that asks for them.

use std::path::Path;
use std::process::Stdio;

use sonomask::bench::{BenchResult, CaseStatus};

use super::agreement::{check_case, check_compare, check_csv, check_trace};
use super::{bench, command};
use crate::program_support::{said, weights};

/// A matrix of five cases: each way of driving the model, and one that cannot work on any machine.
fn small(dir: &Path) {
    let config = format!(
        "[bench]\nname = \"small <b>\"\nwarmup = 1\nframes = 5\nmax_mask_age = \"1h\"\n\
         [source]\npictures = 4\nformat = \"nv12\"\n\
         [matrix]\nsizes = [\"160x120\"]\nrates = [20.0]\nstreams = [\"latest\", \"paired\", \"lossless\"]\ndevices = [\"cpu\"]\n\
         [[models]]\nname = \"lite, \\\"medsam\\\"\"\nfamily = \"lite-medsam\"\nweights = {:?}\n\
         [[models]]\nname = \"absent\"\nfamily = \"lite-medsam\"\nweights = {:?}\ndevices = [\"cuda:999\"]\n",
        weights(),
        weights()
    );
    std::fs::write(dir.join("small.toml"), config).unwrap();
}

#[test]
fn a_small_matrix_leaves_files_that_agree() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let only = ["--only", "lite,", "--only", "cuda:999, 160x120 nv12, closed"];
    let args = [&["--config", "small.toml", "--out", "out", "--trace", "out/trace.json"][..], &only].concat();
    let text = said(&bench(dir.path(), &args), 1);
    assert!(
        text.contains("failed: absent fp32 cuda:999, 160x120 nv12, closed: device cuda:999 was asked for"),
        "{text}"
    );
    let again = said(&bench(dir.path(), &args), 2);
    assert!(again.contains("--overwrite"), "a result is not replaced unasked: {again}");

    let out = dir.path().join("out");
    let result = BenchResult::read(&out.join("result.json")).unwrap();
    assert_eq!((result.cases.len(), result.interrupted), (5, false));
    assert!(
        result.versions.contains_key("libtorch") && !result.commit.is_empty() && result.machine.cores > 0
    );
    assert!(result.versions["rustc"].starts_with("1."), "{:?}", result.versions);
    let machine = &result.machine;
    let flags = machine.flags.as_ref().unwrap();
    let known = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let known = known.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let expected = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"];
    let expected: Vec<&str> =
        expected.into_iter().filter(|flag| known.split(' ').any(|word| word == *flag)).collect();
    assert_eq!(*flags, expected);
    assert!(machine.threads.is_some_and(|n| n > 0), "{machine:?}");
    let failed: Vec<_> = result.cases.iter().filter(|c| c.status == CaseStatus::Failed).collect();
    assert!(failed.len() == 1 && !failed[0].measured(), "the others went on");
    for case in result.cases.iter().filter(|c| c.status != CaseStatus::Failed) {
        check_case(case);
    }
    let of = |what: &str| result.cases.iter().find(|c| c.case.name.ends_with(what)).unwrap();
    let lossless = of("lossless");
    assert_eq!(
        (lossless.counted["lost"], lossless.counted["masked"], lossless.counted["segmented"]),
        (0, 5, 5)
    );
    assert!(of("latest").counted["lost"] == 0, "every frame leaves at once");
    assert!(of("paired").counted["masked"] == of("paired").counted["shown"], "each with its own mask");

    check_csv(&out, &result);
    check_trace(&out, &result);
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.contains("small &lt;b&gt;") && !page.contains("small <b>"), "names do no harm");
    assert!(page.contains("<svg") && page.matches("<svg").count() == page.matches("</svg>").count());
    assert!(!page.contains("src=\"http") && !page.contains("href=\"http"), "it needs nothing else");
    assert!(page.contains("cuda:999 was asked for"), "failures are on the page");
    assert!(page.contains(" threads of libtorch") && page.contains("<td>rustc</td>"), "what decides speed");
    assert!(flags.iter().all(|flag| page.contains(flag.as_str())), "{flags:?}");

    check_compare(dir.path(), &result);
}

#[test]
fn a_memory_is_full_before_the_first_frame() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[bench]\nwarmup = 0\nframes = 1\n[source]\npictures = 4\n\
        [matrix]\nsizes = [\"160x120\"]\nrates = [5.0]\nstreams = [\"lossless\"]\ndevices = [\"cpu\"]\n\
        [[models]]\nname = \"tiny\"\nfamily = \"sam2.1-hiera-tiny\"\nweights = \"generate\"\ninput_sizes = [64]\nmemory = [true]\n";
    std::fs::write(dir.path().join("memory.toml"), config).unwrap();
    said(&bench(dir.path(), &["--config", "memory.toml", "--out", "out"]), 0);
    let result = BenchResult::read(&dir.path().join("out/result.json")).unwrap();
    assert_eq!(result.cases.len(), 2, "closed and open");
    for case in &result.cases {
        // Sixteen pointers, some with the memories of their frames.
        let memory = case.memory.as_ref().unwrap();
        let count = |name: &str| memory[name].as_u64().unwrap();
        assert_eq!(count("bank_frames") + count("bank_pointers"), 16, "{memory}");
        assert_eq!(case.rows.len(), 1);
    }
}

#[test]
fn every_mistake_of_a_file_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = "[bench]\nwarmup = -1\nframes = 0\nsecond = \"3s\"\ntimeout = \"soon\"\n\
        [source]\nkind = \"camera\"\npath = \"none.mp4\"\n\
        [matrix]\nsizes = [\"10x10\"]\nrates = [0]\nstreams = [\"newest\"]\nprecisions = [\"fp8\"]\ndevices = [\"gpu\"]\nloops = []\n\
        [[models]]\nfamily = \"sam9\"\nweights = \"generate\"\nboxes = [[0.5, 0.5, 0.2, 0.9]]\n\
        [[models]]\nname = \"twice\"\nfamily = \"lite-medsam\"\nweights = \"none.pth\"\nmemory = [true]\n\
        [[models]]\nname = \"twice\"\nppn = \"none.safetensors\"\nthreads = 9999\n";
    std::fs::write(dir.path().join("bad.toml"), config).unwrap();
    let text = said(&bench(dir.path(), &["--config", "bad.toml", "--out", "out"]), 2);
    for needle in [
        "bench.warmup = -1: expected a whole number",
        "unknown key bench.second",
        "bench.timeout = \"soon\": expected a duration",
        "source.kind = \"camera\": expected \"phantom\" or \"file\"",
        "source.path",
        "matrix.sizes = an array: expected a list of sizes",
        "matrix.rates",
        "matrix.streams",
        "matrix.precisions",
        "matrix.devices",
        "matrix.loops",
        "models[0].family = \"sam9\"",
        "models[0].boxes",
        "models[1].weights: there is no such file",
        "models[1]: lite-medsam has no memory",
        "models[2].name = \"twice\": another model has that name",
        "models[2].weights is missing",
        "models[2].ppn: there is no such file",
        "models[2].threads = 9999",
        "bad.toml:2",
        "bench.frames = 0 and bench.seconds",
    ] {
        assert!(text.contains(needle), "{needle} is not in:\n{text}");
    }
    assert!(!dir.path().join("out").exists(), "nothing was begun");

    let syntax = dir.path().join("syntax.toml");
    std::fs::write(&syntax, "[bench\n").unwrap();
    assert!(said(&bench(dir.path(), &["--config", "syntax.toml"]), 2).contains("not valid TOML"));
    assert!(said(&bench(dir.path(), &["--config", "none.toml"]), 2).contains("none.toml"));
    said(&bench(dir.path(), &[]), 2);
}

#[test]
fn the_annotated_configuration_is_valid() {
    let file = format!("{}/configs/bench.toml", env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let output = bench(dir.path(), &["--config", &file, "--list"]);
    said(&output, 0);
    let names = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: Vec<&str> = names.lines().collect();
    assert_eq!(names.len(), 12, "{names:#?}");
    let unique: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len(), "equal names are equal cases");
    assert!(names.iter().any(|n| n.contains("memory, 640x480, open 10/s paired")), "{names:#?}");
}

#[test]
fn an_interrupted_benchmark_leaves_what_was_measured() {
    let dir = tempfile::tempdir().unwrap();
    let config = format!(
        "[bench]\nwarmup = 0\nframes = 100000\n[source]\npictures = 2\n\
         [matrix]\nsizes = [\"160x120\"]\nloops = [\"closed\", \"open\"]\ndevices = [\"cpu\"]\n\
         [[models]]\nweights = {:?}\n",
        weights()
    );
    std::fs::write(dir.path().join("long.toml"), config).unwrap();
    let mut command = command(dir.path(), &["--config", "long.toml", "--out", "out"]);
    // Frames are told to the log once they are there.
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = child;
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("/100000 frames") {
        line.clear();
        assert!(
            std::io::BufRead::read_line(&mut log, &mut line).unwrap() > 0,
            "it goes on until it is stopped"
        );
    }
    // SAFETY: kill takes two numbers; the child is ours and has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    let rest = std::io::read_to_string(log).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest}");
    assert!(rest.contains("interrupted"), "{rest}");
    let result = BenchResult::read(&dir.path().join("out/result.json")).unwrap();
    assert!(result.interrupted);
    let [first, second] = &result.cases[..] else { panic!("{} cases", result.cases.len()) };
    assert_eq!((first.status, second.status), (CaseStatus::Partial, CaseStatus::NotRun));
    assert!(first.rows.len() > 1 && first.measured());
    assert!(dir.path().join("out/report.html").exists() && dir.path().join("out/cases.csv").exists());
}
