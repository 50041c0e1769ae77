//! How a job begins: it is found on the brokers, or made there.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::flags::{ReplayArguments, ReplayFlagError};
use super::retention::gone_since;
use crate::config::Settings;
use crate::domain::Topic;
use crate::kafka::job_offsets::{Job, JobPartition, JobRange};
use crate::kafka::offset_survey::{OffsetSurvey, partitions_of};
use crate::pipeline::bus_settings;
use crate::replay::Plan;

/// A job as it was found, or made.
pub(super) struct Begun {
    pub(super) job: Job,
    pub(super) range: JobRange,
    /// Topics that were deleted since it was made.
    pub(super) gone: BTreeSet<Topic>,
}

/// Goes on with the job of this task, or makes it.
pub(super) fn begin(
    arguments: &ReplayArguments,
    settings: &Settings,
    survey: &OffsetSurvey,
    plan: &Plan,
    task: &str,
) -> anyhow::Result<Begun> {
    let id = &settings.bus.group_id;
    let partitions = plan.partitions.iter().map(|one| one.partition.clone());
    let job = Job::connect(&bus_settings(&settings.bus), id, partitions.collect())
        .context("failed to make a client")?;
    let Some(found) = job.find()? else {
        if !arguments.begin_anew {
            check_that_it_is_new(settings, survey)?;
        }
        let range = job_range(plan);
        job.make(&range, task)?;
        let gone = BTreeSet::new();
        return Ok(Begun { job, range, gone });
    };
    if found.task.as_ref().is_some_and(|of_job| of_job != task) {
        return Err(ReplayFlagError::OtherTask(id.clone()).into());
    }
    tracing::info!(job = id, "going on with the job");
    job.keep(&found.range)?;
    let gone = gone_since(survey, &found.topics)?;
    found.expect_all_topics(id, &gone)?;
    let range = found.range;
    Ok(Begun { job, range, gone })
}

/// Camera topics by their names, without those that are gone since the job was made: it goes on without them.
pub(super) fn topics_left(
    settings: &Settings,
    survey: &OffsetSurvey,
    mut topics: Vec<String>,
) -> anyhow::Result<Vec<String>> {
    let there = survey.topics(&topics)?;
    let is_missing = |name: &str| !name.starts_with('^') && !there.contains_key(&Topic::new(name));
    if there.is_empty() || !topics.iter().any(|name| is_missing(name)) {
        return Ok(topics);
    }
    let partitions = partitions_of(there.clone()).collect();
    let bus = bus_settings(&settings.bus);
    let job = Job::connect(&bus, &settings.bus.group_id, partitions)?;
    if let Some(found) = job.find()? {
        let is_gone =
            |name: &String| is_missing(name) && found.topics.contains(&Topic::new(name.as_str()));
        topics.retain(|name| !is_gone(name));
    }
    Ok(topics)
}

/// A job that the brokers have forgotten does not begin anew in silence.
fn check_that_it_is_new(settings: &Settings, survey: &OffsetSurvey) -> anyhow::Result<()> {
    let topic = settings.closed_parts_topic();
    let there = survey.topics(std::slice::from_ref(&topic))?;
    if there.is_empty() {
        return Ok(());
    }
    let job = settings.bus.group_id.clone();
    Err(ReplayFlagError::ForgottenJob { job, topic }.into())
}

/// What a job is made of, by a plan.
pub(super) fn job_range(plan: &Plan) -> JobRange {
    let partitions = plan.partitions.iter().map(|one| {
        let partition = JobPartition {
            start: one.start,
            end: one.end.max(one.start),
            earliest: one.earliest,
            deleted: one.deleted,
            is_cut: one.is_cut,
        };
        (one.partition.clone(), partition)
    });
    JobRange(partitions.collect())
}

/// What the brokers no longer had of the range when the job was made.
pub(super) fn tell_what_is_gone(range: &JobRange) {
    for (partition, one) in range.0.iter().filter(|(_, one)| one.is_cut) {
        tracing::warn!(
            topic = %partition.topic,
            partition = partition.partition,
            first_offset = one.earliest,
            deleted_offsets = one.deleted,
            "records at the beginning of the range are deleted, or may be"
        );
    }
}
