//! The images that benches publish and decode.
//!
//! Parts rendered as the demo's are for a model; random bytes, which no broker compresses, are for a
//! stand-in that looks at no pixel; a large smooth picture with grain is for the codecs.

use std::io::Cursor;

use anyhow::Context;
use clap::ValueEnum;
use image::{DynamicImage, ImageFormat};
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::cli::demo::{CLASSES, PICTURE_SIDE};
use crate::cli::synth::encode_jpeg;
use crate::domain::{ImageEncoding, PixelFormat, RawLayout, RgbImage};
use crate::synthetic::{CameraView, SyntheticPart, render};

/// Fixes all that is drawn at random.
pub(super) const SEED: u64 = 5;

/// How many different parts there are before they repeat.
const VARIETY: usize = 12;

/// Images of a few parts, over and over.
#[derive(Clone, Debug)]
pub(super) struct Images {
    views: Vec<String>,
    parts: Vec<PartImages>,
}

#[derive(Clone, Debug)]
struct PartImages {
    class: &'static str,
    /// In the order of the views.
    images: Vec<Vec<u8>>,
}

impl Images {
    /// Rendered parts as JPEG, of the five views of the demo.
    pub(super) fn rendered() -> anyhow::Result<Self> {
        let parts: anyhow::Result<Vec<PartImages>> = (0..VARIETY)
            .into_par_iter()
            .map(|number| {
                let part = SyntheticPart {
                    class: CLASSES[number % CLASSES.len()],
                    seed: SEED + number as u64,
                    defect: None,
                };
                let views = render(&part, PICTURE_SIDE);
                let images: anyhow::Result<Vec<Vec<u8>>> =
                    views.iter().map(|view| encode_jpeg(&view.image)).collect();
                Ok(PartImages {
                    class: part.class.as_str(),
                    images: images?,
                })
            })
            .collect();
        let views = CameraView::ALL.map(|view| view.as_str().to_owned());
        Ok(Self {
            views: views.into(),
            parts: parts?,
        })
    }

    /// Random bytes that are said to be a JPEG.
    pub(super) fn random(views: usize, bytes: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let mut image = || {
            let mut image = vec![0; bytes.max(1)];
            random.fill_bytes(&mut image);
            image
        };
        let parts = (0..VARIETY).map(|_| PartImages {
            class: "bench",
            images: (0..views).map(|_| image()).collect(),
        });
        Self {
            parts: parts.collect(),
            views: (1..=views).map(|view| format!("view{view}")).collect(),
        }
    }

    /// How many different parts there are.
    pub(super) fn variety(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn views(&self) -> &[String] {
        &self.views
    }

    /// The class of a part.
    pub(super) fn class_of(&self, part: usize) -> &'static str {
        self.parts[part % self.parts.len()].class
    }

    /// The image of a part that a view shows.
    pub(super) fn image_of(&self, part: usize, view: usize) -> &[u8] {
        &self.parts[part % self.parts.len()].images[view]
    }

    /// The largest image.
    pub(super) fn largest_bytes(&self) -> usize {
        let images = self.parts.iter().flat_map(|part| &part.images);
        images.map(Vec::len).max().unwrap_or(0)
    }

    /// Bytes of a part's images, on average.
    pub(super) fn mean_part_bytes(&self) -> f64 {
        let images = self.parts.iter().flat_map(|part| &part.images);
        images.map(Vec::len).sum::<usize>() as f64 / self.parts.len() as f64
    }
}

/// How a camera may send a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Encoding {
    Jpeg,
    Png,
    Mono8,
    BayerRg8,
}

impl Encoding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Mono8 => "mono8",
            Self::BayerRg8 => "bayer-rg8",
        }
    }

    /// A smooth picture with the grain of a sensor, encoded so.
    pub(super) fn picture(
        self,
        width: u32,
        height: u32,
    ) -> anyhow::Result<(ImageEncoding, Vec<u8>)> {
        let picture = grainy_picture(width, height);
        let raw = |pixel_format| {
            let layout = RawLayout {
                pixel_format,
                width,
                height,
                stride: width as usize,
            };
            // The green of each pixel: what the values are costs nothing.
            let bytes = picture.pixels.iter().skip(1).step_by(3).copied().collect();
            (ImageEncoding::Raw(layout), bytes)
        };
        Ok(match self {
            Self::Jpeg => (ImageEncoding::Jpeg, encode_jpeg(&picture)?),
            Self::Png => (ImageEncoding::Png, encode_png(picture)?),
            Self::Mono8 => raw(PixelFormat::Mono8),
            Self::BayerRg8 => raw(PixelFormat::BayerRg8),
        })
    }
}

fn grainy_picture(width: u32, height: u32) -> RgbImage {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
    for y in 0..height {
        for x in 0..width {
            let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
            let shade = 120.0 + 60.0 * (9.0 * x).sin() * (7.0 * y).cos();
            let grain = random.random_range(-4.0..4.0);
            pixels.extend([0.0, 6.0, -9.0].map(|tint: f32| (shade + tint + grain) as u8));
        }
    }
    RgbImage {
        width,
        height,
        pixels,
    }
}

fn encode_png(picture: RgbImage) -> anyhow::Result<Vec<u8>> {
    let buffer = image::RgbImage::from_raw(picture.width, picture.height, picture.pixels);
    let buffer = buffer.context("the picture has as many pixels as its sides say")?;
    let mut png = Cursor::new(Vec::new());
    DynamicImage::from(buffer).write_to(&mut png, ImageFormat::Png)?;
    Ok(png.into_inner())
}
