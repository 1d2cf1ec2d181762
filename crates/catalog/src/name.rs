//! Mapping of keys to paths, and the sort form of paths.
//!
//! A path in **sort form** has its components separated by zero bytes instead of `/`. No component contains a zero byte, so
//! that the order of these bytes is the order of a tree walk: a directory's children in the order
//! of their names' bytes, each followed by its descendants. In the order of the keys themselves `a-b` would be between `a` and
//! `a/b`.

use serde::{Deserialize, Serialize};

use crate::SourceInfo;

/// Longest name of a file: the kernel's NAME_MAX, and EROFS's.
pub(crate) const NAME_MAX_BYTES: usize = 255;
/// Longest path that a system call accepts: the kernel's PATH_MAX without its zero byte. Bounds the depth of a tree too.
pub(crate) const PATH_MAX_BYTES: usize = 4095;
/// Longest validator text. Sources write ETags of 34 bytes, in headers of at most some KiB.
pub(crate) const VALIDATOR_MAX_BYTES: usize = 1024;
/// Largest object: 20 times the largest that any store allows today.
pub(crate) const OBJECT_MAX_BYTES: u64 = 1 << 50;

/// Separator of the components of a path in sort form.
pub(crate) const SEPARATOR: u8 = 0;

/// Reason why a listed object is not in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Its key does not start with its source's prefix.
    OutsidePrefix,
    /// Its key is empty after the prefix.
    EmptyKey,
    /// Its key starts with `/`.
    LeadingSlash,
    /// Two `/` follow each other.
    EmptyComponent,
    /// A component is `.` or `..`.
    DotComponent,
    /// The key contains a zero byte.
    Nul,
    /// A component has more than 255 bytes.
    NameTooLong,
    /// The path has more than 4,095 bytes.
    PathTooLong,
    /// Its key ends in `/`, as a directory's, but it has content.
    DirectoryWithContent,
    /// The validator has more than 1,024 bytes.
    ValidatorTooLong,
    /// It has more than 2^50 bytes.
    ObjectTooLarge,
    /// Another object's key makes a directory of this one's: `a` beside `a/b`.
    IsDirectory,
    /// Another object has the same path: from an earlier source, or newer from the same.
    Duplicate,
}

/// Kind of entry that a key makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    File,
    Directory,
}

/// Writes the path in sort form of `key` to `path`.
pub(crate) fn sort_form(source: &SourceInfo, key: &str, path: &mut Vec<u8>) -> Result<Shape, Refusal> {
    path.clear();
    let rest = key
        .strip_prefix(source.prefix.as_str())
        .ok_or(Refusal::OutsidePrefix)?;
    let (relative, shape) = match rest.strip_suffix('/') {
        Some(directory) => (directory, Shape::Directory),
        None => (rest, Shape::File),
    };
    if rest.starts_with('/') {
        return Err(Refusal::LeadingSlash);
    }
    if rest.is_empty() {
        // `prefix/` itself is the marker of the source's own directory.
        path.extend(separated(&source.path));
        return if key.ends_with('/') {
            Ok(Shape::Directory)
        } else {
            Err(Refusal::EmptyKey)
        };
    }
    for component in relative.split('/') {
        check_name(component.as_bytes())?;
    }
    path.extend(separated(&source.path));
    if !path.is_empty() {
        path.push(SEPARATOR);
    }
    path.extend(separated(relative));
    if path.len() > PATH_MAX_BYTES {
        Err(Refusal::PathTooLong)
    } else {
        Ok(shape)
    }
}

/// Returns the key with this path (in sort form) at `source`; `None`: no key of this source has it.
pub(crate) fn key_of(source: &SourceInfo, path: &[u8]) -> Option<String> {
    let mut relative = path;
    if !source.path.is_empty() {
        let (mount, rest) = path.split_at_checked(source.path.len())?;
        if !separated(&source.path).eq(mount.iter().copied()) {
            return None;
        }
        relative = rest.strip_prefix(&[SEPARATOR])?;
    }
    let relative: Vec<u8> = relative
        .iter()
        .map(|&byte| if byte == SEPARATOR { b'/' } else { byte })
        .collect();
    let mut key = source.prefix.clone();
    key.push_str(std::str::from_utf8(&relative).ok()?);
    Some(key)
}

/// Checks a path of the tree, written with `/`.
pub(crate) fn check_path(path: &str) -> Result<(), Refusal> {
    path.split('/')
        .try_for_each(|component| check_name(component.as_bytes()))?;
    if path.len() > PATH_MAX_BYTES {
        Err(Refusal::PathTooLong)
    } else {
        Ok(())
    }
}

/// Checks a name of a file or directory.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Refusal> {
    match name {
        b"" => Err(Refusal::EmptyComponent),
        b"." | b".." => Err(Refusal::DotComponent),
        _ if name.contains(&0) => Err(Refusal::Nul),
        _ if name.len() > NAME_MAX_BYTES => Err(Refusal::NameTooLong),
        _ => Ok(()),
    }
}

/// Returns the sort form of a path that is written with `/`.
pub(crate) fn separated(path: &str) -> impl Iterator<Item = u8> + '_ {
    path.bytes()
        .map(|byte| if byte == b'/' { SEPARATOR } else { byte })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(prefix: &str, path: &str) -> SourceInfo {
        SourceInfo {
            id: "s3://b".to_owned(),
            prefix: prefix.to_owned(),
            path: path.to_owned(),
        }
    }

    fn shape(source: &SourceInfo, key: &str) -> Result<(Shape, String), Refusal> {
        let mut path = Vec::new();
        let shape = sort_form(source, key, &mut path)?;
        Ok((shape, String::from_utf8(path).unwrap().replace('\0', "/")))
    }

    #[test]
    fn keys_become_paths_below_their_sources_directory() {
        let file = |path: &str| Ok((Shape::File, path.to_owned()));
        let directory = |path: &str| Ok((Shape::Directory, path.to_owned()));
        let (root, deep) = (source("", ""), source("pre/fix/", "x/y"));
        for (source, key, expected) in [
            (&root, "a", file("a")),
            (&root, "a/b", file("a/b")),
            (&root, "a/", directory("a")),
            (&root, " / \n", file(" / \n")),
            (&root, "...", file("...")),
            (&root, "\\..\\", file("\\..\\")),
            (&deep, "pre/fix/a", file("x/y/a")),
            (&deep, "pre/fix/a/", directory("x/y/a")),
            (&deep, "pre/fix/", directory("x/y")),
        ] {
            assert_eq!(shape(source, key), expected, "{key:?}");
        }
    }

    #[test]
    fn keys_that_cannot_be_paths_are_refused_with_the_reason() {
        let long_name = "n".repeat(256);
        let long_path = ["d"; 2049].join("/");
        let (root, deep) = (source("", ""), source("pre/", "x"));
        for (source, key, reason) in [
            (&root, "", Refusal::EmptyKey),
            (&root, "/", Refusal::LeadingSlash),
            (&root, "/abs", Refusal::LeadingSlash),
            (&root, "a//b", Refusal::EmptyComponent),
            (&root, "a//", Refusal::EmptyComponent),
            (&root, ".", Refusal::DotComponent),
            (&root, "./", Refusal::DotComponent),
            (&root, "../x", Refusal::DotComponent),
            (&root, "a/../../x", Refusal::DotComponent),
            (&root, "a/.", Refusal::DotComponent),
            (&root, "a\0b", Refusal::Nul),
            (&root, &long_name, Refusal::NameTooLong),
            (&root, &long_path, Refusal::PathTooLong),
            (&deep, "a", Refusal::OutsidePrefix),
            (&deep, "pre", Refusal::OutsidePrefix),
            (&deep, "pre//a", Refusal::LeadingSlash),
            (&deep, "pre/../a", Refusal::DotComponent),
        ] {
            assert_eq!(shape(source, key), Err(reason), "{key:?}");
        }
        assert!(shape(&root, &"n".repeat(255)).is_ok());
        assert!(shape(&root, &["d"; 2048].join("/")).is_ok());
    }

    proptest! {
        #[test]
        fn a_path_leads_back_to_its_key(key in "[ab./]{0,12}", prefix in "([ab]{1,2}/)?", path in "([ab]/[ab])?") {
            let source = source(&prefix, &path);
            let mut form = Vec::new();
            if sort_form(&source, &key, &mut form) == Ok(Shape::File) {
                prop_assert_eq!(key_of(&source, &form), Some(key));
            }
        }

        #[test]
        fn no_other_path_has_a_key(path in "[ab\0]{0,6}") {
            let source = source("p/", "a/b");
            let key = key_of(&source, path.as_bytes());
            prop_assert_eq!(key.is_some(), path.starts_with("a\0b\0"));
        }
    }
}
