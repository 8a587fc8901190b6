//! From stored values to the 8 bits that are shown, by one rule for the whole loop.

/// Maps stored values to 0..=255. Fixed once for a loop: a mapping chosen per frame would make the loop flicker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Window {
    /// `low` and below becomes 0, `high` and above 255, linear between.
    Range {
        /// Darkest value.
        low: f64,
        /// Brightest value, above `low`.
        high: f64,
    },
    /// DICOM's SIGMOID function.
    Sigmoid {
        /// Value shown half-bright.
        center: f64,
        /// Width, positive.
        width: f64,
    },
}

impl Window {
    /// A linear range; `None` unless both ends are finite and `low < high`.
    pub(super) fn range(low: f64, high: f64) -> Option<Self> {
        (low.is_finite() && high.is_finite() && low < high).then_some(Self::Range { low, high })
    }

    /// DICOM's window in terms of PS3.3 C.11.2.1.2 and C.11.2.1.3; `function` is VOI LUT Function (0028,1056).
    /// `None` where the values make no window.
    pub(super) fn dicom(center: f64, width: f64, function: &str) -> Option<Self> {
        match function {
            "SIGMOID" => (center.is_finite() && width.is_finite() && width > 0.0)
                .then_some(Self::Sigmoid { center, width }),
            "LINEAR_EXACT" => Self::range(center - width / 2.0, center + width / 2.0),
            _ => Self::range(center - 0.5 - (width - 1.0) / 2.0, center - 0.5 + (width - 1.0) / 2.0),
        }
    }

    /// The range of `values`; that of `fallback` where they are all alike or none is finite.
    pub(super) fn of(values: impl Iterator<Item = f64>, fallback: (f64, f64)) -> Self {
        let (low, high) = values
            .filter(|v| v.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), v| (lo.min(v), hi.max(v)));
        Self::range(low, high).unwrap_or(Self::Range { low: fallback.0, high: fallback.1 })
    }

    /// The shown value; NaN becomes 0.
    pub(super) fn map(self, value: f64) -> u8 {
        let unit = match self {
            Self::Range { low, high } => (value - low) / (high - low),
            Self::Sigmoid { center, width } => 1.0 / (1.0 + (-4.0 * (value - center) / width).exp()),
        };
        // A float cast saturates and takes NaN to 0.
        (unit * 255.0).round() as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_eight_bit_window_changes_nothing() {
        let w = Window::dicom(128.0, 256.0, "LINEAR").unwrap();
        for v in 0..=255u8 {
            assert_eq!(w.map(f64::from(v)), v);
        }
    }

    #[test]
    fn windows_saturate_and_survive_nonsense() {
        let w = Window::dicom(100.0, 51.0, "LINEAR").unwrap();
        assert_eq!((w.map(74.0), w.map(74.5), w.map(99.5), w.map(124.5), w.map(1e9)), (0, 0, 128, 255, 255));
        assert_eq!(w.map(f64::NAN), 0);
        let s = Window::dicom(100.0, 50.0, "SIGMOID").unwrap();
        assert_eq!((s.map(100.0), s.map(-1e12), s.map(1e12)), (128, 0, 255));
        assert!(Window::dicom(100.0, 1.0, "LINEAR").is_none());
        assert!(Window::dicom(f64::NAN, 10.0, "LINEAR_EXACT").is_none());
        assert_eq!(Window::of([3.0, 3.0].into_iter(), (0.0, 255.0)).map(255.0), 255);
        assert_eq!(Window::of([f64::NAN, 2.0, 4.0].into_iter(), (0.0, 255.0)).map(3.0), 128);
    }
}
