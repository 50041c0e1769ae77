//! Four values at a time: 64-bit ARM.

use std::arch::aarch64::*;

use super::super::arithmetic::Arithmetic;
use super::super::product::tile;
use super::Lanes;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon;

// SAFETY: every 64-bit ARM processor has the instructions; pointers are the caller's, see the trait.
#[rustfmt::skip]
impl Lanes for Neon {
    type Vector = float32x4_t;
    const COUNT: usize = 4;
    const ROWS: usize = 12;

    fn is_available() -> bool {
        true
    }
    #[inline(always)] unsafe fn vectorise<R>(work: impl FnOnce() -> R) -> R { work() }
    #[inline(always)] unsafe fn splat(value: f32) -> float32x4_t { unsafe { vdupq_n_f32(value) } }
    #[inline(always)] unsafe fn load(from: *const f32) -> float32x4_t { unsafe { vld1q_f32(from) } }
    #[inline(always)] unsafe fn store(to: *mut f32, a: float32x4_t) { unsafe { vst1q_f32(to, a) } }
    #[inline(always)] unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t { unsafe { vaddq_f32(a, b) } }
    #[inline(always)] unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { unsafe { vsubq_f32(a, b) } }
    #[inline(always)] unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { unsafe { vmulq_f32(a, b) } }
    #[inline(always)] unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t { unsafe { vdivq_f32(a, b) } }
    #[inline(always)] unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t { unsafe { vminq_f32(a, b) } }
    #[inline(always)] unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t { unsafe { vmaxq_f32(a, b) } }
    #[inline(always)] unsafe fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { unsafe { vfmaq_f32(c, a, b) } }
    #[inline(always)] unsafe fn round(a: float32x4_t) -> float32x4_t { unsafe { vrndnq_f32(a) } }
    #[inline(always)]
    unsafe fn scale(a: float32x4_t, power: float32x4_t) -> float32x4_t {
        unsafe {
            let exponent = vaddq_s32(vcvtnq_s32_f32(power), vdupq_n_s32(127));
            vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        }
    }
    #[inline(always)] unsafe fn prefetch(_from: *const u32) {}
    #[inline(always)] unsafe fn sum(a: float32x4_t) -> f32 { unsafe { vaddvq_f32(a) } }
    #[inline(always)] unsafe fn largest(a: float32x4_t) -> f32 { unsafe { vmaxvq_f32(a) } }
    #[inline(always)]
    unsafe fn tile<A: Arithmetic<Lanes = Self>>(left: *const u32, left_stride: usize, panel: *const u32, depth: usize, out: *mut f32, out_stride: usize, ahead: *const u32) {
        unsafe { tile::<A, { Self::ROWS }>(left, left_stride, panel, depth, out, out_stride, ahead) }
    }
}
