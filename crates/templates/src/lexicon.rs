//! The words and forms that the scanner knows: what must stay, what always varies, and which kind of value it is.
//!
//! These rules are about how programs write, in any language of log; none is about one program's log.

use crate::SlotKind;

/// What promotion may do with a constant word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Nothing: it says what happened, or is no word.
    Protected,
    /// It may turn out to vary.
    Plain,
    /// The name of a constant, an error code, a route: it varies only when very many have been seen. How much one of
    /// them says for that; [`ENOUGH`] is all.
    Code(u16),
}

/// What the weights of a hole's words must come to before code-like words are taken for values.
pub(crate) const ENOUGH: usize = 600;
/// The weight of a plain word among them.
pub(crate) const PLAIN_WEIGHT: u16 = 75;

/// The class of a constant word between two others.
pub(crate) fn class(before: &[u8], word: &[u8], after: &[u8]) -> Class {
    if !word.iter().any(|b| b.is_ascii_alphanumeric() || *b >= 0x80) {
        return Class::Protected;
    }
    if is_user_key(before) || is_one(before, &[b"for", b"by"]) && is_one(after, &[b"from"]) {
        // People may be called anything.
        return Class::Plain;
    }
    if word[0] == b'/' {
        return Class::Code(6);
    }
    let shouted = word.len() >= 2
        && word.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.'));
    match () {
        () if is_protected(word) => Class::Protected,
        () if !shouted => Class::Plain,
        () if word.len() >= 5 && word[0] == b'E' && word.iter().all(u8::is_ascii_uppercase) => Class::Protected,
        () if word.iter().all(u8::is_ascii_uppercase) => Class::Code(75),
        () => Class::Code(25),
    }
}

fn is_one(word: &[u8], names: &[&[u8]]) -> bool {
    names.iter().any(|name| word.eq_ignore_ascii_case(name))
}

/// Keys and words whose value is a user's name.
pub(crate) fn is_user_key(word: &[u8]) -> bool {
    const USERS: &[&[u8]] = &[
        b"user",
        b"username",
        b"user_name",
        b"ruser",
        b"logname",
        b"acct",
        b"auid",
        b"euser",
        b"uname",
        b"remote_user",
        b"sasl_username",
        b"usr",
        b"principal",
    ];
    matches!(word.len(), 3..=13) && is_one(word, USERS)
}

/// Keys that name one of many: `request_id`, `trace-id`.
pub(crate) fn is_id_key(word: &[u8]) -> bool {
    word.ends_with(b"_id") || word.ends_with(b"-id")
}

/// Whether a value says how something went, rather than what it was about.
pub(crate) fn is_outcome(word: &[u8]) -> bool {
    // Of the protected words, those that are no mere grammar.
    is_protected(word) && !is_one(word, GRAMMAR)
}

#[rustfmt::skip]
const GRAMMAR: &[&[u8]] = &[
    b"a", b"across", b"after", b"all", b"already", b"an", b"and", b"any", b"are", b"as", b"at", b"be", b"because", b"been",
    b"before", b"below", b"between", b"but", b"by", b"can", b"could", b"did", b"do", b"does", b"done", b"due", b"during", b"first",
    b"for", b"from", b"had", b"has", b"have", b"in", b"into", b"is", b"it", b"its", b"last", b"left", b"less",
    b"more", b"must", b"my", b"new", b"next", b"now", b"of", b"old", b"only", b"or", b"other", b"out", b"over",
    b"previous", b"same", b"session", b"set", b"shall", b"should", b"since", b"some", b"than", b"that", b"the", b"their",
    b"then", b"there", b"these", b"they", b"this", b"through", b"to", b"too", b"under", b"until", b"upon", b"using", b"via",
    b"was", b"were", b"when", b"where", b"which", b"while", b"will", b"with", b"within", b"without", b"would",
];

/// Words that are never turned into variables: methods, outcomes, states, severities, function words.
pub(crate) fn is_protected(word: &[u8]) -> bool {
    let word = word.trim_ascii_end();
    let end = word.iter().rposition(|b| !matches!(b, b'.' | b'!' | b'?' | b'*')).map_or(0, |at| at + 1);
    let start = word.iter().position(|b| *b != b'*').unwrap_or(0).min(end);
    let word = &word[start..end];
    if word.len() > 14 || word.len() > 1 && word.iter().skip(1).any(|b| !(b.is_ascii_alphabetic() || *b == b'\'')) {
        return false;
    }
    PACKED.binary_search(&pack(word)).is_ok()
}

/// A word in lower case as one number; sorts as words do.
const fn pack(word: &[u8]) -> u128 {
    let (mut packed, mut at) = (0_u128, 0);
    while at < 16 {
        let byte = if at < word.len() { word[at].to_ascii_lowercase() } else { 0 };
        packed = packed << 8 | byte as u128;
        at += 1;
    }
    packed
}

const PACKED: [u128; PROTECTED.len()] = {
    let mut packed = [0; PROTECTED.len()];
    let mut at = 0;
    while at < PROTECTED.len() {
        packed[at] = pack(PROTECTED[at]);
        at += 1;
    }
    packed
};

/// Sorted.
#[rustfmt::skip]
const PROTECTED: &[&[u8]] = &[
    b"a", b"aborted", b"aborting", b"absent", b"accept", b"accepted", b"accepting", b"across", b"activated",
    b"active", b"add", b"added", b"adding", b"after", b"alert", b"alive", b"all", b"allow", b"allowed", b"already",
    b"an", b"and", b"any", b"are", b"as", b"at", b"attached", b"authenticated", b"available", b"away", b"bad", b"be",
    b"because", b"been", b"before", b"began", b"begin", b"beginning", b"begins", b"below", b"between", b"block",
    b"blocked", b"broken", b"but", b"by", b"can", b"can't", b"canceled", b"cancelled", b"cannot", b"change",
    b"changed", b"clean", b"cleared", b"close", b"closed", b"closing", b"commit", b"committed", b"complete",
    b"completed", b"completing", b"connect", b"connected", b"connecting", b"corrupt", b"corrupted", b"could",
    b"couldn't", b"crash", b"crashed", b"create", b"created", b"creating", b"critical", b"dead", b"debug",
    b"degraded", b"delete", b"deleted", b"deleting", b"denied", b"deny", b"destroyed", b"detached", b"detected",
    b"did", b"died", b"different", b"disable", b"disabled", b"disabling", b"disconnect", b"disconnected",
    b"disconnecting", b"do", b"does", b"doesn't", b"done", b"down", b"drop", b"dropped", b"dropping", b"due",
    b"during", b"emergency", b"empty", b"enable", b"enabled", b"enabling", b"end", b"ended", b"ending", b"ends",
    b"enter", b"entered", b"entering", b"err", b"error", b"errors", b"established", b"exceeded", b"exception",
    b"exist", b"existing", b"exists", b"exit", b"exited", b"exiting", b"expired", b"expiring", b"fail", b"failed",
    b"failing", b"fails", b"failure", b"fatal", b"fault", b"finish", b"finished", b"finishing", b"first", b"for",
    b"forbidden", b"found", b"from", b"full", b"get", b"granted", b"had", b"halted", b"has", b"have", b"head",
    b"healthy", b"high", b"ignored", b"ignoring", b"illegal", b"in", b"inactive", b"incomplete", b"incorrect",
    b"info", b"init", b"initialized", b"initializing", b"initiated", b"insufficient", b"into", b"invalid", b"is",
    b"isn't", b"it", b"its", b"joined", b"killed", b"last", b"launched", b"leave", b"leaving", b"left", b"less",
    b"load", b"loaded", b"loading", b"lock", b"locked", b"login", b"logout", b"lost", b"low", b"malformed",
    b"missing", b"more", b"must", b"my", b"never", b"new", b"next", b"no", b"none", b"not", b"notice", b"now", b"of",
    b"off", b"offline", b"ok", b"okay", b"old", b"on", b"online", b"only", b"open", b"opened", b"opening", b"options",
    b"or", b"other", b"out", b"over", b"overflow", b"panic", b"panicked", b"partial", b"passed", b"patch", b"pause",
    b"paused", b"pending", b"permitted", b"post", b"present", b"previous", b"put", b"read", b"reading", b"ready",
    b"received", b"receiving", b"recovered", b"refused", b"registered", b"rejected", b"released", b"reload",
    b"reloaded", b"reloading", b"remove", b"removed", b"removing", b"reset", b"restart", b"restarted", b"restarting",
    b"restored", b"resume", b"resumed", b"retry", b"retrying", b"revoked", b"running", b"same", b"segfault", b"send",
    b"sending", b"sent", b"session", b"set", b"severe", b"shall", b"should", b"shutdown", b"shutting", b"since",
    b"skip", b"skipped", b"skipping", b"some", b"start", b"started", b"starting", b"starts", b"stop", b"stopped",
    b"stopping", b"stops", b"succeed", b"succeeded", b"succeeds", b"success", b"successful", b"successfully",
    b"suspend", b"suspended", b"terminate", b"terminated", b"terminating", b"than", b"that", b"the", b"their",
    b"then", b"there", b"these", b"they", b"this", b"throttled", b"through", b"timeout", b"to", b"too", b"trace",
    b"trying", b"unable", b"unauthorized", b"unavailable", b"under", b"unexpected", b"unhealthy", b"unknown",
    b"unlock", b"unlocked", b"unreachable", b"unregistered", b"until", b"unusable", b"up", b"update", b"updated",
    b"updating", b"upon", b"using", b"valid", b"via", b"waiting", b"warn", b"warning", b"was", b"were", b"when",
    b"where", b"which", b"while", b"will", b"with", b"within", b"without", b"would", b"write", b"writing", b"written",
    b"wrong", b"yes",
];

/// Whether `word` has the form of an identifier.
pub(crate) fn is_name(word: &[u8]) -> bool {
    word.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$'))
        && word.iter().filter(|b| b.is_ascii_digit()).count() <= 3
}

/// Names that have digits in them and mean no number, alone or as parts of one (`EXT4-fs`, `ext4_find_entry`).
pub(crate) fn is_name_with_digits(word: &[u8]) -> bool {
    let joint = |b: &u8| matches!(b, b'-' | b'_');
    let known = |part: &[u8]| !part.iter().any(u8::is_ascii_digit) || is_known_name(part);
    is_known_name(word) || word.iter().any(joint) && word.split(joint).all(known)
}

fn is_known_name(word: &[u8]) -> bool {
    let mut lower = [0; 10];
    let Some(lower) = lower.get_mut(..word.len()) else { return false };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    matches!(
        &*lower,
        b"ipv4"
            | b"ipv6"
            | b"http2"
            | b"http3"
            | b"h2"
            | b"h2c"
            | b"sha1"
            | b"sha256"
            | b"sha384"
            | b"sha512"
            | b"sha-1"
            | b"sha-256"
            | b"md5"
            | b"log4j"
            | b"log4j2"
            | b"log4net"
            | b"k8s"
            | b"k3s"
            | b"utf8"
            | b"utf-8"
            | b"utf16"
            | b"utf-16"
            | b"x509"
            | b"oauth2"
            | b"s3"
            | b"ec2"
            | b"l2tp"
            | b"ssh2"
            | b"i386"
            | b"i686"
            | b"x86"
            | b"x86_64"
            | b"amd64"
            | b"arm64"
            | b"aarch64"
            | b"win32"
            | b"win64"
            | b"base64"
            | b"mp3"
            | b"mp4"
            | b"e2fsck"
            | b"ext2"
            | b"ext3"
            | b"ext4"
            | b"nfs4"
            | b"smb2"
            | b"smb3"
            | b"oid4vp"
            | b"fail2ban"
            | b"pop3"
            | b"imap4"
            | b"bcrypt2"
            | b"ed25519"
            | b"p256"
            | b"socks4"
            | b"socks5"
            | b"tls1"
            | b"i18n"
            | b"l10n"
            | b"web3"
            | b"neo4j"
            | b"db2"
    )
}

/// Error and message codes: `E1234`, `ORA-00942:`, `AH00128:`, `[MY-010116]`, `%ASA-6-302013`.
pub(crate) fn is_code(word: &[u8], next: Option<u8>) -> bool {
    if word[0] == b'%' {
        // Facility, severity, mnemonic, as network devices write it.
        let mut parts = word[1..].splitn(3, |b| *b == b'-');
        let facility = parts.next().is_some_and(|part| part.len() >= 2 && part.iter().all(u8::is_ascii_uppercase));
        let severity = parts.next().is_some_and(|part| matches!(part, [b'0'..=b'7']));
        return facility && severity && parts.next().is_some_and(|part| (3..=32).contains(&part.len()));
    }
    let letters = word.iter().take_while(|b| b.is_ascii_uppercase()).count();
    let rest = &word[letters..];
    let (dash, digits) = match rest.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, rest),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    match letters {
        1 => word[0] == b'E' && !dash && (3..=5).contains(&digits.len()),
        2..=5 => (4..=6).contains(&digits.len()) && matches!(next, Some(b':' | b']')) && (dash || letters == 2),
        _ => false,
    }
}

/// Where the slash is in `1/FAILURE`.
pub(crate) fn outcome_after_slash(word: &[u8]) -> Option<usize> {
    let at = memchr::memchr(b'/', word)?;
    let fits = at > 0
        && word[..at].iter().all(u8::is_ascii_digit)
        && word.len() >= at + 3
        && word[at + 1..].iter().all(|b| b.is_ascii_uppercase() || *b == b'_' || *b == b'-');
    fits.then_some(at)
}

/// The length of word and dots in `exception.......1`.
pub(crate) fn dot_leader(word: &[u8]) -> Option<usize> {
    let value = word.iter().rposition(|b| *b == b'.')? + 1;
    let fits = value < word.len() && word[..value].ends_with(b"...") && !word[..value].iter().any(u8::is_ascii_digit);
    (fits && word[0] != b'.').then_some(value)
}

/// Words after which `user NAME` names a user.
pub(crate) fn announces_user(word: &[u8]) -> bool {
    [&b"for"[..], b"invalid", b"illegal", b"unknown"].iter().any(|w| word.eq_ignore_ascii_case(w))
}

/// `true`, `false` in their usual spellings.
pub(crate) fn is_bool(word: &[u8]) -> bool {
    matches!(word, b"true" | b"True" | b"TRUE" | b"false" | b"False" | b"FALSE")
}

/// Names of months and week days.
pub(crate) fn is_calendar(word: &[u8]) -> bool {
    if word.len() == 3 {
        return matches!(
            word,
            b"Jan"
                | b"Feb"
                | b"Mar"
                | b"Apr"
                | b"May"
                | b"Jun"
                | b"Jul"
                | b"Aug"
                | b"Sep"
                | b"Oct"
                | b"Nov"
                | b"Dec"
                | b"Mon"
                | b"Tue"
                | b"Wed"
                | b"Thu"
                | b"Fri"
                | b"Sat"
                | b"Sun"
        );
    }
    word.ends_with(b"day")
        && matches!(word, b"Monday" | b"Tuesday" | b"Wednesday" | b"Thursday" | b"Friday" | b"Saturday" | b"Sunday")
        || matches!(
            word,
            b"January"
                | b"February"
                | b"March"
                | b"April"
                | b"June"
                | b"July"
                | b"August"
                | b"September"
                | b"October"
                | b"November"
                | b"December"
        )
}

/// Whether `text` starts with the short name of a month or week day.
pub(crate) fn is_calendar_start(text: &[u8]) -> bool {
    text.get(..3).is_some_and(is_calendar) && text.get(3).is_none_or(|b| *b == b' ')
}

/// The kind of a value of kind `before` that has this unit, if it is one.
pub(crate) fn unit(word: &[u8], before: SlotKind) -> Option<SlotKind> {
    let word = word.strip_suffix(b".").unwrap_or(word);
    match before {
        SlotKind::Num => match word {
            b"B" | b"KB" | b"MB" | b"GB" | b"TB" | b"PB" | b"kB" | b"KiB" | b"MiB" | b"GiB" | b"TiB" | b"kb"
            | b"mb" | b"gb" | b"K" | b"M" | b"G" => Some(SlotKind::Size),
            b"ns" | b"us" | b"ms" | b"s" | b"sec" | b"secs" | b"min" | b"mins" | b"h" | b"hr" | b"hrs" => {
                Some(SlotKind::Duration)
            }
            b"\xc2\xb5s" | b"\xce\xbcs" => Some(SlotKind::Duration),
            _ => None,
        },
        SlotKind::Time => match word {
            b"AM" | b"PM" | b"am" | b"pm" | b"UTC" | b"GMT" | b"CET" | b"CEST" | b"EST" | b"EDT" | b"PST" | b"PDT"
            | b"CST" | b"CDT" | b"MST" | b"MDT" | b"BST" | b"IST" | b"JST" | b"MSK" => Some(SlotKind::Time),
            _ => None,
        },
        _ => None,
    }
}

/// Which of two neighbouring values stands for both: addresses and names rather than the numbers around them.
pub(crate) fn entity_rank(kind: SlotKind) -> u8 {
    match kind {
        SlotKind::Ip => 5,
        SlotKind::Email | SlotKind::User => 4,
        SlotKind::Host => 3,
        SlotKind::Url => 2,
        SlotKind::Path | SlotKind::Mac => 1,
        _ => 0,
    }
}

/// The kind of any value.
pub(crate) fn kind(word: &[u8]) -> (SlotKind, usize, usize) {
    let has = |what: fn(&u8) -> bool| word.iter().any(what);
    if word.is_empty() {
        return (SlotKind::Any, 0, 0);
    }
    let other = has(|b| !b.is_ascii_alphanumeric() && !matches!(b, b'/' | b'\\' | b'.' | b'@'));
    kind_by_bits(word, has(|b| matches!(b, b'/' | b'\\')), has(|b| *b == b'.'), has(|b| *b == b'@'), other)
}

/// The kind of a value with a digit in it, and the part (offset, length) of the word that is the value. The flags say
/// whether there are slashes or backslashes, dots, at signs, or other signs in it.
pub(crate) fn kind_by_bits(word: &[u8], slash: bool, dot: bool, at: bool, other: bool) -> (SlotKind, usize, usize) {
    let all = |kind| (kind, 0, word.len());
    let digit_first = word[0].is_ascii_digit();
    if digit_first && dot && ip_len(word) > 0 {
        return all(SlotKind::Ip);
    }
    if slash {
        if let Some(slash) = word.iter().rposition(|b| *b == b'/') {
            let tail = &word[slash + 1..];
            if tail.first().is_some_and(u8::is_ascii_digit) && dot && ip_len(tail) > 0 {
                return (SlotKind::Ip, slash + 1, tail.len());
            }
            if word[0] == b'/' || !digit_first && word.iter().filter(|b| **b == b'/').count() >= 2 {
                return all(SlotKind::Path);
            }
            if digit_first && word.iter().all(|b| b.is_ascii_digit() || *b == b'/') && word.len() >= 8 {
                return all(SlotKind::Time);
            }
        }
        if word.contains(&b'\\') {
            return all(if word[0] == b'\\' { SlotKind::Path } else { SlotKind::User });
        }
    }
    if at && word.iter().position(|b| *b == b'@').is_some_and(|at| at > 0 && word[at..].contains(&b'.')) {
        return all(SlotKind::Email);
    }
    let sign = usize::from(matches!(word[0], b'-' | b'+' | b'<' | b'>') && word.len() > 1);
    let digits = &word[sign..];
    if digits.len() > 2 && digits[0] == b'0' && matches!(digits[1], b'x' | b'X') {
        return all(SlotKind::Hex);
    }
    let number = digits.iter().take_while(|b| b.is_ascii_digit() || matches!(b, b'.' | b',')).count();
    if number == digits.len() || &digits[number..] == b"%" {
        return all(SlotKind::Num);
    }
    if (1..digits.len()).contains(&number)
        && let Some(kind) = unit(&digits[number..], SlotKind::Num)
    {
        return all(kind);
    }
    if digit_first && other | slash | dot && word.len() >= 8 && number >= 4 && matches!(word[4], b'-' | b'/' | b'.')
        || number == 4 && word.len() >= 8 && word[4] == b'-'
    {
        return all(SlotKind::Time);
    }
    if word.len() >= 6
        && !(slash | dot | at)
        && word.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-')
        && word.iter().any(u8::is_ascii_alphabetic)
    {
        return all(SlotKind::Hex);
    }
    if dot && !slash && is_host(word) {
        return all(SlotKind::Host);
    }
    all(SlotKind::Any)
}

/// The length of `word` if it is an IPv4 address, perhaps with a prefix length; otherwise 0. Numbers above 255 pass:
/// what looks like an address is one for whoever reads it.
fn ip_len(word: &[u8]) -> usize {
    let (mut groups, mut digits) = (1, 0);
    for (at, byte) in word.iter().enumerate() {
        match byte {
            b'0'..=b'9' if digits < 3 => digits += 1,
            b'.' if digits > 0 && groups < 4 => (groups, digits) = (groups + 1, 0),
            b'.' if digits > 0 && at + 1 == word.len() => return at,
            b'/' if groups == 4 && digits > 0 && word[at + 1..].iter().all(u8::is_ascii_digit) => return word.len(),
            _ => return 0,
        }
    }
    if groups == 4 && digits > 0 { word.len() } else { 0 }
}

/// An IPv6 or MAC address at the start of `text`: its length and kind.
pub(crate) fn colon_address(text: &[u8]) -> Option<(usize, SlotKind)> {
    let (mut groups, mut len, mut digits, mut double, mut pairs) = (1_u32, 0, 0, 0, true);
    for byte in text.iter().take(48) {
        match byte {
            b':' if digits == 0 => {
                double += 1;
                pairs = false;
            }
            b':' => {
                pairs &= digits == 2;
                groups += 1;
                digits = 0;
            }
            _ if byte.is_ascii_hexdigit() && digits < 4 => digits += 1,
            _ => break,
        }
        len += 1;
    }
    let ended = text.get(len).is_none_or(|b| !b.is_ascii_alphanumeric() && *b != b'_');
    if !ended || double > 1 {
        return None;
    }
    // Of netfilter's `MAC=` also both addresses and the protocol in one.
    if matches!(groups, 6 | 14) && pairs && digits == 2 {
        return Some((len, SlotKind::Mac));
    }
    let address = double == 1 && groups <= 8 || double == 0 && groups == 8 && digits > 0;
    // `a::b` alone is more often a name in a program.
    let telling = text[..len].iter().any(u8::is_ascii_digit);
    (address && telling).then_some((len, SlotKind::Ip))
}

/// The kind of a word without digits that has a dot, a slash or an at sign in it; `None` when it is just a word.
pub(crate) fn kind_of_name(word: &[u8], behind_variable: bool) -> Option<SlotKind> {
    if let Some(at) = memchr::memchr(b'@', word) {
        return (at > 0 && at + 1 < word.len()).then_some(SlotKind::Email);
    }
    match word[0] {
        b'\\' if word.len() > 1 => return Some(SlotKind::Path),
        b'/' if word.len() > 1 => {
            return word[1..].iter().any(|b| !matches!(b, b'/' | b'.')).then_some(SlotKind::Path);
        }
        b'/' => return (!behind_variable).then_some(SlotKind::Path),
        b'.' | b'~' if word.starts_with(b"./") || word.starts_with(b"../") || word.starts_with(b"~/") => {
            return Some(SlotKind::Path);
        }
        _ => {}
    }
    if let Some(at) = memchr::memchr(b'\\', word) {
        let user = at + 1 < word.len() && memchr::memchr(b'\\', &word[at + 1..]).is_none();
        return Some(if user { SlotKind::User } else { SlotKind::Path });
    }
    if memchr::memchr(b'/', word).is_some() {
        return (memchr::memchr_iter(b'/', word).count() >= 2).then_some(SlotKind::Path);
    }
    is_host(word).then_some(SlotKind::Host)
}

/// Whether `word` is a host name: labels of letters, digits and dashes, the last one a known ending.
fn is_host(word: &[u8]) -> bool {
    let word = word.strip_suffix(b".").unwrap_or(word);
    let Some(dot) = memchr::memrchr(b'.', word) else { return false };
    let (labels, ending) = (&word[..dot], &word[dot + 1..]);
    let well_formed =
        |label: &[u8]| !label.is_empty() && label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if !labels.split(|b| *b == b'.').all(well_formed) {
        return false;
    }
    let mut lower = [0; 8];
    let Some(lower) = lower.get_mut(..ending.len()) else { return false };
    lower.copy_from_slice(ending);
    lower.make_ascii_lowercase();
    // A capital inside (`dfs.DataNode`) is a name in a program; all capitals are a host's.
    let mixed =
        word.iter().any(u8::is_ascii_uppercase) && labels.iter().any(u8::is_ascii_lowercase) && ending != &*lower;
    if mixed {
        return false;
    }
    let three = labels.contains(&b'.');
    let known = matches!(
        &*lower,
        b"com"
            | b"net"
            | b"org"
            | b"edu"
            | b"gov"
            | b"mil"
            | b"int"
            | b"arpa"
            | b"info"
            | b"biz"
            | b"local"
            | b"lan"
            | b"internal"
            | b"localnet"
            | b"corp"
            | b"intranet"
            | b"cloud"
            | b"test"
            | b"example"
            | b"invalid"
            | b"io"
            | b"dev"
            | b"app"
            | b"de"
            | b"uk"
            | b"fr"
            | b"jp"
            | b"cn"
            | b"ru"
            | b"nl"
            | b"br"
            | b"au"
            | b"eu"
            | b"tw"
            | b"kr"
            | b"ca"
            | b"ch"
            | b"at"
            | b"pl"
            | b"se"
            | b"no"
            | b"fi"
            | b"dk"
            | b"cz"
            | b"us"
            | b"mx"
            | b"hk"
            | b"sg"
            | b"nz"
            | b"ar"
            | b"be"
    );
    // `is.it`, `in.tv`: with three labels any country will do.
    known
        || three
            && lower.len() == 2
            && !matches!(&*lower, b"so" | b"js" | b"py" | b"rs" | b"sh" | b"go" | b"cc" | b"db" | b"gz" | b"id")
}

/// The length of `<*>` or `<*:kind>` at the start of `text`.
pub(crate) fn placeholder(text: &[u8]) -> Option<usize> {
    if text.get(1) != Some(&b'*') {
        return None;
    }
    match text.get(2)? {
        b'>' => Some(3),
        b':' => {
            let kind = text[3..].iter().take(16).take_while(|b| b.is_ascii_lowercase()).count();
            (kind > 0 && text.get(3 + kind) == Some(&b'>')).then_some(kind + 4)
        }
        _ => None,
    }
}

/// The kind that a placeholder names.
pub(crate) fn placeholder_kind(text: &[u8]) -> SlotKind {
    let name = text.get(3..text.len().saturating_sub(1)).unwrap_or_default();
    SlotKind::ALL.into_iter().find(|kind| kind.as_str().as_bytes() == name).unwrap_or(SlotKind::Any)
}

/// The kind of a variable's values as the words around it tell, whatever the values look like.
///
/// `before` are the words before it, nearest first; `key` says that it follows `=`, `after` is the word behind it.
pub(crate) fn role(before: [&[u8]; 2], key: bool, after: &[u8], kind: SlotKind) -> SlotKind {
    let name_like = matches!(kind, SlotKind::Any | SlotKind::Word | SlotKind::Hex | SlotKind::Host | SlotKind::User);
    let [last, earlier] = before;
    if (name_like || key) && is_user_key(last) {
        return SlotKind::User;
    }
    if name_like && is_one(last, &[b"for", b"by"]) && is_one(after, &[b"from"]) && !is_one(earlier, &[b"waiting"]) {
        return SlotKind::User;
    }
    const HOSTS: &[&[u8]] =
        &[b"rhost", b"host", b"hostname", b"server", b"node", b"client", b"remote_host", b"upstream", b"peer"];
    if name_like && key && is_one(last, HOSTS) {
        return SlotKind::Host;
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protected_words_are_sorted() {
        assert!(PACKED.is_sorted());
        assert!(is_protected(b"Failed") && is_protected(b"stopped.") && !is_protected(b"oracle"));
    }

    #[test]
    fn values_have_kinds() {
        let of = |word: &str| kind(word.as_bytes()).0;
        assert_eq!(of("10.0.0.1"), SlotKind::Ip);
        assert_eq!(of("/10.0.0.1"), SlotKind::Ip);
        assert_eq!(of("10.0.0.0/8"), SlotKind::Ip);
        assert_eq!(of("/var/log/a1"), SlotKind::Path);
        assert_eq!(of("18.2"), SlotKind::Num);
        assert_eq!(of("95%"), SlotKind::Num);
        assert_eq!(of("10ms"), SlotKind::Duration);
        assert_eq!(of("4GB"), SlotKind::Size);
        assert_eq!(of("0x1f"), SlotKind::Hex);
        assert_eq!(of("2026-11-21"), SlotKind::Time);
        assert_eq!(of("web-1.example.com"), SlotKind::Host);
        assert_eq!(of("a1@example.com"), SlotKind::Email);
        assert_eq!(of("blk_12"), SlotKind::Any);
        assert_eq!(colon_address(b"fe80::1 "), Some((7, SlotKind::Ip)));
        assert_eq!(colon_address(b"aa:bb:cc:dd:ee:ff"), Some((17, SlotKind::Mac)));
        assert_eq!(colon_address(b"2001:db8:0:0:0:0:0:1]"), Some((20, SlotKind::Ip)));
        assert_eq!(colon_address(b"12:30:45"), None);
        assert_eq!(colon_address(b"a::b"), None);
    }

    #[test]
    fn names_in_programs_are_no_hosts() {
        for word in ["dfs.DataNode", "java.net.NoRouteToHostException", "com.huawei.health", "n.leader", "config.json"]
        {
            assert_eq!(kind_of_name(word.as_bytes(), false), None, "{word}");
        }
        for word in ["host.example.com", "massive.merukuru.org", "www.zen.co.uk"] {
            assert_eq!(kind_of_name(word.as_bytes(), false), Some(SlotKind::Host), "{word}");
        }
    }
}
