//! Folders of images: `<root>/<class>/<part>/<view>.<jpg|png|...>`.
//!
//! Everything is in the order of names, so that the same folder is always the same list. Hidden
//! names and files of other kinds are passed over; two images of one view are an error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// File extensions with their content types.
const CONTENT_TYPES: [(&str, &str); 7] = [
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("png", "image/png"),
    ("bmp", "image/bmp"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("webp", "image/webp"),
];

/// One image of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// The view it shows: its name without extension.
    pub view: String,
    /// Where it is.
    pub path: PathBuf,
    /// What its extension says that it is.
    pub content_type: &'static str,
}

/// One part and its images, by view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartImages {
    /// The class: name of the folder above the part's.
    pub class: String,
    /// The part: name of its folder.
    pub part: String,
    /// Its images, at least one.
    pub images: Vec<ImageFile>,
}

/// One class and its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassImages {
    /// The class: name of its folder.
    pub class: String,
    /// Its parts that have an image, by name.
    pub parts: Vec<PartImages>,
}

/// What is wrong with a file or folder.
#[derive(Debug, thiserror::Error)]
#[error("`{path}`: {message}", path = path.display())]
pub struct ImageFolderError {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub message: String,
}

/// Finds all parts, by class and name.
///
/// # Errors
/// When a folder cannot be read, no part has an image, a name is not UTF-8, or two images of a part
/// show one view.
pub fn find_parts(root: &Path) -> Result<Vec<PartImages>, ImageFolderError> {
    let classes = find_classes(root)?;
    let parts: Vec<PartImages> = classes.into_iter().flat_map(|class| class.parts).collect();
    if parts.is_empty() {
        let message = "expected images at `<class>/<part>/<view>.jpg`, found none";
        return Err(fault(root, message));
    }
    Ok(parts)
}

/// Finds all classes with their parts, classes without one included.
///
/// # Errors
/// When a folder cannot be read, a name is not UTF-8, or two images of a part show one view.
pub fn find_classes(root: &Path) -> Result<Vec<ClassImages>, ImageFolderError> {
    let mut classes = Vec::new();
    for (class, class_path) in subfolders(root)? {
        let mut parts = Vec::new();
        for (part, part_path) in subfolders(&class_path)? {
            let images = find_images(&part_path)?;
            if !images.is_empty() {
                let class = class.clone();
                parts.push(PartImages {
                    class,
                    part,
                    images,
                });
            }
        }
        classes.push(ClassImages { class, parts });
    }
    Ok(classes)
}

/// The images directly in a folder, by view.
///
/// # Errors
/// When the folder cannot be read, a name is not UTF-8, or two images show one view.
pub fn find_images(folder: &Path) -> Result<Vec<ImageFile>, ImageFolderError> {
    let mut images: BTreeMap<String, ImageFile> = BTreeMap::new();
    for (name, path) in entries(folder)? {
        let Some(content_type) = content_type(&path) else {
            continue;
        };
        if !path.is_file() {
            continue;
        }
        let view = match name.rsplit_once('.') {
            Some((stem, _)) => stem.to_owned(),
            None => name,
        };
        let image = ImageFile {
            view: view.clone(),
            path,
            content_type,
        };
        if let Some(other) = images.insert(view.clone(), image) {
            let other = other.path.display();
            let message = format!("view `{view}` has two images, `{other}` is one");
            return Err(fault(folder, message));
        }
    }
    Ok(images.into_values().collect())
}

/// What is directly in a folder and is no image by its name, hidden names left out.
///
/// # Errors
/// When the folder cannot be read or a name is not UTF-8.
pub fn find_others(folder: &Path) -> Result<Vec<PathBuf>, ImageFolderError> {
    let is_image = |path: &Path| path.is_file() && content_type(path).is_some();
    let paths = entries(folder)?.into_iter().map(|(_, path)| path);
    Ok(paths.filter(|path| !is_image(path)).collect())
}

fn content_type(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    CONTENT_TYPES
        .iter()
        .find(|(known, _)| *known == extension)
        .map(|(_, content_type)| *content_type)
}

/// Name and path of the folders directly in a folder, by name; hidden ones are passed over.
///
/// # Errors
/// When the folder cannot be read or a name is not UTF-8.
pub fn subfolders(folder: &Path) -> Result<Vec<(String, PathBuf)>, ImageFolderError> {
    let mut found = entries(folder)?;
    found.retain(|(_, path)| path.is_dir());
    Ok(found)
}

/// Name and path of what is in a folder, but for hidden names.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, ImageFolderError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| fault(folder, error))? {
        let entry = entry.map_err(|error| fault(folder, error))?;
        let name = entry.file_name().into_string().map_err(|name| {
            let name = name.display();
            fault(folder, format!("expected names in UTF-8, found `{name}`"))
        })?;
        if !name.starts_with('.') {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

fn fault(path: &Path, message: impl std::fmt::Display) -> ImageFolderError {
    ImageFolderError {
        path: path.to_owned(),
        message: message.to_string(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder with these files, each of five bytes that are no image.
    pub(crate) fn folder_of(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"image").unwrap();
        }
        folder
    }

    #[test]
    fn finds_parts_and_views_in_the_order_of_names() {
        let folder = folder_of(&[
            "bolt/b2/top.jpg",
            "bolt/b1/top.jpg",
            "bolt/b1/left.PNG",
            "bolt/b1/._top.jpg",
            "bolt/b1/notes.txt",
            "bolt/.hidden/top.jpg",
            "gear/g1/top.wide.tif",
            "gear/empty/readme.md",
            "truth.csv",
        ]);
        let parts = find_parts(folder.path()).unwrap();
        let found: Vec<(&str, &str, Vec<&str>)> = parts
            .iter()
            .map(|part| {
                let views = part.images.iter().map(|image| image.view.as_str());
                (part.class.as_str(), part.part.as_str(), views.collect())
            })
            .collect();
        assert_eq!(
            found,
            [
                ("bolt", "b1", vec!["left", "top"]),
                ("bolt", "b2", vec!["top"]),
                ("gear", "g1", vec!["top.wide"])
            ]
        );
        assert_eq!(parts[0].images[0].content_type, "image/png");
    }

    #[test]
    fn what_is_no_image_is_found_as_such() {
        let folder = folder_of(&["top.jpg", "left.npy", ".hidden", "more/top.png"]);
        let others = find_others(folder.path()).unwrap();
        assert_eq!(
            others,
            ["left.npy", "more"].map(|name| folder.path().join(name))
        );
    }

    #[test]
    fn a_class_without_images_is_found_as_such() {
        let folder = folder_of(&["bolt/b1/top.jpg", "gear/readme.md"]);
        let classes = find_classes(folder.path()).unwrap();
        let counts: Vec<(&str, usize)> = classes
            .iter()
            .map(|class| (class.class.as_str(), class.parts.len()))
            .collect();
        assert_eq!(counts, [("bolt", 1), ("gear", 0)]);
    }

    #[test]
    fn a_view_with_two_images_is_refused() {
        let folder = folder_of(&["bolt/p1/top.jpg", "bolt/p1/top.png"]);
        let error = find_parts(folder.path()).unwrap_err().to_string();
        assert!(error.contains("`top`") && error.contains("p1"), "{error}");
    }

    #[test]
    fn a_folder_without_parts_is_refused() {
        let folder = folder_of(&["p1/top.jpg"]);
        let error = find_parts(folder.path()).unwrap_err().to_string();
        assert!(error.contains("`<class>/<part>/<view>.jpg`"), "{error}");
        assert!(find_parts(&folder.path().join("absent")).is_err());
    }
}
