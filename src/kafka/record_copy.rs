//! Copies records out of librdkafka: a borrowed message pins its whole fetch buffer.
//!
//! Any producer can write a header whose name is no UTF-8, and `rdkafka` panics on reading it. Here
//! that is caught, for one such record must not end the stream: it is copied without its headers,
//! and with what was wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::message::{BorrowedMessage, Headers, Message, Timestamp as KafkaTimestamp};

use crate::domain::{Header, Record, SourceOffset, Timestamp, TimestampKind, Topic};

#[cfg(not(panic = "unwind"))]
compile_error!("a header that is no UTF-8 would end the process: build with `panic = \"unwind\"`");

/// A record, and what of it could not be copied.
#[derive(Debug)]
pub(super) struct CopiedRecord {
    pub(super) record: Record,
    /// Why the headers were left out, if they were.
    pub(super) fault: Option<String>,
}

/// Copies a message; the assignment that it belongs to is the caller's to tell.
pub(super) fn copy_record(message: &BorrowedMessage<'_>) -> CopiedRecord {
    let (headers, fault) = match message.headers().map(copy_headers) {
        None => (Vec::new(), None),
        Some(Ok(headers)) => (headers, None),
        Some(Err(fault)) => (Vec::new(), Some(fault)),
    };
    let record = Record {
        source: SourceOffset {
            topic: Topic::new(message.topic()),
            partition: message.partition(),
            offset: message.offset(),
        },
        generation: 0,
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
        timestamp: message.timestamp().to_millis().map(Timestamp),
        lease: None,
    };
    CopiedRecord { record, fault }
}

/// What the message's timestamp is.
pub(super) fn timestamp_kind(message: &BorrowedMessage<'_>) -> Option<TimestampKind> {
    match message.timestamp() {
        KafkaTimestamp::NotAvailable => None,
        KafkaTimestamp::CreateTime(_) => Some(TimestampKind::Create),
        KafkaTimestamp::LogAppendTime(_) => Some(TimestampKind::LogAppend),
    }
}

fn copy_headers(headers: &impl Headers) -> Result<Vec<Header>, String> {
    // Nothing is left half changed by a panic in there: it reads.
    let copied = catch_unwind(AssertUnwindSafe(|| {
        headers
            .iter()
            .map(|header| Header {
                name: header.key.to_owned(),
                value: header.value.map(<[u8]>::to_vec),
            })
            .collect()
    }));
    copied.map_err(|_| {
        format!(
            "expected header names in UTF-8, found another among `{}` headers; the headers are \
             left out",
            headers.count()
        )
    })
}

#[cfg(test)]
mod tests {
    use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};

    use super::*;

    /// Headers as `rdkafka` shows them when the second name is no UTF-8.
    struct OddHeaders;

    impl Headers for OddHeaders {
        fn count(&self) -> usize {
            2
        }

        fn try_get(&self, index: usize) -> Option<KafkaHeader<'_, &[u8]>> {
            match index {
                0 => Some(KafkaHeader {
                    key: "view",
                    value: Some(b"top"),
                }),
                _ => panic!("Utf8Error"),
            }
        }
    }

    #[test]
    fn headers_that_cannot_be_read_are_told_and_left_out() {
        assert_eq!(
            copy_headers(&OddHeaders).unwrap_err(),
            "expected header names in UTF-8, found another among `2` headers; the headers are left \
             out"
        );
    }

    #[test]
    fn headers_are_copied_in_order_with_those_that_have_no_value() {
        let headers = OwnedHeaders::new()
            .insert(KafkaHeader {
                key: "view",
                value: Some("top"),
            })
            .insert(KafkaHeader::<&str> {
                key: "empty",
                value: None,
            });
        let expected = [("view", Some(b"top".to_vec())), ("empty", None)].map(|(name, value)| {
            let name = name.to_owned();
            Header { name, value }
        });
        assert_eq!(copy_headers(&headers).unwrap(), expected);
    }
}
