//! Overlap and presence, counted.

use crate::mask::Mask;

/// Pixels of a mask and of the truth, counted. Counts of several pictures can be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlap {
    /// In both.
    pub both: u64,
    /// In the mask alone.
    pub extra: u64,
    /// In the truth alone.
    pub missed: u64,
}

impl Overlap {
    /// Compares masks of one size; `None` for different ones.
    pub fn of(mask: &Mask, truth: &Mask) -> Option<Self> {
        if (mask.width(), mask.height()) != (truth.width(), truth.height()) {
            return None;
        }
        let mut found = Self::default();
        for (&m, &t) in mask.data().iter().zip(truth.data()) {
            found.both += u64::from(m & t);
            found.extra += u64::from(m & (1 - t));
            found.missed += u64::from((1 - m) & t);
        }
        Some(found)
    }

    /// Whether the truth has any pixel.
    pub fn is_present(&self) -> bool {
        self.both + self.missed > 0
    }

    /// Whether the mask has any pixel.
    pub fn is_claimed(&self) -> bool {
        self.both + self.extra > 0
    }

    /// Dice coefficient, `2 both / (mask + truth)`. Where both are empty there is nothing to score: `None`.
    pub fn dice(&self) -> Option<f64> {
        ratio(2 * self.both, 2 * self.both + self.extra + self.missed)
    }

    /// Intersection over union. Where both are empty there is nothing to score: `None`.
    pub fn iou(&self) -> Option<f64> {
        ratio(self.both, self.both + self.extra + self.missed)
    }
}

impl std::ops::AddAssign for Overlap {
    fn add_assign(&mut self, other: Self) {
        self.both += other.both;
        self.extra += other.extra;
        self.missed += other.missed;
    }
}

/// Pictures by whether a class is there and whether it was said to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Presence {
    /// There, and said so.
    pub found: u64,
    /// There, not said.
    pub overlooked: u64,
    /// Not there, but said.
    pub imagined: u64,
    /// Not there, and not said.
    pub rejected: u64,
}

impl Presence {
    /// Counts a picture.
    pub fn add(&mut self, there: bool, said: bool) {
        match (there, said) {
            (true, true) => self.found += 1,
            (true, false) => self.overlooked += 1,
            (false, true) => self.imagined += 1,
            (false, false) => self.rejected += 1,
        }
    }

    /// Share of pictures with the class in which it was found; `None` without such pictures.
    pub fn sensitivity(&self) -> Option<f64> {
        ratio(self.found, self.found + self.overlooked)
    }

    /// Share of pictures without the class in which none was imagined; `None` without such pictures.
    pub fn specificity(&self) -> Option<f64> {
        ratio(self.rejected, self.rejected + self.imagined)
    }
}

/// Of pairs of a picture with the class and one without it, the share in which the first has the larger certainty, equal ones
/// counting half: the area under the ROC curve. `None` where either side has no picture.
pub fn presence_auc(with: &[f32], without: &[f32]) -> Option<f64> {
    let pairs = with.iter().flat_map(|a| without.iter().map(move |b| (a, b)));
    let (mut won, mut all) = (0.0, 0.0);
    for (a, b) in pairs {
        all += 1.0;
        won += if a > b { 1.0 } else { f64::from(u8::from(a == b)) / 2.0 };
    }
    (all > 0.0).then(|| won / all)
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
