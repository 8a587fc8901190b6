//! The predictors that come with sonomask do what their cards say, on pictures that they never saw.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::PathBuf;
use std::sync::Arc;

use sonomask::frame::{ImageView, PixelFormat, Plane, Rgb, YuvColor};
use sonomask::mask::ClassMask;
use sonomask::nn::PpnForm;
use sonomask::phantom::{Phantom, PhantomConfig};
use sonomask::segment::{
    Additions, Beginning, DeviceChoice, EncoderLora, Guidance, MemorySettings, Mode, ModelSpec, Point,
    PredictorPlan, Prompt, load, load_trainable,
};
use sonomask::stage::StageTimes;
use sonomask::weights::Checkpoint;

fn weights(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("weights").join(name)
}

fn spec(predictor: &str) -> ModelSpec {
    ModelSpec { ppn: Some(weights(predictor)), ..ModelSpec::new(weights("lite_medsam.pth")) }
}

#[test]
fn the_phantoms_structures_are_found_without_a_prompt() {
    let device = DeviceChoice::Cpu.resolve().unwrap();
    let mut model = load(&spec("phantom.safetensors"), &device).unwrap();
    let classes = model.info().ppn.as_ref().unwrap().classes.clone();
    let guidance = Guidance { mode: Mode::Autonomous, prompts: Vec::new() };
    // Patients whose seeds are not among those it learned from.
    for seed in [77, 78] {
        let config = PhantomConfig { seed, ..PhantomConfig::default() };
        let (width, height) = (config.width, config.height);
        let frame = Phantom::new(config).unwrap().frame(seed);
        let plane = Plane { data: &frame.image, stride: width };
        let view =
            ImageView::new(PixelFormat::Gray8, width, height, YuvColor::default(), vec![plane]).unwrap();
        let found = model.segment(&view, &guidance, false, &mut StageTimes::default()).unwrap();
        assert_eq!(found.len(), frame.truth.len());
        for (found, truth) in found.iter().zip(&frame.truth) {
            assert_eq!(classes[found.class], truth.class.name());
            let dice = found.mask.dice(&truth.mask).unwrap();
            println!("seed {seed} {}: Dice {dice:.3}", truth.class.name());
            assert!(dice > 0.8, "seed {seed} {}: Dice {dice:.3}", truth.class.name());
        }
    }
}

/// What the predictor for nerves and vessels says of a phantom, with a person's box for the first class where one is to be given.
fn asked(change: &dyn Fn(&mut ModelSpec), mode: Mode) -> Vec<ClassMask> {
    let mut spec = ModelSpec { presence_threshold: 0.0, ..spec("nerve-vessel.safetensors") };
    change(&mut spec);
    let mut model = load(&spec, &DeviceChoice::Cpu.resolve().unwrap()).unwrap();
    let config = PhantomConfig::default();
    let (width, height) = (config.width, config.height);
    let frame = Phantom::new(config).unwrap().frame(3);
    let bbox = frame.truth[0].mask.bounds().map(|b| b.corners());
    let prompts =
        if mode == Mode::Autonomous { Vec::new() } else { vec![Prompt { bbox, ..Prompt::default() }] };
    let plane = Plane { data: &frame.image, stride: width };
    let view = ImageView::new(PixelFormat::Gray8, width, height, YuvColor::default(), vec![plane]).unwrap();
    model.segment(&view, &Guidance { mode, prompts }, true, &mut StageTimes::default()).unwrap()
}

#[test]
fn only_what_the_predictor_finds_by_itself_is_seen_in_several_views() {
    let ask = |views: usize, mode: Mode| asked(&|spec| spec.views = views, mode);
    for mode in [Mode::Autonomous, Mode::Assisted] {
        let (one, four) = (ask(1, mode), ask(4, mode));
        assert_eq!((one.len(), four.len()), (2, 2));
        for (one, four) in one.iter().zip(&four) {
            let told = mode == Mode::Assisted && one.class == 0;
            let what = format!("{mode:?}, class {}", one.class);
            assert_eq!(one == four, told, "{what}");
            // The views are put back to where they belong: what is found in all of them is found in their mean.
            let dice = one.mask.dice(&four.mask).unwrap();
            println!("{what}: Dice with one view {dice:.3}");
            assert!(dice > 0.6, "{what}: {dice:.3}");
        }
    }
    let spec = ModelSpec { views: 9, ..spec("nerve-vessel.safetensors") };
    let error = load(&spec, &DeviceChoice::Cpu.resolve().unwrap()).err().unwrap().to_string();
    assert!(error.contains("9: expected 1 to 8"), "{error}");
    let memory = Some(MemorySettings::sam2());
    assert!(ModelSpec { views: 2, memory, ..ModelSpec::new("") }.check().unwrap_err().contains("memory"));
    assert!(ModelSpec { memory, ..ModelSpec::new("") }.check().is_ok());
}

#[test]
fn predictor_and_decoder_have_an_equal_say_unless_a_box_is_given() {
    let plan = PredictorPlan {
        form: PpnForm::Pyramid,
        tokens: 10,
        datasets: vec![("usgra".into(), vec!["nerve".into(), "vessel".into()])],
    };
    let beginning = Beginning {
        predictor: plan,
        additions: Additions { lora: None, object_score: true },
        encoder: Some(EncoderLora { rank: 32, blocks: 8 }),
        seed: 0,
        trained: &|_| false,
    };
    let device = DeviceChoice::Cpu.resolve().unwrap();
    let mut net = load_trainable(&spec("nerve-vessel.safetensors"), &device, &beginning).unwrap();
    net.sam.set_queries(&net.queries[0]);
    let network = net.sam.network();
    let config = PhantomConfig::default();
    let (width, height) = (config.width, config.height);
    let frame = Phantom::new(config).unwrap().frame(3);
    let data = frame.image.iter().flat_map(|&v| [v; 3]).collect();
    let picture = Rgb { width, height, data };
    let _guard = tch::no_grad_guard();
    let (input, placement) = network.manners().preprocess.input(&picture, network.input_size()).unwrap();
    let features = network.encode(&input).unwrap();
    let bounds = frame.truth[0].mask.bounds().unwrap();
    let middle = Point {
        x: (bounds.x0 + bounds.x1) as f32 / 2.0,
        y: (bounds.y0 + bounds.y1) as f32 / 2.0,
        positive: true,
    };
    // How far the answer is from the decoder's, and from the mean of that and of the predictor's own, for each class.
    let far = |mode, prompts: &[Prompt]| -> [(f64, f64); 2] {
        let question = network.ask(&features, mode, prompts, &placement, false).unwrap();
        let own = &question.prediction.as_ref().unwrap().interim_mask;
        let mut far = [(f64::NAN, f64::NAN); 2];
        for batch in question.batches(tch::Device::Cpu) {
            let decoded = network.decode(&features, batch).unwrap().masks;
            let answer = network.answer(&features, batch).unwrap().masks;
            for (row, asked) in (0..).zip(batch) {
                let (one, two) = (decoded.get(row), own.get(asked.class as i64));
                let from = |other: &tch::Tensor| (answer.get(row) - other).abs().max().double_value(&[]);
                far[asked.class] = (from(&one), from(&((&one + two) * 0.5)));
            }
        }
        far
    };
    let (near, apart) = (1e-4, 0.1);
    for (decoded, mean) in far(Mode::Autonomous, &[]) {
        assert!(decoded > apart && mean < near, "{decoded} {mean}");
    }
    let prompt = |prompt: Prompt| far(Mode::Assisted, &[prompt]);
    let [boxed, alone] = prompt(Prompt { bbox: Some(bounds.corners()), ..Prompt::default() });
    assert!(boxed.0 < near && alone.0 > apart && alone.1 < near, "{boxed:?} {alone:?}");
    let [masked, _] =
        prompt(Prompt { mask: Some(Arc::new(frame.truth[0].mask.clone())), ..Prompt::default() });
    assert!(masked.0 < near, "{masked:?}");
    // What a click keeps of the predictor's mask, not all of it.
    let [clicked, _] = prompt(Prompt { points: vec![middle], ..Prompt::default() });
    assert!(clicked.0 > apart, "{clicked:?}");
}

#[test]
fn a_click_chooses_what_a_class_is() {
    let device = DeviceChoice::Cpu.resolve().unwrap();
    let mut model = load(&spec("phantom.safetensors"), &device).unwrap();
    let config = PhantomConfig { seed: 77, ..PhantomConfig::default() };
    let (width, height) = (config.width, config.height);
    let frame = Phantom::new(config).unwrap().frame(77);
    let plane = Plane { data: &frame.image, stride: width };
    let view = ImageView::new(PixelFormat::Gray8, width, height, YuvColor::default(), vec![plane]).unwrap();
    let mut ask = |prompts: Vec<Prompt>| {
        let mode = if prompts.is_empty() { Mode::Autonomous } else { Mode::Assisted };
        let found = model.segment(&view, &Guidance { mode, prompts }, false, &mut StageTimes::default());
        let mut found = found.unwrap();
        found.sort_by_key(|one| one.class);
        found
    };
    let alone = ask(Vec::new());
    let middle = |class: usize| {
        let truth =
            frame.truth.iter().find(|t| t.class.name() == ["nerve", "vessel", "bone"][class]).unwrap();
        let b = truth.mask.bounds().unwrap();
        let (x, y) = ((b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2);
        assert!(truth.mask.get(x, y));
        (x, y)
    };
    let click = |(x, y): (usize, usize), positive| Point { x: x as f32 + 0.5, y: y as f32 + 0.5, positive };
    let prompt = |points| vec![Prompt { points, ..Prompt::default() }];
    let (nerve, vessel) = (middle(0), middle(1));
    assert!(alone[0].mask.get(nerve.0, nerve.1) && !alone[0].mask.get(vessel.0, vessel.1));
    // On what was found: it stays as good.
    let same = ask(prompt(vec![click(nerve, true)]));
    let dice = same[0].mask.dice(&alone[0].mask).unwrap();
    assert!(dice > 0.8, "{dice}");
    // On something else: that, and no longer what was found. The other classes are as they were.
    let other = ask(prompt(vec![click(vessel, true)]));
    assert!(other[0].mask.get(vessel.0, vessel.1) && !other[0].mask.get(nerve.0, nerve.1));
    for class in [1, 2] {
        // But for rounding: they are decoded in other company.
        let dice = other[class].mask.dice(&alone[class].mask).unwrap();
        assert!(dice > 0.99, "class {class}: {dice}");
    }
    // Away with it.
    let gone = ask(prompt(vec![click(nerve, false)]));
    assert!(!gone[0].mask.get(nerve.0, nerve.1));
}

#[test]
fn a_predictor_can_be_asked_for_some_of_its_classes() {
    let device = DeviceChoice::Cpu.resolve().unwrap();
    let only = |names: &[&str]| ModelSpec {
        only: names.iter().map(|name| (*name).to_owned()).collect(),
        ..spec("nerve-vessel.safetensors")
    };
    let model = load(&only(&["vessel"]), &device).unwrap();
    assert_eq!(model.info().ppn.as_ref().unwrap().classes, ["vessel"]);
    let none = ModelSpec { ppn: None, ..only(&["vessel"]) };
    let error = load(&none, &device).err().unwrap().to_string();
    assert!(error.contains("only vessel") && error.contains("no prompt predictor"), "{error}");
    let error = load(&only(&["artery"]), &device).err().unwrap().to_string();
    assert!(error.contains("artery") && error.contains("nerve, vessel"), "{error}");
}

#[test]
fn each_file_is_small_and_says_what_it_is() {
    for (name, classes) in
        [("nerve-vessel", r#"["nerve","vessel"]"#), ("phantom", r#"["nerve","vessel","bone"]"#)]
    {
        let file = weights(&format!("{name}.safetensors"));
        assert!(file.metadata().unwrap().len() < 12_000_000);
        assert!(weights(&format!("{name}.md")).is_file());
        let found = Checkpoint::open(&file).unwrap();
        let says = |key: &str| found.metadata().get(key).cloned().unwrap_or_default();
        assert!(found.metadata().values().any(|value| value == classes), "{:?}", found.metadata());
        assert_eq!((says("family"), says("data_sha256").len()), ("lite-medsam".into(), 64));
        assert!(says("config").contains("[[datasets]]"));
        // What it says of itself is what its card says.
        let metrics: serde_json::Value = serde_json::from_str(&says("metrics")).unwrap();
        let dice = ["/cross_validation/dice", "/dice"].iter().find_map(|at| metrics.pointer(at));
        let dice = dice.and_then(serde_json::Value::as_object).unwrap();
        let card = std::fs::read_to_string(weights(&format!("{name}.md"))).unwrap();
        assert_eq!(dice.len(), classes.split(',').count());
        for (class, value) in dice {
            let value = format!("{:.3}", value.as_f64().unwrap());
            assert!(card.contains(&value), "{name} {class}: {value} is not in the card");
        }
    }
    let nerve_vessel = Checkpoint::open(&weights("nerve-vessel.safetensors")).unwrap();
    assert!(nerve_vessel.metadata()["attribution"].contains("CC BY 4.0"));
}
