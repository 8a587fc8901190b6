//! A hundred runs leave no GStreamer object behind, by GStreamer's own leaks tracer.

mod support;

use std::process::Command;
use std::time::Duration;

use sonomask::media::SourcePipeline;
use sonomask::phantom::{PhantomConfig, PhantomReader};
use sonomask::pipeline::{Ended, run};
use support::*;

const CHILD: &str = "SONOMASK_TEST_LEAKS_CHILD";

/// The tracer is switched on by the environment before GStreamer starts and reports when it stops, so the runs
/// happen in a process of their own: this test again, with the variable set to what to do.
fn alive_after(what: &str) -> Vec<String> {
    let me = std::env::current_exe().expect("this test's own path");
    let child = Command::new(me)
        .args(["--exact", "a_hundred_runs_leave_nothing_behind", "--nocapture"])
        .env(CHILD, what)
        .env("GST_TRACERS", "leaks")
        .env("GST_DEBUG", "GST_TRACER:7")
        .env("GST_DEBUG_NO_COLOR", "1")
        .output()
        .expect("the child runs");
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{said}");
    let printed = String::from_utf8_lossy(&child.stdout);
    assert!(printed.contains("the child is done"), "{printed}");
    // The tracer also logs the layout of such lines, with %s in the place of names.
    said.lines().filter(|l| l.contains("object-alive,") && !l.contains("%s")).map(str::to_owned).collect()
}

#[test]
fn a_hundred_runs_leave_nothing_behind() {
    match std::env::var(CHILD).as_deref() {
        Ok("runs") => return hundred_runs(),
        Ok("leak") => return leak(),
        _ => {}
    }
    let seen = alive_after("leak");
    assert!(seen.iter().any(|l| l.contains("(string)GstBin,")), "a deliberate leak is seen: {seen:#?}");
    let alive = alive_after("runs");
    assert!(
        alive.is_empty(),
        "{} objects are alive, the first: {:#?}",
        alive.len(),
        &alive[..alive.len().min(5)]
    );
}

fn leak() {
    gstreamer::init().expect("GStreamer starts");
    std::mem::forget(gstreamer::Bin::new());
    end();
}

fn end() {
    // SAFETY: nothing of this process uses GStreamer after this call.
    unsafe { gstreamer::deinit() };
    println!("the child is done");
}

fn hundred_runs() {
    let config = PhantomConfig { width: 64, height: 64, ..phantom_config(4) };
    let mut interrupted = 0;
    for cycle in 0..100 {
        let (sink, _out) = collect();
        let reader = Box::new(PhantomReader::new(config.clone()).expect("a phantom"));
        let setup = Setup::default();
        let source = SourcePipeline::from_reader(reader, setup.pace, false).expect("a source");
        let plan = setup.plan(source, sink, OracleFactory::new(&config, |_| Ok(())));
        // Every other run is cut short.
        let patience =
            if cycle % 2 == 0 { Duration::from_secs(60) } else { Duration::from_millis(cycle % 7) };
        let finished =
            block_on(async { run(plan, |_| {}, tokio::time::sleep(patience)).await }).expect("a run");
        let f = finished.report.frames;
        assert_eq!(f.entered, f.out + f.dropped, "{f:?}");
        interrupted += u32::from(finished.report.ended == Ended::Interrupted);
    }
    assert!(interrupted > 5, "{interrupted} runs were cut short");
    end();
}
