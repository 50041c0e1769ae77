//! Results as a `read_committed` reader has them, each part exactly once and whole.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::sync::mpsc;

use super::line::BenchLine;
use crate::domain::{Record, Timestamp};
use crate::kafka::topic_reader::{
    CONNECT_TIMEOUT, ReadFrom, ReadUntil, Reading, TopicReader, TopicReaderSettings,
};
use crate::schema::result::PartResult;

/// How long one look waits.
const READ_PATIENCE: Duration = Duration::from_millis(100);
/// How long no result may come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Results on their way from the reader's thread.
const CHANNEL: usize = 1024;

/// A part's result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) part: usize,
    /// When it was read.
    pub(super) at: Instant,
    /// From the append of the part's last view, by the broker's clock, to when it was read.
    pub(super) since_append: Duration,
}

/// The results of one pipeline.
pub(super) struct Outcomes {
    read: mpsc::Receiver<anyhow::Result<Outcome>>,
}

impl Outcomes {
    /// Starts to read the results of a round.
    pub(super) fn of(line: &BenchLine, round: usize) -> anyhow::Result<Self> {
        let mut reader = TopicReader::open(&TopicReaderSettings {
            bus: line.bus.clone(),
            topic: line.results(round),
            from: ReadFrom::Beginning,
            until: ReadUntil::Forever,
            connect_timeout: CONNECT_TIMEOUT,
        })?;
        let (results, read) = mpsc::channel(CHANNEL);
        std::thread::Builder::new()
            .name("read results".into())
            .spawn(move || {
                while !results.is_closed() {
                    let outcome = match reader.next(READ_PATIENCE) {
                        Ok(Reading::Record(record)) => outcome(&record),
                        Ok(Reading::Idle) => continue,
                        Ok(Reading::Finished) => return,
                        Err(error) => Err(error.into()),
                    };
                    if results.blocking_send(outcome).is_err() {
                        return;
                    }
                }
            })
            .context("failed to start the reader of the results")?;
        Ok(Self { read })
    }

    /// The next result.
    pub(super) async fn next(&mut self) -> anyhow::Result<Outcome> {
        match tokio::time::timeout(PATIENCE, self.read.recv()).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => bail!("the reader of the results ended"),
            Err(_) => bail!("no result came for `{PATIENCE:?}`"),
        }
    }

    /// The results of these parts, in the order in which they came.
    pub(super) async fn all_of(&mut self, parts: Range<usize>) -> anyhow::Result<Vec<Outcome>> {
        let mut missing: BTreeSet<usize> = parts.clone().collect();
        let mut outcomes = Vec::with_capacity(missing.len());
        while let Some(first) = missing.first() {
            let outcome = self.next().await.with_context(|| {
                let count = missing.len();
                format!("`{count}` parts have no result, the first is `{first}`")
            })?;
            ensure!(
                missing.remove(&outcome.part),
                "expected one result of each of the parts `{parts:?}`, found another of `{}`",
                outcome.part
            );
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }
}

fn outcome(record: &Record) -> anyhow::Result<Outcome> {
    let at = Instant::now();
    let read_at = jiff::Timestamp::now().as_millisecond();
    let value = record.value.as_deref().context("a result has no value")?;
    let result = PartResult::from_bytes(value)?;
    ensure!(
        !result.is_partial,
        "expected whole parts, found `{}` without some of its views",
        result.part_id
    );
    let number = result.part_id.rsplit_once('-').map(|(_, number)| number);
    let part = number.and_then(|number| number.parse().ok());
    Ok(Outcome {
        part: part.with_context(|| format!("a part `{}` was never sent", result.part_id))?,
        at,
        since_append: Timestamp(read_at).since(Timestamp(result.timing.last_view_at)),
    })
}
