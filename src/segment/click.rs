//! A predicted mask that follows a person's clicks.

use tch::{Kind, TchError, Tensor};

use super::device::read;
use super::network::OUTSIDE;
use super::preprocess::Placement;

/// How far a click reaches, as the deviation of a bell around it: a tenth of the input's side (`benches/results/training.md`).
const REACH: f32 = 0.1;

/// Logit that a click raises its own cell to, or lowers it below.
const CERTAIN: f32 = 2.0;

/// A predicted mask after a person has clicked: what hangs together with the clicks and nothing else, or without what was
/// clicked away. Where the predictor saw too little, the click lends it what it lacks.
#[derive(Debug)]
pub(super) struct Clicked {
    /// `[1, 1, n, n]`, with the gradients of the predictor's.
    pub(super) logits: Tensor,
    /// Around what is inside, `x0, y0, x1, y1` in pixels of the input; the whole picture if nothing is.
    pub(super) bbox: [f32; 4],
    /// The predictor alone had nothing at one of the clicks on the class, and all of them are on one region: its box says enough.
    pub(super) surprised: bool,
}

impl Clicked {
    /// Applies clicks, in pixels of an input, to `interim` logits `[1, 1, n, n]`; `true` says that the class is there, `false` that
    /// it is not. They are looked at on the CPU.
    ///
    /// # Errors
    /// libtorch's.
    pub(super) fn new(
        interim: &Tensor,
        clicks: &[([f32; 2], bool)],
        placement: &Placement,
    ) -> Result<Self, TchError> {
        let (_, _, rows, columns) = interim.size4()?;
        let flat = interim.f_detach()?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view(-1i64)?;
        let picture = placement.cells([rows, columns]);
        let picture = (picture.0 as usize, picture.1 as usize);
        let mut grid =
            Grid { values: Vec::<f32>::try_from(&read(&flat)?)?, columns: columns as usize, picture };
        let found = grid.values.clone();
        let scale = columns as f32 / placement.side.max(1) as f32;
        let places: Vec<(Place, bool)> =
            clicks.iter().map(|&(at, is)| (grid.place(at.map(|v| v * scale)), is)).collect();
        let of = |sign: bool| places.iter().filter(move |(_, is)| *is == sign).map(|(place, _)| *place);
        let unseen = of(true).any(|place| found[place.cell] <= 0.0);
        for place in of(true) {
            let lacks = CERTAIN - grid.values[place.cell];
            grid.lift(place, lacks.max(0.0));
        }
        let cells = |sign: bool| of(sign).map(|place| place.cell).collect::<Vec<_>>();
        // Cells that nothing was found in keep what they have: how sure that is goes on to the decoder.
        let (dropped, regions): (Vec<bool>, _) = if cells(true).is_empty() {
            grid.held(&cells(false))
        } else {
            let (held, regions) = grid.held(&cells(true));
            (grid.values.iter().zip(held).map(|(&v, held)| v > 0.0 && !held).collect(), regions)
        };
        for place in of(false) {
            let exceeds = CERTAIN + grid.values[place.cell];
            grid.lift(place, -exceeds.max(0.0));
        }
        let shift: Vec<f32> = grid.values.iter().zip(&found).map(|(now, before)| now - before).collect();
        let like = |tensor: Tensor| tensor.f_reshape(interim.size())?.f_to_device(interim.device());
        let shift = like(Tensor::f_from_slice(&shift)?)?.f_to_kind(interim.kind())?;
        let kept = like(Tensor::f_from_slice(&dropped)?)?.f_logical_not()?;
        let logits = interim.f_add(&shift)?.f_where_scalarother(&kept, OUTSIDE)?;
        let inside = grid.values.iter().zip(&dropped).map(|(&v, &dropped)| !dropped && v > 0.0);
        let bbox = grid.extent(inside).map(|corner| corner / scale);
        Ok(Self { logits, bbox, surprised: unseen && regions < 2 })
    }
}

/// Where a click lies in a grid.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// In cells.
    at: [f32; 2],
    /// The cell, counted row by row.
    cell: usize,
}

/// A plane of logits.
struct Grid {
    values: Vec<f32>,
    columns: usize,
    /// Columns and rows that are not padding.
    picture: (usize, usize),
}

impl Grid {
    fn rows(&self) -> usize {
        self.values.len() / self.columns.max(1)
    }

    /// The nearest cell of a point in cells; one that lies outside is taken to the border.
    fn place(&self, at: [f32; 2]) -> Place {
        let within = |v: f32, n: usize| (v as usize).min(n.saturating_sub(1));
        Place { at, cell: within(at[1], self.picture.1) * self.columns + within(at[0], self.picture.0) }
    }

    /// Adds a bell of the height `by`.
    fn lift(&mut self, place: Place, by: f32) {
        if by == 0.0 {
            return;
        }
        let deviation = REACH * self.columns as f32;
        let [x, y] = place.at;
        for (row, values) in self.values.chunks_mut(self.columns).take(self.picture.1).enumerate() {
            for (column, value) in values.iter_mut().take(self.picture.0).enumerate() {
                let squared = (column as f32 + 0.5 - x).powi(2) + (row as f32 + 0.5 - y).powi(2);
                *value += by * (-squared / (2.0 * deviation * deviation)).exp();
            }
        }
    }

    /// The cells above zero that hang together with `seeds`, over corners too, and in how many regions.
    fn held(&self, seeds: &[usize]) -> (Vec<bool>, usize) {
        let mut held = vec![false; self.values.len()];
        let mut regions = 0;
        for &seed in seeds {
            let mut next = if self.values[seed] > 0.0 && !held[seed] { vec![seed] } else { Vec::new() };
            regions += next.len();
            while let Some(cell) = next.pop() {
                if std::mem::replace(&mut held[cell], true) {
                    continue;
                }
                let (x, y) = (cell % self.columns, cell / self.columns);
                for row in y.saturating_sub(1)..(y + 2).min(self.rows()) {
                    let around = x.saturating_sub(1)..(x + 2).min(self.columns);
                    let neighbours = around.map(|column| row * self.columns + column);
                    next.extend(neighbours.filter(|&cell| self.values[cell] > 0.0 && !held[cell]));
                }
            }
        }
        (held, regions)
    }

    /// `x0, y0, x1, y1` around what is inside the picture, in cells; around the picture if nothing is.
    fn extent(&self, inside: impl Iterator<Item = bool>) -> [f32; 4] {
        let mut found: Option<[usize; 4]> = None;
        for (cell, _) in inside.enumerate().filter(|(_, inside)| *inside) {
            let (x, y) = (cell % self.columns, cell / self.columns);
            if x >= self.picture.0 || y >= self.picture.1 {
                continue;
            }
            let [x0, y0, x1, y1] = found.unwrap_or([x, y, x, y]);
            found = Some([x0.min(x), y0.min(y), x1.max(x + 1), y1.max(y + 1)]);
        }
        found.unwrap_or([0, 0, self.picture.0, self.picture.1]).map(|corner| corner as f32)
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Two regions of 4 x 4 cells, at the upper left and the lower right of 20 x 20; elsewhere -4.
    fn two() -> Tensor {
        let logits = Tensor::full([1, 1, 20, 20], -4.0, (Kind::Float, Device::Cpu));
        let _ = logits.narrow(2, 2, 4).narrow(3, 2, 4).fill_(3.0);
        let _ = logits.narrow(2, 13, 4).narrow(3, 13, 4).fill_(3.0);
        logits
    }

    fn clicked(clicks: &[([f32; 2], bool)]) -> Clicked {
        // Ten pixels a cell; all of the input is picture.
        Clicked::new(&two(), clicks, &Placement::square(400, 300, 200)).unwrap()
    }

    fn inside(clicked: &Clicked, [x, y]: [i64; 2]) -> bool {
        clicked.logits.double_value(&[0, 0, y, x]) > 0.0
    }

    #[test]
    fn a_click_on_one_region_chooses_it() {
        let one = clicked(&[([35.0, 35.0], true)]);
        assert!(inside(&one, [3, 3]) && !inside(&one, [14, 14]) && !one.surprised);
        assert_eq!(one.bbox, [20.0, 20.0, 60.0, 60.0]);
        let both = clicked(&[([35.0, 35.0], true), ([140.0, 140.0], true)]);
        assert_eq!((both.bbox, both.surprised), ([20.0, 20.0, 170.0, 170.0], false));
        assert!(f64::try_from((both.logits - two()).abs().max()).unwrap() < 1e-6, "nothing was lacking");
    }

    #[test]
    fn a_click_where_nothing_was_found_makes_something_there_alone() {
        let found = clicked(&[([155.0, 45.0], true)]);
        assert!(found.surprised && inside(&found, [15, 4]));
        assert!(!inside(&found, [3, 3]) && !inside(&found, [14, 14]));
        let [x0, y0, x1, y1] = found.bbox;
        assert!(x0 > 120.0 && x1 < 190.0 && y0 > 10.0 && y1 < 80.0, "{:?}", found.bbox);
        let value = found.logits.double_value(&[0, 0, 4, 15]);
        assert!((value - 2.0).abs() < 1e-4, "{value}");
        // Said twice, it is said once.
        let twice = clicked(&[([155.0, 45.0], true), ([155.0, 45.0], true)]);
        assert_eq!((twice.bbox, twice.surprised), (found.bbox, true));
        // In padding there is nothing: of 20 rows 10 are of the picture.
        let wide = Placement::new(400, 200, 200);
        let low = Clicked::new(&(two() - 5.0), &[([155.0, 95.0], true)], &wide).unwrap();
        assert!(low.surprised && low.bbox[3] == 100.0, "{:?}", low.bbox);
        // Beside another region: a box around both would hold what is between them, too.
        let both = clicked(&[([155.0, 45.0], true), ([35.0, 35.0], true)]);
        assert!(
            !both.surprised && inside(&both, [15, 4]) && inside(&both, [3, 3]) && !inside(&both, [14, 14])
        );
        // Beyond the picture: nothing is lent from so far away, and nothing breaks.
        let beyond = clicked(&[([1e9, -5.0], true)]);
        assert!(beyond.surprised && beyond.bbox == [0.0, 0.0, 200.0, 200.0], "{:?}", beyond.bbox);
    }

    #[test]
    fn a_click_away_takes_its_region_and_leaves_the_others() {
        let left = clicked(&[([35.0, 35.0], false)]);
        assert!(!inside(&left, [3, 3]) && inside(&left, [14, 14]) && !left.surprised);
        assert_eq!(left.bbox, [130.0, 130.0, 170.0, 170.0]);
        let none = clicked(&[([35.0, 35.0], false), ([140.0, 140.0], false)]);
        assert_eq!(none.bbox, [0.0, 0.0, 200.0, 200.0]);
        // Within a region that is chosen, only what is around it goes.
        let part = clicked(&[([25.0, 25.0], true), ([55.0, 55.0], false)]);
        assert!(!inside(&part, [5, 5]) && !inside(&part, [14, 14]));
    }

    #[test]
    fn the_predictor_can_still_be_taught_through_it() {
        let interim = two().set_requires_grad(true);
        let clicked =
            Clicked::new(&interim, &[([35.0, 35.0], true)], &Placement::square(400, 300, 200)).unwrap();
        clicked.logits.sum(Kind::Float).backward();
        let gradient = interim.grad();
        // All but the region that was not clicked.
        assert_eq!(f64::try_from(gradient.sum(Kind::Float)).unwrap(), 400.0 - 16.0);
    }
}
