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
use crate::kafka::client::BusSettings;
use crate::kafka::record_lookup::{Absence, RecordLookup};
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

/// What is told of results.
const ABSENT_RESULTS: &str = "results of flipped parts that could not be read again";

/// What is told of images.
const ABSENT_IMAGES: &str = "images of flipped parts that are not shown";

/// The first flips of a comparison, in detail.
#[derive(Debug, Default)]
pub(super) struct Details {
    flips: Vec<FlipDetails>,
    /// Results and images that could not be read again, and why.
    absent: Absent,
}

/// The images to be read of one topic: by place, of which flip and which view.
type WantedImages = BTreeMap<SourceOffset, BTreeSet<(usize, String)>>;

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
    /// Topics that could not be read further, in sentences.
    topics: Vec<String>,
}

/// A topic that could not be read to the last record that was asked for.
struct Unread {
    topic: Topic,
    records: usize,
    error: TopicReaderError,
}

impl Details {
    /// Reads both results of the first flips again, as far as they can be read, and adds their views to
    /// them.
    pub(super) fn read(found: &mut Comparison, topics: &ComparedTopics, count: usize) -> Self {
        let count = count.min(found.flips.len());
        let flips = &mut found.flips[..count];
        let mut details = Self::default();
        details.flips.resize_with(flips.len(), FlipDetails::default);
        for (side, topic) in [&topics.a, &topics.b].into_iter().enumerate() {
            details.read_side(&topics.bus, topic, (side, flips));
        }
        for (flip, details) in flips.iter_mut().zip(&details.flips) {
            if let [Some(a), Some(b)] = &details.results {
                flip.views = Some(view_changes(a, b));
            }
        }
        details
    }

    fn read_side(&mut self, bus: &BusSettings, topic: &Topic, (side, flips): (usize, &[Flip])) {
        let places = flips.iter().map(|flip| [flip.a.place, flip.b.place][side]);
        let places = places.map(|place| source(topic, place));
        let by_place: HashMap<SourceOffset, usize> = places.zip(0..).collect();
        let unread = look_up(bus, topic, by_place.keys(), |place, record| {
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
        });
        let told = unread.map(|unread| unread.told(ABSENT_RESULTS));
        self.absent.topics.extend(told);
    }

    /// Reads the images of the flips' views, as far as they are there and can be read.
    pub(super) fn read_pictures(&mut self, found: &Comparison, bus: &BusSettings) {
        let mut topics: BTreeMap<Topic, WantedImages> = BTreeMap::new();
        for (index, flip) in self.flips.iter().enumerate() {
            for (view, place) in flip.sources() {
                let wanted = topics.entry(place.topic.clone()).or_default();
                wanted.entry(place).or_default().insert((index, view));
            }
        }
        for (topic, wanted) in topics {
            self.read_images(found, bus, &topic, &wanted);
        }
    }

    fn read_images(
        &mut self,
        found: &Comparison,
        bus: &BusSettings,
        topic: &Topic,
        wanted: &WantedImages,
    ) {
        let decoder = decoder();
        let unread = look_up(bus, topic, wanted.keys(), |place, record| {
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
        });
        let told = unread.map(|unread| unread.told(ABSENT_IMAGES));
        self.absent.topics.extend(told);
    }

    /// The flips that were read again, in the comparison's order.
    pub(super) fn flips(&self) -> &[FlipDetails] {
        &self.flips
    }

    /// What could not be read again, for people; nothing is left out in silence.
    pub(super) fn notices(&self) -> Vec<String> {
        let Absent {
            results,
            images,
            topics,
        } = &self.absent;
        let kinds = [(ABSENT_RESULTS, results), (ABSENT_IMAGES, images)];
        let told = kinds.into_iter().filter(|(_, absent)| !absent.is_empty());
        let told = told.map(|(what, absent)| {
            let mut named = absent.clone();
            named.sort_unstable();
            named.truncate(NAMED);
            counted(what, absent.len() as u64, &named)
        });
        told.chain(topics.iter().cloned()).collect()
    }
}

impl Unread {
    fn told(&self, what: &str) -> String {
        let Self {
            topic,
            records,
            error,
        } = self;
        format!("{what}: {records} of topic `{topic}`, which could not be read ({error})")
    }
}

/// Reads these records of one topic again, as far as it can be read; tells what was not. Each topic has a
/// client of its own, which knows nothing of what became of another.
fn look_up<'a>(
    bus: &BusSettings,
    topic: &Topic,
    places: impl ExactSizeIterator<Item = &'a SourceOffset>,
    mut take: impl FnMut(SourceOffset, Result<Record, Absence>),
) -> Option<Unread> {
    let mut records = places.len();
    if records == 0 {
        return None;
    }
    let read = RecordLookup::connect(bus, PATIENCE).and_then(|lookup| {
        lookup.read(places.cloned(), |place, record| {
            records -= 1;
            take(place, record);
        })
    });
    let error = read.err().filter(|_| records > 0)?;
    Some(Unread {
        topic: topic.clone(),
        records,
        error,
    })
}

impl FlipDetails {
    /// Where each view's image came from: B's record where it names one, else A's.
    fn sources(&self) -> BTreeMap<String, SourceOffset> {
        let views = self
            .results
            .iter()
            .flatten()
            .flat_map(|result| &result.views);
        let place = |view: &View| Some((view.view.clone(), judged_record(view)?));
        views.filter_map(place).collect()
    }

    /// The record that A judged for a view, where B judged another one: the image that is shown is B's.
    pub(super) fn other_record_of_a(&self, view: &str) -> Option<SourceOffset> {
        let judged = self.results.each_ref().map(|result| {
            let mut views = result.as_ref()?.views.iter();
            views.find(|one| one.view == view).and_then(judged_record)
        });
        let [Some(a), Some(b)] = judged else {
            return None;
        };
        (a != b).then_some(a)
    }
}

/// Where the record of a view is, if the view had one.
fn judged_record(view: &View) -> Option<SourceOffset> {
    let source = view.source.as_ref()?;
    Some(SourceOffset {
        topic: source.topic.as_str().into(),
        partition: source.partition,
        offset: source.offset,
    })
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
    use crate::comparison::testing::{compare, result};
    use crate::domain::Header;
    use crate::schema::result::Decision;

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

    #[test]
    fn a_topic_that_cannot_be_read_is_told_once_with_what_is_missing() {
        let property = ("no.such.property".to_owned(), "1".to_owned());
        let bus = BusSettings {
            brokers: "kafka:9092".to_owned(),
            properties: [property].into(),
        };
        let results = [
            result("p", 7, Decision::Ok, 0.1),
            result("p", 8, Decision::Ng, 0.9),
        ];
        let found = compare(&[], &[], &[]);
        let flip = |result: &PartResult| FlipDetails {
            results: [None, Some(result.clone())],
            pictures: HashMap::new(),
        };
        let mut details = Details::of(results.iter().map(flip).collect());
        details.read_pictures(&found, &bus);
        let [notice] = &details.notices()[..] else {
            panic!("{:?}", details.notices());
        };
        let expected = "images of flipped parts that are not shown: 2 of topic `cam`, which could not be \
                        read (kafka client for `kafka:9092` cannot be made: ";
        assert!(notice.starts_with(expected), "{notice}");
    }
}
