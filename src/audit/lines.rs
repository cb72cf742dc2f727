//! Segments as lines: their names, and a reader whose memory is bounded whatever the file holds.

use std::io::{self, BufRead};

use super::{record::MAX_LINE, storage::Storage};

/// Digits of a segment's number in its file name; the order of names is the order of numbers.
const DIGITS: usize = 8;
const EXTENSION: &str = ".jsonl";

/// File name of the segment with this number.
#[must_use]
pub fn segment_name(number: u64) -> String {
    format!("{number:0DIGITS$}{EXTENSION}")
}

/// The number of the segment with this file name; `None` when it is none.
#[must_use]
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(EXTENSION)?;
    let canonical = digits.len() >= DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|_| canonical)?;
    (segment_name(number) == name).then_some(number)
}

/// Numbers of all segments, ascending.
pub(super) fn segments(storage: &dyn Storage) -> io::Result<Vec<u64>> {
    let names = storage.list()?;
    let mut numbers: Vec<u64> = names
        .iter()
        .filter_map(|name| segment_number(name))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// One line of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// A complete line, without its newline.
    Whole(Vec<u8>),
    /// The last line, without a newline: what a crash left. Its bytes, cut at the bound.
    Torn(Vec<u8>),
    /// Longer than any record; skipped.
    TooLong,
}

/// Reads a segment line by line.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    /// Bytes consumed up to the end of the last whole line.
    pub(super) whole_bytes: u64,
}

impl Lines {
    pub(super) fn open(storage: &dyn Storage, number: u64) -> io::Result<Self> {
        let reader = storage.read(&segment_name(number), 0)?;
        Ok(Self {
            reader,
            whole_bytes: 0,
        })
    }

    /// The next line; `None` at the end of the file.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        let mut line = Vec::new();
        let mut length: u64 = 0;
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if chunk.is_empty() {
                return Ok((length > 0).then_some(Line::Torn(line)));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or(chunk);
            // One byte over the bound is enough to know that it is too long.
            let room = (MAX_LINE + 1).saturating_sub(line.len());
            line.extend_from_slice(part.get(..room).unwrap_or(part));
            let used = part.len() + usize::from(end.is_some());
            length = length.saturating_add(u64::try_from(used).unwrap_or(u64::MAX));
            self.reader.consume(used);
            if end.is_some() {
                self.whole_bytes = self.whole_bytes.saturating_add(length);
                let fits = line.len() <= MAX_LINE;
                return Ok(Some(if fits {
                    Line::Whole(line)
                } else {
                    Line::TooLong
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(segment_name(1), "00000001.jsonl");
        assert_eq!(segment_number("00000001.jsonl"), Some(1));
        assert_eq!(segment_number("123456789.jsonl"), Some(123_456_789));
        for other in [
            "1.jsonl",
            "00000001.jsonl.torn",
            "0000000x.jsonl",
            "000000001.jsonl",
            "lock",
        ] {
            assert_eq!(segment_number(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn numbers_round_trip(number: u64) {
            prop_assert_eq!(segment_number(&segment_name(number)), Some(number));
        }
    }
}
