//! Numbers in as few bytes as they need, for what is kept of very many rows.

/// Appends a number: seven bits a byte, the lowest first.
pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a number that may be negative; small ones of either sign are short.
pub(crate) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, (number << 1 ^ number >> 63) as u64);
}

/// Takes what [`put`] has appended from the front; zero where nothing is left.
pub(crate) fn take(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = bytes.split_first() else { break };
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

/// Takes what [`put_signed`] has appended.
pub(crate) fn take_signed(bytes: &mut &[u8]) -> i64 {
    let number = take(bytes);
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// Takes so many bytes, or as many as are left.
pub(crate) fn part<'b>(bytes: &mut &'b [u8], len: u64) -> &'b [u8] {
    let (part, rest) = bytes.split_at(usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len()));
    *bytes = rest;
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive() {
        let signed = [0, 1, -1, 63, -64, 64, 300, -70_000, i64::MAX, i64::MIN];
        let mut out = Vec::new();
        for number in signed {
            put_signed(&mut out, number);
            put(&mut out, number as u64);
        }
        let mut bytes = &out[..];
        for number in signed {
            assert_eq!((take_signed(&mut bytes), take(&mut bytes)), (number, number as u64));
        }
        assert_eq!((bytes, take(&mut bytes)), (&b""[..], 0));
    }
}
