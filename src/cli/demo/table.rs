//! The demo's tables for the terminal: one line a part, one line a fault.

use std::io::{self, Write};

use super::report::{FaultEntry, PartEntry, Truth};
use crate::domain::Decision;

/// Whether the terminal shows colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coloring {
    /// ANSI colours.
    Ansi,
    /// Plain text.
    Plain,
}

const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

/// A cell: its text and, perhaps, a colour.
struct Cell {
    text: String,
    color: Option<&'static str>,
}

impl Cell {
    fn plain(text: impl Into<String>) -> Self {
        Self {
            text: printable(&text.into()),
            color: None,
        }
    }

    fn colored(text: impl Into<String>, color: &'static str) -> Self {
        Self {
            color: Some(color),
            ..Self::plain(text)
        }
    }
}

/// Control characters would let a part ID rule the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|it| if it.is_control() { '\u{fffd}' } else { it })
        .collect()
}

/// Prints one line a part: decision, score against threshold, worst view, truth.
///
/// # Errors
/// When `out` does not take it.
pub fn write_parts(
    parts: &[PartEntry],
    coloring: Coloring,
    out: &mut impl Write,
) -> io::Result<()> {
    let heads = [
        "part",
        "class",
        "decision",
        "score",
        "threshold",
        "worst view",
        "truth",
        "",
    ];
    let rows: Vec<Vec<Cell>> = parts.iter().map(part_row).collect();
    write_table(&heads, &rows, coloring, out)
}

/// Prints one line a fault: what was played and what became of it.
///
/// # Errors
/// When `out` does not take it.
pub fn write_faults(
    faults: &[FaultEntry],
    coloring: Coloring,
    out: &mut impl Write,
) -> io::Result<()> {
    let heads = ["fault", "part", "view", "what became of it", ""];
    let rows: Vec<Vec<Cell>> = faults
        .iter()
        .map(|fault| {
            vec![
                Cell::plain(&fault.played),
                Cell::plain(&fault.part_id),
                Cell::plain(&fault.view),
                Cell::plain(&fault.outcome),
                match fault.is_as_expected {
                    true => Cell::colored("as it should", GREEN),
                    false => Cell::colored(format!("expected: {}", fault.expected), RED),
                },
            ]
        })
        .collect();
    write_table(&heads, &rows, coloring, out)
}

fn part_row(part: &PartEntry) -> Vec<Cell> {
    let figure = |value: Option<f32>| value.map_or("–".to_owned(), |it| format!("{it:.4}"));
    let truth = match &part.truth {
        Truth::Good => "good",
        Truth::Defective(kind) => kind,
    };
    let color = match part.decision {
        Decision::Ok => GREEN,
        Decision::Ng => RED,
        Decision::Review => YELLOW,
    };
    vec![
        Cell::plain(&part.part_id),
        Cell::plain(&part.class),
        Cell::colored(part.decision.as_str(), color),
        Cell::plain(figure(part.score)),
        Cell::plain(figure(part.threshold)),
        Cell::plain(part.worst_view().map_or("–", |view| &view.view)),
        Cell::plain(truth),
        remark(part),
    ]
}

fn remark(part: &PartEntry) -> Cell {
    match (part.decision, &part.truth) {
        (Decision::Ok, Truth::Defective(_)) => Cell::colored("missed", YELLOW),
        (Decision::Ng, Truth::Good) => Cell::colored("false alarm", YELLOW),
        _ => Cell::plain(""),
    }
}

fn write_table(
    heads: &[&str],
    rows: &[Vec<Cell>],
    coloring: Coloring,
    out: &mut impl Write,
) -> io::Result<()> {
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(column, head)| {
            let cells = rows.iter().map(|row| row[column].text.chars().count());
            cells.max().unwrap_or(0).max(head.chars().count())
        })
        .collect();
    let heads: Vec<Cell> = heads.iter().map(|head| Cell::plain(*head)).collect();
    write_row(&heads, &widths, Coloring::Plain, out)?;
    let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
    writeln!(out, "{}", rule.join("  ").trim_end())?;
    rows.iter()
        .try_for_each(|row| write_row(row, &widths, coloring, out))
}

fn write_row(
    row: &[Cell],
    widths: &[usize],
    coloring: Coloring,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut line = String::new();
    for (cell, &width) in row.iter().zip(widths) {
        let padding = " ".repeat(width - cell.text.chars().count() + 2);
        match cell.color.filter(|_| coloring == Coloring::Ansi) {
            Some(color) => {
                line.push_str(&format!("\u{1b}[{color}m{}\u{1b}[0m{padding}", cell.text))
            }
            None => line.push_str(&format!("{}{padding}", cell.text)),
        }
    }
    writeln!(out, "{}", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: &str, decision: Decision, truth: Truth) -> PartEntry {
        PartEntry {
            part_id: id.to_owned(),
            class: "gear".to_owned(),
            truth,
            decision,
            score: Some(0.5),
            threshold: None,
            views: Vec::new(),
        }
    }

    fn printed(parts: &[PartEntry], coloring: Coloring) -> String {
        let mut out = Vec::new();
        write_parts(parts, coloring, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_line_up() {
        let parts = [
            part("a", Decision::Ok, Truth::Good),
            part(
                "a-much-longer-id",
                Decision::Review,
                Truth::Defective("dent".to_owned()),
            ),
        ];
        let text = printed(&parts, Coloring::Plain);
        let starts: Vec<Option<usize>> =
            text.lines().skip(2).map(|line| line.find("gear")).collect();
        assert_eq!(starts[0], starts[1]);
    }

    #[test]
    fn wrong_decisions_are_named() {
        let parts = [
            part("a", Decision::Ng, Truth::Good),
            part("b", Decision::Ok, Truth::Defective("dent".to_owned())),
        ];
        let text = printed(&parts, Coloring::Plain);
        assert!(
            text.contains("false alarm") && text.contains("missed"),
            "{text}"
        );
    }

    #[test]
    fn a_part_id_cannot_rule_the_terminal() {
        let text = printed(
            &[part("\u{1b}[2J\n", Decision::Ok, Truth::Good)],
            Coloring::Plain,
        );
        assert!(
            !text.contains('\u{1b}') && text.lines().count() == 3,
            "{text:?}"
        );
    }
}
