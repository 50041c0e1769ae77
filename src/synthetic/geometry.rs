//! Signed distances of simple solids: negative inside, never more than the true distance outside.

use glam::{Vec2, Vec3, Vec3Swizzles};

/// A solid of revolution or a profile, cut to `low <= z <= high`.
pub(crate) fn extruded(profile: f32, z: f32, low: f32, high: f32) -> f32 {
    let end = (z - 0.5 * (low + high)).abs() - 0.5 * (high - low);
    let inside = profile.max(end).min(0.0);
    inside + Vec2::new(profile.max(0.0), end.max(0.0)).length()
}

/// Like [`extruded`] with edges rounded by `radius`; outer dimensions stay.
pub(crate) fn extruded_round(profile: f32, z: f32, low: f32, high: f32, radius: f32) -> f32 {
    extruded(profile + radius, z, low + radius, high - radius) - radius
}

/// A regular hexagon with flats at `apothem`.
pub(crate) fn hexagon(point: Vec2, apothem: f32) -> f32 {
    const NORMAL: Vec2 = Vec2::new(-0.866_025_4, 0.5);
    const HALF_SIDE: f32 = 0.577_350_26;
    let mut q = point.abs();
    q -= 2.0 * NORMAL.dot(q).min(0.0) * NORMAL;
    q -= Vec2::new(
        q.x.clamp(-HALF_SIDE * apothem, HALF_SIDE * apothem),
        apothem,
    );
    q.length() * q.y.signum()
}

/// An axis-aligned rectangle around the origin.
pub(crate) fn rectangle(point: Vec2, half: Vec2) -> f32 {
    let q = point.abs() - half;
    q.max(Vec2::ZERO).length() + q.x.max(q.y).min(0.0)
}

/// An axis-aligned box around the origin with edges rounded by `radius`.
pub(crate) fn cuboid(point: Vec3, half: Vec3, radius: f32) -> f32 {
    let q = point.abs() - half + Vec3::splat(radius);
    q.max(Vec3::ZERO).length() + q.max_element().min(0.0) - radius
}

/// A line segment with thickness.
pub(crate) fn capsule(point: Vec3, from: Vec3, to: Vec3, radius: f32) -> f32 {
    let along = to - from;
    let share = ((point - from).dot(along) / along.length_squared()).clamp(0.0, 1.0);
    (point - from - along * share).length() - radius
}

/// A ring of circular section around the z axis at height `z`.
pub(crate) fn torus(point: Vec3, z: f32, major: f32, minor: f32) -> f32 {
    Vec2::new(point.xy().length() - major, point.z - z).length() - minor
}

/// Union with a fillet of about `radius`.
pub(crate) fn blended(first: f32, second: f32, radius: f32) -> f32 {
    let share = (radius - (first - second).abs()).max(0.0) / radius;
    first.min(second) - share * share * radius * 0.25
}

/// The first solid without the second, with the new edge rounded by about `radius`.
pub(crate) fn carved(solid: f32, tool: f32, radius: f32) -> f32 {
    -blended(-solid, tool, radius)
}

/// A point turned into the sector it lies in, out of `count` around z, and the sector's number.
///
/// Sector 0 is centred on the x axis.
pub(crate) fn sector(point: Vec2, count: usize) -> (Vec2, usize) {
    let step = std::f32::consts::TAU / count as f32;
    let number = (point.y.atan2(point.x) / step).round();
    let turned = rotated(point, -number * step);
    (turned, (number as i32).rem_euclid(count as i32) as usize)
}

/// A point turned around the origin by `angle`.
pub(crate) fn rotated(point: Vec2, angle: f32) -> Vec2 {
    Vec2::from_angle(angle).rotate(point)
}

/// Where a ray enters and leaves a sphere, if it meets it.
pub(crate) fn sphere_span(
    origin: Vec3,
    direction: Vec3,
    center: Vec3,
    radius: f32,
) -> Option<(f32, f32)> {
    let offset = origin - center;
    let half = offset.dot(direction);
    let discriminant = half * half - offset.length_squared() + radius * radius;
    if discriminant < 0.0 {
        return None;
    }
    let root = discriminant.sqrt();
    (root > half).then_some((-half - root, -half + root))
}

/// Two unit vectors that complete `normal` to a frame, the first turned by `angle`.
pub(crate) fn tangents(normal: Vec3, angle: f32) -> (Vec3, Vec3) {
    let (first, second) = normal.any_orthonormal_pair();
    let (sine, cosine) = angle.sin_cos();
    let along = first * cosine + second * sine;
    (along, normal.cross(along))
}
