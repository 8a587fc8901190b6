//! What a recorded step takes and gives.

use tch::{TchError, Tensor};

use crate::nn::{Memories, Sam2Features, SamFeatures, Tracked};
use crate::segment::said::Said;

/// Something made of tensors.
pub trait Tensors: Sized {
    /// The same of other tensors.
    ///
    /// # Errors
    /// Those of `each`.
    fn try_map(&self, each: &mut dyn FnMut(&Tensor) -> Result<Tensor, TchError>) -> Result<Self, TchError>;

    /// Everything that work on it depends on but the values of its tensors.
    ///
    /// # Errors
    /// libtorch's.
    fn form(&self) -> Result<Vec<i64>, TchError> {
        let mut form = Vec::new();
        self.try_map(&mut |t| {
            form.extend([t.f_kind()? as i64, t.dim() as i64]);
            form.extend(t.size());
            Ok(t.shallow_clone())
        })?;
        Ok(form)
    }
}

impl Tensors for Tensor {
    fn try_map(&self, each: &mut dyn FnMut(&Tensor) -> Result<Tensor, TchError>) -> Result<Self, TchError> {
        each(self)
    }
}

impl Tensors for SamFeatures {
    fn try_map(&self, each: &mut dyn FnMut(&Tensor) -> Result<Tensor, TchError>) -> Result<Self, TchError> {
        let embedding = each(&self.embedding)?;
        let high_res = match &self.high_res {
            Some((s0, s1)) => Some((each(s0)?, each(s1)?)),
            None => None,
        };
        let levels = match &self.levels {
            Some([before, last]) => Some([each(before)?, each(last)?]),
            None => None,
        };
        let early = self.early.as_ref().map(each).transpose()?;
        Ok(Self { embedding, high_res, levels, early, cut: None })
    }
}

impl Tensors for Sam2Features {
    fn try_map(&self, each: &mut dyn FnMut(&Tensor) -> Result<Tensor, TchError>) -> Result<Self, TchError> {
        let (s0, s1) = &self.high_res;
        Ok(Self {
            top: each(&self.top)?,
            embedding: each(&self.embedding)?,
            high_res: (each(s0)?, each(s1)?),
        })
    }
}

impl Tensors for [Tensor; 3] {
    fn try_map(&self, each: &mut dyn FnMut(&Tensor) -> Result<Tensor, TchError>) -> Result<Self, TchError> {
        let [a, b, c] = self;
        Ok([each(a)?, each(b)?, each(c)?])
    }
}

impl Tensors for Tracked {
    fn try_map(&self, each: &mut dyn FnMut(&Tensor) -> Result<Tensor, TchError>) -> Result<Self, TchError> {
        Ok(Self {
            logits: each(&self.logits)?,
            iou: each(&self.iou)?,
            object_score: each(&self.object_score)?,
            pointer: each(&self.pointer)?,
        })
    }
}

impl Tensors for Vec<Said> {
    fn try_map(&self, each: &mut dyn FnMut(&Tensor) -> Result<Tensor, TchError>) -> Result<Self, TchError> {
        let one = |said: &Said| {
            Ok(Said {
                classes: said.classes.clone(),
                logits: each(&said.logits)?,
                iou: each(&said.iou)?,
                object_score: said.object_score.as_ref().map(&mut *each).transpose()?,
                alone: said.alone,
            })
        };
        self.iter().map(one).collect()
    }
}

/// A picture, and what is remembered of the frames before it.
impl Tensors for (Tensor, Memories) {
    fn try_map(&self, each: &mut dyn FnMut(&Tensor) -> Result<Tensor, TchError>) -> Result<Self, TchError> {
        let (picture, memories) = self;
        let picture = each(picture)?;
        let (values, positions) = (each(&memories.values)?, each(&memories.positions)?);
        Ok((picture, Memories { values, positions, pointer_tokens: memories.pointer_tokens }))
    }

    fn form(&self) -> Result<Vec<i64>, TchError> {
        let (picture, memories) = self;
        let tensors = [picture, &memories.values, &memories.positions].map(Tensors::form);
        let mut form = vec![memories.pointer_tokens];
        for of in tensors {
            form.extend(of?);
        }
        Ok(form)
    }
}
