//! Chaos: instances that are killed, frozen, added and removed and brokers that come and go, at random
//! moments, while cameras send parts and bad records all the while. A `read_committed` reader then
//! finds each part's result and each bad record's dead letter, once.
//!
//! The short runs belong to all tests. `make soak` does the long ones.

mod cameras;
mod check;
mod fleet;
mod recovery;
mod schedule;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use self::cameras::{Cameras, Sent};
use self::check::Verdict;
use self::fleet::Fleet;
use crate::kafka::Cluster;
use crate::support::config::Config;
use crate::support::line::{Line, VIEWS};
use crate::support::outcome_reader::OutcomeReader;
use crate::support::published::ResultRecord;
use crate::support::seed::seed;

/// How long the last outcomes may take, once everything is back and all is sent.
const PATIENCE: Duration = Duration::from_secs(240);

/// How long doubles of the last outcomes may take to show.
const AFTERMATH: Duration = Duration::from_secs(2);

/// How large a run is.
#[derive(Clone, Debug)]
struct Settings {
    /// At least; parts are sent until the schedule is done.
    parts: usize,
    parts_a_second: f64,
    /// The share of parts that a bad record belongs to.
    bad_share: f64,
    cameras: usize,
    partitions: i32,
    /// At least.
    instances: usize,
    kills: usize,
    freezes: usize,
    broker_stops: usize,
    /// Instances added, and as many removed.
    additions: usize,
    /// The pause from one disturbance to the next.
    gap_millis: Range<u64>,
}

impl Settings {
    /// For the tests of every day.
    fn short() -> Self {
        Self {
            parts: 200,
            parts_a_second: 8.0,
            bad_share: 0.15,
            cameras: 5,
            partitions: 6,
            instances: 2,
            kills: 4,
            freezes: 1,
            broker_stops: 1,
            additions: 1,
            gap_millis: 200..3_000,
        }
    }

    /// For a run of some minutes.
    fn soak() -> Self {
        Self {
            parts: 2_400,
            parts_a_second: 10.0,
            instances: 3,
            kills: 24,
            freezes: 4,
            broker_stops: 6,
            additions: 4,
            gap_millis: 500..9_000,
            ..Self::short()
        }
    }

    /// So many times as long.
    fn times(mut self, factor: usize) -> Self {
        let counts = [
            &mut self.parts,
            &mut self.kills,
            &mut self.freezes,
            &mut self.broker_stops,
            &mut self.additions,
        ];
        for count in counts {
            *count *= factor;
        }
        self
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    ExactlyOnce,
    AtLeastOnce,
}

impl Delivery {
    fn name(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly_once",
            Self::AtLeastOnce => "at_least_once",
        }
    }
}

/// One run: the chaos, the check, the tables.
fn run(name: &str, delivery: Delivery, settings: &Settings) {
    // Two at a time would only slow each other down.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = seed();
    println!("{name}: {settings:?}");
    let cluster = Cluster::start(name);
    let views = &VIEWS[..settings.cameras];
    let line = Line::of(&cluster.first, name, views, settings.partitions);
    let mut fleet = Fleet::start(&cluster, config(&line, delivery), name, settings.instances);
    let began = Instant::now();
    let (sent, results) = play(&line, &mut fleet, settings, seed);
    std::thread::sleep(AFTERMATH);
    let report = fleet.stop();
    let outcomes = line.outcomes();
    let verdict = Verdict::of(&sent, &outcomes, &outcomes.fates(&line));
    println!(
        "\nchaos with {}, PANOPTES_TEST_SEED={seed}, {:.0} s\n\n{}\n{}\n{report}",
        delivery.name(),
        began.elapsed().as_secs_f64(),
        recovery::tables(began, &report.disturbances, &sent.parts, &results),
        verdict.table(),
    );
    verdict.assert_keeps(delivery);
}

/// Carries out the schedule of the seed while cameras send and a reader follows; what was sent, and the
/// results as they were read.
fn play(
    line: &Line<'_>,
    fleet: &mut Fleet<'_>,
    settings: &Settings,
    seed: u64,
) -> (Sent, Vec<ResultRecord>) {
    let course = Course::default();
    std::thread::scope(|scope| {
        let _watch = Watch(&course.is_broken);
        let cameras = Cameras::new(line, settings, seed);
        let sending = scope.spawn(|| {
            let _watch = Watch(&course.is_broken);
            cameras.run(|parts| course.is_over(parts, settings))
        });
        let reading = scope.spawn(|| follow(line, &course));
        fleet.carry_out(&schedule::draw(settings, seed));
        course.is_done.store(true, Ordering::Relaxed);
        let sent = sending.join().expect("the cameras sent all");
        let counts = (sent.parts.len(), sent.bad_records.len());
        course.sent.set(counts).expect("set once");
        (sent, reading.join().expect("the reader ended"))
    })
}

fn config(line: &Line<'_>, delivery: Delivery) -> Config {
    line.config()
        .set("output.delivery", delivery.name())
        .set("output.transactions.timeout", "3s")
        // Longer than any standstill: whatever is missing then is missing for good.
        .set("reassembly.timeout", "3m")
        .set("bus.drain_timeout", "20s")
        .set("telemetry.log_level", "info,panoptes=debug")
}

/// What the threads of a run tell each other.
#[derive(Default)]
struct Course {
    /// The schedule is done.
    is_done: AtomicBool,
    /// One of the threads has panicked.
    is_broken: AtomicBool,
    /// How many parts and bad records were sent, once that is all.
    sent: OnceLock<(usize, usize)>,
}

impl Course {
    fn is_over(&self, parts: usize, settings: &Settings) -> bool {
        let is_done = self.is_done.load(Ordering::Relaxed) && parts >= settings.parts;
        is_done || self.is_broken()
    }

    fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }
}

/// Tells the others of a panic: they would go on for ever.
struct Watch<'a>(&'a AtomicBool);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Reads results as they are committed, until everything that was sent has an outcome or nothing
/// more is to be expected.
fn follow(line: &Line<'_>, course: &Course) -> Vec<ResultRecord> {
    let mut reader = OutcomeReader::new(line);
    let (mut parts, mut places) = (HashSet::new(), HashSet::new());
    let (mut results, mut letters) = (0, 0);
    let mut sent_at = None;
    while !course.is_broken() {
        reader.poll();
        let outcomes = reader.outcomes();
        let new = &outcomes.results[results..];
        parts.extend(new.iter().map(|record| record.result.part_id.clone()));
        results = outcomes.results.len();
        let new = &outcomes.dead_letters[letters..];
        places.extend(new.iter().map(|letter| letter.place()));
        letters = outcomes.dead_letters.len();
        if let Some((sent_parts, bad_records)) = course.sent.get() {
            let is_all = parts.len() >= *sent_parts && places.len() >= *bad_records;
            if is_all || sent_at.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                break; // what is lost is told by the check
            }
        }
    }
    reader.into_outcomes().results
}

#[test]
fn chaos_with_exactly_once_loses_and_doubles_nothing() {
    run("chaos-exactly", Delivery::ExactlyOnce, &Settings::short());
}

#[test]
fn chaos_with_at_least_once_loses_nothing_and_doubles_alike() {
    run("chaos-at-least", Delivery::AtLeastOnce, &Settings::short());
}

/// The long runs, `PANOPTES_SOAK_TIMES` as long as usual.
fn soak() -> Settings {
    let times = std::env::var("PANOPTES_SOAK_TIMES").ok();
    Settings::soak().times(times.map_or(1, |times| times.parse().unwrap()))
}

#[test]
#[ignore = "takes minutes: `make soak`"]
fn a_soak_with_exactly_once_loses_and_doubles_nothing() {
    run("soak-exactly", Delivery::ExactlyOnce, &soak());
}

#[test]
#[ignore = "takes minutes: `make soak`"]
fn a_soak_with_at_least_once_loses_nothing_and_doubles_alike() {
    run("soak-at-least", Delivery::AtLeastOnce, &soak());
}
