//! Which old positions make each new one along one axis, and how much each of them gives.

/// How the weight of an old position falls with its distance from the new one, in units of the larger of the two spacings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Linear to zero at distance 1.
    Bilinear,
    /// Keys' cubic with a = -0.5, zero from distance 2.
    Bicubic,
}

impl Kernel {
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            _ => 0.0,
        }
    }
}

/// A window of old positions for every new one, with weights of type `W`.
#[derive(Clone, Debug)]
pub(super) struct Windows<W> {
    /// First old position, and where its weight lies in `weights`; one more at the end.
    starts: Vec<(usize, usize)>,
    weights: Vec<W>,
}

impl Windows<f64> {
    /// Windows that widen with the scale where an axis shrinks (antialiasing); the weights of each sum to 1.
    ///
    /// `round` is applied after every operation that the reference does in single precision; Pillow's are all double.
    pub(super) fn antialiased(len: usize, new_len: usize, kernel: Kernel, round: fn(f64) -> f64) -> Self {
        let scale = round(len as f64 / new_len as f64);
        let stretch = scale.max(1.0);
        let support = round(kernel.support() * stretch);
        let inverse = round(1.0 / stretch);
        let mut windows = Self::with_capacity(new_len);
        for to in 0..new_len {
            let center = round(scale * (to as f64 + 0.5));
            // Casts of negative numbers give zero, as the border asks for.
            let first = ((round(center - support) + 0.5) as usize).min(len.saturating_sub(1));
            let end = ((round(center + support) + 0.5) as usize).min(len);
            let weight = |from: usize| kernel.weight(round((round(from as f64 - center) + 0.5) * inverse));
            windows.push(first, (first..end).map(|from| round(weight(from))));
            let own = windows.last_weights();
            let sum = own.iter().fold(0.0, |sum, w| round(sum + w));
            if sum != 0.0 {
                own.iter_mut().for_each(|w| *w = round(*w / sum));
            }
        }
        windows.end()
    }

    /// Two neighbours at most, whatever the scale: torch's bilinear without antialiasing, in its single precision.
    pub(super) fn plain_bilinear(len: usize, new_len: usize) -> Self {
        let scale = len as f32 / new_len as f32;
        let mut windows = Self::with_capacity(new_len);
        for to in 0..new_len {
            // Rounded once, as torch's vector code rounds it.
            let at = scale.mul_add(to as f32 + 0.5, -0.5).max(0.0);
            let first = (at as usize).min(len.saturating_sub(1));
            // At the last position there is no neighbour, and no distance to it.
            let neighbours = (len - first).min(2);
            let part = if neighbours == 2 { at - first as f32 } else { 0.0 };
            let weights = [f64::from(1.0 - part), f64::from(part)];
            windows.push(first, weights.into_iter().take(neighbours));
        }
        windows.end()
    }

    fn with_capacity(new_len: usize) -> Self {
        Self { starts: Vec::with_capacity(new_len + 1), weights: Vec::with_capacity(4 * new_len) }
    }

    fn push(&mut self, first: usize, weights: impl Iterator<Item = f64>) {
        self.starts.push((first, self.weights.len()));
        self.weights.extend(weights);
    }

    fn last_weights(&mut self) -> &mut [f64] {
        let from = self.starts.last().map_or(0, |&(_, at)| at);
        &mut self.weights[from..]
    }

    fn end(mut self) -> Self {
        self.starts.push((0, self.weights.len()));
        self
    }

    /// The same windows with weights of another type.
    pub(super) fn map<W>(self, to: impl Fn(f64) -> W) -> Windows<W> {
        Windows { starts: self.starts, weights: self.weights.into_iter().map(to).collect() }
    }
}

impl<W> Windows<W> {
    /// First old position and the weights from there on, for each new position in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &[W])> {
        self.starts.windows(2).map(|pair| (pair[0].0, &self.weights[pair[0].1..pair[1].1]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_lie_inside_and_sum_to_one() {
        for (len, new_len) in [(1280, 1024), (720, 1024), (1, 7), (7, 1), (5, 5), (1000, 3), (2, 1024)] {
            for windows in [
                Windows::antialiased(len, new_len, Kernel::Bilinear, |v| v),
                Windows::antialiased(len, new_len, Kernel::Bicubic, |v| v),
                Windows::antialiased(len, new_len, Kernel::Bilinear, |v| f64::from(v as f32)),
                Windows::plain_bilinear(len, new_len),
            ] {
                assert_eq!(windows.iter().count(), new_len);
                for (first, weights) in windows.iter() {
                    assert!(!weights.is_empty() && first + weights.len() <= len, "{len} to {new_len}");
                    let sum: f64 = weights.iter().sum();
                    assert!((sum - 1.0).abs() < 1e-5, "{len} to {new_len}: {sum}");
                }
            }
        }
    }

    #[test]
    fn the_same_length_gives_every_position_to_itself() {
        for kernel in [Kernel::Bilinear, Kernel::Bicubic] {
            for (to, (first, weights)) in Windows::antialiased(9, 9, kernel, |v| v).iter().enumerate() {
                for (i, &w) in weights.iter().enumerate() {
                    assert_eq!(w, f64::from(u8::from(first + i == to)), "{kernel:?} {to}");
                }
            }
        }
    }
}
