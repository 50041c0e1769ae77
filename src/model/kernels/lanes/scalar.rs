//! Any processor: short arrays, which compilers turn into what vectors there are.

use super::super::arithmetic::Arithmetic;
use super::super::product::tile;
use super::Lanes;

const COUNT: usize = 4;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar;

type Vector = [f32; COUNT];

#[inline(always)]
fn pairwise(a: Vector, b: Vector, of: impl Fn(f32, f32) -> f32) -> Vector {
    std::array::from_fn(|lane| of(a[lane], b[lane]))
}

// SAFETY: within `vectorise` the instructions are there; pointers are the caller's, see the trait.
#[rustfmt::skip]
impl Lanes for Scalar {
    type Vector = Vector;
    const COUNT: usize = COUNT;
    const ROWS: usize = 4;

    fn is_available() -> bool {
        true
    }

    #[inline(always)] unsafe fn vectorise<R>(work: impl FnOnce() -> R) -> R { work() }
    #[inline(always)] unsafe fn splat(value: f32) -> Vector { [value; COUNT] }
    // SAFETY: the caller has `COUNT` values there; an array of `f32` may lie where one may.
    #[inline(always)] unsafe fn load(from: *const f32) -> Vector { unsafe { from.cast::<Vector>().read() } }
    #[inline(always)] unsafe fn store(to: *mut f32, a: Vector) { unsafe { to.cast::<Vector>().write(a) } }
    #[inline(always)] unsafe fn add(a: Vector, b: Vector) -> Vector { pairwise(a, b, |a, b| a + b) }
    #[inline(always)] unsafe fn sub(a: Vector, b: Vector) -> Vector { pairwise(a, b, |a, b| a - b) }
    #[inline(always)] unsafe fn mul(a: Vector, b: Vector) -> Vector { pairwise(a, b, |a, b| a * b) }
    #[inline(always)] unsafe fn div(a: Vector, b: Vector) -> Vector { pairwise(a, b, |a, b| a / b) }
    #[inline(always)] unsafe fn min(a: Vector, b: Vector) -> Vector { pairwise(a, b, |a, b| if a < b { a } else { b }) }
    #[inline(always)] unsafe fn max(a: Vector, b: Vector) -> Vector { pairwise(a, b, |a, b| if a > b { a } else { b }) }
    #[inline(always)] unsafe fn mul_add(a: Vector, b: Vector, c: Vector) -> Vector { std::array::from_fn(|lane| a[lane] * b[lane] + c[lane]) }
    #[inline(always)] unsafe fn round(a: Vector) -> Vector { a.map(|a| (a + 12_582_912.0) - 12_582_912.0) }
    #[inline(always)] unsafe fn scale(a: Vector, power: Vector) -> Vector { pairwise(a, power, |a, power| a * f32::from_bits(((power as i32 + 127) as u32) << 23)) }
    #[inline(always)] unsafe fn prefetch(_from: *const u32) {}
    #[inline(always)] unsafe fn sum(a: Vector) -> f32 { a.iter().sum() }
    #[inline(always)] unsafe fn largest(a: Vector) -> f32 { a.into_iter().fold(f32::NEG_INFINITY, f32::max) }
    #[inline(always)]
    unsafe fn tile<A: Arithmetic<Lanes = Self>>(left: *const u32, left_stride: usize, panel: *const u32, depth: usize, out: *mut f32, out_stride: usize, ahead: *const u32) {
        unsafe { tile::<A, { Self::ROWS }>(left, left_stride, panel, depth, out, out_stride, ahead) }
    }
}
