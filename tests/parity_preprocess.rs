//! Preprocessing of every family against the reference implementations: their resized pictures, their network inputs, their
//! scaling of prompts. See `fixture_support` for where the answers come from.
//!
//! Not compared: `img.*` and `boxes.*` (inputs), `cv2linear.*` (the camera-predictor forks' resize, which no family here uses).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod fixture_support;

use std::path::PathBuf;

use fixture_support::{Fixture, folder};
use sonomask::frame::Rgb;
use sonomask::segment::preprocess::{DEVIATION, MEAN, Placement, Preprocess};
use sonomask::segment::resize::{Kernel, resize_pil, resize_spline};
use sonomask::weights::Checkpoint;
use tch::Tensor;

const IMAGES: [&str; 3] = ["640x480", "800x600", "320x240"];

/// Where both sides work in single precision on values of about 1, in another order.
const SINGLE: f64 = 1e-5;
/// Where both sides have the same bytes; their statistics are summed in another order.
const SAME: f64 = 1e-11;

fn bytes(tensor: &Tensor) -> Vec<u8> {
    Vec::<u8>::try_from(tensor.contiguous().view(-1)).unwrap()
}

fn picture(tensor: &Tensor) -> Rgb {
    let (height, width, _) = tensor.size3().unwrap();
    Rgb { width: width as usize, height: height as usize, data: bytes(tensor) }
}

/// Compares every input of one kind that the file holds; answers how many.
fn inputs(kind: &str, preprocess: Preprocess, bar: f64) -> usize {
    let file = Fixture::open("preprocess");
    let mut compared = 0;
    for side in [1024, 512] {
        for name in IMAGES {
            let key = format!("{kind}.{side}.{name}");
            if !file.answers(&key) {
                continue;
            }
            let image = picture(&file.raw(&format!("img.{name}")));
            let (input, placement) = preprocess.input(&image, side).unwrap();
            assert_eq!(placement, preprocess.place(image.width, image.height, side));
            file.check(&key, &input.get(0), bar);
            compared += 1;
        }
    }
    compared
}

#[test]
fn parity_preprocess_sam2() {
    assert_eq!(inputs("sam2", Preprocess::Sam2, SINGLE), 6);
    // One row whole.
    let file = Fixture::open("preprocess");
    for side in [1024, 512] {
        for name in IMAGES {
            let image = picture(&file.raw(&format!("img.{name}")));
            let (input, _) = Preprocess::Sam2.input(&image, side).unwrap();
            file.check_raw(&format!("sam2.{side}.{name}.row7"), &input.get(0).select(1, 7), SINGLE);
        }
    }
}

#[test]
fn parity_preprocess_sam2_video() {
    assert_eq!(inputs("pilbicubic", Preprocess::Sam2Video, SAME), 6);
    let file = Fixture::open("preprocess");
    for side in [1024, 512] {
        for name in IMAGES {
            let image = picture(&file.raw(&format!("img.{name}")));
            let size = (image.width, image.height);
            let ours = resize_pil::<3>(&image.data, size, (side, side), Kernel::Bicubic);
            let theirs = bytes(&file.raw(&format!("pilbicubic.{side}.{name}.u8row7")));
            same_bytes(
                &format!("pilbicubic.{side}.{name} row 7"),
                &ours[7 * side * 3..][..side * 3],
                &theirs,
            );
            // The normalised input gives the bytes back.
            let (input, _) = Preprocess::Sam2Video.input(&image, side).unwrap();
            let row = input.get(0).select(1, 7).permute([1, 0]);
            let back = (row * Tensor::from_slice(&DEVIATION) + Tensor::from_slice(&MEAN)) * 255.0;
            let back: Vec<f64> = Vec::try_from(back.contiguous().view(-1)).unwrap();
            let back: Vec<u8> = back.into_iter().map(|v| v.round() as u8).collect();
            same_bytes(&format!("pilbicubic.{side}.{name} input row 7"), &back, &theirs);
        }
    }
}

#[test]
fn parity_preprocess_sam1() {
    assert_eq!(inputs("sam1", Preprocess::Sam1, SAME), 3);
    let file = Fixture::open("preprocess");
    for name in IMAGES {
        let image = picture(&file.raw(&format!("img.{name}")));
        let placement = Preprocess::Sam1.place(image.width, image.height, 1024);
        let (width, height) = placement.scaled;
        let theirs: Vec<usize> =
            serde_json::from_str(&file.metadata[&format!("sam1.resized_hw.{name}")]).unwrap();
        assert_eq!([height, width], theirs[..]);
        let ours =
            resize_pil::<3>(&image.data, (image.width, image.height), (width, height), Kernel::Bilinear);
        let row = bytes(&file.raw(&format!("sam1.1024.{name}.u8row7")));
        same_bytes(&format!("sam1.1024.{name} row 7"), &ours[7 * width * 3..][..width * 3], &row);
    }
}

#[test]
fn parity_preprocess_medsam() {
    assert_eq!(inputs("medsam", Preprocess::MedSam, SAME), 3);
}

#[test]
fn parity_preprocess_sam2rad() {
    assert_eq!(inputs("sam2rad_long", Preprocess::Sam2Rad, SINGLE), 6);
    assert_eq!(inputs("sam2rad_square", Preprocess::Sam2RadSquare, SINGLE), 6);
}

#[test]
fn parity_preprocess_boxes() {
    let file = Fixture::open("preprocess");
    let scaled = |image: &str, placement: Placement| {
        let boxes = Vec::<f32>::try_from(file.raw(&format!("boxes.{image}")).view(-1)).unwrap();
        let boxes = boxes.as_chunks::<4>().0.iter().flat_map(|&b| placement.box_to_input(b));
        Tensor::from_slice(&boxes.collect::<Vec<f32>>()).view([-1, 4])
    };
    for name in IMAGES {
        let (width, height) = name.split_once('x').unwrap();
        let (width, height) = (width.parse().unwrap(), height.parse().unwrap());
        for side in [1024, 512] {
            let placement = Preprocess::Sam2.place(width, height, side);
            file.check_raw(&format!("boxes_sam2.{side}.{name}"), &scaled(name, placement), 2e-7);
        }
        let placement = Preprocess::Sam1.place(width, height, 1024);
        file.check_raw(&format!("boxes_sam1.{name}"), &scaled(name, placement), 2e-7);
    }
}

/// Sizes that the other file has not: shrinking, single pixels, one axis only. The file is `scripts/make_resize_fixtures.py`'s, so
/// a set of answers of the networks may lack it; then the repository's is taken.
#[test]
fn parity_resize_to_the_byte() {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let paths = [folder(), own].map(|folder| folder.join("resize_rgb.safetensors"));
    let file = Checkpoint::open(paths.iter().find(|path| path.is_file()).unwrap()).unwrap();
    let get = |name: &str| file.tensor(name).unwrap_or_else(|| panic!("the file lacks {name}")).unwrap();
    let cases: Vec<String> =
        file.tensors().filter_map(|(name, _)| Some(name.strip_suffix(".src")?.to_owned())).collect();
    assert!(!cases.is_empty());
    for case in cases {
        let image = picture(&get(&format!("{case}.src")));
        let size = (image.width, image.height);
        for (name, resize) in [
            (
                "pil_bilinear",
                &(|to| resize_pil::<3>(&image.data, size, to, Kernel::Bilinear)) as &dyn Fn(_) -> _,
            ),
            ("pil_bicubic", &|to| resize_pil::<3>(&image.data, size, to, Kernel::Bicubic)),
            ("spline", &|to| resize_spline(&image.data, size, to)),
        ] {
            let key = format!("{case}.{name}");
            let theirs = picture(&get(&key));
            same_bytes(&key, &resize((theirs.width, theirs.height)), &theirs.data);
        }
    }
}

fn same_bytes(what: &str, ours: &[u8], theirs: &[u8]) {
    let wrong = ours.iter().zip(theirs).filter(|(a, b)| a != b).count();
    let most = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0);
    println!("{what:<40} {wrong} of {} bytes differ, at most by {most}", theirs.len());
    assert_eq!((ours.len(), wrong), (theirs.len(), 0), "{what}");
}
