//! Postprocessing of every family against the reference implementations. See `fixture_support` for where the answers come from.
//!
//! Not compared: `low` and `mask_in.600x800.bits` (inputs), `fill_holes_video_area8` and its `.changed` (holes are filled as SAM 2's
//! image predictor does). Of `non_overlap` the masks are. LiteMedSAM's postprocessing is in `parity_lite_medsam`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod fixture_support;

use fixture_support::{Fixture, LOGITS};
use sonomask::mask::Mask;
use sonomask::segment::postprocess::{Decoded, Postprocess, clean};
use sonomask::segment::preprocess::{Placement, Preprocess, mask_canvas};
use tch::{Kind, Tensor};

/// Both sides do the same operations.
const SAME: f64 = f64::MIN_POSITIVE;

fn placement(how: Postprocess, width: usize, height: usize) -> Placement {
    match how {
        Postprocess::ThroughInput => Placement::rounded(width, height, 1024),
        _ => Placement::square(width, height, 1024),
    }
}

#[test]
fn parity_postprocess_sam2_one_step() {
    let file = Fixture::open("postprocess");
    let low = file.raw("low");
    for (width, height) in [(640, 480), (800, 600), (320, 240), (1920, 1080)] {
        let placement = placement(Postprocess::Direct, width, height);
        let ours = Postprocess::Direct.at_frame_size(&low, &placement).unwrap();
        let key = format!("up.{height}x{width}");
        file.check_logits(&key, &ours);
        // The masks are where the logits at full size are above zero.
        let scores = Tensor::from_slice(&[0.5f32, 0.25]).view([2, 1]);
        let decoded =
            Decoded { logits: &low, cleaned: None, scores: &scores, presence: None, non_overlapping: None };
        let masks = Postprocess::Direct.class_masks(&decoded, &[0, 1], &placement, false).unwrap();
        let theirs = ours.gt(0.0).to_kind(Kind::Uint8).contiguous().view([2, -1]);
        for (i, answer) in masks.iter().enumerate() {
            assert_eq!(answer.mask.data(), Vec::<u8>::try_from(theirs.get(i as i64)).unwrap(), "{key} {i}");
        }
    }
}

#[test]
fn parity_postprocess_sam1_two_steps() {
    let file = Fixture::open("postprocess");
    for (width, height) in [(640, 480), (800, 600)] {
        let placement = placement(Postprocess::ThroughInput, width, height);
        assert_eq!(placement.scaled, (1024, 768));
        let ours = Postprocess::ThroughInput.at_frame_size(&file.raw("low"), &placement).unwrap();
        file.check(&format!("sam1_up.{height}x{width}"), &ours, 1e-6);
    }
}

/// The two ways differ by far more than the bars above, so that one cannot pass for the other.
#[test]
fn one_step_is_not_two() {
    let file = Fixture::open("postprocess");
    let low = file.raw("low");
    let square = Placement::square(640, 480, 1024);
    let one = Postprocess::Direct.at_frame_size(&low, &square).unwrap();
    let two = Postprocess::ThroughInput.at_frame_size(&low, &square).unwrap();
    let difference = f64::try_from((&one - two).abs().max() / one.abs().max()).unwrap();
    assert!(difference > 10.0 * LOGITS, "{difference}");
}

#[test]
fn parity_postprocess_holes_and_sprinkles() {
    let file = Fixture::open("postprocess");
    let low = file.raw("low").narrow(0, 0, 1);
    for there in [false, true] {
        let cleaned = clean(&low, 10, 10, there).unwrap();
        file.check_raw("image_holes10_sprinkles10", &cleaned.view([256, 256]), SAME);
    }
}

#[test]
fn parity_postprocess_non_overlap_and_clamp() {
    let file = Fixture::open("postprocess");
    let low = file.raw("low");
    let scores = Tensor::from_slice(&[0.5f32, 0.25]).view([2, 1]);
    let classes = |logits: &Tensor, non_overlapping| {
        let decoded = Decoded { logits, cleaned: None, scores: &scores, presence: None, non_overlapping };
        Postprocess::Direct.class_masks(&decoded, &[0, 1], &Placement::square(256, 256, 1024), true).unwrap()
    };
    let theirs = file.raw("non_overlap").gt(0.0).to_kind(Kind::Uint8).contiguous().view([2, -1]);
    let (ours, overlapping) = (classes(&low, Some(0.5)), classes(&low, None));
    for (i, (answer, before)) in ours.iter().zip(&overlapping).enumerate() {
        assert_eq!(answer.mask.data(), Vec::<u8>::try_from(theirs.get(i as i64)).unwrap(), "{i}");
        assert!(answer.mask != before.mask, "nothing overlaps");
    }
    for answer in classes(&(&low * 8.0), None) {
        let values = answer.logits.unwrap().values;
        assert_eq!(values.iter().copied().fold(f32::MAX, f32::min), -32.0);
        assert_eq!(values.iter().copied().fold(f32::MIN, f32::max), 32.0);
    }
}

/// The binary mask of the reference at 600x800, and the canvases made of it.
#[test]
fn parity_postprocess_mask_prompt() {
    let file = Fixture::open("postprocess");
    let mask = Mask::new(800, 600, unpacked(&file, "mask_in.600x800.bits", 800 * 600)).unwrap();
    for side in [1024, 512] {
        let placement = Preprocess::Sam2.place(800, 600, side);
        let canvas = mask_canvas(&mask, &placement).unwrap();
        let ours = Vec::<u8>::try_from(canvas.to_kind(Kind::Uint8).view(-1)).unwrap();
        let key = format!("mask_in.600x800to{side}");
        let theirs = unpacked(&file, &format!("{key}.bits"), side * side);
        let wrong = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
        println!(
            "{key}: {wrong} of {} pixels differ, {} inside",
            ours.len(),
            theirs.iter().filter(|&&v| v == 1).count()
        );
        assert_eq!((ours.len(), wrong), (theirs.len(), 0), "{key}");
        // Before the threshold.
        let float = Tensor::from_slice(mask.data()).view([1, 1, 600, 800]).to_kind(Kind::Float);
        let size = [side as i64, side as i64];
        file.check(&key, &float.internal_upsample_bilinear2d_aa(size, false, None, None), 1e-6);
    }
}

/// The low-resolution logits of a mask prompt. The reference starts from logits at the size of the input, here 1024, so a frame of
/// that size is taken, which is not resized.
#[test]
fn parity_postprocess_mask_prompt_logits() {
    let file = Fixture::open("postprocess");
    let low = file.raw("low").narrow(0, 0, 1);
    let high = Postprocess::Direct.at_frame_size(&low, &Placement::square(1024, 1024, 1024)).unwrap();
    let inside = Vec::<u8>::try_from(high.gt(0.0).to_kind(Kind::Uint8).view(-1)).unwrap();
    let mask = Mask::new(1024, 1024, inside).unwrap();
    for preprocess in [Preprocess::Sam2, Preprocess::Sam2Video, Preprocess::Sam1, Preprocess::MedSam] {
        let placement = preprocess.place(1024, 1024, 1024);
        let logits = preprocess.mask_prompt(&mask, &placement).unwrap();
        file.check("antialias_down.1024to256", &logits, 1e-6);
    }
}

#[test]
fn parity_postprocess_medsam() {
    // The network's own logits are not carried, but the way from any logits is: sigmoid first, then the resize.
    let file = Fixture::open("postprocess");
    let low = file.raw("low");
    let placement = placement(Postprocess::Probability, 640, 480);
    let ours = Postprocess::Probability.at_frame_size(&low, &placement).unwrap();
    let theirs = low.sigmoid().upsample_bilinear2d([480, 640], false, None, None);
    assert_eq!(f64::try_from((&ours - theirs).abs().max()).unwrap(), 0.0);
    // Which is another mask than that of the resized logits.
    let direct = Postprocess::Direct.at_frame_size(&low, &placement).unwrap();
    let differ = i64::try_from(ours.gt(0.5).ne_tensor(&direct.gt(0.0)).sum(Kind::Int64)).unwrap();
    println!("MedSAM's order changes {differ} pixels");
    assert!(differ > 100);
}

/// Bits packed from the lowest of each byte on.
fn unpacked(file: &Fixture, name: &str, n: usize) -> Vec<u8> {
    let packed = Vec::<u8>::try_from(file.raw(name).view(-1)).unwrap();
    assert_eq!(packed.len(), n.div_ceil(8), "{name}");
    (0..n).map(|i| packed[i / 8] >> (i % 8) & 1).collect()
}
