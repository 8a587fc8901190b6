//! Small holes and sprinkles in mask logits: 8-connected components. On a CPU they are found by runs of a row and a union of runs that
//! touch; on a GPU, if they are small enough, by [`spread`], so that nothing waits for them.

use std::ops::Range;

use tch::{Kind, TchError, Tensor};

use super::spread;
use crate::segment::device::read;

/// What holes are filled with; sprinkles get the negative.
const FILL: f32 = 10.0;

/// Fills holes of up to `max_hole_area` pixels with 10 and removes sprinkles, components above 0, of up to `max_sprinkle_area`
/// pixels with -10, in every plane of `logits` `[.., h, w]` (SAM 2's image predictor, `postprocess_masks`). Both are looked for
/// in the logits as they were; an area of 0 leaves its kind alone. The answer is on the device of `logits`, without a graph. With
/// `there` small areas are found there, without waiting for it.
///
/// # Errors
/// A tensor without rows and columns, libtorch's.
pub fn clean(
    logits: &Tensor,
    max_hole_area: usize,
    max_sprinkle_area: usize,
    there: bool,
) -> Result<Tensor, TchError> {
    if there && spread::fits(logits, max_hole_area.max(max_sprinkle_area)) {
        return clean_there(logits, max_hole_area, max_sprinkle_area);
    }
    planes(logits, |values, width| {
        let holes = small_components(values, width, max_hole_area, |v| v <= 0.0);
        let sprinkles = small_components(values, width, max_sprinkle_area, |v| v > 0.0);
        for hole in holes {
            values[hole].fill(FILL);
        }
        for sprinkle in sprinkles {
            values[sprinkle].fill(-FILL);
        }
    })
}

/// Rows and columns of logits of this shape.
fn sides(shape: &[i64]) -> Result<[i64; 2], TchError> {
    match *shape {
        [.., height, width] => Ok([height, width]),
        _ => Err(TchError::Shape(format!("logits of shape {shape:?}; expected [.., height, width]"))),
    }
}

/// The same where the logits are.
pub(super) fn clean_there(
    logits: &Tensor,
    max_hole_area: usize,
    max_sprinkle_area: usize,
) -> Result<Tensor, TchError> {
    let shape = logits.size();
    let [height, width] = sides(&shape)?;
    let logits = logits.f_detach()?;
    let planes = logits.f_reshape([-1, 1, height, width])?;
    let kinds = [(planes.f_le(0)?, max_hole_area, FILL), (planes.f_gt(0)?, max_sprinkle_area, -FILL)];
    let kinds: Vec<_> = kinds.into_iter().filter(|(_, max_area, _)| *max_area > 0).collect();
    // All together, as each pass over them is another call.
    let inside: Vec<&Tensor> = kinds.iter().map(|(inside, ..)| inside).collect();
    let Some(largest) = kinds.iter().map(|(_, max_area, _)| *max_area).max() else { return Ok(logits) };
    let areas = spread::areas(&Tensor::f_cat(&inside, 0)?.f_to_kind(Kind::Float)?, largest)?;
    let areas = areas.f_chunk(kinds.len() as i64, 0)?;
    let mut cleaned = logits;
    for ((inside, max_area, value), areas) in kinds.iter().zip(areas) {
        let small = areas.f_le(*max_area as i64)?.f_logical_and(inside)?.f_reshape(&shape)?;
        cleaned = cleaned.f_masked_fill(&small, f64::from(*value))?;
    }
    Ok(cleaned)
}

/// Changes a copy of each plane on the CPU.
fn planes(logits: &Tensor, mut change: impl FnMut(&mut [f32], usize)) -> Result<Tensor, TchError> {
    let shape = logits.size();
    let [height, width] = sides(&shape)?;
    if logits.numel() == 0 {
        return Ok(logits.copy());
    }
    let mut values = vec![0f32; logits.numel()];
    let on_cpu = read(&logits.f_detach()?)?.f_to_kind(Kind::Float)?.f_contiguous()?;
    on_cpu.f_copy_data(&mut values, on_cpu.numel())?;
    for plane in values.chunks_exact_mut((height * width) as usize) {
        change(plane, width as usize);
    }
    let changed = Tensor::f_from_slice(&values)?.f_reshape(&shape)?;
    changed.f_to_device(logits.device())?.f_to_kind(logits.kind())
}

/// A stretch of one row that is inside, by its position in the plane, and the tree it belongs to.
struct Run {
    pixels: Range<usize>,
    /// Another run of the same component, nearer to its root; the root is its own.
    parent: usize,
    /// At the root: pixels of the component.
    area: usize,
}

/// The runs of all 8-connected components of `inside` pixels that have 1 to `max_area` pixels.
fn small_components(
    values: &[f32],
    width: usize,
    max_area: usize,
    inside: impl Fn(f32) -> bool,
) -> Vec<Range<usize>> {
    if max_area == 0 || width == 0 {
        return Vec::new();
    }
    let mut runs: Vec<Run> = Vec::new();
    // The runs of the row above.
    let mut above = 0..0;
    for (y, row) in values.chunks(width).enumerate() {
        let first = runs.len();
        let mut x = 0;
        while let Some(start) = row[x..].iter().position(|&v| inside(v)).map(|skipped| x + skipped) {
            let end = row[start..].iter().position(|&v| !inside(v)).map_or(row.len(), |len| start + len);
            let (parent, area) = (runs.len(), end - start);
            runs.push(Run { pixels: y * width + start..y * width + end, parent, area });
            x = end;
        }
        let mut candidate = above.start;
        for own in first..runs.len() {
            // A run touches those above that begin at most one pixel after its end and end at most one before its start.
            let touched = |runs: &[Run], up: usize| {
                runs[up].pixels.start + width <= runs[own].pixels.end
                    && runs[own].pixels.start <= runs[up].pixels.end + width
            };
            while candidate < above.end && runs[candidate].pixels.end + width < runs[own].pixels.start {
                candidate += 1;
            }
            let mut up = candidate;
            while up < above.end && touched(&runs, up) {
                join(&mut runs, own, up);
                up += 1;
            }
        }
        above = first..runs.len();
    }
    let small = |&i: &usize| runs[root(&runs, i)].area <= max_area;
    (0..runs.len()).filter(small).map(|i| runs[i].pixels.clone()).collect()
}

fn root(runs: &[Run], mut i: usize) -> usize {
    while runs[i].parent != i {
        i = runs[i].parent;
    }
    i
}

/// The smaller tree goes under the larger one, so that no path is longer than the logarithm of the runs.
fn join(runs: &mut [Run], a: usize, b: usize) {
    let (a, b) = (root(runs, a), root(runs, b));
    if a == b {
        return;
    }
    let (under, over) = if runs[a].area < runs[b].area { (a, b) } else { (b, a) };
    runs[under].parent = over;
    runs[over].area += runs[under].area;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Components by flooding, the slow way.
    fn flooded(values: &[f32], width: usize, max_area: usize) -> Vec<usize> {
        let height = values.len() / width;
        let mut seen = vec![false; values.len()];
        let mut small = Vec::new();
        for start in 0..values.len() {
            if values[start] <= 0.0 || seen[start] {
                continue;
            }
            seen[start] = true;
            let mut component = vec![start];
            let mut at = 0;
            while let Some(&p) = component.get(at) {
                at += 1;
                let (x, y) = (p % width, p / width);
                for ny in y.saturating_sub(1)..(y + 2).min(height) {
                    for nx in x.saturating_sub(1)..(x + 2).min(width) {
                        let q = ny * width + nx;
                        if values[q] > 0.0 && !seen[q] {
                            seen[q] = true;
                            component.push(q);
                        }
                    }
                }
            }
            if component.len() <= max_area {
                small.extend(component);
            }
        }
        small.sort_unstable();
        small
    }

    proptest! {
        #[test]
        fn runs_find_what_flooding_finds(
            width in 1usize..24, height in 1usize..24, max_area in 0usize..30, density in 0u32..=100, seed: u32,
        ) {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) % 100
            };
            let values: Vec<f32> =
                (0..width * height).map(|_| if next() < density { 1.0 } else { -1.0 }).collect();
            let ours: Vec<usize> = small_components(&values, width, max_area, |v| v > 0.0).into_iter().flatten().collect();
            prop_assert_eq!(ours, flooded(&values, width, max_area));
        }
    }

    #[test]
    fn diagonals_connect_and_rows_do_not_wrap() {
        let plane = [1.0, -1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, 1.0];
        let small = |max_area| small_components(&plane, 3, max_area, |v| v > 0.0).len();
        assert_eq!((small(2), small(3)), (0, 3));
        // The end of one row and the start of the next but one.
        let plane = [-1.0, 1.0, -1.0, -1.0, 1.0, -1.0];
        assert_eq!(small_components(&plane, 2, 1, |v| v > 0.0).len(), 2);
    }

    #[test]
    fn planes_are_independent_and_the_rest_stays() {
        let logits = Tensor::full([2, 1, 8, 8], 3.0, (Kind::Float, tch::Device::Cpu));
        let _ = logits.get(0).narrow(1, 2, 2).narrow(2, 2, 2).fill_(-1.0);
        let filled = clean(&logits, 4, 0, false).unwrap();
        assert_eq!(filled.double_value(&[0, 0, 2, 2]), f64::from(FILL));
        assert_eq!(f64::try_from(filled.get(1).min()).unwrap(), 3.0);
        assert_eq!(f64::try_from((clean(&logits, 3, 0, false).unwrap() - &logits).abs().max()).unwrap(), 0.0);
        assert_eq!(clean(&-logits, 0, 4, false).unwrap().double_value(&[0, 0, 3, 3]), -10.0);
        assert!(clean(&Tensor::from(1.0f32), 8, 8, false).is_err());
        let none = Tensor::zeros([0, 1, 4, 4], (Kind::Float, tch::Device::Cpu));
        assert_eq!(clean(&none, 8, 8, true).unwrap().numel(), 0);
    }
}
