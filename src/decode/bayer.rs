//! Bilinear interpolation of Bayer mosaics: the two missing colours of a site are the rounded means
//! of its nearest neighbours of that colour.
//!
//! It is the interpolation that OpenCV calls plain (`COLOR_Bayer*2RGB`), equal to within one level
//! away from the border. At the border the mosaic is mirrored about its outermost line, which keeps
//! every site's colour, whereas OpenCV repeats the neighbouring result.

use crate::domain::PixelFormat;

/// Where the red sites of a mosaic lie: the parity of their column and line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    red_x: usize,
    red_y: usize,
}

impl Pattern {
    /// The pattern of a pixel format, if it is a mosaic. PFNC names the first two sites of the
    /// first line.
    pub(super) fn of(format: PixelFormat) -> Option<Self> {
        let (red_x, red_y) = match format {
            PixelFormat::BayerRg8 => (0, 0),
            PixelFormat::BayerGr8 => (1, 0),
            PixelFormat::BayerGb8 => (0, 1),
            PixelFormat::BayerBg8 => (1, 1),
            _ => return None,
        };
        Some(Self { red_x, red_y })
    }
}

/// RGB of a mosaic of at least two lines of at least two sites, all of one length.
pub(super) fn interpolate(pattern: Pattern, lines: &[&[u8]]) -> Vec<u8> {
    let width = lines.first().map_or(0, |line| line.len());
    let mut pixels = Vec::with_capacity(lines.len() * width * 3);
    for (y, line) in lines.iter().enumerate() {
        let (before, after) = neighbours(y, lines.len());
        let (above, below) = (lines[before], lines[after]);
        let is_red_line = y % 2 == pattern.red_y;
        for x in 0..width {
            let (left, right) = neighbours(x, width);
            let own = line[x];
            let beside = mean([line[left], line[right]]);
            let upright = mean([above[x], below[x]]);
            let cross = || mean([line[left], line[right], above[x], below[x]]);
            let corners = || mean([above[left], above[right], below[left], below[right]]);
            let is_red_column = x % 2 == pattern.red_x;
            pixels.extend(match (is_red_line, is_red_column) {
                (true, true) => [own, cross(), corners()],
                (true, false) => [beside, own, upright],
                (false, true) => [upright, own, beside],
                (false, false) => [corners(), cross(), own],
            });
        }
    }
    pixels
}

/// The positions before and after `position`, mirrored at the ends.
fn neighbours(position: usize, length: usize) -> (usize, usize) {
    let before = if position == 0 { 1 } else { position - 1 };
    let after = if position + 1 == length {
        length - 2
    } else {
        position + 1
    };
    (before, after)
}

/// The rounded mean.
fn mean<const N: usize>(values: [u8; N]) -> u8 {
    let sum: usize = values.iter().map(|value| usize::from(*value)).sum();
    u8::try_from((sum + N / 2) / N).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mosaic_of_one_colour_gives_that_colour_everywhere() {
        for format in [
            PixelFormat::BayerRg8,
            PixelFormat::BayerGr8,
            PixelFormat::BayerGb8,
            PixelFormat::BayerBg8,
        ] {
            let pattern = Pattern::of(format).unwrap();
            let site = |x: usize, y: usize| match (x % 2 == pattern.red_x, y % 2 == pattern.red_y) {
                (true, true) => 200,
                (false, false) => 10,
                _ => 90,
            };
            let lines: Vec<Vec<u8>> = (0..5)
                .map(|y| (0..4).map(|x| site(x, y)).collect())
                .collect();
            let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            let pixels = interpolate(pattern, &lines);
            assert_eq!(pixels, [200, 90, 10].repeat(20), "{format:?}");
        }
    }

    #[test]
    fn the_smallest_mosaic_is_interpolated() {
        let pattern = Pattern::of(PixelFormat::BayerRg8).unwrap();
        let pixels = interpolate(pattern, &[&[100, 50], &[70, 20]]);
        assert_eq!(pixels, [100, 60, 20, 100, 50, 20, 100, 70, 20, 100, 60, 20]);
    }
}
