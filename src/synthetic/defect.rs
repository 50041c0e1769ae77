//! Defects on a part's surface: where they sit, how they change the solid and its material.

use std::f32::consts::TAU;

use glam::{Vec2, Vec3};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::geometry::{blended, capsule, carved, cuboid, tangents};
use super::material::Material;
use super::noise::{rough_noise, value_noise};
use super::shape::Shape;

/// What can be wrong with a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DefectKind {
    /// A tool or handling mark: a long shallow groove.
    Scratch,
    /// A shallow round impression.
    Dent,
    /// A tooth, hole, rib, ball or thread that is not there.
    MissingFeature,
    /// Oil, rust or burnt coolant on the surface.
    Stain,
    /// A chip or fibre lying on the part.
    ForeignBody,
    /// A thin dark branching line. **Held out.**
    Crack,
    /// A raised ragged lip, mostly along an edge. **Held out.**
    Burr,
}

impl DefectKind {
    /// Kinds that may be looked at while the model is chosen and tuned.
    pub const DEVELOPMENT: [Self; 5] = [
        Self::Scratch,
        Self::Dent,
        Self::MissingFeature,
        Self::Stain,
        Self::ForeignBody,
    ];
    /// Kinds kept for final figures; nothing may be chosen by them.
    pub const HELD_OUT: [Self; 2] = [Self::Crack, Self::Burr];
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Scratch,
        Self::Dent,
        Self::MissingFeature,
        Self::Stain,
        Self::ForeignBody,
        Self::Crack,
        Self::Burr,
    ];

    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scratch => "scratch",
            Self::Dent => "dent",
            Self::MissingFeature => "missing-feature",
            Self::Stain => "stain",
            Self::ForeignBody => "foreign-body",
            Self::Crack => "crack",
            Self::Burr => "burr",
        }
    }
}

/// A place on the surface with a frame around it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anchor {
    pub(crate) point: Vec3,
    pub(crate) normal: Vec3,
}

/// One defect, placed.
#[derive(Clone, Debug)]
pub(crate) struct Defect {
    form: Form,
    anchor: Anchor,
    along: Vec3,
    across: Vec3,
    center: Vec3,
    radius: f32,
    shift: Vec3,
}

#[derive(Clone, Debug)]
enum Form {
    Scratch {
        half_length: f32,
        half_width: f32,
        bend: f32,
        brightness: f32,
    },
    Dent {
        depth: f32,
        ball: f32,
    },
    MissingFeature,
    Stain {
        radius: f32,
        tint: Vec3,
        strength: f32,
        roughness: f32,
    },
    Chip {
        half: Vec3,
        tint: Vec3,
        metal: f32,
    },
    Fibre {
        bend: [Vec3; 4],
        thickness: f32,
        tint: Vec3,
    },
    Crack {
        path: Vec<Vec2>,
        branch: Vec<Vec2>,
        half_width: f32,
    },
    Burr {
        half_length: f32,
        height: f32,
    },
}

impl Defect {
    /// A missing feature; the shape itself knows which.
    pub(crate) fn missing(center: Vec3, radius: f32) -> Self {
        let anchor = Anchor {
            point: center,
            normal: Vec3::Z,
        };
        let mut defect = Self::at(anchor, Form::MissingFeature, 0.0, radius, Vec3::ZERO);
        defect.center = center;
        defect
    }

    /// A defect of `kind` at `anchor`, its size and course drawn from `random`.
    pub(crate) fn placed(kind: DefectKind, anchor: Anchor, random: &mut ChaCha8Rng) -> Self {
        let angle = random.random_range(0.0..TAU);
        let shift = Vec3::new(
            random.random_range(0.0..100.0),
            random.random_range(0.0..100.0),
            random.random_range(0.0..100.0),
        );
        let (form, radius) = match kind {
            DefectKind::Scratch => scratch(random),
            DefectKind::Dent => dent(random),
            DefectKind::Stain => stain(random),
            DefectKind::ForeignBody => foreign_body(random),
            DefectKind::Crack => crack(random),
            DefectKind::Burr => burr(random),
            DefectKind::MissingFeature => (Form::MissingFeature, 0.0),
        };
        Self::at(anchor, form, angle, radius, shift)
    }

    fn at(anchor: Anchor, form: Form, angle: f32, radius: f32, shift: Vec3) -> Self {
        let (along, across) = tangents(anchor.normal, angle);
        Self {
            form,
            anchor,
            along,
            across,
            center: anchor.point,
            radius,
            shift,
        }
    }

    /// A sphere outside which the defect changes neither solid nor material.
    pub(crate) fn bounds(&self) -> (Vec3, f32) {
        (self.center, self.radius)
    }

    /// Coordinates in the defect's frame: along, across, and out of the surface.
    fn local(&self, point: Vec3) -> Vec3 {
        let offset = point - self.anchor.point;
        Vec3::new(
            offset.dot(self.along),
            offset.dot(self.across),
            offset.dot(self.anchor.normal),
        )
    }

    /// The solid's distance with the defect, given the distance without it.
    pub(crate) fn distance(&self, point: Vec3, solid: f32) -> f32 {
        match &self.form {
            Form::MissingFeature | Form::Stain { .. } => solid,
            Form::Scratch {
                half_length,
                half_width,
                bend,
                ..
            } => {
                let line = scratch_line(self.local(point), *half_length, *bend);
                grooved(solid, line - half_width, 0.012)
            }
            Form::Dent { depth, ball } => {
                let center = self.anchor.point + self.anchor.normal * (ball - depth);
                carved(solid, point.distance(center) - ball, 0.03)
            }
            Form::Chip { .. } | Form::Fibre { .. } => solid.min(self.body(point)),
            Form::Crack { half_width, .. } => {
                grooved(solid, self.crack_distance(point) - half_width, 0.03)
            }
            Form::Burr { .. } => blended(solid, self.body(point), 0.015),
        }
    }

    /// Distance to matter that the defect adds.
    fn body(&self, point: Vec3) -> f32 {
        let local = self.local(point);
        match &self.form {
            Form::Chip { half, .. } => {
                // A curled chip: the box follows an arc.
                let curl =
                    local.z - 0.5 * half.z - 0.9 * local.x * local.x / half.x.max(0.05) * 0.5;
                let ragged = 0.02 * (value_noise(local * 22.0 + self.shift) - 0.5);
                (cuboid(Vec3::new(local.x, local.y, curl), *half, 0.01) + ragged) * 0.6
            }
            Form::Fibre {
                bend, thickness, ..
            } => bend
                .windows(2)
                .map(|ends| capsule(local, ends[0], ends[1], *thickness))
                .fold(f32::MAX, f32::min),
            Form::Burr {
                half_length,
                height,
            } => {
                let reach = Vec3::new(local.x.clamp(-half_length, *half_length), 0.0, 0.0);
                let ragged = value_noise(Vec3::new(local.x * 26.0, 0.0, 0.0) + self.shift);
                let fade = (1.0 - (local.x / half_length).powi(2)).clamp(0.15, 1.0);
                let offset = local - reach;
                let flat = Vec3::new(offset.x, offset.y, offset.z * 0.55);
                (flat.length() - height * fade * (0.35 + 0.65 * ragged)) * 0.55
            }
            _ => f32::MAX,
        }
    }

    fn crack_distance(&self, point: Vec3) -> f32 {
        let Form::Crack { path, branch, .. } = &self.form else {
            return f32::MAX;
        };
        let local = self.local(point);
        let flat = Vec2::new(local.x, local.y);
        polyline(flat, path)
            .min(polyline(flat, branch))
            .max(local.z.abs() - LINE_REACH)
    }

    /// The surface with the defect: its material, and how much of it is defect (0 to 1).
    pub(crate) fn surface(
        &self,
        point: Vec3,
        normal: Vec3,
        shape: &Shape,
        intact: Material,
    ) -> (Material, f32) {
        let faces = normal.dot(self.anchor.normal) > 0.1;
        match &self.form {
            Form::MissingFeature | Form::Dent { .. } => (intact, 0.0),
            Form::Scratch {
                half_length,
                half_width,
                bend,
                brightness,
            } if faces => {
                let local = self.local(point);
                let line = scratch_line(local, *half_length, *bend);
                let weight = 1.0 - ((line - half_width) / 0.012).clamp(0.0, 1.0);
                let worn = Material {
                    tint: intact.tint * *brightness,
                    metal: intact.metal,
                    roughness: 0.3,
                };
                (mixed(intact, worn, weight), weight)
            }
            Form::Stain {
                radius,
                tint,
                strength,
                roughness,
            } if faces => {
                let local = self.local(point);
                let edge = rough_noise(local * (1.7 / radius) + self.shift) - 0.5;
                let reach =
                    (local.x * local.x + local.y * local.y + local.z * local.z).sqrt() / radius;
                let weight = ((1.0 - reach - 1.1 * edge) * 3.2).clamp(0.0, 1.0) * strength;
                let weight = weight * f32::from(reach < 1.35);
                let patchy = 0.75 + 0.5 * rough_noise(local * 14.0 + self.shift);
                let soiled = Material {
                    tint: *tint * patchy,
                    metal: intact.metal * 0.25,
                    roughness: *roughness,
                };
                (mixed(intact, soiled, weight), weight)
            }
            Form::Chip { tint, metal, .. } if self.is_body(point, shape) => (
                Material {
                    tint: *tint,
                    metal: *metal,
                    roughness: 0.35,
                },
                1.0,
            ),
            Form::Fibre { tint, .. } if self.is_body(point, shape) => (
                Material {
                    tint: *tint,
                    metal: 0.0,
                    roughness: 0.8,
                },
                1.0,
            ),
            Form::Burr { .. } if self.is_body(point, shape) => (
                Material {
                    tint: intact.tint * 1.15,
                    roughness: 0.25,
                    ..intact
                },
                1.0,
            ),
            Form::Crack { half_width, .. } if faces => {
                let line = self.crack_distance(point);
                let weight = 1.0 - ((line - half_width) / 0.012).clamp(0.0, 1.0);
                let dark = Material {
                    tint: intact.tint * 0.12,
                    metal: 0.1,
                    roughness: 0.9,
                };
                (mixed(intact, dark, weight), weight)
            }
            _ => (intact, 0.0),
        }
    }

    fn is_body(&self, point: Vec3, shape: &Shape) -> bool {
        self.body(point) < shape.distance(point)
    }
}

fn mixed(intact: Material, altered: Material, weight: f32) -> Material {
    Material {
        tint: intact.tint.lerp(altered.tint, weight),
        metal: intact.metal + (altered.metal - intact.metal) * weight,
        roughness: intact.roughness + (altered.roughness - intact.roughness) * weight,
    }
}

fn scratch(random: &mut ChaCha8Rng) -> (Form, f32) {
    let half_length = random.random_range(0.14..0.38);
    let form = Form::Scratch {
        half_length,
        half_width: random.random_range(0.011..0.022),
        bend: random.random_range(-0.5..0.5),
        brightness: if random.random_bool(0.5) { 1.7 } else { 0.4 },
    };
    (form, half_length * 1.25 + 0.06)
}

fn dent(random: &mut ChaCha8Rng) -> (Form, f32) {
    let width: f32 = random.random_range(0.1..0.2);
    let depth = width * random.random_range(0.3..0.5);
    // The ball that leaves an impression of that half-width and depth in a flat.
    let ball = (width * width + depth * depth) / (2.0 * depth);
    (Form::Dent { depth, ball }, width * 1.35 + 0.06)
}

fn stain(random: &mut ChaCha8Rng) -> (Form, f32) {
    const TINTS: [Vec3; 3] = [
        Vec3::new(0.05, 0.035, 0.02),
        Vec3::new(0.28, 0.12, 0.045),
        Vec3::new(0.12, 0.09, 0.03),
    ];
    let radius = random.random_range(0.16..0.32);
    let form = Form::Stain {
        radius,
        tint: TINTS[random.random_range(0..TINTS.len())],
        strength: random.random_range(0.7..0.95),
        roughness: random.random_range(0.25..0.7),
    };
    (form, radius * 1.4)
}

fn foreign_body(random: &mut ChaCha8Rng) -> (Form, f32) {
    const TINTS: [Vec3; 4] = [
        Vec3::new(0.75, 0.74, 0.70),
        Vec3::new(0.55, 0.10, 0.07),
        Vec3::new(0.80, 0.62, 0.12),
        Vec3::new(0.12, 0.36, 0.14),
    ];
    let tint = TINTS[random.random_range(0..TINTS.len())];
    if random.random_bool(0.6) {
        let half = Vec3::new(
            random.random_range(0.07..0.15),
            random.random_range(0.03..0.06),
            random.random_range(0.018..0.03),
        );
        let metal = if random.random_bool(0.4) { 0.9 } else { 0.0 };
        return (Form::Chip { half, tint, metal }, half.length() * 1.5 + 0.1);
    }
    let reach = random.random_range(0.13..0.26);
    let mut bend = [Vec3::ZERO; 4];
    for (number, knot) in bend.iter_mut().enumerate() {
        *knot = Vec3::new(
            (number as f32 / 1.5 - 1.0) * reach,
            random.random_range(-0.35..0.35) * reach,
            random.random_range(0.012..0.04),
        );
    }
    (
        Form::Fibre {
            bend,
            thickness: random.random_range(0.014..0.024),
            tint,
        },
        reach * 1.15 + 0.12,
    )
}

fn crack(random: &mut ChaCha8Rng) -> (Form, f32) {
    let half_length: f32 = random.random_range(0.16..0.34);
    let step = half_length / 4.0;
    let mut path = Vec::with_capacity(9);
    let mut offset = 0.0;
    for number in 0..9 {
        path.push(Vec2::new(number as f32 * step - half_length, offset));
        offset += random.random_range(-0.9..0.9) * step;
        offset *= 0.8;
    }
    let fork = path[random.random_range(3..6)];
    let side = if random.random_bool(0.5) { 1.0 } else { -1.0 };
    let mut branch = vec![fork];
    for number in 1..4 {
        let reach = number as f32 * step * 0.7;
        branch.push(fork + Vec2::new(reach, side * reach * random.random_range(0.6..1.2)));
    }
    let form = Form::Crack {
        path,
        branch,
        half_width: random.random_range(0.007..0.013),
    };
    (form, half_length * 1.25 + 0.1)
}

fn burr(random: &mut ChaCha8Rng) -> (Form, f32) {
    let half_length = random.random_range(0.09..0.19);
    let height = random.random_range(0.05..0.085);
    (
        Form::Burr {
            half_length,
            height,
        },
        half_length + 2.0 * height + 0.05,
    )
}

/// How far above and below its tangent plane a line-like defect still marks the surface.
const LINE_REACH: f32 = 0.2;

/// Distance to a bent line, projected onto the surface along the defect's normal.
fn scratch_line(local: Vec3, half_length: f32, bend: f32) -> f32 {
    let x = local.x.clamp(-half_length, half_length);
    let y = bend * (x * x / half_length - 0.3 * half_length);
    let flat = Vec2::new(local.x - x, local.y - y).length();
    flat.max(local.z.abs() - LINE_REACH)
}

/// The solid with a groove of constant `depth` where `line` is negative.
fn grooved(solid: f32, line: f32, depth: f32) -> f32 {
    solid.max(-line.max(-solid - depth))
}

fn polyline(point: Vec2, knots: &[Vec2]) -> f32 {
    let mut nearest = f32::MAX;
    for ends in knots.windows(2) {
        let along = ends[1] - ends[0];
        let share = ((point - ends[0]).dot(along) / along.length_squared()).clamp(0.0, 1.0);
        nearest = nearest.min(point.distance_squared(ends[0] + along * share));
    }
    nearest.sqrt()
}
