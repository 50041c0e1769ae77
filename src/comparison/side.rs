//! One results topic, as far as a comparison needs it.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hasher as _;
use std::sync::Arc;

use serde::Serialize;
use twox_hash::XxHash3_64;

use super::counts::Examples;
use super::range::ReplayedRange;
use crate::domain::{
    ClassName, CloseCause, Decision, Header, LineId, PartId, PartKey, Record, SourceOffset,
    Timestamp,
};
use crate::schema::published::Published;
use crate::schema::result::{CLOSED_BY, PartResult, Run, RunKind, Source};

/// Where a result stands in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The partition number.
    pub partition: i32,
    /// The offset within the partition.
    pub offset: i64,
}

/// What is kept of one result.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) part: PartKey,
    pub(super) class: Option<ClassName>,
    pub(super) decision: Decision,
    pub(super) score: Option<f32>,
    pub(super) threshold: Option<f32>,
    pub(super) is_partial: bool,
    pub(super) first_view_at: Timestamp,
    pub(super) place: Place,
    /// The digest of its ID; compared between results of one part only.
    pub(super) result_id: u64,
    /// The digests of the records that it names, each once, in order; compared likewise.
    pub(super) records: Box<[u64]>,
    /// Why no more views were waited for, where the record says it.
    pub(super) closed_by: Option<CloseCause>,
    /// A part that the replay was not to score.
    pub(super) is_outside: bool,
}

/// Which results of a topic are compared.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The lines; all if none is named.
    pub lines: Vec<String>,
    /// Whose results.
    pub runs: Runs,
    /// What the other topic's run was to score, if that was not all: a part beyond it is not missing there.
    pub range: Option<ReplayedRange>,
}

/// Whose results of a topic are compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Runs {
    /// All.
    #[default]
    All,
    /// Those of the replay of this name.
    Only(String),
    /// All but those of the replay of this name.
    AllBut(String),
}

impl Runs {
    fn take(&self, run: &Run) -> bool {
        let is = |name: &String| run.kind == RunKind::Replay && run.id == *name;
        match self {
            Self::All => true,
            Self::Only(name) => is(name),
            Self::AllBut(name) => !is(name),
        }
    }
}

/// What was read of one results topic.
#[derive(Debug, Default)]
pub struct Side {
    pub(super) results: Vec<Judged>,
    pub(super) account: ReadAccount,
    /// How many results each model gave, by name and version.
    pub(super) models: BTreeMap<String, u64>,
    wanted: Wanted,
    names: Names,
}

/// What the records of a results topic were.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReadAccount {
    /// Records read.
    pub records: u64,
    /// The first offset that was there to read of each partition; what was before it is gone.
    pub first_offsets: BTreeMap<i32, i64>,
    /// Results, those published twice among them.
    pub results: u64,
    /// Results of lines that are not compared.
    pub other_lines: u64,
    /// Results of runs that are not compared.
    pub other_runs: u64,
    /// Dead letters, which have no place there.
    pub dead_letters: u64,
    /// Records without a value, as a compacted topic has them for keys that were deleted.
    pub tombstones: u64,
    /// Records that are no result, and why.
    pub unreadable: Examples,
}

impl Side {
    /// A side that takes these results.
    pub fn of(wanted: Wanted) -> Self {
        Self {
            wanted,
            ..Self::default()
        }
    }

    /// Takes one record of the topic, whatever it is.
    pub fn add(&mut self, record: &Record) {
        let place = place(&record.source);
        let first = self.account.first_offsets.entry(place.partition);
        let first = first.or_insert(place.offset);
        *first = place.offset.min(*first);
        self.account.records += 1;
        if record.value.is_none() {
            self.account.tombstones += 1;
            return;
        }
        let read = match Published::read(record) {
            Published::Result(result) => fault(&result).map_or(Ok(result), Err),
            Published::Unreadable(error) => Err(error.to_string()),
            Published::DeadLetter(_) => {
                self.account.dead_letters += 1;
                return;
            }
        };
        match read {
            Ok(result) => self.add_result(&result, place, closed_by(record)),
            Err(error) => {
                let named = || format!("{}: {error}", record.source);
                self.account.unreadable.add(named);
            }
        }
    }

    /// What the records were that have been read.
    pub fn account(&self) -> &ReadAccount {
        &self.account
    }

    fn add_result(&mut self, result: &PartResult, place: Place, closed_by: Option<CloseCause>) {
        let lines = &self.wanted.lines;
        if !lines.is_empty() && !lines.contains(&result.line) {
            self.account.other_lines += 1;
            return;
        }
        if !self.wanted.runs.take(&result.run) {
            self.account.other_runs += 1;
            return;
        }
        self.account.results += 1;
        let model = format!("{} {}", result.model.name, result.model.version);
        *self.models.entry(model).or_default() += 1;
        let class = result.class.as_deref();
        let range = self.wanted.range.as_ref();
        self.results.push(Judged {
            part: PartKey {
                line: LineId::new(self.names.shared(&result.line)),
                part: PartId::from(result.part_id.as_str()),
            },
            class: class.map(|class| ClassName::new(self.names.shared(class))),
            decision: result.decision.into(),
            score: result.score,
            threshold: result.threshold,
            is_partial: result.is_partial,
            first_view_at: Timestamp(result.timing.first_view_at),
            place,
            result_id: XxHash3_64::oneshot(result.result_id.as_bytes()),
            records: record_digests(result),
            closed_by,
            is_outside: range.is_some_and(|range| !range.holds(result)),
        });
    }
}

fn place(source: &SourceOffset) -> Place {
    Place {
        partition: source.partition,
        offset: source.offset,
    }
}

/// Why no more views were waited for, if the record says it; those of earlier releases do not.
fn closed_by(record: &Record) -> Option<CloseCause> {
    let named = |header: &&Header| header.name == CLOSED_BY;
    let header = record.headers.iter().rev().find(named)?;
    CloseCause::named(str::from_utf8(header.value.as_deref()?).ok()?)
}

/// What makes a result that could be decoded useless all the same.
fn fault(result: &PartResult) -> Option<String> {
    [("score", result.score), ("threshold", result.threshold)]
        .into_iter()
        .find_map(|(name, value)| {
            let value = value.filter(|value| !value.is_finite())?;
            Some(format!("expected a finite {name}, found `{value}`"))
        })
}

/// The digests of the records that brought the views. A result that names no record has one digest
/// all the same, so that two of them still meet.
fn record_digests(result: &PartResult) -> Box<[u64]> {
    let sources = result.views.iter().filter_map(|view| view.source.as_ref());
    let mut digests: Vec<u64> = sources.map(record_digest).collect();
    if digests.is_empty() {
        digests.push(XxHash3_64::oneshot(b"no record"));
    }
    digests.sort_unstable();
    digests.dedup();
    digests.into_boxed_slice()
}

fn record_digest(source: &Source) -> u64 {
    let mut hasher = XxHash3_64::with_seed(0);
    hasher.write_i32(source.partition);
    hasher.write_i64(source.offset);
    hasher.write(source.topic.as_bytes());
    hasher.finish()
}

/// One allocation for each different name: a million results have few lines and classes.
#[derive(Debug, Default)]
struct Names(HashSet<Arc<str>>);

impl Names {
    fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = name.into();
        self.0.insert(Arc::clone(&new));
        new
    }
}
