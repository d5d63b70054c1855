//! A second look at the head of an HTTP/1 request, before the parser's.
//!
//! hyper is lenient where the standard lets it be: it takes a bare line feed for the end of a line,
//! a length that is told twice, and of a length and chunks together it believes the chunks. That is
//! how a request is smuggled past one of two servers that disagree, so all three are refused here.
//! The scan follows requests that stand behind each other by their lengths and chunks. HTTP/2 has
//! frames and none of this; a connection that begins with its preface, in however many pieces,
//! isn't looked at any more.

/// A line longer than this is refused by the parser anyway.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Looks at the heads on one connection, line by line, as their bytes come.
#[derive(Default)]
pub struct HeadScan {
    place: Place,
    /// Heads that have begun so far.
    heads: u64,
    /// The first head that can be read in two ways; 0 is none.
    ambiguous: u64,
    /// The beginning of a line whose end hasn't come.
    begun: Vec<u8>,
    length: Option<u64>,
    has_encoding: bool,
    is_http2: bool,
}

#[derive(Default, PartialEq, Eq)]
enum Place {
    /// Before the first line of a head.
    #[default]
    Between,
    Head,
    /// So many bytes before the next head.
    Body(u64),
    /// Before the size of a chunk.
    Size,
    /// So many bytes, the end of the line included, before the next size.
    Chunk(u64),
    Trailers,
    /// In HTTP/2, or in what the parser refuses.
    Lost,
}

impl HeadScan {
    /// Whether the connection began with HTTP/2's preface.
    pub fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// Takes the next bytes. Answers with the number of the first head that can be read in two
    /// ways, from 1 on; 0 is none.
    pub fn feed(&mut self, mut bytes: &[u8]) -> u64 {
        while !bytes.is_empty() && self.place != Place::Lost {
            if let Place::Body(left) | Place::Chunk(left) = &mut self.place {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                bytes = &bytes[here..];
                *left -= here as u64;
                match self.place {
                    Place::Body(0) => self.place = Place::Between,
                    Place::Chunk(0) => self.place = Place::Size,
                    _ => {}
                }
                continue;
            }
            let Some(at) = memchr::memchr(b'\n', bytes) else {
                self.begun.extend_from_slice(bytes);
                if self.begun.len() > LINE_BYTES_MAX {
                    self.place = Place::Lost;
                }
                break;
            };
            let (line, rest) = bytes.split_at(at + 1);
            bytes = rest;
            if self.begun.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.begun);
                whole.extend_from_slice(line);
                self.line(&whole);
            }
        }
        self.ambiguous
    }

    fn line(&mut self, line: &[u8]) {
        let text = line.strip_suffix(b"\r\n");
        let empty = text.unwrap_or(&line[..line.len() - 1]).is_empty();
        match self.place {
            Place::Size => return self.place = after_size(line),
            Place::Trailers if empty => return self.place = Place::Between,
            Place::Trailers => return,
            _ => {}
        }
        if self.place == Place::Between {
            // Empty lines before a head are skipped, as the parser does.
            if empty {
                return;
            }
            (self.place, self.length, self.has_encoding) = (Place::Head, None, false);
            self.heads += 1;
            if self.heads == 1 && line.starts_with(b"PRI ") {
                (self.place, self.is_http2) = (Place::Lost, true);
                return;
            }
        }
        let line = text.unwrap_or(line);
        let value = |name: &[u8]| {
            let start = line.get(..name.len())?;
            start.eq_ignore_ascii_case(name).then(|| line[name.len()..].trim_ascii())
        };
        let mut repeated = false;
        if let Some(length) = value(b"content-length:") {
            repeated = self.length.is_some();
            self.length =
                Some(std::str::from_utf8(length).ok().and_then(|n| n.parse().ok()).unwrap_or(0));
        }
        self.has_encoding |= value(b"transfer-encoding:").is_some();
        if text.is_none() || repeated || (self.has_encoding && self.length.is_some()) {
            self.ambiguous = if self.ambiguous == 0 { self.heads } else { self.ambiguous };
        }
        if empty {
            self.place = match self.length {
                _ if self.has_encoding => Place::Size,
                None | Some(0) => Place::Between,
                Some(length) => Place::Body(length),
            };
        }
    }
}

/// Where a chunk's size leads; what isn't one is refused by the parser.
fn after_size(line: &[u8]) -> Place {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let size =
        std::str::from_utf8(&line[..digits]).ok().and_then(|hex| u64::from_str_radix(hex, 16).ok());
    match size {
        Some(0) => Place::Trailers,
        Some(size) => Place::Chunk(size.saturating_add(2)),
        None => Place::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ambiguous(heads: &str) -> u64 {
        let whole = HeadScan::default().feed(heads.as_bytes());
        let mut by_byte = HeadScan::default();
        let split = heads.bytes().fold(0, |_, byte| by_byte.feed(&[byte]));
        assert_eq!(whole, split, "{heads:?}");
        whole
    }

    const BOTH: &str = "POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n";

    #[test]
    fn a_length_beside_chunks_or_a_bare_line_feed_can_be_read_in_two_ways() {
        assert_eq!(ambiguous(BOTH), 1);
        assert_eq!(
            ambiguous("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"),
            1
        );
        assert_eq!(
            ambiguous("POST / HTTP/1.1\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n"),
            1
        );
        assert_eq!(ambiguous("GET / HTTP/1.1\nhost: a\n\n"), 1);
        assert_eq!(ambiguous("GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n"), 1);
    }

    #[test]
    fn an_ordinary_head_and_whatever_is_in_the_body_are_fine() {
        assert_eq!(
            ambiguous("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\n\r\n{\n\"a\":\n1}\n"),
            0
        );
        assert_eq!(
            ambiguous(
                "\r\nPOST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{\n}\n\r\n0\r\n\r\n"
            ),
            0
        );
    }

    #[test]
    fn a_request_behind_others_is_found_by_their_lengths() {
        let good = "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\n{}\n";
        let get = "GET / HTTP/1.1\r\n\r\n";
        assert_eq!(ambiguous(&[good, get, BOTH].concat()), 3);
        assert_eq!(ambiguous(&[good, get, good].concat()), 0);
    }

    #[test]
    fn chunks_are_followed_too() {
        let chunks = "POST / HTTP/1.1\r\ntransfer-encoding: \
                      chunked\r\n\r\n3;x=y\r\n\n\n\n\r\nA\r\n0123\n56789\r\n0\r\nx: y\r\n\r\n";
        assert_eq!(ambiguous(&[chunks, chunks].concat()), 0);
        assert_eq!(ambiguous(&[chunks, BOTH].concat()), 2);
    }

    #[test]
    fn http2_is_known_by_its_preface_and_left_alone() {
        let mut scan = HeadScan::default();
        for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\n\n\n" {
            assert_eq!(scan.feed(&[*byte]), 0);
        }
        assert!(scan.is_http2());
    }
}
