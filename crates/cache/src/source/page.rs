//! One page of a listing, parsed from the XML that the source sent.
//!
//! object_store parses these responses itself, but into paths of its own, which cannot hold every key: one `a//b`
//! fails its whole page, and `/a` and `a/` come out as `a`, another object. So the response is parsed here, before
//! object_store sees it, and every key stays spelled as its source spells it. A key that cannot be requested is
//! refused later, by itself.

use std::str::FromStr;

use millpond_core::Time;
use object_store::path::Path;
use percent_encoding::percent_decode_str;
use quick_xml::Reader;
use quick_xml::events::Event;

/// Elements nest no deeper than this in any of the formats; a page that does is invalid.
const MAX_DEPTH: usize = 32;

/// The format of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// ListObjectsV2, of S3 and of Google's XML API.
    S3,
    /// List Blobs.
    Azure,
    /// PROPFIND.
    WebDav,
}

/// An object or a collection of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) modified: Option<Time>,
    /// With its quotes, and `W/` where it is weak.
    pub(crate) etag: Option<String>,
    pub(crate) version: Option<String>,
    /// The key above may differ from the source's own.
    pub(crate) damaged: bool,
    pub(crate) directory: bool,
    /// A link that leads out of the source, or nowhere.
    pub(crate) link_outside: bool,
    /// Neither a file nor a directory.
    pub(crate) special: bool,
}

/// The content of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) entries: Vec<Entry>,
    /// Common prefixes, each with its `/` at the end.
    pub(crate) prefixes: Vec<String>,
    /// The token that the next page is requested with.
    pub(crate) next: Option<String>,
}

/// Why a page cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PageError {
    #[error("the source's listing is not well-formed XML: {0}")]
    Malformed(String),
    #[error("the source's response is not a listing: its root element is {0:?}")]
    Unexpected(String),
    #[error("the source reports that there is more to list, but gives no continuation token")]
    NoContinuation,
}

impl Page {
    /// Parses a page.
    ///
    /// # Errors
    /// It is not XML, or not a listing.
    pub(crate) fn parse(xml: &[u8], dialect: Dialect) -> Result<Self, PageError> {
        let text = String::from_utf8_lossy(xml);
        let unclean = matches!(text, std::borrow::Cow::Owned(_));
        let mut collector = Collector::new(dialect, unclean);
        let mut reader = Reader::from_str(&text);
        let malformed = |error: quick_xml::Error| PageError::Malformed(error.to_string());
        loop {
            match reader.read_event().map_err(malformed)? {
                Event::Start(element) => {
                    collector.open(element.local_name().as_ref())?;
                    // Azure escapes names that are not valid XML in a way of its own.
                    if matches!(element.try_get_attribute("Encoded"), Ok(Some(_))) {
                        collector.damage();
                    }
                }
                Event::Empty(element) => {
                    collector.open(element.local_name().as_ref())?;
                    collector.close();
                }
                Event::End(_) => collector.close(),
                Event::Text(part) => collector.text.push_str(&part),
                Event::CData(part) => collector.text.push_str(&part),
                Event::GeneralRef(reference) => match reference.resolve_char_ref() {
                    Ok(Some(character)) => collector.text.push(character),
                    Ok(None) => collector.entity(&reference),
                    Err(_) => collector.damage(),
                },
                Event::Eof => break,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
        }
        collector.finish()
    }

    /// Returns a page without content, for object_store to parse in place of the one that was parsed here.
    pub(crate) fn stand_in(&self, dialect: Dialect) -> String {
        let next = self.next.as_deref().map(|token| {
            let token = quick_xml::escape::escape(token);
            match dialect {
                Dialect::S3 => format!("<NextContinuationToken>{token}</NextContinuationToken>"),
                Dialect::Azure => format!("<NextMarker>{token}</NextMarker>"),
                Dialect::WebDav => String::new(),
            }
        });
        let next = next.unwrap_or_default();
        match dialect {
            Dialect::S3 => format!("<ListBucketResult>{next}</ListBucketResult>"),
            Dialect::Azure => format!("<EnumerationResults><Blobs></Blobs>{next}</EnumerationResults>"),
            // It requires at least one response, and leaves out the requested collection.
            Dialect::WebDav => "<multistatus><response><href>/</href><propstat><prop>\
                <getlastmodified>Thu, 01 Jan 1970 00:00:00 GMT</getlastmodified>\
                <resourcetype><collection/></resourcetype></prop>\
                <status>HTTP/1.1 200 OK</status></propstat></response></multistatus>"
                .to_owned(),
        }
    }
}

/// The state of the parser.
#[derive(Debug)]
struct Collector {
    dialect: Dialect,
    /// The page is not UTF-8: a replacement character in a key may be any byte.
    unclean: bool,
    path: Vec<String>,
    root: Option<String>,
    text: String,
    damaged: bool,
    entry: Entry,
    truncated: bool,
    page: Page,
}

impl Collector {
    fn new(dialect: Dialect, unclean: bool) -> Self {
        Self {
            dialect,
            unclean,
            path: Vec::new(),
            root: None,
            text: String::new(),
            damaged: false,
            entry: Entry::default(),
            truncated: false,
            page: Page::default(),
        }
    }

    fn open(&mut self, name: &str) -> Result<(), PageError> {
        if self.path.len() >= MAX_DEPTH {
            return Err(PageError::Malformed("it nests too deep".to_owned()));
        }
        self.root.get_or_insert_with(|| name.to_owned());
        self.path.push(name.to_owned());
        self.text.clear();
        self.damaged = false;
        Ok(())
    }

    fn entity(&mut self, name: &str) {
        match quick_xml::escape::resolve_predefined_entity(name) {
            Some(text) => self.text.push_str(text),
            None => self.damage(),
        }
    }

    /// Marks a part of the text as unreadable.
    fn damage(&mut self) {
        self.text.push(char::REPLACEMENT_CHARACTER);
        self.damaged = true;
    }

    /// Assigns the innermost element's text to its field.
    fn close(&mut self) {
        let text = std::mem::take(&mut self.text);
        let damaged = self.damaged || (self.unclean && text.contains(char::REPLACEMENT_CHARACTER));
        self.damaged = false;
        let Some(name) = self.path.pop() else { return };
        let parent = self.path.last().map_or("", String::as_str);
        match self.dialect {
            Dialect::S3 => match (parent, name.as_str()) {
                ("Contents", "Key") => self.key(text, damaged),
                ("Contents", "Size") => self.entry.size_bytes = number(&text),
                ("Contents", "LastModified") => self.entry.modified = rfc3339(&text),
                ("Contents", "ETag") => self.entry.etag = quoted(&text),
                ("CommonPrefixes", "Prefix") if !damaged => self.page.prefixes.push(text),
                ("CommonPrefixes", "Prefix") => self.damaged_prefix(text),
                (_, "Contents") => self.end_entry(),
                ("ListBucketResult", "NextContinuationToken") => self.page.next = token(text),
                ("ListBucketResult", "IsTruncated") => self.truncated = text.trim() == "true",
                _ => {}
            },
            Dialect::Azure => match (parent, name.as_str()) {
                ("Blob", "Name") => self.key(text, damaged),
                ("Blob", "VersionId") => self.entry.version = token(text),
                ("Properties", "Content-Length") => self.entry.size_bytes = number(&text),
                ("Properties", "Last-Modified") => self.entry.modified = rfc1123(&text),
                ("Properties", "Etag") => self.entry.etag = quoted(&text),
                ("Properties", "ResourceType") => self.entry.directory = text.trim() == "directory",
                ("BlobPrefix", "Name") if !damaged => self.page.prefixes.push(text),
                ("BlobPrefix", "Name") => self.damaged_prefix(text),
                (_, "Blob") => self.end_entry(),
                ("EnumerationResults", "NextMarker") => self.page.next = token(text),
                _ => {}
            },
            Dialect::WebDav => match (parent, name.as_str()) {
                ("response", "href") => self.href(text.trim(), damaged),
                ("prop", "getcontentlength") => self.entry.size_bytes = number(&text),
                ("prop", "getlastmodified") => self.entry.modified = rfc1123(&text),
                ("prop", "getetag") => self.entry.etag = quoted(&text),
                ("resourcetype", "collection") => self.entry.directory = true,
                (_, "response") => self.end_entry(),
                _ => {}
            },
        }
    }

    fn key(&mut self, key: String, damaged: bool) {
        self.entry.key = key;
        self.entry.damaged = damaged;
    }

    fn damaged_prefix(&mut self, key: String) {
        self.page.entries.push(Entry {
            key,
            damaged: true,
            ..Entry::default()
        });
    }

    /// Sets the key to the path of an href without its leading `/`, decoded; damaged where decoding loses
    /// something.
    fn href(&mut self, href: &str, damaged: bool) {
        let path = match href.find("://") {
            Some(scheme) => {
                let rest = href.get(scheme + 3..).unwrap_or_default();
                rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
            }
            None => href,
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let decoded = percent_decode_str(path).decode_utf8_lossy();
        // A `/` inside a segment, or bytes that are not text: the decoded name is another one.
        let lossy = path.to_ascii_lowercase().contains("%2f")
            || (decoded.contains(char::REPLACEMENT_CHARACTER) && !path.contains(char::REPLACEMENT_CHARACTER));
        self.key(
            decoded.strip_prefix('/').unwrap_or(&decoded).to_owned(),
            damaged || lossy,
        );
    }

    fn end_entry(&mut self) {
        let entry = std::mem::take(&mut self.entry);
        self.page.entries.push(entry);
    }

    fn finish(self) -> Result<Page, PageError> {
        let root = self.root.unwrap_or_default();
        let expected = match self.dialect {
            Dialect::S3 => "ListBucketResult",
            Dialect::Azure => "EnumerationResults",
            Dialect::WebDav => "multistatus",
        };
        if root != expected {
            return Err(PageError::Unexpected(root));
        }
        if !self.path.is_empty() {
            return Err(PageError::Malformed("it ends too early".to_owned()));
        }
        if self.truncated && self.page.next.is_none() {
            return Err(PageError::NoContinuation);
        }
        // The last page of a truncated listing may still carry a token in some servers.
        let next = if self.dialect == Dialect::S3 && !self.truncated {
            None
        } else {
            self.page.next
        };
        Ok(Page { next, ..self.page })
    }
}

/// Returns the path with which object_store requests exactly `key`, if there is one.
pub(crate) fn path_of(key: &str) -> Option<Path> {
    Path::parse(key).ok().filter(|path| path.as_ref() == key)
}

fn number(text: &str) -> Option<u64> {
    u64::from_str(text.trim()).ok()
}

fn token(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Adds the quotes that Azure's listing leaves out. An empty ETag distinguishes no versions.
fn quoted(text: &str) -> Option<String> {
    let text = text.trim();
    match text {
        "" | "\"\"" => None,
        _ if text.ends_with('"') => Some(text.to_owned()),
        _ => Some(format!("\"{text}\"")),
    }
}

fn rfc3339(text: &str) -> Option<Time> {
    chrono::DateTime::parse_from_rfc3339(text.trim())
        .ok()
        .map(|at| time(&at))
}

fn rfc1123(text: &str) -> Option<Time> {
    chrono::DateTime::parse_from_rfc2822(text.trim())
        .ok()
        .map(|at| time(&at))
}

/// Returns object_store's time in the catalog's form.
pub(crate) fn time<Zone: chrono::TimeZone>(at: &chrono::DateTime<Zone>) -> Time {
    // A leap second has more nanoseconds than a second.
    Time {
        secs: at.timestamp(),
        nanos: at.timestamp_subsec_nanos().min(999_999_999),
    }
}

#[cfg(test)]
mod tests;
