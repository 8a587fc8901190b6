//! A result as a trace: every frame's way through the threads, for `chrome://tracing` or Perfetto.

use serde_json::{Value, json};

use super::figures::MODEL_STAGES;
use super::result::{BenchResult, CaseResult, FrameRow};
use super::spec::Drive;
use crate::stage::Stage;

/// Threads of a case, as rows of the trace.
const THREADS: [(u32, &str); 4] = [(1, "stream"), (2, "model"), (3, "compositor"), (4, "glass to glass")];
/// The trace event format's JSON object form. Each case is a process, its threads are the stream, the model, the compositor and
/// the whole way; times are microseconds on the case's own clock.
pub fn chrome_trace(result: &BenchResult) -> Value {
    let mut events = Vec::new();
    for (pid, case) in result.cases.iter().enumerate().filter(|(_, case)| !case.rows.is_empty()) {
        let pid = pid as u64 + 1;
        events.push(json!({"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": case.case.name}}));
        for (tid, name) in THREADS {
            events.push(
                json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}),
            );
        }
        let mut busy_until = 0.0;
        for row in &case.rows {
            frame(&mut events, pid, case, row, &mut busy_until);
        }
    }
    json!({
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"name": result.name, "commit": result.commit, "began": result.began},
    })
}

fn frame(events: &mut Vec<Value>, pid: u64, case: &CaseResult, row: &FrameRow, pushed_until: &mut f64) {
    let mut add = |tid: u32, name: &str, from_ms: f64, length_ms: f64| {
        events.push(json!({
            "ph": "X", "cat": "frame", "name": name, "pid": pid, "tid": tid,
            "ts": from_ms * 1e3, "dur": length_ms.max(0.0) * 1e3,
            "args": {"frame": row.frame, "counted": row.counted},
        }));
    };
    let stage = |stage: Stage| row.stages_ms.get(stage.name()).copied();
    if let (Some(captured), Some(length)) = (row.captured_ms, stage(Stage::Capture)) {
        add(1, Stage::Capture.name(), captured, length);
    }
    if let (Some(began), Some(ended)) = (row.began_ms, row.ended_ms) {
        add(2, "frame", began, ended - began);
        let mut at = began;
        // They are not stamped one by one: they lie end to end within the call, in the order in which it passes them.
        for one in MODEL_STAGES {
            if let Some(length) = stage(one) {
                add(2, one.name(), at, length);
                at += length;
            }
        }
    }
    if let Some(pushed) = row.pushed_ms {
        let (overlay, push) = (stage(Stage::Overlay).unwrap_or(0.0), stage(Stage::Push).unwrap_or(0.0));
        // One thread does one thing at a time; clocks are read between the stages.
        let begin = (pushed - push - overlay).max(*pushed_until);
        add(3, Stage::Overlay.name(), begin, overlay.min(pushed - begin));
        add(3, Stage::Push.name(), pushed - push, push);
        *pushed_until = pushed;
    }
    if let (Some(mark), Some(glass)) = (row.mark_ms, row.glass_ms) {
        // Frames overlap on the way; asynchronous events may.
        for (ph, at) in [("b", mark), ("e", glass)] {
            events.push(json!({
                "ph": ph, "cat": "glass", "id": row.frame, "name": "glass to glass", "pid": pid, "tid": 4, "ts": at * 1e3,
                "args": {"frame": row.frame, "mask_age_ms": row.mask_age_ms},
            }));
        }
    } else if case.case.drive != Drive::Closed && row.pushed_ms.is_none() {
        events.push(json!({
            "ph": "i", "s": "t", "name": "lost", "pid": pid, "tid": 1, "ts": row.due_ms * 1e3, "args": {"frame": row.frame},
        }));
    }
}
