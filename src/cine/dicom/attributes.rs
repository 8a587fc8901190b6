//! The attributes that say how pixels are stored, shown and timed.

use dicom_core::{PrimitiveValue, Tag};
use dicom_dictionary_std::tags;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject, OpenFileOptions, file::ReadPreamble};

use super::scan::{Layout, malformed};
use crate::cine::error::guarded;
use crate::cine::gray::Window;
use crate::cine::timeline::Timeline;
use crate::cine::{CineError, OpenOptions, Timing, checked_area};

/// The elements that are read. None is a sequence, so that parsing them cannot recurse.
pub(super) const WANTED: [Tag; 27] = [
    tags::RECOMMENDED_DISPLAY_FRAME_RATE,
    tags::CINE_RATE,
    tags::FRAME_TIME,
    tags::FRAME_TIME_VECTOR,
    tags::SAMPLES_PER_PIXEL,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::PLANAR_CONFIGURATION,
    tags::NUMBER_OF_FRAMES,
    tags::FRAME_INCREMENT_POINTER,
    tags::ROWS,
    tags::COLUMNS,
    tags::BITS_ALLOCATED,
    tags::BITS_STORED,
    tags::HIGH_BIT,
    tags::PIXEL_REPRESENTATION,
    tags::WINDOW_CENTER,
    tags::WINDOW_WIDTH,
    tags::RESCALE_INTERCEPT,
    tags::RESCALE_SLOPE,
    tags::VOILUT_FUNCTION,
    tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
    tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
    tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
    tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::SPECIFIC_CHARACTER_SET,
];

/// What a stored sample means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Photometric {
    /// MONOCHROME2, low values dark; or MONOCHROME1 if `inverted`.
    Gray {
        /// Low values are bright.
        inverted: bool,
    },
    /// Indices into a colour table.
    Palette,
    /// Red, green, blue.
    Rgb,
    /// Full-range BT.601 luma and chroma, at full resolution.
    Ybr,
    /// The same with chroma at half the horizontal resolution where uncompressed.
    Ybr422,
    /// JPEG 2000's own colour transforms, undone by the decoder.
    YbrJpeg2000,
}

/// Layout of one frame's samples.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Format {
    /// Rows.
    pub(super) rows: u16,
    /// Columns.
    pub(super) columns: u16,
    /// 1 or 3.
    pub(super) samples: u16,
    /// 8 or 16.
    pub(super) bits_allocated: u16,
    /// Bits that carry the value.
    pub(super) bits_stored: u16,
    /// Position of the highest of them.
    pub(super) high_bit: u16,
    /// Two's complement.
    pub(super) signed: bool,
    /// Planar Configuration 1: all red, then all green, then all blue.
    pub(super) planar: bool,
    /// Meaning.
    pub(super) photometric: Photometric,
}

/// The attributes of an object, parsed by dicom-rs.
pub(super) struct Attributes(InMemDicomObject);

impl Attributes {
    /// Parses the elements that the scan kept.
    ///
    /// # Errors
    /// Elements that dicom-rs does not take.
    pub(super) fn parse(layout: &Layout) -> Result<Self, CineError> {
        let mut bytes = b"DICM".to_vec();
        let failed = |e: &dyn std::error::Error| malformed(format!("its attributes cannot be parsed: {e}"));
        let meta = FileMetaTableBuilder::new()
            .media_storage_sop_class_uid(super::ULTRASOUND_MULTIFRAME)
            .media_storage_sop_instance_uid("2.25.1")
            .transfer_syntax(layout.encoding.uid())
            .build()
            .map_err(|e| failed(&e))?;
        meta.write(&mut bytes).map_err(|e| failed(&e))?;
        bytes.extend_from_slice(&layout.elements);
        guarded("DICOM attribute", || {
            let object = OpenFileOptions::new()
                .read_preamble(ReadPreamble::Never)
                .from_reader(bytes.as_slice())
                .map_err(|e| failed(&e))?;
            Ok(Self(object.into_inner()))
        })
    }

    fn int(&self, tag: Tag) -> Option<i64> {
        self.0.element_opt(tag).ok()??.to_int().ok()
    }

    fn floats(&self, tag: Tag) -> Vec<f64> {
        let element = self.0.element_opt(tag).ok().flatten();
        element.and_then(|e| e.to_multi_float64().ok()).unwrap_or_default()
    }

    fn float(&self, tag: Tag) -> Option<f64> {
        self.floats(tag).first().copied()
    }

    fn text(&self, tag: Tag) -> Option<String> {
        let text = self.0.element_opt(tag).ok()??.to_str().ok()?.into_owned();
        Some(text.trim_matches([' ', '\0']).to_owned())
    }

    fn small(&self, tag: Tag, name: &str) -> Result<u16, CineError> {
        let value = self.int(tag).ok_or_else(|| malformed(format!("{name} {tag} is missing")))?;
        u16::try_from(value).map_err(|_| malformed(format!("{name} {tag} is {value}, expected 0 to 65535")))
    }

    /// Number of Frames, 1 if absent.
    ///
    /// # Errors
    /// A number that is not positive.
    pub(super) fn frames(&self) -> Result<usize, CineError> {
        let Some(text) = self.text(tags::NUMBER_OF_FRAMES).filter(|t| !t.is_empty()) else { return Ok(1) };
        match text.parse::<u32>() {
            Ok(n) if n > 0 => Ok(n as usize),
            _ => Err(malformed(format!(
                "Number of Frames (0028,0008) is '{text}', expected a positive number"
            ))),
        }
    }

    /// How samples are laid out.
    ///
    /// # Errors
    /// Attributes that are missing, contradict each other, or name something that is not read.
    pub(super) fn format(&self) -> Result<Format, CineError> {
        let unsupported = |problem: String| CineError::Unsupported { format: "DICOM", problem };
        let rows = self.small(tags::ROWS, "Rows")?;
        let columns = self.small(tags::COLUMNS, "Columns")?;
        checked_area(columns.into(), rows.into())?;
        let samples = self.small(tags::SAMPLES_PER_PIXEL, "Samples per Pixel")?;
        let bits_allocated = self.small(tags::BITS_ALLOCATED, "Bits Allocated")?;
        if !matches!(bits_allocated, 8 | 16) {
            return Err(unsupported(format!(
                "{bits_allocated} bits a sample are not read, expected 8 or 16"
            )));
        }
        let or_else = |tag, default| match self.int(tag) {
            None => Ok(default),
            Some(v) => u16::try_from(v).map_err(|_| malformed(format!("{tag} is {v}, expected 0 to 65535"))),
        };
        let bits_stored = or_else(tags::BITS_STORED, bits_allocated)?;
        let high_bit = or_else(tags::HIGH_BIT, bits_stored.saturating_sub(1))?;
        if bits_stored == 0 || high_bit >= bits_allocated || high_bit + 1 < bits_stored {
            return Err(malformed(format!(
                "{bits_stored} bits up to bit {high_bit} do not fit {bits_allocated} bits allocated"
            )));
        }
        let name = self.text(tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default();
        let (photometric, expected) = match name.as_str() {
            "MONOCHROME2" => (Photometric::Gray { inverted: false }, 1),
            "MONOCHROME1" => (Photometric::Gray { inverted: true }, 1),
            "PALETTE COLOR" => (Photometric::Palette, 1),
            "RGB" => (Photometric::Rgb, 3),
            "YBR_FULL" => (Photometric::Ybr, 3),
            "YBR_FULL_422" => (Photometric::Ybr422, 3),
            "YBR_RCT" | "YBR_ICT" => (Photometric::YbrJpeg2000, 3),
            other => {
                return Err(unsupported(format!(
                    "photometric interpretation '{other}' is not read, expected MONOCHROME1, MONOCHROME2, \
                     PALETTE COLOR, RGB, YBR_FULL, YBR_FULL_422, YBR_RCT or YBR_ICT"
                )));
            }
        };
        if samples != expected {
            return Err(malformed(format!("{name} has {expected} samples a pixel, the file says {samples}")));
        }
        let signed = or_else(tags::PIXEL_REPRESENTATION, 0)? == 1;
        if signed && samples == 3 {
            return Err(unsupported("signed colour samples are not read".into()));
        }
        let planar = samples == 3 && or_else(tags::PLANAR_CONFIGURATION, 0)? == 1;
        Ok(Format {
            rows,
            columns,
            samples,
            bits_allocated,
            bits_stored,
            high_bit,
            signed,
            planar,
            photometric,
        })
    }

    /// Rescale Slope and Intercept; `(1, 0)` where absent or senseless.
    pub(super) fn rescale(&self) -> (f64, f64) {
        let slope = self.float(tags::RESCALE_SLOPE).filter(|s| s.is_finite() && *s != 0.0);
        let intercept = self.float(tags::RESCALE_INTERCEPT).filter(|i| i.is_finite());
        (slope.unwrap_or(1.0), intercept.unwrap_or(0.0))
    }

    /// The first window of the file, if it makes one. VOI LUT sequences are not read.
    pub(super) fn window(&self) -> Option<Window> {
        let function = self.text(tags::VOILUT_FUNCTION).unwrap_or_default();
        Window::dicom(self.float(tags::WINDOW_CENTER)?, self.float(tags::WINDOW_WIDTH)?, &function)
    }

    /// The colour table of PALETTE COLOR: the first index, and R, G, B for it and those that follow.
    ///
    /// # Errors
    /// A table that is missing, of another form, or shorter than it says.
    pub(super) fn palette(&self) -> Result<(i64, Vec<[u8; 3]>), CineError> {
        let channels = [
            (tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA),
            (tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA),
            (tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA),
        ];
        let mut first = 0;
        let mut table: Vec<[u8; 3]> = Vec::new();
        for (channel, (descriptor, data)) in channels.into_iter().enumerate() {
            let numbers = self.0.element_opt(descriptor).ok().flatten();
            let numbers = numbers.and_then(|e| e.to_multi_int::<i64>().ok()).unwrap_or_default();
            let &[entries, start, bits] = numbers.as_slice() else {
                return Err(malformed(format!(
                    "the colour table descriptor {descriptor} is missing or wrong"
                )));
            };
            // 65536 entries do not fit the field and are written as 0; as signed, large numbers look negative.
            let entries = if entries & 0xffff == 0 { 65_536 } else { (entries & 0xffff) as usize };
            let bytes = self.0.element_opt(data).ok().flatten();
            let bytes = bytes.and_then(|e| e.to_bytes().ok()).unwrap_or_default();
            let shades: Vec<u8> = match bits {
                // 16-bit entries are shown by their high byte.
                16 => bytes.chunks_exact(2).map(|b| b[1]).collect(),
                // 8-bit entries stand one or, by older writers, half in each 16-bit word.
                8 if bytes.len() >= entries * 2 => bytes.chunks_exact(2).map(|b| b[0]).collect(),
                8 => bytes.to_vec(),
                _ => return Err(malformed(format!("a colour table of {bits} bits, expected 8 or 16"))),
            };
            if shades.len() < entries {
                return Err(malformed(format!(
                    "the colour table {data} holds {} of {entries} entries",
                    shades.len()
                )));
            }
            if channel == 0 {
                (first, table) = (start, vec![[0; 3]; entries]);
            }
            if (first, table.len()) != (start, entries) {
                return Err(malformed("the three colour tables differ in size or start"));
            }
            for (rgb, shade) in table.iter_mut().zip(shades) {
                rgb[channel] = shade;
            }
        }
        Ok((first, table))
    }

    /// When each frame starts: what Frame Increment Pointer names, else Frame Time, Frame Time Vector, Cine Rate,
    /// Recommended Display Frame Rate, the first that makes sense; else a rate is assumed.
    ///
    /// # Errors
    /// A senseless rate among the options.
    pub(super) fn timeline(
        &self,
        frames: usize,
        options: OpenOptions,
    ) -> Result<(Timeline, Timing), CineError> {
        let mut order = vec![
            (tags::FRAME_TIME, "FrameTime (0018,1063)"),
            (tags::FRAME_TIME_VECTOR, "FrameTimeVector (0018,1065)"),
            (tags::CINE_RATE, "CineRate (0018,0040)"),
            (tags::RECOMMENDED_DISPLAY_FRAME_RATE, "RecommendedDisplayFrameRate (0008,2144)"),
        ];
        if let Some(PrimitiveValue::Tags(pointed)) = self
            .0
            .element_opt(tags::FRAME_INCREMENT_POINTER)
            .ok()
            .flatten()
            .and_then(|e| e.value().primitive())
        {
            // A stable sort: the pointed-to element first, the others stay in order.
            order.sort_by_key(|(tag, _)| !pointed.contains(tag));
        }
        let mut unusable = String::new();
        for (tag, name) in order {
            let values = self.floats(tag);
            let Some(&first) = values.first() else { continue };
            let timeline = match tag {
                tags::FRAME_TIME => {
                    Timeline::every(first / 1e3).ok_or_else(|| format!("{first} ms is no frame time"))
                }
                tags::FRAME_TIME_VECTOR => from_increments(&values, frames),
                _ => Timeline::every(1.0 / first).ok_or_else(|| format!("{first} is no frame rate")),
            };
            match timeline {
                Ok(timeline) => return Ok((timeline, Timing::File(name.to_owned()))),
                Err(why) => unusable.push_str(&format!("; {name} is not usable: {why}")),
            }
        }
        let why = format!("the file gives no usable frame times{unusable}");
        Timeline::assumed(options.fps, &why)
    }
}

/// Frame Time Vector: milliseconds from the frame before, the first of them without a meaning.
fn from_increments(increments: &[f64], frames: usize) -> Result<Timeline, String> {
    if increments.len() != frames {
        return Err(format!("{} values for {frames} frames", increments.len()));
    }
    let times = increments.iter().enumerate().scan(0.0, |t, (i, ms)| {
        *t += if i == 0 { 0.0 } else { ms / 1e3 };
        Some(*t)
    });
    Timeline::from_seconds(&times.collect::<Vec<_>>())
}
