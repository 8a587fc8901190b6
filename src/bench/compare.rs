//! Two results side by side: what became faster, what slower, and whether that is more than chance.

use std::fmt::Write as _;

use serde::Serialize;

use super::percentiles::quantile;
use super::resample::{DRAWS, ratio};
use super::result::{BenchResult, CaseResult, Metric};

/// A figure of B over the same of A, with its 95 % interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Name of the metric.
    pub metric: &'static str,
    /// `mean`, `p50` or `p95`.
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
    /// Share of the frames that were lost in A and in B.
    pub lost: (f64, f64),
    /// Cores in use in A and in B.
    pub cpu_cores: (Option<f64>, Option<f64>),
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
    /// Processor, and GPUs.
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
             blocks of the square root of the number of frames, each side drawn by itself, percentile method). It knows how \
             frames of one run differ, not how runs differ: repeat a run to see that."
        ),
        a: Side::of(a),
        b: Side::of(b),
        rules_differ: a.rules != b.rules,
        cases,
        only_a,
        only_b,
    }
}

impl Side {
    fn of(result: &BenchResult) -> Self {
        let m = &result.machine;
        let gpus = m.gpus.iter().map(|gpu| format!(", {}", gpu.name)).collect::<String>();
        Self {
            name: result.name.clone(),
            began: result.began.clone(),
            commit: result.commit.clone(),
            build: result.build.clone(),
            machine: format!("{}, {} cores{gpus}", m.cpu, m.cores),
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
            ratios: Metric::all().iter().flat_map(|metric| ratios(metric, a, b)).collect(),
            one_sided: Metric::all().iter().filter_map(|metric| one_sided(metric, a, b)).collect(),
            per_second: (a.per_second, b.per_second, speed),
            lost: (share(a), share(b)),
            cpu_cores: (a.used.cpu_cores, b.used.cpu_cores),
            peak_rss_bytes: (a.used.peak_rss_bytes, b.used.peak_rss_bytes),
        }
    }
}

type Figure = fn(&mut [f64]) -> Option<f64>;

fn sorted(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    quantile(values, share)
}

fn one_sided(metric: &Metric, a: &CaseResult, b: &CaseResult) -> Option<OneSided> {
    let (side, mut values) = match (a.values(metric), b.values(metric)) {
        (a, b) if b.is_empty() => ("A", a),
        (a, b) if a.is_empty() => ("B", b),
        _ => return None,
    };
    Some(OneSided { metric: metric.name(), side, p50: sorted(&mut values, 0.5)? })
}

fn ratios(metric: &Metric, a: &CaseResult, b: &CaseResult) -> Vec<Ratio> {
    let figures: [(&'static str, Figure); 3] = [
        ("mean", |v| (!v.is_empty()).then(|| v.iter().sum::<f64>() / v.len() as f64)),
        ("p50", |v| sorted(v, 0.5)),
        ("p95", |v| sorted(v, 0.95)),
    ];
    let (left, right) = (a.values(metric), b.values(metric));
    let one = |(figure, of): (&'static str, Figure)| {
        let sure = ratio(&left, &right, of)?;
        Some(Ratio {
            metric: metric.name(),
            figure,
            a: of(&mut left.clone())?,
            b: of(&mut right.clone())?,
            ratio: sure.ratio,
            low: sure.low,
            high: sure.high,
            differs: sure.low > 1.0 || sure.high < 1.0,
        })
    };
    figures.into_iter().filter_map(one).collect()
}

impl Comparison {
    /// Why the two may not be comparable.
    pub(super) fn caveats(&self) -> impl Iterator<Item = &'static str> {
        let elsewhere = self.a.machine != self.b.machine || self.a.build != self.b.build;
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
            let (a, b, speed) = case.per_second;
            let speed = speed.map_or_else(String::new, |s| format!(", {s:.3} times"));
            let _ = writeln!(
                out,
                "  frames a second {a:.2} and {b:.2}{speed}; lost {:.1} % and {:.1} %",
                case.lost.0 * 100.0,
                case.lost.1 * 100.0
            );
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
