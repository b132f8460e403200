//! Tables that fit the terminal, bars for splits, and the few colours.
//!
//! Rendering is pure: a [`Look`] says how wide the terminal is and whether it has colours, and out comes text. Without a
//! terminal nothing is cut off, so that `switchback … | grep` sees everything.

use super::text::{clean, percent};

/// How the output looks: what the terminal can do and what the user wants.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    /// Whether colours are wanted.
    pub(super) colour: bool,
    /// Columns of the terminal; none: no terminal, nothing is cut off.
    pub(super) width: Option<usize>,
}

impl Look {
    /// The text in that colour, if colours are wanted.
    pub(super) fn paint(self, ink: Ink, text: &str) -> String {
        match ink.code() {
            Some(code) if self.colour && !text.is_empty() => format!("\x1b[{code}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// What a colour means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Ink {
    /// No colour.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Look at it.
    Warn,
    /// Wrong.
    Bad,
    /// The baseline's share.
    Base,
    /// A canary's share.
    Canary,
    /// Less important.
    Dim,
    /// A heading.
    Bold,
}

impl Ink {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Bad => Some("31"),
            Self::Base => Some("34"),
            Self::Canary => Some("35"),
            Self::Dim => Some("2"),
            Self::Bold => Some("1"),
        }
    }
}

/// A cell: pieces of text with their colours.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell(Vec<(Ink, String)>);

impl Cell {
    /// A cell of one colour.
    pub(super) fn new(ink: Ink, text: impl Into<String>) -> Self {
        Self(vec![(ink, text.into())])
    }

    /// A cell of several pieces.
    pub(super) fn pieces(pieces: impl IntoIterator<Item = (Ink, String)>) -> Self {
        Self(pieces.into_iter().collect())
    }

    /// The cell outside a table.
    pub(super) fn text(&self, look: Look) -> String {
        self.render(usize::MAX, look)
    }

    fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.chars().count()).sum()
    }

    /// The cell in `width` columns; what does not fit gives way to an ellipsis.
    fn render(&self, width: usize, look: Look) -> String {
        if self.width() <= width {
            return self.0.iter().map(|(ink, text)| look.paint(*ink, text)).collect();
        }
        let mut left = width.saturating_sub(1);
        let mut out = String::new();
        for (ink, text) in &self.0 {
            let part: String = text.chars().take(left).collect();
            left -= part.chars().count();
            out.push_str(&look.paint(*ink, &part));
        }
        out.push('…');
        out
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(Ink::Plain, text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(Ink::Plain, text)
    }
}

/// How a column behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column<'a> {
    /// Text, kept whole.
    Left(&'a str),
    /// Numbers, kept whole.
    Right(&'a str),
    /// Text that gives way when the terminal is narrow.
    Text(&'a str),
}

impl<'a> Column<'a> {
    fn head(self) -> &'a str {
        match self {
            Self::Left(head) | Self::Right(head) | Self::Text(head) => head,
        }
    }
}

/// Rows under headings.
#[derive(Debug, Clone)]
pub(super) struct Table<'a> {
    columns: Vec<Column<'a>>,
    rows: Vec<Vec<Cell>>,
}

/// Columns that give way keep at least this much.
const LEAST: usize = 8;
/// Between two columns.
const GAP: usize = 2;

impl<'a> Table<'a> {
    /// A table with these columns.
    pub(super) fn new(columns: impl Into<Vec<Column<'a>>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as there are columns.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there are no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, each line ending in a line break.
    pub(super) fn render(&self, look: Look) -> String {
        let widths = self.widths(look.width);
        let heads = self.columns.iter().map(|c| Cell::new(Ink::Dim, c.head())).collect();
        let mut out = String::new();
        for row in std::iter::once(&heads).chain(&self.rows) {
            out.push_str(&self.line(row, &widths, look));
            out.push('\n');
        }
        out
    }

    fn line(&self, row: &[Cell], widths: &[usize], look: Look) -> String {
        let mut line = String::new();
        let mut owed = 0;
        for ((cell, &width), column) in row.iter().zip(widths).zip(&self.columns) {
            let pad = width.saturating_sub(cell.width());
            let (before, after) = if matches!(column, Column::Right(_)) { (pad, 0) } else { (0, pad) };
            let text = cell.render(width, look);
            if !text.is_empty() {
                // Padding is written only before something, so that lines have no spaces at their end.
                line.push_str(&" ".repeat(owed + before));
                line.push_str(&text);
                owed = after + GAP;
            } else {
                owed += width + GAP;
            }
        }
        line
    }

    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = (0..self.columns.len())
            .map(|i| {
                let cells = self.rows.iter().filter_map(|row| row.get(i)).map(Cell::width).max().unwrap_or(0);
                cells.max(self.columns[i].head().chars().count())
            })
            .collect();
        let Some(limit) = limit else { return widths };
        let gaps = GAP * widths.len().saturating_sub(1);
        let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(limit);
        while excess > 0 {
            // The widest gives first, so that narrow columns stay readable.
            let gives = |i: &usize| matches!(self.columns[*i], Column::Text(_)) && widths[*i] > LEAST;
            let Some(widest) = (0..widths.len()).filter(gives).max_by_key(|i| widths[*i]) else { break };
            widths[widest] -= 1;
            excess -= 1;
        }
        widths
    }
}

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
    use super::*;

    fn sample() -> Table<'static> {
        let mut table = Table::new([Column::Left("NAME"), Column::Right("N"), Column::Text("REASON")]);
        table.row(["a".into(), "10".into(), "because of a long story about a version".into()]);
        table.row([Cell::new(Ink::Bad, "bb"), "7".into(), "".into()]);
        table
    }

    #[test]
    fn without_a_terminal_nothing_is_cut() {
        let expected = "NAME   N  REASON\na     10  because of a long story about a version\nbb     7\n";
        assert_eq!(sample().render(Look::default()), expected);
    }

    #[test]
    fn a_narrow_terminal_cuts_texts_only() {
        let text = sample().render(Look { colour: false, width: Some(24) });
        assert_eq!(text, "NAME   N  REASON\na     10  because of a …\nbb     7\n");
        let text = sample().render(Look { colour: false, width: Some(5) });
        assert!(text.contains("a     10  because…\n"), "the least stays: {text}");
    }

    #[test]
    fn colours_do_not_count_as_width() {
        let plain = sample().render(Look::default());
        let colour = sample().render(Look { colour: true, width: None });
        assert!(colour.contains("\x1b[31mbb\x1b[0m"), "{colour}");
        let stripped = colour.split('\x1b').map(|p| p.split_once('m').filter(|(c, _)| c.starts_with('[')));
        let stripped: String =
            stripped.zip(colour.split('\x1b')).map(|(s, whole)| s.map_or(whole, |(_, rest)| rest)).collect();
        assert_eq!(stripped, plain);
    }

    #[test]
    fn bars_always_have_their_length() {
        for canary in [0.0, 0.01, 1.0, 33.33, 50.0, 99.99, 100.0] {
            let weights = [("1".to_owned(), 100.0 - canary), ("2".to_owned(), canary)];
            let text = split_bar(&weights, 20).render(20, Look::default());
            assert_eq!(text.chars().count(), 20, "{canary}: {text}");
            assert_eq!(text.contains('░'), canary > 0.0, "{canary}: {text}");
            assert_eq!(share_bar(canary, 10, Ink::Base).width(), 10);
        }
        let four = ["1", "2", "3", "4"].map(|v| (v.to_owned(), 25.0));
        assert_eq!(split_bar(&four, 8).render(8, Look::default()), "██░░▓▓▒▒");
        assert_eq!(split_text(&four[..2]), "1 25 %, 2 25 %");
        assert_eq!(split_bar(&[], 8).width(), 0);
    }
}
