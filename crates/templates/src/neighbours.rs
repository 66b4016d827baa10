//! The lines around a line, in its stream.

use std::sync::Arc;

use crate::Line;

/// The lines of `lines[index]`'s stream around it: at most `before` earlier and `after` later ones, in order, without
/// the line itself. Nothing when there is no such line.
pub fn neighbours(lines: &[Line], index: usize, before: usize, after: usize) -> (Vec<&Line>, Vec<&Line>) {
    let Some(line) = lines.get(index) else { return (Vec::new(), Vec::new()) };
    let same =
        |other: &&Line| Arc::ptr_eq(&other.stream, &line.stream) || other.stream.labels() == line.stream.labels();
    let mut earlier: Vec<_> = lines[..index].iter().rev().filter(same).take(before).collect();
    earlier.reverse();
    (earlier, lines[index + 1..].iter().filter(same).take(after).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clock, LineId, Stream, Timestamp};

    #[test]
    fn only_lines_of_the_same_stream_are_neighbours() {
        let stream = |name: &str| Arc::new(Stream::new([("job".to_owned(), name.to_owned())].into()));
        let (a, b) = (stream("a"), stream("b"));
        let line = |stream: &Arc<Stream>, n: u8| Line {
            id: LineId::of(&[&[n]]),
            time: Timestamp::from_secs(i64::from(n)),
            clock: Clock::Record,
            stream: stream.clone(),
            text: vec![b'0' + n],
            tags: 0,
        };
        let lines =
            [line(&a, 0), line(&b, 1), line(&a, 2), line(&stream("a"), 3), line(&b, 4), line(&a, 5), line(&a, 6)];
        let (before, after) = neighbours(&lines, 3, 5, 1);
        let times = |lines: Vec<&Line>| lines.iter().map(|line| line.time.secs()).collect::<Vec<_>>();
        assert_eq!((times(before), times(after)), (vec![0, 2], vec![5]));
        assert_eq!(neighbours(&lines, 7, 5, 5), (vec![], vec![]));
    }
}
