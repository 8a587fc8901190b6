//! What a file says of itself, in the order in which it counts, and files that are wrong, hostile or damaged.

use std::fs;
use std::path::Path;

use dicom_dictionary_std::{tags, uids};
use sonomask::cine::{self, CineError, Kind, OpenOptions, Timing, open, recognise};
use sonomask::frame::{PixelFormat, Pts};

use super::{BIG_ENDIAN, all, read, refusal};
use crate::cine_inputs::{Object, Rng, jpeg, metaimage, rle, unchecked, write_png};

/// Encapsulated Uncompressed Explicit VR Little Endian.
const ENCAPSULATED: &str = "1.2.840.10008.1.2.1.98";

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
