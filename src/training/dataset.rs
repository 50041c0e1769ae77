//! Data sets as folders of images: `<root>/<class>/<part>/<view>.<jpg|png|...>`.
//!
//! Masks lie under a root of their own with the same relative paths, as `.png`; a pixel other
//! than 0 is a defect. A view is anomalous if its mask exists and is not empty, a part if one of
//! its views is. Everything is in the order of names, so that the same folder is always the same
//! data set.

use std::path::{Path, PathBuf};

use super::TrainingError;
use super::formula::Canvas;
use crate::domain::RgbImage;
use crate::model::preprocess::{Normalisation, Preprocessor};

/// File endings that count as images.
const IMAGE_ENDINGS: [&str; 7] = ["jpg", "jpeg", "png", "bmp", "tif", "tiff", "webp"];

/// One image of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewFile {
    /// Name of the view: the file's name without its ending.
    pub view: String,
    /// The image.
    pub image: PathBuf,
    /// Its mask, if there is one.
    pub mask: Option<PathBuf>,
}

/// One part with its views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartFolder {
    /// The class: name of the folder above the part's.
    pub class: String,
    /// The part: name of its folder.
    pub part: String,
    /// Its views in the order of their names.
    pub views: Vec<ViewFile>,
}

/// Lists the parts under `root`, with masks from `masks` if given.
///
/// # Errors
/// When a folder cannot be read, or there is no image at all.
pub fn list_parts(root: &Path, masks: Option<&Path>) -> Result<Vec<PartFolder>, TrainingError> {
    let mut parts = Vec::new();
    for class in folders(root)? {
        for part in folders(&class)? {
            let views = list_views(&part, root, masks)?;
            if !views.is_empty() {
                parts.push(PartFolder {
                    class: name(&class),
                    part: name(&part),
                    views,
                });
            }
        }
    }
    if parts.is_empty() {
        let message = "expected images at `<class>/<part>/<view>`, found none".to_owned();
        return Err(TrainingError::Data {
            path: root.to_owned(),
            message,
        });
    }
    Ok(parts)
}

fn list_views(
    part: &Path,
    root: &Path,
    masks: Option<&Path>,
) -> Result<Vec<ViewFile>, TrainingError> {
    let mut views = Vec::new();
    for image in entries(part)?.into_iter().filter(|path| is_image(path)) {
        let mask = masks.and_then(|masks| {
            let relative = image.strip_prefix(root).ok()?;
            Some(masks.join(relative).with_extension("png")).filter(|path| path.is_file())
        });
        let view = image
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        views.push(ViewFile { view, image, mask });
    }
    Ok(views)
}

fn is_image(path: &Path) -> bool {
    let ending = path
        .extension()
        .map(|ending| ending.to_string_lossy().to_lowercase());
    path.is_file() && ending.is_some_and(|ending| IMAGE_ENDINGS.contains(&ending.as_str()))
}

fn folders(root: &Path) -> Result<Vec<PathBuf>, TrainingError> {
    Ok(entries(root)?
        .into_iter()
        .filter(|path| path.is_dir())
        .collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, TrainingError> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        std::fs::read_dir(folder)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect()
    };
    let mut paths = read().map_err(|error| fault(folder, error))?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Reads an image as 8-bit RGB.
///
/// # Errors
/// When the file cannot be read or decoded.
pub fn read_image(path: &Path) -> Result<RgbImage, TrainingError> {
    let image = image::open(path)
        .map_err(|error| fault(path, error))?
        .into_rgb8();
    let (width, height) = image.dimensions();
    Ok(RgbImage {
        width,
        height,
        pixels: image.into_raw(),
    })
}

/// A mask at full size: width, height, and whether each pixel is part of a defect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// `width * height` flags.
    pub defect: Vec<bool>,
}

/// Reads a mask.
///
/// # Errors
/// When the file cannot be read or decoded.
pub fn read_mask(path: &Path) -> Result<Mask, TrainingError> {
    let image = image::open(path)
        .map_err(|error| fault(path, error))?
        .into_luma8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    let defect = image
        .into_raw()
        .into_iter()
        .map(|value| value > 0)
        .collect();
    Ok(Mask {
        width,
        height,
        defect,
    })
}

/// Every image under the given roots as a canvas of `side`, for pretraining.
///
/// # Errors
/// When a folder or an image cannot be read.
pub fn load_canvases(roots: &[PathBuf], side: usize) -> Result<Vec<Canvas>, TrainingError> {
    let preprocessor =
        Preprocessor::new(Normalisation::imagenet(side), side).map_err(TrainingError::Setting)?;
    let mut canvases = Vec::new();
    for root in roots {
        for part in list_parts(root, None)? {
            for view in part.views {
                let small = preprocessor
                    .resize_and_crop(&read_image(&view.image)?)
                    .map_err(|error| fault(&view.image, error))?;
                canvases.push(canvas(&small, side));
            }
        }
    }
    Ok(canvases)
}

fn canvas(image: &RgbImage, side: usize) -> Canvas {
    let area = side * side;
    let mut values = vec![0.0; 3 * area];
    for (index, pixel) in image.pixels.chunks_exact(3).enumerate() {
        for channel in 0..3 {
            values[channel * area + index] = f32::from(pixel[channel]) / 255.0;
        }
    }
    Canvas { side, values }
}

fn fault(path: &Path, error: impl std::fmt::Display) -> TrainingError {
    TrainingError::Data {
        path: path.to_owned(),
        message: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, level: u8) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::GrayImage::from_pixel(4, 4, image::Luma([level]))
            .save(path)
            .unwrap();
    }

    #[test]
    fn parts_are_listed_in_order_with_their_masks() {
        let folder = tempfile::tempdir().unwrap();
        let (images, masks) = (folder.path().join("images"), folder.path().join("masks"));
        write(&images.join("bolt/p2/top.png"), 9);
        write(&images.join("bolt/p1/top.jpg"), 9);
        write(&images.join("bolt/p1/left.png"), 9);
        std::fs::write(images.join("bolt/p1/notes.txt"), "x").unwrap();
        write(&masks.join("bolt/p1/top.png"), 255);
        let parts = list_parts(&images, Some(&masks)).unwrap();
        let names: Vec<&str> = parts.iter().map(|part| part.part.as_str()).collect();
        assert_eq!(names, ["p1", "p2"]);
        let views: Vec<&str> = parts[0]
            .views
            .iter()
            .map(|view| view.view.as_str())
            .collect();
        assert_eq!(views, ["left", "top"]);
        assert!(parts[0].views[0].mask.is_none());
        assert_eq!(parts[0].views[1].mask, Some(masks.join("bolt/p1/top.png")));
    }

    #[test]
    fn an_empty_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = list_parts(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("found none"), "{error}");
    }
}
