//! Folders of labelled pictures: what is read from them, and every mistake that a person can make.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::{Path, PathBuf};

use image::codecs::png::PngEncoder;
use image::{GrayImage, ImageBuffer, ImageEncoder as _, Luma, Rgb, RgbImage};
use proptest::prelude::*;
use sonomask::dataset::{
    ClassLabel, Dataset, DatasetSpec, Labels, MaskLayout, Problem, SplitError, folds, named, patients,
};

const SIZE: (u32, u32) = (13, 7);

fn spec(root: &Path, layout: MaskLayout) -> DatasetSpec {
    let class = |(name, label): (&str, u16)| ClassLabel { name: name.to_owned(), label };
    let classes = [("nerve", 1), ("vessel", 2)].map(class).to_vec();
    DatasetSpec {
        name: "arm".into(),
        root: root.to_owned(),
        images: None,
        masks: None,
        classes,
        layout,
        bits: 16,
    }
}

fn folder(root: &Path, name: &str) -> PathBuf {
    let path = root.join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn gray(value: impl Fn(u32, u32) -> u8) -> GrayImage {
    GrayImage::from_fn(SIZE.0, SIZE.1, |x, y| Luma([value(x, y)]))
}

/// A PNG with a palette of misleading colours, `depth` bits a pixel.
fn palette(file: &Path, depth: png::BitDepth, value: impl Fn(u32, u32) -> u8) {
    let mut encoder = png::Encoder::new(std::fs::File::create(file).unwrap(), SIZE.0, SIZE.1);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(depth);
    encoder.set_palette([255, 255, 255, 0, 0, 0, 0, 0, 0, 9, 9, 9].to_vec());
    let bits = depth as usize;
    let mut bytes = Vec::new();
    for y in 0..SIZE.1 {
        let mut row = vec![0u8; (SIZE.0 as usize * bits).div_ceil(8)];
        for x in 0..SIZE.0 {
            let at = x as usize * bits;
            row[at / 8] |= value(x, y) << (8 - bits - at % 8);
        }
        bytes.extend(row);
    }
    encoder.write_header().unwrap().write_image_data(&bytes).unwrap();
}

/// Nerve on the left, vessel in a corner.
fn label(x: u32, y: u32) -> u8 {
    match (x, y) {
        (0..4, _) => 1,
        (9.., 5..) => 2,
        _ => 0,
    }
}

fn open(spec: &DatasetSpec) -> Result<Dataset, Vec<Problem>> {
    Dataset::open(spec, |_, _| ()).map_err(|e| e.problems)
}

#[test]
fn palettes_and_gray_values_are_labels_whatever_their_colours_and_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (imgs, gts) = (folder(dir.path(), "imgs"), folder(dir.path(), "gts"));
    let (w, h) = SIZE;
    let deep = ImageBuffer::from_fn(w, h, |x, y| Luma([u16::from(label(x, y))]));
    for (i, name) in ["p2", "p4", "p8", "gray", "deep", "tiff"].into_iter().enumerate() {
        match i % 3 {
            0 => gray(|x, _| x as u8).save(imgs.join(format!("{name}.png"))).unwrap(),
            1 => RgbImage::from_pixel(w, h, Rgb([9, 8, 7])).save(imgs.join(format!("{name}.jpg"))).unwrap(),
            _ => deep.save(imgs.join(format!("{name}.tif"))).unwrap(),
        }
    }
    palette(&gts.join("p2.png"), png::BitDepth::Two, label);
    palette(&gts.join("p4.png"), png::BitDepth::Four, label);
    palette(&gts.join("p8.png"), png::BitDepth::Eight, label);
    gray(label).save(gts.join("gray.png")).unwrap();
    deep.save(gts.join("deep.png")).unwrap();
    deep.save(gts.join("tiff.tif")).unwrap();
    std::fs::write(imgs.join(".hidden.png"), "x").unwrap();
    std::fs::write(imgs.join("notes.txt"), "x").unwrap();

    let mut heard = Vec::new();
    let data = Dataset::open(&spec(dir.path(), MaskLayout::Index), |at, of| heard.push((at, of))).unwrap();
    assert_eq!((heard.len(), heard.last()), (7, Some(&(6, 6))));
    assert_eq!(data.samples.len(), 6);
    for sample in &data.samples {
        assert_eq!(sample.areas, [28, 8], "{}", sample.name);
        assert_eq!(sample.size, (13, 7));
        let masks = data.masks(sample).unwrap();
        for (x, y) in (0..w).flat_map(|x| (0..h).map(move |y| (x, y))) {
            for (class, mask) in masks.iter().enumerate() {
                let inside = usize::from(label(x, y)) == class + 1;
                assert_eq!(mask.get(x as usize, y as usize), inside, "{} {x},{y}", sample.name);
            }
        }
        assert_eq!(data.image(sample).unwrap().data.len(), 13 * 7 * 3);
    }
    // The images of 16 bits hold 0 to 2, which is nothing of 16 and something of 8.
    let told = DatasetSpec { bits: 8, ..spec(dir.path(), MaskLayout::Index) };
    let told = Dataset::open(&told, |_, _| {}).unwrap();
    let brightest = |data: &Dataset| data.image(&data.samples[5]).unwrap().data.into_iter().max();
    assert_eq!(
        (told.samples[5].name.as_str(), brightest(&data), brightest(&told)),
        ("tiff", Some(0), Some(2))
    );
}

#[test]
fn one_binary_mask_a_class_and_none_where_it_is_absent() {
    let dir = tempfile::tempdir().unwrap();
    let imgs = folder(dir.path(), "images");
    let (nerve, vessel) = (folder(dir.path(), "masks/nerve"), folder(dir.path(), "masks/vessel"));
    for name in ["a", "b"] {
        gray(|x, y| (x * y) as u8).save(imgs.join(format!("{name}.bmp"))).unwrap();
    }
    gray(|x, _| if x < 4 { 255 } else { 0 }).save(nerve.join("a.png")).unwrap();
    let red = |x, _| if x == 0 { Rgb([1, 0, 0]) } else { Rgb([0, 0, 0]) };
    RgbImage::from_fn(SIZE.0, SIZE.1, red).save(vessel.join("a.png")).unwrap();
    let blurred = gray(|x, _| if x < 8 { 255 } else { 0 });
    blurred.save(vessel.join("b.jpg")).unwrap();
    let data = open(&spec(dir.path(), MaskLayout::PerClass)).unwrap();
    let areas: Vec<_> = data.samples.iter().map(|s| s.areas.clone()).collect();
    assert_eq!(areas, [vec![28, 7], vec![0, 56]]);
    assert_eq!(data.masks(&data.samples[1]).unwrap()[0].area(), 0);
}

#[test]
fn every_mistake_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (imgs, gts) = (folder(dir.path(), "imgs"), folder(dir.path(), "gts"));
    let good = gray(|x, _| u8::from(x < 3));
    for name in ["good", "nomask", "size", "label", "colour", "lossy", "broken", "twice"] {
        good.save(imgs.join(format!("{name}.png"))).unwrap();
    }
    std::fs::write(imgs.join("unreadable.png"), b"\x89PNG\r\n\x1a\nrubbish").unwrap();
    good.save(imgs.join("twice.jpg")).unwrap();
    for name in ["good", "twice", "unreadable", "nobody"] {
        good.save(gts.join(format!("{name}.png"))).unwrap();
    }
    GrayImage::from_pixel(SIZE.0, SIZE.1 + 1, Luma([5])).save(gts.join("size.png")).unwrap();
    gray(|x, _| if x == 2 { 7 } else { 0 }).save(gts.join("label.png")).unwrap();
    RgbImage::from_pixel(SIZE.0, SIZE.1, image::Rgb([1, 1, 0])).save(gts.join("colour.png")).unwrap();
    good.save(gts.join("lossy.jpg")).unwrap();
    let whole = std::fs::read(gts.join("good.png")).unwrap();
    std::fs::write(gts.join("broken.png"), &whole[..whole.len() - 20]).unwrap();

    let error = Dataset::open_to_learn(&spec(dir.path(), MaskLayout::Index), |_, _| ()).unwrap_err();
    let text = error.to_string();
    for part in [
        "no mask for the image",
        "no image for the mask",
        "nobody.png",
        "unreadable.png",
        "two files of one name",
        "the mask is 13x8, its image 13x7",
        "104 pixels have label 5, expected one of [0, 1, 2]",
        "7 pixels have label 7, expected one of [0, 1, 2]",
        "it is in colours",
        "JPEG blurs labels",
        "broken.png",
        "class \"vessel\" is in no image",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(error.problems.len(), 11, "{text}");
    assert!(text.starts_with("the data set \"arm\" has 11 mistakes:"), "{text}");
}

#[test]
fn a_specification_that_makes_no_sense_is_told_too() {
    let dir = tempfile::tempdir().unwrap();
    let class = |name: &str, label| ClassLabel { name: name.to_owned(), label };
    let wrong = DatasetSpec {
        classes: vec![class("a", 1), class("a", 2), class("b", 2), class("c", 0)],
        ..spec(dir.path(), MaskLayout::Index)
    };
    let problems = open(&wrong).unwrap_err();
    assert!(problems.contains(&Problem::ClassName { class: "a".into() }));
    assert!(problems.contains(&Problem::SameLabel { label: 2, classes: ["a".into(), "b".into()] }));
    assert!(problems.contains(&Problem::BackgroundLabel { class: "c".into() }));
    assert_eq!(problems.iter().filter(|p| matches!(p, Problem::NoFolder { .. })).count(), 2);

    folder(dir.path(), "imgs");
    folder(dir.path(), "gts");
    assert_eq!(open(&spec(dir.path(), MaskLayout::Index)).unwrap_err(), [Problem::NoPictures]);
    let none = DatasetSpec { classes: Vec::new(), ..spec(dir.path(), MaskLayout::Index) };
    assert!(open(&none).unwrap_err().contains(&Problem::NoClasses));
}

#[test]
fn a_class_that_is_nowhere_cannot_be_learned_and_can_be_measured() {
    let dir = tempfile::tempdir().unwrap();
    let (imgs, gts) = (folder(dir.path(), "imgs"), folder(dir.path(), "gts"));
    let nerve = gray(|x, _| u8::from(x < 3));
    nerve.save(imgs.join("a.png")).unwrap();
    nerve.save(gts.join("a.png")).unwrap();
    let spec = spec(dir.path(), MaskLayout::Index);
    assert_eq!(open(&spec).unwrap().samples[0].areas, [21, 0]);
    let refused = Dataset::open_to_learn(&spec, |_, _| ()).unwrap_err().problems;
    assert_eq!(refused, [Problem::EmptyClass { class: "vessel".into() }]);
}

/// A BMP of `depth` bits a pixel with a palette of misleading colours, its rows from below.
fn bmp(file: &Path, depth: u8, value: impl Fn(u32, u32) -> u8) {
    let row = (usize::from(depth) * SIZE.0 as usize).div_ceil(32) * 4;
    let (colours, offset) = (1u32 << depth, 54 + (4u32 << depth));
    let mut bytes = b"BM".to_vec();
    for number in [offset + SIZE.1 * row as u32, 0, offset, 40, SIZE.0, SIZE.1] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([1, 0, depth, 0]);
    for number in [0, 0, 0, 0, colours, 0] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend((0..colours).flat_map(|i| [255 - i as u8, 7, i as u8 / 2, 0]));
    for y in (0..SIZE.1).rev() {
        let mut line = vec![0u8; row];
        for x in 0..SIZE.0 {
            let at = x as usize * usize::from(depth);
            line[at / 8] |= value(x, y) << (8 - usize::from(depth) - at % 8);
        }
        bytes.extend(line);
    }
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn labels_that_are_stored_in_three_equal_colours_are_labels() {
    let dir = tempfile::tempdir().unwrap();
    let expected: Vec<u16> =
        (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| u16::from(label(x, y)))).collect();
    let rgb = |blue: u8| {
        RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| {
            let v = label(x, y);
            image::Rgb([v, v, v.saturating_sub(blue)])
        })
    };
    for extension in ["png", "tif", "ppm", "bmp"] {
        let file = dir.path().join("m").with_extension(extension);
        rgb(0).save(&file).unwrap();
        assert_eq!(Labels::read(&file).unwrap().values, expected, "{extension}");
        rgb(1).save(&file).unwrap();
        assert!(Labels::read(&file).unwrap_err().contains("in colours"), "{extension}");
    }
    let file = dir.path().join("m.png");
    let deep = |green: u16| {
        image::ImageBuffer::<image::Rgba<u16>, Vec<u16>>::from_fn(SIZE.0, SIZE.1, |x, y| {
            let v = 300 * u16::from(label(x, y));
            image::Rgba([v, v.saturating_sub(green), v, 7])
        })
    };
    deep(0).save(&file).unwrap();
    assert_eq!(Labels::read(&file).unwrap().values, expected.iter().map(|v| 300 * v).collect::<Vec<_>>());
    deep(1).save(&file).unwrap();
    assert!(Labels::read(&file).unwrap_err().contains("in colours"));
}

#[test]
fn a_bmp_is_read_by_its_indices() {
    let dir = tempfile::tempdir().unwrap();
    let expected: Vec<u16> =
        (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| u16::from(label(x, y)))).collect();
    let file = dir.path().join("m.bmp");
    bmp(&file, 8, label);
    assert_eq!(Labels::read(&file).unwrap().values, expected, "a palette");
    gray(label).save(&file).unwrap();
    assert_eq!(Labels::read(&file).unwrap().values, expected, "gray");
    bmp(&file, 4, label);
    assert!(Labels::read(&file).unwrap_err().contains("fewer than 8 bits"));
    RgbImage::from_pixel(SIZE.0, SIZE.1, image::Rgb([1, 1, 0])).save(&file).unwrap();
    assert!(Labels::read(&file).unwrap_err().contains("in colours"));
    bmp(&file, 8, label);
    let whole = std::fs::read(&file).unwrap();
    for end in 0..whole.len() {
        std::fs::write(&file, &whole[..end]).unwrap();
        assert!(Labels::read(&file).is_err(), "{end} of {} bytes", whole.len());
    }
}

#[test]
fn an_orientation_tag_turns_a_mask_as_its_picture() {
    // Exif, little-endian: one entry, the orientation, 6: a quarter turn to the right.
    let tag = |orientation: u8| {
        let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        exif
    };
    let save = |file: PathBuf, orientation: u8, picture: &GrayImage| {
        let mut encoder = PngEncoder::new(std::fs::File::create(file).unwrap());
        encoder.set_exif_metadata(tag(orientation)).unwrap();
        encoder.write_image(picture, SIZE.0, SIZE.1, image::ExtendedColorType::L8).unwrap();
    };
    for orientation in 1..=8 {
        let dir = tempfile::tempdir().unwrap();
        let (imgs, gts) = (folder(dir.path(), "imgs"), folder(dir.path(), "gts"));
        let labels = gray(label);
        // As bright as its label, so that the picture shows its mask.
        save(imgs.join("a.png"), orientation, &gray(|x, y| label(x, y) * 100));
        save(gts.join("a.png"), orientation, &labels);
        let data = open(&spec(dir.path(), MaskLayout::Index)).unwrap();
        let (image, masks) = (data.image(&data.samples[0]).unwrap(), data.masks(&data.samples[0]).unwrap());
        assert_eq!(image.width, if orientation < 5 { 13 } else { 7 });
        for (at, pixel) in image.data.chunks_exact(3).enumerate() {
            let (x, y) = (at % image.width, at / image.width);
            let seen = masks.iter().position(|mask| mask.get(x, y)).map_or(0, |class| class as u8 + 1);
            assert_eq!(pixel[0], seen * 100, "{orientation}: {x},{y}");
        }
        // What has one mask a class is turned too.
        let turned = Labels::inside(&gts.join("a.png")).unwrap();
        assert_eq!((turned.width, turned.height), (image.width, image.height));
    }
}

#[test]
fn garbage_is_never_a_mask() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("m.png");
    palette(&file, png::BitDepth::Four, label);
    let whole = std::fs::read(&file).unwrap();
    for end in 0..whole.len() - 12 {
        std::fs::write(&file, &whole[..end]).unwrap();
        assert!(Labels::read(&file).is_err(), "{end} of {} bytes", whole.len());
        assert!(Labels::inside(&file).is_err(), "{end} of {} bytes", whole.len());
    }
    assert!(Labels::read(&dir.path().join("none.png")).is_err());
}

#[test]
fn lists_name_pictures_with_or_without_extension() {
    let names = ["a", "b.1", "c"];
    assert_eq!(named(&names, "a.png # the first\n\n# nothing\nb.1\n").unwrap(), [true, true, false]);
    // The name itself before a name without extension, wherever it stands; and what looks like an extension may be none.
    let scans = ["scan", "scan.2", "scan.png"];
    assert_eq!(named(&scans, "scan.2").unwrap(), [false, true, false]);
    assert_eq!(named(&scans, "scan.png").unwrap(), [false, false, true]);
    assert_eq!(named(&scans, "scan.PNG\r\nscan.2.png # why").unwrap(), [true, true, false]);
    assert!(named(&["scan"], "scan.2").is_err());
    let odd = ["a", "a #1", "#2", " a", "a#b"];
    assert_eq!(named(&odd, "a #1").unwrap(), [false, true, false, false, false]);
    assert_eq!(named(&odd, "a #1.png # first\na#b").unwrap(), [false, true, false, false, true]);
    assert_eq!(named(&odd, "#2\n# 2\n a").unwrap(), [false, false, true, true, false]);
    assert_eq!(named(&odd, "  a # first").unwrap(), [true, false, false, false, false]);
    let unknown = named(&names, "a\nx\ny.png").unwrap_err();
    assert_eq!(unknown, SplitError::Unknown { names: vec!["x".into(), "y.png".into()] });
    assert_eq!(folds(&names, None, 4, 0), Err(SplitError::Folds { folds: 4, groups: 3, patients: false }));
    let told = folds(&names, None, 4, 0).unwrap_err().to_string();
    assert_eq!(told, "3 pictures cannot make 4 parts: expected 2 to 3 parts");
    let told = folds(&["a_1", "a_2"], Some("_"), 2, 0).unwrap_err().to_string();
    assert_eq!(told, "one patient cannot make 2 parts: expected more patients, or folds = 0");
    assert!(folds(&names, None, 1, 0).is_err());
    // The same on every machine and in every version.
    let names: Vec<String> = (0..10).map(|i| i.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(folds(&names, None, 5, 7).unwrap(), folds(&names, None, 5, 7).unwrap());
    assert_ne!(folds(&names, None, 5, 7).unwrap(), folds(&names, None, 5, 8).unwrap());
}

#[test]
fn every_name_says_whose_picture_it_is() {
    let names = ["p1_a", "p1_b", "p2", "p3-a"];
    assert_eq!(patients(&names[..2], Some("_")).unwrap(), ["p1", "p1"]);
    assert_eq!(patients(&names, None).unwrap(), names);
    let refused = folds(&names, Some("_"), 2, 0).unwrap_err();
    assert_eq!(refused.to_string(), "2 of 4 names have no \"_\" behind the patient's part: p2, p3-a");
    assert_eq!(patients(&names, Some("")), Err(SplitError::EmptyMark));
    let many: Vec<String> = (0..9).map(|i| i.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let told = patients(&many, Some("_")).unwrap_err().to_string();
    assert!(told.starts_with("9 of 9 names") && told.ends_with("0, 1, 2, 3, 4 and 4 more"), "{told}");
}

proptest! {
    #[test]
    fn a_list_of_names_is_read_back_as_it_was_written(
        names in proptest::collection::btree_set("[ab #.\t]{1,4}(\\.png)?", 1..12), chosen in any::<u16>(),
    ) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let chosen: Vec<bool> = (0..names.len()).map(|at| chosen >> at & 1 == 1).collect();
        let held = names.iter().zip(&chosen).filter(|(_, chosen)| **chosen);
        let list: String = held.map(|(name, _)| format!("{name}\n")).collect();
        prop_assert_eq!(named(&names, &list).unwrap(), chosen);
    }

    #[test]
    fn patients_are_never_torn_apart(
        patients in proptest::collection::vec(0u8..12, 6..60), parts in 2usize..5, seed in 0u64..50,
    ) {
        let names: Vec<String> = patients.iter().enumerate().map(|(i, p)| format!("p{p}_{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut distinct = patients.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let found = folds(&names, Some("_"), parts, seed);
        prop_assert_eq!(found.is_ok(), parts <= distinct.len());
        let Ok(found) = found else { return Ok(()) };
        for (a, p) in patients.iter().enumerate() {
            for (b, q) in patients.iter().enumerate() {
                prop_assert!(p != q || found[a] == found[b]);
            }
        }
        let sizes: Vec<usize> = (0..parts).map(|part| found.iter().filter(|f| **f == part).count()).collect();
        prop_assert!(sizes.iter().all(|size| *size > 0));
        let largest = distinct.iter().map(|d| patients.iter().filter(|p| *p == d).count()).max().unwrap();
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= largest);
    }
}
