//! What the decoder says of some classes.

use tch::{TchError, Tensor};

use super::network::Asked;
use crate::nn::Decoded;

/// What the decoder says of `B` classes, before masks are made of it.
#[derive(Debug)]
pub struct Said {
    /// The classes, in the order of the rest.
    pub classes: Vec<usize>,
    /// Logits `[B, 1, h, w]`.
    pub logits: Tensor,
    /// Predicted IoU, `[B, 1]` or `[B]`.
    pub iou: Tensor,
    /// Logits of the class being in the frame, `[B, 1]`, of decoders that tell it.
    pub object_score: Option<Tensor>,
    /// The predictor alone speaks of them, no person and no memory.
    pub alone: bool,
}

impl Said {
    /// What was `decoded` of a batch: apart what the predictor alone speaks of.
    ///
    /// # Errors
    /// libtorch's.
    pub fn of(batch: &[Asked], decoded: Decoded) -> Result<Vec<Self>, TchError> {
        let classes = batch.iter().map(|asked| asked.class).collect();
        let alone = batch.iter().all(Asked::is_alone);
        let Decoded { masks: logits, iou, object_score, .. } = decoded;
        let all = Self { classes, logits, iou, object_score, alone };
        if alone || !batch.iter().any(Asked::is_alone) {
            return Ok(vec![all]);
        }
        let part = |alone: bool| -> Result<Self, TchError> {
            let rows = (0i64..).zip(batch).filter(|(_, asked)| asked.is_alone() == alone);
            let rows: Vec<i64> = rows.map(|(row, _)| row).collect();
            Ok(Self { alone, ..all.rows(&rows)? })
        };
        Ok(vec![part(false)?, part(true)?])
    }

    /// These rows.
    fn rows(&self, rows: &[i64]) -> Result<Self, TchError> {
        // By views: an index would have to be sent to the device.
        let pick = |of: &Tensor| -> Result<Tensor, TchError> {
            let parts = rows.iter().map(|&row| of.f_narrow(0, row, 1)).collect::<Result<Vec<_>, _>>()?;
            Tensor::f_cat(&parts, 0)
        };
        let class = |&row: &i64| self.classes.get(usize::try_from(row).ok()?).copied();
        let classes = rows.iter().map(class).collect::<Option<Vec<_>>>();
        Ok(Self {
            classes: classes.ok_or_else(|| TchError::Shape(format!("no rows {rows:?}")))?,
            logits: pick(&self.logits)?,
            iou: pick(&self.iou)?,
            object_score: self.object_score.as_ref().map(pick).transpose()?,
            alone: self.alone,
        })
    }

    /// What is said of `classes`, in their order, if it is said of all of them.
    ///
    /// # Errors
    /// A class of which nothing is said, libtorch's.
    pub fn about(&self, classes: &[usize]) -> Result<Self, TchError> {
        let row = |class: &usize| Some(self.classes.iter().position(|known| known == class)? as i64);
        let rows = classes.iter().map(row).collect::<Option<Vec<_>>>();
        self.rows(&rows.ok_or_else(|| TchError::Shape(format!("not all of the classes {classes:?}")))?)
    }

    /// All that is said in `parts` as one; `None` without any. It is alone if all parts are.
    ///
    /// # Errors
    /// libtorch's.
    pub fn together(parts: &[Self]) -> Result<Option<Self>, TchError> {
        if parts.is_empty() {
            return Ok(None);
        }
        let cat = |of: fn(&Self) -> &Tensor| Tensor::f_cat(&parts.iter().map(of).collect::<Vec<_>>(), 0);
        let scores: Option<Vec<&Tensor>> = parts.iter().map(|part| part.object_score.as_ref()).collect();
        Ok(Some(Self {
            classes: parts.iter().flat_map(|part| part.classes.iter().copied()).collect(),
            logits: cat(|part| &part.logits)?,
            iou: cat(|part| &part.iou)?,
            object_score: scores.map(|scores| Tensor::f_cat(&scores, 0)).transpose()?,
            alone: parts.iter().all(|part| part.alone),
        }))
    }
}
