//! `panoptes run`: the pipeline on a real broker, until SIGTERM.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use futures::FutureExt as _;

use super::config::SettingsArgs;
use crate::admin::{AdminServer, Readiness};
use crate::config::Settings;
use crate::pipeline::{self, PipelineSetup};
use crate::status::StatusBoard;
use crate::telemetry;

/// How many times in a row a pipeline is built anew before the process gives up.
const MOST_REBUILDS: u32 = 10;
/// A pipeline that has run for this long has not failed in a row with the one before.
const HEALTHY_AFTER: Duration = Duration::from_secs(1800);
/// The pause before a pipeline is built anew.
const REBUILD_PAUSE: Duration = Duration::from_secs(1);

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
        let board = StatusBoard::default();
        let admin = AdminServer::bind(settings.admin.listen)
            .await
            .with_context(|| format!("failed to listen on `{}`", settings.admin.listen))?;
        tracing::info!(address = %admin.address(), "admin listening");
        let (stop_admin, admin_stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(
            admin.serve(readiness.clone(), board.clone(), metrics, async {
                admin_stopped.await.ok(); // an end of `run` by error stops it too
            }),
        );
        let setup = {
            let readiness = readiness.clone();
            move || PipelineSetup::from_settings(&settings, readiness.clone(), board.clone())
        };
        let hung_up = tokio::spawn(heed_hang_ups()?);
        let outcome = run_until_stopped(setup, readiness, stop_signal()?).await;
        hung_up.abort();
        drop(stop_admin);
        outcome?;
        serving.await.context("admin port panicked")??;
        tracing::info!("drained");
        Ok(())
    })
}

/// Runs the pipeline until `stop`, and another one in its place where one has ended in a way that
/// starting from what the group has committed heals.
pub(super) async fn run_until_stopped(
    setup: impl Fn() -> anyhow::Result<PipelineSetup> + Send + Sync + 'static,
    readiness: Readiness,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let stop = stop.shared();
    let setup = Arc::new(setup);
    let mut rebuilds = 0;
    loop {
        let began = Instant::now();
        let made = Arc::clone(&setup);
        // Loading and warming the model takes seconds of CPU: not on the runtime's threads.
        let made = tokio::task::spawn_blocking(move || made())
            .await
            .context("failed to set up")??;
        let Err(error) = pipeline::run(made, stop.clone()).await else {
            return Ok(());
        };
        if began.elapsed() > HEALTHY_AFTER {
            rebuilds = 0;
        }
        if !pipeline::can_be_rebuilt(&error) || stop.peek().is_some() || rebuilds == MOST_REBUILDS {
            return Err(error);
        }
        rebuilds += 1;
        telemetry::pipeline_rebuilt();
        tracing::error!(
            error = format!("{error:#}"),
            rebuilds,
            "the pipeline cannot go on: building it anew from what the group has committed"
        );
        readiness.start_anew();
        tokio::time::sleep(REBUILD_PAUSE).await;
    }
}

/// Goes on at each SIGHUP, which would end the process undrained.
fn heed_hang_ups() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hang_ups = signal(SignalKind::hangup()).context("failed to watch for SIGHUP")?;
    Ok(async move {
        while hang_ups.recv().await.is_some() {
            tracing::warn!(
                "SIGHUP: going on as before; settings and model are read at the start only"
            );
        }
    })
}

/// Resolves on the first SIGTERM or SIGINT; a second one ends the process at once, with nothing
/// lost but time: what was not published is not committed.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
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
