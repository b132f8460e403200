//! Tables that fit the terminal, and the few colours.
//!
//! Rendering is pure: a [`Look`] says how wide the terminal is and whether it has colours, and out comes text. Without a
//! terminal nothing is cut off, so that `switchback … | grep` sees everything. On a narrow one, texts give way first, then
//! names, both ending in `…`; when that is not enough, the columns go that a table named as dispensable. Numbers are never
//! cut: half a number is a wrong one. Colours only repeat what words and signs say.

use anstyle::{AnsiColor, Style};

use super::text::{beginning, width, wrapped};

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
        match ink.style() {
            Some(style) if self.colour && !text.is_empty() => format!("{style}{text}{style:#}"),
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
    fn style(self) -> Option<Style> {
        let colour = |colour: AnsiColor| Some(colour.on_default());
        match self {
            Self::Plain => None,
            Self::Good => colour(AnsiColor::Green),
            Self::Warn => colour(AnsiColor::Yellow),
            Self::Bad => colour(AnsiColor::Red),
            Self::Base => colour(AnsiColor::Blue),
            Self::Canary => colour(AnsiColor::Magenta),
            Self::Dim => Some(Style::new().dimmed()),
            Self::Bold => Some(Style::new().bold()),
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

    /// How many columns it takes.
    pub(super) fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| width(text)).sum()
    }

    /// The cell in `room` columns; what does not fit gives way to an ellipsis.
    fn render(&self, room: usize, look: Look) -> String {
        if self.width() <= room {
            return self.0.iter().map(|(ink, text)| look.paint(*ink, text)).collect();
        }
        let mut left = room.saturating_sub(1);
        let mut out = String::new();
        for (ink, text) in &self.0 {
            let part = beginning(text, left);
            left -= width(part);
            out.push_str(&look.paint(*ink, part));
            if part.len() < text.len() {
                break;
            }
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
    /// A name or a word: gives way when texts have given what they have.
    Left(&'a str),
    /// What makes no sense in part, such as a time.
    Whole(&'a str),
    /// Numbers, kept whole.
    Right(&'a str),
    /// Text, the first to give way when the terminal is narrow.
    Text(&'a str),
}

impl<'a> Column<'a> {
    fn head(self) -> &'a str {
        match self {
            Self::Left(head) | Self::Whole(head) | Self::Right(head) | Self::Text(head) => head,
        }
    }
}

/// Rows under headings.
#[derive(Debug, Clone)]
pub(super) struct Table<'a> {
    columns: Vec<Column<'a>>,
    rows: Vec<Vec<Cell>>,
    dispensable: &'a [&'a str],
}

/// Texts that give way keep at least this much.
const LEAST_TEXT: usize = 8;
/// Names that give way keep at least this much.
const LEAST_NAME: usize = 6;
/// Between two columns.
const GAP: usize = 2;
/// Stands at the end of the headings when columns are missing.
const MORE: &str = "  …";

impl<'a> Table<'a> {
    /// A table with these columns.
    pub(super) fn new(columns: impl Into<Vec<Column<'a>>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new(), dispensable: &[] }
    }

    /// Columns that go, in this order, when the terminal is too narrow for all of them.
    pub(super) fn dispensable(mut self, heads: &'a [&'a str]) -> Self {
        self.dispensable = heads;
        self
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
        let (shown, widths) = self.layout(look.width);
        let heads = self.columns.iter().map(|c| Cell::new(Ink::Dim, c.head())).collect();
        let mut out = String::new();
        for (at, row) in std::iter::once(&heads).chain(&self.rows).enumerate() {
            out.push_str(&self.line(row, &shown, &widths, look));
            if at == 0 && shown.len() < self.columns.len() {
                out.push_str(&look.paint(Ink::Dim, MORE));
            }
            out.push('\n');
        }
        out
    }

    fn line(&self, row: &[Cell], shown: &[usize], widths: &[usize], look: Look) -> String {
        let mut line = String::new();
        let mut owed = 0;
        for (&at, &room) in shown.iter().zip(widths) {
            let Some(cell) = row.get(at) else { continue };
            let text = cell.render(room, look);
            if text.is_empty() {
                owed += room + GAP;
                continue;
            }
            let pad = room.saturating_sub(cell.width());
            let (before, after) = if matches!(self.columns[at], Column::Right(_)) { (pad, 0) } else { (0, pad) };
            // Padding is written only before something, so that lines have no spaces at their end.
            line.push_str(&" ".repeat(owed + before));
            line.push_str(&text);
            owed = after + GAP;
        }
        line
    }

    /// The columns that are shown, with their widths.
    fn layout(&self, limit: Option<usize>) -> (Vec<usize>, Vec<usize>) {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        let Some(limit) = limit else {
            let widths = shown.iter().map(|&at| self.natural(at)).collect();
            return (shown, widths);
        };
        let mut going = self.dispensable.iter();
        loop {
            let missing = if shown.len() < self.columns.len() { width(MORE) } else { 0 };
            let (widths, fits) = self.widths(&shown, limit.saturating_sub(missing));
            if fits {
                return (shown, widths);
            }
            let Some(gone) = going.next() else {
                let widths = self.with_short_heads(&shown, widths, limit.saturating_sub(missing));
                return (shown, widths);
            };
            shown.retain(|&at| self.columns[at].head() != *gone);
        }
    }

    /// How wide a column is when nothing has to give way.
    fn natural(&self, at: usize) -> usize {
        self.widest_cell(at).max(width(self.columns[at].head()))
    }

    fn widest_cell(&self, at: usize) -> usize {
        self.rows.iter().filter_map(|row| row.get(at)).map(Cell::width).max().unwrap_or(0)
    }

    /// Widths of these columns within the limit, and whether they are.
    fn widths(&self, shown: &[usize], limit: usize) -> (Vec<usize>, bool) {
        let mut widths: Vec<usize> = shown.iter().map(|&at| self.natural(at)).collect();
        let gaps = GAP * widths.len().saturating_sub(1);
        let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(limit);
        for texts in [true, false] {
            let least = if texts { LEAST_TEXT } else { LEAST_NAME };
            while excess > 0 {
                // The widest gives first, so that narrow columns stay readable.
                let gives = |i: &usize| match self.columns[shown[*i]] {
                    Column::Text(_) => texts && widths[*i] > least,
                    Column::Left(head) => !texts && widths[*i] > least.max(width(head)),
                    Column::Right(_) | Column::Whole(_) => false,
                };
                let Some(widest) = (0..widths.len()).filter(gives).max_by_key(|i| widths[*i]) else { break };
                widths[widest] -= 1;
                excess -= 1;
            }
        }
        (widths, excess == 0)
    }

    /// The last resort: headings that are longer than what stands below them are cut.
    fn with_short_heads(&self, shown: &[usize], mut widths: Vec<usize>, limit: usize) -> Vec<usize> {
        let gaps = GAP * widths.len().saturating_sub(1);
        let mut excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(limit);
        let least: Vec<_> = shown.iter().map(|&at| self.widest_cell(at).clamp(1, self.natural(at))).collect();
        while excess > 0 {
            let gives = |i: &usize| widths[*i] > least[*i].max(LEAST_NAME.min(widths[*i]));
            let Some(widest) = (0..widths.len()).filter(gives).max_by_key(|i| widths[*i]) else { break };
            widths[widest] -= 1;
            excess -= 1;
        }
        widths
    }

    /// Two columns without headings, names and what is to be said of them: on a narrow terminal the second goes on in the
    /// next line, because whoever asks for one thing wants to read all of it.
    pub(super) fn facts(&self, look: Look) -> String {
        let names = self.natural(0);
        let indent = names + GAP;
        let room = look.width.map_or(usize::MAX, |width| width.saturating_sub(indent).max(LEAST_TEXT));
        let mut out = String::new();
        for row in &self.rows {
            let [name, fact] = row.as_slice() else { continue };
            out.push_str(&name.text(look));
            let mut pad = indent - name.width();
            for (ink, text) in &fact.0 {
                for line in wrapped(text, room).iter().filter(|line| !line.is_empty()) {
                    if pad == usize::MAX {
                        out.push('\n');
                        pad = indent;
                    }
                    out.push_str(&" ".repeat(std::mem::replace(&mut pad, usize::MAX)));
                    out.push_str(&look.paint(*ink, line));
                }
            }
            out.push('\n');
        }
        out
    }
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
    fn names_give_way_after_texts_and_columns_go_last() {
        let heads = [Column::Left("SERVICE"), Column::Right("N"), Column::Right("MORE"), Column::Text("WHY")];
        let mut table = Table::new(heads).dispensable(&["MORE"]);
        table.row(["a-service-of-a-long-name".into(), "1234567".into(), "7".into(), "for a reason".into()]);
        let at = |width| table.render(Look { colour: false, width: Some(width) });
        assert_eq!(at(53), table.render(Look::default()));
        assert_eq!(
            at(49),
            "SERVICE                         N  MORE  WHY\na-service-of-a-long-name  1234567     7  for a r…\n"
        );
        assert_eq!(at(40), "SERVICE                N  MORE  WHY\na-service-of-a…  1234567     7  for a r…\n");
        assert_eq!(at(30), "SERVICE         N  WHY  …\na-servi…  1234567  for a r…\n");
    }

    #[test]
    fn characters_count_as_wide_as_they_are_shown() {
        let mut table = Table::new([Column::Left("NAME"), Column::Right("N")]);
        table.row(["会計サービス".into(), "1".into()]);
        table.row(["cafe\u{301}".into(), "2".into()]);
        assert_eq!(table.render(Look::default()), "NAME          N\n会計サービス  1\ncafe\u{301}          2\n");
        let narrow = table.render(Look { colour: false, width: Some(10) });
        assert!(narrow.contains("会計サ…  1\n"), "half a character is none: {narrow}");
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
}
