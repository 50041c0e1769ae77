//! The kernels of each kind of processor that is at hand, held against plain sums in `f64`.

#![allow(
    unsafe_code,
    reason = "vector instructions; every block says what it relies on"
)]

use super::arithmetic::{Arithmetic, Single, to_brain};
use super::elementwise::{exp, gelu};
use super::head::{LinearRoom, Projected, SoftmaxRoom, attend, attend_linearly};
use super::lanes::{Lanes, Scalar};
use super::product::{Add, Gelu, Keep, Packed};
use super::rows::{Norm, Rows, elements};

/// `bf16` on any processor.
#[derive(Clone, Copy, Debug)]
struct Emulated;

// SAFETY: what `Scalar` needs; `u16` are read and written one by one.
impl Arithmetic for Emulated {
    type Lanes = Scalar;
    type Element = u16;
    const DEPTH: usize = 2;

    fn vectorise<R>(work: impl FnOnce() -> R) -> R {
        work()
    }
    fn narrow(value: f32) -> u16 {
        to_brain(value)
    }
    fn word(elements: &[u16]) -> u32 {
        u32::from(elements[0]) | u32::from(elements[1]) << 16
    }
    unsafe fn store(to: *mut u16, values: [f32; 4]) {
        for (lane, value) in values.into_iter().enumerate() {
            unsafe { to.add(lane).write(to_brain(value)) };
        }
    }
    unsafe fn load(from: *const u16) -> [f32; 4] {
        std::array::from_fn(|lane| unsafe { widen(from.add(lane).read()) })
    }
    unsafe fn multiply_add(sum: [f32; 4], left: [f32; 4], right: [f32; 4]) -> [f32; 4] {
        let halves = |word: f32| [word.to_bits() as u16, (word.to_bits() >> 16) as u16].map(widen);
        std::array::from_fn(|lane| {
            let ([a, b], [c, d]) = (halves(left[lane]), halves(right[lane]));
            sum[lane] + a * c + b * d
        })
    }
}

fn widen(value: u16) -> f32 {
    f32::from_bits(u32::from(value) << 16)
}

/// A value as products see it.
fn rounded<A: Arithmetic>(value: f32) -> f64 {
    let word = A::word(&[A::narrow(value), A::Element::default()]);
    f64::from(match A::DEPTH {
        1 => f32::from_bits(word),
        _ => widen(word as u16),
    })
}

/// How far a rounded value may be off, in units of itself.
fn step<A: Arithmetic>() -> f64 {
    if A::DEPTH == 1 { 2e-6 } else { 8e-3 }
}

/// Runs a check with each arithmetic that this processor has.
macro_rules! with_each_arithmetic {
    ($check:ident) => {
        $check::<Single<Scalar>>();
        $check::<Emulated>();
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            use super::arithmetic::Brain;
            use super::lanes::{Avx2, Avx512};
            if Avx2::is_available() {
                $check::<Single<Avx2>>();
            }
            if Avx512::is_available() {
                $check::<Single<Avx512>>();
            }
            if Brain::is_available() {
                $check::<Brain>();
            }
        }
        #[cfg(target_arch = "aarch64")]
        $check::<Single<super::lanes::Neon>>();
    };
}

/// Numbers between -1 and 1, always the same.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(next).collect()
}

fn rows<A: Arithmetic>(values: &[f32], width: usize) -> Rows {
    let mut rows = Rows::default();
    rows.prepare::<A>(values.len() / width, width);
    for (row, values) in values.chunks_exact(width).enumerate() {
        rows.put::<A>(row, 0, values);
    }
    rows
}

/// An element of rows.
fn element<A: Arithmetic>(rows: &Rows, row: usize, column: usize) -> f64 {
    let words = &rows.words()[row * rows.stride()..][..rows.stride()];
    let word = A::word(&[elements::<A>(words)[column], A::Element::default()]);
    f64::from(match A::DEPTH {
        1 => f32::from_bits(word),
        _ => widen(word as u16),
    })
}

#[track_caller]
fn assert_near(found: f64, expected: f64, tolerance: f64) {
    let scale = expected.abs().max(1.0);
    assert!(
        (found - expected).abs() <= tolerance * scale,
        "expected {expected}, found {found}"
    );
}

fn plain_gelu(x: f64) -> f64 {
    // The error function by its series and, far out, by what is left of one.
    let z = x.abs() / std::f64::consts::SQRT_2;
    let mut term = z;
    let mut series = z;
    for n in 1..if cfg!(miri) { 40 } else { 200 } {
        term *= -z * z / f64::from(n);
        series += term / f64::from(2 * n + 1);
    }
    let erf = if z > 4.0 {
        1.0
    } else {
        series * std::f64::consts::FRAC_2_SQRT_PI
    };
    0.5 * x * (1.0 + erf * x.signum())
}

#[test]
fn a_product_is_the_sum_of_products_plus_the_bias_whatever_becomes_of_it() {
    fn check<A: Arithmetic>() {
        let (count, inputs, outputs) = if cfg!(miri) { (5, 5, 9) } else { (13, 37, 45) };
        let left = numbers(count * inputs, 1);
        let weight = numbers(inputs * outputs, 2);
        let bias = numbers(outputs, 3);
        let packed = Packed::<A>::new(&weight, &bias, inputs);
        let left_rows = rows::<A>(&left, inputs);
        let mut kept = Rows::default();
        kept.prepare::<A>(count, outputs);
        let mut raised = kept.clone();
        let stride = kept.stride();
        packed.multiply(
            &left_rows,
            count,
            Keep {
                to: kept.words_mut(),
                stride,
            },
        );
        packed.multiply(
            &left_rows,
            count,
            Gelu(Keep {
                to: raised.words_mut(),
                stride,
            }),
        );
        let wide = 64;
        let mut sums = vec![0.5f32; count * wide];
        packed.multiply(
            &left_rows,
            count,
            Add {
                to: &mut sums,
                stride: wide,
            },
        );
        for row in 0..count {
            for column in 0..outputs {
                let pairs = left[row * inputs..]
                    .iter()
                    .zip(&weight[column * inputs..])
                    .take(inputs);
                let product: f64 = pairs
                    .map(|(a, b)| rounded::<A>(*a) * rounded::<A>(*b))
                    .sum();
                let expected = product + f64::from(bias[column]);
                assert_near(f64::from(sums[row * wide + column]), expected + 0.5, 4e-6);
                assert_near(element::<A>(&kept, row, column), expected, step::<A>());
                assert_near(
                    element::<A>(&raised, row, column),
                    plain_gelu(expected),
                    step::<A>(),
                );
            }
        }
    }
    with_each_arithmetic!(check);
}

#[test]
fn a_row_of_a_product_is_the_same_to_the_last_bit_wherever_it_stands() {
    fn check<A: Arithmetic>() {
        let (inputs, outputs, stride) = if cfg!(miri) { (3, 9, 16) } else { (24, 40, 64) };
        let packed = Packed::<A>::new(&numbers(inputs * outputs, 1), &numbers(outputs, 2), inputs);
        let left = numbers(if cfg!(miri) { 5 } else { 14 } * inputs, 3);
        let product = |values: &[f32]| {
            let count = values.len() / inputs;
            let mut sums = vec![0f32; count * stride];
            packed.multiply(
                &rows::<A>(values, inputs),
                count,
                Add {
                    to: &mut sums,
                    stride,
                },
            );
            sums
        };
        let together = product(&left);
        for (row, values) in left.chunks_exact(inputs).enumerate() {
            assert_eq!(product(values), together[row * stride..][..stride]);
        }
    }
    with_each_arithmetic!(check);
}

#[test]
fn a_norm_brings_rows_to_mean_zero_and_variance_one_before_its_scale_and_shift() {
    fn check<A: Arithmetic>() {
        for width in if cfg!(miri) { [4, 7, 8] } else { [8, 19, 48] } {
            let stride = 64;
            let mut from = numbers(3 * stride, 4);
            from.iter_mut()
                .for_each(|value| *value = *value * 3.0 + 10.0);
            let (weight, bias) = (numbers(width, 5), numbers(width, 6));
            let mut made = Rows::default();
            made.prepare::<A>(3, width);
            Norm::new(&weight, &bias, 1e-3).apply::<A>(&from, stride, &mut made);
            for row in 0..3 {
                let values = || {
                    from[row * stride..][..width]
                        .iter()
                        .map(|value| f64::from(*value))
                };
                let mean = values().sum::<f64>() / width as f64;
                let variance =
                    values().map(|value| (value - mean).powi(2)).sum::<f64>() / width as f64;
                for (column, value) in values().enumerate() {
                    let normal = (value - mean) / (variance + 1e-3).sqrt();
                    let expected = normal * f64::from(weight[column]) + f64::from(bias[column]);
                    assert_near(element::<A>(&made, row, column), expected, step::<A>());
                }
            }
        }
    }
    with_each_arithmetic!(check);
}

/// Rows of queries, keys and values of two heads, one token more than see each other on each side.
fn projected<A: Arithmetic>(tokens: usize, head_width: usize) -> (Vec<f32>, Rows) {
    let width = 6 * head_width;
    let values = numbers((tokens + 2) * width, 7);
    let values: Vec<f32> = values
        .into_iter()
        .map(|value| rounded::<A>(value * 2.0) as f32)
        .collect();
    let mut made = Rows::default();
    made.prepare::<A>(tokens + 2 + A::Lanes::ROWS, width);
    for (row, values) in values.chunks_exact(width).enumerate() {
        made.put::<A>(row, 0, values);
    }
    (values, made)
}

/// What a head's tokens make of each other, weighed by `weight` of query and key.
fn plain_attention(
    values: &[f32],
    tokens: usize,
    head_width: usize,
    head: usize,
    weight: impl Fn(&[f32], &[f32]) -> f64,
) -> Vec<f64> {
    let part = |token: usize, part: usize| {
        let at = (token + 1) * 6 * head_width + (2 * part + head) * head_width;
        &values[at..][..head_width]
    };
    let mut made = Vec::new();
    for token in 0..tokens {
        let weights: Vec<f64> = (0..tokens)
            .map(|other| weight(part(token, 0), part(other, 1)))
            .collect();
        let sum: f64 = weights.iter().sum();
        for channel in 0..head_width {
            let shown = weights.iter().enumerate();
            let shown = shown.map(|(other, weight)| weight * f64::from(part(other, 2)[channel]));
            made.push(shown.sum::<f64>() / sum);
        }
    }
    made
}

/// Tokens and channels of a head; fewer for Miri, which is slow.
const HEAD_SIZES: &[(usize, usize)] = if cfg!(miri) {
    &[(1, 4), (9, 6)]
} else {
    &[(1, 8), (7, 8), (37, 8), (50, 40)]
};

#[test]
fn softmax_attention_is_what_its_formula_says() {
    fn check<A: Arithmetic>() {
        for &(tokens, head_width) in HEAD_SIZES {
            let (values, rows) = projected::<A>(tokens, head_width);
            for head in 0..2 {
                let expected = plain_attention(&values, tokens, head_width, head, |query, key| {
                    let pairs = query.iter().zip(key);
                    pairs
                        .map(|(a, b)| f64::from(*a) * f64::from(*b))
                        .sum::<f64>()
                        .exp2()
                });
                let segment = Projected {
                    rows: &rows,
                    first: 1,
                    tokens,
                    width: 2 * head_width,
                    head_width,
                };
                let mut made = vec![0f32; tokens * head_width];
                attend::<A>(segment, head, &mut SoftmaxRoom::default(), &mut made);
                for (found, expected) in made.into_iter().zip(expected) {
                    assert_near(f64::from(found), expected, 4.0 * step::<A>());
                }
            }
        }
    }
    with_each_arithmetic!(check);
}

#[test]
fn linear_attention_is_what_its_formula_says() {
    fn check<A: Arithmetic>() {
        let phi = |u: f32| {
            if u > 0.0 {
                f64::from(u) + 1.0
            } else {
                f64::from(u).exp()
            }
        };
        for &(tokens, head_width) in HEAD_SIZES {
            let (values, rows) = projected::<A>(tokens, head_width);
            for head in 0..2 {
                let expected = plain_attention(&values, tokens, head_width, head, |query, key| {
                    query.iter().zip(key).map(|(a, b)| phi(*a) * phi(*b)).sum()
                });
                let segment = Projected {
                    rows: &rows,
                    first: 1,
                    tokens,
                    width: 2 * head_width,
                    head_width,
                };
                let mut made = vec![0f32; tokens * head_width];
                attend_linearly::<A>(segment, head, 1e-6, &mut LinearRoom::default(), &mut made);
                for (found, expected) in made.into_iter().zip(expected) {
                    assert_near(f64::from(found), expected, 4e-6);
                }
            }
        }
    }
    with_each_arithmetic!(check);
}

#[test]
fn scores_far_apart_leave_the_largest_alone() {
    fn check<A: Arithmetic>() {
        let (tokens, head_width) = (5, 8);
        let mut rows = Rows::default();
        rows.prepare::<A>(tokens + A::Lanes::ROWS, 3 * head_width);
        for token in 0..tokens {
            let mut values = vec![0f32; 3 * head_width];
            values[0] = 100.0;
            values[head_width] = if token == 3 { 50.0 } else { -50.0 };
            values[2 * head_width..].fill(token as f32);
            rows.put::<A>(token, 0, &values);
        }
        let segment = Projected {
            rows: &rows,
            first: 0,
            tokens,
            width: head_width,
            head_width,
        };
        let mut made = vec![0f32; tokens * head_width];
        attend::<A>(segment, 0, &mut SoftmaxRoom::default(), &mut made);
        assert_eq!(made, vec![3.0; tokens * head_width]);
    }
    with_each_arithmetic!(check);
}

/// `of` of each value, on vectors.
fn mapped<A: Arithmetic>(
    values: &[f32],
    of: impl Fn(<A::Lanes as Lanes>::Vector) -> <A::Lanes as Lanes>::Vector,
) -> Vec<f32> {
    let mut made = vec![0f32; values.len()];
    let count = A::Lanes::COUNT;
    A::vectorise(|| {
        for (from, to) in values.chunks_exact(count).zip(made.chunks_exact_mut(count)) {
            // SAFETY: both have a vector's values.
            unsafe { A::Lanes::store(to.as_mut_ptr(), of(A::Lanes::load(from.as_ptr()))) };
        }
    });
    made
}

#[test]
fn the_exponential_and_the_gelu_are_as_exact_as_they_say() {
    fn check<A: Arithmetic>() {
        let count = if cfg!(miri) { 16 } else { 16_384 };
        let from = |low: f32, high: f32| -> Vec<f32> {
            (0..count)
                .map(|index| low + (high - low) * index as f32 / count as f32)
                .collect()
        };
        let values = from(-87.0, 88.0);
        // SAFETY: `mapped` calls it within `vectorise`.
        let made = mapped::<A>(&values, |x| unsafe { exp::<A::Lanes>(x) });
        for (value, made) in values.iter().zip(made) {
            let expected = f64::from(*value).exp();
            assert!(
                (f64::from(made) / expected - 1.0).abs() < 3e-7,
                "exp({value}) = {made}"
            );
        }
        let values = from(-9.0, 9.0);
        let made = mapped::<A>(&values, |x| unsafe { gelu::<A::Lanes>(x) });
        for (value, made) in values.iter().zip(made) {
            let error = f64::from(made) - plain_gelu(f64::from(*value));
            assert!(error.abs() < 1.2e-6, "gelu({value}) = {made}");
        }
        let far = vec![-1e4f32; A::Lanes::COUNT];
        let made = mapped::<A>(&far, |x| unsafe { gelu::<A::Lanes>(x) });
        assert!(made.iter().all(|value| value.abs() < 1.2e-6), "{made:?}");
    }
    with_each_arithmetic!(check);
}
