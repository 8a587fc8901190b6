//! Small components found by operations of tensors alone, for a device whose answers are not waited for.

use tch::{Kind, TchError, Tensor};

/// The largest area that is looked for in this way: each pixel more is another pass over the masks.
const MAX_AREA: usize = 64;
/// Most pixels of a plane, whose numbers are exact in `f32`.
const MAX_PIXELS: i64 = 1 << 24;

/// Whether components of up to `max_area` pixels in the planes of `logits` can be found here.
pub(super) fn fits(logits: &Tensor, max_area: usize) -> bool {
    let size = logits.size();
    let [.., height, width] = size[..] else { return false };
    logits.numel() > 0 && height * width < MAX_PIXELS && max_area <= MAX_AREA
}

/// For each pixel of `inside` `[N, 1, h, w]`, 0 or 1, the area of its 8-connected component of its plane, if that is at most `max_area`,
/// and something larger if not. What is outside is outside of all. `max_area` is at least 1.
///
/// Each pixel begins with a number of its own, and in each pass takes the largest of those that touch it. Two pixels of a component of
/// `max_area` are at most `max_area - 1` steps apart, so after as many passes a small component has one number. Of a larger one a part
/// may be as small and have one number, too; but then a pixel of it touches one with another.
///
/// # Errors
/// libtorch's.
pub(super) fn areas(inside: &Tensor, max_area: usize) -> Result<Tensor, TchError> {
    let (planes, _, height, width) = inside.size4()?;
    let pixels = height * width;
    let options = (Kind::Float, inside.device());
    let largest = |of: &Tensor| of.f_max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false);
    // From 1: what is outside has 0.
    let numbers = Tensor::f_arange_start(1, pixels + 1, options)?.f_view([1, 1, height, width])?;
    let mut numbers = inside.f_mul(&numbers)?;
    for _ in 1..max_area {
        numbers = largest(&numbers)?.f_mul(inside)?;
    }
    // What is outside has no say: as the largest it is 0, and as the smallest the number after the last.
    let after = inside.f_rsub_scalar(1)?.f_mul_scalar(pixels + 1)?;
    let smallest = largest(&numbers.f_add(&after)?.f_neg()?)?.f_neg()?;
    let alone = largest(&numbers)?.f_eq_tensor(&numbers)?.f_logical_and(&smallest.f_eq_tensor(&numbers)?)?;
    // A pixel that touches another number counts as more than a small component has.
    let weight =
        alone.f_logical_not()?.f_to_kind(Kind::Float)?.f_mul_scalar(max_area as i64)?.f_add_scalar(1)?;
    let index = numbers.f_view([planes, pixels])?.f_to_kind(Kind::Int64)?;
    let sums = Tensor::f_zeros([planes, pixels + 1], options)?;
    let sums = sums.f_scatter_add(1, &index, &weight.f_view([planes, pixels])?)?;
    sums.f_gather(1, &index, false)?.f_view_as(inside)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::components::{clean, clean_there};
    use super::*;

    proptest! {
        #[test]
        fn what_is_done_on_a_gpu_is_the_same(
            width in 1i64..24, height in 1i64..24, hole in 0usize..12, sprinkle in 0usize..12, density in 0u32..=100, seed: u32,
        ) {
            let mut state = seed;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) % 100
            };
            let values: Vec<f32> =
                (0..2 * width * height).map(|_| if next() < density { 0.5 + next() as f32 } else { -(next() as f32) }).collect();
            let logits = Tensor::from_slice(&values).reshape([2, 1, height, width]);
            prop_assert!(clean_there(&logits, hole, sprinkle).unwrap().equal(&clean(&logits, hole, sprinkle, false).unwrap()));
        }
    }

    #[test]
    fn a_small_part_of_a_large_component_is_none() {
        // A spiral one pixel wide: pixels that take their number from both ends meet somewhere within.
        let (side, mut plane) = (25_usize, vec![-1.0f32; 625]);
        let (mut x, mut y, mut heading) = (0_i64, 0_i64, 0);
        let mut length = 0;
        let open = |plane: &[f32], x: i64, y: i64| {
            let within = |v: i64| usize::try_from(v).ok().filter(|v| *v < side);
            within(x).zip(within(y)).is_some_and(|(x, y)| plane[y * side + x] < 0.0)
        };
        for _ in 0..side * side {
            if open(&plane, x, y) {
                plane[y as usize * side + x as usize] = 1.0;
                length += 1;
            }
            let [dx, dy] = [[1, 0], [0, 1], [-1, 0], [0, -1]][heading];
            let beyond = (x + 2 * dx, y + 2 * dy);
            let inside = (0..side as i64).contains(&beyond.0) && (0..side as i64).contains(&beyond.1);
            if open(&plane, x + dx, y + dy) && (!inside || open(&plane, beyond.0, beyond.1)) {
                (x, y) = (x + dx, y + dy);
            } else {
                heading = (heading + 1) % 4;
            }
        }
        assert!(length > 200, "{length}");
        let logits = Tensor::from_slice(&plane).reshape([1, 1, 25, 25]);
        for area in [1, 2, 7, 30, MAX_AREA] {
            assert!(clean_there(&logits, 0, area).unwrap().equal(&logits), "{area}");
            assert!(
                clean_there(&logits, area, area).unwrap().equal(&clean(&logits, area, area, false).unwrap())
            );
        }
    }

    #[test]
    fn a_winding_component_is_small_to_the_pixel() {
        // Back and forth, so that both ends are as far apart as they can be, with the largest number at one of them.
        for (length, small) in [(MAX_AREA, true), (MAX_AREA + 1, false)] {
            let mut plane = vec![-1.0f32; 40 * 40];
            let (mut x, mut y, mut step) = (3, 3, 1);
            for _ in 0..length {
                plane[y * 40 + x] = 1.0;
                // A row of 10, two pixels down, and back.
                let ends = if step == 1 { x == 12 } else { x == 3 };
                if y % 2 == 0 || ends && y % 4 == if step == 1 { 3 } else { 1 } {
                    y += 1;
                    if y % 2 == 1 {
                        step = if x == 12 { usize::MAX } else { 1 };
                    }
                } else {
                    x = x.wrapping_add(step);
                }
            }
            assert_eq!(plane.iter().filter(|&&v| v > 0.0).count(), length);
            let logits = Tensor::from_slice(&plane).reshape([1, 1, 40, 40]);
            let cleaned = clean_there(&logits, 0, MAX_AREA).unwrap();
            assert!(cleaned.equal(&clean(&logits, 0, MAX_AREA, false).unwrap()));
            assert_eq!(f64::try_from(cleaned.max()).unwrap() < 0.0, small, "{length}");
        }
    }

    #[test]
    fn what_is_no_number_stays() {
        let logits = Tensor::from_slice(&[f32::NAN, -1.0, 2.0, 2.0, 2.0, 2.0]).reshape([1, 1, 2, 3]);
        for there in [false, true] {
            let cleaned = Vec::<f32>::try_from(clean(&logits, 3, 3, there).unwrap().view(-1)).unwrap();
            assert!(
                cleaned[0].is_nan() && cleaned[1..] == [10.0, 2.0, 2.0, 2.0, 2.0],
                "{there}: {cleaned:?}"
            );
        }
    }
}
