//! Real-IAD: five views of each sample, `realiad_1024/<class>/...`, and a table a class,
//! `realiad_jsons/<class>.json` or, as it is unpacked, `realiad_jsons/realiad_jsons/<class>.json`.
//!
//! - A view is normal if its entry has no mask or is of the normal class; a defective sample has
//!   views that show nothing of its defect.
//! - A table's paths are below the folder that its prefix names, or below the class's, whichever
//!   has the images: published loaders do it one way or the other.
//! - The views of a sample lie in one folder and share the sample's number in their names. Both must
//!   tell the same: a view in the wrong part would be a wrong label.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;

use super::layout::{Layout, Listing, Split};
use super::paths::{below, check_class};
use super::{PartFolder, ViewFile, fault};
use crate::training::TrainingError;

/// The views of every sample.
pub(super) const VIEWS: [&str; 5] = ["C1", "C2", "C3", "C4", "C5"];

/// Folders of the images, the size that results are published for first.
const IMAGE_FOLDERS: [&str; 3] = ["realiad_1024", "realiad_512", "realiad_256"];

/// Sample and view in a file's name, as the data set's own code groups them:
/// `audiojack_0001_NG_BX` and `C1` in `audiojack_0001_NG_BX_C1_20231021130235.jpg`.
static NAME: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"([a-zA-Z][a-zA-Z0-9_]*_[0-9]{4}_[A-Z][A-Z_]*[A-Z])_(C[0-9])_")
        .expect("the pattern is constant")
});

#[derive(Deserialize)]
struct Table {
    meta: Meta,
    train: Vec<Entry>,
    test: Vec<Entry>,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    prefix: Option<String>,
    normal_class: String,
}

#[derive(Deserialize)]
struct Entry {
    category: String,
    anomaly_class: String,
    image_path: String,
    mask_path: Option<String>,
}

/// Whether a folder has the tables.
pub(super) fn is_at(root: &Path) -> bool {
    root.join("realiad_jsons").is_dir()
}

/// Lists a split.
pub(super) fn list(root: &Path, split: Split) -> Result<Listing, TrainingError> {
    let images = image_folder(root)?;
    let mut listing = Listing::new(Layout::RealIad, Some(split));
    for (class, path) in tables(root)? {
        // `...json` is a table of the class `..`.
        check_class(&class).map_err(|error| fault(&path, error))?;
        if !images.join(&class).is_dir() {
            let folder = images.display();
            let warning = format!("class `{class}` is left out: there is no `{folder}/{class}`");
            listing.warnings.push(warning);
            continue;
        }
        let table = read_table(&path)?;
        let class = Class {
            name: &class,
            folder: folder_of(&images, &class, &table).map_err(|error| fault(&path, error))?,
            normal: &table.meta.normal_class,
        };
        let entries = match split {
            Split::Train => &table.train,
            Split::Test => &table.test,
        };
        let parts = class
            .parts(entries, split)
            .map_err(|error| fault(&path, error))?;
        listing.class(class.name, parts.is_empty());
        listing.parts.extend(parts);
    }
    Ok(listing)
}

fn image_folder(root: &Path) -> Result<PathBuf, TrainingError> {
    let found = IMAGE_FOLDERS.map(|name| root.join(name));
    found
        .into_iter()
        .find(|folder| folder.is_dir())
        .ok_or_else(|| {
            let names = IMAGE_FOLDERS.map(|name| format!("`{name}/`")).join(", ");
            fault(
                root,
                format!("expected a folder of images, one of {names}, found none"),
            )
        })
}

/// Class and path of every table, by class.
fn tables(root: &Path) -> Result<BTreeMap<String, PathBuf>, TrainingError> {
    let outer = root.join("realiad_jsons");
    let inner = outer.join("realiad_jsons");
    for folder in [&inner, &outer] {
        let mut tables = BTreeMap::new();
        let entries = match folder.is_dir() {
            true => std::fs::read_dir(folder).map_err(|error| fault(folder, error))?,
            false => continue,
        };
        for entry in entries {
            let path = entry.map_err(|error| fault(folder, error))?.path();
            let is_table = path
                .extension()
                .is_some_and(|extension| extension == "json");
            if let (true, Some(class)) = (is_table, path.file_stem()) {
                tables.insert(class.to_string_lossy().into_owned(), path);
            }
        }
        if !tables.is_empty() {
            return Ok(tables);
        }
    }
    Err(fault(&outer, "expected tables `<class>.json`, found none"))
}

fn read_table(path: &Path) -> Result<Table, TrainingError> {
    let text = std::fs::read_to_string(path).map_err(|error| fault(path, error))?;
    let mut json = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut json).map_err(|error| fault(path, error))
}

/// The folder that a table's paths are below: the first that has one of its images.
fn folder_of(images: &Path, class: &str, table: &Table) -> Result<PathBuf, String> {
    let mut folders = Vec::new();
    if let Some(prefix) = table.meta.prefix.as_deref().filter(|text| !text.is_empty()) {
        let prefixed = below(images, prefix);
        folders.push(prefixed.map_err(|error| format!("`meta.prefix`: {error}"))?);
    }
    folders.extend([images.join(class), images.to_owned()]);
    let has_an_image = |folder: &&PathBuf| {
        let mut entries = table.train.iter().chain(&table.test);
        entries.any(|entry| folder.join(&entry.image_path).is_file())
    };
    if let Some(folder) = folders.iter().find(has_an_image) {
        return Ok(folder.clone());
    }
    if table.train.is_empty() && table.test.is_empty() {
        return Ok(images.join(class));
    }
    let tried: Vec<String> = folders
        .iter()
        .map(|folder| format!("`{}`", folder.display()))
        .collect();
    Err(format!(
        "expected its images below one of {}, found none of them",
        tried.join(", ")
    ))
}

struct Class<'a> {
    name: &'a str,
    folder: PathBuf,
    normal: &'a str,
}

impl Class<'_> {
    /// The entries grouped by their folder.
    fn parts(&self, entries: &[Entry], split: Split) -> Result<Vec<PartFolder>, String> {
        let mut samples = Samples::default();
        for (index, entry) in entries.iter().enumerate() {
            self.add(entry, split, &mut samples)
                .map_err(|error| format!("entry `{}[{index}]`: {error}", split.as_str()))?;
        }
        let parts = samples.parts.into_iter().map(|(folder, views)| PartFolder {
            class: self.name.to_owned(),
            part: self.part_name(&folder),
            views: views.into_values().collect(),
        });
        Ok(parts.collect())
    }

    fn add(&self, entry: &Entry, split: Split, samples: &mut Samples) -> Result<(), String> {
        if entry.category != self.name {
            let (expected, found) = (self.name, &entry.category);
            return Err(format!(
                "expected the category `{expected}`, found `{found}`"
            ));
        }
        let (folder, name) = entry.image_path.rsplit_once('/').ok_or_else(|| {
            let path = &entry.image_path;
            format!("expected an image in its sample's folder, found `{path}`")
        })?;
        let found = NAME.captures(name).map(|found| found.extract().1);
        let [sample, view] = found
            .filter(|[_, view]| VIEWS.contains(view))
            .ok_or_else(|| {
                format!(
                    "expected a name such as `{}_0001_OK_C1_<time>.jpg`, found `{name}`",
                    self.name
                )
            })?;
        let image = below(&self.folder, &entry.image_path)?;
        let mask = entry.mask_path.as_deref().filter(|path| !path.is_empty());
        let mask = mask.filter(|_| entry.anomaly_class != self.normal);
        if mask.is_some() && split == Split::Train {
            let path = &entry.image_path;
            return Err(format!(
                "expected normal images alone to train on, found `{path}`"
            ));
        }
        let file = ViewFile {
            view: view.to_owned(),
            image,
            is_labelled_defective: mask.is_some(),
            mask: mask.map(|mask| below(&self.folder, mask)).transpose()?,
        };
        samples.add(folder, sample, file)
    }

    /// The sample's folder as one name: `NG-BX-S0001`.
    fn part_name(&self, folder: &str) -> String {
        let inside = folder
            .strip_prefix(self.name)
            .and_then(|rest| rest.strip_prefix('/'));
        inside.unwrap_or(folder).replace('/', "-")
    }
}

/// Views by folder and view, and which sample's name goes with which folder.
#[derive(Default)]
struct Samples {
    parts: BTreeMap<String, BTreeMap<String, ViewFile>>,
    sample_of: BTreeMap<String, String>,
    folder_of: BTreeMap<String, String>,
}

impl Samples {
    fn add(&mut self, folder: &str, sample: &str, file: ViewFile) -> Result<(), String> {
        let known = self
            .sample_of
            .entry(folder.to_owned())
            .or_insert_with(|| sample.to_owned());
        if known != sample {
            return Err(format!(
                "expected the images in `{folder}` to be of sample `{known}`, found one of `{sample}`"
            ));
        }
        let known = self
            .folder_of
            .entry(sample.to_owned())
            .or_insert_with(|| folder.to_owned());
        if known != folder {
            return Err(format!(
                "expected the images of sample `{sample}` in `{known}`, found one in `{folder}`"
            ));
        }
        let views = self.parts.entry(folder.to_owned()).or_default();
        let view = file.view.clone();
        match views.insert(view.clone(), file) {
            Some(_) => Err(format!(
                "expected one image of view `{view}` in `{folder}`, found two"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "real_iad_tests.rs"]
mod tests;
