use proptest::prelude::*;

use super::*;

fn spelled(url: &str) -> String {
    SourceUrl::parse(url).unwrap().to_string()
}

#[test]
fn the_same_place_has_one_spelling() {
    let places = [
        ("s3://bucket", "s3://bucket/"),
        ("s3://bucket/", "s3://bucket/"),
        ("S3://bucket/train", "s3://bucket/train/"),
        ("s3a://bucket/train/", "s3://bucket/train/"),
        ("s3://bucket/a b/ü?x#y%41", "s3://bucket/a b/ü?x#y%41/"),
        ("gs://b.c_d-1/x", "gs://b.c_d-1/x/"),
        ("az://container/x", "az://container/x/"),
        ("abfs://container/x", "az://container/x/"),
        (
            "abfss://c@acc.dfs.core.windows.net/x",
            "abfs://c@acc.dfs.core.windows.net/x/",
        ),
        ("https://Host:8443/a%20b", "https://host:8443/a b/"),
        ("http://host", "http://host/"),
        ("file:///data//set/", "file:///data/set/"),
        ("file:///data/./set", "file:///data/set/"),
        ("file:///a%20b", "file:///a b/"),
        ("file:///", "file:///"),
    ];
    for (url, canonical) in places {
        assert_eq!(spelled(url), canonical, "{url}");
    }
}

#[test]
fn what_cannot_be_a_source_names_the_field_and_the_fix() {
    let bad = [
        "bucket/prefix",
        "",
        "ftp://host/x",
        "s3://",
        "s3:///prefix",
        "s3://key:secret@bucket/x",
        "s3://bucket:9000/x",
        "s3://../x",
        "s3://bu%63ket",
        "s3://bucket/a//b",
        "s3://bucket//",
        "s3://bucket/../x",
        "s3://bucket/a/./b",
        "s3://bucket/a\nb",
        "abfs://c@elsewhere.example/x",
        "https://user:pw@host/x",
        "https://host/x?signature=1",
        "https://",
        "https://host/%ff",
        "file://relative/x",
        "file:///a/../b",
        "file:///a%00b",
    ];
    for url in bad {
        match SourceUrl::parse(url) {
            Err(SourceError::Invalid { field, problem, fix }) => {
                assert_eq!(field, "url");
                assert!(!problem.is_empty() && !fix.is_empty(), "{url}");
                assert!(
                    !problem.contains("secret") && !problem.contains("pw@"),
                    "{problem}"
                );
            }
            other => panic!("{url}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_understood_or_refused(url in "\\PC{0,40}") {
        drop(SourceUrl::parse(&url));
    }

    #[test]
    fn a_location_is_spelled_so_that_it_parses_to_the_same_location(
        scheme in "(s3|gs|az|abfs|http|https|file)",
        rest in "[a-z]{3,8}(/[ -~]{1,8}){0,3}/?",
    ) {
        let host = if scheme == "file" { "/" } else { "" };
        if let Ok(url) = SourceUrl::parse(&format!("{scheme}://{host}{rest}")) {
            let has_escapes = matches!(url.location, SourceLocation::Http { .. } | SourceLocation::File { .. });
            prop_assume!(!(has_escapes && rest.contains(['%', '?', '#', '\\'])));
            prop_assert_eq!(SourceUrl::parse(&url.to_string()).unwrap(), url);
        }
    }

    #[test]
    fn a_prefix_is_empty_or_a_directory(prefix in "[a-z./ ]{0,12}") {
        if let Ok(url) = SourceUrl::parse(&format!("s3://bucket/{prefix}")) {
            prop_assert!(url.prefix.is_empty() || url.prefix.ends_with('/'));
            prop_assert!(!url.prefix.starts_with('/') && !url.prefix.contains("//"));
        }
    }
}
