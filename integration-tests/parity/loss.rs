//! Losses: their values and the gradients of the decoder's features.

use candle_core::Var;
use panoptes::model::mvmcad::GroupFeatures;

use crate::cases::{LossSettings, Tensors};
use crate::comparison::Comparison;

pub(crate) fn compare(settings: &LossSettings, peer: &Tensors) -> Comparison {
    let of = |side: &str| [0, 1].map(|group| peer[&format!("{side}.{group}")].clone());
    let decoder = of("decoder").map(|tensor| Var::from_tensor(&tensor).unwrap());
    let features = GroupFeatures {
        encoder: of("encoder"),
        decoder: [0, 1].map(|group| decoder[group].as_tensor().clone()),
    };
    let loss = settings
        .objective
        .loss(&features, settings.left_aside)
        .unwrap();
    let gradients = loss.backward().unwrap();
    let mut comparison = Comparison::default();
    if let Some(value) = peer.get("value") {
        comparison.add(&loss.reshape(1).unwrap(), value);
    }
    for (variable, expected) in decoder.iter().zip(of("gradient")) {
        comparison.add(gradients.get(variable).unwrap(), &expected);
    }
    comparison
}
