//! Pictures of anomaly maps at the end of a training: each view beside itself under its heat.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use image::RgbImage;
use image::imageops::{FilterType, resize};

use crate::cli::heat::overlay;
use crate::domain::AnomalyMap;
use crate::evaluation::measurement::{MeasuredPart, measure};
use crate::model::bundle::Bundle;
use crate::model::candle_model::CandleModel;
use crate::training::dataset::{PartFolder, read_image};

/// At most so many parts are drawn.
const PARTS: usize = 16;

/// The first good part and the first other part of each class, as far as there are any.
pub(super) fn choose<'a>(parts: impl Iterator<Item = (&'a PartFolder, bool)>) -> Vec<PartFolder> {
    let mut chosen: BTreeMap<(&str, bool), &PartFolder> = BTreeMap::new();
    for (part, is_good) in parts {
        chosen.entry((&part.class, is_good)).or_insert(part);
    }
    chosen.into_values().take(PARTS).cloned().collect()
}

/// Writes `<folder>/<class>/<part>/<view>.png` for every view of the parts; what was in the folder is
/// gone, since pictures of an earlier model would be taken for this one's.
///
/// There are no thresholds yet: heat is full at one and a half times the highest score of the
/// class's good parts among them (of all its parts where none is good).
///
/// # Errors
/// When an image cannot be read, the model fails, or a picture cannot be written.
pub(super) fn draw(
    folder: &Path,
    bundle: &Bundle,
    device: &str,
    parts: &[PartFolder],
) -> anyhow::Result<()> {
    let preprocessor = bundle.manifest.preprocessor().map_err(anyhow::Error::msg)?;
    let mut model = CandleModel::new(bundle, device, 32).context("cannot place the model")?;
    let measured = parts
        .iter()
        .map(|part| measure(part, &mut model, &preprocessor))
        .collect::<Result<Vec<_>, _>>()?;
    clear(folder)?;
    for (part, measured_part) in parts.iter().zip(&measured) {
        let usual = usual_score(&measured, &part.class);
        let folder = folder
            .join(file_name(&part.class))
            .join(file_name(&part.part));
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        for (view, judged) in part.views.iter().zip(&measured_part.views) {
            let seen = preprocessor.resize_and_crop(&read_image(&view.image)?)?;
            let picture = RgbImage::from_raw(seen.width, seen.height, seen.pixels)
                .context("a prepared image has other pixels than its sides say")?;
            let file = folder.join(file_name(&view.view) + ".png");
            beside(&picture, &judged.map, usual)
                .save(&file)
                .with_context(|| format!("cannot write `{}`", file.display()))?;
        }
    }
    Ok(())
}

fn clear(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error)
            .with_context(|| format!("cannot remove the old pictures `{}`", folder.display())),
        _ => Ok(()),
    }
}

/// What a name is called in the file system: a name may come from a path.
fn file_name(name: &str) -> String {
    let name = name.replace('/', "-");
    match name.starts_with('.') {
        true => format!("_{name}"),
        false => name,
    }
}

fn usual_score(measured: &[MeasuredPart], class: &str) -> f32 {
    let highest = |only_good: bool| {
        let own = measured.iter().filter(|part| part.class == class);
        own.filter(|part| !only_good || !part.is_anomalous())
            .map(MeasuredPart::score)
            .fold(0.0, f32::max)
    };
    match highest(true) {
        0.0 => highest(false).max(f32::MIN_POSITIVE),
        good => good,
    }
}

/// The picture, and to its right the picture under the heat.
fn beside(picture: &RgbImage, map: &AnomalyMap, threshold: f32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let small = image::ImageBuffer::<image::Luma<f32>, _>::from_fn(
        map.width as u32,
        map.height as u32,
        |x, y| image::Luma([map.values[y as usize * map.width + x as usize]]),
    );
    let scores = resize(&small, width, height, FilterType::Triangle);
    let mut both = RgbImage::new(2 * width, height);
    for (x, y, pixel) in picture.enumerate_pixels() {
        both.put_pixel(x, y, *pixel);
        let [red, green, blue, opacity] = overlay(scores.get_pixel(x, y).0[0], threshold);
        let cover = f32::from(opacity) / 255.0;
        let mut mixed = *pixel;
        for (channel, heat) in mixed.0.iter_mut().zip([red, green, blue]) {
            let value = f32::from(*channel) * (1.0 - cover) + f32::from(heat) * cover;
            *channel = value.round() as u8;
        }
        both.put_pixel(width + x, y, mixed);
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_lies_on_the_right_copy_where_the_map_is_high() {
        let picture = RgbImage::from_pixel(4, 4, image::Rgb([10, 20, 30]));
        let map = AnomalyMap {
            width: 2,
            height: 1,
            values: vec![0.0, 0.9],
        };
        let both = beside(&picture, &map, 0.3);
        assert_eq!(both.dimensions(), (8, 4));
        assert_eq!(both.get_pixel(3, 0).0, [10, 20, 30]);
        assert_eq!(both.get_pixel(4, 0).0, [10, 20, 30]);
        assert!(both.get_pixel(7, 0).0[0] > 150);
    }

    #[test]
    fn one_good_and_one_bad_part_of_each_class_are_drawn() {
        let part = |class: &str, part: &str| PartFolder {
            class: class.to_owned(),
            part: part.to_owned(),
            views: Vec::new(),
        };
        let parts = [
            (part("gear", "1"), true),
            (part("gear", "2"), true),
            (part("gear", "3"), false),
            (part("bolt", "4"), true),
        ];
        let chosen = choose(parts.iter().map(|(part, is_good)| (part, *is_good)));
        let names: Vec<&str> = chosen.iter().map(|part| part.part.as_str()).collect();
        assert_eq!(names, ["4", "3", "1"]);
    }
}
