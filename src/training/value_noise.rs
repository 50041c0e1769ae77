//! Value noise: smooth random patterns on the plane, the same for the same seed.

/// A value in 0..1 for a lattice point.
pub(super) fn lattice(x: i32, y: i32, seed: u32) -> f32 {
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
