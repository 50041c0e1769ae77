//! Masks as a person draws them: one outline round what belongs together.
//!
//! What a defect changes visibly comes in fragments, for grain and highlights hide some of its
//! pixels. Gaps of a few pixels are closed, as an annotator's outline closes them; specks of a few
//! pixels that lie apart are no region of their own.

/// Gaps up to twice this are closed, in pixels of a 192-pixel picture.
const CLOSED_AT_192: f32 = 3.0;
/// Specks of fewer pixels are dropped, in pixels of a 192-pixel picture.
const SMALLEST_AT_192: f32 = 8.0;

/// Closes gaps in a square mask and drops specks.
pub(super) fn outlined(changed: &[bool], side: usize) -> Vec<bool> {
    let scale = side as f32 / 192.0;
    let reach = (CLOSED_AT_192 * scale).round() as usize;
    let smallest = (SMALLEST_AT_192 * scale * scale).ceil() as usize;
    let mut mask = closed(changed, side, reach);
    for speck in regions(&mask, side) {
        if speck.len() < smallest {
            for index in speck {
                mask[index] = false;
            }
        }
    }
    mask
}

/// Dilation by a square of `2 * reach + 1` pixels, then erosion by the same. What lies beyond the
/// picture stays out of the dilation and does not erode.
fn closed(mask: &[bool], side: usize, reach: usize) -> Vec<bool> {
    let grown = slid(mask, side, reach, |window| window.contains(&true));
    slid(&grown, side, reach, |window| !window.contains(&false))
}

/// Each pixel from the window around it, along the rows and then along the columns.
fn slid(mask: &[bool], side: usize, reach: usize, decide: impl Fn(&[bool]) -> bool) -> Vec<bool> {
    let along_rows = |mask: &[bool]| -> Vec<bool> {
        let mut transposed = vec![false; mask.len()];
        for (y, row) in mask.chunks_exact(side).enumerate() {
            for x in 0..side {
                let window = &row[x.saturating_sub(reach)..(x + reach + 1).min(side)];
                transposed[x * side + y] = decide(window);
            }
        }
        transposed
    };
    along_rows(&along_rows(mask))
}

/// The 8-connected regions of a mask.
fn regions(mask: &[bool], side: usize) -> Vec<Vec<usize>> {
    let mut is_open = mask.to_vec();
    let mut regions = Vec::new();
    for start in 0..mask.len() {
        if !is_open[start] {
            continue;
        }
        is_open[start] = false;
        let mut region = vec![start];
        let mut next = 0;
        while let Some(&pixel) = region.get(next) {
            next += 1;
            let (x, y) = (pixel % side, pixel / side);
            for ny in y.saturating_sub(1)..(y + 2).min(side) {
                for nx in x.saturating_sub(1)..(x + 2).min(side) {
                    let neighbour = ny * side + nx;
                    if std::mem::take(&mut is_open[neighbour]) {
                        region.push(neighbour);
                    }
                }
            }
        }
        regions.push(region);
    }
    regions
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 192;

    fn mask(pixels: impl IntoIterator<Item = (usize, usize)>) -> Vec<bool> {
        let mut mask = vec![false; SIDE * SIDE];
        for (x, y) in pixels {
            mask[y * SIDE + x] = true;
        }
        mask
    }

    #[test]
    fn fragments_of_one_defect_become_one_region() {
        let dotted = mask((0..12).map(|step| (40 + 4 * step, 90)));
        let outline = outlined(&dotted, SIDE);
        assert_eq!(regions(&dotted, SIDE).len(), 12);
        assert_eq!(regions(&outline, SIDE).len(), 1);
        assert!(dotted.iter().zip(&outline).all(|(was, is)| !was || *is));
        let whole = 4 * 11 + 1;
        assert_eq!(outline.iter().filter(|&&flag| flag).count(), whole);
    }

    #[test]
    fn what_lies_far_apart_stays_apart_and_specks_are_dropped() {
        let block = |x: usize, y: usize| (0..16).map(move |i| (x + i % 4, y + i / 4));
        let two = mask(block(10, 10).chain(block(60, 60)).chain([(120, 120)]));
        let outline = outlined(&two, SIDE);
        let found: Vec<usize> = regions(&outline, SIDE).iter().map(Vec::len).collect();
        assert_eq!(found, [16, 16]);
    }

    #[test]
    fn a_region_at_the_edge_keeps_its_pixels() {
        let corner = mask((0..16).map(|i| (i % 4, i / 4)));
        assert_eq!(outlined(&corner, SIDE), corner);
    }
}
