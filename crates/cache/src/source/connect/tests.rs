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
    Source::open_in(options, &std::iter::empty().collect(), &Clients::default())
}

fn field(options: &SourceOptions) -> String {
    match open(options) {
        Err(SourceError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_kind_opens_without_a_request() {
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
        Source::open_in(options, &environment, &Clients::default())
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

fn isolated(options: &SourceOptions) -> Result<Source, SourceError> {
    Source::open_in(options, &Environment::isolated(Vec::new()), &Clients::default())
}

#[test]
fn an_isolated_source_names_no_files_and_no_programs_of_the_worker() {
    for (url, name) in [
        ("s3://bucket", "aws_web_identity_token_file"),
        ("s3://bucket", "WEB_IDENTITY_TOKEN_FILE"),
        ("s3://bucket", "aws_profile"),
        ("s3://bucket", "aws_container_credentials_full_uri"),
        ("gs://bucket", "google_service_account"),
        ("gs://bucket", "service_account_path"),
        ("gs://bucket", "application_credentials"),
        ("az://container", "azure_federated_token_file"),
        ("az://container", "use_azure_cli"),
    ] {
        let refused = isolated(&with(url, &[(name, "/var/run/secrets/token")]));
        match refused {
            Err(SourceError::Invalid { field, .. }) => assert_eq!(field, format!("option {name}")),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn an_isolated_directory_lies_below_one_that_is_allowed() {
    let allowed = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), allowed.path().join("link")).unwrap();
    std::fs::create_dir(allowed.path().join("data")).unwrap();
    let environment = Environment::isolated(vec![allowed.path().to_owned()]);
    let open = |path: std::path::PathBuf| {
        Source::open_in(
            &options(&format!("file://{}", path.display())),
            &environment,
            &Clients::default(),
        )
    };
    assert!(open(allowed.path().join("data")).is_ok());
    for path in [
        elsewhere.path().to_owned(),
        allowed.path().join("link"),
        "/".into(),
    ] {
        let refused = open(path);
        assert!(matches!(refused, Err(SourceError::Denied { .. })), "{refused:?}");
    }
    let missing = open(allowed.path().join("missing"));
    assert!(
        matches!(missing, Err(SourceError::NotFound { .. })),
        "{missing:?}"
    );
}

#[test]
fn a_web_identity_needs_its_role_and_a_kind_that_takes_it() {
    let token = |url, pairs: &[(&str, &str)]| SourceOptions {
        web_identity_token: Some("a.b.c".to_owned()),
        ..with(url, pairs)
    };
    let field = |options: &SourceOptions| match isolated(options) {
        Err(SourceError::Invalid { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(field(&token("s3://bucket", &[])), "option aws_role_arn");
    assert_eq!(
        field(&token("az://container", &[("azure_client_id", "x")])),
        "option azure_storage_tenant_id"
    );
    assert_eq!(field(&token("gs://bucket", &[])), "web_identity_token");
    assert!(
        isolated(&token(
            "s3://bucket",
            &[("aws_role_arn", "arn:aws:iam::1:role/r")]
        ))
        .is_ok()
    );
    let shown = format!("{:?}", token("s3://bucket", &[]));
    assert!(!shown.contains("a.b.c"), "{shown}");
}

#[test]
fn what_is_no_certificate_is_refused() {
    for pem in [
        "",
        "nonsense",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        let refused = isolated(&SourceOptions {
            ca_certificates: Some(pem.to_owned()),
            ..options("s3://bucket")
        });
        assert!(
            matches!(&refused, Err(SourceError::Invalid { field, .. }) if field == "ca_certificates" || field == "options"),
            "{pem:?}: {refused:?}"
        );
    }
}

#[test]
fn sources_share_a_client_unless_an_option_is_one_of_the_client_itself() {
    let clients = Clients::default();
    let open = |pairs: &[(&str, &str)], authority: Option<String>| {
        let options = SourceOptions {
            ca_certificates: authority,
            ..with("s3://bucket", pairs)
        };
        Source::open_in(&options, &Environment::isolated(Vec::new()), &clients).unwrap()
    };
    let keys = |id| [("aws_access_key_id", id), ("aws_secret_access_key", "secret")];
    let _tenants = [open(&keys("one"), None), open(&keys("two"), None)];
    assert_eq!(clients.count(), 1);
    let _proxied = open(&[("proxy_url", "http://user:password@127.0.0.1:1")], None);
    assert_eq!(clients.count(), 1);
    let authority = rcgen::generate_simple_self_signed(["s3.local".to_owned()]).unwrap();
    let _private = open(&keys("three"), Some(authority.cert.pem()));
    assert_eq!(clients.count(), 2);
}
