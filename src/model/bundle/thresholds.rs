//! The part of `model.toml` that calibration writes: a class's line, and what it rests on.

use serde::{Deserialize, Serialize};

/// Where one class's line is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassThresholds {
    /// A part with this score or a higher one is `ng`.
    pub threshold: f32,
    /// Map pixels with this value or a higher one belong to a defect region.
    pub pixel_threshold: f32,
    /// How the line was found; bundles of the first version do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

/// How a line was found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The rule.
    pub rule: RuleName,
    /// The share of wrong decisions that was asked for, between 0 and 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// The quantile of the good parts' scores, from 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantile: Option<f64>,
    /// The share of the distance from the scores' median that was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    /// Good parts that were at hand.
    pub good_parts: u64,
    /// Bad parts that were at hand.
    pub bad_parts: u64,
    /// Whether the rate is promised.
    pub guarantee: Guarantee,
}

/// Rules by which a line is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleName {
    /// A quantile of the good parts' scores, and a margin.
    Quantile,
    /// At most this share of good parts is called bad.
    FalseAlarmRate,
    /// At most this share of bad parts is called good.
    MissRate,
}

/// What is promised of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// Nothing: there were too few parts for the rate, or the rule has none.
    None,
    /// The rate, for parts that are exchangeable with those of the calibration.
    Conformal,
}

impl ClassThresholds {
    /// Checks every number.
    ///
    /// # Errors
    /// Says which key breaks which rule.
    pub(super) fn validate(&self) -> Result<(), String> {
        let (threshold, pixel_threshold) = (self.threshold, self.pixel_threshold);
        if !threshold.is_finite() || !pixel_threshold.is_finite() {
            return Err(format!(
                "thresholds must be finite, found `{threshold}` and `{pixel_threshold}`"
            ));
        }
        let Some(calibration) = &self.calibration else {
            return Ok(());
        };
        if let Some(rate) = calibration
            .rate
            .filter(|rate| !(*rate > 0.0 && *rate < 1.0))
        {
            return Err(format!(
                "`calibration.rate` must lie between 0 and 1, found `{rate}`"
            ));
        }
        if calibration.guarantee == Guarantee::Conformal && calibration.rate.is_none() {
            return Err("`calibration.guarantee`: a guarantee needs a `rate`".to_owned());
        }
        Ok(())
    }
}

impl Calibration {
    /// What it rests on, in words: `false alarms <= 0.01 (guaranteed), from 120 good and 3 bad parts`.
    pub fn describe(&self) -> String {
        let rate = self.rate.unwrap_or_default();
        let rule = match self.rule {
            RuleName::Quantile => format!("quantile {}", self.quantile.unwrap_or_default()),
            RuleName::FalseAlarmRate => format!("false alarms <= {rate}"),
            RuleName::MissRate => format!("misses <= {rate}"),
        };
        let promise = match (self.guarantee, self.rule) {
            (Guarantee::Conformal, _) => " (guaranteed)",
            (Guarantee::None, RuleName::Quantile) => "",
            (Guarantee::None, _) => " (not guaranteed: too few parts)",
        };
        let (good, bad) = (self.good_parts, self.bad_parts);
        format!("{rule}{promise}, from {good} good and {bad} bad parts")
    }
}
