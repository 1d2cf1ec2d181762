//! ListObjectsV2.

use origin::Client;

use super::{BUCKET, expect};

/// Keys below a folder of the check's own, in the order of their bytes.
const KEYS: [&str; 9] = ["A", "a-b", "a/b", "a/c/d", "a/c/e", "aa", "b/x", "z%41", "zz"];

async fn put_all(client: &Client, folder: &str) -> Vec<String> {
    let keys: Vec<String> = KEYS.iter().map(|key| format!("{folder}/{key}")).collect();
    for key in &keys {
        expect(
            &client
                .put(BUCKET, key, format!("content of {key}"))
                .await
                .unwrap(),
            200,
        );
    }
    keys
}

async fn list(client: &Client, parameters: &[(&str, &str)]) -> origin::Reply {
    let reply = client.list(BUCKET, parameters).await.unwrap();
    expect(&reply, 200);
    reply
}

/// Lists page by page; gives the keys and the common prefixes.
async fn pages(client: &Client, parameters: &[(&str, &str)]) -> (Vec<String>, Vec<String>, usize) {
    let (mut keys, mut prefixes, mut count) = (Vec::new(), Vec::new(), 0);
    let mut token = String::new();
    loop {
        let mut parameters = parameters.to_vec();
        if !token.is_empty() {
            parameters.push(("continuation-token", &token));
        }
        let reply = list(client, &parameters).await;
        count += 1;
        keys.extend(reply.elements("Key"));
        prefixes.extend(common_prefixes(&reply));
        token = reply.element("NextContinuationToken");
        assert_eq!(reply.element("IsTruncated"), (!token.is_empty()).to_string());
        if token.is_empty() {
            return (keys, prefixes, count);
        }
    }
}

fn common_prefixes(reply: &origin::Reply) -> Vec<String> {
    let inner = reply.elements("CommonPrefixes").into_iter();
    inner
        .map(|text| text.replace("<Prefix>", "").replace("</Prefix>", ""))
        .collect()
}

pub(crate) async fn all_keys_are_listed_in_order_of_bytes(client: Client) {
    let keys = put_all(&client, "order").await;
    let reply = list(&client, &[("prefix", "order/")]).await;
    assert_eq!(reply.elements("Key"), keys);
    assert_eq!(reply.element("KeyCount"), KEYS.len().to_string());
    assert_eq!(reply.element("IsTruncated"), "false");
}

pub(crate) async fn a_listing_has_size_and_etag(client: Client) {
    let etag = client
        .put(BUCKET, "facts/one", "12345")
        .await
        .unwrap()
        .header("etag")
        .to_owned();
    let reply = list(&client, &[("prefix", "facts/")]).await;
    assert_eq!(reply.element("Size"), "5");
    assert_eq!(
        reply
            .element("ETag")
            .replace("&quot;", "\"")
            .replace("&#34;", "\""),
        etag
    );
    let modified = reply.element("LastModified");
    assert!(humantime::parse_rfc3339(&modified).is_ok(), "{modified}");
}

pub(crate) async fn a_prefix_lists_its_keys_only(client: Client) {
    put_all(&client, "prefix").await;
    let reply = list(&client, &[("prefix", "prefix/a/c")]).await;
    assert_eq!(reply.elements("Key"), ["prefix/a/c/d", "prefix/a/c/e"]);
    // A prefix is a prefix of the name, not a folder.
    let reply = list(&client, &[("prefix", "prefix/z")]).await;
    assert_eq!(reply.elements("Key"), ["prefix/z%41", "prefix/zz"]);
}

pub(crate) async fn a_delimiter_rolls_up_prefixes(client: Client) {
    put_all(&client, "roll").await;
    let reply = list(&client, &[("prefix", "roll/"), ("delimiter", "/")]).await;
    assert_eq!(
        reply.elements("Key"),
        ["roll/A", "roll/a-b", "roll/aa", "roll/z%41", "roll/zz"]
    );
    assert_eq!(common_prefixes(&reply), ["roll/a/", "roll/b/"]);
    assert_eq!(reply.element("KeyCount"), "7");
}

pub(crate) async fn pages_join_to_the_whole(client: Client) {
    let keys = put_all(&client, "pages").await;
    let (found, _, count) = pages(&client, &[("prefix", "pages/"), ("max-keys", "2")]).await;
    assert_eq!(found, keys);
    assert_eq!(count, 5);
}

pub(crate) async fn pages_with_a_delimiter_join_to_the_whole(client: Client) {
    put_all(&client, "rolled").await;
    let parameters = [("prefix", "rolled/"), ("delimiter", "/"), ("max-keys", "1")];
    let (keys, prefixes, _) = pages(&client, &parameters).await;
    assert_eq!(
        keys,
        ["rolled/A", "rolled/a-b", "rolled/aa", "rolled/z%41", "rolled/zz"]
    );
    assert_eq!(prefixes, ["rolled/a/", "rolled/b/"]);
}

pub(crate) async fn start_after_lists_what_follows(client: Client) {
    put_all(&client, "after").await;
    let reply = list(&client, &[("prefix", "after/"), ("start-after", "after/aa")]).await;
    assert_eq!(reply.elements("Key"), ["after/b/x", "after/z%41", "after/zz"]);
    // It need not be a key.
    let reply = list(&client, &[("prefix", "after/"), ("start-after", "after/y")]).await;
    assert_eq!(reply.elements("Key"), ["after/z%41", "after/zz"]);
}

pub(crate) async fn url_encoding_encodes_keys(client: Client) {
    expect(&client.put(BUCKET, "encoded/ü&<%", "").await.unwrap(), 200);
    let reply = list(&client, &[("prefix", "encoded/"), ("encoding-type", "url")]).await;
    assert_eq!(reply.elements("Key"), ["encoded/%C3%BC%26%3C%25"]);
    assert_eq!(reply.element("EncodingType"), "url");
}

pub(crate) async fn a_prefix_without_keys_lists_nothing(client: Client) {
    let reply = list(&client, &[("prefix", "nothing/here/")]).await;
    assert_eq!(reply.elements("Key"), Vec::<String>::new());
    assert_eq!(reply.element("KeyCount"), "0");
}
