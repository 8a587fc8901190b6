//! What tensors say of objects, in numbers.

use std::collections::BTreeMap;

use tch::{Kind, TchError, Tensor};

use super::course::Sight;
use super::tracker::Found;
use crate::segment::device::read;

/// Presence, score and area of each object, read in one copy from the device.
///
/// # Errors
/// libtorch's.
pub fn sights<'a>(found: impl IntoIterator<Item = &'a Found>) -> Result<BTreeMap<usize, Sight>, TchError> {
    let found: Vec<&Found> = found.into_iter().collect();
    if found.is_empty() {
        return Ok(BTreeMap::new());
    }
    let values = Vec::<f32>::try_from(&read(&table(found.iter().copied())?)?.f_reshape([-1])?)?;
    Ok(tabled(found, &values))
}

/// Presence, score and area of each object, where the network is: `[n, 3]` of `f32`. At least one object.
///
/// # Errors
/// libtorch's.
pub fn table<'a>(found: impl IntoIterator<Item = &'a Found>) -> Result<Tensor, TchError> {
    let rows: Vec<Tensor> = found
        .into_iter()
        .map(|f| {
            let t = &f.tracked;
            let area = t.logits.f_gt(0.0)?.f_sum(Kind::Float)?.f_reshape([1])?;
            Tensor::f_cat(&[t.object_score.f_sigmoid()?.f_reshape([1])?, t.iou.f_reshape([1])?, area], 0)
        })
        .collect::<Result<_, TchError>>()?;
    Tensor::f_stack(&rows, 0)?.f_to_kind(Kind::Float)
}

/// The `values` of a [`table`] of the same objects, row by row.
pub fn tabled<'a>(found: impl IntoIterator<Item = &'a Found>, values: &[f32]) -> BTreeMap<usize, Sight> {
    let (rows, _) = values.as_chunks::<3>();
    let sights = rows.iter().map(|&[presence, score, area]| Sight { presence, score, area });
    found.into_iter().map(|f| f.object).zip(sights).collect()
}

/// Whose mask of an object it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// What the memory says.
    Memory,
    /// What the predictor says.
    Predictor,
    /// What came of a person's prompt.
    Person,
}

/// IoU of masks with each other, by whose and of which object they are.
#[derive(Debug, Default)]
pub struct Overlaps {
    places: BTreeMap<(Whose, usize), usize>,
    values: Vec<f32>,
}

impl Overlaps {
    /// Of two masks; 0 where both are empty, or one was not among them.
    pub fn of(&self, a: (Whose, usize), b: (Whose, usize)) -> f32 {
        let place = self.places.get(&a).zip(self.places.get(&b));
        place.and_then(|(a, b)| self.values.get(a * self.places.len() + b)).copied().unwrap_or(0.0)
    }
}

/// Presence, score and area of what the predictor says, and how much all masks overlap, read in one copy from the device. Nothing where the
/// predictor says nothing.
///
/// # Errors
/// libtorch's.
pub fn compared(
    memory: &BTreeMap<usize, Found>,
    person: &BTreeMap<usize, Found>,
    predictor: &BTreeMap<usize, Found>,
) -> Result<(BTreeMap<usize, Sight>, Overlaps), TchError> {
    if predictor.is_empty() {
        return Ok(Default::default());
    }
    let sources = [(Whose::Memory, memory), (Whose::Person, person), (Whose::Predictor, predictor)];
    let all = sources.iter().flat_map(|(whose, of)| of.iter().map(|(object, f)| ((*whose, *object), f)));
    let all: Vec<((Whose, usize), &Found)> = all.collect();
    let masks = all.iter().map(|(_, f)| f.tracked.logits.f_gt(0.0)?.f_reshape([-1]));
    let masks = masks.collect::<Result<Vec<_>, TchError>>()?;
    let overlaps = overlaps(&Tensor::f_stack(&masks, 0)?)?;
    let numbers =
        Tensor::f_cat(&[table(predictor.values())?.f_reshape([-1])?, overlaps.f_reshape([-1])?], 0)?;
    let numbers = Vec::<f32>::try_from(&read(&numbers)?)?;
    let (sights, values) = numbers.split_at_checked(3 * predictor.len()).unwrap_or((&numbers, &[]));
    let places = all.iter().enumerate().map(|(at, (mask, _))| (*mask, at)).collect();
    Ok((tabled(predictor.values(), sights), Overlaps { places, values: values.to_vec() }))
}

/// IoU of masks `[n, pixels]` with each other, `[n, n]` of `f32`; 0 where both are empty. Of masks of up to 2^24 pixels all
/// counts are exact, in one product of all.
fn overlaps(masks: &Tensor) -> Result<Tensor, TchError> {
    let masks = masks.f_to_kind(Kind::Float)?;
    let both = masks.f_matmul(&masks.f_transpose(0, 1)?)?;
    let areas = both.f_diagonal(0, 0, 1)?;
    // In this order nothing is larger than the picture.
    let any = areas.f_unsqueeze(0)?.f_sub(&both)?.f_add(&areas.f_unsqueeze(1)?)?.f_clamp_min(1.0)?;
    both.f_div(&any)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::nn::Tracked;

    #[test]
    fn everybodys_masks_are_compared_with_the_predictors() {
        let found = |object: usize, inside: [i64; 2], score: f32| {
            let one = |v: f32| Tensor::from_slice(&[v]).view([1, 1]);
            let logits = Tensor::full([1, 1, 1, 8], -1.0, (Kind::Float, Device::Cpu));
            let _ = logits.narrow(3, inside[0], inside[1] - inside[0]).fill_(1.0);
            let tracked = Tracked { logits, iou: one(score), object_score: one(0.0), pointer: one(0.0) };
            (object, Found::proposed(object, tracked, &one(0.0)))
        };
        // Object 1 is in all of them.
        let memory = BTreeMap::from([found(1, [0, 4], 0.5), found(2, [4, 8], 0.5)]);
        let person = BTreeMap::from([found(1, [0, 2], 0.5)]);
        let predictor = BTreeMap::from([found(1, [2, 4], 0.25), found(3, [0, 8], 0.75)]);
        let (said, overlaps) = compared(&memory, &person, &predictor).unwrap();
        let told: Vec<_> = said.iter().map(|(object, s)| (*object, s.presence, s.score, s.area)).collect();
        assert_eq!(told, [(1, 0.5, 0.25, 2.0), (3, 0.5, 0.75, 8.0)]);
        for (a, b, expected) in [
            ((Whose::Memory, 1), (Whose::Predictor, 1), 0.5),
            ((Whose::Memory, 2), (Whose::Predictor, 1), 0.0),
            ((Whose::Memory, 2), (Whose::Predictor, 3), 0.5),
            ((Whose::Person, 1), (Whose::Predictor, 1), 0.0),
            ((Whose::Person, 1), (Whose::Predictor, 3), 0.25),
            ((Whose::Predictor, 3), (Whose::Predictor, 1), 0.25),
        ] {
            assert_eq!((overlaps.of(a, b), overlaps.of(b, a)), (expected, expected), "{a:?} {b:?}");
        }
        let (said, overlaps) = compared(&memory, &person, &BTreeMap::new()).unwrap();
        assert!(said.is_empty() && overlaps.of((Whose::Memory, 1), (Whose::Person, 1)) == 0.0);
    }

    #[test]
    fn masks_overlap_by_their_common_pixels() {
        let masks = [[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0; 6], [0; 6], [1; 6]];
        let rows: Vec<Tensor> = masks.iter().map(|row| Tensor::from_slice(row).gt(0)).collect();
        let found = Vec::<Vec<f32>>::try_from(overlaps(&Tensor::stack(&rows, 0)).unwrap()).unwrap();
        let third = 1.0 / 3.0;
        let two_thirds = 2.0 / 3.0;
        let expected = [
            [1.0, third, 0.0, 0.0, two_thirds],
            [third, 1.0, 0.0, 0.0, two_thirds],
            [0.0; 5],
            [0.0; 5],
            [two_thirds, two_thirds, 0.0, 0.0, 1.0],
        ];
        assert_eq!(found, expected);
        let of = |a, b| {
            let places = (0..5).map(|at| ((Whose::Memory, at), at)).collect();
            Overlaps { places, values: found.concat() }.of(a, b)
        };
        assert_eq!(of((Whose::Memory, 4), (Whose::Memory, 1)), two_thirds);
        assert_eq!(of((Whose::Memory, 4), (Whose::Person, 4)), 0.0);
    }
}
