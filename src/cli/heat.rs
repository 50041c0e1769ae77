//! Colours of anomaly maps, the same wherever one is drawn.

use std::io::Cursor;

use image::{ExtendedColorType, ImageFormat};

use crate::domain::EncodedMap;
use crate::scoring::maps::decode_levels;

/// Where the heat begins and where it is full, as shares of the threshold: below half of it
/// nothing is worth a look, and one and a half times is beyond doubt.
const HEAT_FROM: f32 = 0.5;
const HEAT_FULL: f32 = 1.5;
/// How much of the picture full heat covers.
const HEAT_COVER: f32 = 0.75;

/// Red, green, blue and opacity of a map's value over a picture: nothing up to half the threshold,
/// then yellow to red.
pub(super) fn overlay(score: f32, threshold: f32) -> [u8; 4] {
    let heat = (score / threshold - HEAT_FROM) / (HEAT_FULL - HEAT_FROM);
    let heat = heat.clamp(0.0, 1.0);
    [255, byte(0.9 * (1.0 - heat)), 0, byte(heat * HEAT_COVER)]
}

/// The map as a see-through PNG to lie over its picture; none where it cannot be decoded or nothing is
/// hot.
pub(super) fn overlay_picture(map: &EncodedMap, threshold: f32) -> Option<Vec<u8>> {
    if threshold <= 0.0 {
        return None;
    }
    let levels = decode_levels(map).ok()?;
    let mut is_hot = false;
    let mut pixels = Vec::with_capacity(levels.len() * 4);
    for level in levels {
        let pixel = overlay(map.offset + map.scale * f32::from(level), threshold);
        is_hot |= pixel[3] > 0;
        pixels.extend(pixel);
    }
    if !is_hot {
        return None;
    }
    let mut png = Cursor::new(Vec::new());
    let (width, height) = (map.width, map.height);
    let colour = ExtendedColorType::Rgba8;
    image::write_buffer_with_format(&mut png, &pixels, width, height, colour, ImageFormat::Png)
        .ok()?;
    Some(png.into_inner())
}

fn byte(share: f32) -> u8 {
    (share * 255.0).round() as u8
}

/// A map's level by itself: black over red and yellow to white, each over a third of the levels.
pub(super) fn level_colour(level: u8) -> [u8; 3] {
    let third = |start: u16| {
        let above = u16::from(level).saturating_sub(start) * 3;
        u8::try_from(above).unwrap_or(u8::MAX)
    };
    [third(0), third(85), third(170)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_rise_from_black_to_white() {
        assert_eq!(level_colour(0), [0, 0, 0]);
        assert_eq!(level_colour(85), [255, 0, 0]);
        assert_eq!(level_colour(170), [255, 255, 0]);
        assert_eq!(level_colour(255), [255, 255, 255]);
    }

    #[test]
    fn heat_begins_at_half_the_threshold() {
        assert_eq!(overlay(0.1, 0.2)[3], 0);
        assert_eq!(overlay(0.0, 0.2)[3], 0);
        let [at, beyond] = [0.2, 9.0].map(|score| overlay(score, 0.2));
        assert!(at[3] > 0 && at[3] < beyond[3]);
        assert_eq!(beyond, [255, 0, 0, 191]);
    }
}
