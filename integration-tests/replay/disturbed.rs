//! A live line that instances join and leave and are killed at, and what a replay makes of the same
//! records: the same, at any speed and by any number of instances.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::cameras::{Cameras, MADE_FOR, Mishap, SentPart, TIMEOUT};
use super::*;
use crate::support::line::PARTITIONS;
use crate::support::published::PartResult;
use crate::support::seed::seed;

/// Partitions of all camera topics.
const ALL: i32 = 5 * PARTITIONS;

/// Nothing is closed by the wall clock, and no camera is idle, however long instances are away.
fn settings(line: &Line<'_>) -> Config {
    config(line)
        .set("reassembly.timeout", format!("{TIMEOUT}ms"))
        .set("reassembly.idle_after", "50s")
        .set("reassembly.wall_grace", "10m")
}

/// How many parts have begun.
struct Course<'a> {
    begun: &'a AtomicUsize,
}

impl Course<'_> {
    fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    fn await_more(&self, parts: usize) {
        let enough = self.begun() + parts;
        while self.begun() < enough {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs the line in instances that come, go and are killed while the cameras send. Gives the one that is
/// left.
fn disturb(config: &Config, name: &str, course: &Course<'_>) -> Panoptes {
    let another = config.of_another_instance();
    let start = |config: &Config, life: &str| {
        let panoptes = Panoptes::start(config, &format!("{name}-{life}"));
        panoptes.await_answer("/livez", 200);
        panoptes
    };
    let first = start(config, "1");
    first.await_assigned(ALL);
    course.await_more(40);
    let second = start(&another, "2");
    share(&first, &second);
    course.await_more(40);
    first.await_work();
    first.kill();
    let first = start(config, "3");
    share(&first, &second);
    course.await_more(40);
    second.stop_in_order();
    first.await_assigned(ALL);
    course.await_more(40);
    first.await_work();
    first.kill();
    // What is sent in the meantime is a backlog for the next one.
    course.await_more(40);
    let last = start(config, "4");
    last.await_assigned(ALL);
    course.await_more(40);
    last
}

fn share(first: &Panoptes, second: &Panoptes) {
    for one in [first, second] {
        one.await_assigned(ALL / 2);
    }
}

/// Sends parts while the line is disturbed; what was sent, and what came of it.
fn live(line: &Line<'_>, config: &Config) -> (Vec<SentPart>, Outcomes) {
    let begun = AtomicUsize::new(0);
    let course = Course { begun: &begun };
    let sent = std::thread::scope(|scope| {
        let (until, is_enough) = mpsc::channel();
        let cameras = Cameras::new(line, BEGAN, seed());
        let sending = scope.spawn(|| cameras.run(is_enough, &begun));
        let panoptes = disturb(config, &line.name, &course);
        drop(until);
        let sent = sending.join().expect("the cameras sent all");
        line.await_parts(sent.len());
        panoptes.await_metrics("nothing unfinished", |metrics| {
            metrics.sum("panoptes_uncommitted_records", &[]) < 0.5
        });
        panoptes.stop_in_order();
        sent
    });
    (sent, line.outcomes())
}

/// What is not as the records' own times ask for: one result of each part, a dead letter of each bad record.
fn faults(sent: &[SentPart], outcomes: &Outcomes) -> Vec<String> {
    let mut faults = Vec::new();
    let mut expected = Vec::new();
    for SentPart { name, mishap } in sent {
        let result = outcomes.result_of(name);
        let is_so = result.views_with_status("missing") == mishap.missing()
            && result.views_with_status("failed") == mishap.failed()
            && result.duplicates == mishap.duplicates();
        if !is_so {
            faults.push(format!("{mishap:?}: {}", brief(result)));
        }
        let reason = mishap.reason();
        expected.extend(reason.map(|reason| (name.clone(), reason.to_owned())));
    }
    let letters = outcomes.dead_letters.iter();
    let told = letters.map(|letter| (letter.header(MADE_FOR), letter.reason()));
    let mut unexpected: Vec<(String, String)> = told.collect();
    for one in expected {
        match unexpected.iter().position(|it| *it == one) {
            Some(place) => drop(unexpected.swap_remove(place)),
            None => faults.push(format!("no dead letter {one:?}")),
        }
    }
    faults.extend(unexpected.iter().map(|one| format!("dead letter {one:?}")));
    faults
}

fn brief(result: &PartResult) -> String {
    let views = result.views.iter();
    let views: Vec<String> = views
        .map(|view| format!("{} {}", view.view, view.status))
        .collect();
    let (part, duplicates) = (&result.part_id, &result.duplicates);
    format!("{part}: {}, duplicates {duplicates:?}", views.join(", "))
}

#[test]
fn a_live_line_that_was_killed_and_rebalanced_is_replayed_the_same_at_any_speed() {
    let line = Line::new(Broker::shared(), "replay-disturbed");
    let config = settings(&line);
    let (sent, live) = live(&line, &config);
    for mishap in Mishap::TURNS {
        assert!(sent.iter().any(|part| part.mishap == mishap), "{mishap:?}");
    }
    let closed_by = live.results.iter().map(|one| &*one.headers["closed-by"]);
    let closed_by: BTreeSet<&str> = closed_by.collect();
    assert_eq!(closed_by, ["complete", "stream_time"].into());

    let mut wrong = faults(&sent, &live);
    let ways: [(&str, &[&str]); 4] = [
        ("alone", &[]),
        ("slowly", &["--rate", "600KB"]),
        ("thrice", &["--parallel", "3"]),
        ("thrice-slowly", &["--parallel", "3", "--rate", "600KB"]),
    ];
    for (name, words) in ways {
        let into = target(&line, name);
        let replay = Replay::of(&line, &config, &into).with(&["--no-report"]);
        let summary = replay.with(words).complete();
        println!("replayed {name} in {} s", summary["seconds"]);
        let found = differences(&live, &into.outcomes());
        wrong.extend(found.iter().map(|fault| format!("{name}: {fault}")));
    }
    let count = wrong.len();
    assert!(wrong.is_empty(), "{count} faults:\n{}", wrong.join("\n"));
}
