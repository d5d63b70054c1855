//! A second look at the head of an HTTP/1 request, before the parser's.
//!
//! hyper is lenient where the standard lets it be: it takes a bare line feed for the end of a line, and of a length and
//! chunks together it believes the chunks. Both are how a request is smuggled past one of two servers that disagree, so both
//! are refused here. Only the first head after a connection was idle is looked at. A request behind it in the same packet is
//! refused for what the parser leaves visible (a length before chunks); nothing of it is passed on to anybody.

/// A head longer than this is refused by the parser anyway.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Looks at a head line by line, as its bytes come.
#[derive(Default)]
pub struct HeadScan {
    /// The beginning of a line whose end hasn't come.
    begun: Vec<u8>,
    lines: usize,
    has_length: bool,
    has_encoding: bool,
    ambiguous: bool,
    over: bool,
}

impl HeadScan {
    /// Takes the next bytes. Answers whether what has come of the head so far can be read in two ways.
    pub fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while let Some(at) = bytes.iter().position(|byte| *byte == b'\n').filter(|_| !self.over) {
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
        if !self.over && self.begun.len() + bytes.len() <= LINE_BYTES_MAX {
            self.begun.extend_from_slice(bytes);
        }
        self.ambiguous
    }

    fn line(&mut self, line: &[u8]) {
        let Some(text) = line.strip_suffix(b"\r\n") else {
            self.ambiguous = true;
            self.over |= line.len() == 1;
            return;
        };
        // An empty line before the first is skipped, as the parser does.
        self.over = text.is_empty() && self.lines > 0;
        self.lines += usize::from(!text.is_empty());
        let is = |name: &[u8]| text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        self.has_length |= is(b"content-length:");
        self.has_encoding |= is(b"transfer-encoding:");
        self.ambiguous |= self.has_length && self.has_encoding;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ambiguous(head: &str) -> bool {
        let whole = HeadScan::default().feed(head.as_bytes());
        let mut by_byte = HeadScan::default();
        let split = head.bytes().fold(false, |_, byte| by_byte.feed(&[byte]));
        assert_eq!(whole, split, "{head:?}");
        whole
    }

    #[test]
    fn a_length_beside_chunks_or_a_bare_line_feed_can_be_read_in_two_ways() {
        assert!(ambiguous("POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"));
        assert!(ambiguous("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"));
        assert!(ambiguous("GET / HTTP/1.1\nhost: a\n\n"));
        assert!(ambiguous("GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n"));
    }

    #[test]
    fn an_ordinary_head_and_whatever_is_in_the_body_are_fine() {
        assert!(!ambiguous("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{\n\"a\":\n1}\n"));
        assert!(!ambiguous(
            "\r\nPOST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{\n}\n\r\n0\r\n\r\n"
        ));
    }
}
