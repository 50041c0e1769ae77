//! The layers: file, environment and flags, laid over each other and then typed.
//!
//! Each layer becomes a tree of values; later trees win key by key. The sum is typed once, and
//! every key that does not fit is named, not only the first.

use std::path::Path;

use config::{Environment, File, FileFormat, Source};
use serde::Deserialize;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use super::{ConfigError, Problem, Settings, Sources, secrets};

/// What an environment variable must start with to count.
pub(super) const ENVIRONMENT_PREFIX: &str = "PANOPTES__";

/// The table whose keys are names with dots: what follows is one key.
const PROPERTIES: &str = "bus.properties.";

/// Reads and types all layers; the problems are keys that are unknown or of the wrong type.
pub(super) fn read(sources: &Sources) -> Result<(Settings, Vec<Problem>), ConfigError> {
    let mut tree = match &sources.file {
        Some(path) => read_file(path)?,
        None => Map::new(),
    };
    let defaults = serde_json::to_value(Settings::default())
        .expect("settings are tables, text, numbers and booleans");
    for (key, text) in read_environment(sources)? {
        set(&mut tree, &key, text, &defaults);
    }
    for text in &sources.overrides {
        let (key, value) = text
            .split_once('=')
            .filter(|(key, _)| !key.trim().is_empty())
            .ok_or_else(|| ConfigError::Override(text.clone()))?;
        set(&mut tree, key.trim(), value.trim().to_owned(), &defaults);
    }
    Ok(type_tree(Value::Object(tree)))
}

fn read_file(path: &Path) -> Result<Map<String, Value>, ConfigError> {
    let format = match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => FileFormat::Toml,
        Some("yaml" | "yml") => FileFormat::Yaml,
        _ => return Err(ConfigError::UnknownFormat(path.to_owned())),
    };
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let parse_error = |reason: config::ConfigError| ConfigError::Parse {
        path: path.to_owned(),
        reason: match format {
            FileFormat::Toml => toml_fault(&text).unwrap_or_else(|| reason.to_string()),
            _ => reason.to_string(),
        },
    };
    let mut tree = Map::new();
    for (key, value) in File::from_str(&text, format)
        .collect()
        .map_err(parse_error)?
    {
        tree.insert(key, Value::deserialize(value).map_err(parse_error)?);
    }
    flatten_properties(&mut tree);
    Ok(tree)
}

/// What is wrong with a text that is no TOML, and where; without the line itself, which may hold a secret.
fn toml_fault(text: &str) -> Option<String> {
    let error = toml::from_str::<toml::Table>(text).err()?;
    let before = error.span().and_then(|span| text.get(..span.start));
    let place = before.map(|before| {
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        format!("line {line}, column {column}: ")
    });
    Some(place.unwrap_or_default() + error.message())
}

/// Spells the properties as the other layers do, so that those replace them.
fn flatten_properties(tree: &mut Map<String, Value>) {
    if let Some(Value::Object(bus)) = tree.get_mut("bus")
        && let Some(Value::Object(properties)) = bus.get_mut("properties")
    {
        *properties = secrets::flatten(properties);
    }
}

fn read_environment(sources: &Sources) -> Result<Vec<(String, String)>, ConfigError> {
    let variables = sources
        .environment
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let environment = Environment::default()
        .prefix("PANOPTES")
        .prefix_separator("__")
        .separator("__")
        .source(Some(variables));
    let mut values = Vec::new();
    for (key, value) in environment.collect().map_err(environment_error)? {
        values.push((key, value.into_string().map_err(environment_error)?));
    }
    values.sort();
    Ok(values)
}

fn environment_error(error: config::ConfigError) -> ConfigError {
    ConfigError::Invalid(vec![Problem {
        key: "environment".to_owned(),
        value: None,
        rule: error.to_string(),
    }])
}

/// Sets a dotted key, giving the text the type that the key's default has.
fn set(tree: &mut Map<String, Value>, key: &str, text: String, defaults: &Value) {
    let mut path: Vec<String> = match key.strip_prefix(PROPERTIES) {
        Some(name) => vec![
            "bus".to_owned(),
            "properties".to_owned(),
            name.replace('_', "."),
        ],
        None => key.split('.').map(Into::into).collect(),
    };
    let default = path
        .iter()
        .try_fold(defaults, |value, name| value.get(name));
    let value = typed(text, default);
    let last = path.pop().expect("splitting text gives at least one piece");
    let mut table = tree;
    for name in path {
        let entry = table
            .entry(name)
            .or_insert_with(|| Value::Object(Map::new()));
        if !entry.is_object() {
            *entry = Value::Object(Map::new());
        }
        table = entry.as_object_mut().expect("it was just made an object");
    }
    table.insert(last, value);
}

fn typed(text: String, default: Option<&Value>) -> Value {
    let parsed = match default {
        Some(Value::Number(_)) => text.parse::<serde_json::Number>().ok().map(Value::Number),
        Some(Value::Bool(_)) => text.parse().ok().map(Value::Bool),
        _ => None,
    };
    parsed.unwrap_or(Value::String(text))
}

/// Types the tree; a key that does not fit is named, left out, and the rest is tried again.
fn type_tree(mut tree: Value) -> (Settings, Vec<Problem>) {
    let mut problems = Vec::new();
    loop {
        match serde_path_to_error::deserialize::<_, Settings>(tree.clone()) {
            Ok(settings) => return (settings, problems),
            Err(error) => {
                let path: Vec<String> = error.path().iter().map(segment_name).collect();
                let removed = remove(&mut tree, &path);
                problems.push(problem(&path, removed.as_ref(), &error.inner().to_string()));
                if removed.is_none() {
                    return (Settings::default(), problems);
                }
            }
        }
    }
}

fn segment_name(segment: &Segment) -> String {
    match segment {
        Segment::Map { key } => key.clone(),
        Segment::Seq { index } => index.to_string(),
        Segment::Enum { variant } => variant.clone(),
        Segment::Unknown => "?".to_owned(),
    }
}

/// Takes out the value at the path, or the deepest part of the path that is a key of a table.
fn remove(tree: &mut Value, path: &[String]) -> Option<Value> {
    let (first, rest) = path.split_first()?;
    let table = tree.as_object_mut()?;
    if let Some(value) = table.get_mut(first)
        && let Some(removed) = remove(value, rest)
    {
        return Some(removed);
    }
    table.remove(first)
}

fn problem(path: &[String], value: Option<&Value>, reason: &str) -> Problem {
    let key = path.join(".");
    if key.starts_with("bus.properties") {
        return Problem {
            key,
            value: None,
            rule: "must be a table of text, numbers and booleans".to_owned(),
        };
    }
    let is_unknown = reason.starts_with("unknown field");
    let shown = match value {
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) if key == "bus.brokers" => None,
        Some(value) => Some(value.to_string()),
        None => None,
    };
    Problem {
        key: if key.is_empty() {
            "settings".to_owned()
        } else {
            key
        },
        value: shown.filter(|_| !is_unknown),
        rule: reason.replacen("unknown field", "unknown key", 1),
    }
}
