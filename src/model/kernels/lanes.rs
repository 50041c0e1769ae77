//! Vectors of `f32` of one kind of processor, behind one trait: kernels are written once.

#![allow(
    unsafe_code,
    reason = "vector instructions; every block says what it relies on"
)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(crate) use self::avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use self::avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) use self::neon::Neon;
pub(crate) use self::scalar::Scalar;
use super::arithmetic::Arithmetic;

/// Most values that any processor's vector has.
pub(crate) const WIDEST: usize = 16;
/// Most rows that a tile has on any processor.
pub(crate) const TALLEST: usize = 12;

/// What kernels need of a processor's vectors.
///
/// # Safety
/// The unsafe functions may be called only within [`Lanes::vectorise`], and that only where
/// [`Lanes::is_available`]. Where one takes a pointer there must be [`Lanes::COUNT`] values, on any
/// boundary that a single one may lie on.
pub(crate) trait Lanes: Copy + std::fmt::Debug + Send + Sync + 'static {
    type Vector: Copy;
    /// Values of a vector.
    const COUNT: usize;
    /// Rows of a tile of a product: as many as registers hold.
    const ROWS: usize;

    /// Whether this processor has the instructions.
    fn is_available() -> bool;
    /// Runs `work` compiled for this processor.
    unsafe fn vectorise<R>(work: impl FnOnce() -> R) -> R;
    unsafe fn splat(value: f32) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    unsafe fn store(to: *mut f32, values: Self::Vector);
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn sub(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn div(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn min(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    unsafe fn max(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`, rounded once where the processor can.
    unsafe fn mul_add(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// To the nearest whole number.
    unsafe fn round(a: Self::Vector) -> Self::Vector;
    /// `a` times two to the power of `power`, whole numbers from -126 to 127.
    unsafe fn scale(a: Self::Vector, power: Self::Vector) -> Self::Vector;
    /// Has the processor fetch the values at an address, if there are any.
    unsafe fn prefetch(from: *const u32);
    unsafe fn sum(a: Self::Vector) -> f32;
    unsafe fn largest(a: Self::Vector) -> f32;
    /// [`super::product::tile`] of [`Self::ROWS`] rows, under its conditions.
    unsafe fn tile<A: Arithmetic<Lanes = Self>>(
        left: *const u32,
        left_stride: usize,
        panel: *const u32,
        depth: usize,
        out: *mut f32,
        out_stride: usize,
        ahead: *const u32,
    );
}
