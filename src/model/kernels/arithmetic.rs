//! The numbers that products are made of: `f32`, or `bf16` summed up in `f32`.
//!
//! Factors are read in words of 32 bits, one `f32` or two `bf16` each, so that one loop serves all.

#![allow(
    unsafe_code,
    reason = "vector instructions; every block says what it relies on"
)]

use std::fmt::Debug;
use std::marker::PhantomData;

use super::lanes::Lanes;

/// The numbers of a product, on one kind of processor.
///
/// # Safety
/// The unsafe functions may be called only within [`Arithmetic::vectorise`]. Where one takes a
/// pointer there must be [`Lanes::COUNT`] elements.
pub(crate) trait Arithmetic: Copy + Debug + Send + Sync + 'static {
    type Lanes: Lanes;
    /// What a word consists of.
    type Element: Copy + Debug + Default + Send + Sync;
    /// Elements of a word.
    const DEPTH: usize;

    /// Runs `work` compiled for this processor.
    ///
    /// # Panics
    /// When this processor does not have the instructions.
    fn vectorise<R>(work: impl FnOnce() -> R) -> R;
    fn narrow(value: f32) -> Self::Element;
    /// The first of the elements in the lowest bits.
    fn word(elements: &[Self::Element]) -> u32;
    unsafe fn store(to: *mut Self::Element, values: <Self::Lanes as Lanes>::Vector);
    unsafe fn load(from: *const Self::Element) -> <Self::Lanes as Lanes>::Vector;
    /// `sum` plus the products of the words' elements.
    unsafe fn multiply_add(
        sum: <Self::Lanes as Lanes>::Vector,
        left: <Self::Lanes as Lanes>::Vector,
        right: <Self::Lanes as Lanes>::Vector,
    ) -> <Self::Lanes as Lanes>::Vector;
}

/// `f32` throughout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single<L>(PhantomData<L>);

// SAFETY: as for `L`, whose instructions are looked for before work begins.
impl<L: Lanes> Arithmetic for Single<L> {
    type Lanes = L;
    type Element = f32;
    const DEPTH: usize = 1;

    #[inline(always)]
    fn vectorise<R>(work: impl FnOnce() -> R) -> R {
        assert!(
            L::is_available(),
            "expected a processor with {:?}",
            PhantomData::<L>
        );
        unsafe { L::vectorise(work) }
    }
    fn narrow(value: f32) -> f32 {
        value
    }
    fn word(elements: &[f32]) -> u32 {
        elements[0].to_bits()
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, values: L::Vector) {
        unsafe { L::store(to, values) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> L::Vector {
        unsafe { L::load(from) }
    }
    #[inline(always)]
    unsafe fn multiply_add(sum: L::Vector, left: L::Vector, right: L::Vector) -> L::Vector {
        unsafe { L::mul_add(left, right, sum) }
    }
}

/// The `bf16` next to a value; of two as near, the even one.
pub(crate) fn to_brain(value: f32) -> u16 {
    let bits = value.to_bits();
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(target_arch = "x86_64")]
pub(crate) use self::brain::Brain;

#[cfg(target_arch = "x86_64")]
mod brain {
    use std::arch::x86_64::*;
    use std::mem::transmute;

    use super::super::lanes::{Avx512, Lanes};
    use super::{Arithmetic, to_brain};

    /// Factors in `bf16`, sums in `f32`: x86-64 with AVX512-BF16.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Brain;

    impl Brain {
        /// Whether this processor has the instructions.
        pub(crate) fn is_available() -> bool {
            Avx512::is_available() && is_x86_feature_detected!("avx512bf16")
        }
    }

    // SAFETY: instructions are looked for before work begins; vectors of the same 512 bits are
    // reinterpreted, of which every pattern is valid; pointers are the caller's, see the trait.
    #[rustfmt::skip]
    impl Arithmetic for Brain {
        type Lanes = Avx512;
        type Element = u16;
        const DEPTH: usize = 2;

        #[inline(always)]
        fn vectorise<R>(work: impl FnOnce() -> R) -> R {
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,fma")]
            unsafe fn inner<R>(work: impl FnOnce() -> R) -> R { work() }
            assert!(Self::is_available(), "expected a processor with AVX512-BF16");
            unsafe { inner(work) }
        }
        fn narrow(value: f32) -> u16 { to_brain(value) }
        fn word(elements: &[u16]) -> u32 { u32::from(elements[0]) | u32::from(elements[1]) << 16 }
        #[inline(always)]
        unsafe fn store(to: *mut u16, values: __m512) {
            unsafe { _mm256_storeu_si256(to.cast(), transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values))) }
        }
        #[inline(always)]
        unsafe fn load(from: *const u16) -> __m512 {
            unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())))) }
        }
        #[inline(always)]
        unsafe fn multiply_add(sum: __m512, left: __m512, right: __m512) -> __m512 {
            unsafe { _mm512_dpbf16_ps(sum, transmute::<__m512, __m512bh>(left), transmute::<__m512, __m512bh>(right)) }
        }
    }
}
