//! What reduced precision costs in masks: IoU of bfloat16's masks with those of `f32`, over a folder of real pictures.
//!
//! `cargo bench --bench precision -- FOLDER [WEIGHTS]`: FOLDER has `images/` and, under the same names, `masks/` whose values
//! 1, 2, ... are classes; the box around each class is its prompt. Prints Markdown: mean, ten worst, times.

use std::path::{Path, PathBuf};
use std::time::Instant;

use sonomask::cine::{self, CineFrame};
use sonomask::frame::{ImageView, PixelFormat, Plane, YuvColor};
use sonomask::mask::ClassMask;
use sonomask::segment::{DeviceChoice, Guidance, ModelSpec, Precision, Prompt, Segmenter, load};
use sonomask::stage::StageTimes;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn picture(path: &Path) -> Result<CineFrame> {
    cine::open(path)?.next_frame()?.ok_or_else(|| format!("no picture: {}", path.display()).into())
}

/// Bytes of a pixel in the pictures that are read here.
fn pixel_bytes(frame: &CineFrame) -> usize {
    frame.data.len() / (frame.width * frame.height)
}

/// Class and box of every class in an index mask.
fn boxes(mask: &CineFrame) -> Vec<Prompt> {
    let step = pixel_bytes(mask);
    (1..=u8::MAX)
        .filter_map(|label| {
            let (mut x0, mut y0, mut x1, mut y1) = (mask.width, mask.height, 0, 0);
            for (i, _) in mask.data.iter().step_by(step).enumerate().filter(|&(_, &v)| v == label) {
                let (x, y) = (i % mask.width, i / mask.width);
                (x0, y0, x1, y1) = (x0.min(x), y0.min(y), x1.max(x), y1.max(y));
            }
            let bbox = [x0 as f32, y0 as f32, x1 as f32, y1 as f32];
            (x1 > x0 && y1 > y0).then(|| Prompt {
                class: usize::from(label) - 1,
                bbox: Some(bbox),
                ..Prompt::default()
            })
        })
        .collect()
}

fn segment(
    model: &mut dyn Segmenter,
    frame: &CineFrame,
    prompts: &[Prompt],
) -> Result<(Vec<ClassMask>, f64)> {
    let rgba: Vec<u8> = match pixel_bytes(frame) {
        1 => frame.data.iter().flat_map(|&v| [v, v, v, 255]).collect(),
        _ => frame.data.clone(),
    };
    let plane = Plane { data: &rgba, stride: 4 * frame.width };
    let view =
        ImageView::new(PixelFormat::Rgbx, frame.width, frame.height, YuvColor::default(), vec![plane])?;
    let start = Instant::now();
    let masks =
        model.segment(&view, &Guidance::manual(prompts.to_vec()), false, &mut StageTimes::default())?;
    Ok((masks, start.elapsed().as_secs_f64() * 1e3))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Result<()> {
    sonomask::begin::with_settings();
    let args: Vec<PathBuf> =
        std::env::args_os().skip(1).filter(|a| a != "--bench").map(PathBuf::from).collect();
    let Some(folder) = args.first() else {
        println!(
            "cargo bench --bench precision -- FOLDER [WEIGHTS]: skipped, no folder with images/ and masks/ given"
        );
        return Ok(());
    };
    let weights = args.get(1).cloned().unwrap_or_else(|| "weights/lite_medsam.pth".into());
    let device = DeviceChoice::Auto.resolve()?;
    let spec = ModelSpec { threads: 2, ..ModelSpec::new(&weights) };
    let mut full = load(&spec, &device)?;
    let mut half = load(&ModelSpec { precision: Precision::Bf16, ..spec }, &device)?;
    let mut names: Vec<_> = std::fs::read_dir(folder.join("images"))?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<std::io::Result<_>>()?;
    names.sort();
    let (mut all, mut times) = (Vec::new(), (Vec::new(), Vec::new()));
    for name in &names {
        let frame = picture(&folder.join("images").join(name))?;
        let prompts = boxes(&picture(&folder.join("masks").join(name))?);
        if prompts.is_empty() {
            continue;
        }
        let (exact, ms) = segment(&mut *full, &frame, &prompts)?;
        times.0.push(ms);
        let (rough, ms) = segment(&mut *half, &frame, &prompts)?;
        times.1.push(ms);
        for (exact, rough) in exact.iter().zip(&rough) {
            let iou = exact.mask.iou(&rough.mask).ok_or("two empty masks or sizes that differ")?;
            all.push((iou, format!("{} class {}", name.to_string_lossy(), exact.class + 1)));
        }
        eprint!("\r{} masks", all.len());
    }
    eprintln!();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mean = all.iter().map(|(iou, _)| iou).sum::<f64>() / all.len() as f64;
    println!(
        "{} on {}, {} pictures, {} masks\n",
        full.info().family,
        device.name(),
        times.0.len(),
        all.len()
    );
    println!("| | |\n|---|---|\n| mean IoU of bf16 with fp32 | {mean:.5} |");
    println!("| median ms a picture, fp32 | {:.0} |", median(times.0));
    println!("| median ms a picture, bf16 | {:.0} |\n\nThe ten worst:\n", median(times.1));
    for (iou, name) in all.iter().take(10) {
        println!("- {iou:.4} {name}");
    }
    Ok(())
}
