//! How the files of one result have to agree: cases, tables, trace, and comparisons with themselves and others.

use std::path::Path;

use serde_json::Value;
use sonomask::bench::{BenchResult, CaseStatus, Metric, compare, percentiles};
use sonomask::frame::PixelFormat;

use super::bench;
use crate::program_support::said;

/// What is counted, what is summarised and what is written down frame by frame say the same.
#[track_caller]
pub(super) fn check_case(case: &sonomask::bench::CaseResult) {
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
            && case.used.pictures_bytes == 4 * 160 * 120 * 3 / 2
    );
    assert!(case.used.cpu_seconds.is_some() && case.used.gpu.is_none(), "{name}");
    assert!(case.used.threads.is_some_and(|n| n > 0), "{name}: {:?}", case.used);
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
pub(super) fn check_csv(out: &Path, result: &BenchResult) {
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let cases = read("cases.csv");
    assert_eq!(cases.lines().count(), 1 + result.cases.len());
    let head = fields(cases.lines().next().unwrap());
    let place = |name: &str| head.iter().position(|h| h == name).unwrap();
    let (width, threads, format) = (head.len(), place("threads"), place("format"));
    for (line, case) in cases.lines().skip(1).zip(&result.cases) {
        let found = fields(line);
        assert_eq!(found.len(), width, "{line}");
        assert_eq!(found[0], case.case.name);
        assert_eq!(found[format], case.case.format.map_or("own", PixelFormat::name));
        assert_eq!(found[threads], case.used.threads.map_or_else(String::new, |n| n.to_string()));
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
pub(super) fn check_trace(out: &Path, result: &BenchResult) {
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
pub(super) fn check_compare(dir: &Path, result: &BenchResult) {
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
            assert_eq!(whole.len(), 4, "mean, median, 95th and 99th percentile");
            assert_eq!(case["throughput"], Value::Array(Vec::new()), "five frames are too few");
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
