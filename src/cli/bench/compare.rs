//! `sonomask bench compare`: two results side by side.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::bench::{BenchResult, compare};
use crate::cli::{Exit, print, print_json, usage};
use crate::whole;

/// Compare two results: ratios of B to A for each case that both have, with 95 % intervals.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// First result.json
    #[arg(value_name = "A.json")]
    a: PathBuf,
    /// Second result.json
    #[arg(value_name = "B.json")]
    b: PathBuf,
    /// Compare the case of A with that name with the case of B with that name, instead of cases of equal names; may be repeated
    #[arg(long, num_args = 2, value_names = ["A_CASE", "B_CASE"])]
    pair: Vec<String>,
    /// Print every stage, also where nothing differs
    #[arg(long)]
    all: bool,
    /// Write a page with intervals and distributions, too
    #[arg(long, value_name = "FILE.html")]
    page: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Exit> {
    let (a, b) = match (BenchResult::read(&args.a), BenchResult::read(&args.b)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(e), _) | (_, Err(e)) => return usage(&e.to_string()),
    };
    let same = |file: &PathBuf| args.page.as_ref().is_some_and(|page| page == file);
    if same(&args.a) || same(&args.b) {
        return usage("--page would replace one of the two results");
    }
    let pairs: Vec<(String, String)> =
        args.pair.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    for (result, name) in pairs.iter().flat_map(|(left, right)| [(&a, left), (&b, right)]) {
        if result.measured(name).is_none() {
            return usage(&format!("there is no measured case of this name: {name}"));
        }
    }
    let comparison = compare(&a, &b, &pairs);
    if comparison.cases.is_empty() {
        return usage("the two have no measured case in common; --pair compares cases of different names");
    }
    if let Some(page) = &args.page {
        let html = comparison.html(&a, &b)?;
        whole::write(page, html.as_bytes()).with_context(|| format!("{}", page.display()))?;
    }
    if args.json {
        print_json(&comparison)?;
    } else {
        print(comparison.table(args.all).trim_end());
    }
    Ok(Exit::Fine)
}
