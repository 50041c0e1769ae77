//! What has been published on Real-IAD, to be held beside one's own figures.
//!
//! One model for all 30 classes, all views, mean over classes, in percent as printed. The figures
//! come from papers and READMEs that do not all follow one protocol (resolution, smoothing, AUPRO's
//! limit), so a difference of some tenths says little.

use std::collections::BTreeSet;

use serde::Serialize;

use super::sheet::{Column, Sheet};

/// The classes of Real-IAD.
pub const REAL_IAD_CLASSES: [&str; 30] = [
    "audiojack",
    "bottle_cap",
    "button_battery",
    "end_cap",
    "eraser",
    "fire_hood",
    "mint",
    "mounts",
    "pcb",
    "phone_battery",
    "plastic_nut",
    "plastic_plug",
    "porcelain_doll",
    "regulator",
    "rolled_strip_base",
    "sim_card_set",
    "switch",
    "tape",
    "terminalblock",
    "toothbrush",
    "toy",
    "toy_brick",
    "transistor1",
    "u_block",
    "usb",
    "usb_adaptor",
    "vcpill",
    "wooden_beads",
    "woodstick",
    "zipper",
];

/// Published figures in percent; what was not found is missing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PublishedRow {
    /// The method.
    pub method: &'static str,
    /// Over images: AUROC, AP, F1-max.
    pub image: [Option<f64>; 3],
    /// Over pixels: AUROC, AP, F1-max, AUPRO.
    pub pixel: [Option<f64>; 4],
    /// Over samples: AUROC, AP, F1-max.
    pub sample: [Option<f64>; 3],
    /// Where the figures were read.
    pub source: &'static str,
}

/// The figures that papers print, in their order and ours.
pub(super) const FIGURE_COLUMNS: [Column; 10] = [
    Column::numbers("image", "AUROC"),
    Column::numbers("image", "AP"),
    Column::numbers("image", "F1"),
    Column::numbers("pixel", "AUROC"),
    Column::numbers("pixel", "AP"),
    Column::numbers("pixel", "F1"),
    Column::numbers("pixel", "AUPRO"),
    Column::numbers("sample", "AUROC"),
    Column::numbers("sample", "AP"),
    Column::numbers("sample", "F1"),
];

const NONE: Option<f64> = None;
const DINOMALY_TABLE: &str = "Dinomaly (CVPR 2025), table 1";
const RAD_README: &str = "README of RAD (arXiv 2601.22763)";

const fn row(
    method: &'static str,
    image: [f64; 3],
    pixel: [f64; 4],
    source: &'static str,
) -> PublishedRow {
    let [i0, i1, i2] = image;
    let [p0, p1, p2, p3] = pixel;
    PublishedRow {
        method,
        image: [Some(i0), Some(i1), Some(i2)],
        pixel: [Some(p0), Some(p1), Some(p2), Some(p3)],
        sample: [NONE; 3],
        source,
    }
}

/// One model for all classes, in the order of image AUROC.
pub const REAL_IAD: [PublishedRow; 15] = [
    row(
        "SimpleNet",
        [57.2, 53.4, 61.5],
        [75.7, 2.8, 6.5, 39.0],
        DINOMALY_TABLE,
    ),
    row(
        "DiAD",
        [75.6, 66.4, 69.9],
        [88.0, 2.9, 7.1, 58.1],
        DINOMALY_TABLE,
    ),
    row(
        "DeSTSeg",
        [82.3, 79.2, 73.2],
        [94.6, 37.9, 41.7, 40.6],
        DINOMALY_TABLE,
    ),
    row(
        "ViTAD",
        [82.3, 79.4, 73.4],
        [96.9, 26.7, 34.9, 84.9],
        DINOMALY_TABLE,
    ),
    row(
        "RD4AD",
        [82.4, 79.0, 73.9],
        [97.3, 25.0, 32.7, 89.6],
        DINOMALY_TABLE,
    ),
    row(
        "UniAD",
        [83.0, 80.9, 74.3],
        [97.3, 21.1, 29.2, 86.7],
        DINOMALY_TABLE,
    ),
    row(
        "MambaAD",
        [86.3, 84.6, 77.0],
        [98.5, 33.0, 38.7, 90.5],
        DINOMALY_TABLE,
    ),
    row(
        "ReContrast",
        [86.4, 84.2, 77.4],
        [97.8, 31.6, 38.2, 91.8],
        DINOMALY_TABLE,
    ),
    PublishedRow {
        sample: [Some(90.2), Some(95.3), Some(90.1)],
        ..row(
            "MVAD",
            [86.6, 84.8, 77.2],
            [97.9, 30.3, 36.8, 91.2],
            "README and log of MVAD",
        )
    },
    row(
        "Dinomaly-B",
        [89.3, 86.8, 80.2],
        [98.8, 42.8, 47.1, 93.9],
        DINOMALY_TABLE,
    ),
    PublishedRow {
        method: "Dinomaly-L",
        image: [Some(90.1), NONE, NONE],
        pixel: [NONE; 4],
        sample: [NONE; 3],
        source: "README of Dinomaly",
    },
    row(
        "OmiAD",
        [90.1, 88.6, 82.8],
        [98.9, 37.7, 42.6, 93.1],
        RAD_README,
    ),
    row(
        "INP-Former-B",
        [90.5, 88.1, 81.5],
        [99.0, 47.5, 50.3, 95.0],
        "second-hand, a blog",
    ),
    row(
        "MVMCAD-B",
        [91.0, 88.6, 82.1],
        [99.1, 43.9, 48.2, 95.2],
        "abstract (arXiv 2504.21294)",
    ),
    row(
        "RAD",
        [92.0, 89.9, 83.0],
        [99.1, 53.7, 54.2, 96.1],
        RAD_README,
    ),
];

/// Whether these are the classes of Real-IAD, all of them and no others.
pub fn is_real_iad<'a>(classes: impl Iterator<Item = &'a str>) -> bool {
    let classes: BTreeSet<&str> = classes.collect();
    classes == BTreeSet::from(REAL_IAD_CLASSES)
}

/// The published figures as a table, with `own` as its last row.
pub fn compare(published: &[PublishedRow], own: PublishedRow) -> Sheet {
    let rows = published.iter().chain([&own]).map(|row| {
        let numbers = row.image.iter().chain(&row.pixel).chain(&row.sample);
        let numbers = numbers.map(|number| percent(*number));
        let mut cells = vec![row.method.to_owned()];
        cells.extend(numbers);
        cells.push(row.source.to_owned());
        cells
    });
    Sheet {
        title: "published on Real-IAD (one model, all views, mean over classes, in %)".to_owned(),
        columns: [Column::words("method")]
            .into_iter()
            .chain(FIGURE_COLUMNS)
            .chain([Column::words("source")])
            .collect(),
        rows: rows.collect(),
        has_summary: true,
    }
}

fn percent(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_iad_is_known_by_all_of_its_classes() {
        assert!(is_real_iad(REAL_IAD_CLASSES.into_iter().rev()));
        assert!(!is_real_iad(REAL_IAD_CLASSES[1..].iter().copied()));
        let more = REAL_IAD_CLASSES.into_iter().chain(["bolt"]);
        assert!(!is_real_iad(more));
    }

    #[test]
    fn published_rows_are_percentages_in_the_order_of_image_auroc() {
        assert!(REAL_IAD.is_sorted_by(|a, b| a.image[0] <= b.image[0]));
        for row in REAL_IAD {
            let numbers = row.image.into_iter().chain(row.pixel).chain(row.sample);
            assert!(
                numbers
                    .flatten()
                    .all(|number| (1.0..100.0).contains(&number))
            );
        }
    }

    #[test]
    fn own_figures_stand_below_the_published_ones() {
        let own = row(
            "this model",
            [93.25, 90.0, 84.0],
            [99.0, 50.0, 50.0, 96.0],
            "",
        );
        let text = compare(&REAL_IAD, own).to_text();
        assert!(
            text.contains("\nMVMCAD-B         91.0  88.6  82.1     99.1"),
            "{text}"
        );
        assert!(
            text.contains("90.2  95.3  90.1    README and log of MVAD\n"),
            "{text}"
        );
        assert!(
            text.lines()
                .last()
                .unwrap()
                .starts_with("this model       93.2"),
            "{text}"
        );
    }
}
