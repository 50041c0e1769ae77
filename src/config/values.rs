//! The values of single settings, and how they are written.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::{MapCodec, TimeoutPolicy};

/// What becomes of a part that is not complete in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// Score the views that are there; the decision is `review` unless it is `ng`.
    ScorePartial,
    /// Publish a result without a score.
    Review,
    /// Send its views to the dead letters.
    DeadLetter,
}

impl From<OnTimeout> for TimeoutPolicy {
    fn from(on_timeout: OnTimeout) -> Self {
        match on_timeout {
            OnTimeout::ScorePartial => Self::ScorePartial,
            OnTimeout::Review => Self::Review,
            OnTimeout::DeadLetter => Self::DeadLetter,
        }
    }
}

/// Which image counts when a view comes twice and differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DuplicatePolicy {
    /// The first.
    FirstWins,
    /// The last one before the part is complete.
    LastWins,
}

/// Where the model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The best device there is.
    Auto,
    /// The processor.
    Cpu,
    /// A CUDA device by number.
    Cuda(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| "expected `auto`, `cpu` or `cuda:<number>`".to_owned()),
        }
    }
}

/// Where the model's workers run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices(pub Vec<Device>);

impl fmt::Display for Devices {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        formatter.write_str(&names.join(","))
    }
}

impl Serialize for Devices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [device] => serializer.collect_str(device),
            several => serializer.collect_seq(several.iter().map(ToString::to_string)),
        }
    }
}

impl<'de> Deserialize<'de> for Devices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = names(deserializer)?;
        let devices = names.iter().map(|name| name.parse());
        let devices = devices.collect::<Result<_, String>>();
        devices.map(Self).map_err(serde::de::Error::custom)
    }
}

/// How results are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultFormat {
    /// MessagePack map.
    Msgpack,
    /// JSON object; maps in base64.
    Json,
}

/// What a crash may do to results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Results, dead letters and offsets commit together.
    ExactlyOnce,
    /// A result may come twice, with the same result ID.
    AtLeastOnce,
}

/// How anomaly maps are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapCodecSetting {
    /// 8-bit grey PNG.
    Png,
    /// Zstandard over 8-bit rows.
    Zstd,
    /// No maps.
    None,
}

impl MapCodecSetting {
    /// The codec; none where maps are left out.
    pub fn codec(self) -> Option<MapCodec> {
        match self {
            Self::Png => Some(MapCodec::Png),
            Self::Zstd => Some(MapCodec::Zstd),
            Self::None => None,
        }
    }
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A list of names; a text is split at commas, as flags and the environment have no lists.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a list of names, or one text with commas"
)]
enum Names {
    List(Vec<String>),
    Text(String),
}

impl From<Names> for Vec<String> {
    fn from(names: Names) -> Self {
        match names {
            Names::List(list) => list,
            Names::Text(text) => text
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect(),
        }
    }
}

pub(super) fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Names::deserialize(deserializer).map(Into::into)
}

pub(super) fn names_by_key<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    let lists = BTreeMap::<String, Names>::deserialize(deserializer)?;
    Ok(lists
        .into_iter()
        .map(|(key, names)| (key, names.into()))
        .collect())
}

/// Writes a size in the largest unit that loses nothing, so that it reads back the same.
pub(super) fn exact_size<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = size.as_u64();
    let units = [
        (bytesize::GIB, "GiB"),
        (bytesize::MIB, "MiB"),
        (bytesize::KIB, "KiB"),
        (bytesize::GB, "GB"),
        (bytesize::MB, "MB"),
        (bytesize::KB, "kB"),
    ];
    match units
        .iter()
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit))
    {
        Some((unit, name)) => serializer.collect_str(&format_args!("{}{name}", bytes / unit)),
        None => serializer.collect_str(&format_args!("{bytes}B")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LimitSettings, ModelSettings};

    #[test]
    fn sizes_are_written_so_that_they_read_back_the_same() {
        for bytes in [0, 1, 1_000, 1_024, 1_000_000, 1_048_576, 1_234_567, 3 << 30] {
            let limits = LimitSettings {
                max_bytes: ByteSize::b(bytes),
                ..LimitSettings::default()
            };
            let text = toml::to_string(&limits).unwrap();
            let read: LimitSettings = toml::from_str(&text).unwrap();
            assert_eq!(read.max_bytes.as_u64(), bytes, "{text}");
        }
    }

    #[test]
    fn devices_read_back_as_they_are_written_and_as_they_are_shown() {
        for devices in [
            vec![Device::Auto],
            vec![Device::Cpu],
            vec![Device::Cuda(3)],
            vec![Device::Cuda(0), Device::Cuda(1)],
        ] {
            let model = ModelSettings {
                device: Devices(devices),
                ..ModelSettings::default()
            };
            let text = toml::to_string(&model).unwrap();
            let read: ModelSettings = toml::from_str(&text).unwrap();
            assert_eq!(read, model, "{text}");
            let shown = format!("device = \"{}\"", model.device);
            let read: ModelSettings = toml::from_str(&shown).unwrap();
            assert_eq!(read.device, model.device);
        }
        assert!("cuda".parse::<Device>().is_err());
    }
}
