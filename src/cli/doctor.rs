//! `sonomask doctor`: what is here, what is missing, and the command that installs it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use gstreamer as gst;
use gstreamer::prelude::*;

use super::{DEFAULT_WEIGHTS, Exit, print, print_json};
use crate::media::launch::{has_element, package_of};
use crate::media::template::{Kind, Template, template_dirs};
use crate::segment::DeviceChoice;
use crate::telemetry::{libtorch_dir, versions};
use crate::weights::{Checkpoint, Family, published, sha256};

/// Print what was found: GStreamer and the plugins of each pipeline, libtorch, devices, weights, capture devices.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Weights to check; by default everything in `weights/`
    #[arg(long, value_name = "FILE")]
    weights: Vec<PathBuf>,
}

#[derive(serde::Serialize)]
struct Findings {
    schema: u32,
    versions: std::collections::BTreeMap<&'static str, String>,
    libtorch_dir: Option<PathBuf>,
    device: String,
    cpu_threads: usize,
    pipelines: Vec<Pipeline>,
    weights: Vec<Weights>,
    capture_devices: Vec<String>,
    install: Vec<String>,
}

#[derive(serde::Serialize)]
struct Pipeline {
    name: String,
    origin: String,
    summary: String,
    missing: Vec<Missing>,
    error: Option<String>,
}

#[derive(serde::Serialize)]
struct Missing {
    element: String,
    package: Option<&'static str>,
}

#[derive(serde::Serialize)]
struct Weights {
    path: PathBuf,
    sha256: Option<String>,
    /// Family name, with what is known of the file.
    verdict: String,
    usable: bool,
}

pub fn run(args: &Args) -> Result<Exit> {
    crate::media::init()?;
    let found = look(args);
    // Without the elements of these nothing works at all; the others are a matter of what one wants to do.
    let essential = ["source-file", "source-test", "sink-null", "sink-record-mp4"];
    let broken = found
        .pipelines
        .iter()
        .any(|p| essential.contains(&p.name.as_str()) && (p.error.is_some() || !p.missing.is_empty()));
    let no_weights = !found.weights.iter().any(|w| w.usable);
    if args.json {
        print_json(&found)?;
    } else {
        show(&found);
    }
    Ok(if broken || no_weights { Exit::Failed } else { Exit::Fine })
}

fn look(args: &Args) -> Findings {
    let dirs = template_dirs(None, |name| std::env::var(name).ok());
    let mut pipelines = Vec::new();
    for (kind, word) in [(Kind::Source, "source"), (Kind::Sink, "sink")] {
        for template in Template::all(kind, &dirs) {
            pipelines.push(match template {
                Ok(t) => Pipeline {
                    name: format!("{word}-{}", t.name()),
                    origin: t.origin().to_owned(),
                    summary: t.doc().lines().next().unwrap_or_default().to_owned(),
                    missing: missing(&t),
                    error: None,
                },
                Err(e) => Pipeline {
                    name: format!("{word}-?"),
                    origin: String::new(),
                    summary: String::new(),
                    missing: Vec::new(),
                    error: Some(e.to_string()),
                },
            });
        }
    }
    let packages: BTreeSet<&str> =
        pipelines.iter().flat_map(|p| &p.missing).filter_map(|m| m.package).collect();
    let mut install = Vec::new();
    if !packages.is_empty() {
        let packages: Vec<&str> = packages.into_iter().collect();
        install.push(format!("sudo apt-get install {}", packages.join(" ")));
    }
    let weights = weights(&args.weights);
    if !weights.iter().any(|w| w.usable) {
        install.push("make setup".into());
    }
    Findings {
        schema: 1,
        versions: versions(),
        libtorch_dir: libtorch_dir(),
        device: DeviceChoice::Auto.resolve().map_or_else(|e| e.to_string(), |d| d.line),
        cpu_threads: tch::get_num_threads() as usize,
        pipelines,
        weights,
        capture_devices: capture_devices(),
        install,
    }
}

fn missing(template: &Template) -> Vec<Missing> {
    let absent = template.elements().into_iter().filter(|e| !has_element(e));
    absent.map(|element| Missing { package: package_of(&element), element }).collect()
}

fn weights(asked: &[PathBuf]) -> Vec<Weights> {
    let mut files = asked.to_vec();
    if files.is_empty() {
        let dir = Path::new(DEFAULT_WEIGHTS).parent().unwrap_or(Path::new("."));
        let listed = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
        let known = ["pth", "pt", "ckpt", "safetensors"];
        files = listed.filter(|p| p.extension().is_some_and(|e| known.iter().any(|k| e == *k))).collect();
        files.sort();
    }
    files.into_iter().map(check).collect()
}

fn check(path: PathBuf) -> Weights {
    let sum = sha256(&path).ok();
    let family = Checkpoint::open(&path)
        .map_err(|e| e.to_string())
        .and_then(|c| Family::recognise(&c).map_err(|e| e.to_string()));
    let (verdict, usable) = match family {
        Ok(family) => {
            let origin = sum.as_deref().and_then(published).map_or_else(
                || "not a published file (your own?)".to_owned(),
                |file| format!("the published {file}"),
            );
            (format!("{family}, {origin}"), true)
        }
        Err(e) => (e, false),
    };
    Weights { path, sha256: sum, verdict, usable }
}

fn capture_devices() -> Vec<String> {
    let monitor = gst::DeviceMonitor::new();
    monitor.add_filter(Some("Video/Source"), None);
    if monitor.start().is_err() {
        return Vec::new();
    }
    let found = monitor
        .devices()
        .iter()
        .map(|d| {
            let path = d.properties().and_then(|p| {
                ["api.v4l2.path", "device.path", "object.path"]
                    .into_iter()
                    .find_map(|k| p.get::<String>(k).ok())
            });
            format!("{}{}", d.display_name(), path.map_or_else(String::new, |p| format!(" ({p})")))
        })
        .collect();
    monitor.stop();
    found
}

fn show(found: &Findings) {
    for (name, version) in &found.versions {
        print(&format!("{name:12} {version}"));
    }
    let dir = found.libtorch_dir.as_ref().map_or_else(|| "unknown".into(), |d| d.display().to_string());
    print(&format!("libtorch in  {dir}"));
    print(&format!("device       {}, {} CPU threads", found.device, found.cpu_threads));
    print("\npipelines");
    for p in &found.pipelines {
        match (&p.error, p.missing.is_empty()) {
            (Some(e), _) => print(&format!("  BAD      {}: {e}", p.name)),
            (None, true) => print(&format!("  ok       {:18} {}", p.name, p.summary)),
            (None, false) => {
                let names: Vec<String> = p
                    .missing
                    .iter()
                    .map(|m| format!("{} (package {})", m.element, m.package.unwrap_or("unknown")))
                    .collect();
                print(&format!("  MISSING  {:18} {}", p.name, names.join(", ")));
            }
        }
    }
    print("\nweights");
    if found.weights.is_empty() {
        print("  none in weights/");
    }
    for w in &found.weights {
        print(&format!(
            "  {}  {}  {}",
            if w.usable { "ok      " } else { "UNUSABLE" },
            w.path.display(),
            w.verdict
        ));
        print(&format!("            sha256 {}", w.sha256.as_deref().unwrap_or("cannot be read")));
    }
    print("\ncapture devices");
    if found.capture_devices.is_empty() {
        print("  none");
    }
    for d in &found.capture_devices {
        print(&format!("  {d}"));
    }
    if !found.install.is_empty() {
        print("\nto install what is missing");
        for line in &found.install {
            print(&format!("  {line}"));
        }
    }
}
