//! Where random numbers come from: each generator from a text, so that none has a state that must be kept.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest as _, Sha256};

/// The generator of `text`.
pub fn seeded(text: &str) -> ChaCha8Rng {
    let mut seed = [0u8; 32];
    seed.copy_from_slice(&Sha256::digest(text));
    ChaCha8Rng::from_seed(seed)
}

/// A generator for one purpose at one place of a run.
pub fn generator(seed: u64, purpose: &str, at: [u64; 2]) -> ChaCha8Rng {
    seeded(&format!("{purpose} {seed} {at:?}"))
}
