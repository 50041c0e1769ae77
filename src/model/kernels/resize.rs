//! Pillow's resize with a triangle filter, one axis at a time, to the last bit.
//!
//! Weights are fixed-point numbers of 22 bits, and sums are exact in 32 bits whatever their order, so
//! vector registers change the time and nothing else. Outputs of one axis have equally many taps, the
//! unused ones of weight zero. With AVX2 a sum is that of two: a weight's high and low bits times the
//! pixel are products of 16-bit numbers, of which one instruction makes sixteen and adds them up in
//! pairs. Other processors, and images narrower than the taps of a vector, take the plain loops.

#[cfg(target_arch = "x86_64")]
mod avx2;

use std::ops::Range;

use crate::domain::Channels;

/// Pillow's fixed-point precision: 32 bits less 8 for the pixel and 2 for overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Half a unit of the last place, so that the shift rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Bytes of a row that are summed up at once, in registers.
const BLOCK: usize = 64;

/// For each output pixel of one axis: where its inputs begin, and their weights.
pub(in crate::model) struct Taps {
    /// Inputs that there are.
    from: usize,
    /// Inputs of each output.
    count: usize,
    starts: Vec<usize>,
    /// `count` for each output.
    weights: Vec<i32>,
}

impl Taps {
    /// Taps of outputs `margin..margin + outputs` of a resize from `from` to `to` pixels.
    pub(in crate::model) fn new(from: usize, to: usize, margin: usize, outputs: usize) -> Self {
        let exact: Vec<(usize, Vec<i32>)> = (margin..margin + outputs)
            .map(|output| taps_of(output, from, to))
            .collect();
        let count = exact.iter().map(|(_, weights)| weights.len()).max();
        let mut taps = Self {
            from,
            count: count.unwrap_or(0),
            starts: Vec::with_capacity(outputs),
            weights: Vec::new(),
        };
        for (start, weights) in &exact {
            taps.push(*start, weights);
        }
        taps
    }

    /// The same with `count` inputs for each output, if there are so many.
    fn widened(&self, count: usize) -> Option<Self> {
        if count > self.from {
            return None;
        }
        let mut taps = Self {
            from: self.from,
            count,
            starts: Vec::with_capacity(self.starts.len()),
            weights: Vec::with_capacity(self.starts.len() * count),
        };
        for (start, weights) in self.outputs() {
            taps.push(start, weights);
        }
        Some(taps)
    }

    /// Appends an output, with zeros before or behind its weights.
    fn push(&mut self, start: usize, weights: &[i32]) {
        let shifted = start.min(self.from - self.count);
        let before = start - shifted;
        self.starts.push(shifted);
        let end = self.weights.len() + self.count;
        self.weights.resize(end - self.count + before, 0);
        self.weights.extend_from_slice(weights);
        self.weights.resize(end, 0);
    }

    /// The inputs that any output needs.
    pub(in crate::model) fn inputs(&self) -> Range<usize> {
        let first = self.starts.iter().copied().min().unwrap_or(0);
        let last = self.starts.iter().copied().max().unwrap_or(0);
        first..last + self.count
    }

    /// Start and weights of each output.
    fn outputs(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let weights = self.weights.chunks_exact(self.count);
        self.starts.iter().copied().zip(weights)
    }
}

/// First input and weights of one output.
fn taps_of(output: usize, from: usize, to: usize) -> (usize, Vec<i32>) {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.);
    let centre = (output as f64 + 0.5) * scale;
    // Truncation towards zero after the half, as Pillow does.
    let start = (centre - support + 0.5).max(0.) as usize;
    let end = ((centre + support + 0.5) as usize).min(from);
    let triangle: Vec<f64> = (start..end)
        .map(|input| ((input as f64 - centre + 0.5) * (1. / support)).abs())
        .map(|distance| (1. - distance).max(0.))
        .collect();
    let sum: f64 = triangle.iter().sum();
    let weights = triangle.iter().map(|weight| weight * (1. / sum));
    (start, weights.map(fixed_point).collect())
}

fn fixed_point(weight: f64) -> i32 {
    (weight * f64::from(1u32 << PRECISION_BITS) + 0.5) as i32
}

fn round_to_byte(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Makes rows of `stride` bytes as long as `taps` has outputs.
pub(in crate::model) fn resize_rows(
    pixels: &[u8],
    stride: usize,
    channels: Channels,
    taps: &Taps,
) -> Vec<u8> {
    let row_count = pixels.len() / stride;
    let mut output = vec![0; row_count * taps.starts.len() * channels.count()];
    #[cfg(target_arch = "x86_64")]
    if avx2::resize_rows(pixels, stride, channels, taps, &mut output) {
        return output;
    }
    match channels {
        Channels::Grey => resize_rows_plainly::<1>(pixels, stride, taps, &mut output),
        Channels::Rgb => resize_rows_plainly::<3>(pixels, stride, taps, &mut output),
    }
    output
}

fn resize_rows_plainly<const CHANNELS: usize>(
    pixels: &[u8],
    stride: usize,
    taps: &Taps,
    output: &mut [u8],
) {
    let new_stride = taps.starts.len() * CHANNELS;
    let rows = pixels.chunks_exact(stride);
    for (row, new_row) in rows.zip(output.chunks_exact_mut(new_stride)) {
        let new_pixels = new_row.chunks_exact_mut(CHANNELS);
        for ((start, weights), new_pixel) in taps.outputs().zip(new_pixels) {
            let mut sums = [HALF; CHANNELS];
            let inputs = row[start * CHANNELS..].chunks_exact(CHANNELS);
            for (pixel, weight) in inputs.zip(weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            new_pixel.copy_from_slice(&sums.map(round_to_byte));
        }
    }
}

/// Makes columns as long as `taps` has outputs. `pixels` begins at input row `first_row` and has rows
/// of `stride` bytes.
pub(in crate::model) fn resize_columns(
    pixels: &[u8],
    stride: usize,
    first_row: usize,
    taps: &Taps,
) -> Vec<u8> {
    let mut output = vec![0; stride * taps.starts.len()];
    #[cfg(target_arch = "x86_64")]
    if avx2::resize_columns(pixels, stride, first_row, taps, &mut output) {
        return output;
    }
    resize_columns_plainly(pixels, stride, first_row, taps, &mut output);
    output
}

#[inline(always)]
fn resize_columns_plainly(
    pixels: &[u8],
    stride: usize,
    first_row: usize,
    taps: &Taps,
    output: &mut [u8],
) {
    for ((start, weights), new_row) in taps.outputs().zip(output.chunks_exact_mut(stride)) {
        let rows = &pixels[(start - first_row) * stride..];
        let (blocks, rest) = new_row.as_chunks_mut::<BLOCK>();
        let rest_start = blocks.len() * BLOCK;
        for (block, x) in blocks.iter_mut().zip((0..).step_by(BLOCK)) {
            let mut sums = [HALF; BLOCK];
            for (row, weight) in rows.chunks_exact(stride).zip(weights) {
                for (sum, value) in sums.iter_mut().zip(&row[x..x + BLOCK]) {
                    *sum += i32::from(*value) * weight;
                }
            }
            *block = sums.map(round_to_byte);
        }
        for (new_value, x) in rest.iter_mut().zip(rest_start..) {
            let values = rows.chunks_exact(stride).map(|row| i32::from(row[x]));
            let products = values.zip(weights).map(|(value, weight)| value * weight);
            *new_value = round_to_byte(HALF + products.sum::<i32>());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngCore, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// A row of this many bytes, noise of full scale or white.
    fn pixels(bytes: usize, seed: u64) -> Vec<u8> {
        let mut pixels = vec![u8::MAX; bytes];
        if seed > 0 {
            ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut pixels);
        }
        pixels
    }

    proptest! {
        #[test]
        fn vector_registers_change_no_bit(
            from in 1_usize..300,
            to in 1_usize..200,
            rows in 1_usize..7,
            seed in 0_u64..50,
        ) {
            let taps = Taps::new(from, to, to / 5, to - 2 * (to / 5));
            let new = taps.starts.len();
            for channels in [Channels::Grey, Channels::Rgb] {
                let stride = from * channels.count();
                let input = pixels(rows * stride, seed);
                let found = resize_rows(&input, stride, channels, &taps);
                let mut expected = vec![0; rows * new * channels.count()];
                match channels {
                    Channels::Grey => resize_rows_plainly::<1>(&input, stride, &taps, &mut expected),
                    Channels::Rgb => resize_rows_plainly::<3>(&input, stride, &taps, &mut expected),
                }
                prop_assert!(found == expected, "rows, {channels:?}");
            }
            let stride = 61 * rows;
            let input = pixels(from * stride, seed);
            let found = resize_columns(&input, stride, 0, &taps);
            let mut expected = vec![0; new * stride];
            resize_columns_plainly(&input, stride, 0, &taps, &mut expected);
            prop_assert!(found == expected, "columns");
        }
    }

    #[test]
    fn white_stays_white_and_black_black() {
        for (from, to) in [(2448, 448), (1024, 448), (100, 448), (3, 2), (1, 7)] {
            let taps = Taps::new(from, to, 0, to);
            for level in [0, 255] {
                let row = vec![level; from * 3];
                let resized = resize_rows(&row, row.len(), Channels::Rgb, &taps);
                assert_eq!(resized, vec![level; to * 3], "{from} to {to}");
            }
        }
    }

    #[test]
    fn outputs_need_inputs_that_there_are() {
        for (from, to) in [(2448, 448), (448, 2448), (5, 448), (448, 1), (1, 1)] {
            let taps = Taps::new(from, to, 0, to);
            assert_eq!(taps.inputs(), 0..from, "{from} to {to}");
        }
        let middle = Taps::new(2048, 448, 28, 392).inputs();
        assert!(middle.start > 100 && middle.end < 1950, "{middle:?}");
    }
}
