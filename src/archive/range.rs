//! Ranges as they are asked for, before they are looked up.

use crate::schema::archive::RequestedRange;

/// A range that ends before it begins, or where it begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the range to end after it begins, found `{from}` to `{to}`")]
pub struct EmptyRange {
    from: String,
    to: String,
}

impl RequestedRange {
    /// Fails where no record can be of the range. How times and offsets lie to each other is not known here.
    ///
    /// # Errors
    /// When it ends where it begins, or earlier.
    pub fn expect_some(&self) -> Result<(), EmptyRange> {
        let times = (self.from_timestamp, self.to_timestamp);
        expect_order(times, time_text)?;
        let offsets = (self.from_offset, self.to_offset);
        expect_order(offsets, |offset| offset.to_string())
    }
}

/// Fails where both bounds are given, and the end is not behind the beginning.
pub(crate) fn expect_order(
    bounds: (Option<i64>, Option<i64>),
    text: impl Fn(i64) -> String,
) -> Result<(), EmptyRange> {
    match bounds {
        (Some(from), Some(to)) if from >= to => Err(EmptyRange {
            from: text(from),
            to: text(to),
        }),
        _ => Ok(()),
    }
}

pub(crate) fn time_text(millis: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(millis);
    time.map_or_else(|_| format!("{millis} ms"), |time| time.to_string())
}

/// The range for messages.
pub(super) fn range_text(range: &RequestedRange) -> String {
    let text = |bound: Option<i64>| bound.map_or_else(|| "none".to_owned(), |it| it.to_string());
    let [from, to] = [range.from_timestamp, range.to_timestamp].map(text);
    let [first, end] = [range.from_offset, range.to_offset].map(text);
    format!("times {from} to {to}, offsets {first} to {end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(from: i64, to: i64) -> RequestedRange {
        RequestedRange {
            from_timestamp: Some(from),
            to_timestamp: Some(to),
            ..RequestedRange::default()
        }
    }

    fn offsets(from: i64, to: i64) -> RequestedRange {
        RequestedRange {
            from_offset: Some(from),
            to_offset: Some(to),
            ..RequestedRange::default()
        }
    }

    #[test]
    fn a_range_that_does_not_end_after_it_begins_is_named() {
        let noon = 1_772_366_400_000;
        for (range, found) in [
            (
                times(noon + 1, noon),
                "`2026-03-01T12:00:00.001Z` to `2026-03-01T12:00:00Z`",
            ),
            (
                times(noon, noon),
                "`2026-03-01T12:00:00Z` to `2026-03-01T12:00:00Z`",
            ),
            (
                times(i64::MAX, 0),
                "`9223372036854775807 ms` to `1970-01-01T00:00:00Z`",
            ),
            (offsets(300, 200), "`300` to `200`"),
            (offsets(200, 200), "`200` to `200`"),
        ] {
            let error = range.expect_some().unwrap_err().to_string();
            assert_eq!(
                error,
                format!("expected the range to end after it begins, found {found}")
            );
        }
    }

    #[test]
    fn a_range_that_may_hold_a_record_is_taken() {
        let mixed = RequestedRange {
            from_timestamp: Some(1_772_366_400_000),
            to_offset: Some(5),
            ..RequestedRange::default()
        };
        for range in [
            RequestedRange::default(),
            times(-1, 0),
            offsets(0, 1),
            mixed,
        ] {
            assert_eq!(range.expect_some(), Ok(()), "{range:?}");
        }
    }
}
