//! Scaled dot-product attention: `softmax(q k^T / sqrt(d)) v`.
//!
//! libtorch's, but for bfloat16 on CPUs that multiply it in AVX-512 and have no AMX: there libtorch 2.11 is no faster than in `f32`
//! (`benches/results/attention.md`), and [`bf16`] does it.

#[cfg(target_arch = "x86_64")]
mod bf16;
#[cfg(target_arch = "x86_64")]
mod heads;

use tch::{TchError, Tensor};

/// Queries `[B, H, N, d]`, keys and values `[B, H, M, d]` to `[B, H, N, d]`.
///
/// # Errors
/// libtorch's.
pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, TchError> {
    #[cfg(target_arch = "x86_64")]
    if let Some(out) = heads::attention(q, k, v)? {
        return Ok(out);
    }
    Tensor::f_scaled_dot_product_attention(q, k, v, None::<Tensor>, 0.0, false, None, false)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::attention;

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
        f64::try_from((&a - &b).norm() / b.norm()).unwrap()
    }

    /// What libtorch makes of the same values in `f32`, and in bfloat16.
    fn references([q, k, v]: [&Tensor; 3]) -> [Tensor; 2] {
        let of = |kind: Kind| {
            let [q, k, v] = [q, k, v].map(|x| x.to_kind(kind));
            Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, None, false)
        };
        [of(Kind::Float), of(Kind::BFloat16)]
    }

    #[test]
    fn bfloat16_is_as_near_to_f32_as_libtorchs() {
        tch::manual_seed(5);
        let random = |size: [i64; 4], scale: f64| {
            (Tensor::randn(size, (Kind::Float, Device::Cpu)) * scale).to_kind(Kind::BFloat16)
        };
        // Windows, pooled windows, all over all, the widths of every trunk, of the memory, and what fits no tile.
        for [b, h, n, m, d] in [
            [3, 2, 64, 64, 96],
            [5, 2, 16, 64, 96],
            [2, 4, 196, 196, 96],
            [1, 4, 1100, 1100, 96],
            [1, 1, 1024, 1501, 256],
            [2, 2, 49, 49, 56],
            [1, 3, 7, 515, 72],
            [1, 1, 1, 1, 2],
            [1, 2, 25, 17, 34],
            [2, 1, 385, 33, 512],
        ] {
            for scale in [0.1, 1.0, 4.0] {
                let [q, k, v] =
                    [random([b, h, n, d], scale), random([b, h, m, d], scale), random([b, h, m, d], 1.0)];
                let ours = attention(&q, &k, &v).unwrap();
                assert_eq!((ours.size(), ours.kind()), (vec![b, h, n, d], Kind::BFloat16));
                let [exact, theirs] = references([&q, &k, &v]);
                let (ours, theirs) = (distance(&ours, &exact), distance(&theirs, &exact));
                assert!(ours <= 1.1 * theirs + 1e-4, "{:?} x {scale}: {ours} {theirs}", [b, h, n, m, d]);
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
        let copied = attention(&q.contiguous(), &k.contiguous(), &v.contiguous()).unwrap();
        assert_eq!(attention(&q, &k, &v).unwrap(), copied);
        let one = q.narrow(0, 0, 1);
        let repeated = attention(&one.expand([b, -1, -1, -1], false), &k, &v).unwrap();
        assert_eq!(repeated, attention(&one.repeat([b, 1, 1, 1]), &k, &v).unwrap());
    }

    #[test]
    fn great_scores_overflow_nothing_and_what_is_no_number_stays_none() {
        let full = |size: [i64; 4], value: f64| Tensor::full(size, value, (Kind::BFloat16, Device::Cpu));
        let k = Tensor::cat(&[full([1, 1, 600, 32], -100.0), full([1, 1, 1, 32], 100.0)], 2);
        let v = Tensor::cat(&[full([1, 1, 600, 32], 1.0), full([1, 1, 1, 32], 2.0)], 2);
        let out = attention(&full([1, 1, 9, 32], 100.0), &k, &v).unwrap();
        assert_eq!(out, full([1, 1, 9, 32], 2.0));
        let out = attention(&full([1, 1, 9, 32], f64::NAN), &k, &v).unwrap();
        assert_eq!(i64::try_from(out.isnan().sum(Kind::Int64)).unwrap(), 9 * 32);
    }

    #[test]
    fn gradients_are_libtorchs() {
        let x = Tensor::randn([1, 1, 5, 8], (Kind::BFloat16, Device::Cpu)).set_requires_grad(true);
        let out = attention(&x, &x, &x).unwrap();
        out.sum(Kind::Float).backward();
        assert!(x.grad().defined());
    }
}
