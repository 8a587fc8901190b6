//! Two results side by side: what became faster, what slower, and whether that is more than chance.

use std::fmt::Write as _;

use serde::Serialize;

use super::percentiles::quantile;
use super::resample::{DRAWS, Sure, ratio, ratios};
use super::result::{BenchResult, CaseResult, Metric};
use super::spec::Drive;

/// Figures of a metric, see [`figures`].
const FIGURES: [&str; 4] = ["mean", "p50", "p95", P99];
const P99: &str = "p99";
/// With fewer frames the 99th percentile is the largest. No draw has a larger one, so that its interval knows nothing of what could have
/// come.
const TAIL: usize = 100;
/// With fewer frames a throughput has no interval: there would be at most three blocks to draw.
const FEWEST: usize = 10;

/// A figure of B over the same of A, with its 95 % interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Name of the metric.
    pub metric: &'static str,
    /// `mean`, `p50`, `p95` or `p99`.
    pub figure: &'static str,
    /// A's, milliseconds.
    pub a: f64,
    /// B's, milliseconds.
    pub b: f64,
    /// `b / a`: below 1 B is faster.
    pub ratio: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// The interval leaves out 1. Never of a `p99` where a side has fewer than 100 frames.
    pub differs: bool,
}

/// How many a second: B's over A's, with its 95 % interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Throughput {
    /// `frames` that were shown (closed loop: segmented), or `masks` that were finished.
    pub of: &'static str,
    /// A's.
    pub a: f64,
    /// B's.
    pub b: f64,
    /// `b / a`: above 1 B does more.
    pub ratio: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// The interval leaves out 1.
    pub differs: bool,
}

/// A metric that only one of two cases has, as a stage that the other does not pass.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OneSided {
    /// Name of the metric.
    pub metric: &'static str,
    /// `A` or `B`.
    pub side: &'static str,
    /// Its median there, milliseconds.
    pub p50: f64,
}

/// A case that both have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseComparison {
    /// Its name in A; in B it has the same or the one it was paired with.
    pub case: String,
    /// Its name in B.
    pub with: String,
    /// Latencies.
    pub ratios: Vec<Ratio>,
    /// Those of one side.
    pub one_sided: Vec<OneSided>,
    /// Frames a second in A and in B, and B's over A's.
    pub per_second: (f64, f64, Option<f64>),
    /// The same with intervals, and in an open loop that of masks; where there are frames enough.
    pub throughput: Vec<Throughput>,
    /// Share of the frames that were lost in A and in B.
    pub lost: (f64, f64),
    /// Cores in use in A and in B.
    pub cpu_cores: (Option<f64>, Option<f64>),
    /// libtorch's CPU threads in A and in B.
    pub threads: (Option<u64>, Option<u64>),
    /// Largest resident set in A and in B.
    pub peak_rss_bytes: (Option<u64>, Option<u64>),
}

/// Where a result comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Name of the benchmark.
    pub name: String,
    /// When it began.
    pub began: String,
    /// Commit of the program.
    pub commit: String,
    /// How it was built.
    pub build: String,
    /// Processor, libtorch's threads, and GPUs.
    pub machine: String,
}

/// Two results side by side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Version of this layout.
    pub schema: u32,
    /// How intervals are formed.
    pub method: String,
    /// The first.
    pub a: Side,
    /// The second.
    pub b: Side,
    /// They are of different machines, as far as both say what theirs was.
    pub machines_differ: bool,
    /// They form their figures by different rules, as two versions of the program may.
    pub rules_differ: bool,
    /// Cases that both have.
    pub cases: Vec<CaseComparison>,
    /// Names of measured cases that only the first has; none where pairs were asked for.
    pub only_a: Vec<String>,
    /// The same of the second.
    pub only_b: Vec<String>,
}

/// Compares cases of equal names, and those of `pairs` (a name in A, a name in B).
pub fn compare(a: &BenchResult, b: &BenchResult, pairs: &[(String, String)]) -> Comparison {
    let names = a.cases.iter().map(|case| (case.case.name.clone(), case.case.name.clone()));
    let wanted: Vec<(String, String)> = if pairs.is_empty() { names.collect() } else { pairs.to_vec() };
    let mut cases = Vec::new();
    for (left, right) in &wanted {
        let both = a.measured(left).zip(b.measured(right));
        cases.extend(both.map(|(a, b)| CaseComparison::new(a, b)));
    }
    let alone = |result: &BenchResult, seen: &dyn Fn(&CaseComparison) -> &str| {
        let measured = result.cases.iter().filter(|case| case.measured()).map(|case| case.case.name.clone());
        let unpaired =
            measured.filter(|name| pairs.is_empty() && !cases.iter().any(|case| seen(case) == name));
        unpaired.collect()
    };
    let (only_a, only_b) = (alone(a, &|c| &c.case), alone(b, &|c| &c.with));
    Comparison {
        schema: 1,
        method: format!(
            "B over A of the per-frame values of the frames that count; 95 % intervals by a circular block bootstrap ({DRAWS} draws, \
             blocks of the square root of the number of frames, each side drawn by itself, percentile method). Throughput: their \
             number over the times from one to the next, drawn in the same way, of {FEWEST} and more. The 99th percentile of fewer than \
             {TAIL} frames is the largest of them: its interval says nothing. All this knows how frames of one run differ, not how \
             runs differ: repeat a run to see that."
        ),
        a: Side::of(a),
        b: Side::of(b),
        machines_differ: !a.machine.is_like(&b.machine),
        rules_differ: a.rules != b.rules,
        cases,
        only_a,
        only_b,
    }
}

impl Side {
    fn of(result: &BenchResult) -> Self {
        Self {
            name: result.name.clone(),
            began: result.began.clone(),
            commit: result.commit.clone(),
            build: result.build.clone(),
            machine: result.machine.words(),
        }
    }
}

impl CaseComparison {
    fn new(a: &CaseResult, b: &CaseResult) -> Self {
        let share = |case: &CaseResult| {
            let count = |name: &str| case.counted.get(name).copied().unwrap_or(0) as f64;
            if count("sent") > 0.0 { count("lost") / count("sent") } else { 0.0 }
        };
        let speed = (a.per_second > 0.0).then(|| b.per_second / a.per_second);
        Self {
            case: a.case.name.clone(),
            with: b.case.name.clone(),
            ratios: Metric::all().iter().flat_map(|metric| compared(metric, a, b)).collect(),
            one_sided: Metric::all().iter().filter_map(|metric| one_sided(metric, a, b)).collect(),
            per_second: (a.per_second, b.per_second, speed),
            throughput: throughput(a, b),
            lost: (share(a), share(b)),
            cpu_cores: (a.used.cpu_cores, b.used.cpu_cores),
            threads: (a.used.threads, b.used.threads),
            peak_rss_bytes: (a.used.peak_rss_bytes, b.used.peak_rss_bytes),
        }
    }
}

/// [`FIGURES`] of `values`, which are sorted by it.
fn figures(values: &mut [f64]) -> Option<[f64; 4]> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.sort_by(f64::total_cmp);
    let sorted = &*values;
    let at = |share: f64| quantile(sorted, share);
    Some([mean, at(0.5)?, at(0.95)?, at(0.99)?])
}

fn leaves_out_1(low: f64, high: f64) -> bool {
    low > 1.0 || high < 1.0
}

fn one_sided(metric: &Metric, a: &CaseResult, b: &CaseResult) -> Option<OneSided> {
    let (side, mut values) = match (a.values(metric), b.values(metric)) {
        (a, b) if b.is_empty() => ("A", a),
        (a, b) if a.is_empty() => ("B", b),
        _ => return None,
    };
    let [_, p50, ..] = figures(&mut values)?;
    Some(OneSided { metric: metric.name(), side, p50 })
}

fn compared(metric: &Metric, a: &CaseResult, b: &CaseResult) -> Vec<Ratio> {
    let (mut left, mut right) = (a.values(metric), b.values(metric));
    let tail = left.len().min(right.len()) >= TAIL;
    let found = ratios(&left, &right, figures);
    let Some((a, b)) = figures(&mut left).zip(figures(&mut right)) else { return Vec::new() };
    let values = a.into_iter().zip(b);
    let one = |((figure, sure), (a, b)): ((&'static str, Option<Sure>), (f64, f64))| {
        let Sure { ratio, low, high } = sure?;
        let differs = leaves_out_1(low, high) && (figure != P99 || tail);
        Some(Ratio { metric: metric.name(), figure, a, b, ratio, low, high, differs })
    };
    FIGURES.into_iter().zip(found).zip(values).filter_map(one).collect()
}

fn throughput(a: &CaseResult, b: &CaseResult) -> Vec<Throughput> {
    let found = |of: &'static str, left: Vec<f64>, right: Vec<f64>| {
        if left.len().min(right.len()) < FEWEST {
            return None;
        }
        let per_second = |between: &mut [f64]| {
            let ms: f64 = between.iter().sum();
            (ms > 0.0).then(|| 1e3 * between.len() as f64 / ms)
        };
        let Sure { ratio, low, high } = ratio(&left, &right, per_second)?;
        let (a, b) = (per_second(&mut left.clone())?, per_second(&mut right.clone())?);
        Some(Throughput { of, a, b, ratio, low, high, differs: leaves_out_1(low, high) })
    };
    let frames = found("frames", a.between_frames(), b.between_frames());
    // Back to back a frame is a mask.
    let open = [a, b].iter().any(|case| case.case.drive != Drive::Closed);
    let masks = open.then(|| found("masks", a.between_masks(), b.between_masks()));
    frames.into_iter().chain(masks.flatten()).collect()
}

impl Throughput {
    /// Its interval and what it tells, for a terminal.
    fn interval(&self) -> String {
        let verdict = match (self.differs, self.ratio < 1.0) {
            (false, _) => "",
            (true, true) => " fewer",
            (true, false) => " more",
        };
        format!(" [{:.3}, {:.3}]{verdict}", self.low, self.high)
    }
}

impl Comparison {
    /// Why the two may not be comparable.
    pub(super) fn caveats(&self) -> impl Iterator<Item = &'static str> {
        let elsewhere = self.machines_differ || self.a.build != self.b.build;
        [
            (elsewhere, "The two are of different machines or builds."),
            (self.rules_differ, "The two form their figures by different rules: see `rules` in the files."),
        ]
        .into_iter()
        .filter_map(|(holds, caveat)| holds.then_some(caveat))
    }

    /// For a terminal. Without `all` only whole ways and stages that differ.
    pub fn table(&self, all: bool) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        for (name, side) in [("A", &self.a), ("B", &self.b)] {
            let Side { name: what, began, commit, build, machine } = side;
            let _ = writeln!(out, "{name}: {what}, {began}, commit {commit} ({build}), {machine}");
        }
        for caveat in self.caveats() {
            let _ = writeln!(out, "{caveat}");
        }
        for case in &self.cases {
            let with =
                if case.with == case.case { String::new() } else { format!(" (A) and {} (B)", case.with) };
            let _ = writeln!(out, "\n{}{with}", case.case);
            let _ = writeln!(
                out,
                "  {:<18} {:<5} {:>10} {:>10}   {:<24}",
                "metric", "", "A ms", "B ms", "B / A [95 %]"
            );
            for r in case.ratios.iter().filter(|r| all || r.differs || r.metric == Metric::EndToEnd.name()) {
                let verdict = match (r.differs, r.ratio < 1.0) {
                    (false, _) => "",
                    (true, true) => "faster",
                    (true, false) => "slower",
                };
                let sure = format!("{:.3} [{:.3}, {:.3}]", r.ratio, r.low, r.high);
                let _ = writeln!(
                    out,
                    "  {:<18} {:<5} {:>10.3} {:>10.3}   {sure:<24} {verdict}",
                    r.metric, r.figure, r.a, r.b
                );
            }
            for one in &case.one_sided {
                let OneSided { metric, side, p50 } = one;
                let place = if *side == "A" {
                    format!("{p50:>10.3} {:>10}", "")
                } else {
                    format!("{:>10} {p50:>10.3}", "")
                };
                let _ = writeln!(out, "  {metric:<18} p50   {place}   only in {side}");
            }
            let throughput = |of: &str| case.throughput.iter().find(|t| t.of == of);
            let (a, b, speed) = case.per_second;
            let sure = throughput("frames").map_or_else(String::new, Throughput::interval);
            let speed = speed.map_or_else(String::new, |s| format!(", {s:.3} times{sure}"));
            let _ = writeln!(
                out,
                "  frames a second {a:.2} and {b:.2}{speed}; lost {:.1} % and {:.1} %",
                case.lost.0 * 100.0,
                case.lost.1 * 100.0
            );
            if let Some(t) = throughput("masks") {
                let (a, b, ratio, sure) = (t.a, t.b, t.ratio, t.interval());
                let _ = writeln!(out, "  masks a second {a:.2} and {b:.2}, {ratio:.3} times{sure}");
            }
        }
        for (names, side) in [(&self.only_a, "A"), (&self.only_b, "B")] {
            for name in names {
                let _ = writeln!(out, "only in {side}: {name}");
            }
        }
        let _ = writeln!(out, "\n{}", self.method);
        out
    }
}
