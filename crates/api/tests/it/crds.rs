//! The CRDs in `deploy/crds` are those of the types: `make crds` writes them.

use std::path::Path;

#[test]
fn the_crds_in_deploy_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    for crd in millpond_api::crds() {
        let file = folder.join(format!("{}.yaml", crd.spec.names.plural));
        let yaml = format!(
            "# Generated from the types of the crate `millpond-api`: make crds\n{}",
            serde_saphyr::to_string(&crd).expect("a CRD is YAML")
        );
        if std::env::var_os("UPDATE").is_some() {
            std::fs::create_dir_all(&folder).expect("make deploy/crds");
            std::fs::write(&file, &yaml).expect("write a CRD");
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(found == yaml, "{} is stale: run `make crds`", file.display());
    }
}
