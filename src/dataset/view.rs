//! A picture seen another way: flipped, moved, turned, bent, cut and rescaled, with its masks; lighter or darker, and noisier.

use rand::Rng;

use super::distort::{Distortion, chance, within};
use crate::frame::Rgb;
use crate::mask::Mask;

/// Proportions that a cut may have beside its picture's, as torchvision's `RandomResizedCrop`.
const CUT_ASPECT: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// Tries for a cut that fits into the picture; then the whole picture stays.
const CUT_TRIES: usize = 10;

/// From what views are drawn. Every change is made with `probability`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augment {
    /// Of each change, 0 to 1.
    pub probability: f64,
    /// Left and right may be exchanged.
    pub flip_horizontal: bool,
    /// Top and bottom may be exchanged.
    pub flip_vertical: bool,
    /// Furthest move, as a share of the side.
    pub translate: f64,
    /// Largest turn either way, in degrees.
    pub rotate: f64,
    /// Smallest share of the area that is cut out and brought to the picture's size, up to 1: all of it.
    pub crop: f64,
    /// Largest power of two, either way, that brightness 0..=1 is raised to: 0 changes nothing.
    pub gamma: f64,
    /// By so much more than the picture's area may be seen, as a share of it; black surrounds it then.
    pub widen: f64,
    /// Furthest that a bend moves a point along each axis, as a share of the side, up to [`MAX_WARP`](super::MAX_WARP).
    pub warp: f64,
    /// Largest power of two, either way, by which the gain at the lowest depth of what is seen differs from that at the surface, and by
    /// which that half-way does from the mean of both.
    pub gain: f64,
    /// Largest standard deviation of noise at the centre of a grain, as a share of the brightness, up to
    /// [`MAX_SPECKLE`](super::MAX_SPECKLE).
    pub speckle: f64,
}

impl Augment {
    /// Sam2Rad, section 4.2: flips, 20 % of the side, 90 degrees, 0.8 to 1 of the area, each with probability 0.5.
    pub const PAPER: Self = Self {
        probability: 0.5,
        flip_horizontal: true,
        flip_vertical: true,
        translate: 0.2,
        rotate: 90.0,
        crop: 0.8,
        gamma: 0.0,
        widen: 0.0,
        warp: 0.0,
        gain: 0.0,
        speckle: 0.0,
    };

    /// A transducer that is always held the same way up: no vertical flip, small turns and moves, larger cuts, other gains
    /// (`benches/results/training.md`).
    pub const UPRIGHT: Self = Self {
        probability: 0.7,
        flip_horizontal: true,
        flip_vertical: false,
        translate: 0.1,
        rotate: 25.0,
        crop: 0.65,
        gamma: 0.6,
        ..Self::PAPER
    };

    /// Pictures as they are.
    pub const NONE: Self = Self { probability: 0.0, ..Self::PAPER };
}

/// One way to see a picture; the same for a picture of any size, but for the grains of noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    flip: (bool, bool),
    /// Shares of width and height.
    shift: (f64, f64),
    /// Radians, clockwise.
    angle: f64,
    /// Upper left corner and size of what is seen, as shares.
    cut: [f64; 4],
    /// Power of the brightness.
    gamma: f64,
    /// Beside all that.
    distortion: Distortion,
}

impl View {
    /// The picture as it is.
    pub const PLAIN: Self = Self {
        flip: (false, false),
        shift: (0.0, 0.0),
        angle: 0.0,
        cut: [0.0, 0.0, 1.0, 1.0],
        gamma: 1.0,
        distortion: Distortion::NONE,
    };

    /// Draws a view: first flips, then a move, a turn about the centre, a bend, and the cut.
    pub fn draw(augment: &Augment, rng: &mut impl Rng) -> Self {
        let mut view = Self::PLAIN;
        // Every number is drawn whether it is used or not: changing one setting leaves the others' draws as they are.
        let share = augment.probability;
        let (horizontal, vertical) = (chance(share, rng), chance(share, rng));
        view.flip = (horizontal && augment.flip_horizontal, vertical && augment.flip_vertical);
        let (moved, shift) =
            (chance(share, rng), (within(augment.translate, rng), within(augment.translate, rng)));
        if moved {
            view.shift = shift;
        }
        let (turned, angle) = (chance(share, rng), within(augment.rotate, rng));
        if turned {
            view.angle = angle.to_radians();
        }
        let (cut, found) = (chance(share, rng), draw_cut(augment.crop, augment.widen, rng));
        if cut {
            view.cut = found;
        }
        let (brightened, power) = (chance(share, rng), within(augment.gamma, rng));
        if brightened {
            view.gamma = power.exp2();
        }
        view.distortion = Distortion::draw(augment, rng);
        view
    }

    /// The picture in this view, of the same size: between pixels in proportion, black where nothing is seen.
    pub fn image(&self, picture: &Rgb) -> Rgb {
        if *self == Self::PLAIN {
            return picture.clone();
        }
        let (w, h) = (picture.width, picture.height);
        let power: Vec<u8> =
            (0..=255u8).map(|v| ((f64::from(v) / 255.0).powf(self.gamma) * 255.0).round() as u8).collect();
        let at = |x: i64, y: i64| {
            let inside = x >= 0 && y >= 0 && (x as usize) < w && (y as usize) < h;
            inside.then(|| &picture.data[(y as usize * w + x as usize) * 3..][..3])
        };
        let source = self.source((w, h));
        let brightness = self.distortion.brightness((w, h));
        let mut data = Vec::with_capacity(w * h * 3);
        for y in 0..h {
            for x in 0..w {
                let (sx, sy) = source(x, y);
                let (x0, y0) = (sx.floor(), sy.floor());
                let (fx, fy) = ((sx - x0) as f32, (sy - y0) as f32);
                let (x0, y0) = (x0 as i64, y0 as i64);
                let mut sum = [0f32; 3];
                for (dx, dy, share) in [
                    (0, 0, (1.0 - fx) * (1.0 - fy)),
                    (1, 0, fx * (1.0 - fy)),
                    (0, 1, (1.0 - fx) * fy),
                    (1, 1, fx * fy),
                ] {
                    if let Some(pixel) = at(x0 + dx, y0 + dy) {
                        for (sum, &v) in sum.iter_mut().zip(pixel) {
                            *sum += share * f32::from(v);
                        }
                    }
                }
                let factor = brightness(x, y);
                // A cast to eight bits ends at 255.
                let bright = |v: f32| (f32::from(power[usize::from(v.round() as u8)]) * factor).round() as u8;
                data.extend(sum.map(bright));
            }
        }
        Rgb { width: w, height: h, data }
    }

    /// A mask in this view: each pixel is the nearest of the mask's, so that a picture's classes never mix or overlap.
    pub fn mask(&self, mask: &Mask) -> Mask {
        if *self == Self::PLAIN {
            return mask.clone();
        }
        let (w, h) = (mask.width(), mask.height());
        let source = self.source((w, h));
        let mut seen = Mask::empty(w, h);
        for y in 0..h {
            for x in 0..w {
                let (sx, sy) = source(x, y);
                let (sx, sy) = ((sx + 0.5).floor(), (sy + 0.5).floor());
                let inside = sx >= 0.0 && sy >= 0.0 && sx < w as f64 && sy < h as f64;
                if inside && mask.get(sx as usize, sy as usize) {
                    seen.set(x, y, true);
                }
            }
        }
        seen
    }

    /// From the indices of a pixel of the view to where it lies in the picture, in pixels with integers at their centres.
    fn source(&self, (w, h): (usize, usize)) -> impl Fn(usize, usize) -> (f64, f64) + use<> {
        let (w, h) = (w as f64, h as f64);
        let [left, top, wide, high] = self.cut;
        let (sin, cos) = self.angle.sin_cos();
        let (shift, flip, distortion) = (self.shift, self.flip, self.distortion);
        move |x, y| {
            // Backwards: from the cut to the whole, straight again, back around the centre, back by the move, and the flips.
            let (x, y) = (left + (x as f64 + 0.5) / w * wide, top + (y as f64 + 0.5) / h * high);
            let (x, y) = distortion.bend(x, y);
            let (x, y) = (x * w - 0.5 * w, y * h - 0.5 * h);
            let (x, y) = (cos * x + sin * y, cos * y - sin * x);
            let (x, y) = (x - shift.0 * w, y - shift.1 * h);
            let x = if flip.0 { -x } else { x };
            let y = if flip.1 { -y } else { y };
            (x + 0.5 * w - 0.5, y + 0.5 * h - 0.5)
        }
    }
}

/// A cut of at least `smallest` of the area, as shares, and at most `widen` more than all of it. Proportions are drawn on a logarithmic
/// scale.
fn draw_cut(smallest: f64, widen: f64, rng: &mut dyn rand::RngCore) -> [f64; 4] {
    let (low, high) = (CUT_ASPECT.0.ln(), CUT_ASPECT.1.ln());
    let longest = (1.0 + widen).sqrt();
    let mut cut = View::PLAIN.cut;
    // All tries are drawn, so that what comes after does not depend on how many were needed.
    for _ in 0..CUT_TRIES {
        let [area, aspect, left, top] = std::array::from_fn(|_| rng.random::<f64>());
        let area = smallest + area * (1.0 + widen - smallest);
        let aspect = (low + aspect * (high - low)).exp();
        let (wide, high) = ((area * aspect).sqrt(), (area / aspect).sqrt());
        if cut == View::PLAIN.cut && wide <= longest && high <= longest {
            // Of a side that is longer than the picture's the picture lies anywhere within it.
            cut = [left * (1.0 - wide), top * (1.0 - high), wide, high];
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Each pixel its own colour, so that any mistake shows.
    fn picture(w: usize, h: usize) -> Rgb {
        let data = (0..h).flat_map(|y| (0..w).flat_map(move |x| [x as u8 * 8, y as u8 * 8, 200])).collect();
        Rgb { width: w, height: h, data }
    }

    fn pixel(rgb: &Rgb, x: usize, y: usize) -> [u8; 3] {
        std::array::from_fn(|c| rgb.data[(y * rgb.width + x) * 3 + c])
    }

    #[test]
    fn flips_moves_and_turns_go_where_they_should() {
        let original = picture(12, 10);
        let flipped = View { flip: (true, false), ..View::PLAIN }.image(&original);
        let upside_down = View { flip: (false, true), ..View::PLAIN }.image(&original);
        let moved = View { shift: (0.25, 0.1), ..View::PLAIN }.image(&original);
        for (x, y) in (0..12).flat_map(|x| (0..10).map(move |y| (x, y))) {
            assert_eq!(pixel(&flipped, x, y), pixel(&original, 11 - x, y));
            assert_eq!(pixel(&upside_down, x, y), pixel(&original, x, 9 - y));
            // To the right by 3 and down by 1; black comes in.
            let expected = if x >= 3 && y >= 1 { pixel(&original, x - 3, y - 1) } else { [0; 3] };
            assert_eq!(pixel(&moved, x, y), expected, "{x},{y}");
        }
        let square = picture(10, 10);
        let turned = View { angle: std::f64::consts::FRAC_PI_2, ..View::PLAIN }.image(&square);
        for (x, y) in (0..10).flat_map(|x| (0..10).map(move |y| (x, y))) {
            // Clockwise: what was at the left is at the top.
            assert_eq!(pixel(&turned, x, y), pixel(&square, y, 9 - x), "{x},{y}");
        }
    }

    #[test]
    fn a_cut_fills_the_picture() {
        let original = picture(16, 16);
        let cut = View { cut: [0.5, 0.25, 0.5, 0.5], ..View::PLAIN }.image(&original);
        // Twice as large: the centre of the cut (0.75, 0.5) becomes the picture's.
        let [r, g, b] = pixel(&cut, 8, 8);
        assert!(r.abs_diff(12 * 8 - 2) <= 1 && g.abs_diff(8 * 8 - 2) <= 1 && b == 200, "{r} {g} {b}");
    }

    #[test]
    fn a_wider_view_surrounds_the_picture_with_black() {
        let original = picture(16, 16);
        let wide = View { cut: [-0.5, -0.5, 2.0, 2.0], ..View::PLAIN };
        let seen = wide.image(&original);
        let mut whole = Mask::empty(16, 16);
        (0..256).for_each(|i| whole.set(i % 16, i / 16, true));
        let mask = wide.mask(&whole);
        for (x, y) in (0..16).flat_map(|x| (0..16).map(move |y| (x, y))) {
            let inside = (4..12).contains(&x) && (4..12).contains(&y);
            assert_eq!(mask.get(x, y), inside, "{x},{y}");
            assert!(if inside { pixel(&seen, x, y)[2] == 200 } else { pixel(&seen, x, y) == [0; 3] });
        }
        // Half as large: between two pixels each.
        assert!(
            pixel(&seen, 8, 6)[0].abs_diff(8 * 8 + 4) <= 1 && pixel(&seen, 8, 6)[1].abs_diff(4 * 8 + 4) <= 1
        );
    }

    #[test]
    fn what_is_bright_stays_bright_and_what_is_black_black() {
        let lit = Augment { probability: 1.0, gain: 2.0, speckle: 0.4, ..Augment::NONE };
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let grey = |v: u8| Rgb { width: 64, height: 48, data: vec![v; 64 * 48 * 3] };
        let view = View { cut: View::PLAIN.cut, ..View::draw(&lit, &mut rng) };
        let (black, bright) = (view.image(&grey(0)), view.image(&grey(240)));
        // Black surrounds what is moved; the picture itself is wherever it is bright.
        assert!(black.data.iter().all(|&v| v == 0));
        assert!(bright.data.contains(&255) && bright.data.iter().filter(|&&v| v > 0).count() > 64 * 48);
    }

    #[test]
    fn masks_go_with_their_pictures_and_never_overlap() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let (w, h) = (40, 30);
        let mut masks = [Mask::empty(w, h), Mask::empty(w, h)];
        let mut original = Rgb { width: w, height: h, data: vec![0; w * h * 3] };
        for (x, y) in (5..35).flat_map(|x| (4..26).map(move |y| (x, y))) {
            let class = usize::from(x >= 20);
            masks[class].set(x, y, true);
            original.data[(y * w + x) * 3 + class] = 255;
        }
        for _ in 0..50 {
            let all = Augment { probability: 1.0, widen: 0.5, warp: 0.05, ..Augment::PAPER };
            let view = View::draw(&all, &mut rng);
            let (image, seen) = (view.image(&original), masks.each_ref().map(|m| view.mask(m)));
            for (x, y) in (0..w).flat_map(|x| (0..h).map(move |y| (x, y))) {
                assert!(!(seen[0].get(x, y) && seen[1].get(x, y)), "both at {x},{y}");
                let colours = pixel(&image, x, y);
                for class in 0..2 {
                    // Where the picture is clearly of a class the mask is, and the reverse.
                    if colours[class] > 160 {
                        assert!(seen[class].get(x, y), "{view:?} {x},{y}: {colours:?}");
                    } else if colours[class] < 60 {
                        assert!(!seen[class].get(x, y), "{view:?} {x},{y}: {colours:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn draws_are_repeated_by_their_seed_and_bounded() {
        let draw = |seed| View::draw(&Augment::PAPER, &mut ChaCha8Rng::seed_from_u64(seed));
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
        assert_eq!(View::draw(&Augment::NONE, &mut ChaCha8Rng::seed_from_u64(1)), View::PLAIN);
        let mut changed = 0;
        for seed in 0..400 {
            let view = draw(seed);
            assert!(view.angle.abs() <= std::f64::consts::FRAC_PI_2);
            assert!(view.shift.0.abs() <= 0.2 && view.shift.1.abs() <= 0.2);
            let [left, top, wide, high] = view.cut;
            assert!(left >= 0.0 && top >= 0.0 && left + wide <= 1.0 + 1e-9 && top + high <= 1.0 + 1e-9);
            assert!(wide * high >= 0.8 - 1e-9, "{wide} {high}");
            changed += usize::from(view.angle != 0.0);
        }
        assert!((140..260).contains(&changed), "{changed} of 400 with probability 0.5");
        let more = Augment { widen: 0.5, warp: 0.05, gain: 0.5, speckle: 0.2, gamma: 0.6, ..Augment::PAPER };
        let less = Augment { widen: 0.0, ..more };
        let of = |augment: &Augment, seed| View::draw(augment, &mut ChaCha8Rng::seed_from_u64(seed));
        let (mut largest, mut distorted) = (0.0, 0);
        for seed in 0..400 {
            let (before, view) = (of(&less, seed), of(&more, seed));
            // One setting changes nothing but what it is about.
            assert_eq!(View { cut: before.cut, ..view }, before);
            let lit = Augment { gamma: 0.6, ..Augment::PAPER };
            assert_eq!(View { distortion: Distortion::NONE, ..before }, of(&lit, seed));
            let [left, top, wide, high] = view.cut;
            assert!(wide * high <= 1.5 + 1e-9 && wide.max(high) <= 1.5f64.sqrt());
            // The picture is within what is seen, or what is seen within the picture, along each side.
            for (from, side) in [(left, wide), (top, high)] {
                let (inner, outer) = if side > 1.0 { ((-from, 1.0), side) } else { ((from, side), 1.0) };
                assert!(inner.0 >= 0.0 && inner.0 + inner.1 <= outer + 1e-9, "{from} {side}");
            }
            largest = f64::max(largest, wide * high);
            distorted += usize::from(view.distortion != Distortion::NONE);
        }
        // Three changes, each in half of the views.
        assert!(largest > 1.4 && (320..380).contains(&distorted), "{largest} {distorted}");
    }
}
