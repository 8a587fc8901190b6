//! Recordings as the source of a benchmark: `source.kind = "file"`.

use std::path::Path;

use dicom_dictionary_std::uids;
use sonomask::bench::{BenchResult, CaseStatus, Footage, SourceChoice};
use sonomask::frame::PixelFormat;

use super::bench;
use crate::cine_inputs::Object;
use crate::program_support::{said, sonomask, weights};

/// What came of three calls of a model on the pictures of `recording`, on one thread.
#[track_caller]
fn measured(dir: &Path, recording: &Path) -> BenchResult {
    let config = format!(
        "[bench]\nwarmup = 1\nframes = 2\n[source]\nkind = \"file\"\npath = {recording:?}\npictures = 10\n\
         [matrix]\nloops = [\"closed\"]\ndevices = [\"cpu\"]\n\
         [[models]]\nfamily = \"lite-medsam\"\nweights = {:?}\nthreads = 1\n",
        weights()
    );
    std::fs::write(dir.join("file.toml"), config).unwrap();
    said(&bench(dir, &["--config", "file.toml", "--out", "out"]), 0);
    BenchResult::read(&dir.join("out/result.json")).unwrap()
}

#[test]
fn a_dicom_cine_loop_is_measured_with_its_own_pixels() {
    let (columns, rows) = (64_usize, 48_usize);
    let pictures: Vec<Vec<u8>> =
        (0..3).map(|i| (0..rows * columns).map(|p| (p * 7 + i * 50) as u8).collect()).collect();
    let file = Object::gray(columns as u16, rows as u16, 3, 8).native(&pictures.concat());
    let file = file.save(uids::EXPLICIT_VR_LITTLE_ENDIAN);

    gstreamer::init().unwrap();
    let footage = Footage::load(&SourceChoice::File(file.path().to_owned()), 10, None, None).unwrap();
    let format = &footage.format;
    assert_eq!((format.pixel, footage.width(), footage.height()), (PixelFormat::Gray8, columns, rows));
    for (i, picture) in pictures.iter().enumerate() {
        let shown = footage.view(i as u64, |view| view.plane(0).data.to_vec()).unwrap();
        assert_eq!(&shown, picture, "picture {i}");
    }

    let dir = tempfile::tempdir().unwrap();
    let result = measured(dir.path(), file.path());
    let [case] = &result.cases[..] else { panic!("{} cases", result.cases.len()) };
    assert_eq!((case.status, case.rows.len()), (CaseStatus::Done, 3), "{:?}", case.reason);
    assert_eq!(case.source, "3 pictures of 64x48 from a recording");
    assert_eq!(case.used.pictures_bytes as usize, pictures.concat().len());
    assert_eq!(case.used.threads, Some(1), "as the model asks for, whatever the machine's are");
    assert!(case.case.name.contains("own size"), "{}", case.case.name);
}

#[test]
fn a_video_is_decoded_by_gstreamer_and_measured() {
    let dir = tempfile::tempdir().unwrap();
    let clip = ["phantom", "--output", "p.mkv", "--frames", "4"];
    let size = ["--set", "phantom.width=160", "--set", "phantom.height=120"];
    said(&sonomask(dir.path()).args(clip).args(size).output().unwrap(), 0);
    let result = measured(dir.path(), &dir.path().join("p.mkv"));
    let [case] = &result.cases[..] else { panic!("{} cases", result.cases.len()) };
    assert_eq!((case.status, case.rows.len()), (CaseStatus::Done, 3), "{:?}", case.reason);
    assert_eq!(case.source, "4 pictures of 160x120 from a recording");
}
