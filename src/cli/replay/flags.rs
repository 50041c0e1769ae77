//! Flags of `panoptes replay`, and what follows from them alone.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytesize::ByteSize;
use clap::Args;

use super::archived::ArchiveFlags;
use super::report::ReplayReportArguments;
use crate::cli::config::SettingsArgs;
use crate::config::Settings;
use crate::domain::{ClassName, PartId, Timestamp, Topic, TopicPartition};
use crate::pipeline::Selection;
use crate::replay::{Bound, RangeSpec};

/// Flags of `panoptes replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayArguments {
    /// Where the settings come from: those of the live line, whose topics are read
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Where results go; not the live line's
    #[arg(long, value_name = "TOPIC")]
    pub results_topic: String,
    /// Where dead letters go; `<results topic>.dead-letters` by default
    #[arg(long, value_name = "TOPIC")]
    pub dead_letter_topic: Option<String>,
    /// Let results or dead letters go to the live line's topics
    #[arg(long)]
    pub into_live_topics: bool,
    /// The archive, where one is read
    #[command(flatten)]
    pub archived: ArchiveFlags,
    /// Model bundle; that of the settings by default
    #[arg(long, value_name = "BUNDLE")]
    pub model: Option<PathBuf>,
    /// Camera topics, instead of those of the settings: names, or one regular expression that starts with `^`
    #[arg(long = "topic", value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// Parts that began then or later (RFC 3339); by default as far back as the topics go
    #[arg(long, value_name = "TIME", value_parser = parse_from, conflicts_with = "from_offsets")]
    pub from: Option<jiff::Timestamp>,
    /// Parts that began before then; by default as far as the topics go when the job is made
    #[arg(long, value_name = "TIME", conflicts_with = "to_offsets")]
    pub to: Option<jiff::Timestamp>,
    /// From this offset of a partition on
    #[arg(long = "from-offset", value_name = "TOPIC[PARTITION]=OFFSET", value_parser = parse_offset)]
    pub from_offsets: Vec<(TopicPartition, i64)>,
    /// Up to this offset of a partition, itself not included
    #[arg(long = "to-offset", value_name = "TOPIC[PARTITION]=OFFSET", value_parser = parse_offset)]
    pub to_offsets: Vec<(TopicPartition, i64)>,
    /// How much more is read before `--from` and behind `--to`, so that parts which reach over them have
    /// all their views
    #[arg(long, default_value = "2m", value_parser = humantime::parse_duration)]
    pub lead: Duration,
    /// Parts of this class only
    #[arg(long = "class", value_name = "CLASS")]
    pub classes: Vec<String>,
    /// Parts whose IDs are in this file only, one a line
    #[arg(long, value_name = "FILE")]
    pub parts: Option<PathBuf>,
    /// The most bytes of images read in a second, of all instances of this process
    #[arg(long, value_name = "BYTES")]
    pub rate: Option<ByteSize>,
    /// Instances in this process
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel: u16,
    /// Name of the job, and of its consumer group; follows by default from all that its results depend on, so
    /// that the same command goes on with a job
    #[arg(long)]
    pub job: Option<String>,
    /// Do a job again from its beginning, of which the brokers have forgotten how far it was
    #[arg(long)]
    pub begin_anew: bool,
    /// Say how many records, parts and bytes it would be, and how long it would take
    #[arg(long)]
    pub dry_run: bool,
    /// What is compared when it is done
    #[command(flatten)]
    pub report: ReplayReportArguments,
    /// How often progress is told where standard error is no terminal
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub progress_interval: Duration,
}

/// Flags that do not go together with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ReplayFlagError {
    /// The live line's topic.
    #[error(
        "expected a topic of the replay's own for its {what}, found `{topic}`, which the settings name as \
         the live line's; give another one, or `--into-live-topics`"
    )]
    LiveTopic {
        /// Results or dead letters.
        what: &'static str,
        /// The topic.
        topic: String,
    },
    /// The live line's group.
    #[error(
        "expected the job to be a group of its own, found `{0}`, which the settings name as the live line's"
    )]
    LiveGroup(String),
    /// It has another task.
    #[error(
        "job `{0}` was made of another range, selection, model, topics or settings than these: expected those \
         that its results depend on to be the same; give this replay another `--job`"
    )]
    OtherTask(String),
    /// Its groups are gone, what it has closed is not.
    #[error(
        "job `{job}` was made before, since there is a topic `{topic}`, but the brokers do not know any more \
         how far it is (`offsets.retention.minutes`); with `--begin-anew` it begins anew, and parts that have \
         a result get it again under the same ID; or give another `--job`"
    )]
    ForgottenJob {
        /// The job.
        job: String,
        /// The topic of the parts that it has closed.
        topic: String,
    },
}

impl ReplayArguments {
    /// The live line's settings with what the flags put in their place.
    pub(super) fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = Settings::load(&self.settings.sources())?;
        let dead_letter_topic = match &self.dead_letter_topic {
            Some(topic) => topic.clone(),
            None => format!("{}.dead-letters", self.results_topic),
        };
        let live = &settings.output;
        for (what, topic) in [
            ("results", &self.results_topic),
            ("dead letters", &dead_letter_topic),
        ] {
            let is_live = [&live.results_topic, &live.dead_letter_topic].contains(&topic);
            if is_live && !self.into_live_topics {
                let topic = topic.clone();
                return Err(ReplayFlagError::LiveTopic { what, topic }.into());
            }
        }
        if self.job.as_ref() == Some(&settings.bus.group_id) {
            return Err(ReplayFlagError::LiveGroup(settings.bus.group_id).into());
        }
        settings.output.results_topic = self.results_topic.clone();
        settings.output.dead_letter_topic = dead_letter_topic;
        settings.output.closed_parts_topic = None; // follows the job's name
        if let Some(model) = &self.model {
            settings.model.path = model.clone();
        }
        let input = &mut settings.input;
        match self.topics.as_slice() {
            [] => {}
            [one] if one.starts_with('^') => {
                (input.topics, input.topic_regex) = (Vec::new(), Some(one.clone()));
            }
            names => (input.topics, input.topic_regex) = (names.to_vec(), None),
        }
        // The name of one consumer of the live line, which here each instance would have; and where that one
        // goes on when records that it was to read are gone, while a replay reads all that is left.
        for of_the_live_line in ["group.instance.id", "auto.offset.reset"] {
            settings.bus.properties.remove(of_the_live_line);
        }
        settings.validate()?;
        Ok(settings)
    }

    /// Where the live line publishes.
    pub(super) fn live_results_topic(&self) -> anyhow::Result<String> {
        let live = Settings::load(&self.settings.sources())?;
        Ok(live.output.results_topic)
    }

    pub(super) fn range(&self) -> RangeSpec {
        let bound = |time: Option<jiff::Timestamp>, offsets: &[(TopicPartition, i64)]| match time {
            Some(time) => Bound::Time(Timestamp(time.as_millisecond())),
            None if offsets.is_empty() => Bound::Open,
            None => Bound::Offsets(offsets.iter().cloned().collect::<HashMap<_, _>>()),
        };
        RangeSpec {
            from: bound(self.from, &self.from_offsets),
            to: bound(self.to, &self.to_offsets),
            lead: self.lead,
        }
    }

    pub(super) fn selection(&self, written: Option<Range<Timestamp>>) -> anyhow::Result<Selection> {
        let classes = self
            .classes
            .iter()
            .map(|class| ClassName::new(class.as_str()));
        let parts = self.parts.as_ref().map(|path| -> anyhow::Result<_> {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("failed to read part IDs from `{}`", path.display()))?;
            let ids = text.lines().filter(|line| !line.is_empty());
            Ok(ids.map(PartId::from).collect::<HashSet<_>>())
        });
        Ok(Selection {
            written,
            classes: (!self.classes.is_empty()).then(|| classes.collect()),
            parts: parts.transpose()?,
        })
    }
}

/// An archive is told apart, for it is where records come from, too.
fn parse_from(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse().map_err(|error: jiff::Error| {
        format!("expected a time: {error}; an archive is given with `--archive`")
    })
}

fn parse_offset(text: &str) -> Result<(TopicPartition, i64), String> {
    let parse = || {
        let (partition, offset) = text.rsplit_once('=')?;
        let (topic, number) = partition.strip_suffix(']')?.rsplit_once('[')?;
        let partition = TopicPartition {
            topic: Topic::new(topic),
            partition: number.parse().ok()?,
        };
        let offset: i64 = offset.parse().ok()?;
        (offset >= 0 && partition.partition >= 0 && !topic.is_empty())
            .then_some((partition, offset))
    };
    parse().ok_or_else(|| format!("expected `TOPIC[PARTITION]=OFFSET`, found `{text}`"))
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ReplayArguments,
    }

    pub(in crate::cli::replay) fn parse(words: &str) -> ReplayArguments {
        let words = std::iter::once("replay").chain(words.split_whitespace());
        Line::parse_from(words).arguments
    }

    #[test]
    fn the_live_topics_and_group_are_refused_unless_they_are_meant() {
        let live = parse("--results-topic panoptes.results --set input.topics=a");
        assert!(
            live.settings()
                .unwrap_err()
                .to_string()
                .contains("`panoptes.results`")
        );
        let letters = "--results-topic x --dead-letter-topic panoptes.dead-letters";
        let letters = parse(&format!("{letters} --set input.topics=a"));
        assert!(
            letters
                .settings()
                .unwrap_err()
                .to_string()
                .contains("dead letters")
        );
        let group = parse("--results-topic x --job panoptes --set input.topics=a");
        assert!(
            group
                .settings()
                .unwrap_err()
                .to_string()
                .contains("group of its own")
        );
        let meant = "--results-topic panoptes.results --into-live-topics";
        parse(&format!("{meant} --set input.topics=a"))
            .settings()
            .unwrap();
    }

    #[test]
    fn topics_of_the_flags_stand_in_place_of_those_of_the_settings() {
        for of_settings in ["input.topics=a.top,a.left", "input.topic_regex=^a"] {
            let input = |flags: &str| {
                let words = format!("--results-topic x --set {of_settings} {flags}");
                parse(&words).settings().unwrap().input
            };
            let regex = input("--topic ^b");
            assert_eq!(regex.topic_regex.as_deref(), Some("^b"));
            assert!(regex.topics.is_empty());
            let list = input("--topic b.top --topic b.left");
            assert_eq!(list.topics, ["b.top", "b.left"]);
            assert_eq!(list.topic_regex, None);
        }
    }

    #[test]
    fn instances_of_a_replay_are_no_static_members_and_begin_where_the_log_does() {
        let live = "--set bus.properties.group.instance.id=station-1 \
            --set bus.properties.auto.offset.reset=latest --set input.topics=a";
        let settings = parse(&format!("--results-topic x {live}"))
            .settings()
            .unwrap();
        for of_the_live_line in ["group.instance.id", "auto.offset.reset"] {
            assert_eq!(settings.bus.properties.get(of_the_live_line), None);
        }
    }

    #[test]
    fn an_archive_where_a_time_belongs_is_told_where_it_belongs() {
        let words = [
            "replay",
            "--results-topic",
            "x",
            "--from",
            "s3://plant/march",
        ];
        let error = Line::try_parse_from(words).err().unwrap().to_string();
        assert!(error.contains("`--archive`"), "{error}");
        let words = ["replay", "--results-topic", "x", "--create-topics"];
        let error = Line::try_parse_from(words).err().unwrap().to_string();
        assert!(error.contains("--archive <LOCATION>"), "{error}");
    }

    #[test]
    fn offsets_of_partitions_are_read_and_refused_by_name() {
        let (partition, offset) = parse_offset("line1.cam[top][3]=42").unwrap();
        assert_eq!(partition.topic.as_str(), "line1.cam[top]");
        assert_eq!((partition.partition, offset), (3, 42));
        for wrong in ["a[0]", "a=1", "a[x]=1", "a[0]=-1", "[0]=1", "a[0]=1x"] {
            let error = parse_offset(wrong).unwrap_err();
            assert!(error.contains(&format!("`{wrong}`")), "{error}");
        }
    }
}
