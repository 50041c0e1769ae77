//! Dead letters: the record as it was read, and why it was not scored.
//!
//! Value, key and headers travel unchanged, so that a repaired record can be produced again from
//! its dead letter alone; `panoptes-*` headers are added at the end. See
//! `schemas/dead-letter.v1.md`.

use std::str;

use crate::domain::{Header, OutboundRecord, Reject, SourceOffset, Timestamp, Topic};

/// Header with the reason, one of [`RejectReason::ALL`](crate::domain::RejectReason::ALL).
pub const REASON: &str = "panoptes-reason";
/// Header with what was wrong, for people.
pub const ERROR: &str = "panoptes-error";
/// Header with the topic that the record was read from.
pub const TOPIC: &str = "panoptes-topic";
/// Header with the partition that the record was read from, in decimal.
pub const PARTITION: &str = "panoptes-partition";
/// Header with the offset that the record was read at, in decimal.
pub const OFFSET: &str = "panoptes-offset";
/// Header with the record's own timestamp in epoch milliseconds, if it had one.
pub const TIMESTAMP: &str = "panoptes-timestamp";
/// Header with the length of a value that was left out because it did not fit.
pub const DROPPED_VALUE_BYTES: &str = "panoptes-dropped-value-bytes";

/// Error texts are cut to this many bytes: a header is no place for a novel.
const MAX_ERROR_BYTES: usize = 1024;

/// The dead letter of a rejected record.
pub fn outbound_dead_letter(reject: &Reject, topic: &Topic) -> OutboundRecord {
    let record = &reject.record;
    let source = &record.source;
    let mut headers = record.headers.clone();
    headers.push(text_header(REASON, reject.reason.as_str()));
    headers.push(text_header(ERROR, shortened(&reject.error)));
    headers.push(text_header(TOPIC, source.topic.as_str()));
    headers.push(text_header(PARTITION, &source.partition.to_string()));
    headers.push(text_header(OFFSET, &source.offset.to_string()));
    if let Some(timestamp) = record.timestamp {
        headers.push(text_header(TIMESTAMP, &timestamp.0.to_string()));
    }
    OutboundRecord {
        topic: topic.clone(),
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
    }
}

/// The dead letter without its value, for a broker that refuses its size.
///
/// A record at the message limit of the camera topics outgrows it by the headers of its dead
/// letter. The letter then names where the value still stands, and how long it is.
pub fn without_value(dead_letter: OutboundRecord) -> OutboundRecord {
    let Some(value) = dead_letter.value else {
        return dead_letter;
    };
    let mut headers = dead_letter.headers;
    headers.push(text_header(DROPPED_VALUE_BYTES, &value.len().to_string()));
    OutboundRecord {
        value: None,
        headers,
        ..dead_letter
    }
}

/// What the headers of a dead letter tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterNote {
    /// Why the record was not scored. A text: a later version may know more reasons.
    pub reason: String,
    /// What was wrong.
    pub error: String,
    /// Where the record was read.
    pub source: SourceOffset,
    /// The record's own timestamp.
    pub timestamp: Option<Timestamp>,
    /// Length of the value, when it was left out.
    pub dropped_value_bytes: Option<u64>,
}

/// Why headers are not those of a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDeadLetter {
    /// A header is not there.
    #[error("dead letter lacks the header `{0}`")]
    Missing(&'static str),
    /// A header cannot be read.
    #[error("dead letter header `{name}` should be {expected}, found `{found}`")]
    Unreadable {
        /// Which header.
        name: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
}

/// Reads the headers of a dead letter; where a name comes twice the last counts, so that the dead
/// letter of a dead letter tells of its own fault.
///
/// # Errors
/// When a header is missing or unreadable.
pub fn read_note(headers: &[Header]) -> Result<DeadLetterNote, NoDeadLetter> {
    let source = SourceOffset {
        topic: required(headers, TOPIC)?.into(),
        partition: number(
            "a partition number",
            required(headers, PARTITION)?,
            PARTITION,
        )?,
        offset: number("an offset", required(headers, OFFSET)?, OFFSET)?,
    };
    let timestamp = text(headers, TIMESTAMP)?
        .map(|value| number("epoch milliseconds", value, TIMESTAMP))
        .transpose()?;
    let dropped_value_bytes = text(headers, DROPPED_VALUE_BYTES)?
        .map(|value| number("a length", value, DROPPED_VALUE_BYTES))
        .transpose()?;
    Ok(DeadLetterNote {
        reason: required(headers, REASON)?.to_owned(),
        error: required(headers, ERROR)?.to_owned(),
        source,
        timestamp: timestamp.map(Timestamp),
        dropped_value_bytes,
    })
}

fn required<'a>(headers: &'a [Header], name: &'static str) -> Result<&'a str, NoDeadLetter> {
    text(headers, name)?.ok_or(NoDeadLetter::Missing(name))
}

fn text<'a>(headers: &'a [Header], name: &'static str) -> Result<Option<&'a str>, NoDeadLetter> {
    let last = headers.iter().rev().find(|header| header.name == name);
    let Some(value) = last.and_then(|header| header.value.as_deref()) else {
        return Ok(None);
    };
    let text = str::from_utf8(value).map_err(|_| NoDeadLetter::Unreadable {
        name,
        expected: "UTF-8",
        found: String::from_utf8_lossy(value).into_owned(),
    })?;
    Ok(Some(text))
}

fn number<T: str::FromStr>(
    expected: &'static str,
    value: &str,
    name: &'static str,
) -> Result<T, NoDeadLetter> {
    value.parse().map_err(|_| NoDeadLetter::Unreadable {
        name,
        expected,
        found: value.to_owned(),
    })
}

fn text_header(name: &str, value: &str) -> Header {
    Header {
        name: name.to_owned(),
        value: Some(value.as_bytes().to_vec()),
    }
}

/// The text, cut at a character if it is too long.
fn shortened(error: &str) -> &str {
    &error[..error.floor_char_boundary(MAX_ERROR_BYTES)]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Record, RejectReason};

    fn reject(headers: Vec<Header>) -> Reject {
        let record = Record {
            source: SourceOffset {
                topic: "line1.cam.top".into(),
                partition: 2,
                offset: 41,
            },
            generation: 1,
            key: Some(vec![0xff, 0x00]),
            value: Some(vec![1, 2, 3]),
            headers,
            timestamp: Some(Timestamp(1_700_000_000_000)),
            lease: None,
        };
        Reject {
            record: Arc::new(record),
            reason: RejectReason::Decode,
            error: "jpeg ends after `3` bytes".to_owned(),
        }
    }

    fn odd_headers() -> Vec<Header> {
        vec![
            text_header("view", "top"),
            text_header("view", "again"),
            Header {
                name: "empty".to_owned(),
                value: None,
            },
            Header {
                name: "bytes".to_owned(),
                value: Some(vec![0xff, 0xfe]),
            },
        ]
    }

    #[test]
    fn keeps_value_key_and_headers_as_they_came() {
        let letter = outbound_dead_letter(&reject(odd_headers()), &"dead".into());
        assert_eq!(letter.topic.as_str(), "dead");
        assert_eq!(letter.key, Some(vec![0xff, 0x00]));
        assert_eq!(letter.value, Some(vec![1, 2, 3]));
        assert_eq!(letter.headers[..4], odd_headers());
    }

    #[test]
    fn notes_come_back() {
        let letter = outbound_dead_letter(&reject(odd_headers()), &"dead".into());
        let expected = DeadLetterNote {
            reason: "decode".to_owned(),
            error: "jpeg ends after `3` bytes".to_owned(),
            source: reject(vec![]).record.source.clone(),
            timestamp: Some(Timestamp(1_700_000_000_000)),
            dropped_value_bytes: None,
        };
        assert_eq!(read_note(&letter.headers), Ok(expected));
    }

    #[test]
    fn the_dead_letter_of_a_dead_letter_tells_of_its_own_fault() {
        let first = outbound_dead_letter(&reject(vec![]), &"dead".into());
        let mut again = reject(first.headers);
        again.reason = RejectReason::Late;
        let letter = outbound_dead_letter(&again, &"dead".into());
        assert_eq!(read_note(&letter.headers).unwrap().reason, "late");
    }

    #[test]
    fn a_letter_without_its_value_says_how_long_it_was() {
        let letter = without_value(outbound_dead_letter(&reject(vec![]), &"dead".into()));
        assert_eq!(letter.value, None);
        assert_eq!(letter.key, Some(vec![0xff, 0x00]));
        assert_eq!(
            read_note(&letter.headers).unwrap().dropped_value_bytes,
            Some(3)
        );
    }

    #[test]
    fn a_tombstone_stays_one() {
        let mut letter = outbound_dead_letter(&reject(vec![]), &"dead".into());
        letter.value = None;
        assert_eq!(without_value(letter.clone()), letter);
    }

    #[test]
    fn long_errors_are_cut_at_a_character() {
        let mut reject = reject(vec![]);
        reject.error = format!("x{}", "ü".repeat(2_000));
        let letter = outbound_dead_letter(&reject, &"dead".into());
        let error = read_note(&letter.headers).unwrap().error;
        assert_eq!(error.len(), 1 + 2 * 511);
        assert!(reject.error.starts_with(&error));
    }

    #[test]
    fn says_which_header_is_missing_or_unreadable() {
        assert_eq!(read_note(&odd_headers()), Err(NoDeadLetter::Missing(TOPIC)));
        let mut letter = outbound_dead_letter(&reject(vec![]), &"dead".into());
        letter.headers.push(text_header(OFFSET, "seven"));
        let error = read_note(&letter.headers).unwrap_err();
        assert_eq!(
            error.to_string(),
            "dead letter header `panoptes-offset` should be an offset, found `seven`"
        );
    }

    #[test]
    fn the_page_names_every_header_and_reason() {
        let page = include_str!("../../schemas/dead-letter.v1.md");
        let reasons = RejectReason::ALL.map(RejectReason::as_str);
        let headers = [
            REASON,
            ERROR,
            TOPIC,
            PARTITION,
            OFFSET,
            TIMESTAMP,
            DROPPED_VALUE_BYTES,
        ];
        for name in headers.iter().chain(&reasons) {
            assert!(
                page.contains(&format!("`{name}`")),
                "`{name}` is not on the page"
            );
        }
    }
}
