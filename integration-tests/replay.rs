//! `panoptes replay`: the same results as the live line's, from a range, once, whatever interrupts it.

mod archived;
mod cameras;
mod comparison;
mod disturbed;
#[cfg(feature = "failpoints")]
mod side_by_side;

use std::collections::BTreeSet;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

pub(crate) use self::comparison::{assert_same, differences, letters};

use crate::kafka::Broker;
use crate::support::config::Config;
use crate::support::line::{Line, VIEWS, names};
use crate::support::outcome_reader::OutcomeReader;
use crate::support::outcomes::Outcomes;
use crate::support::process::{Panoptes, binary, write_config};
use crate::support::shots::Shot;

/// When the line's first part was made: a day before these tests were written.
const BEGAN: i64 = 1_795_600_000_000;
/// From one part to the next.
const TAKT: i64 = 400;
/// As many parts take twice the timeout: there is one behind it in each partition.
const TO_TIME_OUT: usize = 25;
/// How long the first result of a replay may take.
const FIRST_RESULT: Duration = Duration::from_secs(120);
/// In the environment: a [`shift`] of 60 parts is ten batches or more, and takes half a minute, but its first
/// result three seconds (feature `failpoints`).
const SLOW_DEVICE: (&str, &str) = ("FAILPOINTS", "device-batch=sleep(3000)");

pub(crate) fn config(line: &Line<'_>) -> Config {
    // The live line must not close parts by the wall clock, which a replay does not know.
    line.exactly_once_config()
        .set("output.format", "json")
        .set("reassembly.timeout", "5s")
        .set("reassembly.wall_grace", "1m")
}

pub(crate) fn made_at(number: usize) -> i64 {
    BEGAN + TAKT * i64::try_from(number).unwrap()
}

/// The same as a person writes it.
pub(crate) fn time_of(number: usize) -> String {
    let since = Duration::from_millis(made_at(number).unsigned_abs());
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + since).to_string()
}

/// Parts of a shift: of ten, one lacks a view, and has another one `again` as another image, unless too few
/// parts follow to time it out; one has an image that is none.
pub(crate) fn shift(line: &Line<'_>, parts: &[String], again: Option<&str>) -> Vec<Shot> {
    let mut shots = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let seed = number as u64;
        let is_partial = number % 10 == 3 && number + TO_TIME_OUT <= parts.len();
        let views = if is_partial { &VIEWS[..4] } else { &VIEWS };
        let mut of_part = line.part_seen_by(part, seed, views);
        if let (true, Some(again)) = (is_partial, again) {
            of_part.extend(line.part_seen_by(part, seed + 1_000, &[again]));
        }
        if number % 10 == 7 {
            of_part[0] = Shot::of(&line.camera("top"), part, "image/jpeg", vec![0; 100]);
        }
        shots.extend(of_part.into_iter().map(|shot| shot.at(made_at(number))));
    }
    shots
}

/// Runs the line live until all its parts have a result, and what went with them is there, too.
pub(crate) fn run_live(line: &Line<'_>, config: &Config, parts: usize) -> Outcomes {
    let mut panoptes = Panoptes::start(config, &line.name);
    panoptes.wait_until_ready();
    line.await_outcomes(|found| found.parts().len() == parts);
    panoptes.stop_in_order();
    line.outcomes()
}

/// The topics of a replay, read as those of a line.
pub(crate) fn target<'a>(line: &Line<'a>, name: &str) -> Line<'a> {
    Line::of(line.broker, &format!("{}-{name}", line.name), &["none"], 1)
}

pub(crate) struct Replay {
    words: Vec<String>,
}

impl Replay {
    pub(crate) fn of(line: &Line<'_>, config: &Config, into: &Line<'_>) -> Self {
        let path = write_config(config, &format!("{}-replay", line.name));
        let words = ["replay", "--config", path.to_str().unwrap()];
        let topics = [
            "--results-topic".to_owned(),
            into.results_topic(),
            "--dead-letter-topic".to_owned(),
            into.dead_letter_topic(),
        ];
        let words = words.into_iter().map(str::to_owned).chain(topics);
        Self {
            words: words.collect(),
        }
    }

    pub(crate) fn with(mut self, words: &[&str]) -> Self {
        self.words
            .extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// So slowly that a [`shift`] of 60 parts takes half a minute: it does not end before what a test does
    /// meanwhile.
    pub(crate) fn slowly(self) -> Self {
        self.with(&["--rate", "10KB"])
    }

    fn command(&self) -> Command {
        let mut command = binary();
        command.args(&self.words).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self) -> Output {
        self.command().output().unwrap()
    }

    /// Runs it to its end and returns what it says then.
    pub(crate) fn complete(&self) -> Value {
        let output = self.run();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{errors}");
        summary(&output)
    }

    /// Runs it to an error, and returns what it says then.
    pub(crate) fn fail(&self, code: i32) -> String {
        let output = self.run();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{errors}");
        errors
    }

    /// Starts it and waits until it has published something.
    pub(crate) fn start_to_publish(&self, into: &Line<'_>) -> Child {
        start_to_publish(self.command(), into)
    }

    /// Starts it, kills it once it has published something, and says how much.
    ///
    /// It is slow at its device, not at its reading, since topics are read one after another: at a low rate
    /// there is no part whose views are all there until most is read.
    pub(crate) fn kill_midway(&self, into: &Line<'_>) -> usize {
        let mut command = self.command();
        if cfg!(feature = "failpoints") {
            command.env(SLOW_DEVICE.0, SLOW_DEVICE.1);
        } else {
            command.args(["--rate", "10KB"]);
        }
        let mut child = start_to_publish(command, into);
        child.kill().unwrap();
        child.wait().unwrap();
        into.outcomes().results.len()
    }
}

fn start_to_publish(mut command: Command, into: &Line<'_>) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let child = command.spawn().unwrap();
    // One reader for all the time: to make another takes a second or more where the machine is busy.
    let mut reader = OutcomeReader::new(into);
    reader.read_until(FIRST_RESULT, |found| !found.results.is_empty());
    child
}

/// What a replay says when it is done.
pub(crate) fn summary(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let is_summary = |line: &&str| line.starts_with("{\"cut\"") || line.starts_with("{\"archive\"");
    let summary = text.lines().find(is_summary);
    serde_json::from_str(summary.unwrap_or_else(|| panic!("{text}"))).unwrap()
}

#[test]
fn a_replay_gives_the_results_of_the_live_line_and_leaves_its_group_alone() {
    let line = Line::new(Broker::shared(), "replay-same");
    let config = config(&line);
    let parts = names(40);
    line.send(shift(&line, &parts, Some("top")));
    let live = run_live(&line, &config, parts.len());
    let positions = crate::kafka::tools::describe_group(line.broker, &line.name);

    let into = target(&line, "again");
    let summary = Replay::of(&line, &config, &into).complete();
    assert_eq!(summary["cut"], Value::Array(Vec::new()));
    assert_same(&live, &into.outcomes());
    let after = crate::kafka::tools::describe_group(line.broker, &line.name);
    assert_eq!(format!("{positions:?}"), format!("{after:?}"));

    let into = target(&line, "thrice");
    Replay::of(&line, &config, &into)
        .with(&["--parallel", "3", "--job", "replay-same-thrice"])
        .complete();
    assert_same(&live, &into.outcomes());
    // The job is done: doing it again does nothing, and says so; and it is not another one's.
    let done = || Replay::of(&line, &config, &into).with(&["--job", "replay-same-thrice"]);
    let summary = done().complete();
    assert_eq!(summary["was_complete"], true);
    let errors = done().with(&["--lead", "9s"]).fail(2);
    assert!(errors.contains("was made of another range"), "{errors}");
    assert_same(&live, &into.outcomes());
}

#[test]
fn a_replay_that_is_killed_goes_on_with_neither_gaps_nor_doubles() {
    let line = Line::new(Broker::shared(), "replay-killed");
    let config = config(&line);
    let parts = names(60);
    line.send(shift(&line, &parts, None));
    let into = target(&line, "again");
    let replay = || Replay::of(&line, &config, &into).with(&["--job", "replay-killed-job"]);
    let published = replay().kill_midway(&into);
    assert!((1..parts.len()).contains(&published), "{published}");
    // What comes now is behind the range.
    let late = line
        .part("later", 1)
        .into_iter()
        .map(|shot| shot.at(made_at(1_000)));
    line.send(late);
    replay().complete();
    let live = run_live(&line, &config, parts.len() + 1);
    let mut replayed = into.outcomes();
    assert!(!replayed.parts().contains("later"));
    let later = live
        .results
        .iter()
        .filter(|record| record.key == "later")
        .cloned();
    replayed.results.extend(later.map(|mut record| {
        record.result.is_simulated = true;
        record
    }));
    assert_same(&live, &replayed);
}

#[test]
fn a_range_of_time_takes_the_parts_that_began_in_it_whole() {
    let line = Line::new(Broker::shared(), "replay-range");
    let config = config(&line);
    let parts = names(40);
    line.send(shift(&line, &parts, None));
    // The last view of part 19 is written after the range's end.
    let into = target(&line, "again");
    let [from, to] = [10, 20].map(time_of);
    let range = ["--from", &from, "--to", &to, "--lead", "8s"];
    let replay = Replay::of(&line, &config, &into).with(&range);
    let estimate = String::from_utf8(replay.with(&["--dry-run"]).run().stdout).unwrap();
    assert!(estimate.contains("records"), "{estimate}");
    assert!(into.outcomes().results.is_empty());

    Replay::of(&line, &config, &into).with(&range).complete();
    let outcomes = into.outcomes();
    let expected: BTreeSet<&str> = parts[10..20].iter().map(String::as_str).collect();
    assert_eq!(outcomes.parts(), expected);
    assert!(
        letters(&outcomes)
            .iter()
            .all(|(place, _)| place.0 == line.camera("top"))
    );

    let list = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(list.path(), "part-0012\npart-0033\n").unwrap();
    let into = target(&line, "listed");
    let list = list.path().to_str().unwrap();
    Replay::of(&line, &config, &into)
        .with(&["--parts", list])
        .complete();
    assert_eq!(into.outcomes().parts(), ["part-0012", "part-0033"].into());
}
