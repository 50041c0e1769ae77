//! The optimiser: parameters after each step, gradient norms and learning rates.

use candle_core::{Device, Tensor, Var};
use panoptes::training::optimiser::{
    Gradients, OptimiserSettings, Parameters, Schedule, StableAdamW,
};

use crate::cases::{OptimiserCase, OptimiserNumbers, Tensors};
use crate::comparison::Comparison;

pub(crate) fn compare(case: &OptimiserCase, peer: &Tensors) -> Comparison {
    let parameters: Parameters = peer
        .iter()
        .filter_map(|(name, tensor)| {
            let name = name.strip_prefix("start.")?;
            Some((name.to_owned(), Var::from_tensor(tensor).unwrap()))
        })
        .collect();
    let schedule = Schedule {
        peak: case.schedule.peak,
        last: case.schedule.last,
        warm_up: case.schedule.warm_up,
        iterations: case.schedule.iterations,
    };
    let mut optimiser = StableAdamW::new(settings(&case.settings));
    let steps = peer["rates"].dim(0).unwrap();
    let (mut rates, mut norms) = (Vec::new(), Vec::new());
    let mut comparison = Comparison::default();
    for step in 0..steps {
        let gradients: Gradients = parameters
            .keys()
            .map(|name| {
                let gradient = peer[&format!("gradients.{name}")].get(step).unwrap();
                (name.clone(), gradient)
            })
            .collect();
        rates.push(schedule.rate(step as u64));
        let norm = optimiser
            .step(&parameters, &gradients, rates[step])
            .unwrap();
        norms.push(norm as f32);
        for (name, parameter) in &parameters {
            let expected = peer[&format!("after.{name}")].get(step).unwrap();
            comparison.add(parameter.as_tensor(), &expected);
        }
    }
    comparison.add(&Tensor::new(rates, &Device::Cpu).unwrap(), &peer["rates"]);
    comparison.add(&Tensor::new(norms, &Device::Cpu).unwrap(), &peer["norms"]);
    comparison
}

fn settings(numbers: &OptimiserNumbers) -> OptimiserSettings {
    OptimiserSettings {
        beta1: numbers.beta1,
        beta2: numbers.beta2,
        weight_decay: numbers.weight_decay,
        epsilon: numbers.epsilon,
        amsgrad: numbers.amsgrad,
        step_limit: numbers.step_limit,
        gradient_norm: numbers.gradient_norm,
    }
}
