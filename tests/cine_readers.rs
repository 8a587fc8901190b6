//! Cine-loop readers against files made here, so that every value is known.
//!
//! `fixtures/cine/*.j2k` are the two gradients below, losslessly packed with Pillow, as no JPEG 2000 encoder is at hand.

mod cine_inputs;

use std::fs;
use std::path::Path;
use std::time::Duration;

use cine_inputs::{
    Object, Rng, fragments, gradient_gray16, gradient_rgb, jpeg, metaimage, rle, unchecked, write_png,
};
use dicom_dictionary_std::{tags, uids};
use proptest::prelude::*;
use sonomask::cine::{self, CineError, CineFrame, CineReader, Kind, OpenOptions, Timing, open, recognise};
use sonomask::frame::{PixelFormat, Pts};

/// Explicit VR Big Endian, retired, but still in archives.
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
/// Encapsulated Uncompressed Explicit VR Little Endian.
const ENCAPSULATED: &str = "1.2.840.10008.1.2.1.98";

fn all(reader: &mut dyn CineReader) -> Result<Vec<CineFrame>, CineError> {
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame()? {
        frames.push(frame);
    }
    assert_eq!(frames.len(), reader.frames());
    Ok(frames)
}

fn read(path: &Path) -> Vec<CineFrame> {
    open(path).and_then(|mut r| all(r.as_mut())).unwrap_or_else(|e| panic!("{e}"))
}

fn refusal(path: &Path) -> String {
    match open(path).and_then(|mut r| all(r.as_mut())) {
        Ok(frames) => panic!("read {} frames of what should be refused", frames.len()),
        Err(e) => e.to_string(),
    }
}

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

#[test]
fn times_come_from_the_file_in_the_stated_order() {
    let timed = |fields: &[(dicom_core::Tag, &str)], pointer: Option<dicom_core::Tag>| {
        let object = fields.iter().fold(Object::gray(2, 2, 3, 8), |o, (tag, v)| o.text(*tag, v));
        let object = if let Some(tag) = pointer { object.pointer(tag) } else { object };
        let file = object.native(&[0; 12]).save(uids::EXPLICIT_VR_LITTLE_ENDIAN);
        let mut reader = open(file.path()).unwrap();
        let starts: Vec<u64> = all(reader.as_mut()).unwrap().iter().map(|f| f.pts.0 / 1_000_000).collect();
        (starts, reader.timing())
    };
    let vector = (tags::FRAME_TIME_VECTOR, "0\\30\\50");
    let (time, rate) = ((tags::FRAME_TIME, "20"), (tags::CINE_RATE, "10"));
    let display = (tags::RECOMMENDED_DISPLAY_FRAME_RATE, "5");
    let from = |name: &str| Timing::File(name.into());
    let fields = [vector, time, rate, display];
    assert_eq!(timed(&fields, None), (vec![0, 20, 40], from("FrameTime (0018,1063)")));
    let pointed = timed(&fields, Some(tags::FRAME_TIME_VECTOR));
    assert_eq!(pointed, (vec![0, 30, 80], from("FrameTimeVector (0018,1065)")));
    assert_eq!(timed(&fields[2..], None), (vec![0, 100, 200], from("CineRate (0018,0040)")));
    assert_eq!(timed(&fields[3..], None).0, [0, 200, 400]);

    let (starts, Timing::Assumed(why)) = timed(&[(tags::FRAME_TIME_VECTOR, "0\\30")], None) else {
        panic!("a vector of the wrong length was used")
    };
    assert_eq!(starts, [0, 33, 66]);
    assert!(why.contains("2 values for 3 frames"), "{why}");
    let (_, timing) = timed(&[(tags::FRAME_TIME, "0"), (tags::FRAME_TIME_VECTOR, "0\\9\\-9")], None);
    assert!(matches!(&timing, Timing::Assumed(why) if why.contains("do not rise at frame 2")), "{timing:?}");

    let file = Object::gray(1, 1, 2, 8).native(&[0; 2]).save(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let mut reader = cine::open_with(file.path(), OpenOptions { fps: Some(50.0), bits: 16 }).unwrap();
    assert_eq!(all(reader.as_mut()).unwrap()[1].pts, Pts(20_000_000));
    assert!(matches!(
        cine::open_with(file.path(), OpenOptions { fps: Some(0.0), bits: 16 }),
        Err(CineError::File { .. })
    ));
}

#[test]
fn what_is_not_read_is_named() {
    for (syntax, name) in [
        (uids::MPEG4HP41, "H.264"),
        (uids::JPEGLS_LOSSLESS, "JPEG-LS"),
        (uids::HEVCMP51, "HEVC"),
        ("1.2.3.4", "1.2.3.4"),
    ] {
        let file = Object::color(8, 8, 1, "YBR_FULL_422").encapsulated(vec![vec![1; 8]]).save(syntax);
        let said = refusal(file.path());
        assert!(said.contains(name) && said.ends_with(&file.path().display().to_string()), "{said}");
    }
    let object = Object::color(8, 8, 1, "HSV").native(&[0; 192]);
    assert!(refusal(object.save(uids::EXPLICIT_VR_LITTLE_ENDIAN).path()).contains("'HSV'"));
}

#[test]
fn uncompressed_data_of_another_length_are_refused() {
    let save = |o: Object, bytes: usize| o.native(&vec![7; bytes]).save(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    // One byte makes an odd length even, and is no picture.
    assert_eq!(read(save(Object::gray(3, 3, 3, 8), 27).path()).len(), 3);
    assert_eq!(read(save(Object::gray(3, 3, 3, 8), 28).path()).len(), 3);
    // Padding behind the last frame is no picture either.
    assert_eq!(read(save(Object::gray(3, 3, 3, 8), 32).path()).len(), 3);
    assert_eq!(read(save(Object::gray(4, 2, 2, 8), 18).path()).len(), 2);
    // As with a label that forgets frames, or another size of them.
    for bytes in [24, 26, 30, 36] {
        let said = refusal(save(Object::gray(3, 3, 3, 8), bytes).path());
        assert!(said.contains("need 27 bytes") && said.contains(&format!("has {bytes}")), "{said}");
    }
    // Full-rate data under the label of half-rate ones: every frame but the first would begin in another one.
    let said = refusal(save(Object::color(4, 2, 2, "YBR_FULL_422"), 48).path());
    for part in ["the label says 4:2:2", "32 bytes", "full-rate (48 bytes)", "YBR_FULL or RGB"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(read(save(Object::color(4, 2, 2, "YBR_FULL_422"), 32).path()).len(), 2);
    // Uncompressed, and yet in fragments.
    let object = |bytes| Object::gray(4, 2, 2, 8).encapsulated(vec![vec![7; 8], vec![7; bytes]]);
    for padded in [8, 12] {
        assert_eq!(read(object(padded).save(ENCAPSULATED).path()).len(), 2);
    }
    let said = refusal(object(16).save(ENCAPSULATED).path());
    assert!(said.contains("frame 1 needs 8 bytes, 16 are there"), "{said}");
}

#[test]
fn a_data_set_without_header_is_recognised() {
    for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN] {
        let whole = Object::gray(2, 2, 1, 8).native(&[1, 2, 3, 4]).save(syntax);
        let bytes = fs::read(whole.path()).unwrap();
        // The meta group's length stands behind the mark and its own header.
        let meta = 144 + u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
        for start in [132, meta] {
            let file = unchecked(&bytes[start..]);
            assert_eq!(recognise(file.path()), Some(Kind::Dicom));
            assert_eq!(read(file.path())[0].data, [1, 2, 3, 4]);
        }
    }
}

#[test]
fn hostile_dicom_is_refused_with_a_reason() {
    let promise = |o: Object, want: &str| {
        let said = refusal(o.native(&[0; 64]).save(uids::EXPLICIT_VR_LITTLE_ENDIAN).path());
        assert!(said.contains(want), "{said}");
    };
    promise(Object::gray(65_535, 65_535, 1, 8), "65535x65535");
    promise(Object::gray(0, 8, 1, 8), "0x8");
    promise(Object::gray(8, 8, 1, 8).text(tags::NUMBER_OF_FRAMES, "2147483647"), "2147483647 frames");
    promise(Object::gray(8, 8, 1, 8).text(tags::NUMBER_OF_FRAMES, "-3"), "'-3'");
    promise(Object::gray(8, 8, 1, 8).number(tags::BITS_ALLOCATED, 32), "32 bits");
    promise(Object::gray(8, 8, 1, 8).number(tags::HIGH_BIT, 40), "bit 40");
    promise(Object::gray(8, 8, 1, 8).number(tags::SAMPLES_PER_PIXEL, 3), "1 samples");
    promise(Object::gray(8, 8, 1, 8).text(tags::PHOTOMETRIC_INTERPRETATION, "PALETTE COLOR"), "colour table");

    // A hundred thousand sequences inside each other: fatal to a recursive parser.
    let head =
        fs::read(Object::gray(8, 8, 1, 8).native(&[0; 64]).save(uids::EXPLICIT_VR_LITTLE_ENDIAN).path());
    let head = &head.unwrap()[132..];
    let nest =
        [0x18, 0, 0x11, 0x60, b'S', b'Q', 0, 0, 255, 255, 255, 255, 0xfe, 0xff, 0, 0xe0, 255, 255, 255, 255];
    let meta = 12 + u32::from_le_bytes(head[8..12].try_into().unwrap()) as usize;
    let bytes = [&[0; 128], &b"DICM"[..], &head[..meta], &nest.repeat(100_000)].concat();
    assert!(refusal(unchecked(&bytes).path()).contains("nested deeper"));
    // An element that promises four gigabytes.
    let huge = [0x18, 0, 0x30, 0x10, b'U', b'T', 0, 0, 0xfe, 255, 255, 255, b'x'];
    let bytes = [&[0; 128], &b"DICM"[..], &head[..meta], &huge].concat();
    assert!(refusal(unchecked(&bytes).path()).contains("4294967294 bytes"));
    // A representation nobody knows, whose length parsers could read differently.
    let odd = [0x18, 0, 0x63, 0x10, b'O', b'X', 2, 0, b'9', b'9', b'9', 0x7f];
    let bytes = [&[0; 128], &b"DICM"[..], &head[..meta], &odd].concat();
    assert!(refusal(unchecked(&bytes).path()).contains("(0018,1063) has no value representation"));
    // Sequences of defined length inside each other, implicit: skipped, so the picture behind them is read.
    let whole = Object::gray(2, 2, 1, 8).native(&[1, 2, 3, 4]).save(uids::IMPLICIT_VR_LITTLE_ENDIAN);
    let whole = fs::read(whole.path()).unwrap();
    let meta = 144 + u32::from_le_bytes(whole[140..144].try_into().unwrap()) as usize;
    let levels = 100_000u32;
    let nest = (0..levels).flat_map(|i| {
        let inner = 16 * (levels - i) - 8;
        [[0x18, 0, 0x11, 0x60], inner.to_le_bytes(), [0xfe, 0xff, 0, 0xe0], (inner - 8).to_le_bytes()]
            .concat()
    });
    let at = meta + whole[meta..].windows(4).position(|w| w == [0x28, 0, 2, 0]).unwrap();
    let bytes = [&whole[..at], &nest.collect::<Vec<_>>(), &whole[at..]].concat();
    assert_eq!(read(unchecked(&bytes).path())[0].data, [1, 2, 3, 4]);
}

/// Cuts and flips in every kind of file: an error or pictures of the promised size, never a panic.
#[test]
fn damaged_files_never_panic() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cine/gradient_rgb.j2k");
    let pictures = vec![jpeg(&[[9, 99, 199]; 256], 16), jpeg(&[[99, 9, 1]; 256], 16)];
    let noise: Vec<u8> = (0..=255u8).map(|i| i.wrapping_mul(77) >> (i % 3)).collect();
    let inputs = [
        Object::color(16, 16, 2, "YBR_FULL_422").encapsulated(pictures).save(uids::JPEG_BASELINE8_BIT),
        Object::color(16, 12, 1, "YBR_RCT")
            .encapsulated(vec![fs::read(fixture).unwrap()])
            .save(uids::JPEG2000_LOSSLESS),
        Object::gray(16, 16, 2, 8)
            .encapsulated(vec![rle(&noise, 1, 1), rle(&noise, 1, 1)])
            .save(uids::RLE_LOSSLESS),
        Object::gray(16, 8, 2, 8).palette(0, &[[1, 2, 3]; 9]).native(&noise).save(BIG_ENDIAN),
        Object::gray(16, 8, 1, 16).native(&noise).save(uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN),
        metaimage("NDims = 3\nDimSize = 16 8 2\nElementType = MET_UCHAR\n", &noise, true),
        write_png(&[[1, 2, 3]; 64], 8),
    ];
    let mut rng = Rng(0x5eed_cafe);
    let (mut refused, mut readable) = (0, 0);
    for input in &inputs {
        let whole = fs::read(input.path()).unwrap();
        assert!(!read(input.path()).is_empty());
        for round in 0..150 {
            let mut bytes = whole.clone();
            if round % 3 == 0 {
                bytes.truncate(rng.below(whole.len()));
            } else {
                for _ in 0..=rng.below(6) {
                    let at = rng.below(bytes.len());
                    bytes[at] = rng.below(256) as u8;
                }
            }
            fs::write(input.path(), &bytes).unwrap();
            match open(input.path()).and_then(|mut r| all(r.as_mut())) {
                Ok(frames) => {
                    readable += 1;
                    for f in frames {
                        let pixel = if f.format == PixelFormat::Gray8 { 1 } else { 4 };
                        assert_eq!(f.data.len(), f.width * f.height * pixel);
                    }
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 300 && readable > 50, "{refused} refused, {readable} read");
}
