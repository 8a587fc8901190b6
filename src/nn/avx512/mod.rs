//! What is computed with AVX-512 of our own, where libtorch passes over the memory several times or multiplies slowly.

pub(super) mod rows;

use std::arch::x86_64::{
    __m512, _mm512_fmadd_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_sub_ps,
};
use std::f32::consts::LN_2;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The CPU has AVX-512 with bfloat16.
pub(super) static HAS_BF16: LazyLock<bool> = LazyLock::new(|| {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512bf16")
});

/// It has AMX, with which libtorch multiplies bfloat16 faster than AVX-512 can.
pub(super) static HAS_AMX: LazyLock<bool> = LazyLock::new(|| {
    #[allow(unused_unsafe, reason = "older compilers do not know that it is safe")]
    // SAFETY: every 64-bit x86 has the instruction.
    let leaf = unsafe { std::arch::x86_64::__cpuid_count(7, 0) };
    leaf.edx >> 22 & 1 == 1
});

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
    let count = of.len().div_ceil(each);
    let parts = Mutex::new(of.chunks_mut(each).enumerate());
    for_each(
        count,
        threads,
        || (),
        |(), _| {
            let part = parts.lock().next();
            if let Some((at, part)) = part {
                work(at, part);
            }
        },
    );
}

/// Every number below `count` once, on so many threads; `begin` makes what a thread works in.
pub(super) fn for_each<S>(
    count: usize,
    threads: usize,
    begin: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) + Sync,
) {
    let next = AtomicUsize::new(0);
    let run = || {
        let mut state = begin();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                break;
            }
            work(&mut state, at);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
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
