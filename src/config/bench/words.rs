//! The words of a benchmark's lists.

use super::MAX_ENTRIES;
use crate::bench::StreamMode;
use crate::config::ConfigError;
use crate::config::read::{Section, number, text};
use crate::config::tree::{Item, Node};
use crate::segment::MAX_INPUT_SIZE;

/// A list with at least one entry; `None` where nothing is said.
pub fn list<T>(
    s: &mut Section<'_>,
    key: &'static str,
    expected: &str,
    one: impl Fn(&Node) -> Option<T>,
) -> Result<Option<Vec<T>>, ConfigError> {
    s.optional(key, expected, |node| match &node.item {
        Item::Array(items) if (1..=MAX_ENTRIES).contains(&items.len()) => items.iter().map(one).collect(),
        _ => None,
    })
}

/// `640x480`.
pub fn size(node: &Node) -> Option<Option<(usize, usize)>> {
    let text = text(node)?;
    let (w, h) = text.split_once('x')?;
    let side = |t: &str| t.parse::<usize>().ok().filter(|n| (64..=4096).contains(n));
    Some(Some((side(w)?, side(h)?)))
}

/// A side of the network's input; 0 is its own.
pub fn side(node: &Node) -> Option<Option<usize>> {
    let side = usize::try_from(node.value().as_integer()?).ok()?;
    (side <= MAX_INPUT_SIZE).then_some(Some(side).filter(|&n| n > 0))
}

/// Frames a second.
pub fn rate(node: &Node) -> Option<f64> {
    number(node).map(f64::from).filter(|r| (0.1..=1000.0).contains(r))
}

/// `true` for an open loop.
pub fn loop_word(node: &Node) -> Option<bool> {
    match text(node)?.as_str() {
        "closed" => Some(false),
        "open" => Some(true),
        _ => None,
    }
}

/// What gives way.
pub fn stream(node: &Node) -> Option<StreamMode> {
    let word = text(node)?;
    StreamMode::ALL.into_iter().find(|mode| mode.name() == word)
}

/// A box in fractions of the picture.
pub fn fractions(node: &Node) -> Option<[f32; 4]> {
    let Item::Array(items) = &node.item else { return None };
    let numbers: Vec<f32> = items.iter().map(number).collect::<Option<_>>()?;
    let [x0, y0, x1, y1] = numbers.try_into().ok()?;
    let inside = [x0, y0, x1, y1].iter().all(|v| (0.0..=1.0).contains(v));
    (inside && x0 < x1 && y0 < y1).then_some([x0, y0, x1, y1])
}
