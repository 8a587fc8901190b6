//! Attention over the heads of tensors, with [`bf16`](super::bf16) and as many threads as libtorch has.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tch::{Device, Kind, TchError, Tensor};

use super::bf16::{Answers, Head, Plan, Rows, Scratch, attend};

/// Widest head.
const MAX_DIM: i64 = 512;
/// Products and sums for which another thread is worth its start.
const WORTH_A_THREAD: usize = 8_000_000;

/// The CPU has what [`attend`] needs, and not AMX, with which libtorch's own attention is faster.
static IS_HERE: LazyLock<bool> = LazyLock::new(|| {
    let amx_bf16 = std::arch::x86_64::__cpuid_count(7, 0).edx >> 22 & 1 == 1;
    !amx_bf16
        && is_x86_feature_detected!("avx512bf16")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
});

/// A tensor `[B, H, N, d]` whose rows lie together.
#[derive(Clone, Copy, Debug)]
struct View {
    start: *mut u16,
    size: [usize; 4],
    stride: [usize; 4],
}

impl View {
    /// `None` where a row does not lie together.
    fn new(x: &Tensor) -> Option<Self> {
        let four = |values: Vec<i64>| -> Option<[usize; 4]> {
            let values: Vec<usize> =
                values.into_iter().map(usize::try_from).collect::<Result<_, _>>().ok()?;
            values.try_into().ok()
        };
        let view = Self { start: x.data_ptr().cast(), size: four(x.size())?, stride: four(x.stride())? };
        (view.stride[3] == 1).then_some(view)
    }

    /// Where a head of a picture begins, one of those that there are.
    fn head(&self, at: usize) -> *mut u16 {
        let (batch, head) = (at / self.size[1], at % self.size[1]);
        self.start.wrapping_add(batch * self.stride[0] + head * self.stride[1])
    }

    /// # Safety
    /// The tensor outlives `'a`, and nobody writes it meanwhile.
    unsafe fn rows<'a>(&self, at: usize) -> Rows<'a> {
        let [_, _, count, dim] = self.size;
        let length = (count - 1) * self.stride[2] + dim;
        // SAFETY: from the head's first value to its last, by the tensor's own strides.
        let values = unsafe { std::slice::from_raw_parts(self.head(at), length) };
        Rows { values, stride: self.stride[2], count }
    }
}

/// As [`attention`](super::attention); `None` where it is libtorch's to do: other types and devices, other CPUs, odd widths, and
/// where somebody wants gradients.
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Option<Tensor>, TchError> {
    let ours = |x: &&Tensor| x.kind() == Kind::BFloat16 && x.device() == Device::Cpu && !x.requires_grad();
    if !*IS_HERE || ![q, k, v].iter().all(ours) {
        return Ok(None);
    }
    let (Some(of_q), Some(of_k), Some(of_v)) = (View::new(q), View::new(k), View::new(v)) else {
        return Ok(None);
    };
    let ([b, h, n, d], [_, _, m, _]) = (of_q.size, of_k.size);
    let fits =
        of_k.size == [b, h, m, d] && of_v.size == of_k.size && d.is_multiple_of(2) && d as i64 <= MAX_DIM;
    if !fits || [b, h, n, m, d].contains(&0) {
        return Ok(None);
    }
    let out = Tensor::f_empty([b, n, h, d].map(|side| side as i64), (Kind::BFloat16, Device::Cpu))?
        .f_transpose(1, 2)?;
    let Some(of_out) = View::new(&out) else { return Ok(None) };
    let views = Views { q: of_q, k: of_k, v: of_v, out: of_out };
    views.attend();
    Ok(Some(out))
}

/// All that a call reads and writes.
#[derive(Clone, Copy, Debug)]
struct Views {
    q: View,
    k: View,
    v: View,
    out: View,
}

// SAFETY: the tensors outlive the threads, which are joined before they return; three are only read, and of the fourth, which
// nobody else has seen yet, each thread writes rows of its own.
unsafe impl Sync for Views {}

impl Views {
    fn attend(&self) {
        let [b, h, n, dim] = self.q.size;
        let plan = Plan::new(dim);
        let work = 4 * b * h * n * self.k.size[2] * dim;
        let threads =
            usize::try_from(tch::get_num_threads()).unwrap_or(1).clamp(1, 1 + work / WORTH_A_THREAD);
        // Ranges of queries, as many for each head that every thread has the same to do.
        let mut ranges = n.div_ceil(plan.range);
        if b * h < 8 * threads {
            ranges = ranges.next_multiple_of(threads);
        }
        let each = n.div_ceil(ranges);
        let next = AtomicUsize::new(0);
        let scale = 1.0 / (dim as f32).sqrt();
        let run = || {
            // SAFETY: the CPU was asked for its features.
            let mut scratch = unsafe { Scratch::new(plan) };
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let (head, from) = (at / ranges, at % ranges * each);
                if head >= b * h {
                    break;
                }
                let count = each.min(n.saturating_sub(from));
                // SAFETY: the tensors outlive this call and are not written, but for the answers, of which every range is taken
                // once. The CPU was asked for its features.
                unsafe {
                    let (q, k, v) = (self.q.rows(head), self.k.rows(head), self.v.rows(head));
                    let out = Answers::new(self.out.head(head), self.out.stride[2], dim);
                    attend(&Head { q, k, v, scale }, from, count, &mut scratch, &out);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // Threads that cannot be had are done without. A new one is as nice as this.
                if std::thread::Builder::new().spawn_scoped(scope, run).is_err() {
                    break;
                }
            }
            run();
        });
    }
}
