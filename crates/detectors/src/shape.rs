//! Where the values that a rule captures stand in lines that look alike.
//!
//! The lines of a row differ in numbers, names and addresses and hardly in anything else. When an expression has been
//! tried on one of them, what it captured can be read from the next without it, at a fraction of the cost.
//!
//! A shape knows nothing about the rule. Whoever uses one must see that it agrees with the expression before trusting it.

use std::{net::Ipv4Addr, ops::Range, sync::Arc};

/// Longest captured value of a shape.
const MAX_VALUE: usize = 64;
/// Most captures of a shape.
const MOST: usize = 8;
/// Longest line of a shape.
const MAX_LINE: usize = 1024;

/// What lines that look alike have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    parts: Vec<Part>,
    /// The names of the captures, in their order in the line.
    pub(crate) names: Vec<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// The same in every line. It has no digits.
    Text(Box<[u8]>),
    /// Digits, whichever.
    Number,
    /// A captured value, made of characters of this kind as far as they go.
    Value(Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Digits,
    V4,
    V6,
    Word,
}

impl Kind {
    fn of(value: &str) -> Option<Self> {
        [Self::Digits, Self::V4, Self::V6, Self::Word].into_iter().find(|kind| kind.fits(value.as_bytes()))
    }

    fn fits(self, value: &[u8]) -> bool {
        let text = || std::str::from_utf8(value).unwrap_or_default();
        let fine = match self {
            Self::Digits | Self::Word => true,
            Self::V4 => value.len() >= 7 && text().parse::<Ipv4Addr>().is_ok(),
            Self::V6 => value.iter().filter(|byte| **byte == b':').count() >= 2,
        };
        !value.is_empty() && value.len() <= MAX_VALUE && value.iter().all(|byte| self.has(*byte)) && fine
    }

    fn has(self, byte: u8) -> bool {
        match self {
            Self::Digits => byte.is_ascii_digit(),
            Self::V4 => byte.is_ascii_digit() || byte == b'.',
            Self::V6 => byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'),
            Self::Word => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'@' | b'$' | b'+'),
        }
    }
}

impl Shape {
    /// The shape of a line with captures at these places; `None` when they overlap or are no plain words, numbers or
    /// addresses that stand alone.
    pub(crate) fn of(line: &str, mut captures: Vec<(Arc<str>, Range<usize>)>) -> Option<Self> {
        if line.len() > MAX_LINE || captures.is_empty() || captures.len() > MOST {
            return None;
        }
        captures.sort_by_key(|(_, place)| place.start);
        let mut shape = Self { parts: Vec::new(), names: Vec::new() };
        let mut from = 0;
        for (name, place) in captures {
            let kind = Kind::of(line.get(place.clone())?)?;
            shape.constant(line.get(from..place.start)?.as_bytes());
            let joins = |byte: Option<&u8>| byte.is_some_and(|byte| kind.has(*byte));
            let before = place.start.checked_sub(1).and_then(|before| line.as_bytes().get(before));
            if joins(before) || joins(line.as_bytes().get(place.end)) {
                return None;
            }
            shape.parts.push(Part::Value(kind));
            shape.names.push(name);
            from = place.end;
        }
        shape.constant(line.get(from..)?.as_bytes());
        Some(shape)
    }

    /// Adds what is in every line, apart from its numbers.
    fn constant(&mut self, text: &[u8]) {
        for run in text.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit()) {
            self.parts.push(if run[0].is_ascii_digit() { Part::Number } else { Part::Text(run.into()) });
        }
    }

    /// The captured values of a line, as many as there are [`Shape::names`]; `None` when it has another shape.
    pub(crate) fn read<'l>(&self, line: &'l [u8]) -> Option<[&'l [u8]; MOST]> {
        let mut values: [&[u8]; MOST] = [b""; MOST];
        let mut free = values.iter_mut();
        let mut rest = line;
        for part in &self.parts {
            match part {
                Part::Text(text) => rest = rest.strip_prefix(&**text)?,
                Part::Number => {
                    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
                    rest = rest.get(end..).filter(|_| end > 0)?;
                }
                Part::Value(kind) => {
                    let end = rest.iter().position(|byte| !kind.has(*byte)).unwrap_or(rest.len());
                    let (value, after) = rest.split_at_checked(end).filter(|_| end > 0 && end <= MAX_VALUE)?;
                    *free.next()? = value;
                    rest = after;
                }
            }
        }
        rest.is_empty().then_some(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "sshd[812]: Failed password for root from 203.0.113.7 port 22 ssh2";

    fn shape(line: &str, captured: &[&str]) -> Option<Shape> {
        let place = |value: &str| line.rfind(value).map(|at| at..at + value.len());
        let captures = captured.iter().map(|value| ((*value).into(), place(value).unwrap()));
        Shape::of(line, captures.collect())
    }

    #[track_caller]
    fn check(shape: &Shape, line: &str, read: Option<&[&str]>) {
        let values = shape.read(line.as_bytes()).map(|values| values.map(|value| std::str::from_utf8(value).unwrap()));
        assert_eq!(values.as_ref().map(|values| &values[..shape.names.len()]), read, "{line}");
    }

    #[test]
    fn lines_that_look_alike_are_read_and_others_are_not() {
        let shape = shape(LINE, &["203.0.113.7", "root", "22"]).unwrap();
        assert_eq!(shape.names, ["root".into(), "203.0.113.7".into(), "22".into()]);
        check(&shape, LINE, Some(&["root", "203.0.113.7", "22"]));
        let other = "sshd[9]: Failed password for x.y-1 from 192.0.2.1 port 40022 ssh2";
        check(&shape, other, Some(&["x.y-1", "192.0.2.1", "40022"]));
        for line in [
            "",
            "sshd[9]: Failed password for",
            "sshd[9]: Failed password for root from 192.0.2.1 port 22 ssh2 ",
            "sshd[9]: Failed password for root from 192.0.2.1 port 22 ssh",
            "sshd[]: Failed password for root from 192.0.2.1 port 22 ssh2",
            "sshd[9]: Failed password for a b from 192.0.2.1 port 22 ssh2",
            "sshd[9]: Failed password for x from 6.6.6.6 from 192.0.2.1 port 22 ssh2",
            "sshd[9]: Failed password for root from 2001:db8::7 port 22 ssh2",
            "sshd[9]: Failed password for root from host.example port 22 ssh2",
            "sshd[9]: Accepted password for root from 192.0.2.1 port 22 ssh2",
        ] {
            check(&shape, line, None);
        }
    }

    #[test]
    fn values_that_do_not_stand_alone_have_no_shape() {
        for (captured, has) in [
            (&["203.0.113"][..], false),
            (&["203.0.113.7"], true),
            (&["oot"], false),
            (&["for root"], false),
            (&["root", "oot from"], false),
            (&[], false),
        ] {
            assert_eq!(shape(LINE, captured).is_some(), has, "{captured:?}");
        }
        let shape = shape("rhost=2001:db8::7 user=bob", &["2001:db8::7", "bob"]).unwrap();
        check(&shape, "rhost=::1 user=anna", Some(&["::1", "anna"]));
    }
}
