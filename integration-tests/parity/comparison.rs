//! How far two sets of tensors are apart.

use candle_core::{DType, Tensor};

/// What has been compared so far.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Pairs of tensors.
    pub(crate) tensors: usize,
    /// The largest error among them.
    pub(crate) largest: f64,
}

impl Comparison {
    /// Takes in a pair: its error is the largest difference in units of the root mean square of
    /// what was expected. Other shapes, and values that are no numbers, are infinitely wrong.
    pub(crate) fn add(&mut self, found: &Tensor, expected: &Tensor) {
        let error = match found.dims() == expected.dims() {
            true => relative_error(&values(found), &values(expected)),
            false => f64::INFINITY,
        };
        self.add_error(error);
    }

    /// Takes in a pair whose error has another measure.
    pub(crate) fn add_error(&mut self, error: f64) {
        self.tensors += 1;
        self.largest = if error.is_finite() {
            self.largest.max(error)
        } else {
            f64::INFINITY
        };
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.to_dtype(DType::F64).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    let mean_square =
        expected.iter().map(|value| value * value).sum::<f64>() / expected.len() as f64;
    let mut largest = 0.;
    for (found, expected) in found.iter().zip(expected) {
        let difference = (found - expected).abs();
        // Not `max`, which steps over what is no number.
        if difference.is_nan() {
            return f64::INFINITY;
        }
        largest = f64::max(largest, difference);
    }
    largest / mean_square.sqrt()
}
