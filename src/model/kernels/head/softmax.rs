//! Softmax attention, without its scores ever being in memory as a whole.
//!
//! Keys and values of a head are packed like weights; then the scores of a tile of tokens are made,
//! turned into weights and spent while they are in the cache.

use super::super::arithmetic::Arithmetic;
use super::super::elementwise::exp2;
use super::super::lanes::{Lanes, TALLEST};
use super::super::product::{panel_width, tile_room, words};
use super::{Part, Projected, room};

/// A score that no softmax sees.
const NEVER: f32 = -1e30;
/// Keeps rows of scores from sharing cache sets.
const WORDS_APART: usize = 16;

/// What softmax attention needs room for.
#[derive(Clone, Debug, Default)]
pub(crate) struct SoftmaxRoom {
    keys: Vec<u32>,
    values: Vec<u32>,
    scores: Vec<u32>,
}

impl Projected<'_> {
    /// Keys as the right side of a product with queries: panels of tokens.
    fn pack_keys<A: Arithmetic>(&self, head: usize, to: &mut [u32]) {
        let width = panel_width::<A>();
        let depth = self.head_width / A::DEPTH;
        for token in 0..self.tokens {
            let panel = &mut to[token / width * width * depth..][..width * depth];
            let words =
                self.part::<A>(token, Part::Keys, head)[..self.head_width].chunks_exact(A::DEPTH);
            let to = panel[token % width..].iter_mut().step_by(width);
            for (to, word) in to.zip(words) {
                *to = A::word(word);
            }
        }
    }

    /// Values as the right side of a product with weights: panels of channels, words of tokens.
    fn pack_values<A: Arithmetic>(&self, head: usize, to: &mut [u32]) {
        let width = panel_width::<A>();
        let depth = words::<A>(self.tokens);
        let absent = vec![A::Element::default(); self.head_width];
        for step in 0..depth {
            let token = step * A::DEPTH;
            let first = &self.part::<A>(token, Part::Values, head)[..self.head_width];
            let second = match token + 1 < self.tokens {
                true => &self.part::<A>(token + 1, Part::Values, head)[..self.head_width],
                false => &absent,
            };
            let pairs = first.chunks(width).zip(second.chunks(width)).enumerate();
            for (index, (first, second)) in pairs {
                let panel = &mut to[(index * depth + step) * width..][..width];
                for (word, (first, second)) in panel.iter_mut().zip(first.iter().zip(second)) {
                    *word = A::word(&[*first, *second]);
                }
            }
        }
    }
}

/// Softmax attention of a head, to `[tokens, head width]`. The weight of a token is two to the power of
/// query times key: the queries come with all other factors.
///
/// # Panics
/// When `out` has another size, a word would lie in two heads, or rows are missing.
pub(crate) fn attend<A: Arithmetic>(
    projected: Projected<'_>,
    head: usize,
    rooms: &mut SoftmaxRoom,
    out: &mut [f32],
) {
    let Projected {
        rows,
        first,
        tokens,
        head_width,
        ..
    } = projected;
    let width = panel_width::<A>();
    let tile_rows = A::Lanes::ROWS;
    assert!(
        head_width.is_multiple_of(A::DEPTH),
        "expected heads of whole words, found {head_width} channels"
    );
    assert_eq!(
        out.len(),
        tokens * head_width,
        "expected room for each channel of each token"
    );
    assert!(
        rows.words().len() >= (first + tokens.next_multiple_of(tile_rows)) * rows.stride(),
        "expected whole tiles of rows"
    );
    let key_depth = head_width / A::DEPTH;
    let value_depth = words::<A>(tokens);
    let panels = tokens.div_ceil(width);
    let stride = panels * width + WORDS_APART;
    let keys = room(&mut rooms.keys, panels * width * key_depth);
    projected.pack_keys::<A>(head, keys);
    let values = room(
        &mut rooms.values,
        head_width.div_ceil(width) * width * value_depth,
    );
    projected.pack_values::<A>(head, values);
    let scores = room(&mut rooms.scores, tile_rows * stride);
    let column = head * key_depth;
    let mut made = tile_room();
    let mut sums = [0f32; TALLEST];
    A::vectorise(
        #[inline(always)]
        || {
            for token in (0..tokens).step_by(tile_rows) {
                let here = tile_rows.min(tokens - token);
                // SAFETY: there are a whole tile's rows of queries; the packed keys have these
                // panels; a row of scores has room for all panels.
                unsafe {
                    let queries = rows
                        .words()
                        .as_ptr()
                        .add((first + token) * rows.stride() + column);
                    for (index, panel) in keys.chunks_exact(width * key_depth).enumerate() {
                        let to = scores.as_mut_ptr().add(index * width);
                        A::Lanes::tile::<A>(
                            queries,
                            rows.stride(),
                            panel.as_ptr(),
                            key_depth,
                            to.cast(),
                            stride,
                            panel.as_ptr(),
                        );
                    }
                    for (row, sum) in sums.iter_mut().enumerate().take(here) {
                        *sum = weigh::<A>(scores.as_mut_ptr().add(row * stride).cast(), tokens);
                    }
                }
                for (index, panel) in values.chunks_exact(width * value_depth).enumerate() {
                    // SAFETY: a row of scores has room for more words than a panel is deep; the room
                    // is that of the largest tile.
                    unsafe {
                        A::Lanes::tile::<A>(
                            scores.as_ptr(),
                            stride,
                            panel.as_ptr(),
                            value_depth,
                            made.as_mut_ptr(),
                            width,
                            panel.as_ptr(),
                        );
                    }
                    for (row, sum) in sums.iter().enumerate().take(here) {
                        let share = 1.0 / sum;
                        let out = &mut out[(token + row) * head_width..][..head_width];
                        let out = out[index * width..].iter_mut();
                        for (out, value) in out.zip(&made[row * width..][..width]) {
                            *out = value * share;
                        }
                    }
                }
            }
        },
    );
}

/// Turns a row of scores into `2^(score - largest)` as elements, in place; their sum.
///
/// # Safety
/// Within [`Arithmetic::vectorise`]; the row has room for whole vectors.
#[inline(always)]
unsafe fn weigh<A: Arithmetic>(scores: *mut f32, tokens: usize) -> f32 {
    let count = A::Lanes::COUNT;
    let padded = tokens.next_multiple_of(count);
    // SAFETY: the caller's promise. Elements are no longer than the scores that they replace, so none
    // is written over a score that is still to be read.
    unsafe {
        for token in tokens..padded {
            scores.add(token).write(NEVER);
        }
        let mut largest = [A::Lanes::splat(NEVER); 2];
        for (index, at) in (0..padded).step_by(count).enumerate() {
            largest[index % 2] = A::Lanes::max(largest[index % 2], A::Lanes::load(scores.add(at)));
        }
        let largest = A::Lanes::largest(A::Lanes::max(largest[0], largest[1]));
        let largest = A::Lanes::splat(largest);
        let to = scores.cast::<A::Element>();
        let mut sums = A::Lanes::splat(0.0);
        for at in (0..padded).step_by(count) {
            let score = A::Lanes::load(scores.add(at).cast_const());
            let weight = exp2::<A::Lanes>(A::Lanes::sub(score, largest));
            sums = A::Lanes::add(sums, weight);
            A::store(to.add(at), weight);
        }
        A::Lanes::sum(sums)
    }
}
