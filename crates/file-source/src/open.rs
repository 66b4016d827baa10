//! Opens a file as a stream of text, whatever it is packed in, or says why that cannot be.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
};

use logwarden_core::source::SourceError;

use crate::export::{self, Export};

/// How much is looked at to tell what a file is.
pub(crate) const HEAD: usize = 4096;
/// So many bytes tell what it is packed in.
const LONGEST_MARK: usize = 16;
const BUFFER: usize = 256 * 1024;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Whether that is the beginning of what can be unpacked here.
pub(crate) fn is_packed(head: &[u8]) -> bool {
    head.starts_with(GZIP) || head.starts_with(ZSTD)
}

/// A text stream over the input, unpacked.
///
/// # Errors
///
/// When it cannot be read, or is no text.
pub(crate) fn text(name: &str, mut input: Box<dyn Read + Send>) -> Result<Box<dyn BufRead + Send>, SourceError> {
    let failed = |cause| SourceError::Io { path: name.to_owned(), cause };
    let head = head(&mut *input).map_err(failed)?;
    let gzip = head.starts_with(GZIP);
    let whole = Cursor::new(head.clone()).chain(input);
    if !is_packed(&head) {
        return lines(name, &head, whole);
    }
    let mut unpacked: Box<dyn Read + Send> = if gzip {
        Box::new(flate2::read::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, whole)))
    } else {
        Box::new(zstd::stream::read::Decoder::new(whole).map_err(failed)?)
    };
    let head = self::head(&mut *unpacked).map_err(failed)?;
    let whole = Cursor::new(head.clone()).chain(unpacked);
    lines(name, &head, whole)
}

/// The lines of `whole`, which begins with `head`.
fn lines(name: &str, head: &[u8], whole: impl Read + Send + 'static) -> Result<Box<dyn BufRead + Send>, SourceError> {
    let whole = BufReader::with_capacity(BUFFER, whole);
    if head.starts_with(export::BEGINNING) {
        return Ok(Box::new(Export::new(whole)));
    }
    check(name, head)?;
    Ok(Box::new(whole))
}

/// Opens a file, unpacked.
pub(crate) fn file(path: &Path) -> Result<Box<dyn BufRead + Send>, SourceError> {
    let name = path.display().to_string();
    let failed = |cause| SourceError::Io { path: name.clone(), cause };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(SourceError::Unusable {
            subject: name.clone(),
            reason: "it is a directory".to_owned(),
            hint: Some(name_files(path)),
        });
    }
    text(&name, Box::new(file))
}

/// What to write instead of a directory.
pub(crate) fn name_files(directory: &Path) -> String {
    format!("name its files: {}", directory.join("*.log").display())
}

/// What it begins with: all of it, [`HEAD`] bytes, or what a pipe has given when it has given a line.
fn head(input: &mut dyn Read) -> io::Result<Vec<u8>> {
    let (mut head, mut buffer) = (Vec::with_capacity(HEAD), [0; HEAD]);
    loop {
        match input.read(&mut buffer[head.len()..]) {
            Ok(0) => return Ok(head),
            Ok(n) => head.extend_from_slice(&buffer[head.len()..][..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if head.len() == HEAD || (head.len() >= LONGEST_MARK && head.contains(&b'\n')) {
            return Ok(head);
        }
    }
}

/// Refuses what is certainly no text, with a hint how to make it one.
fn check(name: &str, head: &[u8]) -> Result<(), SourceError> {
    let noise = || is_noise(head).then(|| "only text can be read, plain or packed with gzip or zstd".to_owned());
    match mark(name, head).or_else(noise) {
        None => Ok(()),
        hint => Err(no_text(name, hint)),
    }
}

pub(crate) fn no_text(name: &str, hint: Option<String>) -> SourceError {
    SourceError::Unusable { subject: name.to_owned(), reason: "it is not a text file".to_owned(), hint }
}

/// What the first bytes say it is instead of text, and how to make it text.
pub(crate) fn mark(name: &str, head: &[u8]) -> Option<String> {
    let scan = |what: &str, command: String| Some(format!("it is {what}: {command} | logwarden-analyzer scan -"));
    match head {
        [b'L', b'P', b'K', b'S', b'H', b'H', b'R', b'H', ..] => {
            scan("a systemd journal", format!("journalctl -o json --file {name}"))
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => scan("UTF-16", format!("iconv -f UTF-16 -t UTF-8 {name}")),
        // After its name and level comes the first digit of pi, or of its root when there is nothing in it.
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, ..]
        | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, ..] => scan("packed with bzip2", format!("bzcat {name}")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => scan("packed with xz", format!("xzcat {name}")),
        _ => None,
    }
}

/// Whether nobody would take this for a part of a text.
pub(crate) fn is_noise(bytes: &[u8]) -> bool {
    let odd = bytes.iter().filter(|byte| matches!(byte, 0..=8 | 14..=26 | 28..=31)).count();
    // Text in an older encoding has many bytes that are not UTF-8, but hardly a control character.
    let foreign: usize = bytes.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    odd * 10 > bytes.len() || (odd * 50 > bytes.len() && foreign * 10 > bytes.len() * 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_of_the_journal_is_recognised() {
        let bytes = &b"__CURSOR=s=1\nPRIORITY=3\nMESSAGE=disk is full\n\n"[..];
        let mut lines = String::new();
        text("journal", Box::new(bytes)).unwrap().read_to_string(&mut lines).unwrap();
        assert_eq!(lines, "{\"MESSAGE\":\"disk is full\",\"PRIORITY\":\"3\"}\n");
    }

    #[test]
    fn noise_is_no_text_and_other_encodings_are() {
        let mut state = 88_172_645_463_325_252_u64;
        for _ in 0..200 {
            let noise = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            });
            let noise: Vec<u8> = noise.take(HEAD).collect();
            assert!(check("noise", &noise).is_err());
        }
        let shift_jis = b"\x83T\x81[\x83o\x81[\x82\xaa\x92\xe2\x8e~\x82\xb5\x82\xdc\x82\xb5\x82\xbd\n".repeat(100);
        let latin = b"Nov 21 04:00:00 web-1 app: \xfcbergro\xdfe Datei gel\xf6scht\n".repeat(100);
        let coloured = b"\x1b[31merror\x1b[0m\tno space left\r\n".repeat(100);
        for text in [shift_jis, latin, coloured] {
            assert!(check("text", &text).is_ok(), "{:?}", String::from_utf8_lossy(&text[..60]));
        }
    }
}
