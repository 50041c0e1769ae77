//! The demo's tables for the terminal.

use super::account::Account;
use super::scenario::DemoPart;
use crate::schema::result::Decision;

/// How well decisions and truth agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) defective: usize,
    pub(super) defective_found: usize,
    pub(super) good: usize,
    pub(super) good_passed: usize,
    pub(super) review: usize,
}

impl Tally {
    /// Counts the parts; those with a fault are for a person whatever they are, and stand apart.
    pub(super) fn of(parts: &[DemoPart], account: &Account) -> Self {
        let mut tally = Self::default();
        for part in parts {
            let Some(result) = account.result(part) else {
                continue;
            };
            if result.decision == Decision::Review {
                tally.review += 1;
            }
            if part.fault.is_some() {
                continue;
            }
            if part.defect.is_some() {
                tally.defective += 1;
                tally.defective_found += usize::from(result.decision == Decision::Ng);
            } else {
                tally.good += 1;
                tally.good_passed += usize::from(result.decision == Decision::Ok);
            }
        }
        tally
    }
}

/// What the part truly is.
pub(super) fn truth(part: &DemoPart) -> &'static str {
    part.defect.map_or("good", |defect| defect.as_str())
}

/// Prints the parts, the faults and the tally.
pub(super) fn print(parts: &[DemoPart], account: &Account) {
    println!(
        "\n{:<14} {:<9} {:>7} {:>9}  {:<7} truth",
        "part", "decision", "score", "threshold", "worst"
    );
    for part in parts {
        let Some(result) = account.result(part) else {
            println!("{:<14} no result", part.id);
            continue;
        };
        println!(
            "{:<14} {:<9} {:>7} {:>9}  {:<7} {}",
            part.id,
            crate::domain::Decision::from(result.decision).as_str(),
            number(result.score),
            number(result.threshold),
            result.worst_view().map_or("-", |view| view.view.as_str()),
            truth(part),
        );
    }
    println!("\nfaults played on purpose");
    for part in parts {
        let Some(fault) = part.fault else { continue };
        println!("  {}: {}", part.id, fault.played());
        println!("    -> {}", fate(part, account));
    }
    let tally = Tally::of(parts, account);
    println!(
        "\n{} of {} defective parts found, {} of {} good parts passed, {} parts for a person to look at",
        tally.defective_found, tally.defective, tally.good_passed, tally.good, tally.review
    );
}

/// What became of a part, in words.
pub(super) fn fate(part: &DemoPart, account: &Account) -> String {
    let mut words = Vec::new();
    match account.result(part) {
        None => words.push("no result".to_owned()),
        Some(result) => {
            let scored = result
                .views
                .iter()
                .filter(|view| view.score.is_some())
                .count();
            words.push(format!(
                "result `{}` from {scored} of {} views",
                crate::domain::Decision::from(result.decision).as_str(),
                result.views.len()
            ));
        }
    }
    for note in account.dead_letters(part) {
        words.push(format!(
            "dead letter `{}` from {}: {}",
            note.reason, note.source, note.error
        ));
    }
    words.join("; ")
}

fn number(value: Option<f32>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}
