//! Ctrl-C and termination, asked for politely.

use tokio::signal::unix::{SignalKind, signal};

/// Completes at the first SIGINT or SIGTERM. A second one ends the process at once.
pub async fn stop() {
    wait().await;
    tracing::info!("stopping; once more to end at once");
    tokio::spawn(async {
        wait().await;
        std::process::exit(130);
    });
}

async fn wait() {
    let (Ok(mut int), Ok(mut term)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        // Without handlers the signals keep their default action, which ends the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}
