//! The operators' HTTP port: `/livez`, `/readyz`, `/status` and `/metrics`.
//!
//! It reports and changes nothing. `/livez` answers as long as the process serves at all;
//! `/readyz` answers 503 with what is still missing until the instance reads, scores and publishes;
//! `/status` says how far each partition has come and what holds it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::net::TcpListener;

use crate::status::{InstanceStatus, StatusBoard};
use crate::telemetry;
use crate::telemetry::partition_metrics;

/// How often histograms are folded while nobody scrapes; the exporter's own advice is seconds.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What must hold before an instance is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The consumer has its assignment (which may be empty when instances outnumber partitions).
    ConsumerAssigned,
    /// The model is loaded and checked.
    ModelLoaded,
    /// The publisher reaches the brokers.
    PublisherUp,
    /// The topics of results and dead letters are there.
    OutputTopics,
    /// The watchdog has not found the pipeline at a standstill.
    Moving,
}

impl Condition {
    const ALL: [Self; 5] = [
        Self::ConsumerAssigned,
        Self::ModelLoaded,
        Self::PublisherUp,
        Self::OutputTopics,
        Self::Moving,
    ];

    fn unmet(self) -> &'static str {
        match self {
            Self::ConsumerAssigned => "the consumer has no assignment yet",
            Self::ModelLoaded => "the model is not loaded yet",
            Self::PublisherUp => "the publisher does not reach the brokers",
            Self::OutputTopics => {
                "a topic of results or dead letters is missing, or not looked for yet"
            }
            Self::Moving => "the pipeline is not running, or stands still",
        }
    }
}

/// The state behind `/readyz`, shared between the pipeline and the port.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    flags: Arc<Flags>,
}

#[derive(Debug, Default)]
struct Flags {
    met: [AtomicBool; Condition::ALL.len()],
    draining: AtomicBool,
}

impl Readiness {
    /// Nothing is ready yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// States whether a condition holds.
    pub fn set(&self, condition: Condition, holds: bool) {
        self.flags.met[condition as usize].store(holds, Ordering::Relaxed);
        telemetry::set_ready(self.is_ready());
    }

    /// Whether a condition holds.
    pub fn is_met(&self, condition: Condition) -> bool {
        self.flags.met[condition as usize].load(Ordering::Relaxed)
    }

    /// Nothing is ready any more: what made it so is built anew.
    pub fn start_anew(&self) {
        for condition in Condition::ALL {
            self.set(condition, false);
        }
    }

    /// From now on no new work is taken.
    pub fn start_draining(&self) {
        self.flags.draining.store(true, Ordering::Relaxed);
        telemetry::set_ready(false);
    }

    /// Whether every condition holds and no drain has begun.
    pub fn is_ready(&self) -> bool {
        self.reasons().is_empty()
    }

    /// Why it is not ready.
    pub fn reasons(&self) -> Vec<&'static str> {
        let draining = self.flags.draining.load(Ordering::Relaxed);
        Condition::ALL
            .into_iter()
            .filter(|condition| !self.is_met(*condition))
            .map(Condition::unmet)
            .chain(draining.then_some("draining before the exit"))
            .collect()
    }
}

/// The port, bound and not yet serving.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl AdminServer {
    /// Takes the port; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address in use, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done, then finishes the requests under way.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        readiness: Readiness,
        board: StatusBoard,
        metrics: PrometheusHandle,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let upkeep = fold_histograms(metrics.clone());
        let router = router(readiness, board, metrics);
        let server = axum::serve(self.listener, router).with_graceful_shutdown(shutdown);
        tokio::select! {
            outcome = server.into_future() => outcome,
            () = upkeep => Ok(()),
        }
    }
}

async fn fold_histograms(metrics: PrometheusHandle) {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        metrics.run_upkeep();
    }
}

fn router(readiness: Readiness, board: StatusBoard, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(readiness.clone()))
        .route(
            "/status",
            get(status).with_state((readiness, board.clone())),
        )
        .route("/metrics", get(render).with_state((metrics, board)))
}

#[derive(Serialize)]
struct ReadinessReport {
    ready: bool,
    reasons: Vec<&'static str>,
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let reasons = readiness.reasons();
    let ready = reasons.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(ReadinessReport { ready, reasons })).into_response()
}

async fn status(
    State((readiness, board)): State<(Readiness, StatusBoard)>,
) -> Json<InstanceStatus> {
    let reasons = readiness.reasons();
    let pipeline = tokio::task::spawn_blocking(move || board.pipeline()).await;
    Json(InstanceStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: reasons.is_empty(),
        reasons: reasons.into_iter().map(str::to_owned).collect(),
        pipeline: pipeline.unwrap_or_default(),
    })
}

async fn render(State((metrics, board)): State<(PrometheusHandle, StatusBoard)>) -> Response {
    let text_format = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    let mut text = metrics.render();
    let pipeline = tokio::task::spawn_blocking(move || board.pipeline()).await;
    if let Ok(Some(pipeline)) = pipeline {
        text.push_str(&partition_metrics::render(&pipeline.partitions));
    }
    (text_format, text).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::status::PipelineStatus;

    struct Running {
        address: SocketAddr,
        readiness: Readiness,
        board: StatusBoard,
        stop: oneshot::Sender<()>,
        task: JoinHandle<io::Result<()>>,
    }

    async fn start() -> Running {
        let server = AdminServer::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        let address = server.address();
        let readiness = Readiness::new();
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, telemetry::view_accepted);
        let (stop, stopped) = oneshot::channel::<()>();
        let board = StatusBoard::default();
        let serving = server.serve(readiness.clone(), board.clone(), handle, async move {
            stopped.await.unwrap_or_default();
        });
        let task = tokio::spawn(serving);
        Running {
            address,
            readiness,
            board,
            stop,
            task,
        }
    }

    /// A client that knows nothing of the server's libraries.
    async fn request(address: SocketAddr, line: &'static str) -> String {
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(
                stream,
                "{line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"
            )
            .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn lives_from_the_start() {
        let running = start().await;
        let answer = request(running.address, "GET /livez").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn names_what_is_missing_until_it_is_ready() {
        let running = start().await;
        running.readiness.set(Condition::ModelLoaded, true);
        let answer = request(running.address, "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.contains("the consumer has no assignment yet"),
            "{answer}"
        );
        assert!(!answer.contains("model"), "{answer}");

        running.readiness.set(Condition::ConsumerAssigned, true);
        running.readiness.set(Condition::PublisherUp, true);
        running.readiness.set(Condition::OutputTopics, true);
        running.readiness.set(Condition::Moving, true);
        let answer = request(running.address, "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.ends_with(r#"{"ready":true,"reasons":[]}"#),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn is_not_ready_while_it_drains() {
        let running = start().await;
        for condition in Condition::ALL {
            running.readiness.set(condition, true);
        }
        running.readiness.start_draining();
        let answer = request(running.address, "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("draining before the exit"), "{answer}");
    }

    #[tokio::test]
    async fn renders_metrics_in_the_text_format() {
        let running = start().await;
        let answer = request(running.address, "GET /metrics").await;
        assert!(
            answer.contains("content-type: text/plain; version=0.0.4"),
            "{answer}"
        );
        assert!(answer.contains("\npanoptes_views_total 1\n"), "{answer}");
    }

    #[tokio::test]
    async fn tells_how_far_each_partition_has_come_while_a_pipeline_runs() {
        let running = start().await;
        let answer = request(running.address, "GET /status").await;
        assert!(answer.contains(r#""pipeline":null"#), "{answer}");

        running.board.show(PipelineStatus::at_rest);
        let answer = request(running.address, "GET /status").await;
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let status: InstanceStatus = serde_json::from_str(body).unwrap();
        assert_eq!(status.pipeline, Some(PipelineStatus::at_rest()));
        assert!(!status.ready);
        let answer = request(running.address, "GET /metrics").await;
        let line = "panoptes_partition_lag_records{topic=\"cam\",partition=\"0\"} 0\n";
        assert!(answer.contains(line), "{answer}");

        running.board.clear();
        let answer = request(running.address, "GET /metrics").await;
        assert!(
            !answer.contains("panoptes_partition_lag_records"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn refuses_other_paths_and_methods() {
        let running = start().await;
        let answer = request(running.address, "GET /").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let answer = request(running.address, "POST /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
    }

    #[tokio::test]
    async fn ends_when_told_to() {
        let running = start().await;
        running.stop.send(()).unwrap();
        running.task.await.unwrap().unwrap();
        assert!(TcpStream::connect(running.address).is_err());
    }

    #[tokio::test]
    async fn an_occupied_port_is_an_error() {
        let running = start().await;
        let error = AdminServer::bind(running.address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
