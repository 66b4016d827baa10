//! Notices answers that lead nowhere while they are still being written, so that the connection can be closed.
//!
//! A grammar allows blanks between any two tokens and any text inside a string; a small model can stay there for ever.

/// Blanks in a row that no grammar needs: two newlines and twenty blanks are the most it asks for.
const BLANKS: usize = 120;
/// So much text that repeats itself is a loop.
const TAIL: usize = 320;
/// The longest phrase that is looked for.
const LONGEST_PERIOD: usize = 80;
/// The tail is looked at every so many bytes.
const STEP: usize = 32;

/// Why an answer was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Runaway {
    #[error("it wrote blanks without end")]
    Blanks,
    #[error("it repeated itself without end")]
    Loop,
    #[error("it wrote more than {0} bytes")]
    TooLong(usize),
}

/// Collects an answer and watches it grow.
#[derive(Debug)]
pub(crate) struct Guard {
    text: String,
    most: usize,
    blanks: usize,
    unchecked: usize,
}

impl Guard {
    pub(crate) fn new(most: usize) -> Self {
        Self { text: String::new(), most, blanks: 0, unchecked: 0 }
    }

    pub(crate) fn push(&mut self, delta: &str) -> Result<(), Runaway> {
        if self.text.len() + delta.len() > self.most {
            return Err(Runaway::TooLong(self.most));
        }
        self.text.push_str(delta);
        for c in delta.chars() {
            self.blanks = if c.is_whitespace() { self.blanks + 1 } else { 0 };
            if self.blanks > BLANKS {
                return Err(Runaway::Blanks);
            }
        }
        self.unchecked += delta.len();
        if self.unchecked >= STEP {
            self.unchecked = 0;
            let bytes = self.text.as_bytes();
            if bytes.len().checked_sub(TAIL).is_some_and(|start| period(&bytes[start..]) <= LONGEST_PERIOD) {
                return Err(Runaway::Loop);
            }
        }
        Ok(())
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// The smallest period of a text, by the failure function of Knuth, Morris and Pratt.
fn period(text: &[u8]) -> usize {
    let mut failure = vec![0; text.len()];
    let mut matched = 0;
    for at in 1..text.len() {
        while matched > 0 && text[at] != text[matched] {
            matched = failure[matched - 1];
        }
        if text[at] == text[matched] {
            matched += 1;
        }
        failure[at] = matched;
    }
    text.len() - matched
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(text: &str) -> Result<(), Runaway> {
        let mut guard = Guard::new(64 * 1024);
        text.chars().try_for_each(|c| guard.push(c.encode_utf8(&mut [0; 4])))
    }

    #[test]
    fn runs_of_blanks_and_loops_are_noticed_and_ordinary_answers_are_not() {
        assert_eq!(feed(&format!("{{\"a\":{}", " ".repeat(200))), Err(Runaway::Blanks));
        assert_eq!(feed(&"0".repeat(500)), Err(Runaway::Loop));
        assert_eq!(feed(&"the disk is full and ".repeat(40)), Err(Runaway::Loop));
        let item = |n: usize| format!("{{\"cites\":[{n}],\"title\":\"thing number {n} of {}\"}},\n\n    \t", n * 7919);
        assert_eq!(feed(&(0..60).map(item).collect::<String>()), Ok(()));
    }

    #[test]
    fn the_length_is_bounded() {
        assert_eq!(Guard::new(10).push("01234567890"), Err(Runaway::TooLong(10)));
    }
}
