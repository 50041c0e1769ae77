//! The flags that say how to reach the brokers, for commands that need no other settings.

use std::path::PathBuf;

use clap::Args;

use crate::config::{ConfigError, Settings, Sources};
use crate::kafka::client::BusSettings;
use crate::pipeline::bus_settings;

/// The brokers, and how to reach them: as the settings say it, these flags over them.
#[derive(Args, Clone, Debug, Default)]
pub struct BusArgs {
    /// Settings file, TOML or YAML, whose `[bus]` is used; secrets may be in `PANOPTES__BUS__PROPERTIES__...`
    #[arg(short, long, value_name = "FILE", env = "PANOPTES_CONFIG")]
    pub config: Option<PathBuf>,
    /// Bootstrap servers [default: those of the settings, or 127.0.0.1:9092]
    #[arg(long)]
    pub brokers: Option<String>,
    /// A librdkafka property, for TLS and SASL; may be given more than once
    #[arg(short = 'X', long = "property", value_name = "NAME=VALUE", value_parser = super::parse_property)]
    pub properties: Vec<(String, String)>,
}

impl BusArgs {
    /// What all layers of the settings say of the bus.
    ///
    /// # Errors
    /// When a source cannot be read, or with every problem of the bus; values of secrets are not repeated.
    pub fn settings(&self) -> Result<BusSettings, ConfigError> {
        self.over(&Sources::from_process(self.config.clone(), Vec::new()))
    }

    fn over(&self, sources: &Sources) -> Result<BusSettings, ConfigError> {
        let brokers = self.brokers.iter().map(|it| format!("bus.brokers={it}"));
        let properties = self.properties.iter();
        let properties = properties.map(|(name, value)| format!("bus.properties.{name}={value}"));
        let mut sources = sources.clone();
        sources.overrides.extend(brokers.chain(properties));
        Ok(bus_settings(&Settings::read_bus(&sources)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(variables: &[(&str, &str)]) -> Sources {
        let variables = variables.iter();
        Sources {
            environment: variables
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..Sources::default()
        }
    }

    #[test]
    fn flags_win_over_the_environment_and_the_rest_of_the_settings_is_not_asked_for() {
        let environment = sources(&[
            ("PANOPTES__BUS__BROKERS", "kafka:9092"),
            ("PANOPTES__BUS__PROPERTIES__SASL_PASSWORD", "hunter2"),
            ("PANOPTES__BUS__PROPERTIES__SASL_USERNAME", "somebody"),
        ]);
        let given = BusArgs::default().over(&environment).unwrap();
        assert_eq!(given.brokers, "kafka:9092");
        assert_eq!(given.properties["sasl.password"], "hunter2");
        let flags = BusArgs {
            brokers: Some("other:9092".to_owned()),
            properties: vec![("sasl.username".to_owned(), "else".to_owned())],
            ..BusArgs::default()
        };
        let given = flags.over(&environment).unwrap();
        assert_eq!(given.brokers, "other:9092");
        assert_eq!(given.properties["sasl.username"], "else");
        assert_eq!(given.properties["sasl.password"], "hunter2");
        let default = BusArgs::default().over(&sources(&[])).unwrap();
        assert_eq!(default.brokers, "127.0.0.1:9092");
    }

    #[test]
    fn a_property_that_is_none_is_named_without_its_value() {
        let flags = BusArgs {
            properties: vec![("sasl.pasword".to_owned(), "hunter2".to_owned())],
            ..BusArgs::default()
        };
        let error = flags.over(&sources(&[])).unwrap_err().to_string();
        assert!(error.contains("`bus.properties.sasl.pasword`"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
