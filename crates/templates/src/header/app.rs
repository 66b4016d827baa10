//! Headers that programs write themselves: log4j, logback, Python, glog, klog, Go, nginx, Apache, PostgreSQL, MySQL,
//! Redis, logcat, Windows and all that look like them.
//!
//! There is one grammar for all: a time, columns up to a level, and behind the level thread and logger. Columns that no
//! level follows are part of the message, unless their separators say otherwise.

use super::{Parsed, syslog};
use crate::{
    Level,
    clock::{self, Moment},
    level,
    steps::{closing, digits_end, is_address, is_number, skip_blanks, word_end},
};

/// What PostgreSQL puts in place of a level.
const DETAILS: [&[u8]; 6] = [b"DETAIL:", b"HINT:", b"STATEMENT:", b"CONTEXT:", b"QUERY:", b"LOCATION:"];

/// The longest bracket in a header.
const MAX_BRACKET: usize = 200;

/// A header that does not begin with its time, or has none.
#[derive(Debug)]
pub(super) struct Lead<'a> {
    pub moment: Option<Moment>,
    /// Where the message begins.
    pub at: usize,
    /// The peer's address, where it stands before the time; it belongs to the message.
    pub address: Option<&'a [u8]>,
}

/// `stdout F ` behind the time: a container runtime's line. Whether it goes on, and where the content begins.
pub(super) fn cri(text: &[u8], end: usize) -> Option<(bool, usize)> {
    let rest = text.get(end..)?;
    let rest = rest.strip_prefix(b" stdout ").or_else(|| rest.strip_prefix(b" stderr "))?;
    let (flag, rest) = rest.split_first()?;
    let partial = match flag {
        b'F' => false,
        b'P' => true,
        _ => return None,
    };
    matches!(rest.first(), None | Some(b' ' | b':')).then_some(())?;
    let content = if rest.first() == Some(&b':') { word_end(text, end + 10) } else { end + 9 };
    Some((partial, (content + 1).min(text.len())))
}

/// `web-1  | ` at the front, as docker compose and kubectl write it: the name, and where the content begins.
pub(super) fn compose_prefix(text: &[u8]) -> Option<(&[u8], usize)> {
    let end = text.iter().take(65).position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')))?;
    let bar = skip_blanks(text, end);
    let valid = end > 0 && bar > end && text.get(bar) == Some(&b'|') && matches!(text.get(bar + 1), None | Some(b' '));
    (valid && level::word(&text[..end]).is_none()).then(|| (&text[..end], (bar + 2).min(text.len())))
}

/// A header that begins with something else than a time.
pub(super) fn lead<'a>(text: &'a [u8], parsed: &mut Parsed<'a>) -> Option<Lead<'a>> {
    let mut walk = Walk { text, parsed: Parsed::default(), columns_before: false };
    let lead = match text.first()? {
        b'[' => walk.bracket_first(),
        b'(' => walk.level_in_parentheses(),
        b'*' | b'.' => walk.time_ahead(1, 0),
        b'A'..=b'Z' => {
            walk.glog().or_else(|| walk.ruby()).or_else(|| walk.level_first()).or_else(|| walk.columns_first())
        }
        b'a'..=b'z' | b'0'..=b'9' | b':' => walk.redis().or_else(|| walk.columns_first()),
        _ => None,
    }?;
    *parsed = walk.parsed;
    Some(lead)
}

/// Reads what follows the time that ends at `end`; returns where the message begins.
pub(super) fn columns<'a>(text: &'a [u8], end: usize, moment: &Moment, parsed: &mut Parsed<'a>) -> usize {
    let mut walk = Walk { text, parsed: std::mem::take(parsed), columns_before: false };
    let at = walk.behind_time(end, moment);
    *parsed = walk.parsed;
    at
}

struct Walk<'a> {
    text: &'a [u8],
    parsed: Parsed<'a>,
    /// Whether there were columns before the time.
    columns_before: bool,
}

impl<'a> Walk<'a> {
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(b' ')
    }

    /// `[time] …`, `[time level] …`, `[level] …`, `[name] time …`.
    fn bracket_first(&mut self) -> Option<Lead<'a>> {
        let close = closing(self.text, 0, MAX_BRACKET)?;
        let inner = &self.text[1..close];
        if let Some((moment, end)) = clock::read(inner).filter(|(moment, _)| !moment.is_epoch()) {
            self.rest_of_time_bracket(&inner[end..])?;
            let at = self.behind_time(close + 1, &moment);
            return Some(Lead { moment: Some(moment), at, address: None });
        }
        let found = level_in_bracket(inner)?;
        if found.level.is_none() {
            return self.time_ahead(0, 3);
        }
        self.parsed.level = found.level;
        self.parsed.logger = found.logger;
        let at = self.separators(close + 1);
        if let Some((moment, end)) = self.time_at(at) {
            let at = self.behind_level(self.separators(end));
            return Some(Lead { moment: Some(moment), at, address: None });
        }
        Some(Lead { moment: None, at: self.behind_level(at), address: None })
    }

    /// What may stand behind the time in its bracket: ` #1`, `: INFO/MainProcess`, ` INFO  module`.
    fn rest_of_time_bracket(&mut self, rest: &'a [u8]) -> Option<()> {
        let rest = rest.trim_ascii();
        if rest.is_empty() {
            return Some(());
        }
        if let Some(pid) = rest.strip_prefix(b"#").filter(|pid| is_number(pid)) {
            self.parsed.pid = Some(pid);
            return Some(());
        }
        // A zone that has no numbers: `21-Nov-2026 04:00:00 Europe/Berlin`.
        let region = rest.contains(&b'/') && rest.iter().all(|b| b.is_ascii_alphabetic() || matches!(b, b'/' | b'_'));
        if region && level::word(rest.split(|b| *b == b'/').next()?).is_none() {
            return Some(());
        }
        let rest = rest.strip_prefix(b":").unwrap_or(rest).trim_ascii_start();
        let end = rest.iter().position(|b| !b.is_ascii_alphabetic()).unwrap_or(rest.len());
        self.parsed.level = Some(level::word(&rest[..end])?);
        let name = rest[end..].trim_ascii_start();
        let name = name.strip_prefix(b"/").unwrap_or(name);
        self.parsed.logger = Some(name).filter(|name| !name.is_empty());
        Some(())
    }

    /// `(W) time …`.
    fn level_in_parentheses(&mut self) -> Option<Lead<'a>> {
        let &[b'(', letter, b')', b' ', ..] = self.text else { return None };
        let level = level::letter(letter)?;
        let (moment, end) = self.time_at(skip_blanks(self.text, 4))?;
        self.parsed.level = Some(level);
        Some(Lead { moment: Some(moment), at: self.behind_level(self.separators(end)), address: None })
    }

    /// `I1121 04:00:00.123456    7 file.cc:12] …` of glog, klog and their children.
    fn glog(&mut self) -> Option<Lead<'a>> {
        let level = level::letter(self.text[0])?;
        let digits = digits_end(self.text, 1) - 1;
        (matches!(digits, 4 | 6 | 8) && self.byte(1 + digits) == b' ').then_some(())?;
        let time = &self.text[1..];
        let (moment, end) = if digits == 4 {
            // Month and day stand together: read them as `11-21 `.
            let mut spaced = [0; 32];
            let len = time.len().min(31);
            let (month, rest) = time[..len].split_at(2);
            spaced[..2].copy_from_slice(month);
            spaced[2] = b'-';
            spaced[3..=len].copy_from_slice(rest);
            let (moment, end) = clock::read(&spaced[..=len])?;
            (moment, end - 1)
        } else {
            clock::read(time)?
        };
        self.parsed.level = Some(level);
        let mut at = skip_blanks(self.text, 1 + end);
        let thread = digits_end(self.text, at);
        if thread > at && self.byte(thread) == b' ' {
            self.parsed.thread = Some(&self.text[at..thread]);
            at = skip_blanks(self.text, thread);
        }
        let word = word_end(self.text, at);
        let source = &self.text[at..word];
        if is_source_line(source.strip_suffix(b"]").unwrap_or(source)) {
            self.parsed.logger = source.split(|b| *b == b':').next();
            at = skip_blanks(self.text, word);
        }
        Some(Lead { moment: Some(moment), at, address: None })
    }

    /// `W, [2026-11-21T04:00:00.123456 #7]  WARN -- name: …` of Ruby.
    fn ruby(&mut self) -> Option<Lead<'a>> {
        let level = level::letter(self.text[0])?;
        self.text[1..].starts_with(b", [").then_some(())?;
        let close = closing(self.text, 3, MAX_BRACKET)?;
        let (moment, end) = clock::read(&self.text[4..close])?;
        self.rest_of_time_bracket(&self.text[4 + end..close])?;
        self.parsed.level = Some(level);
        let mut at = skip_blanks(self.text, close + 1);
        let word = word_end(self.text, at);
        if level::word(&self.text[at..word]).is_some() && self.text[word..].starts_with(b" -- ") {
            let name = word + 4;
            let colon = memchr::memchr(b':', self.text.get(name..)?.get(..64.min(self.text.len() - name))?)?;
            self.parsed.logger = Some(self.text[name..name + colon].trim_ascii()).filter(|name| !name.is_empty());
            at = skip_blanks(self.text, name + colon + 1);
        }
        Some(Lead { moment: Some(moment), at, address: None })
    }

    /// `INFO:root:…`, `WARN: [time] …`, `ERROR 2026-…`, `WARNING …`.
    fn level_first(&mut self) -> Option<Lead<'a>> {
        let end = self.text.iter().take(14).position(|b| !b.is_ascii_alphabetic())?;
        let word = &self.text[..end];
        let level = level::plain_word(word)?;
        matches!(self.byte(end), b' ' | b':' | b'\t' | b'|' | b',' | b'[').then_some(())?;
        let at = self.separators(end);
        if let Some((moment, time_end)) = self.time_at(at) {
            self.parsed.level = Some(level);
            let at = self.behind_level(self.separators(time_end));
            return Some(Lead { moment: Some(moment), at, address: None });
        }
        word.iter().all(u8::is_ascii_uppercase).then_some(())?;
        self.parsed.level = Some(level);
        // Python's default: `INFO:name:message`.
        if self.byte(end) == b':' && self.byte(end + 1).is_ascii_alphabetic() {
            let name = self.name_end(end + 1);
            if self.byte(name) == b':' && name - end <= 64 {
                self.parsed.logger = Some(&self.text[end + 1..name]);
                return Some(Lead { moment: None, at: skip_blanks(self.text, name + 1), address: None });
            }
        }
        Some(Lead { moment: None, at: self.behind_level(at), address: None })
    }

    /// `1:M 21 Nov 2026 04:00:00.123 * …`.
    fn redis(&mut self) -> Option<Lead<'a>> {
        let pid = digits_end(self.text, 0);
        let &[b':', role, b' ', ..] = self.text.get(pid..)? else { return None };
        (pid > 0 && role.is_ascii_uppercase()).then_some(())?;
        let (moment, end) = self.time_at(pid + 3)?;
        let &[b' ', mark, b' ', ..] = self.text.get(end..)? else { return None };
        self.parsed.level = Some(match mark {
            b'.' => Level::Debug,
            b'-' => Level::Info,
            b'*' => Level::Notice,
            b'#' => Level::Warn,
            _ => return None,
        });
        self.parsed.pid = Some(&self.text[..pid]);
        Some(Lead { moment: Some(moment), at: end + 3, address: None })
    }

    /// Columns that look like names, numbers or addresses and not like words, and then a time.
    fn columns_first(&mut self) -> Option<Lead<'a>> {
        let first = &self.text[..word_end(self.text, 0)];
        let first = first.strip_suffix(b":").unwrap_or(first);
        // grep's `file:line`.
        if let Some((colon, (moment, end))) = memchr::memchr(b':', first)
            .filter(|colon| is_technical(&first[..*colon]))
            .and_then(|colon| Some((colon, self.time_at(colon + 1)?)))
        {
            self.parsed.thread = Some(&first[..colon]);
            let at = self.behind_time(end, &moment);
            return Some(Lead { moment: Some(moment), at, address: None });
        }
        is_technical(first).then_some(())?;
        self.time_ahead(0, 5).or_else(|| self.epoch_column())
    }

    /// `2568643 node-70 action start 1074119817 1 …`: a record's number and node, what it is about, and the time.
    fn epoch_column(&mut self) -> Option<Lead<'a>> {
        let node = word_end(self.text, 0) + 1;
        let node_end = word_end(self.text, node);
        let node_name = self.text.get(node..node_end)?;
        (is_number(&self.text[..node - 1]) && is_technical(node_name)).then_some(())?;
        let mut at = node_end + 1;
        for _ in 0..3 {
            let rest = self.text.get(at..)?;
            if let Some((moment, end)) = clock::read(rest).filter(|(moment, _)| moment.is_epoch()) {
                self.parsed.host = Some(node_name);
                self.parsed.logger = self.text.get(node_end + 1..at - 1);
                return Some(Lead { moment: Some(moment), at: skip_blanks(self.text, at + end), address: None });
            }
            let end = word_end(self.text, at);
            is_name(&self.text[at..end]).then_some(())?;
            at = end + 1;
        }
        None
    }

    /// A time behind up to `columns` columns, the first of which begins at `at`.
    fn time_ahead(&mut self, at: usize, columns: u8) -> Option<Lead<'a>> {
        let (mut at, mut address, mut names) = (at, None, 0);
        let (mut host, mut logger): (Option<usize>, Option<(usize, usize)>) = (None, None);
        for column in 0..=columns {
            at = skip_blanks(self.text, at);
            if matches!(self.text.get(at..at + 2), Some(b"- " | b"| ")) {
                at = skip_blanks(self.text, at + 1);
            }
            // `10000 1795233600.000001 execve(…`: a process and a time, as strace writes them.
            let fraction = column == 1 && names == 0 && self.text[at..].get(10) == Some(&b'.');
            let epoch = if names >= 2 || fraction { clock::read(&self.text[at..]) } else { None };
            let epoch = epoch.filter(|(moment, _)| moment.is_epoch());
            if let Some((moment, end)) = epoch.map(|(moment, end)| (moment, at + end)).or_else(|| self.time_at(at)) {
                if let Some(host) = host {
                    self.parsed.host = Some(&self.text[host..word_end(self.text, host)]);
                }
                self.parsed.logger = self.parsed.logger.or(logger.map(|(from, to)| &self.text[from..to]));
                self.columns_before = column > 0;
                let at = self.behind_time(end, &moment);
                return Some(Lead { moment: Some(moment), at, address });
            }
            if column == columns {
                return None;
            }
            if self.byte(at) == b'[' {
                let close = closing(self.text, at, 80)?;
                let inner = &self.text[at + 1..close];
                if !is_name(inner) {
                    return None;
                }
                self.parsed.logger = self.parsed.logger.or(Some(inner));
                at = close + 1;
                continue;
            }
            let end = word_end(self.text, at);
            let word = &self.text[at..end];
            let name = word.strip_suffix(b":").unwrap_or(word);
            if is_address(name) {
                address = address.or(Some(name));
            } else if !is_number(name) {
                if !is_technical(name) {
                    return None;
                }
                match (names, host, logger) {
                    (_, None, _) if column > 0 => host = Some(at),
                    (_, Some(_), None) => logger = Some((at, end)),
                    (_, Some(_), Some((from, _))) => logger = Some((from, end)),
                    _ => {}
                }
                names += 1;
            }
            at = end;
        }
        None
    }

    /// A date and time at `at`, in brackets or without.
    fn time_at(&self, at: usize) -> Option<(Moment, usize)> {
        let dated = |moment: &Moment| moment.has_date() && !moment.is_epoch();
        if self.byte(at) == b'[' {
            let close = closing(self.text, at, 80)?;
            let (moment, end) = clock::read(&self.text[at + 1..close]).filter(|(moment, _)| dated(moment))?;
            return (at + 1 + end == close).then_some((moment, close + 1));
        }
        let (moment, end) = clock::read(self.text.get(at..)?).filter(|(moment, _)| dated(moment))?;
        Some((moment, at + end))
    }

    /// Everything behind the time that ends at `end`.
    fn behind_time(&mut self, end: usize, moment: &Moment) -> usize {
        if self.parsed.level.is_some() {
            return self.behind_level(self.separators(end));
        }
        if moment.is_epoch()
            && let Some(at) = self.syslog_behind_epoch(end)
        {
            return at;
        }
        if let Some(at) = self.logcat(end) {
            return at;
        }
        let mut start = self.separators(end);
        if let Some((_, end)) = self.time_at(start).filter(|_| self.byte(start) == b'[') {
            start = self.separators(end);
        }
        if self.byte(end) == b'|' {
            return self.pipes(start);
        }
        if let Some(at) = self.up_to_level(start) {
            return self.behind_level(self.separators(at));
        }
        self.parsed.level = self.postgres_level(start);
        if let Some((name, Some(pid), at)) = syslog::program(self.text, start) {
            self.parsed.program = Some(name);
            self.parsed.pid = Some(pid);
            return self.logger(at, at).map_or(at, |(name, next)| {
                self.parsed.logger = Some(name);
                next
            });
        }
        if self.columns_before { start } else { self.named_by_dash(start).unwrap_or(start) }
    }

    /// The level in `[711] user=shop,db=orders,client=10.0.0.7 ERROR:  …`: PostgreSQL, whose prefix may be anything. The
    /// prefix stays in the text, since it says who.
    fn postgres_level(&self, start: usize) -> Option<Level> {
        let near = &self.text[start..self.text.len().min(start + 300)];
        let colon = memchr::memmem::find(near, b":  ")?;
        let word = near[..colon].iter().rposition(|b| !b.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
        let name = &near[word..colon];
        let apart = word > 0 && near[word - 1] == b' ';
        let capitals = name.len() >= 3 && name.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        if apart && capitals { level::word(name) } else { None }
    }

    /// `1131566461 2005.11.09 host Nov 9 12:01:01 host program[pid]: …`: syslog behind a time of the collector's.
    fn syslog_behind_epoch(&mut self, end: usize) -> Option<usize> {
        let mut at = skip_blanks(self.text, end);
        let mut host = None;
        for _ in 0..3 {
            let rest = self.text.get(at..)?;
            if let Some((moment, len)) = clock::read(rest).filter(|(moment, _)| moment.has_date() && !moment.is_epoch())
            {
                let trust = syslog::trust(rest, &moment, len);
                let tail = syslog::tail(rest, len, trust, None)?;
                self.parsed.host = tail.host.or(host);
                self.parsed.program = tail.program;
                self.parsed.pid = tail.pid;
                return Some(at + tail.at);
            }
            if clock::read_date(rest).is_none() {
                host = Some(&self.text[at..word_end(self.text, at)]);
            }
            at = skip_blanks(self.text, word_end(self.text, at));
        }
        None
    }

    /// ` 1702  2395 D Tag: …` and ` D/Tag( 1702): …` of Android.
    fn logcat(&mut self, end: usize) -> Option<usize> {
        let text = self.text;
        let mut at = skip_blanks(text, end);
        let pid = digits_end(text, at);
        if pid > at && self.byte(pid) == b' ' {
            let thread_at = skip_blanks(text, pid);
            let thread = digits_end(text, thread_at);
            let letter_at = skip_blanks(text, thread);
            (thread > thread_at && letter_at > thread && self.byte(letter_at + 1) == b' ').then_some(())?;
            let level = level::letter(self.byte(letter_at))?;
            let tag = skip_blanks(text, letter_at + 1);
            let colon = text[tag..].iter().take(128).position(|b| *b == b':')?;
            self.parsed.pid = Some(&text[at..pid]);
            self.parsed.thread = Some(&text[thread_at..thread]);
            self.parsed.level = Some(level);
            self.parsed.logger = Some(text[tag..tag + colon].trim_ascii());
            return Some(skip_blanks(text, tag + colon + 1));
        }
        let level = level::letter(self.byte(at))?;
        (self.byte(at + 1) == b'/').then_some(())?;
        at += 2;
        let open = text[at..].iter().take(64).position(|b| *b == b'(')? + at;
        let close = closing(text, open, 16)?;
        (self.byte(close + 1) == b':' && is_number(text[open + 1..close].trim_ascii())).then_some(())?;
        self.parsed.level = Some(level);
        self.parsed.logger = Some(text[at..open].trim_ascii());
        self.parsed.pid = Some(text[open + 1..close].trim_ascii());
        Some(skip_blanks(text, close + 2))
    }

    /// Skips columns until a level, and keeps what they say. Nothing is kept when there is no level.
    fn up_to_level(&mut self, mut at: usize) -> Option<usize> {
        let mut seen = Parsed::default();
        let mut words = 0;
        for column in 0..8 {
            at = self.separators(at);
            let byte = *self.text.get(at)?;
            match byte {
                b'[' | b'(' | b'{' | b'<' => {
                    let close = closing(self.text, at, MAX_BRACKET)?;
                    let inner = self.text[at + 1..close].trim_ascii();
                    if let Some(InBracket { level: Some(level), logger }) = level_in_bracket(inner)
                        && byte != b'{'
                    {
                        seen.level = Some(level);
                        seen.logger = seen.logger.or(logger);
                        self.keep(seen);
                        return Some(close + 1);
                    }
                    let context = byte != b'<' && (is_name(inner) || is_context(inner)) && !is_address(inner);
                    (context || byte == b'{' && inner.is_empty()).then_some(())?;
                    if inner.is_empty() {
                        // ClickHouse has no query to name.
                    } else if is_number(inner) && seen.pid.is_none() {
                        seen.pid = Some(inner);
                    } else {
                        seen.thread = seen.thread.or(Some(inner));
                    }
                    at = close + 1;
                }
                b'0'..=b'9' => {
                    if let Some((_, end)) = clock::read(&self.text[at..]).filter(|(moment, _)| !moment.is_epoch()) {
                        at += end;
                        continue;
                    }
                    let end = self.token_end(at);
                    let word = &self.text[at..end];
                    if is_number(word) {
                        seen.pid = seen.pid.or(Some(word));
                    } else if is_address(word) || !(clock::read_date(word).is_some() || is_technical(word)) {
                        return None;
                    }
                    at = end;
                }
                b'A'..=b'Z' | b'a'..=b'z' | b'.' | b'_' | b'@' => {
                    if let Some((level, end)) = self.level_at(at, column) {
                        // `SECURITY[77]: ` and `NOTICE[77][C-1]: ` of Asterisk: the level has a process id.
                        seen.level = Some(level);
                        self.keep(seen);
                        return Some(end);
                    }
                    let end = self.token_end(at);
                    let word = &self.text[at..end];
                    // What PostgreSQL adds to the message before; it has no level.
                    if DETAILS.contains(&word) && self.text[end..].starts_with(b"  ") {
                        self.keep(seen);
                        return Some(at);
                    }
                    let word = word.strip_suffix(b":").unwrap_or(word);
                    // Monolog: `channel.ERROR: `.
                    if let Some(dot) =
                        word.iter().rposition(|b| *b == b'.').filter(|_| self.text[at..end].ends_with(b":"))
                    {
                        let (channel, name) = (&word[..dot], &word[dot + 1..]);
                        if let Some(level) = level::word(name).filter(|_| name.iter().all(u8::is_ascii_uppercase)) {
                            seen.level = Some(level);
                            seen.logger = Some(channel);
                            self.keep(seen);
                            return Some(end);
                        }
                    }
                    let apart = self.byte(end) == b'|'
                        || self.text[end..].starts_with(b" - ")
                        || self.text[end..].starts_with(b" | ");
                    let capitals = word.iter().all(u8::is_ascii_uppercase) && word.len() >= 2;
                    words += 1;
                    // `user@database` changes from line to line.
                    if word.contains(&b'@') {
                        seen.thread = seen.thread.or(Some(word));
                        at = end;
                        continue;
                    }
                    (words <= 5 && (apart || capitals || is_technical(word))).then_some(())?;
                    seen.logger = seen.logger.or(Some(word));
                    at = end;
                }
                _ => return None,
            }
        }
        None
    }

    fn keep(&mut self, seen: Parsed<'a>) {
        self.parsed.level = seen.level;
        self.parsed.pid = seen.pid.or(self.parsed.pid);
        self.parsed.thread = seen.thread.or(self.parsed.thread);
        self.parsed.logger = seen.logger.or(self.parsed.logger);
    }

    /// A level at `at`, in which case `column` says how many columns came before it.
    fn level_at(&self, at: usize, column: u8) -> Option<(Level, usize)> {
        let letters = self.text[at..].iter().take(14).take_while(|b| b.is_ascii_alphabetic()).count();
        let end = at + letters + usize::from(letters > 2 && self.byte(at + letters).is_ascii_digit());
        let word = &self.text[at..end];
        let next = self.byte(end);
        if letters == 1 {
            // `I NETWORK  [conn1] …` of old MongoDB.
            let level = level::letter(word[0])?;
            let name = skip_blanks(self.text, end);
            let name_end = self.name_end(name);
            let bracket = self.byte(skip_blanks(self.text, name_end)) == b'[';
            let capitals = name_end > name + 1 && self.text[name..name_end].iter().all(u8::is_ascii_uppercase);
            return (column == 0 && bracket && capitals && next == b' ').then_some((level, end));
        }
        matches!(next, b' ' | b'\t' | b':' | b',' | b'|' | b'[' | b']' | b'-').then_some(())?;
        if word.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) {
            // `LOG:` is PostgreSQL's; without the colon these are words like others.
            let level = if next == b' ' && column > 0 { level::plain_word(word) } else { level::word(word) };
            return level.map(|level| (level, end));
        }
        (column == 0 && next != b'-').then(|| level::plain_word(word)).flatten().map(|level| (level, end))
    }

    /// Thread, process and logger behind the level; returns where the message begins.
    fn behind_level(&mut self, start: usize) -> usize {
        let text = self.text;
        let mut at = start;
        let mut brackets = 0;
        for _ in 0..6 {
            match self.byte(at) {
                b'[' if brackets < 3 => {
                    let Some(close) = closing(text, at, MAX_BRACKET) else { return at };
                    let inner = text[at + 1..close].trim_ascii();
                    let after = self.separators(close + 1);
                    if !self.bracket_behind_level(inner, close, after) {
                        return at;
                    }
                    brackets += 1;
                    at = after;
                }
                b'(' | b'<' => {
                    let Some(close) = closing(text, at, 80) else { return at };
                    let inner = &text[at + 1..close];
                    let numbered = inner.iter().all(|b| b.is_ascii_digit() || *b == b'.');
                    let fits = if byte_is(text, at, b'<') { numbered } else { is_name(inner) && !is_address(inner) };
                    if !fits || inner.is_empty() || self.byte(close + 1) != b' ' {
                        return at;
                    }
                    self.parsed.thread = self.parsed.thread.or(Some(inner));
                    at = self.separators(close + 1);
                }
                b'{' => {
                    let Some(close) = closing(text, at, 80) else { return at };
                    let inner = &text[at + 1..close];
                    if !is_source_line(inner) || self.byte(close + 1) != b' ' {
                        return at;
                    }
                    self.parsed.logger = inner.split(|b| *b == b':').next();
                    return skip_blanks(text, close + 1);
                }
                b'-' if text[at..].starts_with(b"--- ") => at = skip_blanks(text, at + 3),
                b'-' if text[at..].starts_with(b"-- ") => at = skip_blanks(text, at + 2),
                b'0'..=b'9' => {
                    let end = digits_end(text, at);
                    if text[end..].starts_with(b" --- ") {
                        self.parsed.pid = self.parsed.pid.or(Some(&text[at..end]));
                        at = skip_blanks(text, end);
                        continue;
                    }
                    // nginx: `86596#86596: `.
                    let thread = digits_end(text, end + 1);
                    if self.byte(end) == b'#' && thread > end + 1 && self.byte(thread) == b':' {
                        self.parsed.pid = Some(&text[at..end]);
                        self.parsed.thread = Some(&text[end + 1..thread]);
                        return skip_blanks(text, thread + 1);
                    }
                    return at;
                }
                _ => {
                    // A name that is all there is is the message.
                    let Some((name, next)) = self.logger(at, start).filter(|(_, next)| *next < text.len()) else {
                        return at;
                    };
                    self.parsed.logger = Some(name);
                    return self.request_context(next);
                }
            }
        }
        at
    }

    /// Whether a bracket behind the level belongs to the header; if so it is kept.
    fn bracket_behind_level(&mut self, inner: &'a [u8], close: usize, after: usize) -> bool {
        if let Some(rest) = inner.strip_prefix(b"pid ") {
            let end = digits_end(rest, 0);
            self.parsed.pid = Some(&rest[..end]);
            self.parsed.thread = rest[end..].strip_prefix(b":tid ").or(self.parsed.thread);
            return end > 0;
        }
        // An address is what the message is about, a code is what it says.
        let code = inner.iter().position(|b| *b == b'-').is_some_and(|dash| {
            dash > 1 && inner[..dash].iter().all(u8::is_ascii_uppercase) && is_number(&inner[dash + 1..])
        });
        let behind = skip_blanks(self.text, close + 1);
        let ends_header = self.byte(close + 1) == b':' || self.byte(behind) == b'-' && self.byte(behind + 1) == b' ';
        let address = || is_address(inner) || inner.starts_with(b"client ") || holds_address(inner);
        if inner.is_empty() || code || inner.contains(&b'"') || (!ends_header && address()) {
            return false;
        }
        let fits = if is_number(inner) || is_name(inner) {
            true
        } else if inner.contains(&b' ') {
            is_context(inner) || ends_header || self.logger(after, close).is_some() || self.byte(after) == b'['
        } else {
            !inner.contains(&b'=') || ends_header
        };
        if !fits {
            return false;
        }
        if is_number(inner) && self.parsed.pid.is_none() {
            self.parsed.pid = Some(inner);
        } else if inner.contains(&b'.') && !inner.contains(&b' ') && self.parsed.logger.is_none() {
            self.parsed.logger = Some(inner);
        } else {
            self.parsed.thread = self.parsed.thread.or(Some(inner));
        }
        true
    }

    /// A logger's name at `at`, and where the message begins behind it. `start` is where the columns began.
    fn logger(&self, at: usize, start: usize) -> Option<(&'a [u8], usize)> {
        let text = self.text;
        if !self.byte(at).is_ascii_alphabetic() && self.byte(at) != b'_' && self.byte(at) != b'.' {
            return None;
        }
        let end = self.token_end(at);
        let word = &text[at..end];
        if word.len() > 120 || word.contains(&b'=') || word.contains(&b'"') {
            return None;
        }
        let rest = &text[end..];
        if self.byte(end) == b'|' || rest.starts_with(b" | ") {
            return is_name(word).then(|| (word, self.separators(end)));
        }
        if let Some(name) = word.strip_suffix(b":") {
            let fits = is_technical(name) && is_name(name) && !is_address(name) && !is_number(name);
            // `::` separates loggers from messages, too (`WARNING::[interface:657] …` is a bracket and comes elsewhere).
            return fits.then(|| (name, skip_blanks(text, end)));
        }
        let blanks = skip_blanks(text, end);
        if !is_name(word) {
            return None;
        }
        if self.byte(blanks) == b':' && blanks > end && self.byte(blanks + 1) == b' ' {
            return Some((word, skip_blanks(text, blanks + 1)));
        }
        if rest.starts_with(b" - ") || (blanks > end && text[blanks..].starts_with(b"- ")) {
            return Some((word, skip_blanks(text, blanks + 1)));
        }
        if is_source_line(word) {
            return Some((word.split(|b| *b == b':').next()?, blanks));
        }
        let column = |from: usize, to: usize| to >= from + 2 || (to > from && text[from] == b'\t');
        let gap_before = text[..at].iter().rev().take(2).filter(|b| **b == b' ').count() == 2
            || byte_is(text, at.wrapping_sub(1), b'\t');
        if gap_before && at > start.saturating_sub(2) && column(end, blanks) {
            // With tabs there may be one more: zap's `logger	file.go:12	message`.
            let second = self.token_end(blanks);
            if byte_is(text, end, b'\t') && byte_is(text, second, b'\t') && is_source_line(&text[blanks..second]) {
                return Some((word, skip_blanks(text, second)));
            }
            return Some((word, blanks));
        }
        if self.byte(blanks) == b'[' && word.len() > 1 && word.iter().all(u8::is_ascii_uppercase) {
            return Some((word, blanks));
        }
        let dots = word.iter().filter(|b| **b == b'.').count();
        let dotted = dots >= 1
            && word.split(|b| *b == b'.').all(|p| p.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_'));
        if dotted && (self.byte(blanks) == b'[' || dots >= 2) && !word.contains(&b'/') && !word.ends_with(b".") {
            return Some((word, blanks));
        }
        // A name before the logger's, as Odoo writes its database's.
        let second = self.token_end(blanks);
        let next = text[blanks..second].strip_suffix(b":")?;
        let modules =
            next.iter().filter(|b| **b == b'.').count() >= 2 && is_name(next) && next[0].is_ascii_alphabetic();
        (modules && word.iter().all(|b| b.is_ascii_lowercase() || *b == b'_'))
            .then(|| (next, skip_blanks(text, second)))
    }

    /// `[req-… - - -] ` or `[-] ` behind the logger: the request that the message belongs to.
    fn request_context(&mut self, at: usize) -> usize {
        if self.byte(at) != b'[' {
            return at;
        }
        let Some(close) = closing(self.text, at, 256) else { return at };
        let inner = self.text[at + 1..close].trim_ascii();
        if inner == b"-"
            || inner.starts_with(b"req-")
            || is_context(inner)
            || is_technical(inner) && !holds_address(inner)
        {
            self.parsed.thread = self.parsed.thread.or(Some(inner));
            return skip_blanks(self.text, close + 1);
        }
        at
    }

    /// Columns between bars: `|Step_LSC|30002312|…`.
    fn pipes(&mut self, mut at: usize) -> usize {
        for _ in 0..4 {
            let near = &self.text[at..self.text.len().min(at + 65)];
            let Some(len) = memchr::memchr(b'|', near) else { return at };
            let field = near[..len].trim_ascii();
            if let Some(level) = level::word(field).filter(|_| self.parsed.level.is_none()) {
                self.parsed.level = Some(level);
                at += len + 1;
                continue;
            }
            if is_number(field) {
                self.parsed.pid = Some(field);
                return at + len + 1;
            }
            if !is_name(field) || self.parsed.logger.is_some() {
                return at;
            }
            self.parsed.logger = Some(field);
            at += len + 1;
        }
        at
    }

    /// `chrome.exe - …`: who writes, when nothing else came between it and the time.
    fn named_by_dash(&mut self, at: usize) -> Option<usize> {
        let end = word_end(self.text, at);
        let word = &self.text[at..end];
        (is_name(word) && !is_number(word) && word.iter().any(u8::is_ascii_alphabetic)).then_some(())?;
        let mut dash = end;
        // An addition such as `*64`.
        if !self.text[dash..].starts_with(b" - ") {
            dash = word_end(self.text, end + 1);
            let addition = self.text.get(end + 1..dash)?;
            (addition.len() <= 4 && addition.starts_with(b"*")).then_some(())?;
        }
        self.text.get(dash..)?.starts_with(b" - ").then_some(())?;
        self.parsed.logger = Some(word);
        Some(dash + 3)
    }

    /// Skips blanks and one of the separators that stand between columns, with the blanks behind it.
    fn separators(&self, at: usize) -> usize {
        let start = skip_blanks(self.text, at);
        let next = self.byte(start + 1);
        match self.byte(start) {
            b':' if next == b':' => skip_blanks(self.text, start + 2),
            b':' | b',' | b'|' => skip_blanks(self.text, start + 1),
            b'-' | b'>' if next == b' ' && start > at => skip_blanks(self.text, start + 1),
            _ => start,
        }
    }

    /// Where the column at `at` ends: at a blank, a bar, or a bracket that opens.
    fn token_end(&self, at: usize) -> usize {
        self.text[at..]
            .iter()
            .position(|b| matches!(b, b' ' | b'\t' | b'|' | b'[' | b','))
            .map_or(self.text.len(), |len| at + len)
    }

    /// Where the name at `at` ends, before any punctuation but dots, dashes and underscores.
    fn name_end(&self, at: usize) -> usize {
        self.text[at..]
            .iter()
            .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')))
            .map_or(self.text.len(), |len| at + len)
    }
}

/// What a bracket says when there is a level in it.
struct InBracket<'a> {
    level: Option<Level>,
    logger: Option<&'a [u8]>,
}

/// `error`, `I`, `core:error`, `ERROR|auth|L83`; a bracket that could be a column at all.
fn level_in_bracket(inner: &[u8]) -> Option<InBracket<'_>> {
    let inner = inner.trim_ascii();
    (inner.len() <= 64).then_some(())?;
    if let [letter] = inner {
        return Some(InBracket { level: level::letter(*letter), logger: None });
    }
    if let Some(level) = level::word(inner) {
        return Some(InBracket { level: Some(level), logger: None });
    }
    if let Some(at) = inner.iter().position(|b| matches!(b, b':' | b'|' | b'/')) {
        let (first, rest) = (&inner[..at], &inner[at + 1..]);
        if let Some(level) = level::word(first) {
            let name = rest.split(|b| *b == b'|').next();
            return Some(InBracket { level: Some(level), logger: name });
        }
        if let Some(level) = level::word(rest).filter(|_| inner[at] == b':') {
            return Some(InBracket { level: Some(level), logger: Some(first) });
        }
    }
    Some(InBracket { level: None, logger: None })
}

/// Whether this can be the name of a thread, a logger or a program: one word without quotes or `=`.
fn is_name(word: &[u8]) -> bool {
    !word.is_empty() && word.len() <= 100 && word.iter().all(|byte| NAME[usize::from(*byte)])
}

/// The bytes that names are made of.
const NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"._-:/$@#+*<>~&%(){}";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// Whether this is a name that no sentence would hold: with a dot, a digit, an underscore or a capital inside.
fn is_technical(word: &[u8]) -> bool {
    let (Some(first), Some(last)) = (word.first(), word.last()) else { return false };
    if !is_name(word) || *last == b'.' || *last == b')' && !word.contains(&b'.') {
        return false;
    }
    // A path is what a message speaks of; `/10.0.0.7:80` is an address as Java writes it.
    if *first == b'/' {
        return word[1..].iter().all(|b| b.is_ascii_digit() || *b == b'.');
    }
    let (mut capitals, mut small, mut dash, mut camel) = (usize::from(first.is_ascii_uppercase()), false, false, false);
    for byte in &word[1..] {
        match byte {
            b'0'..=b'9' | b'.' | b'_' | b'$' | b'@' | b':' | b'/' | b'%' => return true,
            b'A'..=b'Z' => {
                camel |= small || first.is_ascii_lowercase();
                capitals += 1;
            }
            b'a'..=b'z' => small = true,
            b'-' => dash = true,
            _ => {}
        }
    }
    first.is_ascii_digit() || camel || capitals >= 2 && small || capitals > 0 && dash
}

/// Whether these are ids and dashes: a request's context.
fn is_context(inner: &[u8]) -> bool {
    !inner.is_empty()
        && inner.split(|b| matches!(b, b' ' | b'|')).all(|word| {
            word == b"-"
                || word.len() >= 8
                    && word.iter().any(u8::is_ascii_digit)
                    && word.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-')
        })
}

/// Whether there is an IPv4 address with a port in it.
fn holds_address(inner: &[u8]) -> bool {
    inner.iter().filter(|b| **b == b'.').count() >= 3
        && inner.split(|b| matches!(b, b' ' | b'/' | b'=')).any(|word| {
            let host = word.iter().rposition(|b| *b == b':').map_or(word, |colon| &word[..colon]);
            is_address(host) && host.contains(&b'.')
        })
}

/// `file.go:12`.
fn is_source_line(word: &[u8]) -> bool {
    if !word.last().is_some_and(u8::is_ascii_digit) {
        return false;
    }
    let Some(colon) = word.iter().rposition(|b| *b == b':') else { return false };
    let file = &word[..colon];
    is_number(&word[colon + 1..])
        && file.contains(&b'.')
        && !is_address(file)
        && file.iter().any(u8::is_ascii_alphabetic)
}

fn byte_is(text: &[u8], at: usize, byte: u8) -> bool {
    text.get(at) == Some(&byte)
}
