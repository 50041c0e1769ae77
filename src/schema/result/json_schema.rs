//! The JSON Schema of results, generated from the types.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::{PartResult, ResultFormat};

/// The JSON Schema (draft 2020-12) of results in this format.
///
/// JSON Schema has no word for bytes: where the `MessagePack` value is a `bin`, the schema says
/// `"x-msgpack-type": "bin"` instead of a type.
pub fn json_schema(format: ResultFormat) -> Value {
    let mut schema = SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<PartResult>()
        .to_value();
    if let Some(root) = schema.as_object_mut() {
        root.insert("$id".to_owned(), json!(format.schema_id()));
        root.insert("title".to_owned(), json!("Panoptes result, version 1"));
    }
    if format == ResultFormat::Msgpack {
        say_bin_for_base64(&mut schema);
    }
    schema
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
    fn committed_msgpack_schema_equals_the_types() {
        assert_committed(
            "result.v1.msgpack.schema.json",
            &json_schema(ResultFormat::Msgpack),
        );
    }

    #[test]
    fn committed_json_schema_equals_the_types() {
        assert_committed(
            "result.v1.json.schema.json",
            &json_schema(ResultFormat::Json),
        );
    }

    #[test]
    fn schemas_differ_only_in_the_bytes() {
        let text = |format| json_schema(format).to_string();
        assert!(text(ResultFormat::Json).contains("contentEncoding"));
        let msgpack = text(ResultFormat::Msgpack);
        assert!(!msgpack.contains("contentEncoding"));
        assert!(msgpack.contains(r#""x-msgpack-type":"bin""#));
    }
}
