//! The flags that say where a data set is, shared by every command that reads one.
//!
//! What is said of the data goes to standard error: standard output is the command's own, and `eval`
//! writes JSON to it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, ensure};
use bytesize::ByteSize;
use clap::{Args, ValueEnum};

use crate::decode::WantedSize;
use crate::model::preprocess::Preprocessor;
use crate::training::TrainingError;
use crate::training::canvas::Canvas;
use crate::training::dataset::{
    DataSource, Layout, Listing, PartFolder, Split, Survey, SurveyedPart, TrainingImages,
    Unreadable, findings, good_canvases, small_classes, survey, survey_canvases,
    survey_for_training, tell, twins_in,
};

/// A labelled data set.
#[derive(Args, Clone, Debug)]
pub struct DataArguments {
    /// Folder of the data set, in one of the layouts of `--layout`
    #[arg(long, value_name = "FOLDER")]
    pub data: PathBuf,
    /// Folder of masks with the same relative paths as the images, where the layout is `folders`;
    /// no mask means good
    #[arg(long, value_name = "FOLDER")]
    pub masks: Option<PathBuf>,
    /// How it is read
    #[command(flatten)]
    pub reading: ReadingArguments,
}

/// What a model is trained on.
pub(crate) struct GoodParts {
    pub(crate) parts: Vec<PartFolder>,
    pub(crate) images: TrainingImages,
}

/// How a data set is read.
#[derive(Args, Clone, Copy, Debug)]
pub struct ReadingArguments {
    /// Layout of the data set
    #[arg(long, value_enum, default_value_t = LayoutChoice::Auto)]
    pub layout: LayoutChoice,
    /// Split, where the layout has any; if not given, `train` to train and `test` to measure
    #[arg(long, value_enum)]
    pub split: Option<SplitChoice>,
    /// Leave parts out of which an image or mask cannot be read or used, at most 5 % of them; faults
    /// in names and tables still end the command
    #[arg(long)]
    pub skip_unreadable: bool,
}

/// [`Layout`] as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LayoutChoice {
    /// Find out
    Auto,
    /// `<class>/<part>/<view>.<jpg|png|...>`
    Folders,
    /// Real-IAD: `realiad_1024/` and `realiad_jsons/`
    RealIad,
    /// MVTec AD: `<class>/train/good/`, `<class>/test/<defect>/`, `<class>/ground_truth/<defect>/`
    Mvtec,
    /// VisA as published, with `split_csv/1cls.csv`
    Visa,
}

/// [`Split`] as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SplitChoice {
    /// Good parts to train on
    Train,
    /// Good and bad parts to measure on
    Test,
}

impl DataArguments {
    /// Every part of the set, all files checked; a view that shows no defect has no mask.
    /// `default_split` is listed where the layout has splits and no flag chooses; images are decoded at
    /// the size at which they will be `wanted`.
    ///
    /// # Errors
    /// When the set cannot be listed or a file cannot be used.
    pub(crate) fn checked_parts(
        &self,
        default_split: Split,
        wanted: WantedSize,
    ) -> anyhow::Result<Vec<PartFolder>> {
        let (_, listing) = self.list(default_split)?;
        let (parts, unreadable) = (listing.parts.clone(), self.reading.unreadable());
        let survey = survey(parts, unreadable, wanted, |_| Ok(()))
            .map_err(|error| self.reading.with_hint(error))?;
        report(&listing, &survey);
        let parts = survey.parts.into_iter().map(without_empty_masks);
        Ok(parts.collect())
    }

    /// As [`checked_parts`](Self::checked_parts), of a set in which some part has a defect.
    ///
    /// # Errors
    /// As there, and when no part has one.
    pub(crate) fn labelled_parts(
        &self,
        default_split: Split,
        wanted: WantedSize,
    ) -> anyhow::Result<Vec<PartFolder>> {
        let parts = self.checked_parts(default_split, wanted)?;
        let reason = match &self.masks {
            None => "where the layout is `folders`, their masks must be named".to_owned(),
            Some(masks) => format!("no mask in `{}` has a pixel other than 0", masks.display()),
        };
        ensure!(
            parts.iter().any(has_defect),
            "expected defective parts in `{}`, found none: {reason}",
            self.data.display()
        );
        Ok(parts)
    }

    /// The parts without a defect and their images, as many of them as fit kept in `memory`. Warns
    /// of images that are also in the other split or in `labelled`, the parts to judge weights by.
    ///
    /// # Errors
    /// As [`checked_parts`](Self::checked_parts), and when there is no good part.
    pub(crate) fn good_parts(
        &self,
        preprocessor: Preprocessor,
        memory: ByteSize,
        labelled: &[PartFolder],
    ) -> anyhow::Result<GoodParts> {
        let (source, listing) = self.list(Split::Train)?;
        let survey = survey_for_training(
            listing.parts.clone(),
            &preprocessor,
            memory.as_u64(),
            self.reading.unreadable(),
        )
        .map_err(|error| self.reading.with_hint(error))?;
        report(&listing, &survey);
        for warning in small_classes(&survey) {
            warn(&warning);
        }
        for warning in measured_twins(&source, &listing, &survey, labelled) {
            warn(&warning);
        }
        let good = survey.parts.iter().filter(|part| !part.is_anomalous());
        let parts: Vec<PartFolder> = good.map(|part| part.part.clone()).collect();
        let bad = survey.parts.len() - parts.len();
        if bad > 0 {
            eprintln!("left {bad} parts with a defect out");
        }
        let images = TrainingImages::of_good_parts(survey, preprocessor);
        ensure!(
            !images.is_empty(),
            "expected good parts in `{}`, found none",
            self.data.display()
        );
        if images.reads_files() {
            eprintln!("images do not fit into {memory}: each is read whenever it is needed");
        }
        Ok(GoodParts { images, parts })
    }

    fn list(&self, default_split: Split) -> anyhow::Result<(DataSource, Listing)> {
        self.reading
            .list(&self.data, self.masks.as_deref(), default_split)
    }
}

impl ReadingArguments {
    /// The images of good parts below `folders`, as canvases of `side`, as many as `memory` holds.
    ///
    /// # Errors
    /// When a set cannot be listed or a file cannot be used.
    pub(crate) fn canvases(
        &self,
        folders: &[PathBuf],
        side: usize,
        memory: ByteSize,
    ) -> anyhow::Result<Vec<Canvas>> {
        let mut canvases = Vec::new();
        for folder in folders {
            let (_, listing) = self.list(folder, None, Split::Train)?;
            let room = memory.as_u64() / folders.len() as u64;
            let survey = survey_canvases(&listing, side, room, self.unreadable())
                .map_err(|error| self.with_hint(error))?;
            leave_out(&survey);
            for warning in &listing.warnings {
                warn(warning);
            }
            let all: usize = listing.parts.iter().map(|part| part.views.len()).sum();
            let found = good_canvases(survey);
            eprintln!("{}: {} of {all} images", folder.display(), found.len());
            canvases.extend(found);
        }
        Ok(canvases)
    }

    fn list(
        &self,
        root: &Path,
        masks: Option<&Path>,
        default_split: Split,
    ) -> anyhow::Result<(DataSource, Listing)> {
        let source = DataSource {
            root: root.to_owned(),
            masks: masks.map(Path::to_owned),
            layout: match self.layout {
                LayoutChoice::Auto => None,
                LayoutChoice::Folders => Some(Layout::Folders),
                LayoutChoice::RealIad => Some(Layout::RealIad),
                LayoutChoice::Mvtec => Some(Layout::Mvtec),
                LayoutChoice::Visa => Some(Layout::Visa),
            },
            split: self.split.map(|split| match split {
                SplitChoice::Train => Split::Train,
                SplitChoice::Test => Split::Test,
            }),
            default_split,
        };
        let listing = source.list().context("cannot list the data set")?;
        Ok((source, listing))
    }

    fn with_hint(self, error: TrainingError) -> anyhow::Error {
        match error {
            TrainingError::Unusable { .. } if !self.skip_unreadable => {
                anyhow!("{error}\n`--skip-unreadable` leaves such parts out, if they are few")
            }
            error => error.into(),
        }
    }

    fn unreadable(self) -> Unreadable {
        match self.skip_unreadable {
            true => Unreadable::LeaveOut,
            false => Unreadable::Refuse,
        }
    }
}

/// Whether a view of a checked part shows a defect.
pub(crate) fn has_defect(part: &PartFolder) -> bool {
    let mut views = part.views.iter();
    views.any(|view| view.is_labelled_defective || view.mask.is_some())
}

/// Some sets have a mask for every view, those of good ones all 0. Without these, a mask means a
/// defect to all that follows.
fn without_empty_masks<T>(surveyed: SurveyedPart<T>) -> PartFolder {
    let mut part = surveyed.part;
    for (file, view) in part.views.iter_mut().zip(&surveyed.views) {
        file.mask.take_if(|_| !view.is_anomalous);
    }
    part
}

/// Warnings about images to train on that are also in the set's other split or in `labelled`. Where
/// these are the other split, they are looked at once.
fn measured_twins<T>(
    source: &DataSource,
    listing: &Listing,
    survey: &Survey<T>,
    labelled: &[PartFolder],
) -> Vec<String> {
    let mut warnings = Vec::new();
    let others = source.list_other(listing).unwrap_or_else(|error| {
        warnings.push(format!(
            "the other split cannot be listed, so whether its images are trained on is not known: \
             {error}"
        ));
        Vec::new()
    });
    let others = images(&others);
    warnings.extend(twins_in(survey, &others, "the other split"));
    // One folder may have been written in two ways.
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let looked_at: HashSet<PathBuf> = others.iter().map(|path| whole(path)).collect();
    let mut labelled = images(labelled);
    labelled.retain(|path| !looked_at.contains(&whole(path)));
    warnings.extend(twins_in(survey, &labelled, "the validation data"));
    warnings
}

fn images(parts: &[PartFolder]) -> Vec<&Path> {
    let views = parts.iter().flat_map(|part| &part.views);
    views.map(|view| view.image.as_path()).collect()
}

/// Says what was found, and what a person should know of it.
fn report<T>(listing: &Listing, survey: &Survey<T>) {
    let parts = survey.parts.len();
    let images: usize = survey.parts.iter().map(|part| part.views.len()).sum();
    let split = match listing.split {
        Some(split) => format!(", split `{}`", split.as_str()),
        None => String::new(),
    };
    eprintln!(
        "data set in the layout `{}`{split}: {images} images of {parts} parts",
        listing.layout.as_str()
    );
    leave_out(survey);
    for warning in listing
        .warnings
        .iter()
        .chain(&findings(listing.layout, survey))
    {
        warn(warning);
    }
}

fn leave_out<T>(survey: &Survey<T>) {
    let left_out = &survey.left_out;
    if !left_out.is_empty() {
        let count = left_out.len();
        warn(&format!("left {count} parts out:\n{}", tell(left_out)));
    }
}

fn warn(text: &str) {
    eprintln!("warning: {text}");
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        data: DataArguments,
    }

    fn flags(root: &Path, more: &[&str]) -> DataArguments {
        let data = root.to_str().unwrap();
        let given = ["test", "--data", data].into_iter();
        Flags::try_parse_from(given.chain(more.iter().copied()))
            .unwrap()
            .data
    }

    fn write(path: &Path, level: u8) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let image = image::GrayImage::from_pixel(4, 4, image::Luma([level]));
        image.save(path).unwrap();
    }

    #[test]
    fn flags_choose_layout_and_split() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(&root.join("bottle/train/good/000.png"), 1);
        write(&root.join("bottle/test/crack/000.png"), 2);
        write(&root.join("bottle/ground_truth/crack/000_mask.png"), 255);
        let names = |more: &[&str], default: Split| -> Vec<String> {
            let parts = flags(root, more)
                .checked_parts(default, WantedSize::Full)
                .unwrap();
            parts.into_iter().map(|part| part.part).collect()
        };
        assert_eq!(names(&[], Split::Train), ["good-000"]);
        assert_eq!(names(&[], Split::Test), ["crack-000"]);
        let chosen = ["--layout", "mvtec", "--split", "train"];
        assert_eq!(names(&chosen, Split::Test), ["good-000"]);
        let wrong =
            flags(root, &["--layout", "visa"]).checked_parts(Split::Train, WantedSize::Full);
        assert!(wrong.is_err());
    }

    #[test]
    fn labels_are_needed_to_measure() {
        let folder = tempfile::tempdir().unwrap();
        let (images, masks) = (folder.path().join("images"), folder.path().join("masks"));
        write(&images.join("bolt/p1/top.png"), 1);
        let error = flags(&images, &[]).labelled_parts(Split::Test, WantedSize::Full);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("their masks must be named")
        );
        write(&masks.join("bolt/p1/top.png"), 1);
        let labelled = || {
            let more = ["--masks", masks.to_str().unwrap()];
            flags(&images, &more).labelled_parts(Split::Test, WantedSize::Full)
        };
        assert_eq!(labelled().unwrap().len(), 1);
        write(&masks.join("bolt/p1/top.png"), 0);
        let error = labelled().unwrap_err().to_string();
        assert!(error.contains("has a pixel other than 0"), "{error}");
    }

    #[test]
    fn a_mask_without_a_defect_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (images, masks) = (folder.path().join("images"), folder.path().join("masks"));
        for (part, view, level) in [("p1", "left", 0), ("p1", "top", 0), ("p2", "top", 9)] {
            let name = format!("bolt/{part}/{view}.png");
            write(&images.join(&name), 1);
            write(&masks.join(&name), level);
        }
        let more = ["--masks", masks.to_str().unwrap()];
        let parts = flags(&images, &more)
            .checked_parts(Split::Test, WantedSize::Full)
            .unwrap();
        let found: Vec<bool> = parts.iter().map(has_defect).collect();
        assert_eq!(found, [false, true]);
        assert_eq!(parts[1].views[0].mask, Some(masks.join("bolt/p2/top.png")));
    }

    #[test]
    fn training_images_that_are_measured_on_are_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(&root.join("set/bottle/train/good/000.png"), 1);
        write(&root.join("set/bottle/test/good/007.png"), 1);
        write(&root.join("labelled/bottle/test/good/008.png"), 1);
        let set = flags(&root.join("set"), &[]);
        let (source, listing) = set.list(Split::Train).unwrap();
        let survey = survey(
            listing.parts.clone(),
            Unreadable::Refuse,
            WantedSize::Full,
            |_| Ok(()),
        )
        .unwrap();
        let warnings = |labelled: &str, more: &[&str]| {
            let labelled =
                flags(&root.join(labelled), more).checked_parts(Split::Test, WantedSize::Full);
            measured_twins(&source, &listing, &survey, &labelled.unwrap())
        };
        let same = warnings("set", &[]);
        assert_eq!(same.len(), 1, "{same:?}");
        assert!(same[0].contains("are in the other split"), "{same:?}");
        let other = warnings("labelled", &["--layout", "mvtec"]);
        assert_eq!(other.len(), 2, "{other:?}");
        assert!(other[1].contains("are in the validation data"), "{other:?}");
        assert!(other[1].contains("008.png"), "{other:?}");
    }

    #[test]
    fn unreadable_parts_are_left_out_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        for part in 0..20 {
            write(&folder.path().join(format!("bolt/p{part}/top.png")), part);
        }
        std::fs::write(folder.path().join("bolt/p3/top.png"), "x").unwrap();
        let error = flags(folder.path(), &[]).checked_parts(Split::Test, WantedSize::Full);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("p3/top.png") && error.contains("--skip-unreadable"),
            "{error}"
        );
        let parts = flags(folder.path(), &["--skip-unreadable"])
            .checked_parts(Split::Test, WantedSize::Full);
        assert_eq!(parts.unwrap().len(), 19);
    }
}
