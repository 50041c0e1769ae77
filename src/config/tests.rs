//! Layers, types and secrets.

mod reference;
mod rules;

use std::path::Path;
use std::time::Duration;

use super::*;

const MINIMAL: &str = "input.topics=line1.cam.top,line1.cam.left";

struct Given {
    folder: tempfile::TempDir,
    sources: Sources,
}

impl Given {
    fn file(name: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let sources = Sources {
            file: Some(path),
            ..Sources::default()
        };
        Self { folder, sources }
    }

    fn toml(text: &str) -> Self {
        Self::file("panoptes.toml", text)
    }

    fn environment(mut self, name: &str, value: &str) -> Self {
        self.sources
            .environment
            .insert(name.to_owned(), value.to_owned());
        self
    }

    fn flag(mut self, text: &str) -> Self {
        self.sources.overrides.push(text.to_owned());
        self
    }

    fn load(&self) -> Result<Settings, ConfigError> {
        assert!(self.folder.path().exists());
        Settings::load(&self.sources)
    }

    fn problems(&self) -> Vec<String> {
        match self.load() {
            Err(ConfigError::Invalid(problems)) => {
                problems.iter().map(ToString::to_string).collect()
            }
            other => panic!("expected problems, found {other:?}"),
        }
    }
}

fn flags(overrides: &[&str]) -> Given {
    let mut given = Given::toml("").flag(MINIMAL);
    for text in overrides {
        given = given.flag(text);
    }
    given
}

/// The one problem of otherwise sound settings.
fn problem_of(overrides: &[&str]) -> String {
    let problems = flags(overrides).problems();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].clone()
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let given = Given::toml("[bus]\ngroup_id = 'file'\n").flag(MINIMAL);
    assert_eq!(given.load().unwrap().bus.group_id, "file");
    let given = given.environment("PANOPTES__BUS__GROUP_ID", "environment");
    assert_eq!(given.load().unwrap().bus.group_id, "environment");
    let given = given.flag("bus.group_id=first").flag("bus.group_id=flag");
    let settings = given.load().unwrap();
    assert_eq!(settings.bus.group_id, "flag");
    assert_eq!(settings.bus.brokers, "127.0.0.1:9092");
}

#[test]
fn a_layer_replaces_single_keys_and_leaves_their_neighbours() {
    let settings = Given::toml("[output]\nmaps = { codec = 'zstd', side = 64 }\n")
        .environment("PANOPTES__OUTPUT__MAPS__SIDE", "256")
        .flag(MINIMAL)
        .load()
        .unwrap();
    assert_eq!(settings.output.maps.codec, MapCodecSetting::Zstd);
    assert_eq!(settings.output.maps.side, 256);
}

#[test]
fn texts_from_the_environment_take_the_type_of_their_key() {
    let settings = Given::toml("")
        .environment("PANOPTES__INPUT__TOPICS", "line1.cam.top, line1.cam.left,")
        .environment("PANOPTES__BUS__GROUP_ID", "42")
        .environment("PANOPTES__MODEL__MAX_BATCH", "8")
        .environment("PANOPTES__REASSEMBLY__MEMORY_LOW", "0.25")
        .environment("PANOPTES__REASSEMBLY__TIMEOUT", "1500ms")
        .environment("PANOPTES__REASSEMBLY__IDLE_AFTER", "1s")
        .environment("PANOPTES__REASSEMBLY__MEMORY_BUDGET", "64MiB")
        .environment("PANOPTES__VIEWS__CLASS__GEAR", "top,side")
        .environment("PANOPTES__LINES__LINE2__ON_TIMEOUT", "review")
        .environment("PANOPTES_CONFIG", "is another matter")
        .environment("PATH", "/bin")
        .load()
        .unwrap();
    assert_eq!(settings.input.topics, ["line1.cam.top", "line1.cam.left"]);
    assert_eq!(settings.bus.group_id, "42");
    assert_eq!(settings.model.max_batch, 8);
    assert_eq!(settings.reassembly.memory_low, 0.25);
    assert_eq!(settings.reassembly.timeout, Duration::from_millis(1500));
    assert_eq!(settings.reassembly.memory_budget.as_u64(), 64 << 20);
    assert_eq!(settings.views.class["gear"], ["top", "side"]);
    assert_eq!(settings.lines["line2"].on_timeout, Some(OnTimeout::Review));
}

#[test]
fn yaml_says_the_same_as_toml() {
    let text = "input:\n  topics: [a.top, a.left]\nviews:\n  class:\n    gear: [top, side]\n\
                bus:\n  properties:\n    security.protocol: SSL\n    fetch.wait.max.ms: 10\n";
    let yaml = Given::file("panoptes.yaml", text).load().unwrap();
    let text = "input.topics = ['a.top', 'a.left']\nviews.class.gear = ['top', 'side']\n\
                [bus.properties]\n'security.protocol' = 'SSL'\nfetch.wait.max.ms = 10\n";
    let toml = Given::toml(text).load().unwrap();
    assert_eq!(yaml, toml);
    assert_eq!(toml.bus.properties.get("fetch.wait.max.ms"), Some("10"));
}

#[test]
fn a_property_is_one_key_however_a_layer_spells_it() {
    let settings =
        Given::toml("[bus.properties]\n'sasl.password' = 'file'\nsasl.username = 'me'\n")
            .environment("PANOPTES__BUS__PROPERTIES__SASL_PASSWORD", "environment")
            .flag("bus.properties.client.id=flag")
            .flag(MINIMAL)
            .load()
            .unwrap();
    let properties: Vec<_> = settings.bus.properties.iter().collect();
    assert_eq!(
        properties,
        [
            ("client.id", "flag"),
            ("sasl.password", "environment"),
            ("sasl.username", "me")
        ]
    );
}

#[test]
fn unknown_keys_are_named_with_their_path_all_at_once() {
    let problems =
        Given::toml("[input]\ntopicz = ['a']\n[outputs]\nx = 1\n[output.maps]\nsize = 3\n")
            .flag(MINIMAL)
            .environment("PANOPTES__REASSEMBLY__TIME_OUT", "5s")
            .problems();
    assert_eq!(problems.len(), 4, "{problems:#?}");
    for start in [
        "`input.topicz`: unknown key `topicz`, expected one of `topics`, `topic_regex`",
        "`output.maps.size`: unknown key `size`, expected `codec` or `side`",
        "`outputs`: unknown key `outputs`, expected one of `bus`, `input`",
        "`reassembly.time_out`: unknown key `time_out`, expected one of `timeout`",
    ] {
        assert!(
            problems.iter().any(|text| text.starts_with(start)),
            "{start}\n{problems:#?}"
        );
    }
}

#[test]
fn values_of_the_wrong_type_are_named_with_key_and_value() {
    let problems = Given::toml("")
        .flag(MINIMAL)
        .flag("reassembly.timeout=5")
        .flag("reassembly.memory_budget=much")
        .flag("reassembly.on_timeout=ignore")
        .flag("model.max_batch=-1")
        .flag("model.device=gpu")
        .flag("admin.listen=localhost")
        .flag("views.default.x=y")
        .problems();
    assert_eq!(problems.len(), 7, "{problems:#?}");
    for start in [
        "`reassembly.timeout` is `5`: ",
        "`reassembly.memory_budget` is `much`: ",
        "`reassembly.on_timeout` is `ignore`: unknown variant `ignore`, expected one of \
         `score_partial`, `review`, `dead_letter`",
        "`model.max_batch` is `-1`: ",
        "`model.device` is `gpu`: expected `auto`, `cpu` or `cuda:<number>`",
        "`admin.listen` is `localhost`: invalid socket address syntax",
        "`views.default` is `{\"x\":\"y\"}`: expected a list of names, or one text with commas",
    ] {
        assert!(
            problems.iter().any(|text| text.starts_with(start)),
            "{start}\n{problems:#?}"
        );
    }
}

#[test]
fn unreadable_sources_are_named() {
    let error = |sources: Sources| Settings::load(&sources).unwrap_err().to_string();
    let file = |path: &Path| Sources {
        file: Some(path.to_owned()),
        ..Sources::default()
    };
    let text = error(file(Path::new("no/such.toml")));
    assert!(
        text.starts_with("cannot read the settings file `no/such.toml`: "),
        "{text}"
    );
    let text = error(file(Path::new("panoptes.ini")));
    assert_eq!(
        text,
        "settings file `panoptes.ini`: expected a name ending in `.toml`, `.yaml` or `.yml`"
    );
    let given = Given::toml("[bus\n");
    let text = error(given.sources.clone());
    assert!(
        text.starts_with("cannot parse the settings file `"),
        "{text}"
    );
    let given = Given::toml("").flag("bus.brokers");
    assert_eq!(
        error(given.sources.clone()),
        "override `bus.brokers`: expected `section.key=value`"
    );
}

#[test]
fn secrets_are_never_shown() {
    let given = flags(&[
        "bus.properties.sasl.password=hunter2",
        "bus.properties.ssl.key.pem=hunter2",
        "bus.properties.ssl_key_password=hunter2",
        "bus.properties.sasl.oauthbearer.client.secret=hunter2",
        "bus.properties.sasl.oauthbearer.config=hunter2",
        "bus.properties.sasl.oauthbearer.token.endpoint.url=hunter2",
        "bus.properties.sasl.username=panoptes",
    ]);
    // Which of them librdkafka takes depends on how it was built.
    let settings = Settings::read(&given.sources).unwrap();
    for shown in [
        settings.to_string(),
        format!("{settings:?}"),
        format!("{settings:#?}"),
    ] {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("<redacted>"), "{shown}");
    }
    assert!(
        settings
            .to_string()
            .contains("\"sasl.username\" = \"panoptes\"")
    );
    assert_eq!(
        settings.bus.properties.get("sasl.password"),
        Some("hunter2")
    );
}

#[test]
fn problems_do_not_show_secrets_either() {
    let problems = flags(&["bus.brokers=me:hunter2@kafka:9092"]).problems();
    assert_eq!(
        problems,
        [
            "`bus.brokers` is `<redacted>@kafka:9092`: must not hold credentials; set `sasl.username` and \
             `sasl.password` in `bus.properties`"
        ]
    );
    let text = Given::toml(
        "[bus.properties]\n'sasl.password' = ['hunter2']\n[buss]\npassword = 'hunter2'\n",
    )
    .flag(MINIMAL)
    .problems()
    .join("\n");
    assert!(!text.contains("hunter2"), "{text}");
    for (name, text, place) in [
        (
            "a.toml",
            "[bus.properties]\n'sasl.password' = \"hun\\qter2\"\n",
            "line 2, column ",
        ),
        (
            "a.toml",
            "[bus.properties]\n'sasl.password' = 'hunter2\n",
            "line 2, column ",
        ),
        (
            "a.toml",
            "[bus.properties]\na = 'hunter2'\na = 'hunter2'\n",
            "line 3, column 1: ",
        ),
        (
            "a.yaml",
            "bus:\n  properties:\n    sasl.password: 'hunter2\n",
            "line ",
        ),
        (
            "a.yaml",
            "bus:\n  properties:\n    a: hunter2\n   b: hunter2\n",
            "line ",
        ),
    ] {
        let error = Given::file(name, text).load().unwrap_err().to_string();
        assert!(error.contains(place), "{error}");
        assert!(!error.contains("ter2"), "{error}");
    }
    let text = flags(&["bus.properties=hunter2"]).problems().join("\n");
    assert_eq!(
        text,
        "`bus.properties`: must be a table of text, numbers and booleans"
    );
}

#[test]
fn shown_settings_read_back_the_same() {
    let settings = flags(&[
        "views.class.gear=top,side",
        "lines.line2.timeout=20s",
        "reassembly.memory_budget=1234567890B",
        "bus.properties.client.id=x",
    ])
    .load()
    .unwrap();
    let read = Given::toml(&settings.to_string()).load().unwrap();
    assert_eq!(read, settings);
}
