//! A job that one process does at a time, since it is no group that shares it out: whoever claims it last has
//! it. A group that comes to it claims it, too, and its members share it out from then on.
//!
//! The claim is a name beside the job's ends. It is made first; then whatever transactional producers any
//! process of the job may have are ended; and only then is it read how far the job is. So what the one
//! before has committed is known, and it commits nothing more; and where it makes its producers anew, it
//! finds that the job is no more its own before it reads anything. A group's claim says for as long that
//! there are producers to end, so that another member ends them where the first one dies in the midst of it.

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
use super::record_producer::RecordProducer;
use super::transaction_errors::is_retriable;
use crate::domain::TopicPartition;

/// The claim of a group, and of a job that nobody has claimed.
const GROUP: &str = "";
/// The claim of a group until the producers of the process before it are ended.
const GROUP_TO_BE: &str = "group, once the producers of the process before it are ended";

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
    pub fn claim(&self, owner: &str) -> Result<(), JobError> {
        self.check_that_it_has_no_members()?;
        self.write_claim(owner)?;
        self.owner.get_or_init(|| owner.to_owned());
        // A group that claimed it before may have gained them since.
        self.check_that_it_has_no_members()
            .or_else(|error| self.write_claim(GROUP).and(Err(error)))
    }

    /// Takes the job for a group whose members share it out. A process that has it gives it up as soon as it looks
    /// how far that is; where there may be one, its producers are ended.
    ///
    /// # Errors
    /// When the brokers do not tell or take the claim, or the producers cannot be ended.
    pub fn claim_for_group(
        &self,
        end_producers: impl Fn() -> Result<(), JobError>,
    ) -> Result<(), JobError> {
        self.owner.get_or_init(|| GROUP.to_owned());
        while !self.is_claimed_by(&[GROUP])? {
            self.write_claim(GROUP_TO_BE)?;
            end_producers()?;
            // Not where a process has claimed it meanwhile.
            if self.is_claimed_by(&[GROUP_TO_BE])? {
                self.write_claim(GROUP)?;
            }
        }
        Ok(())
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
        let is_ours = match self.owner.get().map(String::as_str) {
            None => true,
            Some(GROUP) => self.is_claimed_by(&[GROUP, GROUP_TO_BE])?,
            Some(owner) => self.is_claimed_by(&[owner])?,
        };
        match is_ours {
            true => Ok(()),
            false => Err(JobError::TakenOver(self.id.clone())),
        }
    }

    /// Whether this process has it, and no group.
    pub(super) fn is_of_one_process(&self) -> bool {
        self.owner.get().is_some_and(|owner| owner != GROUP)
    }

    fn is_claimed_by(&self, owners: &[&str]) -> Result<bool, JobError> {
        let told = offsets_in(&self.committed(&self.ends, "read the claim")?);
        let mut claims = told.values().map(|(_, claim)| claim.as_str());
        Ok(claims.all(|claim| owners.contains(&claim)))
    }

    fn write_claim(&self, owner: &str) -> Result<(), JobError> {
        let told = offsets_in(&self.committed(&self.ends, "read the ends")?);
        let ends = told.iter();
        let ends = ends.map(|(partition, (end, _))| (partition, *end, owner.to_owned()));
        self.commit(&self.ends, ends, "commit the claim")
    }

    fn check_that_it_has_no_members(&self) -> Result<(), JobError> {
        let groups = insist(|| self.positions.fetch_group_list(Some(&self.id), PATIENCE));
        let groups = groups.map_err(|source| self.error("look for the members", source))?;
        match groups.groups().iter().all(|one| one.members().is_empty()) {
            true => Ok(()),
            false => Err(JobError::HasMembers(self.id.clone())),
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::Topic;
    use crate::kafka::embedded::EmbeddedBroker;
    use crate::kafka::job_offsets::{JobPartition, JobRange};

    /// A job as two processes see it.
    struct Bench {
        _broker: EmbeddedBroker,
        range: JobRange,
        process: Job,
        group: Job,
    }

    impl Bench {
        fn start() -> Self {
            let broker = EmbeddedBroker::start().unwrap();
            broker.create_topic(&Topic::from("cam"), 1).unwrap();
            let bus = BusSettings {
                brokers: broker.brokers(),
                ..BusSettings::default()
            };
            let partition = TopicPartition {
                topic: Topic::from("cam"),
                partition: 0,
            };
            let job = || Job::connect(&bus, "job", vec![partition.clone()]).unwrap();
            let (process, group) = (job(), job());
            let of_partition = JobPartition {
                end: 6,
                ..JobPartition::default()
            };
            let range = JobRange([(partition.clone(), of_partition)].into());
            process.make(&range, "task").unwrap();
            Self {
                _broker: broker,
                range,
                process,
                group,
            }
        }

        /// As a process claims it, but for the members: the mock cluster tells of none.
        fn claim(&self) {
            self.process.write_claim("process").unwrap();
            self.process.owner.get_or_init(|| "process".to_owned());
        }

        /// Whether that one goes on with it, and looks how far it is.
        fn has(&self, job: &Job) -> bool {
            match job.progress(&self.range, &BTreeSet::new()) {
                Ok(progress) => {
                    assert_eq!(progress.left, 6);
                    true
                }
                Err(JobError::TakenOver(_)) => false,
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn a_group_ends_producers_until_that_has_succeeded_and_only_where_a_process_may_have_some() {
        let bench = Bench::start();
        let ended = Cell::new(0);
        let end = || {
            ended.set(ended.get() + 1);
            match ended.get() {
                1 => Err(bench.group.error("end", KafkaError::Canceled)),
                _ => Ok(()),
            }
        };
        bench.group.claim_for_group(end).unwrap();
        assert_eq!(ended.get(), 0);

        bench.claim();
        assert!(bench.has(&bench.process) && !bench.has(&bench.group));
        bench.group.claim_for_group(end).unwrap_err();
        assert!(!bench.has(&bench.process) && bench.has(&bench.group));
        for _ in 0..2 {
            bench.group.claim_for_group(end).unwrap();
            assert_eq!(ended.get(), 2);
            assert!(!bench.has(&bench.process) && bench.has(&bench.group));
        }
    }

    #[test]
    fn a_process_that_claims_the_job_while_a_group_ends_producers_loses_it_and_its_own() {
        let bench = Bench::start();
        bench.claim();
        let ended = Cell::new(0);
        let end = || {
            ended.set(ended.get() + 1);
            if ended.get() == 1 {
                bench.claim();
            }
            Ok(())
        };
        bench.group.claim_for_group(end).unwrap();
        assert_eq!(ended.get(), 2);
        assert!(!bench.has(&bench.process) && bench.has(&bench.group));
    }
}
