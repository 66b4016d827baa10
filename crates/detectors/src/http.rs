//! Reads a request from an access log line of any usual form, with its escapes undone.

use std::{borrow::Cow, fmt::Write as _, sync::LazyLock};

use memchr::memmem::{self, Finder};

use crate::address;

/// Longest request text that is looked at.
const MAX_BYTES: usize = 4096;

/// A request as a line of an access log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// What rules look at: `GET /a b?c=d 404 "agent" "referer"`, escapes undone.
    pub(crate) text: String,
    /// The status of the answer.
    pub(crate) status: u16,
    /// Who asked.
    pub(crate) client: Option<String>,
    /// Whether it was for somebody else: a request through a proxy, or one that takes us for one.
    pub(crate) proxied: bool,
    /// Whether the line has the usual form of an access log, in which a client can write much but no message of ours.
    pub(crate) classic: bool,
}

const METHODS: &[&str] =
    &["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PROPFIND", "PROPPATCH", "MKCOL"];

/// Names of fields with the address of the client.
const CLIENTS: &[&str] = &[
    "ClientHost",
    "ClientAddr",
    "client_ip",
    "clientIp",
    "clientip",
    "remote_ip",
    "remoteIp",
    "remote_addr",
    "remoteAddr",
    "remote_address",
    "remoteAddress",
    "source_ip",
    "sourceIp",
    "client",
    "ip",
];

/// What could be the status of a request in a line: numbers of three digits that stand alone, each once. Cheap, and never
/// too few.
pub(crate) fn statuses(line: &[u8]) -> Vec<u16> {
    let alone =
        |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'.' | b'/'));
    let mut statuses = Vec::new();
    let mut from = 0;
    while let Some(begin) = line.get(from..).and_then(|rest| rest.iter().position(u8::is_ascii_digit)) {
        let begin = from + begin;
        let digits = line[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        from = begin + digits;
        let before = begin.checked_sub(1).and_then(|before| line.get(before));
        if digits == 3 && alone(before) && alone(line.get(from)) {
            let status = line[begin..from].iter().fold(0, |status, digit| 10 * status + u16::from(*digit - b'0'));
            if !statuses.contains(&status) {
                statuses.push(status);
            }
        }
    }
    statuses
}

/// Whether [`request`] may find one. Cheap, and never wrong when it says no.
pub(crate) fn may_be_request(line: &[u8]) -> bool {
    static MARKS: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| ["HTTP/", "] \""].map(Finder::new));
    MARKS.iter().any(|mark| mark.find(line).is_some()) || has_status_field(line) || method_in(line).is_some()
}

/// Whether a key that ends in `status`, `statusCode`, `status_code` or `code` has a value.
fn has_status_field(line: &[u8]) -> bool {
    static KEYS: LazyLock<[Finder<'static>; 2]> = LazyLock::new(|| ["tatus", "code"].map(Finder::new));
    let ends = KEYS.iter().flat_map(|key| key.find_iter(line).map(|at| at + key.needle().len()));
    ends.into_iter().any(|end| {
        let after = line.get(end..).unwrap_or_default();
        let mut after = after.iter().skip_while(|byte| byte.is_ascii_alphabetic() || **byte == b'_').peekable();
        after.next_if(|byte| **byte == b'"');
        after.find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| matches!(byte, b':' | b'='))
    })
}

/// The request that `line` tells about, if it is a line of an access log.
pub(crate) fn request(line: &str) -> Option<Request> {
    classic(line).or_else(|| structured(line)).or_else(|| iis(line)).or_else(|| plain(line))
}

/// `… "GET /path HTTP/1.1" 404 …`, or any other text in the quotes when a time in brackets stands before it.
fn classic(line: &str) -> Option<Request> {
    let mut from = 0;
    for _ in 0..8 {
        let open = from + line[from..].find('"')?;
        let close = open + 1 + closing_quote(&line[open + 1..])?;
        let quoted = &line[open + 1..close];
        let after_time = line[..open].trim_end().ends_with(']');
        let method = method_of(quoted);
        if method.is_some() || after_time {
            let rest = line[close + 1..].trim_start();
            let status = rest.get(..3).and_then(|s| s.parse::<u16>().ok()).filter(|s| (100..600).contains(s));
            let ends = rest.as_bytes().get(3).is_none_or(|b| !b.is_ascii_alphanumeric());
            // Some put the status before the request: `… 404 0 "GET / HTTP/1.1"`.
            let status = status.filter(|_| ends).or_else(|| method.and_then(|_| status_before(&line[..open])));
            if let Some(status) = status {
                let mut request = build(quoted, status, &line[close + 1..], true, client_before(&line[..open]));
                // Load balancers write whole URLs, too, but no time in brackets.
                request.proxied |= after_time && quoted.split(' ').nth(1).is_some_and(is_url);
                return Some(request);
            }
        }
        from = close + 1;
    }
    None
}

/// The first address before the request: who asked. A load balancer's own comes after it, a virtual host is none.
fn client_before(head: &str) -> Option<String> {
    head.split([' ', '\t', '|', ',']).find_map(address::canonical)
}

/// The last three-digit status among the words before the request.
fn status_before(head: &str) -> Option<u16> {
    let words = || head.rsplit([' ', '|', '\t']).filter(|w| !w.is_empty()).take(16);
    // HAProxy: `0/0/1/2/3 404 212 - - ---- 1/1/0/0/0 0/0 "GET / HTTP/1.1"`.
    let timers = |word: &str| word.bytes().filter(|b| *b == b'/').count() >= 3;
    let behind_timers = words().zip(words().skip(1)).find(|(word, before)| timers(before) && status(word).is_some());
    behind_timers.map_or_else(|| words().take(8).find_map(status), |(word, _)| status(word))
}

fn is_url(target: &str) -> bool {
    let scheme = target.get(..8).unwrap_or(target).to_ascii_lowercase();
    scheme.starts_with("http://") || scheme.starts_with("https://")
}

fn status(word: &str) -> Option<u16> {
    (word.len() == 3).then(|| word.parse().ok().filter(|s| (100..600).contains(s))).flatten()
}

/// `{"method":"GET","uri":"/path","status":404}`, `method=GET path=/ status=404` and their cousins.
fn structured(line: &str) -> Option<Request> {
    let status =
        field(line, &["DownstreamStatus", "httpStatus", "status_code", "statusCode", "http_status", "status", "code"])?;
    let status = status.parse::<u16>().ok().filter(|s| (100..600).contains(s))?;
    let target = field(line, &["RequestPath", "http_path", "request_uri", "uri", "path", "url", "target"]);
    let method = field(line, &["RequestMethod", "http_method", "request_method", "method", "verb"]);
    let (method, target) = match (method, target) {
        (Some(method), Some(target)) => (method, target),
        _ => {
            // `msg="HTTP: POST http://host/login" httpStatus=401`, `"request":"GET / HTTP/1.1"`
            let (at, _) = method_in(line.as_bytes())?;
            let mut words = line[at..].split([' ', '"']).filter(|w| !w.is_empty());
            (words.next()?, words.next()?)
        }
    };
    let agent =
        field(line, &["request_User-Agent", "User-Agent", "user_agent", "userAgent", "http_user_agent", "agent"]);
    let tail = format!("\"{}\"", agent.unwrap_or("-"));
    let client = field(line, CLIENTS).and_then(address::canonical).or_else(|| address::client(line));
    Some(build(&format!("{method} {target}"), status, &tail, false, client))
}

/// `date time server GET /path query port user client agent referrer status …`: the usual fields of IIS.
fn iis(line: &str) -> Option<Request> {
    let mut words = line.split(' ');
    let (date, time, server) = (words.next()?, words.next()?, words.next()?);
    let shape = date.len() == 10 && time.len() == 8 && time.as_bytes().get(2) == Some(&b':');
    (shape && address::canonical(server).is_some()).then_some(())?;
    let (method, stem, query) = (words.next().filter(|m| METHODS.contains(m))?, words.next()?, words.next()?);
    let (_port, _user, client, agent) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let status = words.take(3).find_map(status)?;
    let target = if query == "-" { stem.to_owned() } else { format!("{stem}?{query}") };
    let agent = agent.replace('+', " ");
    Some(build(&format!("{method} {target}"), status, &format!("\"{agent}\""), true, address::canonical(client)))
}

/// `… [useragent: x] GET /path 404`, `… | 404 | 1ms | 192.0.2.1 | POST "/path"`.
fn plain(line: &str) -> Option<Request> {
    let (at, method) = method_in(line.as_bytes())?;
    let mut words = line[at + method.len()..].split_ascii_whitespace();
    let target = words.next()?.trim_matches('"');
    if !target.starts_with('/') {
        return None;
    }
    // `GET /path took 8ms and returned 401`.
    let after = words.take(6).find_map(status);
    let status = after.or_else(|| status_before(&line[..at]))?;
    let agent = line.find("useragent:").and_then(|at| line[at + 10..].split(']').next()).unwrap_or("-").trim();
    let client = address::client(&line[..at]).or_else(|| address::client(line));
    Some(build(&format!("{method} {target}"), status, &format!("\"{agent}\""), true, client))
}

fn build(quoted: &str, status: u16, tail: &str, classic: bool, client: Option<String>) -> Request {
    let request = cut(quoted.trim());
    let request = request.rsplit_once(" HTTP/").map_or(request, |(head, _)| head);
    let mut text = String::with_capacity(request.len() + tail.len().min(MAX_BYTES) + 8);
    text.push_str(&unescape(request));
    let _ = write!(text, " {status}");
    let text_start = text.len() - text.trim_start().len();
    text.drain(..text_start);
    for piece in cut(tail).split('"').skip(1).step_by(2).take(4) {
        text.push_str(" \"");
        text.push_str(&unescape(piece));
        text.push('"');
    }
    let proxied = text.starts_with("CONNECT ");
    Request { text, status, client, proxied, classic }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_BYTES)]
}

fn method_of(quoted: &str) -> Option<&'static str> {
    let word = quoted.split(' ').next()?;
    METHODS.iter().copied().find(|m| *m == word)
}

/// The first of the methods, in their order, that stands in a line as a word.
fn method_in(line: &[u8]) -> Option<(usize, &'static str)> {
    static WORDS: LazyLock<Vec<Finder<'static>>> = LazyLock::new(|| METHODS.iter().map(Finder::new).collect());
    METHODS.iter().zip(&*WORDS).find_map(|(method, word)| {
        let stands = |at: &usize| {
            let before = at.checked_sub(1).is_none_or(|i| !line[i].is_ascii_alphanumeric());
            before && line.get(at + method.len()) == Some(&b' ')
        };
        Some((word.find_iter(line).find(stands)?, *method))
    })
}

fn closing_quote(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(b) = bytes.get(at) {
        match b {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// The value of the first of `keys` in JSON (`"key":"value"`) or logfmt (`key=value`).
pub(crate) fn field<'a>(line: &'a str, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| {
        memmem::find_iter(line.as_bytes(), key).find_map(|at| {
            let before = at.checked_sub(1).map_or(b' ', |i| line.as_bytes()[i]);
            if before.is_ascii_alphanumeric() || matches!(before, b'_' | b'-' | b'.') {
                return None;
            }
            let rest = line[at + key.len()..].strip_prefix('"').unwrap_or(&line[at + key.len()..]).trim_start();
            let rest = rest.strip_prefix([':', '='])?.trim_start();
            match rest.strip_prefix('"') {
                Some(quoted) => Some(&quoted[..closing_quote(quoted)?]),
                None => rest.split([' ', ',', '}', ']']).next(),
            }
        })
    })
}

/// Undoes percent and backslash escapes, at most twice, so that what was hidden twice shows.
pub(crate) fn unescape(text: &str) -> Cow<'_, str> {
    let mut out = Cow::Borrowed(text);
    for _ in 0..3 {
        if memchr::memchr2(b'%', b'\\', out.as_bytes()).is_none() {
            break;
        }
        let next = unescape_once(&out);
        if *next == *out {
            break;
        }
        out = Cow::Owned(next);
    }
    out
}

fn unescape_once(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let (taken, byte) = match bytes[at..] {
            // What should be one byte, written as two: no honest client does, but some servers took it for a slash.
            [b'%', b'c' | b'C', bit @ (b'0' | b'1'), b'%', high, low, ..] => {
                let rest = hex(high, low).filter(|byte| (0x80..0xc0).contains(byte));
                (6, rest.map(|byte| ((bit - b'0') << 6) | (byte & 0x3f)))
            }
            [b'%', high, low, ..] => (3, hex(high, low)),
            [b'\\', b'x', high, low, ..] => (4, hex(high, low)),
            [b'\\', b'u', b'0', b'0', high, low, ..] => (6, hex(high, low)),
            [b'\\', b'"', ..] => (2, Some(b'"')),
            _ => (1, None),
        };
        match byte {
            Some(byte) => {
                out.push(if byte.is_ascii_control() { b' ' } else { byte });
                at += taken;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, text: &str, status: u16) {
        let request = request(line).unwrap_or_else(|| panic!("no request in {line}"));
        assert!(may_be_request(line.as_bytes()), "not seen at a glance in {line}");
        assert_eq!((request.text.as_str(), request.status), (text, status));
    }

    #[test]
    fn reads_the_usual_forms() {
        check(
            r#"192.0.2.1 - bob [21/Nov/2026:04:00:00 +0000] "GET /a%20b?c=%2e%2e HTTP/1.1" 404 12 "-" "curl/8""#,
            r#"GET /a b?c=.. 404 "-" "curl/8""#,
            404,
        );
        check(
            r#"192.0.2.1 - - [21/Nov/2026:04:00:00 +0000] "\x16\x03\x01" 400 226 "-" "-""#,
            r#"    400 "-" "-""#.trim_start_matches(' ').trim_start(),
            400,
        );
        check(
            r#"{"level":"info","request":{"remote_ip":"192.0.2.1","method":"POST","uri":"/login"},"status":401}"#,
            r#"POST /login 401 "-""#,
            401,
        );
        check(r#"{"msg":"request","uri":"/login","method":"POST","code":401}"#, r#"POST /login 401 "-""#, 401);
        check(
            r#"[GIN] 2026/02/07 - 10:49:33 | 401 |  505µs |  10.1.2.3 | POST     "/client""#,
            r#"POST /client 401 "-""#,
            401,
        );
        check(
            r#"time="t" level=warning msg="HTTP: POST http://h/auth/login" httpStatus=401"#,
            r#"POST http://h/auth/login 401 "-""#,
            401,
        );
        check(
            "2026-11-21 04:00:00 192.0.2.1 GET /a.aspx id=1 443 - 203.0.113.7 curl/8+x - 404 0 2 15",
            r#"GET /a.aspx?id=1 404 "curl/8 x""#,
            404,
        );
        check(
            r#"haproxy[9]: 203.0.113.7:4711 [21/Nov/2026:04:00:00.123] fe be/srv 0/0/1/2/3 404 212 - - ---- 1/1/0/0/0 0/0 "GET /x HTTP/1.1""#,
            "GET /x 404",
            404,
        );
        check(
            "[info] AccessLogFilter [1e6|29] 203.0.113.7 POST /login took 8ms and returned 401 65 bytes",
            r#"POST /login 401 "-""#,
            401,
        );
        check("10:00 [client: 192.0.2.1] [useragent: zgrab/0.x] GET /ecp/x 444", r#"GET /ecp/x 444 "zgrab/0.x""#, 444);
    }

    #[test]
    fn knows_who_asked() {
        for line in [
            r#"203.0.113.7 - bob [21/Nov/2026:04:00:00 +0000] "GET / HTTP/1.1" 200 1"#,
            r#"example.org 203.0.113.7 - - [21/Nov/2026:04:00:00 +0000] "GET / HTTP/1.1" 200 1"#,
            r#"https 2026-11-21T04:00:00.1Z app/lb/1 203.0.113.7:44740 192.0.2.1:80 0.1 0.1 0.1 200 200 0 57 "GET https://a:443/x HTTP/1.1" "curl/8""#,
            r#"haproxy[9]: 203.0.113.7:4711 [21/Nov/2026:04:00:00.123] fe be/srv 0/0/1/2/3 404 212 - - ---- 1/1/0/0/0 0/0 "GET /x HTTP/1.1""#,
            r#"{"ClientAddr":"203.0.113.7:39490","DownstreamStatus":404,"RequestMethod":"GET","RequestPath":"/x"}"#,
            r#"{"request":{"remote_ip":"203.0.113.7","method":"POST","uri":"/login"},"status":401}"#,
            "2026-11-21 04:00:00 192.0.2.1 GET /a - 443 - 203.0.113.7 curl/8 - 404 0 2 15",
            r#"[GIN] 2026/02/07 - 10:49:33 | 401 |  505µs |  203.0.113.7 | POST     "/client""#,
        ] {
            assert_eq!(request(line).and_then(|r| r.client).as_deref(), Some("203.0.113.7"), "{line}");
        }
    }

    #[test]
    fn other_lines_are_no_requests() {
        for line in [
            "Failed password for root from 203.0.113.7 port 22 ssh2",
            r#"2026/11/21 04:00:00 [error] 7#7: *1 connect() failed, request: "GET / HTTP/1.1", upstream: "http://u""#,
            "GET READY for the show",
            "\"\"\"\\",
        ] {
            assert_eq!(request(line), None, "{line}");
        }
    }
}
