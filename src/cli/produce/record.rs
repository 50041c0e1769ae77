//! The record of one image, in either envelope.

use super::folder::{ImageFile, PartFolder};
use super::{Envelope, ProduceArguments};
use crate::domain::{Header, OutboundRecord, Timestamp, Topic};
use crate::schema::view::{CapturedAt, MSGPACK_CONTENT_TYPE, MsgpackView, encode_msgpack_view};

/// Makes the records of one part.
pub(super) struct RecordBuilder<'a> {
    pub(super) arguments: &'a ProduceArguments,
    pub(super) part: &'a PartFolder,
    /// From 1.
    pub(super) repetition: u32,
    pub(super) now: Timestamp,
}

impl RecordBuilder<'_> {
    /// The record of one of the part's images.
    pub(super) fn build(&self, image: &ImageFile, bytes: Vec<u8>) -> OutboundRecord {
        let part_id = match self.repetition {
            1 => self.part.part.clone(),
            repetition => format!("{}-r{repetition}", self.part.part),
        };
        // Repeated parts are new parts, taken now.
        let captured_at = if self.arguments.real_time && self.repetition == 1 {
            image.modified_at
        } else {
            self.now
        };
        let (headers, value) = match self.arguments.envelope {
            Envelope::Image => (self.headers(image, captured_at), bytes),
            Envelope::Msgpack => {
                let value = self.msgpack(image, &part_id, captured_at, &bytes);
                (vec![header("content-type", MSGPACK_CONTENT_TYPE)], value)
            }
        };
        OutboundRecord {
            topic: Topic::new(format!("{}{}", self.arguments.topic_prefix, image.view)),
            partition: None,
            key: Some(part_id.into_bytes()),
            value: Some(value),
            headers,
        }
    }

    fn headers(&self, image: &ImageFile, captured_at: Timestamp) -> Vec<Header> {
        let mut headers = vec![
            header("content-type", image.content_type),
            header("view", &image.view),
            header("class", &self.part.class),
            header("views", &self.part.expected_views.to_string()),
            header("captured-at", &captured_at.0.to_string()),
        ];
        headers.extend(
            self.arguments
                .line
                .as_deref()
                .map(|line| header("line", line)),
        );
        headers
    }

    fn msgpack(
        &self,
        image: &ImageFile,
        part_id: &str,
        captured_at: Timestamp,
        bytes: &[u8],
    ) -> Vec<u8> {
        encode_msgpack_view(&MsgpackView {
            part_id: Some(part_id),
            view: Some(&image.view),
            class: Some(&self.part.class),
            line: self.arguments.line.as_deref(),
            views: Some(self.part.expected_views as u64),
            captured_at: Some(CapturedAt::EpochMillis(captured_at.0)),
            content_type: Some(image.content_type),
            data: bytes,
            ..MsgpackView::default()
        })
    }
}

fn header(name: &str, value: &str) -> Header {
    Header {
        name: name.to_owned(),
        value: Some(value.as_bytes().to_vec()),
    }
}
