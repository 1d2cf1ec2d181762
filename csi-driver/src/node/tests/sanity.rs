//! The specification's test suite, `csi-sanity`, whose path is in the environment.

use std::process::Command;

use super::fixture::TestNode;

/// Environment variable with the program's path.
const PROGRAM: &str = "MILLPOND_CSI_SANITY";

/// Cases that need a controller service, which this driver lacks: the controller's own, and two of the Node service that
/// begin with CreateVolume (the tests of volumes cover them).
const SKIPPED: [&str; 3] = [
    r"\[Controller Server\]",
    "NodeUnpublishVolume should remove target path",
    "NodeGetVolumeStats should fail when volume does not exist on the specified path",
];

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_specifications_own_suite() {
    let program = std::env::var_os(PROGRAM);
    let program = program
        .expect("MILLPOND_CSI_SANITY names csi-sanity: `. scripts/env` sets it, scripts/deps builds it");
    let Some(node) = TestNode::start(|options| options.publish_timeout_secs = 2).await else {
        return;
    };
    let socket = node.layout.csi_socket();
    let place = node.layout.kubelet().join("pods");
    let ran = tokio::task::spawn_blocking(move || {
        Command::new(program)
            .arg("--ginkgo.v")
            .arg("--ginkgo.no-color")
            .args(SKIPPED.map(|skipped| format!("--ginkgo.skip={skipped}")))
            .args(["--csi.endpoint", socket.to_str().unwrap()])
            .args(["--csi.mountdir", place.join("sanity-target").to_str().unwrap()])
            .args(["--csi.stagingdir", place.join("sanity-staging").to_str().unwrap()])
            .status()
    });
    assert!(ran.await.unwrap().unwrap().success());
}
