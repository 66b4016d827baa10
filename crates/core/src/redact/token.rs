//! Secrets that say themselves what they are: prefixed tokens, JWTs, private keys, webhook addresses.

use std::ops::Range;

use super::{
    Span,
    scan::{find, is_word, looks_random, run, starts_token},
};

/// A family of tokens with a common beginning.
#[derive(Debug)]
pub(super) struct Token {
    pub prefix: &'static str,
    pub kind: &'static str,
    shortest: usize,
    letters: Letters,
}

/// What a token is made of.
#[derive(Clone, Copy, Debug)]
enum Letters {
    /// Letters and digits.
    Plain,
    /// Capital letters and digits; ends where they end.
    Upper,
    /// Letters, digits, `-` and `_`.
    Url,
    /// As `Url`, and dots.
    Dotted,
    /// As `Url`, and looks random: for prefixes that words have, too.
    Random,
}

const fn token(prefix: &'static str, kind: &'static str, shortest: usize, letters: Letters) -> Token {
    Token { prefix, kind, shortest, letters }
}

/// Cloud keys and the tokens of code forges, chats, shops and model providers. `shortest` counts what follows the prefix.
pub(super) const TOKENS: &[Token] = &[
    token("AKIA", "key", 16, Letters::Upper),
    token("ASIA", "key", 16, Letters::Upper),
    token("ABIA", "key", 16, Letters::Upper),
    token("ACCA", "key", 16, Letters::Upper),
    token("ghp_", "token", 20, Letters::Plain),
    token("gho_", "token", 20, Letters::Plain),
    token("ghu_", "token", 20, Letters::Plain),
    token("ghs_", "token", 20, Letters::Plain),
    token("ghr_", "token", 20, Letters::Plain),
    token("github_pat_", "token", 20, Letters::Url),
    token("glpat-", "token", 16, Letters::Dotted),
    token("gldt-", "token", 16, Letters::Url),
    token("glrt-", "token", 16, Letters::Url),
    token("glcbt-", "token", 16, Letters::Url),
    token("glptt-", "token", 16, Letters::Url),
    token("xoxa-", "token", 8, Letters::Url),
    token("xoxb-", "token", 8, Letters::Url),
    token("xoxe-", "token", 8, Letters::Url),
    token("xoxe.", "token", 8, Letters::Dotted),
    token("xoxo-", "token", 8, Letters::Url),
    token("xoxp-", "token", 8, Letters::Url),
    token("xoxr-", "token", 8, Letters::Url),
    token("xoxs-", "token", 8, Letters::Url),
    token("xapp-", "token", 8, Letters::Url),
    token("sk_live_", "key", 10, Letters::Plain),
    token("sk_test_", "key", 10, Letters::Plain),
    token("rk_live_", "key", 10, Letters::Plain),
    token("rk_test_", "key", 10, Letters::Plain),
    token("whsec_", "key", 16, Letters::Plain),
    token("sk-", "key", 20, Letters::Random),
    token("AIza", "key", 35, Letters::Url),
    token("ya29.", "token", 20, Letters::Dotted),
    token("GOCSPX-", "key", 20, Letters::Url),
    token("hf_", "token", 30, Letters::Plain),
    token("npm_", "token", 36, Letters::Plain),
    token("pypi-", "token", 50, Letters::Url),
    token("SG.", "key", 40, Letters::Dotted),
    token("dop_v1_", "token", 40, Letters::Plain),
    token("doo_v1_", "token", 40, Letters::Plain),
    token("dor_v1_", "token", 40, Letters::Plain),
    token("hvs.", "token", 20, Letters::Url),
    token("hvb.", "token", 20, Letters::Url),
    token("AGE-SECRET-KEY-1", "key", 50, Letters::Upper),
    token("glsa_", "token", 20, Letters::Url),
    token("glc_", "token", 30, Letters::Url),
    token("tskey-", "key", 16, Letters::Url),
    token("shpat_", "token", 32, Letters::Plain),
    token("shpca_", "token", 32, Letters::Plain),
    token("shppa_", "token", 32, Letters::Plain),
    token("shpss_", "token", 32, Letters::Plain),
    token("dckr_pat_", "token", 20, Letters::Url),
    token("lin_api_", "token", 30, Letters::Plain),
    token("ATATT3", "token", 30, Letters::Url),
    token("sqp_", "token", 30, Letters::Plain),
    token("nvapi-", "key", 40, Letters::Url),
    token("gsk_", "key", 40, Letters::Plain),
    token("xai-", "key", 40, Letters::Plain),
    token("pplx-", "key", 40, Letters::Plain),
    token("sbp_", "token", 40, Letters::Plain),
    token("rubygems_", "key", 40, Letters::Plain),
    token("PMAK-", "key", 40, Letters::Url),
    token("EAAC", "token", 60, Letters::Plain),
];

impl Token {
    /// The whole token whose prefix was found, in any case, at `start..end`.
    pub(super) fn find(&self, text: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
        if &text[start..end] != self.prefix.as_bytes() || !starts_token(text, start) {
            return None;
        }
        let stop = run(text, end, |byte| match self.letters {
            Letters::Plain => byte.is_ascii_alphanumeric(),
            Letters::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Letters::Url | Letters::Random => is_word(byte) || byte == b'-',
            Letters::Dotted => is_word(byte) || matches!(byte, b'-' | b'.'),
        });
        let body = &text[end..stop];
        let fits = match self.letters {
            Letters::Upper => !text.get(stop).is_some_and(|byte| is_word(*byte)),
            Letters::Random => looks_random(body, self.shortest),
            _ => true,
        };
        (fits && body.len() >= self.shortest).then_some(start..stop)
    }
}

/// A JSON web token, signed or encrypted, from its `eyJ` on.
pub(super) fn jwt(text: &[u8], start: usize) -> Option<Range<usize>> {
    if !text[start..].starts_with(b"eyJ") || !starts_token(text, start) {
        return None;
    }
    let url = |byte: u8| is_word(byte) || byte == b'-';
    let mut end = run(text, start, url);
    let mut parts = 0;
    while parts < 4 && text.get(end) == Some(&b'.') {
        let stop = run(text, end + 1, url);
        if parts == 0 && stop - end < 5 {
            return None;
        }
        end = stop;
        parts += 1;
    }
    (parts > 0 && end - start >= 20).then_some(start..end)
}

/// A private key block whose `-----BEGIN` is at `start..end`, to its end or, where that is missing, to the end of the text.
pub(super) fn private_key(text: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    let label_end = find(&text[..text.len().min(end + 60)], end, b"-----")?;
    let label = &text[end..label_end];
    find(label, 0, b"PRIVATE KEY")?;
    let after = label_end + 5;
    let Some(close) = find(text, after, b"-----END") else { return Some(start..text.len()) };
    let stop = find(text, close + 8, b"-----").map_or(text.len(), |at| at + 5);
    Some(start..stop)
}

/// Lines that end in 64 or 76 characters of base64, as the inner lines of a key block do when every line came as a record
/// of its own. Hexadecimal sums have one case only and stay.
pub(super) fn scan_key_lines(text: &[u8], spans: &mut Vec<Span>) {
    let mut start = 0;
    for line in text.split(|byte| *byte == b'\n') {
        let trimmed = line.trim_ascii_end();
        for len in [64, 76] {
            let Some(from) = trimmed.len().checked_sub(len) else { continue };
            let last = &trimmed[from..];
            let alone = from == 0 || matches!(trimmed[from - 1], b' ' | b'\t');
            if alone && is_key_material(last) {
                spans.push(Span { range: start + from..start + trimmed.len(), kind: "private key" });
            }
        }
        start += line.len() + 1;
    }
}

fn is_key_material(text: &[u8]) -> bool {
    let count = |accept: fn(&u8) -> bool| text.iter().filter(|byte| accept(byte)).count();
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
        && count(u8::is_ascii_uppercase) >= 8
        && count(u8::is_ascii_lowercase) >= 8
        && count(u8::is_ascii_digit) >= 2
}

/// `123456789:AA…`, a bot's token, around the `:AA` at `start..end`.
pub(super) fn telegram_bot(text: &[u8], start: usize, end: usize) -> Option<Range<usize>> {
    let digits = text[..start].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let stop = run(text, end, |byte| is_word(byte) || byte == b'-');
    let fits = &text[start..end] == b":AA" && (8..=12).contains(&digits) && stop - end >= 30;
    fits.then_some(start - digits..stop)
}

/// Where chat webhooks live: whoever knows such an address may write into the channel.
#[derive(Debug)]
pub(super) struct Hook {
    pub host: &'static str,
    /// What must follow soon; empty when the host is used for nothing else.
    word: &'static str,
}

/// Webhook hosts.
pub(super) const HOOKS: &[Hook] = &[
    Hook { host: "hooks.slack.com", word: "" },
    Hook { host: "discord.com", word: "webhooks" },
    Hook { host: "discordapp.com", word: "webhooks" },
    Hook { host: "webhook.office.com", word: "webhook" },
    Hook { host: "outlook.office.com", word: "webhook" },
    Hook { host: "hooks.zapier.com", word: "" },
    Hook { host: "maker.ifttt.com", word: "key" },
    Hook { host: "events.pagerduty.com", word: "integration" },
    Hook { host: "chat.googleapis.com", word: "spaces" },
    Hook { host: "open.feishu.cn", word: "hook" },
    Hook { host: "open.larksuite.com", word: "hook" },
    Hook { host: "logic.azure.com", word: "workflows" },
];

impl Hook {
    /// The path of the webhook whose host ends at `end`; the host stays readable.
    pub(super) fn find(&self, text: &[u8], end: usize) -> Option<Range<usize>> {
        let mut at = end;
        if text.get(at) == Some(&b':') {
            at = run(text, at + 1, |byte| byte.is_ascii_digit());
        }
        let start = match &text[at..] {
            [b'/', ..] => at + 1,
            [b'\\', b'/', ..] => at + 2,
            [b'%', b'2', b'F' | b'f', ..] => at + 3,
            _ => return None,
        };
        let stop = run(text, start, |byte| {
            !byte.is_ascii_whitespace()
                && !matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'`' | b')' | b']' | b'|' | b',')
        });
        let path = &text[start..stop];
        (path.len() >= 8
            && (self.word.is_empty() || find(&path[..path.len().min(40)], 0, self.word.as_bytes()).is_some()))
        .then_some(start..stop)
    }
}
