//! Bytes as `bin` in binary formats and as a base64 string in readable ones.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.serialize_str(&STANDARD.encode(bytes))
    } else {
        serializer.serialize_bytes(bytes)
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    if deserializer.is_human_readable() {
        let text = String::deserialize(deserializer)?;
        STANDARD
            .decode(text)
            .map_err(|error| D::Error::custom(format!("bytes are no base64: {error}")))
    } else {
        serde_bytes::deserialize(deserializer)
    }
}

/// As JSON has it; [`result_schema`](crate::schema::json_schema::result_schema) puts `bin` in its place for `MessagePack`.
pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "contentEncoding": "base64" })
}
