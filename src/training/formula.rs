//! Procedural images: pretraining data that come from formulas alone.
//!
//! No photograph and no licence is involved: every image is drawn from a random seed. The images
//! have what pictures of made things have (smooth shading, machined and moulded texture, edges,
//! regular patterns of holes and teeth, lighting), so that an encoder learns the statistics by
//! which an irregularity stands out.

use std::f32::consts::{PI, TAU};

use rand::Rng;

use crate::model::preprocess::Normalisation;

/// A square colour image, channel first, values from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Canvas {
    /// Side in pixels.
    pub side: usize,
    /// `3 * side * side` values.
    pub values: Vec<f32>,
}

impl Canvas {
    /// A canvas of one colour.
    pub fn filled(side: usize, colour: [f32; 3]) -> Self {
        let values = colour
            .iter()
            .flat_map(|&value| std::iter::repeat_n(value, side * side))
            .collect();
        Self { side, values }
    }

    /// Pixels of one channel.
    pub fn area(&self) -> usize {
        self.side * self.side
    }

    /// The colour at a pixel index.
    pub fn colour(&self, pixel: usize) -> [f32; 3] {
        let area = self.area();
        [0, 1, 2].map(|channel| self.values[channel * area + pixel])
    }

    /// Mixes `colour` over a pixel; a `share` of 1 replaces it.
    pub fn blend(&mut self, pixel: usize, colour: [f32; 3], share: f32) {
        let area = self.area();
        for (channel, value) in colour.into_iter().enumerate() {
            let target = &mut self.values[channel * area + pixel];
            *target += (value - *target) * share;
        }
    }

    /// The canvas of an image as the encoder sees it ([`Normalisation::imagenet`]).
    pub fn from_normalised(values: &[f32], side: usize) -> Self {
        let Normalisation {
            mean, deviation, ..
        } = Normalisation::imagenet(side);
        let values = values
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let channel = index / (side * side);
                value * deviation[channel] + mean[channel]
            })
            .collect();
        Self { side, values }
    }

    /// The image as the encoder sees it, channel first.
    pub fn normalised(&self) -> Vec<f32> {
        let Normalisation {
            mean, deviation, ..
        } = Normalisation::imagenet(self.side);
        let area = self.area();
        self.values
            .iter()
            .enumerate()
            .map(|(index, value)| (value - mean[index / area]) / deviation[index / area])
            .collect()
    }

    /// The colour between pixels, by bilinear interpolation; the border repeats outwards.
    pub fn sample(&self, x: f32, y: f32) -> [f32; 3] {
        let last = (self.side - 1) as f32;
        let (x, y) = (x.clamp(0.0, last), y.clamp(0.0, last));
        let (left, top) = (x as usize, y as usize);
        let (right, bottom) = ((left + 1).min(self.side - 1), (top + 1).min(self.side - 1));
        let (fx, fy) = (x - left as f32, y - top as f32);
        let area = self.area();
        [0, 1, 2].map(|channel| {
            let plane = &self.values[channel * area..(channel + 1) * area];
            let upper =
                plane[top * self.side + left] * (1.0 - fx) + plane[top * self.side + right] * fx;
            let lower = plane[bottom * self.side + left] * (1.0 - fx)
                + plane[bottom * self.side + right] * fx;
            upper * (1.0 - fy) + lower * fy
        })
    }

    /// A copy blurred by three box passes, close to a Gaussian.
    pub fn blurred(&self, radius: usize) -> Self {
        let mut out = self.clone();
        let area = self.area();
        for plane in out.values.chunks_exact_mut(area) {
            for _ in 0..3 {
                for row in plane.chunks_exact_mut(self.side) {
                    box_blur(row, radius);
                }
                let mut column = vec![0.0; self.side];
                for x in 0..self.side {
                    for y in 0..self.side {
                        column[y] = plane[y * self.side + x];
                    }
                    box_blur(&mut column, radius);
                    for y in 0..self.side {
                        plane[y * self.side + x] = column[y];
                    }
                }
            }
        }
        out
    }

    fn clamp(&mut self) {
        for value in &mut self.values {
            *value = value.clamp(0.0, 1.0);
        }
    }
}

fn box_blur(line: &mut [f32], radius: usize) {
    let source = line.to_vec();
    let last = source.len() - 1;
    let at = |i: isize| source[i.clamp(0, last as isize) as usize];
    let reach = radius as isize;
    let mut sum: f32 = (-reach..=reach).map(at).sum();
    let scale = 1.0 / (2 * radius + 1) as f32;
    for (i, value) in line.iter_mut().enumerate() {
        *value = sum * scale;
        sum += at(i as isize + reach + 1) - at(i as isize - reach);
    }
}

/// A value in 0..1 for a lattice point.
fn lattice(x: i32, y: i32, seed: u32) -> f32 {
    let mut hash =
        (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77) ^ seed;
    hash = (hash ^ (hash >> 15)).wrapping_mul(0x2C1B_3C6D);
    hash = (hash ^ (hash >> 12)).wrapping_mul(0x297A_2D39);
    (hash ^ (hash >> 15)) as f32 / u32::MAX as f32
}

/// Smooth value noise in 0..1, one feature a unit.
pub(crate) fn noise(x: f32, y: f32, seed: u32) -> f32 {
    let (floor_x, floor_y) = (x.floor(), y.floor());
    let (fx, fy) = (x - floor_x, y - floor_y);
    let (fx, fy) = (fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy));
    let (ix, iy) = (floor_x as i32, floor_y as i32);
    let upper = lattice(ix, iy, seed) * (1.0 - fx) + lattice(ix + 1, iy, seed) * fx;
    let lower = lattice(ix, iy + 1, seed) * (1.0 - fx) + lattice(ix + 1, iy + 1, seed) * fx;
    upper * (1.0 - fy) + lower * fy
}

/// Three octaves of [`noise`].
pub(crate) fn octaves(x: f32, y: f32, seed: u32) -> f32 {
    0.57 * noise(x, y, seed)
        + 0.29 * noise(2.03 * x, 2.03 * y, seed ^ 0x51)
        + 0.14 * noise(4.01 * x, 4.01 * y, seed ^ 0xA7)
}

/// A surface pattern: a function from the plane to 0..1.
#[derive(Clone, Debug)]
enum Texture {
    Flat,
    Cloud {
        period: f32,
        seed: u32,
    },
    Grating {
        period: f32,
        sharpness: f32,
    },
    Brushed {
        period: f32,
        seed: u32,
    },
    Turned {
        period: f32,
        centre: (f32, f32),
        seed: u32,
    },
    Cells {
        period: f32,
        seed: u32,
    },
    Grain {
        seed: u32,
    },
}

impl Texture {
    fn random(rng: &mut impl Rng) -> Self {
        let seed = rng.random();
        match rng.random_range(0..10) {
            0..=2 => Self::Flat,
            3 | 4 => Self::Cloud {
                period: rng.random_range(4.0..40.0),
                seed,
            },
            5 => Self::Grating {
                period: rng.random_range(3.0..24.0),
                sharpness: rng.random_range(0.5..4.0),
            },
            6 => Self::Brushed {
                period: rng.random_range(1.0..4.0),
                seed,
            },
            7 => Self::Turned {
                period: rng.random_range(1.5..6.0),
                centre: (rng.random_range(-20.0..20.0), rng.random_range(-20.0..20.0)),
                seed,
            },
            8 => Self::Cells {
                period: rng.random_range(6.0..24.0),
                seed,
            },
            _ => Self::Grain { seed },
        }
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        match *self {
            Self::Flat => 0.5,
            Self::Cloud { period, seed } => octaves(x / period, y / period, seed),
            Self::Grating { period, sharpness } => {
                0.5 + 0.5 * ((x * TAU / period).sin() * sharpness).clamp(-1.0, 1.0)
            }
            Self::Brushed { period, seed } => octaves(x / 60.0, y / period, seed),
            Self::Turned {
                period,
                centre,
                seed,
            } => {
                let radius = (x - centre.0).hypot(y - centre.1);
                octaves(radius / period, 0.5, seed)
            }
            Self::Cells { period, seed } => cells(x / period, y / period, seed),
            Self::Grain { seed } => noise(x * 0.9, y * 0.9, seed),
        }
    }
}

/// Distance to the nearest jittered lattice point (Voronoi cells).
fn cells(x: f32, y: f32, seed: u32) -> f32 {
    let (ix, iy) = (x.floor() as i32, y.floor() as i32);
    let mut nearest = f32::MAX;
    for (dx, dy) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy))) {
        let (cx, cy) = (ix + dx, iy + dy);
        let px = cx as f32 + lattice(cx, cy, seed) - x;
        let py = cy as f32 + lattice(cx, cy, seed ^ 0x77) - y;
        nearest = nearest.min(px * px + py * py);
    }
    nearest.sqrt().min(1.0)
}

/// A texture with its two colours and its orientation.
struct Material {
    texture: Texture,
    turn: (f32, f32),
    low: [f32; 3],
    high: [f32; 3],
}

impl Material {
    fn random(rng: &mut impl Rng) -> Self {
        let grey: f32 = rng.random_range(0.08..0.92);
        let tint: f32 = if rng.random_bool(0.5) { 0.05 } else { 0.3 };
        let base = [0; 3].map(|_| (grey + rng.random_range(-tint..tint)).clamp(0.02, 0.98));
        let contrast: f32 = rng.random_range(0.03f32..0.6).powi(2) + 0.02;
        let angle: f32 = rng.random_range(0.0..TAU);
        Self {
            texture: Texture::random(rng),
            turn: angle.sin_cos(),
            low: base.map(|value| value - contrast),
            high: base.map(|value| value + contrast),
        }
    }

    fn colour(&self, x: f32, y: f32) -> [f32; 3] {
        let (sin, cos) = self.turn;
        let level = self.texture.at(x * cos + y * sin, y * cos - x * sin);
        [0, 1, 2].map(|i| self.low[i] + (self.high[i] - self.low[i]) * level)
    }
}

/// An outline around the origin, about one unit in radius.
#[derive(Clone, Debug)]
enum Outline {
    Ellipse { ratio: f32 },
    Box { ratio: f32, round: f32 },
    Polygon { corners: f32 },
    Gear { teeth: f32, depth: f32 },
    Ring { width: f32 },
    Flange { lobes: f32, depth: f32 },
}

impl Outline {
    fn random(rng: &mut impl Rng) -> Self {
        match rng.random_range(0..8) {
            0 | 1 => Self::Ellipse {
                ratio: rng.random_range(0.35..1.0),
            },
            2 | 3 => Self::Box {
                ratio: rng.random_range(0.15..1.0),
                round: rng.random_range(0.0..0.3),
            },
            4 => Self::Polygon {
                corners: rng.random_range(3..9) as f32,
            },
            5 => Self::Gear {
                teeth: rng.random_range(6..24) as f32,
                depth: rng.random_range(0.05..0.2),
            },
            6 => Self::Ring {
                width: rng.random_range(0.08..0.35),
            },
            _ => Self::Flange {
                lobes: rng.random_range(2..7) as f32,
                depth: rng.random_range(0.1..0.3),
            },
        }
    }

    /// Signed distance, roughly in units of the radius; negative inside.
    fn distance(&self, x: f32, y: f32) -> f32 {
        let radius = x.hypot(y);
        match *self {
            Self::Ellipse { ratio } => (x.hypot(y / ratio) - 1.0) * ratio,
            Self::Box { ratio, round } => {
                let round = round * ratio;
                let (dx, dy) = (x.abs() - 1.0 + round, y.abs() - ratio + round);
                dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - round
            }
            Self::Polygon { corners } => {
                let sector = TAU / corners;
                let angle = y.atan2(x).rem_euclid(sector) - 0.5 * sector;
                radius * angle.cos() - (0.5 * sector).cos()
            }
            Self::Gear { teeth, depth } => {
                let wave = ((y.atan2(x) * teeth).sin() * 3.0).clamp(-1.0, 1.0);
                radius - 1.0 + depth * (0.5 - 0.5 * wave)
            }
            Self::Ring { width } => (radius - 1.0 + width).abs() - width,
            Self::Flange { lobes, depth } => {
                radius - 1.0 + depth * (0.5 + 0.5 * (y.atan2(x) * lobes).cos())
            }
        }
    }
}

/// An outline placed on the canvas.
struct Placement {
    x: f32,
    y: f32,
    radius: f32,
    turn: (f32, f32),
}

impl Placement {
    fn local(&self, x: f32, y: f32) -> (f32, f32) {
        let (dx, dy) = ((x - self.x) / self.radius, (y - self.y) / self.radius);
        let (sin, cos) = self.turn;
        (dx * cos + dy * sin, dy * cos - dx * sin)
    }
}

/// Draws one random image.
pub fn draw(rng: &mut impl Rng, side: usize) -> Canvas {
    let mut canvas = Canvas::filled(side, [0.0; 3]);
    let ground = Material::random(rng);
    for pixel in 0..canvas.area() {
        let (x, y) = ((pixel % side) as f32, (pixel / side) as f32);
        canvas.blend(pixel, ground.colour(x, y), 1.0);
    }
    let light: f32 = rng.random_range(0.0..TAU);
    for _ in 0..rng.random_range(1..5) {
        draw_body(&mut canvas, rng, light);
    }
    shade(&mut canvas, rng, light);
    if rng.random_bool(0.3) {
        canvas = canvas.blurred(1);
    }
    add_sensor_noise(&mut canvas, rng);
    canvas.clamp();
    canvas
}

/// One body: an outline with bevel, drop shadow, and perhaps a regular pattern upon it.
fn draw_body(canvas: &mut Canvas, rng: &mut impl Rng, light: f32) {
    let side = canvas.side as f32;
    let angle: f32 = rng.random_range(0.0..TAU);
    let placement = Placement {
        x: rng.random_range(0.15..0.85) * side,
        y: rng.random_range(0.15..0.85) * side,
        radius: side * rng.random_range(0.08f32..0.8).powf(1.3),
        turn: angle.sin_cos(),
    };
    let outline = Outline::random(rng);
    let bevel = rng.random_range(0.0..0.25);
    let bevel_width = rng.random_range(1.0..6.0);
    fill(
        canvas,
        &placement,
        &outline,
        &Material::random(rng),
        (bevel, bevel_width, light),
    );
    if rng.random_bool(0.6) {
        draw_pattern(canvas, rng, &placement, light);
    }
}

/// Equal small features in a circle or a row, as bolt holes, teeth, fins and pins are.
fn draw_pattern(canvas: &mut Canvas, rng: &mut impl Rng, body: &Placement, light: f32) {
    let count = rng.random_range(2..10);
    let outline = Outline::random(rng);
    let material = Material::random(rng);
    let relief = (
        rng.random_range(-0.25..0.25),
        rng.random_range(1.0..3.0),
        light,
    );
    let radius = (body.radius * rng.random_range(0.04..0.22)).max(1.5);
    let reach = body.radius * rng.random_range(0.3..0.75);
    let is_circle = rng.random_bool(0.6);
    let (sin, cos) = body.turn;
    for i in 0..count {
        let (dx, dy, spin) = if is_circle {
            let angle = TAU * i as f32 / count as f32;
            (reach * angle.cos(), reach * angle.sin(), angle)
        } else {
            let along = (i as f32 / (count - 1).max(1) as f32 - 0.5) * 2.0 * reach;
            (along, 0.0, 0.0)
        };
        let own = body.turn.0.atan2(body.turn.1) + spin;
        let placement = Placement {
            x: body.x + dx * cos - dy * sin,
            y: body.y + dx * sin + dy * cos,
            radius,
            turn: own.sin_cos(),
        };
        fill(canvas, &placement, &outline, &material, relief);
    }
}

/// Fills an outline with a material; `relief` is (edge brightness, edge width, light's direction).
fn fill(
    canvas: &mut Canvas,
    placement: &Placement,
    outline: &Outline,
    material: &Material,
    relief: (f32, f32, f32),
) {
    let side = canvas.side;
    let (edge, edge_width, light) = relief;
    let reach = placement.radius * 1.5 + 2.0;
    let bound = |centre: f32| {
        let low = (centre - reach).max(0.0) as usize;
        let high = (centre + reach).clamp(0.0, side as f32) as usize;
        low..high
    };
    for y in bound(placement.y) {
        for x in bound(placement.x) {
            let (px, py) = (x as f32, y as f32);
            let (u, v) = placement.local(px, py);
            let distance = outline.distance(u, v) * placement.radius;
            let cover = (0.5 - distance).clamp(0.0, 1.0);
            if cover == 0.0 {
                continue;
            }
            let facing = ((py - placement.y).atan2(px - placement.x) - light).cos();
            let slope = (1.0 + distance / edge_width).clamp(0.0, 1.0);
            let colour = material.colour(px - placement.x, py - placement.y);
            let lift = edge * facing * slope;
            canvas.blend(y * side + x, colour.map(|value| value + lift), cover);
        }
    }
}

/// A lighting gradient over the whole image, sometimes with a highlight.
fn shade(canvas: &mut Canvas, rng: &mut impl Rng, light: f32) {
    let side = canvas.side;
    let area = canvas.area();
    let strength: f32 = rng.random_range(0.0..0.5);
    let gain: f32 = rng.random_range(0.75..1.2);
    let (sin, cos) = light.sin_cos();
    let shine = if rng.random_bool(0.3) {
        rng.random_range(0.05..0.4)
    } else {
        0.0
    };
    let (sx, sy) = (rng.random_range(0.0..1.0), rng.random_range(0.0..1.0));
    let spread: f32 = rng.random_range(0.05..0.3);
    for pixel in 0..area {
        let x = (pixel % side) as f32 / side as f32;
        let y = (pixel / side) as f32 / side as f32;
        let factor = gain * (1.0 + strength * ((x - 0.5) * cos + (y - 0.5) * sin));
        let distance = (x - sx).powi(2) + (y - sy).powi(2);
        let highlight = if shine > 0.0 {
            shine * (-distance / (spread * spread)).exp()
        } else {
            0.0
        };
        for channel in 0..3 {
            let value = &mut canvas.values[channel * area + pixel];
            *value = *value * factor + highlight;
        }
    }
}

fn add_sensor_noise(canvas: &mut Canvas, rng: &mut impl Rng) {
    let strength: f32 = rng.random_range(0.0f32..0.2).powi(2);
    for value in &mut canvas.values {
        *value += strength * (rng.random::<f32>() + rng.random::<f32>() - 1.0);
    }
}

/// A closed random curve around the origin, about one unit in radius.
pub(crate) fn wobble<R: Rng>(rng: &mut R) -> impl Fn(f32) -> f32 + use<R> {
    let waves: [(f32, f32, f32); 3] = [2.0, 3.0, 5.0].map(|frequency| {
        let amount = rng.random_range(0.0..0.35) / (frequency - 1.0);
        (frequency, amount, rng.random_range(-PI..PI))
    });
    let stretch: f32 = rng.random_range(0.0..0.5);
    let axis: f32 = rng.random_range(-PI..PI);
    move |angle| {
        let ripple: f32 = waves
            .iter()
            .map(|(frequency, amount, phase)| amount * (frequency * angle + phase).cos())
            .sum();
        (1.0 + ripple) * (1.0 + stretch * (2.0 * (angle - axis)).cos())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_image() {
        let image = |seed| draw(&mut ChaCha8Rng::seed_from_u64(seed), 64);
        assert_eq!(image(5), image(5));
        assert_ne!(image(5), image(6));
    }

    #[test]
    fn images_stay_in_range_and_are_not_flat() {
        for seed in 0..40 {
            let image = draw(&mut ChaCha8Rng::seed_from_u64(seed), 48);
            assert!(image.values.iter().all(|value| (0.0..=1.0).contains(value)));
            let low = image.values.iter().copied().fold(f32::MAX, f32::min);
            let high = image.values.iter().copied().fold(f32::MIN, f32::max);
            assert!(high - low > 0.02, "seed {seed} is flat");
        }
    }
}
