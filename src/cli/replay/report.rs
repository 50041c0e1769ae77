//! What a replay tells of its results when it is done: how they differ from those that were published then.
//!
//! Only the job's own results are held against the other topic, and of that only the parts that the job was
//! to score count as missing. A comparison that cannot be made is no failure of the replay.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use super::flags::ReplayArguments;
use crate::cli::compare::{ComparedTopics, ReportArguments, check_common};
use crate::comparison::{Comparison, ReplayedRange, Runs, Wanted};
use crate::config::Settings;
use crate::domain::{ClassName, Topic, TopicPartition};
use crate::kafka::client::BusSettings;
use crate::kafka::job_offsets::JobRange;
use crate::kafka::offset_survey::{OffsetAt, OffsetSurvey};
use crate::pipeline::{Selection, bus_settings};
use crate::replay::{Bound, Plan, RangeSpec};

/// How long the last transactions may take to be seen on the results topic.
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);
/// The pause before it is looked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Flags of `panoptes replay` for what it tells when it is done.
#[derive(Args, Clone, Debug)]
pub struct ReplayReportArguments {
    /// Results topic to compare with when the replay is done; the live line's by default
    #[arg(long, value_name = "TOPIC", conflicts_with = "no_report")]
    pub against: Option<String>,
    /// Compare nothing
    #[arg(long, conflicts_with_all = ["save_json", "html"])]
    pub no_report: bool,
    /// Where else the comparison goes
    #[command(flatten)]
    pub files: ReportArguments,
}

/// A comparison to be made.
pub(super) struct Report {
    topics: ComparedTopics,
    files: ReportArguments,
}

/// What became of it.
pub(super) enum Made {
    /// It was made.
    Compared {
        found: Box<Comparison>,
        /// Its tables.
        text: String,
    },
    /// There is nothing to compare, and why.
    Nothing(String),
}

impl Report {
    /// Of the job's results and those that were published then; none if none is wanted.
    ///
    /// # Errors
    /// When the live line's settings cannot be read.
    pub(super) fn plan(
        arguments: &ReplayArguments,
        settings: &Settings,
        range: &JobRange,
        without_lead: &Plan,
        selection: &Selection,
    ) -> anyhow::Result<Option<Self>> {
        let (flags, job) = (&arguments.report, &settings.bus.group_id);
        if flags.no_report {
            return Ok(None);
        }
        let against = match &flags.against {
            Some(topic) => topic.clone(),
            None => arguments.live_results_topic()?,
        };
        let replayed = ReplayedRange {
            parts: selection.parts.clone(),
            ..replayed_range(&arguments.range(), range, without_lead)
        };
        let of_a = Wanted {
            runs: Runs::AllBut(job.clone()),
            range: Some(replayed),
            ..Wanted::default()
        };
        let of_b = Wanted {
            runs: Runs::Only(job.clone()),
            ..Wanted::default()
        };
        let classes: BTreeSet<&ClassName> = selection.classes.iter().flatten().collect();
        Ok(Some(Self {
            topics: ComparedTopics {
                bus: bus_settings(&settings.bus),
                a: Topic::new(against),
                b: Topic::new(settings.output.results_topic.as_str()),
                wanted: [of_a, of_b],
                classes: classes.into_iter().map(ToString::to_string).collect(),
            },
            files: flags.files.clone(),
        }))
    }

    /// Makes it, once the job is complete.
    ///
    /// The other result is that of writing the files.
    ///
    /// # Errors
    /// When a topic cannot be read.
    pub(super) fn make(&self) -> anyhow::Result<(Made, anyhow::Result<()>)> {
        let ComparedTopics { bus, a, b, .. } = &self.topics;
        let survey = OffsetSurvey::connect(bus, super::SURVEY_PATIENCE)?;
        let names = [a, b].map(|topic| topic.as_str().to_owned());
        let there = survey.topics(&names)?;
        if let Some(missing) = [a, b].into_iter().find(|topic| !there.contains_key(*topic)) {
            let why = format!("results topic `{missing}` does not exist");
            return Ok((Made::Nothing(why), Ok(())));
        }
        let partitions = (0..there[b]).map(|partition| TopicPartition {
            topic: b.clone(),
            partition,
        });
        await_committed(bus, &survey, &partitions.collect::<Vec<_>>())?;
        let mut found = self.topics.compare()?;
        if let Err(why) = check_common(&found) {
            return Ok((Made::Nothing(why.to_string()), Ok(())));
        }
        let written = self.files.write(&mut found, &self.topics);
        // Who asks for all that flipped gets it in a file.
        found.flips.truncate(self.files.pictures);
        let made = Made::Compared {
            found: Box::new(found),
            text: written.text,
        };
        Ok((made, written.files))
    }
}

/// The offsets of the parts that the job is to score: those of the job, without its lead where its range is
/// one of time.
fn replayed_range(spec: &RangeSpec, range: &JobRange, without_lead: &Plan) -> ReplayedRange {
    let made = range.0.iter();
    let made = made.map(|(partition, one)| (partition.clone(), one.start..one.end));
    let mut offsets: HashMap<_, _> = made.collect();
    for one in &without_lead.partitions {
        let Some(range) = offsets.get_mut(&one.partition) else {
            continue;
        };
        if let Bound::Time(_) = spec.from {
            range.start = one.start.max(range.start);
        }
        if let Bound::Time(_) = spec.to {
            range.end = one.end.min(range.end);
        }
    }
    ReplayedRange {
        offsets,
        takes_whole_parts: matches!(spec.from, Bound::Time(_)),
        parts: None,
    }
}

/// Waits until all that was written to the topic can be read: a transaction counts as committed a moment
/// before its results can be seen.
fn await_committed(
    bus: &BusSettings,
    survey: &OffsetSurvey,
    partitions: &[TopicPartition],
) -> anyhow::Result<()> {
    let mut uncommitted = bus.clone();
    let isolation = ("isolation.level".to_owned(), "read_uncommitted".to_owned());
    uncommitted.properties.extend([isolation]);
    let written = OffsetSurvey::connect(&uncommitted, super::SURVEY_PATIENCE)?
        .offsets(partitions, OffsetAt::End)?;
    let deadline = Instant::now() + COMMIT_PATIENCE;
    loop {
        let readable = survey.offsets(partitions, OffsetAt::End)?;
        let is_behind = |(partition, end): (&TopicPartition, &i64)| readable[partition] < *end;
        if !written.iter().any(is_behind) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            // Somebody else's transaction, then: the job's own are committed.
            tracing::warn!("a transaction on the results topic stays open");
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

impl ReplayArguments {
    /// Checks what can be before anything long begins.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(super) fn check_report(&self) -> anyhow::Result<()> {
        let files = &self.report.files;
        files.check().context("the report could not be written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::kafka::job_offsets::JobPartition;
    use crate::replay::PlannedPartition;

    /// A job of offsets 5 to 49, which are 10 to 40 without the lead; of the plan, as it is by now.
    fn range(from: Bound, to: Bound) -> (std::ops::Range<i64>, bool) {
        let cam = TopicPartition {
            topic: "cam".into(),
            partition: 0,
        };
        let made = JobPartition {
            start: 5,
            end: 49,
            ..JobPartition::default()
        };
        let plan = Plan {
            partitions: vec![PlannedPartition {
                partition: cam.clone(),
                start: 10,
                end: 40,
                earliest: 0,
                deleted: None,
                is_cut: false,
            }],
        };
        let spec = RangeSpec {
            from,
            to,
            ..RangeSpec::default()
        };
        let found = replayed_range(&spec, &JobRange([(cam.clone(), made)].into()), &plan);
        (found.offsets[&cam].clone(), found.takes_whole_parts)
    }

    #[test]
    fn times_are_taken_without_the_lead_and_all_else_as_the_job_was_made() {
        let time = || Bound::Time(Timestamp(0));
        assert_eq!(range(time(), time()), (10..40, true));
        assert_eq!(range(Bound::Open, time()), (5..40, false));
        assert_eq!(range(time(), Bound::Open), (10..49, true));
        assert_eq!(range(Bound::Open, Bound::Open), (5..49, false));
    }
}
