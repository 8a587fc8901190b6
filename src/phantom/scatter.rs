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
            let (angle, drift) = (TAU * rng.random::<f32>(), rng.random::<u8>());
            if !wanted(px, pz) {
                continue;
            }
            let Some(Echo { amplitude, kind }) = echo(px, pz) else { continue };
            let tissue = 1 + drift % (BLOOD - 1) as u8;
            let (phase, drift) = match kind {
                Scattering::Diffuse => (angle, tissue),
                // Nearly in phase: an interface is smooth, but not a mirror.
                Scattering::Specular => (angle * 0.25, 0),
                Scattering::Blood => (angle, BLOOD as u8 + drift % (DRIFTS - BLOOD) as u8),
            };
            let (sin, cos) = phase.sin_cos();
            out.push(Scatterer { x: px, z: pz, echo: (amplitude * cos, amplitude * sin), drift });
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
}

impl Drifts {
    /// Draws velocities for tissue that decorrelates as `exp(-(rate t)^2)`.
    pub(super) fn new(rng: &mut ChaCha8Rng, rate: f64) -> Self {
        let normal = |rng: &mut ChaCha8Rng| {
            // Box-Muller; 1 - u keeps the logarithm off zero.
            let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
            radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
        };
        let velocities = (0..DRIFTS)
            .map(|i| match i {
                0 => 0.0,
                _ if i < BLOOD => std::f64::consts::SQRT_2 * rate * normal(rng),
                _ => std::f64::consts::SQRT_2 * BLOOD_RATE * normal(rng),
            })
            .collect();
        Self { velocities }
    }

    /// The factor on each drift's echoes at `time` seconds.
    pub(super) fn phasors(&self, time: f64) -> [(f32, f32); DRIFTS] {
        let mut out = [(1.0, 0.0); DRIFTS];
        for (phasor, velocity) in out.iter_mut().zip(&self.velocities) {
            let (sin, cos) = (velocity * time).sin_cos();
            *phasor = (cos as f32, sin as f32);
        }
        out
    }
}
