//! What tensors say of objects, in numbers.

use std::collections::BTreeMap;

use tch::{Device, Kind, TchError, Tensor};

use super::course::Sight;
use super::tracker::Found;

/// Presence, score and area of each object, read in one copy from the device.
///
/// # Errors
/// libtorch's.
pub fn sights<'a>(found: impl IntoIterator<Item = &'a Found>) -> Result<BTreeMap<usize, Sight>, TchError> {
    let found: Vec<&Found> = found.into_iter().collect();
    if found.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<Tensor> = found
        .iter()
        .map(|f| {
            let t = &f.tracked;
            let area = t.logits.f_gt(0.0)?.f_sum(Kind::Float)?.f_reshape([1])?;
            Tensor::f_cat(&[t.object_score.f_sigmoid()?.f_reshape([1])?, t.iou.f_reshape([1])?, area], 0)
        })
        .collect::<Result<_, TchError>>()?;
    let table = Tensor::f_stack(&rows, 0)?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?;
    let values = Vec::<f32>::try_from(&table.f_reshape([-1])?)?;
    let sights = values.chunks_exact(3).map(|v| Sight { presence: v[0], score: v[1], area: v[2] });
    Ok(found.iter().map(|f| f.object).zip(sights).collect())
}

/// IoU of two masks by their logits; 0 where both are empty.
///
/// # Errors
/// libtorch's.
pub fn agreement(a: &Tensor, b: &Tensor) -> Result<f32, TchError> {
    let (a, b) = (a.f_gt(0.0)?, b.f_gt(0.0)?);
    let both = a.f_logical_and(&b)?.f_sum(Kind::Float)?;
    let any = a.f_logical_or(&b)?.f_sum(Kind::Float)?.f_clamp_min(1.0)?;
    Ok(f64::try_from(both.f_div(&any)?)? as f32)
}
