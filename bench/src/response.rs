//! The least HTTP/1.1 client reading that a benchmark can trust: a status, a `Content-Length` and
//! that many bytes.
//!
//! Bytes go into `spare`, as many as came are `advance`d, and `next` yields the response's head as
//! soon as all of the response is there. No more than one request is ever under way on a
//! connection, so bytes behind a response are an error, as are chunked bodies: both would mean that
//! the server isn't what this benchmark takes it for.

use std::fmt;

/// An answer to a batch of 100 checks has about 50 kB.
const RESPONSE_BYTES_MAX: usize = 1 << 20;
/// The room that every read finds, at least.
const READ_BYTES: usize = 16 * 1024;

/// Why bytes are no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    NotHttp,
    NoContentLength,
    TooLong { bytes: usize, max: usize },
    Surplus { bytes: usize },
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttp => f.write_str("the answer does not start like HTTP/1.1"),
            Self::NoContentLength => f.write_str("the answer has no Content-Length"),
            Self::TooLong { bytes, max } => {
                write!(f, "the answer has {bytes} bytes or more, {max} is the most")
            }
            Self::Surplus { bytes } => write!(f, "{bytes} bytes follow the answer"),
        }
    }
}

impl std::error::Error for ResponseError {}

/// The head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    bytes: usize,
    body_bytes: usize,
}

impl Head {
    /// Head and body together.
    pub fn response_bytes(&self) -> usize {
        self.bytes.saturating_add(self.body_bytes)
    }
}

/// What has come of the response under way.
#[derive(Debug, Default)]
pub struct ResponseReader {
    buffer: Vec<u8>,
    filled: usize,
    head: Option<Head>,
    /// The last response came out; its bytes stay until the next read.
    done: bool,
}

impl ResponseReader {
    /// Where the next read may write: never empty.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.done {
            self.filled = 0;
            self.head = None;
            self.done = false;
        }
        let room = self.filled + READ_BYTES;
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// `bytes` of the spare room were written.
    pub fn advance(&mut self, bytes: usize) {
        self.filled += bytes;
    }

    /// The response's head if all of the response came, `None` if more must be read. A response
    /// comes out once.
    pub fn next(&mut self) -> Result<Option<Head>, ResponseError> {
        if self.head.is_none() {
            self.head = head(&self.buffer[..self.filled])?;
        }
        let max = RESPONSE_BYTES_MAX;
        let Some(head) = self.head else {
            return if self.filled > max {
                Err(ResponseError::TooLong { bytes: self.filled, max })
            } else {
                Ok(None)
            };
        };
        let bytes = head.response_bytes();
        if bytes > max {
            return Err(ResponseError::TooLong { bytes, max });
        }
        if self.filled < bytes {
            return Ok(None);
        }
        if self.filled > bytes {
            return Err(ResponseError::Surplus { bytes: self.filled - bytes });
        }
        self.done = true;
        Ok(Some(head))
    }

    /// The body of the response that `next` just yielded; empty once the room for the next one was
    /// asked for.
    pub fn body(&self) -> &[u8] {
        match self.head {
            Some(head) if self.done => &self.buffer[head.bytes..head.response_bytes()],
            _ => &[],
        }
    }
}

/// The head that `bytes` start with, or `None` if its end hasn't come.
fn head(bytes: &[u8]) -> Result<Option<Head>, ResponseError> {
    let mut status = None;
    let mut length = None;
    let mut start = 0;
    while let Some(width) = bytes[start..].iter().position(|byte| *byte == b'\n') {
        let line = bytes[start..start + width].trim_ascii_end();
        start += width + 1;
        if status.is_none() {
            status = Some(status_of(line).ok_or(ResponseError::NotHttp)?);
        } else if line.is_empty() {
            return Ok(Some(Head {
                status: status.ok_or(ResponseError::NotHttp)?,
                bytes: start,
                body_bytes: length.ok_or(ResponseError::NoContentLength)?,
            }));
        } else if let Some(told) = content_length(line) {
            length = Some(told.ok_or(ResponseError::NoContentLength)?);
        }
    }
    Ok(None)
}

/// `HTTP/1.1 200 OK` → 200.
fn status_of(line: &[u8]) -> Option<u16> {
    let digits = line.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// `None` for any other header; `Some(None)` for a length that isn't one.
fn content_length(line: &[u8]) -> Option<Option<usize>> {
    const NAME: &[u8] = b"content-length:";
    let (name, value) = line.split_at_checked(NAME.len())?;
    if !name.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let value = std::str::from_utf8(value.trim_ascii()).ok();
    Some(value.and_then(|digits| digits.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 4\r\n\r\ntrue";

    fn feed(reader: &mut ResponseReader, bytes: &[u8]) {
        reader.spare()[..bytes.len()].copy_from_slice(bytes);
        reader.advance(bytes.len());
    }

    fn read(bytes: &[u8]) -> Result<Option<(u16, Vec<u8>)>, ResponseError> {
        let mut reader = ResponseReader::default();
        feed(&mut reader, bytes);
        let head = reader.next()?;
        Ok(head.map(|head| (head.status, reader.body().to_vec())))
    }

    #[test]
    fn a_whole_answer_is_read_at_once() {
        assert_eq!(read(ANSWER), Ok(Some((200, b"true".to_vec()))));
        let empty = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(read(empty), Ok(Some((503, Vec::new()))));
    }

    #[test]
    fn an_answer_cut_anywhere_is_awaited() {
        for cut in 0..ANSWER.len() {
            let mut reader = ResponseReader::default();
            feed(&mut reader, &ANSWER[..cut]);
            assert_eq!(reader.next(), Ok(None), "cut at {cut}");
            feed(&mut reader, &ANSWER[cut..]);
            let head = reader.next().unwrap().unwrap();
            assert_eq!(reader.body(), b"true");
            assert_eq!(head.response_bytes(), ANSWER.len());
        }
    }

    #[test]
    fn one_reader_reads_answer_after_answer() {
        let mut reader = ResponseReader::default();
        for _ in 0..3 {
            feed(&mut reader, ANSWER);
            assert!(reader.next().unwrap().is_some());
            assert_eq!(reader.body(), b"true");
        }
    }

    #[test]
    fn an_answer_longer_than_one_read_is_put_together() {
        let body = vec![b'x'; 3 * READ_BYTES];
        let mut whole = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        whole.push_str(std::str::from_utf8(&body).unwrap());
        let mut reader = ResponseReader::default();
        for part in whole.as_bytes().chunks(1000) {
            assert_eq!(reader.next(), Ok(None));
            feed(&mut reader, part);
        }
        assert!(reader.next().unwrap().is_some());
        assert_eq!(reader.body(), body);
    }

    #[test]
    fn what_this_client_cannot_read_is_an_error() {
        let huge = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", usize::MAX);
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab";
        let cases = [
            ("SSH-2.0-x\r\n\r\n", ResponseError::NotHttp),
            (chunked, ResponseError::NoContentLength),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ResponseError::NoContentLength),
            (surplus, ResponseError::Surplus { bytes: 1 }),
            (&huge, ResponseError::TooLong { bytes: usize::MAX, max: RESPONSE_BYTES_MAX }),
        ];
        for (bytes, error) in cases {
            assert_eq!(read(bytes.as_bytes()), Err(error), "{bytes:?}");
        }
    }
}
