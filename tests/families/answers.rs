//! What the networks answer: logits, one prompt a class, no overlap where none is wanted, and with a memory.

use sonomask::frame::{ImageView, PixelFormat, Plane, YuvColor};
use sonomask::mask::ClassMask;
use sonomask::segment::{DeviceChoice, Guidance, Mode, ModelSpec, Prompt, PromptError, SegmentError, load};
use sonomask::stage::StageTimes;

use super::{PICTURE, generated, json, sonomask};

/// `prompts` about the picture, to a network of random weights with two classes.
fn answers(weights: &str, spec: ModelSpec, prompts: Vec<Prompt>) -> Result<Vec<ClassMask>, SegmentError> {
    let picture = image::open(PICTURE).unwrap().into_rgba8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let plane = Plane { data: picture.as_raw(), stride: width * 4 };
    let view = ImageView::new(PixelFormat::Rgbx, width, height, YuvColor::default(), vec![plane]).unwrap();
    let spec = ModelSpec { weights: weights.into(), presence_threshold: 0.0, ..spec };
    let mut model = load(&spec, &DeviceChoice::Cpu.resolve().unwrap()).unwrap();
    let guidance = Guidance { mode: Mode::Assisted, prompts };
    model.segment(&view, &guidance, true, &mut StageTimes::default())
}

fn bounded(class: usize) -> Prompt {
    Prompt { class, bbox: Some([40.0, 40.0, 300.0, 300.0]), ..Prompt::default() }
}

#[test]
fn logits_are_the_networks_own_and_a_class_has_one_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let weights = generated(dir.path(), "lite-medsam", "single-scale");
    let segment = |area: usize, prompts: Vec<Prompt>| {
        let spec = ModelSpec { max_hole_area: area, max_sprinkle_area: area, ..ModelSpec::new("") };
        answers(&weights, spec, prompts)
    };
    let (raw, cleaned) = (segment(0, vec![bounded(0)]).unwrap(), segment(1 << 20, vec![bounded(0)]).unwrap());
    for (raw, cleaned) in raw.iter().zip(&cleaned) {
        assert_eq!(raw.logits.as_ref().unwrap().values, cleaned.logits.as_ref().unwrap().values);
    }
    // A mask of which everything is a hole or an island is all inside or all outside.
    assert!(raw.iter().zip(&cleaned).any(|(raw, cleaned)| raw.mask != cleaned.mask), "nothing was cleaned");

    let refused = segment(0, vec![bounded(1), bounded(1)]).unwrap_err();
    assert!(matches!(refused, SegmentError::Prompt(PromptError::Twice { class: 1 })), "{refused}");
}

/// A person speaks of one of the two, so that they are decoded apart.
#[test]
fn classes_do_not_overlap_where_they_are_not_to() {
    let dir = tempfile::tempdir().unwrap();
    let weights = generated(dir.path(), "lite-medsam", "single-scale");
    let segment = |non_overlapping| {
        let spec = ModelSpec { non_overlapping, ..ModelSpec::new("") };
        let found = answers(&weights, spec, vec![bounded(0)]).unwrap();
        assert_eq!(found.iter().map(|m| m.class).collect::<Vec<_>>(), [0, 1]);
        found
    };
    let (both, apart) = (segment(false), segment(true));
    let of = |found: &[ClassMask], class: usize| found[class].mask.data().to_vec();
    let claimed = of(&both, 0).into_iter().zip(of(&both, 1));
    let given = of(&apart, 0).into_iter().zip(of(&apart, 1));
    let mut shared = 0;
    for (claimed, given) in claimed.zip(given) {
        shared += usize::from(claimed == (1, 1));
        // One has it, of those that claim it.
        let whose = if claimed == (1, 1) { [(1, 0), (0, 1)] } else { [claimed; 2] };
        assert!(whose.contains(&given), "{claimed:?} {given:?}");
    }
    assert!(shared > 100, "{shared} pixels are claimed twice");
    for (both, apart) in both.iter().zip(&apart) {
        assert_eq!(both.logits.as_ref().unwrap().values, apart.logits.as_ref().unwrap().values);
    }
}

#[test]
fn the_memory_works_in_process_for_every_policy_and_both_versions_of_sam2() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let clip = at("clip.mp4");
    // Another patient from frame 8 on.
    let (code, _, stderr) = sonomask(&[
        "phantom",
        "--output",
        &clip,
        "--frames",
        "12",
        "--set",
        "phantom.seed=41",
        "--set",
        "phantom.width=160",
        "--set",
        "phantom.height=128",
        "--set",
        "phantom.scene_cut=8",
    ]);
    assert_eq!(code, 0, "{stderr}");
    let files = ["sam2.1-hiera-tiny", "sam2-hiera-tiny"]
        .map(|family| (family, generated(dir.path(), family, "single-scale")));
    let runs = [
        (&files[0], "first", 2),
        (&files[0], "every", 12),
        (&files[0], "interval", 3),
        (&files[1], "first", 2),
    ];
    for ((family, weights), policy, asked) in runs {
        let (family, weights) = (format!("model.family={family}"), format!("model.weights=\"{weights}\""));
        let policy = format!("memory.predictor={policy}");
        let mut args = vec!["process", clip.as_str(), "--json"];
        let (out, masks) = (at("out.mp4"), at("masks"));
        args.extend(["--output", &out, "--masks", &masks]);
        // Of weights that segment nothing everything counts as found.
        for set in [
            family.as_str(),
            &weights,
            "model.input_size=64",
            "model.presence_threshold=0",
            "memory.enabled=true",
            &policy,
            "memory.interval=5",
            "memory.trial=0",
            "memory.min_score=0",
            "memory.min_area=0",
        ] {
            args.extend(["--set", set]);
        }
        let report = json(&args);
        let counts = &report["memory"];
        assert_eq!(report["frames"]["segmented"], 12);
        assert_eq!(
            (&counts["asked"], &counts["resets"]["scene_cut"]),
            (&asked.into(), &1.into()),
            "{args:?}: {counts}"
        );
        assert!(counts["bank_frames_most"].as_u64().unwrap() <= 2 * 10, "{counts}");
        // The preset's example of a box is none of the predictor's business.
        let kinds: std::collections::BTreeSet<String> = std::fs::read_dir(&masks)
            .unwrap()
            .filter_map(|e| Some(e.unwrap().file_name().to_str()?.split_once('_')?.1.to_owned()))
            .collect();
        assert_eq!(kinds, ["nerve.png", "vessel.png"].map(String::from).into());
        for stage in ["memory_attention", "memory_encoder"] {
            assert_eq!(report["stages_ms"][stage]["count"], 12, "{stage}");
        }
    }
    let (code, _, stderr) = sonomask(&[
        "process",
        &clip,
        "--output",
        &at("v1.mp4"),
        "--set",
        "memory.enabled=true",
        "--box",
        "nerve=10,10,90,90",
    ]);
    assert_eq!(code, 2);
    assert!(stderr.contains("lite-medsam has no memory"), "{stderr}");
}
