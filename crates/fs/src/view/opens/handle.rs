//! The inode in a file handle of a kernel view.
//!
//! An exportable overlay names a file by a handle that wraps its lower file system's (`struct ovl_fh` in the kernel's
//! `fs/overlayfs/overlayfs.h`): three bytes of padding, version 0, magic 0xfb, length, flags, the type of the wrapped
//! handle, the lower file system's 16-byte uuid, and the wrapped handle. For a catalog image that is EROFS's: the inode
//! number in two 32-bit halves, the higher first, and a generation of zero; kernels whose EROFS has no export
//! operations of its own encode the number in one 32-bit word.

/// Handle type of an overlay's handle with its padding (`OVL_FILEID_V1`).
const OVERLAY_TYPE: i32 = 0xf8;
/// Of a 32-bit inode number and a generation (`FILEID_INO32_GEN`).
const INODE_32: u8 = 1;
/// Of a 64-bit inode number and a generation (`FILEID_INO64_GEN`).
const INODE_64: u8 = 0x81;

const PADDING_BYTES: usize = 3;
const VERSION: u8 = 0;
const MAGIC: u8 = 0xfb;
/// The handle names a file of a big-endian kernel.
const FLAG_BIG_ENDIAN: u8 = 1;
/// The byte order of the handle does not matter.
const FLAG_ANY_ENDIAN: u8 = 2;
/// The handle is of an upper layer, which a view does not have.
const FLAG_UPPER: u8 = 4;
const UUID_BYTES: usize = 16;
/// Version, magic, length, flags, type and uuid.
const HEAD_BYTES: usize = 5 + UUID_BYTES;

/// Returns the inode number in the metadata layer of the file that an overlay's handle names; `None`: it is no handle of a
/// file in an EROFS layer.
pub(crate) fn inode_of(handle_type: i32, handle: &[u8]) -> Option<u64> {
    if handle_type != OVERLAY_TYPE {
        return None;
    }
    let (_, wrapped) = handle.split_at_checked(PADDING_BYTES)?;
    let [version, magic, length, flags, inner_type, ..] = *wrapped else {
        return None;
    };
    let allowed = FLAG_ANY_ENDIAN
        | if cfg!(target_endian = "big") {
            FLAG_BIG_ENDIAN
        } else {
            0
        };
    if version != VERSION || magic != MAGIC || flags & !allowed != 0 || flags & FLAG_UPPER != 0 {
        return None;
    }
    let inner = wrapped.get(HEAD_BYTES..usize::from(length))?;
    match (inner_type, inner) {
        (INODE_64, [a, b, c, d, e, f, g, h, ..]) => {
            let high = u32::from_ne_bytes([*a, *b, *c, *d]);
            let low = u32::from_ne_bytes([*e, *f, *g, *h]);
            Some(u64::from(high) << 32 | u64::from(low))
        }
        (INODE_32, [a, b, c, d, ..]) => Some(u64::from(u32::from_ne_bytes([*a, *b, *c, *d]))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The kernel's (6.18, little endian) for inode 0x1525.
    const SEEN: [u8; 36] = [
        0, 0, 0, 0, 0xfb, 0x21, 0, 0x81, 0x41, 0xbd, 0xcf, 0x52, 0x98, 0xb4, 0x47, 0x6b, 0xbb, 0xaf, 0x3d,
        0x14, 0x2f, 0x74, 0xde, 0xff, 0, 0, 0, 0, 0x25, 0x15, 0, 0, 0, 0, 0, 0,
    ];

    #[test]
    #[cfg(target_endian = "little")]
    fn finds_the_inode_in_a_handle_of_the_kernel() {
        assert_eq!(inode_of(OVERLAY_TYPE, &SEEN), Some(0x1525));
    }

    #[test]
    fn reads_both_widths_of_inode_numbers() {
        let mut handle = SEEN;
        handle[24..28].copy_from_slice(&7_u32.to_ne_bytes());
        handle[28..32].copy_from_slice(&9_u32.to_ne_bytes());
        assert_eq!(inode_of(OVERLAY_TYPE, &handle), Some(7 << 32 | 9));
        handle[7] = INODE_32;
        handle[5] = 29;
        assert_eq!(inode_of(OVERLAY_TYPE, &handle[..32]), Some(7));
    }

    #[test]
    fn refuses_handles_of_anything_else() {
        assert_eq!(inode_of(1, &SEEN), None, "not an overlay's");
        for (position, byte) in [(3, 1), (4, 0xfa), (5, 22), (6, FLAG_UPPER), (7, 2)] {
            let mut handle = SEEN;
            handle[position] = byte;
            assert_eq!(inode_of(OVERLAY_TYPE, &handle), None, "byte {position} is {byte}");
        }
        for length in 0..SEEN.len() {
            assert_eq!(
                inode_of(OVERLAY_TYPE, &SEEN[..length]),
                None,
                "only {length} bytes"
            );
        }
    }

    proptest! {
        #[test]
        fn never_panics(handle_type in any::<i32>(), handle in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _inode = inode_of(handle_type, &handle);
            let _inode = inode_of(OVERLAY_TYPE, &handle);
        }
    }
}
