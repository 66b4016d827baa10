//! Which program a line is from.
//!
//! A rule that is for certain programs takes a line that may be theirs; a rule that leaves some out wants to be sure: a
//! user who is called like one of them is none.

/// What of a line may be its header.
const HEADER: usize = 160;
/// Words of a header.
const WORDS: usize = 12;

/// Whether a line may be from `program`: its service says so, or a word of its header.
pub(crate) fn may_have_written(program: &str, service: &str, line: &str) -> bool {
    is_service(program, service) || header(line).any(|word| is_named(word, program, b"[:/(-"))
}

/// Whether a line is from `program`: its service says so, or its header's last word, which a colon ends.
pub(crate) fn wrote(program: &str, service: &str, line: &str) -> bool {
    let tag = || header(line).find_map(|word| word.strip_suffix(':'));
    is_service(program, service) || tag().is_some_and(|tag| is_named(tag, program, b"[/("))
}

/// Whether a service is called like `program`, or like a part of it.
pub(crate) fn is_service(program: &str, service: &str) -> bool {
    let service = service.strip_suffix(".service").unwrap_or(service);
    begins(service, program) && !service.as_bytes().get(program.len()).is_some_and(u8::is_ascii_alphanumeric)
}

fn header(line: &str) -> impl Iterator<Item = &str> {
    line[..line.floor_char_boundary(HEADER)].split([' ', '\t']).take(WORDS)
}

/// Whether a word is the name of a program, perhaps with more behind one of `ends`.
fn is_named(word: &str, program: &str, ends: &[u8]) -> bool {
    begins(word, program) && word.as_bytes().get(program.len()).is_none_or(|byte| ends.contains(byte))
}

fn begins(text: &str, program: &str) -> bool {
    text.get(..program.len()).is_some_and(|head| head.eq_ignore_ascii_case(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_who_is_called_like_a_program_is_none() {
        for line in [
            "Nov 21 04:00:00 web-1 sshd[812]: Failed password for root",
            "2026-11-21T04:00:00+00:00 web-1 sshd: Failed password for root",
            "sshd(pam_unix)[812]: authentication failure",
        ] {
            assert!(wrote("sshd", "", line) && may_have_written("sshd", "", line), "{line}");
        }
        for line in
            ["app[7]: Login failed for sshd: wrong password", "app: login failed for user sshd from 203.0.113.7"]
        {
            assert!(!wrote("sshd", "", line), "{line}");
        }
        assert!(wrote("postfix", "", "postfix/smtpd[7]: warning") && wrote("sshd", "sshd.service", "Invalid user"));
        assert!(!wrote("sshd", "app", "Login failed") && !wrote("ssh", "sshd", "Invalid user"));
    }
}
