//! Against the embedded broker: what is published is what the decoder reads.

use std::sync::Arc;

use clap::Parser;

use super::*;
use crate::decode::{EnvelopeDecoder, EnvelopeSettings, ImageLimits};
use crate::domain::{LineId, Timestamp, View};
use crate::kafka::embedded::EmbeddedBroker;
use crate::kafka::topic_reader::{ReadFrom, ReadUntil, Reading, TopicReader, TopicReaderSettings};

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    arguments: ProduceArguments,
}

fn arguments(folder: &str, more: &[&str]) -> ProduceArguments {
    let line = [&["produce", folder][..], more].concat();
    CommandLine::try_parse_from(line).unwrap().arguments
}

fn line_of_two_parts() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["bolt/b1/top", "bolt/b1/left", "bolt/b2/top"] {
        let path = folder.path().join(format!("{file}.jpg"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, [b"\xff\xd8\xff\xe0", file.as_bytes()].concat()).unwrap();
    }
    folder
}

fn views_on(brokers: &str, topic: &str) -> Vec<View> {
    let mut reader = TopicReader::open(&TopicReaderSettings {
        bus: BusSettings {
            brokers: brokers.to_owned(),
            properties: BTreeMap::default(),
        },
        topic: Topic::from(topic),
        from: ReadFrom::Beginning,
        until: ReadUntil::EndOfTopic,
        connect_timeout: CONNECT_TIMEOUT,
    })
    .unwrap();
    let decoder = EnvelopeDecoder::new(EnvelopeSettings {
        default_line: LineId::from("unnamed"),
        default_class: None,
        limits: ImageLimits::default(),
    });
    let mut views = Vec::new();
    loop {
        match reader.next(CONNECT_TIMEOUT).unwrap() {
            Reading::Record(record) => {
                views.push(decoder.decode(Arc::from(record), Timestamp(0)).unwrap());
            }
            Reading::Idle => {}
            Reading::Finished => break,
        }
    }
    views.sort_by(|a, b| a.part.cmp(&b.part));
    views
}

fn published(more: &[&str]) -> (EmbeddedBroker, Published) {
    let folder = line_of_two_parts();
    let broker = EmbeddedBroker::start().unwrap();
    for topic in ["line1.cam.top", "line1.cam.left"] {
        broker.create_topic(&Topic::from(topic), 2).unwrap();
    }
    let brokers = broker.brokers();
    let more = [&["--brokers", &brokers][..], more].concat();
    let arguments = arguments(folder.path().to_str().unwrap(), &more);
    let published = crate::cli::block_on(produce(&arguments)).unwrap();
    (broker, published)
}

#[test]
fn both_envelopes_carry_part_view_class_line_and_image() {
    for envelope in ["image", "msgpack"] {
        let (broker, published) = published(&["--envelope", envelope, "--line", "line9"]);
        assert_eq!(
            (published.parts, published.records, published.topics),
            (2, 3, 2)
        );
        let top = views_on(&broker.brokers(), "line1.cam.top");
        assert_eq!(top.len(), 2);
        for (view, part) in top.iter().zip(["b1", "b2"]) {
            assert_eq!(view.part.part.as_str(), part);
            assert_eq!(view.part.line.as_str(), "line9");
            assert_eq!(view.view.as_str(), "top");
            assert_eq!(view.class.as_ref().unwrap().as_str(), "bolt");
            assert_eq!(view.expected_views, Some(2), "b2 lacks a view of its class");
            assert!(view.captured_at > Timestamp(1_700_000_000_000));
            assert!(
                view.image_bytes()
                    .ends_with(format!("bolt/{part}/top").as_bytes())
            );
        }
        assert_eq!(views_on(&broker.brokers(), "line1.cam.left").len(), 1);
    }
}

#[test]
fn repeated_parts_are_new_parts() {
    let (broker, published) =
        published(&["--repeat", "2", "--shuffle-views", "3", "--rate", "100"]);
    assert_eq!((published.parts, published.records), (4, 6));
    let top = views_on(&broker.brokers(), "line1.cam.top");
    let parts: Vec<&str> = top.iter().map(|view| view.part.part.as_str()).collect();
    assert_eq!(parts, ["b1", "b1-r2", "b2", "b2-r2"]);
}

#[test]
fn a_part_is_on_the_bus_before_the_next_one_is_due() {
    let folder = line_of_two_parts();
    let broker = EmbeddedBroker::start().unwrap();
    for topic in ["line1.cam.top", "line1.cam.left"] {
        broker.create_topic(&Topic::from(topic), 2).unwrap();
    }
    let brokers = broker.brokers();
    let arguments = arguments(
        folder.path().to_str().unwrap(),
        &["--brokers", &brokers, "--rate", "0.02"],
    );
    let seen = crate::cli::block_on(async {
        let producing = tokio::spawn(async move { produce(&arguments).await });
        let seen = tokio::task::spawn_blocking(move || {
            let give_up = Instant::now() + Duration::from_secs(40);
            loop {
                let views = views_on(&brokers, "line1.cam.top");
                if !views.is_empty() || Instant::now() > give_up {
                    return views;
                }
            }
        });
        let seen = seen.await;
        producing.abort();
        Ok(seen?)
    });
    let parts: Vec<String> = seen
        .unwrap()
        .iter()
        .map(|view| view.part.part.as_str().to_owned())
        .collect();
    assert_eq!(parts, ["b1"]);
}

#[test]
fn real_time_says_when_the_file_was_written() {
    let (broker, _) = published(&["--real-time"]);
    let top = views_on(&broker.brokers(), "line1.cam.top");
    let now = timestamp_of(SystemTime::now());
    assert!(now.since(top[0].captured_at) < Duration::from_secs(60));
}

#[test]
fn failures_name_the_topic_and_how_many() {
    let mut failures = Failures::default();
    let bar = ProgressBar::hidden();
    for _ in 0..2 {
        failures.count(
            Err((Topic::from("line1.cam.top"), "too large".into())),
            &bar,
        );
    }
    failures.count(Ok(()), &bar);
    let error = failures.into_result(3).unwrap_err().to_string();
    assert_eq!(
        error,
        "`2` of `3` records were not acknowledged: `2` to `line1.cam.top`, first: too large"
    );
}

#[test]
fn a_view_that_cannot_be_a_topic_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bolt/b1");
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("top left.jpg"), b"x").unwrap();
    let parts = find_parts(folder.path()).unwrap();
    let error = topics_of(&parts, "line1.cam.").unwrap_err().to_string();
    assert!(error.contains("`line1.cam.top left`"), "{error}");
}

#[test]
fn rates_are_above_zero() {
    assert_eq!(parse_rate("2.5"), Ok(2.5));
    for rate in ["0", "-1", "nan", "inf", "fast"] {
        assert!(parse_rate(rate).is_err(), "{rate}");
    }
}
