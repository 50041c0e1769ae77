//! The buffers of a packed network, kept from batch to batch: fresh memory costs page faults.

use std::sync::{Mutex, PoisonError};

use super::super::kernels::head::{LinearRoom, SoftmaxRoom};
use super::super::kernels::rows::Rows;

/// Rows that a task takes at a time: whole tiles on every processor, and few enough that their hidden
/// layer stays in a core's second cache.
pub(super) const TASK_ROWS: usize = 48;

/// Tokens that see each other, one after another in all buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) first: usize,
    pub(super) tokens: usize,
}

/// Rows of `f32`, a token each, all as wide.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens {
    pub(super) values: Vec<f32>,
    pub(super) stride: usize,
}

impl Tokens {
    /// As many rows, zero everywhere.
    pub(super) fn clear(&mut self, rows: usize, stride: usize) {
        self.stride = stride;
        self.values.clear();
        self.values.resize(rows * stride, 0.0);
    }
}

/// What tasks of all threads share.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) tokens: Tokens,
    /// Means of the encoder's target blocks: first half, second half.
    pub(super) encoded: [Tokens; 2],
    /// The same of the decoder's blocks.
    pub(super) decoded: [Tokens; 2],
    pub(super) mixing: MixingRoom,
    /// The amplification's features.
    pub(super) features: Tokens,
}

/// What attention is made of and what it makes.
#[derive(Debug, Default)]
pub(super) struct MixingRoom {
    pub(super) projected: Rows,
    /// Segment by segment, head by head, token by token.
    pub(super) attended: Vec<f32>,
    pub(super) scratches: Scratches,
}

/// What a task needs for itself.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) left: Rows,
    pub(super) hidden: Rows,
    pub(super) softmax: SoftmaxRoom,
    pub(super) linear: LinearRoom,
    pub(super) values: Vec<f32>,
}

/// As many scratches as there are threads, made when first needed.
#[derive(Debug, Default)]
pub(super) struct Scratches(Mutex<Vec<Scratch>>);

impl Scratches {
    /// Lends one to `work`.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Scratch) -> R) -> R {
        // No promise is made of what a scratch holds, so a task that panicked leaves nothing wrong.
        let lend = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = lend().pop().unwrap_or_default();
        let result = work(&mut scratch);
        lend().push(scratch);
        result
    }
}
