//! Takes secrets out of what is kept and of what leaves.
//!
//! One pass of an automaton looks for the words and prefixes that secrets come with; only where one occurs does a scanner
//! look closer. A secret becomes a typed placeholder with a short keyed hash, `[redacted token 3fa9c1]`: equal secrets
//! stay recognisable as equal, under the same key, and nobody without the key can test guesses. All other bytes stay as
//! they are.
//!
//! What it cannot know: a password typed as a user name, a secret in plain words, a key line far from its `BEGIN`.

mod card;
mod message;
mod named;
mod scan;
mod token;

use std::{
    borrow::Cow,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aho_corasick::{AhoCorasick, MatchKind};
use logwarden_detectors::Finding;
use logwarden_templates::{Row, Sample, SlotValue};
use regex::bytes::{Regex, RegexBuilder};

use crate::segment::SegmentRow;

/// How a placeholder begins.
const MARK: &str = "[redacted ";
/// Bytes of a template around a slot that decide whether its values are secret.
const CONTEXT: usize = 64;
/// Shorter secrets are not looked for elsewhere in their row: they would be found in innocent words.
const SHORTEST_SHARED: usize = 6;

/// A user's pattern that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the redaction pattern number {number} cannot be used: {message}")]
pub struct PatternError {
    /// Which, from 1.
    pub number: usize,
    /// What is wrong.
    pub message: String,
}

/// Finds secrets and puts typed placeholders in their place.
#[derive(Debug)]
pub struct Redactor {
    key: [u8; 32],
    gate: AhoCorasick,
    probes: Vec<Probe>,
    user: Vec<Regex>,
    redactions: AtomicU64,
}

/// What to look at where a literal occurs.
#[derive(Clone, Copy, Debug)]
enum Probe {
    Token(&'static token::Token),
    Jwt,
    PrivateKey,
    TelegramBot,
    Hook(&'static token::Hook),
    Name(named::Name),
    Header,
    Cookie,
    Scheme,
    Userinfo(named::Slashes),
    Dsn,
    IdentifiedBy,
}

/// A secret's place, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    range: Range<usize>,
    kind: &'static str,
}

impl Redactor {
    /// A redactor whose placeholders' hashes hang on `key`; keep it secret, and the same as long as placeholders should
    /// stay comparable. `user_patterns` are regular expressions: what they match is redacted, or their first group.
    ///
    /// # Errors
    ///
    /// When one of the user's patterns is not a regular expression.
    pub fn new(key: u64, user_patterns: &[String]) -> Result<Self, PatternError> {
        let mut user = Vec::new();
        for (number, pattern) in (1..).zip(user_patterns) {
            let regex = RegexBuilder::new(pattern).size_limit(1 << 20).dfa_size_limit(1 << 20).build();
            user.push(regex.map_err(|error| PatternError { number, message: error.to_string() })?);
        }
        let (literals, probes): (Vec<&str>, Vec<Probe>) = probes().unzip();
        let gate = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(literals)
            .map_err(|error| PatternError { number: 0, message: error.to_string() })?;
        let mut hasher = blake3::Hasher::new_derive_key("logwarden redaction placeholder 1");
        hasher.update(&key.to_le_bytes());
        Ok(Self { key: *hasher.finalize().as_bytes(), gate, probes, user, redactions: AtomicU64::new(0) })
    }

    /// The text without secrets; borrowed when there are none.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.redact_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            // A user's pattern may have cut a character in two; then its pieces are shown as such.
            Cow::Owned(bytes) => Cow::Owned(
                String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()),
            ),
        }
    }

    /// The bytes without secrets; everything else stays as it is, also what is not UTF-8.
    pub fn redact_bytes<'t>(&self, bytes: &'t [u8]) -> Cow<'t, [u8]> {
        let spans = self.spans(bytes);
        if spans.is_empty() {
            return Cow::Borrowed(bytes);
        }
        Cow::Owned(self.replace(bytes, &spans))
    }

    /// Redacts what is kept of a row: samples, template, values. Returns how many secrets there were.
    ///
    /// A value is judged by what stands around its slot: the template says `password=<*>`, the value alone says nothing.
    pub fn redact_row(&self, row: &mut Row) -> u64 {
        let before = self.redactions();
        let mut secrets: Vec<(Vec<u8>, &'static str)> = Vec::new();
        let redacted = |mut sample: Sample| {
            self.redact_sample(&mut sample, &mut secrets);
            sample
        };
        row.samples = row.samples.iter().map(redacted).collect();
        let template = row.template.clone();
        let suspicious = self.gate.is_match(&*template);
        let holes = if suspicious { holes(&template) } else { Vec::new() };
        for slot in &mut row.slots {
            let sensitive = named::is_sensitive(slot.key.as_bytes());
            let hole = holes.get(usize::from(slot.position));
            let mut values: Vec<SlotValue<'_>> = slot.values.iter().collect();
            for value in &mut values {
                let text = value.value.as_bytes();
                let spans = match hole {
                    _ if sensitive && !named::is_harmless(text) => vec![Span { range: 0..text.len(), kind: "value" }],
                    Some(hole) => self.spans_between(&template, hole, text),
                    None => self.spans(text),
                };
                let spans = self.with_shared(text, spans, &secrets);
                if !spans.is_empty() {
                    value.value = String::from_utf8_lossy(&self.replace(text, &spans)).into_owned().into();
                }
            }
            slot.values = values.into_iter().collect();
        }
        let text = template.as_bytes();
        let spans = if suspicious || !self.user.is_empty() { self.spans(text) } else { Vec::new() };
        let spans = self.with_shared(text, spans, &secrets);
        if !spans.is_empty() {
            row.template = String::from_utf8_lossy(&self.replace(text, &spans)).into();
        }
        self.redactions() - before
    }

    /// Redacts a row with its surroundings. Returns how many secrets there were.
    pub fn redact_segment_row(&self, row: &mut SegmentRow) -> u64 {
        let before = self.redactions();
        self.redact_row(&mut row.row);
        for sample in row.before.iter_mut().chain(&mut row.after) {
            self.redact_sample(sample, &mut Vec::new());
        }
        self.redactions() - before
    }

    /// Redacts what a detector's finding quotes from the log. Returns how many secrets there were.
    pub fn redact_finding(&self, finding: &mut Finding) -> u64 {
        let before = self.redactions();
        for text in
            [&mut finding.title, &mut finding.explanation, &mut finding.recommendation, &mut finding.discriminator]
        {
            if let Cow::Owned(redacted) = self.redact(text) {
                *text = redacted;
            }
        }
        let entities = finding.entities.iter_mut().map(|entity| &mut entity.value);
        let templates = finding.absent.iter_mut().map(|subject| &mut subject.template);
        for text in entities.chain(templates) {
            if let Cow::Owned(redacted) = self.redact(text) {
                *text = Arc::from(redacted);
            }
        }
        self.redactions() - before
    }

    /// How many secrets were taken out since it was made.
    pub fn redactions(&self) -> u64 {
        self.redactions.load(Ordering::Relaxed)
    }

    fn redact_sample(&self, sample: &mut Sample, secrets: &mut Vec<(Vec<u8>, &'static str)>) {
        let spans = self.spans(&sample.text);
        for span in &spans {
            let secret = &sample.text[span.range.clone()];
            if secret.len() >= SHORTEST_SHARED && !secrets.iter().any(|(known, _)| known == secret) {
                secrets.push((secret.to_vec(), span.kind));
            }
        }
        if !spans.is_empty() {
            sample.text = self.replace(&sample.text, &spans);
        }
    }

    /// The secrets in `value` as it stands in a hole of `template`.
    fn spans_between(&self, template: &str, hole: &Range<usize>, value: &[u8]) -> Vec<Span> {
        let template = template.as_bytes();
        let before = &template[hole.start.saturating_sub(CONTEXT)..hole.start];
        let after = &template[hole.end..template.len().min(hole.end + CONTEXT)];
        let whole = [before, value, after].concat();
        let (start, end) = (before.len(), before.len() + value.len());
        let inside = |span: Span| {
            let range = span.range.start.clamp(start, end) - start..span.range.end.clamp(start, end) - start;
            (!range.is_empty()).then_some(Span { range, kind: span.kind })
        };
        self.spans(&whole).into_iter().filter_map(inside).collect()
    }

    /// `spans`, and where `text` repeats a secret that was found elsewhere in the row.
    fn with_shared(&self, text: &[u8], mut spans: Vec<Span>, secrets: &[(Vec<u8>, &'static str)]) -> Vec<Span> {
        for (secret, kind) in secrets {
            for (at, _) in text.windows(secret.len()).enumerate().filter(|(_, window)| window == secret) {
                spans.push(Span { range: at..at + secret.len(), kind });
            }
        }
        merged(spans)
    }

    /// Where the secrets are, in order, none overlapping another.
    fn spans(&self, text: &[u8]) -> Vec<Span> {
        let mut spans = Vec::new();
        for found in self.gate.find_overlapping_iter(text) {
            let probe = &self.probes[found.pattern().as_usize()];
            spans.extend(probe.look(text, found.start(), found.end()));
        }
        card::scan(text, &mut spans);
        token::scan_key_lines(text, &mut spans);
        for pattern in &self.user {
            for found in pattern.captures_iter(text) {
                let Some(part) = found.get(1).or_else(|| found.get(0)) else { continue };
                if !part.is_empty() && !in_placeholder(text, part.range()) {
                    spans.push(Span { range: part.range(), kind: "pattern" });
                }
            }
        }
        merged(spans)
    }

    fn replace(&self, text: &[u8], spans: &[Span]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut done = 0;
        for span in spans {
            out.extend_from_slice(&text[done..span.range.start]);
            out.extend_from_slice(self.placeholder(&text[span.range.clone()], span.kind).as_bytes());
            done = span.range.end;
        }
        out.extend_from_slice(&text[done..]);
        self.redactions.fetch_add(spans.len() as u64, Ordering::Relaxed);
        out
    }

    fn placeholder(&self, secret: &[u8], kind: &str) -> String {
        let hash = blake3::keyed_hash(&self.key, secret);
        format!("{MARK}{kind} {}]", &hash.to_hex()[..6])
    }
}

fn probes() -> impl Iterator<Item = (&'static str, Probe)> {
    let tokens = token::TOKENS.iter().map(|token| (token.prefix, Probe::Token(token)));
    let hooks = token::HOOKS.iter().map(|hook| (hook.host, Probe::Hook(hook)));
    let names = named::NAMES.iter().map(|(literal, name)| (*literal, Probe::Name(*name)));
    let single = [
        ("eyJ", Probe::Jwt),
        ("-----BEGIN", Probe::PrivateKey),
        (":AA", Probe::TelegramBot),
        ("authorization", Probe::Header),
        ("cookie", Probe::Cookie),
        ("bearer", Probe::Scheme),
        ("basic", Probe::Scheme),
        ("://", Probe::Userinfo(named::Slashes::Plain)),
        (":\\/\\/", Probe::Userinfo(named::Slashes::Plain)),
        ("%3A%2F%2F", Probe::Userinfo(named::Slashes::Encoded)),
        ("@tcp(", Probe::Dsn),
        ("@unix(", Probe::Dsn),
        ("identified by", Probe::IdentifiedBy),
    ];
    tokens.chain(hooks).chain(names).chain(single)
}

impl Probe {
    fn look(&self, text: &[u8], start: usize, end: usize) -> Option<Span> {
        let (range, kind) = match self {
            Self::Token(token) => (token.find(text, start, end)?, token.kind),
            Self::Jwt => (token::jwt(text, start)?, "token"),
            Self::PrivateKey => (token::private_key(text, start, end)?, "private key"),
            Self::TelegramBot => (token::telegram_bot(text, start, end)?, "token"),
            Self::Hook(hook) => (hook.find(text, end)?, "webhook"),
            Self::Name(name) => (name.value(text, start, end)?, name.kind),
            Self::Header => (named::header(text, end)?, "credentials"),
            Self::Cookie => (named::cookie(text, start, end)?, "cookie"),
            Self::Scheme => (named::after_scheme(text, start, end)?, "credentials"),
            Self::Userinfo(slashes) => (named::userinfo(text, end, *slashes)?, "password"),
            Self::Dsn => (named::dsn(text, start)?, "password"),
            Self::IdentifiedBy => (named::identified_by(text, end)?, "password"),
        };
        let fresh = !range.is_empty() && !text[range.clone()].starts_with(MARK.trim_ascii_end().as_bytes());
        fresh.then_some(Span { range, kind })
    }
}

/// Sorted, and overlapping ones as one, called after the longest.
fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| (span.range.start, std::cmp::Reverse(span.range.end)));
    let mut merged: Vec<Span> = Vec::new();
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.range.start < last.range.end => {
                if span.range.len() > last.range.len() {
                    last.kind = span.kind;
                }
                last.range.end = last.range.end.max(span.range.end);
            }
            _ => merged.push(span),
        }
    }
    merged
}

/// Whether a range lies in a placeholder that an earlier redaction has left.
fn in_placeholder(text: &[u8], range: Range<usize>) -> bool {
    let from = range.end.saturating_sub(MARK.len() + 40);
    let Some(at) = text[from..range.end].windows(MARK.len()).rposition(|w| w == MARK.as_bytes()) else { return false };
    let inside = &text[from + at..];
    inside
        .iter()
        .position(|b| *b == b']')
        .is_some_and(|close| range.start >= from + at && range.end <= from + at + close + 1)
}

/// Where the variables of a template are: `<*>`, `<*:ip>`.
fn holes(template: &str) -> Vec<Range<usize>> {
    let starts = template.match_indices("<*").map(|(at, _)| at);
    starts.filter_map(|at| Some(at..at + template[at..].find('>')? + 1)).collect()
}

#[cfg(test)]
mod tests;
