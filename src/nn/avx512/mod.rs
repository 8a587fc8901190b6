//! What is computed with AVX-512 of our own, where libtorch passes over the memory several times or multiplies slowly.

pub(super) mod few;
pub(super) mod gelu;
pub(super) mod rows;
mod values;

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, _mm512_cvtneps_pbh, _mm512_fmadd_ps, _mm512_roundscale_ps,
    _mm512_scalef_ps, _mm512_set1_ps, _mm512_sub_ps,
};
use std::f32::consts::LN_2;
use std::sync::LazyLock;

use parking_lot::Mutex;
use tch::{Device, Kind, Tensor};

/// `f32` values of a vector.
pub(super) const LANES: usize = 16;

/// The CPU has AVX-512 with bfloat16.
pub(super) static HAS_BF16: LazyLock<bool> = LazyLock::new(|| {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16")
});

/// It has AMX, with which libtorch multiplies bfloat16 faster than AVX-512 can.
static HAS_AMX: LazyLock<bool> = LazyLock::new(|| {
    #[allow(unused_unsafe, reason = "older compilers do not know that it is safe")]
    // SAFETY: every 64-bit x86 has the instruction.
    let leaf = unsafe { std::arch::x86_64::__cpuid_count(7, 0) };
    leaf.edx >> 22 & 1 == 1
});

/// AVX-512 is the fastest that the CPU multiplies bfloat16 with.
pub(super) fn is_fastest() -> bool {
    *HAS_BF16 && !*HAS_AMX
}

/// Whether a tensor of this kind can be read here: nobody wants gradients of it.
pub(super) fn can_read(x: &Tensor, kind: Kind) -> bool {
    *HAS_BF16 && x.device() == Device::Cpu && x.kind() == kind && !x.requires_grad()
}

/// `f32` as bfloat16.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
pub(super) fn rounded(x: __m512) -> __m256i {
    // SAFETY: 32 bytes of any value on either side.
    unsafe { std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(x)) }
}

/// Values of bfloat16 as pairs to be multiplied.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn as_pairs(x: __m512i) -> __m512bh {
    // SAFETY: 64 bytes of any value on either side.
    unsafe { std::mem::transmute(x) }
}

/// Time in which a thread starts.
const START_NS: usize = 15_000;

/// As many threads as pay for their start with `work_ns` of work for one of them, of those that libtorch has.
pub(super) fn threads_for(work_ns: usize) -> usize {
    // What takes `work / threads` beside what starting takes is least with the root of both.
    let most = usize::try_from(tch::get_num_threads()).unwrap_or(1);
    (work_ns / START_NS).isqrt().clamp(1, most.max(1))
}

/// Values of a part that a thread passes over in a nanosecond, reading and writing.
const VALUES_PER_NS: usize = 4;
/// More threads do not read and write faster.
const WRITERS: usize = 8;

/// Parts of `each` values, the last may have fewer, with their numbers.
pub(super) fn for_each_part<T: Send>(of: &mut [T], each: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let threads = threads_for(of.len() / VALUES_PER_NS).min(WRITERS);
    for_each(of.chunks_mut(each).enumerate(), threads, || (), |(), (at, part)| work(at, part));
}

/// Each of `items` once, on so many threads; `begin` makes what a thread works in.
pub(super) fn for_each<T, S>(
    items: impl ExactSizeIterator<Item = T> + Send,
    threads: usize,
    begin: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) + Sync,
) {
    let threads = threads.min(items.len());
    let items = Mutex::new(items);
    let run = || {
        let mut state = begin();
        loop {
            // A statement of its own, so that the lock is not held while the work is done.
            let item = items.lock().next();
            let Some(item) = item else { break };
            work(&mut state, item);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Threads that cannot be had are done without. A new one is as nice as the one that starts it.
            if std::thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
}

/// Two to the power of what is not positive, to four digits: more than bfloat16 keeps. Five terms of the series; of minus infinity the
/// series is no number and the scaling by it zero.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn exp2(x: __m512) -> __m512 {
    const TERMS: [f32; 4] = [LN_2 * LN_2 * LN_2 / 6.0, LN_2 * LN_2 / 2.0, LN_2, 1.0];
    let whole = _mm512_roundscale_ps::<0x08>(x);
    let part = _mm512_sub_ps(x, whole);
    let mut power = _mm512_set1_ps(LN_2 * LN_2 * LN_2 * LN_2 / 24.0);
    for term in TERMS {
        power = _mm512_fmadd_ps(power, part, _mm512_set1_ps(term));
    }
    _mm512_scalef_ps(power, whole)
}
