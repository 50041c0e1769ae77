//! The same for x86 processors with AVX2.
//!
//! Every load is from a slice of exactly its size, so an error in the taps is a panic, as it is in
//! safe code.

use std::arch::x86_64::*;

use super::{HALF, PRECISION_BITS, Taps, resize_columns_plainly};
use crate::domain::Channels;

/// A weight is `high * 2^LOW_BITS + low`. Weights are at most 2^22, so both fit 16 signed bits.
const LOW_BITS: i32 = 11;

/// Rows that share the loads of the weights.
const ROWS: usize = 4;

/// A load of four pixels of RGB reads 16 bytes, four too many.
const RGB_TAPS: usize = 4;
const SPARE_BYTES: usize = 4;

/// A load of grey is of 16 pixels.
const GREY_TAPS: usize = 16;

/// Taps with weights of 16 bits.
struct SplitTaps {
    count: usize,
    starts: Vec<usize>,
    high: Vec<i16>,
    low: Vec<i16>,
}

impl SplitTaps {
    /// `None` for images that are narrower than the taps.
    fn new(taps: &Taps, channels: Channels) -> Option<Self> {
        let group = match channels {
            Channels::Grey => GREY_TAPS,
            Channels::Rgb => RGB_TAPS,
        };
        let count = taps.count.next_multiple_of(group);
        let taps = taps.widened(count)?;
        let low = taps.weights.iter().map(|w| w & ((1 << LOW_BITS) - 1));
        Some(Self {
            count,
            low: low.map(|low| low as i16).collect(),
            high: taps
                .weights
                .iter()
                .map(|w| (w >> LOW_BITS) as i16)
                .collect(),
            starts: taps.starts,
        })
    }

    /// Start and weights of each output.
    fn outputs(&self) -> impl Iterator<Item = (usize, &[i16], &[i16])> {
        let high = self.high.chunks_exact(self.count);
        let low = self.low.chunks_exact(self.count);
        let starts = self.starts.iter().copied();
        starts
            .zip(high.zip(low))
            .map(|(start, (high, low))| (start, high, low))
    }
}

/// Whether it was done: the processor must have AVX2, and the image be wide enough.
pub(super) fn resize_rows(
    pixels: &[u8],
    stride: usize,
    channels: Channels,
    taps: &Taps,
    output: &mut [u8],
) -> bool {
    if !is_x86_feature_detected!("avx2") {
        return false;
    }
    let Some(taps) = SplitTaps::new(taps, channels) else {
        return false;
    };
    let new_stride = taps.starts.len() * channels.count();
    let Some(last) = (pixels.len() / stride).checked_sub(1) else {
        return true;
    };
    // A row reaches into the next one, so that loads may go beyond its end; the last has spare bytes.
    let padded = [
        &pixels[last * stride..(last + 1) * stride],
        &[0; SPARE_BYTES],
    ]
    .concat();
    let rows: Vec<&[u8]> = (0..last)
        .map(|row| &pixels[row * stride..])
        .chain([padded.as_slice()])
        .collect();
    let mut new_rows = output.chunks_exact_mut(new_stride);
    let (together, alone) = rows.as_chunks::<ROWS>();
    for rows in together {
        resize_some(*rows, &mut new_rows, channels, &taps);
    }
    for row in alone {
        resize_some([*row], &mut new_rows, channels, &taps);
    }
    true
}

/// Resizes `rows` into the next of `new_rows`, on a processor that must have AVX2.
fn resize_some<'a, const N: usize>(
    rows: [&[u8]; N],
    new_rows: &mut impl Iterator<Item = &'a mut [u8]>,
    channels: Channels,
    taps: &SplitTaps,
) {
    let new_rows = [(); N].map(|()| new_rows.next().expect("there is one for each row"));
    // SAFETY: `resize_rows` calls this where AVX2 was detected, and nothing else calls it.
    #[allow(unsafe_code)]
    unsafe {
        match channels {
            Channels::Grey => resize_grey(rows, new_rows, taps),
            Channels::Rgb => resize_rgb(rows, new_rows, taps),
        }
    }
}

#[target_feature(enable = "avx2")]
fn resize_rgb<const N: usize>(rows: [&[u8]; N], new_rows: [&mut [u8]; N], taps: &SplitTaps) {
    // Of four pixels, for each channel the values of the first two beside each other, as 16 bits, and
    // in the upper half those of the other two.
    let spread = _mm256_setr_epi8(
        0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, //
        6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1,
    );
    // Of four weights the first two for each channel, and in the upper half the other two.
    let repeat = _mm256_setr_epi8(
        0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, //
        4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7,
    );
    for (output, (start, high, low)) in taps.outputs().enumerate() {
        let mut high_sums = [_mm256_setzero_si256(); N];
        let mut low_sums = [_mm256_setzero_si256(); N];
        let weights = high.chunks_exact(RGB_TAPS).zip(low.chunks_exact(RGB_TAPS));
        for ((high, low), at) in weights.zip((start * 3..).step_by(RGB_TAPS * 3)) {
            let high = _mm256_shuffle_epi8(repeat_four(high), repeat);
            let low = _mm256_shuffle_epi8(repeat_four(low), repeat);
            for row in 0..N {
                let pixels = _mm256_broadcastsi128_si256(load_bytes(&rows[row][at..at + 16]));
                let pixels = _mm256_shuffle_epi8(pixels, spread);
                high_sums[row] = add_products(high_sums[row], pixels, high);
                low_sums[row] = add_products(low_sums[row], pixels, low);
            }
        }
        for row in 0..N {
            let sums = add_halves(high_sums[row], low_sums[row]);
            let sums = _mm_add_epi32(sums, _mm_set1_epi32(HALF));
            let values = _mm_srai_epi32::<{ PRECISION_BITS as i32 }>(sums);
            let values = _mm_packs_epi32(values, values);
            let pixel = _mm_cvtsi128_si32(_mm_packus_epi16(values, values)).to_le_bytes();
            new_rows[row][output * 3..output * 3 + 3].copy_from_slice(&pixel[..3]);
        }
    }
}

#[target_feature(enable = "avx2")]
fn resize_grey<const N: usize>(rows: [&[u8]; N], new_rows: [&mut [u8]; N], taps: &SplitTaps) {
    for (output, (start, high, low)) in taps.outputs().enumerate() {
        let mut high_sums = [_mm256_setzero_si256(); N];
        let mut low_sums = [_mm256_setzero_si256(); N];
        let weights = high
            .chunks_exact(GREY_TAPS)
            .zip(low.chunks_exact(GREY_TAPS));
        for ((high, low), at) in weights.zip((start..).step_by(GREY_TAPS)) {
            let (high, low) = (load_words(high), load_words(low));
            for row in 0..N {
                let pixels = _mm256_cvtepu8_epi16(load_bytes(&rows[row][at..at + GREY_TAPS]));
                high_sums[row] = add_products(high_sums[row], pixels, high);
                low_sums[row] = add_products(low_sums[row], pixels, low);
            }
        }
        for row in 0..N {
            let sums = add_halves(high_sums[row], low_sums[row]);
            let sums = _mm_add_epi32(sums, _mm_shuffle_epi32::<0b01_00_11_10>(sums));
            let sums = _mm_add_epi32(sums, _mm_shuffle_epi32::<0b10_11_00_01>(sums));
            new_rows[row][output] = super::round_to_byte(_mm_cvtsi128_si32(sums) + HALF);
        }
    }
}

/// `sums` plus the products of 16-bit numbers, those beside each other added up.
#[target_feature(enable = "avx2")]
fn add_products(sums: __m256i, pixels: __m256i, weights: __m256i) -> __m256i {
    _mm256_add_epi32(sums, _mm256_madd_epi16(pixels, weights))
}

/// Both halves of `high * 2^LOW_BITS + low`, added up.
#[target_feature(enable = "avx2")]
fn add_halves(high: __m256i, low: __m256i) -> __m128i {
    let sums = _mm256_add_epi32(_mm256_slli_epi32::<LOW_BITS>(high), low);
    _mm_add_epi32(
        _mm256_castsi256_si128(sums),
        _mm256_extracti128_si256::<1>(sums),
    )
}

#[target_feature(enable = "avx2")]
fn load_bytes(bytes: &[u8]) -> __m128i {
    let bytes: &[u8; 16] = bytes.try_into().expect("the caller cuts 16 bytes");
    // SAFETY: the 16 bytes are those of the array; the load asks for no alignment.
    #[allow(unsafe_code)]
    unsafe {
        _mm_loadu_si128(bytes.as_ptr().cast())
    }
}

#[target_feature(enable = "avx2")]
fn load_words(words: &[i16]) -> __m256i {
    let words: &[i16; 16] = words.try_into().expect("the caller cuts 16 words");
    // SAFETY: the 32 bytes are those of the array; the load asks for no alignment.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_loadu_si256(words.as_ptr().cast())
    }
}

/// Four words, four times.
#[target_feature(enable = "avx2")]
fn repeat_four(words: &[i16]) -> __m256i {
    let words: &[i16; RGB_TAPS] = words.try_into().expect("the caller cuts four words");
    // SAFETY: the 8 bytes are those of the array, and any bytes are an integer.
    #[allow(unsafe_code)]
    let words = unsafe { words.as_ptr().cast::<i64>().read_unaligned() };
    _mm256_set1_epi64x(words)
}

/// Whether it was done: the processor must have AVX2.
pub(super) fn resize_columns(
    pixels: &[u8],
    stride: usize,
    first_row: usize,
    taps: &Taps,
    output: &mut [u8],
) -> bool {
    if !is_x86_feature_detected!("avx2") {
        return false;
    }
    // SAFETY: AVX2 was detected.
    #[allow(unsafe_code)]
    unsafe {
        resize_columns_with_avx2(pixels, stride, first_row, taps, output);
    }
    true
}

/// The plain loops, compiled for AVX2: the compiler makes good use of it here.
#[target_feature(enable = "avx2")]
fn resize_columns_with_avx2(
    pixels: &[u8],
    stride: usize,
    first_row: usize,
    taps: &Taps,
    output: &mut [u8],
) {
    resize_columns_plainly(pixels, stride, first_row, taps, output);
}
