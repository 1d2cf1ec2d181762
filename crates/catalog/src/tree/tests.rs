//! Tests of the walk against a tree in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::sort::Sorter;

/// Visitor that records its visits.
#[derive(Default)]
struct Script {
    directory: Vec<String>,
    seen: Vec<String>,
    refused: Vec<(Refusal, String, u16)>,
    left: usize,
}

impl Visitor for Script {
    fn enter(&mut self, name: &[u8]) -> Result<()> {
        self.directory.push(String::from_utf8_lossy(name).into_owned());
        self.seen.push(format!("{}/", self.directory.join("/")));
        Ok(())
    }

    fn file(&mut self, name: &[u8], file: &FileRecord<'_>) -> Result<()> {
        let mut path = self.directory.clone();
        path.push(String::from_utf8_lossy(name).into_owned());
        self.seen.push(format!("{}={}", path.join("/"), file.source));
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        self.directory.pop();
        self.left += 1;
        Ok(())
    }

    fn refuse(&mut self, reason: Refusal, path: &[u8], file: &FileRecord<'_>) -> Result<()> {
        let path = String::from_utf8_lossy(path).replace('\0', "/");
        self.refused.push((reason, path, file.source));
        Ok(())
    }
}

fn record(source: u16, secs: i64) -> FileRecord<'static> {
    FileRecord {
        source,
        modified: Time { secs, nanos: 5 },
        size_bytes: 9,
        id: ObjectId::from_bytes([3; 16]),
        validator: "v",
    }
}

/// Walks objects given as path and source; a path that ends in `/` is a directory.
fn script(objects: &[(&str, u16)]) -> Script {
    let directory = tempfile::tempdir().unwrap();
    let mut sorter = Sorter::new(directory.path(), 1 << 20);
    let mut value = Vec::new();
    for (path, source) in objects {
        record(*source, 0).encode(&mut value);
        let (path, value) = match path.strip_suffix('/') {
            Some(path) => (path, DIRECTORY_VALUE),
            None => (*path, value.as_slice()),
        };
        sorter
            .push(Record {
                key: path.replace('/', "\0").as_bytes(),
                value,
            })
            .unwrap();
    }
    let mut script = Script::default();
    walk(sorter.finish().unwrap().records().unwrap(), &mut script).unwrap();
    assert_eq!(
        script.left,
        script.seen.iter().filter(|path| path.ends_with('/')).count() + 1
    );
    script
}

#[test]
fn a_directory_follows_its_name_and_precedes_longer_names() {
    let script = script(&[
        ("a-b", 0),
        ("a/c", 0),
        ("a/b/x", 0),
        ("a.", 0),
        ("d/", 0),
        ("a/b/", 0),
    ]);
    assert_eq!(
        script.seen,
        ["a/", "a/b/", "a/b/x=0", "a/c=0", "a-b=0", "a.=0", "d/"]
    );
}

#[test]
fn a_directory_wins_over_a_file_of_its_path() {
    for beside in ["a/b", "a/", "a/b/c"] {
        let script = script(&[("a", 0), (beside, 1), ("a", 2)]);
        assert!(
            script
                .seen
                .iter()
                .all(|path| path.ends_with("/") || !path.starts_with("a=")),
            "{:?}",
            script.seen
        );
        assert_eq!(script.refused.len(), 2);
        assert!(
            script
                .refused
                .contains(&(Refusal::IsDirectory, "a".to_owned(), 0)),
            "{:?}",
            script.refused
        );
    }
}

#[test]
fn the_first_source_wins_over_a_later_one() {
    let script = script(&[("a", 2), ("a", 1), ("a", 3)]);
    assert_eq!(script.seen, ["a=1"]);
    assert_eq!(
        script.refused,
        [
            (Refusal::Duplicate, "a".to_owned(), 2),
            (Refusal::Duplicate, "a".to_owned(), 3)
        ]
    );
}

#[test]
fn the_newer_of_two_versions_is_the_least() {
    let encoded = |secs, nanos| {
        let mut value = Vec::new();
        FileRecord {
            modified: Time { secs, nanos },
            ..record(0, 0)
        }
        .encode(&mut value);
        value
    };
    assert!(encoded(5, 0) < encoded(4, 9));
    assert!(encoded(5, 2) < encoded(5, 1));
    assert!(encoded(1, 0) < encoded(-1, 0));
}

proptest! {
    #[test]
    fn records_lead_back(source: u16, secs: i64, nanos: u32, size_bytes: u64, id: [u8; 16], validator in ".{0,20}") {
        let id = ObjectId::from_bytes(id);
        let record = FileRecord { source, modified: Time { secs, nanos }, size_bytes, id, validator: &validator };
        let mut value = Vec::new();
        record.encode(&mut value);
        prop_assert_eq!(FileRecord::decode(&value), Some(record));
    }

    #[test]
    fn walks_as_a_tree_in_memory(
        objects in prop::collection::vec(("[ab.]{1,2}(/[ab-]){0,3}/?", 0..3u16), 0..20)
    ) {
        // The model: every directory that a path implies; a file where there is no directory, of the first source.
        let mut directories = std::collections::BTreeSet::new();
        let mut files: BTreeMap<Vec<&str>, u16> = BTreeMap::new();
        for (path, source) in &objects {
            let components: Vec<&str> = path.trim_end_matches('/').split('/').collect();
            let depth = if path.ends_with('/') { components.len() } else { components.len() - 1 };
            directories.extend((1..=depth).map(|depth| components[..depth].to_vec()));
            if !path.ends_with('/') {
                files.entry(components).and_modify(|least| *least = (*least).min(*source)).or_insert(*source);
            }
        }
        files.retain(|path, _| !directories.contains(path));
        let visited = files.len();
        let mut expected: Vec<(Vec<&str>, String)> =
            files.into_iter().map(|(path, source)| (path.clone(), format!("{}={source}", path.join("/")))).collect();
        expected.extend(directories.into_iter().map(|path| (path.clone(), format!("{}/", path.join("/")))));
        expected.sort();
        let expected: Vec<String> = expected.into_iter().map(|(_, line)| line).collect();

        let given: Vec<(&str, u16)> = objects.iter().map(|(path, source)| (path.as_str(), *source)).collect();
        let script = script(&given);
        prop_assert_eq!(script.seen, expected);
        let listed = objects.iter().filter(|(path, _)| !path.ends_with('/')).count();
        prop_assert_eq!(visited + script.refused.len(), listed);
    }
}
