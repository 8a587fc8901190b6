//! MetaImage sequences, folders and globs, against files made here.

mod cine_inputs;

use std::fs;
use std::path::Path;
use std::time::Duration;

use cine_inputs::{metaimage, unchecked, write_png, zlib};
use image::ExtendedColorType;
use sonomask::cine::{CineFrame, Kind, OpenOptions, Timing, open, open_with, recognise};
use sonomask::frame::{PixelFormat, Pts};

fn read(path: &Path) -> Result<Vec<CineFrame>, String> {
    let mut reader = open(path).map_err(|e| e.to_string())?;
    let mut frames = Vec::new();
    while let Some(frame) = reader.next_frame().map_err(|e| e.to_string())? {
        frames.push(frame);
    }
    assert_eq!(frames.len(), reader.frames());
    Ok(frames)
}

/// A 2x2 header of `frames` frames.
fn fields(frames: usize, element: &str, more: &str) -> String {
    format!("NDims = 3\nDimSize = 2 2 {frames}\nElementType = {element}\n{more}")
}

#[test]
fn plus_sequences_carry_their_times() {
    let data: Vec<u8> = (0..12).collect();
    let stamps =
        "Seq_Frame0000_Timestamp = 5.5\nSeq_Frame0001_Timestamp = 5.6\nSeq_Frame0002_Timestamp = 6\n";
    for compressed in [false, true] {
        let file = metaimage(&fields(3, "MET_UCHAR", stamps), &data, compressed);
        let reader = open(file.path()).unwrap();
        assert_eq!(reader.timing(), Timing::File("Seq_Frame Timestamp".into()));
        let frames = read(file.path()).unwrap();
        assert_eq!(frames[1].pts, Pts(100_000_000));
        assert_eq!(frames[1].duration, Duration::from_millis(400));
        assert_eq!(frames[2].pts, Pts(500_000_000));
        assert_eq!((frames[2].format, &frames[2].data[..]), (PixelFormat::Gray8, &data[8..]));
    }
    // A frame without a picture is left out, and the times of the others stay.
    let invalid = format!("{stamps}Seq_Frame0001_ImageStatus = INVALID\n");
    let file = metaimage(&fields(3, "MET_UCHAR", &invalid), &data, true);
    assert!(open(file.path()).unwrap().describe().contains("1 more marked INVALID"));
    let frames = read(file.path()).unwrap();
    assert_eq!((frames.len(), &frames[1].data[..]), (2, &data[8..]));
    assert_eq!((frames[0].duration, frames[1].pts), (Duration::from_millis(500), Pts(500_000_000)));
    // Times that fall, or are not there for all, are not made up silently.
    for (bad, why) in
        [(stamps.replace("= 6", "= 5.6"), "do not rise at frame 2"), (stamps[..30].into(), "have none")]
    {
        let file = metaimage(&fields(3, "MET_UCHAR", &bad), &data, false);
        let timing = open(file.path()).unwrap().timing();
        assert!(matches!(&timing, Timing::Assumed(said) if said.contains(why)), "{timing:?}");
    }
}

#[test]
fn pictures_are_turned_upright() {
    for (orientation, want) in
        [("MF", [1, 2, 3, 4]), ("UF", [2, 1, 4, 3]), ("MN", [3, 4, 1, 2]), ("UNA", [4, 3, 2, 1])]
    {
        let more = format!("UltrasoundImageOrientation = {orientation}\n");
        let file = metaimage(&fields(1, "MET_UCHAR", &more), &[1, 2, 3, 4], false);
        assert_eq!(read(file.path()).unwrap()[0].data, want, "{orientation}");
    }
    let more = "UltrasoundImageOrientation = UF\nElementNumberOfChannels = 3\n";
    let file = metaimage(&fields(1, "MET_UCHAR", more), &(1..=12).collect::<Vec<u8>>(), true);
    let want = [4, 5, 6, 255, 1, 2, 3, 255, 10, 11, 12, 255, 7, 8, 9, 255];
    let frames = read(file.path()).unwrap();
    assert_eq!((frames[0].format, &frames[0].data[..]), (PixelFormat::Rgbx, &want[..]));
    let file = metaimage(&fields(1, "MET_UCHAR", "UltrasoundImageOrientation = FM\n"), &[0; 4], false);
    assert!(read(file.path()).unwrap_err().contains("FM"));
}

#[test]
fn every_number_type_is_scaled_by_the_first_frame() {
    // 0, 25, 50, 100 in the first frame; 100, 0, 200, 50 in the second: brighter than white stays white.
    let values = [0i16, 25, 50, 100, 100, 0, 200, 50];
    let want = [[0, 64, 128, 255], [255, 0, 255, 128]];
    let encode = |element: &str, msb: bool| -> Vec<u8> {
        let one = |v: i16| -> Vec<u8> {
            let mut bytes = match element {
                "MET_CHAR" => ((v - 100).clamp(-128, 127) as i8).to_le_bytes().to_vec(),
                "MET_USHORT" => (v as u16 + 1000).to_le_bytes().to_vec(),
                "MET_SHORT" => (v - 500).to_le_bytes().to_vec(),
                "MET_UINT" => (v as u32 + 3_000_000_000).to_le_bytes().to_vec(),
                "MET_INT" => (i32::from(v) - 70_000).to_le_bytes().to_vec(),
                "MET_FLOAT" => (f32::from(v) / 1000.0).to_le_bytes().to_vec(),
                _ => (f64::from(v) * 1e9).to_le_bytes().to_vec(),
            };
            if msb {
                bytes.reverse();
            }
            bytes
        };
        values.into_iter().flat_map(one).collect()
    };
    for element in ["MET_CHAR", "MET_USHORT", "MET_SHORT", "MET_UINT", "MET_INT", "MET_FLOAT", "MET_DOUBLE"] {
        for msb in [false, true] {
            let order = if msb { "BinaryDataByteOrderMSB = True\n" } else { "ElementByteOrderMSB = False\n" };
            let file = metaimage(&fields(2, element, order), &encode(element, msb), msb);
            let frames = read(file.path()).unwrap();
            assert_eq!((&frames[0].data[..], &frames[1].data[..]), (&want[0][..], &want[1][..]), "{element}");
        }
    }
    let nan: Vec<u8> = [f32::NAN, 1.0, 3.0, f32::INFINITY].iter().flat_map(|v| v.to_le_bytes()).collect();
    let file = metaimage(&fields(1, "MET_FLOAT", ""), &nan, false);
    assert_eq!(read(file.path()).unwrap()[0].data, [0, 0, 255, 255]);
}

#[test]
fn data_may_lie_beside_the_header_but_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let header = folder.path().join("loop.mhd");
    let write = |more: &str| fs::write(&header, fields(2, "MET_UCHAR", more)).unwrap();
    let data = [9, 9, 1, 2, 3, 4, 5, 6, 7, 8];
    fs::write(folder.path().join("loop.raw"), data).unwrap();
    for skip in ["2", "-1"] {
        write(&format!("HeaderSize = {skip}\nElementDataFile = loop.raw\n"));
        assert_eq!(read(&header).unwrap()[1].data, [5, 6, 7, 8]);
    }
    fs::write(folder.path().join("loop.zraw"), zlib(&data[2..])).unwrap();
    write("CompressedData = True\nElementDataFile = loop.zraw\n");
    assert_eq!(read(&header).unwrap()[0].data, [1, 2, 3, 4]);
    fs::write(folder.path().join("0.raw"), &data[..4]).unwrap();
    fs::write(folder.path().join("1.raw"), &data[4..8]).unwrap();
    write("ElementDataFile = LIST\n0.raw\n1.raw\n");
    assert_eq!(read(&header).unwrap()[1].data, [3, 4, 5, 6]);
    write("ElementDataFile = LIST\n0.raw\n2.raw\n");
    let said = read(&header).unwrap_err();
    assert!(said.contains("frame 1") && said.ends_with("2.raw"), "{said}");
    write("ElementDataFile = LIST\n0.raw\n");
    assert!(read(&header).unwrap_err().contains("LIST"));
    for name in ["/etc/passwd", "../loop.raw", "LIST\n0.raw\n/etc/passwd", "%d.raw 0 1 1", ""] {
        write(&format!("ElementDataFile = {name}\n"));
        assert!(open(&header).is_err(), "{name}");
    }
}

#[test]
fn promises_the_data_cannot_keep_are_refused() {
    let refuse = |header: &str, want: &str| {
        let file = metaimage(header, &[0; 8], true);
        let said = read(file.path()).unwrap_err();
        assert!(said.contains(want), "{said}");
    };
    refuse("NDims = 3\nDimSize = 4000 4000 900000\nElementType = MET_UCHAR\n", "promises 900000 frames");
    refuse("NDims = 4\nDimSize = 2 2 4000000000 1\nElementType = MET_UCHAR\n", "promises 4000000000");
    refuse("NDims = 3\nDimSize = 99999999 99999999 1\nElementType = MET_UCHAR\n", "99999999x99999999");
    refuse("NDims = 3\nDimSize = 2 2 0\nElementType = MET_UCHAR\n", "no frames");
    refuse("NDims = 2\nDimSize = 2 2 2\nElementType = MET_UCHAR\n", "DimSize");
    refuse("NDims = 3\nDimSize = 2 2 9\nElementType = MET_UCHAR\n", "frame 2");
    refuse(&fields(2, "MET_LONG", ""), "MET_LONG");
    refuse(&fields(2, "MET_UCHAR", "ElementNumberOfChannels = 2\n"), "2 channels");
    refuse(&fields(2, "MET_UCHAR", "UltrasoundImageType = RF_REAL\n"), "RF_REAL");
    refuse(&fields(2, "MET_UCHAR", &format!("X = {}\n", "y".repeat(70_000))), "longer");
    // More behind the promised frames is not unpacked.
    let file = metaimage(&fields(1, "MET_UCHAR", ""), &vec![7; 1 << 20], true);
    assert_eq!(read(file.path()).unwrap()[0].data, [7; 4]);
}

#[test]
fn folders_are_read_in_natural_order_with_their_own_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let save = |name: &str, w: u32, h: u32, kind: ExtendedColorType, data: &[u8]| {
        image::save_buffer(at(name), data, w, h, kind).unwrap();
    };
    save("img10.png", 1, 1, ExtendedColorType::Rgba8, &[4, 5, 6, 0]);
    save("img2.tif", 2, 1, ExtendedColorType::L8, &[7, 9]);
    let deep: Vec<u8> = [0u16, 257, 65_535].iter().flat_map(|v| v.to_ne_bytes()).collect();
    save("img1.png", 3, 1, ExtendedColorType::L16, &deep);
    save("img11.bmp", 1, 1, ExtendedColorType::Rgb8, &[1, 2, 3]);
    save("img12.pgm", 1, 1, ExtendedColorType::L8, &[77]);
    fs::write(at("notes.txt"), "not a picture").unwrap();
    fs::write(at(".hidden.png"), "not a picture").unwrap();

    assert_eq!(recognise(folder.path()), Some(Kind::Folder));
    let frames = read(folder.path()).unwrap();
    let seen: Vec<_> = frames.iter().map(|f| (f.width, f.format, f.data.clone())).collect();
    let (gray, color) = (PixelFormat::Gray8, PixelFormat::Rgbx);
    assert_eq!(
        seen,
        [
            (3, gray, vec![0, 1, 255]),
            (2, gray, vec![7, 9]),
            (1, color, vec![4, 5, 6, 255]),
            (1, color, vec![1, 2, 3, 255]),
            (1, gray, vec![77]),
        ]
    );
    let mut reader = open_with(&at("img1*.png"), OpenOptions { fps: Some(10.0), bits: 16 }).unwrap();
    assert_eq!(reader.frames(), 2);
    assert!(matches!(reader.timing(), Timing::Assumed(_)));
    reader.next_frame().unwrap();
    assert_eq!(reader.next_frame().unwrap().unwrap().pts, Pts(100_000_000));

    // Of twelve bits in use; other pictures have none to spread.
    let twelve: Vec<u8> = [0u16, 16, 2_048, 4_095].iter().flat_map(|v| v.to_ne_bytes()).collect();
    save("img1.png", 4, 1, ExtendedColorType::L16, &twelve);
    let colours: Vec<u8> = [4_095u16, 0, 2_048, 65_535].iter().flat_map(|v| v.to_ne_bytes()).collect();
    save("img10.png", 1, 1, ExtendedColorType::Rgba16, &colours);
    // A PNM says itself what its brightest value is.
    fs::write(at("img3.pgm"), b"P5 1 1 4095\n\x08\x00").unwrap();
    let gray: Vec<u8> = [2_048u16, 65_535].iter().flat_map(|v| v.to_ne_bytes()).collect();
    image::save_buffer(at("img4.png"), &gray, 1, 1, ExtendedColorType::La16).unwrap();
    save("img5.png", 1, 1, ExtendedColorType::Rgb16, &colours[..6]);
    let of = |bits: u8| {
        let mut reader = open_with(folder.path(), OpenOptions { fps: None, bits }).unwrap();
        let mut next =
            move || reader.next_frame().map(|frame| frame.unwrap().data).map_err(|e| e.to_string());
        [(); 6].map(|()| next())
    };
    // By number: 1.png, 2.tif, 3.pgm, 4.png, 5.png, 10.png.
    let spread = [
        vec![0, 1, 128, 255],
        vec![7, 9],
        vec![128],
        vec![128],
        vec![255, 0, 128, 255],
        vec![255, 0, 128, 255],
    ];
    assert_eq!(of(12), spread.map(Ok));
    let as_they_are =
        [vec![0, 0, 8, 16], vec![7, 9], vec![128], vec![8], vec![16, 0, 8, 255], vec![16, 0, 8, 255]];
    assert_eq!(of(16), as_they_are.map(Ok));
    let said = of(10)[0].clone().unwrap_err();
    assert!(said.contains("a pixel of 2048, where 10 bits") && said.contains("0 to 1023"), "{said}");
    assert!(said.contains("img1.png"), "{said}");
    let said = open_with(folder.path(), OpenOptions { fps: None, bits: 7 }).err().unwrap().to_string();
    assert!(said.contains("expected 8 to 16"), "{said}");

    for name in ["img3.pgm", "img4.png", "img5.png"] {
        fs::remove_file(at(name)).unwrap();
    }
    fs::write(at("img3.png"), "not a picture").unwrap();
    let said = read(folder.path()).unwrap_err();
    assert!(said.contains("frame 2") && said.contains("img3.png"), "{said}");
    // A TIFF of two pages: an empty directory that names a next one.
    fs::write(at("img3.png"), b"II*\0\x08\0\0\0\0\0\x20\0\0\0").unwrap();
    assert!(read(folder.path()).unwrap_err().contains("several pictures"));
    let empty = tempfile::tempdir().unwrap();
    assert!(read(empty.path()).unwrap_err().contains("no pictures"));
    assert!(read(&at("none*.png")).unwrap_err().contains("no pictures"));
}

#[test]
fn only_our_inputs_are_recognised() {
    assert_eq!(recognise(write_png(&[[0; 3]; 4], 2).path()), Some(Kind::Image));
    assert_eq!(
        recognise(metaimage(&fields(1, "MET_UCHAR", ""), &[0; 4], false).path()),
        Some(Kind::MetaImage)
    );
    assert_eq!(recognise(Path::new("pictures/*.png")), Some(Kind::Glob));
    assert_eq!(recognise(Path::new("no such file.dcm")), None);
    assert!(open(Path::new("no such file.dcm")).err().unwrap().to_string().contains("cannot open"));
    // The starts of MP4, Matroska, AVI and GIF; noise; group 0008 without an element behind it; nothing.
    let others: [&[u8]; 7] = [
        b"\0\0\0\x20ftypisom\0\0\x02\0",
        b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01",
        b"RIFF\0\0\0\0AVI LIST",
        b"GIF89a\x01\0\x01\0",
        &[0x55; 600],
        b"\x08\0\x05\0CS\x02\0ab",
        b"",
    ];
    for head in others {
        let file = unchecked(head);
        assert_eq!(recognise(file.path()), None, "{head:?}");
        assert!(open(file.path()).err().unwrap().to_string().starts_with("neither DICOM"));
    }
}
