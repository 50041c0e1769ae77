//! Decoding and preprocessing alone: one image after the other on one thread, then on all of them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use rayon::prelude::*;
use serde_json::json;

use super::images::{Encoding, SEED};
use super::maps::median;
use super::report::Report;
use crate::decode::{ImageLimits, decode_image};
use crate::domain::ImageEncoding;
use crate::image_folder::find_parts;
use crate::model::preprocess::{Normalisation, Preprocessor};

/// Flags of `panoptes bench prepare`.
#[derive(Args, Clone, Debug)]
pub struct PrepareArguments {
    /// Measure these images instead, `<class>/<part>/<view>.jpg`
    #[arg(long, value_name = "FOLDER")]
    pub images: Option<PathBuf>,
    /// Encodings of the synthetic picture
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "jpeg,png,mono8,bayer-rg8"
    )]
    encoding: Vec<Encoding>,
    /// Sizes of the synthetic picture, WIDTHxHEIGHT in pixels
    #[arg(long, value_delimiter = ',', default_value = "2448x2048,1024x1024", value_parser = parse_size)]
    pub size: Vec<(u32, u32)>,
    /// Side of the model's input, to which images are resized
    #[arg(long, default_value_t = 392, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub side: u32,
    /// How many images of each kind are measured on one thread, and as many for each core on all
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
}

fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once('x');
    let parsed = sides.map(|(width, height)| (width.parse(), height.parse()));
    match parsed {
        Some((Ok(width), Ok(height))) if width > 0 && height > 0 => Ok((width, height)),
        _ => Err(format!(
            "expected a size such as `1024x768`, found `{text}`"
        )),
    }
}

/// An image as it comes.
struct Encoded {
    encoding: ImageEncoding,
    bytes: Vec<u8>,
}

pub(super) fn run(arguments: &PrepareArguments) -> anyhow::Result<Report> {
    let side = arguments.side as usize;
    let preprocessor =
        Preprocessor::new(Normalisation::imagenet(side), side).map_err(|error| anyhow!(error))?;
    let conditions = vec![
        ("side", json!(arguments.side)),
        ("repeat", json!(arguments.repeat)),
        ("threads", json!(rayon::current_num_threads())),
        ("seed", json!(SEED)),
    ];
    let mut report = Report::new("prepare", conditions);
    for (encoding, size, images) in image_sets(arguments)? {
        let measured = measure(&images, &preprocessor, arguments.repeat as usize)?;
        let bytes: usize = images.iter().map(|image| image.bytes.len()).sum();
        report.push(vec![
            ("encoding", json!(encoding)),
            ("size", json!(size)),
            ("bytes", json!(bytes / images.len())),
            ("decode_ms", json!(millis(measured.decoding))),
            ("preprocess_ms", json!(millis(measured.preprocessing))),
            ("images_per_second", json!(measured.rate)),
        ]);
    }
    Ok(report)
}

fn image_sets(
    arguments: &PrepareArguments,
) -> anyhow::Result<Vec<(&'static str, String, Vec<Encoded>)>> {
    if let Some(folder) = &arguments.images {
        let parts = find_parts(folder)?;
        let files = parts.into_iter().flat_map(|part| part.images);
        let images: anyhow::Result<Vec<Encoded>> = files
            .map(|file| {
                let bytes = std::fs::read(&file.path)
                    .with_context(|| format!("failed to read `{}`", file.path.display()))?;
                Ok(Encoded {
                    encoding: encoding_of(file.content_type),
                    bytes,
                })
            })
            .collect();
        return Ok(vec![("files", "as they are".to_owned(), images?)]);
    }
    let mut sets = Vec::new();
    for &(width, height) in &arguments.size {
        for encoding in &arguments.encoding {
            let (image_encoding, bytes) = encoding.picture(width, height)?;
            let image = Encoded {
                encoding: image_encoding,
                bytes,
            };
            sets.push((encoding.name(), format!("{width}x{height}"), vec![image]));
        }
    }
    Ok(sets)
}

fn encoding_of(content_type: &str) -> ImageEncoding {
    match content_type {
        "image/png" => ImageEncoding::Png,
        "image/bmp" => ImageEncoding::Bmp,
        "image/tiff" => ImageEncoding::Tiff,
        "image/webp" => ImageEncoding::Webp,
        _ => ImageEncoding::Jpeg,
    }
}

/// Medians of one image on one thread, and images a second on all threads.
struct Measured {
    decoding: Duration,
    preprocessing: Duration,
    rate: f64,
}

fn measure(
    images: &[Encoded],
    preprocessor: &Preprocessor,
    repeat: usize,
) -> anyhow::Result<Measured> {
    let (mut decodings, mut preprocessings) = (Vec::new(), Vec::new());
    for number in 0..repeat {
        let (decoding, preprocessing) = prepare(&images[number % images.len()], preprocessor)?;
        decodings.push(decoding);
        preprocessings.push(preprocessing);
    }
    let count = repeat * rayon::current_num_threads();
    let started = Instant::now();
    (0..count)
        .into_par_iter()
        .try_for_each(|number| prepare(&images[number % images.len()], preprocessor).map(|_| ()))?;
    Ok(Measured {
        decoding: median(decodings),
        preprocessing: median(preprocessings),
        rate: count as f64 / started.elapsed().as_secs_f64(),
    })
}

fn prepare(image: &Encoded, preprocessor: &Preprocessor) -> anyhow::Result<(Duration, Duration)> {
    let started = Instant::now();
    let pixels = decode_image(image.encoding, &image.bytes, &ImageLimits::default())?;
    let decoding = started.elapsed();
    let started = Instant::now();
    std::hint::black_box(preprocessor.prepare(pixels)?);
    Ok((decoding, started.elapsed()))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_two_sides() {
        assert_eq!(parse_size("1024x768"), Ok((1024, 768)));
        for wrong in ["1024", "0x5", "5x0", "axb"] {
            let error = parse_size(wrong).unwrap_err();
            assert!(error.contains(&format!("`{wrong}`")), "{error}");
        }
    }
}
