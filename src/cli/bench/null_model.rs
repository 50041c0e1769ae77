//! A stand-in for the model that looks at no pixel, so that a measurement shows all that is not the
//! model's.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::{AnomalyMap, ModelIdentity};
use crate::model::{AnomalyModel, InputImage, ModelError};
use crate::pipeline::{Preparation, ServedModel};

/// Side of the maps that it answers with.
const MAP_SIDE: usize = 8;

/// Answers every image with a map of zeros, after a time that may be given.
#[derive(Debug)]
pub(super) struct NullModel {
    identity: ModelIdentity,
    time_per_image: Duration,
}

impl NullModel {
    /// A pipeline's model that takes so long for an image, be it none at all.
    pub(super) fn served(time_per_image: Duration) -> ServedModel {
        let identity = ModelIdentity {
            name: "null".to_owned(),
            version: "1".to_owned(),
        };
        ServedModel {
            identity: identity.clone(),
            models: vec![Box::new(Self {
                identity,
                time_per_image,
            })],
            preparation: Preparation::Nothing,
            classes: HashMap::new(),
        }
    }
}

impl AnomalyModel for NullModel {
    fn identity(&self) -> &ModelIdentity {
        &self.identity
    }

    fn mixes_views(&self) -> bool {
        false
    }

    fn anomaly_maps(
        &mut self,
        images: &[InputImage],
        _views: &[usize],
    ) -> Result<Vec<AnomalyMap>, ModelError> {
        if !self.time_per_image.is_zero() {
            let count = u32::try_from(images.len()).unwrap_or(u32::MAX);
            std::thread::sleep(self.time_per_image * count);
        }
        let map = AnomalyMap {
            width: MAP_SIDE,
            height: MAP_SIDE,
            values: vec![0.0; MAP_SIDE * MAP_SIDE],
        };
        Ok(vec![map; images.len()])
    }
}
