//! Layers, types, rules, secrets, and the reference file.

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
fn each_rule_names_key_value_and_rule() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["bus.brokers=kafka"],
            "`bus.brokers` is `kafka`: must be `host:port`, several separated by commas",
        ),
        (
            &["bus.brokers=kafka:0"],
            "`bus.brokers` is `kafka:0`: must be `host:port`, several separated by commas",
        ),
        (
            &["bus.group_id="],
            "`bus.group_id` is ``: must be a name of 1 to 256 bytes without spaces around it",
        ),
        (
            &["bus.commit_interval=0s"],
            "`bus.commit_interval` is `0s`: must be longer than 0",
        ),
        (
            &["bus.drain_timeout=0s"],
            "`bus.drain_timeout` is `0s`: must be longer than 0",
        ),
        (
            &["bus.drain_timeout=6m"],
            "`bus.drain_timeout` is `6m`: must be shorter than `bus.properties.max.poll.interval.ms` (5m): the group goes on without an instance that does not poll for so long",
        ),
        (
            &["bus.commit_interval=6m"],
            "`bus.commit_interval` is `6m`: must be shorter than `bus.properties.max.poll.interval.ms` (5m): the group goes on without an instance that does not poll for so long",
        ),
        (
            &["bus.properties.group.id=x"],
            "`bus.properties.group.id` is `x`: is not free to set: set `bus.group_id`",
        ),
        (
            &["bus.properties.enable.auto.commit=true"],
            "`bus.properties.enable.auto.commit` is `true`: is not free to set: offsets are committed by Panoptes alone",
        ),
        (
            &["bus.properties.acks=1"],
            "`bus.properties.acks` is `1`: is not free to set: results are acknowledged by all in-sync replicas before offsets are committed",
        ),
        (
            &["bus.properties.statistics.interval.ms=0"],
            "`bus.properties.statistics.interval.ms` is `0`: is not free to set: the ends of partitions are learnt from statistics",
        ),
        (
            &["bus.properties.sesion.timeout=6"],
            "`bus.properties.sesion.timeout` is `6`: is no property that librdkafka knows",
        ),
        (
            &["bus.properties.security.protocol=TSL"],
            "`bus.properties.security.protocol` is `TSL`: is no value that librdkafka takes for it",
        ),
        (
            &["bus.properties.auto.offset.reset=middle"],
            "`bus.properties.auto.offset.reset` is `middle`: must be `earliest`, `latest` or `error`",
        ),
        (
            &["bus.properties.client.id="],
            "`bus.properties.client.id`: must not be empty",
        ),
        (
            &["bus.properties.message.max.bytes=1MB"],
            "`bus.properties.message.max.bytes` is `1MB`: must be a whole number",
        ),
        (
            &["input.topics=a b"],
            "`input.topics` is `a b`: must be a topic name: 1 to 249 of the characters a-z, A-Z, 0-9, `.`, `_` and `-`",
        ),
        (
            &["input.topics=a,b,a"],
            "`input.topics` is `a`: must not be named twice",
        ),
        (
            &["input.topic_regex=^a"],
            "`input.topic_regex` is `^a`: must not be set together with `input.topics`",
        ),
        (
            &["input.topics=", "input.topic_regex=cam"],
            "`input.topic_regex` is `cam`: must start with `^`, as Kafka clients tell a pattern from a name by it",
        ),
        (
            &["input.topics=", "input.topic_regex=^("],
            "`input.topic_regex` is `^(`: must be a regular expression: error: unclosed group",
        ),
        (
            &["input.topics=", "input.topic_regex=^cam\\d+"],
            "`input.topic_regex` is `^cam\\d+`: must be a POSIX extended regular expression, as Kafka's client matches it: instead of `\\d` write `[0-9]`",
        ),
        (
            &["input.topics=", "input.topic_regex=^(?:cam|eye)"],
            "`input.topic_regex` is `^(?:cam|eye)`: must be a POSIX extended regular expression, as Kafka's client matches it: instead of `(?` write a plain group `(`",
        ),
        (
            &["reassembly.reuse_after=50s"],
            "`reassembly.reuse_after` is `50s`: must be longer than `reassembly.max_future` (1m), else a view with a wrong time makes its part be forgotten too soon",
        ),
        (
            &["input.topics="],
            "`input.topics`: either `input.topics` or `input.topic_regex` must be set",
        ),
        (
            &["input.line="],
            "`input.line` is ``: must be a name of 1 to 256 bytes without spaces around it",
        ),
        (
            &["views.default=top,left,top"],
            "`views.default` is `top`: must not be named twice",
        ),
        (
            &["views.class.gear="],
            "`views.class.gear`: must name at least one view",
        ),
        (
            &["reassembly.idle_after=5s"],
            "`reassembly.idle_after` is `5s`: must be shorter than `reassembly.timeout` (5s)",
        ),
        (
            &["reassembly.reuse_after=5s"],
            "`reassembly.reuse_after` is `5s`: must be longer than `reassembly.timeout` (5s)",
        ),
        (
            &["reassembly.max_future=0s"],
            "`reassembly.max_future` is `0s`: must be longer than 0",
        ),
        (
            &["reassembly.memory_high=1.5"],
            "`reassembly.memory_high` is `1.5`: must be above 0 and at most 1",
        ),
        (
            &["reassembly.memory_low=0.9"],
            "`reassembly.memory_low` is `0.9`: must be above 0 and below `reassembly.memory_high` (0.8)",
        ),
        (
            &["reassembly.memory_budget=1MiB"],
            "`reassembly.memory_budget` is `1.0 MiB`: must hold at least one record of `limits.max_bytes` (16.0 MiB)",
        ),
        (
            &["lines.line2.timeout=1s"],
            "`lines.line2.timeout` is `1s`: must be longer than `reassembly.idle_after` (2s) and shorter than \
             `reassembly.reuse_after` (1h)",
        ),
        (
            &["limits.max_bytes=0B"],
            "`limits.max_bytes` is `0 B`: must be larger than 0",
        ),
        (
            &["limits.max_width=0"],
            "`limits.max_width` is `0`: must be larger than 0",
        ),
        (
            &["model.path="],
            "`model.path`: must name the folder of a model bundle",
        ),
        (
            &["model.max_batch=0"],
            "`model.max_batch` is `0`: must be at least 1",
        ),
        (
            &["model.workers_per_device=0"],
            "`model.workers_per_device` is `0`: must be 1 to 8",
        ),
        (
            &["model.device=cpu,auto"],
            "`model.device` is `cpu,auto`: must be one device, or several of `cuda:<number>`",
        ),
        (
            &["model.device="],
            "`model.device` is ``: must be one device, or several of `cuda:<number>`",
        ),
        #[cfg(feature = "cuda")]
        (
            &["model.device=cuda:1,cuda:1"],
            "`model.device` is `cuda:1,cuda:1`: must name no device twice; `model.workers_per_device` \
             sets how many batches one is given",
        ),
        #[cfg(not(feature = "cuda"))]
        (
            &["model.device=cuda:0,cuda:1"],
            "`model.device` is `cuda:0,cuda:1`: needs a program that was built with the feature `cuda`; \
             set `auto` or `cpu`",
        ),
        (
            &["output.results_topic=line1.cam.top"],
            "`output.results_topic` is `line1.cam.top`: must not be among the topics that are read",
        ),
        (
            &[
                "input.topics=",
                "input.topic_regex=^line1",
                "output.dead_letter_topic=line1.dead",
            ],
            "`output.dead_letter_topic` is `line1.dead`: must not be among the topics that are read",
        ),
        (
            &["output.results_topic=x", "output.dead_letter_topic=x"],
            "`output.dead_letter_topic` is `x`: must differ from `output.results_topic`",
        ),
        (
            &["bus.group_id=x", "output.dead_letter_topic=x-closed-parts"],
            "`output.closed_parts_topic` is `x-closed-parts`: must differ from \
             `output.results_topic` and `output.dead_letter_topic`",
        ),
        (
            &["limits.max_bytes=100MB"],
            "`limits.max_bytes` is `95.4 MiB`: must be at least 1048576 bytes below the property `receive.message.max.bytes` (100000000), or such records are never received",
        ),
        (
            &["watchdog.stall_after=1s", "output.delivery=at_least_once"],
            "`watchdog.stall_after` is `1s`: must be at least 5s",
        ),
        (
            &["watchdog.stall_after=12s"],
            "`watchdog.stall_after` is `12s`: must be longer than `output.transactions.timeout` (15s)",
        ),
        (
            &[
                "output.delivery=exactly_once",
                "output.transactions.timeout=500ms",
            ],
            "`output.transactions.timeout` is `500ms`: must be at least 1s",
        ),
        (
            &[
                "output.delivery=exactly_once",
                "output.transactions.timeout=3m",
                "watchdog.stall_after=10m",
            ],
            "`bus.properties.max.poll.interval.ms` is `5m`: must be longer than 19s and twice `output.transactions.timeout` (3m): an assignment may wait so long for brokers",
        ),
        (
            &[
                "output.delivery=exactly_once",
                "output.transactions.interval=8s",
            ],
            "`output.transactions.interval` is `8s`: must be shorter than half of `output.transactions.timeout` (15s)",
        ),
        (
            &[
                "output.delivery=exactly_once",
                "output.transactions.max_records=0",
            ],
            "`output.transactions.max_records` is `0`: must be at least 1",
        ),
        (
            &[
                "output.delivery=exactly_once",
                "bus.properties.message.timeout.ms=60000",
            ],
            "`bus.properties.message.timeout.ms` is `60000`: must be at most `output.transactions.timeout` (15s)",
        ),
        (
            &[
                "output.delivery=exactly_once",
                "bus.properties.isolation.level=read_uncommitted",
            ],
            "`bus.properties.isolation.level` is `read_uncommitted`: must be `read_committed` under `exactly_once`: it also decides how committed offsets are read",
        ),
        (
            &["output.max_message_bytes=1kB"],
            "`output.max_message_bytes` is `1000 B`: must be at least 10000 bytes",
        ),
        (
            &["bus.properties.message.max.bytes=500000"],
            "`output.max_message_bytes` is `976.6 KiB`: must be at most the property `message.max.bytes` (500000)",
        ),
        (
            &["output.maps.side=4"],
            "`output.maps.side` is `4`: must be from 8 to 1024",
        ),
        (
            &["telemetry.log_level=panoptes=loud"],
            "`telemetry.log_level` is `panoptes=loud`: must be `error`, `warn`, `info`, `debug`, `trace` or \
             `tracing` directives such as `info,panoptes=debug`",
        ),
    ];
    for (overrides, expected) in cases {
        assert_eq!(&problem_of(overrides), expected, "{overrides:?}");
    }
}

#[test]
fn times_that_bound_each_other_are_named_in_pairs() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["bus.properties.heartbeat.interval.ms=45000"],
            "`bus.properties.heartbeat.interval.ms` is `45s`: must be shorter than `bus.properties.session.timeout.ms` (45s): the session ends without one",
        ),
        (
            &["bus.properties.session.timeout.ms=3000"],
            "`bus.properties.heartbeat.interval.ms` is `3s`: must be shorter than `bus.properties.session.timeout.ms` (3s): the session ends without one",
        ),
        (
            &["bus.properties.session.timeout.ms=300001"],
            "`bus.properties.session.timeout.ms` is `5m 1ms`: must be at most `bus.properties.max.poll.interval.ms` (5m)",
        ),
        (
            &[
                "bus.properties.session.timeout.ms=60001",
                "bus.properties.max.poll.interval.ms=60000",
            ],
            "`bus.properties.session.timeout.ms` is `1m 1ms`: must be at most `bus.properties.max.poll.interval.ms` (1m)",
        ),
        (
            &[
                "bus.drain_timeout=1m",
                "bus.properties.max.poll.interval.ms=60000",
            ],
            "`bus.drain_timeout` is `1m`: must be shorter than `bus.properties.max.poll.interval.ms` (1m): the group goes on without an instance that does not poll for so long",
        ),
        (
            &["bus.properties.max.poll.interval.ms=49000"],
            "`bus.properties.max.poll.interval.ms` is `49s`: must be longer than 19s and twice `output.transactions.timeout` (15s): an assignment may wait so long for brokers",
        ),
        (
            &[
                "output.delivery=at_least_once",
                "bus.drain_timeout=10s",
                "bus.properties.session.timeout.ms=19000",
                "bus.properties.max.poll.interval.ms=19000",
            ],
            "`bus.properties.max.poll.interval.ms` is `19s`: must be longer than 19s: an assignment may wait so long for brokers",
        ),
        (
            &["bus.drain_timeout=100ms"],
            "`output.transactions.interval` is `100ms`: must be shorter than `bus.drain_timeout` (100ms): what is in flight when partitions are given up goes out with the next one",
        ),
    ];
    for (overrides, expected) in cases {
        assert_eq!(&problem_of(overrides), expected, "{overrides:?}");
    }
}

#[test]
fn the_protocol_of_the_group_says_what_may_be_set_beside_it() {
    let protocol = "bus.properties.group.protocol=consumer";
    let cases: &[(&[&str], &str)] = &[
        (
            &["bus.properties.group.protocol=eager"],
            "`bus.properties.group.protocol` is `eager`: must be `classic` or `consumer`",
        ),
        (
            &["bus.properties.group.remote.assignor=range"],
            "`bus.properties.group.remote.assignor` is `range`: is for `bus.properties.group.protocol` `consumer` only",
        ),
        (
            &[protocol, "bus.properties.group.remote.assignor=uniform"],
            "`bus.properties.group.remote.assignor` is `uniform`: must be `range`, under which alone the views of a part meet",
        ),
        (
            &[protocol, "bus.properties.session.timeout.ms=6000"],
            "`bus.properties.session.timeout.ms` is `6000`: is not free to set with `bus.properties.group.protocol` `consumer`: the brokers' `group.consumer.session.timeout.ms` is in force",
        ),
        (
            &[protocol, "bus.properties.heartbeat.interval.ms=500"],
            "`bus.properties.heartbeat.interval.ms` is `500`: is not free to set with `bus.properties.group.protocol` `consumer`: the brokers' `group.consumer.heartbeat.interval.ms` is in force",
        ),
    ];
    for (overrides, expected) in cases {
        assert_eq!(&problem_of(overrides), expected, "{overrides:?}");
    }
    for taken in [
        vec!["bus.properties.group.protocol=classic"],
        vec![protocol],
        vec![protocol, "bus.properties.group.remote.assignor=range"],
    ] {
        flags(&taken).load().unwrap();
    }
}

#[test]
fn times_that_just_fit_are_taken() {
    let fits: &[&[&str]] = &[
        &["bus.properties.session.timeout.ms=300000"],
        &["bus.properties.max.poll.interval.ms=50001"],
        &[
            "bus.drain_timeout=59999ms",
            "bus.properties.max.poll.interval.ms=60000",
        ],
        &["output.transactions.timeout=119s"],
    ];
    for overrides in fits {
        flags(overrides).load().unwrap();
    }
}

#[test]
fn warns_of_heartbeats_that_are_too_rare() {
    let warned = |overrides: &[&str]| {
        let warnings = flags(overrides).load().unwrap().warnings();
        let mut of_heartbeats = warnings.into_iter().filter(|one| one.contains("heartbeat"));
        of_heartbeats.next()
    };
    assert_eq!(
        warned(&["bus.properties.heartbeat.interval.ms=15000"]),
        None
    );
    let warning = warned(&["bus.properties.session.timeout.ms=8999"]).unwrap();
    assert!(
        warning.starts_with(
            "`bus.properties.heartbeat.interval.ms` is `3s`, above a third of \
             `bus.properties.session.timeout.ms` (8s 999ms)"
        ),
        "{warning}"
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let error = flags(&["model.max_batch=0", "output.maps.side=1", "nonsense=1"])
        .load()
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("3 problems in the settings:\n  `nonsense`"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 4, "{text}");
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

#[test]
fn warns_of_dead_letters_that_cannot_be_whole() {
    let warnings = flags(&["input.topics=a.top"]).load().unwrap().warnings();
    assert!(warnings[0].contains("limits.max_bytes"), "{warnings:?}");
    let roomy = flags(&["input.topics=a.top", "output.max_message_bytes=17MiB"]);
    assert!(roomy.load().unwrap().warnings().is_empty());
}

#[test]
fn an_escaped_backslash_is_no_class() {
    let settings = flags(&["input.topics=", "input.topic_regex=^line1\\.cam\\\\d\\(?"]);
    settings.load().unwrap();
}
