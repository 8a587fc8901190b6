//! How much better one evaluation is than another on the same pictures.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::bootstrap::{Share, bootstrap_shares, mean_share};
use super::summary::SEED;
use super::{Case, Figure, Kept, Prompting};
use crate::dataset;

/// Why two evaluations cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DifferenceError {
    /// One has classes that the other has not.
    #[error("the classes are {0}, those of what they are compared with {1}")]
    Classes(String, String),
    /// A picture's truth is not the same.
    #[error("{class} has {pixels} pixels in the truth of {image}, and {against} in what it is compared with")]
    Truth {
        /// The picture.
        image: String,
        /// The class.
        class: String,
        /// Pixels of the first.
        pixels: u64,
        /// Pixels of the second.
        against: u64,
    },
    /// They share no mode, or no picture in any.
    #[error("no picture is in both in the same mode")]
    Nothing,
}

/// A figure of two evaluations on the same pictures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// Of the one.
    pub value: Option<f64>,
    /// Of the other.
    pub against: Option<f64>,
    /// The first less the second.
    pub difference: Option<f64>,
    /// Its 95 % interval, by bootstrap over pictures (or patients): each is drawn with both of its figures.
    pub difference_ci95: Option<[f64; 2]>,
}

/// One class in one mode, or the mean over classes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// What the network was told.
    #[serde(serialize_with = "super::report::name")]
    pub mode: Prompting,
    /// The class, or `mean`.
    pub class: String,
    /// Pictures with the class, of those that are in both.
    pub n: usize,
    /// Pictures with the class that are in one of the two alone, and not counted.
    pub left_out: usize,
    /// Dice coefficient, macro.
    pub dice: Compared,
    /// Intersection over union, macro.
    pub iou: Compared,
}

/// A case in both.
struct Pair<'a> {
    case: &'a Case,
    against: &'a Case,
}

/// Cases with the class.
struct Common<'a> {
    /// In both.
    pairs: Vec<Pair<'a>>,
    /// In one alone: class and picture.
    left_out: BTreeSet<(usize, &'a str)>,
}

/// Differences of `kept` to `against` in every mode and class that both have, the mean over classes last in each mode. Pictures as they are,
/// without augmented views. `patient` as in [`Summary::of`](super::Summary::of).
///
/// # Errors
/// What cannot be compared.
pub fn differences(
    kept: &Kept,
    against: &Kept,
    patient: Option<&str>,
) -> Result<Vec<Difference>, DifferenceError> {
    let set = |of: &Kept| of.names.iter().cloned().collect::<BTreeSet<_>>();
    if set(kept) != set(against) {
        return Err(DifferenceError::Classes(kept.names.join(", "), against.names.join(", ")));
    }
    let mut found = Vec::new();
    for (&mode, cases) in &kept.modes {
        let Some(others) = against.modes.get(&mode) else { continue };
        let Common { pairs, left_out } = common(kept, cases, against, others)?;
        if pairs.is_empty() {
            continue;
        }
        let of = |class: Option<usize>| pairs.iter().filter(move |p| class.is_none_or(|c| p.case.class == c));
        let classes = kept.names.iter().enumerate().map(|(class, name)| (Some(class), name.clone()));
        for (class, name) in classes.chain([(None, "mean".to_owned())]) {
            let left_out = match class {
                Some(class) => left_out.iter().filter(|(at, _)| *at == class).count(),
                None => left_out.iter().map(|(_, image)| image).collect::<BTreeSet<_>>().len(),
            };
            let pictures: BTreeSet<&str> = of(class).map(|p| p.case.image.as_str()).collect();
            let compared = |figure: fn(&Case) -> Option<f64>| {
                let classes = class.map_or(0..kept.names.len(), |class| class..class + 1);
                compared(&of(class).collect::<Vec<_>>(), classes, figure, patient)
            };
            let (dice, iou) = (compared(Case::dice), compared(Case::iou));
            found.push(Difference { mode, class: name, n: pictures.len(), left_out, dice, iou });
        }
    }
    if found.is_empty() { Err(DifferenceError::Nothing) } else { Ok(found) }
}

/// What both modes' cases have in common; classes are numbered as in `kept`.
fn common<'a>(
    kept: &Kept,
    cases: &'a [Case],
    against: &Kept,
    others: &'a [Case],
) -> Result<Common<'a>, DifferenceError> {
    let mut open = BTreeMap::new();
    for case in others.iter().filter(|case| case.view == 0) {
        let class = kept.names.iter().position(|name| against.names.get(case.class) == Some(name));
        open.insert((class.unwrap_or_default(), case.image.as_str()), case);
    }
    let (mut pairs, mut left_out) = (Vec::new(), BTreeSet::new());
    for case in cases.iter().filter(|case| case.view == 0) {
        let key = (case.class, case.image.as_str());
        let Some(other) = open.remove(&key) else {
            if case.overlap.is_present() {
                left_out.insert(key);
            }
            continue;
        };
        let [pixels, against] = [case, other].map(|case| case.overlap.both + case.overlap.missed);
        if pixels != against {
            let class = kept.names.get(case.class).cloned().unwrap_or_default();
            return Err(DifferenceError::Truth { image: case.image.clone(), class, pixels, against });
        }
        if pixels > 0 {
            pairs.push(Pair { case, against: other });
        }
    }
    left_out.extend(open.iter().filter(|(_, case)| case.overlap.is_present()).map(|(key, _)| *key));
    Ok(Common { pairs, left_out })
}

/// One figure over `pairs`, averaged over `classes`.
fn compared(
    pairs: &[&Pair<'_>],
    classes: std::ops::Range<usize>,
    figure: fn(&Case) -> Option<f64>,
    patient: Option<&str>,
) -> Compared {
    let shares = |value: fn(f64, f64) -> f64| {
        let mut units: BTreeMap<&str, Vec<Share>> = BTreeMap::new();
        for Pair { case, against } in pairs {
            let (Some(a), Some(b)) = (figure(case), figure(against)) else { continue };
            let unit = dataset::patient(&case.image, patient).unwrap_or(&case.image);
            let shares = units.entry(unit).or_insert_with(|| vec![[0.0; 2]; classes.len()]);
            if let Some(share) = case.class.checked_sub(classes.start).and_then(|at| shares.get_mut(at)) {
                *share = [share[0] + value(a, b), share[1] + 1.0];
            }
        }
        units.into_values().collect::<Vec<_>>()
    };
    let mean = |value| mean_share(shares(value).iter().map(Vec::as_slice));
    let difference = Figure(bootstrap_shares(&shares(|a, b| a - b), SEED));
    Compared {
        value: mean(|a, _| a),
        against: mean(|_, b| b),
        difference: difference.value(),
        difference_ci95: difference.range(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Overlap;

    fn case(image: &str, class: usize, both: u64, extra: u64, missed: u64) -> Case {
        Case {
            image: image.to_owned(),
            view: 0,
            class,
            asked: true,
            overlap: Overlap { both, extra, missed },
            regions: 1,
            px: None,
            mm: None,
            score: 0.5,
            presence: 0.5,
            milliseconds: None,
        }
    }

    fn kept(names: &[&str], cases: Vec<Case>) -> Kept {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Kept { names, modes: BTreeMap::from([(Prompting::Auto, cases)]) }
    }

    #[test]
    fn pictures_are_paired_by_name_and_classes_by_theirs() -> Result<(), DifferenceError> {
        // Dice of 0.5 and 1 for the nerve, 0 for a vessel; another vessel is not there.
        let ours = kept(
            &["nerve", "vessel"],
            vec![
                case("a", 0, 5, 5, 5),
                case("a", 1, 0, 0, 10),
                case("b", 0, 10, 0, 0),
                case("b", 1, 0, 7, 0),
                case("c", 0, 10, 0, 0),
            ],
        );
        // Classes in another order, pictures too; "c" is missing and "d" too many.
        let theirs = kept(
            &["vessel", "nerve"],
            vec![
                case("d", 0, 10, 0, 0),
                case("b", 1, 5, 5, 5),
                case("b", 0, 0, 0, 0),
                case("a", 1, 0, 0, 10),
                case("a", 0, 5, 5, 5),
            ],
        );
        let found = differences(&ours, &theirs, None)?;
        let figures: Vec<_> = found
            .iter()
            .map(|d| (&d.class[..], d.n, d.left_out, d.dice.value, d.dice.against, d.dice.difference))
            .collect();
        assert_eq!(
            figures,
            [
                ("nerve", 2, 1, Some(0.75), Some(0.25), Some(0.5)),
                ("vessel", 1, 1, Some(0.0), Some(0.5), Some(-0.5)),
                ("mean", 2, 2, Some(0.375), Some(0.375), Some(0.0)),
            ]
        );
        // Both nerves gain the same, so there is nothing to be unsure of; of the mean there is.
        assert_eq!(found[0].dice.difference_ci95, Some([0.5, 0.5]));
        assert_eq!(found[2].dice.difference_ci95, Some([0.0, 0.5]));
        assert_eq!(found[0].iou.value, Some((1.0 / 3.0 + 1.0) / 2.0));
        let itself = differences(&ours, &ours, None)?;
        assert!(itself.iter().all(|d| d.dice.difference == Some(0.0) && d.left_out == 0));
        Ok(())
    }

    #[test]
    fn what_is_not_of_the_same_pictures_is_not_compared() {
        let ours = kept(&["nerve"], vec![case("a", 0, 5, 5, 5)]);
        let other = kept(&["nerve"], vec![case("b", 0, 5, 5, 5)]);
        assert_eq!(differences(&ours, &other, None), Err(DifferenceError::Nothing));
        let mut box_alone = ours.clone();
        box_alone.modes = box_alone.modes.into_values().map(|cases| (Prompting::Box, cases)).collect();
        assert_eq!(differences(&ours, &box_alone, None), Err(DifferenceError::Nothing));
        let truth = kept(&["nerve"], vec![case("a", 0, 5, 5, 6)]);
        assert!(matches!(differences(&ours, &truth, None), Err(DifferenceError::Truth { pixels: 10, .. })));
        let classes = kept(&["vessel"], vec![case("a", 0, 5, 5, 5)]);
        assert!(matches!(differences(&ours, &classes, None), Err(DifferenceError::Classes(..))));
    }
}
