//! Sums of numbers that are kept as logarithms: capitals grow and shrink past what a float can hold.

/// `ln(e^a + e^b)` without overflow.
pub(super) fn log_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a < b { (b, a) } else { (a, b) };
    if low == f64::NEG_INFINITY {
        return high;
    }
    high + (low - high).exp().ln_1p()
}

/// `ln Σ e^x` without overflow; negative infinity for no terms (the capital zero).
pub(super) fn log_sum(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + terms.map(|x| (x - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_what_exp_would_overflow_on() {
        assert!((log_add(1000.0, 1000.0) - (1000.0 + 2f64.ln())).abs() < 1e-12);
        assert_eq!(log_add(f64::NEG_INFINITY, 3.0), 3.0);
        assert_eq!(log_add(3.0, f64::NEG_INFINITY), 3.0);
    }

    #[test]
    fn sums_to_the_plain_sum_where_that_exists() {
        let sum = log_sum([1.0f64, 2.0, 5.0].iter().map(|x| x.ln()));
        assert!((sum - 8f64.ln()).abs() < 1e-12);
        assert_eq!(log_sum(std::iter::empty::<f64>()), f64::NEG_INFINITY);
    }
}
