//! What a bundle keeps of good parts besides weights: expected maps and a memory of features.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Result, Tensor};

use super::super::recipe::MapsRecipe;
use super::task::Ground;
use super::units::{Unit, of_few_parts};
use crate::model::Subject;
use crate::model::expected::ExpectedSums;
use crate::model::memory::{Memory, Prototypes};
use crate::model::mvmcad::GroupFeatures;

/// At most so many parts of a class are looked at.
const PARTS: usize = 128;

/// What the network makes of an image of a good part.
struct Seen {
    subject: Subject,
    /// One value a patch.
    anomalies: Vec<f32>,
    /// The shallow group's features, `[patches, width]`.
    features: Vec<f32>,
}

impl Ground<'_> {
    /// The tensors that the recipe's `[maps]` asks for, from the parts of `units`, without dropout.
    pub(super) fn known(&self, units: &[Unit]) -> Result<HashMap<String, Tensor>> {
        let maps = &self.settings.recipe.maps;
        let mut tensors = HashMap::new();
        if !maps.subtract_expected && maps.memory_prototypes == 0 {
            return Ok(tensors);
        }
        let mut classes: BTreeMap<usize, Vec<&Unit>> = BTreeMap::new();
        for unit in of_few_parts(units, PARTS) {
            classes.entry(unit.class).or_default().push(unit);
        }
        let mut sums = ExpectedSums::default();
        for units in classes.into_values() {
            let mut seen = self.look_at(&units)?;
            if maps.memory_prototypes > 0 {
                let width = self.settings.architecture.encoder.width;
                tensors.extend(remember(&mut seen, maps, width)?);
            }
            for seen in seen {
                sums.add(seen.subject, &seen.anomalies);
            }
        }
        if maps.subtract_expected {
            tensors.extend(sums.tensors()?);
        }
        Ok(tensors)
    }

    fn look_at(&self, units: &[&Unit]) -> Result<Vec<Seen>> {
        let take = |features: &GroupFeatures| {
            let anomalies = features.anomalies()?.to_vec2::<f32>()?;
            let shallow = features.encoder[0].flatten_from(1)?.to_vec2::<f32>()?;
            Ok((anomalies, shallow))
        };
        let mut seen = Vec::new();
        for (shard, (anomalies, features)) in self.rebuilt(units.iter().copied(), take)? {
            let images = shard.images.into_iter().zip(anomalies).zip(features);
            seen.extend(images.map(|((image, anomalies), features)| Seen {
                subject: self.images.subject(image),
                anomalies,
                features,
            }));
        }
        Ok(seen)
    }
}

/// The memory of one class's views, and the anomalies as it mixes them: on good parts, distances weigh
/// `memory_weight` times as much as what the decoder says, and the level of their sum stays.
///
/// A prototype stands for two images or more: one that stands for a single image would be at no
/// distance from it and say nothing of how far others are. So a view of one image has no memory.
fn remember(seen: &mut [Seen], maps: &MapsRecipe, width: usize) -> Result<HashMap<String, Tensor>> {
    let mut views: BTreeMap<&Subject, Vec<&[f32]>> = BTreeMap::new();
    for image in seen.iter() {
        let features = views.entry(&image.subject).or_default();
        features.push(&image.features);
    }
    views.retain(|_, images| images.len() >= 2);
    let fit = |images: &[&[f32]]| {
        let count = maps.memory_prototypes.min(images.len() / 2);
        Prototypes::fit(images, count, width)
    };
    let prototypes: BTreeMap<Subject, Prototypes> = views
        .into_iter()
        .map(|(subject, images)| (subject.clone(), fit(&images)))
        .collect();
    let (mut rebuilt, mut remembered) = (0.0, 0.0);
    for image in seen.iter() {
        if let Some(prototypes) = prototypes.get(&image.subject) {
            rebuilt += mean(&image.anomalies);
            remembered += mean(&prototypes.distances(&image.features));
        }
    }
    let mut tensors = HashMap::new();
    if remembered <= 0.0 {
        // Images that are all the same: there is nothing to measure a distance by.
        return Ok(tensors);
    }
    let weight = maps.memory_weight;
    let mix = [1.0, weight * rebuilt / remembered];
    let mix = mix.map(|factor| (factor / (1.0 + weight)) as f32);
    for (subject, prototypes) in &prototypes {
        tensors.extend(prototypes.tensors(subject, mix)?);
    }
    let memory = Memory::of(&tensors)?;
    for image in seen {
        memory.blend(Some(&image.subject), &mut image.anomalies, &image.features);
    }
    Ok(tensors)
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64
}
