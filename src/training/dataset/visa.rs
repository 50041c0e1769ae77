//! VisA as it is published, `<class>/Data/...`, divided by the table `split_csv/1cls.csv`: the
//! one-class split, whose training images are all good.
//!
//! The table has the columns `object`, `split`, `label`, `image` and `mask`, with paths below the
//! data set's folder. Each image is a part of one view. (VisA turned into MVTec AD's layout is
//! listed as that.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::layout::{Layout, Listing, Split};
use super::paths::{below, check_class};
use super::{PartFolder, fault};
use crate::training::TrainingError;

fn table(root: &Path) -> PathBuf {
    root.join("split_csv").join("1cls.csv")
}

/// Whether a folder has the table.
pub(super) fn is_at(root: &Path) -> bool {
    table(root).is_file()
}

#[derive(Deserialize)]
struct Row {
    object: String,
    split: RowSplit,
    label: RowLabel,
    image: String,
    mask: Option<String>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum RowSplit {
    Train,
    Test,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum RowLabel {
    Normal,
    Anomaly,
}

/// Lists a split.
pub(super) fn list(root: &Path, split: Split) -> Result<Listing, TrainingError> {
    let table = table(root);
    let mut reader = csv::Reader::from_path(&table).map_err(|error| fault(&table, error))?;
    let mut classes: BTreeMap<String, Vec<PartFolder>> = BTreeMap::new();
    for (index, row) in reader.deserialize().enumerate() {
        // The first line of a table is its header.
        let line = index + 2;
        let row: Row = row.map_err(|error| fault(&table, error))?;
        let in_line = |message: String| fault(&table, format!("line `{line}`: {message}"));
        check_class(&row.object).map_err(in_line)?;
        let parts = classes.entry(row.object.clone()).or_default();
        let is_wanted = (row.split == RowSplit::Train) == (split == Split::Train);
        if is_wanted {
            parts.push(part(root, &row, split).map_err(in_line)?);
        }
    }
    let mut listing = Listing::new(Layout::Visa, Some(split));
    for (class, mut parts) in classes {
        listing.class(&class, parts.is_empty());
        parts.sort_by(|a, b| a.part.cmp(&b.part));
        listing.parts.extend(parts);
    }
    Ok(listing)
}

fn part(root: &Path, row: &Row, split: Split) -> Result<PartFolder, String> {
    let image = below(root, &row.image)?;
    let mask = row.mask.as_deref().filter(|mask| !mask.is_empty());
    let mask = match (&row.label, mask) {
        (RowLabel::Normal, _) => None,
        (RowLabel::Anomaly, _) if split == Split::Train => {
            let image = &row.image;
            return Err(format!(
                "expected normal images alone to train on, found the anomaly `{image}`"
            ));
        }
        (RowLabel::Anomaly, Some(mask)) => Some(below(root, mask)?),
        (RowLabel::Anomaly, None) => {
            let image = &row.image;
            return Err(format!(
                "expected a mask of the anomaly `{image}`, found none"
            ));
        }
    };
    let name = part_name(Path::new(&row.image));
    Ok(PartFolder::of_one_view(&row.object, name, image, mask))
}

/// The image's name, and that of its folder, since normal and anomalous images share numbers.
fn part_name(image: &Path) -> String {
    let stem = image.file_stem().unwrap_or_default().to_string_lossy();
    match image.parent().and_then(Path::file_name) {
        Some(folder) => format!("{}-{stem}", folder.to_string_lossy()),
        None => stem.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{outline, source, write_level, write_text};
    use super::*;

    const HEADER: &str = "object,split,label,image,mask\n";

    fn listed(rows: &str, split: Split) -> Result<Listing, String> {
        let folder = tempfile::tempdir().unwrap();
        write_text(&table(folder.path()), &format!("{HEADER}{rows}"));
        list(folder.path(), split).map_err(|error| error.to_string())
    }

    #[test]
    fn the_table_divides_the_images() {
        let folder = tempfile::tempdir().unwrap();
        let rows = "candle,train,normal,candle/Data/Images/Normal/0836.JPG,\n\
                    candle,train,normal,candle/Data/Images/Normal/0451.JPG,\n\
                    candle,test,normal,candle/Data/Images/Normal/0000.JPG,\n\
                    candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png\n";
        write_text(&table(folder.path()), &format!("{HEADER}{rows}"));
        write_level(&folder.path().join("candle/Data/Images/Normal/0836.JPG"), 5);
        let mut source = source(folder.path());
        let listing = source.list().unwrap();
        assert_eq!(listing.layout, Layout::Visa);
        assert_eq!(
            outline(&listing.parts),
            ["candle/Normal-0451: image", "candle/Normal-0836: image"]
        );
        source.split = Some(Split::Test);
        let parts = source.list().unwrap().parts;
        assert_eq!(
            outline(&parts),
            ["candle/Anomaly-000: image!", "candle/Normal-0000: image"]
        );
        let mask = folder.path().join("candle/Data/Masks/Anomaly/000.png");
        assert_eq!(parts[0].views[0].mask, Some(mask));
    }

    #[test]
    fn a_row_that_breaks_a_rule_is_named() {
        let escape = "candle,train,normal,../secret.png,\n";
        let error = listed(escape, Split::Train).unwrap_err();
        assert!(
            error.contains("line `2`") && error.contains("`../secret.png`"),
            "{error}"
        );
        for object in ["../../outside", "/etc/outside", "..", ""] {
            // In the other split, too: nothing is to be believed of such a table.
            let row = format!("{object},train,normal,a/b.png,\n");
            for split in [Split::Train, Split::Test] {
                let error = listed(&row, split).unwrap_err();
                let expected = format!("found `{object}`");
                assert!(
                    error.contains("line `2`") && error.ends_with(&expected),
                    "{error}"
                );
            }
        }
        let error = listed("candle,test,anomaly,a/b.png,/etc/m.png\n", Split::Test).unwrap_err();
        assert!(error.contains("`/etc/m.png`"), "{error}");
        let error = listed("candle,test,anomaly,a/b.png,\n", Split::Test).unwrap_err();
        assert!(
            error.contains("expected a mask of the anomaly `a/b.png`"),
            "{error}"
        );
        let error = listed("candle,train,anomaly,a/b.png,c.png\n", Split::Train).unwrap_err();
        assert!(error.contains("normal images alone"), "{error}");
        let error = listed("candle,train,odd,a/b.png,\n", Split::Train).unwrap_err();
        assert!(
            error.contains("odd") && error.contains("line: 2"),
            "{error}"
        );
    }

    #[test]
    fn a_class_without_images_in_the_split_is_told() {
        let listing = listed("candle,train,normal,a/b.png,\n", Split::Test).unwrap();
        assert!(listing.parts.is_empty());
        assert!(listing.warnings[0].contains("class `candle` has no image in its `test` split"));
    }
}
