//! Access logs: one request a line.
//!
//! Common and combined format with or without a virtual host before and anything behind, HAProxy, Squid, IIS, AWS load
//! balancers, Gin, uvicorn, and the JSON forms of nginx, Traefik, Caddy and others. Method, route and status class make the template;
//! client, exact status, agent and the rest are slots. Otherwise every new browser would be a new template.

use std::borrow::Cow;

use crate::{
    clock::{self, Moment},
    fields::{Key, Object, Value},
    steps::is_address,
};

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Access<'a> {
    /// The method; part of the template. Empty when the request made no sense.
    pub method: &'a [u8],
    /// The path without its query, ids masked as `<*>`; part of the template.
    pub route: Cow<'a, [u8]>,
    /// The request target as it came; a slot.
    pub target: &'a [u8],
    /// The status; the class (`4xx`) is part of the template, the number is a slot.
    pub status: u16,
    /// Who asked.
    pub client: &'a [u8],
    /// The authenticated user.
    pub user: Option<&'a [u8]>,
    /// The name of the server that was asked.
    pub vhost: Option<&'a [u8]>,
    /// The user agent's family (`Chrome`, `curl`, `Googlebot`); a slot.
    pub agent: &'a [u8],
    /// How long it took, as it came.
    pub duration: Option<&'a [u8]>,
    /// The size of the answer, as it came.
    pub size: Option<&'a [u8]>,
}

/// Reads a request that does not begin with its time; with the time, if there is one.
pub(crate) fn read(text: &[u8]) -> Option<(Access<'_>, Option<Moment>)> {
    match text.first()? {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b':' | b'-' => {}
        _ => return None,
    }
    // Without a quoted request, or a client in front, this is no access line; most lines end here.
    memchr::memchr(b'"', text)?;
    let mut words = Words::of(text);
    let (first, second) = (words.next()?, words.next()?);
    if matches!(first, b"http" | b"https" | b"h2" | b"grpcs" | b"ws" | b"wss") {
        let (moment, _) = clock::read(second)?;
        return Some((balancer(words)?, Some(moment)));
    }
    if let Some(access) = gin(first, text) {
        return Some((access, None));
    }
    let named = is_address(without_port(first)) || second == b"-" || is_address(without_port(second));
    let near = &text[..text.len().min(300)];
    let quote_or_bracket = if named { memchr::memchr2(b'"', b'[', near)? } else { return None };
    if text[quote_or_bracket] == b'"' {
        // `10.0.0.1:51234 - "GET / HTTP/1.1" 200 OK`.
        let mut words = Words::of(&text[..quote_or_bracket]);
        let client = without_port(words.next()?);
        (is_address(client) && words.all(|word| word == b"-")).then_some(())?;
        return Some((common(text, quote_or_bracket, client)?, None));
    }
    let (moment, end) = clock::read(&text[quote_or_bracket + 1..])?;
    let close = quote_or_bracket + 1 + end;
    (moment.has_date() && text.get(close..close + 2) == Some(b"] ")).then_some(())?;
    let before = &text[..quote_or_bracket];
    let mut words = Words::of(before);
    let (first, second) = (words.next()?, words.next());
    let (vhost, client) = match second {
        _ if is_address(without_port(first)) => (None, without_port(first)),
        Some(second) if is_address(without_port(second)) => (Some(first), without_port(second)),
        Some(b"-") => (None, first),
        _ => return None,
    };
    let user = Words::of(before).skip(1).last().filter(|user| *user != b"-" && *user != client && second.is_some());
    let access = match text.get(close + 2) {
        Some(b'"') => common(text, close + 2, client)?,
        _ if second.is_none() => haproxy(&text[close + 2..], client)?,
        _ => return None,
    };
    Some((Access { vhost: vhost.or(access.vhost), user, ..access }, Some(moment)))
}

/// Reads a request behind its time: Squid, IIS and classic load balancers.
pub(crate) fn read_timed(text: &[u8]) -> Option<Access<'_>> {
    let mut words = Words::of(text);
    let whole = Words::of(text);
    let (first, second) = (words.next()?, words.next()?);
    if is_method(second) && is_address(first) {
        return iis(second, words);
    }
    if second.contains(&b':') && is_address(without_port(second)) {
        return balancer(whole);
    }
    // `310 192.0.2.1 TCP_MISS/200 19763 GET http://…`.
    (first.iter().all(u8::is_ascii_digit) && is_address(second)).then_some(())?;
    let (outcome, size, method, target) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let slash = memchr::memchr(b'/', outcome)?;
    let status = status(&outcome[slash + 1..])?;
    (is_method(method) && outcome[..slash].iter().all(|b| b.is_ascii_uppercase() || *b == b'_')).then_some(())?;
    Some(Access { size: Some(size), duration: Some(first), ..Access::new(method, target, status, second) })
}

/// The request that fields describe, if they do and say nothing else.
pub(crate) fn of_fields<'a>(object: &Object<'a>) -> Option<Access<'a>> {
    let text = |key: Key| object.meaning(key).and_then(Value::verbatim).filter(|text| !text.is_empty());
    let status = status(text(Key::Status)?)?;
    let client = text(Key::Client)?;
    let (method, target) = match (text(Key::Method), text(Key::Path)) {
        (Some(method), Some(target)) => (method, target),
        _ => request(text(Key::Request)?)?,
    };
    let message = object.message().unwrap_or_default();
    let says_no_more = message.is_empty()
        || message.len() <= 40 && memchr::memmem::find(&message.to_ascii_lowercase(), b"request").is_some();
    (is_method(method) && says_no_more).then_some(())?;
    Some(Access {
        user: text(Key::User).filter(|user| *user != b"-"),
        vhost: text(Key::Vhost),
        agent: text(Key::Agent).map(family).unwrap_or_default(),
        duration: text(Key::Duration),
        size: text(Key::Size),
        ..Access::new(method, target, status, without_port(client))
    })
}

impl<'a> Access<'a> {
    fn new(method: &'a [u8], target: &'a [u8], status: u16, client: &'a [u8]) -> Self {
        let route = if method == b"CONNECT" { Cow::Borrowed(&b"<*>"[..]) } else { route(target) };
        Self { method, route, target, status, client, user: None, vhost: None, agent: b"", duration: None, size: None }
    }
}

/// `"request" status size "referer" "agent" …`, from the quote at `at` on.
fn common<'a>(text: &'a [u8], at: usize, client: &'a [u8]) -> Option<Access<'a>> {
    let (line, end) = quoted(text, at)?;
    let mut words = Words::of(text.get(end..)?);
    let code = words.next()?;
    // Nothing was answered: the client hung up.
    let status = status(code).or_else(|| (code == b"-").then_some(0))?;
    let size = words.next().filter(|size| size.iter().all(u8::is_ascii_digit));
    let mut rest = words.rest;
    // The second quoted part is the agent, the first the page that one came from.
    let mut agent = &b""[..];
    for _ in 0..2 {
        let Some(at) = memchr::memchr(b'"', rest) else { break };
        let Some((part, end)) = quoted(rest, at) else { break };
        agent = part;
        rest = &rest[end..];
    }
    let (method, target) = request(line).unwrap_or((b"", line));
    let last = Words::of(rest).last().filter(|word| word.ends_with(b"ms") && word[0].is_ascii_digit());
    let access = Access { size, agent: family(agent), duration: last, ..Access::new(method, target, status, client) };
    Some(if method.is_empty() { Access { route: Cow::Borrowed(b"-"), ..access } } else { access })
}

/// `frontend backend/server 0/0/7/1457/1487 200 11394 - - ---- 2/1/0/0/0 0/0 {…} "GET / HTTP/1.1"`.
fn haproxy<'a>(text: &'a [u8], client: &'a [u8]) -> Option<Access<'a>> {
    let mut words = Words::of(text);
    let (frontend, backend, timers, code, size) =
        (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let slashes = timers.iter().filter(|b| **b == b'/').count();
    (slashes >= 3 && backend.contains(&b'/')).then_some(())?;
    let status = status(code).or_else(|| (code == b"-1").then_some(0))?;
    let at = memchr::memchr(b'"', words.rest)?;
    let (line, _) = quoted(words.rest, at).unwrap_or((&words.rest[at + 1..], 0));
    let (method, target) = request(line).unwrap_or((b"", line));
    let duration = timers.rsplit(|b| *b == b'/').next();
    Some(Access { size: Some(size), duration, vhost: Some(frontend), ..Access::new(method, target, status, client) })
}

/// `name client:port target:port 0.086 0.048 0.037 200 200 0 57 "GET https://… HTTP/1.1" "agent" …`.
fn balancer(mut words: Words<'_>) -> Option<Access<'_>> {
    let (_name, client, _target) = (words.next()?, without_port(words.next()?), words.next()?);
    let (_request, duration, _response) = (words.next()?, words.next()?, words.next()?);
    let status = status(words.next()?)?;
    let (_target_status, _received, size) = (words.next()?, words.next()?, words.next()?);
    let (line, end) = quoted(words.rest, memchr::memchr(b'"', words.rest)?)?;
    let agent = words.rest.get(end..).and_then(|rest| quoted(rest, memchr::memchr(b'"', rest)?));
    let (method, target) = request(line)?;
    is_address(client).then_some(())?;
    let agent = agent.map_or(&b""[..], |(agent, _)| family(agent));
    Some(Access { size: Some(size), duration: Some(duration), agent, ..Access::new(method, target, status, client) })
}

/// `/path query port user client agent … status substatus win32 … time`, behind server address and method.
fn iis<'a>(method: &'a [u8], mut words: Words<'a>) -> Option<Access<'a>> {
    let target = words.next()?;
    target.starts_with(b"/").then_some(())?;
    let (_query, _port, user, client) = (words.next()?, words.next()?, words.next()?, words.next()?);
    is_address(client).then_some(())?;
    let agent = words.next().unwrap_or_default();
    // The numbers at the end begin with the status.
    let mut numbers: Option<u16> = None;
    let mut duration = None;
    for word in words {
        let number = word.iter().all(u8::is_ascii_digit);
        numbers = if number { numbers.or_else(|| status(word)) } else { None };
        duration = Some(word).filter(|_| number);
    }
    let user = Some(user).filter(|user| *user != b"-");
    Some(Access { user, duration, agent: family(agent), ..Access::new(method, target, numbers?, client) })
}

/// `401 |  505.3µs |  10.1.2.3 | POST  "/client"`.
fn gin<'a>(first: &[u8], text: &'a [u8]) -> Option<Access<'a>> {
    let status = status(first)?;
    let mut parts = text[3..].splitn(5, |b| *b == b'|').map(<[u8]>::trim_ascii);
    (parts.next()?.is_empty()).then_some(())?;
    let (duration, client, request) = (parts.next()?, parts.next()?, parts.next()?);
    let end = request.iter().position(|b| *b == b' ')?;
    let (method, target) = (&request[..end], request[end..].trim_ascii());
    let target = target.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")).unwrap_or(target);
    (is_method(method) && is_address(client)).then_some(())?;
    Some(Access { duration: Some(duration), ..Access::new(method, target, status, client) })
}

/// Method and target of a request line.
fn request(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = memchr::memchr(b' ', line)?;
    let method = &line[..blank];
    let rest = &line[blank + 1..];
    let target = match memchr::memrchr(b' ', rest) {
        Some(at) if rest[at + 1..].starts_with(b"HTTP") => &rest[..at],
        _ => rest,
    };
    (is_method(method) && !target.is_empty()).then_some((method, target))
}

fn is_method(word: &[u8]) -> bool {
    (3..=16).contains(&word.len()) && word.iter().all(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_'))
}

/// The text between the quote at `at` and its end, and what follows; `\"` is part of the text.
fn quoted(text: &[u8], at: usize) -> Option<(&[u8], usize)> {
    (text.get(at) == Some(&b'"')).then_some(())?;
    let mut end = at + 1;
    loop {
        end += memchr::memchr2(b'"', b'\\', text.get(end..)?)?;
        if text[end] == b'"' {
            return Some((&text[at + 1..end], end + 1));
        }
        end += 2;
    }
}

fn status(word: &[u8]) -> Option<u16> {
    let [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = word else { return None };
    Some(u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'))
}

/// `10.0.0.1` of `10.0.0.1:80`, and `::1` of `[::1]:80`.
fn without_port(address: &[u8]) -> &[u8] {
    if let Some(rest) = address.strip_prefix(b"[") {
        return rest.iter().position(|b| *b == b']').map_or(address, |close| &rest[..close]);
    }
    match address.iter().position(|b| *b == b':') {
        Some(colon) if memchr::memchr(b':', &address[colon + 1..]).is_none() => &address[..colon],
        _ => address,
    }
}

/// Most segments of a path that a route keeps.
const MAX_SEGMENTS: usize = 8;

/// The path of a request target, with its ids masked.
fn route(target: &[u8]) -> Cow<'_, [u8]> {
    let mut path = target;
    if let Some(scheme) = memchr::memmem::find(&target[..target.len().min(16)], b"://") {
        let host = &target[scheme + 3..];
        path = memchr::memchr(b'/', host).map_or(&b"/"[..], |slash| &host[slash..]);
    }
    let end = path.iter().position(|b| matches!(b, b'?' | b'#' | b';')).unwrap_or(path.len());
    let path = &path[..end];
    let varies = |segment: &[u8]| varies(segment);
    let segments = || path.split(|b| *b == b'/').skip(1);
    if path.len() <= 256 && segments().count() <= MAX_SEGMENTS && !segments().any(varies) {
        return Cow::Borrowed(path);
    }
    let mut out = Vec::with_capacity(path.len().min(256));
    for (number, segment) in segments().enumerate() {
        out.push(b'/');
        if number == MAX_SEGMENTS || out.len() + segment.len().min(40) > 256 {
            out.extend_from_slice(b"<*>");
            break;
        }
        if varies(segment) {
            out.extend_from_slice(b"<*>");
            out.extend_from_slice(extension(segment));
        } else {
            out.extend_from_slice(segment);
        }
    }
    Cow::Owned(out)
}

/// Whether a segment of a path is an id rather than a name: names have few digits (`v2`, `oauth2`, `log4j.properties`).
fn varies(segment: &[u8]) -> bool {
    let digits = segment.iter().filter(|b| b.is_ascii_digit()).count();
    let strange =
        segment.iter().any(|b| matches!(b, b'=' | b'@' | b',' | b'<' | b'>' | b'"' | b'\\') || !b.is_ascii_graphic());
    digits >= 3 || digits * 2 > segment.len() || segment.len() > 40 || strange
}

/// `.png` of `photo123.png`.
fn extension(segment: &[u8]) -> &[u8] {
    match segment.iter().rposition(|b| *b == b'.') {
        Some(dot)
            if (2..=6).contains(&(segment.len() - dot)) && segment[dot + 1..].iter().all(u8::is_ascii_lowercase) =>
        {
            &segment[dot..]
        }
        _ => b"",
    }
}

/// The family of a user agent: the most telling of its products.
fn family(agent: &[u8]) -> &[u8] {
    let agent = &agent[..agent.len().min(400)];
    if agent == b"-" {
        return b"";
    }
    let mut best: (u8, &[u8]) = (0, b"");
    for slash in memchr::memchr_iter(b'/', agent) {
        let from = agent[..slash].iter().rposition(|b| matches!(b, b' ' | b';' | b'(' | b'+' | b',' | b':' | b'/'));
        let product = &agent[from.map_or(0, |at| at + 1)..slash];
        let rank = match product {
            b"Edg" | b"Edge" | b"EdgA" | b"OPR" | b"Vivaldi" | b"SamsungBrowser" | b"YaBrowser" => 6,
            b"Firefox" | b"FxiOS" => 5,
            b"Chrome" | b"HeadlessChrome" | b"CriOS" | b"Chromium" => 4,
            b"Safari" | b"Trident" | b"MSIE" => 3,
            b"Mozilla" | b"AppleWebKit" | b"Gecko" | b"Version" | b"Mobile" | b"KHTML" => 1,
            _ if holds_bot(product) => 8,
            _ if from.is_none() => 7,
            _ => 0,
        };
        if rank > best.0 {
            best = (rank, product);
        }
    }
    if best.0 == 0 {
        let end = agent
            .iter()
            .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')))
            .unwrap_or(agent.len());
        return &agent[..end.min(40)];
    }
    &best.1[..best.1.len().min(40)]
}

fn holds_bot(product: &[u8]) -> bool {
    product.windows(3).any(|w| matches!(w, b"bot" | b"Bot"))
        || product.windows(6).any(|w| matches!(w, b"spider" | b"Spider" | b"rawler"))
}

/// Words between blanks; the rest can be looked at.
#[derive(Clone)]
struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    fn of(text: &'a [u8]) -> Self {
        Self { rest: text }
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let from = self.rest.iter().position(|b| !matches!(b, b' ' | b'\t'))?;
        let rest = &self.rest[from..];
        let end = memchr::memchr2(b' ', b'\t', rest).unwrap_or(rest.len());
        self.rest = &rest[end..];
        Some(&rest[..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(access: &Access<'_>) -> String {
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        let mut out =
            format!("{} {} {} from {}", text(access.method), text(&access.route), access.status, text(access.client));
        for (name, part) in [
            ("user", access.user),
            ("vhost", access.vhost),
            ("agent", Some(access.agent).filter(|a| !a.is_empty())),
            ("took", access.duration),
            ("size", access.size),
        ] {
            out += &part.map_or(String::new(), |part| format!(" {name}:{}", text(part)));
        }
        out
    }

    #[test]
    fn access_lines_are_taken_apart() {
        for (line, expected) in [
            (
                r#"10.0.0.7 - alice [21/Nov/2026:04:00:00 +0100] "GET /users/1234/photo.png?size=2 HTTP/1.1" 200 512 "-" "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36""#,
                "GET /users/<*>/photo.png 200 from 10.0.0.7 user:alice agent:Chrome size:512",
            ),
            (
                r#"shop.example 2001:db8::7 - - [21/Nov/2026:04:00:00 +0100] "POST /api/v2/login HTTP/2.0" 401 0 "https://shop.example/" "curl/8.5.0" "-""#,
                "POST /api/v2/login 401 from 2001:db8::7 vhost:shop.example agent:curl size:0",
            ),
            (
                r#"10.0.0.7 - - [21/Nov/2026:04:00:00 +0100] "\x16\x03\x01" 400 226 "-" "-""#,
                " - 400 from 10.0.0.7 size:226",
            ),
            (
                r#"10.0.0.7 - - [21/Nov/2026:04:00:00 +0000] "GET /x HTTP/1.1" 200 414 "-" "-" 500 "test@docker" "http://10.0.0.3:80" 7ms"#,
                "GET /x 200 from 10.0.0.7 took:7ms size:414",
            ),
            (
                r#"10.0.0.7:55032 [21/Nov/2026:04:00:00.885] front~ back/web 0/0/0/169/170 404 1541 - - ---- 5/6/9/1/0 0/0 "PROPFIND /a HTTP/1.1""#,
                "PROPFIND /a 404 from 10.0.0.7 vhost:front~ took:170 size:1541",
            ),
            (r#"10.0.0.7:51234 - "GET /health HTTP/1.1" 200 OK"#, "GET /health 200 from 10.0.0.7"),
            (
                r#"401 |     505.317µs |       10.0.0.7 | POST     "/client""#,
                "POST /client 401 from 10.0.0.7 took:505.317µs",
            ),
            (
                r#"crawler.example - - [21/Nov/2026:04:00:00 +0000] "GET / HTTP/1.1" 200 1 "-" "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)""#,
                "GET / 200 from crawler.example agent:Googlebot size:1",
            ),
        ] {
            let (access, _) = read(line.as_bytes()).unwrap();
            assert_eq!(show(&access), expected, "{line}");
        }
        for (line, expected) in [
            (
                "   310 10.0.0.7 TCP_MISS/200 19763 GET http://example.com/a/b?c - DIRECT/10.0.0.9 text/html",
                "GET /a/b 200 from 10.0.0.7 took:310 size:19763",
            ),
            (
                " 10.0.0.1 GET /default.aspx - 443 - 10.0.0.7 Mozilla/5.0+(Windows)+Firefox/120.0 - 404 0 2 15",
                "GET /default.aspx 404 from 10.0.0.7 agent:Firefox took:15",
            ),
        ] {
            assert_eq!(show(&read_timed(line.as_bytes()).unwrap()), expected, "{line}");
        }
    }

    #[test]
    fn other_lines_are_left_alone() {
        for line in [
            r#"10.0.0.7 "GET /v2/x HTTP/1.1" status: 200 len: 1893 time: 0.2"#,
            "10.0.0.7 connected",
            r#"user "root" logged in"#,
            "[21/Nov/2026:04:00:00 +0100] x",
            r#"10.0.0.7 - - [yesterday] "GET / HTTP/1.1" 200 5"#,
        ] {
            assert!(read(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn routes_lose_their_ids() {
        for (target, expected) in [
            ("/", "/"),
            ("/a/b/", "/a/b/"),
            ("/orders/550e8400-e29b-41d4-a716-446655440000/items", "/orders/<*>/items"),
            ("/img/photo-20261121.png?x=1", "/img/<*>.png"),
            ("https://example.com", "/"),
            ("https://example.com/a?b", "/a"),
            ("/oauth2/v1/token", "/oauth2/v1/token"),
            ("/1/2/3/4/5/6/7/8/9/10", "/<*>/<*>/<*>/<*>/<*>/<*>/<*>/<*>/<*>"),
        ] {
            assert_eq!(String::from_utf8_lossy(&route(target.as_bytes())), expected, "{target}");
        }
    }
}
