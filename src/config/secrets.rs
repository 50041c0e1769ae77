//! Client properties, and the rule that none of their secrets is ever printed.
//!
//! `Debug` and the printed form show a mark in place of every value whose name suggests a secret.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::Settings;

/// Stands where a secret was.
pub(super) const REDACTED: &str = "<redacted>";

/// Parts of a property's name that mark its value as a secret.
const SECRET_MARKS: [&str; 5] = ["password", "secret", "key", "token", "oauthbearer.config"];

/// librdkafka properties by name. Numbers and booleans are accepted and kept as text; nested
/// tables are joined by dots, and `_` in a name is read as `.` (environment variables have no
/// dots), for no settable librdkafka property has an underscore.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// The value of a property, if it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Every property, by name. The values may be secret.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Sets a property.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    /// Takes a property away.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    fn redacted(&self) -> BTreeMap<&str, &str> {
        self.iter()
            .map(|(name, value)| (name, if is_secret(name) { REDACTED } else { value }))
            .collect()
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.redacted().fmt(formatter)
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let tree = serde_json::Map::<String, serde_json::Value>::deserialize(deserializer)?;
        let mut properties = BTreeMap::new();
        for (name, value) in flatten(&tree) {
            let text = match value {
                serde_json::Value::String(text) => text,
                serde_json::Value::Number(number) => number.to_string(),
                serde_json::Value::Bool(flag) => flag.to_string(),
                _ => {
                    return Err(D::Error::custom(format!(
                        "property `{name}` must be text, a number or a boolean"
                    )));
                }
            };
            properties.insert(name, text);
        }
        Ok(Self(properties))
    }
}

/// Whether the value of a property must not be shown.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_MARKS.iter().any(|mark| name.contains(mark))
}

/// Tables within tables as dotted names, so that every layer spells a property alike.
pub(super) fn flatten(
    tree: &serde_json::Map<String, serde_json::Value>,
) -> serde_json::Map<String, serde_json::Value> {
    let mut flat = serde_json::Map::new();
    for (name, value) in tree {
        let name = name.replace('_', ".");
        if let serde_json::Value::Object(subtree) = value {
            for (rest, value) in flatten(subtree) {
                flat.insert(format!("{name}.{rest}"), value);
            }
        } else {
            flat.insert(name, value.clone());
        }
    }
    flat
}

/// A list of brokers without the credentials that someone may have put before an `@`.
pub(super) fn redact_brokers(brokers: &str) -> String {
    brokers
        .split(',')
        .map(|broker| match broker.rsplit_once('@') {
            Some((_, host)) => format!("{REDACTED}@{host}"),
            None => broker.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// The settings as TOML with every secret replaced.
pub(super) fn redacted_toml(settings: &Settings) -> String {
    let mut shown = settings.clone();
    shown.bus.brokers = redact_brokers(&settings.bus.brokers);
    let mut properties = Properties::default();
    for (name, value) in settings.bus.properties.redacted() {
        properties.insert(name, value);
    }
    shown.bus.properties = properties;
    toml::to_string_pretty(&shown).expect("settings are tables, text, numbers and booleans")
}
