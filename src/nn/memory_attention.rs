//! SAM 2's memory attention: a frame looks at what was remembered of the frames before it.
//!
//! Source: `modeling/memory_attention.py`, `RoPEAttention` in `modeling/sam/transformer.py` and `apply_rotary_enc` in
//! `modeling/position_encoding.py` of SAM 2.

use tch::{Device, Kind, TchError, Tensor};

use super::attention::attention;
#[cfg(target_arch = "x86_64")]
use super::avx512::rows;
use super::common::{Activation, LayerNorm, add_to};
use super::linear::Linear;
use super::position_encoding::sine_grid;
use super::sam2::DIM;
use crate::weights::{Weights, WeightsError};

/// Width of what is remembered.
pub(super) const MEMORY_DIM: i64 = 64;
const LAYERS: usize = 4;
const FFN: i64 = 2048;
const LAYER_NORM_EPS: f64 = 1e-5;
/// The longest wave of the rotation is so many times the shortest.
const THETA: f64 = 10_000.0;
/// How much of the position encoding is added to the frame, once.
const POSITION_SHARE: f64 = 0.1;

/// Rotary position encoding of an `h` x `w` grid: pairs of adjacent channels turn with the column, then as many with the row.
#[derive(Debug)]
pub struct RotaryGrid {
    /// Unit complex numbers `[h w, 128]`.
    turns: Tensor,
}

impl RotaryGrid {
    /// The rotations of a grid's cells, in rows.
    ///
    /// # Errors
    /// libtorch's.
    pub fn new([h, w]: [i64; 2], device: Device) -> Result<Self, TchError> {
        let options = (Kind::Float, device);
        let pairs = DIM / 4;
        let exponent = Tensor::f_arange(pairs, options)?.f_mul_scalar(-4.0 / DIM as f64)?;
        let waves = exponent.f_mul_scalar(THETA.ln())?.f_exp()?;
        let axis = |n: i64| Tensor::f_arange(n, options)?.f_unsqueeze(1)?.f_mul(&waves);
        let x = axis(w)?.f_unsqueeze(0)?.f_expand([h, w, pairs], false)?;
        let y = axis(h)?.f_unsqueeze(1)?.f_expand([h, w, pairs], false)?;
        let angles = Tensor::f_cat(&[x, y], -1)?.f_reshape([h * w, 2 * pairs])?;
        Ok(Self { turns: Tensor::f_polar(&angles.f_ones_like()?, &angles)? })
    }

    /// The rotations as complex numbers, `[h w, 128]`.
    pub fn turns(&self) -> &Tensor {
        &self.turns
    }

    /// Turns `[B, m, 256]` that nobody else holds: grids one after the other, but for the last `unplaced` of each `m`.
    fn turn(&self, x: Tensor, unplaced: i64) -> Result<Tensor, TchError> {
        let m = x.size3()?.1;
        #[cfg(target_arch = "x86_64")]
        let mut x = x;
        #[cfg(target_arch = "x86_64")]
        if rows::rotate(&mut x, &self.turns, unplaced) {
            return Ok(x);
        }
        match unplaced {
            0 => self.apply(&x),
            n => Tensor::f_cat(&[&self.apply(&x.f_narrow(1, 0, m - n)?)?, &x.f_narrow(1, m - n, n)?], 1),
        }
    }

    /// Turns `[B, n h w, 256]`, `n` grids one after the other, in `f32` whatever comes in.
    fn apply(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (b, n, c) = x.size3()?;
        let cells = self.turns.size2()?.0;
        let pairs =
            x.f_to_kind(Kind::Float)?.f_reshape([b, n / cells, cells, c / 2, 2])?.f_view_as_complex()?;
        pairs.f_mul(&self.turns)?.f_view_as_real()?.f_reshape([b, n, c])?.f_to_kind(x.kind())
    }
}

/// Attention with one head of the image embedding's width, whose queries and keys are turned by their places. Keys `q_proj`, `k_proj`, `v_proj`, `out_proj`.
#[derive(Debug)]
pub struct RotaryAttention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
}

impl RotaryAttention {
    fn new(w: &Weights<'_>, kv_dim: i64) -> Result<Self, WeightsError> {
        Ok(Self {
            q_proj: Linear::new(&w.pp("q_proj"), DIM, DIM)?,
            k_proj: Linear::new(&w.pp("k_proj"), kv_dim, DIM)?,
            v_proj: Linear::new(&w.pp("v_proj"), kv_dim, DIM)?,
            out_proj: Linear::new(&w.pp("out_proj"), DIM, DIM)?,
        })
    }

    /// `q` `[1 or B, h w, 256]`, `k` and `v` `[B, m, C]`, the last `unplaced` of which have no place in the picture.
    fn forward(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        unplaced: i64,
        grid: &RotaryGrid,
    ) -> Result<Tensor, TchError> {
        let q = grid.turn(self.q_proj.forward(q)?, 0)?;
        let k = grid.turn(self.k_proj.forward(k)?, unplaced)?;
        let b = k.size3()?.0;
        let v = self.v_proj.forward(v)?;
        let head = |x: Tensor| x.f_unsqueeze(1);
        let q = q.f_expand([b, -1, -1], false)?;
        let out = attention(&head(q)?, &head(k)?, &head(v)?)?;
        self.out_proj.forward(&out.f_squeeze_dim(1)?)
    }
}

/// What is remembered for `B` objects, as keys and values of the attention.
#[derive(Debug)]
pub struct Memories {
    /// Grids of remembered frames, one after the other, then tokens of object pointers; `[B, n h w + p, 64]`.
    pub values: Tensor,
    /// Where and when each of them was; the same shape, or one for all objects.
    pub positions: Tensor,
    /// Tokens of object pointers among them, `p`.
    pub pointer_tokens: i64,
}

/// Self-attention, attention to the memories, two linear layers; each after a norm and beside a residual.
#[derive(Debug)]
pub struct MemoryAttentionLayer {
    self_attn: RotaryAttention,
    cross_attn_image: RotaryAttention,
    linear1: Linear,
    linear2: Linear,
    norm1: LayerNorm,
    norm2: LayerNorm,
    norm3: LayerNorm,
}

impl MemoryAttentionLayer {
    fn new(w: &Weights<'_>) -> Result<Self, WeightsError> {
        let norm = |name| LayerNorm::new(&w.pp(name), DIM, LAYER_NORM_EPS);
        Ok(Self {
            self_attn: RotaryAttention::new(&w.pp("self_attn"), DIM)?,
            cross_attn_image: RotaryAttention::new(&w.pp("cross_attn_image"), MEMORY_DIM)?,
            linear1: Linear::new(&w.pp("linear1"), DIM, FFN)?,
            linear2: Linear::new(&w.pp("linear2"), FFN, DIM)?,
            norm1: norm("norm1")?,
            norm2: norm("norm2")?,
            norm3: norm("norm3")?,
        })
    }

    /// The frame looks at itself: `[B, h w, 256]` to the same shape.
    ///
    /// # Errors
    /// libtorch's.
    pub fn itself(&self, x: &Tensor, grid: &RotaryGrid) -> Result<Tensor, TchError> {
        let normed = self.norm1.forward_as(x, self.self_attn.q_proj.kind())?;
        add_to(self.self_attn.forward(&normed, &normed, &normed, 0, grid)?, x)
    }

    /// The frame looks at the memories of `B` objects: `[1 or B, h w, 256]` to `[B, h w, 256]`. `keys` are values and positions
    /// added.
    ///
    /// # Errors
    /// libtorch's.
    pub fn remembered(
        &self,
        x: &Tensor,
        keys: &Tensor,
        memories: &Memories,
        grid: &RotaryGrid,
    ) -> Result<Tensor, TchError> {
        let normed = self.norm2.forward_as(x, self.cross_attn_image.q_proj.kind())?;
        let tokens = memories.pointer_tokens;
        add_to(self.cross_attn_image.forward(&normed, keys, &memories.values, tokens, grid)?, x)
    }

    /// The two linear layers: `[B, h w, 256]` to the same shape.
    ///
    /// # Errors
    /// libtorch's.
    pub fn mlp(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let normed = self.norm3.forward_as(x, self.linear1.kind())?;
        let hidden = Activation::Relu.apply(self.linear1.forward(&normed)?)?;
        add_to(self.linear2.forward(&hidden)?, x)
    }
}

/// Four layers and a norm. Keys `layers.N`, `norm`.
#[derive(Debug)]
pub struct MemoryAttention {
    layers: Vec<MemoryAttentionLayer>,
    norm: LayerNorm,
    grid: RotaryGrid,
    /// Position encoding of the frame, as much as is added of it, `[1, 256, h, w]`.
    position: Tensor,
}

impl MemoryAttention {
    /// Reads the network for image embeddings of `grid` `[h, w]` cells.
    ///
    /// # Errors
    /// Keys or shapes that do not fit.
    pub fn new(w: &Weights<'_>, grid: [i64; 2]) -> Result<Self, WeightsError> {
        let layers = w.pp("layers");
        Ok(Self {
            layers: (0..LAYERS)
                .map(|i| MemoryAttentionLayer::new(&layers.pp(i)))
                .collect::<Result<_, _>>()?,
            norm: LayerNorm::new(&w.pp("norm"), DIM, LAYER_NORM_EPS)?,
            grid: RotaryGrid::new(grid, w.device())?,
            position: sine_grid(DIM, grid, w.device())?.f_mul_scalar(POSITION_SHARE)?,
        })
    }

    /// The layers alone.
    pub fn layers(&self) -> &[MemoryAttentionLayer] {
        &self.layers
    }

    /// The rotations of the image embedding's cells.
    pub fn grid(&self) -> &RotaryGrid {
        &self.grid
    }

    /// The frame as the first layer takes it: `[1, 256, h, w]` to `[1, h w, 256]`.
    ///
    /// # Errors
    /// libtorch's.
    pub fn queries(&self, top: &Tensor) -> Result<Tensor, TchError> {
        top.f_add(&self.position)?.f_flatten(2, -1)?.f_transpose(1, 2)?.f_contiguous()
    }

    /// The neck's level 2 of a frame `[1, 256, h, w]` and the memories of `B` objects to what the mask decoder takes for each
    /// object, `[B, 256, h, w]`. What the objects share is computed once.
    ///
    /// # Errors
    /// libtorch's.
    pub fn forward(&self, top: &Tensor, memories: &Memories) -> Result<Tensor, TchError> {
        let (_, c, h, w) = top.size4()?;
        let keys = memories.values.f_add(&memories.positions)?;
        let mut x = self.queries(top)?;
        for layer in &self.layers {
            x = layer.itself(&x, &self.grid)?;
            x = layer.mlp(&layer.remembered(&x, &keys, memories, &self.grid)?)?;
        }
        let x = self.norm.forward(&x)?;
        let b = x.size3()?.0;
        x.f_transpose(1, 2)?.f_reshape([b, c, h, w])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfloat16_is_turned_as_in_f32_and_rounded() -> Result<(), TchError> {
        tch::manual_seed(7);
        let grid = RotaryGrid::new([4, 6], Device::Cpu)?;
        for (objects, grids, unplaced) in [(1, 1, 0), (1, 3, 20), (3, 2, 4), (2, 60, 64)] {
            let m = 24 * grids + unplaced;
            let x = Tensor::randn([objects, m, DIM], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
            let exact = grid.turn(x.to_kind(Kind::Float), unplaced)?.to_kind(Kind::BFloat16);
            let turned = grid.turn(x.copy(), unplaced)?;
            #[cfg(target_arch = "x86_64")]
            assert_eq!(rows::rotate(&mut x.copy(), &grid.turns, unplaced), *super::super::avx512::HAS_BF16);
            assert_eq!((turned.kind(), turned.size()), (Kind::BFloat16, x.size()));
            let off = (turned.to_kind(Kind::Float) - exact.to_kind(Kind::Float)).abs();
            // A product may be rounded to the other side.
            let least = exact.to_kind(Kind::Float).abs() / 100.0 + 1e-6;
            assert_eq!(i64::try_from(off.greater_tensor(&least).sum(Kind::Int64))?, 0);
            assert_eq!(turned.narrow(1, m - unplaced, unplaced), x.narrow(1, m - unplaced, unplaced));
        }
        Ok(())
    }
}
