//! What a command says when it fails: what, why, and what to do.

use std::{
    error::Error,
    io::{self, Write},
};

use logwarden_config::WireError;

/// Why a command ends.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// It failed, and another run may succeed.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self { code: 1, what: what.into(), causes: Vec::new(), hint: None }
    }

    /// Usage or configuration is wrong: another run will not help.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { code: 2, ..Self::failed(what) }
    }

    /// What failed, and why, in one line.
    pub(crate) fn line(&self) -> String {
        std::iter::once(self.what.as_str()).chain(self.causes.iter().map(String::as_str)).collect::<Vec<_>>().join(": ")
    }

    pub(crate) fn because(mut self, error: &dyn Error) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            // Said already, and more exactly.
            if !self.what.starts_with(&text) && self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            cause = error.source();
        }
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// Writes the three parts.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.what.is_empty() {
            return Ok(());
        }
        writeln!(out, "error: {}", self.what)?;
        for cause in &self.causes {
            writeln!(out, "  caused by: {cause}")?;
        }
        if let Some(hint) = &self.hint {
            writeln!(out, "  hint: {hint}")?;
        }
        Ok(())
    }
}

impl From<io::Error> for Failure {
    /// Standard output could not be written. Who closed it wants no more: that is no failure.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { code: 0, what: String::new(), causes: Vec::new(), hint: None };
        }
        Self::failed("cannot write to standard output").because(&error)
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        let mut failure =
            if error.is_permanent() { Self::usage(error.to_string()) } else { Self::failed(error.to_string()) };
        if let Some(cause) = error.source() {
            failure = failure.because(cause);
        }
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_why_and_what_to_do() {
        let cause = io::Error::new(io::ErrorKind::PermissionDenied, "permission denied");
        let failure =
            Failure::failed("cannot use the state in /x").because(&cause).hint("name another: --state-dir DIR");
        let mut text = Vec::new();
        failure.write(&mut text).unwrap_or_default();
        insta::assert_snapshot!(String::from_utf8_lossy(&text), @r"
        error: cannot use the state in /x
          caused by: permission denied
          hint: name another: --state-dir DIR
        ");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        let mut text = Vec::new();
        failure.write(&mut text).unwrap_or_default();
        assert_eq!((failure.code(), text.len()), (0, 0));
    }
}
