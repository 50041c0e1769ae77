//! Attention head by head, on queries, keys and values that lie as the projection left them.

#![allow(
    unsafe_code,
    reason = "vector instructions; every block says what it relies on"
)]

mod linear;
mod softmax;

pub(crate) use self::linear::{LinearRoom, attend_linearly};
pub(crate) use self::softmax::{SoftmaxRoom, attend};
use super::arithmetic::Arithmetic;
use super::rows::{Rows, elements};

/// Queries, keys and values of all heads, a row a token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Projected<'a> {
    /// All rows; behind those of the segment there are as many more as a tile has.
    pub(crate) rows: &'a Rows,
    /// The row of the first token.
    pub(crate) first: usize,
    /// Tokens that see each other.
    pub(crate) tokens: usize,
    /// Channels of all heads.
    pub(crate) width: usize,
    /// Channels of a head.
    pub(crate) head_width: usize,
}

/// Which of the three parts of a projected token.
#[derive(Clone, Copy, Debug)]
enum Part {
    Queries,
    Keys,
    Values,
}

impl<'a> Projected<'a> {
    /// From the first channel of a head's part of a token to the end of the last row.
    fn part<A: Arithmetic>(&self, token: usize, part: Part, head: usize) -> &'a [A::Element] {
        let row = &self.rows.words()[(self.first + token) * self.rows.stride()..];
        &elements::<A>(row)[part as usize * self.width + head * self.head_width..]
    }
}

/// Room without a promise of what it holds.
fn room<T: Clone + Default>(of: &mut Vec<T>, wanted: usize) -> &mut [T] {
    if of.len() < wanted {
        of.resize(wanted, T::default());
    }
    &mut of[..wanted]
}
