//! Two replays and the live line, all at once over the same topics, and the replays killed again and again:
//! each has its results once, and none has touched what belongs to another.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::mpsc;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::comparison::comparable;
use super::*;
use crate::kafka::{children, tools};
use crate::support::outcome_reader::OutcomeReader;
use crate::support::process::{FREE_MODEL, log_folder};
use crate::support::seed::seed;

/// Parts of the larger replay.
const PARTS: usize = 20_000;
/// Parts of the smaller one.
const RANGE: Range<usize> = 6_000..14_000;
/// How much more it reads, in parts.
const LEAD: usize = 300;
/// Parts that the line has before anybody replays it.
const HEAD_START: usize = 1_000;
/// Parts that the cameras send at a time while the replays run.
const AT_A_TIME: usize = 20;
const PAUSE: Duration = Duration::from_millis(200);
/// Of the last parts none lacks a view: time goes on behind those that do.
const LAST_WHOLE: usize = 500;
const SIDE: usize = 8;
const VIEWS: [&str; 2] = ["top", "side"];
const PATIENCE: Duration = Duration::from_secs(480);

fn is_partial(number: usize) -> bool {
    number % 50 == 7 && number < PARTS - LAST_WHOLE
}

fn shots(line: &Line<'_>, number: usize) -> impl Iterator<Item = Shot> {
    let views = if is_partial(number) {
        &VIEWS[..1]
    } else {
        &VIEWS
    };
    let shot = move |view: &&str| {
        let image = vec![number.to_le_bytes()[0]; SIDE * SIDE];
        let shot = Shot::of(&line.camera(view), &name(number), "image/x-raw", image);
        let [side, partitions] = [SIDE, line.partitions as usize];
        shot.header("pixel-format", "Mono8")
            .header("width", &side.to_string())
            .header("height", &side.to_string())
            .on_partition(i32::try_from(number % partitions).unwrap())
            .at(made_at(number))
    };
    views.iter().map(shot)
}

fn name(number: usize) -> String {
    format!("part-{number:05}")
}

/// How many records of these parts each partition of the camera topics has.
fn records(line: &Line<'_>, parts: Range<usize>) -> BTreeMap<(String, i32), i64> {
    let mut records = BTreeMap::new();
    for shot in parts.flat_map(|number| shots(line, number)) {
        *records
            .entry((shot.topic, shot.partition.unwrap()))
            .or_default() += 1;
    }
    records
}

/// What a group has committed of the camera topics, by Kafka's own tool.
fn committed(line: &Line<'_>, group: &str) -> BTreeMap<(String, i32), i64> {
    let positions = tools::describe_group(line.broker, group).into_iter();
    positions
        .map(|one| ((one.topic, one.partition), one.committed.unwrap()))
        .collect()
}

impl Replay {
    /// Runs it to its end, but kills it with its first result and whenever so many are there; most of that
    /// must hit it. Tells `begun` of the first.
    fn complete_after_kills(&self, into: &Line<'_>, kills: &[usize], begun: &mpsc::Sender<()>) {
        let log = File::create(log_folder().join(format!("{}.log", into.name))).unwrap();
        let command = || {
            let mut command = self.command();
            command.env(FREE_MODEL.0, FREE_MODEL.1);
            command.stderr(log.try_clone().unwrap());
            command
        };
        let mut reader = OutcomeReader::new(into);
        let mut hits = 0;
        for enough in [1].iter().chain(kills) {
            let mut command = command();
            command.stdout(Stdio::null());
            let mut child = children::spawn(command);
            reader.read_until(PATIENCE, |found| found.results.len() >= *enough);
            children::end(&mut child);
            begun.send(()).ok(); // only the first is waited for
            let ended = child.wait().unwrap();
            let published = reader.outcomes().results.len();
            println!("{}: {ended} with {published} results", into.name);
            if ended.signal().is_none() {
                // Thousands of parts a second: while the reader was held up, it has done the rest.
                assert_eq!(ended.code(), Some(0));
                break;
            }
            hits += 1;
        }
        assert!(
            2 * hits > kills.len() + 1,
            "only {hits} kills hit, the later of {kills:?}"
        );
        let summary = summary(&command().output().unwrap());
        assert_eq!(summary["skipped"], Value::Array(Vec::new()), "{summary}");
    }
}

/// How many results are there at each of so many kills: at most two thirds of all, so that there is more to
/// do than is done until a kill hits.
fn draw(random: &mut ChaCha8Rng, kills: usize, all: usize) -> Vec<usize> {
    let places = (0..kills).map(|_| random.random_range(2..all * 2 / 3));
    let mut places: Vec<usize> = places.collect();
    places.sort_unstable();
    places
}

/// Runs both replays and kills them, while the live line goes on. How many parts were sent by then.
fn replay_through_kills(
    line: &Line<'_>,
    config: &Config,
    all: &Line<'_>,
    range: &Line<'_>,
) -> usize {
    let mut random = ChaCha8Rng::seed_from_u64(seed());
    let job = |into: &Line<'_>| {
        let replay = Replay::of(line, config, into);
        replay.with(&["--no-report", "--job", &into.name])
    };
    let [from, to] = [RANGE.start, RANGE.end].map(time_of);
    let in_range = ["--from", &from, "--to", &to, "--parallel", "2"];
    let replays = [
        (job(all), all, draw(&mut random, 4, PARTS)),
        (
            job(range).with(&in_range),
            range,
            draw(&mut random, 2, RANGE.len()),
        ),
    ];
    let mut sent = PARTS;
    std::thread::scope(|scope| {
        let started = replays.map(|(replay, into, kills)| {
            let (told, begun) = mpsc::channel();
            let run = move || replay.complete_after_kills(into, &kills, &told);
            (scope.spawn(run), begun)
        });
        // What is sent from now on is behind the ends of both.
        for (_, begun) in &started {
            begun.recv().unwrap();
        }
        while !started.iter().all(|(replay, _)| replay.is_finished()) {
            line.send((sent..sent + AT_A_TIME).flat_map(|number| shots(line, number)));
            sent += AT_A_TIME;
            std::thread::sleep(PAUSE);
        }
    });
    sent
}

fn await_results(line: &Line<'_>, results: usize) -> Outcomes {
    line.await_outcomes(|found| found.results.len() >= results)
}

/// The results of these parts; fails the test unless each has one, as the tests' reader and Kafka's own tell.
fn results_once(line: &Line<'_>, parts: Range<usize>) -> BTreeMap<String, Vec<u8>> {
    let outcomes = line.outcomes();
    assert!(outcomes.dead_letters.is_empty());
    let expected: BTreeSet<String> = parts.clone().map(name).collect();
    let results = comparable(&outcomes);
    assert!(results.keys().eq(&expected), "{} results", results.len());
    let of_console = tools::console_keys(line.broker, &line.results_topic(), parts.len());
    assert_eq!(of_console.into_iter().collect::<BTreeSet<_>>(), expected);
    let partial = outcomes.results.iter().filter(|one| one.result.is_partial);
    let partial: BTreeSet<&String> = partial.map(|one| &one.key).collect();
    let incomplete: BTreeSet<String> = parts.filter(|it| is_partial(*it)).map(name).collect();
    assert!(partial.into_iter().eq(&incomplete));
    results
}

/// Fails the test unless each group has what it had if it were alone.
fn assert_own_groups(line: &Line<'_>, all: &Line<'_>, range: &Line<'_>, sent: usize) {
    let group = |into: &Line<'_>, what: &str| committed(line, &format!("{}{what}", into.name));
    let of_range = RANGE.start - LEAD..RANGE.end + LEAD;
    for (into, read) in [(all, 0..PARTS), (range, of_range)] {
        let ends = records(line, 0..read.end);
        let mut begins: BTreeMap<_, _> = ends.keys().map(|one| (one.clone(), 0)).collect();
        begins.extend(records(line, 0..read.start));
        assert_eq!(group(into, "-begin"), begins);
        assert_eq!(group(into, "-end"), ends);
        assert_eq!(group(into, ""), ends);
    }
    assert_eq!(group(line, ""), records(line, 0..sent));
}

#[test]
fn replays_and_the_live_line_run_side_by_side_through_kills_and_touch_nothing_of_each_other() {
    let line = Line::with_views(Broker::shared(), "replay-beside", &VIEWS);
    // Nothing is closed by the wall clock.
    let config = config(&line)
        .set("reassembly.timeout", "60s")
        .set("reassembly.idle_after", "50s")
        .set("reassembly.wall_grace", "10m")
        .set("output.maps.codec", "none");
    let panoptes = Panoptes::start_with(&config, &line.name, &[FREE_MODEL]);
    for first in (0..PARTS).step_by(HEAD_START) {
        let parts = first..first + HEAD_START;
        line.send(parts.flat_map(|number| shots(&line, number)));
    }
    await_results(&line, HEAD_START);
    let [all, range] = ["all", "range"].map(|name| target(&line, name));
    let sent = replay_through_kills(&line, &config, &all, &range);
    await_results(&line, sent);
    panoptes.stop_in_order();

    let live = results_once(&line, 0..sent);
    for (into, parts) in [(&all, 0..PARTS), (&range, RANGE)] {
        for (part, result) in results_once(into, parts) {
            assert_eq!(live[&part], result, "{part}");
        }
    }
    assert_own_groups(&line, &all, &range, sent);

    // Another line over the same topics, when there is no replay.
    let alone = target(&line, "alone");
    let config = config
        .set("bus.group_id", alone.name.as_str())
        .set("output.results_topic", alone.results_topic())
        .set("output.dead_letter_topic", alone.dead_letter_topic());
    let panoptes = Panoptes::start_with(&config, &alone.name, &[FREE_MODEL]);
    let of_alone = await_results(&alone, sent);
    panoptes.stop_in_order();
    assert!(live == comparable(&of_alone));
    assert_eq!(committed(&line, &alone.name), records(&line, 0..sent));
}
