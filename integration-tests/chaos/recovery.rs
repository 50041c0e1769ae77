//! How long the line stood still: from each disturbance to the next committed result of a part that
//! was sent after it, of any part and on the partition that comes last.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::cameras::SentPart;
use super::schedule::Action;
use crate::support::published::ResultRecord;

/// What was done, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disturbance {
    pub(super) action: Action,
    pub(super) at: Instant,
}

/// The time from a disturbance to the first result of a part that was sent after it.
#[derive(Clone, Copy, Debug)]
struct Recovery {
    /// Of any part.
    first: Duration,
    /// On every partition of the camera topics.
    everywhere: Duration,
}

/// What was done one after another and each recovery; then a table of what was done how often, and the
/// median and longest recoveries.
pub(super) fn tables(
    began: Instant,
    disturbances: &[Disturbance],
    parts: &[SentPart],
    results: &[ResultRecord],
) -> String {
    let arrivals = arrivals(parts, results);
    let mut table = String::new();
    let mut kinds: BTreeMap<&str, (usize, Vec<Recovery>)> = BTreeMap::new();
    for Disturbance { action, at } in disturbances {
        let (count, recoveries) = kinds.entry(kind(*action)).or_default();
        *count += 1;
        let Some(recovery) = recovery(*at, &arrivals) else {
            continue;
        };
        let after = (*at - began).as_secs_f64();
        let [first, everywhere] = [recovery.first, recovery.everywhere].map(|it| it.as_secs_f64());
        writeln!(
            table,
            "{after:>7.1} s: {action}: next result {first:.1} s, on every partition {everywhere:.1} s"
        )
        .unwrap();
        recoveries.push(recovery);
    }
    table.push_str(
        "\n| what | how often | next result: median | longest | on every partition: median | longest |\n\
         | --- | --: | --: | --: | --: | --: |\n",
    );
    for (kind, (count, recoveries)) in kinds {
        let first = median_and_longest(recoveries.iter().map(|it| it.first));
        let everywhere = median_and_longest(recoveries.iter().map(|it| it.everywhere));
        writeln!(table, "| {kind} | {count} | {first} | {everywhere} |").unwrap();
    }
    table
}

fn kind(action: Action) -> &'static str {
    match action {
        Action::Kill(_) => "SIGKILL of an instance, restarted at once",
        Action::Freeze(_) => "SIGSTOP of an instance at work, past its session",
        Action::Thaw(_) => "SIGCONT of that instance",
        Action::Add(_) => "instance added",
        Action::Remove(_) => "instance removed in order (SIGTERM)",
        Action::KillBroker(_) => "SIGKILL of a broker",
        Action::StopBroker(_) => "broker stopped in order (SIGTERM)",
        Action::StartBroker(_) => "broker started again",
    }
}

/// A result's partition number, when its part was sent and when the result was read.
struct Arrival {
    partition: i32,
    sent_after: Instant,
    read_at: Instant,
}

fn arrivals(parts: &[SentPart], results: &[ResultRecord]) -> Vec<Arrival> {
    let sent: HashMap<&str, Instant> = parts
        .iter()
        .map(|part| (part.name.as_str(), part.after))
        .collect();
    let arrival = |record: &ResultRecord| {
        let mut sources = record
            .result
            .views
            .iter()
            .filter_map(|view| view.source.as_ref());
        Some(Arrival {
            partition: sources.next()?.partition,
            sent_after: *sent.get(record.result.part_id.as_str())?,
            read_at: record.read_at,
        })
    };
    results.iter().filter_map(arrival).collect()
}

/// None for a disturbance that no part was sent after.
fn recovery(at: Instant, arrivals: &[Arrival]) -> Option<Recovery> {
    let mut firsts: BTreeMap<i32, Instant> = BTreeMap::new();
    for arrival in arrivals.iter().filter(|it| it.sent_after >= at) {
        let first = firsts.entry(arrival.partition).or_insert(arrival.read_at);
        *first = (*first).min(arrival.read_at);
    }
    Some(Recovery {
        first: *firsts.values().min()? - at,
        everywhere: *firsts.values().max()? - at,
    })
}

fn median_and_longest(durations: impl Iterator<Item = Duration>) -> String {
    let mut sorted: Vec<Duration> = durations.collect();
    sorted.sort();
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(median), Some(longest)) => format!(
            "{:.1} s | {:.1} s",
            median.as_secs_f64(),
            longest.as_secs_f64()
        ),
        _ => "| ".to_owned(),
    }
}
