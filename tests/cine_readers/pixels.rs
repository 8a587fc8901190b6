//! Pixels as they come out of every arrangement, depth and compression.

use std::fs;
use std::path::Path;
use std::time::Duration;

use dicom_dictionary_std::{tags, uids};
use proptest::prelude::*;
use sonomask::cine::{CineFrame, Timing, open};
use sonomask::frame::{PixelFormat, Pts};

use super::{BIG_ENDIAN, all, read, refusal};
use crate::cine_inputs::{Object, fragments, gradient_gray16, gradient_rgb, jpeg, jpeg_lossless, rle};

/// R, G, B of a picture, with the fourth byte checked.
fn rgb(frame: &CineFrame) -> Vec<[u8; 3]> {
    assert_eq!(frame.format, PixelFormat::Rgbx);
    assert_eq!(frame.data.len(), frame.width * frame.height * 4);
    frame
        .data
        .chunks_exact(4)
        .map(|p| {
            assert_eq!(p[3], 255);
            [p[0], p[1], p[2]]
        })
        .collect()
}

#[test]
fn gray_bytes_come_out_as_they_are_in_every_uncompressed_syntax() {
    let pixels: Vec<u8> = (0..3 * 4 * 6).map(|i| i * 3).collect();
    for syntax in [
        uids::IMPLICIT_VR_LITTLE_ENDIAN,
        uids::EXPLICIT_VR_LITTLE_ENDIAN,
        uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
        BIG_ENDIAN,
    ] {
        let file = Object::gray(6, 4, 3, 8).text(tags::FRAME_TIME, "40").native(&pixels).save(syntax);
        let mut reader = open(file.path()).unwrap();
        assert_eq!(reader.timing(), Timing::File("FrameTime (0018,1063)".into()));
        let frames = all(reader.as_mut()).unwrap();
        for (i, frame) in frames.iter().enumerate() {
            assert_eq!((frame.format, frame.width, frame.height), (PixelFormat::Gray8, 6, 4));
            assert_eq!(frame.data, pixels[i * 24..][..24], "{syntax} frame {i}");
            assert_eq!(frame.pts, Pts(i as u64 * 40_000_000));
            assert_eq!(frame.duration, Duration::from_millis(40));
        }
        assert!(reader.next_frame().unwrap().is_none());
    }
}

#[test]
fn deep_gray_keeps_the_first_frames_range_or_the_files_window() {
    let values: [u16; 4] = [100, 200, 300, 1000];
    let pixels: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let object = || Object::gray(2, 1, 2, 16).bits(12);
    let file = object().native(&pixels).save(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let frames = read(file.path());
    assert_eq!((&frames[0].data[..], &frames[1].data[..]), (&[0, 255][..], &[255, 255][..]));

    let windowed = object().text(tags::WINDOW_CENTER, "550.5\\7").text(tags::WINDOW_WIDTH, "901\\9");
    let file = windowed.native(&pixels).save(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let shown: Vec<u8> = read(file.path()).concat_data();
    assert_eq!(shown, [0, 28, 57, 255]);

    let inverted = object().text(tags::PHOTOMETRIC_INTERPRETATION, "MONOCHROME1");
    let file = inverted.native(&pixels).save(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    assert_eq!(read(file.path())[0].data, [255, 0]);

    let signed = Object::gray(3, 1, 1, 16).number(tags::PIXEL_REPRESENTATION, 1);
    let pixels: Vec<u8> = [-500i16, 0, 500].iter().flat_map(|v| v.to_le_bytes()).collect();
    let file = signed.native(&pixels).save(uids::IMPLICIT_VR_LITTLE_ENDIAN);
    assert_eq!(read(file.path())[0].data, [0, 128, 255]);
}

trait ConcatData {
    fn concat_data(&self) -> Vec<u8>;
}

impl ConcatData for Vec<CineFrame> {
    fn concat_data(&self) -> Vec<u8> {
        self.iter().flat_map(|f| f.data.clone()).collect()
    }
}

#[test]
fn colours_are_the_same_in_every_arrangement() {
    let want = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]];
    let save = |o: Object, p: &[u8]| o.native(p).save(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let file = save(Object::color(2, 2, 1, "RGB"), &want.concat());
    assert_eq!(rgb(&read(file.path())[0]), want);
    let planes: Vec<u8> = (0..3).flat_map(|c| want.map(|p| p[c])).collect();
    let file = save(Object::color(2, 2, 1, "RGB").number(tags::PLANAR_CONFIGURATION, 1), &planes);
    assert_eq!(rgb(&read(file.path())[0]), want);

    // Red and mid-gray as full-range BT.601.
    let file = save(Object::color(2, 1, 1, "YBR_FULL"), &[76, 85, 255, 128, 128, 128]);
    assert_eq!(rgb(&read(file.path())[0]), [[254, 0, 0], [128, 128, 128]]);
    let file = save(Object::color(2, 1, 2, "YBR_FULL_422"), &[76, 76, 85, 255, 9, 200, 128, 128]);
    let frames = read(file.path());
    assert_eq!(rgb(&frames[0]), [[254, 0, 0], [254, 0, 0]]);
    assert_eq!(rgb(&frames[1]), [[9, 9, 9], [200, 200, 200]]);

    let palette = Object::gray(4, 1, 1, 8).palette(10, &[[1, 2, 3], [40, 50, 60], [255, 254, 253]]);
    let file = save(palette, &[0, 10, 11, 99]);
    assert_eq!(rgb(&read(file.path())[0]), [[1, 2, 3], [1, 2, 3], [40, 50, 60], [255, 254, 253]]);
}

#[test]
fn jpeg_colours_are_right_and_the_stream_overrules_the_attributes() {
    let red = jpeg(&[[255, 0, 0]; 256], 16);
    let teal = jpeg(&[[0, 128, 128]; 256], 16);
    let near = |frame: &CineFrame, want: [u8; 3]| {
        for p in rgb(frame) {
            assert!(p.iter().zip(want).all(|(&a, b)| a.abs_diff(b) <= 2), "{p:?} is not {want:?}");
        }
    };
    // JFIF marks luma and chroma, whatever the attributes say.
    for photometric in ["YBR_FULL_422", "YBR_FULL", "RGB"] {
        let object = Object::color(16, 16, 2, photometric);
        let file = object.encapsulated(vec![red.clone(), teal.clone()]).save(uids::JPEG_BASELINE8_BIT);
        let frames = read(file.path());
        near(&frames[0], [255, 0, 0]);
        near(&frames[1], [0, 128, 128]);
    }
    // Without the marker (the 18 bytes behind SOI) the attributes decide: the same data as R, G, B.
    let bare = [&red[..2], &red[20..]].concat();
    for (photometric, want) in [("YBR_FULL_422", [254, 0, 0]), ("RGB", [76, 85, 255])] {
        let file = Object::color(16, 16, 1, photometric).encapsulated(vec![bare.clone()]);
        near(&read(file.save(uids::JPEG_BASELINE8_BIT).path())[0], want);
    }
}

#[test]
fn colours_of_lossless_jpeg_are_what_the_attributes_say() {
    // Red, gray and teal, and their luma and chroma (BT.601).
    let colours = [[255, 0, 0], [128, 128, 128], [0, 128, 128]];
    let ybr = [[76, 85, 255], [128, 128, 128], [90, 150, 64]];
    let picture = |of: &[[u8; 3]; 3]| jpeg_lossless(&(0..64).map(|i| of[i / 5 % 3]).collect::<Vec<_>>(), 8);
    for (photometric, stored) in [("RGB", &colours), ("YBR_FULL", &ybr), ("YBR_FULL_422", &ybr)] {
        let file = Object::color(8, 8, 1, photometric).encapsulated(vec![picture(stored)]);
        let shown = read(file.save(uids::JPEG_LOSSLESS_SV1).path()).concat_data();
        assert_eq!(shown.len(), 4 * 64);
        for (at, pixel) in shown.chunks_exact(4).enumerate() {
            let apart = pixel.iter().zip(colours[at / 5 % 3]).map(|(a, b)| a.abs_diff(b)).max();
            assert!(apart <= Some(2), "{photometric}, pixel {at}: {pixel:?}");
        }
    }
}

#[test]
fn frames_in_several_fragments_are_put_together() {
    let pictures =
        [jpeg(&[[200, 30, 30]; 64], 8), jpeg(&[[30, 200, 30]; 64], 8), jpeg(&[[30, 30, 200]; 64], 8)];
    let (parts, offsets) = fragments(&pictures, 100);
    assert!(parts.len() > 6);
    for table in [offsets, vec![]] {
        let object = Object::color(8, 8, 3, "YBR_FULL_422").encapsulated_at(parts.clone(), table);
        let frames = read(object.save(uids::JPEG_BASELINE8_BIT).path());
        for (i, frame) in frames.iter().enumerate() {
            assert!(rgb(frame)[0][i] > 190 && rgb(frame)[0][(i + 1) % 3] < 40, "frame {i}");
        }
    }
    // A table that points between fragments, and fragments that start no picture.
    let object = |table| Object::color(8, 8, 3, "YBR_FULL_422").encapsulated_at(parts.clone(), table);
    let said = refusal(object(vec![0, 5, 9]).save(uids::JPEG_BASELINE8_BIT).path());
    assert!(said.contains("offset table does not fit"), "{said}");
    let object = Object::gray(8, 8, 2, 8).encapsulated(vec![vec![0; 9]; 5]);
    assert!(refusal(object.save(uids::RLE_LOSSLESS).path()).contains("cannot be divided"));
}

#[test]
fn jpeg_2000_is_lossless_in_colour_and_depth() {
    let fixture =
        |n: &str| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cine").join(n));
    let color = fixture("gradient_rgb.j2k").unwrap();
    for photometric in ["YBR_RCT", "RGB"] {
        let object = Object::color(16, 12, 2, photometric).encapsulated(vec![color.clone(), color.clone()]);
        let frames = read(object.save(uids::JPEG2000_LOSSLESS).path());
        assert_eq!(rgb(&frames[1]), gradient_rgb());
    }
    let deep = fixture("gradient_gray16.j2k").unwrap();
    let object = Object::gray(16, 12, 1, 16).encapsulated(vec![deep]);
    let shown = read(object.save(uids::JPEG2000_LOSSLESS).path()).concat_data();
    let max = 15.0 * 3000.0 + 1100.0;
    let want: Vec<u8> =
        gradient_gray16().iter().map(|&v| (f64::from(v) / max * 255.0).round() as u8).collect();
    assert_eq!(shown, want);
    // A codestream of another size is refused before the decoder allocates for it.
    let object = Object::color(17, 12, 1, "RGB").encapsulated(vec![color]);
    assert!(refusal(object.save(uids::JPEG2000_LOSSLESS).path()).contains("16x12"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn rle_gives_back_what_went_in(
        pixels in prop::collection::vec(prop_oneof![Just(0u8), Just(255u8), any::<u8>()], 7 * 5 * 3 * 2),
    ) {
        let coded = pixels.chunks(7 * 5 * 3).map(|f| rle(f, 3, 1)).collect();
        let file = Object::color(7, 5, 2, "RGB").encapsulated(coded).save(uids::RLE_LOSSLESS);
        let shown: Vec<[u8; 3]> = read(file.path()).iter().flat_map(rgb).collect();
        prop_assert_eq!(shown.concat(), pixels.clone());

        let deep = &pixels[..7 * 5 * 2];
        let object = Object::gray(7, 5, 1, 16).text(tags::WINDOW_CENTER, "32768").text(tags::WINDOW_WIDTH, "65536");
        let file = object.encapsulated(vec![rle(deep, 1, 2)]).save(uids::RLE_LOSSLESS);
        let want: Vec<u8> = deep
            .chunks_exact(2)
            .map(|b| (f64::from(u16::from_le_bytes([b[0], b[1]])) / 65535.0 * 255.0).round() as u8)
            .collect();
        prop_assert_eq!(read(file.path()).concat_data(), want);
    }
}
