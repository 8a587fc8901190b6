//! A result as tables: CSV for programs, plain text for a terminal.

use std::fmt::Write as _;

use super::result::{BenchResult, CaseResult, Metric};
use super::spec::Drive;
use crate::csv::field;
use crate::frame::PixelFormat;
use crate::telemetry::LatencySummary;

/// What every table says of a case.
const CASE: &str = "case,model,family,precision,device,input_size,memory,size,format,loop,rate,stream";

impl BenchResult {
    /// One line a case.
    pub fn cases_csv(&self) -> String {
        let counts = [
            "in",
            "out",
            "dropped",
            "dropped_display",
            "dropped_model",
            "dropped_sink",
            "dropped_stop",
            "not_segmented",
        ];
        let counted = ["sent", "shown", "lost", "segmented", "masked", "unread"];
        let latencies = [Metric::EndToEnd, Metric::GlassToGlass, Metric::MaskReady, Metric::MaskAge];
        let mut out = format!(
            "{CASE},status,reason,seconds,per_second,segmented_per_second,cpu_cores,others_cpu_cores,peak_rss_bytes,gpu_busy,gpu_memory_bytes,threads"
        );
        // Writing to a String cannot fail.
        for name in counts {
            let _ = write!(out, ",frames_{name}");
        }
        for name in counted {
            let _ = write!(out, ",counted_{name}");
        }
        for metric in &latencies {
            for (name, _) in LatencySummary::default().all() {
                let _ = write!(out, ",{}_{name}_ms", metric.name());
            }
        }
        out.push('\n');
        for case in &self.cases {
            let used = &case.used;
            let _ = write!(
                out,
                "{},{},{},{:.4},{:.4},{:.4},{},{},{},{},{},{}",
                case_fields(case),
                case.status.name(),
                field(case.reason.as_deref().unwrap_or("")),
                case.seconds,
                case.per_second,
                case.segmented_per_second,
                cell(used.cpu_cores),
                cell(used.others_cpu_cores),
                used.peak_rss_bytes.map_or_else(String::new, |n| n.to_string()),
                cell(used.gpu.map(|g| g.busy_mean)),
                used.gpu.map_or_else(String::new, |g| g.memory_max_bytes.to_string()),
                used.threads.map_or_else(String::new, |n| n.to_string()),
            );
            for (map, names) in [(&case.frames, &counts[..]), (&case.counted, &counted[..])] {
                for name in names {
                    let _ = write!(out, ",{}", map.get(*name).map_or_else(String::new, u64::to_string));
                }
            }
            for metric in &latencies {
                let found = case.metrics.get(metric.name()).map(|p| p.all());
                for i in 0..7 {
                    let _ = write!(out, ",{}", cell(found.map(|all| all[i].1)));
                }
            }
            out.push('\n');
        }
        out
    }

    /// One line for each metric of each case, milliseconds.
    pub fn metrics_csv(&self) -> String {
        let mut out = format!("{CASE},metric,count,mean,p50,p90,p95,p99,p99.9,max\n");
        for case in &self.cases {
            for metric in Metric::all() {
                let Some(p) = case.metrics.get(metric.name()) else { continue };
                let _ = write!(out, "{},{},{}", case_fields(case), metric.name(), p.count);
                for (_, value) in p.all() {
                    let _ = write!(out, ",{value:.4}");
                }
                out.push('\n');
            }
        }
        out
    }

    /// One line for each metric of each frame, milliseconds.
    pub fn frames_csv(&self) -> String {
        let mut out = String::from("case,frame,counted,due_ms,metric,ms\n");
        for case in &self.cases {
            let name = field(&case.case.name);
            for row in &case.rows {
                for metric in Metric::all() {
                    if let Some(value) = metric.of(row, case.case.drive) {
                        let (counted, due) = (u8::from(row.counted), row.due_ms);
                        let _ = writeln!(
                            out,
                            "{name},{},{counted},{due:.4},{},{value:.4}",
                            row.frame,
                            metric.name()
                        );
                    }
                }
            }
        }
        out
    }

    /// What a person wants to know first.
    pub fn table(&self) -> String {
        let width = self.cases.iter().map(|c| c.case.name.chars().count()).max().unwrap_or(0).max(4);
        let mut out = format!(
            "{:width$} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>6} {:>6} {:>7}\n",
            "case", "p50 ms", "p95 ms", "p99 ms", "max ms", "age p95", "frames/s", "lost", "cores", "MB"
        );
        for case in &self.cases {
            let name = &case.case.name;
            let Some(p) = case.metrics.get(Metric::EndToEnd.name()) else {
                let _ = writeln!(out, "{name:width$} {}", case.status.name());
                continue;
            };
            let number =
                |v: Option<f64>, digits: usize| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"));
            let age = case.metrics.get(Metric::MaskAge.name()).map(|p| p.p95);
            let lost = case.counted.get("lost").map_or_else(|| "-".to_owned(), u64::to_string);
            let mb = case.used.peak_rss_bytes.map(|b| b as f64 / 1e6);
            let _ = writeln!(
                out,
                "{name:width$} {:8.2} {:8.2} {:8.2} {:8.2} {:>8} {:8.2} {lost:>6} {:>6} {:>7}",
                p.p50,
                p.p95,
                p.p99,
                p.max,
                number(age, 1),
                case.per_second,
                number(case.used.cpu_cores, 2),
                number(mb, 0),
            );
        }
        out
    }
}

fn case_fields(result: &CaseResult) -> String {
    let case = &result.case;
    let family = result.model.as_ref().and_then(|m| m.get("family")?.as_str().map(str::to_owned));
    let input = result.model.as_ref().and_then(|m| m.get("input_size")?.as_u64());
    let size = case.size.map_or_else(|| "own".to_owned(), |(w, h)| format!("{w}x{h}"));
    let (pace, rate, stream) = match case.drive {
        Drive::Closed => ("closed", String::new(), ""),
        Drive::Open { rate, stream } => ("open", rate.to_string(), stream.name()),
    };
    [
        field(&case.name).into_owned(),
        field(&case.model.name).into_owned(),
        family.or_else(|| case.model.family.clone()).unwrap_or_default(),
        case.precision.clone(),
        result.device.clone().unwrap_or_else(|| case.device.clone()),
        input.or(case.input_size.map(|n| n as u64)).map_or_else(String::new, |n| n.to_string()),
        case.memory.to_string(),
        size,
        case.format.map_or("own", PixelFormat::name).to_owned(),
        pace.to_owned(),
        rate,
        stream.to_owned(),
    ]
    .join(",")
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(String::new, |v| format!("{v:.4}"))
}
