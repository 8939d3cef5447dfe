//! Candle's operations.

use muster_trainer_runtime::tensor::Candle;

use crate::shared::operations;

#[test]
fn operations_have_their_gradients() {
    operations::have_their_gradients(&Candle);
}

#[test]
fn what_does_not_fit_is_an_error() {
    operations::refuse_what_does_not_fit(&Candle);
}

#[test]
fn gradients_are_given_at_leaves_alone() {
    operations::give_gradients_at_leaves_alone(&Candle);
}
