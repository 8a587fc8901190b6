//! Figures and their intervals, against the same worked out by hand.

use sonomask::eval::{
    Case, Evaluation, Overlap, Prompting, Share, Study, Summary, bootstrap, bootstrap_shares, evaluate,
};

use super::{all, case, dataset, filler, material, three};

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
