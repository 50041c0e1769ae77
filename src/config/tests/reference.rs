//! The reference file, against the settings that there are.

use super::*;

fn reference() -> String {
    std::fs::read_to_string("config/panoptes.toml").unwrap()
}

/// The reference with every commented line in force.
fn uncommented_reference() -> String {
    reference()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') && !rest.is_empty() => rest,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// All of it but the key that excludes another.
fn loadable_reference() -> Given {
    let text: Vec<_> = uncommented_reference()
        .lines()
        .filter(|line| !line.starts_with("topic_regex"))
        .map(str::to_owned)
        .collect();
    Given::toml(&text.join("\n"))
}

#[test]
fn the_reference_file_is_sound_as_shipped_and_with_every_line_in_force() {
    let shipped = Given::toml(&reference()).load().unwrap();
    assert_eq!(shipped.input.line.as_deref(), Some("line1"));
    loadable_reference().load().unwrap();
}

#[test]
fn the_reference_file_states_the_defaults() {
    let stated = loadable_reference().load().unwrap();
    let defaults = Settings::default();
    assert_eq!(stated.reassembly, defaults.reassembly);
    assert_eq!(stated.limits, defaults.limits);
    assert_eq!(stated.model, defaults.model);
    assert_eq!(stated.admin, defaults.admin);
    assert_eq!(stated.watchdog, defaults.watchdog);
    assert_eq!(stated.telemetry, defaults.telemetry);
    let closed_parts = stated.output.closed_parts_topic.as_deref();
    assert_eq!(closed_parts, Some(&*defaults.closed_parts_topic()));
    let stated_output = OutputSettings {
        closed_parts_topic: None,
        results_topic: defaults.output.results_topic.clone(),
        dead_letter_topic: defaults.output.dead_letter_topic.clone(),
        ..stated.output
    };
    assert_eq!(stated_output, defaults.output);
    let stated_bus = BusSettings {
        properties: Properties::default(),
        ..stated.bus
    };
    assert_eq!(stated_bus, defaults.bus);
}

#[test]
fn the_reference_file_mentions_every_key() {
    let mut full = Settings::default();
    full.input.topics.push("a".to_owned());
    full.input.topic_regex = Some("^a".to_owned());
    full.input.line = Some("line1".to_owned());
    full.input.class = Some("bolt".to_owned());
    full.output.closed_parts_topic = Some("closed".to_owned());
    full.views.class.insert("gear".to_owned(), Vec::new());
    full.views.line.insert("line2".to_owned(), Vec::new());
    let line2 = LineSettings {
        timeout: Some(Duration::ZERO),
        on_timeout: Some(OnTimeout::Review),
    };
    full.lines.insert("line2".to_owned(), line2);
    let stated: serde_json::Value = toml::from_str(&uncommented_reference()).unwrap();
    let mut missing = Vec::new();
    name_missing_keys(
        "",
        &serde_json::to_value(&full).unwrap(),
        &stated,
        &mut missing,
    );
    assert!(
        missing.is_empty(),
        "not in config/panoptes.toml: {missing:?}"
    );
}

fn name_missing_keys(
    path: &str,
    expected: &serde_json::Value,
    stated: &serde_json::Value,
    missing: &mut Vec<String>,
) {
    for (key, value) in expected.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        match stated.get(key) {
            Some(stated) => name_missing_keys(&path, value, stated, missing),
            None => missing.push(path),
        }
    }
}

#[test]
fn the_yaml_sample_says_the_same_as_the_reference() {
    let yaml = Settings::load(&Sources {
        file: Some("config/panoptes.yaml".into()),
        ..Sources::default()
    });
    assert_eq!(yaml.unwrap(), Given::toml(&reference()).load().unwrap());
}
