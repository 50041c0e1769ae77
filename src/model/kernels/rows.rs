//! Rows of elements that a product reads, and what fills them.

#![allow(
    unsafe_code,
    reason = "vector instructions; every block says what it relies on"
)]

use super::arithmetic::Arithmetic;
use super::lanes::{Lanes, WIDEST};
use super::product::panel_width;

/// Words between rows beyond what they hold: rows a power of two apart would share cache sets.
const GAP: usize = 16;

/// Rows of elements, each from a word's boundary on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    words: Vec<u32>,
    stride: usize,
}

impl Rows {
    /// Makes room for rows of `columns` elements, as many as whole tiles have, without a promise of
    /// what they hold.
    pub(crate) fn prepare<A: Arithmetic>(&mut self, rows: usize, columns: usize) {
        self.stride = columns.next_multiple_of(panel_width::<A>()) / A::DEPTH + GAP;
        let wanted = rows.next_multiple_of(A::Lanes::ROWS) * self.stride;
        if self.words.len() < wanted {
            self.words.resize(wanted, 0);
        }
    }

    pub(crate) fn words(&self) -> &[u32] {
        &self.words
    }

    pub(crate) fn words_mut(&mut self) -> &mut [u32] {
        &mut self.words
    }

    /// Words from row to row.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Whether there are so many rows of so many words.
    pub(crate) fn holds(&self, rows: usize, words: usize) -> bool {
        self.stride >= words && self.words.len() >= rows * self.stride
    }

    /// Writes `from` to a row, from element `column` on.
    ///
    /// # Panics
    /// When the row is not that long.
    pub(crate) fn put<A: Arithmetic>(&mut self, row: usize, column: usize, from: &[f32]) {
        let words = &mut self.words[row * self.stride..][..self.stride];
        let to = &mut elements_mut::<A>(words)[column..][..from.len()];
        let count = A::Lanes::COUNT;
        let whole = from.len() / count * count;
        A::vectorise(
            #[inline(always)]
            || {
                let vectors = from.chunks_exact(count).zip(to.chunks_exact_mut(count));
                for (from, to) in vectors {
                    // SAFETY: both have a vector's values.
                    unsafe { A::store(to.as_mut_ptr(), A::Lanes::load(from.as_ptr())) };
                }
            },
        );
        for (to, from) in to[whole..].iter_mut().zip(&from[whole..]) {
            *to = A::narrow(*from);
        }
    }
}

/// The elements that words consist of.
pub(crate) fn elements<A: Arithmetic>(words: &[u32]) -> &[A::Element] {
    // SAFETY: an element is plain bits and no longer than a word, of which there are `DEPTH`.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len() * A::DEPTH) }
}

fn elements_mut<A: Arithmetic>(words: &mut [u32]) -> &mut [A::Element] {
    // SAFETY: as above, and borrowed for as long.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len() * A::DEPTH) }
}

/// The numbers of a layer norm, zeros behind them up to a whole vector.
#[derive(Clone, Debug)]
pub(crate) struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
    width: usize,
}

impl Norm {
    pub(crate) fn new(weight: &[f32], bias: &[f32], epsilon: f32) -> Self {
        let padded = |values: &[f32]| {
            let mut padded = values.to_vec();
            padded.resize(values.len().next_multiple_of(WIDEST), 0.0);
            padded
        };
        Self {
            weight: padded(weight),
            bias: padded(bias),
            epsilon,
            width: weight.len(),
        }
    }

    /// Normalises the rows in `from`, `stride` apart, to the first rows of `to`.
    ///
    /// # Panics
    /// When rows are not as wide as the norm, or `to` has no room.
    pub(crate) fn apply<A: Arithmetic>(&self, from: &[f32], stride: usize, to: &mut Rows) {
        let padded = self.width.next_multiple_of(A::Lanes::COUNT);
        assert!(
            stride >= padded && self.bias.len() >= padded,
            "expected rows of {padded} values"
        );
        assert!(
            to.holds(from.len() / stride, padded / A::DEPTH),
            "expected room for the rows"
        );
        A::vectorise(
            #[inline(always)]
            || {
                for (row, from) in from.chunks_exact(stride).enumerate() {
                    // SAFETY: `to` holds the row, and all rows are padded.
                    unsafe {
                        let to = to.words.as_mut_ptr().add(row * to.stride);
                        self.normalise::<A>(from, to.cast());
                    }
                }
            },
        );
    }

    /// # Safety
    /// Within [`Arithmetic::vectorise`]; `from` and `to` are padded to a whole vector.
    #[inline(always)]
    unsafe fn normalise<A: Arithmetic>(&self, from: &[f32], to: *mut A::Element) {
        let count = A::Lanes::COUNT;
        let whole = self.width / count * count;
        let rest = &from[whole..self.width];
        let width = self.width as f32;
        // SAFETY: the caller's promise.
        unsafe {
            let zero = A::Lanes::splat(0.0);
            let from = from.as_ptr();
            let mut sums = [zero; 2];
            for (index, at) in (0..whole).step_by(count).enumerate() {
                sums[index % 2] = A::Lanes::add(sums[index % 2], A::Lanes::load(from.add(at)));
            }
            let sum = A::Lanes::sum(A::Lanes::add(sums[0], sums[1])) + rest.iter().sum::<f32>();
            let mean = sum / width;
            let means = A::Lanes::splat(mean);
            let mut squares = [zero; 2];
            for (index, at) in (0..whole).step_by(count).enumerate() {
                let centred = A::Lanes::sub(A::Lanes::load(from.add(at)), means);
                squares[index % 2] = A::Lanes::mul_add(centred, centred, squares[index % 2]);
            }
            let rest = rest.iter().map(|value| (value - mean) * (value - mean));
            let squares = A::Lanes::sum(A::Lanes::add(squares[0], squares[1])) + rest.sum::<f32>();
            let scale = A::Lanes::splat(1.0 / (squares / width + self.epsilon).sqrt());
            for at in (0..self.width).step_by(count) {
                let centred =
                    A::Lanes::mul(A::Lanes::sub(A::Lanes::load(from.add(at)), means), scale);
                let weight = A::Lanes::load(self.weight.as_ptr().add(at));
                let bias = A::Lanes::load(self.bias.as_ptr().add(at));
                A::store(to.add(at), A::Lanes::mul_add(centred, weight, bias));
            }
        }
    }
}
