//! What leaves beside the video: masks as files, pictures for the contact sheet.
//!
//! A thread of its own writes them, so that a slow disk never holds up a frame: a live run drops (and counts) what
//! the disk cannot take, a recording waits.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use gstreamer as gst;
use parking_lot::Mutex;

use crate::frame::{FrameMeta, Rgb};
use crate::mask::Segmentation;
use crate::media::{Recording, StreamFormat};
use crate::overlay::{Tile, contact_sheet};
use crate::whole::{self, free_name, incomplete};

/// Masks as lines of JSON.
const LINES: &str = "masks.jsonl";
/// Items that may wait for the disk.
const DEPTH: usize = 8;
/// Tiles on a contact sheet, at most twice as many while the length is not known.
const TILES: u64 = 12;
/// Width of a tile in pixels.
const TILE_WIDTH: usize = 320;
/// Tiles side by side.
const COLUMNS: usize = 4;

/// How masks are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskFormat {
    /// `NNNNNN_CLASS.png`, 0 outside and 255 inside.
    Png,
    /// One line of JSON per class and frame in `masks.jsonl`, COCO run lengths.
    Rle,
}

/// What to write, and where.
#[derive(Clone, Debug, Default)]
pub struct SidecarConfig {
    /// Folder and format of the masks.
    pub masks: Option<(PathBuf, MaskFormat)>,
    /// File of the contact sheet.
    pub contact_sheet: Option<PathBuf>,
    /// Frames to expect, where known, so that the tiles are spread evenly.
    pub expected_frames: Option<u64>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Wait for the disk instead of dropping.
    pub lossless: bool,
}

enum Item {
    Masks(Arc<Segmentation>),
    Picture(FrameMeta, gst::Buffer, Arc<StreamFormat>),
    /// Sent rather than closing the channel: a stuck worker that was left behind still holds a writing end.
    End {
        whole: bool,
    },
}

/// The writing end, for the worker and the compositor.
#[derive(Clone)]
pub struct SidecarHandle {
    sender: Sender<Item>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    masks: bool,
    sheet: bool,
    lossless: bool,
    dropped: AtomicU64,
    /// Every how many frames a picture is wanted.
    stride: AtomicU64,
    error: Mutex<Option<String>>,
}

impl SidecarHandle {
    /// Writes the masks of one frame.
    pub fn masks(&self, segmentation: Arc<Segmentation>) {
        if self.shared.masks {
            self.send(Item::Masks(segmentation));
        }
    }

    /// Keeps a composed frame for the contact sheet, if its turn has come.
    pub fn picture(&self, meta: FrameMeta, buffer: &gst::Buffer, format: &Arc<StreamFormat>) {
        if self.shared.sheet && meta.id.seq.is_multiple_of(self.shared.stride.load(Ordering::Relaxed)) {
            self.send(Item::Picture(meta, buffer.clone(), format.clone()));
        }
    }

    fn send(&self, item: Item) {
        if self.shared.lossless {
            // Fails only after the writer has ended, which then has said why.
            self.sender.send(item).ok();
        } else if let Err(TrySendError::Full(_)) = self.sender.try_send(item) {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The writer's thread.
pub struct Sidecar {
    handle: SidecarHandle,
    thread: JoinHandle<()>,
}

/// How the writing ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SidecarEnd {
    /// Masks and pictures that the disk could not take in time.
    pub dropped: u64,
    /// The first thing that went wrong.
    pub error: Option<String>,
}

impl Sidecar {
    /// Starts the writer; `None` if nothing is to be written.
    ///
    /// # Errors
    /// If the folder of the masks cannot be made, or the thread cannot start.
    pub fn start(config: SidecarConfig) -> Result<Option<Self>, String> {
        if config.masks.is_none() && config.contact_sheet.is_none() {
            return Ok(None);
        }
        let mut lines = None;
        if let Some((dir, format)) = &config.masks {
            let refuse = |e: std::io::Error| format!("{}: {}", unwritten(&e), dir.display());
            std::fs::create_dir_all(dir).map_err(refuse)?;
            if *format == MaskFormat::Rle {
                lines = Some(Lines::begin(dir)?);
            }
        }
        let (sender, receiver) = bounded(DEPTH);
        let shared = Arc::new(Shared {
            masks: config.masks.is_some(),
            sheet: config.contact_sheet.is_some(),
            lossless: config.lossless,
            stride: AtomicU64::new(config.expected_frames.map_or(1, |n| n.div_ceil(TILES)).max(1)),
            ..Shared::default()
        });
        let writer = Writer { config, lines, tiles: Vec::new(), shared: shared.clone() };
        let thread = std::thread::Builder::new()
            .name("sidecar".into())
            .spawn(move || writer.run(&receiver))
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        Ok(Some(Self { handle: SidecarHandle { sender, shared }, thread }))
    }

    /// The writing end.
    pub fn handle(&self) -> SidecarHandle {
        self.handle.clone()
    }

    /// Waits until everything offered so far is written. Of a run that did not come to its end, not `whole`, it gets names that say so, but
    /// for pictures of single masks.
    pub fn end(self, whole: bool) -> SidecarEnd {
        let Self { handle: SidecarHandle { sender, shared }, thread } = self;
        // Fails only if the writer is gone already.
        sender.send(Item::End { whole }).ok();
        if thread.join().is_err() {
            shared.error.lock().get_or_insert_with(|| "the writer of masks panicked".into());
        }
        SidecarEnd { dropped: shared.dropped.load(Ordering::Relaxed), error: shared.error.lock().take() }
    }
}

/// `masks.jsonl` while it is written. What a crash leaves of it is found by the next run, as what it leaves of a recording is.
struct Lines {
    file: BufWriter<File>,
    recording: Recording,
}

impl Lines {
    fn begin(dir: &Path) -> Result<Self, String> {
        // Whoever gave the folder has said that what is there may be replaced.
        let recording = Recording::begin(&dir.join(LINES), true).map_err(|e| e.to_string())?;
        let file = File::create(recording.part());
        let file = file.map_err(|e| format!("{}: {}", unwritten(&e), recording.part().display()))?;
        Ok(Self { file: BufWriter::new(file), recording })
    }

    /// Keeps what was written, under a name that says that some are missing; the message with it.
    fn put_aside(self, dir: &Path, why: &str) -> String {
        // What the disk did not take is not tried again.
        drop(self.file.into_parts());
        let left = self
            .recording
            .give_name(false)
            .map_or_else(|e| format!("; {e}"), |path| format!("; what there is of them: {}", path.display()));
        format!("{why}: {}{left}", dir.display())
    }
}

struct Writer {
    config: SidecarConfig,
    lines: Option<Lines>,
    tiles: Vec<(u64, Rgb, String)>,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self, items: &Receiver<Item>) {
        let mut is_whole = false;
        for item in items {
            let done = match item {
                Item::Masks(segmentation) => self.write_masks(&segmentation),
                Item::Picture(meta, buffer, format) => self.keep(&meta, &buffer, &format),
                Item::End { whole } => {
                    is_whole = whole;
                    break;
                }
            };
            self.note(done);
        }
        let done = self.finish(is_whole);
        self.note(done);
    }

    fn note(&self, done: Result<(), String>) {
        if let Err(reason) = done {
            let mut first = self.shared.error.lock();
            if first.is_none() {
                tracing::error!("{reason}");
                *first = Some(reason);
            }
        }
    }

    fn write_masks(&mut self, segmentation: &Segmentation) -> Result<(), String> {
        let Some((dir, format)) = &self.config.masks else { return Ok(()) };
        for found in &segmentation.masks {
            let class = self.config.classes.get(found.class).map_or("unknown", String::as_str);
            let (w, h) = (found.mask.width(), found.mask.height());
            match format {
                MaskFormat::Rle => {
                    // Without it there was an error, and what was written is put aside.
                    let Some(mut lines) = self.lines.take() else { return Ok(()) };
                    let line = serde_json::json!({
                        "frame": segmentation.frame.id.seq,
                        "epoch": segmentation.frame.id.epoch,
                        "pts_ns": segmentation.frame.pts.map(|p| p.0),
                        "class": class,
                        "score": found.score,
                        "presence": found.presence,
                        "size": [h, w],
                        "counts": found.mask.rle(),
                    });
                    if let Err(e) = writeln!(lines.file, "{line}") {
                        return Err(lines.put_aside(dir, &unwritten(&e)));
                    }
                    self.lines = Some(lines);
                }
                MaskFormat::Png => {
                    let path = dir.join(format!("{:06}_{}.png", segmentation.frame.id.seq, file_safe(class)));
                    let pixels: Vec<u8> = found.mask.data().iter().map(|&v| v * 255).collect();
                    whole::write_png(&path, &pixels, w, h, image::ExtendedColorType::L8)
                        .map_err(|e| format!("cannot write: {e}: {}", path.display()))?;
                }
            }
        }
        Ok(())
    }

    fn keep(
        &mut self,
        meta: &FrameMeta,
        buffer: &gst::BufferRef,
        format: &StreamFormat,
    ) -> Result<(), String> {
        // The stride may have doubled while this picture waited.
        if !meta.id.seq.is_multiple_of(self.shared.stride.load(Ordering::Relaxed)) {
            return Ok(());
        }
        let rgb = format.with_view(buffer, |view| Rgb::from(view)).map_err(|e| e.to_string())?;
        let pts = meta.pts.map_or_else(String::new, |p| format!("  {:.3} s", p.as_duration().as_secs_f64()));
        let caption = format!("frame {}{pts}", meta.id.seq);
        self.tiles.push((meta.id.seq, shrink(rgb), caption));
        if self.tiles.len() as u64 >= 2 * TILES {
            let stride =
                self.shared.stride.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |s| s.checked_mul(2));
            let stride = stride.map_or(u64::MAX, |before| before * 2);
            self.tiles.retain(|(seq, ..)| seq.is_multiple_of(stride));
        }
        Ok(())
    }

    fn finish(&mut self, whole: bool) -> Result<(), String> {
        // Both, whatever becomes of the other: they may lie on different disks.
        let (masks, sheet) = (self.finish_masks(whole), self.write_sheet(whole));
        masks.and(sheet)
    }

    fn finish_masks(&mut self, whole: bool) -> Result<(), String> {
        let (Some(mut lines), Some((dir, _))) = (self.lines.take(), &self.config.masks) else {
            return Ok(());
        };
        match lines.file.flush() {
            Err(e) => Err(lines.put_aside(dir, &unwritten(&e))),
            // Reserved but never written to: there is nothing that the next run would have to spare.
            Ok(()) if !whole && std::fs::metadata(lines.recording.part()).is_ok_and(|m| m.len() == 0) => {
                Ok(())
            }
            Ok(()) if !whole => Err(lines.put_aside(dir, "the masks are not whole")),
            Ok(()) => lines.recording.give_name(true).map(drop).map_err(|e| e.to_string()),
        }
    }

    fn write_sheet(&self, whole: bool) -> Result<(), String> {
        let Some(path) = &self.config.contact_sheet else { return Ok(()) };
        if self.tiles.is_empty() {
            return Ok(());
        }
        let tiles: Vec<Tile<'_>> =
            self.tiles.iter().map(|(_, image, caption)| Tile { image, caption }).collect();
        let sheet = contact_sheet(&tiles, COLUMNS).map_err(|e| e.to_string())?;
        let path = &if whole { path.clone() } else { free_name(&incomplete(path)) };
        whole::write_png(path, &sheet.data, sheet.width, sheet.height, image::ExtendedColorType::Rgb8)
            .map_err(|e| format!("cannot write: {e}: {}", path.display()))
    }
}

fn unwritten(error: &std::io::Error) -> String {
    format!("cannot write the masks: {error}")
}

fn shrink(rgb: Rgb) -> Rgb {
    if rgb.width <= TILE_WIDTH {
        return rgb;
    }
    let height = (rgb.height * TILE_WIDTH / rgb.width).max(1);
    let (width, sides) = (rgb.width, (rgb.width as u32, rgb.height as u32));
    let Some(picture) = image::RgbImage::from_raw(sides.0, sides.1, rgb.data) else {
        return Rgb { width, height: 0, data: Vec::new() };
    };
    let small = image::imageops::thumbnail(&picture, TILE_WIDTH as u32, height as u32);
    Rgb { width: TILE_WIDTH, height, data: small.into_raw() }
}

/// A class name as part of a file name.
pub fn file_safe(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_crash_left_of_the_masks_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let names = || {
            let entries = std::fs::read_dir(dir.path()).unwrap();
            let mut names: Vec<_> =
                entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        let config =
            || SidecarConfig { masks: Some((dir.path().to_owned(), MaskFormat::Rle)), ..Default::default() };
        let sidecar = Sidecar::start(config()).unwrap().unwrap();
        let hidden = [".masks.jsonl.part", ".masks.jsonl.sonomask"];
        assert_eq!(names(), hidden, "names that the next run knows");
        let second = Sidecar::start(config()).err().unwrap();
        assert!(second.contains("another run"), "{second}");
        assert_eq!(sidecar.end(true), SidecarEnd::default());
        assert_eq!(names(), ["masks.jsonl"], "that nothing was found is an answer as well");
        // A process that is killed gives back its locks and removes nothing.
        std::fs::write(dir.path().join(hidden[0]), "a line").unwrap();
        std::fs::write(dir.path().join(hidden[1]), "").unwrap();
        assert_eq!(
            Sidecar::start(config()).unwrap().unwrap().end(false).error,
            None,
            "it has nothing to keep"
        );
        assert_eq!(names(), ["masks.incomplete.jsonl", "masks.jsonl"]);
        assert_eq!(std::fs::read_to_string(dir.path().join("masks.incomplete.jsonl")).unwrap(), "a line");
    }
}
