//! Servers that are killed when they have just started: before each of their threads has read a request.

use harness::{Bucket, Mount, Scratch, View, expect_errno, wait_until};

/// Of each view. One in some 20 showed EIO while the buffers of threads that had read no request were not there yet.
const ROUNDS: u64 = 40;

fn kill(mount: &Mount) {
    wait_until("a server to kill", || mount.kill_server().is_some());
}

fn shows_no_error(view: View) {
    let scratch = Scratch::new();
    let bucket = Bucket::with_files(ROUNDS, 60_000);
    let mount = bucket.mount(&scratch, view).mount();
    for key in bucket.keys() {
        kill(&mount);
        // Asks the new server, which is there then.
        expect_errno(
            std::fs::metadata(mount.join("nothing")),
            libc::ENOENT,
            "a missing file",
        );
        kill(&mount);
        bucket.check(mount.path(), &key);
    }
    mount.unmount();
}

#[test]
fn a_kernel_view_shows_no_error_when_a_fresh_server_is_killed() {
    shows_no_error(View::Kernel);
}

#[test]
fn a_fuse_view_shows_no_error_when_a_fresh_server_is_killed() {
    shows_no_error(View::Fuse);
}
