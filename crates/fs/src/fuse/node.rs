//! Node ids: the kernel's 64-bit names of files, which any process can decode.
//!
//! The server stores nothing per node: a new server decodes every id that an earlier one has issued, so that it can take over
//! a mount. The two highest bits are the kind:
//!
//! | bits 63-62 | bits 61-0 |
//! |---|---|
//! | 0 | a fixed directory: root 1, `live` 2, `objects` 3, `last` 4, and below the latter two one for each pair of letters |
//! | 1 | a node in the tree of a generation: 26 bits of generation, 36 bits of inode |
//! | 2 | such a node below `live`: for the kernel a directory has one parent, so it needs another id |
//! | 3 | an object: the first 62 bits of its id |
//!
//! An object's id is truncated here; [`super::catalogs`] finds the full one, and none where two objects of its catalogs
//! begin alike.

use millpond_catalog::Nid;
use millpond_core::Generation;
use millpond_core::ObjectId;

const KIND_SHIFT: u32 = 62;
const PAYLOAD_MASK: u64 = (1 << KIND_SHIFT) - 1;
const NID_BITS: u32 = 36;
const NID_MASK: u64 = (1 << NID_BITS) - 1;
const GENERATION_MASK: u64 = (1 << (KIND_SHIFT - NID_BITS)) - 1;

const KIND_FIXED: u64 = 0;
const KIND_TREE: u64 = 1;
const KIND_LIVE: u64 = 2;
const KIND_OBJECT: u64 = 3;

const ROOT: u64 = 1;
const LIVE: u64 = 2;
const OBJECTS: u64 = 3;
const LAST: u64 = 4;
/// The directories below `objects` and `last` follow these numbers.
const OBJECTS_BASE: u64 = 0x1000;
const LAST_BASE: u64 = 0x2000;

const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// One of the two directories of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Layer {
    /// `objects`: fetches a small object to the landing directory, then returns ENOENT.
    Objects,
    /// `last`: an entry or the true error.
    Last,
}

/// The two letters that an object's path begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Prefix(u16);

impl Prefix {
    /// Reads a directory's name.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        let &[first, second] = name else { return None };
        Some(Self(letter(first)? << 5 | letter(second)?))
    }

    /// The directory's name.
    pub(crate) fn name(self) -> [u8; 2] {
        [self.0 >> 5, self.0 & 31].map(|index| LETTERS.get(usize::from(index)).copied().unwrap_or_default())
    }
}

fn letter(byte: u8) -> Option<u16> {
    match byte {
        b'a'..=b'z' => Some(u16::from(byte - b'a')),
        b'2'..=b'7' => Some(u16::from(byte - b'2') + 26),
        _ => None,
    }
}

/// The first 62 bits of an object's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ObjectHead(u64);

impl ObjectHead {
    /// The head of `id`.
    pub(crate) fn of(id: ObjectId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *id.as_bytes();
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> (64 - KIND_SHIFT))
    }

    /// The smallest id with this head.
    pub(crate) fn first(self) -> ObjectId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(self.0 << (64 - KIND_SHIFT)).to_be_bytes());
        ObjectId::from_bytes(bytes)
    }
}

/// A decoded node id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    /// The root of the mount.
    Root,
    /// The root of the newest tree.
    Live,
    /// `objects` or `last`.
    Layer(Layer),
    /// A directory below one of them.
    LayerDirectory(Layer, Prefix),
    /// A node in the tree of a generation, below `gen-N`.
    Tree(Generation, Nid),
    /// A node in the tree of a generation, below `live`.
    LiveTree(Generation, Nid),
    /// An object, below `objects` or `last`.
    Object(ObjectHead),
}

impl Node {
    /// Encodes the node id; `None`: generation or inode exceed their bits (67 million generations; an image of 2 TiB).
    pub(crate) fn pack(self) -> Option<u64> {
        let tree = |generation: Generation, nid: Nid| {
            (generation.0 <= GENERATION_MASK && nid.0 <= NID_MASK).then_some(generation.0 << NID_BITS | nid.0)
        };
        let (kind, payload) = match self {
            Self::Root => (KIND_FIXED, ROOT),
            Self::Live => (KIND_FIXED, LIVE),
            Self::Layer(Layer::Objects) => (KIND_FIXED, OBJECTS),
            Self::Layer(Layer::Last) => (KIND_FIXED, LAST),
            Self::LayerDirectory(Layer::Objects, prefix) => (KIND_FIXED, OBJECTS_BASE + u64::from(prefix.0)),
            Self::LayerDirectory(Layer::Last, prefix) => (KIND_FIXED, LAST_BASE + u64::from(prefix.0)),
            Self::Tree(generation, nid) => (KIND_TREE, tree(generation, nid)?),
            Self::LiveTree(generation, nid) => (KIND_LIVE, tree(generation, nid)?),
            Self::Object(head) => (KIND_OBJECT, head.0),
        };
        Some(kind << KIND_SHIFT | payload)
    }

    /// Decodes a node id; `None`: no server issues it.
    pub(crate) fn unpack(id: u64) -> Option<Self> {
        let payload = id & PAYLOAD_MASK;
        let position = (Generation(payload >> NID_BITS), Nid(payload & NID_MASK));
        match id >> KIND_SHIFT {
            KIND_FIXED => Self::fixed(payload),
            KIND_TREE => Some(Self::Tree(position.0, position.1)),
            KIND_LIVE => Some(Self::LiveTree(position.0, position.1)),
            _ => Some(Self::Object(ObjectHead(payload))),
        }
    }

    fn fixed(payload: u64) -> Option<Self> {
        let below = |base: u64| {
            let index = u16::try_from(payload.checked_sub(base)?).ok()?;
            (index < 1024).then_some(Prefix(index))
        };
        match payload {
            ROOT => Some(Self::Root),
            LIVE => Some(Self::Live),
            OBJECTS => Some(Self::Layer(Layer::Objects)),
            LAST => Some(Self::Layer(Layer::Last)),
            _ => below(OBJECTS_BASE)
                .map(|prefix| Self::LayerDirectory(Layer::Objects, prefix))
                .or_else(|| below(LAST_BASE).map(|prefix| Self::LayerDirectory(Layer::Last, prefix))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_unpacks_to_itself(generation in 0..=GENERATION_MASK, nid in 0..=NID_MASK, bytes: [u8; 16]) {
            let id = ObjectId::from_bytes(bytes);
            for node in [
                Node::Tree(Generation(generation), Nid(nid)),
                Node::LiveTree(Generation(generation), Nid(nid)),
                Node::Object(ObjectHead::of(id)),
            ] {
                prop_assert_eq!(node.pack().and_then(Node::unpack), Some(node));
            }
            prop_assert!(ObjectHead::of(id).first() <= id);
            prop_assert_eq!(ObjectHead::of(ObjectHead::of(id).first()), ObjectHead::of(id));
        }

        #[test]
        fn any_number_unpacks_to_itself_or_to_nothing(id: u64) {
            if let Some(node) = Node::unpack(id) {
                prop_assert_eq!(node.pack(), Some(id));
            }
        }
    }

    #[test]
    fn every_fixed_directory_has_its_own_number() {
        let mut seen = std::collections::HashSet::new();
        let mut nodes = vec![
            Node::Root,
            Node::Live,
            Node::Layer(Layer::Objects),
            Node::Layer(Layer::Last),
        ];
        for first in LETTERS {
            for second in LETTERS {
                let prefix = Prefix::parse(&[*first, *second]).unwrap();
                assert_eq!(prefix.name(), [*first, *second]);
                nodes.push(Node::LayerDirectory(Layer::Objects, prefix));
                nodes.push(Node::LayerDirectory(Layer::Last, prefix));
            }
        }
        for node in nodes {
            let id = node.pack().unwrap();
            assert!(seen.insert(id), "{node:?}");
            assert_eq!(Node::unpack(id), Some(node));
        }
        assert_eq!(Node::Root.pack(), Some(1));
    }

    #[test]
    fn too_large_a_generation_or_inode_has_no_number() {
        assert_eq!(Node::Tree(Generation(GENERATION_MASK + 1), Nid(1)).pack(), None);
        assert_eq!(Node::LiveTree(Generation(1), Nid(NID_MASK + 1)).pack(), None);
        assert_eq!(Prefix::parse(b"a1"), None);
        assert_eq!(Prefix::parse(b"abc"), None);
    }
}
