//! `panoptes replay --archive`: the same results as from the topics, when these are long gone, too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::Instant;

use super::*;
use crate::archives::Export;
use crate::archives::reading::files;
use crate::kafka::children;
use crate::support::process::log_folder;

const TIMEOUT: Duration = Duration::from_secs(120);

impl Replay {
    fn reading(self, export: &Export<'_>) -> Self {
        self.with(&["--archive", export.archive().to_str().unwrap()])
    }

    /// So slowly that an archived [`shift`] of 60 parts takes a minute: it outlives what takes the job over.
    /// Archives are read in the order of time, so its first result is there after some ten seconds.
    fn at_leisure(self) -> Self {
        self.with(&["--rate", "5KB"])
    }

    /// Starts it, with a log of this name.
    fn spawn(&self, name: &str) -> Started {
        let log = log_folder().join(format!("{name}.log"));
        let output = File::create(&log).unwrap();
        let mut command = self.command();
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let child = children::spawn(command);
        Started { child, log }
    }

    /// Starts it, and waits until it has published something.
    fn start(&self, into: &Line<'_>) -> Started {
        let before = into.outcomes().results.len();
        let replay = self.spawn(&format!("{}-{before}", into.name));
        let mut reader = OutcomeReader::new(into);
        reader.read_until(TIMEOUT, |found| found.results.len() > before);
        replay
    }
}

struct Started {
    child: Child,
    log: PathBuf,
}

impl Started {
    /// Waits until it says this.
    fn await_saying(&self, text: &str) {
        let started = Instant::now();
        while !fs::read_to_string(&self.log).unwrap().contains(text) {
            assert!(started.elapsed() < TIMEOUT, "it never says `{text}`");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it says when it ends, which must be by an error.
    fn error(mut self) -> String {
        let status = children::wait_for(&mut self.child, TIMEOUT).expect("it ends");
        let text = fs::read_to_string(&self.log).unwrap();
        assert_eq!(status.code(), Some(1), "{text}");
        text
    }
}

/// Of a [`shift`] of so many parts, what the line made of them live, and the archive of its topics.
fn live_and_archived<'a>(
    line: &'a Line<'a>,
    config: &Config,
    parts: usize,
    again: Option<&str>,
) -> (Outcomes, Export<'a>) {
    line.send(shift(line, &names(parts), again));
    let live = run_live(line, config, parts);
    (live, archived(line))
}

fn archived<'a>(line: &'a Line<'a>) -> Export<'a> {
    let export = Export::of(line);
    export.outcome(&["--segment-bytes", "40kB"]);
    export
}

#[test]
fn an_archive_gives_the_results_of_the_topics_and_of_the_live_line() {
    let line = Line::new(Broker::shared(), "replay-archive");
    let config = config(&line);
    let (live, export) = live_and_archived(&line, &config, 40, Some("top"));

    let from_topics = target(&line, "topics");
    Replay::of(&line, &config, &from_topics).complete();
    let from_archive = target(&line, "archive");
    let replay = Replay::of(&line, &config, &from_archive).reading(&export);
    let summary = replay.complete();
    assert_eq!(summary["cut"], Value::Array(Vec::new()));
    assert_eq!(
        summary["archive"]["location"],
        export.archive().to_str().unwrap()
    );
    assert_eq!(summary["archive"]["faults"], 0);
    assert_same(&live, &from_archive.outcomes());
    assert_same(&from_topics.outcomes(), &from_archive.outcomes());

    let thrice = target(&line, "thrice");
    let replay = Replay::of(&line, &config, &thrice).reading(&export);
    replay.with(&["--parallel", "3"]).complete();
    assert_same(&live, &thrice.outcomes());

    let once_at_least = config.set("output.delivery", "at_least_once");
    let at_least = target(&line, "at-least");
    let replay = Replay::of(&line, &once_at_least, &at_least).reading(&export);
    replay.complete();
    assert_same(&live, &at_least.outcomes());
}

#[test]
fn late_views_are_late_again_when_the_topics_are_gone() {
    let line = Line::new(Broker::shared(), "replay-archive-alone");
    // No camera is idle before it is read: which views are late must not depend on how fast that is.
    let config = config(&line).set("reassembly.timeout", "60s");
    let config = config.set("reassembly.idle_after", "50s");
    let parts = names(60);
    line.send(shift(&line, &parts, None));
    let mut panoptes = Panoptes::start(&config, &line.name);
    panoptes.wait_until_ready();
    // The parts that lack a view time out once later ones are there; all others are scored by then.
    let close = names(80).split_off(60);
    let after = close.iter().zip(0..).flat_map(|(part, number)| {
        let shots = line.part(part, 500 + number).into_iter();
        shots.map(move |shot| shot.at(made_at(300 + usize::try_from(number).unwrap())))
    });
    line.send(after.collect::<Vec<_>>());
    line.await_outcomes(|found| found.parts().len() == 80);
    let late = parts.iter().skip(3).step_by(10).take(4);
    let late: Vec<Shot> = late
        .flat_map(|part| line.part_seen_by(part, 900, &["back"]))
        .map(|shot| shot.at(made_at(400)))
        .collect();
    let letters_before = line.outcomes().dead_letters.len();
    line.send(late);
    let live = line.await_outcomes(|found| found.dead_letters.len() == letters_before + 4);
    panoptes.stop_in_order();
    let reasons = live.dead_letters.iter().map(|letter| letter.reason());
    assert_eq!(reasons.filter(|reason| reason == "late").count(), 4);

    let export = archived(&line);
    for topic in line.camera_topics() {
        line.broker.delete_topic(&topic);
    }
    let into = target(&line, "again");
    let replay = Replay::of(&line, &config, &into).reading(&export);
    let errors = replay.fail(1);
    assert!(
        errors.contains(&format!("no `{}` of 4 partitions", line.camera("back"))),
        "{errors}"
    );
    assert!(into.outcomes().results.is_empty());
    let estimate = replay.with(&["--dry-run"]).run();
    let estimate = String::from_utf8(estimate.stdout).unwrap();
    assert!(estimate.contains("records     4"), "{estimate}");
    let replay = Replay::of(&line, &config, &into).reading(&export);
    replay.with(&["--create-topics"]).complete();
    assert_same(&live, &into.outcomes());

    // A range of time, of parts in the midst of it.
    let into = target(&line, "range");
    let replay = Replay::of(&line, &config, &into).reading(&export);
    let (from, to) = (time_of(10), time_of(20));
    let range = ["--from", &from, "--to", &to, "--lead", "8s"];
    replay.with(&range).complete();
    let expected: BTreeSet<&str> = parts[10..20].iter().map(String::as_str).collect();
    assert_eq!(into.outcomes().parts(), expected);
}

#[test]
fn an_archives_job_is_killed_taken_over_and_done_with_neither_gaps_nor_doubles() {
    let line = Line::new(Broker::shared(), "replay-archive-killed");
    let config = config(&line);
    let (live, export) = live_and_archived(&line, &config, 60, None);
    let into = target(&line, "again");
    let replay = || {
        let replay = Replay::of(&line, &config, &into).reading(&export);
        replay.with(&["--job", "replay-archive-killed-job"])
    };
    let slow = replay().with(&["--parallel", "2"]).at_leisure();
    for _ in 0..2 {
        children::end(&mut slow.start(&into).child);
    }
    let published = into.outcomes().results.len();
    assert!((1..60).contains(&published), "{published}");
    let second = slow.start(&into);
    let summary = replay().complete();
    assert_eq!(summary["job"], "replay-archive-killed-job");
    let errors = second.error();
    assert!(
        errors.contains("is done by another process since"),
        "{errors}"
    );
    assert_same(&live, &into.outcomes());
}

#[test]
fn an_archives_job_is_taken_over_by_instances_that_read_the_topics() {
    for delivery in ["exactly_once", "at_least_once"] {
        let line = Line::new(
            Broker::shared(),
            &format!("replay-archive-topics-{delivery}"),
        );
        let config = config(&line).set("output.delivery", delivery);
        let (live, export) = live_and_archived(&line, &config, 60, None);
        let into = target(&line, "again");
        let job = format!("{}-job", line.name);
        let from_topics = || Replay::of(&line, &config, &into).with(&["--job", &job]);
        let from_archive = || from_topics().reading(&export);

        let first = from_archive().at_leisure().start(&into);
        // It is still at work when all others were told so, and then another one goes on.
        let slower = from_topics().with(&["--rate", "4KB"]);
        let mut second = slower.spawn(&format!("{job}-second"));
        second.await_saying("partitions assigned");
        let errors = first.error();
        assert!(
            errors.contains("is done by another process since"),
            "{errors}"
        );
        let errors = from_archive().fail(1);
        assert!(errors.contains("has members"), "{errors}");
        children::end(&mut second.child);
        from_topics().complete();
        let found = into.outcomes();
        match delivery {
            "exactly_once" => assert_same(&live, &found),
            _ => assert_eq!(found.parts(), live.parts()),
        }
    }
}

/// When the last record of the segment that has this manifest was written.
fn last_timestamp(manifest: &Path) -> jiff::Timestamp {
    let manifest: Value = serde_json::from_slice(&fs::read(manifest).unwrap()).unwrap();
    let millis = manifest["last_timestamp"].as_i64().unwrap();
    jiff::Timestamp::from_millisecond(millis).unwrap()
}

#[test]
fn a_damaged_segment_ends_a_replay_that_goes_on_once_it_is_whole() {
    let line = Line::new(Broker::shared(), "replay-archive-damaged");
    let config = config(&line);
    let (live, export) = live_and_archived(&line, &config, 40, None);
    let tar = files(&export.archive(), "tar").pop().unwrap();
    let whole = fs::read(&tar).unwrap();
    let mut damaged = whole.clone();
    damaged[600] ^= 1;
    fs::write(&tar, damaged).unwrap();

    let into = target(&line, "again");
    let replay = Replay::of(&line, &config, &into).reading(&export);
    let errors = replay.fail(1);
    assert!(errors.contains(tar.to_str().unwrap()), "{errors}");
    assert!(
        errors.contains("is damaged: expected the SHA-256 of record"),
        "{errors}"
    );
    assert!(into.outcomes().results.len() < 40);
    fs::remove_file(&tar).unwrap();
    let errors = replay.fail(1);
    assert!(errors.contains(tar.to_str().unwrap()), "{errors}");
    fs::write(&tar, whole).unwrap();
    replay.complete();
    assert_same(&live, &into.outcomes());

    // A range that begins in a segment that is lost, too.
    let manifest = tar.with_extension("json");
    let begin = last_timestamp(&manifest).to_string();
    fs::remove_file(&manifest).unwrap();
    fs::remove_file(&tar).unwrap();
    let words = ["--from", &begin, "--lead", "0s"];
    let replay = Replay::of(&line, &config, &target(&line, "later")).reading(&export);
    let errors = replay.with(&words).fail(1);
    assert!(
        errors.contains("expected a segment of partition"),
        "{errors}"
    );

    let nowhere = export.archive().join("none");
    let words = ["--archive", nowhere.to_str().unwrap()];
    let errors = Replay::of(&line, &config, &into).with(&words).fail(2);
    assert!(errors.contains(nowhere.to_str().unwrap()), "{errors}");
}
