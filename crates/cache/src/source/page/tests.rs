use proptest::prelude::*;

use super::*;

const S3: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Name>b</Name><Prefix>p/</Prefix><Delimiter>/</Delimiter><IsTruncated>true</IsTruncated>
  <NextContinuationToken>to&amp;ken</NextContinuationToken>
  <Contents><Key>p/a &amp; b</Key><LastModified>2024-05-01T10:00:00.250Z</LastModified>
    <ETag>&quot;abc-1&quot;</ETag><Size>17</Size><Owner><ID>o</ID></Owner></Contents>
  <Contents><Key>p//x</Key><LastModified>2024-05-01T10:00:00Z</LastModified><ETag>"e"</ETag><Size>0</Size></Contents>
  <Contents><Key>p/&#x1;</Key><LastModified>nonsense</LastModified><Size>many</Size></Contents>
  <Contents><Key>p/&unknown;</Key><Size>1</Size></Contents>
  <CommonPrefixes><Prefix>p/sub/</Prefix></CommonPrefixes>
  <CommonPrefixes><Prefix>p/../</Prefix></CommonPrefixes>
</ListBucketResult>"#;

#[test]
fn keys_stay_as_the_source_spells_them() {
    let page = Page::parse(S3.as_bytes(), Dialect::S3).unwrap();
    let keys: Vec<&str> = page.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["p/a & b", "p//x", "p/\u{1}", "p/\u{fffd}"]);
    assert_eq!(page.prefixes, ["p/sub/", "p/../"]);
    assert_eq!(page.next.as_deref(), Some("to&ken"));
    let first = &page.entries[0];
    assert_eq!(first.size_bytes, Some(17));
    assert_eq!(first.etag.as_deref(), Some("\"abc-1\""));
    assert_eq!(
        first.modified,
        Some(Time {
            secs: 1_714_557_600,
            nanos: 250_000_000
        })
    );
    assert_eq!(
        (page.entries[2].size_bytes, page.entries[2].modified),
        (None, None)
    );
    assert!(page.entries[3].damaged && !page.entries[2].damaged);
}

#[test]
fn an_empty_etag_is_none() {
    for etag in [
        "<ETag></ETag>",
        "<ETag/>",
        "<ETag>\"\"</ETag>",
        "<ETag>&quot;&quot;</ETag>",
        "",
    ] {
        let xml = format!("<ListBucketResult><Contents><Key>a</Key>{etag}</Contents></ListBucketResult>");
        let page = Page::parse(xml.as_bytes(), Dialect::S3).unwrap();
        assert_eq!(page.entries[0].etag, None, "{etag}");
    }
}

#[test]
fn bytes_that_are_no_text_damage_their_key_only() {
    let mut xml = b"<ListBucketResult><Contents><Key>a\xff</Key></Contents>".to_vec();
    xml.extend_from_slice(b"<Contents><Key>b</Key></Contents></ListBucketResult>");
    let page = Page::parse(&xml, Dialect::S3).unwrap();
    assert!(page.entries[0].damaged);
    assert!(!page.entries[1].damaged);
}

#[test]
fn a_replacement_character_that_the_key_really_has_is_no_damage() {
    let xml = "<ListBucketResult><Contents><Key>a\u{fffd}</Key></Contents></ListBucketResult>";
    assert!(!Page::parse(xml.as_bytes(), Dialect::S3).unwrap().entries[0].damaged);
}

#[test]
fn azure_pages_are_read() {
    let xml = r#"<?xml version="1.0"?><EnumerationResults><Blobs>
        <Blob><Name>a/b</Name><Properties><Last-Modified>Wed, 01 May 2024 10:00:00 GMT</Last-Modified>
          <Etag>0x8D</Etag><Content-Length>5</Content-Length></Properties></Blob>
        <Blob><Name>a/dir</Name><Properties><ResourceType>directory</ResourceType></Properties></Blob>
        <Blob><Name Encoded="true">a%01</Name><Properties></Properties></Blob>
        <BlobPrefix><Name>a/c/</Name></BlobPrefix></Blobs><NextMarker>m</NextMarker></EnumerationResults>"#;
    let page = Page::parse(xml.as_bytes(), Dialect::Azure).unwrap();
    assert_eq!(page.entries[0].etag.as_deref(), Some("\"0x8D\""));
    assert_eq!(
        page.entries[0].modified,
        Some(Time {
            secs: 1_714_557_600,
            nanos: 0
        })
    );
    assert!(page.entries[1].directory);
    assert!(page.entries[2].damaged);
    assert_eq!((page.prefixes.len(), page.next.as_deref()), (1, Some("m")));
}

#[test]
fn propfind_responses_are_read() {
    let xml = r#"<D:multistatus xmlns:D="DAV:">
        <D:response><D:href>/data/</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype>
          </D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
        <D:response><D:href>http://host/data/a%20b</D:href><D:propstat><D:prop>
          <D:getcontentlength>9</D:getcontentlength><D:getetag>W/"1"</D:getetag>
          <D:getlastmodified>Wed, 01 May 2024 10:00:00 GMT</D:getlastmodified><D:resourcetype/></D:prop>
          <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
        <D:response><D:href>/data/a%2Fb</D:href></D:response>
        <D:response><D:href>/data/%ff</D:href></D:response></D:multistatus>"#;
    let page = Page::parse(xml.as_bytes(), Dialect::WebDav).unwrap();
    assert!(page.entries[0].directory);
    assert_eq!(page.entries[0].key, "data/");
    assert_eq!(
        (page.entries[1].key.as_str(), page.entries[1].size_bytes),
        ("data/a b", Some(9))
    );
    assert_eq!(page.entries[1].etag.as_deref(), Some("W/\"1\""));
    assert!(page.entries[2].damaged && page.entries[3].damaged);
}

#[test]
fn what_is_no_listing_is_refused() {
    let bad: [&[u8]; 6] = [
        b"",
        b"<html><body>hello</body></html>",
        b"<ListBucketResult><Contents>",
        b"plain",
        b"\xff\xff",
        b"<a></b>",
    ];
    for xml in bad {
        assert!(
            Page::parse(xml, Dialect::S3).is_err(),
            "{}",
            String::from_utf8_lossy(xml)
        );
    }
    let no_token = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
    assert_eq!(Page::parse(no_token, Dialect::S3), Err(PageError::NoContinuation));
    let deep = "<ListBucketResult>".repeat(100_000);
    assert!(matches!(
        Page::parse(deep.as_bytes(), Dialect::S3),
        Err(PageError::Malformed(_))
    ));
}

#[test]
fn only_keys_that_object_store_preserves_can_be_requested() {
    for key in ["a", "a/b c", "a%20b", "ü/€", "..a/.b", "a/~x"] {
        assert!(path_of(key).is_some(), "{key}");
    }
    for key in [
        "/a", "a/", "a//b", ".", "a/../b", "a/./b", "a\u{1}", "a\nb", "a\u{7f}",
    ] {
        assert!(path_of(key).is_none(), "{key}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(xml in proptest::collection::vec(any::<u8>(), 0..200)) {
        for dialect in [Dialect::S3, Dialect::Azure, Dialect::WebDav] {
            drop(Page::parse(&xml, dialect));
        }
    }

    #[test]
    fn any_key_is_parsed_as_it_was_written(keys in proptest::collection::vec("\\PC{1,20}", 0..8)) {
        let contents: String = keys
            .iter()
            .map(|key| format!("<Contents><Key>{}</Key><Size>1</Size></Contents>", quick_xml::escape::escape(key)))
            .collect();
        let xml = format!("<ListBucketResult>{contents}</ListBucketResult>");
        let page = Page::parse(xml.as_bytes(), Dialect::S3).unwrap();
        let found: Vec<String> = page.entries.into_iter().map(|entry| entry.key).collect();
        prop_assert_eq!(found, keys);
    }
}
