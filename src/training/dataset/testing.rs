//! Small data sets on disk for tests.

use std::path::Path;

use image::DynamicImage;

use super::{DataSource, PartFolder, Split};

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

/// A data set whose layout is found out, with its training split.
pub(crate) fn source(root: &Path) -> DataSource {
    DataSource {
        root: root.to_owned(),
        masks: None,
        layout: None,
        split: None,
        default_split: Split::Train,
    }
}

/// Writes a text with the folders above it.
pub(crate) fn write_text(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Names of the parts and of their views, a part a text.
pub(crate) fn outline(parts: &[PartFolder]) -> Vec<String> {
    let outline = |part: &PartFolder| {
        let views: Vec<String> = part
            .views
            .iter()
            .map(|view| {
                let is_defective = view.is_labelled_defective || view.mask.is_some();
                format!("{}{}", view.view, if is_defective { "!" } else { "" })
            })
            .collect();
        format!("{}/{}: {}", part.class, part.part, views.join(" "))
    };
    parts.iter().map(outline).collect()
}
