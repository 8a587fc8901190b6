//! A result as one HTML file that needs nothing else.

use std::fmt::Write as _;

use super::figures::{distributions, stage_bars, timeline, ways};
use super::result::{BenchResult, CaseResult, Metric};
use super::spec::Drive;
use crate::chart::{ChartError, escaped};
use crate::telemetry::LatencySummary;

/// How it looks.
const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;color:#1c2024;background:#fff;max-width:1120px;margin:2rem auto;padding:0 1.5rem}\
h1{font-size:1.6rem;margin-bottom:.2rem}h2{margin-top:2.5rem;border-bottom:1px solid #d5dade;padding-bottom:.2rem}\
h3{margin:2rem 0 .4rem}.scroll{overflow-x:auto}svg{max-width:100%;height:auto;display:block;margin:.6rem 0}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}\
th,td{padding:.25rem .6rem;text-align:right;vertical-align:top}th:first-child,td:first-child,.left{text-align:left}\
th{border-bottom:2px solid #1c2024;font-weight:600}td{border-bottom:1px solid #e3e6e9}\
.bad{color:#a3341f;font-weight:600}small,.faint{color:#5b6570}code,pre{font-size:.85em;word-break:break-all;white-space:pre-wrap}";

/// How a page of that `kind` begins.
pub(super) fn begun(title: &str, kind: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}: {kind}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    )
}

impl BenchResult {
    /// The page: all cases in a table, their distributions, where the time goes, and each case by itself.
    ///
    /// # Errors
    /// What the drawing library says.
    pub fn html(&self) -> Result<String, ChartError> {
        let mut out = begun(&self.name, "benchmark");
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "<p>{}. {}, {:.0} s, commit <code>{}</code>, {} build.{}{}</p>",
            escaped(&self.machine.words()),
            escaped(&self.began),
            self.seconds,
            escaped(&self.commit),
            escaped(&self.build),
            if self.interrupted {
                " <span class=\"bad\">Interrupted: not all was measured.</span>"
            } else {
                ""
            },
            if self.build == "release" {
                ""
            } else {
                " <span class=\"bad\">Not optimised: these are not the program's figures.</span>"
            },
        );
        self.overview(&mut out);
        let numbered: Vec<(usize, &CaseResult)> = self
            .cases
            .iter()
            .enumerate()
            .map(|(i, case)| (i + 1, case))
            .filter(|(_, case)| case.measured())
            .collect();
        self.pictures(&mut out, &numbered)?;
        for (number, case) in &numbered {
            details(&mut out, *number, case)?;
        }
        self.end(&mut out);
        Ok(out)
    }

    fn overview(&self, out: &mut String) {
        out.push_str(
            "<h2>Cases</h2>\n<div class=\"scroll\"><table>\n<tr><th></th><th class=\"left\">Case</th><th>p50</th><th>p90</th><th>p95</th>\
             <th>p99</th><th>p99.9</th><th>max, ms</th><th>glass p50 / p99</th><th>age p95</th><th>frames/s</th><th>masks/s</th><th>sent</th>\
             <th>lost</th><th>cores</th><th>others'</th><th>GPU</th><th>peak, MB</th></tr>\n",
        );
        for (i, case) in self.cases.iter().enumerate() {
            let _ = write!(out, "<tr><td>{}</td><td class=\"left\">{}</td>", i + 1, escaped(&case.case.name));
            let Some(p) = case.metrics.get(Metric::EndToEnd.name()) else {
                let reason = case.reason.as_deref().map_or_else(String::new, |r| format!(": {}", escaped(r)));
                let _ = writeln!(
                    out,
                    "<td class=\"left bad\" colspan=\"16\">{}{reason}</td></tr>",
                    case.status.name()
                );
                continue;
            };
            for value in [p.p50, p.p90, p.p95, p.p99, p.p999, p.max] {
                let _ = write!(out, "<td>{value:.2}</td>");
            }
            let pair = |m: Metric| case.metrics.get(m.name()).map(|p| format!("{:.1} / {:.1}", p.p50, p.p99));
            let count = |name: &str| case.counted.get(name).copied().unwrap_or(0);
            let age = case.metrics.get(Metric::MaskAge.name()).map(|p| format!("{:.0}", p.p95));
            let used = &case.used;
            let cells = [
                pair(Metric::GlassToGlass).unwrap_or_default(),
                age.unwrap_or_default(),
                format!("{:.2}", case.per_second),
                format!("{:.2}", case.segmented_per_second),
                count("sent").to_string(),
                count("lost").to_string(),
                used.cpu_cores.map_or_else(String::new, |c| format!("{c:.2}")),
                used.others_cpu_cores.map_or_else(String::new, |c| format!("{c:.2}")),
                used.gpu.map_or_else(String::new, |g| format!("{:.0} %", g.busy_mean * 100.0)),
                used.peak_rss_bytes.map_or_else(String::new, |b| format!("{:.0}", b as f64 / 1e6)),
            ];
            for cell in cells {
                let _ = write!(out, "<td>{cell}</td>");
            }
            out.push_str("</tr>\n");
            if let Some(reason) = &case.reason {
                let _ = writeln!(
                    out,
                    "<tr><td></td><td class=\"left bad\" colspan=\"17\">{}: {}</td></tr>",
                    case.status.name(),
                    escaped(reason)
                );
            }
        }
        out.push_str(
            "</table></div>\n<p class=\"faint\">Without a word: end to end, of the frames that count. Open loop: from the moment at which a frame was \
             due to the sink. Closed loop: one call of the model. Others': cores that \
             other processes of the machine used meanwhile. Empty: not there in this loop or on this machine.</p>\n",
        );
    }

    fn pictures(&self, out: &mut String, numbered: &[(usize, &CaseResult)]) -> Result<(), ChartError> {
        let of = |open: bool| -> Vec<(usize, &CaseResult)> {
            numbered.iter().copied().filter(|(_, case)| (case.case.drive != Drive::Closed) == open).collect()
        };
        out.push_str("<h2>Latency</h2>\n");
        let groups = [
            ("Closed loop: one call of the model", Metric::EndToEnd, false),
            ("Open loop: end to end", Metric::EndToEnd, true),
            ("Open loop: glass to glass", Metric::GlassToGlass, true),
            ("Open loop: from due to masks", Metric::MaskReady, true),
        ];
        for (title, metric, open) in groups {
            for picture in distributions(title, &metric, &of(open))? {
                out.push_str(&picture);
            }
        }
        out.push_str(
            "<h2>Where the time goes</h2>\n<p class=\"faint\">Mean of each stage over the frames that passed it. Where the model takes only some \
             of the frames, a frame that it takes waits and is worked on while others are drawn and pushed.</p>\n",
        );
        if !numbered.is_empty() {
            out.push_str(&stage_bars(numbered));
        }
        out.push_str(
            "<h2>Each case</h2>\n<p class=\"faint\">Timelines show the beginning of what counts: red marks are frames that were due and never \
             shown, green ones were shown with masks. Stages of a call are laid end to end, in the order in which it passes them.</p>\n",
        );
        Ok(())
    }

    fn end(&self, out: &mut String) {
        out.push_str("<h2>How the figures are formed</h2>\n<ul>\n");
        for rule in &self.rules {
            let _ = writeln!(out, "<li>{}</li>", escaped(rule));
        }
        out.push_str("</ul>\n<h2>Machine and program</h2>\n<div class=\"scroll\"><table>\n");
        let m = &self.machine;
        let mut facts = vec![
            ("processor".to_owned(), m.processor()),
            ("libtorch's threads".into(), m.threads.map_or_else(|| "unknown".into(), |n| n.to_string())),
            (
                "memory".into(),
                m.memory_bytes.map_or_else(|| "unknown".into(), |b| format!("{:.1} GB", b as f64 / 1e9)),
            ),
            ("kernel".into(), m.kernel.clone()),
            ("load before".into(), m.load.clone()),
            ("commit".into(), self.commit.clone()),
            ("program, SHA-256".into(), self.program_sha256.clone().unwrap_or_else(|| "unknown".into())),
        ];
        facts.extend(
            m.gpus
                .iter()
                .map(|g| ("GPU".to_owned(), format!("{}, {}, driver {}", g.name, g.memory, g.driver))),
        );
        facts.extend(self.versions.iter().map(|(name, version)| (name.clone(), version.clone())));
        for (name, value) in facts {
            let _ = writeln!(
                out,
                "<tr><td>{}</td><td class=\"left\"><code>{}</code></td></tr>",
                escaped(&name),
                escaped(&value)
            );
        }
        let _ = writeln!(
            out,
            "</table></div>\n<h2>Configuration</h2>\n<pre>{}</pre>\n</body></html>",
            escaped(&self.config)
        );
    }
}

fn details(out: &mut String, number: usize, case: &CaseResult) -> Result<(), ChartError> {
    let _ = writeln!(out, "<h3>{number} {}</h3>", escaped(&case.case.name));
    let known = |key: &str| case.model.as_ref().and_then(|m| m.get(key)).map(ToString::to_string);
    let counts: Vec<String> =
        case.frames.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{name} {n}")).collect();
    let counted: Vec<String> = case.counted.iter().map(|(name, n)| format!("{name} {n}")).collect();
    let _ = writeln!(
        out,
        "<p class=\"faint\">{} on {}{}, input {} px. {}. All frames: {}. Those that count: {}.</p>",
        escaped(&known("family").unwrap_or_default().replace('"', "")),
        escaped(case.device.as_deref().unwrap_or("?")),
        case.used.threads.map_or_else(String::new, |n| format!(", {n} threads")),
        known("input_size").unwrap_or_default(),
        escaped(&case.source),
        counts.join(", "),
        counted.join(", "),
    );
    out.push_str("<div class=\"scroll\"><table>\n<tr><th>ms</th><th>frames</th>");
    for (name, _) in LatencySummary::default().all() {
        let _ = write!(out, "<th>{name}</th>");
    }
    out.push_str("</tr>\n");
    for metric in Metric::all() {
        let Some(p) = case.metrics.get(metric.name()) else { continue };
        let _ = write!(out, "<tr><td>{}</td><td>{}</td>", metric.name(), p.count);
        for (_, value) in p.all() {
            let _ = write!(out, "<td>{value:.3}</td>");
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></div>\n");
    out.extend(ways(case)?);
    out.extend(timeline(case));
    Ok(())
}
