//! `sonomask weights verify`.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::cli::{Exit, print, print_json, say};
use crate::weights::{Published, sha256};

/// Compare files with the published checksums
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Verdict {
    file: PathBuf,
    sha256: Option<String>,
    /// The published file that it is.
    published: Option<&'static str>,
    /// It has the name of a published file, and is another.
    differs_from: Option<&'static str>,
    error: Option<String>,
}

pub fn run(args: &Args) -> Result<Exit> {
    let verdicts: Vec<Verdict> = args.files.iter().map(|path| verdict(path)).collect();
    if args.json {
        print_json(&serde_json::json!({"schema": 1, "files": verdicts}))?;
    }
    for v in &verdicts {
        let file = v.file.display();
        match v {
            Verdict { error: Some(e), .. } => say(&format!("{e}: {file}")),
            Verdict { published: Some(name), .. } if !args.json => {
                print(&format!("{file}: is the published {name}"));
            }
            Verdict { differs_from: Some(name), sha256: Some(sum), .. } if !args.json => {
                print(&format!("{file}: is NOT the published {name}, sha256 {sum}"));
            }
            Verdict { published: None, sha256: Some(sum), .. } if !args.json => {
                print(&format!("{file}: is no published file, sha256 {sum}"));
            }
            _ => {}
        }
    }
    let all = verdicts.iter().all(|v| v.published.is_some());
    Ok(if all { Exit::Fine } else { Exit::Failed })
}

fn verdict(path: &Path) -> Verdict {
    let (sum, error) = match sha256(path) {
        Ok(sum) => (Some(sum), None),
        Err(e) => (None, Some(format!("cannot read the weights: {e}"))),
    };
    let published = sum.as_deref().and_then(Published::of_sha256).map(|p| p.name);
    let name = path.file_name().and_then(|n| n.to_str());
    let namesake = name.and_then(|n| Published::ALL.iter().find(|p| p.file == n)).map(|p| p.name);
    let differs_from = namesake.filter(|_| published.is_none() && sum.is_some());
    Verdict { file: path.to_owned(), sha256: sum, published, differs_from, error }
}
