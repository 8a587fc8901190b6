//! Prompts on the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::guide::Script;
use anyhow::{Context, Result, bail};

use crate::config::{ClassConfig, Origin};
use crate::mask::Mask;
use crate::pipeline::Guide;
use crate::segment::{Guidance, Mode, Point, Prompt};

/// Class that prompts without a name belong to.
const UNNAMED: &str = "object";

/// Far beyond any picture.
const MAX_COORDINATE: f32 = 32_768.0;

/// Where to look for what. `NAME=` puts a prompt to a class; without it the class is `object`, and each further box
/// is a class of its own (`object2`, `object3`, ...).
#[derive(Clone, Debug, Default, clap::Args)]
pub struct PromptArgs {
    /// A box around the structure, in pixels: [NAME=]x0,y0,x1,y1
    #[arg(long = "box", value_name = "[NAME=]X0,Y0,X1,Y1", allow_hyphen_values = true)]
    pub boxes: Vec<String>,
    /// A click, in pixels, on the structure (+) or beside it (-): [NAME=]x,y,+ or [NAME=]x,y,-
    #[arg(long = "point", value_name = "[NAME=]X,Y,+|-", allow_hyphen_values = true)]
    pub points: Vec<String>,
    /// A rough mask: a picture of the frame's size, black outside and anything else inside: [NAME=]FILE
    #[arg(long, value_name = "[NAME=]PNG")]
    pub mask_prompt: Vec<String>,
    /// Change prompts and mode from frame to frame, by this file of JSON lines:
    /// {"frame": 40, "mode": "assisted", "prompts": [{"class": "nerve", "box": [10, 20, 80, 90]}], "clear": ["vessel"]}
    #[arg(long, value_name = "FILE")]
    pub guide: Option<PathBuf>,
    /// Take such lines, without `frame`, from stdin while the stream runs
    #[arg(long)]
    pub control: bool,
}

impl PromptArgs {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.boxes.is_empty() && self.points.is_empty() && self.mask_prompt.is_empty()
    }

    /// What is asked of each frame: the classes' own prompts, then what the file of `--guide` says.
    ///
    /// # Errors
    /// A mask or a guide that cannot be read.
    pub fn guide(&self, classes: &[ClassConfig], learned: &[String], mode: Option<Mode>) -> Result<Guide> {
        let first = guidance_of(classes, learned, mode)?;
        let schedule = match &self.guide {
            Some(file) => {
                let base = file.parent().unwrap_or(Path::new("")).to_owned();
                script(classes, learned, base, first.clone()).read(file)?
            }
            None => Vec::new(),
        };
        Ok(Guide::scheduled(first, schedule))
    }

    /// Lets the console change `guide`.
    ///
    /// # Errors
    /// A mask that cannot be read, a thread that cannot be started.
    pub fn follow(
        &self,
        classes: &[ClassConfig],
        learned: &[String],
        mode: Option<Mode>,
        guide: Arc<Guide>,
    ) -> Result<()> {
        let first = guidance_of(classes, learned, mode)?;
        Ok(script(classes, learned, PathBuf::new(), first).follow(guide)?)
    }

    /// The classes that the prompts speak of, in order of appearance.
    ///
    /// # Errors
    /// A prompt that cannot be read; the message shows it and what was expected.
    pub fn classes(&self) -> Result<Vec<ClassConfig>> {
        let mut found = Vec::new();
        let mut unnamed_boxes = 0;
        for text in &self.boxes {
            let (name, rest) = split_name(text);
            let bbox =
                numbers::<4>(rest).with_context(|| format!("--box {text}: expected [NAME=]x0,y0,x1,y1"))?;
            if bbox[0] >= bbox[2] || bbox[1] >= bbox[3] {
                bail!("--box {text}: the box has no area; expected x0 < x1 and y0 < y1");
            }
            let name = match name {
                Some(name) => name.to_owned(),
                None => {
                    unnamed_boxes += 1;
                    if unnamed_boxes == 1 { UNNAMED.to_owned() } else { format!("{UNNAMED}{unnamed_boxes}") }
                }
            };
            if of(&mut found, &name, "--box").bbox.replace(bbox).is_some() {
                bail!("--box {text}: the class `{name}` has a box already; a class has one box");
            }
        }
        for text in &self.points {
            let (name, rest) = split_name(text);
            let expected = || format!("--point {text}: expected [NAME=]x,y,+ or [NAME=]x,y,-");
            let (xy, sign) = rest.rsplit_once(',').with_context(expected)?;
            let [x, y] = numbers::<2>(xy).with_context(expected)?;
            let positive = match sign.trim() {
                "+" | "1" => true,
                "-" | "0" => false,
                _ => bail!(expected()),
            };
            of(&mut found, name.unwrap_or(UNNAMED), "--point").points.push(Point { x, y, positive });
        }
        for text in &self.mask_prompt {
            let (name, file) = split_name(text);
            let name = name.unwrap_or(UNNAMED);
            let class = of(&mut found, name, "--mask-prompt");
            if class.mask_prompt.replace(PathBuf::from(file)).is_some() {
                bail!("--mask-prompt {text}: the class `{name}` has a mask already; a class has one mask");
            }
        }
        Ok(found)
    }
}

fn of<'a>(classes: &'a mut Vec<ClassConfig>, name: &str, flag: &str) -> &'a mut ClassConfig {
    let index = classes.iter().position(|c| c.name == name).unwrap_or_else(|| {
        classes.push(ClassConfig::plain(name, classes.len(), Origin::Flag(flag.to_owned())));
        classes.len() - 1
    });
    &mut classes[index]
}

fn script(classes: &[ClassConfig], learned: &[String], base: PathBuf, first: Guidance) -> Script {
    Script::new(classes.iter().map(|c| c.name.clone()).collect(), base, !learned.is_empty(), first)
}

/// What `classes` ask of a frame; without a word on the mode, assisted where there is a prompt predictor.
///
/// # Errors
/// A mask that cannot be read.
pub fn guidance_of(classes: &[ClassConfig], learned: &[String], mode: Option<Mode>) -> Result<Guidance> {
    let mode = mode.unwrap_or(if learned.is_empty() { Mode::Manual } else { Mode::Assisted });
    Ok(Guidance { mode, prompts: prompts_of(classes)? })
}

/// The predictor's classes, then those of `given` that it does not know. A class of both keeps its settings, others get colours
/// that no class has.
pub fn with_learned(learned: &[String], mut given: Vec<ClassConfig>) -> Vec<ClassConfig> {
    let mut classes: Vec<ClassConfig> = Vec::with_capacity(learned.len() + given.len());
    let taken: Vec<[u8; 3]> = given.iter().map(|c| c.color).collect();
    for name in learned {
        let known = given.iter().position(|c| c.name == *name).map(|at| given.remove(at));
        let plain = || {
            let at = |index| ClassConfig::plain(name, index, Origin::Flag("the prompt predictor".into()));
            let free =
                |c: &ClassConfig| !taken.contains(&c.color) && classes.iter().all(|o| o.color != c.color);
            // A palette has few colours; when all are taken they begin again.
            (0..learned.len() + taken.len()).map(at).find(free).unwrap_or_else(|| at(classes.len()))
        };
        classes.push(known.unwrap_or_else(plain));
    }
    classes.extend(given);
    classes
}

/// The prompts of those of `classes` that have one, with their mask files read.
///
/// # Errors
/// A mask that cannot be read.
fn prompts_of(classes: &[ClassConfig]) -> Result<Vec<Prompt>> {
    let prompt = |(class, c): (usize, &ClassConfig)| {
        Ok(Prompt {
            class,
            units: c.units,
            points: c.points.clone(),
            bbox: c.bbox,
            mask: c.mask_prompt.as_deref().map(read_mask).transpose()?.map(Arc::new),
            utterance: 0,
        })
    };
    classes.iter().enumerate().filter(|(_, c)| c.has_prompt()).map(prompt).collect()
}

fn split_name(text: &str) -> (Option<&str>, &str) {
    match text.split_once('=') {
        Some((name, rest)) if !name.is_empty() => (Some(name), rest),
        _ => (None, text),
    }
}

fn numbers<const N: usize>(text: &str) -> Result<[f32; N]> {
    let mut out = [0.0; N];
    let mut parts = text.split(',');
    for v in &mut out {
        let part = parts.next().context("too few numbers")?;
        *v = part.trim().parse().with_context(|| format!("`{part}` is not a number"))?;
        if !(0.0..=MAX_COORDINATE).contains(v) {
            bail!("{part} is no pixel of a picture");
        }
    }
    if parts.next().is_some() {
        bail!("too many numbers");
    }
    Ok(out)
}

/// Reads a picture as a mask: black is outside, anything else inside.
///
/// # Errors
/// A file that cannot be read, or without pixels.
pub fn read_mask(file: &Path) -> Result<Mask> {
    let shown = || file.display().to_string();
    let picture = image::ImageReader::open(file)
        .with_context(|| format!("cannot open the mask prompt: {}", shown()))?
        .with_guessed_format()?
        .decode()
        .with_context(|| format!("cannot read the mask prompt: {}", shown()))?
        .into_rgb16();
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    let inside = picture.pixels().map(|p| u8::from(p.0 != [0; 3])).collect();
    Mask::new(w, h, inside).with_context(|| format!("the mask prompt has no pixels: {}", shown()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(boxes: &[&str], points: &[&str]) -> PromptArgs {
        let own = |v: &[&str]| v.iter().map(ToString::to_string).collect();
        PromptArgs { boxes: own(boxes), points: own(points), ..PromptArgs::default() }
    }

    #[test]
    fn names_and_numbers() {
        let classes =
            args(&["1,2,3,4", "lv=5,6,7,8.5", "9,9,10,10"], &["1,1,+", "lv=2,2,-"]).classes().unwrap();
        assert_eq!(classes.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["object", "lv", "object2"]);
        let prompts = prompts_of(&classes).unwrap();
        assert_eq!(prompts[1].bbox, Some([5.0, 6.0, 7.0, 8.5]));
        assert_eq!(prompts[0].points, [Point { x: 1.0, y: 1.0, positive: true }]);
        assert_eq!(prompts[1].points, [Point { x: 2.0, y: 2.0, positive: false }]);
        assert_eq!(prompts.iter().map(|p| p.class).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn what_cannot_be_read_is_shown() {
        for (boxes, points) in [
            (vec!["1,2,3"], vec![]),
            (vec!["1,2,3,4,5"], vec![]),
            (vec!["a,b,c,d"], vec![]),
            (vec![], vec!["1,2"]),
            (vec![], vec!["1,2,x"]),
        ] {
            let e = format!("{:#}", args(&boxes, &points).classes().unwrap_err());
            assert!(e.contains("expected [NAME=]"), "{e}");
        }
        let e = args(&["a=1,2,3,4", "a=1,2,3,4"], &[]).classes().unwrap_err().to_string();
        assert!(e.contains("has a box already"), "{e}");
        let masks = PromptArgs { mask_prompt: vec!["a.png".into(), "b.png".into()], ..PromptArgs::default() };
        let e = masks.classes().unwrap_err().to_string();
        assert!(e.contains("has a mask already"), "{e}");
    }
}
