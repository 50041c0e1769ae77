//! Reads two results topics side by side.

use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::comparison::{Comparison, Side, Wanted};
use crate::domain::Topic;
use crate::kafka::client::BusSettings;
use crate::kafka::topic_reader::{
    CONNECT_TIMEOUT, ReadFrom, ReadUntil, TopicReader, TopicReaderSettings,
};

/// How long nothing may come before the end of a topic.
const PATIENCE: Duration = Duration::from_secs(30);

/// The two topics, and what of them is compared.
#[derive(Clone, Debug)]
pub(crate) struct ComparedTopics {
    /// How to reach the brokers.
    pub(crate) bus: BusSettings,
    /// The topic with what was decided then.
    pub(crate) a: Topic,
    /// The topic with what would be decided now.
    pub(crate) b: Topic,
    /// Which results of both are compared.
    pub(crate) wanted: [Wanted; 2],
    /// The classes whose parts are compared; all if none is named.
    pub(crate) classes: Vec<String>,
}

impl ComparedTopics {
    /// Reads both topics to the ends that they have now, and compares.
    ///
    /// # Errors
    /// When a topic is not there or cannot be read.
    pub(crate) fn compare(&self) -> anyhow::Result<Comparison> {
        let [a, b] = [&self.a, &self.b].map(|topic| self.open(topic));
        let (a, b) = (a?, b?);
        let [of_a, of_b] = self.wanted.clone().map(Side::of);
        let bar = progress();
        let (a, b) = thread::scope(|scope| {
            let a = scope.spawn(|| read(&self.a, a, of_a, &bar));
            let b = read(&self.b, b, of_b, &bar);
            (a.join().unwrap_or_else(|panic| resume_unwind(panic)), b)
        });
        bar.finish_and_clear();
        let [a, b] = [(&self.a, a?), (&self.b, b?)].map(|(topic, side)| (topic.to_string(), side));
        Ok(Comparison::new(a, b, &self.classes))
    }

    fn open(&self, topic: &Topic) -> anyhow::Result<TopicReader> {
        let reader = TopicReader::open(&self.reader_settings(topic));
        reader.with_context(|| format!("cannot compare results of `{topic}`"))
    }

    fn reader_settings(&self, topic: &Topic) -> TopicReaderSettings {
        let mut bus = self.bus.clone();
        // Results that were aborted were never published, however the cameras' records are read.
        let isolation = ("isolation.level".to_owned(), "read_committed".to_owned());
        bus.properties.extend([isolation]);
        TopicReaderSettings {
            bus,
            topic: topic.clone(),
            from: ReadFrom::Beginning,
            until: ReadUntil::EndOfTopic,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }
}

fn read(
    topic: &Topic,
    mut reader: TopicReader,
    mut side: Side,
    bar: &ProgressBar,
) -> anyhow::Result<Side> {
    let read = reader.read_to_end(PATIENCE, |record| {
        side.add(&record);
        bar.inc(1);
    });
    read.with_context(|| format!("cannot compare results of `{topic}`"))?;
    Ok(side)
}

/// How many records were read; silent unless standard error is a terminal.
fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {human_pos} results read, {per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aborted_results_are_skipped_however_the_cameras_are_read() {
        let uncommitted = ("isolation.level".to_owned(), "read_uncommitted".to_owned());
        let topics = ComparedTopics {
            bus: BusSettings {
                brokers: "kafka:9092".to_owned(),
                properties: [uncommitted].into(),
            },
            a: "a".into(),
            b: "b".into(),
            wanted: [Wanted::default(), Wanted::default()],
            classes: Vec::new(),
        };
        let settings = topics.reader_settings(&topics.a);
        assert_eq!(settings.bus.properties["isolation.level"], "read_committed");
    }
}
