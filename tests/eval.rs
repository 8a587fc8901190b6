//! An evaluation from the question to the report, with stand-ins for the model and figures by hand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::Path;

use sonomask::dataset::{ClassLabel, Dataset, DatasetSpec, MaskLayout, Sample};
use sonomask::eval::{
    Case, Cell, EvalError, Evaluation, Material, Overlap, Prompting, Question, Report, Row, Scores, Share,
    Study, Summary, Tables, Tuning, bootstrap, bootstrap_shares, evaluate, places, ranked, regions,
};
use sonomask::frame::ImageView;
use sonomask::mask::{Bounds, ClassMask, Mask};
use sonomask::segment::{Guidance, Mode, ModelInfo, Point, PpnInfo, SegmentError, Segmenter};
use sonomask::stage::StageTimes;

fn drawn(rows: &[&str], mark: u8) -> Mask {
    let data = rows.iter().flat_map(|row| row.bytes().map(|b| u8::from(b == mark))).collect();
    Mask::new(rows[0].len(), rows.len(), data).unwrap()
}

/// Two regions of `a` that touch at a corner with a third apart, and one of `b`.
const SCENE: [&str; 6] = ["aa......", "aa......", "..a...aa", "......aa", "bbb.....", "bbb....."];

/// Fills the box of a prompt, or the pixel of a click; a predictor's class that nobody prompts gets the upper left pixel.
struct Filler {
    info: ModelInfo,
    asked: Vec<Guidance>,
}

fn filler(learned: &[&str]) -> Filler {
    let classes: Vec<String> = learned.iter().map(|&name| name.to_owned()).collect();
    let ppn =
        PpnInfo { form: "single-scale", dataset: "d".into(), classes, sha256: None, changes_features: false };
    let info = ModelInfo {
        family: "filler <1>".into(),
        weights_sha256: "00ff".into(),
        input_size: 8,
        precision: "fp32".into(),
        parameters: 0,
        weights_bytes: 0,
        ppn: (!learned.is_empty()).then_some(ppn),
        device: "cpu".into(),
    };
    Filler { info, asked: Vec::new() }
}

impl Segmenter for Filler {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn segment(
        &mut self,
        image: &ImageView<'_>,
        guidance: &Guidance,
        _keep_logits: bool,
        _times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        self.asked.push(guidance.clone());
        let learned = match guidance.mode {
            Mode::Manual => 0,
            _ => self.info.ppn.as_ref().map_or(0, |ppn| ppn.classes.len()),
        };
        let mut classes: Vec<usize> = (0..learned).collect();
        classes.extend(guidance.prompts.iter().map(|p| p.class).filter(|class| *class >= learned));
        let fill = |class: usize| {
            let mut mask = Mask::empty(image.width(), image.height());
            let prompt = guidance.prompts.iter().find(|p| p.class == class);
            match (prompt.and_then(|p| p.bbox), prompt.and_then(|p| p.points.first())) {
                (Some([x0, y0, x1, y1]), _) => {
                    for (x, y) in (x0 as usize..x1 as usize)
                        .flat_map(|x| (y0 as usize..y1 as usize).map(move |y| (x, y)))
                    {
                        mask.set(x, y, true);
                    }
                }
                (None, Some(point)) => mask.set(point.x as usize, point.y as usize, true),
                (None, None) => mask.set(0, 0, true),
            }
            ClassMask { class, mask, score: 0.5, presence: 1.0, logits: None }
        };
        Ok(classes.into_iter().map(fill).collect())
    }
}

/// Writes pictures with masks in letters, `a` is 1 and `b` is 2, and opens them.
fn dataset(dir: &Path, scenes: &[(&str, &[&str])]) -> Dataset {
    for folder in ["imgs", "gts"] {
        std::fs::create_dir_all(dir.join(folder)).unwrap();
    }
    for (name, rows) in scenes {
        let (w, h) = (rows[0].len() as u32, rows.len() as u32);
        let labels: Vec<u8> = rows
            .concat()
            .bytes()
            .map(|b| b"ab".iter().position(|c| *c == b).map_or(0, |i| i as u8 + 1))
            .collect();
        let gray = image::ExtendedColorType::L8;
        image::save_buffer(dir.join(format!("gts/{name}.png")), &labels, w, h, gray).unwrap();
        image::save_buffer(dir.join(format!("imgs/{name}.png")), &vec![90; labels.len()], w, h, gray)
            .unwrap();
    }
    let class = |name: &str, label| ClassLabel { name: name.into(), label };
    let spec = DatasetSpec {
        name: "scenes & sons".into(),
        root: dir.to_owned(),
        images: None,
        masks: None,
        classes: vec![class("a", 1), class("b", 2)],
        layout: MaskLayout::Index,
        bits: 16,
    };
    Dataset::open(&spec, |_, _| {}).unwrap()
}

fn all(data: &Dataset) -> Vec<&Sample> {
    data.samples.iter().collect()
}

fn material<'a>(data: &'a Dataset, chosen: &'a [&'a Sample]) -> Material<'a> {
    Material { data, chosen, spacing: Some((0.5, 0.5)), augmented: 0 }
}

#[test]
fn regions_hang_together_over_corners() {
    let found = regions(&drawn(&SCENE, b'a'));
    let outline: Vec<_> = found.iter().map(|r| (r.area(), r.bounds)).collect();
    let (first, second) = (Bounds { x0: 0, y0: 0, x1: 3, y1: 3 }, Bounds { x0: 6, y0: 2, x1: 8, y1: 4 });
    assert_eq!(outline, [(5, first), (4, second)]);
    assert_eq!(regions(&Mask::empty(4, 4)), []);
    let wide = drawn(&[".......", ".#####.", ".#####.", ".#####.", ".......", "......."], b'#');
    assert_eq!(regions(&wide)[0].deepest(), (2, 2), "the first of three in the middle row");
    let at_the_edge = drawn(&["####", "####", "####"], b'#');
    assert_eq!(regions(&at_the_edge)[0].deepest(), (1, 1), "beyond the picture is outside");
    let ring = drawn(&["####.", "#..#.", "#..##", "####."], b'#');
    let (x, y) = regions(&ring)[0].deepest();
    assert!(ring.get(x, y), "never in a hole");
}

#[test]
fn a_question_points_at_what_is_there() {
    let truth = [drawn(&SCENE, b'a'), drawn(&SCENE, b'b'), Mask::empty(8, 6)];
    let none = [None; 3];
    let boxes = |question: &Question| {
        question.guidance.prompts.iter().map(|p| (p.class, p.bbox.unwrap())).collect::<Vec<_>>()
    };
    let one = Question::new(Prompting::Box, &truth, &none);
    assert_eq!(one.guidance.mode, Mode::Manual);
    assert_eq!(boxes(&one), [(0, [0.0, 0.0, 8.0, 4.0]), (1, [0.0, 4.0, 3.0, 6.0])]);
    let each = Question::new(Prompting::BoxRegions, &truth, &none);
    let expected = [(0, [0.0, 0.0, 3.0, 3.0]), (1, [6.0, 2.0, 8.0, 4.0]), (2, [0.0, 4.0, 3.0, 6.0])];
    assert_eq!(boxes(&each), expected);
    let click = Question::new(Prompting::Points, &truth, &none);
    let points: Vec<Point> = click.guidance.prompts.iter().flat_map(|p| p.points.clone()).collect();
    let at = |x, y| Point { x, y, positive: true };
    assert_eq!(points, [at(0.5, 0.5), at(0.5, 4.5)]);
    // The predictor has them in another order, and one more.
    let learned = [Some(2), Some(0), Some(1)];
    let auto = Question::new(Prompting::Auto, &truth, &learned);
    assert_eq!((auto.guidance.mode, auto.guidance.prompts.len()), (Mode::Autonomous, 0));
    let both = Question::new(Prompting::AutoBox, &truth, &learned);
    assert_eq!(both.guidance.mode, Mode::Assisted);
    assert_eq!(boxes(&both), [(2, [0.0, 0.0, 8.0, 4.0]), (0, [0.0, 4.0, 3.0, 6.0])]);
    let clicks = Question::new(Prompting::AutoPoints, &truth, &learned);
    assert_eq!(clicks.guidance.mode, Mode::Assisted);
    let clicks = clicks.guidance.prompts.iter().map(|p| (p.class, p.points.clone())).collect::<Vec<_>>();
    assert_eq!(clicks, [(2, vec![at(0.5, 0.5)]), (0, vec![at(0.5, 4.5)])]);
}

#[test]
fn answers_go_back_to_their_classes() {
    let truth = [drawn(&SCENE, b'a'), drawn(&SCENE, b'b'), Mask::empty(8, 6)];
    let said = |class, rows: &[&str], score, presence| ClassMask {
        class,
        mask: drawn(rows, b'#'),
        score,
        presence,
        logits: None,
    };
    let left = ["#.......", "........", "........", "........", "........", "........"];
    let right = [".......#", "........", "........", "........", "........", "........"];
    let each = Question::new(Prompting::BoxRegions, &truth, &[None; 3]);
    let answers = each.gather(vec![said(1, &right, 0.9, 0.2), said(0, &left, 0.5, 0.8)], (8, 6));
    assert_eq!(answers.iter().map(|a| a.mask.area()).collect::<Vec<_>>(), [2, 0, 0]);
    assert!((answers[0].score - 0.7).abs() < 1e-6 && answers[0].presence == 0.8);
    assert_eq!(answers.iter().map(|a| a.asked).collect::<Vec<_>>(), [true, true, false]);
    let auto = Question::new(Prompting::Auto, &truth, &[Some(2), Some(0), Some(1)]);
    let answers = auto.gather(vec![said(0, &left, 0.1, 1.0), said(2, &right, 0.2, 1.0)], (8, 6));
    assert!(answers[0].mask.get(7, 0) && answers[1].mask.get(0, 0) && answers.iter().all(|a| a.asked));
}

#[test]
fn what_a_model_cannot_do_is_told_before() {
    let class = |name: &str| ClassLabel { name: name.into(), label: 1 };
    let learned = ["x".to_owned(), "a".to_owned()];
    assert_eq!(places(&[class("a"), class("x")], &learned, Prompting::Auto).unwrap(), [Some(1), Some(0)]);
    assert_eq!(places(&[class("b")], &learned, Prompting::Box).unwrap(), [None]);
    let e = places(&[class("a"), class("b")], &learned, Prompting::AutoBox).unwrap_err();
    assert!(matches!(&e, EvalError::UnknownClass { class, .. } if class == "b"), "{e}");
    assert!(matches!(places(&[class("a")], &[], Prompting::Auto), Err(EvalError::NoPredictor { .. })));
}

/// `one` has both classes, `two` a alone, in the whole picture; `three` neither.
fn three(dir: &Path) -> Dataset {
    dataset(dir, &[("one", &SCENE), ("two", &["aaaa", "aaaa"]), ("three", &["....", "...."])])
}

#[test]
fn figures_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let data = three(dir.path());
    let chosen = all(&data);
    let mut model = filler(&[]);
    let cases = evaluate(&mut model, &material(&data, &chosen), Prompting::Box, |_| {}).unwrap();
    assert_eq!(model.asked.len(), 2, "a picture without any class is not asked about");
    let names = ["a".to_owned(), "b".to_owned()];
    let found = Summary::of(&names, &cases, None);
    let [a, b] = &found.classes[..] else { panic!("{found:?}") };
    // `one`: the box has 32 pixels, 9 of them true: 18/41. `two`: all of it.
    let value = |figure: sonomask::eval::Figure| figure.value().unwrap();
    assert!((value(a.scores.dice) - (18.0 / 41.0 + 1.0) / 2.0).abs() < 1e-12);
    assert!((value(a.scores.iou) - (9.0 / 32.0 + 1.0) / 2.0).abs() < 1e-12);
    assert!((value(a.scores.dice_micro) - 34.0 / 57.0).abs() < 1e-12, "9 + 8 of 32 + 8 and 9 + 8");
    assert!((value(a.scores.iou_micro) - 17.0 / 40.0).abs() < 1e-12);
    assert_eq!((a.n_present, a.n_absent, a.n_several_regions), (2, 1, 1));
    assert_eq!((value(b.scores.dice), b.n_present, b.n_absent), (1.0, 1, 2));
    assert!(
        (value(found.mean.dice) - (value(a.scores.dice) + 1.0) / 2.0).abs() < 1e-12,
        "classes weigh the same"
    );
    assert_eq!(a.scores.specificity.value(), None, "nothing was asked where the class is absent");
    assert_eq!((a.presence.found, a.presence.rejected), (2, 0));
    // One region each, both filled: the corner region's box has 9 pixels, 5 true.
    let cases = evaluate(&mut model, &material(&data, &chosen), Prompting::BoxRegions, |_| {}).unwrap();
    assert_eq!(cases[0].image, "one");
    assert_eq!(cases[0].overlap, Overlap { both: 9, extra: 4, missed: 0 });
    let clicked = evaluate(&mut model, &material(&data, &chosen), Prompting::Points, |_| {}).unwrap();
    assert_eq!(clicked[0].overlap, Overlap { both: 1, extra: 0, missed: 8 });
    let (px, mm) = (clicked[0].px.unwrap(), clicked[0].mm.unwrap());
    assert!(px.centroid > 0.0 && (mm.centroid - px.centroid / 2.0).abs() < 1e-12);
    assert!((mm.hd95 - px.hd95 / 2.0).abs() < 1e-12);
}

#[test]
fn absent_classes_and_empty_masks_follow_the_rule() {
    let dir = tempfile::tempdir().unwrap();
    let data = three(dir.path());
    let chosen = all(&data);
    // The predictor knows b first; unprompted it draws one pixel, at the upper left.
    let cases =
        evaluate(&mut filler(&["b", "a"]), &material(&data, &chosen), Prompting::Auto, |_| {}).unwrap();
    let names = ["a".to_owned(), "b".to_owned()];
    let found = Summary::of(&names, &cases, None);
    let [a, b] = &found.classes[..] else { panic!("{found:?}") };
    assert_eq!(a.scores.specificity.value(), Some(0.0), "drawn where it is absent");
    assert_eq!((a.presence.found, a.presence.imagined), (2, 1));
    assert_eq!(b.scores.dice.value(), Some(0.0));
    // Present in `one` with 6 pixels, none of them hit; 3 pixels drawn over all.
    assert_eq!(b.scores.dice_micro.value(), Some(0.0));
    assert_eq!(b.hd95_px.left_out, 0, "both have pixels");
    assert!((a.scores.dice_micro.value().unwrap() - 4.0 / 20.0).abs() < 1e-12, "one imagined pixel counts");
    // Nothing drawn where there is something.
    let silent = |case: &Case| Case {
        overlap: Overlap { both: 0, extra: 0, missed: case.overlap.both + case.overlap.missed },
        px: None,
        mm: None,
        ..case.clone()
    };
    let cases: Vec<Case> = cases.iter().map(silent).collect();
    let a = &Summary::of(&names, &cases, None).classes[0];
    assert_eq!((a.scores.dice.value(), a.scores.sensitivity.value()), (Some(0.0), Some(0.0)));
    assert_eq!((a.hd95_px.n, a.hd95_px.left_out, a.hd95_px.mean), (0, 2, None));
    assert_eq!(a.scores.specificity.value(), Some(1.0));
}

#[test]
fn pictures_without_a_class_are_measured_for_specificity_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dataset(dir.path(), &[("one", &["aa..", "...."]), ("two", &["....", "...."])]);
    let chosen = all(&data);
    let mut model = filler(&["a", "b"]);
    let material = material(&data, &chosen);
    let cases = evaluate(&mut model, &material, Prompting::Auto, |_| {}).unwrap();
    let names = ["a".to_owned(), "b".to_owned()];
    let evaluation = Evaluation::new(Prompting::Auto, &names, cases, None);
    let b = &evaluation.summary.classes[1];
    assert_eq!((b.n_present, b.n_absent), (0, 2));
    assert_eq!((b.scores.dice.value(), b.scores.specificity.value()), (None, Some(0.0)));
    assert!(evaluation.pictures(&mut model, &material).unwrap()[1].is_empty());
}

#[test]
fn a_study_of_different_pictures_draws_patients() {
    let mut over = [Study::new(true), Study::new(true)];
    for (patient, dice) in [("p1", 1.0), ("p2", 0.0)] {
        let pictures: Vec<String> = (0..8).map(|i| format!("{patient}_{i}")).collect();
        let pictures: Vec<_> = pictures.iter().map(|name| (name.as_str(), dice)).collect();
        over[0].add("all", Prompting::Auto, "nerve", &pictures);
        over[1].add("all", Prompting::Auto, "nerve", &[(patient, dice); 8]);
    }
    let row = |study: &Study| serde_json::to_value(study).unwrap()["lines"][0].clone();
    let [pictures, patients] = over.each_ref().map(row);
    for row in [&pictures, &patients] {
        assert_eq!((&row["dice"], &row["pictures"], &row["runs"]), (&0.5.into(), &16.into(), &2.into()));
    }
    // Of two patients a sample may have one alone; sixteen pictures are never all of one.
    assert_eq!(patients["range"], serde_json::json!([0.0, 1.0]));
    let end = |at: usize| pictures["range"][at].as_f64().unwrap();
    assert!(end(0) > 0.1 && end(1) < 0.9, "{pictures}");
    // Runs that hold out the same pictures have the lowest and the highest.
    let mut same = Study::new(false);
    same.add("5", Prompting::Auto, "nerve", &[("a", 0.25), ("b", 0.75)]);
    same.add("5", Prompting::Auto, "nerve", &[("a", 0.5), ("b", 1.0)]);
    assert_eq!((&row(&same)["dice"], &row(&same)["range"]), (&0.625.into(), &serde_json::json!([0.5, 0.75])));
}

fn case(image: &str, class: usize, both: u64, extra: u64, missed: u64) -> Case {
    Case {
        image: image.into(),
        view: 0,
        class,
        asked: true,
        overlap: Overlap { both, extra, missed },
        regions: 1,
        px: None,
        mm: None,
        score: 1.0,
        presence: 1.0,
        milliseconds: None,
    }
}

#[test]
fn intervals_are_over_what_is_drawn_together() {
    let values = [0.1, 0.5, 0.9, 0.4];
    let shares: Vec<Vec<Share>> = values.iter().map(|v| vec![[*v, 1.0]]).collect();
    assert_eq!(bootstrap_shares(&shares, 3), bootstrap(&values, 3));
    // A class in one picture alone is in few samples, and never divides by nothing.
    let two: Vec<Vec<Share>> = vec![vec![[1.0, 1.0], [0.2, 1.0]], vec![[1.0, 1.0], [0.0, 0.0]]];
    let found = bootstrap_shares(&two, 0).unwrap();
    assert!((found.mean - 0.6).abs() < 1e-12);
    assert!((found.low - 0.6).abs() < 1e-12 && (found.high - 1.0).abs() < 1e-12, "{found:?}");
    assert_eq!(bootstrap_shares(&[vec![[0.0, 0.0]]], 0), None);
    // Two patients of two pictures each. Over patients the mean can be 0 or 1, over pictures it is in between more often.
    let cases = [
        case("p1-a", 0, 1, 0, 0),
        case("p1-b", 0, 1, 0, 0),
        case("p2-a", 0, 0, 1, 1),
        case("p2-b", 0, 0, 1, 1),
    ];
    let names = ["a".to_owned()];
    let range = |patient| Summary::of(&names, &cases, patient).mean.dice.range().unwrap();
    assert_eq!(range(Some("-")), [0.0, 1.0]);
    assert_eq!(Summary::of(&names, &cases, Some("-")).mean.dice.value(), Some(0.5));
    let many: Vec<Case> = (0..64).map(|i| case(&format!("{i}-x"), 0, u64::from(i % 2 == 0), 1, 1)).collect();
    let [low, high] = Summary::of(&names, &many, None).mean.dice.range().unwrap();
    // Halves and nothing in equal parts: the mean is 0.25, its standard error 0.25 / 8.
    let half = 1.96 * 0.25 / 8.0;
    assert!((low - (0.25 - half)).abs() < 0.01 && (high - (0.25 + half)).abs() < 0.01, "{low} {high}");
}

#[test]
fn best_median_and_worst() {
    let cases: Vec<Case> = (0..5u64).map(|i| case(&i.to_string(), 0, 10 * i, 10, 10)).collect();
    let shown: Vec<_> = ranked(&cases, 0).into_iter().map(|(rank, c)| (rank, c.image.as_str())).collect();
    assert_eq!(shown, [("best", "4"), ("median", "2"), ("worst", "0")]);
    assert_eq!(ranked(&cases[..1], 0).len(), 1);
    assert_eq!(ranked(&cases, 1), []);
}

#[test]
fn a_report_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let data = three(dir.path());
    let chosen = all(&data);
    let material = Material { augmented: 3, ..material(&data, &chosen) };
    let mut model = filler(&["a", "b"]);
    let names = vec!["a".to_owned(), "b|\"<".to_owned()];
    let mut evaluations = Vec::new();
    for mode in [Prompting::AutoBox, Prompting::Box] {
        let cases = evaluate(&mut model, &material, mode, |_| {}).unwrap();
        assert_eq!(cases.len(), 3 * 2 * 4, "the picture and three views of it");
        evaluations.push(Evaluation::new(mode, &names, cases, None));
    }
    let (plain, augmented) = (&evaluations[0].summary, evaluations[0].augmented.as_ref().unwrap());
    assert_eq!(plain.classes[0].n_present + plain.classes[0].n_absent, 3);
    assert_eq!(augmented.classes[0].n_present + augmented.classes[0].n_absent, 9);
    let mut report = Report {
        dataset: data.name.clone(),
        n: 3,
        names,
        model: model.info.clone(),
        device: "cpu".into(),
        spacing_mm: Some((0.5, 0.5)),
        patient: None,
        augmented_views: 3,
        settings: Default::default(),
        evaluations,
    };
    let pictures: Vec<_> =
        report.evaluations.iter().map(|e| e.pictures(&mut model, &material).unwrap()).collect();
    assert_eq!(pictures[1].iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    let png = image::load_from_memory(&pictures[1][0][0].png).unwrap();
    assert!(png.width() > 0);
    let html = report.html(&pictures);
    assert!(
        html.contains("scenes &amp; sons")
            && html.contains("b|&quot;&lt;")
            && html.contains("filler &lt;1&gt;")
    );
    assert!(
        html.contains("data:image/png;base64,iVBORw0KGgo")
            && html.contains("a, augmented")
            && html.contains("00ff")
    );
    assert!(!html.contains("http://") && !html.contains("https://"), "it needs nothing else");
    let markdown = report.markdown();
    assert!(markdown.contains("| auto+box | b\\|\"< |") && markdown.contains("HD95, mm"), "{markdown}");
    let summary = report.summary_csv();
    assert_eq!(summary.lines().count(), 1 + 2 * 2 * 3);
    assert!(summary.contains("auto+box,plain,\"b|\"\"<\",1,2,"), "{summary}");
    let columns = |text: &str| text.lines().map(|l| l.matches(',').count()).collect::<Vec<_>>();
    assert!(columns(&summary).iter().all(|n| *n == columns(&summary)[0]), "{summary}");
    let cases = report.cases_csv();
    assert_eq!(cases.lines().count(), 1 + 2 * 24);
    assert!(columns(&cases).iter().all(|n| *n == columns(&cases)[0]), "{cases}");
    let json = report.json(false).unwrap();
    assert_eq!(json["evaluations"][1]["mode"], "box");
    let seen = &report.evaluations[0].augmented.as_ref().unwrap().classes[0];
    assert_eq!(json["evaluations"][0]["augmented"]["classes"]["a"]["n_present"], seen.n_present);
    report.evaluations.truncate(1);
    let json = report.json(true).unwrap();
    assert_eq!((&json["schema"], &json["mode"], &json["n"]), (&1.into(), &"auto+box".into(), &3.into()));
    assert_eq!(json["classes"]["a"]["dice_ci95"].as_array().unwrap().len(), 2);
    assert!(json["mean"]["iou"].is_f64() && json.get("evaluations").is_none());
}

#[test]
fn tables_have_the_papers_shape() {
    let row = |name: &str, decoder, learned| Row { name: name.into(), decoder, learned };
    let models = vec![
        row("SAM", Tuning::Frozen, false),
        row("SAM+PPN", Tuning::Frozen, true),
        row("Sam2Rad", Tuning::Lora, true),
    ];
    assert_eq!(models[0].promptings(), [Prompting::Box]);
    assert_eq!(models[2].promptings(), [Prompting::Auto, Prompting::AutoBox]);
    let scores = |both| Summary::of(&["a".to_owned()], &[case("i", 0, both, 10, 10)], None).mean;
    let cell = |mean: Scores| Cell { weights_sha256: "w".into(), ppn_sha256: None, views: 1, n: 1, mean };
    let mut tables = Tables { datasets: vec!["Hip".into(), "Wrist".into()], models, ..Tables::default() };
    for (model, both) in [(0, 20), (1, 30), (2, 40)] {
        for &mode in tables.models[model].promptings().to_vec().iter() {
            tables.cells.insert((model, 0, mode), cell(scores(both)));
        }
    }
    let text = tables.markdown();
    // 2 * 20 / 60 and 20 / 40; 2 * 30 / 80 and 30 / 50; 2 * 40 / 100 and 40 / 60.
    for line in [
        "| Model | Hip BB | Wrist BB |",
        "| SAM | 66.7/50.0 | – |",
        "| Model | Hip BB | Hip LP | Wrist BB | Wrist LP |",
        "| SAM+PPN | 75.0/60.0 | 75.0/60.0 | – | – |",
        "| Model | Decoder | Hip LP | Hip BB+LP | Wrist LP | Wrist BB+LP |",
        "| Sam2Rad | LoRA | 80.0/66.7 | 80.0/66.7 | – | – |",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("Other prompts"), "nothing was asked with points");
    let page = tables.html();
    for part in ["<th>Hip BB+LP</th>", "<td>66.7/50.0<small>66.7 to 66.7</small></td>", "<td>–</td>"] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    assert_eq!(page.matches("<table>").count(), 3);
    assert_eq!(tables.csv().lines().count(), 1 + 1 + 3 + 2);
    assert_eq!(tables.json().unwrap()["cells"].as_array().unwrap().len(), 6);
}
