//! Attention without gradients: from projected tokens to merged heads in one operation.
//!
//! Composed of tensors, attention copies queries, keys, values and the result into the order of
//! heads, and keeps the scores of all tokens at once. Here matrix products read the heads where
//! they lie, and scores live for a few rows at a time, within the processor's cache.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};

use super::{exp, softmax_rows, values};

/// Scores that are held at a time, as far as a row is not longer.
const BLOCK: usize = 1 << 16;

/// Softmax attention over `[batch, tokens, 3 * width]`, queries, keys and values each head by head:
/// `[batch, tokens, width]`.
///
/// # Errors
/// When the shape does not fit.
pub(crate) fn attention(projected: &Tensor, heads: usize) -> Result<Tensor> {
    projected
        .contiguous()?
        .apply_op1_no_bwd(&SoftmaxAttention { heads })
}

/// The same with linear attention (Katharopoulos et al., "Transformers are RNNs"), `phi(u) = elu(u) +
/// 1`; `epsilon` keeps its denominator from being zero.
///
/// # Errors
/// When the shape does not fit.
pub(crate) fn linear_attention(projected: &Tensor, heads: usize, epsilon: f32) -> Result<Tensor> {
    projected
        .contiguous()?
        .apply_op1_no_bwd(&LinearAttention { heads, epsilon })
}

/// Which of the three parts of a projected token.
#[derive(Clone, Copy)]
enum Part {
    Queries,
    Keys,
    Values,
}

/// Where everything lies in `[batch, tokens, 3 * width]`.
struct Projected {
    /// Where in its storage the batch begins.
    start: usize,
    batch: usize,
    tokens: usize,
    width: usize,
    head_width: usize,
    heads: usize,
}

impl Projected {
    fn new(layout: &Layout, heads: usize) -> Result<Self> {
        let start = layout.start_offset();
        let (batch, tokens, width) = layout.shape().dims3()?;
        if heads == 0 || !width.is_multiple_of(3 * heads) {
            bail!("expected queries, keys and values of {heads} heads, found a width of {width}")
        }
        Ok(Self {
            start,
            batch,
            tokens,
            width: width / 3,
            head_width: width / 3 / heads,
            heads,
        })
    }

    /// Every image and head.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let heads = self.heads;
        (0..self.batch).flat_map(move |image| (0..heads).map(move |head| (image, head)))
    }

    /// The matrix of `count` tokens from `first` on, `[count, head width]`.
    fn matrix(
        &self,
        part: Part,
        (image, head): (usize, usize),
        first: usize,
        count: usize,
    ) -> Layout {
        let stride = 3 * self.width;
        let column = part as usize * self.width + head * self.head_width;
        let start = self.start + (image * self.tokens + first) * stride + column;
        Layout::new(
            Shape::from((count, self.head_width)),
            vec![stride, 1],
            start,
        )
    }

    /// Writes the rows of a head, from token `first` on, to where they belong in the result.
    fn merge(&self, rows: &[f32], (image, head): (usize, usize), first: usize, out: &mut [f32]) {
        let from = (image * self.tokens + first) * self.width;
        let out = out[from..].chunks_exact_mut(self.width);
        for (row, out) in rows.chunks_exact(self.head_width).zip(out) {
            out[head * self.head_width..][..self.head_width].copy_from_slice(row);
        }
    }

    fn result(&self, out: Vec<f32>) -> (CpuStorage, Shape) {
        let shape = Shape::from((self.batch, self.tokens, self.width));
        (CpuStorage::F32(out), shape)
    }

    fn room(&self) -> Vec<f32> {
        vec![0f32; self.batch * self.tokens * self.width]
    }
}

/// The product of two matrices, row by row.
fn product(
    (left, left_layout): (&CpuStorage, &Layout),
    (right, right_layout): (&CpuStorage, &Layout),
) -> Result<Vec<f32>> {
    let (rows, inner) = left_layout.shape().dims2()?;
    let columns = right_layout.shape().dims2()?.1;
    let sizes = (1, rows, columns, inner);
    match left.matmul(right, sizes, left_layout, right_layout)? {
        CpuStorage::F32(values) => Ok(values),
        other => bail!("expected a product in `f32`, found {:?}", other.dtype()),
    }
}

struct SoftmaxAttention {
    heads: usize,
}

impl CustomOp1 for SoftmaxAttention {
    fn name(&self) -> &'static str {
        "softmax-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let projected = Projected::new(layout, self.heads)?;
        let tokens = projected.tokens;
        let scale = 1.0 / (projected.head_width as f32).sqrt();
        let rows = (BLOCK / tokens.max(1)).max(1);
        let mut out = projected.room();
        for place in projected.places() {
            let keys = projected
                .matrix(Part::Keys, place, 0, tokens)
                .transpose(0, 1)?;
            let shown = projected.matrix(Part::Values, place, 0, tokens);
            for first in (0..tokens).step_by(rows) {
                let count = rows.min(tokens - first);
                let queries = projected.matrix(Part::Queries, place, first, count);
                let mut scores = product((storage, &queries), (storage, &keys))?;
                softmax_rows(&mut scores, tokens, scale);
                let scores = CpuStorage::F32(scores);
                let block = Layout::contiguous((count, tokens));
                let attended = product((&scores, &block), (storage, &shown))?;
                projected.merge(&attended, place, first, &mut out);
            }
        }
        Ok(projected.result(out))
    }
}

struct LinearAttention {
    heads: usize,
    epsilon: f32,
}

impl CustomOp1 for LinearAttention {
    fn name(&self) -> &'static str {
        "linear-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let projected = Projected {
            start: 0,
            ..Projected::new(layout, self.heads)?
        };
        let Projected {
            tokens,
            width,
            head_width,
            ..
        } = projected;
        let mut mapped = values(storage, layout)?.to_vec();
        for token in mapped.chunks_exact_mut(3 * width) {
            for value in &mut token[..2 * width] {
                *value = phi(*value);
            }
        }
        let mapped = &CpuStorage::F32(mapped);
        let mut out = projected.room();
        for place in projected.places() {
            let [queries, keys, shown] = [Part::Queries, Part::Keys, Part::Values]
                .map(|part| projected.matrix(part, place, 0, tokens));
            let summary = product((mapped, &keys.transpose(0, 1)?), (mapped, &shown))?;
            let ones = CpuStorage::F32(vec![1.0; tokens]);
            let row = Layout::contiguous((1, tokens));
            let key_sums = product((&ones, &row), (mapped, &keys))?;
            let [summary, key_sums] = [summary, key_sums].map(CpuStorage::F32);
            let square = Layout::contiguous((head_width, head_width));
            let mut rebuilt = product((mapped, &queries), (&summary, &square))?;
            let column = Layout::contiguous((head_width, 1));
            let denominators = product((mapped, &queries), (&key_sums, &column))?;
            for (row, denominator) in rebuilt.chunks_exact_mut(head_width).zip(denominators) {
                let factor = 1.0 / (denominator + self.epsilon);
                for value in row {
                    *value *= factor;
                }
            }
            projected.merge(&rebuilt, place, 0, &mut out);
        }
        Ok(projected.result(out))
    }
}

/// `elu(u) + 1`.
fn phi(u: f32) -> f32 {
    let (raised, shrunk) = (u + 1.0, exp(u));
    if u > 0.0 { raised } else { shrunk }
}

#[cfg(test)]
mod tests {
    use candle_core::D;

    use super::super::tests::random;
    use super::*;

    /// A head's queries, keys or values of one image.
    fn part(projected: &Tensor, part: usize, head: usize, heads: usize) -> Tensor {
        let width = projected.dim(D::Minus1).unwrap() / 3 / heads;
        let column = (part * heads + head) * width;
        projected.narrow(D::Minus1, column, width).unwrap()
    }

    /// `attend` of the queries, keys and values of each head, side by side.
    fn by_heads(
        projected: &Tensor,
        heads: usize,
        attend: impl Fn([Tensor; 3]) -> Result<Tensor>,
    ) -> Tensor {
        let heads = (0..heads).map(|head| {
            let parts = [0, 1, 2].map(|index| part(projected, index, head, heads));
            attend(parts.map(|part| part.contiguous().unwrap())).unwrap()
        });
        Tensor::cat(&heads.collect::<Vec<_>>(), D::Minus1).unwrap()
    }

    fn assert_close(found: &Tensor, expected: &Tensor) {
        assert_eq!(found.dims(), expected.dims());
        let gap = (found - expected)
            .unwrap()
            .abs()
            .unwrap()
            .max_all()
            .unwrap();
        assert!(gap.to_scalar::<f32>().unwrap() < 3e-6, "{gap}");
    }

    /// Shapes within one block and over several, of a tensor of its own and of a part of one.
    fn inputs() -> Vec<Tensor> {
        let whole = random(&[3, 7, 36], 1);
        let part = whole.narrow(0, 1, 2).unwrap();
        vec![whole, part, random(&[1, 400, 36], 2)]
    }

    #[test]
    fn softmax_attention_is_what_its_formula_says() {
        for input in inputs() {
            let expected = by_heads(&input, 3, |[queries, keys, values]| {
                let scores = (queries.matmul(&keys.t()?)? / 2.0)?;
                candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&values)
            });
            assert_close(&attention(&input, 3).unwrap(), &expected);
        }
    }

    #[test]
    fn linear_attention_is_what_its_formula_says() {
        for input in inputs() {
            let expected = by_heads(&input, 2, |[queries, keys, values]| {
                let [queries, keys] = [queries, keys].map(|u| u.elu(1.0).unwrap() + 1.0);
                let (queries, keys) = (queries?, keys?);
                let weights = queries.matmul(&keys.t()?)?;
                let sums = (weights.sum_keepdim(D::Minus1)? + 0.5)?;
                weights.broadcast_div(&sums)?.matmul(&values)
            });
            assert_close(&linear_attention(&input, 2, 0.5).unwrap(), &expected);
        }
    }

    #[test]
    fn a_width_that_is_not_that_of_the_heads_is_refused() {
        let error = attention(&random(&[1, 2, 12], 3), 5)
            .unwrap_err()
            .to_string();
        assert!(error.contains("of 5 heads, found a width of 12"), "{error}");
    }
}
