//! What surfaces are made of: tint, gloss and grain, in object space.

use glam::{Vec3, Vec3Swizzles};

use super::noise::{rough_noise, value_noise};
use super::shape::{ClassKind, Shape};

/// How a surface answers light.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Material {
    /// Diffuse colour, or a metal's reflectance.
    pub(crate) tint: Vec3,
    /// 0 for paint and polymers, 1 for bare metal.
    pub(crate) metal: f32,
    /// 0 mirror, 1 chalk.
    pub(crate) roughness: f32,
}

/// What differs from part to part in a class.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaterialVariation {
    /// Multiplies the tint.
    pub(crate) tint: Vec3,
    /// Adds to the roughness.
    pub(crate) roughness: f32,
    /// Shifts the grain, so that no two parts have the same.
    pub(crate) grain_shift: Vec3,
    /// How strong the grain is.
    pub(crate) grain: f32,
}

const STEEL: Vec3 = Vec3::new(0.60, 0.61, 0.63);
const BRASS: Vec3 = Vec3::new(0.74, 0.58, 0.30);

/// The material of an intact part at a place on its surface.
pub(crate) fn surface_material(
    shape: &Shape,
    point: Vec3,
    normal: Vec3,
    variation: &MaterialVariation,
) -> Material {
    let base = base_material(shape, point);
    let grain = grain(shape.class, point, normal, variation.grain_shift) - 0.5;
    let strength = variation.grain * if base.metal > 0.5 { 1.0 } else { 0.6 };
    Material {
        tint: base.tint * variation.tint * (1.0 + 0.34 * strength * grain),
        metal: base.metal,
        roughness: (base.roughness + variation.roughness + 0.16 * strength * grain)
            .clamp(0.08, 0.9),
    }
}

fn base_material(shape: &Shape, point: Vec3) -> Material {
    let metal = |tint: Vec3, roughness: f32| Material {
        tint,
        metal: 1.0,
        roughness,
    };
    match shape.class {
        ClassKind::Bolt => metal(Vec3::new(0.58, 0.57, 0.52), 0.38),
        ClassKind::Gear => metal(Vec3::new(0.50, 0.50, 0.51), 0.42),
        ClassKind::Bushing => metal(BRASS, 0.34),
        ClassKind::Bracket => Material {
            tint: Vec3::new(0.40, 0.44, 0.47),
            metal: 0.35,
            roughness: 0.5,
        },
        ClassKind::Cap => Material {
            tint: Vec3::new(0.10, 0.26, 0.52),
            metal: 0.0,
            roughness: 0.42,
        },
        ClassKind::HeatSink => metal(Vec3::new(0.72, 0.73, 0.75), 0.36),
        ClassKind::TerminalBlock => {
            if shape.terminal_screw(point) < 0.01 {
                metal(STEEL, 0.3)
            } else {
                Material {
                    tint: Vec3::new(0.12, 0.36, 0.17),
                    metal: 0.0,
                    roughness: 0.46,
                }
            }
        }
        ClassKind::Bearing => {
            let radius = point.xy().length();
            if shape.bearing_ball(point) < 0.012 {
                metal(STEEL * 1.15, 0.14)
            } else if shape.bearing_cage(point, radius) < 0.012 {
                Material {
                    tint: Vec3::new(0.42, 0.26, 0.13),
                    metal: 0.0,
                    roughness: 0.5,
                }
            } else {
                metal(STEEL, 0.28)
            }
        }
    }
}

/// Tool marks: rings on turned parts, lines on rolled plate, speckle on mouldings.
fn grain(class: ClassKind, point: Vec3, normal: Vec3, shift: Vec3) -> f32 {
    match class {
        ClassKind::Bracket | ClassKind::HeatSink => {
            let stretched = Vec3::new(point.x * 2.5, point.y * 48.0, point.z * 48.0);
            value_noise(stretched + shift)
        }
        ClassKind::Cap | ClassKind::TerminalBlock => rough_noise(point * 34.0 + shift),
        ClassKind::Bolt | ClassKind::Gear | ClassKind::Bushing | ClassKind::Bearing => {
            let radius = point.xy().length();
            let across = if normal.z.abs() > 0.7 {
                radius
            } else {
                point.z
            };
            let stretched = Vec3::new(point.x * 1.6, point.y * 1.6, across * 44.0);
            value_noise(stretched + shift)
        }
    }
}
