//! Memory stays within its bound whatever the cameras do, and every record ends.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::kafka::Broker;
use crate::support::config::Config;
use crate::support::line::Line;
use crate::support::process::{FREE_MODEL, Panoptes, log_folder, panoptes};
use crate::support::shots::Shot;

const MIB: u64 = 1 << 20;
const BUDGET: u64 = 32 * MIB;

/// Side of a raw RGB image: just below the megabyte that brokers take by default.
const SIDE: usize = 560;
const RECORD: u64 = (SIDE * SIDE * 3) as u64;

/// Parts of the burst: so many images are more than four times the budget.
const BURST: usize = 150;
/// Parts of each other adversity.
const PARTS: usize = 40;

const HOUR: i64 = 3_600_000;

/// Images of one part while they are decoded: their pixels, and those as numbers.
const DECODED: u64 = 2 * 5 * RECORD;
/// Results and dead letters of one transaction, and the client's copy of them.
const TRANSACTION: u64 = 2 * 8 * MIB;

/// What `config/panoptes.toml` says of a process besides what it needs when it is idle: the records and
/// one more, what is prefetched and what one fetch brings on top, and the images at work.
const WHILE_SCORING: u64 = BUDGET + RECORD + BUDGET / 4 + BUDGET / 4 + DECODED;
/// Dead letters on their way are there once more.
const WITH_DEAD_LETTERS: u64 = WHILE_SCORING + BUDGET + TRANSACTION;

fn config(line: &Line, on_timeout: &str) -> Config {
    line.config()
        .set("output.delivery", "exactly_once")
        .set("limits.max_bytes", "1MiB")
        .set("reassembly.memory_budget", "32MiB")
        .set("reassembly.on_timeout", on_timeout)
        .set("model.max_batch", 2)
}

fn start(line: &Line, on_timeout: &str) -> Panoptes {
    let config = config(line, on_timeout);
    let mut panoptes = Panoptes::start_with(&config, &line.name, &[FREE_MODEL]);
    panoptes.wait_until_ready();
    panoptes
}

/// One view of a part as a raw image, taken so many milliseconds from now.
fn view(line: &Line, view: &str, part: &str, skew: i64) -> Shot {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let taken_at = i64::try_from(now.as_millis()).unwrap() + skew;
    let mut pixels = vec![0; SIDE * SIDE * 3];
    ChaCha8Rng::seed_from_u64(part.len() as u64).fill_bytes(&mut pixels);
    let side = SIDE.to_string();
    Shot::of(&line.camera(view), part, "image/x-raw", pixels)
        .header("pixel-format", "RGB8")
        .header("width", &side)
        .header("height", &side)
        .header("stride", &(SIDE * 3).to_string())
        .header("captured-at", &taken_at.to_string())
}

/// What memory a line's process takes for one adversity after the other.
struct Trial<'a> {
    line: &'a Line<'a>,
    panoptes: Panoptes,
    idle: u64,
    bound: u64,
    parts: usize,
}

impl<'a> Trial<'a> {
    /// A process that is ready and has done a little of everything.
    fn start(line: &'a Line<'a>, on_timeout: &str, bound: u64) -> Self {
        let panoptes = start(line, on_timeout);
        let mut trial = Self {
            line,
            panoptes,
            idle: 0,
            bound,
            parts: 0,
        };
        trial.send("warm", 4, |part| {
            vec![view(line, "top", part, 0), view(line, "left", part, 0)]
        });
        trial.await_all();
        trial.idle = trial.panoptes.resident_bytes();
        trial
    }

    /// Sends all at once, to a process that finds it when it wakes up.
    fn send(&mut self, name: &str, parts: usize, shots: impl Fn(&str) -> Vec<Shot>) {
        self.panoptes.freeze();
        let parts_of = (0..parts).map(|number| format!("{name}-{number}"));
        self.line.send(parts_of.flat_map(|part| shots(&part)));
        self.panoptes.thaw();
        self.parts += parts;
    }

    fn await_all(&self) {
        self.line.await_outcomes(|outcomes| {
            let mut parts = outcomes.parts();
            let letters: Vec<String> = outcomes.dead_letters.iter().map(|one| one.part()).collect();
            parts.extend(letters.iter().map(String::as_str));
            parts.len() >= self.parts
        });
    }

    /// Sends, waits until all has ended, and checks the most memory that was taken meanwhile.
    fn survive(&mut self, name: &str, parts: usize, shots: impl Fn(&str) -> Vec<Shot>) {
        self.panoptes.forget_peak();
        self.send(name, parts, shots);
        self.await_all();
        let taken = self.panoptes.peak_bytes().saturating_sub(self.idle);
        eprintln!(
            "{name}: {} MiB above idle, {} allowed",
            taken / MIB,
            self.bound / MIB
        );
        assert!(
            taken <= self.bound,
            "{name}: {} MiB above idle",
            taken / MIB
        );
    }

    fn end(self) {
        self.panoptes.stop_in_order();
        self.line
            .assert_every_record_has_one_fate(&self.line.outcomes());
    }
}

#[test]
fn memory_keeps_to_its_bound_in_all_adversity() {
    const { assert!(BURST as u64 * RECORD > 4 * BUDGET) };
    let line = Line::with_views(Broker::shared(), "memory", &["top", "left"]);
    let mut trial = Trial::start(&line, "score_partial", WHILE_SCORING);
    let both = |part: &str, top: i64, left: i64| {
        vec![
            view(&line, "top", part, top),
            view(&line, "left", part, left),
        ]
    };
    trial.survive("burst", BURST, |part| vec![view(&line, "top", part, 0)]);
    trial.survive("hours-behind", PARTS, |part| both(part, -3 * HOUR, 0));
    trial.survive("skew", PARTS, |part| both(part, 20_000, -20_000));
    trial.survive("far-future", PARTS, |part| both(part, 0, 100_000 * HOUR));
    // Nothing comes after these, and their other views never do.
    trial.survive("stopped", PARTS, |part| vec![view(&line, "left", part, 0)]);
    trial.end();
}

/// A backlog that comes faster than one budget a second, of parts of which no view is missing; `bench` ends
/// with an error where one has no whole result.
#[test]
fn no_part_of_a_dense_backlog_gives_way() {
    let broker = Broker::shared();
    let words = [
        "bench",
        "pipeline",
        "--brokers",
        &broker.address(),
        "--parts",
        "600",
        "--rounds",
        "2",
        "--set",
        "reassembly.memory_budget=64MiB",
    ];
    let output = panoptes(&log_folder(), &words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
}

#[test]
fn memory_keeps_to_its_bound_while_all_goes_to_the_dead_letters() {
    let line = Line::with_views(Broker::shared(), "memory-dead", &["top", "left"]);
    let mut trial = Trial::start(&line, "dead_letter", WITH_DEAD_LETTERS);
    trial.survive("burst", BURST, |part| vec![view(&line, "top", part, 0)]);
    trial.survive("unreadable", BURST, |part| {
        let of_no_kind = Shot::of(
            &line.camera("top"),
            part,
            "image/odd",
            vec![7; RECORD as usize],
        );
        vec![of_no_kind]
    });
    trial.end();
}
