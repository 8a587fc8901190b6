//! What the decoder says of some classes.

use tch::{TchError, Tensor};

use super::question::Asked;
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

    /// The same, by the numbers of the classes.
    ///
    /// # Errors
    /// libtorch's.
    pub fn in_order(&self) -> Result<Self, TchError> {
        let mut classes = self.classes.clone();
        classes.sort_unstable();
        self.about(&classes)
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

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::nn::MaskSelection;

    fn asked(class: usize, alone: bool) -> Asked {
        let nothing = || Tensor::zeros([1, 1, 4], (Kind::Float, Device::Cpu));
        let selection = MaskSelection::Single;
        Asked { class, sparse: nothing(), dense: nothing(), own_dense: true, interim: None, selection, alone }
    }

    /// Row `i` says `i` everywhere; the predicted IoU has the shape `iou`.
    fn decoded(n: i64, iou: &[i64]) -> Decoded {
        let rows = Tensor::arange(n, (Kind::Float, Device::Cpu));
        Decoded {
            masks: rows.view([n, 1, 1, 1]).expand([n, 1, 2, 2], false),
            iou: rows.view(iou),
            object_score: Some(rows.view([n, 1])),
            mask_tokens: rows.view([n, 1, 1]),
        }
    }

    /// Classes and rows.
    fn seen(said: &Said) -> (Vec<usize>, Vec<f64>, bool) {
        let n = said.classes.len() as i64;
        let of =
            |t: &Tensor| (0..n).map(|row| t.get(row).mean(Kind::Float).double_value(&[])).collect::<Vec<_>>();
        assert_eq!(
            (of(&said.logits), of(said.object_score.as_ref().unwrap())),
            (of(&said.iou), of(&said.iou))
        );
        (said.classes.clone(), of(&said.iou), said.alone)
    }

    #[test]
    fn what_a_person_speaks_of_is_apart() {
        for iou in [&[3i64, 1][..], &[3]] {
            let of = |alone: [bool; 3]| {
                let batch = [asked(4, alone[0]), asked(0, alone[1]), asked(2, alone[2])];
                Said::of(&batch, decoded(3, iou)).unwrap().iter().map(seen).collect::<Vec<_>>()
            };
            let all = |alone| vec![(vec![4, 0, 2], vec![0.0, 1.0, 2.0], alone)];
            assert_eq!((of([true; 3]), of([false; 3])), (all(true), all(false)));
            let told = (vec![0], vec![1.0], false);
            assert_eq!(of([true, false, true]), [told, (vec![4, 2], vec![0.0, 2.0], true)]);
        }
    }

    #[test]
    fn what_is_said_of_a_class_is_found_by_the_class() {
        let batch = [asked(4, true), asked(0, true)];
        let said = Said::of(&batch, decoded(2, &[2, 1])).unwrap();
        let both = Said::together(&said).unwrap().unwrap();
        assert_eq!(seen(&both.about(&[0, 4]).unwrap()), (vec![0, 4], vec![1.0, 0.0], true));
        assert_eq!(seen(&both.in_order().unwrap()), (vec![0, 4], vec![1.0, 0.0], true));
        assert!(both.about(&[0, 1]).is_err());
        assert!(Said::together(&[]).unwrap().is_none());
    }
}
