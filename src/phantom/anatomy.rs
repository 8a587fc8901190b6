//! The tissue before the probe: layers, a vessel, a nerve, a bone, and how the pulse moves them.
//!
//! Lengths are fractions of the imaging depth. A *material* point is a piece of tissue at diastole; the pulse moves
//! it to a *spatial* point. Everything is defined on material points, so speckle and true masks move alike.

use std::f32::consts::TAU;

use rand::Rng;

use super::PhantomClass;

/// The vessel's wall, as a fraction of the lumen's radius.
const WALL: f32 = 0.14;
/// Radius, in lumen radii, beyond which the pulse moves nothing.
const REACH: f32 = 3.0;
/// How far the vessel slides sideways and down for each step across the plane.
const SLIDE: (f32, f32) = (0.4, 0.15);
/// Distance across the plane, in depths, at which the nerve ends.
const NERVE_ENDS: f32 = 0.15;
/// Inner edge of the nerve's epineurium, as a fraction of the nerve's radius.
const EPINEURIUM: f32 = 0.87;

/// Upright ellipse.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ellipse {
    x: f32,
    z: f32,
    half_x: f32,
    half_z: f32,
}

impl Ellipse {
    /// Offset from the centre in radii.
    fn relative(&self, x: f32, z: f32) -> (f32, f32) {
        ((x - self.x) / self.half_x, (z - self.z) / self.half_z)
    }

    /// Distance from the centre in radii: 1 on the border.
    fn radius(&self, x: f32, z: f32) -> f32 {
        let (u, w) = self.relative(x, z);
        (u * u + w * w).sqrt()
    }

    /// Where a ray enters and leaves, as distances along it; `None` if it misses.
    fn chord(&self, growth: f32, start: (f32, f32), direction: (f32, f32)) -> Option<(f32, f32)> {
        let (u, w) = self.relative(start.0, start.1);
        let (p, q) = (direction.0 / self.half_x, direction.1 / self.half_z);
        let (a, b) = (p * p + q * q, p * u + q * w);
        let c = u * u + w * w - (1.0 + growth) * (1.0 + growth);
        let root = (b * b - a * c).max(0.0).sqrt();
        (root > 0.0).then(|| ((-b - root) / a, (-b + root) / a))
    }
}

/// Convex bone surface: an upside-down parabola.
#[derive(Clone, Copy, Debug)]
struct Bone {
    x: f32,
    /// Depth of the highest point.
    z: f32,
    half: f32,
    /// Fall of the surface from the highest point to either end.
    fall: f32,
    /// Thickness of the echoing cortex.
    cortex: f32,
}

impl Bone {
    /// How far below the surface the point lies; negative above it, `None` beside the bone.
    fn below(&self, x: f32, z: f32) -> Option<f32> {
        let u = (x - self.x) / self.half;
        (u.abs() <= 1.0).then_some(z - self.z - self.fall * u * u)
    }
}

/// What a piece of tissue returns to the probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Echo {
    /// Root-mean-square echo amplitude relative to muscle.
    pub amplitude: f32,
    /// What kind of scatterers return it.
    pub kind: Scattering,
}

/// Kinds of scatterers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scattering {
    /// Many at random: speckle.
    Diffuse,
    /// A smooth interface: echoes add up in phase, without speckle.
    Specular,
    /// Blood cells: weak, and never twice at the same place.
    Blood,
}

/// One patient's anatomy.
#[derive(Clone, Debug)]
pub(super) struct Anatomy {
    vessel: Ellipse,
    nerve: Ellipse,
    /// Fascicles: centre and radius.
    fascicles: Vec<(f32, f32, f32)>,
    bone: Bone,
    /// Depths of the fascia under the fat and of the one between the muscles.
    fascia: [f32; 2],
    /// Phases of the slow undulations of layers and fibres.
    phases: [f32; 6],
    /// 1, or -1 for a mirrored anatomy.
    side: f32,
}

impl Anatomy {
    /// Draws an anatomy. `half_width` is half the width of the view at the depth of vessel and nerve.
    pub(super) fn new(rng: &mut impl Rng, half_width: f32, mirrored: bool) -> Self {
        let side = if mirrored { -1.0 } else { 1.0 };
        let half_width = half_width.min(0.5);
        let mut about = |value: f32, spread: f32| value + spread * rng.random_range(-1.0_f32..1.0);
        let vessel = Ellipse {
            x: -side * about(0.42 * half_width, 0.015),
            z: about(0.46, 0.015),
            half_x: about(0.085, 0.005),
            half_z: about(0.072, 0.004),
        };
        let nerve = Ellipse {
            x: side * about(0.38 * half_width, 0.015),
            z: about(0.33, 0.015),
            half_x: about(0.105, 0.006),
            half_z: about(0.07, 0.004),
        };
        let bone = Bone {
            x: about(0.03, 0.03),
            z: about(0.77, 0.015),
            half: about(0.33, 0.02),
            fall: 0.1,
            cortex: 0.022,
        };
        let fascia = [about(0.15, 0.01), about(0.59, 0.015)];
        let phases = std::array::from_fn(|_| about(0.0, TAU / 2.0));
        // A jittered hexagonal packing inside the epineurium.
        let mut fascicles = Vec::new();
        let pitch = 0.044;
        for row in -2_i8..=2 {
            for column in -3_i8..=3 {
                let shift = 0.5 * f32::from(row.rem_euclid(2));
                let x = nerve.x + pitch * (f32::from(column) + shift) + about(0.0, 0.003);
                let z = nerve.z + pitch * 0.85 * f32::from(row) + about(0.0, 0.003);
                let radius = about(0.0165, 0.002);
                if nerve.radius(x, z) < EPINEURIUM - radius / nerve.half_z {
                    fascicles.push((x, z, radius));
                }
            }
        }
        Self { vessel, nerve, fascicles, bone, fascia, phases, side }
    }

    /// The anatomy `across` depths beside the plane: the vessel runs obliquely through it, the nerve tapers to an end. Layers and
    /// bone are the same everywhere.
    pub(super) fn at(&self, across: f32) -> Self {
        let mut there = self.clone();
        if across == 0.0 {
            return there;
        }
        there.vessel.x += SLIDE.0 * across;
        there.vessel.z += SLIDE.1 * across;
        let part = (1.0 - (across / NERVE_ENDS).powi(2)).max(0.0).sqrt();
        // Not nothing: radii are divided by it.
        (there.nerve.half_x, there.nerve.half_z) =
            (self.nerve.half_x * part.max(1e-5), self.nerve.half_z * part.max(1e-5));
        for (x, z, radius) in &mut there.fascicles {
            let of = &self.nerve;
            (*x, *z, *radius) = (of.x + (*x - of.x) * part, of.z + (*z - of.z) * part, *radius * part);
        }
        there
    }

    /// Where the pulse moves a material point. `growth` is the growth of the lumen's radius as a fraction.
    #[inline]
    pub(super) fn deform(&self, x: f32, z: f32, growth: f32) -> (f32, f32) {
        let (u, w) = self.vessel.relative(x, z);
        let square = u * u + w * w;
        if growth == 0.0 || square >= REACH * REACH {
            return (x, z);
        }
        let radius = square.sqrt();
        let stretch = if radius <= 1.0 {
            growth
        } else {
            // The push fades from the wall to nothing at REACH, smoothly there.
            let fade = (REACH - radius) / (REACH - 1.0);
            growth * fade * fade / radius
        };
        (x + (x - self.vessel.x) * stretch, z + (z - self.vessel.z) * stretch)
    }

    /// The material point that the pulse moved to this place: the inverse of [`Anatomy::deform`].
    pub(super) fn undeform(&self, x: f32, z: f32, growth: f32) -> (f32, f32) {
        let moved = self.vessel.radius(x, z);
        if growth == 0.0 || moved >= REACH || moved == 0.0 {
            return (x, z);
        }
        let radius = if moved <= 1.0 + growth {
            moved / (1.0 + growth)
        } else {
            // With q = REACH - radius: q - growth q^2 / (REACH - 1)^2 = REACH - moved, the smaller root.
            let (p, k) = (REACH - moved, growth / ((REACH - 1.0) * (REACH - 1.0)));
            REACH - 2.0 * p / (1.0 + (1.0 - 4.0 * k * p).max(0.0).sqrt())
        };
        let back = radius / moved - 1.0;
        (x + (x - self.vessel.x) * back, z + (z - self.vessel.z) * back)
    }

    /// The class of a material point, `None` for background.
    pub(super) fn class_at(&self, x: f32, z: f32) -> Option<PhantomClass> {
        let cortex = self.bone.below(x, z).is_some_and(|d| (0.0..=self.bone.cortex).contains(&d));
        let vessel = self.vessel.radius(x, z);
        if cortex {
            Some(PhantomClass::Bone)
        } else if vessel < 1.0 {
            Some(PhantomClass::Vessel)
        } else if vessel >= 1.0 + WALL && self.nerve.radius(x, z) < 1.0 {
            Some(PhantomClass::Nerve)
        } else {
            None
        }
    }

    /// Rectangle `(x, z)` of spatial points that holds all of a class at this growth of the lumen.
    pub(super) fn bounds(&self, class: PhantomClass, growth: f32) -> [(f32, f32); 2] {
        let around = |e: &Ellipse, dx: f32, dz: f32| [(e.x - dx, e.x + dx), (e.z - dz, e.z + dz)];
        let (px, pz) = (growth * self.vessel.half_x, growth * self.vessel.half_z);
        match class {
            PhantomClass::Vessel => around(&self.vessel, self.vessel.half_x + px, self.vessel.half_z + pz),
            PhantomClass::Nerve => around(&self.nerve, self.nerve.half_x + px, self.nerve.half_z + pz),
            PhantomClass::Bone => {
                let b = &self.bone;
                [(b.x - b.half - px, b.x + b.half + px), (b.z - pz, b.z + b.fall + b.cortex + pz)]
            }
        }
    }

    /// The echo of a material point; `None` where nothing returns (inside bone).
    pub(super) fn echo(&self, x: f32, z: f32) -> Option<Echo> {
        use Scattering::{Blood, Diffuse, Specular};
        let echo = |amplitude, kind| Some(Echo { amplitude, kind });
        if let Some(below) = self.bone.below(x, z).filter(|&d| d >= 0.0) {
            let depth = below / self.bone.cortex;
            return if depth <= 1.0 { echo(16.0 * (1.0 - 0.5 * depth), Specular) } else { None };
        }
        let (u, w) = self.vessel.relative(x, z);
        let radius = (u * u + w * w).sqrt();
        if radius < 1.0 {
            return echo(0.02, Blood);
        }
        if radius < 1.0 + WALL {
            // A wall seen from the side returns little: the echo leaves at an angle.
            let facing = w / radius;
            let front = facing * facing;
            return if front > 0.45 { echo(4.5 * front, Specular) } else { echo(1.8, Diffuse) };
        }
        let nerve = self.nerve.radius(x, z);
        if nerve < 1.0 {
            let fascicle = self.fascicles.iter().any(|&(fx, fz, r)| (x - fx).hypot(z - fz) < r);
            return match () {
                () if nerve > EPINEURIUM => echo(5.0, Diffuse),
                () if fascicle => echo(0.3, Diffuse),
                () => echo(3.8, Diffuse),
            };
        }
        self.layer(x, z)
    }

    /// The echo of skin, fat, fascia and muscle.
    fn layer(&self, x: f32, z: f32) -> Option<Echo> {
        use Scattering::{Diffuse, Specular};
        let echo = |amplitude, kind| Some(Echo { amplitude, kind });
        let p = &self.phases;
        let x = x * self.side;
        // Layers undulate more the deeper they lie; the skin is flat against the probe.
        let bend =
            (z * 5.0).clamp(0.0, 1.0) * (0.012 * (7.0 * x + p[0]).sin() + 0.005 * (19.0 * x + p[1]).sin());
        let d = z + bend;
        if d < 0.035 {
            return echo(3.2, Diffuse);
        }
        let near = |depth: f32, thickness: f32| (d - depth).abs() < thickness / 2.0;
        if near(self.fascia[0], 0.008) || near(self.fascia[1], 0.007) {
            return echo(1.6 + 0.9 * (23.0 * x + p[4]).sin(), Specular);
        }
        // Slow unevenness of every tissue.
        let uneven = 1.0 + 0.22 * (11.0 * x + 5.0 * z + p[2]).sin() * (8.0 * z - 6.0 * x + p[3]).sin();
        // Oblique fibres: thin bright lines that come and go along their length.
        let fibre = |tilt: f32, pitch: f32, thick: f32, gaps: f32| {
            let across = (d + tilt * x + 0.008 * (16.0 * x + p[4]).sin()) / pitch;
            let along = (gaps * x + 2.4 * across.floor() + p[5]).sin()
                + 0.6 * (2.7 * gaps * x + 4.1 * across.floor()).sin();
            across.rem_euclid(1.0) < thick && along > 0.1
        };
        if d < self.fascia[0] {
            return if fibre(0.12, 0.038, 0.16, 13.0) {
                echo(2.8, Diffuse)
            } else {
                echo(0.62 * uneven, Diffuse)
            };
        }
        let deep = d > self.fascia[1];
        let streak = if deep { fibre(-0.22, 0.047, 0.15, 12.0) } else { fibre(0.28, 0.034, 0.17, 15.0) };
        let base = if deep { 0.8 } else { 1.0 };
        if streak { echo(3.2 * base, Diffuse) } else { echo(base * uneven, Diffuse) }
    }

    /// Distances along a ray at which it runs through the lumen, from entry to exit.
    pub(super) fn lumen_on(
        &self,
        start: (f32, f32),
        direction: (f32, f32),
        growth: f32,
    ) -> Option<(f32, f32)> {
        self.vessel.chord(growth, start, direction)
    }

    /// Distance along a ray, at most 1, at which it meets the bone's surface.
    pub(super) fn bone_on(&self, start: (f32, f32), direction: (f32, f32)) -> Option<f32> {
        // An eighth of the cortex cannot be seen in a shadow that begins below it.
        let step = self.bone.cortex / 8.0;
        let steps = (1.0 / step) as u32;
        (0..=steps).map(|i| i as f32 * step).find(|&s| {
            let (x, z) = (start.0 + s * direction.0, start.1 + s * direction.1);
            z >= self.bone.z && self.bone.below(x, z).is_some_and(|d| d >= 0.0)
        })
    }

    /// Thickness of the bone's cortex.
    pub(super) fn cortex(&self) -> f32 {
        self.bone.cortex
    }
}

/// How much wider than in diastole the vessel is, 0 to 1, `phase` of the way through a heartbeat (0 to 1):
/// a fast systolic rise, a slow diastolic fall.
pub(super) fn pulse_wave(phase: f64) -> f64 {
    const SYSTOLE: f64 = 0.25;
    let smooth = |t: f64| t * t * (3.0 - 2.0 * t);
    if phase < SYSTOLE { smooth(phase / SYSTOLE) } else { 1.0 - smooth((phase - SYSTOLE) / (1.0 - SYSTOLE)) }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn undeform_inverts_deform_everywhere() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let anatomy = Anatomy::new(&mut rng, 0.5, false);
        for growth in [0.0, 0.12, 0.4] {
            let mut moved = 0;
            for _ in 0..5000 {
                let (x, z) = (rng.random_range(-0.6_f32..0.6), rng.random_range(0.0_f32..1.0));
                let there = anatomy.deform(x, z, growth);
                let back = anatomy.undeform(there.0, there.1, growth);
                assert!((back.0 - x).hypot(back.1 - z) < 1e-5, "{growth}: {x} {z} -> {there:?} -> {back:?}");
                moved += usize::from((there.0 - x).hypot(there.1 - z) > 1e-3);
            }
            assert_eq!(growth > 0.0, moved > 100, "{moved} of 5000 points moved at growth {growth}");
        }
    }

    #[test]
    fn the_bounds_of_a_class_hold_all_of_it() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        let anatomy = Anatomy::new(&mut rng, 0.5, true);
        let growth = 0.4;
        let mut seen = [0; 3];
        for _ in 0..100_000 {
            let (x, z) = (rng.random_range(-0.6_f32..0.6), rng.random_range(0.0_f32..1.0));
            if let Some(class) = anatomy.class_at(x, z) {
                let (x, z) = anatomy.deform(x, z, growth);
                let [bx, bz] = anatomy.bounds(class, growth);
                assert!(bx.0 <= x && x <= bx.1 && bz.0 <= z && z <= bz.1, "{class:?} at {x} {z}");
                seen[class as usize] += 1;
            }
        }
        assert!(seen.iter().all(|&n| n > 500), "{seen:?}");
    }
}
