//! Point scatterers fixed in the tissue, and how their echoes change with time.

use std::f32::consts::TAU;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::anatomy::{Echo, Scattering};

/// Scatterers per square depth: at least five in every resolution cell of the beam grid, which makes speckle fully
/// developed, save close to the face of a narrow curved array.
pub(super) const DENSITY: f32 = 96_000.0;
/// Kinds of motion a scatterer can have relative to its tissue.
const DRIFTS: usize = 256;
/// Drifts from here on belong to blood.
const BLOOD: usize = 192;
/// Speckle decorrelation rate of blood in 1/s.
const BLOOD_RATE: f64 = 40.0;

/// One point scatterer at a material point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scatterer {
    pub x: f32,
    pub z: f32,
    /// Complex echo amplitude.
    pub echo: (f32, f32),
    /// Index into [`Drifts::phasors`].
    pub drift: u8,
    /// What was drawn for it, whatever tissue it is in.
    drawn: (f32, u8),
}

impl Scatterer {
    fn new(x: f32, z: f32, Echo { amplitude, kind }: Echo, drawn: (f32, u8)) -> Self {
        let (angle, draw) = drawn;
        let (phase, drift) = match kind {
            Scattering::Diffuse => (angle, 1 + draw % (BLOOD - 1) as u8),
            // Nearly in phase: an interface is smooth, but not a mirror.
            Scattering::Specular => (angle * 0.25, 0),
            Scattering::Blood => (angle, BLOOD as u8 + draw % (DRIFTS - BLOOD) as u8),
        };
        let (sin, cos) = phase.sin_cos();
        Self { x, z, echo: (amplitude * cos, amplitude * sin), drift, drawn }
    }

    /// The one at its place in other tissue.
    pub(super) fn in_tissue(&self, echo: Echo) -> Self {
        Self::new(self.x, self.z, echo, self.drawn)
    }
}

/// Places scatterers over the rectangle `x` by `z` where `wanted`, one in each cell of a fine mesh.
///
/// Uniformly random inside its cell, so that no place is empty by chance. They come row by row, which keeps the
/// memory accesses of the beam grid together.
pub(super) fn scatter(
    rng: &mut ChaCha8Rng,
    x: (f32, f32),
    z: (f32, f32),
    wanted: impl Fn(f32, f32) -> bool,
    echo: impl Fn(f32, f32) -> Option<Echo>,
) -> Vec<Scatterer> {
    let pitch = DENSITY.sqrt().recip();
    let (columns, rows) = (((x.1 - x.0) / pitch).ceil() as usize, ((z.1 - z.0) / pitch).ceil() as usize);
    let mut out = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            let px = x.0 + pitch * (column as f32 + rng.random::<f32>());
            let pz = z.0 + pitch * (row as f32 + rng.random::<f32>());
            let drawn = (TAU * rng.random::<f32>(), rng.random::<u8>());
            if !wanted(px, pz) {
                continue;
            }
            out.extend(echo(px, pz).map(|echo| Scatterer::new(px, pz, echo, drawn)));
        }
    }
    out
}

/// Angular velocities of the echo phases, which make speckle lose its correlation.
///
/// Phases that turn with normally distributed velocities of deviation `s` leave a correlation of `exp(-(s t)^2 / 2)`
/// after `t` seconds; as a function of time alone, every frame can be made without the ones before.
#[derive(Clone, Debug)]
pub(super) struct Drifts {
    /// Radians per second; the first is 0, for interfaces, which do not twinkle.
    velocities: Vec<f64>,
    /// Radians per mm across the plane.
    turns: Vec<f64>,
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    // Box-Muller; 1 - u keeps the logarithm off zero.
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

impl Drifts {
    /// Draws velocities for tissue that decorrelates as `exp(-(rate t)^2)`.
    pub(super) fn new(rng: &mut ChaCha8Rng, rate: f64) -> Self {
        let velocities = (0..DRIFTS)
            .map(|i| match i {
                0 => 0.0,
                _ if i < BLOOD => std::f64::consts::SQRT_2 * rate * normal(rng),
                _ => std::f64::consts::SQRT_2 * BLOOD_RATE * normal(rng),
            })
            .collect();
        Self { velocities, turns: vec![0.0; DRIFTS] }
    }

    /// With speckle that decorrelates as `exp(-(d / 1 mm)^2)` over a distance `d` across the plane, too.
    pub(super) fn across(mut self, rng: &mut ChaCha8Rng) -> Self {
        for turn in self.turns.iter_mut().skip(1) {
            *turn = std::f64::consts::SQRT_2 * normal(rng);
        }
        self
    }

    /// The factor on each drift's echoes at `time` seconds and `across` mm beside the plane.
    pub(super) fn phasors(&self, time: f64, across: f64) -> [(f32, f32); DRIFTS] {
        let mut out = [(1.0, 0.0); DRIFTS];
        for ((phasor, velocity), turn) in out.iter_mut().zip(&self.velocities).zip(&self.turns) {
            let (sin, cos) = (velocity * time + turn * across).sin_cos();
            *phasor = (cos as f32, sin as f32);
        }
        out
    }
}
