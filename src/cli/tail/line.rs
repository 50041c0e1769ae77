//! One line of text for one record.

use std::fmt::Display;

use crate::domain::{Record, Timestamp};
use crate::schema::dead_letter::DeadLetterNote;
use crate::schema::result::{Decision, PartResult, ResultError, ViewStatus};

/// Whether lines are coloured; only a terminal understands colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    /// ANSI escape codes around decisions.
    Ansi,
    /// Text alone.
    None,
}

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[33m";
const RESET: &str = "\x1b[0m";

/// Columns of decisions and of the words in their place.
const DECISION_WIDTH: usize = 8;

/// Time, part, class, decision, score and threshold, worst view, and what was not as it should be.
pub(super) fn result_line(result: &PartResult, colours: Colours) -> String {
    let colour = match result.decision {
        Decision::Ok => GREEN,
        Decision::Ng => RED,
        Decision::Review => YELLOW,
    };
    let decision = crate::domain::Decision::from(result.decision).as_str();
    let worst = result
        .worst_view()
        .map_or_else(|| "-".to_owned(), |view| printable(&view.view));
    let line = format!(
        "{}  {:<16}  {:<10}  {}  {:>7} / {:<7}  {:<10}  {}",
        time(Timestamp(result.timing.scored_at)),
        printable(&result.part_id),
        printable(result.class.as_deref().unwrap_or("-")),
        painted(decision, colour, colours),
        score(result.score),
        score(result.threshold),
        worst,
        notes(result).join("; "),
    );
    line.trim_end().to_owned()
}

/// Time, part, the reason, and where the record was read.
pub(super) fn dead_letter_line(note: &DeadLetterNote, record: &Record, colours: Colours) -> String {
    format!(
        "{}  {:<16}  {:<10}  {}  {}: {} ({})",
        note.timestamp
            .or(record.timestamp)
            .map_or_else(|| "-".to_owned(), time),
        key(record),
        "-",
        painted("dead", RED, colours),
        printable(&note.reason),
        printable(&note.error),
        printable(&note.source.to_string()),
    )
}

/// Time, part, and why the record cannot be read.
pub(super) fn unreadable_line(error: &ResultError, record: &Record, colours: Colours) -> String {
    format!(
        "{}  {:<16}  {:<10}  {}  {} ({})",
        record.timestamp.map_or_else(|| "-".to_owned(), time),
        key(record),
        "-",
        painted("unread", YELLOW, colours),
        printable(&error.to_string()),
        record.source,
    )
}

/// What was not as it should be, in a few words each.
fn notes(result: &PartResult) -> Vec<String> {
    let mut notes = Vec::new();
    let regions: usize = result.views.iter().map(|view| view.regions.len()).sum();
    if regions > 0 {
        notes.push(counted(regions, "region"));
    }
    let named = |status| {
        let names: Vec<String> = result
            .views
            .iter()
            .filter(|view| view.status == status)
            .map(|view| match &view.error {
                Some(error) => format!("{} ({})", printable(&view.view), printable(error)),
                None => printable(&view.view),
            })
            .collect();
        names.join(", ")
    };
    for (word, names) in [
        ("missing", named(ViewStatus::Missing)),
        ("failed", named(ViewStatus::Failed)),
        ("duplicate", printable(&result.duplicates.join(", "))),
    ] {
        if !names.is_empty() {
            notes.push(format!("{word} {names}"));
        }
    }
    if result.is_partial {
        notes.push("partial".to_owned());
    }
    if result.maps_dropped {
        notes.push("maps dropped".to_owned());
    }
    if result.is_simulated {
        notes.push(format!("replay {}", printable(&result.run.id)));
    }
    notes
}

fn counted(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

fn score(score: Option<f32>) -> String {
    score.map_or_else(|| "-".to_owned(), |score| format!("{score:.4}"))
}

/// The time to the millisecond, in UTC: lines from different plants sort alike.
fn time(time: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(time.0)
        .map_or_else(|_| time.0.to_string(), |time| format!("{time:.3}"))
}

fn key(record: &Record) -> String {
    record.key.as_deref().map_or_else(
        || "-".to_owned(),
        |key| printable(&String::from_utf8_lossy(key)),
    )
}

/// The text without control characters: a part ID must not move the cursor.
pub(in crate::cli) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                character
            }
        })
        .collect()
}

/// The text padded to the decision column, coloured where colours are understood.
fn painted(text: impl Display, colour: &str, colours: Colours) -> String {
    match colours {
        Colours::Ansi => format!("{colour}{text:<DECISION_WIDTH$}{RESET}"),
        Colours::None => format!("{text:<DECISION_WIDTH$}"),
    }
}
