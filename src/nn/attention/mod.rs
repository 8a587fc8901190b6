//! Scaled dot-product attention: `softmax(q k^T / sqrt(d)) v`.
//!
//! libtorch's, but for bfloat16 on CPUs that multiply it in AVX-512 and have no AMX: there libtorch 2.11 is no faster than in `f32`
//! (`benches/results/official-epyc.md`), and [`bf16`] does it.

#[cfg(target_arch = "x86_64")]
mod bf16;
#[cfg(target_arch = "x86_64")]
mod heads;

use tch::{Device, Kind, TchError, Tensor};

/// Keys up to which a gradient in bfloat16 is taken in `f32`.
const FEW_KEYS: i64 = 1024;

/// Queries `[B, H, N, d]`, keys and values `[B, H, M, d]` to `[B, H, N, d]`.
///
/// # Errors
/// libtorch's.
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, TchError> {
    attention_with(q, k, v, None)
}

/// The same with `bias` `[1 or B, H, N, M]` added before the softmax.
///
/// # Errors
/// libtorch's.
pub(super) fn attention_with(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor, TchError> {
    #[cfg(target_arch = "x86_64")]
    if let Some(out) = heads::attention(q, k, v, bias)? {
        return Ok(out);
    }
    let sdpa = |q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>| {
        Tensor::f_scaled_dot_product_attention(q, k, v, bias, 0.0, false, None, false)
    };
    // On a CPU libtorch 2.11 sets up a product anew for every tile of a gradient in bfloat16: windows of 7 x 7 take six times as long as
    // in `f32`, of 14 x 14 twice, a whole grid two thirds (`benches/results/training.md`).
    let trains = [q, k, v].into_iter().any(Tensor::requires_grad);
    if trains && (q.kind(), q.device()) == (Kind::BFloat16, Device::Cpu) && k.size4()?.2 <= FEW_KEYS {
        let exact = |x: &Tensor| x.f_to_kind(Kind::Float);
        let bias = bias.map(exact).transpose()?;
        return sdpa(&exact(q)?, &exact(k)?, &exact(v)?, bias.as_ref())?.f_to_kind(Kind::BFloat16);
    }
    sdpa(q, k, v, bias)
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

    use tch::{Device, Kind, Tensor};

    use super::attention;
    use super::heads::with_avx512;

    /// `None` where this CPU cannot do it, and nothing is to be tested.
    fn ours(q: &Tensor, k: &Tensor, v: &Tensor) -> Option<Tensor> {
        with_avx512(q, k, v, None).unwrap()
    }

    fn random(size: [i64; 4], scale: f64) -> Tensor {
        (Tensor::randn(size, (Kind::Float, Device::Cpu)) * scale).to_kind(Kind::BFloat16)
    }

    fn full(size: [i64; 4], value: f64) -> Tensor {
        Tensor::full(size, value, (Kind::BFloat16, Device::Cpu))
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
        f64::try_from((&a - &b).norm() / b.norm()).unwrap()
    }

    /// What libtorch makes of the same values in `f32`, and in bfloat16.
    fn references([q, k, v]: [&Tensor; 3], bias: Option<&Tensor>) -> [Tensor; 2] {
        [Kind::Float, Kind::BFloat16].map(|kind| {
            let [q, k, v] = [q, k, v].map(|x| x.to_kind(kind));
            let bias = bias.map(|x| x.to_kind(kind));
            Tensor::scaled_dot_product_attention(&q, &k, &v, bias, 0.0, false, None, false)
        })
    }

    #[test]
    fn bfloat16_is_as_near_to_f32_as_libtorchs() {
        tch::manual_seed(5);
        // Windows, pooled windows, all over all, the widths of every trunk, of the memory, tokens that look at a picture, and what
        // fits no tile.
        for [b, h, n, m, d] in [
            [3, 2, 64, 64, 96],
            [5, 2, 16, 64, 96],
            [2, 4, 196, 196, 96],
            [1, 4, 1100, 1100, 96],
            [1, 1, 1024, 1501, 256],
            [2, 2, 49, 49, 56],
            [1, 3, 7, 515, 72],
            [1, 8, 7, 4096, 16],
            [1, 1, 1, 1, 2],
            [1, 2, 25, 17, 34],
            [2, 1, 385, 33, 512],
        ] {
            for scale in [0.1, 1.0, 4.0] {
                let q = random([b, h, n, d], scale);
                let (k, v) = (random([b, h, m, d], scale), random([b, h, m, d], 1.0));
                let Some(ours) = ours(&q, &k, &v) else { return };
                assert_eq!((ours.size(), ours.kind()), (vec![b, h, n, d], Kind::BFloat16));
                let [exact, theirs] = references([&q, &k, &v], None);
                let (ours, theirs) = (distance(&ours, &exact), distance(&theirs, &exact));
                assert!(ours <= 1.1 * theirs + 1e-4, "{:?} x {scale}: {ours} {theirs}", [b, h, n, m, d]);
            }
        }
    }

    #[test]
    fn a_bias_is_added_to_the_scores_of_its_keys() {
        tch::manual_seed(7);
        // Windows of TinyViT and ViT, and more keys than a block has.
        for [b, h, n, m, d] in
            [[4, 2, 49, 49, 32], [3, 5, 196, 196, 32], [2, 1, 30, 1501, 64], [1, 2, 5, 3, 8]]
        {
            let [q, k, v] = [n, m, m].map(|rows| random([b, h, rows, d], 1.0));
            for of in [1, b] {
                let bias = random([of, h, n, m], 2.0);
                let Some(ours) = with_avx512(&q, &k, &v, Some(&bias)).unwrap() else { return };
                let [exact, theirs] = references([&q, &k, &v], Some(&bias));
                let (ours, theirs) = (distance(&ours, &exact), distance(&theirs, &exact));
                assert!(ours <= 1.1 * theirs + 1e-4, "{:?} of {of}: {ours} {theirs}", [b, h, n, m, d]);
            }
            for size in [[b, h, n, m + 1], [b + 1, h, n, m], [b, h + 1, n, m]] {
                assert_eq!(with_avx512(&q, &k, &v, Some(&full(size, 0.0))).unwrap(), None, "{size:?}");
            }
        }
    }

    #[test]
    fn parts_of_a_wider_tensor_and_repeated_queries_are_read_where_they_lie() {
        tch::manual_seed(6);
        let (b, n, h, d) = (3, 50, 2, 48);
        let qkv = Tensor::randn([b, n, 3 * h * d], (Kind::Float, Device::Cpu)).to_kind(Kind::BFloat16);
        let part = |i: i64| qkv.narrow(-1, i * h * d, h * d).reshape([b, n, h, d]).transpose(1, 2);
        let [q, k, v] = [part(0), part(1), part(2)];
        let Some(read) = ours(&q, &k, &v) else { return };
        assert_eq!(Some(read), ours(&q.contiguous(), &k.contiguous(), &v.contiguous()));
        let one = q.narrow(0, 0, 1);
        let repeated = one.expand([b, -1, -1, -1], false);
        assert_eq!(ours(&repeated, &k, &v), ours(&one.repeat([b, 1, 1, 1]), &k, &v));
        // One picture with several is not its to do.
        assert_eq!(ours(&one, &k, &v), None);
    }

    #[test]
    fn scores_of_any_size_give_numbers_and_what_is_none_stays_none() {
        let keys = |value: f64| Tensor::cat(&[full([1, 1, 600, 32], -value), full([1, 1, 1, 32], value)], 2);
        let values = Tensor::cat(&[full([1, 1, 600, 32], 1.0), full([1, 1, 1, 32], 2.0)], 2);
        let count = |x: &Tensor| i64::try_from(x.isnan().sum(Kind::Int64)).unwrap();
        for (queries, expected) in [(100.0, 2.0), (20_000.0, 2.0), (-20_000.0, 1.0)] {
            let Some(out) = ours(&full([1, 1, 9, 32], queries), &keys(queries.abs()), &values) else {
                return;
            };
            assert_eq!(out, full([1, 1, 9, 32], expected), "{queries}");
        }
        // Scores of minus infinity in all of the first block, then one that counts.
        let infinite = Tensor::cat(&[full([1, 1, 600, 32], f64::NEG_INFINITY), full([1, 1, 1, 32], 1.0)], 2);
        assert_eq!(ours(&full([1, 1, 9, 32], 1.0), &infinite, &values), Some(full([1, 1, 9, 32], 2.0)));
        let no_number = Tensor::cat(&[full([1, 1, 600, 32], f64::NAN), full([1, 1, 1, 32], 1.0)], 2);
        for (q, k) in [(f64::NAN, &infinite), (1.0, &no_number)] {
            assert_eq!(count(&ours(&full([1, 1, 9, 32], q), k, &values).unwrap()), 9 * 32);
        }
    }

    #[test]
    fn gradients_are_libtorchs() {
        let x = Tensor::randn([1, 1, 5, 8], (Kind::BFloat16, Device::Cpu)).set_requires_grad(true);
        assert_eq!(ours(&x, &x, &x), None);
        attention(&x, &x, &x).unwrap().sum(Kind::Float).backward();
        assert!(x.grad().defined());
    }

    #[test]
    fn gradients_in_bfloat16_are_those_in_f32() {
        tch::manual_seed(6);
        let bias = random([1, 2, 49, 49], 1.0);
        // Drawn once: other tests draw from the same generator meanwhile.
        let drawn = [0; 3].map(|_| random([3, 2, 49, 32], 1.0));
        let gradients = |kind: Kind| {
            let inputs = drawn.each_ref().map(|x| x.copy().to_kind(kind).set_requires_grad(true));
            let [q, k, v] = &inputs;
            let out = super::attention_with(q, k, v, Some(&bias.to_kind(kind))).unwrap();
            assert_eq!((out.kind(), out.size()), (kind, vec![3, 2, 49, 32]));
            (&out * &out).sum(Kind::Float).backward();
            let [q, k, v] = inputs.map(|x| x.grad());
            [out.detach(), q, k, v]
        };
        let (exact, found) = (gradients(Kind::Float), gradients(Kind::BFloat16));
        for (a, b) in found.iter().zip(&exact) {
            assert_eq!(a.kind(), Kind::BFloat16);
            let apart = distance(a, b);
            assert!(apart < 6e-3, "{apart}");
        }
    }
}
