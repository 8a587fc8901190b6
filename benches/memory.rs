//! What the memory costs, and that it costs no more after hours.
//!
//! `cargo bench --bench memory`: milliseconds a frame of SAM 2.1 tiny on the phantom, per stage, for each dial of `[memory]`.
//! `cargo bench --bench memory -- FRAMES SVG`: time and resident memory over that many frames, as a picture.
//! The weights are made by a rule: times are those of any weights, masks mean nothing.

use std::path::Path;
use std::time::Instant;

use sonomask::chart::{Chart, Panel, Series};
use sonomask::frame::{ImageView, PixelFormat, Plane, YuvColor};
use sonomask::phantom::{Phantom, PhantomConfig};
use sonomask::segment::memory::{BankLimits, MemorySettings};
use sonomask::segment::{DeviceChoice, Guidance, ModelSpec, Prompt, Segmenter, generate, load};
use sonomask::stage::{Stage, StageTimes};
use sonomask::weights::Family;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const FAMILY: Family = Family::Sam21HieraTiny;
/// Side of the pictures.
const SIDE: usize = 256;
/// Pictures that are shown in turn, there and back, so that none is a cut.
const PICTURES: u64 = 120;
/// Side of the network's input where frames count and not their time.
const ENDLESS_SIDE: usize = 64;
/// Frames that fill the bank before times count, and frames that count.
const WARM: usize = 18;
const COUNTED: usize = 9;

/// The network whose weights are in `weights`, with a memory.
fn model(weights: &Path, side: usize, settings: MemorySettings) -> Result<Box<dyn Segmenter>> {
    let spec = ModelSpec { input_size: Some(side), memory: Some(settings), ..ModelSpec::new(weights) };
    Ok(load(&spec, &DeviceChoice::Auto.resolve()?)?)
}

fn pictures() -> Result<Vec<Vec<u8>>> {
    let config = PhantomConfig { width: SIDE, height: SIDE, ..PhantomConfig::default() };
    let mut phantom = Phantom::new(config)?;
    let there: Vec<_> = (0..PICTURES).map(|i| phantom.image(i)).collect();
    let back: Vec<_> = there.iter().rev().cloned().collect();
    Ok([there, back].concat())
}

/// Boxes of as many objects, side by side.
fn boxes(objects: usize) -> Guidance {
    let width = SIDE as f32 / objects as f32;
    let of = |class: usize| {
        let left = class as f32 * width;
        let bbox = Some([left + 0.2 * width, 0.3 * SIDE as f32, left + 0.8 * width, 0.7 * SIDE as f32]);
        Prompt { class, bbox, ..Prompt::default() }
    };
    Guidance::manual((0..objects).map(of).collect())
}

fn step(model: &mut dyn Segmenter, picture: &[u8], guidance: &Guidance) -> Result<StageTimes> {
    let plane = Plane { data: picture, stride: SIDE };
    let view = ImageView::new(PixelFormat::Gray8, SIDE, SIDE, YuvColor::default(), vec![plane])?;
    let mut times = StageTimes::default();
    model.segment(&view, guidance, false, &mut times)?;
    Ok(times)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn dials(weights: &Path, pictures: &[Vec<u8>]) -> Result<()> {
    let limits = |limits: BankLimits| MemorySettings { limits, ..MemorySettings::sam2() };
    let sam2 = BankLimits::SAM2;
    let rows: [(&str, usize, usize, MemorySettings); 14] = [
        ("as SAM 2", 512, 1, MemorySettings::sam2()),
        ("recent = 3", 512, 1, limits(BankLimits { recent: 3, ..sam2 })),
        ("recent = 1", 512, 1, limits(BankLimits { recent: 1, ..sam2 })),
        ("recent = 0", 512, 1, limits(BankLimits { recent: 0, ..sam2 })),
        ("stride = 3", 512, 1, limits(BankLimits { stride: 3, ..sam2 })),
        ("pointers = 1", 512, 1, limits(BankLimits { pointers: 1, ..sam2 })),
        ("write_every = 3", 512, 1, MemorySettings { write_every: 3, ..MemorySettings::sam2() }),
        ("two objects", 512, 2, MemorySettings::sam2()),
        ("three objects", 512, 3, MemorySettings::sam2()),
        ("input_size = 1024", 1024, 1, MemorySettings::sam2()),
        ("input_size = 384", 384, 1, MemorySettings::sam2()),
        ("input_size = 256", 256, 1, MemorySettings::sam2()),
        ("input_size = 128", 128, 1, MemorySettings::sam2()),
        ("as SAM 2, again", 512, 1, MemorySettings::sam2()),
    ];
    println!("| | input | encode | memory attention | decode | memory encoder | all | bank frames |");
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for (name, side, objects, settings) in rows {
        let mut model = model(weights, side, settings)?;
        let guidance = boxes(objects);
        let mut times = Vec::new();
        for picture in pictures.iter().take(WARM + COUNTED) {
            let start = Instant::now();
            let of = step(&mut *model, picture, &guidance)?;
            times.push((of, start.elapsed().as_secs_f64() * 1e3));
        }
        let counted = times.split_off(WARM);
        // Of stages that not every frame meets the mean counts.
        let mean = |stage: Stage| {
            let sum: u64 = counted.iter().filter_map(|(t, _)| t.get(stage)).sum();
            sum as f64 / 1e6 / COUNTED as f64
        };
        let all = median(counted.iter().map(|(_, ms)| *ms).collect());
        println!(
            "| {name} | {side} | {:.1} | {:.1} | {:.1} | {:.1} | {all:.1} | {} |",
            mean(Stage::Encode),
            mean(Stage::MemoryAttention),
            mean(Stage::Decode),
            mean(Stage::MemoryEncoder),
            model.memory().map_or(0, |counts| counts.bank_frames),
        );
    }
    Ok(())
}

/// Resident memory in MB, from the kernel.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}

fn endless(weights: &Path, frames: usize, svg: &str, pictures: &[Vec<u8>]) -> Result<()> {
    // Of steps as small as these a second thread makes nothing faster.
    tch::set_num_threads(1);
    let mut model = model(weights, ENDLESS_SIDE, MemorySettings::sam2())?;
    let guidance = boxes(2);
    let window = (frames / 100).max(1);
    let (mut ms, mut mb, mut bank) = (Vec::new(), Vec::new(), Vec::new());
    let mut recent = Vec::with_capacity(window);
    for (i, picture) in pictures.iter().cycle().take(frames).enumerate() {
        let start = Instant::now();
        step(&mut *model, picture, &guidance)?;
        recent.push(start.elapsed().as_secs_f64() * 1e3);
        if recent.len() == window {
            let at = (i + 1) as f64;
            ms.push((at, median(std::mem::take(&mut recent))));
            mb.push((at, resident().ok_or("no /proc/self/status")?));
            let frames = model.memory().map_or(0, |counts| counts.bank_frames);
            bank.push((at, frames as f64));
        }
    }
    let tenth = ms.len() / 10;
    let over = |points: &[(f64, f64)]| median(points.iter().map(|p| p.1).collect());
    for (what, points) in [("ms a frame", &ms), ("MB resident", &mb), ("frames in the bank", &bank)] {
        let (first, last) = (over(&points[tenth..2 * tenth]), over(&points[points.len() - tenth..]));
        println!("{what}: {first:.2} in the second tenth, {last:.2} in the last");
    }
    let panel = |y_label: &str, points: Vec<(f64, f64)>| {
        let highest = points.iter().map(|p| p.1).fold(0.0, f64::max);
        Panel {
            x_label: "frame".into(),
            y_label: y_label.into(),
            y_range: Some((0.0, 1.25 * highest)),
            series: vec![Series { name: y_label.into(), points, ..Series::default() }],
            ..Panel::default()
        }
    };
    let panels = vec![panel("ms a frame", ms), panel("MB resident", mb), panel("frames in the bank", bank)];
    let title = format!("{frames} frames, two objects, {FAMILY} at {ENDLESS_SIDE} pixels");
    std::fs::write(svg, Chart { title, panels }.svg(900, 700)?)?;
    println!("written: {svg}");
    Ok(())
}

fn main() -> Result<()> {
    sonomask::begin::with_settings();
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    tch::set_num_threads(2);
    let pictures = pictures()?;
    let folder = tempfile::tempdir()?;
    let weights = folder.path().join("sam2.safetensors");
    generate(FAMILY, /* seed */ 0, None, &weights)?;
    match &args[..] {
        [] => dials(&weights, &pictures),
        [frames, svg] => endless(&weights, frames.parse()?, svg, &pictures),
        _ => Err("expected nothing, or FRAMES SVG".into()),
    }
}
