//! The journal's export format (`journalctl -o export`), record by record as the JSON line that `-o json` would print.
//!
//! A record is `FIELD=value` lines, or where a value has line ends or odd bytes the field's name, its length (64 bits, little
//! endian), the value and a line end; an empty line ends it
//! (<https://systemd.io/JOURNAL_EXPORT_FORMATS/#journal-export-format>).

use std::io::{self, BufRead, Read};

use serde_json::{Map, Value};

use crate::lines;

/// How every export begins.
pub(crate) const BEGINNING: &[u8] = b"__CURSOR=";

/// The fields that say something; there are dozens of others.
const FIELDS: [&str; 10] = [
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "SYSLOG_PID",
    "_COMM",
    "_HOSTNAME",
    "_PID",
    "_SOURCE_REALTIME_TIMESTAMP",
    "_SYSTEMD_UNIT",
    "__REALTIME_TIMESTAMP",
];

/// What is kept of each end of a long value: written as JSON, both fit a line.
const KEPT: usize = 64 * 1024;

/// Reads records as lines of JSON.
pub(crate) struct Export<R> {
    input: R,
    line: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Export<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, line: Vec::new(), at: 0 }
    }

    /// Makes the next record the line; at the end there is none.
    fn advance(&mut self) -> io::Result<()> {
        self.line.clear();
        self.at = 0;
        let mut record = Map::new();
        while let Some(taken) = lines::next(&mut self.input)? {
            if taken.text.is_empty() && record.is_empty() {
                continue;
            }
            if taken.text.is_empty() {
                break;
            }
            let (name, value) = match memchr::memchr(b'=', &taken.text) {
                Some(at) => (&taken.text[..at], shortened(&taken.text[at + 1..])),
                None => (&taken.text[..], self.long_value()?),
            };
            if let Some(field) = FIELDS.iter().find(|field| field.as_bytes() == name) {
                record.insert((*field).to_owned(), json(value));
            }
        }
        if !record.is_empty() {
            self.line = serde_json::to_vec(&record)?;
            self.line.push(b'\n');
        }
        Ok(())
    }

    /// A value whose length stands before it.
    fn long_value(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 8];
        self.input.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        let mut value = Vec::new();
        let mut left = length;
        while left > 0 {
            let chunk = self.input.fill_buf()?;
            if chunk.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a record of the journal breaks off"));
            }
            let used = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
            value.extend_from_slice(&chunk[..used]);
            self.input.consume(used);
            left -= used as u64;
            if value.len() > 4 * KEPT {
                value.drain(KEPT..value.len() - KEPT);
            }
        }
        let mut end = [0];
        self.input.read_exact(&mut end)?;
        if end != *b"\n" {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a record of the journal is damaged"));
        }
        Ok(ends(&value, length))
    }
}

fn shortened(value: &[u8]) -> Vec<u8> {
    ends(value, value.len() as u64)
}

/// Both ends of a value that is `length` bytes long; what is missing between them is said.
fn ends(value: &[u8], length: u64) -> Vec<u8> {
    if length <= 2 * KEPT as u64 {
        return value.to_vec();
    }
    let note = format!(" […{} bytes left out…] ", length - 2 * KEPT as u64);
    [&value[..KEPT], note.as_bytes(), &value[value.len() - KEPT..]].concat()
}

/// Text, or as the journal writes it bytes.
fn json(value: Vec<u8>) -> Value {
    match String::from_utf8(value) {
        Ok(text) => Value::String(text),
        Err(bytes) => Value::Array(bytes.into_bytes().into_iter().map(Value::from).collect()),
    }
}

impl<R: BufRead> Read for Export<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let used = self.fill_buf()?.read(out)?;
        self.consume(used);
        Ok(used)
    }
}

impl<R: BufRead> BufRead for Export<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.line.len() {
            self.advance()?;
        }
        Ok(&self.line[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.line.len().min(self.at.saturating_add(amount));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Vec<Value>> {
        let mut text = String::new();
        Export::new(io::BufReader::with_capacity(7, bytes)).read_to_string(&mut text)?;
        Ok(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    fn field(name: &str, value: &[u8]) -> Vec<u8> {
        [name.as_bytes(), b"\n", &(value.len() as u64).to_le_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn records_become_what_json_would_be() {
        let first =
            b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1795233600000000\n_BOOT_ID=7\nPRIORITY=3\n_HOSTNAME=web-1\n";
        let long = "x".repeat(300_000);
        let bytes = [
            &first[..],
            b"MESSAGE=a=b \"quoted\"\n\n__CURSOR=s=1;i=3\n",
            &field("MESSAGE", b"first\nsecond"),
            b"\n\n",
            &field("MESSAGE", b"\xff\x00"),
            b"\n__CURSOR=s=1;i=4\n",
            &field("MESSAGE", long.as_bytes()),
        ];
        let records = read(&bytes.concat()).unwrap();
        let wanted = serde_json::json!({ "__REALTIME_TIMESTAMP": "1795233600000000", "PRIORITY": "3",
            "_HOSTNAME": "web-1", "MESSAGE": "a=b \"quoted\"" });
        assert_eq!(records[0], wanted);
        assert_eq!(records[1]["MESSAGE"], "first\nsecond");
        assert_eq!(records[2]["MESSAGE"], serde_json::json!([255, 0]));
        let cut = records[3]["MESSAGE"].as_str().unwrap();
        assert!(cut.len() < 140_000 && cut.contains("[…168928 bytes left out…]"), "{}", cut.len());
        assert_eq!(records.len(), 4);
    }

    #[test]
    fn what_breaks_off_is_an_error() {
        let whole = [&b"__CURSOR=1\n"[..], &field("MESSAGE", b"first\nsecond"), b"\n"].concat();
        assert_eq!(read(&whole).unwrap().len(), 1);
        assert!(read(&whole[..30]).is_err());
        assert!(read(&whole[..22]).is_err());
        assert!(read(b"__CURSOR=1\nMESSAGE\n\xff\xff\xff\xff\xff\xff\xff\xffabc").is_err());
    }
}
