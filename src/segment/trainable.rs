//! A network that can be trained, from the files that it begins with.

use std::collections::{BTreeMap, BTreeSet};

use tch::Tensor;

use super::device::Resolved;
use super::files::Files;
use super::fresh::{Adapted, Additions, Fresh};
use super::learned::PREFIX;
use super::load::{LoadError, check_cells, side};
use super::network::Network;
use super::sam::Sam;
use super::{ModelInfo, ModelSpec, PpnInfo};
use crate::nn::{self, PpnForm, PromptPredictor};
use crate::weights::{Family, Source as _, Weights, WeightsError};

/// What a predictor is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PredictorPlan {
    /// Which form.
    pub form: PpnForm,
    /// Queries of a class.
    pub tokens: i64,
    /// Names of the data sets, at least one, each with the names of its classes.
    pub datasets: Vec<(String, Vec<String>)>,
}

/// Low rank beside every linear layer of an encoder's last blocks, which is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderLora {
    /// Rank of the factors.
    pub rank: i64,
    /// Blocks, counted from the last, of those that [`LastBlocks`](nn::LastBlocks) allows; 0: its usual ones.
    pub blocks: usize,
}

/// What training begins with, beside the files of a [`ModelSpec`].
pub struct Beginning<'a> {
    /// The predictor.
    pub predictor: PredictorPlan,
    /// What is added to the network.
    pub additions: Additions,
    /// How the encoder is adapted.
    pub encoder: Option<EncoderLora>,
    /// Seed of everything that no file has.
    pub seed: u64,
    /// Which tensors are trained beside the encoder's, by their full names.
    pub trained: &'a dyn Fn(&str) -> bool,
}

/// A network whose chosen tensors ask for gradients.
#[derive(Debug)]
pub struct Trainable {
    /// The network, as it segments.
    pub sam: Sam,
    /// Its family.
    pub family: Family,
    /// The queries of each data set `[K, N, 256]`, in the order they were asked for. The network begins with the first.
    pub queries: Vec<Tensor>,
    /// How many of the encoder's last blocks are adapted.
    pub adapted_blocks: Option<usize>,
    /// The tensors that are trained, by their full names; they share their memory with the network's.
    pub parameters: BTreeMap<String, Tensor>,
    /// Names of those that no file had: what they hold was drawn.
    pub drawn: BTreeSet<String>,
    /// What the file of the predictor that training began with holds beside them; on the CPU.
    pub carried: BTreeMap<String, Tensor>,
    /// What a file that is trained from this one has to say too: how pictures are handled, if not as the family's are, and the
    /// classes of the data sets that are carried.
    pub says: BTreeMap<String, String>,
}

/// Of a predictor that is gone on with each class keeps its queries: they are found by its place. `says` are the file's metadata.
fn check_queries(
    says: &BTreeMap<String, String>,
    datasets: &[(String, Vec<String>)],
) -> Result<(), LoadError> {
    let known = |name: &str| -> Option<Vec<String>> {
        serde_json::from_str(says.get(&format!("classes.{name}"))?).ok()
    };
    let sets: Vec<&str> = says.keys().filter_map(|key| key.strip_prefix("classes.")).collect();
    for (name, classes) in datasets {
        match known(name) {
            Some(known) if known != *classes && known.len() == classes.len() => {
                return Err(LoadError::Setting(format!(
                    "the predictor that is gone on with has the classes {} in its data set {name:?}: expected them in this order, not {}; \
                     a data set of another name begins anew",
                    known.join(", "),
                    classes.join(", ")
                )));
            }
            None if !sets.is_empty() => tracing::warn!(
                "the predictor that is gone on with knows no data set {name:?} (but {}): its queries begin anew",
                sets.join(", ")
            ),
            _ => {}
        }
    }
    Ok(())
}

/// Builds the network of `spec` on `device` for training. Low-rank factors stay apart from their weights.
///
/// # Errors
/// As [`super::load`].
pub fn load_trainable(
    spec: &ModelSpec,
    device: &Resolved,
    beginning: &Beginning<'_>,
) -> Result<Trainable, LoadError> {
    spec.check_on(device)?;
    let files = Files::open(spec)?;
    let family = files.family(spec)?;
    if spec.threads > 0 {
        tch::set_num_threads(i32::try_from(spec.threads).unwrap_or(i32::MAX));
    }
    let base = files.source();
    let last = nn::LastBlocks::of(family);
    let (encoder, adapted_blocks) = match beginning.encoder {
        Some(EncoderLora { rank, blocks: asked }) => {
            let asked = if asked == 0 { last.usual() } else { asked };
            let blocks = last.last(asked).map_err(|(fewest, most)| {
                LoadError::Setting(format!(
                    "encoder.blocks = {asked}: expected {fewest} to {most} of {family}"
                ))
            })?;
            (Adapted { rank, blocks }, Some(asked))
        }
        None => (Adapted { rank: 0, blocks: &[] }, None),
    };
    for name in base.names().iter().filter(|name| encoder.has(name) && name.ends_with(".w_a.weight")) {
        let found = base.shape(name).and_then(|shape| shape.first().copied());
        if let Some(found) = found.filter(|&found| found != encoder.rank) {
            let asked = encoder.rank;
            return Err(LoadError::Setting(format!(
                "encoder.rank = {asked}: the predictor that is gone on with has {found}"
            )));
        }
    }
    let source = Fresh::new(&base, encoder, beginning.additions, beginning.seed);
    let unfit = |reason: WeightsError| LoadError::Weights { reason, path: spec.weights.clone() };
    let unfit_ppn = |reason: WeightsError| LoadError::Weights { reason, path: spec.trained_file().clone() };
    let trained = |name: &str| (beginning.trained)(name) || encoder.has(name);
    let view = Weights::new(&source, device.device).computing_in(spec.precision.kind()).training(&trained);
    let weights_sha256 = files.sha256(spec)?;
    let published = files.published(&weights_sha256);
    let taught = files.taught_side(spec, family)?;
    let net = nn::Sam::new(&view, family, side(spec, taught, family, published)?).map_err(unfit)?;
    let PredictorPlan { form, tokens, datasets } = &beginning.predictor;
    check_cells(&net, *form)?;
    let says = files.says();
    check_queries(&says, datasets)?;
    // All of it in `f32`, its mask classifier too: small steps need the digits.
    let w = view.pp(PREFIX).computing_in(tch::Kind::Float);
    let Some((dataset, classes)) = datasets.first() else {
        return Err(LoadError::Setting("a predictor needs a data set to learn from".into()));
    };
    let config = net.ppn_config(*form, dataset, classes.clone(), *tokens);
    let predictor = PromptPredictor::new(&w, &config).map_err(unfit_ppn)?;
    let mut queries = vec![predictor.learnable_prompts().shallow_clone()];
    for (name, classes) in datasets.iter().skip(1) {
        let shape = [classes.len() as i64, *tokens, config.channel_dims.first().copied().unwrap_or(0)];
        queries.push(w.pp("learnable_prompts").get(name, &shape).map_err(unfit_ppn)?);
    }
    // Those of data sets that are not learned from now.
    w.skip("learnable_prompts");
    view.finish().map_err(unfit)?;
    let manners = files.manners(spec, family, published)?;
    let info = ModelInfo {
        family: family.name().into(),
        weights_sha256,
        input_size: usize::try_from(net.input_size()).unwrap_or(0),
        precision: spec.precision.name().into(),
        parameters: view.parameters(),
        weights_bytes: view.bytes(),
        ppn: Some(PpnInfo {
            form: form.name(),
            dataset: dataset.clone(),
            classes: classes.clone(),
            sha256: files.ppn_sha256(spec)?,
            changes_features: files.change_features(),
        }),
        device: device.name(),
    };
    let parameters = view.trained();
    let drawn = parameters.keys().filter(|name| base.shape(name).is_none()).cloned().collect();
    let carried = files.carried(|name| !parameters.contains_key(name)).map_err(unfit)?;
    let network = Network::new(net, Some((predictor, *form)), manners, device.device);
    let sam = Sam::new(network, spec.cleanup(), info);
    Ok(Trainable { sam, family, queries, adapted_blocks, parameters, drawn, carried, says })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_keep_the_queries_that_they_have() {
        let says = BTreeMap::from([("classes.arm".to_owned(), "[\"nerve\", \"vessel\"]".to_owned())]);
        let asked = |name: &str, classes: &[&str]| {
            let classes = classes.iter().map(|class| (*class).to_owned()).collect();
            check_queries(&says, &[(name.to_owned(), classes)])
        };
        assert!(asked("arm", &["nerve", "vessel"]).is_ok());
        assert!(asked("leg", &["vessel", "nerve"]).is_ok(), "they begin anew");
        for other in [["vessel", "nerve"], ["nerve", "bone"]] {
            let told = asked("arm", &other).unwrap_err().to_string();
            assert!(told.contains("has the classes nerve, vessel in its data set \"arm\""), "{told}");
        }
    }
}
