//! What a person should know of a comparison beside its tables, in sentences.

use super::table::class_name;
use crate::cli::tail::printable;
use crate::comparison::{Comparison, EarlyClosings, Examples, SideReport};

/// The topic, how many results it holds, and whose they are.
pub(super) fn described(side: &SideReport) -> String {
    let models: Vec<String> = side
        .models
        .iter()
        .map(|(model, results)| match side.models.len() {
            1 => model.clone(),
            _ => format!("{model} ({results})"),
        })
        .collect();
    let by = match models.is_empty() {
        true => String::new(),
        false => format!(" by {}", models.join(", ")),
    };
    printable(&format!("{}, {}{by}", side.topic, held(side)))
}

/// How many results a topic holds, and what else.
pub(super) fn held(side: &SideReport) -> String {
    let read = &side.read;
    let others = [
        (read.unreadable.count, "that are no results"),
        (read.dead_letters, "dead letters"),
        (read.tombstones, "without a value"),
        (read.other_lines, "results of other lines"),
        (read.other_runs, "results of other runs"),
    ];
    let others: Vec<String> = others
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let results = match read.results {
        1 => "1 result".to_owned(),
        results => format!("{results} results"),
    };
    match others.is_empty() {
        true => results,
        false => format!(
            "{results} in {} records ({})",
            read.records,
            others.join(", ")
        ),
    }
}

/// What else a person should know.
pub(super) fn notices(found: &Comparison) -> Vec<String> {
    let mut notices = Vec::new();
    for (name, side, other) in [("A", &found.a, "B"), ("B", &found.b, "A")] {
        notices.extend(side_notices(name, side, other));
    }
    notices.extend(named("parts whose class differs", &found.class_differs));
    for class in &found.classes {
        for (name, side) in [("A", &class.a), ("B", &class.b)] {
            if side.thresholds.len() > 1 {
                let uses = side
                    .thresholds
                    .iter()
                    .map(|used| format!("{} ({})", used.threshold, used.results));
                let uses: Vec<String> = uses.collect();
                notices.push(format!(
                    "{name} judged class `{}` by several thresholds: {}",
                    class_name(class),
                    uses.join(", ")
                ));
            }
        }
    }
    notices
}

fn side_notices(name: &str, side: &SideReport, other: &str) -> Vec<String> {
    let unpaired = &side.unpaired;
    let mut notices: Vec<String> = [
        (
            format!("records of {name} that are no results"),
            &side.read.unreadable,
        ),
        (
            format!("results of {name} published again under the same ID, counted once"),
            &side.repeated,
        ),
        (
            format!("results of {name} published again under the same ID that say something else"),
            &side.contradicting,
        ),
        (
            format!(
                "parts only in {name}{}",
                outside(unpaired.outside_the_others_time, other)
            ),
            &unpaired.only_here,
        ),
        (
            format!("parts of {name} whose ID {other} has from other records"),
            &unpaired.same_id_other_records,
        ),
        (
            format!("further results of {name} from records of a part that counts already"),
            &unpaired.same_records_again,
        ),
    ]
    .iter()
    .filter_map(|(what, examples)| named(what, examples))
    .collect();
    if unpaired.outside_the_range > 0 {
        notices.push(format!(
            "parts of {name} that {other}'s run was not to score: {}",
            unpaired.outside_the_range
        ));
    }
    notices.extend(early_notices(name, other, &side.closed_early));
    let deleted: Vec<String> = side
        .read
        .first_offsets
        .iter()
        .filter(|(_, first)| **first > 0)
        .map(|(partition, first)| format!("partition {partition} begins at offset {first}"))
        .collect();
    if !deleted.is_empty() {
        notices.push(format!(
            "{name} does not begin at offset 0, older records are deleted or were never committed: {}",
            deleted.join(", ")
        ));
    }
    notices
}

/// What may differ though the model is the same.
fn early_notices(name: &str, other: &str, early: &EarlyClosings) -> Vec<String> {
    let kinds = [
        (
            format!("parts that {name} closed by the wall clock"),
            &early.wall_clock,
        ),
        (
            format!("parts that {name} closed for want of memory"),
            &early.evicted,
        ),
        (
            format!("of these, made from other records or decided otherwise in {other}"),
            &early.differ,
        ),
    ];
    let mut notices: Vec<String> = kinds
        .iter()
        .filter_map(|(what, examples)| named(what, examples))
        .collect();
    if early.untold > 0 {
        notices.push(format!(
            "partial results of {name} that do not say why no more views were waited for: {}",
            early.untold
        ));
    }
    notices
}

fn outside(count: u64, other: &str) -> String {
    match count {
        0 => String::new(),
        count => format!(", {count} from before {other}'s first part or after its last"),
    }
}

/// How many there are, and the first few; nothing where there are none.
fn named(what: &str, examples: &Examples) -> Option<String> {
    (examples.count > 0).then(|| counted(what, examples.count, &examples.first))
}

/// How many there are of something, and the first few.
pub(super) fn counted(what: &str, count: u64, first: &[String]) -> String {
    let more = match count > first.len() as u64 {
        true => "; ...",
        false => "",
    };
    format!("{what}: {count} ({}{more})", first.join("; "))
}
