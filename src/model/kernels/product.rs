//! Products with a matrix that is packed once, what follows them done while a tile is in the cache.

#![allow(
    unsafe_code,
    reason = "vector instructions; every block says what it relies on"
)]

use std::marker::PhantomData;

use super::arithmetic::Arithmetic;
use super::elementwise::gelu;
use super::lanes::{Lanes, TALLEST, WIDEST};
use super::rows::Rows;

/// Columns of a panel: two vectors.
pub(crate) const fn panel_width<A: Arithmetic>() -> usize {
    2 * A::Lanes::COUNT
}

/// Words that so many elements take.
pub(crate) const fn words<A: Arithmetic>(elements: usize) -> usize {
    elements.div_ceil(A::DEPTH)
}

/// Room for a tile of any processor.
pub(crate) type TileRoom = [f32; TALLEST * 2 * WIDEST];

/// Such room.
pub(crate) fn tile_room() -> TileRoom {
    [0.0; TALLEST * 2 * WIDEST]
}

/// Words of a cache line.
const CACHE_LINE: usize = 16;

/// `ROWS` rows of `left` times a panel, to `ROWS` rows of `out` of a panel's width. A cache line a step
/// is fetched from `ahead` on, which may be any address.
///
/// # Safety
/// Within [`Arithmetic::vectorise`]; `left` has `ROWS` rows of `depth` words, `left_stride` apart,
/// `panel` has `depth` times a panel's width of words, and `out` room for the rows, `out_stride` apart.
#[inline(always)]
pub(crate) unsafe fn tile<A: Arithmetic, const ROWS: usize>(
    left: *const u32,
    left_stride: usize,
    panel: *const u32,
    depth: usize,
    out: *mut f32,
    out_stride: usize,
    ahead: *const u32,
) {
    let count = A::Lanes::COUNT;
    // SAFETY: the caller's promise; a word may be read as an `f32`, whatever its bits.
    unsafe {
        let mut sums = [[A::Lanes::splat(0.0); 2]; ROWS];
        for step in 0..depth {
            let right = panel.add(step * 2 * count).cast::<f32>();
            A::Lanes::prefetch(ahead.wrapping_add(step * CACHE_LINE));
            let rights = [A::Lanes::load(right), A::Lanes::load(right.add(count))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let left = left.add(row * left_stride + step).cast::<f32>().read();
                let left = A::Lanes::splat(left);
                sums[0] = A::multiply_add(sums[0], left, rights[0]);
                sums[1] = A::multiply_add(sums[1], left, rights[1]);
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            let out = out.add(row * out_stride);
            A::Lanes::store(out, sums[0]);
            A::Lanes::store(out.add(count), sums[1]);
        }
    }
}

/// The weights `[inputs, outputs]` of a linear layer in panels of columns, and its bias.
#[derive(Clone, Debug)]
pub(crate) struct Packed<A> {
    words: Vec<u32>,
    bias: Vec<f32>,
    inputs: usize,
    outputs: usize,
    arithmetic: PhantomData<A>,
}

impl<A: Arithmetic> Packed<A> {
    /// From `weight`, `[outputs, inputs]`.
    ///
    /// # Panics
    /// When there is not a weight for each input of each output.
    pub(crate) fn new(weight: &[f32], bias: &[f32], inputs: usize) -> Self {
        let outputs = bias.len();
        assert_eq!(
            weight.len(),
            inputs * outputs,
            "a weight for each input of each output"
        );
        let width = panel_width::<A>();
        let depth = words::<A>(inputs);
        let panels = outputs.div_ceil(width);
        let mut packed = vec![0; panels * depth * width];
        let mut elements = vec![A::Element::default(); depth * A::DEPTH];
        for (column, row) in weight.chunks_exact(inputs).enumerate() {
            for (element, value) in elements.iter_mut().zip(row) {
                *element = A::narrow(*value);
            }
            let panel = &mut packed[column / width * depth * width..];
            for (step, elements) in elements.chunks_exact(A::DEPTH).enumerate() {
                panel[step * width + column % width] = A::word(elements);
            }
        }
        let mut bias = bias.to_vec();
        bias.resize(panels * width, 0.0);
        Self {
            words: packed,
            bias,
            inputs,
            outputs,
            arithmetic: PhantomData,
        }
    }

    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// `rows` rows of `left` times the weights plus the bias, tile by tile to `finish`.
    ///
    /// # Panics
    /// When `left` or `finish` has no room for so many rows or columns.
    pub(crate) fn multiply(&self, left: &Rows, rows: usize, mut finish: impl Finish<A>) {
        let width = panel_width::<A>();
        let depth = words::<A>(self.inputs);
        assert!(
            left.holds(rows.next_multiple_of(A::Lanes::ROWS), depth),
            "expected {rows} rows of {depth} words"
        );
        assert!(
            finish.holds(rows, self.bias.len()),
            "expected room for {rows} rows of {} values",
            self.bias.len()
        );
        let mut made = tile_room();
        A::vectorise(
            #[inline(always)]
            || {
                for (index, panel) in self.words.chunks_exact(depth * width).enumerate() {
                    let next = &self.words[(index + 1) * depth * width..];
                    for first in (0..rows).step_by(A::Lanes::ROWS) {
                        // Each tile has a part of the next panel fetched, a line a step.
                        let fetched = first / A::Lanes::ROWS * depth * CACHE_LINE;
                        let ahead = match fetched < next.len().min(depth * width) {
                            true => next[fetched..].as_ptr(),
                            false => panel.as_ptr(),
                        };
                        // SAFETY: `left` holds a tile's rows from `first` on, a panel has this size, and
                        // the room is that of the largest tile.
                        unsafe {
                            A::Lanes::tile::<A>(
                                left.words().as_ptr().add(first * left.stride()),
                                left.stride(),
                                panel.as_ptr(),
                                depth,
                                made.as_mut_ptr(),
                                width,
                                ahead,
                            );
                        }
                        let made = made
                            .chunks_exact(width)
                            .take(A::Lanes::ROWS.min(rows - first));
                        for (row, values) in made.enumerate() {
                            for at in [0, A::Lanes::COUNT] {
                                let column = index * width + at;
                                // SAFETY: both have a vector's values there; `finish` holds the row
                                // and the column.
                                unsafe {
                                    let value = A::Lanes::load(values.as_ptr().add(at));
                                    let bias = A::Lanes::load(self.bias.as_ptr().add(column));
                                    finish.put(first + row, column, A::Lanes::add(value, bias));
                                }
                            }
                        }
                    }
                }
            },
        );
    }
}

/// What becomes of a product.
pub(crate) trait Finish<A: Arithmetic> {
    /// Whether there is room.
    fn holds(&self, rows: usize, columns: usize) -> bool;
    /// Takes a vector of a row from `column` on.
    ///
    /// # Safety
    /// Within [`Arithmetic::vectorise`]; row and column lie within what it holds.
    unsafe fn put(&mut self, row: usize, column: usize, values: <A::Lanes as Lanes>::Vector);
}

/// Writes elements, rows `stride` words apart.
pub(crate) struct Keep<'a> {
    pub(crate) to: &'a mut [u32],
    pub(crate) stride: usize,
}

impl<A: Arithmetic> Finish<A> for Keep<'_> {
    fn holds(&self, rows: usize, columns: usize) -> bool {
        self.stride >= words::<A>(columns) && self.to.len() >= rows * self.stride
    }

    #[inline(always)]
    unsafe fn put(&mut self, row: usize, column: usize, values: <A::Lanes as Lanes>::Vector) {
        // SAFETY: the caller's promise.
        unsafe {
            let to = self.to.as_mut_ptr().add(row * self.stride);
            A::store(to.cast::<A::Element>().add(column), values);
        }
    }
}

/// Writes the GELU of the product.
pub(crate) struct Gelu<'a>(pub(crate) Keep<'a>);

impl<A: Arithmetic> Finish<A> for Gelu<'_> {
    fn holds(&self, rows: usize, columns: usize) -> bool {
        Finish::<A>::holds(&self.0, rows, columns)
    }

    #[inline(always)]
    unsafe fn put(&mut self, row: usize, column: usize, values: <A::Lanes as Lanes>::Vector) {
        // SAFETY: the caller's promise.
        unsafe { Finish::<A>::put(&mut self.0, row, column, gelu::<A::Lanes>(values)) }
    }
}

/// Adds to `f32` that are there already, rows `stride` apart.
pub(crate) struct Add<'a> {
    pub(crate) to: &'a mut [f32],
    pub(crate) stride: usize,
}

impl<A: Arithmetic> Finish<A> for Add<'_> {
    fn holds(&self, rows: usize, columns: usize) -> bool {
        self.stride >= columns && self.to.len() >= rows * self.stride
    }

    #[inline(always)]
    unsafe fn put(&mut self, row: usize, column: usize, values: <A::Lanes as Lanes>::Vector) {
        // SAFETY: the caller's promise.
        unsafe {
            let to = self.to.as_mut_ptr().add(row * self.stride + column);
            A::Lanes::store(to, A::Lanes::add(A::Lanes::load(to), values));
        }
    }
}
