//! Small data sets on disk for tests.

use std::path::Path;

use image::DynamicImage;

/// Writes an image in the format of its name, with the folders above it.
pub(crate) fn write_image(path: &Path, image: &DynamicImage) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.save(path).unwrap();
}

/// Writes a grey image of 4 x 4 pixels of one level.
pub(crate) fn write_level(path: &Path, level: u8) {
    write_image(
        path,
        &image::GrayImage::from_pixel(4, 4, image::Luma([level])).into(),
    );
}
