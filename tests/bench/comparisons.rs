//! Comparisons: results of earlier versions, the tail of a distribution, throughput.

use std::io::Read as _;
use std::path::Path;

use sonomask::bench::{BenchResult, Comparison, Drive, FrameRow, Ratio, compare};

/// A result that an earlier version wrote, before it knew a machine's flags and threads.
fn earlier(dir: &Path, name: &str) -> BenchResult {
    let root = env!("CARGO_MANIFEST_DIR");
    let packed = std::fs::File::open(format!("{root}/benches/results/masks-by-rows/{name}.json.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed).read_to_string(&mut text).unwrap();
    let file = dir.join(format!("{name}.json"));
    std::fs::write(&file, text).unwrap();
    BenchResult::read(&file).unwrap()
}

#[track_caller]
fn ratio<'a>(of: &'a Comparison, figure: &str) -> &'a Ratio {
    let mut ratios = of.cases.iter().flat_map(|case| &case.ratios);
    ratios.find(|r| (r.metric, r.figure) == ("end_to_end", figure)).unwrap()
}

#[test]
fn results_of_an_earlier_version_are_read_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let [before, mut after] = ["before", "after"].map(|name| earlier(dir.path(), name));
    let name = &before.cases[0].case.name;
    let pair = [(name.clone(), name.clone())];
    let found = compare(&before, &after, &pair);
    // p50 and p99 are in benches/results/official.md.
    for (figure, a, b) in [("p50", 17.8114, 11.3684), ("p95", 21.5852, 14.6263), ("p99", 24.5921, 16.3584)] {
        let r = ratio(&found, figure);
        assert!((r.a - a).abs() < 1e-6 && (r.b - b).abs() < 1e-6, "{r:?}");
        assert!(r.differs && (r.low..=r.high).contains(&r.ratio), "{r:?}");
    }
    let [frames, masks] = &found.cases[0].throughput[..] else { panic!("{:?}", found.cases[0].throughput) };
    assert_eq!((frames.of, masks.of), ("frames", "masks"));
    assert!(
        (frames.ratio - 1.0).abs() < 1e-9 && !frames.differs,
        "the clock's rate on either side: {frames:?}"
    );
    let rates = [&before, &after].map(|result| result.cases[0].segmented_per_second);
    assert!((masks.a - rates[0]).abs() < 1e-9 && (masks.b - rates[1]).abs() < 1e-9, "{masks:?}");
    let quotient = rates[1] / rates[0];
    assert!((masks.ratio - quotient).abs() < 1e-9, "{masks:?}");
    assert!((masks.low..=masks.high).contains(&quotient) && masks.high < 1.0, "{masks:?}");
    let table = found.table(false);
    assert!(
        table.contains("masks a second 19.65 and 18.50, 0.941 times [") && table.contains("] fewer"),
        "{table}"
    );

    // What one of them does not say is not held against it.
    assert!(!found.machines_differ && found.cases[0].threads == (None, None));
    after.machine.flags = Some(vec!["avx2".into()]);
    after.machine.threads = Some(2);
    let no_case = [(String::new(), String::new())];
    let found = compare(&before, &after, &no_case);
    assert!(!found.machines_differ, "{found:?}");
    assert!(found.b.machine.contains("2 cores (avx2), 2 threads of libtorch"), "{found:?}");
    let (mut others_flags, mut others_threads) = (after.clone(), after.clone());
    others_flags.machine.flags = Some(vec!["avx2".into(), "avx512f".into()]);
    others_threads.machine.threads = Some(1);
    for other in [others_flags, others_threads] {
        let found = compare(&other, &after, &no_case);
        assert!(found.machines_differ && found.table(false).contains("different machines"), "{:?}", found.a);
    }
}

/// The same with one case, of a closed loop whose calls take so many milliseconds.
fn closed(like: &BenchResult, calls: &[f64]) -> BenchResult {
    let mut result = like.clone();
    result.cases.truncate(1);
    let case = &mut result.cases[0];
    case.case.drive = Drive::Closed;
    let mut at = 0.0_f64;
    let row = |(frame, ms): (usize, &f64)| {
        let (frame, due_ms) = (frame as u64, at);
        at += *ms;
        FrameRow { frame, counted: true, due_ms, ended_ms: Some(at), ..FrameRow::default() }
    };
    case.rows = calls.iter().enumerate().map(row).collect();
    case.summarise();
    result
}

#[test]
fn throughput_and_the_tail_say_no_more_than_the_frames_allow() {
    let dir = tempfile::tempdir().unwrap();
    let like = earlier(dir.path(), "before");
    let calls: Vec<f64> = (0..400).map(|i| 10.0 + f64::from(i * 37 % 100) / 50.0).collect();
    let compared = |frames: usize, factor: &dyn Fn(usize) -> f64| {
        let slower: Vec<f64> = calls.iter().enumerate().take(frames).map(|(i, ms)| ms * factor(i)).collect();
        let (a, b) = (closed(&like, &calls[..frames]), closed(&like, &slower));
        let rates = [&a, &b].map(|result| result.cases[0].per_second);
        (compare(&a, &b, &[]), rates[1] / rates[0])
    };

    // All of it twice as slow: half as many a second, and of fewer than a hundred frames nothing is concluded of the tail.
    for (frames, tail) in [(400, true), (60, false)] {
        let (found, quotient) = compared(frames, &|_| 2.0);
        let [sure] = &found.cases[0].throughput[..] else { panic!("{:?}", found.cases[0].throughput) };
        assert_eq!(sure.of, "frames", "back to back a frame is a mask");
        assert!((quotient - 0.5).abs() < 1e-9 && (sure.ratio - quotient).abs() < 1e-9, "{sure:?}");
        assert!(sure.differs && sure.low <= 0.5 && (0.5..0.6).contains(&sure.high), "{sure:?}");
        for figure in ["mean", "p50", "p95"] {
            assert!(ratio(&found, figure).differs, "{figure}");
        }
        let last = ratio(&found, "p99");
        assert!((last.ratio - 2.0).abs() < 1e-9 && last.differs == tail, "{last:?}");
    }
    // Too few frames for an interval: the bare figure stays.
    let (found, _) = compared(9, &|_| 2.0);
    assert!(found.cases[0].throughput.is_empty() && found.cases[0].per_second.2.is_some());

    // One call of twenty-five takes ten times as long: the 99th percentile sees it, where the 95th does not.
    let (found, _) = compared(400, &|i| if i % 25 == 7 { 10.0 } else { 1.0 });
    assert!((ratio(&found, "p95").ratio - 1.0).abs() < 0.05, "{:?}", ratio(&found, "p95"));
    let last = ratio(&found, "p99");
    assert!(last.differs && last.low > 5.0, "{last:?}");
    let page = found.html(&closed(&like, &calls), &closed(&like, &calls)).unwrap();
    assert!(page.contains("<th>p99, A ms</th>") && page.contains("frames a second: A "), "{page}");
}
