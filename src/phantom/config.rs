//! What a phantom is asked to show, and the refusal of what it cannot.

use serde::{Deserialize, Serialize};

use super::PhantomClass;

/// How the scan lines leave the probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Geometry {
    /// Parallel lines of a linear array; the picture is a rectangle.
    #[default]
    Linear,
    /// Diverging lines of a curved (or, with a small radius, phased) array; the picture is a sector.
    Sector,
}

/// Frames `start..end`, counted from 0, `end` excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameRange {
    /// First frame.
    pub start: u64,
    /// One past the last frame.
    pub end: u64,
}

impl FrameRange {
    /// Whether `index` is one of the frames.
    pub fn contains(self, index: u64) -> bool {
        (self.start..self.end).contains(&index)
    }
}

/// A loss of probe contact that hides one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Occlusion {
    /// First frame.
    pub start: u64,
    /// One past the last frame.
    pub end: u64,
    /// The class whose scan lines lose contact.
    pub class: PhantomClass,
}

impl Occlusion {
    /// Frames without contact.
    pub fn range(self) -> FrameRange {
        FrameRange { start: self.start, end: self.end }
    }
}

/// Settings of a [`Phantom`](super::Phantom); the `[phantom]` table of a configuration file.
///
/// The anatomy is laid out in fractions of `depth_mm`, so every class is in view at any depth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhantomConfig {
    /// Equal seeds (and equal settings) give equal bytes.
    pub seed: u64,
    /// Pixels per row, 64 to 4096.
    pub width: usize,
    /// Rows, 64 to 4096.
    pub height: usize,
    /// Frames per second, 0.1 to 1000; kept to three decimals.
    pub fps: f64,
    /// Length of the cine-loop; endless when left out.
    pub frames: Option<u64>,
    /// Linear array or sector.
    pub geometry: Geometry,
    /// Depth of the picture in mm, 5 to 300.
    pub depth_mm: f64,
    /// Width of a linear array in mm, 0.6 to 3 times the depth.
    pub linear_width_mm: f64,
    /// Opening angle of a sector in degrees, 40 to 120.
    pub sector_angle_deg: f64,
    /// Radius of a curved array in mm, 0.1 to 2 times the depth.
    pub sector_radius_mm: f64,
    /// Lateral amplitude of the probe's motion in mm, 0 (still) to a quarter of the depth. Axially the probe
    /// moves a fifth of that.
    pub motion_mm: f64,
    /// Cycles of probe motion per second, 0 to 5.
    pub motion_hz: f64,
    /// Amplitude of the probe's motion across the plane of the picture in mm, 0 to a quarter of the depth, at six tenths of
    /// `motion_hz`: the vessel slides, the nerve shrinks and is out of the plane beyond 0.15 depths, and speckle is another a
    /// millimetre further.
    pub out_of_plane_mm: f64,
    /// Heart rate, beats per minute, 0 (no pulse) to 300.
    pub pulse_bpm: f64,
    /// How far the vessel's radius grows in systole, as a fraction of its diastolic radius, 0 to 0.4.
    pub pulse_fraction: f64,
    /// Rate `r` of speckle decorrelation in 1/s, 0 (tissue only moves) to 100: after `t` seconds the echo signal
    /// of a tissue element correlates with itself as `exp(-(r t)^2)`.
    pub decorrelation_rate: f64,
    /// Attenuation that the time-gain compensation leaves, in dB over the whole depth, 0 to 60.
    pub attenuation_db: f64,
    /// Span of echo levels between black and white in dB, 20 to 120.
    pub dynamic_range_db: f64,
    /// Receive gain in dB relative to the usual setting, -40 to 40.
    pub gain_db: f64,
    /// Loss of contact over one class.
    pub occlusion: Option<Occlusion>,
    /// From this frame on, another patient: other anatomy, mirrored, with other speckle.
    pub scene_cut: Option<u64>,
    /// The scanner's freeze: every frame of the range shows the first of them.
    pub freeze: Option<FrameRange>,
    /// Draws the frame index as a barcode into the top left corner; see [`read_stamp`](super::read_stamp).
    pub stamp: bool,
}

impl Default for PhantomConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            width: 640,
            height: 480,
            fps: 30.0,
            frames: None,
            geometry: Geometry::Linear,
            depth_mm: 40.0,
            linear_width_mm: 40.0,
            sector_angle_deg: 70.0,
            sector_radius_mm: 15.0,
            motion_mm: 2.0,
            motion_hz: 0.25,
            out_of_plane_mm: 0.0,
            pulse_bpm: 72.0,
            pulse_fraction: 0.12,
            decorrelation_rate: 0.5,
            attenuation_db: 8.0,
            dynamic_range_db: 60.0,
            gain_db: 0.0,
            occlusion: None,
            scene_cut: None,
            freeze: None,
            stamp: false,
        }
    }
}

/// Why a phantom cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PhantomError {
    /// A number outside its range.
    #[error("phantom.{name} = {value}: expected {low} to {high} {unit}")]
    OutOfRange {
        /// Setting.
        name: &'static str,
        /// Given value.
        value: f64,
        /// Smallest value allowed.
        low: f64,
        /// Largest value allowed.
        high: f64,
        /// Unit of all three.
        unit: &'static str,
    },
    /// A range of frames with no frame in it.
    #[error("phantom.{name} = {start}..{end}: expected an end after the start")]
    EmptyRange {
        /// Setting.
        name: &'static str,
        /// Given start.
        start: u64,
        /// Given end.
        end: u64,
    },
    /// A cine-loop of no frames.
    #[error("phantom.frames = 0: expected at least one frame, or no setting for an endless loop")]
    NoFrames,
}

impl PhantomConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting that is out of range, with what was expected.
    pub fn validate(&self) -> Result<(), PhantomError> {
        let d = self.depth_mm;
        let limits = [
            ("width", self.width as f64, 64.0, 4096.0, "px"),
            ("height", self.height as f64, 64.0, 4096.0, "px"),
            ("fps", self.fps, 0.1, 1000.0, "frames/s"),
            ("depth_mm", d, 5.0, 300.0, "mm"),
            ("linear_width_mm", self.linear_width_mm, 0.6 * d, 3.0 * d, "mm at this depth"),
            ("sector_angle_deg", self.sector_angle_deg, 40.0, 120.0, "degrees"),
            ("sector_radius_mm", self.sector_radius_mm, 0.1 * d, 2.0 * d, "mm at this depth"),
            ("motion_mm", self.motion_mm, 0.0, 0.25 * d, "mm at this depth"),
            ("motion_hz", self.motion_hz, 0.0, 5.0, "Hz"),
            ("out_of_plane_mm", self.out_of_plane_mm, 0.0, 0.25 * d, "mm at this depth"),
            ("pulse_bpm", self.pulse_bpm, 0.0, 300.0, "beats/min"),
            ("pulse_fraction", self.pulse_fraction, 0.0, 0.4, "of the radius"),
            ("decorrelation_rate", self.decorrelation_rate, 0.0, 100.0, "1/s"),
            ("attenuation_db", self.attenuation_db, 0.0, 60.0, "dB"),
            ("dynamic_range_db", self.dynamic_range_db, 20.0, 120.0, "dB"),
            ("gain_db", self.gain_db, -40.0, 40.0, "dB"),
        ];
        for (name, value, low, high, unit) in limits {
            // The unused geometry's settings do not matter: a depth alone must be settable.
            let unused = match self.geometry {
                Geometry::Linear => name.starts_with("sector_"),
                Geometry::Sector => name.starts_with("linear_"),
            };
            // NaN is in no range.
            if !unused && !(low..=high).contains(&value) {
                return Err(PhantomError::OutOfRange { name, value, low, high, unit });
            }
        }
        if self.frames == Some(0) {
            return Err(PhantomError::NoFrames);
        }
        let ranges = [("occlusion", self.occlusion.map(Occlusion::range)), ("freeze", self.freeze)];
        for (name, range) in ranges {
            if let Some(FrameRange { start, end }) = range.filter(|r| r.start >= r.end) {
                return Err(PhantomError::EmptyRange { name, start, end });
            }
        }
        Ok(())
    }

    /// The frame rate as a reduced fraction `(frames, seconds)`, exact to a thousandth of a frame per second.
    pub fn frame_rate(&self) -> (u32, u32) {
        // In range after `validate`; the saturating cast keeps an unchecked value harmless.
        let (mut num, mut den) = ((self.fps * 1000.0).round().max(1.0) as u32, 1000_u32);
        for p in [2, 5] {
            while num % p == 0 && den % p == 0 {
                (num, den) = (num / p, den / p);
            }
        }
        (num, den)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Phantom;
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused_with_the_range() {
        let refuse = |config: PhantomConfig| Phantom::new(config).map(|_| ()).unwrap_err().to_string();
        let d = PhantomConfig::default;
        assert_eq!(d().validate(), Ok(()));
        assert_eq!(refuse(PhantomConfig { width: 63, ..d() }), "phantom.width = 63: expected 64 to 4096 px");
        assert_eq!(
            refuse(PhantomConfig { fps: 0.0, ..d() }),
            "phantom.fps = 0: expected 0.1 to 1000 frames/s"
        );
        assert_eq!(
            refuse(PhantomConfig { fps: f64::NAN, ..d() }),
            "phantom.fps = NaN: expected 0.1 to 1000 frames/s"
        );
        assert_eq!(
            refuse(PhantomConfig { motion_mm: 11.0, ..d() }),
            "phantom.motion_mm = 11: expected 0 to 10 mm at this depth"
        );
        assert_eq!(
            refuse(PhantomConfig { gain_db: -41.0, ..d() }),
            "phantom.gain_db = -41: expected -40 to 40 dB"
        );
        assert_eq!(
            refuse(PhantomConfig { freeze: Some(FrameRange { start: 5, end: 5 }), ..d() }),
            "phantom.freeze = 5..5: expected an end after the start"
        );
        let backwards = Some(Occlusion { start: 9, end: 2, class: PhantomClass::Bone });
        assert_eq!(
            refuse(PhantomConfig { occlusion: backwards, ..d() }),
            "phantom.occlusion = 9..2: expected an end after the start"
        );
        assert_eq!(
            Phantom::new(PhantomConfig { frames: Some(0), ..d() }).err(),
            Some(PhantomError::NoFrames)
        );
        // What the geometry does not use is not checked.
        let unused = PhantomConfig { sector_angle_deg: 0.0, ..d() };
        assert_eq!(unused.validate(), Ok(()));
        assert!(PhantomConfig { geometry: Geometry::Sector, ..unused }.validate().is_err());
    }

    #[test]
    fn a_config_file_names_every_setting_and_no_other() {
        let text = r#"
            seed = 9
            geometry = "sector"
            frames = 12
            freeze = { start = 2, end = 4 }
            occlusion = { start = 5, end = 6, class = "vessel" }
        "#;
        let config: PhantomConfig = toml::from_str(text).unwrap();
        let expected = PhantomConfig {
            seed: 9,
            geometry: Geometry::Sector,
            frames: Some(12),
            freeze: Some(FrameRange { start: 2, end: 4 }),
            occlusion: Some(Occlusion { start: 5, end: 6, class: PhantomClass::Vessel }),
            ..PhantomConfig::default()
        };
        assert_eq!(config, expected);
        let wrong = toml::from_str::<PhantomConfig>("puls_bpm = 70").unwrap_err().to_string();
        assert!(wrong.contains("unknown field `puls_bpm`") && wrong.contains("pulse_bpm"), "{wrong}");
        let wrong = toml::from_str::<PhantomConfig>("geometry = \"round\"").unwrap_err().to_string();
        assert!(wrong.contains("`linear`") && wrong.contains("`sector`"), "{wrong}");
    }
}
