//! The simulated line: cameras that publish, and readers of what Panoptes publishes.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Notify, mpsc};

use super::PATIENCE;
use super::account::{Account, Seen};
use super::scenario::{DemoPart, DemoView, FAULTY_VIEW, Fault};
use crate::domain::{Header, OutboundRecord, Topic};
use crate::kafka::client::BusSettings;
use crate::kafka::record_producer::RecordProducer;
use crate::kafka::topic_reader::{
    CONNECT_TIMEOUT, ReadFrom, ReadUntil, Reading, TopicReader, TopicReaderSettings,
};

/// The line's name.
pub(super) const LINE: &str = "demo-line";
/// Results topic.
pub(super) const RESULTS: &str = "demo.results";
/// Dead-letter topic.
pub(super) const DEAD_LETTERS: &str = "demo.dead-letters";
/// Topic of the closed parts.
pub(super) const CLOSED_PARTS: &str = "demo.closed-parts";

/// Time between two parts on the line.
const TAKT: Duration = Duration::from_millis(60);
/// How long the part with a duplicate waits for its last view; well below the timeout.
const DUPLICATE_LEAD: Duration = Duration::from_secs(1);
/// The largest record that is produced: no picture of the demo comes near.
const MAX_MESSAGE_BYTES: usize = 1_000_000;
/// How long a reader waits for one record.
const READ_PATIENCE: Duration = Duration::from_millis(100);

/// The topic of a camera.
pub(super) fn camera_topic(view: &str) -> Topic {
    Topic::new(format!("demo.cam.{view}"))
}

/// The cameras.
pub(super) struct SimulatedLine {
    producer: RecordProducer,
    published: Mutex<HashSet<String>>,
    something_published: Notify,
}

impl SimulatedLine {
    pub(super) fn connect(bus: &BusSettings) -> anyhow::Result<Self> {
        Ok(Self {
            producer: RecordProducer::connect(bus, MAX_MESSAGE_BYTES)
                .context("failed to connect the cameras")?,
            published: Mutex::new(HashSet::new()),
            something_published: Notify::new(),
        })
    }

    /// Notes which parts are published, for the late view.
    pub(super) fn note_published(&self, account: &Account) {
        let mut published = self
            .published
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        published.extend(account.published_parts().map(str::to_owned));
        self.something_published.notify_waiters();
    }

    /// Sends every part at the line's takt; the late views last.
    pub(super) async fn send(&self, parts: &[DemoPart]) -> anyhow::Result<()> {
        for part in parts {
            for (place, view) in part.views.iter().enumerate() {
                let fault = part.fault.filter(|_| place == FAULTY_VIEW);
                match fault {
                    Some(Fault::MissingView | Fault::LateView) => {}
                    Some(Fault::CorruptJpeg) => {
                        let cut = view.jpeg[..view.jpeg.len() / 2].to_vec();
                        self.send_view(part, view, cut).await?;
                    }
                    Some(Fault::DuplicateView) => {
                        self.send_view(part, view, view.jpeg.clone()).await?;
                        let second = part.second_image.clone().context("no second image")?;
                        self.send_view(part, view, second).await?;
                        // The part must still be open when the second image arrives, or it
                        // would be late and not a duplicate: topics have no common order.
                        tokio::time::sleep(DUPLICATE_LEAD).await;
                    }
                    None => self.send_view(part, view, view.jpeg.clone()).await?,
                }
            }
            tokio::time::sleep(TAKT).await;
        }
        for part in parts
            .iter()
            .filter(|part| part.fault == Some(Fault::LateView))
        {
            // A part that is lost must not keep the demo waiting: the account will name it.
            let published = self.wait_until_published(&part.id);
            if tokio::time::timeout(PATIENCE, published).await.is_err() {
                continue;
            }
            let view = &part.views[FAULTY_VIEW];
            self.send_view(part, view, view.jpeg.clone()).await?;
        }
        Ok(())
    }

    async fn wait_until_published(&self, part: &str) {
        loop {
            let notified = self.something_published.notified();
            if self
                .published
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(part)
            {
                return;
            }
            notified.await;
        }
    }

    async fn send_view(
        &self,
        part: &DemoPart,
        view: &DemoView,
        bytes: Vec<u8>,
    ) -> anyhow::Result<()> {
        let header = |name: &str, value: &str| Header {
            name: name.into(),
            value: Some(value.into()),
        };
        let record = OutboundRecord {
            topic: camera_topic(view.name),
            partition: None,
            key: Some(part.id.clone().into_bytes()),
            value: Some(bytes),
            headers: vec![
                header("content-type", "image/jpeg"),
                header("class", part.class.as_str()),
            ],
        };
        self.producer
            .send(&record)
            .await
            .with_context(|| format!("failed to send view `{}` of `{}`", view.name, part.id))
    }
}

/// Reads results and dead letters as they come, on a thread each.
pub(super) struct Watch {
    seen: mpsc::Receiver<anyhow::Result<Seen>>,
}

impl Watch {
    pub(super) fn start(bus: &BusSettings) -> anyhow::Result<Self> {
        let (sender, seen) = mpsc::channel(64);
        for (topic, wrap) in [
            (RESULTS, Seen::Result as fn(_) -> _),
            (DEAD_LETTERS, Seen::DeadLetter as fn(_) -> _),
        ] {
            let mut reader = TopicReader::open(&TopicReaderSettings {
                bus: bus.clone(),
                topic: Topic::from(topic),
                from: ReadFrom::Beginning,
                until: ReadUntil::Forever,
                connect_timeout: CONNECT_TIMEOUT,
            })?;
            let sender = sender.clone();
            std::thread::Builder::new()
                .name(format!("read {topic}"))
                .spawn(move || {
                    while !sender.is_closed() {
                        let sent = match reader.next(READ_PATIENCE) {
                            Ok(Reading::Record(record)) => sender.blocking_send(Ok(wrap(*record))),
                            Ok(Reading::Idle) => Ok(()),
                            Ok(Reading::Finished) => return,
                            Err(error) => sender.blocking_send(Err(error.into())),
                        };
                        if sent.is_err() {
                            return;
                        }
                    }
                })
                .context("failed to start a reader")?;
        }
        Ok(Self { seen })
    }

    /// The next record that Panoptes published; none when the readers ended.
    pub(super) async fn next(&mut self) -> Option<anyhow::Result<Seen>> {
        self.seen.recv().await
    }
}
