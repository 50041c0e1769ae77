//! The JSON Schemas in `schemas/`, generated from the types.
//!
//! JSON Schema has no word for bytes: where a `MessagePack` value is a `bin`, a schema says
//! `"x-msgpack-type": "bin"` instead of a type.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::archive::{ArchiveManifest, IndexEntry, SegmentManifest};
use super::closed_part::ClosedPartRecord;
use super::result::{PartResult, ResultFormat};
use super::view::MsgpackView;

/// The JSON Schema (draft 2020-12) of results in this format, as readers find them.
pub fn result_schema(format: ResultFormat) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let title = "Panoptes result, version 1";
    let mut schema = root_schema::<PartResult>(settings, format.schema_id(), title);
    if format == ResultFormat::Msgpack {
        say_bin_for_base64(&mut schema);
    }
    schema
}

/// The JSON Schema (draft 2020-12) of the `MessagePack` view envelope, as producers write it.
pub fn view_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    let title = "Panoptes view envelope, version 1";
    root_schema::<MsgpackView<'_>>(settings, "urn:panoptes:schema:view:v1:msgpack", title)
}

/// The JSON Schema (draft 2020-12) of what the topic of closed parts holds.
pub fn closed_part_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    let title = "Panoptes closed part, version 1";
    let id = "urn:panoptes:schema:closed-part:v1:msgpack";
    root_schema::<ClosedPartRecord>(settings, id, title)
}

/// The JSON Schema (draft 2020-12) of an archive's manifest.
pub fn archive_manifest_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let title = "Panoptes archive manifest, version 1";
    root_schema::<ArchiveManifest>(settings, "urn:panoptes:schema:archive:v1:json", title)
}

/// The JSON Schema (draft 2020-12) of the manifest of an archive's segment.
pub fn segment_manifest_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let title = "Panoptes archive segment manifest, version 1";
    let id = "urn:panoptes:schema:archive-segment:v1:json";
    root_schema::<SegmentManifest>(settings, id, title)
}

/// The JSON Schema (draft 2020-12) of one line of a segment's index.
pub fn segment_index_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let title = "Panoptes archive segment index, one line, version 1";
    let id = "urn:panoptes:schema:archive-index:v1:json";
    root_schema::<IndexEntry>(settings, id, title)
}

fn root_schema<T: JsonSchema>(settings: SchemaSettings, id: &str, title: &str) -> Value {
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("$id".to_owned(), json!(id));
    schema.insert("title".to_owned(), json!(title));
    // What follows the first paragraph is for readers of the Rust documentation.
    let description = schema.get("description").and_then(Value::as_str);
    if let Some((first, _)) = description.and_then(|text| text.split_once("\n\n")) {
        let first = json!(first);
        schema.insert("description".to_owned(), first);
    }
    schema.to_value()
}

fn say_bin_for_base64(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.remove("contentEncoding").is_some() {
                object.remove("type");
                object.insert("x-msgpack-type".to_owned(), json!("bin"));
            }
            object.values_mut().for_each(say_bin_for_base64);
        }
        Value::Array(items) => items.iter_mut().for_each(say_bin_for_base64),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::committed::assert_committed;

    #[test]
    fn committed_result_schemas_equal_the_types() {
        let schema = result_schema(ResultFormat::Msgpack);
        assert_committed("result.v1.msgpack.schema.json", &schema);
        assert_committed(
            "result.v1.json.schema.json",
            &result_schema(ResultFormat::Json),
        );
    }

    #[test]
    fn committed_view_schema_equals_the_type() {
        assert_committed("view.v1.msgpack.schema.json", &view_schema());
    }

    #[test]
    fn committed_closed_part_schema_equals_the_type() {
        assert_committed("closed-part.v1.msgpack.schema.json", &closed_part_schema());
    }

    #[test]
    fn committed_archive_schemas_equal_the_types() {
        for (name, schema) in [
            ("archive.v1.json.schema.json", archive_manifest_schema()),
            (
                "archive-segment.v1.json.schema.json",
                segment_manifest_schema(),
            ),
            ("archive-index.v1.json.schema.json", segment_index_schema()),
        ] {
            assert_committed(name, &schema);
        }
    }

    #[test]
    fn result_schemas_differ_only_in_the_bytes() {
        let text = |format| result_schema(format).to_string();
        assert!(text(ResultFormat::Json).contains("contentEncoding"));
        let msgpack = text(ResultFormat::Msgpack);
        assert!(!msgpack.contains("contentEncoding"));
        assert!(msgpack.contains(r#""x-msgpack-type":"bin""#));
    }

    #[test]
    fn only_the_bytes_of_a_view_are_required() {
        assert_eq!(view_schema()["required"], json!(["data"]));
    }
}
