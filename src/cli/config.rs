//! `panoptes config check|show`: what the settings are, before anything runs on them.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::config::{ConfigError, Settings, Sources};

/// The flags that choose settings, shared by every command that needs them.
#[derive(Args, Clone, Debug, Default)]
pub struct SettingsArgs {
    /// Settings file, TOML or YAML
    #[arg(short, long, value_name = "FILE", env = "PANOPTES_CONFIG")]
    pub config: Option<PathBuf>,
    /// Set one key, over file and environment, for instance `--set bus.brokers=kafka:9092`
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
}

impl SettingsArgs {
    /// These flags over this process's environment.
    pub fn sources(&self) -> Sources {
        Sources::from_process(self.config.clone(), self.overrides.clone())
    }
}

/// What to do with the settings.
#[derive(Subcommand, Clone, Debug)]
pub enum ConfigCommand {
    /// Check every key and rule, and say what is wrong
    Check(SettingsArgs),
    /// Print the settings in force as TOML, secrets redacted
    Show(SettingsArgs),
}

/// Runs the command and returns what to print.
///
/// # Errors
/// With every problem found in the settings.
pub fn run(command: &ConfigCommand) -> Result<String, ConfigError> {
    match command {
        ConfigCommand::Check(arguments) => {
            let settings = Settings::load(&arguments.sources())?;
            let mut text = format!("the settings are sound: {}\n", summary(&settings));
            for warning in settings.warnings() {
                text += &format!("warning: {warning}\n");
            }
            Ok(text)
        }
        ConfigCommand::Show(arguments) => {
            Settings::load(&arguments.sources()).map(|settings| settings.to_redacted_toml())
        }
    }
}

fn summary(settings: &Settings) -> String {
    let input = match &settings.input.topic_regex {
        Some(regex) => format!("topics matching `{regex}`"),
        None => format!("{} topics", settings.input.topics.len()),
    };
    format!(
        "{input} to `{}`, dead letters to `{}`",
        settings.output.results_topic, settings.output.dead_letter_topic
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(overrides: &[&str]) -> SettingsArgs {
        SettingsArgs {
            config: None,
            overrides: overrides.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn check_says_what_would_run() {
        let text = run(&ConfigCommand::Check(arguments(&[
            "input.topics=a.top,a.left",
            "output.max_message_bytes=17MiB",
        ])))
        .unwrap();
        assert_eq!(
            text,
            "the settings are sound: 2 topics to `panoptes.results`, dead letters to \
             `panoptes.dead-letters`\n"
        );
    }

    #[test]
    fn check_warns_of_what_may_not_be_meant() {
        let text = run(&ConfigCommand::Check(arguments(&["input.topics=a.top"]))).unwrap();
        let warning = text.lines().nth(1).unwrap();
        assert!(
            warning.starts_with("warning: `output.max_message_bytes`"),
            "{warning}"
        );
    }

    #[test]
    fn show_prints_settings_that_read_back() {
        let shown = run(&ConfigCommand::Show(arguments(&["input.topics=a.top"]))).unwrap();
        let read: Settings = toml::from_str(&shown).unwrap();
        assert_eq!(read.input.topics, ["a.top"]);
    }

    #[test]
    fn check_fails_on_unsound_settings() {
        let error = run(&ConfigCommand::Check(arguments(&[]))).unwrap_err();
        assert!(error.to_string().contains("input.topics"), "{error}");
    }
}
