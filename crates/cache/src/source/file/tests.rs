use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures::TryStreamExt;

use super::*;

struct Tree {
    outside: tempfile::TempDir,
    directory: Directory,
}

impl Tree {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(outside.path().join("secret"), b"secret").unwrap();
        fs::write(root.join("sub/a"), b"0123456789").unwrap();
        let directory = Directory::open(&root).unwrap();
        Self { outside, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.outside.path().join("root").join(name)
    }

    fn request(&self, key: &str, range: std::ops::Range<u64>) -> GetRequest {
        let metadata = fs::metadata(self.path(key)).unwrap();
        let time = Time {
            secs: metadata.mtime(),
            nanos: u32::try_from(metadata.mtime_nsec()).unwrap(),
        };
        GetRequest {
            key: key.to_owned(),
            validator: Validator::Modified { time },
            size_bytes: metadata.len(),
            range,
        }
    }

    async fn read(&self, request: &GetRequest) -> Result<Vec<u8>, AttemptError> {
        let chunks: Vec<Bytes> = self.directory.get(request).await?.try_collect().await?;
        Ok(chunks.concat())
    }

    async fn entry(&self, name: &str) -> Option<Entry> {
        let page = self.directory.page("").await.unwrap();
        page.entries.into_iter().find(|entry| entry.key == name)
    }
}

fn set_modified(path: &Path, time: SystemTime) {
    fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

#[tokio::test]
async fn files_and_directories_are_listed_and_read() {
    let tree = Tree::new();
    let root = tree.directory.page("").await.unwrap();
    assert_eq!(
        (root.entries.len(), root.prefixes.as_slice()),
        (0, &["sub/".to_owned()][..])
    );
    let sub = tree.directory.page("sub/").await.unwrap();
    assert_eq!(sub.entries[0].key, "sub/a");
    assert_eq!(sub.entries[0].size_bytes, Some(10));
    assert_eq!(
        tree.read(&tree.request("sub/a", 0..10)).await.unwrap(),
        b"0123456789"
    );
    assert_eq!(tree.read(&tree.request("sub/a", 3..7)).await.unwrap(), b"3456");
}

#[tokio::test]
async fn large_files_come_in_chunks() {
    let tree = Tree::new();
    let content: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    fs::write(tree.path("big"), &content).unwrap();
    assert_eq!(
        tree.read(&tree.request("big", 5..2_999_999)).await.unwrap(),
        content[5..2_999_999]
    );
}

#[tokio::test]
async fn links_lead_to_files_inside_and_never_outside() {
    let tree = Tree::new();
    symlink("sub/a", tree.path("inside")).unwrap();
    symlink("../secret", tree.path("relative")).unwrap();
    symlink(tree.outside.path().join("secret"), tree.path("absolute")).unwrap();
    symlink("/proc/self/exe", tree.path("magic")).unwrap();
    symlink(".", tree.path("loop")).unwrap();
    symlink("nowhere", tree.path("dangling")).unwrap();
    symlink("../", tree.path("sub/up")).unwrap();
    assert_eq!(tree.entry("inside").await.unwrap().size_bytes, Some(10));
    assert_eq!(
        tree.read(&tree.request("inside", 0..10)).await.unwrap(),
        b"0123456789"
    );
    for outside in ["relative", "absolute", "magic"] {
        assert!(tree.entry(outside).await.unwrap().link_outside, "{outside}");
        let request = GetRequest {
            key: outside.to_owned(),
            ..tree.request("inside", 0..6)
        };
        assert_eq!(tree.read(&request).await, Err(AttemptError::Changed), "{outside}");
    }
    assert!(tree.entry("loop").await.unwrap().special);
    assert!(tree.entry("dangling").await.is_none());
    for hostile in [
        "../secret",
        "sub/../../secret",
        "/etc/passwd",
        "sub/up/../../secret",
    ] {
        let request = GetRequest {
            key: hostile.to_owned(),
            ..tree.request("inside", 0..6)
        };
        assert_eq!(tree.read(&request).await, Err(AttemptError::Changed), "{hostile}");
    }
    assert!(
        tree.directory.page("loop/").await.is_err(),
        "links to directories are not followed"
    );
}

#[tokio::test]
async fn what_is_no_file_is_left_out_and_never_waited_for() {
    let tree = Tree::new();
    rustix::fs::mknodat(
        CWD,
        tree.path("pipe"),
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(tree.entry("pipe").await.unwrap().special);
    let request = GetRequest {
        key: "pipe".to_owned(),
        ..tree.request("sub/a", 0..6)
    };
    assert_eq!(tree.read(&request).await, Err(AttemptError::Changed));
}

#[tokio::test]
async fn names_that_are_no_text_are_damaged() {
    use std::os::unix::ffi::OsStrExt;
    let tree = Tree::new();
    fs::write(tree.path("").join(std::ffi::OsStr::from_bytes(b"bad\xff")), b"x").unwrap();
    let page = tree.directory.page("").await.unwrap();
    assert!(
        page.entries
            .iter()
            .any(|entry| entry.damaged && entry.key == "bad\u{fffd}")
    );
}

#[tokio::test]
async fn a_file_that_changed_is_noticed() {
    let tree = Tree::new();
    let before = tree.request("sub/a", 0..10);
    fs::write(tree.path("sub/a"), b"longer than before").unwrap();
    assert_eq!(tree.read(&before).await, Err(AttemptError::Changed));
    let before = tree.request("sub/a", 0..10);
    set_modified(
        &tree.path("sub/a"),
        SystemTime::UNIX_EPOCH + Duration::from_secs(5),
    );
    assert_eq!(tree.read(&before).await, Err(AttemptError::Changed));
    fs::remove_file(tree.path("sub/a")).unwrap();
    assert_eq!(tree.read(&before).await, Err(AttemptError::Changed));
}

#[tokio::test]
async fn a_change_between_two_chunks_is_noticed() {
    let tree = Tree::new();
    fs::write(tree.path("big"), vec![1_u8; 3 << 20]).unwrap();
    let request = tree.request("big", 0..3 << 20);
    let mut chunks = tree.directory.get(&request).await.unwrap();
    assert_eq!(chunks.try_next().await.unwrap().unwrap().len(), 1 << 20);
    fs::write(tree.path("big"), vec![2_u8; 3 << 20]).unwrap();
    set_modified(&tree.path("big"), SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    assert_eq!(chunks.try_next().await, Err(AttemptError::Changed));
}
