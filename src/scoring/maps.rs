//! Anomaly maps as they travel: made smaller, quantised to 8 bits, compressed; and back.
//!
//! Quantising divides the map's own range into 255 steps, so that a decoded score is at most half a
//! step (`scale / 2`) from the resized one. Both codecs give the same bytes for the same map.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _, ImageFormat};

use super::map_resize::shrink_to_side;
use crate::domain::{AnomalyMap, EncodedMap, MapCodec};

/// The widest and highest map that is decoded: sixteen times the default, so that a result from
/// elsewhere cannot ask for gigabytes.
pub const MAX_SIDE: u32 = 2048;

/// Steps between the lowest and the highest level of 8 bits.
const STEPS: f64 = 255.0;

/// zstd's own default: maps are small, higher levels gain little.
const ZSTD_LEVEL: i32 = 3;

/// The fast level: on a map of 128 pixels a side 0.2 ms instead of the default's 3.3 ms, for a fifth
/// more bytes.
const PNG_COMPRESSION: CompressionType = CompressionType::Fast;

/// How maps travel with the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSettings {
    /// Compression.
    pub codec: MapCodec,
    /// Longer edge in pixels; smaller maps stay as they are.
    pub side: u32,
}

/// Why an encoded map cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The stated size is zero or too large.
    #[error("map size must be from 1 to `{MAX_SIDE}` a side, found `{width}` x `{height}`")]
    Size {
        /// Stated width.
        width: u32,
        /// Stated height.
        height: u32,
    },
    /// The PNG is broken.
    #[error("map is no readable PNG: {0}")]
    Png(#[from] image::ImageError),
    /// The zstd frame is broken or too long.
    #[error("map is no readable zstd frame: {0}")]
    Zstd(#[source] std::io::Error),
    /// The data holds another number of pixels than stated.
    #[error("map should hold `{width}` x `{height}` pixels, found `{found}`")]
    WrongLength {
        /// Stated width.
        width: u32,
        /// Stated height.
        height: u32,
        /// What the data hold.
        found: String,
    },
}

/// Shrinks, quantises and compresses a map.
///
/// The map must be valid (not empty, of the stated size, finite), as
/// [`view_score`](super::view_score) checks.
///
/// ```
/// use panoptes::domain::{AnomalyMap, MapCodec};
/// use panoptes::scoring::{MapSettings, decode_map, encode_map};
/// let map = AnomalyMap { width: 2, height: 2, values: vec![0.0, 0.25, 0.5, 1.0] };
/// let encoded = encode_map(&map, MapSettings { codec: MapCodec::Png, side: 128 });
/// let decoded = decode_map(&encoded)?;
/// assert!((decoded.values[2] - 0.5).abs() <= encoded.scale / 2.0);
/// # Ok::<(), panoptes::scoring::MapError>(())
/// ```
///
/// # Panics
/// When the map is empty or not of the stated size.
pub fn encode_map(map: &AnomalyMap, settings: MapSettings) -> EncodedMap {
    let side = settings.side.clamp(1, MAX_SIDE);
    let small = shrink_to_side(map, side as usize);
    let width = u32::try_from(small.width).expect("no longer than the side");
    let height = u32::try_from(small.height).expect("no longer than the side");
    let (levels, scale, offset) = quantise(&small.values);
    let data = match settings.codec {
        MapCodec::Png => png(&levels, width, height),
        MapCodec::Zstd => {
            zstd::bulk::compress(&levels, ZSTD_LEVEL).expect("compressing in memory cannot fail")
        }
    };
    EncodedMap {
        codec: settings.codec,
        width,
        height,
        scale,
        offset,
        data,
    }
}

/// The scores of an encoded map.
///
/// # Errors
/// When the data are broken or do not hold what the map states.
pub fn decode_map(map: &EncodedMap) -> Result<AnomalyMap, MapError> {
    let levels = decode_levels(map)?;
    let (scale, offset) = (f64::from(map.scale), f64::from(map.offset));
    let values = levels
        .iter()
        .map(|level| (offset + scale * f64::from(*level)) as f32)
        .collect();
    Ok(AnomalyMap {
        width: map.width as usize,
        height: map.height as usize,
        values,
    })
}

/// The 8-bit levels of an encoded map, row by row, without their scale.
///
/// # Errors
/// As [`decode_map`].
pub fn decode_levels(map: &EncodedMap) -> Result<Vec<u8>, MapError> {
    let (width, height) = (map.width, map.height);
    let allowed = 1..=MAX_SIDE;
    if !allowed.contains(&width) || !allowed.contains(&height) {
        return Err(MapError::Size { width, height });
    }
    let wrong_length = |found: String| MapError::WrongLength {
        width,
        height,
        found,
    };
    let count = width as usize * height as usize;
    match map.codec {
        MapCodec::Png => {
            let mut reader =
                image::ImageReader::with_format(std::io::Cursor::new(&map.data), ImageFormat::Png);
            reader.limits(png_limits(width, height));
            let image = reader.decode()?.into_luma8();
            if image.dimensions() != (width, height) {
                return Err(wrong_length(format!(
                    "{} x {}",
                    image.width(),
                    image.height()
                )));
            }
            Ok(image.into_raw())
        }
        MapCodec::Zstd => {
            let levels = zstd::bulk::decompress(&map.data, count).map_err(MapError::Zstd)?;
            if levels.len() != count {
                return Err(wrong_length(levels.len().to_string()));
            }
            Ok(levels)
        }
    }
}

/// Enough for a PNG of the stated size in any colour type, and no more.
fn png_limits(width: u32, height: u32) -> image::Limits {
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(width);
    limits.max_image_height = Some(height);
    limits
}

/// Levels, scale and offset: `value = offset + scale * level`, off by `scale / 2` at most.
fn quantise(values: &[f32]) -> (Vec<u8>, f32, f32) {
    let lowest = values.iter().copied().fold(f32::INFINITY, f32::min);
    let highest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if highest <= lowest {
        return (vec![0; values.len()], 0.0, lowest);
    }
    let range = f64::from(highest) - f64::from(lowest);
    // A subnormal scale would be too coarse to divide by.
    let scale = ((range / STEPS) as f32).max(f32::MIN_POSITIVE);
    let levels = values
        .iter()
        .map(|value| {
            let steps = (f64::from(*value) - f64::from(lowest)) / f64::from(scale);
            steps.round().clamp(0.0, STEPS) as u8
        })
        .collect();
    (levels, scale, lowest)
}

fn png(levels: &[u8], width: u32, height: u32) -> Vec<u8> {
    let mut data = Vec::new();
    PngEncoder::new_with_quality(&mut data, PNG_COMPRESSION, FilterType::Adaptive)
        .write_image(levels, width, height, ExtendedColorType::L8)
        .expect("the levels fill the size and writing to memory cannot fail");
    data
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CODECS: [MapCodec; 2] = [MapCodec::Png, MapCodec::Zstd];

    fn settings(codec: MapCodec, side: u32) -> MapSettings {
        MapSettings { codec, side }
    }

    fn bump(side: usize) -> AnomalyMap {
        let centre = side as f32 / 3.0;
        let values = (0..side * side)
            .map(|index| {
                let (x, y) = ((index % side) as f32, (index / side) as f32);
                let distance = (x - centre).powi(2) + (y - centre).powi(2);
                0.05 + 0.4 * (-distance / (side as f32)).exp()
            })
            .collect();
        AnomalyMap {
            width: side,
            height: side,
            values,
        }
    }

    #[test]
    fn a_constant_map_comes_back_exactly() {
        for codec in CODECS {
            let map = AnomalyMap {
                width: 3,
                height: 2,
                values: vec![0.37; 6],
            };
            let encoded = encode_map(&map, settings(codec, 128));
            assert_eq!(encoded.scale, 0.0);
            assert_eq!(decode_map(&encoded).unwrap(), map);
        }
    }

    #[test]
    fn a_png_map_is_an_8_bit_grey_png() {
        let encoded = encode_map(&bump(256), settings(MapCodec::Png, 128));
        let image = image::load_from_memory_with_format(&encoded.data, ImageFormat::Png).unwrap();
        assert_eq!(image.color(), image::ColorType::L8);
        assert_eq!((image.width(), image.height()), (128, 128));
        let levels = image.into_luma8().into_raw();
        assert_eq!(levels.iter().min(), Some(&0));
        assert_eq!(levels.iter().max(), Some(&255));
    }

    #[test]
    fn gives_the_same_bytes_each_time() {
        for codec in CODECS {
            let map = bump(200);
            assert_eq!(
                encode_map(&map, settings(codec, 96)),
                encode_map(&map, settings(codec, 96))
            );
        }
    }

    #[test]
    fn extreme_ranges_stay_within_half_a_step() {
        for values in [
            vec![f32::MIN, 0.0, f32::MAX],
            vec![0.0, 1e-45],
            vec![1000.0, 1000.0001],
        ] {
            let (levels, scale, offset) = quantise(&values);
            for (value, level) in values.iter().zip(levels) {
                let decoded = f64::from(offset) + f64::from(scale) * f64::from(level);
                assert!((decoded - f64::from(*value)).abs() <= f64::from(scale) * 0.5000001);
            }
        }
    }

    #[test]
    fn refuses_broken_data_without_a_panic() {
        for codec in CODECS {
            let good = encode_map(&bump(32), settings(codec, 32));
            for length in [0, 1, good.data.len() / 2] {
                let mut cut = good.clone();
                cut.data.truncate(length);
                assert!(decode_map(&cut).is_err(), "{codec:?} cut to {length}");
            }
            let larger = EncodedMap {
                width: 33,
                ..good.clone()
            };
            assert!(decode_map(&larger).is_err());
            let smaller = EncodedMap {
                width: 31,
                ..good.clone()
            };
            assert!(decode_map(&smaller).is_err());
            for (width, height) in [(0, 32), (32, 0), (u32::MAX, u32::MAX)] {
                let sizeless = EncodedMap {
                    width,
                    height,
                    ..good.clone()
                };
                assert!(matches!(decode_map(&sizeless), Err(MapError::Size { .. })));
            }
        }
    }

    fn map_strategy() -> impl Strategy<Value = AnomalyMap> {
        (1usize..24, 1usize..24, -1e3f32..1e3, 1e-3f32..1e3).prop_flat_map(
            |(width, height, low, range)| {
                prop::collection::vec(0.0f32..1.0, width * height).prop_map(move |shares| {
                    AnomalyMap {
                        width,
                        height,
                        values: shares.iter().map(|share| low + share * range).collect(),
                    }
                })
            },
        )
    }

    proptest! {
        #[test]
        fn comes_back_within_half_a_step(map in map_strategy(), zstd in any::<bool>()) {
            let codec = CODECS[usize::from(zstd)];
            let encoded = encode_map(&map, settings(codec, 128));
            let decoded = decode_map(&encoded).unwrap();
            prop_assert_eq!((decoded.width, decoded.height), (map.width, map.height));
            for (before, after) in map.values.iter().zip(&decoded.values) {
                // The score is rounded to f32 once more after decoding.
                let rounding = before.abs().max(after.abs()) * f32::EPSILON;
                prop_assert!((before - after).abs() <= encoded.scale * 0.5 + rounding);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..200), zstd in any::<bool>()) {
            let map = EncodedMap {
                codec: CODECS[usize::from(zstd)],
                width: 8,
                height: 8,
                scale: 1.0,
                offset: 0.0,
                data,
            };
            prop_assert!(decode_map(&map).is_err());
        }
    }
}
