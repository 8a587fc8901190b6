//! Prompts and mode that change while the video runs: JSON lines from a file, or from the console.
//!
//! A line changes what is asked from its frame on:
//!
//! ```json
//! {"frame": 40, "mode": "assisted", "prompts": [{"class": "nerve", "box": [10, 20, 80, 90]}], "clear": ["vessel"]}
//! ```
//!
//! `frame` counts from 0 and belongs to files only; a line from the console counts from the next frame that the model begins.
//! `prompts` replace those of their class; `clear` takes a class's prompts away. What a line does not name stays.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::prompts::read_mask;
use super::say;
use crate::pipeline::Guide;
use crate::segment::{Guidance, Mode, Point, Prompt, Units};

/// Longest line that is read.
const MAX_LINE: u64 = 1 << 20;
/// Most lines of a file.
const MAX_LINES: usize = 1 << 20;

/// One line.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    frame: Option<u64>,
    mode: Option<Mode>,
    #[serde(default)]
    prompts: Vec<ClassPrompt>,
    #[serde(default)]
    clear: Vec<String>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassPrompt {
    class: String,
    #[serde(default)]
    units: Units,
    #[serde(rename = "box")]
    bbox: Option<[f32; 4]>,
    #[serde(default)]
    points: Vec<ClickedPoint>,
    mask: Option<PathBuf>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ClickedPoint {
    x: f32,
    y: f32,
    #[serde(default = "yes")]
    positive: bool,
}

fn yes() -> bool {
    true
}

/// Applies lines to the guidance in force.
pub struct Script {
    classes: Vec<String>,
    /// Paths of masks are relative to it.
    base: PathBuf,
    learned: bool,
    now: Guidance,
    /// Lines so far.
    utterances: u64,
}

impl Script {
    /// Begins with `now`; `classes` are the run's, `learned` says whether there is a prompt predictor.
    pub fn new(classes: Vec<String>, base: PathBuf, learned: bool, now: Guidance) -> Self {
        Self { classes, base, learned, now, utterances: 0 }
    }

    /// The schedule in a file: the guidance from each frame on.
    ///
    /// # Errors
    /// A file or a line that cannot be read, with its number; frames that do not rise.
    pub fn read(&mut self, file: &Path) -> Result<Vec<(u64, Guidance)>> {
        let shown = file.display();
        let opened = std::fs::File::open(file).with_context(|| format!("cannot open the guide: {shown}"))?;
        let mut lines = BufReader::new(opened);
        let mut schedule: Vec<(u64, Guidance)> = Vec::new();
        for number in 1..=MAX_LINES {
            let Some(line) = next_line(&mut lines).with_context(|| format!("{shown}:{number}"))? else {
                return Ok(schedule);
            };
            if line.trim().is_empty() {
                continue;
            }
            let (next, frame) = self.heard(&line).with_context(|| format!("{shown}:{number}"))?;
            let frame = frame.with_context(|| format!("{shown}:{number}: `frame` is missing"))?;
            if schedule.last().is_some_and(|(last, _)| *last >= frame) {
                bail!(
                    "{shown}:{number}: frame {frame} comes after a later or equal one; expected rising frames"
                );
            }
            self.now = next;
            schedule.push((frame, self.now.clone()));
        }
        bail!("{shown}: more than {MAX_LINES} lines")
    }

    /// What a line makes of the guidance there is now, and the frame it names.
    fn heard(&mut self, line: &str) -> Result<(Guidance, Option<u64>)> {
        let change: Change = serde_json::from_str(line)?;
        if change.mode.is_some_and(Mode::is_learned) && !self.learned {
            bail!("this mode needs a prompt predictor, and the model has none");
        }
        self.utterances += 1;
        let mut next = self.now.clone();
        for name in &change.clear {
            let class = self.class(name)?;
            next.prompts.retain(|p| p.class != class);
        }
        for given in change.prompts {
            let class = self.class(&given.class)?;
            let mask = given.mask.as_deref().map(|f| read_mask(&self.base.join(f))).transpose()?;
            let points = given.points.iter().map(|p| Point { x: p.x, y: p.y, positive: p.positive });
            let prompt = Prompt {
                class,
                units: given.units,
                points: points.collect(),
                bbox: given.bbox,
                mask: mask.map(Arc::new),
                utterance: self.utterances,
            };
            if prompt.points.is_empty() && prompt.bbox.is_none() && prompt.mask.is_none() {
                bail!("the prompt of {:?} has no box, points or mask", given.class);
            }
            next.prompts.retain(|p| p.class != class);
            next.prompts.push(prompt);
        }
        next.mode = change.mode.unwrap_or(next.mode);
        Ok((next, change.frame))
    }

    fn class(&self, name: &str) -> Result<usize> {
        self.classes
            .iter()
            .position(|c| c == name)
            .with_context(|| format!("there is no class {name:?}; there are {}", self.classes.join(", ")))
    }

    /// Follows lines from the console until it closes; a line that cannot be read changes nothing and is named.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn follow(mut self, guide: Arc<Guide>) -> std::io::Result<()> {
        // The thread ends with the process: a read from the console cannot be broken off.
        std::thread::Builder::new().name("control-input".into()).spawn(move || {
            let mut lines = BufReader::new(std::io::stdin());
            loop {
                let applied = match next_line(&mut lines) {
                    Ok(None) => return,
                    Ok(Some(line)) if line.trim().is_empty() => continue,
                    Ok(Some(line)) => self.heard(&line).and_then(|(next, frame)| {
                        if frame.is_some() {
                            bail!("`frame` is for files; a line given now counts from now");
                        }
                        self.now = next;
                        Ok(())
                    }),
                    // Nothing more will come, or the same error for ever.
                    Err(e) if e.is::<std::io::Error>() => {
                        return say(&format!("control: cannot read on: {e}"));
                    }
                    Err(e) => Err(e),
                };
                match applied {
                    Ok(()) => {
                        tracing::info!("guidance: {}, {} prompts", self.now.mode, self.now.prompts.len());
                        guide.set(self.now.clone());
                    }
                    Err(e) => say(&format!("control: {e:#}")),
                }
            }
        })?;
        Ok(())
    }
}

/// The next line of bounded length; `None` at the end. Of a longer one the rest is passed over.
fn next_line(lines: &mut impl BufRead) -> Result<Option<String>> {
    let mut line = Vec::new();
    let mut too_long = false;
    loop {
        line.clear();
        lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
        if (line.len() as u64) < MAX_LINE || line.last() == Some(&b'\n') {
            break;
        }
        too_long = true;
    }
    if too_long {
        bail!("the line is longer than {MAX_LINE} bytes");
    }
    if line.is_empty() {
        Ok(None)
    } else {
        Ok(Some(String::from_utf8(line).context("the line is not UTF-8")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(learned: bool) -> Script {
        Script::new(vec!["nerve".into(), "vessel".into()], PathBuf::new(), learned, Guidance::default())
    }

    fn schedule(text: &str, learned: bool) -> Result<Vec<(u64, Guidance)>> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("g.jsonl");
        std::fs::write(&file, text).unwrap();
        script(learned).read(&file)
    }

    #[test]
    fn the_rest_of_a_line_that_is_too_long_is_no_line() {
        let long = "x".repeat(2 * MAX_LINE as usize + 7);
        let text = format!("first\n{long}\nlast");
        let mut lines = text.as_bytes();
        let mut next = || next_line(&mut lines);
        assert_eq!(next().unwrap().as_deref(), Some("first\n"));
        assert!(next().unwrap_err().to_string().contains("longer than"));
        assert_eq!(next().unwrap().as_deref(), Some("last"));
        assert_eq!(next().unwrap(), None);
    }

    #[test]
    fn lines_add_up() {
        let text = r#"{"frame": 3, "prompts": [{"class": "vessel", "box": [1, 2, 3, 4]}]}

{"frame": 8, "mode": "autonomous"}
{"frame": 9, "mode": "assisted", "clear": ["vessel"], "prompts": [{"class": "nerve", "points": [{"x": 5, "y": 6}]}]}
"#;
        let found = schedule(text, true).unwrap();
        assert_eq!(found.iter().map(|(f, _)| *f).collect::<Vec<_>>(), [3, 8, 9]);
        assert_eq!((found[0].1.mode, found[0].1.prompts[0].class), (Mode::Manual, 1));
        assert_eq!((found[1].1.mode, found[1].1.prompts.len()), (Mode::Autonomous, 1));
        assert_eq!((found[2].1.mode, found[2].1.prompts[0].class), (Mode::Assisted, 0));
        assert!(found[2].1.prompts[0].points[0].positive);
    }

    #[test]
    fn what_cannot_be_done_is_named_with_its_line() {
        for (text, said) in [
            ("{\"frame\": 1}\n{}", ":2: `frame` is missing"),
            ("{\"frame\": 1}\n{\"frame\": 1}", "expected rising frames"),
            ("{\"frame\": 1, \"mode\": \"assisted\"}", "needs a prompt predictor"),
            ("{\"frame\": 1, \"mode\": \"magic\"}", "unknown variant"),
            ("{\"frame\": 1, \"clear\": [\"bone\"]}", "there is no class \"bone\"; there are nerve, vessel"),
            ("{\"frame\": 1, \"prompts\": [{\"class\": \"nerve\"}]}", "no box, points or mask"),
            ("{\"frame\": 1, \"prompt\": []}", "unknown field"),
        ] {
            let error = format!("{:#}", schedule(text, false).unwrap_err());
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
