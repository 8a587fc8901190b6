//! LiteMedSAM against its reference implementation, tensor by tensor, on real ultrasound.
//!
//! The answers are made by `scripts/make_lite_medsam_fixtures.py` and read from `$SONOMASK_FIXTURES/lite_medsam`
//! (default `tests/fixtures`). Every test prints the error it found; run with `--nocapture` to see them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod answers;
mod preprocessing;

use std::path::PathBuf;
use std::sync::Arc;

use sonomask::frame::Rgb;
use sonomask::mask::Mask;
use sonomask::nn;
use sonomask::segment::preprocess::{Placement, input_tensor, mask_logits};
use sonomask::segment::{Point, Prompt};
use sonomask::weights::{Checkpoint, Family, Weights};
use tch::{Device, Kind, Tensor};

const IMAGES: [&str; 3] = ["echo", "nerve", "vessel"];

const PROMPTS: [&str; 5] = ["box", "points", "box_point", "mask", "box_mask"];

/// Largest difference over largest magnitude.
const RELATIVE: f64 = 1e-3;

const MASK_IOU: f64 = 0.999;

/// `$SONOMASK_FIXTURES` if it has answers of LiteMedSAM, else the repository's.
fn folder() -> PathBuf {
    let given =
        std::env::var_os("SONOMASK_FIXTURES").map(PathBuf::from).filter(|f| f.join("lite_medsam").is_dir());
    given.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"))
}

fn fixture(name: &str) -> Checkpoint {
    Checkpoint::open(&folder().join("lite_medsam").join(format!("{name}.safetensors"))).unwrap()
}

fn weights_path() -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("weights/lite_medsam.pth");
    assert!(path.is_file(), "weights/lite_medsam.pth is missing; `make setup` fetches it");
    path
}

/// Side of the input that the network was published for.
const SIDE: usize = 256;
/// Another, of which there are answers too.
const OTHER_SIDE: usize = 192;

fn network() -> Box<nn::Sam1> {
    let net = network_with(None, Kind::Float);
    assert_eq!(net.input_size(), SIDE);
    net
}

fn network_with(side: Option<usize>, kind: Kind) -> Box<nn::Sam1> {
    let checkpoint = Checkpoint::open(&weights_path()).unwrap();
    let weights = Weights::new(&checkpoint, Device::Cpu).computing_in(kind);
    let net = nn::Sam::new(&weights, Family::LiteMedSam, side.map(|side| side as i64)).unwrap();
    weights.finish().unwrap();
    let nn::Sam::One(net) = net else { panic!("this family is of the first generation") };
    net
}

fn get(file: &Checkpoint, name: &str) -> Tensor {
    file.tensor(name).unwrap_or_else(|| panic!("the fixture lacks {name}")).unwrap()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    Vec::<u8>::try_from(tensor.contiguous().view(-1)).unwrap()
}

/// A stored picture, gray or RGB, as RGB.
fn rgb(file: &Checkpoint, name: &str) -> Rgb {
    let tensor = get(file, name);
    let (h, w, _) = tensor.size3().unwrap();
    Rgb { width: w as usize, height: h as usize, data: bytes(&tensor.expand([h, w, 3], false)) }
}

fn placement(image: &Rgb) -> Placement {
    Placement::new(image.width, image.height, SIDE)
}

/// The network's input made from the reference's own resized picture, so that only the network is compared.
fn reference_input(file: &Checkpoint) -> Tensor {
    resized_input(file, &placement(&rgb(file, "image")))
}

fn resized_input(file: &Checkpoint, placement: &Placement) -> Tensor {
    input_tensor(&rgb(file, "resized").data, placement).unwrap()
}

fn relative_error(what: &str, ours: &Tensor, theirs: &Tensor) -> f64 {
    assert_eq!(ours.size(), theirs.size(), "{what}");
    let difference = f64::try_from((ours - theirs).abs().max()).unwrap();
    let error = difference / f64::try_from(theirs.abs().max()).unwrap();
    println!("{what:<28} max abs {difference:.3e}  relative {error:.3e}");
    error
}

/// The same prompts as the script's, in pixels of the image.
fn prompt(name: &str, bbox: [f32; 4], image: &Rgb) -> Prompt {
    let [x0, y0, x1, y1] = bbox;
    let (cx, cy) = ((x0 + x1) / 2.0, (y0 + y1) / 2.0);
    let inner = Point { x: cx, y: cy, positive: true };
    let outer = Point { x: x0 / 2.0, y: y0 / 2.0, positive: false };
    let ellipse = || {
        let mut mask = Mask::empty(image.width, image.height);
        for y in 0..image.height {
            for x in 0..image.width {
                let dx = (x as f64 + 0.5 - f64::from(cx)) / (f64::from(x1 - x0) / 2.0);
                let dy = (y as f64 + 0.5 - f64::from(cy)) / (f64::from(y1 - y0) / 2.0);
                mask.set(x, y, dx * dx + dy * dy <= 1.0);
            }
        }
        Some(Arc::new(mask))
    };
    match name {
        "box" => Prompt { bbox: Some(bbox), ..Prompt::default() },
        "points" => Prompt { points: vec![inner, outer], ..Prompt::default() },
        "box_point" => Prompt { bbox: Some(bbox), points: vec![inner], ..Prompt::default() },
        "mask" => Prompt { mask: ellipse(), ..Prompt::default() },
        _ => Prompt { bbox: Some(bbox), mask: ellipse(), ..Prompt::default() },
    }
}

fn box_of(file: &Checkpoint) -> [f32; 4] {
    Vec::<f32>::try_from(get(file, "prompt_box")).unwrap().try_into().unwrap()
}

/// Every second pixel: what the files keep of `[S, S]`.
fn cut(logits: &Tensor) -> Tensor {
    logits.slice(0, None, None, 2).slice(1, None, None, 2)
}

/// The decoder's logits and score for one prompt, on the reference's input.
fn decode(net: &nn::Sam1, embedding: &Tensor, prompt: &Prompt, placement: &Placement) -> (Tensor, Tensor) {
    let coords: Vec<f32> = prompt.points.iter().flat_map(|p| placement.to_input([p.x, p.y])).collect();
    let labels: Vec<i64> = prompt.points.iter().map(|p| i64::from(p.positive)).collect();
    let points = (!labels.is_empty()).then(|| {
        let n = labels.len() as i64;
        (Tensor::from_slice(&coords).view([1, n, 2]), Tensor::from_slice(&labels).view([1, n]))
    });
    let bbox = prompt.bbox.map(|b| Tensor::from_slice(&placement.box_to_input(b)).view([1, 4]));
    let mask = prompt.mask.as_ref().map(|m| mask_logits(m, placement).unwrap());
    let points = points.as_ref().map(|(c, l)| (c, l));
    let (sparse, dense) = net.prompt_encoder.forward(points, bbox.as_ref(), mask.as_ref()).unwrap();
    let (pe, single) = (net.prompt_encoder.get_dense_pe(), nn::MaskSelection::Single);
    let decoded = net.mask_decoder.forward(embedding, pe, &sparse, &dense, None, single).unwrap();
    (decoded.masks, decoded.iou)
}
