//! One part on the conveyor: its pose, light and belt, and what a ray sees there.
//!
//! Everything is computed in the part's own space; the pose moves cameras instead. A [`Solid`] is
//! either the intact part or the altered one, so that both can be seen in the same scene.

use glam::{Vec2, Vec3, Vec3Swizzles};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::camera::Camera;
use super::defect::Defect;
use super::geometry::{rotated, sphere_span};
use super::material::{Material, MaterialVariation, surface_material};
use super::noise::{rough_noise, value_noise};
use super::shape::{ClassKind, Shape, gradient};

/// Matter that rays can meet.
pub(crate) trait Solid {
    /// The signed distance from `point`.
    fn distance(&self, point: Vec3) -> f32;
    /// The material at a place on the surface, and how much of it is defect.
    fn surface(&self, point: Vec3, normal: Vec3, variation: &MaterialVariation) -> (Material, f32);
}

impl Solid for Shape {
    fn distance(&self, point: Vec3) -> f32 {
        Shape::distance(self, point)
    }

    fn surface(&self, point: Vec3, normal: Vec3, variation: &MaterialVariation) -> (Material, f32) {
        (surface_material(self, point, normal, variation), 0.0)
    }
}

/// A part with a defect.
#[derive(Clone, Debug)]
pub(crate) struct AlteredPart {
    pub(crate) shape: Shape,
    pub(crate) defect: Defect,
}

impl Solid for AlteredPart {
    fn distance(&self, point: Vec3) -> f32 {
        self.defect.distance(point, self.shape.distance(point))
    }

    fn surface(&self, point: Vec3, normal: Vec3, variation: &MaterialVariation) -> (Material, f32) {
        let intact = surface_material(&self.shape, point, normal, variation);
        self.defect.surface(point, normal, &self.shape, intact)
    }
}

/// What a ray met.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Linear light that reaches the camera.
    pub(crate) light: Vec3,
    /// How far the ray went.
    pub(crate) depth: f32,
    /// The surface's normal.
    pub(crate) normal: Vec3,
    /// Cosine between the ray and the surface's normal.
    pub(crate) facing: f32,
    /// Whether it met the part, not the belt.
    pub(crate) is_part: bool,
    /// How much of the surface is defect.
    pub(crate) defect_share: f32,
}

/// The varied surroundings of one part.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) shape: Shape,
    variation: MaterialVariation,
    yaw: f32,
    offset: Vec2,
    key: Vec3,
    key_light: Vec3,
    ambient: Vec3,
    belt_tint: Vec3,
    belt_shift: Vec2,
    bounds: (Vec3, f32),
}

/// The longest march along a ray; the deepest grooves need about half of it.
const MAX_STEPS: usize = 80;

impl Scene {
    /// A scene for `class`, varied by `random`.
    pub(crate) fn varied(class: ClassKind, random: &mut ChaCha8Rng) -> Self {
        let mut within = |low: f32, high: f32| random.random_range(low..high);
        let azimuth = -2.2 + within(-0.05, 0.05);
        let elevation: f32 = 0.98 + within(-0.03, 0.03);
        let key = Vec3::new(
            elevation.cos() * azimuth.cos(),
            elevation.cos() * azimuth.sin(),
            elevation.sin(),
        );
        let warmth = within(-0.02, 0.02);
        let white = Vec3::new(1.0 + warmth, 1.0, 1.0 - warmth);
        Self {
            shape: Shape {
                class,
                missing: None,
            },
            variation: MaterialVariation {
                tint: Vec3::splat(within(0.95, 1.05))
                    * Vec3::new(within(0.98, 1.02), 1.0, within(0.98, 1.02)),
                roughness: within(-0.02, 0.03),
                grain_shift: Vec3::new(within(0.0, 90.0), within(0.0, 90.0), within(0.0, 90.0)),
                grain: within(0.7, 1.2),
            },
            yaw: within(-0.05, 0.05),
            offset: Vec2::new(within(-0.025, 0.025), within(-0.025, 0.025)),
            key,
            key_light: white * within(0.94, 1.07),
            ambient: white * within(0.39, 0.44),
            belt_tint: Vec3::new(0.060, 0.068, 0.066) * within(0.85, 1.15),
            belt_shift: Vec2::new(within(0.0, 40.0), within(-0.05, 0.05)),
            bounds: class.bounds(),
        }
    }

    /// Turns a camera of the line into the part's space.
    pub(crate) fn ray(&self, camera: &Camera, x: f32, y: f32) -> (Vec3, Vec3) {
        let eye = camera.eye - self.offset.extend(0.0);
        let direction = camera.ray(x, y);
        let turn = |v: Vec3| rotated(v.xy(), -self.yaw).extend(v.z);
        (turn(eye), turn(direction))
    }

    /// Where on the part a ray lands, if it does.
    pub(crate) fn landing(
        &self,
        solid: &impl Solid,
        origin: Vec3,
        direction: Vec3,
        precision: f32,
    ) -> Option<f32> {
        let (center, radius) = self.bounds;
        let (near, far) = sphere_span(origin, direction, center, radius)?;
        let belt = -origin.z / direction.z;
        let far = if belt > 0.0 { far.min(belt) } else { far };
        let mut depth = near.max(0.0);
        for _ in 0..MAX_STEPS {
            let distance = solid.distance(origin + direction * depth);
            if distance < precision {
                return Some(depth);
            }
            depth += distance * 0.97;
            if depth > far {
                return None;
            }
        }
        // A grazing ray that ran out of steps hangs just over the surface.
        Some(depth)
    }

    /// What a ray sees.
    pub(crate) fn sample(
        &self,
        solid: &impl Solid,
        origin: Vec3,
        direction: Vec3,
        precision: f32,
    ) -> Sample {
        let Some(depth) = self.landing(solid, origin, direction, precision) else {
            return self.belt_sample(solid, origin, direction);
        };
        let point = origin + direction * depth;
        let normal = gradient(point, |place| solid.distance(place));
        let (material, defect_share) = solid.surface(point, normal, &self.variation);
        let open = occlusion(solid, point, normal);
        let lit = if normal.dot(self.key) > 0.0 {
            self.key_reach(solid, point + normal * 0.012)
        } else {
            0.0
        };
        Sample {
            light: self.reflected(&material, normal, direction, open, lit),
            depth,
            normal,
            facing: normal.dot(direction).abs(),
            is_part: true,
            defect_share,
        }
    }

    fn belt_sample(&self, solid: &impl Solid, origin: Vec3, direction: Vec3) -> Sample {
        let depth = -origin.z / direction.z.min(-1e-3);
        let point = origin + direction * depth;
        let lit = self.key_reach(solid, point);
        let near = solid.distance(point).clamp(0.0, 0.35) / 0.35;
        let place = rotated(point.xy(), self.yaw) + self.offset + self.belt_shift;
        let weave = 0.5 + 0.5 * (place.x * 52.0).sin() * (place.y * 52.0).sin();
        let worn = rough_noise(Vec3::new(place.x * 1.9, place.y * 1.1, 3.0));
        let speck = value_noise(Vec3::new(place.x * 21.0, place.y * 21.0, 9.0));
        let tint = self.belt_tint * (0.8 + 0.15 * weave + 0.25 * worn + 0.1 * speck);
        let light = self.key_light * (self.key.z * lit) + self.ambient * (0.35 + 0.65 * near);
        Sample {
            light: tint * light,
            depth,
            normal: Vec3::Z,
            facing: direction.z.abs(),
            is_part: false,
            defect_share: 0.0,
        }
    }

    /// How much of the key light reaches `point` past the part, with soft edges.
    fn key_reach(&self, solid: &impl Solid, point: Vec3) -> f32 {
        let (center, radius) = self.bounds;
        let Some((near, far)) = sphere_span(point, self.key, center, radius) else {
            return 1.0;
        };
        let mut depth = near.max(0.015);
        let mut reach: f32 = 1.0;
        for _ in 0..22 {
            let distance = solid.distance(point + self.key * depth);
            reach = reach.min(11.0 * distance / depth);
            if reach < 0.02 {
                return 0.0;
            }
            depth += distance.clamp(0.025, 0.25);
            if depth > far {
                break;
            }
        }
        reach
    }

    fn reflected(
        &self,
        material: &Material,
        normal: Vec3,
        direction: Vec3,
        open: f32,
        lit: f32,
    ) -> Vec3 {
        let facing = normal.dot(self.key).max(0.0) * lit;
        let sky = 0.55 + 0.45 * normal.z;
        let diffuse = self.key_light * facing + self.ambient * (sky * open);
        let mirrored = direction - normal * (2.0 * normal.dot(direction));
        let around = self.surroundings(mirrored, material.roughness) * (0.35 + 0.65 * open);
        let half = (self.key - direction).normalize();
        let gloss = 2.0 / (material.roughness * material.roughness).powi(2).max(1e-3);
        let highlight = normal.dot(half).max(0.0).powf(gloss) * gloss.sqrt() * 0.16 * lit;
        let grazing = (1.0 + normal.dot(direction)).clamp(0.0, 1.0).powi(4);
        let polymer = material.tint * diffuse
            + (around * (0.04 + 0.35 * grazing) + self.key_light * (0.25 * highlight)) * 0.8;
        let bare = material.tint
            * (around * (0.9 + 0.3 * grazing) + self.key_light * highlight + diffuse * 0.3);
        polymer.lerp(bare, material.metal)
    }

    /// The tent of diffusers around the station, as a mirror sees it.
    fn surroundings(&self, direction: Vec3, roughness: f32) -> Vec3 {
        let blur = 0.12 + 0.7 * roughness;
        let above = smoothstep(-0.15 - blur, 0.35 + blur, direction.z);
        let box_edge = 0.86 - 0.3 * blur;
        let softbox = smoothstep(
            box_edge - blur * 0.5,
            box_edge + blur * 0.3,
            direction.dot(self.key),
        );
        let stripe = smoothstep(
            blur * 0.6,
            0.0,
            (direction.x * 0.8 - direction.y * 0.6).abs() - 0.08,
        ) * f32::from(direction.z > 0.0);
        self.ambient * (0.22 + 1.1 * above)
            + self.key_light * (0.55 * softbox + 0.16 * stripe * (1.0 - blur))
    }
}

/// How open the surface is to light from around: 1 free, towards 0 in corners.
fn occlusion(solid: &impl Solid, point: Vec3, normal: Vec3) -> f32 {
    let near = (0.05 - solid.distance(point + normal * 0.05)).max(0.0) / 0.05;
    let wide = (0.2 - solid.distance(point + normal * 0.2)).max(0.0) / 0.2;
    let belt = (0.25 - point.z).max(0.0) * (1.0 - normal.z.max(0.0));
    (1.0 - 0.35 * near - 0.45 * wide - belt).clamp(0.12, 1.0)
}

fn smoothstep(low: f32, high: f32, value: f32) -> f32 {
    let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
    share * share * (3.0 - 2.0 * share)
}
