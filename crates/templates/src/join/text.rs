//! The text of an event, bounded.

use std::collections::VecDeque;

use super::Bounds;

/// What is kept of an event's lines: the first ones, the last ones, and how many were between.
#[derive(Debug, Default)]
pub(super) struct Text {
    head: Vec<u8>,
    head_lines: u64,
    tail: VecDeque<Box<[u8]>>,
    tail_bytes: usize,
    middle: u64,
}

impl Text {
    pub(super) fn new(first: &[u8]) -> Self {
        Self { head: first.to_vec(), head_lines: 1, ..Self::default() }
    }

    /// Adds a line.
    pub(super) fn add(&mut self, line: &[u8], bounds: &Bounds) {
        let (bytes, lines) = (bounds.bytes / 2, (bounds.lines / 2).max(1));
        if self.head.len() > bytes {
            self.head = shorten(&self.head, bytes);
        }
        if self.tail.is_empty() && self.head_lines < lines && self.head.len() + line.len() < bytes {
            self.head.push(b'\n');
            self.head.extend_from_slice(line);
            self.head_lines += 1;
            return;
        }
        let line = if line.len() > bytes { shorten(line, bytes) } else { line.to_vec() };
        self.tail_bytes += line.len() + 1;
        self.tail.push_back(line.into_boxed_slice());
        while self.tail_bytes > bytes + 1 || self.tail.len() as u64 > lines {
            let Some(first) = self.tail.pop_front() else { break };
            self.tail_bytes -= first.len() + 1;
            self.middle += 1;
        }
    }

    /// Lines that are counted and not kept.
    pub(super) fn middle(&self) -> u64 {
        self.middle
    }

    /// The text, and how long its head is. A line in brackets stands for the middle.
    pub(super) fn render(self) -> (Vec<u8>, usize) {
        let head = self.head.len();
        let mut text = self.head;
        if self.middle > 0 {
            text.extend_from_slice(format!("\n[… {} lines …]", self.middle).as_bytes());
        }
        for line in self.tail {
            text.push(b'\n');
            text.extend_from_slice(&line);
        }
        (text, head)
    }

    /// What [`render`](Self::render) made a text of.
    pub(super) fn restore(text: &[u8], head: Option<usize>, middle: u64) -> Self {
        let head = head.filter(|head| *head <= text.len()).unwrap_or(text.len());
        let lines = |text: &[u8]| memchr::memchr_iter(b'\n', text).count() as u64;
        let rest = text[head..].strip_prefix(b"\n");
        let tail: VecDeque<Box<[u8]>> = rest.map_or_else(VecDeque::new, |rest| {
            rest.split(|b| *b == b'\n').skip(usize::from(middle > 0)).map(Box::from).collect()
        });
        Self {
            head_lines: lines(&text[..head]) + 1,
            head: text[..head].to_vec(),
            tail_bytes: tail.iter().map(|line| line.len() + 1).sum(),
            tail,
            middle,
        }
    }
}

/// The beginning of a line that is too long, with a mark.
fn shorten(line: &[u8], bytes: usize) -> Vec<u8> {
    const MARK: &[u8] = " […]".as_bytes();
    if line.ends_with(MARK) && line.len() <= bytes + MARK.len() {
        return line.to_vec();
    }
    [&line[..bytes.min(line.len())], MARK].concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn head_and_tail_stay_and_the_middle_is_counted() {
        let bounds = Bounds { bytes: 1000, lines: 6, gap: Duration::ZERO };
        let mut text = Text::new(b"1");
        for line in 2..=10 {
            text.add(line.to_string().as_bytes(), &bounds);
        }
        assert_eq!(text.middle(), 4);
        let (rendered, head) = text.render();
        assert_eq!(String::from_utf8_lossy(&rendered), "1\n2\n3\n[… 4 lines …]\n8\n9\n10");
        let mut again = Text::restore(&rendered, Some(head), 4);
        again.add(b"11", &bounds);
        assert_eq!(String::from_utf8_lossy(&again.render().0), "1\n2\n3\n[… 5 lines …]\n9\n10\n11");
    }

    #[test]
    fn long_lines_are_shortened_and_say_so() {
        let bounds = Bounds { bytes: 20, lines: 6, gap: Duration::ZERO };
        let mut text = Text::new(&[b'a'; 100]);
        text.add(&[b'b'; 100], &bounds);
        text.add(&[b'c'; 5], &bounds);
        let (rendered, _) = text.render();
        assert!(rendered.len() < 80, "{}", String::from_utf8_lossy(&rendered));
        assert!(rendered.starts_with("aaaaaaaaaa […]".as_bytes()));
    }
}
