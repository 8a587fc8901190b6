//! What the cases of an evaluation come to, by class and on average.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::bootstrap::{Share, bootstrap_shares};
use super::{Case, Distances, Interval, Overlap, Presence, presence_auc};
use crate::dataset;

/// Where the bootstrap begins; one number for all, so that figures can be made again.
pub(super) const SEED: u64 = 0;

/// How every figure is formed. Reports carry it.
pub const RULES: [&str; 8] = [
    "Macro (dice, iou): mean over the images in which the truth has the class. There a mask without pixels scores 0. An image \
     without the class has no Dice: it counts for specificity alone.",
    "Micro (dice_micro, iou_micro): pixels of all images in which the class was asked for, added up before they are divided; what \
     was drawn where the class is absent counts against it.",
    "Mean: the classes' figures, each with the same weight; classes without a figure are left out.",
    "Intervals: percentile bootstrap over images (over patients where they are known), 2000 samples, 95 %.",
    "HD95 and centroid error: over the images in which both the truth and the mask have pixels; the others are counted in \
     left_out. HD95 takes both directions together.",
    "Sensitivity: of the images with the class, the share in which any pixel was drawn. Specificity: of the images without it, the \
     share in which none was. In the manual modes a class that is absent is not asked for, so there is no specificity; and \
     with auto+box and auto+points the prompt gives away that the class is there. AUC: the area under the ROC curve of the certainty of presence \
     over the same images, whatever the threshold.",
    "Boxes are the smallest around the truth's pixels, nothing added. A class with several regions has one box around all of them \
     (box, auto+box), or one around each with the masks united (box-regions, at most the 64 largest). Regions hang together \
     over corners.",
    "A point is one click on the pixel of the largest region that is farthest from its edge; the first row by row of several. \
     It is given alone (points) or beside learned prompts (auto+points), of which a predictor with a pyramid then keeps what was clicked.",
];

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figure(pub Option<Interval>);

impl Figure {
    /// The figure; `None` where nothing was there to be counted.
    pub fn value(self) -> Option<f64> {
        self.0.map(|i| i.mean)
    }

    /// Its interval.
    pub fn range(self) -> Option<[f64; 2]> {
        self.0.map(|i| [i.low, i.high])
    }
}

/// Distances of one kind over images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Mean; `None` without images.
    pub mean: Option<f64>,
    /// Median.
    pub median: Option<f64>,
    /// Images that were measured.
    pub n: usize,
    /// Images with the class in which nothing was drawn.
    pub left_out: usize,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>, present: usize) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let mean = (n > 0).then(|| values.iter().sum::<f64>() / n as f64);
        Self { mean, median: median(&values), n, left_out: present.saturating_sub(n) }
    }
}

/// Of sorted values; between the middle two of an even number.
pub(super) fn median(sorted: &[f64]) -> Option<f64> {
    let n = sorted.len();
    Some((sorted.get(n.checked_sub(1)? / 2)? + sorted.get(n / 2)?) / 2.0)
}

/// Shares with their intervals, of a class or on average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// Dice coefficient, macro.
    pub dice: Figure,
    /// Intersection over union, macro.
    pub iou: Figure,
    /// Dice coefficient, micro.
    pub dice_micro: Figure,
    /// Intersection over union, micro.
    pub iou_micro: Figure,
    /// Share of images with the class in which it was found.
    pub sensitivity: Figure,
    /// Share of images without the class in which it was not found.
    pub specificity: Figure,
}

impl Scores {
    /// Names and figures, in the order of reports.
    pub fn all(&self) -> [(&'static str, Figure); 6] {
        [
            ("dice", self.dice),
            ("iou", self.iou),
            ("dice_micro", self.dice_micro),
            ("iou_micro", self.iou_micro),
            ("sensitivity", self.sensitivity),
            ("specificity", self.specificity),
        ]
    }
}

impl Serialize for Scores {
    /// Each figure under its name, and its interval under `NAME_ci95`; `null` where there is none.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (name, figure) in self.all() {
            map.serialize_entry(name, &figure.value())?;
            map.serialize_entry(&format!("{name}_ci95"), &figure.range())?;
        }
        map.end()
    }
}

/// One class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassSummary {
    /// Its name.
    #[serde(skip)]
    pub name: String,
    /// Shares.
    #[serde(flatten)]
    pub scores: Scores,
    /// Median of the Dice coefficients.
    pub dice_median: Option<f64>,
    /// Images in which the truth has it.
    pub n_present: usize,
    /// Images in which it has not.
    pub n_absent: usize,
    /// Images with several regions of it.
    pub n_several_regions: usize,
    /// Images by presence, of those in which it was asked for.
    pub presence: Presence,
    /// How well the certainty of presence tells both kinds of images apart, whatever the threshold: 0.5 is chance.
    pub presence_auc: Option<f64>,
    /// HD95 in pixels.
    pub hd95_px: Spread,
    /// Centroid error in pixels.
    pub centroid_px: Spread,
    /// HD95 in millimetres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hd95_mm: Option<Spread>,
    /// Centroid error in millimetres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub centroid_mm: Option<Spread>,
}

/// All classes in one mode.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// In the order of the data set.
    pub classes: Vec<ClassSummary>,
    /// Over classes.
    pub mean: Scores,
}

impl Summary {
    /// Sums `cases` up for the classes called `names`. All pictures of a patient are drawn together for the intervals: with
    /// `patient` the name of a picture up to its first occurrence is the patient, without it each picture stands for itself (with
    /// all its views).
    pub fn of(names: &[String], cases: &[Case], patient: Option<&str>) -> Self {
        let mut units: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
        for case in cases {
            let unit = dataset::patient(&case.image, patient).unwrap_or(&case.image);
            units.entry(unit).or_default().push(case);
        }
        let units: Vec<Vec<&Case>> = units.into_values().collect();
        let class_of = |(class, name): (usize, &String)| {
            let own: Vec<&Case> = cases.iter().filter(|c| c.class == class).collect();
            ClassSummary::of(name, &own, scores(&units, class..class + 1))
        };
        let classes = names.iter().enumerate().map(class_of).collect();
        Self { classes, mean: scores(&units, 0..names.len()) }
    }
}

impl ClassSummary {
    fn of(name: &str, cases: &[&Case], scores: Scores) -> Self {
        let present: Vec<&Case> = cases.iter().filter(|c| c.overlap.is_present()).copied().collect();
        let mut presence = Presence::default();
        for case in cases.iter().filter(|c| c.asked) {
            presence.add(case.overlap.is_present(), case.overlap.is_claimed());
        }
        let certainty = |there: bool| -> Vec<f32> {
            let of = cases.iter().filter(|c| c.asked && c.overlap.is_present() == there);
            of.map(|c| c.presence).filter(|p| p.is_finite()).collect()
        };
        let mut dice: Vec<f64> = present.iter().filter_map(|c| c.dice()).collect();
        dice.sort_by(f64::total_cmp);
        let spread = |of: fn(&Case) -> Option<Distances>, which: fn(Distances) -> f64| {
            Spread::of(present.iter().filter_map(|c| of(c)).map(which), present.len())
        };
        let calibrated = cases.iter().any(|c| c.mm.is_some());
        Self {
            name: name.to_owned(),
            scores,
            dice_median: median(&dice),
            n_present: present.len(),
            n_absent: cases.len() - present.len(),
            n_several_regions: present.iter().filter(|c| c.regions > 1).count(),
            presence,
            presence_auc: presence_auc(&certainty(true), &certainty(false)),
            hd95_px: spread(|c| c.px, |d| d.hd95),
            centroid_px: spread(|c| c.px, |d| d.centroid),
            hd95_mm: calibrated.then(|| spread(|c| c.mm, |d| d.hd95)),
            centroid_mm: calibrated.then(|| spread(|c| c.mm, |d| d.centroid)),
        }
    }
}

/// The shares of `classes` over `units`, averaged over classes.
fn scores(units: &[Vec<&Case>], classes: Range<usize>) -> Scores {
    let figure = |share: fn(&Case) -> Share| {
        let of_class = |unit: &[&Case], class| {
            let own = unit.iter().filter(|c| c.class == class).map(|c| share(c));
            own.fold([0.0; 2], |sum, share| [sum[0] + share[0], sum[1] + share[1]])
        };
        let shares = units.iter().map(|unit| classes.clone().map(|class| of_class(unit, class)).collect());
        Figure(bootstrap_shares(&shares.collect::<Vec<_>>(), SEED))
    };
    Scores {
        dice: figure(|c| c.dice().map_or([0.0; 2], |dice| [dice, 1.0])),
        iou: figure(|c| c.iou().map_or([0.0; 2], |iou| [iou, 1.0])),
        dice_micro: figure(|c| {
            let Overlap { both, extra, missed } = c.overlap;
            [2.0 * both as f64, (2 * both + extra + missed) as f64]
        }),
        iou_micro: figure(|c| {
            let Overlap { both, extra, missed } = c.overlap;
            [both as f64, (both + extra + missed) as f64]
        }),
        sensitivity: figure(|c| match c.overlap.is_present() {
            true => [f64::from(u8::from(c.overlap.is_claimed())), 1.0],
            false => [0.0; 2],
        }),
        specificity: figure(|c| match c.asked && !c.overlap.is_present() {
            true => [f64::from(u8::from(!c.overlap.is_claimed())), 1.0],
            false => [0.0; 2],
        }),
    }
}

impl Serialize for Summary {
    /// `classes` by name, and `mean`.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        /// In the order of the data set.
        struct ByName<'a>(&'a [ClassSummary]);
        impl Serialize for ByName<'_> {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_map(self.0.iter().map(|class| (&class.name, class)))
            }
        }
        let mut map = to.serialize_map(Some(2))?;
        map.serialize_entry("classes", &ByName(&self.classes))?;
        map.serialize_entry("mean", &self.mean)?;
        map.end()
    }
}
