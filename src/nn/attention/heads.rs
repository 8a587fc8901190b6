//! Attention over all heads of tensors, with [`bf16`](super::bf16) and threads of its own.

use tch::{Device, Kind, TchError, Tensor};

use super::bf16::{Answers, Head, Plan, QUERIES, Rows, Scratch, attend};
use crate::nn::avx512::{can_read, for_each, is_fastest, threads_for};

/// Products and sums that a thread makes in a nanosecond.
const FLOP_PER_NS: usize = 200;

/// A tensor `[B, H, N, d]` whose rows lie together.
#[derive(Clone, Copy, Debug)]
struct Layout {
    size: [usize; 4],
    stride: [usize; 4],
}

impl Layout {
    /// `None` where a row does not lie together, or there is none.
    fn new(x: &Tensor) -> Option<Self> {
        let four = |values: Vec<i64>| -> Option<[usize; 4]> {
            let values: Vec<usize> =
                values.into_iter().map(usize::try_from).collect::<Result<_, _>>().ok()?;
            values.try_into().ok()
        };
        let layout = Self { size: four(x.size())?, stride: four(x.stride())? };
        (layout.stride[3] == 1 && !layout.size.contains(&0)).then_some(layout)
    }

    /// From the first value to the last.
    fn length(&self) -> usize {
        1 + self.size.iter().zip(self.stride).map(|(size, stride)| (size - 1) * stride).sum::<usize>()
    }

    /// Where a head of a picture begins; heads are counted through all pictures.
    fn head(&self, at: usize) -> usize {
        at / self.size[1] * self.stride[0] + at % self.size[1] * self.stride[1]
    }
}

/// What is read of a tensor.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    values: &'a [u16],
    layout: Layout,
}

impl<'a> View<'a> {
    fn new(x: &'a Tensor) -> Option<Self> {
        let layout = Layout::new(x)?;
        // SAFETY: all of it lies in the tensor's memory, by its own sizes and strides, and nobody writes a tensor that is lent.
        let values = unsafe { std::slice::from_raw_parts(x.data_ptr().cast::<u16>(), layout.length()) };
        Some(Self { values, layout })
    }

    /// The same for several pictures where it is of one; `None` if it then is not of this size.
    fn of_pictures(mut self, size: [usize; 4]) -> Option<Self> {
        if self.layout.size[0] == 1 {
            (self.layout.size[0], self.layout.stride[0]) = (size[0], 0);
        }
        (self.layout.size == size).then_some(self)
    }

    fn rows(&self, head: usize) -> Rows<'a> {
        let [_, _, count, _] = self.layout.size;
        Rows { values: &self.values[self.layout.head(head)..], stride: self.layout.stride[2], count }
    }
}

/// The memory of the answer, which nobody else has seen yet.
#[derive(Clone, Copy, Debug)]
struct Fresh(*mut u16);

// SAFETY: each thread writes queries of its own, see `attend_all`.
unsafe impl Sync for Fresh {}

impl Fresh {
    /// A place inside of it.
    fn at(&self, place: usize) -> *mut u16 {
        self.0.wrapping_add(place)
    }
}

/// As [`attention`](super::attention); `None` where it is libtorch's to do: where the CPU multiplies faster with something else, and
/// whatever [`with_avx512`] cannot.
pub(super) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Option<Tensor>, TchError> {
    if is_fastest() { with_avx512(q, k, v, bias) } else { Ok(None) }
}

/// The same on every CPU that can; `None` for other types and devices, odd widths, and where somebody wants gradients.
pub(super) fn with_avx512(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Option<Tensor>, TchError> {
    if ![q, k, v].into_iter().chain(bias).all(|x| can_read(x, Kind::BFloat16)) {
        return Ok(None);
    }
    let (Some(of_q), Some(of_k), Some(of_v)) = (View::new(q), View::new(k), View::new(v)) else {
        return Ok(None);
    };
    let [b, h, n, d] = of_q.layout.size;
    let [_, _, m, _] = of_k.layout.size;
    let of_bias = bias.map(|bias| View::new(bias).and_then(|bias| bias.of_pictures([b, h, n, m])));
    if matches!(of_bias, Some(None)) {
        return Ok(None);
    }
    if of_k.layout.size != [b, h, m, d] || of_v.layout.size != of_k.layout.size || !d.is_multiple_of(2) {
        return Ok(None);
    }
    let (b, h, n, d) = q.size4()?;
    let out = Tensor::f_empty([b, n, h, d], (Kind::BFloat16, Device::Cpu))?.f_transpose(1, 2)?;
    let Some(layout) = Layout::new(&out) else { return Ok(None) };
    attend_all([of_q, of_k, of_v], of_bias.flatten(), Fresh(out.data_ptr().cast()), layout);
    Ok(Some(out))
}

fn attend_all([q, k, v]: [View<'_>; 3], bias: Option<View<'_>>, out: Fresh, of_out: Layout) {
    let [pictures, heads, n, dim] = q.layout.size;
    let [_, _, m, _] = k.layout.size;
    let heads = pictures * heads;
    let plan = Plan::new(dim, n, m);
    let threads = threads_for(4 * heads * n * m * dim / FLOP_PER_NS);
    // Ranges of a head's queries. Each packs all keys anew, so there are no more than keep all threads busy.
    let mut ranges = n.div_ceil(plan.range);
    if heads < 4 * threads && !(heads * ranges).is_multiple_of(threads) {
        ranges = ranges.next_multiple_of(threads);
    }
    let each = n.div_ceil(ranges).next_multiple_of(QUERIES).min(plan.range);
    let ranges = n.div_ceil(each);
    let out = &out;
    // SAFETY: the CPU was asked for its features.
    let begin = || unsafe { Scratch::new(plan) };
    for_each(0..heads * ranges, threads, begin, |scratch, at| {
        let (head, from) = (at / ranges, at % ranges * each);
        let bias = bias.map(|bias| bias.rows(head));
        let asked = Head { q: q.rows(head), k: k.rows(head), v: v.rows(head), bias };
        // SAFETY: the answer has such a row for each query and outlives this; every range is taken once. The CPU was asked for its
        // features.
        unsafe {
            let answers = Answers::new(out.at(of_out.head(head)), of_out.stride[2]);
            attend(&asked, from, each.min(n - from), scratch, &answers);
        }
    });
}
