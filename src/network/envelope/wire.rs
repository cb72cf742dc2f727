//! The little CBOR that an envelope needs: shortest heads only, nothing of indefinite length.

use super::EnvelopeError;

// Major types of CBOR, in the upper three bits of a head.
pub(super) const UINT: u8 = 0 << 5;
pub(super) const BYTES: u8 = 2 << 5;
pub(super) const TEXT: u8 = 3 << 5;
pub(super) const ARRAY: u8 = 4 << 5;
pub(super) const MAP: u8 = 5 << 5;
pub(super) const NULL: u8 = 0xf6;

/// Bytes of the head of a string of `length` bytes.
pub(super) fn head_len(length: usize) -> usize {
    match length {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Writes a CBOR head in its shortest form.
pub(super) fn head(out: &mut Vec<u8>, major: u8, value: u64) {
    let bytes = value.to_be_bytes();
    let (info, tail) = match value {
        0..24 => (bytes.get(7).copied().unwrap_or(0), 8),
        24..0x100 => (24, 7),
        0x100..0x1_0000 => (25, 6),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 0),
    };
    out.push(major | info);
    out.extend_from_slice(bytes.get(tail..).unwrap_or_default());
}

/// The head of a string.
pub(super) fn bytes_head(out: &mut Vec<u8>, major: u8, length: usize) {
    // usize fits u64 on every platform this runs on.
    head(out, major, u64::try_from(length).unwrap_or(u64::MAX));
}

/// A key and the head of its value.
pub(super) fn pair(out: &mut Vec<u8>, key: u64, major: u8, value: u64) {
    head(out, UINT, key);
    head(out, major, value);
}

/// A key and a text.
pub(super) fn text(out: &mut Vec<u8>, key: u64, text: &str) {
    head(out, UINT, key);
    bytes_head(out, TEXT, text.len());
    out.extend_from_slice(text.as_bytes());
}

pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Bytes that were not read yet.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    /// Nothing may follow.
    pub(super) fn finish(&self) -> Result<(), EnvelopeError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(EnvelopeError::Malformed)
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], EnvelopeError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(EnvelopeError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A head in its shortest form: any longer one is a second spelling.
    fn head(&mut self) -> Result<(u8, u64), EnvelopeError> {
        let first = *self.take(1)?.first().ok_or(EnvelopeError::Malformed)?;
        let (major, info) = (first & 0xe0, first & 0x1f);
        let (bytes, least) = match info {
            0..24 => return Ok((major, u64::from(info))),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            _ => return Err(EnvelopeError::Malformed),
        };
        let value = self.take(bytes)?;
        let value = value
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        if value < least {
            return Err(EnvelopeError::Malformed);
        }
        Ok((major, value))
    }

    /// The value of a head of this kind.
    pub(super) fn of_kind(&mut self, major: u8) -> Result<u64, EnvelopeError> {
        match self.head()? {
            (found, value) if found == major => Ok(value),
            _ => Err(EnvelopeError::Malformed),
        }
    }

    fn key(&mut self, key: u64) -> Result<(), EnvelopeError> {
        if self.of_kind(UINT)? == key {
            Ok(())
        } else {
            Err(EnvelopeError::Malformed)
        }
    }

    /// The value of this key, of this kind.
    pub(super) fn pair(&mut self, key: u64, major: u8) -> Result<u64, EnvelopeError> {
        self.key(key)?;
        self.of_kind(major)
    }

    /// A byte or text string.
    pub(super) fn string(&mut self, major: u8) -> Result<&'a [u8], EnvelopeError> {
        let length = self.of_kind(major)?;
        self.take(usize::try_from(length).map_err(|_| EnvelopeError::Malformed)?)
    }

    /// A key and a text.
    pub(super) fn text(&mut self, key: u64) -> Result<&'a str, EnvelopeError> {
        self.key(key)?;
        std::str::from_utf8(self.string(TEXT)?).map_err(|_| EnvelopeError::Malformed)
    }

    /// Key 4: a hash, or null.
    pub(super) fn credential(&mut self) -> Result<Option<[u8; 32]>, EnvelopeError> {
        self.key(4)?;
        if let Some(rest) = self.0.strip_prefix(&[NULL]) {
            self.0 = rest;
            return Ok(None);
        }
        let hash = self.string(BYTES)?.try_into();
        hash.map(Some).map_err(|_| EnvelopeError::Malformed)
    }
}
