use prometheus::Registry;

use super::*;

fn opening() -> MountContext {
    MountContext {
        environment: Environment::default(),
        clients: Clients::default(),
        origin: OriginOptions::default(),
        metrics: OriginMetrics::new(&Registry::new()).unwrap(),
    }
}

fn mount(url: &str, path: &str) -> MountOptions {
    let source = SourceOptions {
        url: url.to_owned(),
        anonymous: true,
        ..SourceOptions::default()
    };
    MountOptions {
        path: path.to_owned(),
        ..MountOptions::at_root(source)
    }
}

fn open_these(mounts: &[MountOptions]) -> Result<Arc<[Arc<Mount>]>, MountError> {
    open_all(mounts, &opening(), &[])
}

#[test]
fn deeper_paths_come_first_and_others_keep_the_configured_order() {
    let mounts = [
        mount("s3://a", "/"),
        mount("s3://b", "/x"),
        mount("s3://c", "/x/y"),
        mount("s3://d", "/z/"),
    ];
    let opened = open_these(&mounts).unwrap();
    let order: Vec<_> = opened
        .iter()
        .map(|mount| (mount.info.path.as_str(), mount.id.index))
        .collect();
    assert_eq!(order, [("x/y", 2), ("x", 1), ("z", 3), ("", 0)]);
}

#[test]
fn what_did_not_change_is_taken_over() {
    let before = open_these(&[mount("s3://a", "/"), mount("s3://b", "/b")]).unwrap();
    let rotated = MountOptions {
        source: SourceOptions {
            region: Some("eu-west-1".to_owned()),
            ..mount("s3://b", "/b").source
        },
        ..mount("s3://b", "/b")
    };
    let after = open_all(&[mount("s3://a", "/"), rotated], &opening(), &before).unwrap();
    assert!(Arc::ptr_eq(&before[1], &after[1]));
    assert!(!Arc::ptr_eq(&before[0], &after[0]));
    assert_eq!(before[0].info, after[0].info);
}

#[test]
fn a_bad_path_is_refused_with_its_mount() {
    for path in [
        "",
        "train",
        "/a//b",
        "/../a",
        "/a/./b",
        "/a\u{7}",
        &format!("/{}", "n".repeat(256)),
    ] {
        let error = open_these(&[mount("s3://a", "/"), mount("s3://b", path)]).unwrap_err();
        assert!(
            matches!(&error, MountError::Path { mount, .. } if mount.index == 1),
            "{path:?}: {error}"
        );
    }
}

#[test]
fn a_bad_glob_is_refused_with_its_mount_and_field() {
    for glob in ["[a", "{a,b", "", "/train/*.jpg"] {
        let bad = MountOptions {
            name: Some("train".to_owned()),
            exclude: vec![glob.to_owned()],
            ..mount("s3://b/train", "/train")
        };
        let error = open_these(&[mount("s3://a", "/"), bad]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("mounts[1] \"train\" (s3://b/train/): exclude has the glob"),
            "{text}"
        );
        assert!(text.contains(&format!("{glob:?}")), "{text}");
    }
}

#[test]
fn one_source_may_be_at_two_paths_but_not_twice_at_one() {
    assert!(open_these(&[mount("s3://a", "/"), mount("s3://a", "/again")]).is_ok());
    let error = open_these(&[mount("s3://a", "/x"), mount("s3://a/", "/x/")]).unwrap_err();
    assert!(matches!(error, MountError::Twice { .. }), "{error}");
    assert!(matches!(open_these(&[]), Err(MountError::Count { count: 0 })));
}

#[test]
fn globs_are_relative_to_the_source_and_a_star_is_one_name() {
    let filtered = MountOptions {
        include: vec!["**/*.jpg".to_owned(), "labels/*".to_owned()],
        exclude: vec!["bad/**".to_owned()],
        ..mount("s3://b/train", "/")
    };
    let mounts = open_these(&[filtered]).unwrap();
    let shown = |key: &str| mounts[0].includes(key);
    assert!(shown("train/a.jpg") && shown("train/x/y/a.jpg") && shown("train/labels/1"));
    assert!(!shown("train/a.png") && !shown("train/labels/x/1") && !shown("train/bad/a.jpg"));
}

#[test]
fn messages_hold_no_credentials() {
    let error = open_these(&[mount("http://user:secret@host/x?token=secret", "/")]).unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text += &inner.to_string();
        cause = inner.source();
    }
    assert!(!text.contains("secret"), "{text}");
    assert!(text.contains("http://host/x"), "{text}");
}
