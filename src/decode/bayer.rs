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
///
/// Each line is made colour by colour, over the whole line and without branches, so that the compiler
/// may use vector registers.
pub(super) fn interpolate(pattern: Pattern, lines: &[&[u8]]) -> Vec<u8> {
    let width = lines.first().map_or(0, |line| line.len());
    let mut pixels = vec![0; lines.len() * width * 3];
    let mut planes = [(); 3].map(|()| vec![0; width]);
    // The line itself and those around it, one after the other in a ring.
    let mut ring = [(); 3].map(|()| vec![0; width + 2]);
    mirror_ends(lines[0], &mut ring[0]);
    mirror_ends(lines[1], &mut ring[2]);
    let columns = [0, 1].map(|parity| (0..width).map(|x| mask(x % 2 == parity)).collect());
    let columns: [Vec<u8>; 2] = columns;
    for (y, rgb) in pixels.chunks_exact_mut(width * 3).enumerate() {
        let after = if y + 1 == lines.len() { y - 1 } else { y + 1 };
        mirror_ends(lines[after], &mut ring[(y + 1) % 3]);
        let [above, own, below] = [2, 0, 1].map(|place| ring[(y + place) % 3].as_slice());

        let is_red_line = y % 2 == pattern.red_y;
        let [red, green, blue] = &mut planes;
        let (line_colour, other_colour) = if is_red_line {
            (&mut *red, &mut *blue)
        } else {
            (&mut *blue, &mut *red)
        };
        // Where the line has its own colour, red or blue; the other sites are green.
        let coloured = &columns[if is_red_line {
            pattern.red_x
        } else {
            1 - pattern.red_x
        }];
        fill_line_colour(own, coloured, line_colour);
        fill_green([above, own, below], coloured, green);
        fill_other_colour(above, below, coloured, other_colour);
        weave([red, green, blue], rgb);
    }
    pixels
}

/// The line with one site more at either end, mirrored about the outermost one.
fn mirror_ends(line: &[u8], longer: &mut [u8]) {
    let width = line.len();
    longer[1..=width].copy_from_slice(line);
    longer[0] = line[1];
    longer[width + 1] = line[width - 2];
}

fn mask(is_set: bool) -> u8 {
    if is_set { u8::MAX } else { 0 }
}

fn choose(mask: u8, set: u8, unset: u8) -> u8 {
    (set & mask) | (unset & !mask)
}

// These are functions of their own, since the compiler then knows that `out` overlaps nothing.

/// The colour of the line's coloured sites: as it is there, between two of them their mean.
#[inline(never)]
fn fill_line_colour(own: &[u8], coloured: &[u8], out: &mut [u8]) {
    let width = out.len();
    let [left, site, right] = [0, 1, 2].map(|start| &own[start..start + width]);
    let coloured = &coloured[..width];
    for x in 0..width {
        let beside = mean_of_two(left[x], right[x]);
        out[x] = choose(coloured[x], site[x], beside);
    }
}

/// Green: at coloured sites the mean of the cross around it.
#[inline(never)]
fn fill_green([above, own, below]: [&[u8]; 3], coloured: &[u8], out: &mut [u8]) {
    let width = out.len();
    let [left, site, right] = [0, 1, 2].map(|start| &own[start..start + width]);
    let [above, below] = [above, below].map(|line| &line[1..=width]);
    let coloured = &coloured[..width];
    for x in 0..width {
        let cross = mean_of_four(left[x], right[x], above[x], below[x]);
        out[x] = choose(coloured[x], cross, site[x]);
    }
}

/// The colour of the lines above and below: at coloured sites the mean of the corners, at green ones
/// that of the upright neighbours.
#[inline(never)]
fn fill_other_colour(above: &[u8], below: &[u8], coloured: &[u8], out: &mut [u8]) {
    let width = out.len();
    let [above_left, above, above_right] = [0, 1, 2].map(|start| &above[start..start + width]);
    let [below_left, below, below_right] = [0, 1, 2].map(|start| &below[start..start + width]);
    let coloured = &coloured[..width];
    for x in 0..width {
        let corners = mean_of_four(above_left[x], above_right[x], below_left[x], below_right[x]);
        let upright = mean_of_two(above[x], below[x]);
        out[x] = choose(coloured[x], corners, upright);
    }
}

/// Three planes to pixels of three bytes. Four bytes are written at a time, of which the next pixel
/// overwrites the last: a quarter less time than three single bytes take.
#[inline(never)]
fn weave([red, green, blue]: [&[u8]; 3], rgb: &mut [u8]) {
    let last = rgb.len() / 3 - 1;
    let [red, green, blue] = [red, green, blue].map(|plane| &plane[..=last]);
    for x in 0..last {
        let pixel = u32::from(red[x]) | u32::from(green[x]) << 8 | u32::from(blue[x]) << 16;
        rgb[3 * x..3 * x + 4].copy_from_slice(&pixel.to_le_bytes());
    }
    rgb[3 * last..].copy_from_slice(&[red[last], green[last], blue[last]]);
}

/// The rounded mean.
fn mean_of_two(a: u8, b: u8) -> u8 {
    ((u16::from(a) + u16::from(b) + 1) >> 1) as u8
}

/// The rounded mean.
fn mean_of_four(a: u8, b: u8, c: u8, d: u8) -> u8 {
    ((u16::from(a) + u16::from(b) + u16::from(c) + u16::from(d) + 2) >> 2) as u8
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

    /// Site by site, as the module's description says it.
    fn by_definition(pattern: Pattern, lines: &[&[u8]]) -> Vec<u8> {
        let mirrored = |at: isize, length: usize| match at.unsigned_abs() {
            at if at == length => length - 2,
            at => at,
        };
        let (width, height) = (lines[0].len(), lines.len());
        let mut pixels = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let mean = |offsets: &[(isize, isize)]| {
                    let site = |&(across, down): &(isize, isize)| {
                        let line = lines[mirrored(y as isize + down, height)];
                        u32::from(line[mirrored(x as isize + across, width)])
                    };
                    let (sum, count) = (offsets.iter().map(site), offsets.len() as u32);
                    ((sum.sum::<u32>() + count / 2) / count) as u8
                };
                let own = mean(&[(0, 0)]);
                let beside = mean(&[(-1, 0), (1, 0)]);
                let upright = mean(&[(0, -1), (0, 1)]);
                let cross = mean(&[(-1, 0), (1, 0), (0, -1), (0, 1)]);
                let corners = mean(&[(-1, -1), (1, -1), (-1, 1), (1, 1)]);
                pixels.extend(match (y % 2 == pattern.red_y, x % 2 == pattern.red_x) {
                    (true, true) => [own, cross, corners],
                    (true, false) => [beside, own, upright],
                    (false, true) => [upright, own, beside],
                    (false, false) => [corners, cross, own],
                });
            }
        }
        pixels
    }

    #[test]
    fn every_site_has_the_means_of_its_neighbours() {
        let mut random = 1_u32;
        let mut byte = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 24) as u8
        };
        for (width, height) in [(2, 2), (3, 5), (16, 2), (17, 4), (70, 7), (131, 3)] {
            let lines: Vec<Vec<u8>> = (0..height)
                .map(|_| (0..width).map(|_| byte()).collect())
                .collect();
            let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            for (red_x, red_y) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                let pattern = Pattern { red_x, red_y };
                let found = interpolate(pattern, &lines);
                let expected = by_definition(pattern, &lines);
                assert!(found == expected, "{pattern:?}, `{width}x{height}`");
            }
        }
    }

    #[test]
    fn the_smallest_mosaic_is_interpolated() {
        let pattern = Pattern::of(PixelFormat::BayerRg8).unwrap();
        let pixels = interpolate(pattern, &[&[100, 50], &[70, 20]]);
        assert_eq!(pixels, [100, 60, 20, 100, 50, 20, 100, 70, 20, 100, 60, 20]);
    }
}
