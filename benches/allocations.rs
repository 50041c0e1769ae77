//! How often, and for how many bytes, the stages allocate for a view of 100 KB on its way from the poll
//! thread's copy to the result: `cargo bench --bench allocations`.
//!
//! It fails when a stage allocates as much as an image takes: then it has copied one.

use allocation_counter::{AllocationInfo, measure};
use panoptes::domain::{ScoredGroup, ViewOutcome};
use panoptes::kafka::offsets::OffsetLedger;
use panoptes::schema::result::PartResult;
use panoptes::scoring::{Judge, JudgeSettings};

#[allow(dead_code, reason = "shared with another bench")]
mod line;

const IMAGE_BYTES: usize = 100_000;
/// Parts that go before, so that tables have grown.
const WARM_UP: usize = 20_000;
/// Parts that count.
const PARTS: usize = 1_000;

/// What was counted, stage by stage.
#[derive(Default)]
struct Stages {
    stages: Vec<(&'static str, AllocationInfo)>,
}

impl Stages {
    /// Runs a stage; counts what it allocates.
    fn run<T>(&mut self, name: &'static str, stage: impl FnOnce() -> T) -> T {
        let mut made = None;
        let info = measure(|| made = Some(stage()));
        match self.stages.iter_mut().find(|(other, _)| *other == name) {
            Some((_, sum)) => *sum += info,
            None => self.stages.push((name, info)),
        }
        made.expect("the stage was run")
    }
}

fn main() {
    let image = vec![7; IMAGE_BYTES];
    let (decoder, buffer) = (line::decoder(), line::buffer());
    let judge = Judge::new(JudgeSettings::default());
    let mut ledger = OffsetLedger::default();
    ledger.assign([line::partition(0), line::partition(1)], line::GENERATION);
    let mut stages = Stages::default();
    for part in 0..WARM_UP + PARTS {
        if part == WARM_UP {
            stages = Stages::default();
        }
        let now = line::time_of(part);
        let mut group = None;
        for view in 0..line::VIEWS.len() {
            // A small image while tables grow: it is the parts that count.
            let image = if part < WARM_UP { &image[..1] } else { &image };
            let record = line::record(part, view, image);
            stages.run("ledger, begin", || ledger.begin(&record.source));
            let view = stages.run("envelope", || line::decode(&decoder, record, now));
            let events = stages.run("reassembly", || buffer.accept(view, now));
            group = group.or(line::closed(events));
        }
        let group = group.expect("the part is complete");
        let outcomes = group.views.iter().map(|_| ViewOutcome::Scored {
            map: line::map(8),
            footprint: line::footprint(),
        });
        let scored = ScoredGroup {
            outcomes: outcomes.collect(),
            group: group.clone(),
            scored_at: now,
        };
        let (verdict, _) = stages.run("judge", || judge.judge(scored));
        stages.run("result", || {
            PartResult::new(&verdict, &line::model(), &line::run())
                .to_msgpack()
                .expect("any verdict can be told")
        });
        stages.run("ledger, finish", || {
            for record in group.records() {
                ledger.finish(&record.source, line::GENERATION);
            }
        });
    }
    let views = (PARTS * line::VIEWS.len()) as f64;
    println!(
        "{:<16} {:>18} {:>12}",
        "stage", "allocations a view", "bytes a view"
    );
    for (name, info) in &stages.stages {
        let (count, bytes) = (
            info.count_total as f64 / views,
            info.bytes_total as f64 / views,
        );
        println!("{name:<16} {count:>18.2} {bytes:>12.0}");
        assert!(
            bytes < IMAGE_BYTES as f64,
            "stage `{name}` has copied an image"
        );
    }
}
