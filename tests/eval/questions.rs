//! What a model is asked of a picture, and how its answers find back to the classes.

use sonomask::dataset::ClassLabel;
use sonomask::eval::{EvalError, Prompting, Question, places, regions};
use sonomask::mask::{Bounds, ClassMask, Mask};
use sonomask::segment::{Mode, Point};

use super::SCENE;

fn drawn(rows: &[&str], mark: u8) -> Mask {
    let data = rows.iter().flat_map(|row| row.bytes().map(|b| u8::from(b == mark))).collect();
    Mask::new(rows[0].len(), rows.len(), data).unwrap()
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
