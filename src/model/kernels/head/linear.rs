//! Linear attention (Katharopoulos et al., "Transformers are RNNs"), in its cheap order.
//!
//! Sums over all tokens are in `f32`, whatever the elements are.

use super::super::arithmetic::{Arithmetic, Single};
use super::super::elementwise::exp;
use super::super::lanes::Lanes;
use super::super::product::{panel_width, tile_room};
use super::{Part, Projected, room};

/// Keeps rows from sharing cache sets.
const WORDS_APART: usize = 16;

/// What linear attention needs room for.
#[derive(Clone, Debug, Default)]
pub(crate) struct LinearRoom {
    /// One token's channels, up to a whole vector.
    channels: Vec<f32>,
    /// Mapped keys, a row a channel.
    keys: Vec<u32>,
    key_sums: Vec<f32>,
    /// Values in panels of channels, then their sums weighed by keys.
    values: Vec<u32>,
    summary: Vec<u32>,
    /// Mapped queries of a tile.
    queries: Vec<u32>,
}

/// `phi(q) . sum phi(k) v / (phi(q) . sum phi(k) + epsilon)` with `phi(u) = elu(u) + 1` of a head, to
/// `[tokens, head width]`.
///
/// # Panics
/// When `out` has another size, or rows are missing.
pub(crate) fn attend_linearly<A: Arithmetic>(
    projected: Projected<'_>,
    head: usize,
    epsilon: f32,
    rooms: &mut LinearRoom,
    out: &mut [f32],
) {
    let Projected {
        tokens, head_width, ..
    } = projected;
    assert_eq!(
        out.len(),
        tokens * head_width,
        "expected room for each channel of each token"
    );
    let padded = head_width.next_multiple_of(A::Lanes::COUNT);
    room(&mut rooms.channels, padded);
    A::vectorise(
        #[inline(always)]
        || {
            // SAFETY: this is `vectorise`.
            unsafe {
                summarise::<A>(projected, head, rooms);
                spend::<A>(projected, head, epsilon, rooms, out);
            }
        },
    );
}

/// A token's channels of a part, mapped by `phi` if asked for.
///
/// # Safety
/// Within [`Arithmetic::vectorise`].
#[inline(always)]
unsafe fn widen<A: Arithmetic>(from: &[A::Element], is_mapped: bool, to: &mut [f32]) {
    let count = A::Lanes::COUNT;
    for (index, to) in to.chunks_exact_mut(count).enumerate() {
        let from = &from[index * count..][..count];
        // SAFETY: both have a vector's values.
        unsafe {
            let value = A::load(from.as_ptr());
            let zero = A::Lanes::splat(0.0);
            let value = match is_mapped {
                false => value,
                true => {
                    let shrunk = exp::<A::Lanes>(A::Lanes::min(value, zero));
                    A::Lanes::add(A::Lanes::max(value, zero), shrunk)
                }
            };
            A::Lanes::store(to.as_mut_ptr(), value);
        }
    }
}

/// Sums of the keys, and of the values weighed by them, over all tokens.
///
/// # Safety
/// Within [`Arithmetic::vectorise`].
#[inline(always)]
unsafe fn summarise<A: Arithmetic>(projected: Projected<'_>, head: usize, rooms: &mut LinearRoom) {
    let Projected {
        tokens, head_width, ..
    } = projected;
    let width = panel_width::<A>();
    let tile_rows = A::Lanes::ROWS;
    let rows = head_width.next_multiple_of(tile_rows);
    let panels = head_width.div_ceil(width);
    let stride = tokens + WORDS_APART;
    let keys = room(&mut rooms.keys, rows * stride);
    let key_sums = room(
        &mut rooms.key_sums,
        head_width.next_multiple_of(A::Lanes::COUNT),
    );
    let values = room(&mut rooms.values, panels * tokens * width);
    let channels = &mut rooms.channels[..head_width.next_multiple_of(A::Lanes::COUNT)];
    key_sums.fill(0.0);
    for token in 0..tokens {
        // SAFETY: the caller's promise; likewise below.
        unsafe { widen::<A>(projected.part::<A>(token, Part::Keys, head), true, channels) };
        let keys = keys[token..].iter_mut().step_by(stride);
        for ((key, sum), channel) in keys.zip(key_sums.iter_mut()).zip(&channels[..head_width]) {
            *key = channel.to_bits();
            *sum += channel;
        }
        unsafe {
            widen::<A>(
                projected.part::<A>(token, Part::Values, head),
                false,
                channels,
            )
        };
        for (index, channels) in channels[..head_width].chunks(width).enumerate() {
            let values = &mut values[(index * tokens + token) * width..];
            for (value, channel) in values.iter_mut().zip(channels) {
                *value = channel.to_bits();
            }
        }
    }
    let summary = room(&mut rooms.summary, panels * rows * width);
    for (index, panel) in values.chunks_exact(tokens * width).enumerate() {
        for row in (0..rows).step_by(tile_rows) {
            // SAFETY: keys have a tile's rows from `row` on, each of all tokens, and so has a panel
            // of the summary.
            unsafe {
                let to = summary.as_mut_ptr().add((index * rows + row) * width);
                let keys = keys.as_ptr().add(row * stride);
                A::Lanes::tile::<Single<A::Lanes>>(
                    keys,
                    stride,
                    panel.as_ptr(),
                    tokens,
                    to.cast(),
                    width,
                    panel.as_ptr(),
                );
            }
        }
    }
}

/// What each token's query makes of the sums.
///
/// # Safety
/// Within [`Arithmetic::vectorise`].
#[inline(always)]
unsafe fn spend<A: Arithmetic>(
    projected: Projected<'_>,
    head: usize,
    epsilon: f32,
    rooms: &mut LinearRoom,
    out: &mut [f32],
) {
    let Projected {
        tokens, head_width, ..
    } = projected;
    let width = panel_width::<A>();
    let tile_rows = A::Lanes::ROWS;
    let rows = head_width.next_multiple_of(tile_rows);
    let stride = head_width + WORDS_APART;
    let queries = room(&mut rooms.queries, tile_rows * stride);
    let channels = &mut rooms.channels[..head_width.next_multiple_of(A::Lanes::COUNT)];
    let mut made = tile_room();
    for token in (0..tokens).step_by(tile_rows) {
        let here = tile_rows.min(tokens - token);
        let mut shares = [0f32; super::super::lanes::TALLEST];
        for row in 0..here {
            // SAFETY: the caller's promise.
            unsafe {
                widen::<A>(
                    projected.part::<A>(token + row, Part::Queries, head),
                    true,
                    channels,
                )
            };
            let pairs = channels[..head_width].iter().zip(&rooms.key_sums);
            let denominator: f32 = pairs.map(|(query, sum)| query * sum).sum();
            shares[row] = 1.0 / (denominator + epsilon);
            for (query, channel) in queries[row * stride..]
                .iter_mut()
                .zip(&channels[..head_width])
            {
                *query = channel.to_bits();
            }
        }
        for (index, panel) in rooms.summary.chunks_exact(rows * width).enumerate() {
            if index * width >= head_width {
                break;
            }
            // SAFETY: there is a tile of queries, a panel has more rows than heads have channels, and
            // the room is that of the largest tile.
            unsafe {
                A::Lanes::tile::<Single<A::Lanes>>(
                    queries.as_ptr(),
                    stride,
                    panel.as_ptr(),
                    head_width,
                    made.as_mut_ptr(),
                    width,
                    panel.as_ptr(),
                );
            }
            for (row, share) in shares.iter().enumerate().take(here) {
                let out = &mut out[(token + row) * head_width..][..head_width];
                for (out, value) in out[index * width..]
                    .iter_mut()
                    .zip(&made[row * width..][..width])
                {
                    *out = value * share;
                }
            }
        }
    }
}
