//! The exponential and the GELU of a vector.

#![allow(
    unsafe_code,
    reason = "vector instructions; every block says what it relies on"
)]

use super::lanes::Lanes;

/// e^x for x from -87 to 88, and that of the nearer end outside; to about 2 units in the last place
/// (Cephes `expf`).
///
/// # Safety
/// Within [`Lanes::vectorise`].
#[inline(always)]
pub(crate) unsafe fn exp<L: Lanes>(x: L::Vector) -> L::Vector {
    // SAFETY: the caller's promise.
    unsafe {
        let x = L::max(L::min(x, L::splat(88.0)), L::splat(-87.0));
        let power = L::round(L::mul(x, L::splat(std::f32::consts::LOG2_E)));
        let r = L::mul_add(power, L::splat(-0.693_359_4), x);
        let r = L::mul_add(power, L::splat(2.121_944_4e-4), r);
        let mut tail = L::splat(1.987_569_1e-4);
        for coefficient in [
            1.398_199_9e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            1.666_666_5e-1,
            0.5,
        ] {
            tail = L::mul_add(tail, r, L::splat(coefficient));
        }
        let mantissa = L::add(L::mul_add(tail, L::mul(r, r), r), L::splat(1.0));
        L::scale(mantissa, power)
    }
}

/// In powers of x from the highest down: 2^x for x from -1/2 to 1/2, fitted for the least relative error.
const POWER_OF_TWO: [f32; 6] = [
    1.327_646_9e-3,
    9.675_542e-3,
    5.550_713_5e-2,
    0.240_221_2,
    0.693_146_94,
    1.0,
];

/// 2^x for x from -126 to 0, and that of -126 below; the relative error is below 3e-7.
///
/// # Safety
/// Within [`Lanes::vectorise`].
#[inline(always)]
pub(crate) unsafe fn exp2<L: Lanes>(x: L::Vector) -> L::Vector {
    // SAFETY: the caller's promise.
    unsafe {
        let x = L::max(x, L::splat(-126.0));
        let power = L::round(x);
        L::scale(polynomial::<L>(L::sub(x, power), POWER_OF_TWO), power)
    }
}

/// Beyond this the normal distribution is taken to have no tail; it has 2e-8.
const TAIL: f32 = 5.5;
/// Numerator and denominator, in powers of x squared from the highest down, of the normal
/// distribution function less one half, divided by x. A weighted least-squares fit on 0 to [`TAIL`].
const NUMERATOR: [f32; 6] = [
    2.221_594_6e-8,
    6.530_494e-6,
    1.828_452_1e-4,
    4.761_542e-3,
    3.514_121e-2,
    0.398_942,
];
const DENOMINATOR: [f32; 6] = [
    1.195_379_5e-6,
    7.860_518e-5,
    1.962_365_3e-3,
    2.939_803_5e-2,
    0.254_749_54,
    1.0,
];

/// x times the standard normal's distribution function at x, with an absolute error below 1.2e-6.
///
/// # Safety
/// Within [`Lanes::vectorise`].
#[inline(always)]
pub(crate) unsafe fn gelu<L: Lanes>(x: L::Vector) -> L::Vector {
    // SAFETY: the caller's promise.
    unsafe {
        let zero = L::splat(0.0);
        let magnitude = L::min(L::max(x, L::sub(zero, x)), L::splat(TAIL));
        let square = L::mul(magnitude, magnitude);
        let half = L::div(
            L::mul(magnitude, polynomial::<L>(square, NUMERATOR)),
            polynomial::<L>(square, DENOMINATOR),
        );
        let tail = L::sub(L::splat(0.5), half);
        L::sub(L::max(x, zero), L::mul(magnitude, tail))
    }
}

/// # Safety
/// Within [`Lanes::vectorise`].
#[inline(always)]
unsafe fn polynomial<L: Lanes>(x: L::Vector, coefficients: [f32; 6]) -> L::Vector {
    // SAFETY: the caller's promise.
    unsafe {
        let mut value = L::splat(coefficients[0]);
        for coefficient in &coefficients[1..] {
            value = L::mul_add(value, x, L::splat(*coefficient));
        }
        value
    }
}
