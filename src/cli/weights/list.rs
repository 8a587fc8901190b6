//! `sonomask weights list`.

use std::path::PathBuf;

use anyhow::Result;

use super::{FOLDER, megabytes};
use crate::cli::{Exit, print, print_json};
use crate::weights::Published;

/// List every published checkpoint that is known: family, file, size, sha256, licence, address, and whether it is here
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder to look in
    #[arg(long, value_name = "DIR", default_value = FOLDER)]
    dir: PathBuf,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Row {
    #[serde(flatten)]
    published: Published,
    /// A file of that name and size is in the folder; `verify` tells whether it is the one.
    present: bool,
}

pub fn run(args: &Args) -> Result<Exit> {
    let present = |p: &Published| args.dir.join(p.file).metadata().is_ok_and(|m| m.len() == p.bytes);
    let rows: Vec<Row> = Published::ALL.iter().map(|p| Row { published: *p, present: present(p) }).collect();
    if args.json {
        print_json(&serde_json::json!({"schema": 1, "folder": args.dir, "published": rows}))?;
        return Ok(Exit::Fine);
    }
    for Row { published: p, present } in &rows {
        let here = if *present { "here" } else { "-" };
        print(&format!("{:<24} {:>10}  {here:<4}  {}", p.name, megabytes(p.bytes), p.file));
        print(&format!("    family {}, licence {}", p.family, p.licence));
        print(&format!("    sha256 {}", p.sha256));
        print(&format!("    {}", p.address));
    }
    Ok(Exit::Fine)
}
