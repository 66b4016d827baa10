//! Which lines go on with an event: stack traces of many languages, indentation, brackets that are still open.

use std::borrow::Cow;

/// Where a line that may go on stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Alone, without any header.
    Bare,
    /// Behind a transport's header that repeats on every line.
    Carried,
    /// Behind a header of the program's own.
    Own,
    /// Behind a level and nothing else.
    Leveled,
}

/// What the lines of an event so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// No trace, as far as one can see.
    Plain,
    /// Frames follow that are told by their form: Java, .NET, JavaScript, PHP, Ruby, Dart, C.
    Frames,
    /// A Python traceback whose exception line is still to come.
    Python,
    /// A Python traceback that is complete; another one may be chained to it.
    PythonDone,
    /// Go's panic, or its list of goroutines.
    Go,
    /// Rust's panic.
    Rust,
    /// The kernel's: registers, modules, `Call Trace:`.
    Kernel,
    /// The first line announced more, or opened a bracket.
    Block,
    /// An entry of MySQL's log of slow queries.
    SlowQuery,
    /// PostgreSQL's message, which details may follow.
    Postgres,
    /// The first line of Java's own logging: class and method; level and message stand in the second.
    LevelDue,
}

/// An event's progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    kind: Kind,
    /// The indentation of the first line.
    indent: usize,
    /// Whether the first line has a header of its own.
    headed: bool,
    /// Brackets that are open, counted from a first line that ended with one.
    depth: u32,
    /// Lines so far, as far as they matter.
    lines: u8,
    /// The line before points at code: `    ^`.
    pointed: bool,
}

impl Trace {
    /// What the message of a first line lets expect; `headed` if it has a header of its own, `timed` if that has a time
    /// and no level.
    pub(crate) fn of_first(line: &[u8], headed: bool, timed: bool) -> Self {
        let text = line.trim_ascii_start();
        let end = line.trim_ascii_end();
        let kind = if text.starts_with(b"Traceback (most recent call last)") {
            Kind::Python
        } else if starts_go(text) {
            Kind::Go
        } else if text.starts_with(b"thread '") && contains(text, b"panicked at") {
            Kind::Rust
        } else if starts_kernel(text) {
            Kind::Kernel
        } else if text.starts_with(b"# Time: ") || text.starts_with(b"# User@Host: ") {
            Kind::SlowQuery
        } else if is_exception(text)
            || text.starts_with(b"Exception in thread ")
            || text.starts_with(b"Unhandled exception")
        {
            Kind::Frames
        } else if headed && matches!(end.last(), Some(b':')) || matches!(end.last(), Some(b'{' | b'[' | b'(')) {
            Kind::Block
        } else if timed && is_class_and_method(text) {
            Kind::LevelDue
        } else {
            Kind::Plain
        };
        let depth = if kind == Kind::Block { depth(0, end) } else { 0 };
        Self { kind, indent: indent(line), headed, depth, lines: 1, pointed: false }
    }

    /// Whether `line` goes on with the event; if so it is taken into account.
    pub(crate) fn goes_on(&mut self, line: &[u8], place: Place) -> bool {
        let text = unescape_tabs(line);
        let indent = indent(&text);
        let text = text.trim_ascii();
        let Some(kind) = self.next(text, indent, place) else { return false };
        self.kind = kind;
        if !text.is_empty() {
            self.pointed = text.contains(&b'^') && text.iter().all(|b| matches!(b, b'^' | b'~' | b' '));
        }
        if self.depth > 0 {
            self.depth = depth(self.depth, text);
        }
        self.lines = self.lines.saturating_add(1);
        true
    }

    /// What the event is once `text` belongs to it; `None` if it does not.
    fn next(&self, text: &[u8], indent: usize, place: Place) -> Option<Kind> {
        match place {
            Place::Own => return self.next_with_header(text),
            Place::Leveled => return (self.kind == Kind::LevelDue).then_some(Kind::Plain),
            Place::Bare | Place::Carried => {}
        }
        let bare = place == Place::Bare;
        if text.is_empty() {
            return (bare || self.in_trace()).then_some(self.kind);
        }
        if text.starts_with(b"Traceback (most recent call last)") {
            let follows =
                self.headed || place == Place::Carried || self.kind == Kind::PythonDone || indent > self.indent;
            return follows.then_some(Kind::Python);
        }
        match self.kind {
            // The exception itself comes last, at the beginning of its line.
            Kind::Python if indent == 0 || is_exception(text) => return Some(Kind::PythonDone),
            Kind::Python => return Some(Kind::Python),
            Kind::PythonDone
                if text.starts_with(b"During handling of the above exception")
                    || text.starts_with(b"The above exception was the direct cause") =>
            {
                return Some(Kind::PythonDone);
            }
            Kind::Go if indent > 0 || goes_on_go(text) => return Some(Kind::Go),
            // The message stands in the second line.
            Kind::Rust if self.lines == 1 || indent > 0 => return Some(Kind::Rust),
            Kind::Rust if text.starts_with(b"note: ") || text.starts_with(b"stack backtrace:") => {
                return Some(Kind::Rust);
            }
            Kind::Kernel if goes_on_kernel(text) => return Some(Kind::Kernel),
            Kind::SlowQuery if bare => {
                let next = text.starts_with(b"# Time: ") || text.starts_with(b"# User@Host: ") && self.lines > 1;
                return (!next).then_some(Kind::SlowQuery);
            }
            _ => {}
        }
        if let Some(kind) = part_of_trace(text, indent > 0 || self.in_trace()) {
            let fits = kind != Kind::Go || self.headed || self.in_trace();
            return fits.then_some(if self.kind == Kind::Rust { Kind::Rust } else { kind });
        }
        if !bare {
            return (self.in_trace() && indent > 0).then_some(self.kind);
        }
        let closes = text.iter().all(|b| matches!(b, b'}' | b']' | b')' | b',' | b';'));
        if self.pointed && is_exception(text) {
            return Some(Kind::Frames);
        }
        if indent > self.indent || self.pointed || self.in_trace() && closes {
            return Some(self.kind);
        }
        if self.headed && self.lines == 1 && is_exception(text) && contains(text, b".") {
            return Some(Kind::Frames);
        }
        if self.kind == Kind::Block {
            let goes_on = self.depth > 0 || self.headed && !starts_something(text);
            return goes_on.then_some(Kind::Block);
        }
        None
    }

    /// Programs that repeat their header before every line of what belongs together.
    fn next_with_header(&self, text: &[u8]) -> Option<Kind> {
        const DETAILS: [&[u8]; 6] =
            [b"DETAIL:  ", b"HINT:  ", b"STATEMENT:  ", b"CONTEXT:  ", b"QUERY:  ", b"LOCATION:  "];
        if DETAILS.iter().any(|detail| text.starts_with(detail)) {
            return Some(Kind::Postgres);
        }
        if let Some(rest) = text.strip_prefix(b"PHP ") {
            let numbered = rest.starts_with(b"  ") && rest.trim_ascii_start().first().is_some_and(u8::is_ascii_digit);
            return (numbered || rest.starts_with(b"Stack trace:")).then_some(Kind::Frames);
        }
        None
    }

    fn in_trace(&self) -> bool {
        !matches!(self.kind, Kind::Plain | Kind::Block | Kind::SlowQuery | Kind::Postgres | Kind::LevelDue)
    }

    /// A word for each part, to be stored.
    pub(crate) fn save(&self) -> String {
        let kind = match self.kind {
            Kind::Plain => "plain",
            Kind::Frames => "frames",
            Kind::Python => "python",
            Kind::PythonDone => "python-done",
            Kind::Go => "go",
            Kind::Rust => "rust",
            Kind::Kernel => "kernel",
            Kind::Block => "block",
            Kind::SlowQuery => "slow-query",
            Kind::Postgres => "postgres",
            Kind::LevelDue => "level-due",
        };
        let Self { indent, headed, depth, lines, pointed, .. } = self;
        format!("{kind} {indent} {} {depth} {lines} {}", u8::from(*headed), u8::from(*pointed))
    }

    /// What [`save`](Self::save) wrote; a plain event if it did not.
    pub(crate) fn restore(text: &str) -> Self {
        let mut words = text.split(' ');
        let kind = match words.next() {
            Some("frames") => Kind::Frames,
            Some("python") => Kind::Python,
            Some("python-done") => Kind::PythonDone,
            Some("go") => Kind::Go,
            Some("rust") => Kind::Rust,
            Some("kernel") => Kind::Kernel,
            Some("block") => Kind::Block,
            Some("slow-query") => Kind::SlowQuery,
            Some("postgres") => Kind::Postgres,
            Some("level-due") => Kind::LevelDue,
            _ => Kind::Plain,
        };
        let mut number = || words.next().and_then(|word| word.parse::<u32>().ok()).unwrap_or(0);
        let (indent, headed, depth, lines, pointed) = (number(), number(), number(), number(), number());
        Self {
            kind,
            indent: indent as usize,
            headed: headed > 0,
            depth,
            lines: u8::try_from(lines).unwrap_or(u8::MAX),
            pointed: pointed > 0,
        }
    }
}

/// Whether a line with a header of its own could go on with another one at all: a quick answer for almost all lines.
pub(crate) fn may_repeat_header(text: &[u8]) -> bool {
    matches!(text.first(), Some(b'D' | b'H' | b'S' | b'C' | b'Q' | b'L' | b'P'))
        && contains(&text[..text.len().min(12)], b"  ")
        || text.starts_with(b"PHP ")
}

/// The kind of trace that a line of this form belongs to. `likely` is whether one may expect some.
fn part_of_trace(text: &[u8], likely: bool) -> Option<Kind> {
    let kind = match text.first()? {
        b'a' => likely && text.starts_with(b"at ") && text[3..].iter().any(|b| matches!(b, b'(' | b'.' | b':' | b'/')),
        b'.' => text.starts_with(b"... ") && (text.ends_with(b" more") || contains(text, b"common frames omitted")),
        b'C' => text.starts_with(b"Caused by: ") || text.starts_with(b"Causing: "),
        b'S' => text.starts_with(b"Suppressed: ") || text.starts_with(b"Stack trace:"),
        b'W' => text.starts_with(b"Wrapped by: "),
        b'N' => likely && text.starts_with(b"Node.js v"),
        b'-' => text.starts_with(b"---> ") || text.starts_with(b"--- End of "),
        b'[' => text.starts_with(b"[stacktrace]") || text.starts_with(b"[previous exception]"),
        b'#' => {
            let digits = text[1..].iter().take_while(|b| b.is_ascii_digit()).count();
            (1..=3).contains(&digits) && text.get(1 + digits) == Some(&b' ')
        }
        b'f' if text.starts_with(b"from ") => contains(text, b":in "),
        b't' if text.starts_with(b"thrown in ") => likely,
        b'F' if text.starts_with(b"File \"") => {
            return (likely && contains(text, b", line ")).then_some(Kind::Python);
        }
        b'g' if text.starts_with(b"goroutine ") => return contains(text, b" [").then_some(Kind::Go),
        _ => likely && contains(text, b".rb:") && contains(text, b":in "),
    };
    kind.then_some(Kind::Frames)
}

fn starts_go(text: &[u8]) -> bool {
    const STARTS: [&[u8]; 6] =
        [b"panic: ", b"fatal error: ", b"SIGQUIT: ", b"SIGSEGV: ", b"SIGABRT: ", b"unexpected fault address "];
    STARTS.iter().any(|start| text.starts_with(start)) || text.starts_with(b"goroutine ") && contains(text, b" [")
}

/// Lines of Go's panics that are not indented: calls, signals, states.
fn goes_on_go(text: &[u8]) -> bool {
    const PARTS: [&[u8]; 8] = [
        b"goroutine ",
        b"created by ",
        b"exit status ",
        b"[signal ",
        b"panic: ",
        b"runtime stack:",
        b"PC=",
        b"runtime: ",
    ];
    PARTS.iter().any(|part| text.starts_with(part))
        || text.ends_with(b")") && text.contains(&b'(') && !text[..text.len().min(12)].contains(&b' ')
        || register(text)
}

fn starts_kernel(text: &[u8]) -> bool {
    const STARTS: [&[u8]; 10] = [
        b"BUG: ",
        b"Call Trace:",
        b"Call trace:",
        b"Internal error: Oops",
        b"Kernel panic - not syncing",
        b"Oops: ",
        b"WARNING: CPU: ",
        b"------------[ cut here ]",
        b"general protection fault",
        b"kernel BUG at ",
    ];
    let stuck = text.starts_with(b"INFO: task ") && contains(text, b" blocked for more than ");
    stuck || STARTS.iter().any(|start| text.starts_with(start))
}

/// What the kernel tells about itself when something went wrong: only forms that stand nowhere else.
fn goes_on_kernel(text: &[u8]) -> bool {
    #[rustfmt::skip]
    const PARTS: [&[u8]; 44] = [
        b"#PF: ", b"? ", b"</IRQ>", b"</NMI>", b"</TASK>", b"<IRQ>", b"<NMI>", b"<TASK>", b"<EOI>", b"---[ end ",
        b"------------[ cut here ]", b"BUG: ", b"CPU: ", b"CR2: ", b"CS: ", b"Call Trace:", b"Call trace:", b"Code: ",
        b"DR0: ", b"DR3: ", b"EIP: ", b"FS: ", b"Hardware name: ", b"Kernel Offset: ", b"Modules linked in:",
        b"Not tainted ", b"Oops: ", b"PGD ", b"PKRU: ", b"R10: ", b"R13: ", b"RAX: ", b"RBP: ", b"RDX: ", b"RIP: ",
        b"RSP: ", b"Tainted: ", b"WARNING: CPU: ", b"Workqueue: ", b"\"echo 0 > /proc/sys/kernel/", b"lr : ", b"pc : ",
        b"sp : ", b"task:",
    ];
    PARTS.iter().any(|part| text.starts_with(part)) || kernel_frame(text).is_some()
}

/// The function in `[<ffff>] ? name+0x12/0x50 [module]`.
fn kernel_frame(text: &[u8]) -> Option<&[u8]> {
    let plus = memchr::memmem::find(text, b"+0x")?;
    let from = text[..plus].iter().rposition(|b| *b == b' ').map_or(0, |at| at + 1);
    let size = text[plus + 3..].iter().position(|b| !b.is_ascii_hexdigit())?;
    (plus > from && text[plus + 3 + size..].starts_with(b"/0x")).then(|| &text[from..plus])
}

/// `rax    0x0`, as Go lists the registers.
fn register(text: &[u8]) -> bool {
    let name = text.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
    (2..=6).contains(&name) && text[name..].trim_ascii_start().starts_with(b"0x") && text[name..].starts_with(b" ")
}

/// Whether a line begins with the name of an exception: `java.io.IOException: …`, `ValueError: …`, `TypeError`.
fn is_exception(text: &[u8]) -> bool {
    let end =
        text.iter().position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'$'))).unwrap_or(text.len());
    const ENDINGS: [&[u8]; 6] = [b"Exception", b"Error", b"Throwable", b"Exit", b"Interrupt", b"Fault"];
    let named = end > 5 && ENDINGS.iter().any(|ending| text[..end].ends_with(ending));
    named && matches!(text.get(end), None | Some(b':' | b' '))
}

/// Whether a line without a header is news of its own and not more of what was announced.
fn starts_something(text: &[u8]) -> bool {
    is_exception(text) || starts_go(text) || text.starts_with(b"thread '") || {
        let letters = text.iter().take_while(|b| b.is_ascii_alphabetic()).count();
        letters <= 9 && matches!(text.get(letters), Some(b':')) && crate::level::word(&text[..letters]).is_some()
    }
}

/// `com.example.Main start`.
fn is_class_and_method(text: &[u8]) -> bool {
    let mut words = text.split(|b| *b == b' ');
    words.next().is_some_and(|class| class.contains(&b'.')) && words.count() == 1
}

fn indent(line: &[u8]) -> usize {
    line.iter().take_while(|b| matches!(b, b' ' | b'\t')).count()
}

/// rsyslog writes a tab as `#011`.
fn unescape_tabs(line: &[u8]) -> Cow<'_, [u8]> {
    match line.strip_prefix(b"#011") {
        None => Cow::Borrowed(line),
        Some(rest) => Cow::Owned([b"\t", rest].concat()),
    }
}

/// How many brackets are open behind `text`; those in quotes count as well, since half a quote is common.
fn depth(before: u32, text: &[u8]) -> u32 {
    text.iter().fold(before, |depth, byte| match byte {
        b'{' | b'[' | b'(' => depth.saturating_add(1),
        b'}' | b']' | b')' => depth.saturating_sub(1),
        _ => depth,
    })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(&text[..text.len().min(400)], part).is_some()
}

/// Most frames, causes and other lines that stand for an event in its template.
const MAX_FRAMES: usize = 3;
const MAX_CAUSES: usize = 3;
const MAX_LINES: usize = 2;
/// Most lines that are looked at for them.
const MAX_LOOK: usize = 600;

/// Whether these lines are a stack trace.
pub(crate) fn is_trace(first: &[u8], rest: &[u8]) -> bool {
    let first = Trace::of_first(first, false, false);
    first.in_trace() || rest.split(|b| *b == b'\n').take(8).any(|line| part_of_trace(line.trim_ascii(), true).is_some())
}

/// The text that stands for a joined event in its template: the first line, the exceptions, and the upper frames of the
/// program's own code; of what is no trace the first few lines.
pub(crate) fn summary(first: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut out = first.trim_ascii_end().to_vec();
    let add = |out: &mut Vec<u8>, part: &[u8]| {
        if !part.is_empty() {
            out.extend_from_slice(b" | ");
            out.extend_from_slice(&part[..part.len().min(300)]);
        }
    };
    let plain = |line: &'_ [u8]| line.strip_prefix(b"#011").unwrap_or(line).len();
    let lines = || rest.split(|b| *b == b'\n').take(MAX_LOOK).map(|line| line[line.len() - plain(line)..].trim_ascii());
    if !is_trace(first, rest) {
        for line in lines().filter(|line| !line.is_empty()).take(MAX_LINES) {
            add(&mut out, line);
        }
        return out;
    }
    let cause = |line: &[u8]| {
        is_exception(line)
            || line.starts_with(b"Caused by: ")
            || line.starts_with(b"---> ")
            || line.starts_with(b"panic: ")
    };
    let python = lines().chain([first]).any(|line| line.starts_with(b"Traceback (most recent"));
    let rust = contains(first, b"panicked at");
    let message = if rust { lines().next() } else { None };
    let mut causes: Vec<&[u8]> = lines().filter(|line| cause(line)).collect();
    causes.truncate(MAX_CAUSES);
    if python && causes.is_empty() {
        // An exception with a name of its own.
        causes.extend(lines().filter(|line| !line.is_empty()).last());
    }
    let mut frames: Vec<&[u8]> = lines().filter_map(frame).filter(|frame| !is_library(frame)).collect();
    if frames.is_empty() {
        frames.extend(lines().find_map(frame));
    }
    if python {
        // The innermost call comes last.
        frames.reverse();
    }
    frames.truncate(MAX_FRAMES);
    for part in message.into_iter().chain(causes).chain(frames) {
        add(&mut out, part);
    }
    out
}

/// The function in a line of a trace, without its place in the file.
fn frame(line: &[u8]) -> Option<&[u8]> {
    let until = |text: &'_ [u8], stop: u8| text.iter().position(|b| *b == stop).unwrap_or(text.len());
    if let Some(call) = line.strip_prefix(b"at ") {
        return Some(call[..until(call, b'(')].trim_ascii());
    }
    if line.starts_with(b"File \"") {
        let library = contains(line, b"site-packages") || contains(line, b"/lib/python");
        let at = memchr::memmem::find(line, b", in ")? + 5;
        return (!library).then(|| &line[at..]);
    }
    if line.starts_with(b"#") && line.get(1).is_some_and(u8::is_ascii_digit) {
        let call = memchr::memmem::find(line, b": ").map(|at| &line[at + 2..])?;
        return Some(&call[..until(call, b'(')]);
    }
    if let Some(at) = memchr::memmem::find(line, b":in ") {
        return Some(&line[at + 4..]);
    }
    // Rust: `12: name::of::function`.
    let digits = line.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits > 0 && line[digits..].starts_with(b": ") {
        return Some(&line[digits + 2..]);
    }
    if let Some(function) = kernel_frame(line) {
        // With a question mark: perhaps it was called.
        return (!line.starts_with(b"? ") && !line.starts_with(b"RIP: ")).then_some(function);
    }
    // Go: `main.run(0xc000, 0x1)`.
    let call = &line[..until(line, b'(')];
    let named = line.ends_with(b")") && call.contains(&b'.') && !call.contains(&b' ') && call.len() < line.len();
    named.then_some(call)
}

/// Whether a function belongs to a language's runtime or a common framework rather than to the program.
fn is_library(function: &[u8]) -> bool {
    const PREFIXES: [&[u8]; 36] = [
        b"java.",
        b"javax.",
        b"jakarta.",
        b"sun.",
        b"jdk.",
        b"com.sun.",
        b"java.base/",
        b"kotlin.",
        b"kotlinx.",
        b"scala.",
        b"akka.",
        b"org.springframework.",
        b"org.apache.",
        b"org.hibernate.",
        b"org.eclipse.",
        b"io.netty.",
        b"reactor.",
        b"System.",
        b"Microsoft.",
        b"node:",
        b"Module.",
        b"Object.Module",
        b"process.",
        b"runtime.",
        b"runtime/",
        b"net/http.",
        b"std::",
        b"core::",
        b"alloc::",
        b"tokio::",
        b"rust_begin_unwind",
        b"__",
        b"<anonymous>",
        b"dump_stack",
        b"show_stack",
        b"entry_SYSCALL_",
    ];
    PREFIXES.iter().any(|prefix| function.starts_with(prefix)) || contains(function, b"node:internal")
}
