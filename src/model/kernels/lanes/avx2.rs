//! Eight values at a time: x86-64 with AVX2 and FMA.

use std::arch::x86_64::*;

use super::super::arithmetic::Arithmetic;
use super::super::product::tile;
use super::Lanes;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2;

// SAFETY: within `vectorise` the instructions are there; pointers are the caller's, see the trait.
#[rustfmt::skip]
impl Lanes for Avx2 {
    type Vector = __m256;
    const COUNT: usize = 8;
    const ROWS: usize = 6;

    fn is_available() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    #[inline(always)]
    unsafe fn vectorise<R>(work: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn inner<R>(work: impl FnOnce() -> R) -> R { work() }
        unsafe { inner(work) }
    }
    #[inline(always)] unsafe fn splat(value: f32) -> __m256 { unsafe { _mm256_set1_ps(value) } }
    #[inline(always)] unsafe fn load(from: *const f32) -> __m256 { unsafe { _mm256_loadu_ps(from) } }
    #[inline(always)] unsafe fn store(to: *mut f32, a: __m256) { unsafe { _mm256_storeu_ps(to, a) } }
    #[inline(always)] unsafe fn add(a: __m256, b: __m256) -> __m256 { unsafe { _mm256_add_ps(a, b) } }
    #[inline(always)] unsafe fn sub(a: __m256, b: __m256) -> __m256 { unsafe { _mm256_sub_ps(a, b) } }
    #[inline(always)] unsafe fn mul(a: __m256, b: __m256) -> __m256 { unsafe { _mm256_mul_ps(a, b) } }
    #[inline(always)] unsafe fn div(a: __m256, b: __m256) -> __m256 { unsafe { _mm256_div_ps(a, b) } }
    #[inline(always)] unsafe fn min(a: __m256, b: __m256) -> __m256 { unsafe { _mm256_min_ps(a, b) } }
    #[inline(always)] unsafe fn max(a: __m256, b: __m256) -> __m256 { unsafe { _mm256_max_ps(a, b) } }
    #[inline(always)] unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { unsafe { _mm256_fmadd_ps(a, b, c) } }
    #[inline(always)] unsafe fn round(a: __m256) -> __m256 { unsafe { _mm256_round_ps::<0x08>(a) } }
    #[inline(always)]
    unsafe fn scale(a: __m256, power: __m256) -> __m256 {
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(power), _mm256_set1_epi32(127));
            _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }
    #[inline(always)] unsafe fn prefetch(from: *const u32) { unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) } }
    #[inline(always)]
    unsafe fn sum(a: __m256) -> f32 {
        let mut values = [0.0f32; 8];
        unsafe { Self::store(values.as_mut_ptr(), a) };
        values.iter().sum()
    }
    #[inline(always)]
    unsafe fn largest(a: __m256) -> f32 {
        let mut values = [0.0f32; 8];
        unsafe { Self::store(values.as_mut_ptr(), a) };
        values.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn tile<A: Arithmetic<Lanes = Self>>(left: *const u32, left_stride: usize, panel: *const u32, depth: usize, out: *mut f32, out_stride: usize, ahead: *const u32) {
        unsafe { tile::<A, { Self::ROWS }>(left, left_stride, panel, depth, out, out_stride, ahead) }
    }
}
