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

/// IoU of two masks by their logits; 0 where both are empty.
///
/// # Errors
/// libtorch's.
pub fn agreement(a: &Tensor, b: &Tensor) -> Result<f32, TchError> {
    let (a, b) = (a.f_gt(0.0)?, b.f_gt(0.0)?);
    let both = a.f_logical_and(&b)?.f_sum(Kind::Float)?;
    let any = a.f_logical_or(&b)?.f_sum(Kind::Float)?.f_clamp_min(1.0)?;
    Ok(f64::try_from(read(&both.f_div(&any)?)?)? as f32)
}
