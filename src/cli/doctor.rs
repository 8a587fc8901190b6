//! `sonomask doctor`: what is here, what is missing, and the command that installs it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Result;
use gstreamer as gst;
use gstreamer::prelude::*;

use super::{Exit, print, print_json};
use crate::media::launch::{has_element, package_of};
use crate::media::template::{Kind, Template, alternatives, template_dirs};
use crate::segment::DeviceChoice;
use crate::telemetry::{libtorch_dir, versions};
use crate::weights::{Checkpoint, Family, Source as _, own_weights_dirs, published, sha256};

/// Print what was found: GStreamer and the plugins of each pipeline, libtorch, devices, weights, capture devices.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Weights to check; by default everything in the folders in which weights are searched
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
    /// Where presets and defaults look for weights, best first.
    weights_dirs: Vec<PathBuf>,
    capture_devices: Vec<String>,
    install: Vec<String>,
}

#[derive(serde::Serialize)]
struct Pipeline {
    name: String,
    origin: String,
    summary: String,
    /// What it cannot do without.
    missing: Vec<Missing>,
    /// What only other values of a parameter need.
    missing_by_choice: Vec<Missing>,
    error: Option<String>,
}

#[derive(serde::Serialize)]
struct Missing {
    element: String,
    package: Option<&'static str>,
    /// The setting that needs it, if not every one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    setting: Option<String>,
}

impl Missing {
    /// `element` unless GStreamer has it, or another one that will do.
    fn unless_here(element: String, setting: Option<String>) -> Option<Self> {
        let missing = !alternatives(&element).any(has_element);
        let package = alternatives(&element).find_map(package_of);
        missing.then_some(Self { package, element, setting })
    }
}

#[derive(serde::Serialize)]
struct Weights {
    path: PathBuf,
    sha256: Option<String>,
    /// Family name, with what is known of the file.
    verdict: String,
    /// It is a network.
    usable: bool,
    /// It is a predictor, to be laid over a network.
    predictor: bool,
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
                    missing: t.elements().into_iter().filter_map(|e| Missing::unless_here(e, None)).collect(),
                    missing_by_choice: t
                        .elements_by_choice()
                        .into_iter()
                        .filter_map(|(e, setting)| Missing::unless_here(e, Some(setting)))
                        .collect(),
                    error: None,
                },
                Err(e) => Pipeline {
                    name: format!("{word}-?"),
                    origin: String::new(),
                    summary: String::new(),
                    missing: Vec::new(),
                    missing_by_choice: Vec::new(),
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
    let weights_dirs = own_weights_dirs();
    let weights = weights(&args.weights, &weights_dirs);
    if !weights.iter().any(|w| w.usable) {
        install.push("make setup    (in a checkout: fetches LiteMedSAM's weights; elsewhere: sonomask weights download lite-medsam)".into());
    }
    Findings {
        schema: 1,
        versions: versions(),
        libtorch_dir: libtorch_dir(),
        device: DeviceChoice::Auto.resolve().map_or_else(|e| e.to_string(), |d| d.line),
        cpu_threads: tch::get_num_threads() as usize,
        pipelines,
        weights,
        weights_dirs,
        capture_devices: capture_devices(),
        install,
    }
}

fn weights(asked: &[PathBuf], dirs: &[PathBuf]) -> Vec<Weights> {
    if !asked.is_empty() {
        return asked.iter().cloned().map(check).collect();
    }
    let known = ["pth", "pt", "ckpt", "safetensors"];
    let mut files = Vec::new();
    // Two of the folders may be one, and a file of a better one hides its namesakes.
    let mut names = BTreeSet::new();
    for dir in dirs {
        let listed = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
        let fits = |p: &PathBuf| p.extension().is_some_and(|e| known.iter().any(|k| e == *k)) && p.is_file();
        let mut here: Vec<PathBuf> =
            listed.filter(fits).filter(|p| names.insert(p.file_name().map(ToOwned::to_owned))).collect();
        here.sort();
        files.append(&mut here);
    }
    files.into_iter().map(check).collect()
}

fn check(path: PathBuf) -> Weights {
    let sum = sha256(&path).ok();
    let opened = Checkpoint::open(&path).map_err(|e| e.to_string());
    let learned = opened.as_ref().is_ok_and(|c| c.names().iter().any(|name| name.starts_with("ppn.")));
    let family = opened.and_then(|c| Family::recognise(&c).map_err(|e| e.to_string()));
    let (verdict, usable) = match family {
        Err(_) if learned => ("a prompt predictor, for `model.ppn`".to_owned(), false),
        Ok(family) => {
            let origin = sum.as_deref().and_then(published).map_or_else(
                || "not a published file (your own?)".to_owned(),
                |file| format!("the published {file}"),
            );
            (format!("{family}, {origin}"), true)
        }
        Err(e) => (e, false),
    };
    Weights { path, sha256: sum, verdict, usable, predictor: learned && !usable }
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

fn needed(m: &Missing) -> String {
    format!("{} (package {})", m.element, m.package.unwrap_or("unknown"))
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
                let names: Vec<String> = p.missing.iter().map(needed).collect();
                print(&format!("  MISSING  {:18} {}", p.name, names.join(", ")));
            }
        }
        for m in &p.missing_by_choice {
            let setting = m.setting.as_deref().unwrap_or_default();
            print(&format!("           {:18} {setting} is not to be had: it needs {}", "", needed(m)));
        }
    }
    print("\nweights");
    if found.weights.is_empty() {
        let dirs: Vec<String> = found.weights_dirs.iter().map(|d| d.display().to_string()).collect();
        print(&format!("  none in {}", dirs.join(", ")));
    }
    for w in &found.weights {
        print(&format!(
            "  {}  {}  {}",
            if w.usable || w.predictor { "ok      " } else { "UNUSABLE" },
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
