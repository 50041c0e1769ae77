//! Settings: typed, layered, checked as a whole before anything is opened.
//!
//! A value comes from the first of these that states it: a flag (`--set key=value`), the
//! environment (`PANOPTES__SECTION__KEY`), the file (TOML or YAML), the default. Unknown keys are
//! refused, every problem is reported at once with its key, value and rule, and values that may be
//! secrets are never printed. The module reads one file and the environment; it opens nothing else.
//!
//! `config/panoptes.toml` is the commented reference of every key.
//!
//! ```
//! use panoptes::config::{Settings, Sources};
//! let settings = Settings::load(&Sources {
//!     overrides: vec!["input.topics=line1.cam.top,line1.cam.left".to_owned()],
//!     ..Sources::default()
//! })?;
//! assert_eq!(settings.input.topics.len(), 2);
//! # Ok::<(), panoptes::config::ConfigError>(())
//! ```

mod bus_rules;
mod deadlines;
mod layers;
mod secrets;
mod sections;
mod topic_rules;
mod validation;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use secrets::Properties;
pub use sections::{
    AdminSettings, BusSettings, InputSettings, LimitSettings, LineSettings, MapSettings,
    ModelSettings, OutputSettings, ReassemblySettings, RegionSettings, TelemetrySettings,
    TransactionSettings, ViewSettings, WatchdogSettings,
};
pub use values::{
    Delivery, Device, Devices, DuplicatePolicy, LogFormat, MapCodecSetting, OnTimeout, ResultFormat,
};

/// Everything that can be set, one field a section of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The Kafka cluster.
    pub bus: BusSettings,
    /// What is read.
    pub input: InputSettings,
    /// Which views a part should have.
    pub views: ViewSettings,
    /// How views become parts.
    pub reassembly: ReassemblySettings,
    /// What differs on one line, by line name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lines: BTreeMap<String, LineSettings>,
    /// Bounds on a single record, checked before its image is decoded.
    pub limits: LimitSettings,
    /// The model that scores.
    pub model: ModelSettings,
    /// What is published.
    pub output: OutputSettings,
    /// The operators' HTTP port.
    pub admin: AdminSettings,
    /// Standstills.
    pub watchdog: WatchdogSettings,
    /// Logs.
    pub telemetry: TelemetrySettings,
}

/// Where settings are looked for, besides the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The settings file, if one is given: `.toml`, `.yaml` or `.yml`.
    pub file: Option<PathBuf>,
    /// Environment variables; only those starting with `PANOPTES__` count.
    pub environment: BTreeMap<String, String>,
    /// Flags of the form `section.key=value`, later ones winning.
    pub overrides: Vec<String>,
}

impl Sources {
    /// The given file and flags over this process's environment.
    pub fn from_process(file: Option<PathBuf>, overrides: Vec<String>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(layers::ENVIRONMENT_PREFIX))
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
            .collect();
        Self {
            file,
            environment,
            overrides,
        }
    }
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the settings file `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file's name does not say what it is.
    #[error("settings file `{}`: expected a name ending in `.toml`, `.yaml` or `.yml`", .0.display())]
    UnknownFormat(PathBuf),
    /// The file is not TOML or YAML.
    #[error("cannot parse the settings file `{}`: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// A flag is not `section.key=value`.
    #[error("override `{0}`: expected `section.key=value`")]
    Override(String),
    /// Values are wrong; all of them are named.
    #[error("{} in the settings:{}", count(.0), list(.0))]
    Invalid(Vec<Problem>),
}

/// One wrong value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, dotted.
    pub key: String,
    /// Its value, unless it is absent or secret.
    pub value: Option<String>,
    /// The rule that it breaks.
    pub rule: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(formatter, "`{}` is `{value}`: {}", self.key, self.rule),
            None => write!(formatter, "`{}`: {}", self.key, self.rule),
        }
    }
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 problem".to_owned(),
        several => format!("{several} problems"),
    }
}

fn list(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("\n  {problem}"))
        .collect()
}

impl Settings {
    /// Reads all layers and checks the whole.
    ///
    /// # Errors
    /// When a source cannot be read, or with every problem found in the values.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let (settings, mut problems) = layers::read(sources)?;
        let already_named: Vec<String> = problems.iter().map(|found| found.key.clone()).collect();
        problems.extend(
            validation::problems(&settings)
                .into_iter()
                .filter(|problem| !already_named.contains(&problem.key)),
        );
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }

    /// Reads all layers and checks the types, not the rules: for commands that use a few keys only.
    ///
    /// # Errors
    /// When a source cannot be read, or a key is unknown or of the wrong type.
    pub fn read(sources: &Sources) -> Result<Self, ConfigError> {
        let (settings, problems) = layers::read(sources)?;
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }

    /// As [`Self::load`], but only `[bus]` need be sound: for commands that need no more.
    ///
    /// # Errors
    /// When a source cannot be read, a key is unknown or of the wrong type, or with every problem of `[bus]`.
    pub fn read_bus(sources: &Sources) -> Result<BusSettings, ConfigError> {
        let settings = Self::read(sources)?;
        let mut problems = validation::problems(&settings);
        problems.retain(|problem| problem.key.starts_with("bus."));
        match problems.is_empty() {
            true => Ok(settings.bus),
            false => Err(ConfigError::Invalid(problems)),
        }
    }

    /// Checks every rule, also those between keys.
    ///
    /// # Errors
    /// With every problem found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let problems = validation::problems(self);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }

    /// Where instances tell each other which parts are closed.
    pub fn closed_parts_topic(&self) -> String {
        let set = self.output.closed_parts_topic.clone();
        set.unwrap_or_else(|| format!("{}-closed-parts", self.bus.group_id))
    }

    /// What is allowed, but may not be what was meant; for people to read.
    pub fn warnings(&self) -> Vec<String> {
        let (message, value) = (self.output.max_message_bytes, self.limits.max_bytes);
        let cut_dead_letters = (message < value).then(|| {
            format!(
                "`output.max_message_bytes` is `{message}`, below `limits.max_bytes` (`{value}`): dead \
                 letters of larger records go without the record's value, which then stands in the \
                 camera topic only"
            )
        });
        let rare_heartbeats = deadlines::rare_heartbeats(self);
        cut_dead_letters
            .into_iter()
            .chain(rare_heartbeats)
            .collect()
    }

    /// The settings as a TOML file, secrets redacted.
    pub fn to_redacted_toml(&self) -> String {
        secrets::redacted_toml(self)
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_redacted_toml())
    }
}

#[cfg(test)]
mod tests;
