//! What each place of a view looks like on good parts: prototypes of its features.
//!
//! A decoder also rebuilds what is right by itself but wrong where it is: a smooth shaft where a
//! thread should be. So a model may remember, for each class, view and place, how features of good
//! parts look there, and add how far a patch is from the nearest of them (`1 - cosine`). PatchCore
//! (Roth et al., arXiv 2106.08265) remembers all places together, PaDiM (Defard et al., arXiv
//! 2011.08785) a Gaussian for each place; here each place has a few prototypes, found by spherical
//! k-means, so that a part may lie in some poses but not in any. The features are those of the shallow
//! group: deep ones know too much of their surroundings to say where something is wrong.
//!
//! A bundle holds them as bytes, `round(127 x) + 128` of values from -1 to 1: patches x prototypes x
//! width bytes for each view of each class.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::subject::Subject;

/// What the names of prototypes begin with; `[patches, prototypes, width]`.
const PROTOTYPES: &str = "memory.";
/// What the names of mixes begin with: the factors of a patch's anomaly and of its distance, `[2]`.
const MIX: &str = "memory_mix.";
/// Rounds of k-means; little changes after the first few.
const ROUNDS: usize = 8;
/// Keeps a vector of zeros from being divided by nothing.
const SMALLEST_NORM: f32 = 1e-12;

/// Whether a tensor of this name holds prototypes.
pub(crate) fn is_memory(name: &str) -> bool {
    name.starts_with(PROTOTYPES)
}

/// Whether a tensor of this name holds a mix.
pub(crate) fn is_mix(name: &str) -> bool {
    name.starts_with(MIX)
}

/// The name of the mix that belongs to prototypes of this name.
pub(crate) fn mix_of(name: &str) -> String {
    format!("{MIX}{}", name.strip_prefix(PROTOTYPES).unwrap_or(name))
}

/// Prototypes as a bundle stores them.
pub(crate) fn to_bytes(prototypes: &Tensor) -> Result<Tensor> {
    let levels = prototypes.to_dtype(DType::F32)?.affine(127.0, 128.0)?;
    levels.round()?.clamp(0.0, 255.0)?.to_dtype(DType::U8)
}

/// Prototypes from how a bundle stores them.
pub(crate) fn from_bytes(bytes: &Tensor) -> Result<Tensor> {
    (bytes.to_dtype(DType::F32)? - 128.0)? / 127.0
}

/// The memory of a model, by class and view; empty if it has none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(HashMap<String, Remembered>);

#[derive(Clone, Debug)]
struct Remembered {
    prototypes: Prototypes,
    mix: [f32; 2],
}

impl Memory {
    /// What is among a bundle's tensors.
    pub(crate) fn of(tensors: &HashMap<String, Tensor>) -> Result<Self> {
        let mut remembered = HashMap::new();
        for (name, tensor) in tensors {
            let Some(subject) = name.strip_prefix(PROTOTYPES) else {
                continue;
            };
            let Some(mix) = tensors.get(&mix_of(name)) else {
                candle_core::bail!("tensor `{}` is missing beside `{name}`", mix_of(name));
            };
            let mix = mix.to_vec1::<f32>()?;
            let (_, count, width) = tensor.dims3()?;
            let prototypes = Prototypes::new(tensor.flatten_all()?.to_vec1()?, count, width);
            let mix = [mix[0], mix[1]];
            remembered.insert(subject.to_owned(), Remembered { prototypes, mix });
        }
        Ok(Self(remembered))
    }

    /// Whether nothing is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Mixes the distances of an image's `features`, `[patches, width]`, into its patch anomalies.
    pub(crate) fn blend(&self, subject: Option<&Subject>, anomalies: &mut [f32], features: &[f32]) {
        let Some(remembered) = subject.and_then(|subject| self.0.get(&subject.to_string())) else {
            return;
        };
        let [own, other] = remembered.mix;
        let distances = remembered.prototypes.distances(features);
        for (anomaly, distance) in anomalies.iter_mut().zip(distances) {
            *anomaly = own * *anomaly + other * distance;
        }
    }
}

/// Unit vectors, some for each patch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prototypes {
    values: Vec<f32>,
    count: usize,
    width: usize,
}

impl Prototypes {
    /// From values `[patches, count, width]`.
    fn new(mut values: Vec<f32>, count: usize, width: usize) -> Self {
        values.chunks_exact_mut(width).for_each(normalise);
        Self {
            values,
            count,
            width,
        }
    }

    /// At most `count` for each patch, from the features of images, `[patches, width]` each.
    pub(crate) fn fit(images: &[&[f32]], count: usize, width: usize) -> Self {
        let count = count.min(images.len());
        let patches = images[0].len() / width;
        let fitted: Vec<Vec<f32>> = (0..patches)
            .into_par_iter()
            .map(|patch| {
                let features = images.iter().map(|image| {
                    let mut feature = image[patch * width..][..width].to_vec();
                    normalise(&mut feature);
                    feature
                });
                spherical_k_means(&features.collect::<Vec<_>>(), count).concat()
            })
            .collect();
        Self {
            values: fitted.concat(),
            count,
            width,
        }
    }

    /// `1 - cosine` of each patch's feature and the nearest of its prototypes.
    pub(crate) fn distances(&self, features: &[f32]) -> Vec<f32> {
        let of_patches = self.values.chunks_exact(self.count * self.width);
        features
            .chunks_exact(self.width)
            .zip(of_patches)
            .map(|(feature, prototypes)| {
                let length = dot(feature, feature).sqrt().max(SMALLEST_NORM);
                let prototypes = prototypes.chunks_exact(self.width);
                let nearest = prototypes.map(|prototype| dot(feature, prototype));
                1.0 - nearest.fold(f32::NEG_INFINITY, f32::max) / length
            })
            .collect()
    }

    /// As tensors of a bundle; `mix` are the factors of a patch's anomaly and of its distance.
    pub(crate) fn tensors(
        &self,
        subject: &Subject,
        mix: [f32; 2],
    ) -> Result<[(String, Tensor); 2]> {
        let patches = self.values.len() / (self.count * self.width);
        let shape = (patches, self.count, self.width);
        let values = Tensor::from_vec(self.values.clone(), shape, &Device::Cpu)?;
        let mix = Tensor::new(&mix, &Device::Cpu)?;
        Ok([
            (format!("{PROTOTYPES}{subject}"), values),
            (format!("{MIX}{subject}"), mix),
        ])
    }
}

/// Centres of unit vectors, themselves of length one. The first centres are vectors evenly chosen, so
/// the same vectors in the same order always give the same.
fn spherical_k_means(vectors: &[Vec<f32>], count: usize) -> Vec<Vec<f32>> {
    let mut centres: Vec<Vec<f32>> = (0..count)
        .map(|index| vectors[index * vectors.len() / count].clone())
        .collect();
    for _ in 0..ROUNDS {
        let mut sums = vec![vec![0.0; vectors[0].len()]; count];
        for vector in vectors {
            let sum = &mut sums[nearest(&centres, vector)];
            for (sum, value) in sum.iter_mut().zip(vector) {
                *sum += value;
            }
        }
        for (centre, mut sum) in centres.iter_mut().zip(sums) {
            // A centre that is nearest to none stays where it is.
            if dot(&sum, &sum) > SMALLEST_NORM {
                normalise(&mut sum);
                *centre = sum;
            }
        }
    }
    centres
}

fn nearest(centres: &[Vec<f32>], vector: &[f32]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, centre) in centres.iter().enumerate() {
        let similarity = dot(centre, vector);
        if similarity > best.1 {
            best = (index, similarity);
        }
    }
    best.0
}

fn normalise(vector: &mut [f32]) {
    let length = dot(vector, vector).sqrt().max(SMALLEST_NORM);
    vector.iter_mut().for_each(|value| *value /= length);
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    left.iter()
        .zip(right)
        .map(|(left, right)| left * right)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject {
            class: "bolt".into(),
            view: "top".into(),
        }
    }

    /// One patch of two channels, seen in two poses.
    fn two_poses() -> Prototypes {
        let images: Vec<[f32; 2]> = vec![[2.0, 0.1], [3.0, -0.1], [0.1, 1.0], [-0.1, 4.0]];
        let images: Vec<&[f32]> = images.iter().map(|image| image.as_slice()).collect();
        Prototypes::fit(&images, 2, 2)
    }

    #[test]
    fn each_pose_gets_its_prototype() {
        let distances = |feature: [f32; 2]| two_poses().distances(&feature)[0];
        assert!(distances([5.0, 0.0]) < 1e-3);
        assert!(distances([0.0, 0.5]) < 1e-3);
        let between = distances([1.0, 1.0]);
        assert!((between - (1.0 - 0.5f32.sqrt())).abs() < 0.05, "{between}");
        assert!(distances([-1.0, -1.0]) > 1.5);
    }

    #[test]
    fn no_more_prototypes_than_images() {
        let images: [&[f32]; 1] = [&[1.0, 0.0, 0.0, 1.0]];
        let prototypes = Prototypes::fit(&images, 8, 2);
        assert_eq!((prototypes.count, prototypes.values.len()), (1, 4));
        assert_eq!(prototypes.distances(&[3.0, 0.0, 3.0, 0.0]), [0.0, 1.0]);
    }

    #[test]
    fn distances_are_mixed_into_anomalies_where_a_class_and_view_are_known() {
        let tensors = two_poses().tensors(&subject(), [0.5, 2.0]).unwrap();
        let memory = Memory::of(&tensors.into_iter().collect()).unwrap();
        let blended = |subject: Option<&Subject>| {
            let mut anomalies = [0.4];
            memory.blend(subject, &mut anomalies, &[0.0, -1.0]);
            anomalies[0]
        };
        assert_eq!(blended(None), 0.4);
        let mixed = blended(Some(&subject()));
        let distance = two_poses().distances(&[0.0, -1.0])[0];
        assert!((mixed - (0.2 + 2.0 * distance)).abs() < 1e-6, "{mixed}");
    }

    #[test]
    fn bytes_keep_a_direction_to_within_a_thousandth() {
        let values: Vec<f32> = (0..128).map(|index| ((index * 37) as f32).sin()).collect();
        let prototypes = Prototypes::new(values.clone(), 1, 128);
        let [(_, tensor), (_, mix)] = prototypes.tensors(&subject(), [1.0, 1.0]).unwrap();
        let stored = from_bytes(&to_bytes(&tensor).unwrap()).unwrap();
        let names = [
            format!("memory.{}", subject()),
            format!("memory_mix.{}", subject()),
        ];
        let memory = Memory::of(&names.into_iter().zip([stored, mix]).collect()).unwrap();
        let mut anomalies = [0.0];
        memory.blend(Some(&subject()), &mut anomalies, &values);
        assert!(anomalies[0].abs() < 1e-3, "{}", anomalies[0]);
    }
}
