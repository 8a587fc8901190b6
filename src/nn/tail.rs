//! The last blocks of an image encoder, which can be tuned at a fraction of what the whole encoder costs.

use super::hiera::HieraConfig;
use super::sam1::{Sam1Config, Sam1EncoderConfig};
use crate::weights::Family;

/// How many of a family's last blocks can be run alone, from the fewest to the most, and their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastBlocks {
    fewest: usize,
    /// Names under which the most of them lie in a checkpoint, in their order, each with a dot behind it.
    names: Vec<String>,
}

impl LastBlocks {
    /// Those of `family`. The early features of TinyViT and the finer levels of Hiera must lie before them.
    pub fn of(family: Family) -> Self {
        let named = |count: usize, skip: usize, name: &dyn Fn(usize) -> String| {
            (skip..count).map(|block| format!("image_encoder.{}.", name(block))).collect::<Vec<_>>()
        };
        if let Some(HieraConfig { stages, .. }) = HieraConfig::of(family) {
            let names = named(stages.iter().sum(), stages[0] + stages[1], &|i| format!("trunk.blocks.{i}"));
            return Self { fewest: stages[3], names };
        }
        let names = match Sam1Config::of(family).map(|config| config.encoder) {
            Some(Sam1EncoderConfig::Vit(config)) => named(config.depth, 1, &|i| format!("blocks.{i}")),
            Some(Sam1EncoderConfig::TinyVit(config)) => [2, 3]
                .into_iter()
                .flat_map(|layer| named(config.depths[layer], 0, &|i| format!("layers.{layer}.blocks.{i}")))
                .collect(),
            None => Vec::new(),
        };
        Self { fewest: 1, names }
    }

    /// How many suit a family of which nothing else is known: two, or the last stage of a Hiera.
    pub fn usual(&self) -> usize {
        self.fewest.max(2)
    }

    /// Names of the last `blocks`.
    ///
    /// # Errors
    /// The fewest and the most that there can be, if `blocks` is not between them.
    pub fn last(&self, blocks: usize) -> Result<&[String], (usize, usize)> {
        let most = self.names.len();
        if (self.fewest..=most).contains(&blocks) {
            Ok(self.names.get(most - blocks..).unwrap_or_default())
        } else {
            Err((self.fewest, most))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_the_names_of_their_family() {
        let last = |family, blocks| LastBlocks::of(family).last(blocks).map(|names| names.join(" "));
        let lite = "image_encoder.layers.3.blocks.0. image_encoder.layers.3.blocks.1.";
        assert_eq!(last(Family::LiteMedSam, 2), Ok(lite.to_owned()));
        assert_eq!(last(Family::LiteMedSam, 3), Ok(format!("image_encoder.layers.2.blocks.5. {lite}")));
        assert_eq!(last(Family::LiteMedSam, 9), Err((1, 8)));
        assert_eq!(last(Family::SamVitB, 1), Ok("image_encoder.blocks.11.".to_owned()));
        assert_eq!(last(Family::SamVitB, 12), Err((1, 11)));
        let tiny = "image_encoder.trunk.blocks.10. image_encoder.trunk.blocks.11.";
        assert_eq!(last(Family::Sam21HieraTiny, 2), Ok(tiny.to_owned()));
        assert_eq!(last(Family::Sam21HieraTiny, 1), Err((2, 9)));
        for family in Family::ALL {
            let blocks = LastBlocks::of(family);
            assert!(blocks.last(blocks.usual()).is_ok(), "{family}");
        }
        assert_eq!(LastBlocks::of(Family::Sam21HieraLarge).usual(), 4);
    }
}
