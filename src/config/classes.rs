//! `[[classes]]`: what is to be found, in which colour, and the prompts that say where.

use std::path::PathBuf;

use super::read::{Log, Section, number, text, wrong};
use super::tree::{Item, Node};
use super::{ConfigError, Origin};
use crate::overlay::ClassStyle;
use crate::segment::{Point, Units};

/// Most classes in one run; each costs a pass of the decoder.
const MAX_CLASSES: usize = 32;
/// Most points of one class.
const MAX_POINTS: usize = 256;

/// One class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassConfig {
    /// Name in labels, reports and file names; unique.
    pub name: String,
    /// R, G, B.
    pub color: [u8; 3],
    /// Unit of `bbox` and `points`.
    pub units: Units,
    /// `x0, y0, x1, y1` with `x0 < x1` and `y0 < y1`.
    pub bbox: Option<[f32; 4]>,
    /// Clicks.
    pub points: Vec<Point>,
    /// PNG with the rough mask, non-zero inside.
    pub mask_prompt: Option<PathBuf>,
    /// Where it stands.
    pub at: Origin,
}

impl ClassConfig {
    /// A class that is only a name, in the `index`-th colour.
    pub fn plain(name: &str, index: usize, at: Origin) -> Self {
        Self {
            name: name.to_owned(),
            color: ClassStyle::palette(index),
            units: Units::Px,
            bbox: None,
            points: Vec::new(),
            mask_prompt: None,
            at,
        }
    }

    /// Whether anything says where the class is.
    pub fn has_prompt(&self) -> bool {
        self.bbox.is_some() || !self.points.is_empty() || self.mask_prompt.is_some()
    }

    pub(super) fn read_all(node: Option<Node>, log: &mut Log) -> Result<Vec<Self>, ConfigError> {
        let Some(node) = node else { return Ok(Vec::new()) };
        let Item::Array(items) = node.item else {
            return Err(wrong("classes", &node, "[[classes]] tables".to_owned()));
        };
        if items.len() > MAX_CLASSES {
            let found = format!("{} classes", items.len());
            let expected = format!("at most {MAX_CLASSES}");
            return Err(ConfigError::Value { key: "classes".to_owned(), found, expected, at: node.at });
        }
        let mut classes: Vec<Self> = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let class = Self::read(index, item, log)?;
            if let Some(first) = classes.iter().find(|c| c.name == class.name) {
                let what =
                    format!("two classes are named {:?}; every class needs a name of its own", class.name);
                return Err(ConfigError::Combination { what, at: vec![first.at.clone(), class.at] });
            }
            classes.push(class);
        }
        Ok(classes)
    }

    fn read(index: usize, node: Node, log: &mut Log) -> Result<Self, ConfigError> {
        let mut s = Section::new(&format!("classes[{index}]"), Some(node), log)?;
        let at = s.at().clone();
        let name =
            s.optional("name", "1 to 64 characters without / and \\", |n| text(n).filter(|t| is_name(t)))?;
        let Some(name) = name else {
            let (key, found) = (format!("classes[{index}].name"), "nothing".to_owned());
            return Err(ConfigError::Value { key, found, expected: "a name".to_owned(), at });
        };
        let color = s.optional("color", "a colour like \"#ffcc00\"", |n| color(&text(n)?))?;
        let units = s.choice("units", Units::Px, &[("px", Units::Px), ("fraction", Units::Fraction)])?;
        let (limit, unit) = match units {
            Units::Px => (32_768.0, "pixels"),
            Units::Fraction => (1.0, "fractions of the frame, 0 to 1"),
        };
        let coordinate = |v: f32| (0.0..=limit).contains(&v).then_some(v);
        let bbox =
            s.optional("box", &format!("[x0, y0, x1, y1] in {unit}, with x0 < x1 and y0 < y1"), |n| {
                let Item::Array(items) = &n.item else { return None };
                let v: Vec<f32> =
                    items.iter().map(|i| number(i).and_then(coordinate)).collect::<Option<_>>()?;
                let [x0, y0, x1, y1] = v.try_into().ok()?;
                (x0 < x1 && y0 < y1).then_some([x0, y0, x1, y1])
            })?;
        let points = s.optional(
            "points",
            &format!("at most {MAX_POINTS} of {{ x = ..., y = ..., positive = true }} in {unit}"),
            |n| points(n, coordinate),
        )?;
        let mask_prompt = s.path_opt("mask_prompt")?;
        s.finish()?;
        Ok(Self {
            name,
            color: color.unwrap_or_else(|| ClassStyle::palette(index)),
            units,
            bbox,
            points: points.unwrap_or_default(),
            mask_prompt,
            at,
        })
    }
}

fn is_name(text: &str) -> bool {
    let n = text.chars().count();
    (1..=64).contains(&n)
        && !text.chars().any(|c| c.is_control() || c == '/' || c == '\\')
        && text != "."
        && text != ".."
}

fn points(node: &Node, coordinate: impl Fn(f32) -> Option<f32>) -> Option<Vec<Point>> {
    let Item::Array(items) = &node.item else { return None };
    if items.len() > MAX_POINTS {
        return None;
    }
    let point = |item: &Node| {
        let Item::Table(t) = &item.item else { return None };
        if t.keys().any(|k| !["x", "y", "positive"].contains(&k.as_str())) {
            return None;
        }
        let at = |key: &str| number(t.get(key)?).and_then(&coordinate);
        let positive = match t.get("positive") {
            Some(p) => p.value().as_bool()?,
            None => true,
        };
        Some(Point { x: at("x")?, y: at("y")?, positive })
    };
    items.iter().map(point).collect()
}

fn color(text: &str) -> Option<[u8; 3]> {
    let hex = text.strip_prefix('#').filter(|h| h.len() == 6 && h.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let v = u32::from_str_radix(hex, 16).ok()?;
    Some([(v >> 16) as u8, (v >> 8) as u8, v as u8])
}
