//! The numbers that a network is computed in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What the products of a network are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputePrecision {
    /// `f32` throughout.
    #[default]
    F32,
    /// Factors in `bf16`, summed up in `f32`; what lies between products stays `f32`, and so does
    /// whitening.
    Bf16,
}

impl fmt::Display for ComputePrecision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for ComputePrecision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::F32, Self::Bf16]
            .into_iter()
            .find(|precision| precision.to_string() == text)
            .ok_or_else(|| format!("expected `f32` or `bf16`, found `{text}`"))
    }
}
