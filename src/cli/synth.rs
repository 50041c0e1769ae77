//! `panoptes synth`: renders a multi-view data set of synthetic parts, with exact masks.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageFormat};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use crate::domain::RgbImage;
use crate::synthetic::{ClassKind, DefectKind, RenderedView, SyntheticPart, render};

/// Quality of the JPEGs: high, since the model should see the part and not the codec.
const JPEG_QUALITY: u8 = 95;

/// Seeds of different classes lie this far apart, so that no two parts share one.
const CLASS_STRIDE: u64 = 1 << 32;

/// Flags of `panoptes synth`.
#[derive(Args, Clone, Debug)]
pub struct SynthArguments {
    /// Folder to write: `images/`, `masks/` and `truth.csv`
    #[arg(long, short)]
    pub out: PathBuf,
    /// Parts of each class
    #[arg(long, default_value_t = 20)]
    pub parts_per_class: u32,
    /// Classes, comma separated; all if not given
    #[arg(long, value_delimiter = ',', value_parser = parse_class)]
    pub classes: Vec<ClassKind>,
    /// The share of parts that get a defect
    #[arg(long, default_value_t = 0.0, value_parser = parse_share)]
    pub defective_share: f64,
    /// Defect kinds: `development`, `held-out`, `all`, or names, comma separated
    #[arg(long, default_value = "development", value_parser = parse_kinds)]
    pub kinds: Kinds,
    /// Side of the pictures in pixels
    #[arg(long, default_value_t = 192, value_parser = clap::value_parser!(u32).range(32..=2048))]
    pub size: u32,
    /// First seed; sets with seeds at least `parts-per-class` apart share no part
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Write PNG instead of JPEG
    #[arg(long)]
    pub png: bool,
}

/// A choice of defect kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds(pub Vec<DefectKind>);

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 1".to_owned())
}

fn parse_class(text: &str) -> Result<ClassKind, String> {
    ClassKind::ALL
        .into_iter()
        .find(|class| class.as_str() == text)
        .ok_or_else(|| {
            format!(
                "expected one of {}",
                names(&ClassKind::ALL.map(ClassKind::as_str))
            )
        })
}

fn parse_kinds(text: &str) -> Result<Kinds, String> {
    let kinds = match text {
        "development" => DefectKind::DEVELOPMENT.to_vec(),
        "held-out" => DefectKind::HELD_OUT.to_vec(),
        "all" => DefectKind::ALL.to_vec(),
        list => list.split(',').map(parse_kind).collect::<Result<_, _>>()?,
    };
    Ok(Kinds(kinds))
}

fn parse_kind(text: &str) -> Result<DefectKind, String> {
    DefectKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| {
            let known = names(&DefectKind::ALL.map(DefectKind::as_str));
            format!("expected `development`, `held-out`, `all` or some of {known}, found `{text}`")
        })
}

fn names(known: &[&str]) -> String {
    known
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Renders the set.
///
/// # Errors
/// When a flag breaks its rule or a file cannot be written.
pub fn run(arguments: &SynthArguments) -> anyhow::Result<()> {
    for folder in ["images", "masks"].map(|name| arguments.out.join(name)) {
        // What an earlier run left would be taken for part of this set.
        ensure!(
            !folder.exists(),
            "expected a folder for a new set, found one with `{}`: remove it or name another",
            folder.display()
        );
    }
    let parts = plan(arguments);
    let bar = ProgressBar::new(parts.len() as u64).with_style(
        ProgressStyle::with_template("rendering {bar:40} {pos}/{len} parts, {eta} left")
            .expect("the template is constant"),
    );
    let rows: Vec<String> = parts
        .par_iter()
        .map(|(name, part)| {
            let rows = write_part(arguments, name, part)?;
            bar.inc(1);
            Ok(rows)
        })
        .collect::<anyhow::Result<_>>()?;
    bar.finish_and_clear();
    let truth = arguments.out.join("truth.csv");
    let text = format!(
        "class,part,seed,label,defect,view,mask_pixels\n{}",
        rows.concat()
    );
    fs::write(&truth, text).with_context(|| format!("failed to write `{}`", truth.display()))?;
    println!("{} parts in `{}`", parts.len(), arguments.out.display());
    Ok(())
}

/// The parts in order: each class's defective ones are spread evenly, the kinds taken in turn.
fn plan(arguments: &SynthArguments) -> Vec<(String, SyntheticPart)> {
    let classes = if arguments.classes.is_empty() {
        ClassKind::ALL.to_vec()
    } else {
        arguments.classes.clone()
    };
    let mut parts = Vec::new();
    for class in classes {
        let mut defective = 0;
        for number in 0..arguments.parts_per_class {
            let wanted = (f64::from(number + 1) * arguments.defective_share).round() as usize;
            let defect = (wanted > defective).then(|| {
                defective += 1;
                arguments.kinds.0[(defective - 1) % arguments.kinds.0.len()]
            });
            let seed = arguments.seed + u64::from(number);
            let part = SyntheticPart {
                class,
                seed: class as u64 * CLASS_STRIDE + seed,
                defect,
            };
            parts.push((format!("{}-{seed:06}", class.as_str()), part));
        }
    }
    parts
}

/// Writes a part's pictures and masks and returns its rows of the truth table.
fn write_part(
    arguments: &SynthArguments,
    name: &str,
    part: &SyntheticPart,
) -> anyhow::Result<String> {
    let class = part.class.as_str();
    let images = arguments.out.join("images").join(class).join(name);
    let masks = arguments.out.join("masks").join(class).join(name);
    let mut rows = String::new();
    for view in render(part, arguments.size) {
        let (bytes, extension) = if arguments.png {
            (encode_png(&view.image)?, "png")
        } else {
            (encode_jpeg(&view.image)?, "jpg")
        };
        write_file(&images, &format!("{}.{extension}", view.view), &bytes)?;
        if view.mask_pixels() > 0 {
            write_file(&masks, &format!("{}.png", view.view), &encode_mask(&view)?)?;
        }
        rows += &format!(
            "{class},{name},{},{},{},{},{}\n",
            part.seed,
            if part.defect.is_some() { "ng" } else { "ok" },
            part.defect.map_or("", DefectKind::as_str),
            view.view,
            view.mask_pixels()
        );
    }
    Ok(rows)
}

fn write_file(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, bytes))
        .with_context(|| format!("failed to write `{}`", path.display()))
}

/// A picture as JPEG, as the demo's cameras send it.
pub(crate) fn encode_jpeg(image: &RgbImage) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .write_image(
            &image.pixels,
            image.width,
            image.height,
            ExtendedColorType::Rgb8,
        )
        .context("failed to encode a picture as JPEG")?;
    Ok(bytes)
}

fn encode_png(image: &RgbImage) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    image::write_buffer_with_format(
        &mut bytes,
        &image.pixels,
        image.width,
        image.height,
        ExtendedColorType::Rgb8,
        ImageFormat::Png,
    )
    .context("failed to encode a picture as PNG")?;
    Ok(bytes.into_inner())
}

fn encode_mask(view: &RenderedView) -> anyhow::Result<Vec<u8>> {
    let levels: Vec<u8> = view
        .mask
        .iter()
        .map(|&is_defect| u8::from(is_defect) * 255)
        .collect();
    let mut bytes = Cursor::new(Vec::new());
    image::write_buffer_with_format(
        &mut bytes,
        &levels,
        view.image.width,
        view.image.height,
        ExtendedColorType::L8,
        ImageFormat::Png,
    )
    .context("failed to encode a mask as PNG")?;
    Ok(bytes.into_inner())
}
