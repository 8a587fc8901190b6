//! SAM's prompt encoder: points, boxes and a mask become embeddings.

use tch::{Device, Kind, TchError, Tensor};

use super::common::{Activation, Conv2d, LayerNorm2d};
use crate::weights::{Weights, WeightsError};

/// Random Fourier features of positions. Key `positional_encoding_gaussian_matrix [2, C / 2]`.
#[derive(Debug)]
pub struct PositionEmbeddingRandom {
    positional_encoding_gaussian_matrix: Tensor,
}

impl PositionEmbeddingRandom {
    /// Reads the matrix; encodings have `2 * features` channels.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, features: i64) -> Result<Self, WeightsError> {
        let name = "positional_encoding_gaussian_matrix";
        Ok(Self { positional_encoding_gaussian_matrix: w.buffer(name, &[2, features])? })
    }

    /// Positions `[..., 2]` as fractions `x, y` of the picture to `[..., C]`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn encode(&self, fractions: &Tensor) -> Result<Tensor, TchError> {
        let coords = fractions.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?;
        let coords = coords
            .f_matmul(&self.positional_encoding_gaussian_matrix)?
            .f_mul_scalar(std::f64::consts::TAU)?;
        Tensor::f_cat(&[coords.f_sin()?, coords.f_cos()?], -1)
    }

    /// The encoding of every cell centre of an `h` x `w` grid, `[1, C, h, w]`, the channels innermost in memory as in the embeddings that it is
    /// added to: a sum of tensors that lie differently takes twenty times as long.
    ///
    /// # Errors
    /// libtorch's.
    pub fn grid(&self, h: i64, w: i64) -> Result<Tensor, TchError> {
        let options = (Kind::Float, self.positional_encoding_gaussian_matrix.device());
        let centres = |n: i64| Tensor::f_arange(n, options)?.f_add_scalar(0.5)?.f_div_scalar(n as f64);
        let y = centres(h)?.f_unsqueeze(1)?.f_expand([h, w], false)?;
        let x = centres(w)?.f_unsqueeze(0)?.f_expand([h, w], false)?;
        self.encode(&Tensor::f_stack(&[x, y], -1)?)?.f_permute([2, 0, 1])?.f_unsqueeze(0)
    }
}

/// Sparse embeddings `[B, N, C]` of points and boxes, and dense ones `[B, C, h, w]` of the mask.
pub type SparseAndDense = (Tensor, Tensor);

/// SAM's prompt encoder.
#[derive(Debug)]
pub struct PromptEncoder {
    pe_layer: PositionEmbeddingRandom,
    /// Rows: not a point, background, foreground, first corner, second corner; so row = label + 1.
    label_embed: Tensor,
    mask_downscaling: MaskDownscaling,
    no_mask_embed: Tensor,
    dense_pe: Tensor,
    image_embedding_size: [i64; 2],
    input_image_size: [i64; 2],
    /// The same as a divisor of coordinates, `[2]`: width, height.
    input_sides: Tensor,
    /// Labels of a box's corners, `[2]`.
    corners: Tensor,
}

impl PromptEncoder {
    /// Reads the encoder for an input of `input_image_size` and an embedding of `image_embedding_size`, both `[h, w]`.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(
        w: &Weights<'_>,
        embed_dim: i64,
        image_embedding_size: [i64; 2],
        input_image_size: [i64; 2],
        mask_in_chans: i64,
    ) -> Result<Self, WeightsError> {
        // Positions need the digits of `f32`, and there is little to save.
        let w = &w.clone().computing_in(Kind::Float);
        let pe_layer = PositionEmbeddingRandom::new(&w.pp("pe_layer"), embed_dim / 2)?;
        let row = |w: &Weights<'_>| w.get("weight", &[1, embed_dim]);
        let mut rows = vec![row(&w.pp("not_a_point_embed"))?];
        for i in 0..4 {
            rows.push(row(&w.pp("point_embeddings").pp(i))?);
        }
        let [h, wide] = image_embedding_size;
        let [high, broad] = input_image_size;
        let sides = Tensor::f_from_slice(&[broad as f32, high as f32])?;
        Ok(Self {
            label_embed: Tensor::f_cat(&rows, 0)?,
            mask_downscaling: MaskDownscaling::new(&w.pp("mask_downscaling"), mask_in_chans, embed_dim)?,
            no_mask_embed: row(&w.pp("no_mask_embed"))?,
            dense_pe: pe_layer.grid(h, wide)?,
            pe_layer,
            image_embedding_size,
            input_image_size,
            input_sides: sides.f_to_device(w.device())?,
            corners: Tensor::f_arange_start(2, 4, (Kind::Int64, w.device()))?,
        })
    }

    /// Position encoding of the image embedding, `[1, C, h, w]`.
    pub fn get_dense_pe(&self) -> &Tensor {
        &self.dense_pe
    }

    /// Size `[h, w]` of the network's input, which boxes and points are given in.
    pub fn input_image_size(&self) -> [i64; 2] {
        self.input_image_size
    }

    /// Size `[h, w]` of the image embedding, in cells.
    pub fn image_embedding_size(&self) -> [i64; 2] {
        self.image_embedding_size
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.label_embed.device()
    }

    /// `points`: coordinates `[B, N, 2]` in input pixels and integer labels `[B, N]` (0 background, 1 foreground, 2 and 3 the
    /// corners of a box, -1 padding). `boxes`: `[B, 4]`. `masks`: logits `[B, 1, 4h, 4w]`. Points without boxes get one padding
    /// point, as in the reference.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(
        &self,
        points: Option<(&Tensor, &Tensor)>,
        boxes: Option<&Tensor>,
        masks: Option<&Tensor>,
    ) -> Result<SparseAndDense, TchError> {
        let mut sparse = Vec::new();
        if let Some((coords, labels)) = points {
            sparse.push(self.embed_points(coords, labels)?);
            if boxes.is_none() {
                // The position of padding is multiplied by zero, only its embedding counts.
                let padding = self.label_embed.f_narrow(0, 0, 1)?;
                sparse.push(padding.f_expand([coords.size3()?.0, 1, -1], false)?);
            }
        }
        if let Some(boxes) = boxes {
            let b = boxes.size2()?.0;
            let corners = self.corners.f_expand([b, 2], false)?;
            sparse.push(self.embed_points(&boxes.f_reshape([b, 2, 2])?, &corners)?);
        }
        let batch = match (sparse.first(), masks) {
            (Some(tokens), _) => tokens.size3()?.0,
            (None, Some(masks)) => masks.size4()?.0,
            (None, None) => 1,
        };
        let channels = self.no_mask_embed.size2()?.1;
        let sparse = if sparse.is_empty() {
            Tensor::f_zeros([batch, 0, channels], (Kind::Float, self.device()))?
        } else {
            Tensor::f_cat(&sparse, 1)?
        };
        let [h, w] = self.image_embedding_size;
        let dense = match masks {
            Some(masks) => self.mask_downscaling.forward(masks)?,
            None => {
                self.no_mask_embed.f_reshape([1, channels, 1, 1])?.f_expand([batch, channels, h, w], false)?
            }
        };
        Ok((sparse, dense))
    }

    fn embed_points(&self, coords: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
        // Coordinates count from pixel centres.
        let pe = self.pe_layer.encode(&coords.f_add_scalar(0.5)?.f_div(&self.input_sides)?)?;
        let is_point = labels.f_ge(0)?.f_unsqueeze(-1)?.f_to_kind(Kind::Float)?;
        let rows = labels.f_add_scalar(1)?;
        let (b, n) = labels.size2()?;
        let label = self.label_embed.f_index_select(0, &rows.f_flatten(0, 1)?)?.f_reshape([b, n, -1])?;
        pe.f_mul(&is_point)?.f_add(&label)
    }
}

/// Mask logits to the size and width of the image embedding. Keys `0`, `1`, `3`, `4`, `6`.
#[derive(Debug)]
struct MaskDownscaling {
    conv0: Conv2d,
    norm1: LayerNorm2d,
    conv3: Conv2d,
    norm4: LayerNorm2d,
    conv6: Conv2d,
}

impl MaskDownscaling {
    fn new(w: &Weights<'_>, mask_in_chans: i64, embed_dim: i64) -> Result<Self, WeightsError> {
        let narrow = mask_in_chans / 4;
        Ok(Self {
            conv0: Conv2d::new(
                &w.pp(0),
                [1, narrow],
                /* kernel */ 2,
                /* stride */ 2,
                /* padding */ 0,
            )?,
            norm1: LayerNorm2d::new(&w.pp(1), narrow)?,
            conv3: Conv2d::new(&w.pp(3), [narrow, mask_in_chans], 2, 2, 0)?,
            norm4: LayerNorm2d::new(&w.pp(4), mask_in_chans)?,
            conv6: Conv2d::new(&w.pp(6), [mask_in_chans, embed_dim], 1, 1, 0)?,
        })
    }

    fn forward(&self, masks: &Tensor) -> Result<Tensor, TchError> {
        let x = Activation::Gelu.apply(self.norm1.forward(&self.conv0.forward(masks)?)?)?;
        let x = Activation::Gelu.apply(self.norm4.forward(&self.conv3.forward(&x)?)?)?;
        self.conv6.forward(&x)
    }
}
