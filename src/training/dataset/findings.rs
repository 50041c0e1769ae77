//! What a person should know of a data set before relying on it: nothing here stops a run.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;

use super::files::{digest_bytes, read_bytes};
use super::survey::Survey;
use super::{Layout, PartFolder};
use crate::training::TrainingError;

/// As many twins are named.
const NAMED: usize = 5;

/// Warnings about the surveyed parts of a set in `layout`, each a text of one or more lines: missing
/// views, and images that are in two parts.
pub fn findings<T>(layout: Layout, survey: &Survey<T>) -> Vec<String> {
    let parts = survey.parts.iter().map(|surveyed| &surveyed.part);
    let warnings = [missing_views(layout.views(), parts), twins(survey)];
    warnings.into_iter().flatten().collect()
}

/// Warnings about images of `survey` that are also in `others`, the set's other split. Only files
/// that are as long as a surveyed one are read.
///
/// # Errors
/// When such a file cannot be read.
pub fn across_splits<T>(
    survey: &Survey<T>,
    others: &[PartFolder],
) -> Result<Option<String>, TrainingError> {
    let mut names = HashMap::new();
    let mut lengths = HashSet::new();
    for (view, surveyed) in views(survey) {
        lengths.insert(surveyed.bytes);
        names.insert(surveyed.digest, view);
    }
    let mut found = Vec::new();
    for part in others {
        for view in &part.views {
            let length = std::fs::metadata(&view.image).map(|file| file.len());
            if !length.is_ok_and(|length| lengths.contains(&length)) {
                continue;
            }
            if let Some(name) = names.get(&digest_bytes(&read_bytes(&view.image)?)) {
                found.push(format!("{name} and {}", view.image.display()));
            }
        }
    }
    let meaning = "are in the other split, too, byte by byte: \
                   figures on images that were trained on say nothing";
    Ok(told(&found, meaning))
}

/// Every surveyed view with the path of its image.
fn views<T>(survey: &Survey<T>) -> impl Iterator<Item = (String, &super::SurveyedView<T>)> {
    survey.parts.iter().flat_map(|surveyed| {
        let files = surveyed.part.views.iter();
        files
            .map(|file| file.image.display().to_string())
            .zip(&surveyed.views)
    })
}

/// Warnings about classes that have fewer than two good parts to train on.
pub fn small_classes<T>(survey: &Survey<T>) -> Vec<String> {
    let mut good: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for surveyed in &survey.parts {
        let (parts, images) = good.entry(&surveyed.part.class).or_default();
        if !surveyed.is_anomalous() {
            *parts += 1;
            *images += surveyed.views.len();
        }
    }
    let tell = |(class, (parts, images)): (&str, (usize, usize))| match parts {
        0 => Some(format!(
            "class `{class}` has no good part: nothing is known of what good parts look like"
        )),
        1 => Some(format!(
            "class `{class}` has one good part of `{images}` images: how good parts differ cannot \
             be known from it, expect good parts to be called bad"
        )),
        _ => None,
    };
    good.into_iter().filter_map(tell).collect()
}

/// How many parts of each class lack which view. `expected` are the views that every part has; where
/// they are not known, each view that some part of the class has is expected of all.
fn missing_views<'a>(
    expected: &[&'a str],
    parts: impl Iterator<Item = &'a PartFolder>,
) -> Option<String> {
    let mut classes: BTreeMap<&str, Vec<&PartFolder>> = BTreeMap::new();
    for part in parts {
        classes.entry(&part.class).or_default().push(part);
    }
    let mut table = String::new();
    for (class, parts) in classes {
        let mut views: BTreeSet<&str> = expected.iter().copied().collect();
        views.extend(
            parts
                .iter()
                .flat_map(|part| part.views.iter())
                .map(|view| view.view.as_str()),
        );
        for view in views {
            let has = |part: &&&PartFolder| part.views.iter().any(|file| file.view == view);
            let missing = parts.len() - parts.iter().filter(has).count();
            if missing > 0 {
                let parts = parts.len();
                writeln!(table, "  | {class} | {view} | {missing} of {parts} |")
                    .expect("writing to a string cannot fail");
            }
        }
    }
    let head = "views are missing from some parts, which count with the views that they have:\n  \
                | class | view | missing from parts |\n  | --- | --- | --: |\n";
    (!table.is_empty()).then(|| format!("{head}{}", table.trim_end()))
}

/// Images that are in two parts.
fn twins<T>(survey: &Survey<T>) -> Option<String> {
    let mut first: HashMap<u64, (usize, String)> = HashMap::new();
    let mut found = Vec::new();
    for (index, surveyed) in survey.parts.iter().enumerate() {
        for (file, view) in surveyed.part.views.iter().zip(&surveyed.views) {
            let image = file.image.display().to_string();
            match first.get(&view.digest) {
                Some((part, twin)) if *part != index => found.push(format!("{twin} and {image}")),
                Some(_) => {}
                None => {
                    first.insert(view.digest, (index, image));
                }
            }
        }
    }
    told(
        &found,
        "are in two parts, byte by byte: one of them has a wrong name, or counts twice",
    )
}

fn told(found: &[String], meaning: &str) -> Option<String> {
    if found.is_empty() {
        return None;
    }
    let mut text = format!("`{}` images {meaning}", found.len());
    for pair in found.iter().take(NAMED) {
        write!(text, "\n  {pair}").expect("writing to a string cannot fail");
    }
    if found.len() > NAMED {
        write!(text, "\n  and {} more", found.len() - NAMED)
            .expect("writing to a string cannot fail");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::testing::{source, write_image, write_level};
    use super::super::{Unreadable, survey};
    use super::*;

    fn surveyed(root: &Path) -> Survey<()> {
        let parts = source(root).list().unwrap().parts;
        survey(parts, Unreadable::Refuse, |_| Ok(())).unwrap()
    }

    fn told_of(root: &Path) -> String {
        findings(Layout::Folders, &surveyed(root)).join("\n")
    }

    #[test]
    fn a_sound_set_has_no_findings() {
        let folder = tempfile::tempdir().unwrap();
        for (level, name) in ["p1/left", "p1/top", "p2/left", "p2/top"]
            .iter()
            .enumerate()
        {
            write_level(&folder.path().join(format!("bolt/{name}.png")), level as u8);
        }
        assert_eq!(told_of(folder.path()), "");
    }

    #[test]
    fn missing_views_are_counted_by_class_and_view() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "bolt/p1/left",
            "bolt/p1/top",
            "bolt/p2/top",
            "bolt/p3/top",
            "gear/p1/top",
            "gear/p2/top",
        ];
        for (level, name) in names.iter().enumerate() {
            write_level(&folder.path().join(format!("{name}.png")), level as u8);
        }
        let text = told_of(folder.path());
        assert!(text.contains("| bolt | left | 2 of 3 |"), "{text}");
        assert!(
            !text.contains("| gear") && !text.contains("| bolt | top"),
            "{text}"
        );
        let survey = surveyed(folder.path());
        let parts = survey.parts.iter().map(|surveyed| &surveyed.part);
        let text = missing_views(&["back", "top"], parts).unwrap();
        assert!(text.contains("| gear | back | 2 of 2 |"), "{text}");
    }

    #[test]
    fn a_class_with_one_good_part_is_told() {
        let folder = tempfile::tempdir().unwrap();
        write_level(&folder.path().join("bolt/p1/top.png"), 1);
        let warnings = small_classes(&surveyed(folder.path()));
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].contains("class `bolt` has one good part of `1` images"),
            "{warnings:?}"
        );
        write_level(&folder.path().join("bolt/p2/top.png"), 2);
        assert!(small_classes(&surveyed(folder.path())).is_empty());
    }

    #[test]
    fn an_image_in_two_parts_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bolt/p1/left", "bolt/p1/top", "gear/p2/top"] {
            write_level(&folder.path().join(format!("{name}.png")), 1);
        }
        let text = told_of(folder.path());
        assert!(text.contains("`1` images are in two parts"), "{text}");
        assert!(
            text.contains("bolt/p1/left.png and") && text.contains("gear/p2/top.png"),
            "{text}"
        );
    }

    #[test]
    fn training_images_in_the_test_split_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, level| write_level(&folder.path().join(name), level);
        write("bottle/train/good/000.png", 1);
        write("bottle/train/good/001.png", 2);
        write("bottle/test/good/007.png", 2);
        write("bottle/test/good/008.png", 3);
        let source = source(folder.path());
        let listing = source.list().unwrap();
        let others = source.list_other(&listing).unwrap();
        let survey = surveyed(folder.path());
        let text = across_splits(&survey, &others).unwrap().unwrap();
        assert!(text.contains("`1` images are in the other split"), "{text}");
        assert!(
            text.contains("001.png") && text.contains("007.png"),
            "{text}"
        );
        write_image(
            &folder.path().join("bottle/test/good/007.png"),
            &image::GrayImage::new(9, 9).into(),
        );
        assert_eq!(across_splits(&survey, &others).unwrap(), None);
    }
}
