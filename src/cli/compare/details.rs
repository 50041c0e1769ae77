//! The flipped parts that a report shows with their views: both results read again, and the views'
//! images as far as they are still on their camera topics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use image::codecs::jpeg::JpegEncoder;
use image::{RgbImage, imageops};

use super::notices::counted;
use super::topics::ComparedTopics;
use crate::comparison::{Comparison, Flip, Place, view_changes};
use crate::decode::{EnvelopeDecoder, EnvelopeSettings, ImageLimits, WantedSize, decode_pixels};
use crate::domain::{Record, SourceOffset, Timestamp, Topic};
use crate::kafka::record_lookup::RecordLookup;
use crate::kafka::topic_reader::TopicReaderError;
use crate::schema::published::Published;
use crate::schema::result::{PartResult, View};

/// How long the brokers may give no answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longer side of a picture in the report: ten of them side by side fill a wide screen.
const PICTURE_SIDE: u32 = 256;

/// Pictures are for a look, not for measuring.
const JPEG_QUALITY: u8 = 80;

/// How many reasons are told in full.
const NAMED: usize = 5;

/// The first flips of a comparison, in detail.
#[derive(Debug, Default)]
pub(super) struct Details {
    flips: Vec<FlipDetails>,
    /// Results and images that could not be read again, and why.
    absent: Absent,
}

/// Both results of one flipped part, and pictures of its views.
#[derive(Debug, Default)]
pub(super) struct FlipDetails {
    /// A's result and B's; none where it could not be read again.
    pub(super) results: [Option<PartResult>; 2],
    /// By view.
    pub(super) pictures: HashMap<String, Picture>,
}

/// A view's image, made smaller.
#[derive(Debug)]
pub(super) struct Picture {
    /// JPEG.
    pub(super) bytes: Vec<u8>,
    /// Width of the original, in pixels.
    pub(super) width: u32,
    /// Height of the original.
    pub(super) height: u32,
}

#[derive(Debug, Default)]
struct Absent {
    results: Vec<String>,
    images: Vec<String>,
}

impl Details {
    /// Reads both results of the first flips again and adds their views to them.
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub(super) fn read(
        found: &mut Comparison,
        topics: &ComparedTopics,
        count: usize,
    ) -> Result<Self, TopicReaderError> {
        let count = count.min(found.flips.len());
        let flips = &mut found.flips[..count];
        let mut details = Self::default();
        details.flips.resize_with(flips.len(), FlipDetails::default);
        if flips.is_empty() {
            return Ok(details);
        }
        let lookup = RecordLookup::connect(&topics.bus, PATIENCE)?;
        for (side, topic) in [&topics.a, &topics.b].into_iter().enumerate() {
            details.read_side(&lookup, topic, (side, flips))?;
        }
        for (flip, details) in flips.iter_mut().zip(&details.flips) {
            if let [Some(a), Some(b)] = &details.results {
                flip.views = Some(view_changes(a, b));
            }
        }
        Ok(details)
    }

    fn read_side(
        &mut self,
        lookup: &RecordLookup,
        topic: &Topic,
        (side, flips): (usize, &[Flip]),
    ) -> Result<(), TopicReaderError> {
        let places = flips.iter().map(|flip| [flip.a.place, flip.b.place][side]);
        let places = places.map(|place| source(topic, place));
        let by_place: HashMap<SourceOffset, usize> = places.zip(0..).collect();
        lookup.read(by_place.keys().cloned(), |place, record| {
            let index = by_place[&place];
            let result = record.map_err(|why| why.to_string()).and_then(|record| {
                match Published::read(&record) {
                    Published::Result(result) => Ok(*result),
                    _ => Err("there is another record in its place".to_owned()),
                }
            });
            match result {
                Ok(result) => self.flips[index].results[side] = Some(result),
                Err(why) => {
                    let part = &flips[index].part_id;
                    self.absent
                        .results
                        .push(format!("`{part}`, {place}: {why}"));
                }
            }
        })
    }

    /// Reads the images of the flips' views, as far as they are there.
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub(super) fn read_pictures(
        &mut self,
        found: &Comparison,
        topics: &ComparedTopics,
    ) -> Result<(), TopicReaderError> {
        let mut wanted: BTreeMap<SourceOffset, BTreeSet<(usize, String)>> = BTreeMap::new();
        for (index, flip) in self.flips.iter().enumerate() {
            for (view, place) in flip.sources() {
                wanted.entry(place).or_default().insert((index, view));
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let decoder = decoder();
        let lookup = RecordLookup::connect(&topics.bus, PATIENCE)?;
        lookup.read(wanted.keys().cloned(), |place, record| {
            let record = record.map(Arc::new).map_err(|why| why.to_string());
            for (index, view) in &wanted[&place] {
                let part = &found.flips[*index].part_id;
                let record = record.as_ref().map_err(String::clone);
                match record.and_then(|record| picture(&decoder, record, part)) {
                    Ok(picture) => {
                        self.flips[*index].pictures.insert(view.clone(), picture);
                    }
                    Err(why) => {
                        let named = format!("`{part}` `{view}`, {place}: {why}");
                        self.absent.images.push(named);
                    }
                }
            }
        })
    }

    /// The flips that were read again, in the comparison's order.
    pub(super) fn flips(&self) -> &[FlipDetails] {
        &self.flips
    }

    /// What could not be read again, for people; nothing is left out in silence.
    pub(super) fn notices(&self) -> Vec<String> {
        let Absent { results, images } = &self.absent;
        let kinds = [
            (
                "results of flipped parts that could not be read again",
                results,
            ),
            ("images of flipped parts that are not shown", images),
        ];
        let told = kinds.into_iter().filter(|(_, absent)| !absent.is_empty());
        told.map(|(what, absent)| {
            let mut named = absent.clone();
            named.sort_unstable();
            named.truncate(NAMED);
            counted(what, absent.len() as u64, &named)
        })
        .collect()
    }
}

impl FlipDetails {
    /// Where each view's image came from: B's record where it names one, else A's.
    fn sources(&self) -> BTreeMap<String, SourceOffset> {
        let views = self
            .results
            .iter()
            .flatten()
            .flat_map(|result| &result.views);
        let place = |view: &View| {
            let source = view.source.as_ref()?;
            let place = SourceOffset {
                topic: source.topic.as_str().into(),
                partition: source.partition,
                offset: source.offset,
            };
            Some((view.view.clone(), place))
        };
        views.filter_map(place).collect()
    }
}

fn source(topic: &Topic, place: Place) -> SourceOffset {
    SourceOffset {
        topic: topic.clone(),
        partition: place.partition,
        offset: place.offset,
    }
}

/// Line and class do not matter for a picture.
fn decoder() -> EnvelopeDecoder {
    EnvelopeDecoder::new(EnvelopeSettings {
        default_line: "".into(),
        default_class: None,
        limits: ImageLimits::default(),
    })
}

/// The record's image made smaller, if the record is of this part: a topic that was made anew has
/// others at the same places.
fn picture(decoder: &EnvelopeDecoder, record: &Arc<Record>, part: &str) -> Result<Picture, String> {
    let view = decoder.decode(Arc::clone(record), Timestamp(0));
    let view = view.map_err(|reject| reject.error)?;
    if view.part.part.as_str() != part {
        let found = &view.part.part;
        return Err(format!(
            "expected a record of part `{part}`, found one of `{found}`"
        ));
    }
    let wanted = WantedSize::AtLeast(PICTURE_SIDE);
    let decoded = decode_pixels(&view, &ImageLimits::default(), wanted);
    let decoded = decoded.map_err(|error| error.message)?;
    let (width, height) = decoded.original;
    let pixels = decoded.into_rgb();
    let image = RgbImage::from_raw(pixels.width, pixels.height, pixels.pixels)
        .ok_or("its pixels are not as many as its sides say")?;
    let longer = image.width().max(image.height()).max(1);
    let small = match longer > PICTURE_SIDE {
        true => {
            let side = |side: u32| (side * PICTURE_SIDE / longer).max(1);
            imageops::thumbnail(&image, side(image.width()), side(image.height()))
        }
        false => image,
    };
    let mut bytes = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .encode_image(&small)
        .map_err(|error| error.to_string())?;
    Ok(Picture {
        bytes: bytes.into_inner(),
        width,
        height,
    })
}

#[cfg(test)]
impl Details {
    /// As if read: the flips' details, and what was absent.
    pub(super) fn of(flips: Vec<FlipDetails>) -> Self {
        Self {
            flips,
            absent: Absent::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{ImageFormat, Rgb};

    use super::*;
    use crate::domain::Header;

    /// A camera's record of a part, with a picture of this size.
    fn record(part: &str, width: u32, height: u32) -> Arc<Record> {
        let image = RgbImage::from_pixel(width, height, Rgb([200, 100, 50]));
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, ImageFormat::Png).unwrap();
        Arc::new(Record {
            source: SourceOffset {
                topic: "cam.top".into(),
                partition: 0,
                offset: 7,
            },
            generation: 0,
            key: Some(part.as_bytes().to_vec()),
            value: Some(png.into_inner()),
            headers: vec![Header {
                name: "content-type".to_owned(),
                value: Some(b"image/png".to_vec()),
            }],
            timestamp: None,
            lease: None,
        })
    }

    #[test]
    fn pictures_are_small_and_keep_their_shape() {
        let picture = picture(&decoder(), &record("p", 1024, 512), "p").unwrap();
        assert_eq!((picture.width, picture.height), (1024, 512));
        let small = image::load_from_memory(&picture.bytes).unwrap().into_rgb8();
        assert_eq!(small.dimensions(), (256, 128));
        let [red, green, blue] = small.get_pixel(100, 60).0;
        assert!(red.abs_diff(200) < 4 && green.abs_diff(100) < 4 && blue.abs_diff(50) < 4);
        let tiny = super::picture(&decoder(), &record("p", 3, 1), "p").unwrap();
        assert_eq!((tiny.width, tiny.height), (3, 1));
    }

    #[test]
    fn a_record_of_another_part_is_not_shown() {
        let error = picture(&decoder(), &record("q", 8, 8), "p").unwrap_err();
        assert_eq!(error, "expected a record of part `p`, found one of `q`");
    }

    #[test]
    fn what_is_absent_is_counted_and_the_first_few_named() {
        let mut details = Details::default();
        assert!(details.notices().is_empty());
        details.absent.images = (0..7).map(|number| format!("image {number}")).collect();
        let expected = "images of flipped parts that are not shown: 7 (image 0; image 1; image 2; \
                        image 3; image 4; ...)";
        assert_eq!(details.notices(), [expected]);
    }
}
