//! A run's settings as dotted keys with their values: what a checkpoint is held against.

use std::collections::BTreeMap;

use serde::Serialize;

/// Every setting that decides what becomes of a run, by its dotted key, as text.
pub type RunSettings = BTreeMap<String, String>;

/// Adds all keys of `value` under `prefix`.
pub(crate) fn add_settings(settings: &mut RunSettings, prefix: &str, value: &impl Serialize) {
    match serde_json::to_value(value) {
        Ok(value) => flatten(settings, prefix, &value),
        // No setting of ours has a form that JSON lacks; the text still tells two apart.
        Err(error) => drop(settings.insert(prefix.to_owned(), error.to_string())),
    }
}

fn flatten(settings: &mut RunSettings, key: &str, value: &serde_json::Value) {
    match value {
        serde_json::Value::Object(entries) => {
            for (name, value) in entries {
                let key = match key {
                    "" => name.clone(),
                    key => format!("{key}.{name}"),
                };
                flatten(settings, &key, value);
            }
        }
        serde_json::Value::String(text) => {
            settings.insert(key.to_owned(), text.clone());
        }
        value => {
            settings.insert(key.to_owned(), value.to_string());
        }
    }
}

/// One sentence a key that differs; none where the settings are the same.
pub fn differences(expected: &RunSettings, found: &RunSettings) -> Vec<String> {
    let mut keys: Vec<&String> = expected.keys().chain(found.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let text = |value: Option<&String>| match value {
        Some(value) => format!("`{value}`"),
        None => "nothing".to_owned(),
    };
    keys.into_iter()
        .filter(|key| expected.get(*key) != found.get(*key))
        .map(|key| {
            let (expected, found) = (text(expected.get(key)), text(found.get(key)));
            format!("`{key}`: expected {expected}, found {found}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_keys_that_differ_are_named() {
        let settings = |batch: usize, kind: &str| {
            let value = serde_json::json!({
                "run": { "batch": batch, "seed": 1 },
                "loss": { "kind": kind },
            });
            let mut settings = RunSettings::new();
            add_settings(&mut settings, "", &value);
            settings
        };
        let mut other = settings(4, "focal");
        other.insert("data.images".to_owned(), "10 images".to_owned());
        assert_eq!(
            differences(&settings(16, "focal"), &other),
            [
                "`data.images`: expected nothing, found `10 images`",
                "`run.batch`: expected `16`, found `4`"
            ]
        );
        // As checkpoints of a version that knew fewer settings.
        let mut newer = settings(16, "focal");
        newer.insert("input.map_side".to_owned(), "28".to_owned());
        assert_eq!(
            differences(&newer, &settings(16, "focal")),
            ["`input.map_side`: expected `28`, found nothing"]
        );
        let same = differences(&settings(16, "focal"), &settings(16, "focal"));
        assert_eq!(same, Vec::<String>::new());
    }
}
