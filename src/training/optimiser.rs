//! StableAdamW, gradient clipping and the learning-rate schedule of Dinomaly.
//!
//! The optimiser is AdamW whose step is shortened, tensor by tensor, where the gradient is large
//! against its running second moment (Wortsman et al., "Stable and low-precision training"), with
//! the AMSGrad maximum on top. Its state can be taken out and put back, so that a resumed run
//! takes the same steps as one that was never interrupted.

use std::collections::BTreeMap;
use std::f64::consts::PI;

use candle_core::{Result, Tensor, Var};

/// What is trained, by name.
pub type Parameters = BTreeMap<String, Var>;
/// A gradient, or another value of the same shape, for each parameter.
pub type Gradients = BTreeMap<String, Tensor>;

/// Settings of [`StableAdamW`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimiserSettings {
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

impl OptimiserSettings {
    /// Dinomaly's values, for training the decoder.
    pub fn reconstruction() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            weight_decay: 1e-4,
            epsilon: 1e-10,
            amsgrad: true,
            step_limit: 1.0,
            gradient_norm: 0.1,
        }
    }

    /// Values for pretraining a transformer from scratch.
    pub fn pretraining() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.98,
            weight_decay: 0.05,
            epsilon: 1e-8,
            amsgrad: false,
            step_limit: 1.0,
            gradient_norm: 1.0,
        }
    }
}

/// The optimiser.
#[derive(Clone, Debug)]
pub struct StableAdamW {
    settings: OptimiserSettings,
    steps: u64,
    first: Gradients,
    second: Gradients,
    maximum: Gradients,
}

impl StableAdamW {
    /// An optimiser that has taken no step.
    pub fn new(settings: OptimiserSettings) -> Self {
        Self {
            settings,
            steps: 0,
            first: Gradients::new(),
            second: Gradients::new(),
            maximum: Gradients::new(),
        }
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The state as named tensors: `first.*`, `second.*`, `maximum.*`.
    pub fn state(&self) -> Gradients {
        let parts = [
            ("first", &self.first),
            ("second", &self.second),
            ("maximum", &self.maximum),
        ];
        let mut state = Gradients::new();
        for (part, tensors) in parts {
            for (name, tensor) in tensors {
                state.insert(format!("{part}.{name}"), tensor.clone());
            }
        }
        state
    }

    /// Takes a state over, as [`StableAdamW::state`] gave it, after `steps` steps.
    pub fn restore(&mut self, steps: u64, state: Gradients) {
        self.steps = steps;
        for (name, tensor) in state {
            if let Some(name) = name.strip_prefix("first.") {
                self.first.insert(name.to_owned(), tensor);
            } else if let Some(name) = name.strip_prefix("second.") {
                self.second.insert(name.to_owned(), tensor);
            } else if let Some(name) = name.strip_prefix("maximum.") {
                self.maximum.insert(name.to_owned(), tensor);
            }
        }
    }

    /// Clips the gradients by their global norm and takes one step; returns that norm. Where the
    /// norm is no finite number, nothing is changed.
    ///
    /// # Errors
    /// When the device fails.
    pub fn step(
        &mut self,
        parameters: &Parameters,
        gradients: &Gradients,
        learning_rate: f64,
    ) -> Result<f64> {
        let norm = global_norm(gradients)?;
        if !norm.is_finite() {
            return Ok(norm);
        }
        let scale = (self.settings.gradient_norm / (norm + 1e-6)).min(1.0);
        self.steps += 1;
        for (name, gradient) in gradients {
            if let Some(parameter) = parameters.get(name) {
                self.step_one(name, parameter, &(gradient * scale)?, learning_rate)?;
            }
        }
        Ok(norm)
    }

    fn step_one(
        &mut self,
        name: &str,
        parameter: &Var,
        gradient: &Tensor,
        learning_rate: f64,
    ) -> Result<()> {
        let settings = self.settings;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let first = moment(&self.first, name, gradient, settings.beta1)?;
        let second = moment(&self.second, name, &gradient.sqr()?, settings.beta2)?;
        let variance = match (settings.amsgrad, self.maximum.get(name)) {
            (true, Some(maximum)) => maximum.maximum(&second)?,
            _ => second.clone(),
        };
        let correction = (1.0 - settings.beta2.powi(steps)).sqrt();
        let denominator = variance
            .sqrt()?
            .affine(1.0 / correction, settings.epsilon)?;
        let ratio = gradient
            .div(&denominator)?
            .sqr()?
            .mean_all()?
            .to_scalar::<f32>()?;
        let shorten = (f64::from(ratio).sqrt() / settings.step_limit).max(1.0);
        let rate = learning_rate / (1.0 - settings.beta1.powi(steps)) / shorten;
        let decayed = (parameter.as_tensor() * (1.0 - learning_rate * settings.weight_decay))?;
        let update = (first.div(&denominator)? * rate)?;
        parameter.set(&decayed.sub(&update)?.detach())?;
        self.first.insert(name.to_owned(), first);
        self.second.insert(name.to_owned(), second);
        if settings.amsgrad {
            self.maximum.insert(name.to_owned(), variance);
        }
        Ok(())
    }
}

/// `beta * old + (1 - beta) * value`, the old one being zero at first.
fn moment(old: &Gradients, name: &str, value: &Tensor, beta: f64) -> Result<Tensor> {
    let fresh = (value * (1.0 - beta))?;
    let mixed = match old.get(name) {
        None => fresh,
        Some(old) => ((old * beta)? + fresh)?,
    };
    Ok(mixed.detach())
}

fn global_norm(gradients: &Gradients) -> Result<f64> {
    let mut sum = 0.0;
    for gradient in gradients.values() {
        sum += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
    }
    Ok(sum.sqrt())
}

/// Learning rate over the iterations of a run: linear warm-up, then half a cosine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Rate at the end of the warm-up.
    pub peak: f64,
    /// Rate at the end of the run.
    pub last: f64,
    /// Iterations of the warm-up; the first has rate 0.
    pub warm_up: u64,
    /// Iterations of the run.
    pub iterations: u64,
}

impl Schedule {
    /// The rate of an iteration, counted from 0.
    ///
    /// ```
    /// use panoptes::training::optimiser::Schedule;
    /// let schedule = Schedule { peak: 2e-3, last: 2e-4, warm_up: 100, iterations: 5000 };
    /// assert_eq!(schedule.rate(0), 0.0);
    /// assert_eq!(schedule.rate(99), 2e-3);
    /// assert!(schedule.rate(4999) < 2.01e-4);
    /// ```
    pub fn rate(&self, iteration: u64) -> f64 {
        if iteration < self.warm_up {
            let steps = self.warm_up.saturating_sub(1).max(1);
            return self.peak * iteration as f64 / steps as f64;
        }
        let length = self.iterations.saturating_sub(self.warm_up).max(1) as f64;
        let along = ((iteration - self.warm_up) as f64 / length).min(1.0);
        self.last + 0.5 * (self.peak - self.last) * (1.0 + (PI * along).cos())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// The formulas of the paper, written plainly for one tensor in f64.
    struct Plain {
        first: Vec<f64>,
        second: Vec<f64>,
        maximum: Vec<f64>,
    }

    impl Plain {
        fn step(&mut self, theta: &mut [f64], gradient: &[f64], rate: f64, t: i32) {
            let s = OptimiserSettings::reconstruction();
            let mut ratio = 0.0;
            for (i, &g) in gradient.iter().enumerate() {
                self.first[i] = s.beta1 * self.first[i] + (1.0 - s.beta1) * g;
                self.second[i] = s.beta2 * self.second[i] + (1.0 - s.beta2) * g * g;
                self.maximum[i] = self.maximum[i].max(self.second[i]);
                ratio += (g / self.denominator(i, t)).powi(2) / gradient.len() as f64;
            }
            let shorten = ratio.sqrt().max(1.0);
            for (i, value) in theta.iter_mut().enumerate() {
                *value -= *value * rate * s.weight_decay;
                let step = rate / (1.0 - s.beta1.powi(t)) / shorten;
                *value -= step * self.first[i] / self.denominator(i, t);
            }
        }

        fn denominator(&self, i: usize, t: i32) -> f64 {
            let s = OptimiserSettings::reconstruction();
            self.maximum[i].sqrt() / (1.0 - s.beta2.powi(t)).sqrt() + s.epsilon
        }
    }

    #[test]
    fn twenty_steps_agree_with_the_plain_formulas() {
        let start = [0.5f32, -1.0, 2.0, 0.1];
        let var = Var::new(&start, &Device::Cpu).unwrap();
        let parameters = Parameters::from([("w".to_owned(), var.clone())]);
        let mut optimiser = StableAdamW::new(OptimiserSettings::reconstruction());
        let mut theta: Vec<f64> = start.iter().map(|&value| f64::from(value)).collect();
        let zeros = || vec![0.0; 4];
        let mut plain = Plain {
            first: zeros(),
            second: zeros(),
            maximum: zeros(),
        };
        for t in 1..=20 {
            let raw: Vec<f64> = (0..4)
                .map(|i| (f64::from(t) * (i as f64 + 0.7)).sin() * 3.0 / f64::from(t))
                .collect();
            let norm = raw.iter().map(|g| g * g).sum::<f64>().sqrt();
            let clipped: Vec<f64> = raw
                .iter()
                .map(|g| g * (0.1 / (norm + 1e-6)).min(1.0))
                .collect();
            let gradient: Vec<f32> = raw.iter().map(|&g| g as f32).collect();
            let gradient = Tensor::new(gradient, &Device::Cpu).unwrap();
            let rate = 2e-3 * f64::from(t);
            let found = optimiser.step(
                &parameters,
                &Gradients::from([("w".to_owned(), gradient)]),
                rate,
            );
            assert!((found.unwrap() - norm).abs() < 1e-5);
            plain.step(&mut theta, &clipped, rate, t);
        }
        for (found, expected) in var.to_vec1::<f32>().unwrap().iter().zip(&theta) {
            assert!(
                (f64::from(*found) - expected).abs() < 1e-5,
                "{found} {expected}"
            );
        }
    }

    #[test]
    fn a_gradient_that_is_no_number_changes_nothing() {
        let var = Var::new(&[0.5f32, -1.0], &Device::Cpu).unwrap();
        let parameters = Parameters::from([("w".to_owned(), var.clone())]);
        let mut optimiser = StableAdamW::new(OptimiserSettings::reconstruction());
        let gradient = Tensor::new(&[f32::NAN, 1.0], &Device::Cpu).unwrap();
        let gradients = Gradients::from([("w".to_owned(), gradient)]);
        assert!(
            optimiser
                .step(&parameters, &gradients, 1e-3)
                .unwrap()
                .is_nan()
        );
        assert_eq!(var.to_vec1::<f32>().unwrap(), [0.5, -1.0]);
        assert_eq!(optimiser.steps(), 0);
    }

    #[test]
    fn the_schedule_warms_up_and_falls() {
        let schedule = Schedule {
            peak: 1.0,
            last: 0.1,
            warm_up: 10,
            iterations: 110,
        };
        assert_eq!(schedule.rate(0), 0.0);
        assert_eq!(schedule.rate(9), 1.0);
        assert_eq!(schedule.rate(10), 1.0);
        assert!((schedule.rate(60) - 0.55).abs() < 1e-12);
        assert!(schedule.rate(109) < 0.101);
        assert!((schedule.rate(1000) - 0.1).abs() < 1e-12);
    }
}
