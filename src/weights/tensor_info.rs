//! Type and shape of a tensor, and the way to its elements.

use std::borrow::Cow;
use std::ops::Range;

use super::dtype::Dtype;

/// Type and shape of one tensor, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type in the file.
    pub dtype: Dtype,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Elements from one index to the next, per dimension.
    pub(super) strides: Vec<usize>,
    /// First to last byte of the view in the file.
    pub(super) bytes: Range<usize>,
}

impl TensorInfo {
    /// A tensor whose elements lie in C order.
    pub(super) fn contiguous(dtype: Dtype, shape: Vec<usize>, bytes: Range<usize>) -> Self {
        let strides = c_order(&shape);
        Self { dtype, shape, strides, bytes }
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        // Checked against the file's length when the file is opened.
        self.shape.iter().product()
    }

    /// The elements in C order, out of the `file`'s bytes; copied only where they lie in another order.
    pub(super) fn data<'a>(&self, file: &'a [u8]) -> Cow<'a, [u8]> {
        // The range was checked when the file was opened.
        let view = file.get(self.bytes.clone()).unwrap_or_default();
        if self.numel() == 0 || c_order(&self.shape) == self.strides {
            return Cow::Borrowed(view);
        }
        let size = self.dtype.size();
        let mut data = Vec::with_capacity(self.numel() * size);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..self.numel() {
            let at = index.iter().zip(&self.strides).map(|(i, s)| i * s).sum::<usize>() * size;
            data.extend_from_slice(view.get(at..at + size).unwrap_or_default());
            for (i, &len) in index.iter_mut().zip(&self.shape).rev() {
                *i += 1;
                if *i < len {
                    break;
                }
                *i = 0;
            }
        }
        Cow::Owned(data)
    }
}

/// Strides of a tensor whose last index runs fastest.
fn c_order(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i].max(1));
    }
    strides
}
