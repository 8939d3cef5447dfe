use proptest::prelude::*;

use super::*;

fn numbers(count: usize) -> impl Strategy<Value = Vec<f32>> {
    proptest::collection::vec(-3.0_f32..3.0, count)
}

/// Compares a gradient with the slope of `sum(weights · f(x))` in every direction.
fn check(
    x: &[f32],
    weights: &[f32],
    gradient: &[f32],
    f: impl Fn(&[f32]) -> Vec<f32>,
) -> Result<(), TestCaseError> {
    let value =
        |x: &[f32]| -> f64 { f(x).iter().zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    for place in 0..x.len() {
        let nudge = 1e-2;
        let mut moved = x.to_vec();
        moved[place] = x[place] + nudge;
        let above = value(&moved);
        moved[place] = x[place] - nudge;
        let slope = ((above - value(&moved)) / (2.0 * f64::from(nudge))) as f32;
        prop_assert!(
            (slope - gradient[place]).abs() < 1e-2 * (1.0 + slope.abs()),
            "at {}: slope {}, gradient {}",
            place,
            slope,
            gradient[place]
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn exponentials_are_precise(x in -87.0_f32..87.0) {
        let exact = f64::from(x).exp();
        prop_assert!((f64::from(exp(x)) - exact).abs() <= 3e-7 * exact, "{} against {}", exp(x), exact);
    }

    #[test]
    fn gelu_and_relu_have_their_derivatives(x in numbers(37), w in numbers(37)) {
        check(&x, &w, &gelu_backward(&x, &w), gelu)?;
        // The slope of ReLU has no value at its kink.
        let x: Vec<f32> = x.into_iter().map(|x| x + 0.1_f32.copysign(x)).collect();
        check(&x, &w, &relu_backward(&relu(&x), &w), relu)?;
    }

    #[test]
    fn softmax_has_its_derivative(x in numbers(7 * 14), w in numbers(7 * 14), causal: bool) {
        let result = softmax(&x, 7, 0.5, causal);
        for (row, values) in result.chunks_exact(7).enumerate() {
            prop_assert!((values.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            prop_assert!(!causal || values[row % 7 + 1..].iter().all(|value| *value == 0.0));
        }
        check(&x, &w, &softmax_backward(&result, &w, 7, 0.5), |x| softmax(x, 7, 0.5, causal))?;
    }

    #[test]
    fn layer_norm_has_its_derivatives(
        x in numbers(5 * 20), weight in numbers(20), bias in numbers(20), w in numbers(5 * 20),
    ) {
        let gradients = layer_norm_backward(&x, &weight, &w, 1e-5);
        check(&x, &w, &gradients.x, |x| layer_norm(x, &weight, &bias, 1e-5))?;
        check(&weight, &w, &gradients.weight, |weight| layer_norm(&x, weight, &bias, 1e-5))?;
        check(&bias, &w, &gradients.bias, |bias| layer_norm(&x, &weight, bias, 1e-5))?;
    }

    #[test]
    fn cross_entropy_has_its_derivative(
        x in numbers(6 * 9), labels in proptest::collection::vec(0_u32..9, 6),
    ) {
        let gradient = cross_entropy_backward(&x, &labels, 1.0);
        check(&x, &[1.0], &gradient, |x| vec![cross_entropy(x, &labels)])?;
    }

    #[test]
    fn the_largest_of_a_square_gets_its_gradient(
        order in Just((0..2 * 5 * 7).collect::<Vec<usize>>()).prop_shuffle(), size in 1_usize..4, w in numbers(2 * 5 * 7),
    ) {
        let x: Vec<f32> = order.into_iter().map(|place| place as f32 * 0.05).collect();
        let squares = Squares { height: 5, width: 7, size };
        let result = max_pool(&x, squares);
        prop_assert_eq!(result.len(), 2 * (5 / size) * (7 / size));
        let w = &w[..result.len()];
        check(&x, w, &max_pool_backward(&x, w, squares), |x| max_pool(x, squares))?;
    }

    #[test]
    fn rows_are_added_and_summed(x in numbers(100 * 3), bias in numbers(3), w in numbers(100 * 3)) {
        check(&bias, &w, &sum_rows(&w, 3), |bias| add_rows(&x, bias))?;
    }
}

#[test]
fn sums_do_not_depend_on_the_number_of_threads() {
    let x: Vec<f32> = (0..1000 * 24).map(|place| (place as f32 * 0.37).sin()).collect();
    let weight = vec![1.5; 24];
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| (sum_rows(&x, 24), layer_norm_backward(&x, &weight, &x, 1e-5).weight))
    };
    assert_eq!(with(1), with(7));
}

#[test]
fn the_first_of_equal_scores_counts() {
    assert_eq!(correct(&[1.0, 1.0, 0.0, 0.0, 2.0, 2.0], &[0, 1]), 2);
    assert_eq!(correct(&[1.0, 1.0, 0.0, 0.0, 2.0, 2.0], &[1, 2]), 0);
}
