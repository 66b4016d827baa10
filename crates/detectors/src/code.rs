//! The compact form in which the memory is stored: a version byte, then numbers in as few bytes as they need.

/// Stored bytes that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Written by a newer version of the program.
    #[error("a row of the memory has version {0}, this program reads version {CURRENT}", CURRENT = VERSION)]
    Newer(u8),
    /// Cut off or damaged.
    #[error("a row of the memory is damaged")]
    Damaged,
}

/// The version that is written.
pub(crate) const VERSION: u8 = 2;

/// Writes numbers.
#[derive(Debug)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Self {
        Self(vec![VERSION])
    }

    pub(crate) fn unsigned(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    pub(crate) fn signed(&mut self, n: i64) {
        self.unsigned(((n << 1) ^ (n >> 63)) as u64);
    }

    pub(crate) fn float(&mut self, x: f32) {
        self.0.extend_from_slice(&x.to_le_bytes());
    }

    pub(crate) fn fixed(&mut self, n: u32) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads what [`Writer`] wrote.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        match bytes {
            [VERSION, rest @ ..] => Ok(Self(rest)),
            [newer, ..] if *newer > VERSION => Err(DecodeError::Newer(*newer)),
            _ => Err(DecodeError::Damaged),
        }
    }

    /// Whether nothing is left: rows that were written before something was added to them end here.
    pub(crate) fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, DecodeError> {
        let mut n = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take::<1>()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(DecodeError::Damaged)
    }

    pub(crate) fn signed(&mut self) -> Result<i64, DecodeError> {
        let n = self.unsigned()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, DecodeError> {
        T::try_from(self.unsigned()?).map_err(|_| DecodeError::Damaged)
    }

    pub(crate) fn float(&mut self) -> Result<f32, DecodeError> {
        let x = f32::from_le_bytes(self.take()?);
        if x.is_finite() { Ok(x) } else { Err(DecodeError::Damaged) }
    }

    pub(crate) fn fixed(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    /// A count of things that take at least `bytes` bytes each: never more than can follow.
    pub(crate) fn count(&mut self, bytes: usize) -> Result<usize, DecodeError> {
        let n: usize = self.small()?;
        if n.saturating_mul(bytes) <= self.0.len() { Ok(n) } else { Err(DecodeError::Damaged) }
    }

    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Damaged) }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Damaged)?;
        self.0 = rest;
        Ok(*head)
    }
}
