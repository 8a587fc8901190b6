//! Work that is the same on every frame, recorded once and then repeated.

use tch::{TchError, Tensor};

use super::{Engine, GraphError, Tensors};
use crate::nn::unsent;

/// Times that a step is run as it is before it is recorded: libtorch and the libraries under it prepare themselves in the first.
const BEFORE: u32 = 3;

/// A step that depends on nothing but some tensors and on what is there for good. It is recorded once these have had one form for some
/// frames in a row, and anew when they have had another for as many; what comes in between is run as it is.
#[derive(Debug)]
pub struct Step<I, T> {
    engine: Option<Box<dyn Engine>>,
    /// Of the last input that was of another form than what is recorded.
    form: Vec<i64>,
    /// Inputs of that form in a row.
    runs: u32,
    recorded: Option<Recorded<I, T>>,
}

/// What was recorded, with the memory that it works on.
#[derive(Debug)]
struct Recorded<I, T> {
    form: Vec<i64>,
    input: I,
    made: T,
}

impl<I, T> Default for Step<I, T> {
    fn default() -> Self {
        Self { engine: None, form: Vec::new(), runs: 0, recorded: None }
    }
}

impl<I: Tensors, T: Tensors> Step<I, T> {
    /// Recorded by `engine`; a step by default is run every time.
    pub fn recorded_by(engine: Box<dyn Engine>) -> Self {
        Self { engine: Some(engine), ..Self::default() }
    }

    /// Whether it is, or will be.
    pub fn is_recorded(&self) -> bool {
        self.engine.is_some()
    }

    /// Whether it has been.
    #[cfg(test)]
    pub fn has_recorded(&self) -> bool {
        self.recorded.is_some()
    }

    /// What it depends on is not what it was.
    pub fn forget(&mut self) {
        self.runs = 0;
        self.recorded = None;
    }

    /// What `work` makes of `input`; it has to be the same work each time.
    ///
    /// # Errors
    /// Those of `work`. One of recording is logged, and the work is run as it is from then on.
    pub fn run(&mut self, input: &I, work: &dyn Fn(&I) -> Result<T, TchError>) -> Result<T, TchError> {
        let Some(engine) = &mut self.engine else { return work(input) };
        let form = input.form()?;
        if self.recorded.as_ref().is_some_and(|recorded| recorded.form == form) {
            self.runs = 0;
        } else {
            if self.form != form {
                self.runs = 0;
                self.form = form;
            }
            self.runs += 1;
            if self.runs <= BEFORE {
                return work(input);
            }
            self.recorded = None;
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
        recorded: &mut Option<Recorded<I, T>>,
        input: &I,
        work: &dyn Fn(&I) -> Result<T, TchError>,
    ) -> Result<T, GraphError> {
        let Recorded { input: own, made, .. } = match recorded {
            Some(known) => known,
            None => {
                let own = input.try_map(&mut copied)?;
                let mut made = None;
                engine.record(&mut || {
                    made = Some(unsent(|| work(&own))?);
                    Ok(())
                })?;
                let made = made.ok_or_else(|| GraphError::Cuda("nothing was recorded".into()))?;
                recorded.insert(Recorded { form: input.form()?, input: own, made })
            }
        };
        put(input, own)?;
        engine.replay(&mut || put(&work(own)?, made))?;
        // Whoever keeps an answer keeps it beyond the next frame.
        Ok(made.try_map(&mut copied)?)
    }
}

/// Writes `values` to the memory of `places`.
fn put<T: Tensors>(values: &T, places: &T) -> Result<(), TchError> {
    let mut from = Vec::new();
    values.try_map(&mut |t| {
        from.push(t.shallow_clone());
        Ok(t.shallow_clone())
    })?;
    let mut from = from.iter();
    places.try_map(&mut |t| {
        let mut place = t.shallow_clone();
        let missing = || TchError::Shape("the work does not come to as many tensors as before".into());
        place.f_copy_(from.next().ok_or_else(missing)?)?;
        Ok(place)
    })?;
    Ok(())
}

/// The same values in memory of their own.
fn copied(of: &Tensor) -> Result<Tensor, TchError> {
    of.f_internal_to_copy((of.f_kind()?, of.device()), /* non_blocking */ true)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tch::{Device, Kind};

    use super::super::{CudaEngine, Rehearsal};
    use super::*;
    use crate::nn::{Memories, SamFeatures};

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
    fn another_form_is_recorded_anew() {
        /// Counts what is recorded.
        #[derive(Debug, Default)]
        struct Counting(std::sync::Arc<std::sync::atomic::AtomicU32>);

        impl Engine for Counting {
            fn record(&mut self, work: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError> {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Rehearsal.record(work)
            }

            fn replay(&mut self, again: &mut dyn FnMut() -> Result<(), TchError>) -> Result<(), GraphError> {
                Rehearsal.replay(again)
            }
        }

        let counting = Counting::default();
        let count = counting.0.clone();
        let recorded = || count.load(std::sync::atomic::Ordering::Relaxed);
        let mut step = Step::recorded_by(Box::new(counting));
        let memories = |frames: i64, pointer_tokens: i64| {
            let of = |value: f64| Tensor::full([1, frames, 2], value, (Kind::Float, Device::Cpu));
            (input(1.0), Memories { values: of(2.0), positions: of(3.0), pointer_tokens })
        };
        let work = |(picture, memories): &(Tensor, Memories)| -> Result<Tensor, TchError> {
            let pointers = memories.values.f_sum(Kind::Float)?.f_add_scalar(memories.pointer_tokens)?;
            picture.f_add(&pointers)
        };
        // A bank that grows is never recorded; what it has become is, and what has as many frames and other pointers is another. What comes
        // for a few frames takes nothing away.
        let runs = [
            (1, 4, 1, 0),
            (2, 4, 2, 0),
            (3, 4, 9, 1),
            (3, 8, 9, 2),
            (3, 4, 3, 2),
            (3, 8, 9, 2),
            (3, 4, 4, 3),
        ];
        for (frames, tokens, times, expected) in runs {
            for _ in 0..times {
                let made = step.run(&memories(frames, tokens), &work).unwrap();
                assert_eq!(made.double_value(&[0]), 1.0 + 4.0 * frames as f64 + tokens as f64);
            }
            assert_eq!(recorded(), expected, "{frames} frames, {tokens} tokens");
        }
    }

    #[test]
    fn what_comes_from_the_cpu_is_not_recorded() {
        let mut step = Step::recorded_by(Box::new(Rehearsal));
        let sending = |x: &Tensor| x.f_add(&crate::nn::sent(&input(1.0), x.device())?);
        for _ in 0..6 {
            assert_eq!(step.run(&input(1.0), &sending).unwrap().double_value(&[0]), 2.0);
        }
        assert!(step.engine.is_none());
    }

    #[test]
    fn work_that_fails_is_an_error_and_not_a_graph() {
        let mut step = Step::recorded_by(Box::new(Rehearsal));
        let calls = Cell::new(0);
        let failing = |x: &Tensor| {
            calls.set(calls.get() + 1);
            if calls.get() > 2 { Err(TchError::Shape("no".into())) } else { doubled(x) }
        };
        let ran = |step: &mut Step<_, _>| step.run(&input(1.0), &failing).is_ok();
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
