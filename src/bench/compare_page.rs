//! A comparison as one HTML file that needs nothing else.

use std::fmt::Write as _;

use super::compare::{CaseComparison, Comparison, Ratio, Side, Throughput};
use super::figures::{BAD, FAINT, GOOD, INK, WIDTH, rect, side_by_side, svg, text};
use super::page::begun;
use super::result::{BenchResult, CaseResult, Metric};
use crate::chart::{ChartError, escaped};

impl Comparison {
    /// The page: what became faster and what slower, then each case with its ratios and the distributions of both. `a` and `b` are the
    /// results that were compared.
    ///
    /// # Errors
    /// What the drawing library says.
    pub fn html(&self, a: &BenchResult, b: &BenchResult) -> Result<String, ChartError> {
        let title = format!("{} and {}", self.a.name, self.b.name);
        let mut out = begun(&title, "comparison");
        for (name, side) in [("A", &self.a), ("B", &self.b)] {
            head(&mut out, name, side);
        }
        for caveat in self.caveats() {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "<p class=\"bad\">{caveat}</p>");
        }
        self.overview(&mut out);
        for case in &self.cases {
            details(&mut out, case, a.measured(&case.case).zip(b.measured(&case.with)))?;
        }
        for (names, side) in [(&self.only_a, "A"), (&self.only_b, "B")] {
            for name in names {
                let _ = writeln!(out, "<p class=\"faint\">Only in {side}: {}</p>", escaped(name));
            }
        }
        let _ = writeln!(
            out,
            "<h2>How the figures are formed</h2>\n<p>{}</p>\n</body></html>",
            escaped(&self.method)
        );
        Ok(out)
    }

    fn overview(&self, out: &mut String) {
        out.push_str(
            "<h2>Cases</h2>\n<p class=\"faint\">End to end, B over A: below 1 B is faster; of frames a second above 1. Bold: the interval leaves \
             out 1.</p>\n<div class=\"scroll\"><table>\n<tr><th class=\"left\">Case</th><th>p50, A ms</th><th>B ms</th><th>B / A</th>\
             <th>p95, A ms</th><th>B ms</th><th>B / A</th><th>p99, A ms</th><th>B ms</th><th>B / A</th><th>frames/s, A</th><th>B</th>\
             <th>B / A</th><th>lost, A</th><th>B</th></tr>\n",
        );
        for case in &self.cases {
            let _ = write!(out, "<tr><td>{}</td>", escaped(&named(case)));
            for figure in ["p50", "p95", "p99"] {
                let found =
                    case.ratios.iter().find(|r| r.metric == Metric::EndToEnd.name() && r.figure == figure);
                let _ = match found {
                    Some(r) => write!(out, "<td>{:.2}</td><td>{:.2}</td><td>{}</td>", r.a, r.b, sure(r)),
                    None => write!(out, "<td></td><td></td><td></td>"),
                };
            }
            let (a, b, _) = case.per_second;
            let frames = case.throughput.iter().find(|t| t.of == "frames");
            let frames = frames.map_or_else(String::new, more);
            let (lost_a, lost_b) = (case.lost.0 * 100.0, case.lost.1 * 100.0);
            let _ = writeln!(
                out,
                "<td>{a:.2}</td><td>{b:.2}</td><td>{frames}</td><td>{lost_a:.1} %</td><td>{lost_b:.1} %</td></tr>"
            );
        }
        out.push_str("</table></div>\n");
    }
}

fn head(out: &mut String, name: &str, side: &Side) {
    let _ = writeln!(
        out,
        "<p><b>{name}</b> {}, {}, commit <code>{}</code>, {} build, {}</p>",
        escaped(&side.name),
        escaped(&side.began),
        escaped(&side.commit),
        escaped(&side.build),
        escaped(&side.machine),
    );
}

fn named(case: &CaseComparison) -> String {
    if case.with == case.case { case.case.clone() } else { format!("{} (A), {} (B)", case.case, case.with) }
}

fn sure(r: &Ratio) -> String {
    interval([r.ratio, r.low, r.high], r.differs.then(|| colour(r)))
}

/// Of a throughput, where more is better.
fn more(t: &Throughput) -> String {
    interval([t.ratio, t.low, t.high], t.differs.then_some(if t.ratio > 1.0 { GOOD } else { BAD }))
}

/// A ratio with its ends, bold in `colour` where it differs.
fn interval([ratio, low, high]: [f64; 3], colour: Option<&str>) -> String {
    let text = format!("{ratio:.3} <small>{low:.3} to {high:.3}</small>");
    colour.map_or_else(|| text.clone(), |colour| format!("<b style=\"color:{colour}\">{text}</b>"))
}

fn colour(r: &Ratio) -> &'static str {
    match (r.differs, r.ratio < 1.0) {
        (false, _) => FAINT,
        (true, true) => GOOD,
        (true, false) => BAD,
    }
}

fn details(
    out: &mut String,
    case: &CaseComparison,
    both: Option<(&CaseResult, &CaseResult)>,
) -> Result<(), ChartError> {
    let _ = writeln!(out, "<h2>{}</h2>", escaped(&named(case)));
    if !case.ratios.is_empty() {
        out.push_str(&intervals(&case.ratios));
    }
    for one in &case.one_sided {
        let _ = writeln!(
            out,
            "<p class=\"faint\">Only in {}: {}, p50 {:.3} ms</p>",
            one.side, one.metric, one.p50
        );
    }
    for t in &case.throughput {
        let _ = writeln!(out, "<p>{} a second: A {:.2}, B {:.2}, B / A {}</p>", t.of, t.a, t.b, more(t));
    }
    if let Some((a, b)) = both {
        for metric in [Metric::EndToEnd, Metric::GlassToGlass, Metric::MaskReady] {
            out.extend(side_by_side(&metric, a, b)?);
        }
    }
    let (cores, memory) = (case.cpu_cores, case.peak_rss_bytes);
    let number = |value: Option<f64>| value.map_or_else(|| "unknown".to_owned(), |v| format!("{v:.2}"));
    let count = |value: Option<u64>| value.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let megabytes = |value: Option<u64>| {
        value.map_or_else(|| "unknown".to_owned(), |v| format!("{:.0} MB", v as f64 / 1e6))
    };
    let _ = writeln!(
        out,
        "<p class=\"faint\">Cores in use: A {}, B {}. libtorch's threads: A {}, B {}. Largest resident set: A {}, B {}.</p>",
        number(cores.0),
        number(cores.1),
        count(case.threads.0),
        count(case.threads.1),
        megabytes(memory.0),
        megabytes(memory.1)
    );
    Ok(())
}

/// Every ratio with its interval, on an axis of factors around 1.
fn intervals(ratios: &[Ratio]) -> String {
    const NAMES: f64 = 190.0;
    const FIGURES: f64 = 400.0;
    const ROW: f64 = 20.0;
    let finite = |v: &f64| v.is_finite() && *v > 0.0;
    let ends = ratios.iter().flat_map(|r| [r.low, r.high, r.ratio]).filter(finite);
    let furthest = ends.map(|v| v.ln().abs()).fold(1.1_f64.ln(), f64::max) * 1.05;
    let (left, right) = (NAMES, f64::from(WIDTH) - FIGURES);
    let x = |value: f64| {
        left + (value.ln().clamp(-furthest, furthest) + furthest) / (2.0 * furthest) * (right - left)
    };
    let bottom = 10.0 + ratios.len() as f64 * ROW;
    let mut body = String::new();
    // Where far ratios are drawn, those near 1 have no room for their names.
    let near = furthest < 1.6_f64.ln();
    let ticks: &[f64] =
        if near { &[0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5] } else { &[0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0] };
    for &tick in ticks.iter().filter(|t| t.ln().abs() <= furthest) {
        let line = if tick == 1.0 { INK } else { "#e3e6e9" };
        rect(&mut body, (x(tick) - 0.5, 4.0, 1.0, bottom), line, "");
        text(&mut body, (x(tick), bottom + 20.0), "middle", FAINT, &format!("x {tick}"));
    }
    for (i, r) in ratios.iter().enumerate() {
        let y = 14.0 + i as f64 * ROW;
        let said = format!("{:.3}, {:.3} ms, x {:.2} ({:.2} to {:.2})", r.a, r.b, r.ratio, r.low, r.high);
        text(&mut body, (NAMES - 10.0, y + 4.0), "end", INK, &format!("{} {}", r.metric, r.figure));
        text(&mut body, (right + 14.0, y + 4.0), "start", colour(r), &said);
        // A factor of zero has no place on such an axis.
        if [r.low, r.high, r.ratio].iter().all(finite) {
            rect(&mut body, (x(r.low), y - 1.0, (x(r.high) - x(r.low)).max(1.0), 2.0), colour(r), &said);
            rect(&mut body, (x(r.ratio) - 4.0, y - 4.0, 8.0, 8.0), colour(r), &said);
        }
    }
    svg(bottom + 28.0, &body, "Ratios of B to A with 95 % intervals")
}
