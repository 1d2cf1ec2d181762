//! Multipart uploads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::error::{Code, Refusal};
use crate::object::{Body, Description, ETag};

/// All parts but the last have at least this many bytes, as in S3.
const SMALLEST_PART_BYTES: usize = 5 * 1024 * 1024;

/// The uploads under way.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    uploads: HashMap<String, Upload>,
}

#[derive(Debug)]
struct Upload {
    /// `bucket/key`: an upload's id is good for its own key only.
    path: Vec<u8>,
    described: Option<Arc<Description>>,
    parts: BTreeMap<u32, (Bytes, ETag)>,
}

/// A complete upload.
#[derive(Debug)]
pub(crate) struct Assembled {
    pub(crate) body: Bytes,
    pub(crate) etag: ETag,
    pub(crate) described: Option<Arc<Description>>,
}

#[derive(Debug, Deserialize)]
struct CompleteMultipartUpload {
    #[serde(rename = "Part", default)]
    parts: Vec<NamedPart>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NamedPart {
    part_number: u32,
    #[serde(rename = "ETag")]
    etag: String,
}

impl Uploads {
    pub(crate) fn create(&self, path: Vec<u8>, described: Option<Arc<Description>>) -> String {
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("upload-{}", state.next);
        state.uploads.insert(
            id.clone(),
            Upload {
                path,
                described,
                parts: BTreeMap::new(),
            },
        );
        id
    }

    pub(crate) fn part(&self, id: &str, path: &[u8], number: u32, body: Bytes) -> Result<ETag, Code> {
        let etag = Body::Bytes(body.clone()).etag();
        let mut state = self.state.lock();
        let upload = state.uploads.get_mut(id).filter(|upload| upload.path == path);
        upload
            .ok_or(Code::NoSuchUpload)?
            .parts
            .insert(number, (body, etag));
        Ok(etag)
    }

    pub(crate) fn abort(&self, id: &str, path: &[u8]) -> Result<(), Code> {
        let mut state = self.state.lock();
        if state.uploads.get(id).is_none_or(|upload| upload.path != path) {
            return Err(Code::NoSuchUpload);
        }
        state.uploads.remove(id);
        Ok(())
    }

    /// Joins the parts that `request` names. The upload stays until [`abort`](Self::abort) ends it, so that one that
    /// was refused can be completed again.
    pub(crate) fn assemble(&self, id: &str, path: &[u8], request: &[u8]) -> Result<Assembled, Refusal> {
        let named: CompleteMultipartUpload = std::str::from_utf8(request)
            .ok()
            .and_then(|text| quick_xml::de::from_str(text).ok())
            .ok_or(Code::MalformedXml)?;
        if named.parts.is_empty() {
            return Err(Code::MalformedXml.into());
        }
        if !named
            .parts
            .is_sorted_by(|left, right| left.part_number < right.part_number)
        {
            return Err(Code::InvalidPartOrder.into());
        }
        let state = self.state.lock();
        let upload = state.uploads.get(id).filter(|upload| upload.path == path);
        let upload = upload.ok_or(Code::NoSuchUpload)?;
        let parts = upload.chosen(&named.parts)?;
        let mut body = BytesMut::with_capacity(parts.iter().map(|(bytes, _)| bytes.len()).sum());
        for (bytes, _) in &parts {
            body.extend_from_slice(bytes);
        }
        let etag = ETag::of_parts(parts.iter().map(|(_, etag)| etag));
        Ok(Assembled {
            body: body.freeze(),
            etag,
            described: upload.described.clone(),
        })
    }
}

impl Upload {
    fn chosen(&self, named: &[NamedPart]) -> Result<Vec<&(Bytes, ETag)>, Refusal> {
        let mut chosen = Vec::with_capacity(named.len());
        for (index, NamedPart { part_number, etag }) in named.iter().enumerate() {
            let part = self.parts.get(part_number).ok_or(Code::InvalidPart)?;
            if part.1.to_string() != etag.trim().trim_matches('"') {
                return Err(Code::InvalidPart.into());
            }
            if index + 1 < named.len() && part.0.len() < SMALLEST_PART_BYTES {
                return Err(Code::EntityTooSmall.into());
            }
            chosen.push(part);
        }
        Ok(chosen)
    }
}
