//! Lines that fit the terminal: what is too long goes on in the next line, a little further in, rather than where the
//! terminal happens to break it. Colours take no room.

use unicode_width::UnicodeWidthChar as _;

/// How far a line that goes on stands further in than its beginning.
const FURTHER: usize = 2;

/// The text with every line in at most `room` columns, broken at spaces where there are any.
pub(super) fn fit(text: &str, room: Option<usize>) -> String {
    let Some(room) = room.map(|room| room.max(2 * FURTHER)) else { return text.to_owned() };
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let body = line.strip_suffix('\n').unwrap_or(line);
        match shown_width(body) <= room {
            true => out.push_str(body),
            false => broken(body, room, &mut out),
        }
        out.push_str(&line[body.len()..]);
    }
    out
}

fn broken(line: &str, room: usize, out: &mut String) {
    let indent = line.len() - line.trim_start_matches(' ').len();
    let hang = (indent + FURTHER).min(room / 2);
    let mut used = 0;
    let go_on = |out: &mut String, used: &mut usize| {
        out.push('\n');
        out.push_str(&" ".repeat(hang));
        *used = hang;
    };
    let mut rest = line;
    while !rest.is_empty() {
        let spaces = rest.len() - rest.trim_start_matches(' ').len();
        let word = &rest[spaces..];
        let word = &word[..word.find(' ').unwrap_or(word.len())];
        rest = &rest[spaces + word.len()..];
        if word.is_empty() {
            break;
        }
        match used > hang && used + spaces + shown_width(word) > room {
            true => go_on(out, &mut used),
            false => {
                out.push_str(&" ".repeat(spaces));
                used += spaces;
            }
        }
        for (piece, columns) in pieces(word) {
            if columns > 0 && used + columns > room {
                go_on(out, &mut used);
            }
            out.push_str(piece);
            used += columns;
        }
    }
}

/// Columns that a text takes whose colours take none.
fn shown_width(text: &str) -> usize {
    pieces(text).map(|(_, columns)| columns).sum()
}

/// Characters with their columns; a sequence that sets a colour is one piece without any.
fn pieces(text: &str) -> impl Iterator<Item = (&str, usize)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let length = match rest.strip_prefix("\x1b[") {
            Some(colour) => 2 + colour.find('m').map_or(colour.len(), |end| end + 1),
            None => first.len_utf8(),
        };
        let (piece, after) = rest.split_at(length);
        rest = after;
        Some((piece, if first == '\x1b' { 0 } else { first.width().unwrap_or(0) }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_further_in() {
        assert_eq!(fit("short\nand one two three\n", Some(10)), "short\nand one\n  two\n  three\n");
        assert_eq!(fit("  a: bbb ccc ddd", Some(10)), "  a: bbb\n    ccc\n    ddd");
        assert_eq!(fit("one two three", None), "one two three");
    }

    #[test]
    fn words_that_are_too_long_are_broken_where_they_must_be() {
        assert_eq!(fit("abcdefghijklmno x", Some(8)), "abcdefgh\n  ijklmn\n  o x");
        assert_eq!(fit("会計会計会計", Some(8)), "会計会計\n  会計");
    }

    #[test]
    fn colours_take_no_room() {
        let text = "\x1b[31merror:\x1b[0m ab";
        assert_eq!(fit(text, Some(9)), text);
        assert_eq!(fit("\x1b[31mab cd ef\x1b[0m", Some(6)), "\x1b[31mab cd\n  ef\x1b[0m");
    }
}
