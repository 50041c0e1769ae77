//! The images that a network is trained on, prepared: from memory, or from their files each time.
//!
//! A prepared image of Real-IAD takes 1.8 MB, its 36,465 training images 67 GB. So what is kept in
//! memory is the 8-bit image just before normalisation, a quarter of that; and where even that is
//! more than allowed, images are read, decoded and prepared anew whenever they are asked for. Either
//! way the same index gives the same values.

use std::borrow::Cow;
use std::hash::Hasher as _;
use std::ops::Range;
use std::path::PathBuf;

use rayon::prelude::*;
use twox_hash::XxHash3_64;

use super::PartFolder;
use super::fault;
use super::files::{decode, digest_bytes, read_bytes};
use super::survey::{Survey, Unreadable, survey};
use crate::decode::WantedSize;
use crate::domain::{MapFootprint, RgbImage};
use crate::model::preprocess::Preprocessor;
use crate::model::{InputImage, Subject};
use crate::training::{TrainingError, digest};

/// One good part to train on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingPart {
    /// Its class.
    pub class: String,
    /// Its name.
    pub part: String,
    /// The names of its views, in the order of the images.
    pub views: Vec<String>,
    /// Which of the images are its views.
    pub images: Range<usize>,
}

/// Prepared images of good parts, by index.
#[derive(Debug)]
pub struct TrainingImages {
    parts: Vec<TrainingPart>,
    held: Held,
    digest: u64,
}

#[derive(Debug)]
enum Held {
    /// Prepared by the caller.
    Given(Vec<InputImage>),
    /// To be normalised.
    Kept(Vec<Crop>, Preprocessor),
    /// To be read.
    Files(Vec<File>, Preprocessor),
}

/// An image resized and cropped, in 8 bits.
#[derive(Debug)]
pub struct Crop {
    image: RgbImage,
    footprint: MapFootprint,
}

impl Crop {
    fn new(image: &RgbImage, preprocessor: &Preprocessor) -> Result<Self, String> {
        let cropped = preprocessor.resize_and_crop(image);
        Ok(Self {
            image: cropped.map_err(|error| error.to_string())?,
            footprint: preprocessor.footprint(image.width, image.height),
        })
    }

    fn normalise(&self, preprocessor: &Preprocessor) -> InputImage {
        preprocessor.normalise(&self.image, self.footprint)
    }
}

/// A file, and the digest of its bytes when it was first read.
#[derive(Debug)]
struct File {
    path: PathBuf,
    digest: u64,
}

/// The survey of the parts to train on. The 8-bit images are kept if all of them fit into `memory`
/// bytes.
///
/// # Errors
/// As [`survey`].
pub fn survey_for_training(
    parts: Vec<PartFolder>,
    preprocessor: &Preprocessor,
    memory: u64,
    unreadable: Unreadable,
) -> Result<Survey<Option<Crop>>, TrainingError> {
    let images: usize = parts.iter().map(|part| part.views.len()).sum();
    let side = preprocessor.input_side() as u64;
    let is_kept = (images as u64).saturating_mul(3 * side * side) <= memory;
    survey(parts, unreadable, WantedSize::Full, |image| {
        is_kept.then(|| Crop::new(image, preprocessor)).transpose()
    })
}

impl TrainingImages {
    /// The images of the surveyed parts that have no defect.
    pub fn of_good_parts(survey: Survey<Option<Crop>>, preprocessor: Preprocessor) -> Self {
        let mut parts = Vec::new();
        let (mut files, mut crops) = (Vec::new(), Vec::new());
        for surveyed in survey.parts {
            if surveyed.is_anomalous() {
                continue;
            }
            let first = files.len();
            let mut names = Vec::with_capacity(surveyed.views.len());
            for (file, view) in surveyed.part.views.into_iter().zip(surveyed.views) {
                names.push(file.view);
                let (path, digest) = (file.image, view.digest);
                files.push(File { path, digest });
                crops.extend(view.kept);
            }
            parts.push(TrainingPart {
                class: surveyed.part.class,
                part: surveyed.part.part,
                views: names,
                images: first..files.len(),
            });
        }
        let mut hasher = XxHash3_64::with_seed(0);
        // The same bytes prepared otherwise are other data.
        hasher.write(format!("{preprocessor:?}").as_bytes());
        for file in &files {
            hasher.write_u64(file.digest);
        }
        hash_parts(&mut hasher, &parts);
        let held = match crops.len() == files.len() {
            true => Held::Kept(crops, preprocessor),
            false => Held::Files(files, preprocessor),
        };
        Self {
            parts,
            held,
            digest: hasher.finish(),
        }
    }

    /// Images that are prepared already: of each part its class and its views; parts and views are
    /// named by their numbers.
    pub fn given(parts: impl IntoIterator<Item = (String, Vec<InputImage>)>) -> Self {
        let mut ranges = Vec::new();
        let mut images = Vec::new();
        for (number, (class, views)) in parts.into_iter().enumerate() {
            let first = images.len();
            let names = (0..views.len()).map(|view| view.to_string());
            let names = names.collect();
            images.extend(views);
            ranges.push(TrainingPart {
                class,
                part: number.to_string(),
                views: names,
                images: first..images.len(),
            });
        }
        let mut hasher = XxHash3_64::with_seed(0);
        hasher.write_u64(digest(images.iter().map(|image| image.values.as_slice())));
        hash_parts(&mut hasher, &ranges);
        Self {
            digest: hasher.finish(),
            parts: ranges,
            held: Held::Given(images),
        }
    }

    /// How many images there are.
    pub fn len(&self) -> usize {
        match &self.held {
            Held::Given(images) => images.len(),
            Held::Kept(crops, _) => crops.len(),
            Held::Files(files, _) => files.len(),
        }
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The parts, in the order of their images.
    pub fn parts(&self) -> &[TrainingPart] {
        &self.parts
    }

    /// What an image shows.
    ///
    /// # Panics
    /// When there is no such image.
    pub fn subject(&self, image: usize) -> Subject {
        let part = self.parts.partition_point(|part| part.images.end <= image);
        let part = &self.parts[part];
        Subject {
            class: part.class.as_str().into(),
            view: part.views[image - part.images.start].as_str().into(),
        }
    }

    /// Whether images are read from their files each time.
    pub fn reads_files(&self) -> bool {
        matches!(self.held, Held::Files(..))
    }

    /// A digest of all images and of which of them are a part of which class; the same whether they
    /// are kept or read.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// An image, prepared.
    ///
    /// # Errors
    /// When its file cannot be read any more or has changed since it was first read.
    ///
    /// # Panics
    /// When there is no such image.
    pub fn image(&self, index: usize) -> Result<Cow<'_, InputImage>, TrainingError> {
        match &self.held {
            Held::Given(images) => Ok(Cow::Borrowed(&images[index])),
            Held::Kept(crops, preprocessor) => Ok(Cow::Owned(crops[index].normalise(preprocessor))),
            Held::Files(files, preprocessor) => files[index].prepare(preprocessor).map(Cow::Owned),
        }
    }

    /// Some images, prepared on all cores.
    ///
    /// # Errors
    /// As [`image`](Self::image).
    ///
    /// # Panics
    /// As [`image`](Self::image).
    pub fn images(&self, chosen: &[usize]) -> Result<Vec<Cow<'_, InputImage>>, TrainingError> {
        match &self.held {
            Held::Given(_) => chosen.iter().map(|&index| self.image(index)).collect(),
            _ => chosen.par_iter().map(|&index| self.image(index)).collect(),
        }
    }
}

/// The same images grouped otherwise are other data.
fn hash_parts(hasher: &mut XxHash3_64, parts: &[TrainingPart]) {
    for part in parts {
        hasher.write(part.class.as_bytes());
        // No UTF-8 text has this byte.
        hasher.write_u8(0xff);
        for view in &part.views {
            hasher.write(view.as_bytes());
            hasher.write_u8(0xff);
        }
        hasher.write_u64(part.images.start as u64);
        hasher.write_u64(part.images.end as u64);
    }
}

impl File {
    fn prepare(&self, preprocessor: &Preprocessor) -> Result<InputImage, TrainingError> {
        let bytes = read_bytes(&self.path)?;
        if digest_bytes(&bytes) != self.digest {
            let message = "expected the bytes that were there when training began, found others";
            return Err(fault(&self.path, message));
        }
        let image = decode(&self.path, &bytes)?;
        preprocessor
            .prepare(&image)
            .map_err(|error| fault(&self.path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::super::list_parts;
    use super::super::testing::write_level;
    use super::*;
    use crate::model::preprocess::Normalisation;

    fn preprocessor(side: usize) -> Preprocessor {
        Preprocessor::new(Normalisation::imagenet(side + 2), side).unwrap()
    }

    fn read(root: &std::path::Path, side: usize, memory: u64) -> TrainingImages {
        let masks = root.join("masks");
        let parts = list_parts(&root.join("images"), masks.is_dir().then_some(&masks)).unwrap();
        let preprocessor = preprocessor(side);
        let survey = survey_for_training(parts, &preprocessor, memory, Unreadable::Refuse).unwrap();
        TrainingImages::of_good_parts(survey, preprocessor)
    }

    fn write_parts(root: &std::path::Path) {
        for (index, name) in ["bolt/p1/left", "bolt/p1/top", "bolt/p2/top", "gear/p3/top"]
            .iter()
            .enumerate()
        {
            let level = 40 * (index as u8 + 1);
            write_level(&root.join(format!("images/{name}.png")), level);
        }
    }

    #[test]
    fn an_image_is_the_same_whether_it_is_kept_or_read() {
        let folder = tempfile::tempdir().unwrap();
        write_parts(folder.path());
        let needed = 4 * 3 * 6 * 6;
        let kept = read(folder.path(), 6, needed);
        let files = read(folder.path(), 6, needed - 1);
        assert!(!kept.reads_files() && files.reads_files());
        assert_eq!((kept.len(), files.len()), (4, 4));
        assert_eq!(kept.digest(), files.digest());
        assert_eq!(kept.parts(), files.parts());
        for index in 0..4 {
            let (kept, read) = (kept.image(index).unwrap(), files.image(index).unwrap());
            assert_eq!(kept.values, read.values);
            assert_eq!(kept.footprint, read.footprint);
        }
        let chosen = files.images(&[2, 0]).unwrap();
        assert_eq!(chosen[0].values, kept.image(2).unwrap().values);
        assert_eq!(chosen[1].values, kept.image(0).unwrap().values);
    }

    #[test]
    fn images_belong_to_parts_and_classes() {
        let folder = tempfile::tempdir().unwrap();
        write_parts(folder.path());
        let images = read(folder.path(), 6, u64::MAX);
        let ranges: Vec<_> = images.parts().iter().map(|p| p.images.clone()).collect();
        assert_eq!(ranges, [0..2, 2..3, 3..4]);
        let names = (0..4).map(|index| images.subject(index).to_string());
        let expected = ["bolt/left", "bolt/top", "bolt/top", "gear/top"];
        assert!(names.eq(expected));
    }

    #[test]
    fn parts_with_a_defect_are_no_training_images() {
        let folder = tempfile::tempdir().unwrap();
        write_parts(folder.path());
        write_level(&folder.path().join("masks/bolt/p1/top.png"), 1);
        write_level(&folder.path().join("masks/bolt/p2/top.png"), 0);
        for memory in [0, u64::MAX] {
            let images = read(folder.path(), 6, memory);
            let classes: Vec<&str> = images.parts().iter().map(|p| p.class.as_str()).collect();
            assert_eq!(classes, ["bolt", "gear"]);
            assert_eq!(images.len(), 2);
        }
    }

    #[test]
    fn other_bytes_or_another_preparation_are_other_data() {
        let folder = tempfile::tempdir().unwrap();
        write_parts(folder.path());
        let first = read(folder.path(), 6, 0);
        assert_ne!(first.digest(), read(folder.path(), 5, 0).digest());
        write_level(&folder.path().join("images/bolt/p2/top.png"), 7);
        assert_ne!(first.digest(), read(folder.path(), 6, 0).digest());
        let error = first.image(2).unwrap_err().to_string();
        assert!(error.contains("p2/top.png"), "{error}");
        assert!(error.contains("found others"), "{error}");
        assert!(first.image(1).is_ok());
    }

    #[test]
    fn the_same_images_in_other_classes_or_parts_are_other_data() {
        let digest = |names: [&str; 3]| {
            let folder = tempfile::tempdir().unwrap();
            for (level, name) in names.iter().enumerate() {
                let path = folder.path().join(format!("images/{name}.png"));
                write_level(&path, 40 * (level as u8 + 1));
            }
            read(folder.path(), 6, 0).digest()
        };
        let first = digest(["bolt/p1/left", "bolt/p1/top", "bolt/p2/top"]);
        let renamed = digest(["bolt/q1/left", "bolt/q1/top", "bolt/q2/top"]);
        assert_eq!(first, renamed);
        let divided = digest(["bolt/p1/left", "bolt/p2/left", "bolt/p2/top"]);
        assert_ne!(first, divided);
        let sorted_otherwise = digest(["bolt/p1/left", "bolt/p1/top", "gear/p2/top"]);
        assert_ne!(first, sorted_otherwise);
    }
}
