//! Encoders: the peer's file is loaded, and every target block's tokens are compared.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use panoptes::model::Mode;
use panoptes::model::vit::Vit;
use panoptes::model::vit_weights::load_encoder;
use panoptes::training::encoder_file::{EncoderChanges, read_encoder};

use crate::cases::{EncoderSettings, Folder, Tensors};
use crate::comparison::Comparison;

pub(crate) fn compare(folder: &Folder, settings: &EncoderSettings, peer: &Tensors) -> Comparison {
    let config = &settings.architecture;
    let weights = weights(folder, settings);
    config.tensors().check(&weights).unwrap();
    let weights = VarBuilder::from_tensors(weights, DType::F32, &Device::Cpu);
    let vit = Vit::new(config, weights).unwrap();
    let image = peer["image"].unsqueeze(0).unwrap();
    let outputs = vit.forward(&image, Mode::Inference).unwrap();
    let mut comparison = Comparison::default();
    assert_eq!(outputs.len(), peer["outputs"].dim(0).unwrap());
    for (index, output) in outputs.iter().enumerate() {
        let expected = peer["outputs"].get(index).unwrap();
        comparison.add(&output.squeeze(0).unwrap(), &expected);
    }
    comparison
}

/// As `panoptes train --encoder` reads them where the file tells its architecture.
fn weights(folder: &Folder, settings: &EncoderSettings) -> HashMap<String, Tensor> {
    let path = folder.file(&settings.weights);
    let config = &settings.architecture;
    if !settings.inferred {
        return load_encoder(&path, config).unwrap();
    }
    let changes = EncoderChanges {
        input_side: Some(config.input_side),
        targets: None,
        // The one thing that no file tells.
        position_interpolation: Some(config.position_interpolation),
    };
    let encoder = read_encoder(&path, &changes).unwrap();
    assert_eq!(
        &encoder.config,
        config,
        "architecture of `{}`",
        path.display()
    );
    encoder.tensors
}
