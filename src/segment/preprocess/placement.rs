//! Where a frame lies in the square network input.

/// How a frame lies in the network input: scaled, at the upper left. What it does not cover is padding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// Size of the frame in pixels, width first.
    pub frame: (usize, usize),
    /// Size of the scaled frame in the input, width first; neither is zero or larger than `side`.
    pub scaled: (usize, usize),
    /// Side of the input.
    pub side: usize,
    /// Input pixels per frame pixel for the coordinates of prompts, x first.
    scale: (f64, f64),
}

impl Placement {
    /// The longest side of a frame of `width` x `height` pixels fills `side`; prompts scale by that one factor (LiteMedSAM).
    pub fn new(width: usize, height: usize, side: usize) -> Self {
        let scale = side as f64 / width.max(height).max(1) as f64;
        let scaled = |len: usize| ((len as f64 * scale + 0.5) as usize).clamp(1, side.max(1));
        Self { frame: (width, height), scaled: (scaled(width), scaled(height)), side, scale: (scale, scale) }
    }

    /// The longest side fills `side`; prompts scale by the sizes as they were rounded, so x and y may differ (SAM v1's
    /// `ResizeLongestSide`).
    pub fn rounded(width: usize, height: usize, side: usize) -> Self {
        Self::new(width, height, side).with_scale_of_sizes()
    }

    /// Both sides fill `side`, whatever the frame's proportions (SAM 2, MedSAM).
    pub fn square(width: usize, height: usize, side: usize) -> Self {
        let scaled = (side.max(1), side.max(1));
        Self { frame: (width, height), scaled, side, scale: (1.0, 1.0) }.with_scale_of_sizes()
    }

    fn with_scale_of_sizes(self) -> Self {
        let scale = |new: usize, old: usize| new as f64 / old.max(1) as f64;
        let ((w, h), (new_w, new_h)) = (self.frame, self.scaled);
        Self { scale: (scale(new_w, w), scale(new_h, h)), ..self }
    }

    /// A point of the frame, x first, in pixels of the input.
    pub fn to_input(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [(f64::from(x) * self.scale.0) as f32, (f64::from(y) * self.scale.1) as f32]
    }

    /// A box `x0, y0, x1, y1` of the frame in pixels of the input.
    pub fn box_to_input(&self, [x0, y0, x1, y1]: [f32; 4]) -> [f32; 4] {
        let ([x0, y0], [x1, y1]) = (self.to_input([x0, y0]), self.to_input([x1, y1]));
        [x0, y0, x1, y1]
    }

    /// A box of the input in pixels of the frame.
    pub fn box_to_frame(&self, [x0, y0, x1, y1]: [f32; 4]) -> [f32; 4] {
        let back = |v: f32, scale: f64| (f64::from(v) / scale) as f32;
        [back(x0, self.scale.0), back(y0, self.scale.1), back(x1, self.scale.0), back(y1, self.scale.1)]
    }

    /// Columns and rows that the picture takes of a plane `[.., h, w]` over the whole input; the rest is padding.
    pub fn cells(&self, [h, w]: [i64; 2]) -> (i64, i64) {
        let part = |scaled: usize, cells: i64| {
            let cells = usize::try_from(cells).unwrap_or(0);
            (scaled * cells).div_ceil(self.side.max(1)).min(cells) as i64
        };
        (part(self.scaled.0, w), part(self.scaled.1, h))
    }

    /// How much wider than high the input shows a pixel of the frame; 1 unless it is stretched.
    pub fn stretch(&self) -> f64 {
        let along = |scaled: usize, frame: usize| scaled as f64 / frame.max(1) as f64;
        along(self.scaled.0, self.frame.0) / along(self.scaled.1, self.frame.1)
    }

    /// Whether a part of the input is padding.
    pub fn is_padded(&self) -> bool {
        self.scaled != (self.side, self.side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_side_fills_the_input_and_no_side_vanishes() {
        let scaled = |w, h| Placement::new(w, h, 256).scaled;
        assert_eq!(scaled(1280, 720), (256, 144));
        assert_eq!(scaled(534, 512), (256, 245));
        assert_eq!(scaled(100, 50), (256, 128));
        assert_eq!(scaled(4000, 2), (256, 1));
        assert_eq!(scaled(256, 256), (256, 256));
        assert!(Placement::new(1280, 720, 256).is_padded() && !Placement::square(1280, 720, 256).is_padded());
    }

    #[test]
    fn a_plane_over_the_input_has_as_much_padding() {
        let wide = Placement::new(1280, 720, 1024);
        assert_eq!(
            (wide.cells([1024, 1024]), wide.cells([256, 256]), wide.cells([10, 10])),
            ((1024, 576), (256, 144), (10, 6))
        );
        assert_eq!((wide.stretch(), Placement::square(1280, 640, 1024).stretch()), (1.0, 0.5));
        assert_eq!(Placement::square(1280, 720, 1024).cells([256, 256]), (256, 256));
    }

    #[test]
    fn prompts_scale_as_each_family_scales_them() {
        let corner = |placement: Placement| placement.to_input([534.0, 512.0]);
        assert_eq!(corner(Placement::new(534, 512, 256)), [256.0, (512.0 * 256.0 / 534.0) as f32]);
        assert_eq!(corner(Placement::rounded(534, 512, 256)), [256.0, 245.0]);
        assert_eq!(corner(Placement::square(534, 512, 256)), [256.0, 256.0]);
        let square = Placement::square(534, 512, 256);
        assert_eq!(square.box_to_frame([0.0, 128.0, 128.0, 256.0]), [0.0, 256.0, 267.0, 512.0]);
    }
}
