//! The layouts that data sets come in, and which of them a folder has.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::{PartFolder, fault, folders, mvtec, real_iad, visa};
use crate::training::TrainingError;

/// How a data set lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `<class>/<part>/<view>.jpg`, masks at the same relative paths below another folder.
    Folders,
    /// Real-IAD: images below `realiad_1024/`, a table a class below `realiad_jsons/`.
    RealIad,
    /// MVTec AD: `<class>/train/good/`, `<class>/test/<defect>/`, `<class>/ground_truth/<defect>/`.
    Mvtec,
    /// VisA as published, with its one-class split `split_csv/1cls.csv`.
    Visa,
}

impl Layout {
    /// All layouts; what is surest to be told from the others comes first.
    pub const ALL: [Self; 4] = [Self::RealIad, Self::Visa, Self::Mvtec, Self::Folders];

    /// Its name, as flags have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Folders => "folders",
            Self::RealIad => "real-iad",
            Self::Mvtec => "mvtec",
            Self::Visa => "visa",
        }
    }

    /// What it is recognised by.
    fn mark(self) -> &'static str {
        match self {
            Self::Folders => "`<class>/<part>/<view>.jpg`",
            Self::RealIad => "`realiad_jsons/<class>.json`",
            Self::Mvtec => "`<class>/train/good/`",
            Self::Visa => "`split_csv/1cls.csv`",
        }
    }

    /// The views that every part has, where the layout knows them.
    pub fn views(self) -> &'static [&'static str] {
        match self {
            Self::RealIad => &real_iad::VIEWS,
            _ => &[],
        }
    }

    /// The layout of a folder: the first whose mark is there, else plain folders.
    fn detect(root: &Path) -> Result<Self, TrainingError> {
        let has_mark = |layout: &Self| match layout {
            Self::RealIad => Ok(real_iad::is_at(root)),
            Self::Visa => Ok(visa::is_at(root)),
            Self::Mvtec => mvtec::is_at(root),
            Self::Folders => Ok(true),
        };
        if root.join("train").join("good").is_dir() {
            // As plain folders, its `train` and `test` would be two classes of good parts.
            let message = "expected a data set, found one class in the layout `mvtec`: name the \
                           folder above";
            return Err(fault(root, message));
        }
        for layout in Self::ALL {
            if has_mark(&layout)? {
                return Ok(layout);
            }
        }
        Ok(Self::Folders)
    }
}

/// Which share of a data set that has been divided by its authors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Good parts to train on.
    Train,
    /// Good and bad parts to measure on.
    Test,
}

impl Split {
    /// Its name, as flags and tables have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Train => Self::Test,
            Self::Test => Self::Train,
        }
    }
}

/// Where a data set lies and what of it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSource {
    /// Its folder.
    pub root: PathBuf,
    /// Folder of the masks, for [`Layout::Folders`] alone: the other layouts have their own.
    pub masks: Option<PathBuf>,
    /// Its layout; found out if not given.
    pub layout: Option<Layout>,
    /// The split that was asked for, if one was.
    pub split: Option<Split>,
    /// The split if none was asked for; plain folders have none.
    pub default_split: Split,
}

/// The parts of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Its layout.
    pub layout: Layout,
    /// The split that is listed, where the layout has splits.
    pub split: Option<Split>,
    /// Its parts, by class.
    pub parts: Vec<PartFolder>,
    /// What a person should know of it.
    pub warnings: Vec<String>,
}

impl Listing {
    pub(super) fn new(layout: Layout, split: Option<Split>) -> Self {
        Self {
            layout,
            split,
            parts: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Notes a class; one that has no part does not go by in silence.
    pub(super) fn class(&mut self, class: &str, is_empty: bool) {
        if is_empty {
            let split = match self.split {
                Some(split) => format!(" in its `{}` split", split.as_str()),
                None => String::new(),
            };
            let warning = format!("class `{class}` has no image{split}: nothing is known of it");
            self.warnings.push(warning);
        }
    }
}

impl DataSource {
    /// Lists its parts.
    ///
    /// # Errors
    /// When no layout fits, a folder or table cannot be read or contradicts itself, a flag does not
    /// fit the layout, or there is no part.
    pub fn list(&self) -> Result<Listing, TrainingError> {
        let layout = match self.layout {
            Some(layout) => layout,
            None => Layout::detect(&self.root)?,
        };
        self.check_flags(layout)?;
        let split = self.split.unwrap_or(self.default_split);
        let listing = match layout {
            Layout::Folders => folders::list(&self.root, self.masks.as_deref()),
            Layout::RealIad => real_iad::list(&self.root, split),
            Layout::Mvtec => mvtec::list(&self.root, split),
            Layout::Visa => visa::list(&self.root, split),
        }?;
        if listing.parts.is_empty() {
            let message = match (self.layout, layout) {
                (None, Layout::Folders) => self.nothing_fits(),
                _ => no_parts(layout, listing.split),
            };
            let reasons = listing
                .warnings
                .iter()
                .map(|warning| format!("; {warning}"));
            let message = message + &reasons.collect::<String>();
            return Err(fault(&self.root, message));
        }
        check_names(&self.root, &listing.parts)?;
        Ok(listing)
    }

    /// Lists the other split, where the layout has one.
    ///
    /// # Errors
    /// As [`list`](Self::list), but a split without parts is an empty list.
    pub fn list_other(&self, listing: &Listing) -> Result<Vec<PartFolder>, TrainingError> {
        let Some(split) = listing.split else {
            return Ok(Vec::new());
        };
        let other = match listing.layout {
            Layout::Folders => return Ok(Vec::new()),
            Layout::RealIad => real_iad::list(&self.root, split.other()),
            Layout::Mvtec => mvtec::list(&self.root, split.other()),
            Layout::Visa => visa::list(&self.root, split.other()),
        };
        Ok(other?.parts)
    }

    fn check_flags(&self, layout: Layout) -> Result<(), TrainingError> {
        let name = layout.as_str();
        match (layout, &self.masks, self.split) {
            (Layout::Folders, _, Some(split)) => Err(fault(
                &self.root,
                format!(
                    "layout `{name}` has no splits, expected none, found `{}`",
                    split.as_str()
                ),
            )),
            (Layout::RealIad | Layout::Mvtec | Layout::Visa, Some(masks), _) => Err(fault(
                masks,
                format!("layout `{name}` has its own masks, expected no folder of masks"),
            )),
            _ => Ok(()),
        }
    }

    fn nothing_fits(&self) -> String {
        let looked_for: Vec<String> = Layout::ALL
            .iter()
            .map(|layout| format!("{} ({})", layout.mark(), layout.as_str()))
            .collect();
        let has = |name: &str| self.root.join(name).is_dir();
        let hint = if has("images") && has("masks") {
            "; there are `images/` and `masks/`: name them as the data and the masks"
        } else {
            ""
        };
        format!(
            "expected a data set, looked for {}, found none of them{hint}",
            looked_for.join(", ")
        )
    }
}

/// What is wrong with a folder that has no part in a layout.
pub(super) fn no_parts(layout: Layout, split: Option<Split>) -> String {
    let split = match split {
        Some(split) => format!(" for the split `{}`", split.as_str()),
        None => String::new(),
    };
    format!(
        "expected images in the layout `{}` ({}){split}, found none",
        layout.as_str(),
        layout.mark()
    )
}

/// Two parts of one name would overwrite each other's results.
fn check_names(root: &Path, parts: &[PartFolder]) -> Result<(), TrainingError> {
    let mut names = HashSet::new();
    match parts
        .iter()
        .find(|part| !names.insert((&part.class, &part.part)))
    {
        Some(part) => Err(fault(
            root,
            format!(
                "expected part names of class `{}` to differ, found `{}` twice",
                part.class, part.part
            ),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{source, write_level};
    use super::*;

    #[test]
    fn a_folder_that_fits_no_layout_is_refused_with_what_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let listed = |root: &Path| source(root).list().unwrap_err().to_string();
        let error = listed(folder.path());
        for mark in [
            "`realiad_jsons/<class>.json`",
            "`split_csv/1cls.csv`",
            "`<class>/train/good/`",
        ] {
            assert!(error.contains(mark), "{error}");
        }
        write_level(&folder.path().join("images/bolt/p1/top.png"), 1);
        write_level(&folder.path().join("masks/bolt/p1/top.png"), 1);
        let error = listed(folder.path());
        assert!(
            error.contains("there are `images/` and `masks/`"),
            "{error}"
        );
        write_level(&folder.path().join("bottle/train/good/000.png"), 1);
        let error = listed(&folder.path().join("bottle"));
        assert!(error.contains("name the folder above"), "{error}");
    }

    #[test]
    fn a_layout_that_was_named_is_not_guessed() {
        let folder = tempfile::tempdir().unwrap();
        write_level(&folder.path().join("bottle/train/good/000.png"), 1);
        let mut source = source(folder.path());
        assert_eq!(source.list().unwrap().layout, Layout::Mvtec);
        source.layout = Some(Layout::Folders);
        let error = source.list().unwrap_err().to_string();
        assert!(
            error.contains("`folders`") && !error.contains("csv"),
            "{error}"
        );
    }

    #[test]
    fn flags_that_the_layout_has_no_use_for_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        write_level(&folder.path().join("bolt/p1/top.png"), 1);
        let mut plain = source(folder.path());
        plain.split = Some(Split::Test);
        let error = plain.list().unwrap_err().to_string();
        assert!(error.contains("has no splits"), "{error}");
        let other = tempfile::tempdir().unwrap();
        write_level(&other.path().join("bottle/train/good/000.png"), 1);
        let mut divided = source(other.path());
        divided.masks = Some(folder.path().to_owned());
        let error = divided.list().unwrap_err().to_string();
        assert!(error.contains("has its own masks"), "{error}");
    }

    #[test]
    fn a_class_without_images_is_told() {
        let folder = tempfile::tempdir().unwrap();
        write_level(&folder.path().join("bolt/p1/top.png"), 1);
        std::fs::create_dir(folder.path().join("gear")).unwrap();
        let warnings = source(folder.path()).list().unwrap().warnings;
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("class `gear` has no image"));
    }
}
