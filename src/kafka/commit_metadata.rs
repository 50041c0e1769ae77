//! What is finished above a commit position, as the text that travels with the commit.
//!
//! Parts finish out of order and on several partitions at once: one partition may be committed past
//! a part while another still holds its other views back. Without this text a restart would read
//! those views alone and score the part a second time, in pieces.
//!
//! The text is `p1:` and base64 (no padding) of LEB128 numbers: for each range the gap since the
//! end of the one before (the first: since the commit position), then its length. Commits of a replay also
//! tell from how many offsets below the position no record was read: `;`, those that were deleted, `,`,
//! those that were empty. It never exceeds `MAX_BYTES`; ranges that do not fit are left out, highest first, and would be scored again
//! after a restart.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::gap_count::Skipped;

/// The broker's default of `offset.metadata.max.bytes`.
pub(crate) const MAX_BYTES: usize = 4096;

/// Format 1; a text that starts otherwise is none of ours, and tells nothing.
const PREFIX: &str = "p1:";

/// What stands before the numbers of offsets without a record, and between them.
const SKIPPED: (char, char) = (';', ',');

/// The most bytes of those numbers, in decimal.
const MAX_SKIPPED_BYTES: usize = 2 + 2 * 20;

/// Bytes of numbers that base64 turns into no more than what the rest leaves.
const MAX_NUMBER_BYTES: usize = (MAX_BYTES - PREFIX.len() - MAX_SKIPPED_BYTES) / 4 * 3;

/// With no more unfinished records than this, what is finished above the position always fits: there
/// are at most as many ranges as unfinished records, of two bytes for each gap, which is no longer than
/// they are many, and of four for each length, up to 2^28 records.
pub(crate) const MOST_UNFINISHED: usize = MAX_NUMBER_BYTES / 6;

/// Ranges as they travel with a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// The text.
    pub text: String,
    /// How many ranges, the highest, did not fit.
    pub left_out: usize,
}

/// The text for `ranges`, which lie in order at or above `position`; empty if there are none.
///
/// ```
/// use panoptes::kafka::commit_metadata::{decode, encode};
/// let encoded = encode(100, &[104..110, 200..201]);
/// assert_eq!(decode(100, &encoded.text), [104..110, 200..201]);
/// assert_eq!(encoded.left_out, 0);
/// assert_eq!(encode(100, &[]).text, "");
/// ```
pub fn encode(position: i64, ranges: &[Range<i64>]) -> Encoded {
    let mut numbers = Vec::new();
    let mut left_out = ranges.len();
    let mut end = position;
    for range in ranges {
        let fitted = numbers.len();
        let (Ok(gap), Ok(length)) = (
            u64::try_from(range.start - end),
            u64::try_from(range.end - range.start),
        ) else {
            break;
        };
        push_number(&mut numbers, gap);
        push_number(&mut numbers, length);
        if numbers.len() > MAX_NUMBER_BYTES {
            numbers.truncate(fitted);
            break;
        }
        end = range.end;
        left_out -= 1;
    }
    let text = if numbers.is_empty() {
        String::new()
    } else {
        format!("{PREFIX}{}", STANDARD_NO_PAD.encode(numbers))
    };
    Encoded { text, left_out }
}

/// As [`encode`], and from how many offsets below the position no record was read.
pub fn encode_all(position: i64, ranges: &[Range<i64>], skipped: Skipped) -> Encoded {
    let mut encoded = encode(position, ranges);
    if !skipped.is_none() {
        let (before, between) = SKIPPED;
        let Skipped { deleted, empty } = skipped;
        encoded.text += &format!("{before}{deleted}{between}{empty}");
    }
    encoded
}

/// From how many offsets below the position no record was read; none where `text` does not tell.
pub fn skipped(text: &str) -> Skipped {
    let (before, between) = SKIPPED;
    let numbers = || {
        let (_, numbers) = text.split_once(before)?;
        let (deleted, empty) = numbers.split_once(between)?;
        Some(Skipped {
            deleted: deleted.parse().ok()?,
            empty: empty.parse().ok()?,
        })
    };
    numbers().unwrap_or_default()
}

/// The ranges that `text` tells of, for a commit at `position`. A text that is not ours or is
/// damaged tells of none: then the records above the position are read as if they were new.
pub fn decode(position: i64, text: &str) -> Vec<Range<i64>> {
    let ranges = text.split(SKIPPED.0).next().unwrap_or_default();
    ranges
        .strip_prefix(PREFIX)
        .and_then(|encoded| STANDARD_NO_PAD.decode(encoded).ok())
        .and_then(|numbers| read_ranges(position, &numbers))
        .unwrap_or_default()
}

fn read_ranges(position: i64, mut numbers: &[u8]) -> Option<Vec<Range<i64>>> {
    let mut ranges = Vec::new();
    let mut end = position;
    while !numbers.is_empty() {
        let start = end.checked_add_unsigned(take_number(&mut numbers)?)?;
        end = start.checked_add_unsigned(take_number(&mut numbers)?)?;
        if start == end {
            return None;
        }
        ranges.push(start..end);
    }
    Some(ranges)
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(first & 0x7f);
        if low << shift >> shift != low {
            return None;
        }
        number |= low << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_that_is_not_ours_tells_of_nothing() {
        for text in [
            "",
            "consumer-1",
            "p1:",
            "p1:!!",
            "p1:gA",
            "p1:AQA",
            "p2:AQE",
        ] {
            assert!(decode(7, text).is_empty(), "{text}");
        }
    }

    #[test]
    fn ranges_that_do_not_fit_are_left_out_from_the_top() {
        let ranges: Vec<_> = (0..10_000).map(|n| 2 * n + 1..2 * n + 2).collect();
        let Encoded { text, left_out } = encode(0, &ranges);
        assert!(text.len() <= MAX_BYTES, "{}", text.len());
        let kept = decode(0, &text);
        assert!(kept.len() > 1_500, "{}", kept.len());
        assert_eq!(kept, ranges[..kept.len()]);
        assert_eq!(left_out, ranges.len() - kept.len());
    }

    proptest! {
        /// One range between any two unfinished records, however long.
        #[test]
        fn what_the_most_unfinished_records_leave_fits(
            gaps in prop::collection::vec(1_i64..8, MOST_UNFINISHED / 7..MOST_UNFINISHED),
            length in prop::sample::select(vec![1_i64, 100, (1 << 28) - 1]),
        ) {
            let (mut ranges, mut unfinished, mut end) = (Vec::new(), 0, 0);
            for gap in gaps {
                unfinished += gap;
                if unfinished > MOST_UNFINISHED as i64 {
                    break;
                }
                ranges.push(end + gap..end + gap + length);
                end += gap + length;
            }
            prop_assert_eq!(encode(0, &ranges).left_out, 0);
        }

        #[test]
        fn what_is_written_is_read(
            position in 0..i64::MAX / 2,
            steps in prop::collection::vec((1..1_i64 << 40, 1..1_i64 << 40), 0..40),
        ) {
            let mut end = position;
            let ranges: Vec<_> = steps
                .into_iter()
                .map(|(gap, length)| {
                    let start = end + gap;
                    end = start + length;
                    start..end
                })
                .collect();
            prop_assert_eq!(decode(position, &encode(position, &ranges).text), ranges);
        }

        #[test]
        fn what_was_skipped_is_read_whatever_stands_before_it(
            length in 0..600_i64,
            deleted in any::<u64>(),
            empty in any::<u64>(),
        ) {
            let ranges: Vec<_> = (0..length).map(|n| n << 40 | 1..(n + 1) << 40).collect();
            let all = Skipped { deleted, empty };
            let encoded = encode_all(0, &ranges, all);
            prop_assert!(encoded.text.len() <= MAX_BYTES, "{}", encoded.text.len());
            prop_assert_eq!(skipped(&encoded.text), all);
            prop_assert_eq!(decode(0, &encoded.text), &ranges[..ranges.len() - encoded.left_out]);
            prop_assert_eq!(skipped(&encode(0, &ranges).text), Skipped::default());
        }

        #[test]
        fn no_text_is_too_odd_to_be_read(position in any::<i64>(), text in "p1:[A-Za-z0-9+/]{0,40}") {
            for range in decode(position, &text) {
                prop_assert!(range.start >= position && range.start < range.end);
            }
        }
    }
}
