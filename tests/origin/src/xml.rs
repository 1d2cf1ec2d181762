//! XML as S3 writes it: bytes, so that a key that is not UTF-8 comes out as it is.

/// A document that is written from front to back.
pub(crate) struct Document {
    out: Vec<u8>,
}

impl Document {
    pub(crate) fn new() -> Self {
        Self {
            out: br#"<?xml version="1.0" encoding="UTF-8"?>"#.to_vec(),
        }
    }

    pub(crate) fn open(&mut self, name: &str) {
        self.out.push(b'<');
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b'>');
    }

    /// Opens the outermost element of an answer, in S3's namespace.
    pub(crate) fn open_root(&mut self, name: &str) {
        self.out.push(b'<');
        self.out.extend_from_slice(name.as_bytes());
        self.out
            .extend_from_slice(br#" xmlns="http://s3.amazonaws.com/doc/2006-03-01/">"#);
    }

    pub(crate) fn close(&mut self, name: &str) {
        self.out.extend_from_slice(b"</");
        self.out.extend_from_slice(name.as_bytes());
        self.out.push(b'>');
    }

    pub(crate) fn text(&mut self, name: &str, text: &[u8]) {
        self.open(name);
        self.escape(text);
        self.close(name);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// Control characters become references, as S3 does it (strict parsers of XML 1.0 refuse those: that is what
    /// `encoding-type=url` is for).
    fn escape(&mut self, text: &[u8]) {
        for &byte in text {
            match byte {
                b'&' => self.out.extend_from_slice(b"&amp;"),
                b'<' => self.out.extend_from_slice(b"&lt;"),
                b'>' => self.out.extend_from_slice(b"&gt;"),
                b'"' => self.out.extend_from_slice(b"&quot;"),
                0..=0x1f | 0x7f => self.out.extend_from_slice(format!("&#x{byte:x};").as_bytes()),
                _ => self.out.push(byte),
            }
        }
    }
}
