//! The stage that gathers closed groups into batches for the devices.
//!
//! Groups wait for company only while every device has work: with fewer batches ahead of them than there are
//! device threads they go at once, all that are there together. Under load batches fill meanwhile, so that
//! nothing is lost by it.

use std::time::Instant;

use tokio::sync::mpsc;

use super::in_flight::{InFlight, InFlightToken};
use super::intake::BatchMessage;
use super::prepare::PendingGroup;
use crate::batcher::{Batch, Batcher};
use crate::domain::ScoringOrder;

/// A batch on its way to the device; the token is dropped once the device has answered it.
pub(crate) type DeviceBatch = (Batch<PendingGroup>, InFlightToken);

/// Batches groups for so many device threads until the input closes; what is left then goes out too.
pub(crate) async fn batch_groups(
    mut batcher: Batcher<PendingGroup>,
    devices: usize,
    mut groups: mpsc::Receiver<BatchMessage>,
    batches: mpsc::Sender<DeviceBatch>,
) -> anyhow::Result<()> {
    let ahead = InFlight::default();
    loop {
        let due = batcher.deadline();
        let closed: Vec<Batch<PendingGroup>> = tokio::select! {
            biased; // what is there already joins before the batch goes
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
                        batches.send((batch, ahead.enter())).await.ok();
                    }
                    return Ok(());
                }
            },
            _ = ahead.fewer_than(devices), if due.is_some() => batcher.flush().into_iter().collect(),
            () = sleep_until(due) => batcher.close_due(Instant::now()).into_iter().collect(),
        };
        for batch in closed {
            if batches.send((batch, ahead.enter())).await.is_err() {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{CloseCause, Group, PartClosure, PartKey, Reuse, SourceOffset, Timestamp};

    fn group(part: &str) -> BatchMessage {
        let group = Group {
            part: PartKey {
                line: "line1".into(),
                part: part.into(),
            },
            class: None,
            views: Vec::new(),
            missing: Vec::new(),
            absorbed: Vec::new(),
            duplicates: Vec::new(),
            cause: CloseCause::Complete,
            scoring: ScoringOrder::Score,
            first_view_at: Timestamp(0),
            last_view_at: Timestamp(0),
        };
        let opened_by = SourceOffset {
            topic: "cam".into(),
            partition: 0,
            offset: 0,
        };
        let closure = PartClosure {
            part: group.part.clone(),
            opened_by,
            reuse: Reuse {
                taken_after: Timestamp(0),
                written_after: Timestamp(0),
            },
            views: Vec::new(),
            records: Vec::new(),
        };
        BatchMessage::Group(PendingGroup {
            group,
            closure: closure.into(),
            token: InFlight::default().enter(),
        })
    }

    fn parts((batch, _): &DeviceBatch) -> Vec<&str> {
        let groups = batch.groups.iter();
        groups
            .map(|pending| pending.group.part.part.as_str())
            .collect()
    }

    #[tokio::test]
    async fn groups_wait_for_company_only_while_the_device_is_busy() {
        let (groups, to_batch) = mpsc::channel(8);
        let (batches, mut to_prepare) = mpsc::channel(1);
        // So long that a test which waited for it would not end.
        let batcher = Batcher::new(8, Duration::from_secs(3600));
        for part in ["first", "second"] {
            groups.send(group(part)).await.unwrap();
        }
        let stage = tokio::spawn(batch_groups(batcher, 1, to_batch, batches));
        let on_device = to_prepare.recv().await.unwrap();
        assert_eq!(parts(&on_device), ["first", "second"]);

        for part in ["third", "fourth"] {
            groups.send(group(part)).await.unwrap();
        }
        while groups.capacity() < groups.max_capacity() {
            tokio::task::yield_now().await; // until the stage has taken them in
        }
        assert!(to_prepare.try_recv().is_err(), "the device is busy");
        drop(on_device);
        let next = to_prepare.recv().await.unwrap();
        assert_eq!(parts(&next), ["third", "fourth"]);
        drop(groups);
        stage.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_free_device_gets_what_is_there_while_another_is_busy() {
        let (groups, to_batch) = mpsc::channel(8);
        let (batches, mut to_prepare) = mpsc::channel(1);
        let batcher = Batcher::new(8, Duration::from_secs(3600));
        let stage = tokio::spawn(batch_groups(batcher, 2, to_batch, batches));
        groups.send(group("first")).await.unwrap();
        let on_one = to_prepare.recv().await.unwrap();
        groups.send(group("second")).await.unwrap();
        let next = tokio::time::timeout(Duration::from_secs(60), to_prepare.recv()).await;
        let on_other = next.expect("a device is free").unwrap();
        assert_eq!(parts(&on_other), ["second"]);

        groups.send(group("third")).await.unwrap();
        while groups.capacity() < groups.max_capacity() {
            tokio::task::yield_now().await; // until the stage has taken it in
        }
        assert!(to_prepare.try_recv().is_err(), "both devices are busy");
        drop(on_other);
        let next = to_prepare.recv().await.unwrap();
        assert_eq!(parts(&next), ["third"]);
        drop((on_one, groups));
        stage.await.unwrap().unwrap();
    }
}
