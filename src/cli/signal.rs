//! Ctrl-C and termination, asked for politely.

use std::sync::OnceLock;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

static STOP: OnceLock<watch::Receiver<bool>> = OnceLock::new();

/// From now on the first SIGINT or SIGTERM asks the work to end, and the second ends the process at once. To be called
/// on a tokio runtime; later calls do nothing.
pub fn install() {
    let (ask, asked) = watch::channel(false);
    if STOP.set(asked).is_err() {
        return;
    }
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the signals keep their default action, which ends the process.
        return;
    };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = int.recv() => {}
                _ = term.recv() => {}
            }
            if ask.send_replace(true) {
                // Not `exit`: it takes libtorch's tables apart under a network that is still at work, which then fails or reads freed
                // memory.
                // SAFETY: it does not come back.
                unsafe { libc::_exit(130) };
            }
            tracing::info!("stopping; once more to end at once");
        }
    });
}

/// Completes when the work shall end.
pub async fn stop() {
    if let Some(mut asked) = STOP.get().cloned()
        && asked.wait_for(|stop| *stop).await.is_ok()
    {
        return;
    }
    // Without handlers there is nothing to wait for.
    std::future::pending().await
}

/// Whether the work shall end.
pub fn stopped() -> bool {
    STOP.get().is_some_and(|asked| *asked.borrow())
}
