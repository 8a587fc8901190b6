//! The scanner: scatterers through the point-spread function, gain, detection, log compression.
//!
//! The grid of scan lines holds the demodulated (I/Q) echo signal, row by row of equal depth.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::scan::{LINES, SAMPLES, View};
use super::scatter::DENSITY;

/// Grid cells beyond each border, for scatterers just out of view.
pub(super) const PAD: usize = 8;
const STRIDE: usize = LINES + 2 * PAD;
const ROWS: usize = SAMPLES + 2 * PAD;
/// Taps to either side of the point-spread function's middle.
const REACH: usize = 5;
const TAPS: usize = 2 * REACH + 1;
/// Standard deviation of the axial pulse envelope in samples: 0.3 mm full width at half maximum in 40 mm.
const AXIAL: f32 = 1.6;
/// Standard deviation of the beam at the focus, in lines.
const LATERAL: f32 = 1.0;
/// Depth of the focus.
const FOCUS: f32 = 0.45;
/// Distance from the focus at which the beam is wider by the square root of two.
const FOCAL_ZONE: f32 = 0.55;
/// Amplitude of receiver noise at the deepest sample relative to muscle, and how the gain raises it down there, in dB.
const NOISE: f32 = 0.045;
const NOISE_RISE_DB: f32 = 24.0;
/// Level of muscle below white, in dB, at a gain of 0.
const MUSCLE_DB: f32 = -33.0;
/// What little echo is left under bone, as amplitude.
const SHADOW: f32 = 0.003;
/// The same without contact: not even bone shows.
const NO_CONTACT: f32 = 0.0002;

/// A Gaussian of unit energy, so that speckle keeps its brightness whatever its width.
fn gaussian(sigma: f32) -> [f32; TAPS] {
    let mut taps: [f32; TAPS] = std::array::from_fn(|i| {
        let t = (i as f32 - REACH as f32) / sigma;
        (-0.5 * t * t).exp()
    });
    let energy = taps.iter().map(|t| t * t).sum::<f32>().sqrt();
    taps.iter_mut().for_each(|t| *t /= energy);
    taps
}

/// How a scan line is changed on its way: by what it passes, or by lost contact.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinePath {
    /// Depths along the line between which it runs through blood, which attenuates less than tissue.
    pub lumen: Option<(f32, f32)>,
    /// Depth along the line from which nothing comes back.
    pub shadow_from: Option<f32>,
    /// The probe does not touch the skin here.
    pub contact_lost: bool,
}

/// Signal buffers and the tables that do not change from frame to frame.
#[derive(Clone, Debug)]
pub(super) struct Beam {
    /// Scatterers on the padded grid: real, imaginary.
    grid: [Vec<f32>; 2],
    /// After the point-spread function, `SAMPLES` rows of `LINES`.
    iq: [Vec<f32>; 2],
    gray: Vec<f32>,
    lateral: Vec<[f32; TAPS]>,
    axial: [f32; TAPS],
    /// Makes the mean echo power independent of how many scatterers a grid cell holds.
    cell_gain: Vec<f32>,
    depth_gain: Vec<f32>,
    noise_gain: Vec<f32>,
    /// Reverberation in the gel where contact is lost, as power.
    ringing: Vec<f32>,
    /// Receiver noise to take stretches from.
    noise: Vec<(f32, f32)>,
    black_db: f32,
    gray_per_db: f32,
}

impl Beam {
    pub(super) fn new(rng: &mut ChaCha8Rng, view: &View, display: &super::PhantomConfig) -> Self {
        let depth = |row: usize| row as f32 / (SAMPLES - 1) as f32;
        let amplitude = |db: f32| 10_f32.powf(db / 20.0);
        let (attenuation, range) = (display.attenuation_db as f32, display.dynamic_range_db as f32);
        let sigma = |row: usize| {
            let away = (row as f32 - PAD as f32) / (SAMPLES - 1) as f32 - FOCUS;
            LATERAL * (1.0 + (away / FOCAL_ZONE).powi(2)).sqrt()
        };
        let noise = (0..32_768)
            .map(|_| {
                let radius = (-(1.0 - rng.random::<f32>()).ln()).sqrt();
                let (sin, cos) = (std::f32::consts::TAU * rng.random::<f32>()).sin_cos();
                (radius * cos, radius * sin)
            })
            .collect();
        Self {
            grid: [vec![0.0; ROWS * STRIDE], vec![0.0; ROWS * STRIDE]],
            iq: [vec![0.0; SAMPLES * LINES], vec![0.0; SAMPLES * LINES]],
            gray: vec![0.0; SAMPLES * LINES],
            lateral: (0..ROWS).map(|row| gaussian(sigma(row))).collect(),
            axial: gaussian(AXIAL),
            cell_gain: (0..ROWS)
                .map(|row| (DENSITY * view.cell_area(row as f32 - PAD as f32)).sqrt().recip())
                .collect(),
            // Skin and gel reverberate right under the face.
            depth_gain: (0..SAMPLES)
                .map(|row| amplitude(-attenuation * depth(row)) * (1.0 + 2.5 * (-(row as f32) / 6.0).exp()))
                .collect(),
            noise_gain: (0..SAMPLES)
                .map(|row| NOISE * amplitude(NOISE_RISE_DB * (depth(row) - 1.0)))
                .collect(),
            ringing: (0..SAMPLES)
                .map(|row| {
                    let ring = 0.5 + 0.5 * (std::f32::consts::TAU * row as f32 / 17.0).cos();
                    (amplitude(24.0 - 0.35 * row as f32) * ring.powi(5)).powi(2)
                })
                .collect(),
            noise,
            black_db: -MUSCLE_DB - range - display.gain_db as f32,
            gray_per_db: 255.0 / range,
        }
    }

    /// Empties the grid.
    pub(super) fn clear(&mut self) {
        self.grid.iter_mut().for_each(|plane| plane.fill(0.0));
    }

    /// Adds an echo at a fractional line and sample, shared among the four cells around; out of the grid nothing
    /// happens.
    #[inline]
    pub(super) fn add(&mut self, (line, sample): (f32, f32), (re, im): (f32, f32)) {
        let (c, r) = (line + PAD as f32, sample + PAD as f32);
        // Written so that NaN is refused as well.
        if !(c >= 0.0 && r >= 0.0 && c < (STRIDE - 1) as f32 && r < (ROWS - 1) as f32) {
            return;
        }
        let (column, row) = (c as usize, r as usize);
        let (fc, fr) = (c - column as f32, r - row as f32);
        let gain = self.cell_gain[row];
        let at = row * STRIDE + column;
        for (plane, value) in self.grid.iter_mut().zip([re * gain, im * gain]) {
            let (upper, lower) = (value * (1.0 - fr), value * fr);
            plane[at] += upper * (1.0 - fc);
            plane[at + 1] += upper * fc;
            plane[at + STRIDE] += lower * (1.0 - fc);
            plane[at + STRIDE + 1] += lower * fc;
        }
    }

    /// Applies the point-spread function, across the lines and then along them.
    pub(super) fn convolve(&mut self) {
        for (grid, iq) in self.grid.iter_mut().zip(&mut self.iq) {
            for (row, taps) in grid.chunks_exact_mut(STRIDE).zip(&self.lateral) {
                let mut sum = [0.0; LINES];
                for (k, tap) in taps.iter().enumerate() {
                    for (s, v) in sum.iter_mut().zip(&row[PAD - REACH + k..]) {
                        *s += tap * v;
                    }
                }
                row[..LINES].copy_from_slice(&sum);
            }
            for (r, out) in iq.chunks_exact_mut(LINES).enumerate() {
                out.fill(0.0);
                for (k, tap) in self.axial.iter().enumerate() {
                    let row = &grid[(r + PAD - REACH + k) * STRIDE..][..LINES];
                    for (s, v) in out.iter_mut().zip(row) {
                        *s += tap * v;
                    }
                }
            }
        }
    }

    /// Gain, receiver noise, detection and log compression: `SAMPLES` rows of `LINES` gray levels in 0..=255.
    ///
    /// `noise_seed` picks the noise; `paths` has one entry a line.
    pub(super) fn compress(&mut self, paths: &[LinePath], noise_seed: u64) -> &[f32] {
        let (mut raw, mut soft) = ([1.0_f32; LINES + 4], [0.0_f32; LINES]);
        // Natural logarithm of power to dB.
        let db = 10.0 / std::f32::consts::LN_10;
        let rows = self.iq[0].chunks_exact(LINES).zip(self.iq[1].chunks_exact(LINES));
        for (r, ((re, im), out)) in rows.zip(self.gray.chunks_exact_mut(LINES)).enumerate() {
            let depth = r as f32 / (SAMPLES - 1) as f32;
            for (gain, path) in raw[2..].iter_mut().zip(paths) {
                *gain = path_gain(path, depth);
            }
            let [first, last] = [raw[2], raw[LINES + 1]];
            raw[..2].fill(first);
            raw[LINES + 2..].fill(last);
            // A shadow has no sharp side: the aperture that makes a line is wider than the line.
            for (s, w) in soft.iter_mut().zip(raw.windows(5)) {
                *s = (w[0] + 2.0 * w[1] + 3.0 * w[2] + 2.0 * w[3] + w[4]) / 9.0 * self.depth_gain[r];
            }
            let from = (mix(noise_seed, r as u64) % (self.noise.len() - LINES) as u64) as usize;
            let noise = &self.noise[from..from + LINES];
            for (((((out, re), im), gain), n), path) in
                out.iter_mut().zip(re).zip(im).zip(&soft).zip(noise).zip(paths)
            {
                let (i, q) = (re * gain + n.0 * self.noise_gain[r], im * gain + n.1 * self.noise_gain[r]);
                let ringing = if path.contact_lost { self.ringing[r] } else { 0.0 };
                let level = db * (i * i + q * q + ringing + 1e-12).ln();
                *out = ((level - self.black_db) * self.gray_per_db).clamp(0.0, 255.0);
            }
        }
        &self.gray
    }
}

/// Amplitude that is left of an echo from `depth` along a line with this path.
fn path_gain(path: &LinePath, depth: f32) -> f32 {
    if path.contact_lost {
        return NO_CONTACT;
    }
    // Blood behind, the gain meant for tissue is too much: enhancement, at most 5 dB for the vessel's diameter.
    let enhancement = path.lumen.map_or(0.0, |(from, to)| (depth.min(to) - from).max(0.0) * 5.0);
    let under = path.shadow_from.map_or(0.0, |from| (depth - from).max(0.0) * SAMPLES as f32);
    let fall = under / 3.0;
    (1.0 + enhancement) * (SHADOW + (1.0 - SHADOW) / (1.0 + fall * fall * fall))
}

/// A well-mixed function of two numbers (the finaliser of SplitMix64).
fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(b.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::anatomy::{Echo, Scattering};
    use super::super::scatter::{Drifts, scatter};
    use super::super::{Geometry, PhantomConfig};
    use super::*;

    /// Envelope of homogeneous diffuse tissue of unit amplitude after each of `times` seconds.
    fn envelopes(geometry: Geometry, rate: f64, times: &[f64]) -> Vec<Vec<f64>> {
        let config = PhantomConfig { geometry, ..PhantomConfig::default() };
        let view = View::new(&config);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut beam = Beam::new(&mut rng, &view, &config);
        let drifts = Drifts::new(&mut rng, rate);
        let half = view.extent().0 + 0.05;
        let tissue = Some(Echo { amplitude: 1.0, kind: Scattering::Diffuse });
        let field = scatter(&mut rng, (-half, half), (-0.2, 1.05), |_, _| true, |_, _| tissue);
        times
            .iter()
            .map(|&time| {
                let phasors = drifts.phasors(time, 0.0);
                beam.clear();
                for s in &field {
                    let (a, b) = phasors[usize::from(s.drift)];
                    beam.add(
                        view.to_beam(s.x, s.z),
                        (s.echo.0 * a - s.echo.1 * b, s.echo.0 * b + s.echo.1 * a),
                    );
                }
                beam.convolve();
                beam.iq[0].iter().zip(&beam.iq[1]).map(|(i, q)| f64::from(i * i + q * q).sqrt()).collect()
            })
            .collect()
    }

    fn mean(v: &[f64]) -> f64 {
        v.iter().sum::<f64>() / v.len() as f64
    }

    fn correlation(a: &[f64], b: &[f64]) -> f64 {
        let (ma, mb) = (mean(a), mean(b));
        let cov = |p: &[f64], mp: f64, q: &[f64], mq: f64| {
            p.iter().zip(q).map(|(x, y)| (x - mp) * (y - mq)).sum::<f64>()
        };
        cov(a, ma, b, mb) / (cov(a, ma, a, ma) * cov(b, mb, b, mb)).sqrt()
    }

    #[test]
    fn homogeneous_tissue_gives_rayleigh_speckle_of_unit_power() {
        for geometry in [Geometry::Linear, Geometry::Sector] {
            let all = envelopes(geometry, 0.0, &[0.0]);
            // From a quarter of the depth on, where a curved array too has five scatterers per resolution cell.
            let envelope = &all[0][LINES * SAMPLES / 4..];
            let m = mean(envelope);
            let power = mean(&envelope.iter().map(|e| e * e).collect::<Vec<_>>());
            let snr = m / (power - m * m).sqrt();
            // A Rayleigh distribution has sqrt(pi / (4 - pi)) = 1.913. About 10^4 independent speckles lie in view,
            // so 3 % is far beyond chance; tissue with few scatterers, or with coherent ones, misses it.
            assert!((snr / 1.913 - 1.0).abs() < 0.03, "{geometry:?}: mean / deviation = {snr:.3}");
            // Sharing an echo among four cells costs a little energy before the point-spread function.
            assert!((0.75..1.1).contains(&power), "{geometry:?}: power {power:.3}");
            // No brighter where a curved array's lines, and so its cells, are wider.
            let [near, far] = [&envelope[..LINES * 128], &envelope[envelope.len() - LINES * 128..]]
                .map(|rows| mean(&rows.iter().map(|e| e * e).collect::<Vec<_>>()));
            assert!((near / far - 1.0).abs() < 0.12, "{geometry:?}: power {near:.3} near, {far:.3} far");
            // Median of a Rayleigh distribution: sqrt(ln 4 * power / 2); a second moment alone proves little.
            let below = envelope.iter().filter(|&&e| e * e < std::f64::consts::LN_2 * power).count();
            let share = below as f64 / envelope.len() as f64;
            assert!((share - 0.5).abs() < 0.015, "{geometry:?}: {share:.3} below the median");
        }
    }

    #[test]
    fn speckle_decorrelates_at_the_rate_asked_for() {
        let e = envelopes(Geometry::Linear, 1.0, &[0.0, 0.5, 1.0, 3.0]);
        // The squared envelope of speckle correlates as the square of the echo signal's correlation exp(-t^2).
        let square = |v: &Vec<f64>| v.iter().map(|e| e * e).collect::<Vec<_>>();
        let start = square(&e[0]);
        for (i, expected) in [(1, (-0.5_f64).exp()), (2, (-2.0_f64).exp()), (3, 0.0)] {
            let found = correlation(&start, &square(&e[i]));
            assert!((found - expected).abs() < 0.08, "time {i}: {found:.3}, expected {expected:.3}");
        }
        let still = envelopes(Geometry::Linear, 0.0, &[0.0, 100.0]);
        assert_eq!(still[0], still[1]);
    }
}
