//! Closed loop: the model is called back to back.

use std::time::{Duration, Instant};

use super::case::{CaseError, Prepared, stages_of};
use super::result::FrameRow;
use super::spec::CaseSpec;
use super::usage::{CpuClock, CpuSpan, GpuUse, GpuWatch};
use crate::stage::StageTimes;

/// What a loop leaves beside the rows.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub rows: Vec<FrameRow>,
    /// CPU time of the frames that count.
    pub cpu: Option<CpuSpan>,
    pub gpu: Option<GpuUse>,
    pub interrupted: bool,
}

/// Calls the model until frames or seconds are over, or `stopped`.
pub(super) fn closed(
    spec: &CaseSpec,
    prepared: &mut Prepared,
    progress: &mut dyn FnMut(u64),
    stopped: &dyn Fn() -> bool,
) -> Result<Measured, CaseError> {
    let zero = Instant::now();
    let ms = |at: Instant| super::case::ms(at.saturating_duration_since(zero));
    let watch = GpuWatch::start(&prepared.model.info().device);
    let (mut measured, mut cpu, mut counting) = (Measured::default(), None, zero);
    for frame in 0_u64.. {
        if stopped() {
            measured.interrupted = true;
            break;
        }
        let counted = frame >= spec.warmup;
        if frame == spec.warmup {
            cpu = CpuClock::now();
            counting = Instant::now();
            watch.iter().for_each(GpuWatch::restart);
        }
        let over = spec.frames.is_some_and(|n| frame >= spec.warmup + n);
        let late = spec.seconds.is_some_and(|s| counted && counting.elapsed() >= Duration::from_secs_f64(s));
        // One frame at least, however short the time.
        if over || late && frame > spec.warmup {
            break;
        }
        let Prepared { footage, model, guidance, .. } = &mut *prepared;
        let mut times = StageTimes::default();
        let (began, ended) = footage.view(frame, |view| {
            let began = Instant::now();
            model.segment(view, guidance, false, &mut times).map(|_| (began, Instant::now()))
        })??;
        measured.rows.push(FrameRow {
            frame,
            counted,
            due_ms: ms(began),
            began_ms: Some(ms(began)),
            ended_ms: Some(ms(ended)),
            stages_ms: stages_of(&times),
            ..FrameRow::default()
        });
        progress(frame + 1);
    }
    measured.cpu = cpu.and_then(|cpu: CpuClock| cpu.since());
    measured.gpu = watch.and_then(GpuWatch::end);
    Ok(measured)
}
