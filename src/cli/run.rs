//! `panoptes run`: the pipeline on a real broker, until SIGTERM.

use anyhow::Context;
use clap::Args;

use super::config::SettingsArgs;
use crate::admin::{AdminServer, Readiness};
use crate::config::Settings;
use crate::pipeline::{self, PipelineSetup};
use crate::telemetry;

/// Flags of `panoptes run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Where the settings come from.
    #[command(flatten)]
    pub settings: SettingsArgs,
}

/// Runs until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// A [`crate::config::ConfigError`] before any I/O; later whatever stopped the stream.
pub fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let settings = Settings::load(&arguments.settings.sources())?;
    telemetry::init_logs(&settings.telemetry)?;
    let metrics = telemetry::install_metrics()?;
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    super::block_on(async move {
        let readiness = Readiness::default();
        let admin = AdminServer::bind(settings.admin.listen)
            .await
            .with_context(|| format!("failed to listen on `{}`", settings.admin.listen))?;
        tracing::info!(address = %admin.address(), "admin listening");
        let (stop_admin, admin_stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(admin.serve(readiness.clone(), metrics, async {
            admin_stopped.await.ok(); // an end of `run` by error stops it too
        }));
        // Loading and warming the model takes seconds of CPU: not on the runtime's threads.
        let setup =
            tokio::task::spawn_blocking(move || PipelineSetup::from_settings(&settings, readiness))
                .await
                .context("failed to set up")??;
        let outcome = pipeline::run(setup, stop_signal()?).await;
        drop(stop_admin);
        outcome?;
        serving.await.context("admin port panicked")??;
        tracing::info!("drained");
        Ok(())
    })
}

/// Resolves on the first SIGTERM or SIGINT; a second one ends the process at once, with nothing
/// lost but time: what was not published is not committed.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("failed to watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to watch for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("second signal: leaving without draining");
            std::process::exit(1);
        });
    })
}
