//! Exports that are killed, overtaken by retention, or go on where they should not, held at points that
//! the feature `failpoints` names.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};

use super::reading::{files, json, records_in, segment_manifests};
use super::{Export, TIMEOUT, assert_same, await_that, errors, records_of, send_parts};
use crate::kafka::{Broker, children};
use crate::support::line::Line;
use crate::support::process::{binary, log_folder};
use crate::support::shots::Shot;

impl Export<'_> {
    /// Starts it.
    fn start(&self, flags: &[&str], fail_points: &str) -> Child {
        let archive = self.archive();
        let mut command = binary();
        command.args(self.arguments(archive.to_str().unwrap(), flags));
        command.env("FAILPOINTS", fail_points);
        let log = log_folder().join(format!("{}-export.log", self.line.name));
        let log = File::create(log).unwrap();
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        children::spawn(command)
    }
}

/// Kills an export where `fail_points` hold it, once `is_reached` says so, twice, then lets it end.
fn survives_kills(name: &str, fail_points: &str, is_reached: impl Fn(&Path, usize) -> bool) {
    let line = Line::of(Broker::shared(), name, &["top", "side"], 2);
    send_parts(&line, 0..60);
    let export = Export::of(&line);
    let flags = ["--segment-bytes", "20kB", "--parallel", "2"];
    let before = records_of(&line);
    for kills in 0..2 {
        let whole = segment_manifests(&export.archive()).len();
        let mut child = export.start(&flags, fail_points);
        await_that("segments", || is_reached(&export.archive(), whole));
        children::end(&mut child);
        // What comes later is not in the range, which was taken at the start.
        send_parts(&line, 1_000 + kills * 10..1_010 + kills * 10);
        let checked = export.check();
        assert_eq!(checked.status.code(), Some(1));
        assert!(
            errors(&checked).contains("is not complete"),
            "{}",
            errors(&checked)
        );
    }
    let outcome = export.outcome(&flags);
    assert_same(&records_in(&export.archive()), &before);
    assert_eq!(outcome["records"], before.len());
    let checked = export.check();
    assert_eq!(checked.status.code(), Some(0), "{}", errors(&checked));
}

#[test]
fn an_export_that_is_killed_between_segments_goes_on_without_gaps_and_doubles() {
    let has_more = |archive: &Path, whole| segment_manifests(archive).len() >= whole + 3;
    let fail_points = "archive-segment-whole=3*off->pause";
    survives_kills("archive-killed", fail_points, has_more);
}

#[test]
fn an_export_that_is_killed_before_a_segments_manifest_is_there_writes_it_again() {
    let is_between = |archive: &Path, whole| {
        let segments = segment_manifests(archive).len();
        segments > whole && files(archive, "tar").len() > segments
    };
    survives_kills("archive-torn", "archive-tar-whole=3*off->pause", is_between);
}

#[test]
fn what_retention_deletes_meanwhile_is_counted() {
    const RECORDS: usize = 400;
    let line = Line::of(Broker::shared(), "archive-overtaken", &["top"], 1);
    let topic = line.camera("top");
    // Far more than the client fetches ahead.
    let shots = (0..RECORDS).map(|number| {
        Shot::of(
            &topic,
            &format!("part-{number}"),
            "image/x-raw",
            vec![number as u8; 20_000],
        )
    });
    line.send(shots);
    let export = Export::with(&line, |config| {
        config
            .property("queued.max.messages.kbytes", "100")
            .property("fetch.message.max.bytes", "30000")
    });
    let flags = ["--segment-bytes", "200kB"];
    let mut child = export.start(&flags, "archive-segment-whole=1*sleep(10000)->off");
    await_that("a segment", || {
        segment_manifests(&export.archive()).len() == 1
    });
    // However long the brokers take: it is still at its first segment when they have done it.
    children::signal(&child, "STOP");
    line.broker.delete_before(&topic, 0, 300);
    children::signal(&child, "CONT");
    let ended = children::wait_for(&mut child, TIMEOUT).expect("the export ends");
    assert!(ended.success());
    let manifest = json(&export.archive().join("archive.json"));
    let totals = &manifest["topics"][0]["partitions"][0]["totals"];
    let (records, deleted) = (&totals["records"], &totals["deleted"]);
    let (records, deleted) = (records.as_i64().unwrap(), deleted.as_i64().unwrap());
    assert!(deleted > 100, "{totals}");
    assert_eq!(records + deleted, RECORDS as i64);
    assert_eq!(totals["missing"], 0);
    let printed = String::from_utf8(export.check().stdout).unwrap();
    assert!(
        printed.contains(&format!("{deleted} were deleted while it ran")),
        "{printed}"
    );
}

#[test]
fn an_export_does_not_go_on_with_another_range_or_a_topic_that_was_made_anew() {
    let line = Line::of(Broker::shared(), "archive-other", &["top"], 1);
    let topic = line.camera("top");
    send_parts(&line, 0..30);
    let export = Export::of(&line);
    let flags = ["--segment-bytes", "20kB"];
    let mut child = export.start(&flags, "archive-segment-whole=2*off->pause");
    await_that("segments", || {
        segment_manifests(&export.archive()).len() == 3
    });
    children::end(&mut child);
    let refused = export.run(&["--from-offset", "1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        errors(&refused).contains("is an archive with range"),
        "{}",
        errors(&refused)
    );
    line.broker.delete_topic(&topic);
    let refused = export.run(&flags);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        errors(&refused).contains("does not exist"),
        "{}",
        errors(&refused)
    );
    line.broker.create_topic(&topic, 1);
    send_parts(&line, 100..140);
    let refused = export.run(&flags);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        errors(&refused).contains("the topic was made anew"),
        "{}",
        errors(&refused)
    );
}

#[test]
fn an_export_goes_on_without_a_topic_that_is_exported_to_its_end() {
    let line = Line::of(Broker::shared(), "archive-one-gone", &["a", "b"], 1);
    send_parts(&line, 0..40);
    let expected = records_of(&line);
    let (first, second) = (line.camera("a"), line.camera("b"));
    let export = Export::of(&line);
    let flags = ["--segment-bytes", "20kB", "--parallel", "1"];
    let segments_of = |topic: &str| {
        let segments = segment_manifests(&export.archive()).into_iter();
        let folder = export.archive().join(topic);
        segments.filter(|path| path.starts_with(&folder)).count()
    };
    let mut child = export.start(&flags, "archive-segment-whole=sleep(300)");
    // One partition after the other.
    await_that("the second topic", || segments_of(&second) > 0);
    children::end(&mut child);
    line.broker.delete_topic(&first);
    let outcome = export.outcome(&flags);
    assert_eq!(outcome["was_complete"], false);
    assert_same(&records_in(&export.archive()), &expected);
    line.broker.delete_topic(&second);
    assert_eq!(export.outcome(&flags)["was_complete"], true);
}

#[test]
fn a_second_export_to_a_folder_is_refused_until_the_first_is_gone() {
    let line = Line::of(Broker::shared(), "archive-twice", &["top"], 1);
    send_parts(&line, 0..30);
    let export = Export::of(&line);
    let flags = ["--segment-bytes", "20kB"];
    let mut first = export.start(&flags, "archive-segment-whole=1*off->pause");
    await_that("segments", || {
        segment_manifests(&export.archive()).len() == 2
    });
    let refused = export.run(&flags);
    assert_eq!(refused.status.code(), Some(1));
    let text = errors(&refused);
    assert!(text.contains("is held by another export"), "{text}");
    children::end(&mut first);
    export.outcome(&flags);
    export.assert_holds_what_kafka_holds();
}
