//! The deterministic ID of a result.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::{Run, RunKind};
use crate::domain::{ModelIdentity, PartVerdict};

/// Length of an ID in bytes before it is written in hexadecimal: 128 bits never meet by chance.
const ID_BYTES: usize = 16;

/// The ID of the result that tells this verdict: the same each time the same records are scored by
/// the same model, so that a reader can drop what an at-least-once run published twice.
///
/// The first 16 bytes, in lower-case hexadecimal, of the SHA-256 over these fields, each preceded
/// by its length as a big-endian `u64`: `panoptes.result.v1`; line; part ID; model name; model
/// version; `live` or `replay`; the run's ID if a replay, else empty; then for each topic and
/// partition that brought a view, in order of topic and number: the topic, the partition number
/// (big-endian `i32`), and the lowest offset (big-endian `i64`).
///
/// Live results do not depend on the run's ID: a second consumer group over the same records
/// gives the same result.
pub fn result_id(verdict: &PartVerdict, model: &ModelIdentity, run: &Run) -> String {
    let mut hash = FieldHash(Sha256::new());
    hash.field(b"panoptes.result.v1");
    hash.field(verdict.part.line.as_str().as_bytes());
    hash.field(verdict.part.part.as_str().as_bytes());
    hash.field(model.name.as_bytes());
    hash.field(model.version.as_bytes());
    match run.kind {
        RunKind::Live => {
            hash.field(b"live");
            hash.field(b"");
        }
        RunKind::Replay => {
            hash.field(b"replay");
            hash.field(run.id.as_bytes());
        }
    }
    for ((topic, partition), offset) in first_offsets(verdict) {
        hash.field(topic.as_bytes());
        hash.field(&partition.to_be_bytes());
        hash.field(&offset.to_be_bytes());
    }
    hash.id()
}

fn first_offsets(verdict: &PartVerdict) -> BTreeMap<(&str, i32), i64> {
    let mut first = BTreeMap::new();
    for source in verdict.views.iter().filter_map(|view| view.source.as_ref()) {
        first
            .entry((source.topic.as_str(), source.partition))
            .and_modify(|offset: &mut i64| *offset = source.offset.min(*offset))
            .or_insert(source.offset);
    }
    first
}

/// Hashes fields so that no two lists of fields run together to the same bytes.
struct FieldHash(Sha256);

impl FieldHash {
    fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn id(self) -> String {
        let digest = self.0.finalize();
        digest[..ID_BYTES]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}
