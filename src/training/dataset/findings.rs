//! What a person should know of a data set before relying on it: nothing here stops a run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::path::Path;

use rayon::prelude::*;

use super::files::{digest_bytes, read_bytes};
use super::survey::{Survey, tell};
use super::{Layout, PartFolder, fault};
use crate::training::TrainingError;

/// As many twins are named.
const NAMED: usize = 5;

/// As many views that are missing are listed.
const ROWS: usize = 20;

/// Warnings about the surveyed parts of a set in `layout`, each a text of one or more lines: missing
/// views, and images that are in two parts.
pub fn findings<T>(layout: Layout, survey: &Survey<T>) -> Vec<String> {
    let parts = survey.parts.iter().map(|surveyed| &surveyed.part);
    let warnings = [missing_views(layout.views(), parts), twins(survey)];
    warnings.into_iter().flatten().collect()
}

/// Warnings about images of the good parts of `survey`, which are trained on, that are also among
/// `images`, which figures are made on; `place` says what these are. Only files that are as long as
/// a surveyed one are read. One that cannot be read is told and hides no other.
pub fn twins_in<T>(survey: &Survey<T>, images: &[&Path], place: &str) -> Vec<String> {
    let mut names = HashMap::new();
    let mut lengths = HashSet::new();
    for (view, surveyed) in good_views(survey) {
        lengths.insert(surveyed.bytes);
        names.insert(surveyed.digest, view);
    }
    let twin = |image: &&Path| -> Result<Option<String>, TrainingError> {
        let length = std::fs::metadata(image).map_err(|error| fault(image, error))?;
        if !lengths.contains(&length.len()) {
            return Ok(None);
        }
        let name = names.get(&digest_bytes(&read_bytes(image)?));
        Ok(name.map(|name| format!("{name} and {}", image.display())))
    };
    let looked_at: Vec<_> = images.par_iter().map(twin).collect();
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for result in looked_at {
        match result {
            Ok(pair) => found.extend(pair),
            Err(error) => unreadable.push(error),
        }
    }
    let meaning = format!(
        "are in {place}, too, byte by byte: figures on images that were trained on say nothing"
    );
    let unread = (!unreadable.is_empty()).then(|| {
        let count = unreadable.len();
        format!(
            "`{count}` images of {place} cannot be read, so whether they are trained on is not \
             known:\n{}",
            tell(&unreadable)
        )
    });
    [told(&found, &meaning), unread]
        .into_iter()
        .flatten()
        .collect()
}

/// Every view of the good parts with the path of its image.
fn good_views<T>(survey: &Survey<T>) -> impl Iterator<Item = (String, &super::SurveyedView<T>)> {
    let good = survey.parts.iter().filter(|part| !part.is_anomalous());
    good.flat_map(|surveyed| {
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

/// A class's parts, and how many of them have each view.
#[derive(Default)]
struct ClassViews<'a> {
    parts: usize,
    having: BTreeMap<&'a str, usize>,
}

/// How many parts of each class lack which view. `expected` are the views that every part has; where
/// they are not known, each view that some part of the class has is expected of all.
fn missing_views<'a>(
    expected: &[&'a str],
    parts: impl Iterator<Item = &'a PartFolder>,
) -> Option<String> {
    let mut classes: BTreeMap<&str, ClassViews<'_>> = BTreeMap::new();
    for part in parts {
        let class = classes.entry(&part.class).or_default();
        class.parts += 1;
        for &view in expected {
            class.having.entry(view).or_default();
        }
        for file in &part.views {
            *class.having.entry(&file.view).or_default() += 1;
        }
    }
    let mut rows = Vec::new();
    for (class, views) in &classes {
        let parts = views.parts;
        let lacking = views.having.iter().filter(|(_, having)| **having < parts);
        rows.extend(lacking.map(|(view, having)| {
            let missing = parts - having;
            format!("\n  | {class} | {view} | {missing} of {parts} |")
        }));
    }
    if rows.is_empty() {
        return None;
    }
    let mut text =
        "views are missing from some parts, which count with the views that they have:\n  \
                    | class | view | missing from parts |\n  | --- | --- | --: |"
            .to_owned();
    text.extend(rows.iter().take(ROWS).map(String::as_str));
    if rows.len() > ROWS {
        write!(text, "\n  and {} more", rows.len() - ROWS)
            .expect("writing to a string cannot fail");
    }
    if are_mostly_alone(&classes) {
        text += "\n  most views are in one part only: the files' names seem not to be names of views, \
                 such as `top` in `<class>/<part>/top.jpg`";
    }
    Some(text)
}

/// Whether most views are in one part only, of classes of several parts.
fn are_mostly_alone(classes: &BTreeMap<&str, ClassViews<'_>>) -> bool {
    let several = classes.values().filter(|views| views.parts > 1);
    let having: Vec<usize> = several
        .flat_map(|views| views.having.values().copied())
        .collect();
    let alone = having.iter().filter(|&&having| having == 1).count();
    2 * alone > having.len()
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
    use std::path::PathBuf;

    use super::super::testing::{source, write_image, write_level};
    use super::super::{Unreadable, ViewFile, survey};
    use super::*;
    use crate::decode::WantedSize;

    fn surveyed(root: &Path) -> Survey<()> {
        let parts = source(root).list().unwrap().parts;
        survey(parts, Unreadable::Refuse, WantedSize::Full, |_| Ok(())).unwrap()
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
        assert!(!text.contains("names of views"), "{text}");
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
    fn names_that_are_no_names_of_views_are_told_in_few_lines() {
        let view = |name: String| ViewFile {
            view: name,
            image: PathBuf::new(),
            mask: None,
            is_labelled_defective: false,
        };
        let part = |number: usize| PartFolder {
            class: "bolt".to_owned(),
            part: number.to_string(),
            views: vec![
                view(format!("{number:04}-a")),
                view(format!("{number:04}-b")),
            ],
        };
        let parts: Vec<PartFolder> = (0..500).map(part).collect();
        let text = missing_views(&[], parts.iter()).unwrap();
        assert_eq!(text.lines().count(), 3 + ROWS + 2, "{text}");
        assert!(text.contains("| bolt | 0000-a | 499 of 500 |"), "{text}");
        assert!(text.contains("\n  and 980 more\n"), "{text}");
        assert!(text.contains("seem not to be names of views"), "{text}");
        let few = missing_views(&["0000-a", "0000-b"], parts[..1].iter());
        assert_eq!(few, None);
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
    fn training_images_among_those_to_measure_on_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, level| write_level(&folder.path().join(name), level);
        write("train/bolt/p0/top.png", 1);
        write("train/bolt/p1/top.png", 2);
        write("labelled/bolt/p7/top.png", 2);
        write("labelled/bolt/p8/top.png", 3);
        let survey = surveyed(&folder.path().join("train"));
        let labelled = ["p7", "p8"].map(|part| {
            let name = format!("labelled/bolt/{part}/top.png");
            folder.path().join(name)
        });
        let images = labelled.each_ref().map(PathBuf::as_path);
        let found = |survey: &Survey<()>| twins_in(survey, &images, "the validation data");
        let warnings = found(&survey);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        let text = &warnings[0];
        assert!(
            text.contains("`1` images are in the validation data"),
            "{text}"
        );
        assert!(text.contains("p1/top.png and"), "{text}");
        assert!(text.contains("p7/top.png"), "{text}");
        let wider = image::GrayImage::new(9, 9);
        write_image(&labelled[0], &wider.into());
        assert_eq!(found(&survey), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_cannot_be_read_hides_no_twin() {
        let folder = tempfile::tempdir().unwrap();
        let path = |part: &str| folder.path().join(format!("bolt/{part}/top.png"));
        write_level(&path("p1"), 2);
        let survey = surveyed(folder.path());
        let images = [path("absent"), path("p1")];
        let images = images.each_ref().map(PathBuf::as_path);
        let warnings = twins_in(&survey, &images, "the other split");
        assert!(warnings[0].contains("`1` images are in the other split"));
        assert!(warnings[1].contains("`1` images of the other split cannot be read"));
        assert!(warnings[1].contains("absent/top.png"), "{warnings:?}");
    }

    #[test]
    fn parts_that_are_not_trained_on_have_no_twins() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("bolt/p1/top.png");
        write_level(&image, 2);
        let mut survey = surveyed(folder.path());
        let twins = |survey: &Survey<()>| twins_in(survey, &[image.as_path()], "the test").len();
        assert_eq!(twins(&survey), 1);
        survey.parts[0].views[0].is_anomalous = true;
        assert_eq!(twins(&survey), 0);
    }
}
