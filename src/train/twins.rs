//! One picture under two names, learned from under one and held out under the other.

use std::collections::BTreeMap;

/// Pairs that a message has at most; the rest is counted.
const SHOWN: usize = 5;

/// Pictures by what their files hold, to find those that are learned from and held out.
#[derive(Debug, Default)]
pub struct Twins(BTreeMap<[u8; 32], Vec<(String, bool)>>);

impl Twins {
    /// A picture with the SHA-256 of its file.
    pub fn add(&mut self, image: [u8; 32], name: &str, held_out: bool) {
        self.0.entry(image).or_default().push((name.to_owned(), held_out));
    }

    /// Names in pairs, the held-out one first.
    fn pairs(&self) -> Vec<[&str; 2]> {
        let mut pairs = Vec::new();
        for same in self.0.values() {
            let (held, learned): (Vec<_>, Vec<_>) = same.iter().partition(|(_, held_out)| *held_out);
            for (held, _) in &held {
                pairs.extend(learned.iter().map(|(learned, _)| [held.as_str(), learned.as_str()]));
            }
        }
        pairs
    }

    /// What is measured on a picture that was learned from says nothing. It is said and not refused: two data sets may label
    /// one picture for other structures, and one pair among hundreds (usgra-seg has one) moves no mean.
    pub fn warn(&self) {
        let pairs = self.pairs();
        if pairs.is_empty() {
            return;
        }
        let shown: Vec<String> = pairs.iter().take(SHOWN).map(|pair| pair.join(" and ")).collect();
        tracing::warn!(
            "{} pairs of a held-out picture and the same one to learn from, under another name, which makes what is measured \
             better than it is: {}{}",
            pairs.len(),
            shown.join(", "),
            if pairs.len() > SHOWN { ", ..." } else { "" }
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_both_sides_is_a_pair() {
        let mut twins = Twins::default();
        for (image, name, held_out) in [
            (1, "a", true),
            (1, "b", false),
            (1, "c", false),
            (2, "d", true),
            (2, "e", true),
            (3, "f", false),
            (4, "g", true),
        ] {
            twins.add([image; 32], name, held_out);
        }
        assert_eq!(twins.pairs(), [["a", "b"], ["a", "c"]]);
    }
}
