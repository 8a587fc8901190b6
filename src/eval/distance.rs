//! How far a mask's outline is from the truth's.

use crate::mask::Mask;

/// 95th percentile of the distances from each outline to the other, both directions together (as MedPy's `hd95`; the outline
/// are the pixels with a neighbour above, below or beside them that is outside, or that lie at the picture's edge).
/// `spacing` is the width and height of a pixel, (1, 1) for an answer in pixels. `None` if either mask is empty or the sizes differ.
pub fn hd95(mask: &Mask, truth: &Mask, spacing: (f64, f64)) -> Option<f64> {
    let size = (mask.width(), mask.height());
    if size != (truth.width(), truth.height()) {
        return None;
    }
    let (a, b) = (outline(mask), outline(truth));
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let mut distances = Vec::with_capacity(a.len() + b.len());
    for (from, to) in [(&a, &b), (&b, &a)] {
        let squared = squared_distances(to, size, spacing);
        distances.extend(from.iter().map(|&(x, y)| squared[y * size.0 + x].sqrt()));
    }
    distances.sort_by(f64::total_cmp);
    Some(percentile(&distances, 0.95))
}

/// Distance between the centres of gravity, in the units of `spacing`. `None` if either mask is empty.
pub fn centroid_error(mask: &Mask, truth: &Mask, spacing: (f64, f64)) -> Option<f64> {
    let ((ax, ay), (bx, by)) = (centroid(mask)?, centroid(truth)?);
    Some(((ax - bx) * spacing.0).hypot((ay - by) * spacing.1))
}

fn centroid(mask: &Mask) -> Option<(f64, f64)> {
    let (mut n, mut sx, mut sy) = (0u64, 0u64, 0u64);
    for y in 0..mask.height() {
        for (x, _) in mask.row(y).iter().enumerate().filter(|(_, v)| **v != 0) {
            n += 1;
            sx += x as u64;
            sy += y as u64;
        }
    }
    (n > 0).then(|| (sx as f64 / n as f64, sy as f64 / n as f64))
}

fn outline(mask: &Mask) -> Vec<(usize, usize)> {
    let (w, h) = (mask.width(), mask.height());
    let inner = |x: usize, y: usize| {
        x > 0
            && y > 0
            && x + 1 < w
            && y + 1 < h
            && mask.get(x - 1, y)
            && mask.get(x + 1, y)
            && mask.get(x, y - 1)
            && mask.get(x, y + 1)
    };
    let all = (0..h).flat_map(|y| (0..w).map(move |x| (x, y)));
    all.filter(|&(x, y)| mask.get(x, y) && !inner(x, y)).collect()
}

/// Squared distance of every pixel to the nearest of `points`, exact: along columns, then along rows (Felzenszwalb and
/// Huttenlocher, "Distance transforms of sampled functions").
pub(super) fn squared_distances(
    points: &[(usize, usize)],
    (w, h): (usize, usize),
    (sx, sy): (f64, f64),
) -> Vec<f64> {
    let mut field = vec![f64::INFINITY; w * h];
    for &(x, y) in points {
        field[y * w + x] = 0.0;
    }
    let mut column = vec![0.0; h];
    for x in 0..w {
        for (y, v) in column.iter_mut().enumerate() {
            *v = field[y * w + x];
        }
        for (y, v) in lower_envelope(&column, sy).into_iter().enumerate() {
            field[y * w + x] = v;
        }
    }
    for row in field.chunks_exact_mut(w.max(1)) {
        row.copy_from_slice(&lower_envelope(row, sx));
    }
    field
}

/// At each place the lowest of the parabolas that stand on `values`, `step` apart.
fn lower_envelope(values: &[f64], step: f64) -> Vec<f64> {
    let at = |i: usize| i as f64 * step;
    // Parabolas of the envelope from left to right, each with the place from which it is the lowest.
    let mut lowest: Vec<(usize, f64)> = Vec::new();
    for (i, &v) in values.iter().enumerate().filter(|(_, v)| v.is_finite()) {
        let mut from = f64::NEG_INFINITY;
        while let Some(&(j, begins)) = lowest.last() {
            let meet = ((v + at(i) * at(i)) - (values[j] + at(j) * at(j))) / (2.0 * (at(i) - at(j)));
            if meet > begins {
                from = meet;
                break;
            }
            lowest.pop();
        }
        lowest.push((i, from));
    }
    let mut current = 0;
    let distance = |i: usize| {
        while lowest.get(current + 1).is_some_and(|&(_, begins)| begins <= at(i)) {
            current += 1;
        }
        match lowest.get(current) {
            Some(&(j, _)) => (at(i) - at(j)).powi(2) + values[j],
            None => f64::INFINITY,
        }
    };
    (0..values.len()).map(distance).collect()
}

/// Of sorted values, between neighbours in proportion (as numpy does).
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len().saturating_sub(1)) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => low + (high - low) * place.fract(),
        _ => f64::NAN,
    }
}
