//! A table that is drawn over itself on a terminal, and told in lines elsewhere.

use std::io::{self, IsTerminal, Write};

/// Where the table goes.
pub(crate) struct Screen {
    terminal: bool,
    /// Lines of the last drawing, which the next one goes over.
    drawn: usize,
    last: String,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal(), drawn: 0, last: String::new() }
    }

    /// Shows a summary and, on a terminal, the rows below it. `key` is what a new line is worth
    /// when there is no terminal.
    pub(crate) fn draw(&mut self, key: &str, summary: &str, rows: &[String]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !self.terminal {
            if key != self.last {
                writeln!(out, "{summary}")?;
                key.clone_into(&mut self.last);
            }
            return out.flush();
        }
        if self.drawn > 0 {
            // Up to where the last drawing began, and clear all below.
            write!(out, "\x1b[{}A\x1b[J", self.drawn)?;
        }
        writeln!(out, "{summary}")?;
        for row in rows {
            writeln!(out, "{row}")?;
        }
        self.drawn = rows.len() + 1;
        out.flush()
    }

    /// Leaves what is drawn where it is.
    pub(crate) fn keep(&mut self) {
        self.drawn = 0;
        self.last.clear();
    }
}
