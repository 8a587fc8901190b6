//! Where a network's tensors come from: a file, a file over another, a rule, or nowhere.

use std::collections::BTreeMap;
use std::fmt;

use tch::{Device, Kind, Tensor};

use super::checkpoint::Checkpoint;
use super::tensor_info::TensorInfo;
use super::view::WeightsError;

/// Tensors by name, on the CPU and contiguous.
pub trait Source: fmt::Debug {
    /// The tensor `name` as `f32`, which must be of `shape`.
    ///
    /// # Errors
    /// A missing name, another shape, a type that is not floating-point.
    fn read(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError>;

    /// Shape of the tensor `name`, if the source knows of it. Tells optional parts, such as LoRA and its rank.
    fn shape(&self, name: &str) -> Option<Vec<i64>>;

    /// Every name the source knows of.
    fn names(&self) -> Vec<String>;
}

impl Source for Checkpoint {
    fn read(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        let expected = shape.to_vec();
        let (Some(TensorInfo { dtype, shape: found, .. }), Some(tensor)) =
            (self.info(name), self.tensor(name))
        else {
            return Err(WeightsError::Missing { name: name.to_owned(), expected });
        };
        if !found.iter().map(|&d| d as i64).eq(shape.iter().copied()) {
            return Err(WeightsError::Shape { name: name.to_owned(), expected, found: found.clone() });
        }
        if !dtype.is_float() {
            return Err(WeightsError::Dtype { name: name.to_owned(), found: *dtype });
        }
        Ok(tensor?.f_to_kind(Kind::Float)?)
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        Some(self.info(name)?.shape.iter().map(|&d| d as i64).collect())
    }

    fn names(&self) -> Vec<String> {
        self.tensors().map(|(name, _)| name.to_owned()).collect()
    }
}

/// One source over another: a name in `top` hides the same name in `base`.
#[derive(Debug)]
pub struct Layered<'a> {
    /// Asked first, for instance a trained prompt predictor with its tuned decoder.
    pub top: &'a dyn Source,
    /// Asked for the rest, for instance the published SAM.
    pub base: &'a dyn Source,
}

impl Source for Layered<'_> {
    fn read(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        let of = if self.top.shape(name).is_some() { self.top } else { self.base };
        of.read(name, shape)
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.top.shape(name).or_else(|| self.base.shape(name))
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.top.names();
        names.extend(self.base.names());
        names.sort();
        names.dedup();
        names
    }
}

/// Zeros of any shape that take no memory: what a network asks for can be listed without its weights.
#[derive(Debug)]
pub struct Blank;

impl Source for Blank {
    fn read(&self, _name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        Ok(Tensor::f_zeros([1], (Kind::Float, Device::Cpu))?.f_expand(shape, false)?)
    }

    fn shape(&self, _name: &str) -> Option<Vec<i64>> {
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Weights made from a rule: every value is a function of the tensor's name and of its index, so that two programs
/// can have the same network without a file. For parity and for timing; such a network segments nothing.
///
/// The rule ("refgen v1"): a counter-based generator (SplitMix64's finaliser over the FNV-1a hash of the name, xor the seed) gives a
/// uniform value in `[-1, 1)` with 24 bits, which is scaled by the kind of the tensor such that attention is neither
/// uniform nor saturated.
#[derive(Clone, Debug)]
pub struct Generated {
    seed: u64,
    /// Optional tensors that exist, by name.
    optional: BTreeMap<String, Vec<i64>>,
}

/// Seed of the reference fixtures.
pub const DEFAULT_SEED: u64 = 0x5AD2_0001_C0FF_EE11;

const GOLD: u64 = 0x9E37_79B9_7F4A_7C15;

impl Generated {
    /// The weights of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, optional: BTreeMap::new() }
    }

    /// With optional tensors (LoRA, adapters) that otherwise are not there.
    #[must_use]
    pub fn with(mut self, optional: impl IntoIterator<Item = (String, Vec<i64>)>) -> Self {
        self.optional.extend(optional);
        self
    }

    /// `n` values in `[-1, 1)`, multiples of 2^-23.
    pub fn unit(&self, name: &str, n: usize) -> Vec<f32> {
        let base = fnv1a(name) ^ self.seed;
        (1..=n as u64)
            .map(|i| {
                let z = finalise(base.wrapping_add(i.wrapping_mul(GOLD)));
                (z >> 40) as f32 * (1.0 / 8_388_608.0) - 1.0
            })
            .collect()
    }

    /// The values of the parameter `name`.
    pub fn values(&self, name: &str, shape: &[i64]) -> Vec<f32> {
        let n = shape.iter().product::<i64>();
        let (offset, scale) = rule(name, shape);
        let mut values = self.unit(name, usize::try_from(n).unwrap_or(0));
        for v in &mut values {
            *v *= scale;
            if offset != 0.0 {
                *v += offset;
            }
        }
        values
    }
}

impl Source for Generated {
    fn read(&self, name: &str, shape: &[i64]) -> Result<Tensor, WeightsError> {
        Ok(Tensor::f_from_slice(&self.values(name, shape))?.f_reshape(shape)?)
    }

    fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.optional.get(name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.optional.keys().cloned().collect()
    }
}

/// Fowler, Noll and Vo's hash of 64 bits: the same on every machine and with every version of Rust.
pub fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3))
}

fn finalise(mut z: u64) -> u64 {
    z ^= z >> 30;
    z = z.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^= z >> 27;
    z = z.wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Offset and scale of a parameter; the first rule that fits.
fn rule(name: &str, shape: &[i64]) -> (f32, f32) {
    const EMBEDDINGS: [&str; 5] = [
        "iou_token.weight",
        "mask_tokens.weight",
        "obj_score_token.weight",
        "not_a_point_embed.weight",
        "no_mask_embed.weight",
    ];
    const TRANSPOSED: [&str; 2] = ["output_upscaling.0.weight", "output_upscaling.3.weight"];
    const GAINS: [(&str, f64); 8] = [
        ("obj_ptr_proj.layers.2", 3.0),
        ("memory_encoder.out_proj", 0.5),
        ("patch_embed.", 3.0),
        ("attn.qkv.weight", 2.0),
        ("attn.proj.weight", 0.5),
        ("q_proj.weight", 2.0),
        ("k_proj.weight", 2.0),
        ("output_hypernetworks_mlps", 1.5),
    ];
    let ends = |suffix: &str| name.ends_with(suffix);
    let flat = shape.len() == 1;
    if ends("pred_obj_score_head.layers.2.bias") {
        (2.0, 0.05)
    } else if ends("positional_encoding_gaussian_matrix") {
        (0.0, 3f64.sqrt() as f32)
    } else if EMBEDDINGS.iter().any(|e| ends(e)) || name.contains(".point_embeddings.") {
        (0.0, 1.0)
    } else if ends(".running_var") {
        (1.0, 0.1)
    } else if ends(".running_mean") {
        (0.0, 0.05)
    } else if flat && ends(".gamma") {
        (0.5, 0.1)
    } else if flat && ends(".weight") {
        (1.0, 0.1)
    } else if ends(".bias") {
        (0.0, 0.05)
    } else if ends(".weight") && matches!(shape.len(), 2 | 4) {
        let fan_in =
            if TRANSPOSED.iter().any(|t| ends(t)) { shape[0] } else { shape[1..].iter().product::<i64>() };
        let gain = GAINS.iter().find(|(part, _)| name.contains(part)).map_or(1.0, |&(_, gain)| gain);
        (0.0, (gain * (3.0 / fan_in as f64).sqrt()) as f32)
    } else {
        (0.0, 0.5)
    }
}

#[cfg(test)]
// The digits are the reference's; the nearest f32 is what is compared.
#[allow(clippy::excessive_precision)]
mod tests {
    use super::*;

    /// Name, shape, hash, first three values and the last, computed by an implementation in another language.
    #[test]
    fn golden_values() {
        type Row = (&'static str, &'static [i64], u64, [f32; 3], f32);
        let rows: [Row; 6] = [
            (
                "image_encoder.trunk.pos_embed",
                &[1, 96, 7, 7],
                0x43ef_09ab_5a4f_d2ef,
                [0.001_490_890_98, -0.253_547_549, 0.005_946_040_15],
                -0.059_268_713,
            ),
            (
                "image_encoder.trunk.patch_embed.proj.weight",
                &[96, 3, 7, 7],
                0xfe6f_ef52_26d7_af02,
                [-0.100_714_959, 0.400_964_916, 0.421_704_531],
                0.366_822_988,
            ),
            (
                "image_encoder.trunk.blocks.0.norm1.weight",
                &[96],
                0x39c5_b5d6_fbcf_d488,
                [1.010_255_34, 0.926_912_546, 0.984_993_994],
                1.095_364_69,
            ),
            (
                "sam_mask_decoder.output_upscaling.0.weight",
                &[256, 64, 2, 2],
                0xe1ec_77cd_8da1_020c,
                [0.038_939_192_9, -0.084_376_327_7, 0.097_066_529_1],
                -0.081_131_786_1,
            ),
            (
                "memory_encoder.fuser.layers.0.gamma",
                &[256],
                0x289e_d1b9_5144_f8e7,
                [0.420_953_095, 0.439_849_764, 0.575_526_893],
                0.408_113_807,
            ),
            (
                "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
                &[2, 128],
                0xbb7e_d212_ba1f_2da9,
                [-1.200_503_71, -1.662_062_41, 0.562_269_926],
                0.131_053_135,
            ),
        ];
        let generated = Generated::new(DEFAULT_SEED);
        for (name, shape, hash, first, last) in rows {
            assert_eq!(fnv1a(name), hash, "{name}");
            let values = generated.values(name, shape);
            assert_eq!(values[..3], first, "{name}");
            assert_eq!(values.last(), Some(&last), "{name}");
        }
    }

    #[test]
    fn another_seed_gives_other_weights() {
        let of = |seed| Generated::new(seed).values("a.weight", &[4]);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn the_top_layer_hides_the_base() {
        let (top, base) = (Generated::new(1).with([("a.bias".to_owned(), vec![2])]), Generated::new(2));
        let layered = Layered { top: &top, base: &base };
        let values =
            |source: &dyn Source, name| Vec::<f32>::try_from(source.read(name, &[2]).unwrap()).unwrap();
        assert_eq!(values(&layered, "a.bias"), values(&top, "a.bias"));
        assert_eq!(values(&layered, "b.bias"), values(&base, "b.bias"));
        assert_eq!(layered.shape("a.bias"), Some(vec![2]));
        assert_eq!(layered.shape("b.bias"), None);
    }

    #[test]
    fn blank_tensors_take_no_memory() {
        let huge = Blank.read("x", &[1 << 20, 1 << 20]).unwrap();
        assert_eq!(huge.size(), [1 << 20, 1 << 20]);
    }
}
