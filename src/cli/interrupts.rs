//! SIGINT and SIGTERM for commands that compute for hours: end at a good place.

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::training::TrainingError;
use crate::training::iteration::StopRequest;

/// Watches for signals until it is dropped, which belongs at the end of the command: the signals'
/// usual effect does not come back.
pub(super) struct Interrupts {
    runtime: Option<Runtime>,
}

impl Interrupts {
    /// The first signal asks to stop; one after such a request, whoever made it, ends the process
    /// at once.
    ///
    /// # Errors
    /// When the system gives no thread or no signals.
    pub(super) fn watch(stop: StopRequest) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("failed to start the thread that watches for signals")?;
        let (terminate, interrupt) = {
            let _inside = runtime.enter();
            let watch = |kind| signal(kind).context("failed to watch for signals");
            (
                watch(SignalKind::terminate())?,
                watch(SignalKind::interrupt())?,
            )
        };
        runtime.spawn(obey(stop, terminate, interrupt));
        Ok(Self {
            runtime: Some(runtime),
        })
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn obey(stop: StopRequest, mut terminate: Signal, mut interrupt: Signal) {
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.is_requested() {
            eprintln!("leaving at once");
            std::process::exit(1);
        }
        stop.request();
        eprintln!("stopping after this iteration; a second signal leaves at once");
    }
}

/// A training error as a person should read it: after an interruption, how to go on.
pub(super) fn explain(error: TrainingError) -> anyhow::Error {
    match &error {
        TrainingError::Interrupted {
            checkpoint: Some(_),
            ..
        } => anyhow::anyhow!("{error}; the same command with `--resume` goes on from there"),
        _ => error.into(),
    }
}
