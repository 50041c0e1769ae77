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
/// Header with the number of the record's own headers, when they were left out likewise.
pub const DROPPED_HEADERS: &str = "panoptes-dropped-headers";
/// Header with the length of a key that was left out likewise.
pub const DROPPED_KEY_BYTES: &str = "panoptes-dropped-key-bytes";

/// The headers of a dead letter; where a name comes twice, the last one counts.
const HEADERS: [&str; 9] = [
    REASON,
    ERROR,
    TOPIC,
    PARTITION,
    OFFSET,
    TIMESTAMP,
    DROPPED_VALUE_BYTES,
    DROPPED_HEADERS,
    DROPPED_KEY_BYTES,
];

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
        partition: None,
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
    }
}

/// What a dead letter can go without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// The record's value.
    Value,
    /// The record's own headers.
    Headers,
    /// The record's key.
    Key,
}

impl Dropped {
    /// All of them, in the order in which they go.
    pub const ALL: [Self; 3] = [Self::Value, Self::Headers, Self::Key];

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Headers => "headers",
            Self::Key => "key",
        }
    }
}

/// The dead letter without its value, else without the record's own headers, else without its key;
/// `None` when it has none of them left. For a broker that refuses its size.
///
/// A record at the message limit of the camera topics outgrows it by the headers of its dead
/// letter. The letter then names where the record still stands, and what was left out.
pub fn smaller(dead_letter: OutboundRecord) -> Option<(OutboundRecord, Dropped)> {
    let mut letter = dead_letter;
    if let Some(value) = letter.value.take() {
        let length = value.len().to_string();
        letter
            .headers
            .push(text_header(DROPPED_VALUE_BYTES, &length));
        return Some((letter, Dropped::Value));
    }
    let own = own_headers(&letter.headers);
    if own.len() < letter.headers.len() {
        let dropped = (letter.headers.len() - own.len()).to_string();
        letter.headers = own;
        letter.headers.push(text_header(DROPPED_HEADERS, &dropped));
        return Some((letter, Dropped::Headers));
    }
    let key = letter.key.take()?;
    let length = key.len().to_string();
    letter.headers.push(text_header(DROPPED_KEY_BYTES, &length));
    Some((letter, Dropped::Key))
}

/// The headers that tell of the dead letter itself. The record may have brought some of the same
/// names: of each the last counts, unless it is longer than any that is written here.
fn own_headers(headers: &[Header]) -> Vec<Header> {
    let is_own = |index: usize, header: &Header| {
        let is_last = headers[index + 1..]
            .iter()
            .all(|later| later.name != header.name);
        let length = header.value.as_ref().map_or(0, Vec::len);
        HEADERS.contains(&header.name.as_str()) && is_last && length <= MAX_ERROR_BYTES
    };
    headers
        .iter()
        .enumerate()
        .filter(|(index, header)| is_own(*index, header))
        .map(|(_, header)| header.clone())
        .collect()
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
        let letter = outbound_dead_letter(&reject(vec![]), &"dead".into());
        let (letter, dropped) = smaller(letter).unwrap();
        assert_eq!(dropped, Dropped::Value);
        assert_eq!(letter.value, None);
        assert_eq!(letter.key, Some(vec![0xff, 0x00]));
        assert_eq!(
            read_note(&letter.headers).unwrap().dropped_value_bytes,
            Some(3)
        );
    }

    #[test]
    fn a_letter_gets_smaller_step_by_step_and_keeps_what_it_tells() {
        let mut headers = odd_headers();
        headers.push(text_header(REASON, "late"));
        headers.push(text_header(TIMESTAMP, &"9".repeat(2_000)));
        let mut reject = reject(headers);
        Arc::get_mut(&mut reject.record).unwrap().timestamp = None;
        let mut letter = outbound_dead_letter(&reject, &"dead".into());
        let mut steps = Vec::new();
        while let Some((smaller, dropped)) = smaller(letter.clone()) {
            steps.push(dropped);
            letter = smaller;
        }
        assert_eq!(steps, Dropped::ALL);
        assert_eq!((&letter.key, &letter.value), (&None, &None));
        let header = |name: &str| {
            let found = letter.headers.iter().find(|header| header.name == name);
            String::from_utf8(found.unwrap().value.clone().unwrap()).unwrap()
        };
        assert_eq!(header(DROPPED_VALUE_BYTES), "3");
        assert_eq!(header(DROPPED_HEADERS), "6");
        assert_eq!(header(DROPPED_KEY_BYTES), "2");
        let note = read_note(&letter.headers).unwrap();
        assert_eq!(note.reason, "decode");
        assert_eq!(note.source, reject.record.source);
        assert!(letter.size_bytes() < 4_000, "{}", letter.size_bytes());
    }

    #[test]
    fn a_tombstone_has_no_value_to_go_without() {
        let mut letter = outbound_dead_letter(&reject(vec![]), &"dead".into());
        letter.value = None;
        assert_eq!(smaller(letter).unwrap().1, Dropped::Key);
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
        for name in HEADERS.iter().chain(&reasons) {
            assert!(
                page.contains(&format!("`{name}`")),
                "`{name}` is not on the page"
            );
        }
    }
}
