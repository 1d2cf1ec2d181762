//! The specification's own test suite, `csi-sanity`, where the environment names it.

use std::process::Command;

use super::fixture::TestNode;

/// The program; what has no controller service is skipped by it.
const PROGRAM: &str = "MILLPOND_CSI_SANITY";

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_specifications_own_suite() {
    let Some(program) = std::env::var_os(PROGRAM) else {
        eprintln!("not run: {PROGRAM} does not name csi-sanity");
        return;
    };
    let Some(node) = TestNode::start(|orders| orders.patience_secs = 2).await else {
        return;
    };
    let socket = node.layout.csi_socket();
    let place = node.layout.kubelet().join("pods");
    let ran = tokio::task::spawn_blocking(move || {
        Command::new(program)
            .arg("--ginkgo.v")
            .arg("--ginkgo.no-color")
            .args(["--csi.endpoint", socket.to_str().unwrap()])
            .args(["--csi.mountdir", place.join("sanity-target").to_str().unwrap()])
            .args(["--csi.stagingdir", place.join("sanity-staging").to_str().unwrap()])
            .status()
    });
    assert!(ran.await.unwrap().unwrap().success());
}
