//! What a record on a results topic or a dead-letter topic turns out to be.

use super::dead_letter::{DeadLetterNote, read_note};
use super::result::{PartResult, ResultError};
use crate::domain::Record;

/// A published record, read.
#[derive(Debug)]
pub enum Published {
    /// The result of a part.
    Result(Box<PartResult>),
    /// A record that was not scored.
    DeadLetter(DeadLetterNote),
    /// Neither.
    Unreadable(ResultError),
}

impl Published {
    /// Reads the record; results of either format are told apart by themselves.
    pub fn read(record: &Record) -> Self {
        if let Ok(note) = read_note(&record.headers) {
            return Self::DeadLetter(note);
        }
        match PartResult::from_bytes(record.value.as_deref().unwrap_or_default()) {
            Ok(result) => Self::Result(Box::new(result)),
            Err(error) => Self::Unreadable(error),
        }
    }
}
