//! AdamW, with a state that can be written down.
//!
//! libtorch's own optimisers keep their state where tch cannot reach it; a run that is to go on after a kill as if nothing had
//! happened needs it.

use std::collections::BTreeMap;

use tch::{Kind, TchError, Tensor};

/// PyTorch's defaults (`torch.optim.AdamW`).
const BETAS: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-8;

/// Which learning rate a tensor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The prompt predictor.
    Predictor,
    /// The mask decoder.
    Decoder,
    /// The image encoder.
    Encoder,
}

impl Group {
    /// Every group.
    pub const ALL: [Self; 3] = [Self::Predictor, Self::Decoder, Self::Encoder];

    /// Name in the journal.
    pub fn name(self) -> &'static str {
        match self {
            Self::Predictor => "predictor",
            Self::Decoder => "decoder",
            Self::Encoder => "encoder",
        }
    }

    /// The group of the tensor `name`.
    pub fn of(name: &str) -> Self {
        if name.starts_with("ppn.") {
            Self::Predictor
        } else if name.starts_with("image_encoder.") {
            Self::Encoder
        } else {
            Self::Decoder
        }
    }
}

/// One tensor and what is remembered of it.
#[derive(Debug)]
struct Slot {
    group: Group,
    /// The network's own, which the next pass computes with.
    parameter: Tensor,
    /// The same in `f32`, where the network's has fewer digits: small steps would be lost in them.
    master: Option<Tensor>,
    /// Running means of gradients and of their squares.
    moments: (Tensor, Tensor),
    /// Running mean of the tensor itself.
    average: Option<Tensor>,
    steps: u64,
}

impl Slot {
    fn exact(&self) -> &Tensor {
        self.master.as_ref().unwrap_or(&self.parameter)
    }
}

/// AdamW (<https://arxiv.org/abs/1711.05101>) with clipping of the whole gradient and a running mean of the weights.
///
/// A tensor that no gradient reached in a step is left as it is.
#[derive(Debug)]
pub struct Optimizer {
    slots: BTreeMap<String, Slot>,
    weight_decay: f64,
    clip: f64,
    average: f64,
    steps: u64,
    /// The network has the running means in place of its weights.
    swapped: bool,
}

/// What is written of an optimiser: tensors by names, and the steps of each tensor.
pub type State = (BTreeMap<String, Tensor>, BTreeMap<String, u64>);

/// Names of what is written of a tensor.
const PARTS: [&str; 4] = ["weights", "first", "second", "average"];

impl Optimizer {
    /// For `parameters`, by their names. `clip` 0 does not clip, `average` 0 keeps no mean.
    ///
    /// # Errors
    /// libtorch's.
    pub fn new(
        parameters: &BTreeMap<String, Tensor>,
        weight_decay: f64,
        clip: f64,
        average: f64,
    ) -> Result<Self, TchError> {
        let _guard = tch::no_grad_guard();
        let slot = |(name, parameter): (&String, &Tensor)| -> Result<_, TchError> {
            let exact = parameter.f_detach()?.f_to_kind(Kind::Float)?;
            let mean = if average > 0.0 { Some(copy(&exact)?) } else { None };
            let slot = Slot {
                group: Group::of(name),
                parameter: parameter.shallow_clone(),
                master: if parameter.kind() == Kind::Float { None } else { Some(copy(&exact)?) },
                moments: (exact.f_zeros_like()?, exact.f_zeros_like()?),
                average: mean,
                steps: 0,
            };
            Ok((name.clone(), slot))
        };
        let slots = parameters.iter().map(slot).collect::<Result<_, _>>()?;
        Ok(Self { slots, weight_decay, clip, average, steps: 0, swapped: false })
    }

    /// Forgets all gradients.
    pub fn zero_grad(&mut self) {
        for slot in self.slots.values_mut() {
            slot.parameter.zero_grad();
        }
    }

    /// Whether tensors of `group` are asked for gradients.
    ///
    /// # Errors
    /// libtorch's.
    pub fn set_trained(&mut self, group: Group, trained: bool) -> Result<(), TchError> {
        for slot in self.slots.values_mut().filter(|slot| slot.group == group) {
            slot.parameter = slot.parameter.f_set_requires_grad(trained)?;
        }
        Ok(())
    }

    /// One step with a learning rate for each group. Returns the norm of the gradient before it was clipped; a norm that is not
    /// finite changes nothing.
    ///
    /// # Errors
    /// libtorch's.
    pub fn step(&mut self, rate: impl Fn(Group) -> f64) -> Result<f64, TchError> {
        let _guard = tch::no_grad_guard();
        let mut gradients = Vec::with_capacity(self.slots.len());
        for slot in self.slots.values_mut().filter(|slot| rate(slot.group) > 0.0) {
            let gradient = slot.parameter.grad();
            if gradient.defined() {
                gradients.push((slot, gradient.f_to_kind(Kind::Float)?));
            }
        }
        let square = |(_, g): &(&mut Slot, Tensor)| g.f_square()?.f_sum(Kind::Float);
        let squares = gradients.iter().map(square).collect::<Result<Vec<_>, TchError>>()?;
        if squares.is_empty() {
            return Ok(0.0);
        }
        let squares = Vec::<f64>::try_from(Tensor::f_stack(&squares, 0)?.f_to_kind(Kind::Double)?)?;
        let norm = squares.iter().sum::<f64>().sqrt();
        // Whether gradients are zero or were never there must not matter: which it is depends on when the run began.
        if norm == 0.0 || !norm.is_finite() {
            return Ok(norm);
        }
        self.steps += 1;
        let scale = if self.clip > 0.0 { (self.clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        for ((slot, gradient), square) in gradients.into_iter().zip(squares) {
            if square > 0.0 {
                let gradient = if scale < 1.0 { gradient.f_mul_scalar(scale)? } else { gradient };
                slot.advance(&gradient, rate(slot.group), self.weight_decay)?;
            }
        }
        if self.average > 0.0 {
            // A mean of few steps is of the last ones: what training began with is soon forgotten.
            let keep = self.average.min((1.0 + self.steps as f64) / (10.0 + self.steps as f64));
            for slot in self.slots.values_mut() {
                let exact = slot.exact().shallow_clone();
                if let Some(mean) = &mut slot.average {
                    let _ = mean.f_lerp_(&exact, 1.0 - keep)?;
                }
            }
        }
        Ok(norm)
    }

    /// Whether no step has reached the tensor `name`.
    pub fn is_untouched(&self, name: &str) -> bool {
        self.slots.get(name).is_some_and(|slot| slot.steps == 0)
    }

    /// Exchanges the network's weights and their running means; again to exchange them back. Without means nothing changes.
    ///
    /// # Errors
    /// libtorch's.
    pub fn swap(&mut self) -> Result<(), TchError> {
        let _guard = tch::no_grad_guard();
        if self.average <= 0.0 {
            return Ok(());
        }
        self.swapped = !self.swapped;
        for slot in self.slots.values_mut() {
            let Some(mean) = &mut slot.average else { continue };
            if slot.master.is_none() {
                let weights = copy(&slot.parameter)?;
                slot.parameter.f_copy_(mean)?;
                mean.f_copy_(&weights)?;
            } else if self.swapped {
                slot.parameter.f_copy_(mean)?;
            } else if let Some(master) = &slot.master {
                slot.parameter.f_copy_(master)?;
            }
        }
        Ok(())
    }

    /// What is to be used of the network: the running means where they are kept. `f32`, on the CPU. Not to be asked while they are
    /// exchanged, nor is [`Optimizer::state`].
    ///
    /// # Errors
    /// libtorch's.
    pub fn weights(&self) -> Result<BTreeMap<String, Tensor>, TchError> {
        let one = |(name, slot): (&String, &Slot)| {
            let found = slot.average.as_ref().unwrap_or_else(|| slot.exact());
            Ok((name.clone(), copy(&found.f_detach()?)?.f_to_device(tch::Device::Cpu)?))
        };
        self.slots.iter().map(one).collect()
    }

    /// Everything that the next step depends on, by names, on the CPU; and the steps of each tensor.
    ///
    /// # Errors
    /// libtorch's.
    pub fn state(&self) -> Result<State, TchError> {
        let mut tensors = BTreeMap::new();
        let mut steps = BTreeMap::new();
        for (name, slot) in &self.slots {
            let (first, second) = &slot.moments;
            let parts = [Some(slot.exact()), Some(first), Some(second), slot.average.as_ref()];
            for (part, tensor) in PARTS.iter().zip(parts) {
                if let Some(tensor) = tensor {
                    let tensor = tensor.f_detach()?.f_to_device(tch::Device::Cpu)?;
                    tensors.insert(format!("{part}.{name}"), tensor);
                }
            }
            steps.insert(name.clone(), slot.steps);
        }
        Ok((tensors, steps))
    }

    /// Takes up where [`Optimizer::state`] was taken. `read` gives tensors by their names there and in their shape.
    ///
    /// # Errors
    /// Those of `read`; libtorch's.
    pub fn restore<E: From<TchError>>(
        &mut self,
        read: impl Fn(&str, &[i64]) -> Result<Tensor, E>,
        steps: &BTreeMap<String, u64>,
        all: u64,
    ) -> Result<(), E> {
        let _guard = tch::no_grad_guard();
        self.steps = all;
        for (name, slot) in &mut self.slots {
            let shape = slot.parameter.size();
            let part = |i: usize| read(&format!("{}.{name}", PARTS[i]), &shape);
            let weights = part(0)?;
            slot.parameter.f_copy_(&weights)?;
            if let Some(master) = &mut slot.master {
                master.f_copy_(&weights)?;
            }
            slot.moments.0.f_copy_(&part(1)?)?;
            slot.moments.1.f_copy_(&part(2)?)?;
            if let Some(mean) = &mut slot.average {
                mean.f_copy_(&part(3)?)?;
            }
            slot.steps = steps.get(name).copied().unwrap_or(0);
        }
        Ok(())
    }

    /// Steps made.
    pub fn steps(&self) -> u64 {
        self.steps
    }
}

impl Slot {
    fn advance(&mut self, gradient: &Tensor, rate: f64, weight_decay: f64) -> Result<(), TchError> {
        self.steps += 1;
        let n = self.steps as f64;
        let (first, second) = &mut self.moments;
        let _ = first.f_lerp_(gradient, 1.0 - BETAS.0)?;
        let _ = second.f_lerp_(&gradient.f_square()?, 1.0 - BETAS.1)?;
        let spread = second.f_div_scalar(1.0 - BETAS.1.powf(n))?.f_sqrt()?.f_add_scalar(EPS)?;
        let step = first.f_mul_scalar(-rate / (1.0 - BETAS.0.powf(n)))?.f_div(&spread)?;
        let exact = self.master.as_mut().unwrap_or(&mut self.parameter);
        let _ = exact.f_mul_scalar_(1.0 - rate * weight_decay)?;
        let _ = exact.f_add_(&step)?;
        if let Some(master) = &self.master {
            self.parameter.f_copy_(master)?;
        }
        Ok(())
    }
}

fn copy(tensor: &Tensor) -> Result<Tensor, TchError> {
    let mut own = tensor.f_empty_like()?;
    own.f_copy_(tensor)?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gradient_of_zero_is_as_none() -> Result<(), TchError> {
        let weights = Tensor::f_ones([3], (Kind::Float, tch::Device::Cpu))?;
        let mut optimizer =
            Optimizer::new(&BTreeMap::from([("ppn.a".to_owned(), weights.shallow_clone())]), 0.1, 1.0, 0.5)?;
        optimizer.set_trained(Group::Predictor, true)?;
        assert_eq!(optimizer.step(|_| 0.1)?, 0.0, "nothing asked for a gradient");
        let parameter = weights.set_requires_grad(true);
        (&parameter * 0.0).sum(Kind::Float).f_backward()?;
        assert!(parameter.grad().defined());
        assert_eq!(optimizer.step(|_| 0.1)?, 0.0);
        assert_eq!((optimizer.steps(), optimizer.is_untouched("ppn.a")), (0, true));
        assert_eq!(Vec::<f32>::try_from(parameter.f_detach()?)?, [1.0; 3], "not even decayed");
        (&parameter * 2.0).sum(Kind::Float).f_backward()?;
        assert!(optimizer.step(|_| 0.1)? > 0.0);
        assert_eq!((optimizer.steps(), optimizer.is_untouched("ppn.a")), (1, false));
        Ok(())
    }
}
