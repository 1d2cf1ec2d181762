use super::*;
use crate::source::Source;

fn options(url: &str) -> SourceOptions {
    SourceOptions {
        url: url.to_owned(),
        ..SourceOptions::default()
    }
}

fn with(url: &str, pairs: &[(&str, &str)]) -> SourceOptions {
    let own = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    SourceOptions {
        options: own,
        ..options(url)
    }
}

fn open(options: &SourceOptions) -> Result<Source, SourceError> {
    Source::open_in(options, &Environment::default())
}

fn field(options: &SourceOptions) -> String {
    match open(options) {
        Err(SourceError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_kind_opens_without_talking_to_anybody() {
    open(&with(
        "s3://bucket/x",
        &[("aws_access_key_id", "a"), ("aws_secret_access_key", "b")],
    ))
    .unwrap();
    open(&SourceOptions {
        anonymous: true,
        ..options("gs://bucket/x")
    })
    .unwrap();
    open(&SourceOptions {
        anonymous: true,
        ..with("az://container/x", &[("account_name", "acc")])
    })
    .unwrap();
    open(&SourceOptions {
        anonymous: true,
        ..options("abfs://c@acc.dfs.core.windows.net/x")
    })
    .unwrap();
    open(&options("https://host/x/")).unwrap();
}

#[test]
fn an_option_that_is_not_known_is_named() {
    for url in [
        "s3://bucket/x",
        "gs://bucket/x",
        "az://container/x",
        "http://host/x",
        "file:///",
    ] {
        assert_eq!(
            field(&with(url, &[("acces_key", "x")])),
            "option acces_key",
            "{url}"
        );
    }
}

#[test]
fn what_a_kind_does_not_have_is_named() {
    let region = |url| SourceOptions {
        region: Some("r".to_owned()),
        ..options(url)
    };
    for url in ["gs://bucket/x", "az://container/x", "http://host/x", "file:///"] {
        assert_eq!(field(&region(url)), "region", "{url}");
    }
    let endpoint = |endpoint: &str| SourceOptions {
        endpoint: Some(endpoint.to_owned()),
        ..options("s3://bucket/x")
    };
    for bad in [
        "host:9000",
        "ftp://host",
        "http://user:pw@host",
        "http://host/?x=1",
        "",
    ] {
        assert_eq!(field(&endpoint(bad)), "endpoint", "{bad}");
    }
    let missing = open(&options("file:///no/such/directory"));
    assert!(
        matches!(missing, Err(SourceError::NotFound { .. })),
        "{missing:?}"
    );
}

#[test]
fn the_identity_holds_the_endpoint_and_no_secret() {
    let secret = with(
        "s3://bucket/x",
        &[("aws_access_key_id", "key"), ("aws_secret_access_key", "hidden")],
    );
    let source = open(&secret).unwrap();
    assert_eq!((source.identity(), source.prefix()), ("s3://bucket/x/", "x/"));
    assert!(!format!("{source:?}{secret:?}").contains("hidden"));
    let elsewhere = SourceOptions {
        endpoint: Some("http://host:9000/".to_owned()),
        ..secret
    };
    assert_eq!(
        open(&elsewhere).unwrap().identity(),
        "s3://bucket/x/?endpoint=http://host:9000"
    );
}

#[test]
fn an_endpoint_of_the_environment_is_used_and_is_part_of_the_identity() {
    let environment = |pairs: &[(&str, &str)]| -> Environment {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    let general = ("AWS_ENDPOINT_URL", "http://general:1");
    let for_s3 = ("AWS_ENDPOINT_URL_S3", "http://s3:2");
    let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let open = |options: &SourceOptions, more: &[(&str, &str)]| {
        let environment = environment(&[&keys[..], more].concat());
        Source::open_in(options, &environment)
            .unwrap()
            .identity()
            .to_owned()
    };
    let plain = options("s3://bucket/x");
    assert_eq!(open(&plain, &[]), "s3://bucket/x/");
    assert_eq!(
        open(&plain, &[general]),
        "s3://bucket/x/?endpoint=http://general:1"
    );
    assert_eq!(
        open(&plain, &[general, for_s3]),
        "s3://bucket/x/?endpoint=http://s3:2"
    );
    let given = SourceOptions {
        endpoint: Some("http://given:3".to_owned()),
        ..plain
    };
    assert_eq!(
        open(&given, &[general, for_s3]),
        "s3://bucket/x/?endpoint=http://given:3"
    );
}
