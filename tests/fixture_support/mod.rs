//! The reference implementations' answers, as files, and how an answer of ours is compared with them.
//!
//! A tensor is stored as `<key>.stats` (mean, population deviation, minimum, maximum, mean magnitude, L2 norm), its values
//! as `<key>.full` or, for 4096 or 1024 elements at indices fixed by a rule, `<key>.sub`, and the signs of all its
//! elements as `<key>.signbits`. Names without such an ending are raw tensors.
#![allow(dead_code, reason = "every test file uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::HashMap;
use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use sonomask::weights::{DEFAULT_SEED, Generated};
use tch::{Kind, Tensor};

/// Largest error of encoder outputs, relative to the largest magnitude of the tensor.
pub const ENCODER: f64 = 1e-3;
/// The same for mask logits.
pub const LOGITS: f64 = 2e-3;
/// Signs must be equal where a logit is at least this far from zero.
pub const SIGN_MARGIN: f64 = 1e-2;

/// The repository's own answers.
pub fn own_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The folder of the fixtures: `SONOMASK_FIXTURES`, else what is in the repository.
pub fn folder() -> PathBuf {
    std::env::var_os("SONOMASK_FIXTURES").map_or_else(own_folder, PathBuf::from)
}

/// A picture of fractions `[1, 3, h, w]` as the official `SAM2Transforms` prepares it: antialiased, normalised.
pub fn sam2_input(picture: &Tensor, side: i64) -> Tensor {
    let x = picture.internal_upsample_bilinear2d_aa([side, side], false, None, None);
    let channels = |v: [f32; 3]| Tensor::from_slice(&v).view([1, 3, 1, 1]);
    (x - channels([0.485, 0.456, 0.406])) / channels([0.229, 0.224, 0.225])
}

/// One file of answers.
pub struct Fixture {
    pub name: String,
    folder: PathBuf,
    bytes: Vec<u8>,
    shapes: HashMap<String, Vec<i64>>,
    pub metadata: HashMap<String, String>,
    pub seed: u64,
}

impl Fixture {
    /// Opens `<folder>/<name>.safetensors`, the repository's where the folder lacks it: a set of answers of somebody else need
    /// not have what our scripts make.
    pub fn open(name: &str) -> Self {
        let there = folder().join(format!("{name}.safetensors")).is_file();
        if !there {
            println!("{name}: the repository's own answers");
        }
        Self::open_in(if there { folder() } else { own_folder() }, name)
    }

    /// Opens a file of the repository, whatever set of answers is tested.
    pub fn own(name: &str) -> Self {
        Self::open_in(own_folder(), name)
    }

    /// Opens the file `name` of the same set, for answers that refer to one another.
    pub fn beside(&self, name: &str) -> Self {
        Self::open_in(self.folder.clone(), name)
    }

    fn open_in(folder: PathBuf, name: &str) -> Self {
        let path = folder.join(format!("{name}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap_or_default();
        let shapes =
            metadata.iter().filter_map(|(k, v)| Some((k.clone(), serde_json::from_str(v).ok()?))).collect();
        let seed = metadata.get("seed").map_or(DEFAULT_SEED, |s| {
            u64::from_str_radix(s.trim_start_matches("0x"), 16).expect("the seed is hexadecimal")
        });
        Self { name: name.to_owned(), folder, bytes, shapes, metadata, seed }
    }

    /// The generator of the weights and inputs that the answers were made with.
    pub fn generated(&self) -> Generated {
        Generated::new(self.seed)
    }

    /// A synthetic input: values of the generator under the name `tag`, times `scale`.
    pub fn input(&self, tag: &str, shape: &[i64], scale: f32) -> Tensor {
        let n = shape.iter().product::<i64>() as usize;
        Tensor::from_slice(&self.generated().unit(tag, n)).view(shape) * f64::from(scale)
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    /// Names of all stored tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.tensors().names().into_iter().map(|n| n.to_string()).collect();
        names.sort();
        names
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    /// Whether there is an answer under `key`.
    pub fn answers(&self, key: &str) -> bool {
        self.has(&format!("{key}.stats"))
    }

    /// A stored tensor as it is.
    pub fn raw(&self, name: &str) -> Tensor {
        let tensors = self.tensors();
        let view = tensors.tensor(name).unwrap_or_else(|_| panic!("{} lacks {name}", self.name));
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::F64 => Kind::Double,
            Dtype::I64 => Kind::Int64,
            Dtype::I32 => Kind::Int,
            Dtype::U8 => Kind::Uint8,
            other => panic!("{name} is {other:?}"),
        };
        let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
        Tensor::from_data_size(view.data(), &shape, kind)
    }

    /// A stored tensor's values, in row-major order.
    pub fn values(&self, name: &str) -> Vec<f64> {
        Vec::try_from(self.raw(name).to_kind(Kind::Double).view(-1)).unwrap()
    }

    /// Shape of the answer under `key`.
    pub fn shape(&self, key: &str) -> Vec<i64> {
        self.shapes.get(key).unwrap_or_else(|| panic!("{} lacks the shape of {key}", self.name)).clone()
    }

    /// Prints our error of `key` relative to the tensor's largest magnitude and fails above `bar`. Values, deviation and
    /// norm all count, so that elements that are not stored do too.
    pub fn check(&self, key: &str, ours: &Tensor, bar: f64) {
        assert_eq!(ours.size(), self.shape(key), "{}: shape of {key}", self.name);
        let ours = Vec::<f64>::try_from(ours.to_kind(Kind::Double).contiguous().view(-1)).unwrap();
        let stats = self.values(&format!("{key}.stats"));
        let largest = stats[2].abs().max(stats[3].abs());
        let theirs = format!("{key}.full");
        let difference = if self.has(&theirs) {
            largest_difference(&ours, &self.values(&theirs))
        } else {
            let theirs = self.values(&format!("{key}.sub"));
            let picked: Vec<f64> =
                sub_indices(ours.len(), theirs.len()).into_iter().map(|i| ours[i]).collect();
            largest_difference(&picked, &theirs)
        };
        let error = difference / largest.max(f64::MIN_POSITIVE);
        let n = ours.len() as f64;
        let mean = ours.iter().sum::<f64>() / n;
        let deviation = (ours.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
        let magnitude = ours.iter().map(|v| v.abs()).sum::<f64>() / n;
        let norm = ours.iter().map(|v| v * v).sum::<f64>().sqrt();
        let statistics = [
            (mean - stats[0]).abs() / largest,
            (deviation - stats[1]).abs() / largest,
            (magnitude - stats[4]).abs() / largest,
            (norm - stats[5]).abs() / stats[5].max(f64::MIN_POSITIVE),
        ];
        let statistic = statistics.into_iter().fold(0.0, f64::max);
        println!("{:<24} {key:<32} error {error:.2e}  statistics {statistic:.2e}", self.name);
        assert!(
            error <= bar,
            "{} {key}: error {error:.3e} of the largest magnitude, bar {bar:.0e}",
            self.name
        );
        assert!(statistic <= bar, "{} {key}: statistics off by {statistics:?}, bar {bar:.0e}", self.name);
    }

    /// A raw tensor compared element by element, with the same measure.
    pub fn check_raw(&self, key: &str, ours: &Tensor, bar: f64) {
        let theirs = self.raw(key);
        assert_eq!(ours.size(), theirs.size(), "{}: shape of {key}", self.name);
        let ours = Vec::<f64>::try_from(ours.to_kind(Kind::Double).contiguous().view(-1)).unwrap();
        let theirs = self.values(key);
        let largest = theirs.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
        let error = largest_difference(&ours, &theirs) / largest;
        println!("{:<24} {key:<32} error {error:.2e}", self.name);
        assert!(
            error <= bar,
            "{} {key}: error {error:.3e} of the largest magnitude, bar {bar:.0e}",
            self.name
        );
    }

    /// Signs of every element; where the stored bits differ, our value must be within [`SIGN_MARGIN`] of zero.
    /// Does nothing for an answer whose signs are not stored.
    pub fn check_signs(&self, key: &str, ours: &Tensor) {
        let name = format!("{key}.signbits");
        if !self.has(&name) {
            return;
        }
        let bits = Vec::<u8>::try_from(self.raw(&name).view(-1)).unwrap();
        let ours = Vec::<f64>::try_from(ours.to_kind(Kind::Double).contiguous().view(-1)).unwrap();
        assert_eq!(bits.len(), ours.len().div_ceil(8), "{} {key}: number of signs", self.name);
        let (mut near, mut wrong, mut inside) = (0, 0, 0);
        for (i, v) in ours.iter().enumerate() {
            let theirs = bits[i / 8] >> (i % 8) & 1 == 1;
            inside += usize::from(theirs);
            if (*v > 0.0) != theirs {
                if v.abs() < SIGN_MARGIN { near += 1 } else { wrong += 1 }
            }
        }
        println!(
            "{:<24} {key:<32} signs: {wrong} of {} wrong, {near} within the margin, {inside} inside",
            self.name,
            ours.len()
        );
        assert_eq!(wrong, 0, "{} {key}: signs outside |logit| < {SIGN_MARGIN}", self.name);
    }

    /// Values and signs of mask logits.
    pub fn check_logits(&self, key: &str, ours: &Tensor) {
        self.check(key, ours, LOGITS);
        self.check_signs(key, ours);
    }
}

fn largest_difference(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    // `max` would pass over NaN.
    ours.iter()
        .zip(theirs)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |m, d| if d > m || d.is_nan() { d } else { m })
}

/// The `k` indices at which a tensor of `n` elements is stored.
pub fn sub_indices(n: usize, k: usize) -> Vec<usize> {
    let (n, k) = (n as u64, k as u64);
    (0..k)
        .map(|j| {
            let mut z = (j + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            z ^= z >> 30;
            z = z.wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z ^= z >> 27;
            z = z.wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            (j * n / k + z % (n / k)) as usize
        })
        .collect()
}

#[test]
fn the_index_rule_is_the_files() {
    let indices = sub_indices(1_048_576, 4096);
    assert_eq!(indices[..5], [175, 500, 591, 1004, 1179]);
    assert_eq!(indices.last(), Some(&1_048_400));
}
