//! `sonomask segment`: stills in, masks and pictures out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use image::ExtendedColorType;
use safetensors::tensor::{Dtype, TensorView};

use super::prompts::{PromptArgs, with_learned};
use super::{Depth, Exit, ModelArgs, class_styles, usage};
use crate::cine::{self, CineFrame, OpenOptions};
use crate::config::ClassConfig;
use crate::frame::{
    CaptureTime, FrameId, FrameMeta, ImageView, ImageViewMut, PixelFormat, Plane, PlaneMut, Rgb, YuvColor,
};
use crate::mask::{ClassMask, Paired, Segmentation};
use crate::overlay::{Drawable, Overlay, Style};
use crate::pipeline::{Guide, file_safe};
use crate::segment::{self, Guidance, Mode, Segmenter, learned_classes};
use crate::stage::StageTimes;
use crate::state::AiState;
use crate::whole;

/// Segment still pictures (PNG, JPEG, TIFF, BMP, PNM, DICOM, MetaImage); of a loop, every frame.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pictures, folders or globs
    #[arg(required = true)]
    images: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// autonomous (the predictor alone), assisted (predictor and prompts) or manual (prompts alone); without it assisted where
    /// there is a predictor, else manual
    #[arg(long)]
    mode: Option<Mode>,
    #[command(flatten)]
    prompts: PromptArgs,
    #[command(flatten)]
    depth: Depth,
    /// Folder for IMAGE.png (overlay) and IMAGE.CLASS.png (mask, 0 and 255)
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Also write low-resolution logits, scores and presences of all images to this file
    #[arg(long, value_name = "FILE.safetensors")]
    logits: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct ClassResult<'a> {
    image: &'a str,
    class: &'a str,
    score: f32,
    presence: f32,
    area_px: usize,
    bounds: Option<[usize; 4]>,
}

/// Tensors by name: shape and values, all f32.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn run(args: &Args) -> Result<Exit> {
    let (mut model, classes, guide) = match prepare(args) {
        Ok(ready) => ready,
        Err(e) => return usage(&format!("{e:#}")),
    };
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the folder: {}", args.out.display()))?;
    let mut overlay = Overlay::new(Style { status: false, ..Style::default() }, class_styles(&classes));
    let mut tensors = Tensors::new();
    let mut failed = Vec::new();
    let mut results = Vec::new();
    let inputs: BTreeSet<PathBuf> = args.images.iter().filter_map(|i| i.canonicalize().ok()).collect();
    let mut written = BTreeSet::new();
    let mut seen = 0;
    for path in &args.images {
        let before = seen;
        let done = each_frame(path, args.depth.bits, |name, frame| {
            let at = seen;
            seen += 1;
            let masks = classes.iter().map(|c| format!("{name}.{}", file_safe(&c.name)));
            if let Some(twice) =
                std::iter::once(name.to_owned()).chain(masks).find(|n| !written.insert(n.clone()))
            {
                bail!("another input or class has written `{twice}.png` already; it would be overwritten");
            }
            let rgba = rgba_of(frame);
            let masks = segment(model.as_mut(), &rgba, &guide.of(at), args.logits.is_some())?;
            for found in &masks {
                let class = &classes[found.class].name;
                if let Some(logits) = &found.logits {
                    let key = format!("{name}.{class}");
                    tensors.insert(format!("{key}.score"), (vec![1], vec![found.score]));
                    tensors.insert(format!("{key}.presence"), (vec![1], vec![found.presence]));
                    tensors.insert(key, (vec![logits.height, logits.width], logits.values.clone()));
                }
                let bounds = found.mask.bounds().map(|b| [b.x0, b.y0, b.x1, b.y1]);
                let (score, presence, area_px) = (found.score, found.presence, found.mask.area());
                results.push((name.to_owned(), class.clone(), score, presence, area_px, bounds));
                let pixels: Vec<u8> = found.mask.data().iter().map(|v| v * 255).collect();
                let file = args.out.join(format!("{name}.{}.png", file_safe(class)));
                save(&inputs, &file, &pixels, frame.width, frame.height, ExtendedColorType::L8)?;
            }
            let picture = draw(&mut overlay, rgba, masks)?;
            let file = args.out.join(format!("{name}.png"));
            save(&inputs, &file, &picture.data, picture.width, picture.height, ExtendedColorType::Rgb8)
        });
        if let Err(e) = done {
            super::say(&format!("{e:#}: {}", path.display()));
            failed.push(path);
            // A still that cannot be read counts, too: the lines of a guide after it are about the others.
            seen = seen.max(before + 1);
        }
    }
    let results: Vec<_> = results
        .iter()
        .map(|(image, class, score, presence, area_px, bounds)| ClassResult {
            image,
            class,
            score: *score,
            presence: *presence,
            area_px: *area_px,
            bounds: *bounds,
        })
        .collect();
    if args.json {
        super::print_json(&serde_json::json!({"schema": 1, "model": model.info(), "results": results}))?;
    } else {
        for r in &results {
            super::print(&format!("{}  {}  score {:.3}  {} px", r.image, r.class, r.score, r.area_px));
        }
        super::print(&format!("written to {}", args.out.display()));
    }
    if let Some(file) = &args.logits {
        write_tensors(file, &tensors)?;
    }
    Ok(if failed.is_empty() { Exit::Fine } else { Exit::Failed })
}

/// The model, the classes it is asked for, and how.
fn prepare(args: &Args) -> Result<(Box<dyn Segmenter>, Vec<ClassConfig>, Guide)> {
    if args.prompts.control {
        bail!("--control changes a running stream; stills take --guide");
    }
    let given = args.prompts.classes()?;
    let (spec, device) = args.model.resolve().map_err(anyhow::Error::msg)?;
    let learned = learned_classes(&spec)?;
    if learned.is_empty() && given.is_empty() {
        bail!("this model needs to be told where to look: give --box, --point or --mask-prompt");
    }
    if learned.is_empty() && args.mode.is_some_and(Mode::is_learned) {
        bail!("this mode needs a prompt predictor: give --ppn, or --mode manual");
    }
    let classes = with_learned(&learned, given);
    let guide = args.prompts.guide(&classes, &learned, args.mode)?;
    Ok((segment::load(&spec, &device)?, classes, guide))
}

/// Calls `each` with a name and a frame, for every frame of `path`.
fn each_frame(path: &Path, bits: u8, mut each: impl FnMut(&str, &CineFrame) -> Result<()>) -> Result<()> {
    let mut reader = cine::open_with(path, OpenOptions { bits, ..OpenOptions::default() })?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let many = reader.frames() > 1;
    let mut index = 0;
    while let Some(frame) = reader.next_frame()? {
        let name = if many { format!("{stem}_{index:04}") } else { stem.clone() };
        each(&name, &frame)?;
        index += 1;
    }
    if index == 0 {
        bail!("there is no picture in it");
    }
    Ok(())
}

/// Four bytes a pixel, so that colours can be drawn on gray pictures, too.
struct Rgba {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

fn rgba_of(frame: &CineFrame) -> Rgba {
    let data = match frame.format {
        PixelFormat::Gray8 => frame.data.iter().flat_map(|&v| [v, v, v, 255]).collect(),
        _ => frame.data.clone(),
    };
    Rgba { width: frame.width, height: frame.height, data }
}

fn segment(
    model: &mut dyn Segmenter,
    picture: &Rgba,
    guidance: &Guidance,
    keep_logits: bool,
) -> Result<Vec<ClassMask>> {
    let plane = Plane { data: &picture.data, stride: picture.width * 4 };
    let view =
        ImageView::new(PixelFormat::Rgbx, picture.width, picture.height, YuvColor::default(), vec![plane])?;
    Ok(model.segment(&view, guidance, keep_logits, &mut StageTimes::default())?)
}

fn draw(overlay: &mut Overlay, mut picture: Rgba, masks: Vec<ClassMask>) -> Result<Rgb> {
    let meta = FrameMeta { id: FrameId::default(), pts: None, duration: None, capture: CaptureTime::now() };
    let segmentation = Segmentation { frame: meta, masks, times: StageTimes::default(), remark: None };
    let paired = Paired::new(&meta, Arc::new(segmentation))?;
    let plane = PlaneMut { data: &mut picture.data, stride: picture.width * 4 };
    let mut view = ImageViewMut::new(
        PixelFormat::Rgbx,
        picture.width,
        picture.height,
        YuvColor::default(),
        vec![plane],
    )?;
    overlay.draw(&mut view, Drawable::Paired(&paired), &AiState::Live)?;
    Ok(Rgb::from(&view.as_view()))
}

/// Writes a picture, but never over an input.
fn save(
    inputs: &BTreeSet<PathBuf>,
    path: &Path,
    data: &[u8],
    w: usize,
    h: usize,
    color: ExtendedColorType,
) -> Result<()> {
    if path.canonicalize().is_ok_and(|p| inputs.contains(&p)) {
        bail!("the output would replace an input: {}", path.display());
    }
    whole::write_png(path, data, w, h, color).with_context(|| format!("cannot write: {}", path.display()))
}

fn write_tensors(file: &Path, tensors: &Tensors) -> Result<()> {
    let bytes: BTreeMap<&str, (Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            (name.as_str(), (shape.clone(), values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        })
        .collect();
    let mut views = Vec::with_capacity(bytes.len());
    for (name, (shape, data)) in &bytes {
        views.push((*name, TensorView::new(Dtype::F32, shape.clone(), data)?));
    }
    whole::write(file, &safetensors::serialize(views, None)?)
        .with_context(|| format!("cannot write: {}", file.display()))
}
