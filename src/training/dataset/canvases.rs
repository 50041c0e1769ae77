//! Images of good parts for pretraining, small enough to be held all together.

use super::survey::{Survey, Unreadable, survey};
use super::{Listing, PartFolder};
use crate::decode::WantedSize;
use crate::domain::RgbImage;
use crate::model::preprocess::{Normalisation, Preprocessor};
use crate::training::TrainingError;
use crate::training::canvas::Canvas;

/// Surveys a data set for pretraining at `side`, keeping each image as a canvas. If not all of them
/// fit into `memory` bytes, as many as do are chosen, evenly over the list, and the others are not
/// read.
///
/// # Errors
/// As [`survey`].
pub fn survey_canvases(
    listing: &Listing,
    side: usize,
    memory: u64,
    unreadable: Unreadable,
) -> Result<Survey<Canvas>, TrainingError> {
    let preprocessor =
        Preprocessor::new(Normalisation::imagenet(side), side).map_err(TrainingError::Setting)?;
    let canvas_bytes = (3 * side * side * size_of::<f32>()) as u64;
    let room = usize::try_from(memory / canvas_bytes.max(1)).unwrap_or(usize::MAX);
    let parts = thin(&listing.parts, room);
    survey(parts, unreadable, WantedSize::Full, |image| {
        let small = preprocessor.resize_and_crop(image);
        Ok(canvas(&small.map_err(|error| error.to_string())?, side))
    })
}

/// The canvases of the parts without a defect.
pub fn good_canvases(survey: Survey<Canvas>) -> Vec<Canvas> {
    let good = survey.parts.into_iter().filter(|part| !part.is_anomalous());
    good.flat_map(|part| part.views)
        .map(|view| view.kept)
        .collect()
}

/// At most `room` of the images, evenly chosen.
fn thin(parts: &[PartFolder], room: usize) -> Vec<PartFolder> {
    let images: usize = parts.iter().map(|part| part.views.len()).sum();
    let mut thinned = parts.to_vec();
    let mut index = 0;
    // An image is chosen where the number chosen so far falls behind its share.
    let mut is_chosen = || {
        let chosen = index * room / images != (index + 1) * room / images;
        index += 1;
        chosen
    };
    if room < images {
        for part in &mut thinned {
            part.views.retain(|_| is_chosen());
        }
        thinned.retain(|part| !part.views.is_empty());
    }
    thinned
}

fn canvas(image: &RgbImage, side: usize) -> Canvas {
    let area = side * side;
    let mut values = vec![0.0; 3 * area];
    for (index, pixel) in image.pixels.chunks_exact(3).enumerate() {
        for channel in 0..3 {
            values[channel * area + index] = f32::from(pixel[channel]) / 255.0;
        }
    }
    Canvas { side, values }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{source, write_level};
    use super::*;

    #[test]
    fn as_many_canvases_as_fit_are_chosen_evenly() {
        let folder = tempfile::tempdir().unwrap();
        for part in 0..5 {
            for view in ["left", "top"] {
                let name = format!("bolt/p{part}/{view}.png");
                write_level(&folder.path().join(name), 10 * part);
            }
        }
        let listing = source(folder.path()).list().unwrap();
        let levels = |memory: u64| -> Vec<u8> {
            let survey = survey_canvases(&listing, 2, memory, Unreadable::Refuse).unwrap();
            let level = |canvas: Canvas| (canvas.values[0] * 255.0).round() as u8;
            good_canvases(survey).into_iter().map(level).collect()
        };
        let canvas_bytes = 3 * 2 * 2 * 4;
        let all = [0, 0, 10, 10, 20, 20, 30, 30, 40, 40];
        assert_eq!(levels(u64::MAX), all);
        assert_eq!(levels(10 * canvas_bytes), all);
        assert_eq!(levels(6 * canvas_bytes - 1), [0, 10, 20, 30, 40]);
        assert_eq!(levels(2 * canvas_bytes), [20, 40]);
    }
}
