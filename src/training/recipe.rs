//! Recipes: every number that decides what a training run makes of its data, in one TOML file.
//!
//! What decides only where and how fast it runs (threads, memory, checkpoints) is no part of it. A
//! key that is left out has its default; a key that is not known is refused.

use std::path::{Path, PathBuf};

use candle_core::DType;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::objective::Objective;
use super::optimiser::{OptimiserSettings, Schedule};
use super::sampling::Sampling;
use super::{TrainingError, at_least_one, share};
use crate::model::mvmcad::{MvmcadConfig, PriorMode};
use crate::model::vit::{PositionInterpolation, VitConfig};

/// Everything that decides what a run makes of its data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// What images become before they are encoded.
    pub input: InputRecipe,
    /// Keys of [`MvmcadConfig`] but `encoder`, as far as they differ from its defaults.
    pub network: Table,
    /// What is minimised.
    pub loss: LossRecipe,
    /// What becomes of anomaly maps.
    pub maps: MapsRecipe,
    /// How images are drawn.
    pub data: DataRecipe,
    /// How weights are changed.
    pub optimiser: OptimiserRecipe,
    /// How long, and from which random numbers.
    pub run: RunRecipe,
    /// How weights are judged on the way.
    pub validation: ValidationRecipe,
}

/// `[input]`; sides in pixels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputRecipe {
    /// Side of the encoder's input; the encoder's own if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<usize>,
    /// Side to which images are resized before the centre is cut out; the input's if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<usize>,
    /// Side of the anomaly maps; the input's if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map_side: Option<usize>,
    /// Target blocks of the encoder, counted from 0; the encoder's own if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<usize>>,
    /// How a position table of another grid is brought to the input's; the encoder's own way if
    /// not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position_interpolation: Option<PositionInterpolation>,
}

impl InputRecipe {
    /// Side to which images are resized, for an encoder whose input has this side.
    pub fn resize_for(&self, input_side: usize) -> usize {
        self.resize.unwrap_or(input_side)
    }

    /// Side of the anomaly maps, for an encoder whose input has this side.
    pub fn map_side_for(&self, input_side: usize) -> usize {
        self.map_side.unwrap_or(input_side)
    }
}

/// `[loss]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossRecipe {
    /// Which loss.
    pub objective: Objective,
    /// Iterations over which the loss turns from all patches to the hardest.
    pub ramp: u64,
}

impl Default for LossRecipe {
    fn default() -> Self {
        Self {
            objective: Objective::Focal { easy_share: 0.1 },
            ramp: 1000,
        }
    }
}

/// `[maps]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MapsRecipe {
    /// Whether maps lose what the maps of good parts of their class and view show on average
    /// ([`expected`](crate::model::expected)).
    pub subtract_expected: bool,
    /// Prototypes that each place of each class's view remembers
    /// ([`memory`](crate::model::memory)); 0 for no memory.
    pub memory_prototypes: usize,
    /// How much the distance from them weighs, in units of what the decoder says of good parts.
    pub memory_weight: f64,
}

impl Default for MapsRecipe {
    fn default() -> Self {
        Self {
            subtract_expected: true,
            memory_prototypes: 0,
            memory_weight: 0.5,
        }
    }
}

/// `[data]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataRecipe {
    /// How often each class is shown.
    pub sampling: Sampling,
    /// Share of the images that are altered before they go in; what should come out are the
    /// features of the unaltered image (denoising, as Zhang et al., "DeSTSeg").
    pub altered_share: f64,
}

/// `[optimiser]`: StableAdamW with a warm-up and half a cosine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimiserRecipe {
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Learning rate at the end.
    pub last_learning_rate: f64,
    /// Iterations of the warm-up.
    pub warm_up: u64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Share of each parameter that a step of learning rate 1 would take away.
    pub weight_decay: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Whether the second moment may only grow.
    pub amsgrad: bool,
    /// Root mean square of `gradient / denominator` above which a tensor's step is shortened.
    pub step_limit: f64,
    /// Largest global norm of a gradient.
    pub gradient_norm: f64,
}

impl Default for OptimiserRecipe {
    fn default() -> Self {
        let OptimiserSettings {
            beta1,
            beta2,
            weight_decay,
            epsilon,
            amsgrad,
            step_limit,
            gradient_norm,
        } = OptimiserSettings::reconstruction();
        Self {
            learning_rate: 2e-3,
            last_learning_rate: 2e-4,
            warm_up: 100,
            beta1,
            beta2,
            weight_decay,
            epsilon,
            amsgrad,
            step_limit,
            gradient_norm,
        }
    }
}

impl OptimiserRecipe {
    fn validate(&self, iterations: u64) -> Result<(), TrainingError> {
        let is_positive = |value: f64| value > 0.0 && value.is_finite();
        let is_not_negative = |value: f64| value >= 0.0 && value.is_finite();
        let is_decay = |value: f64| (0.0..1.0).contains(&value);
        let positive = "must be above 0 and finite";
        let not_negative = "must be at least 0 and finite";
        let decay = "must be at least 0 and below 1";
        let rate = self.learning_rate;
        let last = self.last_learning_rate;
        let (weight, limit) = (self.weight_decay, self.step_limit);
        let norm = self.gradient_norm;
        for (key, value, is_kept, rule) in [
            ("learning_rate", rate, is_positive(rate), positive),
            (
                "last_learning_rate",
                last,
                is_not_negative(last),
                not_negative,
            ),
            ("beta1", self.beta1, is_decay(self.beta1), decay),
            ("beta2", self.beta2, is_decay(self.beta2), decay),
            (
                "weight_decay",
                weight,
                is_not_negative(weight),
                not_negative,
            ),
            ("epsilon", self.epsilon, is_positive(self.epsilon), positive),
            ("step_limit", limit, is_positive(limit), positive),
            ("gradient_norm", norm, is_positive(norm), positive),
        ] {
            if !is_kept {
                let text = format!("`optimiser.{key}` {rule}, found `{value}`");
                return Err(TrainingError::Setting(text));
            }
        }
        if self.warm_up >= iterations {
            return Err(TrainingError::Setting(format!(
                "`optimiser.warm_up` must be below `run.iterations` `{iterations}`, found `{}`",
                self.warm_up
            )));
        }
        Ok(())
    }
}

/// `[run]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunRecipe {
    /// Iterations.
    pub iterations: u64,
    /// Images an iteration; where views are mixed, the nearest number of whole parts.
    pub batch: usize,
    /// Images whose gradients are computed at once; those of a batch are added up. The hardest
    /// patches are chosen among as many images.
    pub micro_batch: usize,
    /// Seed of everything random.
    pub seed: u64,
    /// In which numbers the frozen encoder computes; all else is in f32.
    pub precision: EncoderPrecision,
}

impl Default for RunRecipe {
    fn default() -> Self {
        Self {
            iterations: 50_000,
            batch: 16,
            micro_batch: 4,
            seed: 1,
            precision: EncoderPrecision::default(),
        }
    }
}

/// Numbers that the frozen encoder computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderPrecision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of 32. CUDA only.
    Bf16,
    /// 16 bits with more digits and less range. CUDA only.
    F16,
}

impl EncoderPrecision {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// `[validation]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidationRecipe {
    /// Iterations between validations; 0 for none: then all good parts are trained on.
    pub every: u64,
    /// Share of the good parts of each class that is held out, at least one of five or more.
    pub share: f64,
    /// Which weights the run ends with.
    pub weights: Weights,
}

impl Default for ValidationRecipe {
    fn default() -> Self {
        Self {
            every: 0,
            share: 0.05,
            weights: Weights::default(),
        }
    }
}

/// Which weights a run ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// Those of the last iteration.
    #[default]
    Last,
    /// Those of the best validation: by the part AUROC of labelled parts, else by the distance.
    Best,
}

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("recipe `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The text is no TOML, or a key is unknown or of the wrong type.
    #[error("recipe {origin}: {message}")]
    Text {
        /// Where the text comes from.
        origin: String,
        /// What is wrong with it.
        message: String,
    },
}

impl Recipe {
    /// The defaults, the file's keys over them, and over those each change of the form
    /// `section.key=value`.
    ///
    /// # Errors
    /// When the file cannot be read, or a key is unknown or has the wrong type.
    pub fn read(file: Option<&Path>, changes: &[String]) -> Result<Self, RecipeError> {
        let mut origin = "defaults".to_owned();
        let mut table = Table::new();
        if let Some(path) = file {
            origin = format!("`{}`", path.display());
            let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Read {
                path: path.to_owned(),
                source,
            })?;
            table = text.parse().map_err(|error| fault(&origin, error))?;
        }
        for change in changes {
            origin = format!("{origin}, `{change}`");
            merge(&mut table, parse_change(change)?);
        }
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| fault(&origin, error))
    }

    /// The network on this encoder.
    ///
    /// # Errors
    /// When a key of `[network]` is unknown or does not fit the encoder.
    pub fn architecture(&self, encoder: &VitConfig) -> Result<MvmcadConfig, RecipeError> {
        let origin = "section `network`";
        let defaults = MvmcadConfig::new(encoder.clone());
        let mut table = Table::try_from(defaults).map_err(|error| fault(origin, error))?;
        merge(&mut table, self.network.clone());
        let architecture: MvmcadConfig = serde_path_to_error::deserialize(Value::Table(table))
            .map_err(|error| fault(origin, error))?;
        architecture
            .validate()
            .map_err(|error| fault(origin, error))?;
        Ok(architecture)
    }

    /// Checks the numbers against each other and against the network.
    ///
    /// # Errors
    /// Names the key that breaks a rule.
    pub fn validate(&self, architecture: &MvmcadConfig) -> Result<(), TrainingError> {
        at_least_one("run.batch", self.run.batch as u64)?;
        at_least_one("run.micro_batch", self.run.micro_batch as u64)?;
        at_least_one("run.iterations", self.run.iterations)?;
        self.optimiser.validate(self.run.iterations)?;
        if let Objective::Focal { easy_share } = self.loss.objective {
            share("loss.objective.easy_share", easy_share)?;
        }
        let weight = self.maps.memory_weight;
        if !weight.is_finite() || weight < 0.0 {
            let rule = "`maps.memory_weight` must be at least 0 and finite";
            return Err(TrainingError::Setting(format!("{rule}, found `{weight}`")));
        }
        if self.data.altered_share > 0.0 && architecture.prior != PriorMode::Off {
            // The prior's running statistics would be those of altered images.
            let rule = "`data.altered_share` above 0 needs `network.prior = \"off\"`".to_owned();
            return Err(TrainingError::Setting(rule));
        }
        if self.validation.weights == Weights::Best && self.validation.every == 0 {
            let rule =
                "`validation.weights = \"best\"` needs `validation.every` above 0".to_owned();
            return Err(TrainingError::Setting(rule));
        }
        share("validation.share", self.validation.share)?;
        share("data.altered_share", self.data.altered_share)
    }

    pub(crate) fn optimiser(&self) -> OptimiserSettings {
        let own = &self.optimiser;
        OptimiserSettings {
            beta1: own.beta1,
            beta2: own.beta2,
            weight_decay: own.weight_decay,
            epsilon: own.epsilon,
            amsgrad: own.amsgrad,
            step_limit: own.step_limit,
            gradient_norm: own.gradient_norm,
        }
    }

    pub(crate) fn schedule(&self) -> Schedule {
        Schedule {
            peak: self.optimiser.learning_rate,
            last: self.optimiser.last_learning_rate,
            warm_up: self.optimiser.warm_up,
            iterations: self.run.iterations,
        }
    }
}

/// `section.key=value`: the value as TOML, or as text where it is none.
fn parse_change(change: &str) -> Result<Table, RecipeError> {
    let origin = format!("change `{change}`");
    let Some((key, value)) = change.split_once('=') else {
        return Err(fault(&origin, "expected `section.key=value`"));
    };
    let as_toml: Result<Table, _> = format!("{key} = {value}").parse();
    match as_toml {
        Ok(table) => Ok(table),
        Err(_) => {
            let text = Value::String(value.trim().to_owned());
            format!("{key} = {text}")
                .parse()
                .map_err(|error| fault(&origin, error))
        }
    }
}

/// Lays `over` over `under`, key by key within tables.
fn merge(under: &mut Table, over: Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => merge(under, over),
            (_, value) => {
                under.insert(key, value);
            }
        }
    }
}

fn fault(origin: &str, error: impl std::fmt::Display) -> RecipeError {
    RecipeError::Text {
        origin: origin.to_owned(),
        message: error.to_string().trim().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::mvmcad::Amplification;
    use crate::model::testing::tiny_encoder;

    fn changed(changes: &[&str]) -> Result<Recipe, RecipeError> {
        let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
        Recipe::read(None, &changes)
    }

    #[test]
    fn changes_lie_over_the_file_and_the_file_over_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("recipe.toml");
        let text = "[run]\nbatch = 8\nseed = 5\n[network]\namplification = \"replace\"\n";
        std::fs::write(&file, text).unwrap();
        let changes = [
            "run.seed=7",
            "loss.objective.kind=dinomaly",
            "input.targets=[0,1]",
        ];
        let recipe = Recipe::read(Some(&file), &changes.map(str::to_owned)).unwrap();
        assert_eq!((recipe.run.batch, recipe.run.seed), (8, 7));
        assert_eq!(recipe.run.iterations, RunRecipe::default().iterations);
        assert_eq!(recipe.loss.objective, Objective::Dinomaly);
        assert_eq!(recipe.input.targets, Some(vec![0, 1]));
        let architecture = recipe.architecture(&tiny_encoder(0)).unwrap();
        assert_eq!(architecture.amplification, Amplification::Replace);
        assert_eq!(architecture.decoder_depth, 8);
    }

    #[test]
    fn keys_that_are_not_known_are_named() {
        let error = changed(&["run.bach=8"]).unwrap_err().to_string();
        assert!(
            error.contains("run.bach=8") && error.contains("`batch`"),
            "{error}"
        );
        let error = changed(&["network.decoder=8"])
            .unwrap()
            .architecture(&tiny_encoder(0))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("network") && error.contains("`decoder`"),
            "{error}"
        );
        let error = changed(&["run.batch"]).unwrap_err().to_string();
        assert!(error.contains("section.key=value"), "{error}");
        let error = changed(&["run.batch=many"]).unwrap_err().to_string();
        assert!(error.contains("many"), "{error}");
    }

    #[test]
    fn altered_images_stay_away_from_the_statistics_of_a_prior() {
        let recipe = changed(&["network.prior=calibrated", "data.altered_share=0.5"]).unwrap();
        let architecture = recipe.architecture(&tiny_encoder(0)).unwrap();
        let error = recipe.validate(&architecture).unwrap_err().to_string();
        assert!(error.contains("data.altered_share"), "{error}");
    }

    #[test]
    fn a_number_of_the_optimiser_out_of_its_range_is_named_with_its_rule() {
        let architecture = MvmcadConfig::new(tiny_encoder(0));
        for (key, value, rule) in [
            ("learning_rate", "0", "above 0"),
            ("learning_rate", "nan", "above 0"),
            ("last_learning_rate", "-1", "at least 0"),
            ("beta1", "1", "below 1"),
            ("beta2", "-0.5", "at least 0 and below 1"),
            ("weight_decay", "inf", "at least 0 and finite"),
            ("epsilon", "0", "above 0"),
            ("step_limit", "-2", "above 0"),
            ("gradient_norm", "inf", "above 0 and finite"),
            ("warm_up", "50000", "below `run.iterations` `50000`"),
        ] {
            let recipe = changed(&[&format!("optimiser.{key}={value}")]).unwrap();
            let error = recipe.validate(&architecture).unwrap_err().to_string();
            let start = format!("setting `optimiser.{key}` must be ");
            let end = format!(", found `{value}`");
            assert!(error.starts_with(&start) && error.contains(rule), "{error}");
            assert!(error.to_lowercase().ends_with(&end), "{error}");
        }
        let least = ["last_learning_rate", "beta1", "weight_decay", "warm_up"];
        let least = least.map(|key| format!("optimiser.{key}=0"));
        let recipe = changed(&least.each_ref().map(String::as_str)).unwrap();
        recipe.validate(&architecture).unwrap();
    }

    #[test]
    fn a_written_recipe_is_read_back() {
        let recipe = changed(&["run.batch=3", "network.whitening=true"]).unwrap();
        let text = toml::to_string(&recipe).unwrap();
        assert_eq!(toml::from_str::<Recipe>(&text).unwrap(), recipe);
    }

    #[test]
    fn the_reference_names_every_key_with_its_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recipes/reference.toml");
        let text = std::fs::read_to_string(path).unwrap();
        // Keys that are commented out have no value of their own, or the encoder's.
        let key = regex::Regex::new(r"(?m)^#([a-z_0-9]+ = )").unwrap();
        let text = key.replace_all(&text, "$1");
        let recipe: Recipe = toml::from_str(&text).unwrap();
        let encoder = tiny_encoder(4);
        let architecture = recipe.architecture(&encoder).unwrap();
        assert_eq!(architecture, MvmcadConfig::new(encoder));
        let expected = Recipe {
            input: recipe.input.clone(),
            network: recipe.network.clone(),
            ..Recipe::default()
        };
        assert_eq!(recipe, expected);
        let InputRecipe {
            side,
            resize,
            map_side,
            targets,
            position_interpolation,
        } = &recipe.input;
        assert!(side.is_some() && resize.is_some() && map_side.is_some());
        assert!(targets.is_some() && position_interpolation.is_some());
        let named = |table: &Table| table.keys().cloned().collect::<Vec<_>>();
        let written: Table = text.parse().unwrap();
        let mut all = Table::try_from(&recipe).unwrap();
        let mut network = Table::try_from(&architecture).unwrap();
        network.remove("encoder");
        all.insert("network".to_owned(), Value::Table(network));
        assert_eq!(named(&written), named(&all));
        for (section, keys) in &all {
            let written = written[section].as_table().unwrap();
            assert_eq!(named(written), named(keys.as_table().unwrap()), "{section}");
        }
    }

    #[test]
    fn the_best_weights_need_a_validation() {
        let recipe = changed(&["validation.weights=best"]).unwrap();
        let architecture = recipe.architecture(&tiny_encoder(0)).unwrap();
        let error = recipe.validate(&architecture).unwrap_err().to_string();
        assert!(error.contains("validation.every"), "{error}");
    }

    #[test]
    fn every_recipe_of_the_repository_is_sound() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/recipes");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let recipe = Recipe::read(Some(&entry.unwrap().path()), &[]).unwrap();
            let architecture = recipe.architecture(&tiny_encoder(4)).unwrap();
            recipe.validate(&architecture).unwrap();
            count += 1;
        }
        assert!(count >= 2, "found {count} recipes");
    }
}
