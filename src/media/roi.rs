//! Masks as region-of-interest metas on the buffer, for whatever follows in the pipeline.

use std::fmt::Write as _;

use gstreamer as gst;
use gstreamer_video as gst_video;

use crate::frame::FrameId;
use crate::mask::Segmentation;

/// Name of the parameter structure on every region this product adds.
pub const ROI_PARAMS: &str = "sonomask/mask";

/// One region: the class's name, its box as x, y, width, height, and its parameters.
#[derive(Debug)]
struct Region {
    name: String,
    rect: (u32, u32, u32, u32),
    params: gst::Structure,
}

/// The regions of one segmentation, prepared once however many frames they are attached to.
#[derive(Debug)]
pub struct Regions {
    of: FrameId,
    regions: Vec<Region>,
}

impl Regions {
    /// One region per class that is present: type = class name, box = the mask's bounds, and the parameters
    /// `class` (u32), `score` (f64), `epoch` and `frame` (identity of the frame the mask was made from), and
    /// `rle` (COCO order, comma-separated run lengths at frame size).
    pub fn new(segmentation: &Segmentation, classes: &[String]) -> Self {
        let id = segmentation.frame.id;
        let px = |v: usize| u32::try_from(v).unwrap_or(u32::MAX);
        let regions = segmentation.masks.iter().filter_map(|found| {
            let b = found.mask.bounds()?;
            let name = classes.get(found.class).map_or("unknown", String::as_str);
            let mut rle = String::new();
            for (i, run) in found.mask.rle().iter().enumerate() {
                let comma = if i == 0 { "" } else { "," };
                write!(rle, "{comma}{run}").ok()?;
            }
            let params = gst::Structure::builder(ROI_PARAMS)
                .field("class", px(found.class))
                .field("score", f64::from(found.score))
                .field("epoch", id.epoch)
                .field("frame", id.seq)
                .field("rle", rle)
                .build();
            let rect = (px(b.x0), px(b.y0), px(b.x1 - b.x0), px(b.y1 - b.y0));
            Some(Region { name: name.to_owned(), rect, params })
        });
        Self { of: id, regions: regions.collect() }
    }

    /// The frame the regions were found in.
    pub fn frame(&self) -> FrameId {
        self.of
    }

    /// Adds the regions to `buffer`, with the mask's age in nanoseconds as `age-ns` (u64; 0 for the buffer's own mask).
    pub fn attach(&self, buffer: &mut gst::BufferRef, age_ns: u64) {
        for Region { name, rect, params } in &self.regions {
            let mut params = params.clone();
            params.set("age-ns", age_ns);
            gst_video::VideoRegionOfInterestMeta::add(buffer, name, *rect).add_param(params);
        }
    }
}
