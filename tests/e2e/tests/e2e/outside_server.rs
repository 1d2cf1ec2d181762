//! Against versitygw, an S3 server that others wrote: what it lists with an ETag, and what it lists without, since it
//! lies in its directory without having come through S3.

use std::collections::BTreeMap;
use std::path::Path;

use harness::{MountCommand, S3Server, Scratch, View, files_below, wait_until};
use origin::{Client, data};

const BUCKET: &str = "outside";

/// Small ones, one that is fetched in ranges, an empty one, and one whose name wants escapes.
const OBJECTS: [(&str, u64, u64); 6] = [
    ("a", 1, 10_000),
    ("dir/b", 2, 200_000),
    ("dir/deeper/c d+e.jpg", 3, 65_536),
    ("empty", 4, 0),
    ("large", 5, 20 << 20),
    ("large-and-odd", 6, (9 << 20) + 7),
];

struct Outside {
    server: S3Server,
    directory: std::path::PathBuf,
}

impl Outside {
    fn start(scratch: &Scratch) -> Self {
        let directory = scratch.directory("server");
        scratch.directory(&format!("server/{BUCKET}"));
        let server = S3Server::start(&directory, scratch.join("access.log")).expect("start versitygw");
        Self { server, directory }
    }

    /// Puts a file into the bucket's directory, past the server.
    fn lay_down(&self, key: &str, seed: u64, size: u64) {
        let path = self.directory.join(BUCKET).join(key);
        std::fs::create_dir_all(path.parent().expect("it lies in the bucket")).expect("make a directory");
        std::fs::write(path, data::bytes(seed, 0..size)).expect("write a file");
    }

    fn mount(&self, scratch: &Scratch, view: View) -> MountCommand {
        self.server.mount(scratch, BUCKET, view)
    }
}

fn check(root: &Path, objects: &BTreeMap<&str, (u64, u64)>) {
    let listed: Vec<_> = files_below(root)
        .into_iter()
        .map(|path| path.to_str().expect("names are UTF-8").to_owned())
        .collect();
    assert_eq!(listed, objects.keys().copied().collect::<Vec<_>>());
    for (key, (seed, size)) in objects {
        let found = harness::read(&root.join(key));
        assert_eq!(found.len() as u64, *size, "{key}");
        data::check(*seed, 0, &found).unwrap_or_else(|mismatch| panic!("{key}: {mismatch}"));
    }
}

fn objects() -> BTreeMap<&'static str, (u64, u64)> {
    OBJECTS
        .into_iter()
        .map(|(key, seed, size)| (key, (seed, size)))
        .collect()
}

#[test]
fn objects_without_etags_read_right_and_change() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let outside = Outside::start(&scratch);
        for (key, seed, size) in OBJECTS {
            outside.lay_down(key, seed, size);
        }
        let command = outside.mount(&scratch, view);
        let mount = command.mount();
        let mut expected = objects();
        check(mount.path(), &expected);
        // Another time and another size: another version.
        outside.lay_down("dir/b", 12, 150_001);
        expected.insert("dir/b", (12, 150_001));
        match view {
            View::Fuse => {
                mount.succeed(&["refresh"]);
                wait_until("the new generation", || {
                    mount
                        .join("dir/b")
                        .metadata()
                        .is_ok_and(|file| file.len() == 150_001)
                });
                check(mount.path(), &expected);
                mount.unmount();
            }
            View::Kernel => {
                mount.unmount();
                let mount = command.switch("--fresh").mount();
                check(mount.path(), &expected);
                mount.unmount();
            }
        }
    }
}

#[test]
fn an_object_without_an_etag_that_changed_is_estale() {
    let scratch = Scratch::new();
    let outside = Outside::start(&scratch);
    outside.lay_down("large", 1, 12 << 20);
    outside.lay_down("small", 2, 5_000);
    let mount = outside.mount(&scratch, View::Fuse).mount();
    // A time that differs in the seconds that HTTP has.
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    for key in ["large", "small"] {
        let path = outside.directory.join(BUCKET).join(key);
        let file = std::fs::File::options()
            .write(true)
            .open(path)
            .expect("open a file");
        file.set_modified(later).expect("set a time");
    }
    for key in ["large", "small"] {
        harness::expect_errno(std::fs::read(mount.join(key)), libc::ESTALE, key);
    }
    mount.unmount();
}

#[test]
fn objects_that_came_through_s3_read_right_by_their_etags() {
    for view in View::BOTH {
        let scratch = Scratch::new();
        let outside = Outside::start(&scratch);
        tokio::runtime::Runtime::new()
            .expect("start a runtime")
            .block_on(upload(&outside));
        let mount = outside.mount(&scratch, view).mount();
        check(mount.path(), &objects());
        for (key, _, _) in OBJECTS {
            let etag = xattr(&mount.join(key), "user.millpond.etag");
            assert!(etag.starts_with('"'), "{key}: {etag}");
            assert_eq!(etag.contains("-2\""), key == "large", "{key}: {etag}");
        }
        mount.unmount();
    }
}

/// The largest object in two parts, the others in one request.
async fn upload(outside: &Outside) {
    let client = Client::new(outside.server.url(), Some(outside.server.credentials().clone()));
    for (key, seed, size) in OBJECTS {
        if key == "large" {
            let middle = size / 2;
            multipart(
                &client,
                key,
                [data::bytes(seed, 0..middle), data::bytes(seed, middle..size)],
            )
            .await;
        } else {
            let reply = client.put(BUCKET, key, data::bytes(seed, 0..size)).await;
            let reply = reply.expect("put an object");
            assert!(reply.status.is_success(), "{key}: {reply:?}");
        }
    }
}

async fn multipart(client: &Client, key: &str, parts: [bytes::Bytes; 2]) {
    let send = async |method: &str, query: &str, body: bytes::Bytes| {
        let method = method.parse().expect("a method");
        let reply = client
            .send(method, &format!("/{BUCKET}/{key}?{query}"), &[], body)
            .await
            .expect("send a request");
        assert!(reply.status.is_success(), "{query}: {reply:?}");
        reply
    };
    let begun = send("POST", "uploads=", bytes::Bytes::new()).await;
    let upload = begun.element("UploadId");
    let mut complete = String::from("<CompleteMultipartUpload>");
    for (number, part) in (1..).zip(parts) {
        let reply = send("PUT", &format!("partNumber={number}&uploadId={upload}"), part).await;
        let etag = reply.header("etag");
        complete.push_str(&format!(
            "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        ));
    }
    complete.push_str("</CompleteMultipartUpload>");
    send("POST", &format!("uploadId={upload}"), complete.into()).await;
}

fn xattr(path: &Path, name: &str) -> String {
    let mut value = [0; 256];
    let length = rustix::fs::getxattr(path, name, &mut value)
        .unwrap_or_else(|error| panic!("{name} of {}: {error}", path.display()));
    String::from_utf8_lossy(&value[..length]).into_owned()
}
