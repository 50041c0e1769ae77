//! Records as cameras send them: one shot is one view of one part.

use image::ImageFormat;
use serde::Serialize;

use super::images;

/// A record to be produced.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    pub(crate) topic: String,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// Else the partitioner decides by the key.
    pub(crate) partition: Option<i32>,
    /// Epoch milliseconds; else now.
    pub(crate) timestamp: Option<i64>,
}

/// The forms in which the same image can travel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    Jpeg,
    Png,
    Bmp,
    Raw,
    /// The MessagePack envelope around a JPEG.
    Msgpack,
}

impl Form {
    pub(crate) const ALL: [Self; 5] = [Self::Jpeg, Self::Png, Self::Bmp, Self::Raw, Self::Msgpack];
}

#[derive(Serialize)]
struct MsgpackEnvelope<'a> {
    part_id: &'a str,
    content_type: &'a str,
    #[serde(with = "serde_bytes")]
    data: &'a [u8],
}

impl Shot {
    /// A JPEG of a part; `seed` chooses the image.
    pub(crate) fn jpeg(topic: &str, part: &str, seed: u64) -> Self {
        Self::of(topic, part, "image/jpeg", images::jpeg(seed))
    }

    /// An image of a part in any form.
    pub(crate) fn in_form(topic: &str, part: &str, seed: u64, form: Form) -> Self {
        match form {
            Form::Jpeg => Self::jpeg(topic, part, seed),
            Form::Png => Self::of(
                topic,
                part,
                "image/png",
                images::encoded(seed, ImageFormat::Png),
            ),
            Form::Bmp => Self::of(
                topic,
                part,
                "image/bmp",
                images::encoded(seed, ImageFormat::Bmp),
            ),
            Form::Raw => {
                let pixels = images::photograph(seed).into_raw();
                Self::of(topic, part, "image/x-raw", pixels)
                    .header("pixel-format", "RGB8")
                    .header("width", &images::SIDE.to_string())
                    .header("height", &images::SIDE.to_string())
                    .header("stride", &(images::SIDE * 3).to_string())
            }
            Form::Msgpack => {
                let envelope = MsgpackEnvelope {
                    part_id: part,
                    content_type: "image/jpeg",
                    data: &images::jpeg(seed),
                };
                let value = rmp_serde::to_vec_named(&envelope).unwrap();
                Self::of(topic, part, "application/msgpack", value)
            }
        }
    }

    /// Any bytes under any content type.
    pub(crate) fn of(topic: &str, part: &str, content_type: &str, value: Vec<u8>) -> Self {
        Self {
            topic: topic.to_owned(),
            key: Some(part.as_bytes().to_vec()),
            value,
            headers: vec![("content-type".to_owned(), content_type.as_bytes().to_vec())],
            partition: None,
            timestamp: None,
        }
    }

    /// With one header more.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// With another key, or none.
    pub(crate) fn keyed(mut self, key: Option<&[u8]>) -> Self {
        self.key = key.map(<[u8]>::to_vec);
        self
    }

    /// On this partition, whatever the key says.
    pub(crate) fn on_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// With Kafka's record timestamp set.
    pub(crate) fn at(mut self, epoch_millis: i64) -> Self {
        self.timestamp = Some(epoch_millis);
        self
    }
}
