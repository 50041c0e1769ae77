//! The stage that gathers closed groups into batches for the device.

use std::time::Instant;

use tokio::sync::mpsc;

use super::intake::BatchMessage;
use super::prepare::PendingGroup;
use crate::batcher::{Batch, Batcher};
use crate::domain::ScoringOrder;

/// Batches groups until the input closes; what is left then goes out too.
pub(crate) async fn batch_groups(
    mut batcher: Batcher<PendingGroup>,
    mut groups: mpsc::Receiver<BatchMessage>,
    batches: mpsc::Sender<Batch<PendingGroup>>,
) -> anyhow::Result<()> {
    loop {
        let due = batcher.deadline();
        let closed: Vec<Batch<PendingGroup>> = tokio::select! {
            message = groups.recv() => match message {
                Some(BatchMessage::Group(pending)) => {
                    let images = match pending.group.scoring {
                        ScoringOrder::Score => pending.group.views.len(),
                        ScoringOrder::Skip => 0,
                    };
                    batcher.push(pending, images, Instant::now())
                }
                Some(BatchMessage::Flush) => batcher.flush().into_iter().collect(),
                None => {
                    if let Some(batch) = batcher.flush() {
                        // A receiver that is gone has ended with an error of its own.
                        batches.send(batch).await.ok();
                    }
                    return Ok(());
                }
            },
            () = sleep_until(due) => batcher.close_due(Instant::now()).into_iter().collect(),
        };
        for batch in closed {
            if batches.send(batch).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Sleeps until the deadline, or for ever if there is none.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
