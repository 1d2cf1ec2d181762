//! Keys that no file system can hold: counted, listed, and never in the way of another key.

use harness::{Bucket, Scratch, View, files_below};

const HOSTILE: &[&str] = &[
    "../x",
    "a/../../etc/passwd",
    "/abs",
    "a//b",
    "./c",
    "a/./d",
    "..",
    ".",
    "a/..",
    "nul/\0name",
    "control/\u{1}\n\ttab",
];

#[test]
fn hostile_keys_never_escape_and_are_counted() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let mut good = Bucket::new();
        for key in [
            "a/b",
            "plain",
            "percent/%2e%2e%2fx",
            "unicode/\u{65e5}\u{672c}\u{1f4a7}",
            "back\\slash",
            "colon:comma,space equals=\"quotes\"'",
            "dir/file",
            "trailing.",
            " leading",
        ] {
            good.put(key, format!("the bytes of {key:?}").into_bytes());
        }
        good.put(&format!("long/{}", "x".repeat(255)), b"longest".to_vec());
        let origin = good.origin();
        for key in HOSTILE {
            origin.put("data", key, b"hostile".to_vec());
        }
        origin.put("data", format!("long/{}", "y".repeat(256)), b"too long".to_vec());
        // `dir` is a directory for the sake of `dir/file`, so the object of that name has no place.
        origin.put("data", "dir", b"shadowed".to_vec());
        // A marker makes a directory, as S3's console does.
        origin.put("data", "marker/", Vec::new());
        let mount = good.mount(&scratch, view).mount();
        good.check_all(mount.path());
        assert!(std::fs::read_dir(mount.join("marker")).unwrap().next().is_none());
        assert!(
            !files_below(mount.path())
                .iter()
                .any(|path| std::fs::read(mount.join(path)).unwrap() == b"hostile")
        );
        let stats = mount.stats();
        let refused: u64 = stats["catalog"]["refused"]
            .as_object()
            .expect("stats count refused keys by reason")
            .values()
            .map(|count| count.as_u64().expect("a count"))
            .sum();
        // A client's listing does not distinguish all of them; none may be lost silently.
        assert!(
            refused >= HOSTILE.len() as u64 + 2 - 1,
            "{view:?}: {refused} refused: {stats}"
        );
        mount.unmount();
    }
}
