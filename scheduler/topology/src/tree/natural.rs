//! The order people expect of names with numbers: `rack-2` before `rack-10`.

use std::cmp::Ordering;

/// Compares runs of digits as numbers and everything else byte by byte; names that differ only in leading
/// zeros are ordered by their bytes, so that distinct names are never equal.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    let (mut a, mut b) = (left.as_bytes(), right.as_bytes());
    while let (Some(&first), Some(&second)) = (a.first(), b.first()) {
        if first.is_ascii_digit() && second.is_ascii_digit() {
            let (number_a, rest_a) = number(a);
            let (number_b, rest_b) = number(b);
            let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
            if order.is_ne() {
                return order;
            }
            (a, b) = (rest_a, rest_b);
        } else {
            if first != second {
                return first.cmp(&second);
            }
            (a, b) = (&a[1..], &b[1..]);
        }
    }
    a.len().cmp(&b.len()).then_with(|| left.cmp(right))
}

/// The leading digits without zeros in front, and what follows.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let start = text[..end].iter().position(|byte| *byte != b'0').unwrap_or(end);
    (&text[start..end], &text[end..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_count_as_numbers() {
        let mut names =
            ["rack-10", "rack-2", "rack-02", "rack", "a100-1", "rack-2b", "rack-99999999999999999999"];
        names.sort_by(|a, b| compare(a, b));
        assert_eq!(
            names,
            ["a100-1", "rack", "rack-02", "rack-2", "rack-2b", "rack-10", "rack-99999999999999999999"]
        );
    }

    proptest! {
        #[test]
        fn it_is_a_total_order(a in "[ab0-2]{0,5}", b in "[ab0-2]{0,5}", c in "[ab0-2]{0,5}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &b).is_eq(), a == b);
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
