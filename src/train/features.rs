//! What the encoder says of views of pictures: before it is tuned computed once and kept on disk.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tch::{Device, Kind, Tensor};

use super::TrainError;
use super::output::{halved, write_tensors};
use crate::dataset::View;
use crate::frame::Rgb;
use crate::nn::SamFeatures;
use crate::segment::{Sam, Segmenter as _};
use crate::weights::{Checkpoint, Source as _, hex};

/// Goes into every key: files of another form are not found.
const FORM: &str = "features 2";

/// The features of a view of `picture`, with what `blocks` of the encoder's last blocks get.
///
/// # Errors
/// A failure of the network.
pub fn encode(
    sam: &Sam,
    picture: &Rgb,
    view: &View,
    blocks: Option<usize>,
) -> Result<SamFeatures, TrainError> {
    let network = sam.network();
    let picture = view.image(picture);
    let (input, _) = network.manners().preprocess.input(&picture, network.input_size())?;
    Ok(network.encode_to(&input.f_to_device(network.device())?, blocks)?)
}

/// A folder of features. A file's name is the SHA-256 of everything that the features depend on.
#[derive(Debug)]
pub struct FeatureCache {
    dir: PathBuf,
    /// The network's part of the key.
    network: String,
    /// The encoder's last blocks whose input is kept too.
    blocks: Option<usize>,
}

impl FeatureCache {
    /// The features of `sam` in `dir`; with `blocks` also what so many of the encoder's last blocks get, which can then be tuned.
    pub fn new(dir: &Path, sam: &Sam, blocks: Option<usize>) -> Self {
        let info = sam.info();
        let ppn = info.ppn.as_ref();
        // A run that goes on with a predictor finds the features of the run before, unless its file changes them.
        let changed = ppn.filter(|ppn| ppn.changes_features).and_then(|ppn| ppn.sha256.as_deref());
        let sum = changed.map_or_else(String::new, |sum| format!(" {sum}"));
        let ppn = ppn.map_or("", |ppn| ppn.form);
        let cut = blocks.map_or_else(String::new, |blocks| format!(" cut {blocks}"));
        let manners = sam.network().manners();
        let network = format!(
            "{FORM} {} {} {} {:?} {ppn}{sum}{cut}",
            info.weights_sha256, info.input_size, info.precision, manners.preprocess
        );
        Self { dir: dir.to_owned(), network, blocks }
    }

    /// The file of a picture's view.
    pub fn file(&self, picture: &Rgb, view: &View) -> PathBuf {
        let mut hash = Sha256::new();
        hash.update(&self.network);
        hash.update(format!(" {}x{} {view:?} ", picture.width, picture.height));
        hash.update(&picture.data);
        let name = hex(&hash.finalize());
        self.dir.join(&name[..2]).join(format!("{name}.safetensors"))
    }

    /// Encodes a view of `picture` into `file`, with 16 bits a value.
    ///
    /// # Errors
    /// A failure of the network, a file that cannot be written.
    pub fn fill(&self, file: &Path, sam: &Sam, picture: &Rgb, view: &View) -> Result<(), TrainError> {
        let _guard = tch::no_grad_guard();
        let features = encode(sam, picture, view, self.blocks)?;
        let mut tensors = vec![("embedding", &features.embedding)];
        if let Some((s0, s1)) = &features.high_res {
            tensors.extend([("s0", s0), ("s1", s1)]);
        }
        if let Some([before, last]) = &features.levels {
            tensors.extend([("before", before), ("last", last)]);
        }
        tensors.extend(features.early.as_ref().map(|early| ("early", early)));
        tensors.extend(features.cut.as_ref().map(|cut| ("cut", cut)));
        let mut halves = BTreeMap::new();
        for (name, tensor) in tensors {
            let Some(half) = halved(tensor)? else {
                let what =
                    format!("the encoder's {name} has values that 16 bits cannot hold, or none at all");
                return Err(TrainError::Setting(what));
            };
            halves.insert(name.to_owned(), half);
        }
        // A power cut costs what can be encoded again; see `has`.
        write_tensors(file, &halves, HashMap::new(), /* on disk */ false)
    }

    /// Whether `file` is there and whole: a machine that lost its power may have left less.
    pub fn has(&self, file: &Path) -> bool {
        file.is_file() && Checkpoint::open(file).is_ok_and(|found| found.shape("embedding").is_some())
    }

    /// The features in `file`, as `f32` on `device`.
    ///
    /// # Errors
    /// A file that is not there or was damaged.
    pub fn read(&self, file: &Path, device: Device) -> Result<SamFeatures, TrainError> {
        let damaged = |what: String| TrainError::Cache { file: file.to_owned(), what };
        let found = Checkpoint::open(file).map_err(|e| damaged(e.to_string()))?;
        let part = |name: &str| -> Result<Option<Tensor>, TrainError> {
            let Some(shape) = found.shape(name) else { return Ok(None) };
            let tensor = found.read(name, &shape).map_err(|e| damaged(e.to_string()))?;
            if !f64::try_from(tensor.f_sum(Kind::Float)?)?.is_finite() {
                return Err(damaged(format!("{name} has values that are no numbers")));
            }
            Ok(Some(tensor.f_to_device(device)?))
        };
        let embedding = part("embedding")?.ok_or_else(|| damaged("it holds no embedding".into()))?;
        let pair = |a: &str, b: &str| Ok::<_, TrainError>(part(a)?.zip(part(b)?));
        Ok(SamFeatures {
            embedding,
            high_res: pair("s0", "s1")?,
            levels: pair("before", "last")?.map(|(before, last)| [before, last]),
            early: part("early")?,
            cut: part("cut")?,
        })
    }
}
