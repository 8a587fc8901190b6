//! The views of a picture that robustness is measured with (the paper's figure 5).

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::dataset::{Augment, View};
use crate::weights::fnv1a;

/// Most views of a picture.
pub const MAX_VIEWS: usize = 100;

/// The picture as it is, then `augmented` views of it, drawn as the paper's augmentations are. They depend on the picture's name
/// alone, so that a picture is seen the same way in every evaluation, of whatever model and together with whatever others.
pub fn views(name: &str, augmented: usize) -> impl Iterator<Item = View> {
    let mut rng = ChaCha8Rng::seed_from_u64(fnv1a(name));
    std::iter::once(View::PLAIN)
        .chain(std::iter::repeat_with(move || View::draw(&Augment::PAPER, &mut rng)).take(augmented))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Mask;

    #[test]
    fn views_belong_to_the_name() {
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c, "the authors' test vector");
        let seen = |name| views(name, 5).collect::<Vec<_>>();
        assert_eq!((seen("a").len(), seen("a")[0]), (6, View::PLAIN));
        assert_eq!(seen("a"), seen("a"));
        assert_ne!(seen("a")[1..], seen("b")[1..]);
        let mut corner = Mask::empty(60, 40);
        (0..600).for_each(|i| corner.set(i % 30, i / 30, true));
        // Reports of different times are of the same views.
        let known =
            fnv1a(&format!("{:?}", views("a", 9).map(|view| view.mask(&corner).rle()).collect::<Vec<_>>()));
        assert_eq!(known, 0xdfd7_5e80_a213_da46, "the views of a name are others than they were");
        assert_eq!(seen("a")[..3], views("a", 2).collect::<Vec<_>>()[..], "more views add to the fewer");
    }
}
