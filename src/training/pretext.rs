//! The pretext task's examples: an altered, partly hidden image, and what is asked about it.
//!
//! Two questions are asked of each image. At hidden patches: which pixels were there? At the
//! others: has this patch been altered? The first makes features that describe, the second makes
//! features in which an irregularity stands out.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::alteration::alter;
use super::canvas::Canvas;
use super::formula::draw;

/// How examples are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PretextSettings {
    /// Side of the image in pixels.
    pub side: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Share of the images that are altered.
    pub altered_share: f64,
    /// Share of the images that are partly hidden.
    pub hidden_share: f64,
    /// Share of the patches that are hidden in such an image.
    pub hidden_patches: f64,
    /// Share of the images that come from the given ones, not from formulas.
    pub given_share: f64,
}

/// One example; `patches` and `pixels` patch by patch, in the encoder's order within a patch.
#[derive(Clone, Debug)]
pub struct Example {
    /// The image as the encoder sees it, normalised, channel first.
    pub image: Vec<f32>,
    /// 1 where a patch is hidden.
    pub hidden: Vec<f32>,
    /// The unaltered pixels of each patch, normalised within the patch.
    pub pixels: Vec<f32>,
    /// 1 where a patch has been altered.
    pub altered: Vec<f32>,
    /// 1 where the question about alteration has a clear answer.
    pub judged: Vec<f32>,
}

/// A patch with at least this many altered pixels (of 64) counts as altered; one with fewer, but
/// some, is not judged.
const ALTERED_PIXELS: usize = 4;
/// Keeps flat patches from being divided by nothing; on the scale of pixel variance.
const PATCH_VARIANCE: f32 = 1e-3;

/// Draws one example; `given` are images to use besides formulas.
pub fn example(rng: &mut ChaCha8Rng, settings: &PretextSettings, given: &[Canvas]) -> Example {
    let original = source(rng, settings, given);
    let (canvas, mask) = if rng.random_bool(settings.altered_share) {
        let altered = alter(rng, &original, |rng| source(rng, settings, given));
        (altered.canvas, altered.mask)
    } else {
        (original.clone(), vec![false; original.area()])
    };
    let grid = settings.side / settings.patch;
    let is_hiding = rng.random_bool(settings.hidden_share);
    let hidden: Vec<f32> = (0..grid * grid)
        .map(|_| {
            let hide = is_hiding && rng.random_bool(settings.hidden_patches);
            if hide { 1.0 } else { 0.0 }
        })
        .collect();
    let counts = altered_pixels(&mask, settings);
    let enough = (ALTERED_PIXELS * settings.patch * settings.patch / 64).max(1);
    let altered = counts
        .iter()
        .map(|&count| if count >= enough { 1.0 } else { 0.0 })
        .collect();
    let judged = counts
        .iter()
        .zip(&hidden)
        .map(|(&count, &hidden)| {
            let is_clear = count == 0 || count >= enough;
            if is_clear { 1.0 - hidden } else { 0.0 }
        })
        .collect();
    Example {
        image: canvas.normalised(),
        hidden,
        pixels: patch_pixels(&original, settings),
        altered,
        judged,
    }
}

/// A formula image, or a given one with another brightness.
fn source(rng: &mut ChaCha8Rng, settings: &PretextSettings, given: &[Canvas]) -> Canvas {
    if given.is_empty() || !rng.random_bool(settings.given_share) {
        return draw(rng, settings.side);
    }
    let image = &given[rng.random_range(0..given.len())];
    let gain = rng.random_range(0.85..1.15);
    let values = image
        .values
        .iter()
        .map(|value| (value * gain).clamp(0.0, 1.0))
        .collect();
    Canvas {
        side: image.side,
        values,
    }
}

fn altered_pixels(mask: &[bool], settings: &PretextSettings) -> Vec<usize> {
    let grid = settings.side / settings.patch;
    let mut counts = vec![0; grid * grid];
    for (pixel, _) in mask.iter().enumerate().filter(|(_, altered)| **altered) {
        let (x, y) = (pixel % settings.side, pixel / settings.side);
        counts[(y / settings.patch) * grid + x / settings.patch] += 1;
    }
    counts
}

/// Pixels patch by patch, each patch brought to mean 0 and about unit variance.
fn patch_pixels(canvas: &Canvas, settings: &PretextSettings) -> Vec<f32> {
    let (side, patch) = (settings.side, settings.patch);
    let grid = side / patch;
    let length = 3 * patch * patch;
    let mut out = vec![0.0; grid * grid * length];
    for (index, target) in out.chunks_exact_mut(length).enumerate() {
        let (left, top) = ((index % grid) * patch, (index / grid) * patch);
        for (i, value) in target.iter_mut().enumerate() {
            let (channel, row, column) = (i / (patch * patch), i / patch % patch, i % patch);
            *value = canvas.values[channel * side * side + (top + row) * side + left + column];
        }
        let mean = target.iter().sum::<f32>() / length as f32;
        let variance = target.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / length as f32;
        let scale = 1.0 / (variance + PATCH_VARIANCE).sqrt();
        for value in target.iter_mut() {
            *value = (*value - mean) * scale;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const SETTINGS: PretextSettings = PretextSettings {
        side: 64,
        patch: 8,
        altered_share: 1.0,
        hidden_share: 1.0,
        hidden_patches: 0.4,
        given_share: 0.5,
    };

    #[test]
    fn examples_repeat_and_have_the_shapes_of_the_grid() {
        let make = |seed| example(&mut ChaCha8Rng::seed_from_u64(seed), &SETTINGS, &[]);
        let (first, second) = (make(3), make(3));
        assert_eq!(first.image, second.image);
        assert_eq!(first.image.len(), 3 * 64 * 64);
        assert_eq!(first.pixels.len(), 3 * 64 * 64);
        for flags in [&first.hidden, &first.altered, &first.judged] {
            assert_eq!(flags.len(), 64);
        }
    }

    #[test]
    fn hidden_patches_are_never_judged() {
        for seed in 0..20 {
            let example = example(&mut ChaCha8Rng::seed_from_u64(seed), &SETTINGS, &[]);
            for (hidden, judged) in example.hidden.iter().zip(&example.judged) {
                assert!(hidden * judged == 0.0);
            }
        }
    }
}
