//! The terms that training minimises: values and gradients of torchvision's functions, and gradients against differences.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod fixture_support;

use fixture_support::Fixture;
use sonomask::train::{Answer, LossConfig, Terms, Truth, loss};
use tch::{Kind, Tensor};

const PARTS: [&str; 4] = ["mask", "interim", "boxes", "presence"];
const EVERY: [LossConfig; 3] = [LossConfig::PAPER, LossConfig::CODED, LossConfig::SONOMASK];

fn of<'a>(answer: &'a [Tensor; 4]) -> Answer<'a> {
    let [mask, interim, boxes, presence] = answer;
    Answer { mask, interim: Some(interim), boxes: Some(boxes), presence: Some(presence) }
}

fn inputs(file: &Fixture, kind: Kind) -> ([Tensor; 4], [Tensor; 3]) {
    let get = |name: String| file.raw(&name).to_kind(kind);
    (
        PARTS.map(|p| get(format!("answer.{p}"))),
        ["mask", "boxes", "present"].map(|p| get(format!("truth.{p}"))),
    )
}

fn terms(config: &LossConfig, answer: &[Tensor; 4], [mask, boxes, present]: &[Tensor; 3]) -> Terms {
    loss(config, &of(answer), &Truth { mask, interim: mask, boxes, present }).unwrap()
}

fn value(t: &Tensor) -> f64 {
    f64::try_from(t).unwrap()
}

#[test]
fn values_and_gradients_are_those_of_torchvision() {
    let file = Fixture::own("losses");
    for (name, config) in [("paper", LossConfig::PAPER), ("coded", LossConfig::CODED)] {
        let (answer, truth) = inputs(&file, Kind::Float);
        let answer = answer.map(|t| t.set_requires_grad(true));
        let found = terms(&config, &answer, &truth);
        for (part, ours) in [
            ("mask", &found.mask),
            ("interim", &found.interim),
            ("bbox", &found.bbox),
            ("presence", &found.presence),
        ] {
            let theirs = value(&file.raw(&format!("{name}.{part}")));
            assert!((value(ours) - theirs).abs() <= 1e-5 * theirs.abs(), "{name} {part}: {ours:?}, {theirs}");
        }
        found.total.backward();
        for (part, ours) in PARTS.iter().zip(&answer) {
            let theirs = file.raw(&format!("{name}.grad.{part}"));
            let apart = value(&(ours.grad() - &theirs).abs().max()) / value(&theirs.abs().max());
            assert!(apart <= 1e-5, "{name}, gradient of {part}: {apart}");
        }
    }
}

/// Elements of an input that are moved: all of a small one, of a larger one every so many that all its columns are among them.
fn places(elements: i64) -> impl Iterator<Item = i64> {
    const APART: i64 = 37;
    (0..elements).step_by(if elements > 4 * APART { APART as usize } else { 1 })
}

/// Central differences in 64 bits: every box and every presence, and places spread over the masks.
#[test]
fn gradients_are_slopes() {
    let step = 1e-5;
    for config in EVERY {
        let (answer, truth) = inputs(&Fixture::own("losses"), Kind::Double);
        let mut moved_by_part = Vec::new();
        let leaves = answer.each_ref().map(|t| t.copy().set_requires_grad(true));
        terms(&config, &leaves, &truth).total.backward();
        for (which, part) in PARTS.iter().enumerate() {
            let grad = leaves[which].grad().flatten(0, -1);
            moved_by_part.push(places(grad.size()[0]).count());
            for at in places(grad.size()[0]) {
                let at_offset = |by: f64| {
                    let moved = answer.each_ref().map(Tensor::copy);
                    let _ = moved[which].view(-1).narrow(0, at, 1).g_add_scalar_(by);
                    value(&terms(&config, &moved, &truth).total)
                };
                let slope = (at_offset(step) - at_offset(-step)) / (2.0 * step);
                let ours = grad.double_value(&[at]);
                assert!((slope - ours).abs() <= 1e-6 * (1.0 + slope.abs()), "{part} {at}: {ours}, {slope}");
            }
        }
        assert_eq!(moved_by_part, [35, 35, 20, 5], "five pairs: masks of 16 x 16, four corners, one score");
    }
}

#[test]
fn what_is_not_there_costs_nothing_and_is_never_nan() {
    let (answer, [mask, boxes, present]) = inputs(&Fixture::own("losses"), Kind::Float);
    let answer = answer.map(|t| t.set_requires_grad(true));
    for config in EVERY {
        // No class is in any picture, and the boxes say so with nonsense.
        let nobody = [mask.zeros_like(), boxes.full_like(f64::NAN), present.zeros_like()];
        let found = terms(&config, &answer, &nobody);
        assert_eq!(value(&found.bbox), 0.0);
        assert_eq!(value(&found.mask) == 0.0, !config.absent_masks);
        found.total.backward();
        for leaf in &answer {
            assert_eq!(value(&leaf.grad().isfinite().all().to_kind(Kind::Float)), 1.0);
        }
        let bare = Answer { mask: &answer[0], interim: None, boxes: None, presence: None };
        let truth = Truth { mask: &mask, interim: &mask, boxes: &boxes, present: &present };
        let found = loss(&config, &bare, &truth).unwrap();
        for term in [&found.interim, &found.bbox, &found.presence] {
            assert_eq!(value(term), 0.0);
        }
        assert!(value(&found.total) > 0.0);
    }
    let short = mask.narrow(0, 0, 2);
    let truth = Truth { mask: &short, interim: &short, boxes: &boxes, present: &present };
    assert!(loss(&LossConfig::PAPER, &of(&answer), &truth).is_err());
}

#[test]
fn a_perfect_answer_costs_nothing() {
    let (_, [mask, boxes, present]) = inputs(&Fixture::own("losses"), Kind::Double);
    let sure = (&mask * 2.0 - 1.0) * 60.0;
    let answer = [sure.shallow_clone(), sure, boxes.shallow_clone(), (&present * 2.0 - 1.0) * 60.0];
    let found = terms(&LossConfig::PAPER, &answer, &[mask, boxes, present]);
    assert!(value(&found.total).abs() < 1e-4, "{found:?}");
}
