//! The network from image to anomaly map, and its bottleneck and amplification by themselves.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use panoptes::domain::ModelIdentity;
use panoptes::model::bundle::{Bundle, Manifest};
use panoptes::model::candle_model::CandleModel;
use panoptes::model::maps::MapProjector;
use panoptes::model::mvmcad::{EncoderGroups, Mvmcad};
use panoptes::model::preprocess::Normalisation;
use panoptes::model::vit_weights::load_encoder;
use panoptes::model::{AnomalyModel, InputImage, Mode};

use crate::cases::{Folder, LayerSettings, NetworkSettings, Tensors};
use crate::comparison::Comparison;

/// Prefix of the trained tensors in a case.
const TRAINED: &str = "trained.";

pub(crate) fn compare(folder: &Folder, settings: &NetworkSettings, peer: &Tensors) -> Comparison {
    let config = &settings.architecture;
    let encoder = load_encoder(&folder.file(&settings.weights), &config.encoder).unwrap();
    let encoder = VarBuilder::from_tensors(encoder, DType::F32, &Device::Cpu);
    let network = Mvmcad::new(config, encoder, trained(peer)).unwrap();
    let images = &peer["image"];
    let views = vec![1; images.dim(0).unwrap()];
    let features = network
        .forward_groups(images, &views, Mode::Inference)
        .unwrap();
    let mut comparison = Comparison::default();
    for group in 0..2 {
        comparison.add(&features.encoder[group], &peer[&format!("encoder.{group}")]);
        comparison.add(&features.decoder[group], &peer[&format!("decoder.{group}")]);
    }
    let maps = maps(&network, images, &views, settings.map_side);
    comparison.add(&maps, &peer["map"]);
    comparison.add(&as_run(settings, folder, peer), &peer["map"]);
    comparison
}

/// The maps of a bundle on the CPU, as the stream has them.
fn as_run(settings: &NetworkSettings, folder: &Folder, peer: &Tensors) -> Tensor {
    let config = &settings.architecture;
    let side = config.encoder.input_side;
    let encoder = load_encoder(&folder.file(&settings.weights), &config.encoder).unwrap();
    let mut tensors: Tensors = encoder
        .into_iter()
        .map(|(name, tensor)| (format!("encoder.{name}"), tensor))
        .collect();
    tensors.extend(trained_tensors(peer));
    let identity = ModelIdentity {
        name: "parity".to_owned(),
        version: "1".to_owned(),
    };
    let normalisation = Normalisation::imagenet(side);
    let manifest = Manifest::new(identity, config.clone(), normalisation, settings.map_side);
    let preprocessor = manifest.preprocessor().unwrap();
    let footprint = preprocessor.footprint(side as u32, side as u32);
    let images: Vec<InputImage> = peer["image"]
        .flatten_from(1)
        .and_then(|images| images.to_vec2::<f32>())
        .unwrap()
        .into_iter()
        .map(|values| InputImage {
            values,
            footprint,
            subject: None,
        })
        .collect();
    let mut model = CandleModel::new(&Bundle { manifest, tensors }, "cpu", images.len()).unwrap();
    let maps = model.anomaly_maps(&images, &vec![1; images.len()]).unwrap();
    let values: Vec<f32> = maps.into_iter().flat_map(|map| map.values).collect();
    let map_side = settings.map_side;
    Tensor::from_vec(values, (images.len(), map_side, map_side), &Device::Cpu).unwrap()
}

fn maps(network: &Mvmcad, images: &Tensor, views: &[usize], side: usize) -> Tensor {
    let encoder = &network.config().encoder;
    let projector = MapProjector::new(encoder.grid(), encoder.input_side, side);
    let patches = network.patch_anomalies(images, views).unwrap();
    let patches = patches.flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
    let values: Vec<f32> = patches
        .iter()
        .flat_map(|patches| projector.project(patches).values)
        .collect();
    Tensor::from_vec(values, (views.len(), side, side), &Device::Cpu).unwrap()
}

/// The decoder of these cases adds nothing, so both of its groups are what the layer before it made.
pub(crate) fn compare_layer(settings: &LayerSettings, peer: &Tensors) -> Comparison {
    let config = &settings.architecture;
    // The encoder is not run.
    let encoder = config.encoder.tensors().initial_values(1, &Device::Cpu);
    let encoder = VarBuilder::from_tensors(encoder.unwrap(), DType::F32, &Device::Cpu);
    let network = Mvmcad::new(config, encoder, trained(peer)).unwrap();
    let groups = EncoderGroups {
        shallow: peer["shallow"].clone(),
        deep: peer["deep"].clone(),
    };
    let views = vec![1; groups.shallow.dim(0).unwrap()];
    let features = network
        .reconstruct(&groups, &views, Mode::Inference)
        .unwrap();
    let mut comparison = Comparison::default();
    for made in &features.decoder {
        comparison.add(made, &peer["made"]);
    }
    comparison
}

fn trained(peer: &Tensors) -> VarBuilder<'static> {
    VarBuilder::from_tensors(trained_tensors(peer), DType::F32, &Device::Cpu)
}

fn trained_tensors(peer: &Tensors) -> Tensors {
    peer.iter()
        .filter_map(|(name, tensor)| {
            let name = name.strip_prefix(TRAINED)?;
            Some((name.to_owned(), tensor.clone()))
        })
        .collect()
}
