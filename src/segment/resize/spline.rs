//! scikit-image's `resize(order=3, preserve_range=True, anti_aliasing=True)` followed by a cast to bytes: a Gaussian where the
//! picture shrinks, then an interpolating cubic B-spline, mirrored at the borders, clipped to the range of the picture.
//!
//! The cast drops fractions, so a value that should be whole turns on the last bit of the sum it comes from. The reference adds
//! 64 products (its spline runs along the colour channels too); here the sum is separated, which is a tenth of the work,
//! and done in the reference's order only where the separated one is too near a whole number to be sure.

/// Separated and ordered sums agree far better than this; nearer to a whole number than this, the order matters.
const UNSURE: f64 = 1e-7;

/// Pole of the cubic B-spline's recursive filter, `sqrt(3) - 2`, rounded once.
const POLE: f64 = -0.267_949_192_431_122_7;

/// Powers of the pole below this add nothing to a sum of pixel values.
const NEGLIGIBLE: f64 = 1e-40;

/// Resizes an RGB picture.
///
/// Sizes must not be zero and `src` must have `width * height * 3` bytes; else the answer is black.
pub fn resize_spline(
    src: &[u8],
    (width, height): (usize, usize),
    (new_width, new_height): (usize, usize),
) -> Vec<u8> {
    let mut dst = vec![0; new_width * new_height * 3];
    let row_len = width * 3;
    if src.len() != row_len * height || src.is_empty() || dst.is_empty() {
        return dst;
    }
    if (width, height) == (new_width, new_height) {
        dst.copy_from_slice(src);
        return dst;
    }
    let (low, high) = src.iter().fold((u8::MAX, 0), |(low, high), &v| (low.min(v), high.max(v)));
    let (low, high) = (f64::from(low), f64::from(high));
    let mut image: Vec<f64> = src.iter().map(|&v| f64::from(v)).collect();
    let sigma = |len: usize, new_len: usize| (len as f64 / new_len as f64 - 1.0) / 2.0;
    blur(&mut image, row_len, sigma(height, new_height));
    for row in image.chunks_exact_mut(row_len) {
        blur(row, 3, sigma(width, new_width));
    }
    prefilter(&mut image, row_len);
    for row in image.chunks_exact_mut(row_len) {
        prefilter(row, 3);
    }

    let (columns, rows) = (taps(width, new_width), taps(height, new_height));
    // A row is resized once: the four that a new row needs lie in different slots.
    let mut ring = [(); 4].map(|()| (usize::MAX, vec![0.0; new_width * 3]));
    for (out, row) in dst.chunks_exact_mut(new_width * 3).zip(&rows) {
        for from in row.from {
            let (held, line) = &mut ring[from % 4];
            if *held != from {
                *held = from;
                along_row(&image[from * row_len..][..row_len], &columns, line);
            }
        }
        let [a, b, c, d] = row.from.map(|from| ring[from % 4].1.as_slice());
        let [wa, wb, wc, wd] = row.weights;
        let sums = a.iter().zip(b).zip(c.iter().zip(d));
        let sums = sums.map(|((a, b), (c, d))| a * wa + b * wb + c * wc + d * wd);
        for (i, (out, mut v)) in out.iter_mut().zip(sums).enumerate() {
            // Below and just above the smallest value the answer is the smallest value.
            let fraction = (v - f64::from(v as i32)).abs();
            if v > low + 0.5 && !(UNSURE..1.0 - UNSURE).contains(&fraction) {
                v = ordered_sum(&image, row_len, row, &columns[i / 3], i % 3);
            }
            *out = v.clamp(low, high) as u8;
        }
    }
    dst
}

fn along_row(row: &[f64], columns: &[Tap], out: &mut [f64]) {
    for (out, tap) in out.chunks_exact_mut(3).zip(columns) {
        let mut sums = [0.0; 3];
        for (from, weight) in tap.from.into_iter().zip(tap.weights) {
            for (sum, v) in sums.iter_mut().zip(&row[from * 3..from * 3 + 3]) {
                *sum += v * weight;
            }
        }
        out.copy_from_slice(&sums);
    }
}

/// The sum over rows, columns and channels as the reference orders and rounds it.
fn ordered_sum(image: &[f64], row_len: usize, row: &Tap, column: &Tap, channel: usize) -> f64 {
    let channels = Tap::at(channel as f64, 3);
    let mut sum = 0.0;
    for (y, wy) in row.from.into_iter().zip(row.weights) {
        for (x, wx) in column.from.into_iter().zip(column.weights) {
            let at = y * row_len + x * 3;
            let mut pixel = [image[at], image[at + 1], image[at + 2]];
            prefilter(&mut pixel, 1);
            for (c, wc) in channels.from.into_iter().zip(channels.weights) {
                sum += pixel[c] * wy * wx * wc;
            }
        }
    }
    sum
}

/// Four positions and their weights.
#[derive(Clone, Debug)]
struct Tap {
    from: [usize; 4],
    weights: [f64; 4],
}

impl Tap {
    /// The cubic B-spline around `at`, on `len` positions that are mirrored at the first and the last.
    fn at(at: f64, len: usize) -> Self {
        let start = at.floor() as isize - 1;
        let part = at - at.floor();
        let rest = 1.0 - part;
        let near = |t: f64| (t * t * (t - 2.0) * 3.0 + 4.0) / 6.0;
        let (first, second, third) = (rest * rest * rest / 6.0, near(part), near(rest));
        Self {
            from: std::array::from_fn(|i| mirrored(start + i as isize, len)),
            weights: [first, second, third, 1.0 - first - second - third],
        }
    }
}

/// Where each new position lies among the old ones: the areas of the pixels are scaled, their centres looked up.
fn taps(len: usize, new_len: usize) -> Vec<Tap> {
    let scale = len as f64 / new_len as f64;
    let place = |to: usize| if len == 1 { 0.0 } else { ((to as f64 + 0.5) * scale - 0.5).abs() };
    (0..new_len).map(|to| Tap::at(place(to), len)).collect()
}

/// `at` reflected at positions 0 and `len - 1`, which are not repeated.
fn mirrored(at: isize, len: usize) -> usize {
    let Some(last) = len.checked_sub(1).filter(|&last| last > 0) else { return 0 };
    let at = at.unsigned_abs() % (2 * last);
    if at > last { 2 * last - at } else { at }
}

/// The recursive filter that turns samples into coefficients of the cubic spline through them, in place.
///
/// A sample is `n` neighbouring values that are filtered side by side: a pixel's channels, or a whole row.
fn prefilter(line: &mut [f64], n: usize) {
    let len = line.len() / n;
    if len < 2 {
        return;
    }
    let gain = (1.0 - POLE) * (1.0 - 1.0 / POLE);
    line.iter_mut().for_each(|v| *v *= gain);

    // The infinite sum over the mirrored line, folded into one period.
    let far = POLE.powf((len - 1) as f64);
    let (first, rest) = line.split_at_mut(n);
    let sample = |i: usize| &rest[(i - 1) * n..i * n];
    for (sum, last) in first.iter_mut().zip(sample(len - 1)) {
        *sum += far * last;
    }
    let mut power = POLE;
    for i in 1..len - 1 {
        for ((sum, near), mirror) in first.iter_mut().zip(sample(i)).zip(sample(len - 1 - i)) {
            *sum += power * (near + far * mirror);
        }
        power *= POLE;
        if power.abs() < NEGLIGIBLE {
            break;
        }
    }
    first.iter_mut().for_each(|sum| *sum /= 1.0 - far * far);

    for i in 1..len {
        let (before, own) = line.split_at_mut(i * n);
        for (v, before) in own[..n].iter_mut().zip(&before[(i - 1) * n..]) {
            *v += POLE * before;
        }
    }
    let (before, last) = line.split_at_mut((len - 1) * n);
    for (v, before) in last.iter_mut().zip(&before[(len - 2) * n..]) {
        *v = (POLE * before + *v) * POLE / (POLE * POLE - 1.0);
    }
    for i in (0..len - 1).rev() {
        let (own, after) = line.split_at_mut((i + 1) * n);
        for (v, after) in own[i * n..].iter_mut().zip(&after[..n]) {
            *v = POLE * (after - *v);
        }
    }
}

/// A Gaussian of standard deviation `sigma` samples, cut off at four of them, mirrored at the ends; nothing for `sigma <= 0`.
/// A sample is `n` values, as in [`prefilter`].
fn blur(line: &mut [f64], n: usize, sigma: f64) {
    if sigma <= 1e-15 {
        return;
    }
    let (len, radius) = (line.len() / n, (4.0 * sigma + 0.5) as usize);
    let weight = |distance: usize| (-0.5 / (sigma * sigma) * (distance * distance) as f64).exp();
    let mut weights: Vec<f64> = (0..=radius).map(weight).collect();
    let sum = weights.iter().skip(1).rev().chain(&weights).sum::<f64>();
    weights.iter_mut().for_each(|w| *w /= sum);
    let source = line.to_vec();
    let sample = |i: isize| &source[mirrored(i, len) * n..][..n];
    for (i, out) in line.chunks_exact_mut(n).enumerate() {
        out.iter_mut().for_each(|out| *out *= weights[0]);
        // Farthest first, as the reference adds them.
        for (distance, weight) in weights.iter().enumerate().skip(1).rev() {
            let (before, after) = (i as isize - distance as isize, i as isize + distance as isize);
            for ((out, a), b) in out.iter_mut().zip(sample(before)).zip(sample(after)) {
                *out += (a + b) * weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spline_goes_through_its_samples() {
        for len in [2, 3, 10, 400] {
            let samples: Vec<f64> = (0..len).map(|i| f64::from(i * i % 251)).collect();
            let mut line = samples.clone();
            prefilter(&mut line, 1);
            for (i, sample) in samples.iter().enumerate() {
                let tap = Tap::at(i as f64, samples.len());
                let v: f64 = tap.from.into_iter().zip(tap.weights).map(|(from, w)| line[from] * w).sum();
                assert!((v - sample).abs() < 1e-9, "{len}, {i}: {v} for {sample}");
            }
        }
    }

    #[test]
    fn a_flat_picture_stays_flat_at_any_size() {
        for (w, h, nw, nh) in [(64, 48, 100, 70), (37, 53, 9, 11), (1, 9, 28, 9), (2, 2, 1, 5), (5, 5, 5, 5)]
        {
            for v in [0, 1, 127, 255] {
                let out = resize_spline(&vec![v; w * h * 3], (w, h), (nw, nh));
                assert_eq!(out, vec![v; nw * nh * 3], "{w}x{h} to {nw}x{nh}");
            }
        }
        assert_eq!(resize_spline(&[9; 11], (2, 2), (1, 1)), [0; 3]);
    }

    #[test]
    fn mirrors_do_not_repeat_the_border() {
        let at: Vec<usize> = (-4..8).map(|at| mirrored(at, 4)).collect();
        assert_eq!(at, [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]);
        assert_eq!((mirrored(-3, 1), mirrored(5, 2)), (0, 1));
    }
}
