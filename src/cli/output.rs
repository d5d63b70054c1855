//! What a command prints: data on stdout, as a table or as JSON, and notes on stderr.
//!
//! JSON is the node's answer laid out on lines, with its members in the order and its numbers in
//! the digits that the node wrote. A table is for people: aligned columns, and colour only on a
//! terminal and only without `NO_COLOR`.
//!
//! A reader that has seen enough (`tidegate tenant list | head`) is no failure: the command ends as
//! it would have ended.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

use super::failure::Failure;

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: the node's answer.
    Json,
}

/// A word's colour on a terminal.
#[derive(Clone, Copy)]
pub enum Colour {
    /// Allowed, added.
    Green,
    /// Denied, removed.
    Red,
    /// Changed.
    Yellow,
}

/// A column's head, and the side its cells keep to.
pub enum Column {
    /// For words.
    Left(&'static str),
    /// For numbers.
    Right(&'static str),
}

/// Where a command's words go.
pub struct Output<'a> {
    format: Format,
    colour: bool,
    data: &'a mut dyn Write,
    notes: &'a mut dyn Write,
}

impl<'a> Output<'a> {
    /// Data to one place, notes to the other.
    pub fn new(
        format: Format,
        colour: bool,
        data: &'a mut dyn Write,
        notes: &'a mut dyn Write,
    ) -> Self {
        Self { format, colour, data, notes }
    }

    /// Whether data is to be JSON.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints JSON laid out on lines.
    pub fn json(&mut self, text: &str) -> Result<(), Failure> {
        if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
            return Err(Failure::Failed("the node's answer is not JSON".into()));
        }
        self.line(&laid_out(text))
    }

    /// Prints one line of data.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let written = write!(self.data, "{text}{end}").and_then(|()| self.data.flush());
        match written {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::Failed(format!("can't write the output: {e}")))
            }
            _ => Ok(()),
        }
    }

    /// Prints what is known of one thing, a line each: the name, then the value, which may be
    /// anybody's words.
    pub fn facts(&mut self, facts: &[(&str, String)]) -> Result<(), Failure> {
        facts
            .iter()
            .try_for_each(|(name, value)| self.line(&format!("{name:<12} {}", plain(value))))
    }

    /// Prints bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.data.write_all(bytes).and_then(|()| self.data.flush());
        // Half a file is no file: here a reader that went away is a failure, too.
        written.map_err(|e| Failure::Failed(format!("can't write the output: {e}")))
    }

    /// Prints aligned columns under their heads.
    pub fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) -> Result<(), Failure> {
        self.line(&aligned(columns, rows))
    }

    /// Says something that is not data.
    pub fn note(&mut self, text: &str) {
        // A closed stderr leaves nobody to tell.
        let _ = writeln!(self.notes, "{text}");
    }

    /// A word in colour, where there is colour.
    pub fn painted(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => 32,
            Colour::Red => 31,
            Colour::Yellow => 33,
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
    }
}

/// Text from elsewhere, made harmless for a terminal: a control character could move the cursor or
/// fake a line.
pub fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// Milliseconds for people, never less than they are: `850ms`, `1.8s`, `2m 05s`, `3h 12m`, `12d
/// 4h`.
pub fn span(ms: u64) -> String {
    let tenths = ms.div_ceil(100);
    let seconds = ms.div_ceil(1_000);
    let minutes = seconds.div_ceil(60);
    let hours = minutes.div_ceil(60);
    match ms {
        _ if ms < 1_000 => format!("{ms}ms"),
        _ if tenths < 600 => format!("{}.{}s", tenths / 10, tenths % 10),
        _ if seconds < 3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ if hours < 48 => format!("{}h {:02}m", minutes / 60, minutes % 60),
        _ => format!("{}d {}h", hours / 24, hours % 24),
    }
}

fn aligned(columns: &[Column], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let heads = columns.iter().map(|column| match column {
        Column::Left(head) | Column::Right(head) => Cow::Borrowed(*head),
    });
    let lines: Vec<Vec<Cow<'_, str>>> = std::iter::once(heads.collect()).chain(rows).collect();
    let width = |i: usize| {
        let cells = lines.iter().filter_map(|line| line.get(i));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let mut printed = String::new();
        for ((column, width), cell) in columns.iter().zip(&widths).zip(line) {
            let gap = if printed.is_empty() { "" } else { "  " };
            let _ = match column {
                Column::Left(_) => write!(printed, "{gap}{cell:<width$}"),
                Column::Right(_) => write!(printed, "{gap}{cell:>width$}"),
            };
        }
        out.push_str(printed.trim_end());
        out.push('\n');
    }
    out
}

/// JSON on lines, two spaces a level. The text has to be JSON; nothing but blanks between its parts
/// changes.
fn laid_out(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let mut rest = json.chars().peekable();
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = rest.next() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                while rest.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                match rest.next_if(|c| matches!(c, '}' | ']')) {
                    Some(close) => out.push(close),
                    None => {
                        depth += 1;
                        new_line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ if c.is_ascii_whitespace() => {}
            _ => {
                in_string = c == '"';
                out.push(c);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_order_and_its_digits_and_gets_lines() {
        let text = r#"{"b":18446744073709551616,"a":[],"c" : { },"d":[1,"x, {\"y\\"],"e":1.50}"#;
        let lines = laid_out(text);
        assert_eq!(
            lines,
            "{\n  \"b\": 18446744073709551616,\n  \"a\": [],\n  \"c\": {},\n  \"d\": [\n    \
             1,\n    \"x, {\\\"y\\\\\"\n  ],\n  \"e\": 1.50\n}"
        );
        assert_eq!(laid_out(&lines), lines);
    }

    #[test]
    fn columns_are_aligned_and_numbers_keep_right() {
        let table = aligned(
            &[Column::Left("NAME"), Column::Right("LEFT"), Column::Left("MODE")],
            &[
                vec!["a".into(), "10000".into(), String::new()],
                vec!["größer\x1b".into(), "7".into(), "exact".into()],
            ],
        );
        assert_eq!(table, "NAME      LEFT  MODE\na        10000\ngrößer\u{fffd}      7  exact\n");
    }

    #[test]
    fn a_span_never_promises_less_than_it_is() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1.0s"),
            (1_801, "1.9s"),
            (59_901, "1m 00s"),
            (125_000, "2m 05s"),
            (3_599_001, "1h 00m"),
            (11_520_000, "3h 12m"),
            (172_800_000, "2d 0h"),
            (u64::MAX, "213503982334d 15h"),
        ] {
            assert_eq!(span(ms), text, "{ms}");
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is() {
        struct Broken(io::ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut notes = Vec::new();
        for (kind, fine) in [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::StorageFull, false)]
        {
            let mut data = Broken(kind);
            let mut out = Output::new(Format::Table, false, &mut data, &mut notes);
            assert_eq!(out.line("x").is_ok(), fine, "{kind}");
        }
    }

    #[test]
    fn a_word_has_a_colour_only_where_there_is_colour() {
        let (mut data, mut notes) = (Vec::new(), Vec::new());
        let out = Output::new(Format::Table, false, &mut data, &mut notes);
        assert_eq!(out.painted(Colour::Red, "denied"), "denied");
        let out = Output::new(Format::Table, true, &mut data, &mut notes);
        assert_eq!(out.painted(Colour::Red, "denied"), "\x1b[31mdenied\x1b[0m");
    }
}
