//! A simulated B-mode cine-loop with the true mask of every frame: the signal for whatever must be proven frame by
//! frame.
//!
//! Point scatterers fixed in the tissue are put through the scanner's point-spread function on a grid of scan lines;
//! the envelope is attenuated, log-compressed and scan-converted. Tissue moves with the probe and the pulse, and the
//! scatterers with it, so speckle and masks move alike. A frame is a function of settings and index alone: frames
//! can be made in any order.

mod anatomy;
mod beam;
mod config;
mod reader;
mod scan;
mod scatter;
mod stamp;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

pub use config::{FrameRange, Geometry, Occlusion, PhantomConfig, PhantomError};
pub use reader::PhantomReader;
pub use stamp::read_stamp;

use crate::frame::Pts;
use crate::mask::Mask;
use anatomy::{Anatomy, pulse_wave};
use beam::{Beam, LinePath};
use scan::{LINES, SAMPLES, View};
use scatter::{Drifts, Scatterer, scatter};

/// What the true masks distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PhantomClass {
    /// A peripheral nerve in cross-section, epineurium included.
    Nerve,
    /// The lumen of an artery in cross-section, wall excluded.
    Vessel,
    /// The bright cortex of a bone; the shadow below belongs to no class.
    Bone,
}

impl PhantomClass {
    /// All classes, in the order of [`PhantomFrame::truth`].
    pub const ALL: [Self; 3] = [Self::Nerve, Self::Vessel, Self::Bone];

    /// Name in configurations and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nerve => "nerve",
            Self::Vessel => "vessel",
            Self::Bone => "bone",
        }
    }
}

/// Where a class truly is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassTruth {
    /// Which class.
    pub class: PhantomClass,
    /// Its visible pixels, at frame resolution; empty when it is out of view or hidden.
    pub mask: Mask,
}

/// One simulated frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhantomFrame {
    /// Position in the loop, from 0.
    pub index: u64,
    /// `width * height` gray levels, rows without padding.
    pub image: Vec<u8>,
    /// One entry for each of [`PhantomClass::ALL`], in that order. Masks never overlap.
    pub truth: Vec<ClassTruth>,
}

/// One patient: anatomy and the scatterers in it.
#[derive(Clone, Debug)]
struct Scene {
    anatomy: Anatomy,
    scatterers: Vec<Scatterer>,
    drifts: Drifts,
}

/// State of probe and patient in one frame.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// The frame that is shown: another one than asked for while frozen.
    index: u64,
    /// Seconds since frame 0.
    time: f64,
    /// Position of the probe on the tissue, in depths.
    probe: (f32, f32),
    /// How far the probe is beside the plane in which it began, in mm.
    across: f64,
    /// Growth of the vessel's radius.
    growth: f32,
}

/// The simulated scanner.
#[derive(Clone, Debug)]
pub struct Phantom {
    config: PhantomConfig,
    view: View,
    beam: Beam,
    /// The patient, and the one after the scene cut.
    scenes: Vec<Scene>,
}

impl Phantom {
    /// Builds the patient and the scanner; takes some tens of milliseconds.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn new(config: PhantomConfig) -> Result<Self, PhantomError> {
        config.validate()?;
        let view = View::new(&config);
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let beam = Beam::new(&mut rng, &view, &config);
        let scenes = if config.scene_cut.is_some() { 2 } else { 1 };
        let scenes = (0..scenes).map(|n| Scene::new(&config, &view, n)).collect();
        Ok(Self { config, view, beam, scenes })
    }

    /// The settings.
    pub fn config(&self) -> &PhantomConfig {
        &self.config
    }

    /// Presentation time of frame `index`: its distance from frame 0 at the configured rate, rounded down to
    /// nanoseconds.
    pub fn pts(&self, index: u64) -> Pts {
        let (num, den) = self.config.frame_rate();
        let nanos = u128::from(index) * u128::from(den) * 1_000_000_000 / u128::from(num);
        Pts(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Frame `index` with its truth. Beyond `frames` the loop simply goes on.
    ///
    /// A frozen frame equals the first frozen one, but carries its own stamp.
    pub fn frame(&mut self, index: u64) -> PhantomFrame {
        PhantomFrame { index, image: self.image(index), truth: self.truth(index) }
    }

    /// The picture of frame `index` alone: `width * height` gray levels, rows without padding.
    pub fn image(&mut self, index: u64) -> Vec<u8> {
        let moment = self.moment(index);
        let hidden = self.hidden_lines(&moment);
        let anatomy = self.anatomy(&moment);
        let Self { config, view, beam, scenes } = self;
        let scene = &scenes[scene_of(config, scenes.len(), &moment)];

        let phasors = scene.drifts.phasors(moment.time, moment.across);
        beam.clear();
        for s in &scene.scatterers {
            let there = (moment.across != 0.0).then(|| anatomy.echo(s.x, s.z).map(|echo| s.in_tissue(echo)));
            let s = there.flatten().unwrap_or(*s);
            let (x, z) = anatomy.deform(s.x, s.z, moment.growth);
            let (cos, sin) = phasors[usize::from(s.drift)];
            let echo = (s.echo.0 * cos - s.echo.1 * sin, s.echo.0 * sin + s.echo.1 * cos);
            beam.add(view.to_beam(x - moment.probe.0, z - moment.probe.1), echo);
        }
        beam.convolve();

        let paths: [LinePath; LINES] = std::array::from_fn(|line| {
            let (start, direction) = view.ray(line);
            let start = (start.0 + moment.probe.0, start.1 + moment.probe.1);
            LinePath {
                lumen: anatomy.lumen_on(start, direction, moment.growth),
                shadow_from: anatomy.bone_on(start, direction).map(|s| s + anatomy.cortex()),
                contact_lost: hidden.is_some_and(|(from, to)| (from..=to).contains(&(line as f32))),
            }
        });
        let mut image = view.convert(beam.compress(&paths, config.seed.wrapping_add(moment.index)));
        if config.stamp {
            stamp::draw_stamp(&mut image, config.width, index);
        }
        image
    }

    /// The truth of frame `index` alone.
    ///
    /// A pixel belongs to a class if it is in the scanned area, its tissue is of the class, and no loss of contact
    /// hides it. While a class is occluded, every scan line that would meet it is lost: its mask is empty, and the
    /// masks of the others miss the pixels on those lines.
    pub fn truth(&self, index: u64) -> Vec<ClassTruth> {
        let moment = self.moment(index);
        let hidden = self.hidden_lines(&moment);
        PhantomClass::ALL.map(|class| ClassTruth { class, mask: self.mask(class, &moment, hidden) }).into()
    }

    fn moment(&self, index: u64) -> Moment {
        let c = &self.config;
        let index = c.freeze.filter(|f| f.contains(index)).map_or(index, |f| f.start);
        let time = self.pts(index).as_duration().as_secs_f64();
        let (amplitude, angle) = (c.motion_mm / c.depth_mm, std::f64::consts::TAU * c.motion_hz * time);
        // Pressing and sliding are not in step.
        let probe = ((amplitude * angle.sin()) as f32, (0.2 * amplitude * (1.7 * angle).sin()) as f32);
        let across = c.out_of_plane_mm * (0.6 * angle).sin();
        let growth = c.pulse_fraction * pulse_wave((time * c.pulse_bpm / 60.0).rem_euclid(1.0));
        Moment { index, time, probe, across, growth: growth as f32 }
    }

    /// The anatomy in the plane of a moment.
    fn anatomy(&self, moment: &Moment) -> Anatomy {
        let scene = &self.scenes[scene_of(&self.config, self.scenes.len(), moment)];
        scene.anatomy.at((moment.across / self.config.depth_mm) as f32)
    }

    /// Pixels of a class on lines that are not `hidden`.
    fn mask(&self, class: PhantomClass, moment: &Moment, hidden: Option<(f32, f32)>) -> Mask {
        let anatomy = self.anatomy(moment);
        let mut mask = Mask::empty(self.config.width, self.config.height);
        let [bx, bz] = anatomy.bounds(class, moment.growth);
        let (dx, dz) = moment.probe;
        let [columns, rows] = self.view.pixels_of((bx.0 - dx, bx.1 - dx), (bz.0 - dz, bz.1 - dz));
        for y in rows {
            for x in columns.clone() {
                if !self.view.is_scanned(x, y) {
                    continue;
                }
                let (px, pz) = self.view.pixel(x, y);
                let (mx, mz) = anatomy.undeform(px + dx, pz + dz, moment.growth);
                if anatomy.class_at(mx, mz) == Some(class) {
                    let lost = hidden.is_some_and(|(from, to)| {
                        let line = self.view.to_beam(px, pz).0;
                        (from..=to).contains(&line)
                    });
                    mask.set(x, y, !lost);
                }
            }
        }
        mask
    }

    /// Scan lines without contact in this frame: those that meet the occluded class, and a few to either side.
    fn hidden_lines(&self, moment: &Moment) -> Option<(f32, f32)> {
        const MARGIN: f32 = 5.0;
        let occlusion = self.config.occlusion.filter(|o| o.range().contains(moment.index))?;
        let mask = self.mask(occlusion.class, moment, None);
        let mut lines: Option<(f32, f32)> = None;
        for y in 0..mask.height() {
            let row = mask.row(y);
            // The outermost pixels of a row have its outermost lines.
            let ends = [row.iter().position(|&v| v != 0), row.iter().rposition(|&v| v != 0)];
            for x in ends.into_iter().flatten() {
                let (px, pz) = self.view.pixel(x, y);
                let line = self.view.to_beam(px, pz).0;
                let (from, to) = lines.unwrap_or((line, line));
                lines = Some((from.min(line), to.max(line)));
            }
        }
        lines.map(|(from, to)| (from - MARGIN, to + MARGIN))
    }
}

/// First of the random streams for motion across the plane; the scenes' own begin at 1.
const ACROSS: u64 = 1000;

/// Index of the scene that a moment shows.
fn scene_of(config: &PhantomConfig, scenes: usize, moment: &Moment) -> usize {
    usize::from(config.scene_cut.is_some_and(|cut| moment.index >= cut)).min(scenes - 1)
}

impl Scene {
    fn new(config: &PhantomConfig, view: &View, number: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        // Stream 0 belongs to the scanner.
        rng.set_stream(number + 1);
        let anatomy = Anatomy::new(&mut rng, view.half_width_at(0.4), number % 2 == 1);
        let mut drifts = Drifts::new(&mut rng, config.decorrelation_rate);
        if config.out_of_plane_mm > 0.0 {
            let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
            rng.set_stream(ACROSS + number);
            drifts = drifts.across(&mut rng);
        }
        let travel = (config.motion_mm / config.depth_mm) as f32;
        let travel = (travel, 0.2 * travel);
        let pad = beam::PAD as f32;
        let (half, above) = view.extent();
        // Scatterers that no motion ever brings onto the grid are left out.
        let seen = |x: f32, z: f32| {
            [-1.0, 0.0, 1.0].iter().any(|sx| {
                [-1.0, 0.0, 1.0].iter().any(|sz| {
                    let (line, sample) = view.to_beam(x + sx * travel.0, z + sz * travel.1);
                    (-pad..LINES as f32 + pad).contains(&line)
                        && (-pad..SAMPLES as f32 + pad).contains(&sample)
                })
            })
        };
        let side = half * (1.0 + 2.0 * pad / (LINES - 1) as f32) + travel.0;
        let margin = pad / SAMPLES as f32 + travel.1;
        let z = (-above - margin, 1.0 + margin);
        let scatterers = scatter(&mut rng, (-side, side), z, seen, |x, z| anatomy.echo(x, z));
        Self { anatomy, scatterers, drifts }
    }
}
