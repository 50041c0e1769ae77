//! Sixteen values at a time: x86-64 with AVX-512.

use std::arch::x86_64::*;

use super::super::arithmetic::Arithmetic;
use super::super::product::tile;
use super::Lanes;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512;

// SAFETY: within `vectorise` the instructions are there; pointers are the caller's, see the trait.
#[rustfmt::skip]
impl Lanes for Avx512 {
    type Vector = __m512;
    const COUNT: usize = 16;
    const ROWS: usize = 12;

    fn is_available() -> bool {
        is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("fma")
    }

    #[inline(always)]
    unsafe fn vectorise<R>(work: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma")]
        unsafe fn inner<R>(work: impl FnOnce() -> R) -> R { work() }
        unsafe { inner(work) }
    }
    #[inline(always)] unsafe fn splat(value: f32) -> __m512 { unsafe { _mm512_set1_ps(value) } }
    #[inline(always)] unsafe fn load(from: *const f32) -> __m512 { unsafe { _mm512_loadu_ps(from) } }
    #[inline(always)] unsafe fn store(to: *mut f32, a: __m512) { unsafe { _mm512_storeu_ps(to, a) } }
    #[inline(always)] unsafe fn add(a: __m512, b: __m512) -> __m512 { unsafe { _mm512_add_ps(a, b) } }
    #[inline(always)] unsafe fn sub(a: __m512, b: __m512) -> __m512 { unsafe { _mm512_sub_ps(a, b) } }
    #[inline(always)] unsafe fn mul(a: __m512, b: __m512) -> __m512 { unsafe { _mm512_mul_ps(a, b) } }
    #[inline(always)] unsafe fn div(a: __m512, b: __m512) -> __m512 { unsafe { _mm512_div_ps(a, b) } }
    #[inline(always)] unsafe fn min(a: __m512, b: __m512) -> __m512 { unsafe { _mm512_min_ps(a, b) } }
    #[inline(always)] unsafe fn max(a: __m512, b: __m512) -> __m512 { unsafe { _mm512_max_ps(a, b) } }
    #[inline(always)] unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { unsafe { _mm512_fmadd_ps(a, b, c) } }
    #[inline(always)] unsafe fn round(a: __m512) -> __m512 { unsafe { _mm512_roundscale_ps::<0x08>(a) } }
    #[inline(always)] unsafe fn scale(a: __m512, power: __m512) -> __m512 { unsafe { _mm512_scalef_ps(a, power) } }
    #[inline(always)] unsafe fn prefetch(from: *const u32) { unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) } }
    #[inline(always)] unsafe fn sum(a: __m512) -> f32 { unsafe { _mm512_reduce_add_ps(a) } }
    #[inline(always)] unsafe fn largest(a: __m512) -> f32 { unsafe { _mm512_reduce_max_ps(a) } }
    #[inline(always)]
    unsafe fn tile<A: Arithmetic<Lanes = Self>>(left: *const u32, left_stride: usize, panel: *const u32, depth: usize, out: *mut f32, out_stride: usize, ahead: *const u32) {
        unsafe { tile::<A, { Self::ROWS }>(left, left_stride, panel, depth, out, out_stride, ahead) }
    }
}
