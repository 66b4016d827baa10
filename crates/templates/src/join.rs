//! Joins the lines of one event: stack traces, indented continuations, lines that a runtime split.
//!
//! A line with a header of its program's own starts an event. A line without one goes on with the event before it when it
//! is indented deeper than that event's first line, when it looks like a part of a stack trace, or when the line before
//! it announced more. Where a transport puts its header before every physical line (syslog, the journal), only parts of a
//! stack trace of the same process are joined.
//!
//! An event is bounded: what is too long keeps its head and its tail, and the lines between them are counted.

mod text;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use self::text::Text;
use crate::{
    Clock, OpenEvent, Record, Stream, Timestamp,
    header::{Body, Frame, Parsed},
    trace::{self, Place, Trace},
};

/// How far a multi-line event may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Bytes of text that are kept; what is longer loses its middle.
    pub bytes: usize,
    /// Lines that are kept.
    pub lines: u64,
    /// A line this much later than the one before it continues nothing.
    pub gap: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 64 * 1024, lines: 500, gap: Duration::from_secs(1) }
    }
}

/// A complete event.
#[derive(Debug)]
pub(crate) struct Event<'a> {
    /// The time of its first line, as it came in.
    pub time: Timestamp,
    /// Where that time comes from.
    pub clock: Clock,
    /// The tags of all its lines.
    pub tags: u64,
    /// Physical lines.
    pub lines: u64,
    /// Those of them in the middle, which are counted and not kept.
    pub middle: u64,
    /// The lines, joined by `\n`.
    pub text: Cow<'a, [u8]>,
    /// Of an event of one line: what `push` was given. Otherwise parse `text`.
    pub parsed: Option<Parsed<'a>>,
}

/// Joins the lines of one stream.
#[derive(Debug, Default)]
pub(crate) struct Joiner<'a> {
    open: Option<Open<'a>>,
}

#[derive(Debug)]
struct Open<'a> {
    time: Timestamp,
    clock: Clock,
    tags: u64,
    last: Timestamp,
    lines: u64,
    content: Content<'a>,
}

/// Most events have one line, which is not copied.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and must not be allocated")]
enum Content<'a> {
    One(&'a [u8], Parsed<'a>),
    Many(Box<Many>),
}

/// What is remembered of an event of several lines, or of one that an earlier fold left open.
#[derive(Debug)]
struct Many {
    text: Text,
    trace: Trace,
    process: Process,
}

/// Who writes an event, and in what frame.
#[derive(Clone, Debug, Default, PartialEq)]
struct Process {
    frame: Frame,
    program: Vec<u8>,
    pid: Vec<u8>,
}

impl<'a> Joiner<'a> {
    /// Goes on with an event that an earlier fold left open.
    pub(crate) fn resume(open: &OpenEvent) -> Self {
        let state = |key: &str| open.state.get(key).map(String::as_str).unwrap_or_default();
        let process = Process {
            frame: match state("frame") {
                "own" => Frame::Own,
                "carrier" => Frame::Carrier,
                "partial" => Frame::Partial,
                _ => Frame::Bare,
            },
            program: state("program").as_bytes().to_vec(),
            pid: state("pid").as_bytes().to_vec(),
        };
        let middle = state("middle").parse().unwrap_or(0).min(open.lines);
        let text = Text::restore(&open.text, state("head").parse().ok(), middle);
        let content = Content::Many(Box::new(Many { text, trace: Trace::restore(state("trace")), process }));
        let open =
            Open { time: open.time, clock: open.clock, tags: open.tags, last: open.last, lines: open.lines, content };
        Self { open: Some(open) }
    }

    /// Takes the next line, with what its header said. Returns the event before it when this line starts a new one;
    /// `None` means that the line belongs to the event that is open now.
    pub(crate) fn push(&mut self, record: Record<'a>, parsed: Parsed<'a>, bounds: &Bounds) -> Option<Event<'a>> {
        if self.open.as_mut().is_some_and(|open| open.takes(&record, &parsed, bounds)) {
            return None;
        }
        let done = self.close();
        self.open = Some(Open {
            time: record.time,
            clock: record.clock,
            tags: record.tags,
            last: record.time,
            lines: 1,
            content: Content::One(record.text, parsed),
        });
        done
    }

    /// When the open event's last line came in.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        self.open.as_ref().map(|open| open.last)
    }

    /// Ends the open event.
    pub(crate) fn close(&mut self) -> Option<Event<'a>> {
        let Open { time, clock, tags, lines, content, .. } = self.open.take()?;
        let (middle, text, parsed) = match content {
            Content::One(text, parsed) => (0, Cow::Borrowed(text), Some(parsed)),
            Content::Many(many) => (many.text.middle(), Cow::Owned(many.text.render().0), None),
        };
        Some(Event { time, clock, tags, lines, middle, text, parsed })
    }

    /// The open event, to be carried on.
    pub(crate) fn into_open(self, stream: &Arc<Stream>) -> Option<OpenEvent> {
        let Open { time, clock, tags, last, lines, content } = self.open?;
        let many = content.into_many();
        let middle = many.text.middle();
        let (text, head) = many.text.render();
        let frame = match many.process.frame {
            Frame::Bare => "bare",
            Frame::Own => "own",
            Frame::Carrier => "carrier",
            Frame::Partial => "partial",
        };
        let words = [
            ("frame", frame.to_owned()),
            ("program", String::from_utf8_lossy(&many.process.program).into_owned()),
            ("pid", String::from_utf8_lossy(&many.process.pid).into_owned()),
            ("middle", middle.to_string()),
            ("head", head.to_string()),
            ("trace", many.trace.save()),
        ];
        let state = BTreeMap::from(words.map(|(key, value)| (key.to_owned(), value)));
        Some(OpenEvent { stream: stream.clone(), time, clock, last, lines, text, tags, state })
    }
}

impl Open<'_> {
    /// Adds the line if it goes on with this event.
    fn takes(&mut self, record: &Record<'_>, parsed: &Parsed<'_>, bounds: &Bounds) -> bool {
        if record.clock == Clock::Record && record.time.since(self.last) > bounds.gap {
            return false;
        }
        let Some(line) = self.candidate(record, parsed) else { return false };
        if line.place == Place::Own && !line.certain && !trace::may_repeat_header(line.text) {
            return false;
        }
        let (taken, trace) = match &self.content {
            Content::One(first, of_first) => {
                let mut trace = trace_of(first, of_first);
                (trace.goes_on(line.text, line.place), Some(trace))
            }
            Content::Many(_) => (false, None),
        };
        let taken = match &mut self.content {
            Content::Many(many) => many.trace.goes_on(line.text, line.place),
            Content::One(..) => taken,
        };
        if !taken && !line.certain {
            return false;
        }
        if let Some(trace) = trace {
            let content = std::mem::replace(&mut self.content, Content::One(b"", Parsed::default()));
            let mut many = content.into_many();
            many.trace = trace;
            self.content = Content::Many(many);
        }
        if let Content::Many(many) = &mut self.content {
            many.text.add(record.text, bounds);
            if many.process.frame == Frame::Partial {
                many.process.frame = parsed.frame;
            }
        }
        self.lines += 1;
        self.last = record.time;
        self.tags |= record.tags;
        true
    }

    /// What of the line could go on with this event, judging by headers alone.
    fn candidate<'l>(&self, record: &Record<'l>, parsed: &'l Parsed<'_>) -> Option<Candidate<'l>> {
        let process = self.process();
        let raw = record.text.strip_suffix(b"\r").unwrap_or(record.text);
        let Body::Text(body) = &parsed.body else {
            return (process.0 == Frame::Partial && parsed.frame != Frame::Bare).then_some(Candidate {
                text: raw,
                place: Place::Own,
                certain: true,
            });
        };
        let same = || equal(process.1, parsed.program) && equal(process.2, parsed.pid);
        if process.0 == Frame::Partial && parsed.frame != Frame::Bare && same() {
            return Some(Candidate { text: body, place: Place::Own, certain: true });
        }
        let place = match parsed.frame {
            Frame::Bare => Place::Bare,
            Frame::Own if parsed.time.is_none() && parsed.level.is_some() => Place::Leveled,
            Frame::Own if process.0 == Frame::Own && same() => Place::Own,
            Frame::Own => return None,
            // Inside a container there is one process, whose lines are as good as bare.
            Frame::Carrier | Frame::Partial if parsed.program.is_none() && process.0 != Frame::Bare => Place::Bare,
            Frame::Carrier | Frame::Partial if same() => Place::Carried,
            Frame::Carrier | Frame::Partial => return None,
        };
        Some(Candidate { text: if parsed.frame == Frame::Bare { raw } else { body }, place, certain: false })
    }

    /// Frame, program and pid.
    fn process(&self) -> (Frame, &[u8], &[u8]) {
        match &self.content {
            Content::One(_, parsed) => {
                (parsed.frame, parsed.program.unwrap_or_default(), parsed.pid.unwrap_or_default())
            }
            Content::Many(many) => (many.process.frame, &many.process.program, &many.process.pid),
        }
    }
}

/// A line that may go on with an event.
struct Candidate<'l> {
    text: &'l [u8],
    place: Place,
    /// It certainly does.
    certain: bool,
}

impl Content<'_> {
    fn into_many(self) -> Box<Many> {
        match self {
            Self::Many(many) => many,
            Self::One(text, parsed) => Box::new(Many {
                trace: trace_of(text, &parsed),
                text: Text::new(text),
                process: Process {
                    frame: parsed.frame,
                    program: parsed.program.unwrap_or_default().to_vec(),
                    pid: parsed.pid.unwrap_or_default().to_vec(),
                },
            }),
        }
    }
}

/// Whether both name the same, or nobody. Comparing empty slices is slow on some processors: their address is none.
fn equal(one: &[u8], other: Option<&[u8]>) -> bool {
    let other = other.unwrap_or_default();
    one.len() == other.len() && (one.is_empty() || one == other)
}

/// What a first line lets expect.
fn trace_of(text: &[u8], parsed: &Parsed<'_>) -> Trace {
    let timed = parsed.time.is_some() && parsed.level.is_none();
    Trace::of_first(message(text, parsed), parsed.frame == Frame::Own, timed)
}

/// The message of a line, with its indentation if it has no header.
fn message<'l>(text: &'l [u8], parsed: &'l Parsed<'_>) -> &'l [u8] {
    match &parsed.body {
        Body::Text(body) if parsed.frame != Frame::Bare => body,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Level, header::HeaderState};

    const NOW: Timestamp = Timestamp::from_secs(1_795_233_600);

    /// The events of some lines: how many lines each has, and the text in its template.
    fn events(lines: &str) -> Vec<(u64, String)> {
        let stream = Arc::new(Stream::new(BTreeMap::new()));
        let record = |text: &'static [u8]| Record { stream: &stream, time: NOW, clock: Clock::Arrival, text, tags: 0 };
        let mut header = HeaderState::default();
        let lines: &'static str = lines.to_owned().leak();
        let mut joiner = Joiner::default();
        let mut done = Vec::new();
        for line in lines.lines() {
            let record = record(line.as_bytes());
            let parsed = header.parse(&record);
            // Carrying an event on changes nothing.
            let mut twin = joiner.into_open(&stream).map(|open| Joiner::resume(&open)).unwrap_or_default();
            done.extend(
                twin.push(record, parsed, &Bounds::default()).map(|event| (event.lines, event.text.into_owned())),
            );
            joiner = twin;
        }
        done.extend(joiner.close().map(|event| (event.lines, event.text.into_owned())));
        let total: u64 = done.iter().map(|(lines, _)| lines).sum();
        assert_eq!(total, lines.lines().count() as u64);
        done.into_iter()
            .map(|(count, text)| {
                let parsed = header.parse(&Record { text: &text, ..record(b"") });
                let body = match parsed.body {
                    Body::Text(body) => String::from_utf8_lossy(&body).into_owned(),
                    other => format!("{other:?}"),
                };
                (count, body)
            })
            .collect()
    }

    fn check(lines: &str, expected: &[(u64, &str)]) {
        let found = events(lines);
        let found: Vec<_> = found.iter().map(|(count, text)| (*count, text.as_str())).collect();
        assert_eq!(found, expected, "{lines}");
    }

    #[test]
    fn java_traces_join() {
        check(
            "2026-11-21 04:00:00,123 ERROR [main] com.example.shop.Cart - cannot pay
java.lang.IllegalStateException: no session
	at com.example.shop.Cart.pay(Cart.java:12)
	at java.base/java.lang.Thread.run(Thread.java:833)
Caused by: java.io.IOException: closed
	at com.example.shop.Bank.call(Bank.java:7)
	... 12 more
2026-11-21 04:00:01,000 INFO [main] com.example.shop.Cart - next",
            &[
                (
                    7,
                    "cannot pay | java.lang.IllegalStateException: no session | Caused by: java.io.IOException: closed | \
                     com.example.shop.Cart.pay | com.example.shop.Bank.call",
                ),
                (1, "next"),
            ],
        );
        check(
            "something else
Exception in thread \"main\" java.lang.NullPointerException
	at com.example.Main.main(Main.java:3)
ready",
            &[
                (1, "something else"),
                (2, "Exception in thread \"main\" java.lang.NullPointerException | com.example.Main.main"),
                (1, "ready"),
            ],
        );
    }

    #[test]
    fn the_kernels_call_traces_join() {
        let lines = [
            "BUG: kernel NULL pointer dereference, address: 0000000000000010",
            "#PF: supervisor read access in kernel mode",
            "PGD 0 P4D 0",
            "Oops: 0000 [#1] SMP PTI",
            "CPU: 0 PID: 17 Comm: nginx Not tainted 6.1.0-13-amd64 #1  Debian 6.1.55-1",
            "RIP: 0010:frob_thing+0x12/0x50 [frob]",
            "Code: 00 00 55 48 89 e5",
            "RAX: 0000000000000000 RBX: ffff888003a4c000 RCX: 0000000000000000",
            "Call Trace:",
            " <TASK>",
            " ? __die_body.cold+0x1a/0x1f",
            " frob_ioctl+0x5c/0xc0 [frob]",
            " entry_SYSCALL_64_after_hwframe+0x6e/0xd8",
            " </TASK>",
            "Modules linked in: frob(OE) ext4 crc16",
            "---[ end trace 0000000000000000 ]---",
        ];
        let summary = "BUG: kernel NULL pointer dereference, address: 0000000000000010 | frob_ioctl";
        for header in ["Nov 21 03:59:00 web-1 kernel: [   12.345678] ", "[   12.345678] ", "<4>[   12.345678] "] {
            let mut log: String = lines.iter().map(|line| format!("{header}{line}\n")).collect();
            log += &format!("{header}usb 1-1: new high-speed USB device number 2 using xhci_hcd");
            check(&log, &[(16, summary), (1, "usb 1-1: new high-speed USB device number 2 using xhci_hcd")]);
        }
        let oom = "Nov 21 03:59:00 web-1 kernel: [   12.345678] ";
        check(
            &format!(
                "{oom}nginx invoked oom-killer: gfp_mask=0x100cca, order=0\n{oom}Call Trace:\n{oom} dump_stack+0x41/0x60\n\
                 {oom} oom_kill_process.cold+0xb/0x10\n{oom}Mem-Info:\n{oom}Out of memory: Killed process 17 (nginx)"
            ),
            &[
                (1, "nginx invoked oom-killer: gfp_mask=0x100cca, order=0"),
                (3, "Call Trace: | oom_kill_process.cold"),
                (1, "Mem-Info:"),
                (1, "Out of memory: Killed process 17 (nginx)"),
            ],
        );
    }

    #[test]
    fn python_tracebacks_end_with_the_exception() {
        check(
            "2026-11-21 04:00:00,123 - shop - ERROR - cannot pay
Traceback (most recent call last):
  File \"/srv/shop/cart.py\", line 12, in pay
    call()
    ^^^^^^
  File \"/usr/lib/python3.12/http/client.py\", line 7, in request
    raise x
KeyError: 'session'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File \"/srv/shop/main.py\", line 3, in main
    pay()
shop.PayFailed: no
plain line",
            &[(15, "cannot pay | KeyError: 'session' | main | pay"), (1, "plain line")],
        );
        check(
            "listening\nTraceback (most recent call last):\n  File \"a.py\", line 1, in <module>\nZeroDivisionError: division by zero\nlistening",
            &[
                (1, "listening"),
                (3, "Traceback (most recent call last): | ZeroDivisionError: division by zero | <module>"),
                (1, "listening"),
            ],
        );
    }

    #[test]
    fn go_rust_and_javascript_traces_join() {
        check(
            "panic: runtime error: index out of range [5] with length 3

goroutine 1 [running]:
main.pick(...)
	/srv/app/main.go:8
main.main()
	/srv/app/main.go:12 +0x1d
exit status 2
started",
            &[
                (8, "panic: runtime error: index out of range [5] with length 3 | main.pick | main.main"),
                (1, "started"),
            ],
        );
        check(
            "thread 'main' panicked at src/main.rs:2:5:
index out of bounds: the len is 3 but the index is 5
stack backtrace:
   0: rust_begin_unwind
             at /rustc/abc/library/std/src/panicking.rs:645:5
   1: shop::cart::pick
             at ./src/cart.rs:2:5
note: Some details are omitted
started",
            &[
                (
                    8,
                    "thread 'main' panicked at src/main.rs:2:5: | index out of bounds: the len is 3 but the index is 5 | \
                     /rustc/abc/library/std/src/panicking.rs:645:5 | shop::cart::pick | ./src/cart.rs:2:5",
                ),
                (1, "started"),
            ],
        );
        check(
            "TypeError: Cannot read properties of undefined (reading 'id')
    at pay (/srv/shop/cart.js:12:9)
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5) {
  code: 'X'
}
Server listening on port 3000",
            &[
                (5, "TypeError: Cannot read properties of undefined (reading 'id') | pay"),
                (1, "Server listening on port 3000"),
            ],
        );
    }

    #[test]
    fn what_node_prints_before_the_error_belongs_to_it() {
        check(
            "/srv/shop/cart.js:3
    throw new TypeError('no session')
    ^

TypeError: no session
    at pay (/srv/shop/cart.js:3:11)

Node.js v22.1.0
started",
            &[(8, "/srv/shop/cart.js:3 | TypeError: no session | pay"), (1, "started")],
        );
    }

    #[test]
    fn dotnet_ruby_and_php_traces_join() {
        check(
            "Unhandled exception. System.InvalidOperationException: no session
 ---> System.Exception: inner
   at Shop.Cart.Pay(Order order) in /src/Cart.cs:line 12
   --- End of inner exception stack trace ---
   at System.Linq.Enumerable.First()
started",
            &[
                (
                    5,
                    "Unhandled exception. System.InvalidOperationException: no session | ---> System.Exception: inner | Shop.Cart.Pay",
                ),
                (1, "started"),
            ],
        );
        check(
            "cart.rb:12:in 'Cart#pay': no session (RuntimeError)\n\tfrom main.rb:3:in '<main>'\nstarted",
            &[(2, "cart.rb:12:in 'Cart#pay': no session (RuntimeError) | '<main>'"), (1, "started")],
        );
        check(
            "[21-Nov-2026 04:00:00 UTC] PHP Fatal error:  Uncaught Exception: no session in /srv/a.php:3
Stack trace:
#0 /srv/a.php(10): pay()
#1 {main}
  thrown in /srv/a.php on line 3
[21-Nov-2026 04:00:01 UTC] PHP Warning:  x",
            &[(5, "PHP Fatal error:  Uncaught Exception: no session in /srv/a.php:3 | pay"), (1, "PHP Warning:  x")],
        );
    }

    #[test]
    fn traces_join_behind_headers_that_repeat() {
        check(
            "Nov 21 04:00:00 web app[7]: cannot pay
Nov 21 04:00:00 web app[7]: Traceback (most recent call last):
Nov 21 04:00:00 web app[7]:   File \"/srv/cart.py\", line 12, in pay
Nov 21 04:00:00 web app[7]: KeyError: 'session'
Nov 21 04:00:00 web app[7]: ready
Nov 21 04:00:00 web app[8]:   indented by somebody else",
            &[(4, "cannot pay | KeyError: 'session' | pay"), (1, "ready"), (1, "  indented by somebody else")],
        );
        check(
            "Nov 21 04:00:00 web app[7]: java.io.IOException: closed
Nov 21 04:00:00 web app[7]: #011at com.example.Bank.call(Bank.java:7)
Nov 21 04:00:00 web app[7]: done",
            &[(2, "java.io.IOException: closed | com.example.Bank.call"), (1, "done")],
        );
        check(
            "2026-11-21T04:00:00.1Z stderr F java.io.IOException: closed
2026-11-21T04:00:00.1Z stderr F 	at com.example.Bank.call(Bank.java:7)
2026-11-21T04:00:00.2Z stdout F done",
            &[(2, "java.io.IOException: closed | com.example.Bank.call"), (1, "done")],
        );
    }

    #[test]
    fn split_lines_join() {
        check(
            "2026-11-21T04:00:00.1Z stdout P the first half and
2026-11-21T04:00:00.1Z stdout F the second
2026-11-21T04:00:00.1Z stdout F another",
            &[(2, "the first half and | the second"), (1, "another")],
        );
    }

    #[test]
    fn what_was_announced_joins() {
        check(
            "[2026-11-21 04:00:00,061] INFO [m:108] Full request text:
<?xml version='1.0'?>
<request>
  <head/>
</request>
[2026-11-21 04:00:00,092] DEBUG [m:69] next",
            &[(5, "Full request text: | <?xml version='1.0'?> | <request>"), (1, "next")],
        );
        check(
            "2026-11-21 04:00:00.1 UTC [7] app@db ERROR:  relation \"x\" does not exist
2026-11-21 04:00:00.1 UTC [7] app@db STATEMENT:  SELECT * FROM x
	WHERE y
2026-11-21 04:00:00.1 UTC [8] app@db LOG:  z",
            &[(3, "relation \"x\" does not exist | STATEMENT:  SELECT * FROM x | WHERE y"), (1, "z")],
        );
        check(
            "Nov 21, 2026 4:00:00 AM com.example.Main start\nWARNING: slow disk\nNov 21, 2026 4:00:01 AM com.example.Main stop\nINFO: bye",
            &[(2, "com.example.Main start | slow disk"), (2, "com.example.Main stop | bye")],
        );
        check(
            "{\n  \"msg\": \"hello\",\n  \"level\": \"warn\"\n}\nnext",
            &[
                (
                    4,
                    "Fields(Fields { message: [104, 101, 108, 108, 111], fields: [Field { key: [108, 101, 118, 101, 108], value: [119, 97, 114, 110], role: Constant }], cut: 0 })",
                ),
                (1, "next"),
            ],
        );
    }

    #[test]
    fn lines_that_belong_to_nobody_stand_alone() {
        check("one\ntwo\nthree", &[(1, "one"), (1, "two"), (1, "three")]);
        check("  one\n  two", &[(1, "  one"), (1, "  two")]);
        check("2026-11-21 04:00:00 INFO started\nerror: disk is full", &[(1, "started"), (1, "error: disk is full")]);
    }

    #[test]
    fn a_trace_has_a_level() {
        let stream = Arc::new(Stream::new(BTreeMap::new()));
        let text = b"app\nTraceback (most recent call last):\n  File \"a\", line 1, in b\nKeyError: 1";
        let record = Record { stream: &stream, time: NOW, clock: Clock::Arrival, text, tags: 0 };
        assert_eq!(HeaderState::default().parse(&record).level, Some(Level::Error));
    }

    #[test]
    fn a_line_that_comes_later_goes_on_with_nothing() {
        let stream = Arc::new(Stream::new(BTreeMap::new()));
        let mut joiner = Joiner::default();
        let mut push = |secs, text| {
            let time = Timestamp::from_secs(secs);
            let record = Record { stream: &stream, time, clock: Clock::Record, text, tags: 0 };
            joiner.push(record, HeaderState::default().parse(&record), &Bounds::default()).is_some()
        };
        assert!(!push(100, b"first".as_slice()));
        assert!(!push(101, b"  second"));
        assert!(push(110, b"  third"));
    }

    proptest! {
        #[test]
        fn every_line_is_in_one_event(
            picks in proptest::collection::vec((0_usize..LINES.len(), any::<bool>()), 1..80),
            bytes in 20_usize..2000,
            lines in 2_u64..20,
        ) {
            let stream = Arc::new(Stream::new(BTreeMap::new()));
            let bounds = Bounds { bytes, lines, ..Bounds::default() };
            let mut joiner = Joiner::default();
            let mut done = Vec::new();
            let mut input = Vec::new();
            for (pick, carry) in picks {
                let text = LINES[pick].as_bytes();
                input.push(text);
                let record = Record { stream: &stream, time: NOW, clock: Clock::Arrival, text, tags: 0 };
                if carry {
                    joiner = joiner.into_open(&stream).map(|open| Joiner::resume(&open)).unwrap_or_default();
                }
                done.extend(joiner.push(record, HeaderState::default().parse(&record), &bounds));
            }
            done.extend(joiner.close());
            prop_assert_eq!(done.iter().map(|event| event.lines).sum::<u64>(), input.len() as u64);
            let mut at = 0;
            for event in &done {
                let kept: Vec<_> = event.text.split(|b| *b == b'\n').collect();
                let marks = usize::from(event.middle > 0);
                prop_assert_eq!(kept.len() as u64, event.lines - event.middle + marks as u64);
                prop_assert!(event.lines == 1 || event.text.len() <= 2 * bytes + 100);
                // Where nothing was cut the text is the lines, as they came.
                let lines = &input[at..at + event.lines as usize];
                if event.middle == 0 && lines.iter().all(|line| line.len() < bytes / 2) {
                    prop_assert_eq!(&*event.text, lines.join(&b'\n'));
                }
                at += event.lines as usize;
            }
        }
    }

    const LINES: [&str; 16] = [
        "plain",
        "  indented",
        "",
        "2026-11-21 04:00:00 ERROR [main] a.B - cannot pay:",
        "java.lang.IllegalStateException: no",
        "\tat a.B.c(B.java:1)",
        "Traceback (most recent call last):",
        "  File \"a\", line 1, in b",
        "KeyError: 1",
        "Nov 21 04:00:00 web app[7]: x {",
        "Nov 21 04:00:00 web app[7]:   at a.B.c(B.java:1)",
        "2026-11-21T04:00:00.1Z stdout P half",
        "2026-11-21T04:00:00.1Z stdout F whole",
        "{",
        "}",
        "a long line that goes on and on, longer than some of the bounds that are tried here, to be cut",
    ];
}
