//! Work of one shape, recorded once by a GPU and then repeated as a whole.
//!
//! An encoder is hundreds of kernels, and queueing each takes the CPU longer than many of them take the GPU. A graph is queued in one
//! call. It works on the very memory that it was recorded with: a [`Step`] copies what goes in to there, and what comes out from there.

mod cuda;

use std::fmt;

use tch::{TchError, Tensor};

use crate::nn::{Sam2Features, SamFeatures};

pub use cuda::CudaEngine;

/// Times that a step is run as it is before it is recorded: libtorch and the libraries under it prepare themselves in the first.
const BEFORE: u32 = 3;

/// Something made of tensors.
pub trait Tensors: Sized {
    /// The same of other tensors.
    ///
    /// # Errors
    /// Those of `each`.
    fn try_map(&self, each: &mut dyn FnMut(&Tensor) -> Result<Tensor, TchError>) -> Result<Self, TchError>;
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

/// Who records and repeats.
pub trait Engine: fmt::Debug + Send {
    /// Runs `work` in such a way that [`Engine::replay`] can repeat it; it may be run more than once.
    ///
    /// # Errors
    /// Those of `work`, and what cannot be recorded; nothing can be repeated then.
    fn record(&mut self, work: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError>;

    /// Does again what was recorded, with whatever lies in the same memory now. `again` is the same work, written to that memory, for
    /// an engine that records nothing.
    ///
    /// # Errors
    /// What fails when it is queued.
    fn replay(&mut self, again: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError>;
}

/// Why there is no graph.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// The work itself failed.
    #[error(transparent)]
    Torch(#[from] TchError),
    /// What CUDA or libtorch say of recording.
    #[error("{0}")]
    Cuda(String),
}

/// A step that depends on nothing but one tensor, always of one shape, and on what is there for good.
#[derive(Debug)]
pub struct Step<T> {
    engine: Option<Box<dyn Engine>>,
    runs: u32,
    recorded: Option<(Tensor, T)>,
}

impl<T> Default for Step<T> {
    fn default() -> Self {
        Self { engine: None, runs: 0, recorded: None }
    }
}

impl<T: Tensors> Step<T> {
    /// Recorded by `engine`; a step by default is run every time.
    pub fn recorded_by(engine: Box<dyn Engine>) -> Self {
        Self { engine: Some(engine), ..Self::default() }
    }

    /// What `work` makes of `input`; it has to be the same work each time.
    ///
    /// # Errors
    /// Those of `work`. One of recording is logged, and the work is run as it is from then on.
    pub fn run(
        &mut self,
        input: &Tensor,
        work: &dyn Fn(&Tensor) -> Result<T, TchError>,
    ) -> Result<T, TchError> {
        let Some(engine) = &mut self.engine else { return work(input) };
        self.runs = self.runs.saturating_add(1);
        if self.runs <= BEFORE {
            return work(input);
        }
        match Self::repeated(engine.as_mut(), &mut self.recorded, input, work) {
            Ok(made) => Ok(made),
            Err(error) => {
                tracing::warn!("CUDA graphs are off: {error}");
                (self.engine, self.recorded) = (None, None);
                work(input)
            }
        }
    }

    fn repeated(
        engine: &mut dyn Engine,
        recorded: &mut Option<(Tensor, T)>,
        input: &Tensor,
        work: &dyn Fn(&Tensor) -> Result<T, TchError>,
    ) -> Result<T, GraphError> {
        let (own, made) = match recorded {
            Some(known) => known,
            None => {
                let own = copied(input)?;
                let mut made = None;
                engine.record(&mut || {
                    made = Some(work(&own)?);
                    Ok(())
                })?;
                let made = made.ok_or_else(|| GraphError::Cuda("nothing was recorded".into()))?;
                recorded.insert((own, made))
            }
        };
        own.f_copy_(input)?;
        engine.replay(&mut || {
            let mut again = Vec::new();
            work(own)?.try_map(&mut |t| {
                again.push(t.shallow_clone());
                Ok(t.shallow_clone())
            })?;
            let mut again = again.iter();
            made.try_map(&mut |t| {
                let mut place = t.shallow_clone();
                again.next().map_or(Ok(()), |from| place.f_copy_(from))?;
                Ok(place)
            })?;
            Ok(())
        })?;
        // Whoever keeps an answer keeps it beyond the next frame.
        Ok(made.try_map(&mut copied)?)
    }
}

/// The same values in memory of their own.
fn copied(of: &Tensor) -> Result<Tensor, TchError> {
    of.f_internal_to_copy((of.f_kind()?, of.device()), /* non_blocking */ true)
}

/// Repeats by doing everything again, into the memory of before: the way of a graph on a device that has none, for whoever wants to
/// see that it comes to the same.
#[derive(Debug, Default)]
pub struct Rehearsal;

impl Engine for Rehearsal {
    fn record(&mut self, work: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError> {
        Ok(work()?)
    }

    fn replay(&mut self, again: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError> {
        Ok(again()?)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tch::{Device, Kind};

    use super::*;

    /// Cannot record, and says so after the work.
    #[derive(Debug)]
    struct Refusal;

    impl Engine for Refusal {
        fn record(&mut self, work: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError> {
            work()?;
            Err(GraphError::Cuda("no".into()))
        }

        fn replay(&mut self, _: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError> {
            panic!("nothing was recorded");
        }
    }

    fn doubled(x: &Tensor) -> Result<SamFeatures, TchError> {
        let embedding = x.f_mul_scalar(2.0)?;
        let levels = Some([embedding.f_add_scalar(1.0)?, embedding.f_add_scalar(2.0)?]);
        Ok(SamFeatures { embedding, high_res: None, levels, early: Some(x.f_neg()?), cut: None })
    }

    fn input(value: f64) -> Tensor {
        Tensor::full([2], value, (Kind::Float, Device::Cpu))
    }

    fn values(of: &SamFeatures) -> Vec<f64> {
        let mut values = Vec::new();
        of.try_map(&mut |t| {
            values.push(t.double_value(&[1]));
            Ok(t.shallow_clone())
        })
        .unwrap();
        values
    }

    #[test]
    fn a_step_gives_the_same_recorded_or_not_and_answers_outlive_the_next_frame() {
        for fails in [false, true] {
            let engine: Box<dyn Engine> = if fails { Box::new(Refusal) } else { Box::new(Rehearsal) };
            let mut step = Step::recorded_by(engine);
            let mut plain = Step::default();
            let mut kept = Vec::new();
            for frame in 0..12 {
                let x = input(f64::from(frame));
                let own = step.run(&x, &doubled).unwrap();
                assert_eq!(values(&own), values(&plain.run(&x, &doubled).unwrap()));
                kept.push((frame, own));
            }
            for (frame, own) in &kept {
                let x = f64::from(*frame);
                assert_eq!(values(own), [2.0 * x, 2.0 * x + 1.0, 2.0 * x + 2.0, -x]);
            }
            assert_eq!(step.engine.is_some(), !fails);
        }
    }

    #[test]
    fn work_that_fails_is_an_error_and_not_a_graph() {
        let mut step = Step::recorded_by(Box::new(Rehearsal));
        let calls = Cell::new(0);
        let failing = |x: &Tensor| {
            calls.set(calls.get() + 1);
            if calls.get() > 2 { Err(TchError::Shape("no".into())) } else { doubled(x) }
        };
        let ran = |step: &mut Step<_>| step.run(&input(1.0), &failing).is_ok();
        assert_eq!(
            [ran(&mut step), ran(&mut step), ran(&mut step), ran(&mut step)],
            [true, true, false, false]
        );
        assert!(step.engine.is_none());
    }

    #[test]
    fn without_a_gpu_there_is_no_engine_and_a_reason() {
        assert!(CudaEngine::new(Device::Cpu).unwrap_err().contains("on a GPU alone"));
    }
}
