//! Deterministic noise: hashed lattice values, no state, the same on every machine.

use glam::Vec3;

/// Mixes 32 bits well enough for textures (the finaliser of MurmurHash3).
fn mixed(mut bits: u32) -> u32 {
    bits ^= bits >> 16;
    bits = bits.wrapping_mul(0x85eb_ca6b);
    bits ^= bits >> 13;
    bits = bits.wrapping_mul(0xc2b2_ae35);
    bits ^ (bits >> 16)
}

fn unit(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

fn lattice(x: i32, y: i32, z: i32) -> f32 {
    let key = (x as u32).wrapping_mul(0x9e37_79b1)
        ^ (y as u32).wrapping_mul(0x85eb_ca77)
        ^ (z as u32).wrapping_mul(0xc2b2_ae3d);
    unit(mixed(key))
}

/// Smooth value noise in `[0, 1]` with features of about unit size.
pub(crate) fn value_noise(point: Vec3) -> f32 {
    let cell = point.floor();
    let (x, y, z) = (cell.x as i32, cell.y as i32, cell.z as i32);
    let fraction = point - cell;
    let weight = fraction * fraction * (Vec3::splat(3.0) - 2.0 * fraction);
    let edge = |dy: i32, dz: i32| {
        let near = lattice(x, y + dy, z + dz);
        let far = lattice(x.wrapping_add(1), y + dy, z + dz);
        near + (far - near) * weight.x
    };
    let front = edge(0, 0) + (edge(1, 0) - edge(0, 0)) * weight.y;
    let back = edge(0, 1) + (edge(1, 1) - edge(0, 1)) * weight.y;
    front + (back - front) * weight.z
}

/// Two octaves of [`value_noise`], in `[0, 1]`.
pub(crate) fn rough_noise(point: Vec3) -> f32 {
    0.65 * value_noise(point) + 0.35 * value_noise(point * 2.7 + Vec3::splat(11.3))
}

/// Roughly Gaussian sensor noise of unit deviation for one channel of one pixel.
pub(crate) fn sensor_noise(key: u32, index: u32) -> f32 {
    let first = mixed(key ^ index.wrapping_mul(0x9e37_79b1));
    let second = mixed(first ^ 0x68bc_21eb);
    // A sum of four uniform 16-bit numbers has deviation sqrt(4 / 12).
    let sum = (first & 0xffff) + (first >> 16) + (second & 0xffff) + (second >> 16);
    (sum as f32 / 65_535.0 - 2.0) * 1.732
}
