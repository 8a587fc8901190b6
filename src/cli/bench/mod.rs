//! `sonomask bench`: what the system costs and how late it is, over a matrix of configurations.

mod bars;
mod case;
mod compare;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Subcommand;

use self::bars::Bars;
use super::{Exit, print, print_json, say, signal, usage, write_all};
use crate::bench::{BenchResult, CaseResult, CaseSpec, CaseStatus, Metric, Runner, chrome_trace};
use crate::config::BenchConfig;
use crate::whole;

/// The result that everything else is made from.
const RESULT: &str = "result.json";

/// Cores of others from which figures are not to be trusted.
const BUSY: f64 = 0.2;

/// Measure latency and throughput over a matrix of models, sizes, precisions, devices and source rates.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file; configs/bench.toml in a checkout explains every key
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    /// Folder for result.json, cases.csv, metrics.csv, frames.csv and report.html
    #[arg(long, value_name = "DIR", default_value = "bench")]
    out: PathBuf,
    /// Only cases whose names contain this text; may be repeated
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Write every frame's way as a trace for chrome://tracing or Perfetto
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print the names of the cases, and end
    #[arg(long)]
    list: bool,
    /// Print the result, without single frames, as JSON
    #[arg(long)]
    json: bool,
    /// Replace a result that is there
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compare(compare::Args),
    /// One case, from stdin to stdout
    #[command(hide = true)]
    Case,
}

pub fn run(args: &Args) -> Result<Exit> {
    match &args.command {
        Some(Command::Compare(args)) => return compare::run(args),
        Some(Command::Case) => return case::run(),
        None => {}
    }
    let Some(file) = &args.config else { return usage("--config FILE is missing") };
    let config = match BenchConfig::read(file) {
        Ok(config) => config,
        Err(e) => return usage(&format!("{}:\n  {e}", file.display())),
    };
    let mut cases = config.matrix.cases();
    cases.retain(|case| args.only.is_empty() || args.only.iter().any(|text| case.name.contains(text)));
    if cases.is_empty() {
        return usage("no case has such a name; --list prints them");
    }
    if args.list {
        cases.iter().for_each(|case| print(&case.name));
        return Ok(Exit::Fine);
    }
    let target = args.out.join(RESULT);
    if target.exists() && !args.overwrite {
        return usage(&format!("there is a result already; --overwrite replaces it: {}", target.display()));
    }
    // A folder that cannot be written to is to be known before minutes of work.
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the folder: {}", args.out.display()))?;
    crate::media::init()?;
    // Signals are heard by the control plane's threads.
    let _runtime = super::runtime()?;
    let mut runner = Runner::new(Duration::from_secs_f64(config.matrix.timeout))?;
    let mut result = BenchResult::begin(&config.matrix, config.portable());
    measure(&mut runner, &cases, &mut result, &target)?;
    write(&args.out, &result)?;
    if let Some(trace) = &args.trace {
        let text = serde_json::to_string(&chrome_trace(&result))?;
        whole::write(trace, text.as_bytes()).with_context(|| format!("cannot write: {}", trace.display()))?;
    }
    report(args, &result)
}

/// Runs the cases one after the other. What was measured is on the disk after each.
fn measure(runner: &mut Runner, cases: &[CaseSpec], result: &mut BenchResult, target: &Path) -> Result<()> {
    let begun = Instant::now();
    let mut bars = Bars::new(cases);
    for case in cases {
        if signal::stopped() {
            result.interrupted = true;
            result.cases.push(CaseResult::without(case, CaseStatus::NotRun, None));
            continue;
        }
        bars.begin(case);
        let found = runner.run(case, &mut |sent| bars.sent(sent), &signal::stopped);
        result.interrupted |= found.status == CaseStatus::Partial || signal::stopped();
        bars.end(case, &found);
        result.cases.push(found);
        result.seconds = begun.elapsed().as_secs_f64();
        result.write(target)?;
    }
    result.write(target)?;
    Ok(())
}

/// Writes tables and page.
fn write(dir: &Path, result: &BenchResult) -> Result<()> {
    let texts = [
        ("cases.csv", result.cases_csv()),
        ("metrics.csv", result.metrics_csv()),
        ("frames.csv", result.frames_csv()),
        ("report.html", result.html()?),
    ];
    write_all(dir, &texts)
}

/// What a person sees at the end.
fn report(args: &Args, result: &BenchResult) -> Result<Exit> {
    if args.json {
        let mut short = result.clone();
        short.cases.iter_mut().for_each(|case| case.rows.clear());
        print_json(&short)?;
    } else {
        print(result.table().trim_end());
    }
    say(&format!("written to {}", args.out.display()));
    let failed: Vec<&CaseResult> = result.cases.iter().filter(|c| c.status == CaseStatus::Failed).collect();
    for case in &failed {
        say(&format!("failed: {}: {}", case.case.name, case.reason.as_deref().unwrap_or("no reason given")));
    }
    let others = result.cases.iter().filter_map(|c| c.used.others_cpu_cores).fold(0.0, f64::max);
    if others > BUSY {
        say(&format!(
            "other processes used up to {others:.1} cores meanwhile: latencies are not those of an idle machine"
        ));
    }
    if result.interrupted {
        say("interrupted: the result has what was measured until then");
    }
    Ok(if result.interrupted || !failed.is_empty() { Exit::Failed } else { Exit::Fine })
}

/// One line on a case.
fn line(found: &CaseResult) -> String {
    let p = |m: Metric| found.metrics.get(m.name()).map(|p| format!("p50 {:.1} p99 {:.1} ms", p.p50, p.p99));
    match (found.status, p(Metric::EndToEnd)) {
        (CaseStatus::Failed, _) | (_, None) => {
            found.reason.clone().unwrap_or_else(|| found.status.name().into())
        }
        (_, Some(latency)) => format!("{latency}, {:.1}/s", found.per_second),
    }
}
