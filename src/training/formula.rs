//! Procedural images: pretraining data that come from formulas alone.
//!
//! No photograph and no licence is involved: every image is drawn from a random seed. The images
//! have what pictures of made things have (smooth shading, machined and moulded texture, edges,
//! regular patterns of holes and teeth, lighting), so that an encoder learns the statistics by
//! which an irregularity stands out.

use std::f32::consts::{PI, TAU};

use rand::Rng;

use super::canvas::Canvas;
use super::value_noise::{lattice, noise, octaves};

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
