//! `panoptes compare`: what two results topics say of the same parts, and where they differ.
//!
//! The topics are read from outside any consumer group, to the ends that they had at the start. What
//! is found is printed, and written as JSON and as one HTML file with pictures if asked for.

mod chart;
mod details;
mod notices;
mod page;
mod table;
mod topics;

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

use self::details::Details;
pub(crate) use self::topics::ComparedTopics;
use super::bus::BusArgs;
use super::outputs;
use crate::comparison::{Comparison, SideReport, Wanted};

/// Compares what two results topics say of the same parts.
#[derive(Args, Clone, Debug)]
pub struct CompareArguments {
    /// The results topic with what was decided then
    #[arg(value_name = "TOPIC A")]
    pub a: String,
    /// The results topic with what would be decided now
    #[arg(value_name = "TOPIC B")]
    pub b: String,
    /// How to reach the brokers.
    #[command(flatten)]
    pub bus: BusArgs,
    /// Compare only parts of this class; may be given more than once
    #[arg(long, value_name = "CLASS")]
    pub class: Vec<String>,
    /// Compare only parts of this line; may be given more than once
    #[arg(long, value_name = "LINE")]
    pub line: Vec<String>,
    /// Print what is found as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Where else to write it
    #[command(flatten)]
    pub report: ReportArguments,
}

/// Files that a comparison is written to.
#[derive(Args, Clone, Debug)]
pub struct ReportArguments {
    /// File to write what is found to, as JSON
    #[arg(long, value_name = "FILE")]
    pub save_json: Option<PathBuf>,
    /// File to write it to as HTML, pictures and all
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// How many parts that flipped to show with their views
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    pub pictures: usize,
}

/// A report that was made.
#[must_use]
pub(crate) struct Written {
    /// The text for a terminal.
    pub(crate) text: String,
    /// The error names the files that could not be written.
    pub(crate) files: anyhow::Result<()>,
}

/// Why two topics are not compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Both are the same.
    #[error("expected two results topics, found `{0}` twice")]
    SameTopic(String),
    /// They have no part in common.
    #[error(
        "expected results of the same parts in `{a}` and `{b}`, found none: `{a}` has {found_a}; `{b}` has \
         {found_b}; and no two of them from the same records"
    )]
    NothingInCommon {
        /// The first topic.
        a: String,
        /// The second topic.
        b: String,
        /// What the first topic holds.
        found_a: String,
        /// What the second topic holds.
        found_b: String,
    },
}

/// Compares, prints what is found, and writes it where it is wanted.
///
/// # Errors
/// When a topic cannot be read, both are the same, or they have no part in common; and when a file
/// cannot be written.
pub fn run(arguments: &CompareArguments) -> anyhow::Result<()> {
    if arguments.a == arguments.b {
        return Err(CompareError::SameTopic(arguments.a.clone()).into());
    }
    arguments.report.check()?;
    let wanted = Wanted {
        lines: arguments.line.clone(),
        ..Wanted::default()
    };
    let topics = ComparedTopics {
        bus: arguments.bus.settings()?,
        a: arguments.a.as_str().into(),
        b: arguments.b.as_str().into(),
        wanted: [wanted.clone(), wanted],
        classes: arguments.class.clone(),
    };
    let mut found = topics.compare()?;
    check_common(&found)?;
    let written = arguments.report.write(&mut found, &topics);
    match arguments.json {
        true => print!("{}", to_json(&found)),
        false => print!("{}", written.text),
    }
    written.files
}

/// What is worth no report: two topics without a part in common.
///
/// # Errors
/// When there is none.
pub(crate) fn check_common(found: &Comparison) -> Result<(), CompareError> {
    if found.joined > 0 {
        return Ok(());
    }
    let found_in = |side: &SideReport| match side.decisions.total() {
        0 if side.read.results > 0 => {
            format!("{}, none of a class that is compared", notices::held(side))
        }
        _ => notices::held(side),
    };
    Err(CompareError::NothingInCommon {
        a: found.a.topic.clone(),
        b: found.b.topic.clone(),
        found_a: found_in(&found.a),
        found_b: found_in(&found.b),
    })
}

impl ReportArguments {
    /// Tries the places of the files before anything long begins.
    ///
    /// # Errors
    /// When one cannot be written.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let mut files = [&self.save_json, &self.html].into_iter().flatten();
        files.try_for_each(|file| outputs::check_file(file))
    }

    /// Reads the results of the first flips again to add their views, and writes the files. What cannot
    /// be read again is told in the text and on the page.
    pub(crate) fn write(&self, found: &mut Comparison, topics: &ComparedTopics) -> Written {
        let mut details = Details::read(found, topics, self.pictures);
        let mut files = Vec::new();
        // First, so that the numbers are safe whatever becomes of the pictures.
        if let Some(file) = &self.save_json {
            files.push(outputs::write(file, &to_json(found)));
        }
        if let Some(file) = &self.html {
            details.read_pictures(found, &topics.bus);
            let notices = [notices::notices(found), details.notices()].concat();
            files.push(outputs::write(file, &page::page(found, &details, &notices)));
        }
        let notices = [notices::notices(found), details.notices()].concat();
        Written {
            text: table::text(found, &notices),
            files: all_written(files),
        }
    }
}

/// Tells of every file that could not be written.
fn all_written(files: Vec<anyhow::Result<()>>) -> anyhow::Result<()> {
    let faults = files.into_iter().filter_map(Result::err);
    let faults: Vec<String> = faults.map(|fault| format!("{fault:#}")).collect();
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    Ok(())
}

fn to_json(found: &Comparison) -> String {
    let text = serde_json::to_string_pretty(found);
    text.expect("names and finite numbers can always be written as JSON") + "\n"
}

#[cfg(test)]
mod tests;
