//! Bounded lines of JSON over a byte stream, for both ends of the admin socket.
//!
//! A line that grows past its bound is an error at once, not after it was collected: memory is
//! bounded by the bound whatever the other end sends.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};

use super::protocol::MAX_LINE;

/// Why no line came.
#[derive(Debug, Error)]
pub enum LineError {
    /// The line is longer than the bound.
    #[error("a line of more than {0} bytes")]
    TooLong(usize),
    /// The stream ended in the middle of a line.
    #[error("the connection ended in the middle of a line")]
    Cut,
    /// Not the JSON expected.
    #[error("not understood: {0}")]
    Json(#[from] serde_json::Error),
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Reads bounded lines. Cancel-safe: what was read of a line is kept for the next call.
#[derive(Debug)]
pub struct LineReader<R> {
    inner: R,
    line: Vec<u8>,
    limit: usize,
}

impl<R: AsyncBufRead + Unpin> LineReader<R> {
    /// Reads lines of at most [`MAX_LINE`] bytes.
    pub fn new(inner: R) -> Self {
        Self::with_limit(inner, MAX_LINE)
    }

    /// Reads lines of at most `limit` bytes, their end not counted.
    pub fn with_limit(inner: R, limit: usize) -> Self {
        Self {
            inner,
            line: Vec::new(),
            limit,
        }
    }

    /// The next line as a value; `None` when the stream ended between lines.
    ///
    /// # Errors
    /// As [`LineError`] says; after one the stream is of no more use.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        match self.next_line().await? {
            Some(line) => Ok(Some(serde_json::from_slice(&line)?)),
            None => Ok(None),
        }
    }

    /// The next line's bytes; `None` when the stream ended between lines.
    ///
    /// # Errors
    /// As [`LineError`] says; after one the stream is of no more use.
    pub async fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            // The only await: nothing is consumed before it returns.
            let chunk = self.inner.fill_buf().await?;
            if chunk.is_empty() {
                return if self.line.is_empty() {
                    Ok(None)
                } else {
                    Err(LineError::Cut)
                };
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or(chunk);
            if self.line.len().saturating_add(part.len()) > self.limit {
                return Err(LineError::TooLong(self.limit));
            }
            self.line.extend_from_slice(part);
            let used = part.len() + usize::from(end.is_some());
            self.inner.consume(used);
            if end.is_some() {
                return Ok(Some(std::mem::take(&mut self.line)));
            }
        }
    }
}

/// Writes `value` as one line and flushes it.
///
/// # Errors
/// [`LineError::TooLong`] when it would not fit [`MAX_LINE`], [`LineError::Io`] when the other
/// end is gone.
pub async fn write<W, T>(writer: &mut W, value: &T) -> Result<(), LineError>
where
    W: AsyncWrite + Unpin,
    T: Serialize + Sync,
{
    let mut line = serde_json::to_vec(value)?;
    if line.len() > MAX_LINE {
        return Err(LineError::TooLong(MAX_LINE));
    }
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::BufReader;

    async fn read(input: &[u8], limit: usize) -> Result<Option<Vec<u8>>, LineError> {
        // A buffer of 3 bytes cuts lines at odd places.
        LineReader::with_limit(BufReader::with_capacity(3, input), limit)
            .next_line()
            .await
    }

    #[tokio::test]
    async fn lines_are_bounded_and_whole() {
        assert_eq!(read(b"", 8).await.unwrap(), None);
        assert_eq!(read(b"12345678\n9", 8).await.unwrap().unwrap(), b"12345678");
        assert!(matches!(
            read(b"123456789\n", 8).await,
            Err(LineError::TooLong(8))
        ));
        assert!(matches!(
            read(b"123456789", 8).await,
            Err(LineError::TooLong(8))
        ));
        assert!(matches!(read(b"1234", 8).await, Err(LineError::Cut)));
    }

    #[tokio::test]
    async fn a_line_without_end_costs_no_more_than_the_bound() {
        let (mut ours, theirs) = tokio::io::duplex(1 << 10);
        let writer = tokio::spawn(async move {
            let junk = [b'x'; 512];
            let mut written = 0_usize;
            while ours.write_all(&junk).await.is_ok() {
                written += junk.len();
            }
            written
        });
        let mut reader = LineReader::with_limit(BufReader::new(theirs), 4 << 10);
        assert!(matches!(
            reader.next_line().await,
            Err(LineError::TooLong(_))
        ));
        drop(reader);
        assert!(writer.await.unwrap() < 16 << 10);
    }
}
