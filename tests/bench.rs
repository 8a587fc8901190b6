//! `sonomask bench` as its users call it: the files are there, whole, and agree with each other.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod program_support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use program_support::{said, sonomask, weights};
use serde_json::Value;
use sonomask::bench::{BenchResult, CaseStatus, Mark, Metric, compare, draw_mark, percentiles, read_mark};
use sonomask::frame::{
    CaptureTime, FrameId, FrameMeta, ImageView, ImageViewMut, PixelFormat, Plane, PlaneMut, YuvColor,
};
use sonomask::mask::{ClassMask, Mask, Paired, Segmentation};
use sonomask::overlay::{ClassStyle, Drawable, Overlay, Style};
use sonomask::stage::StageTimes;
use sonomask::state::AiState;

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = sonomask(dir);
    command.arg("bench").args(args);
    command
}

fn bench(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

/// A matrix of five cases: each way of driving the model, and one that cannot work on any machine.
fn small(dir: &Path) {
    let config = format!(
        "[bench]\nname = \"small <b>\"\nwarmup = 1\nframes = 5\nmax_mask_age = \"1h\"\n\
         [source]\npictures = 4\n\
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
    let only = ["--only", "lite,", "--only", "cuda:999, 160x120, closed"];
    let args = [&["--config", "small.toml", "--out", "out", "--trace", "out/trace.json"][..], &only].concat();
    let text = said(&bench(dir.path(), &args), 1);
    assert!(
        text.contains("failed: absent fp32 cuda:999, 160x120, closed: device cuda:999 was asked for"),
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

/// What is counted, what is summarised and what is written down frame by frame say the same.
#[track_caller]
fn check_case(case: &sonomask::bench::CaseResult) {
    let name = &case.case.name;
    assert_eq!(case.status, CaseStatus::Done, "{name}: {:?}", case.reason);
    let f = &case.frames;
    assert_eq!(f["in"], f["out"] + f["dropped"], "{name}: {f:?}");
    assert_eq!(f["in"], 6, "{name}: the warm-up and what counts");
    let c = &case.counted;
    assert_eq!((c["sent"], c["sent"]), (5, c["shown"] + c["lost"]), "{name}: {c:?}");
    assert_eq!(case.rows.len(), 6, "{name}");
    assert!(case.rows.iter().enumerate().all(|(i, row)| row.frame == i as u64 && row.counted == (i >= 1)));
    let due: Vec<f64> = case.rows.iter().map(|row| row.due_ms).collect();
    assert!(due.windows(2).all(|w| w[0] < w[1]), "{name}: {due:?}");
    assert!(case.per_second > 0.0 && case.seconds > 0.0, "{name}");
    assert!(
        case.used.peak_rss_bytes.unwrap() > case.used.pictures_bytes
            && case.used.pictures_bytes == 4 * 160 * 120
    );
    assert!(case.used.cpu_seconds.is_some() && case.used.gpu.is_none(), "{name}");
    for metric in Metric::all() {
        let values = case.values(&metric);
        let found = case.metrics.get(metric.name()).copied();
        assert_eq!(found, percentiles(&values), "{name} {}", metric.name());
        let Some(p) = found else { continue };
        let ordered = [p.p50, p.p90, p.p95, p.p99, p.p999, p.max];
        assert!(ordered.windows(2).all(|w| w[0] <= w[1]) && p.p50 >= 0.0, "{name} {}: {p:?}", metric.name());
        assert_eq!(p.count as usize, values.len());
    }
    for needed in ["end_to_end", "encode", "decode"] {
        assert!(case.metrics.contains_key(needed) || name.contains("latest"), "{name} has {needed}");
    }
    if name.contains("open") {
        // A frame is due when its time has come, however late those before it are.
        let late = |(i, due): (usize, &f64)| (due - case.rows[0].due_ms - 50.0 * i as f64).abs() > 0.001;
        assert!(!due.iter().enumerate().any(late), "{name}: {due:?}");
        assert_eq!(c["unread"], 0, "{name}: every mark is read off the drawn frame");
        let glass = &case.metrics["glass_to_glass"];
        assert_eq!(glass.count, c["shown"], "{name}");
        // The time that is read is the time at which the frame was due, to the microsecond.
        let marked = case.rows.iter().filter_map(|row| Some((row.mark_ms?, row.due_ms)));
        assert!(marked.into_iter().all(|(mark, due)| (mark - due).abs() <= 0.0011), "{name}");
        // A frame cannot be taken before it is due.
        let early = |row: &&sonomask::bench::FrameRow| row.captured_ms.is_some_and(|at| at < row.due_ms);
        assert!(!case.rows.iter().any(|row| early(&row)), "{name}");
    }
}

#[track_caller]
fn check_csv(out: &Path, result: &BenchResult) {
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let cases = read("cases.csv");
    assert_eq!(cases.lines().count(), 1 + result.cases.len());
    let width = fields(cases.lines().next().unwrap()).len();
    for (line, case) in cases.lines().skip(1).zip(&result.cases) {
        let found = fields(line);
        assert_eq!(found.len(), width, "{line}");
        assert_eq!(found[0], case.case.name);
    }
    let metrics = read("metrics.csv");
    let expected: usize = result.cases.iter().map(|c| c.metrics.len()).sum();
    assert_eq!(metrics.lines().count(), 1 + expected);
    let head = fields(metrics.lines().next().unwrap());
    let at = |name: &str| head.iter().position(|h| h == name).unwrap();
    for line in metrics.lines().skip(1) {
        let found = fields(line);
        let case = result.cases.iter().find(|c| c.case.name == found[0]).unwrap();
        let p = &case.metrics[&found[at("metric")]];
        assert_eq!(found[at("p95")], format!("{:.4}", p.p95));
        assert_eq!(found[at("count")], p.count.to_string());
    }
    let frames = read("frames.csv");
    let head = fields(frames.lines().next().unwrap());
    assert_eq!(head, ["case", "frame", "counted", "due_ms", "metric", "ms"]);
    let counted = frames.lines().skip(1).filter(|line| fields(line)[2] == "1").count();
    let expected: u64 = result.cases.iter().flat_map(|c| c.metrics.values()).map(|p| p.count).sum();
    assert_eq!(counted as u64, expected, "every value that a percentile is made of");
}

/// The fields of a line of CSV without line breaks in fields.
fn fields(line: &str) -> Vec<String> {
    let (mut out, mut now, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => now.extend(chars.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut now)),
            c => now.push(c),
        }
    }
    out.push(now);
    out
}

#[track_caller]
fn check_trace(out: &Path, result: &BenchResult) {
    let trace: Value =
        serde_json::from_str(&std::fs::read_to_string(out.join("trace.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let measured = result.cases.iter().filter(|c| c.measured()).count();
    let named = events.iter().filter(|e| e["name"] == "process_name").count();
    assert_eq!(named, measured, "a process for each case");
    let number = |e: &Value, key: &str| e[key].as_f64().unwrap();
    // Events of a thread nest: what begins within another also ends within it, to the rounding of clocks.
    let mut threads: std::collections::BTreeMap<(u64, u64), Vec<(f64, f64)>> = Default::default();
    for event in events.iter().filter(|e| e["ph"] == "X") {
        assert!(number(event, "ts") >= 0.0 && number(event, "dur") >= 0.0, "{event}");
        let thread = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        let begin = number(event, "ts");
        threads.entry(thread).or_default().push((begin, begin + number(event, "dur")));
    }
    for (thread, mut spans) in threads {
        spans.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut open: Vec<f64> = Vec::new();
        for (begin, end) in spans {
            while open.last().is_some_and(|last| *last <= begin + 0.5) {
                open.pop();
            }
            assert!(
                open.last().is_none_or(|last| end <= last + 0.5),
                "{thread:?}: {begin} to {end} in {open:?}"
            );
            open.push(end);
        }
    }
    let segmented: usize = result.cases.iter().flat_map(|c| &c.rows).filter(|r| r.ended_ms.is_some()).count();
    let calls = events.iter().filter(|e| e["tid"] == 2 && e["name"] == "frame").count();
    assert_eq!(calls, segmented);
}

/// A result equals itself, and is half of its double.
#[track_caller]
fn check_compare(dir: &Path, result: &BenchResult) {
    let mut double = result.clone();
    for case in &mut double.cases {
        for row in &mut case.rows {
            for ms in row.stages_ms.values_mut() {
                *ms *= 2.0;
            }
            let stretch = |ms: Option<f64>| ms.map(|ms| row.due_ms + 2.0 * (ms - row.due_ms));
            (row.ended_ms, row.pushed_ms) = (stretch(row.ended_ms), stretch(row.pushed_ms));
        }
        case.summarise();
    }
    double.write(&dir.join("double.json")).unwrap();
    for (a, b, expected) in [
        ("out/result.json", "out/result.json", 1.0),
        ("out/result.json", "double.json", 2.0),
        ("double.json", "out/result.json", 0.5),
    ] {
        let output = bench(dir, &["compare", a, b, "--json"]);
        said(&output, 0);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let cases = found["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 4, "those that were measured");
        for case in cases {
            let ratios = case["ratios"].as_array().unwrap();
            let whole: Vec<&Value> = ratios.iter().filter(|r| r["metric"] == "end_to_end").collect();
            assert_eq!(whole.len(), 3, "mean, median and 95th percentile");
            for r in whole {
                let number = |key: &str| r[key].as_f64().unwrap();
                assert!((number("ratio") - expected).abs() < 1e-9, "{a} {b}: {r}");
                assert!(
                    number("low") <= expected + 1e-9 && number("high") >= expected - 1e-9,
                    "{a} {b}: {r}"
                );
            }
        }
    }
    assert!(compare(result, result, &[]).cases.iter().flat_map(|c| &c.ratios).all(|r| !r.differs));
    let table = bench(dir, &["compare", "out/result.json", "double.json", "--page", "pages/compare.html"]);
    said(&table, 0);
    let table = String::from_utf8_lossy(&table.stdout);
    assert!(table.contains("2.000 [") && table.contains("block bootstrap"), "{table}");
    let page = std::fs::read_to_string(dir.join("pages/compare.html")).unwrap();
    assert_eq!(page.matches("<h2>").count(), 4 + 2, "each case, all of them, and the rules");
    assert!(page.contains("aria-label=\"Ratios of B to A") && !page.contains("NaN"), "{page}");
    assert!(page.contains("small &lt;b&gt;") && !page.contains("small <b>"), "names do no harm");
    let text = said(&bench(dir, &["compare", "out/result.json", "double.json", "--page", "double.json"]), 2);
    assert!(text.contains("--page"), "{text}");
    // A page that cannot be written is said.
    let text =
        said(&bench(dir, &["compare", "out/result.json", "double.json", "--page", "double.json/x"]), 1);
    assert!(text.contains("double.json/x"), "{text}");

    // A stage that only one side passes has no ratio, and is not left out.
    let mut without = result.clone();
    for row in without.cases.iter_mut().flat_map(|case| &mut case.rows) {
        row.stages_ms.remove("decode");
    }
    for (a, b, side) in [(result, &without, "A"), (&without, result, "B")] {
        let found = compare(a, b, &[]);
        assert!(!found.rules_differ);
        let one_sided = found.cases.iter().flat_map(|case| &case.one_sided);
        assert!(one_sided.clone().all(|one| (one.metric, one.side) == ("decode", side) && one.p50 > 0.0));
        assert_eq!(
            one_sided.count(),
            result.cases.iter().filter(|c| c.metrics.contains_key("decode")).count()
        );
        assert!(found.table(false).contains(&format!("only in {side}")));
    }

    let name = &result.cases[0].case.name;
    let other = &result.cases[3].case.name;
    let pair =
        bench(dir, &["compare", "out/result.json", "out/result.json", "--pair", name, other, "--json"]);
    said(&pair, 0);
    let found: Value = serde_json::from_slice(&pair.stdout).unwrap();
    assert_eq!(
        (&found["cases"][0]["case"], &found["cases"][0]["with"]),
        (&name.as_str().into(), &other.as_str().into())
    );

    assert_eq!(found["only_a"], Value::Array(Vec::new()), "nothing else was asked for");

    for (file, content) in
        [("none.json", None), ("other.json", Some("{\"schema\": 7}")), ("bad.json", Some("{"))]
    {
        if let Some(content) = content {
            std::fs::write(dir.join(file), content).unwrap();
        }
        let text = said(&bench(dir, &["compare", file, "out/result.json"]), 2);
        assert!(text.contains(file), "{text}");
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

/// A gray picture with a mark becomes I420 of limited range as videoconvert makes it, is drawn over with masks, banner and legend,
/// and still tells its frame and time.
#[test]
fn a_mark_survives_conversion_and_overlay() {
    for (w, h) in [(320, 240), (640, 480), (1280, 720)] {
        let mark = Mark { frame: 123_456, micros: 987_654_321_012 };
        let mut gray: Vec<u8> = (0..w * h).map(|i| (i * 7919 % 200) as u8).collect();
        let planes = vec![PlaneMut { data: &mut gray, stride: w }];
        let mut image = ImageViewMut::new(PixelFormat::Gray8, w, h, YuvColor::default(), planes).unwrap();
        draw_mark(&mut image, mark).unwrap();
        for covered in [0.0, 0.5, 1.0] {
            let (cw, ch) = (w.div_ceil(2), h.div_ceil(2));
            let mut y: Vec<u8> =
                gray.iter().map(|&v| (16.0 + f64::from(v) * 219.0 / 255.0).round() as u8).collect();
            let (mut u, mut v) = (vec![128_u8; cw * ch], vec![128_u8; cw * ch]);
            let planes = vec![
                PlaneMut { data: &mut y, stride: w },
                PlaneMut { data: &mut u, stride: cw },
                PlaneMut { data: &mut v, stride: cw },
            ];
            let mut drawn = ImageViewMut::new(PixelFormat::I420, w, h, YuvColor::default(), planes).unwrap();
            overlay(&mut drawn, covered);
            let view = drawn.as_view();
            assert_eq!(read_mark(&view), Some(mark), "{w}x{h}, {covered} covered");
        }
        let blank = vec![90_u8; w * h];
        let planes = vec![Plane { data: &blank, stride: w }];
        let blank = ImageView::new(PixelFormat::Gray8, w, h, YuvColor::default(), planes).unwrap();
        assert_eq!(read_mark(&blank), None);
    }
}

/// Draws a mask over so large a share of the picture, from its right edge, with everything else that a stream shows.
fn overlay(image: &mut ImageViewMut<'_>, covered: f64) {
    let (w, h) = (image.as_view().width(), image.as_view().height());
    let data = (0..w * h).map(|i| u8::from((i % w) as f64 >= (1.0 - covered) * w as f64)).collect();
    let meta = FrameMeta { id: FrameId::default(), pts: None, duration: None, capture: CaptureTime::now() };
    let found =
        ClassMask { class: 0, mask: Mask::new(w, h, data).unwrap(), score: 0.9, presence: 1.0, logits: None };
    let segmentation =
        Segmentation { frame: meta, masks: vec![found], times: StageTimes::default(), remark: None };
    let paired = Paired::new(&meta, Arc::new(segmentation)).unwrap();
    let mut overlay = Overlay::new(Style::default(), vec![ClassStyle::new("a structure with a name", 0)]);
    overlay.draw(image, Drawable::Paired(&paired), &AiState::Live).unwrap();
}
