//! What keeps the poll thread from reading, and lets it go on: full stages behind, used up memory, the rate of
//! a replay, views of one part that may not meet, and too much of a partition that is unfinished.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;

use super::consumer::{POLL_INTERVAL, lock};
use super::consumer_messages::ConsumerEvent;
use super::pauses::Relief;
use super::poll_loop::PollLoop;
use super::poll_report::Reading;
use super::throttle;
use crate::domain::TopicPartition;
use crate::telemetry;

/// How long a full channel is waited for before every partition is paused. Pausing drops what
/// librdkafka has prefetched, so a short jam is better sat out.
const JAM_PATIENCE: Duration = Duration::from_secs(1);

/// How long nothing is read after the memory budget was last seen used up: the intake looks at it more
/// often than that, and then says which partitions may go on. Each pause drops what was prefetched.
const MEMORY_PAUSE: Duration = Duration::from_millis(100);

impl PollLoop {
    /// Whether records are read, and why not.
    pub(super) fn reading(&self) -> Reading {
        if self.is_drained {
            return Reading::Draining;
        }
        if self.is_held {
            return Reading::Held;
        }
        if self.is_jammed {
            return Reading::Jammed;
        }
        match self.throttled() {
            Some(_) => Reading::Throttled,
            None => Reading::Running,
        }
    }

    /// For how long nothing is read, lest more is than a replay may.
    pub(super) fn throttled(&self) -> Option<Duration> {
        self.throttle.as_ref()?.wait(Instant::now())
    }

    /// Pauses everything where the throttle asks for a longer wait than may be sat out, until that is over.
    pub(super) fn heed_throttle(&mut self) {
        let is_throttled = match self.throttled() {
            None => false,
            Some(wait) => self.is_throttled || wait >= throttle::PATIENCE,
        };
        if is_throttled == self.is_throttled {
            return;
        }
        self.is_throttled = is_throttled;
        self.tell_whether_halted();
        if is_throttled {
            self.pause(&self.assigned());
        } else {
            let free = lock(&self.consumer.context().pauses).free_of(&self.assigned());
            self.resume_unless_halted(&free);
        }
    }

    /// Pauses everything while views of one part may not meet.
    pub(super) fn heed_hold(&mut self) {
        let is_held = !self.consumer.context().may_read();
        if is_held == self.is_held {
            return;
        }
        self.is_held = is_held;
        telemetry::set_reading_held(is_held);
        if is_held {
            self.pause(&self.assigned());
        } else {
            let free = lock(&self.consumer.context().pauses).free_of(&self.assigned());
            self.resume_unless_halted(&free);
        }
    }

    /// Hands held events on; a jam pauses everything until channel and memory have room again.
    pub(super) fn hand_on(&mut self) {
        let patience = if self.is_jammed {
            POLL_INTERVAL
        } else {
            JAM_PATIENCE
        };
        if !self.send_waiting(Instant::now() + patience) || self.is_memory_used_up() {
            if !self.is_jammed {
                tracing::debug!("stages behind or memory are full: every partition paused");
                self.set_jammed(true);
                self.pause(&self.assigned());
            }
        } else if self.is_jammed {
            self.set_jammed(false);
            let free = lock(&self.consumer.context().pauses).free_of(&self.assigned());
            self.resume_unless_halted(&free);
        }
    }

    /// The intake decides what is paused for memory, but it may itself be waiting for the stages behind,
    /// and there is room for many records until it comes round.
    fn is_memory_used_up(&mut self) -> bool {
        let now = Instant::now();
        if self.budget.used_bytes() >= self.budget.limit_bytes() {
            self.used_up_at = Some(now);
        }
        self.used_up_at
            .is_some_and(|used_up_at| now.duration_since(used_up_at) < MEMORY_PAUSE)
    }

    pub(super) fn set_jammed(&mut self, is_jammed: bool) {
        self.is_jammed = is_jammed;
        self.tell_whether_halted();
    }

    /// Whether nothing is to be fetched, whatever is assigned.
    fn is_halted(&self) -> bool {
        self.is_jammed || self.is_throttled || self.is_drained
    }

    /// Tells it to the callbacks, which take assignments.
    fn tell_whether_halted(&self) {
        let context = self.consumer.context();
        context.is_halted.store(self.is_halted(), Ordering::Relaxed);
    }

    /// Pauses a partition of which so much is unfinished that a commit could soon not tell what is
    /// finished above its position.
    pub(super) fn crowd(&mut self, partition: TopicPartition, unfinished: usize) {
        let now = Instant::now();
        if !lock(&self.consumer.context().pauses).crowd(&partition, unfinished, now) {
            return;
        }
        tracing::debug!(
            topic = %partition.topic,
            partition = partition.partition,
            "as much is unfinished as a commit can tell: partition paused"
        );
        self.pause(&[partition]);
    }

    /// Resumes the crowded partitions of which half is finished, and tells of those of which nothing
    /// finishes.
    pub(super) fn relieve(&mut self) {
        let context = self.consumer.context();
        let mut pauses = lock(&context.pauses);
        let is_blind = context.is_blind.load(Ordering::Relaxed);
        let is_excused = self.reading().is_interrupted() || is_blind;
        let Relief { resumed, stuck } =
            pauses.relieve(&lock(&self.ledger), is_excused, Instant::now());
        let may_wait = pauses.few_enough();
        drop(pauses);
        self.waiting
            .extend(stuck.into_iter().map(|partition| ConsumerEvent::Stuck {
                partition,
                may_wait,
            }));
        self.resume_unless_halted(&resumed);
    }

    pub(super) fn pause(&self, partitions: &[TopicPartition]) {
        lock(&self.consumer.context().ends).refetch(partitions, Instant::now());
        if let Err(error) = self.consumer.pause(&self.still_assigned(partitions)) {
            tracing::warn!(%error, "failed to pause partitions");
        }
    }

    /// Resumes partitions that nothing holds, unless all are to be left.
    pub(super) fn resume_unless_halted(&self, free: &[TopicPartition]) {
        let may_read = !self.is_halted() && self.consumer.context().may_read();
        if may_read && !free.is_empty() {
            self.resume(free);
        }
    }

    fn resume(&self, partitions: &[TopicPartition]) {
        lock(&self.consumer.context().ends).refetch(partitions, Instant::now());
        if let Err(error) = self.consumer.resume(&self.still_assigned(partitions)) {
            tracing::warn!(%error, "failed to resume partitions");
        }
        self.waker.wake(partitions.to_vec());
    }

    fn still_assigned(&self, partitions: &[TopicPartition]) -> TopicPartitionList {
        let assignment = lock(&self.consumer.context().assignment);
        let mut list = TopicPartitionList::new();
        for partition in partitions.iter().filter(|one| assignment.contains(one)) {
            list.add_partition(partition.topic.as_str(), partition.partition);
        }
        list
    }

    pub(super) fn assigned(&self) -> Vec<TopicPartition> {
        lock(&self.consumer.context().assignment)
            .iter()
            .cloned()
            .collect()
    }
}
