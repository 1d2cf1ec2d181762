//! Signature version 4, in the Authorization header: made by the client, checked by the server.

use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac};
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::{Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use sha2::{Digest, Sha256};

use crate::error::{Code, Refusal};
use crate::operation::Query;
use crate::options::Credentials;

/// The header that names the hash of the body.
pub(crate) const CONTENT_SHA256: &str = "x-amz-content-sha256";
/// The header with the time of signing.
pub(crate) const DATE: &str = "x-amz-date";
/// The body is not signed.
pub(crate) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// A request that is older or newer than this is refused, as S3 does.
const MOST_SKEW: Duration = Duration::from_secs(15 * 60);
/// RFC 3986's unreserved characters stay.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// Checks who signed a request. The body is checked by [`check_body`] when it is there.
pub(crate) fn check(
    credentials: &Credentials,
    method: &Method,
    uri: &Uri,
    query: &Query,
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<(), Refusal> {
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let header = header.ok_or_else(|| Refusal::new(Code::AccessDenied, "the request is not signed"))?;
    let claimed = Claim::parse(header).ok_or(Code::AuthorizationHeaderMalformed)?;
    if claimed.access_key != credentials.access_key {
        return Err(Code::InvalidAccessKeyId.into());
    }
    let date = text(headers, DATE);
    let signed_at = parse_date(&date)
        .filter(|_| date.starts_with(claimed.day))
        .ok_or_else(|| Refusal::new(Code::AccessDenied, "x-amz-date is missing or malformed"))?;
    let skew = now
        .duration_since(signed_at)
        .unwrap_or_else(|earlier| earlier.duration());
    if skew > MOST_SKEW {
        return Err(Code::RequestTimeTooSkewed.into());
    }
    if !claimed.signed_headers.split(';').any(|name| name == "host") {
        return Err(Refusal::new(Code::AccessDenied, "the host header must be signed"));
    }
    let parts = Parts {
        method,
        uri,
        query,
        headers,
        signed_headers: claimed.signed_headers,
    };
    let key = signing_key(&credentials.secret_key, claimed.day, claimed.region);
    let expected = parts.mac(key, &date, claimed.scope);
    let signature = HEXLOWER.decode(claimed.signature.as_bytes()).unwrap_or_default();
    expected
        .verify_slice(&signature)
        .map_err(|_different| Code::SignatureDoesNotMatch.into())
}

/// Checks that the body is the one that was signed.
pub(crate) fn check_body(headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    let hash = text(headers, CONTENT_SHA256);
    if hash.starts_with("STREAMING-") {
        return Err(Refusal::new(
            Code::NotImplemented,
            "bodies signed in chunks are not implemented",
        ));
    }
    if hash.is_empty() || hash == UNSIGNED || hash == HEXLOWER.encode(&Sha256::digest(body)) {
        return Ok(());
    }
    Err(Code::ContentSha256Mismatch.into())
}

/// Gives the Authorization header for a request whose other headers are complete (`host` and `x-amz-date` among
/// them); all of them are signed.
pub(crate) fn sign(credentials: &Credentials, method: &Method, uri: &Uri, headers: &HeaderMap) -> String {
    let mut names: Vec<&str> = headers.keys().map(hyper::header::HeaderName::as_str).collect();
    names.sort_unstable();
    let signed_headers = names.join(";");
    let date = text(headers, DATE);
    let day = date.get(..8).unwrap_or_default();
    let scope = format!("{day}/us-east-1/s3/aws4_request");
    let query = Query::parse(uri.query());
    let parts = Parts {
        method,
        uri,
        query: &query,
        headers,
        signed_headers: &signed_headers,
    };
    let mac = parts.mac(
        signing_key(&credentials.secret_key, day, "us-east-1"),
        &date,
        &scope,
    );
    let signature = HEXLOWER.encode(&mac.finalize().into_bytes());
    let access_key = &credentials.access_key;
    format!(
        "{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={signed_headers}, Signature={signature}"
    )
}

/// A time as `x-amz-date` has it: `20260102T030405Z`.
pub(crate) fn format_date(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time)
        .to_string()
        .replace(['-', ':'], "")
}

fn parse_date(date: &str) -> Option<SystemTime> {
    let (day, time) = date.strip_suffix('Z')?.split_once('T')?;
    if day.len() != 8 || time.len() != 6 || !date.is_ascii() {
        return None;
    }
    let (year, month, day) = (day.get(..4)?, day.get(4..6)?, day.get(6..)?);
    let (hour, minute, second) = (time.get(..2)?, time.get(2..4)?, time.get(4..)?);
    humantime::parse_rfc3339(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z")).ok()
}

/// What the Authorization header says.
struct Claim<'a> {
    access_key: &'a str,
    /// `day/region/s3/aws4_request`.
    scope: &'a str,
    day: &'a str,
    region: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Claim<'a> {
    fn parse(header: &'a str) -> Option<Self> {
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for field in header.strip_prefix(ALGORITHM)?.split(',') {
            match field.trim().split_once('=')? {
                ("Credential", value) => credential = Some(value),
                ("SignedHeaders", value) => signed_headers = Some(value),
                ("Signature", value) => signature = Some(value),
                _ => return None,
            }
        }
        let (access_key, scope) = credential?.split_once('/')?;
        let mut fields = scope.split('/');
        let (day, region) = (fields.next()?, fields.next()?);
        let rest = (fields.next()?, fields.next()?, fields.next());
        (rest == ("s3", "aws4_request", None)).then_some(Self {
            access_key,
            scope,
            day,
            region,
            signed_headers: signed_headers?,
            signature: signature?,
        })
    }
}

/// What is signed.
struct Parts<'a> {
    method: &'a Method,
    uri: &'a Uri,
    query: &'a Query,
    headers: &'a HeaderMap,
    signed_headers: &'a str,
}

impl Parts<'_> {
    fn canonical(&self) -> Vec<u8> {
        let path: Vec<u8> = percent_decode(self.uri.path().as_bytes()).collect();
        let mut query: Vec<String> = self
            .query
            .pairs()
            .iter()
            .map(|(name, value)| format!("{}={}", percent_encode(name, QUERY), percent_encode(value, QUERY)))
            .collect();
        query.sort_unstable();
        let mut out = format!(
            "{}\n{}\n{}\n",
            self.method,
            percent_encode(&path, PATH),
            query.join("&")
        )
        .into_bytes();
        for name in self.signed_headers.split(';') {
            let values: Vec<String> = self
                .headers
                .get_all(name)
                .iter()
                .map(|value| {
                    let value = String::from_utf8_lossy(value.as_bytes());
                    value.split_whitespace().collect::<Vec<_>>().join(" ")
                })
                .collect();
            out.extend_from_slice(format!("{name}:{}\n", values.join(",")).as_bytes());
        }
        let body = self
            .headers
            .get(CONTENT_SHA256)
            .map_or(UNSIGNED.as_bytes(), |value| value.as_bytes());
        out.extend_from_slice(format!("\n{}\n", self.signed_headers).as_bytes());
        out.extend_from_slice(body);
        out
    }

    fn mac(&self, key: [u8; 32], date: &str, scope: &str) -> Hmac<Sha256> {
        let hash = HEXLOWER.encode(&Sha256::digest(self.canonical()));
        keyed(&key, format!("{ALGORITHM}\n{date}\n{scope}\n{hash}").as_bytes())
    }
}

fn signing_key(secret: &str, day: &str, region: &str) -> [u8; 32] {
    let mut key = keyed(format!("AWS4{secret}").as_bytes(), day.as_bytes())
        .finalize()
        .into_bytes();
    for part in [region, "s3", "aws4_request"] {
        key = keyed(&key, part.as_bytes()).finalize().into_bytes();
    }
    key.into()
}

fn keyed(key: &[u8], text: &[u8]) -> Hmac<Sha256> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.chain_update(text)
}

fn text(headers: &HeaderMap, name: &str) -> String {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn example() -> (Credentials, Method, Uri, HeaderMap, SystemTime) {
        let credentials =
            Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("examplebucket.s3.amazonaws.com"));
        headers.insert("range", HeaderValue::from_static("bytes=0-9"));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        headers.insert(CONTENT_SHA256, HeaderValue::from_static(empty));
        headers.insert(DATE, HeaderValue::from_static("20130524T000000Z"));
        let time = humantime::parse_rfc3339("2013-05-24T00:00:00Z").expect("a time");
        (
            credentials,
            Method::GET,
            Uri::from_static("/test.txt"),
            headers,
            time,
        )
    }

    #[test]
    fn the_documented_example_has_the_documented_signature() {
        // "Example: GET Object" of the Amazon S3 API reference, signature version 4.
        let (credentials, method, uri, headers, _) = example();
        let header = sign(&credentials, &method, &uri, &headers);
        let signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert!(header.ends_with(signature), "{header}");
    }

    #[test]
    fn what_was_signed_is_accepted_and_nothing_else() {
        let (credentials, method, uri, mut headers, now) = example();
        let header = sign(&credentials, &method, &uri, &headers);
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&header).expect("a header"));
        let query = Query::default();
        let code = |uri: &Uri, headers: &HeaderMap, now| {
            check(&credentials, &method, uri, &query, headers, now).map_err(|refusal| refusal.code)
        };
        assert_eq!(code(&uri, &headers, now), Ok(()));
        assert_eq!(
            code(&Uri::from_static("/test2"), &headers, now),
            Err(Code::SignatureDoesNotMatch)
        );
        let late = now + Duration::from_secs(901);
        assert_eq!(code(&uri, &headers, late), Err(Code::RequestTimeTooSkewed));
        let mut other = headers.clone();
        other.insert("range", HeaderValue::from_static("bytes=0-8"));
        assert_eq!(code(&uri, &other, now), Err(Code::SignatureDoesNotMatch));
        other.remove(AUTHORIZATION);
        assert_eq!(code(&uri, &other, now), Err(Code::AccessDenied));
        other.insert(
            AUTHORIZATION,
            HeaderValue::from_static("AWS4-HMAC-SHA256 nonsense"),
        );
        assert_eq!(code(&uri, &other, now), Err(Code::AuthorizationHeaderMalformed));
    }
}
