//! Overlays for the report: anomaly maps as colours, defect masks as outlines, all as data URIs.

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use crate::domain::AnomalyMap;

/// A map is shown at this side at most; browsers smooth it over the picture.
const MAX_MAP_SIDE: usize = 64;
/// Colours are rounded to this many steps, which keeps the PNGs small.
const COLOR_STEPS: f32 = 40.0;
/// Scores below this share of the threshold stay clear.
pub(super) const CLEAR_BELOW: f32 = 0.5;
/// Scores above this share of the threshold have the last colour.
pub(super) const FULL_ABOVE: f32 = 1.6;

/// Bytes as a `data:` URI.
pub(super) fn data_uri(media_type: &str, bytes: &[u8]) -> String {
    format!("data:{media_type};base64,{}", STANDARD.encode(bytes))
}

/// The colour of a score at `share` of the way from clear to full, with its opacity.
pub(super) fn heat_color(share: f32) -> [u8; 4] {
    const STOPS: [[f32; 4]; 6] = [
        [40.0, 60.0, 200.0, 0.0],
        [60.0, 70.0, 230.0, 95.0],
        [150.0, 50.0, 200.0, 150.0],
        [235.0, 60.0, 80.0, 185.0],
        [255.0, 150.0, 20.0, 205.0],
        [255.0, 240.0, 90.0, 225.0],
    ];
    let place = share.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let below = (place as usize).min(STOPS.len() - 2);
    let rest = place - below as f32;
    std::array::from_fn(|channel| {
        let (low, high) = (STOPS[below][channel], STOPS[below + 1][channel]);
        (low + (high - low) * rest).round() as u8
    })
}

/// A map as a see-through PNG: clear well below `threshold`, hot above it.
pub(super) fn heat_overlay(map: &AnomalyMap, threshold: Option<f32>) -> anyhow::Result<String> {
    let cells = map.width.checked_mul(map.height);
    ensure!(
        cells == Some(map.values.len()) && !map.values.is_empty(),
        "map of {}x{} has {} values",
        map.width,
        map.height,
        map.values.len()
    );
    let highest = map.values.iter().copied().fold(f32::MIN, f32::max);
    let reference = threshold
        .filter(|&it| it > 0.0)
        .unwrap_or(highest.max(f32::MIN_POSITIVE));
    let (width, height) = (map.width.min(MAX_MAP_SIDE), map.height.min(MAX_MAP_SIDE));
    let mut pixels = Vec::with_capacity(width * height * 4);
    for y in 0..height {
        for x in 0..width {
            let score = highest_within(map, (x, width), (y, height));
            let share = (score / reference - CLEAR_BELOW) / (FULL_ABOVE - CLEAR_BELOW);
            let stepped = (share.clamp(0.0, 1.0) * COLOR_STEPS).round() / COLOR_STEPS;
            pixels.extend_from_slice(&heat_color(stepped));
        }
    }
    png_uri(&pixels, width, height)
}

/// The highest score in the map cells that one shown cell stands for.
fn highest_within(
    map: &AnomalyMap,
    (x, width): (usize, usize),
    (y, height): (usize, usize),
) -> f32 {
    let span = |at: usize, shown: usize, side: usize| {
        let start = at * side / shown;
        start..((at + 1) * side / shown).max(start + 1)
    };
    let mut highest = f32::MIN;
    for row in span(y, height, map.height) {
        for column in span(x, width, map.width) {
            highest = highest.max(map.values[row * map.width + column]);
        }
    }
    highest
}

/// The outline of a mask as a see-through PNG; none if the mask is empty or of another size.
pub(super) fn mask_outline(
    mask: &[bool],
    width: u32,
    height: u32,
) -> anyhow::Result<Option<String>> {
    const CYAN: [u8; 4] = [0, 245, 255, 255];
    let (width, height) = (width as usize, height as usize);
    if width.checked_mul(height) != Some(mask.len()) || !mask.contains(&true) {
        return Ok(None);
    }
    let mut pixels = vec![0; width * height * 4];
    for y in 0..height {
        for x in 0..width {
            if !mask[y * width + x] && has_neighbour(mask, (x, y), (width, height)) {
                let start = (y * width + x) * 4;
                pixels[start..start + 4].copy_from_slice(&CYAN);
            }
        }
    }
    png_uri(&pixels, width, height).map(Some)
}

/// Whether the mask holds a pixel at most two away.
fn has_neighbour(mask: &[bool], (x, y): (usize, usize), (width, height): (usize, usize)) -> bool {
    let rows = y.saturating_sub(2)..(y + 3).min(height);
    let columns = x.saturating_sub(2)..(x + 3).min(width);
    rows.into_iter()
        .any(|row| mask[row * width + columns.start..row * width + columns.end].contains(&true))
}

fn png_uri(pixels: &[u8], width: usize, height: usize) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::NoFilter)
        .write_image(
            pixels,
            u32::try_from(width)?,
            u32::try_from(height)?,
            ExtendedColorType::Rgba8,
        )
        .context("cannot encode an overlay")?;
    Ok(data_uri("image/png", &bytes))
}
