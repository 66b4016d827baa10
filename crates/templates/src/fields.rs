//! Lines that are made of named values: JSON and logfmt.
//!
//! They are split into fields and never scanned as text: the keys, the message and the values that say what happened
//! (level, event, method, status class) make the template, all other values fill slots named after their keys.

mod json;
mod keys;
mod logfmt;
mod windows;

use std::borrow::Cow;

pub(crate) use self::{
    json::{json, text_with_json},
    keys::Key,
    logfmt::logfmt,
    windows::windows_event,
};
use crate::{Level, Timestamp, clock, level};

/// A message with named values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fields<'a> {
    /// The message, to be scanned like text; empty when there is none.
    pub message: Cow<'a, [u8]>,
    /// The other fields, sorted by key; time, host, program, pid, thread and logger are not among them.
    pub fields: Vec<Field<'a>>,
    /// How many fields were left out, and how many keys shortened, because a bound was reached.
    pub cut: u32,
}

/// One named value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field<'a> {
    /// The key; of nested values the path, joined by dots.
    pub key: Cow<'a, [u8]>,
    /// The value, unquoted and unescaped.
    pub value: Cow<'a, [u8]>,
    /// What it means for the template.
    pub role: Role,
}

/// What a field means for the template. Its key is part of the template in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The value is part of the template too: level, event, method, status class.
    Constant,
    /// The value fills a slot.
    Slot,
}

impl Fields<'_> {
    /// The same without borrowing.
    pub(crate) fn into_owned(self) -> Fields<'static> {
        let own = |text: Cow<'_, [u8]>| Cow::Owned(text.into_owned());
        Fields {
            message: own(self.message),
            fields: self
                .fields
                .into_iter()
                .map(|field| Field { key: own(field.key), value: own(field.value), role: field.role })
                .collect(),
            cut: self.cut,
        }
    }
}

/// Most fields of a line that are kept.
const MAX_FIELDS: usize = 128;

/// Bytes of a key that are kept.
const MAX_KEY: usize = 128;

/// Named values in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Object<'a> {
    members: Vec<Member<'a>>,
    /// Text before the fields.
    prefix: &'a [u8],
    cut: u32,
}

#[derive(Debug)]
pub(crate) struct Member<'a> {
    pub key: Cow<'a, [u8]>,
    pub value: Value<'a>,
    meaning: Key,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    /// The inside of a JSON string, still escaped.
    Escaped(&'a [u8]),
    /// Text as it is: a number, `true`, a logfmt value, an array in its own notation.
    Plain(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(crate) fn text(self) -> Cow<'a, [u8]> {
        match self {
            Self::Escaped(raw) => json::unescape(raw),
            Self::Plain(text) => Cow::Borrowed(text),
        }
    }

    /// As it is written, if that is the same as what it means.
    pub(crate) fn verbatim(self) -> Option<&'a [u8]> {
        match self {
            Self::Escaped(raw) | Self::Plain(raw) => Some(raw).filter(|raw| memchr::memchr(b'\\', raw).is_none()),
        }
    }
}

/// What fields say that a header would.
#[derive(Debug, Default)]
pub(crate) struct Known<'a> {
    pub time: Option<Timestamp>,
    pub level: Option<Level>,
    pub host: Option<&'a [u8]>,
    pub program: Option<&'a [u8]>,
    pub pid: Option<&'a [u8]>,
    pub thread: Option<&'a [u8]>,
    pub logger: Option<&'a [u8]>,
}

/// A line of text that the journal or a container runtime put into an object.
#[derive(Debug)]
pub(crate) struct Wrapped<'a> {
    pub time: Option<Timestamp>,
    pub level: Option<Level>,
    pub host: Option<&'a [u8]>,
    pub program: Option<&'a [u8]>,
    pub pid: Option<&'a [u8]>,
    pub line: Cow<'a, [u8]>,
    pub partial: bool,
}

impl<'a> Object<'a> {
    fn push(&mut self, key: Cow<'a, [u8]>, value: Value<'a>) {
        if self.members.len() >= MAX_FIELDS {
            self.cut += 1;
            return;
        }
        let meaning = keys::meaning(&key);
        self.members.push(Member { key, value, meaning });
    }

    /// A key of sensible length: nested ones are put together, so that a long one would be copied many times.
    fn clip<'k>(&mut self, key: &'k [u8]) -> &'k [u8] {
        self.cut += u32::from(key.len() > MAX_KEY);
        &key[..key.len().min(MAX_KEY)]
    }

    fn get(&self, key: &[u8]) -> Option<Value<'a>> {
        self.members.iter().find(|member| *member.key == *key).map(|member| member.value)
    }

    /// The first value whose key means this.
    pub(crate) fn meaning(&self, meaning: Key) -> Option<Value<'a>> {
        self.members.iter().find(|member| member.meaning == meaning).map(|member| member.value)
    }

    /// Whether there is a message.
    pub(crate) fn message(&self) -> Option<Cow<'a, [u8]>> {
        if !self.prefix.is_empty() {
            return Some(Cow::Borrowed(self.prefix));
        }
        self.message_index().map(|at| self.members[at].value.text())
    }

    fn message_index(&self) -> Option<usize> {
        let rank = |member: &Member<'_>| match member.meaning {
            Key::Message(rank) => Some(rank),
            // structlog's message is called `event`.
            Key::Event if member.value.text().contains(&b' ') => Some(8),
            _ => None,
        };
        let ranked = self.members.iter().enumerate().filter_map(|(at, member)| Some((rank(member)?, at)));
        ranked.min().map(|(_, at)| at)
    }

    /// The line of text inside, if this is the journal's or a container runtime's object.
    pub(crate) fn into_wrapped(self) -> Result<Wrapped<'a>, Self> {
        let verbatim = |key: &[u8]| self.get(key).and_then(Value::verbatim).filter(|text| !text.is_empty());
        if let Some(message) = self.get(b"MESSAGE") {
            let journal =
                [&b"__REALTIME_TIMESTAMP"[..], b"_HOSTNAME", b"PRIORITY", b"SYSLOG_IDENTIFIER", b"_SYSTEMD_UNIT"];
            if journal.iter().any(|key| self.get(key).is_some()) {
                let micros = verbatim(b"_SOURCE_REALTIME_TIMESTAMP").or(verbatim(b"__REALTIME_TIMESTAMP"));
                let micros = micros.and_then(integer).and_then(|micros| micros.checked_mul(1000));
                let line = match message {
                    Value::Plain(b"null") => Cow::Borrowed(&b""[..]),
                    Value::Plain(array) if array.starts_with(b"[") => Cow::Owned(json::byte_array(array)),
                    text => text.text(),
                };
                return Ok(Wrapped {
                    time: micros.map(Timestamp::from_nanos),
                    level: verbatim(b"PRIORITY")
                        .and_then(integer)
                        .and_then(|p| Level::from_syslog(u8::try_from(p).ok()?)),
                    host: verbatim(b"_HOSTNAME"),
                    program: verbatim(b"SYSLOG_IDENTIFIER").or(verbatim(b"_COMM")).or(verbatim(b"_SYSTEMD_UNIT")),
                    pid: verbatim(b"_PID").or(verbatim(b"SYSLOG_PID")),
                    line,
                    partial: false,
                });
            }
        }
        if let (Some(Value::Escaped(log)), Some(_)) = (self.get(b"log"), self.get(b"stream").or(self.get(b"_p"))) {
            let time = self.get(b"time").and_then(Value::verbatim);
            let whole = log.strip_suffix(b"\\n");
            let partial =
                whole.is_none() && log.len() >= 16 * 1024 - 1 || self.get(b"_p") == Some(Value::Escaped(b"P"));
            return Ok(Wrapped {
                time: time.and_then(clock::instant),
                level: None,
                host: verbatim(b"kubernetes.host"),
                program: verbatim(b"kubernetes.container_name").or(verbatim(b"attrs.tag")),
                pid: None,
                line: json::unescape(whole.unwrap_or(log)),
                partial,
            });
        }
        Err(self)
    }

    /// Takes out what belongs to a header; `moment` reads a time.
    pub(crate) fn take_header(&mut self, moment: impl Fn(&[u8]) -> Option<Timestamp>) -> Known<'a> {
        let mut known = Known::default();
        let (mut seconds, mut nanos) = (None, None);
        // What is the message is nothing else.
        if let Some(at) = self.message_index() {
            self.members[at].meaning = Key::Message(0);
        }
        self.members.retain_mut(|member| {
            let verbatim = member.value.verbatim().filter(|text| !text.is_empty());
            let first = |slot: &mut Option<&'a [u8]>| match (&slot, verbatim) {
                (None, Some(value)) => {
                    *slot = Some(value);
                    false
                }
                _ => true,
            };
            match member.meaning {
                Key::Time => {
                    let time = verbatim.and_then(|text| moment(text).or_else(|| json::float_time(text)));
                    known.time = known.time.or(time);
                    time.is_none()
                }
                Key::EpochSecond => {
                    seconds = verbatim.and_then(integer);
                    seconds.is_none()
                }
                Key::NanoOfSecond => {
                    nanos = verbatim.and_then(integer);
                    nanos.is_none()
                }
                Key::Level => {
                    known.level = known.level.or(verbatim.and_then(level));
                    true
                }
                Key::Host => first(&mut known.host),
                Key::Program => first(&mut known.program),
                Key::Pid => first(&mut known.pid),
                Key::Thread => first(&mut known.thread),
                Key::Logger => first(&mut known.logger),
                _ => true,
            }
        });
        if let Some(seconds) = seconds {
            let nanos = i64::checked_add(seconds.saturating_mul(1_000_000_000), nanos.unwrap_or(0));
            known.time = known.time.or(nanos.map(Timestamp::from_nanos));
        }
        // `msg=audit(1684329817.579:2995):` holds the time and nothing else.
        let audit = self.members.iter().position(|m| m.value.verbatim().is_some_and(|v| v.starts_with(b"audit(")));
        if let Some(at) = audit {
            let value = self.members[at].value.verbatim().unwrap_or_default();
            let end = memchr::memchr(b':', value).unwrap_or(value.len());
            if let Some(time) = value.get(6..end).and_then(&moment) {
                known.time = known.time.or(Some(time));
                self.members.remove(at);
            }
        }
        known
    }

    /// Message and fields, sorted.
    pub(crate) fn into_fields(self) -> Fields<'a> {
        let at = if self.prefix.is_empty() { self.message_index() } else { None };
        let mut message = Cow::Borrowed(self.prefix);
        let mut fields = Vec::with_capacity(self.members.len());
        for (index, member) in self.members.into_iter().enumerate() {
            let value = member.value.text();
            if Some(index) == at {
                message = value;
                continue;
            }
            let role = match member.meaning {
                Key::Level if value.len() <= 16 => Role::Constant,
                Key::Code if is_code(&value) => Role::Constant,
                Key::Event | Key::Constant | Key::Method | Key::Flag if is_low(&value) => Role::Constant,
                Key::Status => {
                    if let Some(class) = status_class(&value) {
                        fields.push(Field {
                            key: member.key.clone(),
                            value: Cow::Borrowed(class),
                            role: Role::Constant,
                        });
                        Role::Slot
                    } else if is_low(&value) || value.iter().any(u8::is_ascii_alphabetic) && is_code(&value) {
                        Role::Constant
                    } else {
                        Role::Slot
                    }
                }
                _ => Role::Slot,
            };
            fields.push(Field { key: member.key, value, role });
        }
        fields.sort_by(|a, b| a.key.cmp(&b.key));
        Fields { message, fields, cut: self.cut }
    }
}

/// Whether a value can be one of few: a short word without digits.
fn is_low(value: &[u8]) -> bool {
    value.len() <= 48
        && !value.iter().any(|b| b.is_ascii_digit() || matches!(b, b'/' | b'@' | b'"'))
        && value.iter().filter(|b| **b == b' ').count() <= 3
}

/// Whether a value can be the code of an event or an error: `4625`, `T1000W`, `42P01`.
fn is_code(value: &[u8]) -> bool {
    value.len() <= 12 && value.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// `4xx` for `404`.
pub(crate) fn status_class(status: &[u8]) -> Option<&'static [u8]> {
    match status {
        [b'1', b'0'..=b'9', b'0'..=b'9'] => Some(b"1xx"),
        [b'2', b'0'..=b'9', b'0'..=b'9'] => Some(b"2xx"),
        [b'3', b'0'..=b'9', b'0'..=b'9'] => Some(b"3xx"),
        [b'4', b'0'..=b'9', b'0'..=b'9'] => Some(b"4xx"),
        [b'5', b'0'..=b'9', b'0'..=b'9'] => Some(b"5xx"),
        _ => None,
    }
}

/// The level that a field states: a word, a letter, or a number of pino's and bunyan's scale.
fn level(value: &[u8]) -> Option<Level> {
    if let [letter] = value {
        return level::letter(*letter);
    }
    if let Some(number) = integer(value) {
        return Some(match number {
            10 => Level::Trace,
            20 => Level::Debug,
            30 => Level::Info,
            40 => Level::Warn,
            50 => Level::Error,
            60 => Level::Critical,
            _ => return None,
        });
    }
    level::word(value)
}

fn integer(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    text.iter().try_fold(0_i64, |n, b| {
        let digit = b.is_ascii_digit().then(|| i64::from(b - b'0'))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(mut object: Object<'_>) -> String {
        let known = object.take_header(clock::instant);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = object.into_fields();
        let mut out = format!("{:?}", text(&fields.message));
        for field in &fields.fields {
            let mark = if field.role == Role::Constant { "=" } else { "~" };
            out += &format!(" {}{mark}{}", text(&field.key), text(&field.value));
        }
        let part = |name: &str, value: Option<&[u8]>| value.map_or(String::new(), |v| format!(" {name}:{}", text(v)));
        out += &part("host", known.host);
        out += &part("program", known.program);
        out += &part("pid", known.pid);
        out += &part("thread", known.thread);
        out += &part("logger", known.logger);
        out += &known.level.map_or(String::new(), |level| format!(" level:{level}"));
        out + &known.time.map_or(String::new(), |time| format!(" {time}"))
    }

    #[test]
    fn json_is_split_into_message_constants_and_slots() {
        for (line, expected) in [
            (
                r#"{"time":"2026-11-21T04:00:00Z","level":"error","msg":"cannot reach \"db\"","attempt":3,"ok":false}"#,
                r#""cannot reach \"db\"" attempt~3 level=error ok=false level:error 2026-11-21T04:00:00Z"#,
            ),
            (
                r#"{"t":{"$date":"2026-11-21T04:00:00.5+00:00"},"s":"W", "c":"STORAGE", "id":22220, "ctx":"conn1","msg":"Slow","attr":{"ms":120,"p":{"a":[1,{"b":2}]}}}"#,
                r#""Slow" attr.ms~120 attr.p.a~[1,{"b":2}] id~22220 s=W thread:conn1 logger:STORAGE level:warn 2026-11-21T04:00:00.5Z"#,
            ),
            (
                r#"{"@timestamp":"2026-11-21T04:00:00.5Z","log.level":"info","message":"x","service":{"name":"shop"}}"#,
                r#""x" log.level=info program:shop level:info 2026-11-21T04:00:00.5Z"#,
            ),
            (
                r#"{"level":30,"time":1795233600123,"pid":7,"hostname":"web","name":"app","msg":"x"}"#,
                r#""x" level=30 host:web pid:7 logger:app level:info 2026-11-21T04:00:00.123Z"#,
            ),
            (
                r#"{"instant":{"epochSecond":1795233600,"nanoOfSecond":500000000},"msg":"x"}"#,
                r#""x" 2026-11-21T04:00:00.5Z"#,
            ),
            (r#"{"event":"user logged in","user":"a"}"#, r#""user logged in" user~a"#),
            (r#"{"event":"login_failed","user":"a"}"#, r#""" event=login_failed user~a"#),
            (r#"{"msg":"x","status":404}"#, r#""x" status=4xx status~404"#),
            ("{}", r#""""#),
        ] {
            assert_eq!(show(json(line.as_bytes()).unwrap()), expected, "{line}");
        }
    }

    #[test]
    fn logfmt_is_split_likewise() {
        for (line, expected) in [
            (
                r#"time="2026-11-21T04:00:00Z" level=warning msg="Failed to \"x\"" error="a b" ns=7"#,
                r#""Failed to \"x\"" error~a b level=warning ns~7 level:warn 2026-11-21T04:00:00Z"#,
            ),
            (
                "type=SYSCALL msg=audit(1684329817.579:2995): arch=c000003e success=yes exit=0",
                r#""" arch~c000003e exit~0 success=yes type=SYSCALL 2023-05-17T13:23:37.579Z"#,
            ),
            (
                "IN=ens2 OUT= SRC=10.0.0.1 DST=10.0.0.2 PROTO=TCP DF SYN URGP=0",
                r#""" DF= DST~10.0.0.2 IN~ens2 OUT~ PROTO=TCP SRC~10.0.0.1 SYN= URGP~0"#,
            ),
            (
                "type=LOGIN_ERROR, realmId=keycloak, ipAddress=10.0.0.1, error=user_not_found",
                r#""" error~user_not_found ipAddress~10.0.0.1 realmId~keycloak type=LOGIN_ERROR"#,
            ),
            (
                r#"SecurityEvent="InvalidAccountID",EventTV="x",Severity="Error",Service="PJSIP""#,
                r#""" EventTV~x SecurityEvent~InvalidAccountID Severity=Error program:PJSIP level:error"#,
            ),
        ] {
            assert_eq!(show(logfmt(line.as_bytes()).unwrap()), expected, "{line}");
        }
    }

    #[test]
    fn windows_events_are_split_too() {
        let event = b"<Event xmlns='x'><System><Provider Name='Security-Auditing' Guid='{1}'/><EventID>4625</EventID><Level>0</Level>\
            <TimeCreated SystemTime='2026-11-21T04:00:00.5Z'/><Computer>pc-1</Computer></System><EventData>\
            <Data Name='TargetUserName'>admin</Data><Data Name='IpAddress'>10.0.0.7</Data></EventData></Event>";
        assert_eq!(
            show(windows_event(event).unwrap()),
            "\"\" EventID=4625 IpAddress~10.0.0.7 Level=0 TargetUserName~admin host:pc-1 program:Security-Auditing \
             2026-11-21T04:00:00.5Z"
        );
        assert!(windows_event(b"<Event>").is_none());
        assert!(windows_event(b"<Event ><a>1<b").is_none());
    }

    #[test]
    fn text_is_not_taken_for_fields() {
        for line in [
            "a=b",
            "x=1 is not what we want here",
            "the key=value pair",
            "= = =",
            "{",
            "{a}",
            r#"{"a":1} x"#,
            r#"{"a":}"#,
        ] {
            assert!(logfmt(line.as_bytes()).is_none(), "{line}");
            assert!(json(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn json_at_the_end_of_text_is_recognised() {
        let text = br#"[warn][API]: Failed sign-in {"ip":"10.0.0.1","email":"a@b"}"#;
        let shown = show(text_with_json(text).unwrap());
        assert_eq!(shown, r#""[warn][API]: Failed sign-in" email~a@b ip~10.0.0.1"#);
        assert_eq!(show(text_with_json(br#"{"type":"LOGIN"} []"#).unwrap()), "\"\" type=LOGIN");
        assert!(text_with_json(b"no {json} here}").is_none());
    }

    #[test]
    fn wrapped_lines_are_found() {
        let docker = json(br#"{"log":"hello\n","stream":"stderr","time":"2026-11-21T04:00:00.5Z"}"#).unwrap();
        let wrapped = docker.into_wrapped().unwrap();
        assert_eq!((&*wrapped.line, wrapped.partial), (&b"hello"[..], false));
        assert!(matches!(wrapped.line, Cow::Borrowed(_)));
        let journal = br#"{"MESSAGE":[104,105,255],"PRIORITY":"3","_HOSTNAME":"web","SYSLOG_IDENTIFIER":"app","_PID":"7","__REALTIME_TIMESTAMP":"1795233600000001"}"#;
        let wrapped = json(journal).unwrap().into_wrapped().unwrap();
        assert_eq!(&*wrapped.line, b"hi\xff");
        assert_eq!((wrapped.level, wrapped.program), (Some(Level::Error), Some(&b"app"[..])));
        assert_eq!(wrapped.time, Some(Timestamp::from_nanos(1_795_233_600_000_001_000)));
    }

    #[test]
    fn hostile_json_costs_little() {
        let deep = b"{\"a\":".repeat(200_000);
        assert!(json(&deep).is_none());
        let closed = [&b"{\"a\":".repeat(100_000)[..], b"1", &b"}".repeat(100_000)].concat();
        assert!(json(&closed).is_some());
        let brackets = [&b"{\"a\":"[..], &b"[".repeat(500_000), &b"]".repeat(500_000), b"}"].concat();
        assert!(json(&brackets).is_some());
        let members = (0..100).map(|n| format!("\"{n}\":1")).collect::<Vec<_>>().join(",");
        let long = format!("{{\"{}\":{{{members}}}}}", "k".repeat(100_000));
        let fields = json(long.as_bytes()).unwrap().into_fields();
        assert_eq!((fields.fields[0].key.len(), fields.cut), (MAX_KEY + 2, 1));
        let wide = format!("{{{}}}", (0..1000).map(|n| format!("\"k{n}\":{n}")).collect::<Vec<_>>().join(","));
        let fields = json(wide.as_bytes()).unwrap().into_fields();
        assert_eq!((fields.fields.len(), fields.cut), (MAX_FIELDS, 1000 - MAX_FIELDS as u32));
    }
}
