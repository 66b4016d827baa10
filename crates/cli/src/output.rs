//! Standard output: whole texts at once, coloured only where somebody looks.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use logwarden_notifiers::Style;

use crate::args::Color;

/// Writes to standard output.
pub(crate) fn write(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()
}

/// The columns of the window, if somebody looks.
pub(crate) fn columns() -> Option<usize> {
    io::stdout().is_terminal().then(|| console::Term::stdout().size().1.into())
}

/// How to draw on standard output.
pub(crate) fn style(color: Color) -> Style {
    let terminal = io::stdout().is_terminal();
    let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    Style {
        color: match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !set("NO_COLOR") && !dumb,
        },
        width: columns().unwrap_or(100),
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 line`, `2,000 lines`.
pub(crate) fn amount(number: u64, one: &str, more: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(amount(1, "line", "lines"), "1 line");
    }
}
