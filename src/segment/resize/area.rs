//! OpenCV's `INTER_AREA` resize of interleaved 8-bit pictures, to the byte.
//!
//! Shrinking averages over the area that a new pixel covers; where a side grows, it is linear interpolation with
//! coefficients that keep the areas. The networks were trained and are published with it.

/// Resizes `src`, `height` rows of `width` pixels of `C` bytes, to `new_height` x `new_width`.
///
/// Sizes must not be zero and `src` must have `width * height * C` bytes; a shorter one is read as if it were black.
pub fn resize_area<const C: usize>(
    src: &[u8],
    (width, height): (usize, usize),
    (new_width, new_height): (usize, usize),
) -> Vec<u8> {
    let row_len = width * C;
    let mut padded = Vec::new();
    let src = if src.len() < row_len * height {
        padded.extend_from_slice(src);
        padded.resize(row_len * height, 0);
        &padded
    } else {
        src
    };
    if (width, height) == (new_width, new_height) {
        return src[..row_len * height].to_vec();
    }
    let mut dst = vec![0; new_width * new_height * C];
    if row_len == 0 || dst.is_empty() {
        return dst;
    }
    let shrinks = new_width <= width && new_height <= height;
    if shrinks && width.is_multiple_of(new_width) && height.is_multiple_of(new_height) {
        boxes::<C>(src, row_len, (width / new_width, height / new_height), new_width * C, &mut dst);
    } else if shrinks {
        areas::<C>(src, (width, height), (new_width, new_height), &mut dst);
    } else {
        linear::<C>(src, (width, height), (new_width, new_height), &mut dst);
    }
    dst
}

/// Whole boxes of `sx` x `sy` pixels.
fn boxes<const C: usize>(
    src: &[u8],
    row_len: usize,
    (sx, sy): (usize, usize),
    new_row_len: usize,
    dst: &mut [u8],
) {
    let scale = 1.0 / (sx * sy) as f32;
    let mut sums = vec![0u32; new_row_len];
    for (band, out) in src.chunks_exact(row_len * sy).zip(dst.chunks_exact_mut(new_row_len)) {
        sums.fill(0);
        for row in band.chunks_exact(row_len) {
            for (sum, cell) in sums.chunks_exact_mut(C).zip(row.chunks_exact(sx * C)) {
                for pixel in cell.chunks_exact(C) {
                    for c in 0..C {
                        sum[c] += u32::from(pixel[c]);
                    }
                }
            }
        }
        for (out, &sum) in out.iter_mut().zip(&sums) {
            // OpenCV has a routine of its own for 2x2, which rounds halves up; elsewhere they go to even.
            *out = if (sx, sy) == (2, 2) { ((sum + 2) >> 2) as u8 } else { round(sum as f32 * scale) };
        }
    }
}

fn round(v: f32) -> u8 {
    v.round_ties_even().clamp(0.0, 255.0) as u8
}

/// What one old position gives to one new one.
pub(super) struct Share {
    pub from: usize,
    pub to: usize,
    pub weight: f32,
}

/// The shares of all old positions along one axis, ordered by the new one, then by the old one.
pub(super) fn shares(len: usize, new_len: usize) -> Vec<Share> {
    let scale = len as f64 / new_len as f64;
    let mut table = Vec::with_capacity(2 * len);
    for to in 0..new_len {
        let start = to as f64 * scale;
        let end = start + scale;
        let cell = scale.min(len as f64 - start);
        let last = (end.floor() as usize).min(len - 1);
        let first = (start.ceil() as usize).min(last);
        let mut push = |from: usize, weight: f64| table.push(Share { from, to, weight: weight as f32 });
        // Slivers below a thousandth are left out, as OpenCV does.
        if first as f64 - start > 1e-3 {
            push(first - 1, (first as f64 - start) / cell);
        }
        for from in first..last {
            push(from, 1.0 / cell);
        }
        if end - last as f64 > 1e-3 {
            push(last, (end - last as f64).min(1.0).min(cell) / cell);
        }
    }
    table
}

/// Areas whose borders fall inside pixels.
fn areas<const C: usize>(src: &[u8], (w, h): (usize, usize), (nw, nh): (usize, usize), dst: &mut [u8]) {
    let (columns, rows) = (shares(w, nw), shares(h, nh));
    let mut line = vec![0f32; nw * C];
    let mut sums = vec![0f32; nw * C];
    let mut line_of = usize::MAX;
    for (out, rows) in dst.chunks_exact_mut(nw * C).zip(rows.chunk_by(|a, b| a.to == b.to)) {
        sums.fill(0.0);
        for row in rows {
            // A row on the border of two areas is needed twice.
            if row.from != line_of {
                line.fill(0.0);
                let source = &src[row.from * w * C..][..w * C];
                for share in &columns {
                    let (to, from) = (&mut line[share.to * C..][..C], &source[share.from * C..][..C]);
                    for c in 0..C {
                        to[c] += f32::from(from[c]) * share.weight;
                    }
                }
                line_of = row.from;
            }
            for (sum, &v) in sums.iter_mut().zip(&line) {
                *sum += v * row.weight;
            }
        }
        for (out, &sum) in out.iter_mut().zip(&sums) {
            *out = round(sum);
        }
    }
}

/// Two neighbours and their weights in units of 1/2048.
struct Tap {
    at: usize,
    next: usize,
    weights: [i32; 2],
}

/// Where each new position reads along one axis that grows (or stays).
fn taps(len: usize, new_len: usize) -> Vec<Tap> {
    let inverse = new_len as f64 / len as f64;
    let scale = 1.0 / inverse;
    let tap = |to: usize| {
        let at = (to as f64 * scale).floor() as usize;
        let part = ((to + 1) as f64 - (at + 1) as f64 * inverse) as f32;
        let part = if part <= 0.0 { 0.0 } else { part - part.floor() };
        let (at, part) = if at + 1 >= len { (len - 1, 0.0) } else { (at, part) };
        let fixed = |v: f32| (v * 2048.0).round_ties_even() as i32;
        Tap { at, next: (at + 1).min(len - 1), weights: [fixed(1.0 - part), fixed(part)] }
    };
    (0..new_len).map(tap).collect()
}

/// Linear interpolation in OpenCV's fixed point.
fn linear<const C: usize>(src: &[u8], (w, h): (usize, usize), (nw, nh): (usize, usize), dst: &mut [u8]) {
    let columns = taps(w, nw);
    let horizontal = |row: usize| -> Vec<i32> {
        let source = &src[row * w * C..][..w * C];
        let at = |x: usize, c: usize| i32::from(source[x * C + c]);
        let sample = |t: &Tap, c| at(t.at, c) * t.weights[0] + at(t.next, c) * t.weights[1];
        columns.iter().flat_map(|t| (0..C).map(move |c| sample(t, c))).collect()
    };
    // A row is used for many new ones when the picture grows.
    let mut upper = (0, horizontal(0));
    let mut lower = (0, upper.1.clone());
    for (out, tap) in dst.chunks_exact_mut(nw * C).zip(taps(h, nh)) {
        if upper.0 != tap.at {
            upper = if lower.0 == tap.at { lower.clone() } else { (tap.at, horizontal(tap.at)) };
        }
        if lower.0 != tap.next {
            lower = if upper.0 == tap.next { upper.clone() } else { (tap.next, horizontal(tap.next)) };
        }
        let [a, b] = tap.weights;
        for (out, (&up, &low)) in out.iter_mut().zip(upper.1.iter().zip(&lower.1)) {
            *out = ((((a * (up >> 4)) >> 16) + ((b * (low >> 4)) >> 16) + 2) >> 2).clamp(0, 255) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_picture_stays_flat_at_any_size() {
        for (w, h, nw, nh) in
            [(640, 480, 256, 192), (37, 53, 179, 256), (300, 7, 256, 6), (1, 9, 28, 256), (5, 5, 5, 5)]
        {
            for v in [0, 1, 127, 255] {
                let out = resize_area::<3>(&vec![v; w * h * 3], (w, h), (nw, nh));
                assert_eq!(out, vec![v; nw * nh * 3], "{w}x{h} to {nw}x{nh}");
            }
        }
    }

    #[test]
    fn shares_of_a_cell_sum_to_one() {
        for (len, new_len) in [(1080, 144), (131, 55), (257, 256), (256, 1)] {
            for cell in shares(len, new_len).chunk_by(|a, b| a.to == b.to) {
                let sum: f32 = cell.iter().map(|s| s.weight).sum();
                assert!((sum - 1.0).abs() < 2e-3, "{len} to {new_len}: {sum}");
            }
        }
    }
}
