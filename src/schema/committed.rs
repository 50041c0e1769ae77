//! Holds the files in `schemas/` against the types that they describe.

use std::path::Path;

use serde_json::Value;

/// Fails unless `schemas/<file_name>` holds this schema; writes it when `UPDATE_SCHEMAS` is set.
pub(crate) fn assert_committed(file_name: &str, schema: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("schemas")
        .join(file_name);
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read(&path).unwrap_or_default();
    let found: Value = serde_json::from_slice(&found).unwrap_or_default();
    assert!(
        found == *schema,
        "`schemas/{file_name}` differs from the types; run `UPDATE_SCHEMAS=1 cargo test schema` and \
         look at the difference: a published version may only grow"
    );
}
