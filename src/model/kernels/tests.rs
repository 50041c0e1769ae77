use candle_core::{Device, Var};
use rand::{Rng, SeedableRng};

use super::*;

pub(super) fn random(shape: &[usize], seed: u64) -> Tensor {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| rng.random_range(-2.0..2.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Backward of `f` at every entry of every argument, against central differences.
fn assert_gradients(shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let vars: Vec<Var> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| Var::from_tensor(&random(shape, i as u64)).unwrap())
        .collect();
    let arguments: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let weights = random(f(&arguments).unwrap().dims(), 99);
    let loss = |arguments: &[Tensor]| {
        f(arguments)
            .unwrap()
            .mul(&weights)
            .unwrap()
            .sum_all()
            .unwrap()
    };
    let gradients = loss(&arguments).backward().unwrap();
    for (index, var) in vars.iter().enumerate() {
        let gradient = gradients.get(var).unwrap().flatten_all().unwrap();
        let gradient = gradient.to_vec1::<f32>().unwrap();
        let at = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for entry in 0..at.len() {
            let shifted = |step: f32| {
                let mut values = at.clone();
                values[entry] += step;
                let mut arguments = arguments.clone();
                arguments[index] = Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap();
                f64::from(loss(&arguments).to_scalar::<f32>().unwrap())
            };
            let expected = (shifted(5e-3) - shifted(-5e-3)) / 1e-2;
            let found = f64::from(gradient[entry]);
            assert!(
                (expected - found).abs() < 4e-3 * (1.0 + expected.abs()),
                "argument {index} entry {entry}: expected {expected}, found {found}"
            );
        }
    }
}

#[test]
fn layer_norm_has_the_gradient_of_its_value() {
    assert_gradients(&[&[3, 21], &[21], &[21]], |x| {
        layer_norm(&x[0], &x[1], &x[2], 1e-6)
    });
}

#[test]
fn softmax_has_the_gradient_of_its_value() {
    assert_gradients(&[&[2, 3, 19]], |x| softmax(&x[0]));
}

#[test]
fn gelu_has_the_gradient_of_its_value() {
    assert_gradients(&[&[40]], |x| gelu(&x[0]));
}

#[test]
fn linear_has_the_gradient_of_its_value() {
    assert_gradients(&[&[2, 3, 5], &[4, 5], &[4]], |x| {
        linear(&x[0], &x[1], &x[2])
    });
}

#[test]
fn values_agree_with_the_composed_operations() {
    let x = random(&[4, 37], 7);
    let close = |a: Tensor, b: Tensor| {
        let gap = a.sub(&b).unwrap().abs().unwrap().max_all().unwrap();
        assert!(gap.to_scalar::<f32>().unwrap() < 2e-6, "{gap}");
    };
    close(
        softmax(&x).unwrap(),
        candle_nn::ops::softmax(&x, D::Minus1).unwrap(),
    );
    close(gelu(&x).unwrap(), x.gelu_erf().unwrap());
    let (weight, bias) = (random(&[37], 8), random(&[37], 9));
    close(
        layer_norm(&x, &weight, &bias, 1e-6).unwrap(),
        candle_nn::ops::layer_norm_slow(&x, &weight, &bias, 1e-6).unwrap(),
    );
}
