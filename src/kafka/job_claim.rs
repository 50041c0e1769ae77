//! A job that one process does at a time, since it is no group that shares it out: whoever claims it last has
//! it. A group that comes to it claims it, too, and its members share it out from then on.
//!
//! The claim is a name beside the job's ends. It is made first; then whatever transactional producers any
//! process of the job may have are ended; and only then is it read how far the job is. So what the one
//! before has committed is known, and it commits nothing more; and where it makes its producers anew, it
//! finds that the job is no more its own before it reads anything.

use std::collections::HashMap;
use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::{Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::Producer;

use super::client::BusSettings;
use super::commit_metadata;
use super::consumer::SharedLedger;
use super::group_offsets;
use super::job_offsets::{Job, JobError, LONGEST_WAIT, PATIENCE, PAUSE, insist, offsets_in};
use super::read_range::ReadRange;
use super::record_producer::RecordProducer;
use super::transaction_errors::is_retriable;
use crate::domain::TopicPartition;

/// What such a producer would accept; it produces nothing.
const MESSAGE_BYTES: usize = 1_000_000;

/// How far a partition of a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JobPosition {
    /// Its lowest unfinished offset.
    pub(super) position: i64,
    /// What is finished above it.
    pub(super) finished: Vec<Range<i64>>,
}

impl Job {
    /// Takes the job, from whichever process has it.
    ///
    /// # Errors
    /// When instances that read the topics are at it, or the brokers do not take the claim.
    pub fn claim(&self, range: &ReadRange, owner: &str) -> Result<(), JobError> {
        let failed = |source| self.error("look for the members", source);
        let groups = insist(|| self.positions.fetch_group_list(Some(&self.id), PATIENCE));
        let groups = groups.map_err(failed)?;
        if groups.groups().iter().any(|one| !one.members().is_empty()) {
            return Err(JobError::HasMembers(self.id.clone()));
        }
        let partitions = self.partitions().iter();
        let ends = partitions.map(|partition| (partition, range.end(partition), owner.to_owned()));
        self.commit(&self.ends, ends, "commit the claim")?;
        self.owner.get_or_init(|| owner.to_owned());
        Ok(())
    }

    /// Takes the job from a process that may have claimed it, for a group whose members share it out. Says whether
    /// one had: its producers are then to be ended, and it gives the job up as soon as it looks how far that is.
    ///
    /// # Errors
    /// When the brokers do not tell or take it.
    pub fn claim_for_group(&self) -> Result<bool, JobError> {
        let told = offsets_in(&self.committed(&self.ends, "read the claim")?);
        if told.values().all(|(_, owner)| owner.is_empty()) {
            return Ok(false);
        }
        let ends = told.iter();
        let ends = ends.map(|(partition, (end, _))| (partition, *end, String::new()));
        self.commit(&self.ends, ends, "commit the claim")?;
        Ok(true)
    }

    /// Ends the transactional producers of these names, whoever has them. Blocking.
    ///
    /// # Errors
    /// When the brokers do not take it.
    pub fn fence(
        &self,
        bus: &BusSettings,
        transactional_ids: &[String],
        timeout: Duration,
    ) -> Result<(), JobError> {
        let fence = |id: &String| fence(bus, id, timeout);
        let fenced: Vec<KafkaResult<()>> = thread::scope(|scope| {
            let fence = &fence;
            let threads = transactional_ids
                .iter()
                .map(|id| scope.spawn(move || fence(id)));
            let threads: Vec<_> = threads.collect();
            let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
            let joined = joined.map(|one| one.unwrap_or(Err(KafkaError::Canceled)));
            joined.collect()
        });
        let outcome: KafkaResult<()> = fenced.into_iter().collect();
        outcome.map_err(|source| self.error("end the producers", source))
    }

    /// Fails where another process has claimed the job since this one did.
    pub(super) fn check_claim(&self) -> Result<(), JobError> {
        let Some(owner) = self.owner.get() else {
            return Ok(());
        };
        let told = self.committed(&self.ends, "read the claim")?;
        let is_ours = told.elements().iter().all(|one| one.metadata() == owner);
        match is_ours {
            true => Ok(()),
            false => Err(JobError::TakenOver(self.id.clone())),
        }
    }

    /// How far each of the job's partitions is.
    pub(super) fn job_positions(&self) -> Result<HashMap<TopicPartition, JobPosition>, JobError> {
        let told = self.committed(&self.positions, "read the progress")?;
        let elements = told.elements();
        let mut found: HashMap<(&str, i32), JobPosition> = HashMap::new();
        for element in &elements {
            if let Offset::Offset(position) = element.offset() {
                let finished = commit_metadata::decode(position, element.metadata());
                let position = JobPosition { position, finished };
                found.insert((element.topic(), element.partition()), position);
            }
        }
        let mut positions = HashMap::new();
        for partition in self.partitions() {
            let found = found.remove(&(partition.topic.as_str(), partition.partition));
            let position = found.ok_or_else(|| JobError::NoPosition {
                id: self.id.clone(),
                partition: partition.clone(),
            })?;
            positions.insert(partition.clone(), position);
        }
        Ok(positions)
    }

    /// Commits what is finished, as no member of the group.
    pub(super) fn commit_finished(&self, ledger: &SharedLedger) -> KafkaResult<()> {
        group_offsets::commit(&self.positions, ledger)
    }

    /// What vouches for offsets in transactions: the group, and no member.
    pub(super) fn group_metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.positions.group_metadata()
    }
}

fn fence(bus: &BusSettings, transactional_id: &str, timeout: Duration) -> KafkaResult<()> {
    let producer =
        RecordProducer::connect_transactional(bus, MESSAGE_BYTES, transactional_id, timeout)?;
    let deadline = Instant::now() + LONGEST_WAIT;
    loop {
        match producer.client().init_transactions(PATIENCE) {
            Err(error) if is_retriable(&error) && Instant::now() < deadline => {
                tracing::debug!(%error, transactional_id, "a producer is not ended yet");
                thread::sleep(PAUSE);
            }
            ended => return ended,
        }
    }
}
