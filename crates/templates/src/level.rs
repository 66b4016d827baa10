//! Level words, as bytes.

use crate::Level;

/// The level that a whole word means, in any case; a digit at its end (`DEBUG5`) is ignored. Single letters are left to
/// the formats that use them.
pub(crate) fn word(word: &[u8]) -> Option<Level> {
    let word = match word {
        [stem @ .., b'0'..=b'9'] => stem,
        whole => whole,
    };
    if !(3..=13).contains(&word.len()) {
        return None;
    }
    let mut lower = [0; 13];
    for (to, from) in lower.iter_mut().zip(word) {
        *to = from.to_ascii_lowercase();
    }
    Some(match &lower[..word.len()] {
        b"trace" | b"finest" | b"finer" | b"trc" => Level::Trace,
        b"debug" | b"dbg" | b"fine" | b"verbose" | b"vrb" | b"config" | b"deb" => Level::Debug,
        b"info" | b"inf" | b"information" | b"informational" | b"log" | b"system" | b"success" => Level::Info,
        b"notice" | b"note" => Level::Notice,
        b"warn" | b"warning" | b"wrn" => Level::Warn,
        b"error" | b"err" | b"severe" | b"eror" | b"failure" => Level::Error,
        b"critical" | b"crit" | b"crt" | b"alert" | b"emerg" | b"emergency" | b"fatal" | b"ftl" | b"panic"
        | b"dpanic" => Level::Critical,
        _ => return None,
    })
}

/// As [`word`], but not for words that are as usual in a sentence as at its front, unless they are shouted.
pub(crate) fn plain_word(text: &[u8]) -> Option<Level> {
    const ORDINARY: [&[u8]; 10] =
        [b"failure", b"fine", b"config", b"log", b"system", b"success", b"note", b"alert", b"panic", b"emergency"];
    let ordinary = ORDINARY.iter().any(|w| w.eq_ignore_ascii_case(text));
    if ordinary && text != b"FAILURE" { None } else { word(text) }
}

/// The level of a single letter, as logcat, glog and others write it.
pub(crate) fn letter(letter: u8) -> Option<Level> {
    Some(match letter {
        b'T' => Level::Trace,
        b'D' | b'V' => Level::Debug,
        b'I' => Level::Info,
        b'N' => Level::Notice,
        b'W' => Level::Warn,
        b'E' => Level::Error,
        b'C' | b'F' | b'A' => Level::Critical,
        _ => return None,
    })
}

/// The level of a syslog priority: its lowest three bits.
pub(crate) fn of_priority(priority: u32) -> Option<Level> {
    Level::from_syslog(u8::try_from(priority % 8).ok()?)
}

/// The level that a message states in its first word: `error: …`, `[warn] …`, `WARNING …`,
/// `%LINK-3-UPDOWN: …`.
pub(crate) fn at_front(text: &[u8]) -> Option<Level> {
    if text.first() == Some(&b'%') {
        return severity_of_message_id(text);
    }
    let bracket = usize::from(text.first() == Some(&b'['));
    let letters = text.get(bracket..)?.iter().take(14).take_while(|b| b.is_ascii_alphabetic()).count();
    if letters < 3 {
        return None;
    }
    let first = &text[bracket..bracket + letters];
    match (bracket, text.get(bracket + letters)) {
        (1, Some(b']')) | (0, Some(b':')) => word(first),
        (0, Some(b' ')) if first.iter().all(u8::is_ascii_uppercase) => plain_word(first),
        _ => None,
    }
}

/// The level in a network device's message id: the digit in `%ASA-6-302013: …`.
fn severity_of_message_id(text: &[u8]) -> Option<Level> {
    let id = text.strip_prefix(b"%")?;
    let dash = id.iter().take(40).position(|b| *b == b'-')?;
    match id.get(dash + 1..dash + 3)? {
        [digit @ b'0'..=b'7', b'-'] => Level::from_syslog(digit - b'0'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_may_state_the_level() {
        assert_eq!(at_front(b"error: connection reset"), Some(Level::Error));
        assert_eq!(at_front(b"[Warn] Auth: x"), Some(Level::Warn));
        assert_eq!(at_front(b"WARNING the disk"), Some(Level::Warn));
        assert_eq!(at_front(b"error rates are fine"), None);
        assert_eq!(at_front(b"ERRORS: 0"), None);
        assert_eq!(severity_of_message_id(b"%ASA-6-302013: Built"), Some(Level::Info));
        assert_eq!(severity_of_message_id(b"%LINK-3-UPDOWN: x"), Some(Level::Error));
    }
}
