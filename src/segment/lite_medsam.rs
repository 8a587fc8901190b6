//! LiteMedSAM as a [`Segmenter`].

use tch::{Device, TchError, Tensor};

use super::postprocess::class_masks;
use super::preprocess::{Placement, input_tensor, mask_logits, scaled_rgb};
use super::{Guidance, ModelInfo, Prompt, SegmentError, Segmenter};
use crate::frame::{ImageView, Rgb};
use crate::mask::{ClassMask, Mask};
use crate::nn;
use crate::stage::{Stage, StageTimes};

/// Classes decoded at once; bounds the decoder's memory (about 50 MB a class).
const MAX_BATCH: usize = 8;

/// LiteMedSAM with its weights on one device.
///
/// - A frame is encoded once, however many classes are asked for.
/// - Classes whose prompts make the same number of tokens are decoded together.
/// - An error leaves it as it was: nothing is kept from frame to frame.
/// - A mask without points and box is given its bounding box too: the network was trained with boxes, and to a mask
///   alone it answers with nothing.
#[derive(Debug)]
pub struct LiteMedSam {
    net: nn::LiteMedSam,
    device: Device,
    info: ModelInfo,
}

/// One prompt as the decoder takes it.
struct Encoded {
    /// Position among the prompts.
    at: usize,
    class: usize,
    sparse: Tensor,
    dense: Tensor,
}

impl LiteMedSam {
    /// Wraps a network whose weights are on `device`; `info` is what reports say of it.
    pub fn new(net: nn::LiteMedSam, device: Device, info: ModelInfo) -> Self {
        Self { net, device, info }
    }

    /// Points and boxes scale by 256 / longest side, and count from pixel centres once they are in the input.
    fn encode_prompt(&self, at: usize, prompt: &Prompt, placement: &Placement) -> Result<Encoded, TchError> {
        let scale = placement.scale();
        let to_device = |t: Tensor| t.f_to_device(self.device);
        let points = if prompt.points.is_empty() {
            None
        } else {
            let n = prompt.points.len() as i64;
            let coords: Vec<f32> = prompt.points.iter().flat_map(|p| [p.x * scale, p.y * scale]).collect();
            let labels: Vec<i64> = prompt.points.iter().map(|p| i64::from(p.positive)).collect();
            Some((
                to_device(Tensor::f_from_slice(&coords)?.f_reshape([1, n, 2])?)?,
                to_device(Tensor::f_from_slice(&labels)?.f_reshape([1, n])?)?,
            ))
        };
        let around = |mask: &Mask| mask.bounds().map(|b| [b.x0, b.y0, b.x1, b.y1].map(|v| v as f32));
        let alone = prompt.bbox.is_none() && prompt.points.is_empty();
        let bbox = if alone { prompt.mask.as_deref().and_then(around) } else { prompt.bbox };
        let bbox = bbox.map(|b| to_device(Tensor::f_from_slice(&b.map(|v| v * scale))?.f_reshape([1, 4])?));
        let mask = prompt.mask.as_ref().map(|m| to_device(mask_logits(m, placement)?));
        let (bbox, mask) = (bbox.transpose()?, mask.transpose()?);
        let points = points.as_ref().map(|(coords, labels)| (coords, labels));
        let (sparse, dense) = self.net.prompt_encoder.forward(points, bbox.as_ref(), mask.as_ref())?;
        Ok(Encoded { at, class: prompt.class, sparse, dense })
    }

    fn decode(&self, embedding: &Tensor, batch: &[Encoded]) -> Result<(Tensor, Tensor), TchError> {
        let cat = |of: fn(&Encoded) -> &Tensor| Tensor::f_cat(&batch.iter().map(of).collect::<Vec<_>>(), 0);
        let (sparse, dense) = (cat(|e| &e.sparse)?, cat(|e| &e.dense)?);
        let pe = self.net.prompt_encoder.get_dense_pe();
        self.net.mask_decoder.forward(embedding, pe, &sparse, &dense, /* multimask_output */ false)
    }

    /// Kernels are queued on a GPU; a stage ends when they have run.
    fn settle(&self) {
        if let Device::Cuda(index) = self.device {
            tch::Cuda::synchronize(index as i64);
        }
    }

    fn run(
        &self,
        image: &ImageView<'_>,
        prompts: &[Prompt],
        keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        let (width, height) = (image.width(), image.height());
        let prompts: Vec<Prompt> =
            prompts.iter().map(|p| p.in_pixels(width, height)).collect::<Result<_, _>>()?;
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let placement = Placement::new(width, height, nn::LiteMedSam::INPUT_SIZE);
        let input = times.time(Stage::Preprocess, || {
            input_tensor(&scaled_rgb(&Rgb::from(image), &placement), &placement)
        })?;
        let input = times.time(Stage::Upload, || {
            let input = input.f_to_device(self.device);
            self.settle();
            input
        })?;
        let embedding = times.time(Stage::Encode, || {
            let embedding = self.net.image_encoder.forward(&input);
            self.settle();
            embedding
        })?;
        let mut encoded = times.time(Stage::Prompt, || {
            let encode = |(at, p): (usize, &Prompt)| self.encode_prompt(at, p, &placement);
            let encoded = prompts.iter().enumerate().map(encode).collect::<Result<Vec<_>, _>>();
            self.settle();
            encoded
        })?;
        let tokens = |e: &Encoded| e.sparse.size().get(1).copied().unwrap_or(0);
        encoded.sort_by_key(tokens);

        let mut answers = Vec::with_capacity(encoded.len());
        for batch in encoded.chunk_by(|a, b| tokens(a) == tokens(b)).flat_map(|group| group.chunks(MAX_BATCH))
        {
            let (logits, scores) = times.time(Stage::Decode, || {
                let decoded = self.decode(&embedding, batch);
                self.settle();
                decoded
            })?;
            let classes: Vec<usize> = batch.iter().map(|e| e.class).collect();
            let masks = times.time(Stage::Postprocess, || {
                class_masks(&logits, &scores, &classes, &placement, keep_logits)
            })?;
            answers.extend(batch.iter().map(|e| e.at).zip(masks));
        }
        answers.sort_by_key(|&(at, _)| at);
        Ok(answers.into_iter().map(|(_, mask)| mask).collect())
    }
}

impl Segmenter for LiteMedSam {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn segment(
        &mut self,
        image: &ImageView<'_>,
        guidance: &Guidance,
        keep_logits: bool,
        times: &mut StageTimes,
    ) -> Result<Vec<ClassMask>, SegmentError> {
        tch::no_grad(|| self.run(image, &guidance.prompts, keep_logits, times))
    }
}
