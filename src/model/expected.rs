//! What the maps of good parts show on average, class by class and view by view.
//!
//! Cameras of a line stand still and parts lie in fixtures, so an edge or a reflection that the
//! decoder never quite learns shines at the same place in the map of every part. That says nothing
//! about a part, and it hides what does. So each patch loses its expected anomaly, as far as that
//! differs from the mean of its class: maps keep their scale. PaDiM (Defard et al., arXiv
//! 2011.08785) likewise has statistics for each position, but of features.
//!
//! With `n` images of a view, the mean map is trusted by `n / (n + 1)`: a single image shows as much
//! of itself as of its class. Where a class or a view is not known, nothing is subtracted.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Result, Tensor};

use super::subject::Subject;
use crate::domain::ClassName;

/// What the names of the tensors begin with.
const PREFIX: &str = "expected.";

/// The name of a subject's expected map, a tensor `[grid, grid]`.
pub(crate) fn tensor_name(subject: &Subject) -> String {
    format!("{PREFIX}{subject}")
}

/// Whether a tensor of this name belongs to a subject.
pub(crate) fn is_expected_map(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What is subtracted, by the name of the tensor.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExpectedMaps(HashMap<String, Vec<f32>>);

impl ExpectedMaps {
    /// Those among a bundle's tensors.
    pub(crate) fn of(tensors: &HashMap<String, Tensor>) -> Result<Self> {
        let own = tensors.iter().filter(|(name, _)| is_expected_map(name));
        let maps = own.map(|(name, map)| Ok((name.clone(), map.flatten_all()?.to_vec1()?)));
        Ok(Self(maps.collect::<Result<_>>()?))
    }

    /// Takes the expected part away from an image's patch anomalies; none falls below zero.
    pub(crate) fn subtract(&self, subject: Option<&Subject>, patches: &mut [f32]) {
        let Some(expected) = subject.and_then(|subject| self.0.get(&tensor_name(subject))) else {
            return;
        };
        for (patch, expected) in patches.iter_mut().zip(expected) {
            *patch = (*patch - expected).max(0.0);
        }
    }
}

/// Patch anomalies of good parts, added up.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExpectedSums(BTreeMap<Subject, Sum>);

#[derive(Clone, Debug, Default)]
struct Sum {
    images: usize,
    patches: Vec<f64>,
}

impl Sum {
    /// Of one patch of one image.
    fn mean(&self) -> f64 {
        self.patches.iter().sum::<f64>() / (self.images * self.patches.len()) as f64
    }
}

impl ExpectedSums {
    /// Adds an image.
    pub(crate) fn add(&mut self, subject: Subject, patches: &[f32]) {
        let sum = self.0.entry(subject).or_default();
        sum.images += 1;
        sum.patches.resize(patches.len(), 0.0);
        for (sum, patch) in sum.patches.iter_mut().zip(patches) {
            *sum += f64::from(*patch);
        }
    }

    /// What is to be subtracted, as tensors of a bundle.
    pub(crate) fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let mut means: BTreeMap<&ClassName, Vec<f64>> = BTreeMap::new();
        for (subject, sum) in &self.0 {
            means.entry(&subject.class).or_default().push(sum.mean());
        }
        let tensor = |(subject, sum): (&Subject, &Sum)| {
            let views = &means[&subject.class];
            let mean = views.iter().sum::<f64>() / views.len() as f64;
            let images = sum.images as f64;
            let patches = sum.patches.iter();
            let values: Vec<f32> = patches
                .map(|patch| ((patch / images - mean) * images / (images + 1.0)) as f32)
                .collect();
            let grid = values.len().isqrt();
            let tensor = Tensor::from_vec(values, (grid, grid), &Device::Cpu)?;
            Ok((tensor_name(subject), tensor))
        };
        self.0.iter().map(tensor).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(class: &str, view: &str) -> Subject {
        Subject {
            class: class.into(),
            view: view.into(),
        }
    }

    #[test]
    fn what_is_expected_at_a_place_is_taken_away_and_the_level_stays() {
        let mut sums = ExpectedSums::default();
        for _ in 0..3 {
            sums.add(subject("bolt", "top"), &[0.4, 0.2, 0.2, 0.2]);
            sums.add(subject("bolt", "left"), &[0.1, 0.1, 0.1, 0.1]);
        }
        let maps = ExpectedMaps::of(&sums.tensors().unwrap()).unwrap();
        let after = |subject: Option<&Subject>, patches: [f32; 4]| {
            let mut patches = patches;
            maps.subtract(subject, &mut patches);
            patches
        };
        let close = |found: [f32; 4], expected: [f32; 4]| {
            let pairs = found.iter().zip(expected);
            assert!(
                pairs.clone().all(|(a, b)| (a - b).abs() < 1e-6),
                "{found:?}"
            );
        };
        // The class's mean is 0.175; three images are trusted by three quarters.
        let top = subject("bolt", "top");
        close(
            after(Some(&top), [0.4, 0.2, 0.2, 0.9]),
            [0.4 - 0.16875, 0.2 - 0.01875, 0.2 - 0.01875, 0.9 - 0.01875],
        );
        let left = subject("bolt", "left");
        close(after(Some(&left), [0.1; 4]), [0.1 + 0.05625; 4]);
        close(after(Some(&top), [0.0; 4]), [0.0; 4]);
        for unknown in [
            None,
            Some(&subject("bolt", "back")),
            Some(&subject("nut", "top")),
        ] {
            close(after(unknown, [0.3; 4]), [0.3; 4]);
        }
    }
}
