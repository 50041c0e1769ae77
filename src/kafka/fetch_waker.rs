//! Wakes librdkafka's fetching where partitions are resumed.
//!
//! A broker's thread of librdkafka looks at its partitions when a broker answers, and where it fetches
//! nothing because all of them are paused, once a second (`rd_kafka_broker_consumer_serve`): resuming a
//! partition does not wake it, a request to the broker does. So the ends of resumed partitions are asked
//! for, which costs each broker one small request, on a thread of its own, because the answer is waited
//! for. A partition that is read from a follower (`client.rack`) may still wait for that second.

use std::collections::HashSet;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use crate::domain::TopicPartition;

/// How long the answer is waited for: a broker that does not answer is fetching nothing either.
const PATIENCE: Duration = Duration::from_millis(100);

/// A thread that wakes the brokers of partitions. It ends when this is dropped, and before that holds the
/// consumer.
pub(super) struct FetchWaker {
    resumed: Option<mpsc::Sender<Vec<TopicPartition>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl FetchWaker {
    pub(super) fn start<C: ConsumerContext + 'static>(
        consumer: Arc<BaseConsumer<C>>,
    ) -> std::io::Result<Self> {
        let (resumed, to_wake) = mpsc::channel::<Vec<TopicPartition>>();
        let thread = thread::Builder::new()
            .name("fetch-waker".into())
            .spawn(move || {
                while let Ok(partitions) = to_wake.recv() {
                    let mut partitions = HashSet::from_iter(partitions);
                    partitions.extend(to_wake.try_iter().flatten());
                    if let Err(error) = wake(&consumer, &partitions) {
                        tracing::debug!(%error, "failed to wake brokers of resumed partitions");
                    }
                }
            })?;
        Ok(Self {
            resumed: Some(resumed),
            thread: Some(thread),
        })
    }

    /// Has what leads these partitions look at them.
    pub(super) fn wake(&self, partitions: Vec<TopicPartition>) {
        if let Some(resumed) = &self.resumed
            && resumed.send(partitions).is_err()
        {
            tracing::warn!("the thread that wakes fetching has ended: resuming takes longer");
        }
    }
}

fn wake<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &HashSet<TopicPartition>,
) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        // As a point in time, which is what is looked up.
        list.add_partition_offset(partition.topic.as_str(), partition.partition, Offset::End)?;
    }
    consumer.offsets_for_times(list, PATIENCE).map(drop)
}

impl Drop for FetchWaker {
    fn drop(&mut self) {
        self.resumed = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the thread that wakes fetching panicked");
        }
    }
}
