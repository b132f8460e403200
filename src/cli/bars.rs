//! Shares as bars and as text.

use super::table::{Cell, Ink};
use super::text::{clean, percent};

/// One bar for a whole split: the first version solid, the others shaded. No share above zero is invisible.
pub(super) fn split_bar(weights: &[(String, f64)], cells: usize) -> Cell {
    const SHADES: [&str; 4] = ["█", "░", "▓", "▒"];
    let mut counts: Vec<usize> = weights
        .iter()
        .map(|(_, share)| if *share > 0.0 { ((share / 100.0 * cells as f64).round() as usize).max(1) } else { 0 })
        .collect();
    // Rounding may leave cells over or take too many; the largest share settles it.
    let total: usize = counts.iter().sum();
    if let Some(largest) = counts.iter_mut().max() {
        *largest = (*largest + cells).saturating_sub(total).max(1);
    }
    let ink = |i: usize| if i == 0 { Ink::Base } else { Ink::Canary };
    Cell::pieces(counts.iter().enumerate().map(|(i, n)| (ink(i), SHADES[i % SHADES.len()].repeat(*n))))
}

/// The bar of one share; a share above zero is never invisible.
pub(super) fn share_bar(share: f64, cells: usize, ink: Ink) -> Cell {
    let full = if share > 0.0 { ((share / 100.0 * cells as f64).round() as usize).clamp(1, cells) } else { 0 };
    Cell::pieces([(ink, "█".repeat(full)), (Ink::Dim, "░".repeat(cells - full))])
}

/// `1.0.0 90 %, 2.0.0 10 %`.
pub(super) fn split_text(weights: &[(String, f64)]) -> String {
    let part = |(version, share): &(String, f64)| format!("{} {}", clean(version), percent(*share));
    weights.iter().map(part).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::table::Look;
    use super::*;

    #[test]
    fn bars_always_have_their_length() {
        for canary in [0.0, 0.01, 1.0, 33.33, 50.0, 99.99, 100.0] {
            let weights = [("1".to_owned(), 100.0 - canary), ("2".to_owned(), canary)];
            let text = split_bar(&weights, 20).text(Look::default());
            assert_eq!(text.chars().count(), 20, "{canary}: {text}");
            assert_eq!(text.contains('░'), canary > 0.0, "{canary}: {text}");
            assert_eq!(share_bar(canary, 10, Ink::Base).width(), 10);
        }
        let four = ["1", "2", "3", "4"].map(|v| (v.to_owned(), 25.0));
        assert_eq!(split_bar(&four, 8).text(Look::default()), "██░░▓▓▒▒");
        assert_eq!(split_text(&four[..2]), "1 25 %, 2 25 %");
        assert_eq!(split_bar(&[], 8).width(), 0);
    }
}
