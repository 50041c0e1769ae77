//! Local alterations: what the pretext task asks the encoder to notice.
//!
//! An alteration changes a small area of an image in one of many generic ways (pasted from
//! elsewhere, blurred, warped, smoothed away, shaded, stroked, stained). The mask follows from the
//! pixels that really changed, so an alteration that cannot be seen counts as none.

use std::f32::consts::TAU;

use rand::Rng;

use super::canvas::Canvas;
use super::formula::wobble;
use super::value_noise::{noise, octaves};

/// A pixel counts as altered when a channel moved by more than this (of a range of 1).
const VISIBLE: f32 = 0.035;

/// An image with some places altered.
#[derive(Clone, Debug)]
pub struct Altered {
    /// The image after the alterations.
    pub canvas: Canvas,
    /// Whether each pixel visibly changed.
    pub mask: Vec<bool>,
}

/// How much of each pixel an alteration covers, within a bounding box.
struct Area {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    cover: Vec<f32>,
    centre: (f32, f32),
    radius: f32,
}

impl Area {
    /// A blob or a rectangle somewhere on the canvas.
    fn random(rng: &mut impl Rng, side: usize) -> Self {
        let radius = 1.6 * (16.0f32).powf(rng.random_range(0.0..1.0)) * side as f32 / 128.0;
        let centre = (place(rng) * side as f32, place(rng) * side as f32);
        let softness = if rng.random_bool(0.5) {
            0.7
        } else {
            radius * rng.random_range(0.1..0.6)
        };
        let outline = wobble(rng);
        if rng.random_bool(0.75) {
            Self::build(side, centre, radius, |dx, dy| {
                let distance = dx.hypot(dy) - radius * outline(dy.atan2(dx));
                0.5 - distance / (2.0 * softness)
            })
        } else {
            let (sin, cos) = rng.random_range(0.0..TAU).sin_cos();
            let ratio = rng.random_range(0.25..1.0);
            Self::build(side, centre, radius, |dx, dy| {
                let (u, v) = ((dx * cos + dy * sin).abs(), (dy * cos - dx * sin).abs());
                0.5 - (u - radius).max(v - radius * ratio) / (2.0 * softness)
            })
        }
    }

    fn build(
        side: usize,
        centre: (f32, f32),
        radius: f32,
        cover: impl Fn(f32, f32) -> f32,
    ) -> Self {
        let reach = radius * 2.2 + 2.0;
        let low = |at: f32| (at - reach).max(0.0) as usize;
        let high = |at: f32| ((at + reach) as usize + 1).min(side);
        let (left, top) = (low(centre.0), low(centre.1));
        let (width, height) = (high(centre.0) - left, high(centre.1) - top);
        let cover = (0..width * height)
            .map(|i| {
                let x = (left + i % width) as f32 - centre.0;
                let y = (top + i / width) as f32 - centre.1;
                cover(x, y).clamp(0.0, 1.0)
            })
            .collect();
        Self {
            left,
            top,
            width,
            height,
            cover,
            centre,
            radius,
        }
    }

    /// Calls `paint` with (pixel index, x, y, cover) for every covered pixel.
    fn for_each(&self, side: usize, mut paint: impl FnMut(usize, f32, f32, f32)) {
        for y in 0..self.height {
            for x in 0..self.width {
                let cover = self.cover[y * self.width + x];
                if cover > 0.0 {
                    let (x, y) = (self.left + x, self.top + y);
                    paint(y * side + x, x as f32, y as f32, cover);
                }
            }
        }
    }
}

/// A coordinate of an alteration, as a share of the side: rather near the middle, where parts are.
fn place(rng: &mut impl Rng) -> f32 {
    0.5 * (rng.random_range(0.02..0.98) + rng.random_range(0.02..0.98))
}

/// Alters two to six places of `original`; `donor` draws an image that lends texture.
pub fn alter<R: Rng>(rng: &mut R, original: &Canvas, donor: impl Fn(&mut R) -> Canvas) -> Altered {
    let mut canvas = original.clone();
    for _ in 0..rng.random_range(2..7) {
        alter_once(rng, &mut canvas, &donor);
    }
    for value in &mut canvas.values {
        *value = value.clamp(0.0, 1.0);
    }
    let area = canvas.area();
    let mask = (0..area)
        .map(|pixel| {
            (0..3).any(|channel| {
                let index = channel * area + pixel;
                (canvas.values[index] - original.values[index]).abs() > VISIBLE
            })
        })
        .collect();
    Altered { canvas, mask }
}

fn alter_once<R: Rng>(rng: &mut R, canvas: &mut Canvas, donor: &impl Fn(&mut R) -> Canvas) {
    let area = Area::random(rng, canvas.side);
    match rng.random_range(0..15) {
        0 | 1 => paste(rng, canvas, &area, None),
        2 => {
            let donor = donor(rng);
            paste(rng, canvas, &area, Some(&donor));
        }
        3 => stain(rng, canvas, &area),
        4..=6 => stroke(rng, canvas),
        7 => smooth(canvas, &area),
        8 | 9 => warp(rng, canvas, &area),
        10..=12 => relief(rng, canvas, &area),
        13 => speckle(rng, canvas, &area),
        _ => shift_colour(rng, canvas, &area),
    }
}

/// Pastes from elsewhere in the same image, or from a donor.
fn paste(rng: &mut impl Rng, canvas: &mut Canvas, area: &Area, donor: Option<&Canvas>) {
    let side = canvas.side as f32;
    let source = donor.unwrap_or(canvas).clone();
    let shift = (rng.random_range(0.0..side), rng.random_range(0.0..side));
    let (sin, cos) = rng.random_range(0.0..TAU).sin_cos();
    let gain = rng.random_range(0.8..1.2);
    area.for_each(canvas.side, |pixel, x, y, cover| {
        let (dx, dy) = (x - area.centre.0, y - area.centre.1);
        let (u, v) = (shift.0 + dx * cos - dy * sin, shift.1 + dx * sin + dy * cos);
        canvas.blend(pixel, source.sample(u, v).map(|value| value * gain), cover);
    });
}

/// A film of another colour, uneven, partly transparent.
fn stain(rng: &mut impl Rng, canvas: &mut Canvas, area: &Area) {
    let colour = [0; 3].map(|_| rng.random_range(0.0..1.0));
    let colour = if rng.random_bool(0.5) {
        [colour[0]; 3]
    } else {
        colour
    };
    let strength = rng.random_range(0.15..1.0);
    let unevenness = rng.random_range(0.0..0.8);
    let (period, seed) = (rng.random_range(2.0..10.0), rng.random());
    area.for_each(canvas.side, |pixel, x, y, cover| {
        let film = 1.0 - unevenness * octaves(x / period, y / period, seed);
        canvas.blend(pixel, colour, cover * strength * film);
    });
}

/// A thin curved line, dark or bright, sometimes with a bright flank.
fn stroke(rng: &mut impl Rng, canvas: &mut Canvas) {
    let side = canvas.side as f32;
    let scale = side / 128.0;
    let (mut x, mut y) = (place(rng) * side, place(rng) * side);
    let mut heading: f32 = rng.random_range(0.0..TAU);
    let bend = rng.random_range(-0.06..0.06);
    let length = rng.random_range(5.0..60.0) * scale;
    let width: f32 = rng.random_range(0.4f32..1.6) * scale.max(0.5);
    let change = rng.random_range(0.12..0.6) * if rng.random_bool(0.5) { 1.0 } else { -1.0 };
    let flank = if rng.random_bool(0.4) {
        -0.7 * change
    } else {
        0.0
    };
    let mut marks = vec![0.0f32; canvas.area()];
    let mut walked = 0.0;
    while walked < length {
        let taper = (1.0 - (2.0 * walked / length - 1.0).powi(4)).max(0.2);
        stamp(&mut marks, canvas.side, (x, y), width * taper, 1.0);
        x += 0.5 * heading.cos();
        y += 0.5 * heading.sin();
        heading += bend * 0.5 + rng.random_range(-0.05..0.05);
        walked += 0.5;
    }
    let offset = (width.ceil() as usize + 1) * canvas.side + width.ceil() as usize;
    for pixel in 0..canvas.area() {
        let beside = if pixel >= offset {
            marks[pixel - offset]
        } else {
            0.0
        };
        let amount = change * marks[pixel] + flank * beside * (1.0 - marks[pixel]);
        if amount != 0.0 {
            let colour = canvas.colour(pixel).map(|value| value + amount);
            canvas.blend(pixel, colour, 1.0);
        }
    }
}

fn stamp(marks: &mut [f32], side: usize, (x, y): (f32, f32), radius: f32, strength: f32) {
    let reach = radius + 1.0;
    let low = |at: f32| (at - reach).floor().max(0.0) as usize;
    let high = |at: f32| ((at + reach).ceil().max(-1.0) + 1.0).min(side as f32) as usize;
    for py in low(y)..high(y) {
        for px in low(x)..high(x) {
            let distance = (px as f32 - x).hypot(py as f32 - y);
            let cover = strength * (radius + 0.5 - distance).clamp(0.0, 1.0);
            let mark = &mut marks[py * side + px];
            *mark = mark.max(cover);
        }
    }
}

/// Smooths detail away, as when a feature is missing.
fn smooth(canvas: &mut Canvas, area: &Area) {
    let radius = ((area.radius * 0.8) as usize).clamp(2, 12);
    let soft = canvas.blurred(radius);
    area.for_each(canvas.side, |pixel, _, _, cover| {
        canvas.blend(pixel, soft.colour(pixel), cover);
    });
}

/// Moves what is inside: a bulge, a pinch or a swirl.
fn warp(rng: &mut impl Rng, canvas: &mut Canvas, area: &Area) {
    let source = canvas.clone();
    let radius = area.radius.max(4.0);
    let twist: f32 = rng.random_range(-2.5..2.5);
    let push = (
        rng.random_range(-0.8..0.8) * radius,
        rng.random_range(-0.8..0.8) * radius,
    );
    area.for_each(canvas.side, |pixel, x, y, cover| {
        let (dx, dy) = (x - area.centre.0, y - area.centre.1);
        let fall = (1.0 - (dx.hypot(dy) / (1.6 * radius))).max(0.0);
        let (sin, cos) = (twist * fall).sin_cos();
        let u = area.centre.0 + dx * cos - dy * sin + push.0 * fall;
        let v = area.centre.1 + dx * sin + dy * cos + push.1 * fall;
        canvas.blend(pixel, source.sample(u, v), cover);
    });
}

/// Shades a bump or a hollow, by the slope of a rounded height against a light.
fn relief(rng: &mut impl Rng, canvas: &mut Canvas, area: &Area) {
    let (sin, cos) = rng.random_range(0.0..TAU).sin_cos();
    let strength = rng.random_range(0.25..1.6);
    let radius = area.radius.max(2.0);
    let rim: f32 = rng.random_range(0.6..1.2);
    area.for_each(canvas.side, |pixel, x, y, cover| {
        let (dx, dy) = ((x - area.centre.0) / radius, (y - area.centre.1) / radius);
        let distance = dx.hypot(dy) / rim;
        let slope = distance * (-1.5 * distance * distance).exp();
        let towards = (dx * cos + dy * sin) / dx.hypot(dy).max(1e-3);
        let factor = 1.0 + strength * slope * towards * 1.6;
        let colour = canvas
            .colour(pixel)
            .map(|value| (value + 0.04) * factor - 0.04);
        canvas.blend(pixel, colour, cover);
    });
}

/// Grains or pores.
fn speckle(rng: &mut impl Rng, canvas: &mut Canvas, area: &Area) {
    let (period, seed) = (rng.random_range(1.0..3.5), rng.random());
    let change = rng.random_range(0.15..0.7) * if rng.random_bool(0.5) { 1.0 } else { -1.0 };
    let sparsity = rng.random_range(0.4..0.75);
    area.for_each(canvas.side, |pixel, x, y, cover| {
        let grain = (noise(x / period, y / period, seed) - sparsity).max(0.0) / (1.0 - sparsity);
        let colour = canvas
            .colour(pixel)
            .map(|value| value + change * grain.sqrt());
        canvas.blend(pixel, colour, cover);
    });
}

/// Changes brightness or hue evenly.
fn shift_colour(rng: &mut impl Rng, canvas: &mut Canvas, area: &Area) {
    let together = rng.random_range(-0.3..0.3);
    let shift = [0; 3].map(|_| together + rng.random_range(-0.15..0.15));
    area.for_each(canvas.side, |pixel, _, _, cover| {
        let mut colour = canvas.colour(pixel);
        for channel in 0..3 {
            colour[channel] += shift[channel];
        }
        canvas.blend(pixel, colour, cover);
    });
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::training::formula::draw;

    #[test]
    fn the_mask_is_exactly_where_the_image_visibly_changed() {
        for seed in 0..60 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let original = draw(&mut rng, 64);
            let altered = alter(&mut rng, &original, |rng| draw(rng, 64));
            assert_eq!(altered.mask.len(), original.area());
            for (pixel, &is_altered) in altered.mask.iter().enumerate() {
                let (before, after) = (original.colour(pixel), altered.canvas.colour(pixel));
                let moved = (0..3).any(|i| (before[i] - after[i]).abs() > VISIBLE);
                assert_eq!(moved, is_altered);
            }
        }
    }

    #[test]
    fn alterations_are_local_and_usually_visible() {
        let shares: Vec<f64> = (0..100)
            .map(|seed| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let original = draw(&mut rng, 64);
                let mask = alter(&mut rng, &original, |rng| draw(rng, 64)).mask;
                mask.iter().filter(|&&altered| altered).count() as f64 / mask.len() as f64
            })
            .collect();
        let visible = shares.iter().filter(|&&share| share > 0.0).count();
        assert!(visible > 80, "{visible} of 100 visible");
        assert!(shares.iter().sum::<f64>() / 100.0 < 0.3);
    }
}
