//! The kernel's fanotify events, of groups that report file handles.
//!
//! An event is a head (`struct fanotify_event_metadata`) and records of information (`struct
//! fanotify_event_info_fid`), each with its length. The parser follows these lengths and trusts nothing else, since a
//! later kernel may add records of other types.

use super::handle::inode_of;

/// Length of `struct fanotify_event_metadata`.
const HEAD_BYTES: usize = 24;
/// The only version of that structure.
const VERSION: u8 = 3;
/// Type of the record that names the file (`FAN_EVENT_INFO_TYPE_FID`).
const FILE_RECORD: u8 = 1;
/// A record's head and the file system's id, before the handle.
const RECORD_HEAD_BYTES: usize = 4 + 8;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The file with this inode number in the catalog's image was opened.
    Opened(u64),
    /// A file was opened, which no known record names.
    Unknown,
    /// The queue was full: some events are lost.
    Overflow,
}

/// Iterates over the events of one read of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Events<'a> {
    rest: &'a [u8],
}

impl<'a> Events<'a> {
    pub(crate) fn new(read: &'a [u8]) -> Self {
        Self { rest: read }
    }
}

impl Iterator for Events<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let length = usize::try_from(word(self.rest, 0)?).ok()?;
        let version = *self.rest.get(4)?;
        let head_length = usize::from(half(self.rest, 6)?);
        let mask = u64::from(word(self.rest, 8)?) | u64::from(word(self.rest, 12)?) << 32;
        if length < HEAD_BYTES || version != VERSION {
            self.rest = &[];
            return None;
        }
        let (event, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        if mask & libc::FAN_Q_OVERFLOW != 0 {
            return Some(Event::Overflow);
        }
        let records = event.get(head_length..).unwrap_or_default();
        Some(file_of(records).map_or(Event::Unknown, Event::Opened))
    }
}

fn file_of(mut records: &[u8]) -> Option<u64> {
    loop {
        let kind = *records.first()?;
        let length = usize::from(half(records, 2)?);
        let (record, rest) = records.split_at_checked(length)?;
        if kind == FILE_RECORD {
            let handle = record.get(RECORD_HEAD_BYTES..)?;
            let handle_length = usize::try_from(word(handle, 0)?).ok()?;
            let handle_type = word(handle, 4)?.cast_signed();
            return inode_of(handle_type, handle.get(8..)?.get(..handle_length)?);
        }
        if length == 0 {
            return None;
        }
        records = rest;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Two events as the kernel (6.18, little endian) gave them in one read.
    const SEEN: &str = "50000000030018002000000000000000ffffffff7454000001003800fa12f246b7c0999424000000f800000000000000\
        fb21008141bdcf5298b4476bbbaf3d142f74deff00000000251500000000000050000000030018002000000000000000ffffffff\
        7454000001003800fa12f246b7c0999424000000f800000000000000fb21008141bdcf5298b4476bbbaf3d142f74deff00000000\
        ca1a000000000000";

    fn seen() -> Vec<u8> {
        let digits: Vec<u8> = SEEN.bytes().filter(u8::is_ascii_hexdigit).collect();
        let text = |pair: &[u8]| String::from_utf8(pair.to_vec()).unwrap();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(&text(pair), 16).unwrap())
            .collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn reads_events_of_the_kernel() {
        let events: Vec<_> = Events::new(&seen()).collect();
        assert_eq!(events, [Event::Opened(0x1525), Event::Opened(0x1aca)]);
    }

    #[test]
    fn passes_over_records_it_does_not_know() {
        let mut read = seen();
        read.truncate(80);
        let record = read.split_off(HEAD_BYTES);
        read.extend([9, 0]);
        read.extend(8_u16.to_ne_bytes());
        read.extend([0; 4]);
        read.extend(record);
        read[0..4].copy_from_slice(&88_u32.to_ne_bytes());
        assert_eq!(Events::new(&read).collect::<Vec<_>>(), [Event::Opened(0x1525)]);
    }

    #[test]
    fn says_when_the_queue_was_full_or_a_file_is_not_named() {
        let mut read = seen();
        read[8..12].copy_from_slice(&u32::try_from(libc::FAN_Q_OVERFLOW).unwrap().to_ne_bytes());
        read[80 + HEAD_BYTES] = 77;
        assert_eq!(
            Events::new(&read).collect::<Vec<_>>(),
            [Event::Overflow, Event::Unknown]
        );
    }

    proptest! {
        #[test]
        fn ends_and_never_panics_on_any_bytes(
            read in proptest::collection::vec(any::<u8>(), 0..256),
            at in 0_usize..160,
            byte in any::<u8>(),
        ) {
            assert!(Events::new(&read).count() <= read.len() / HEAD_BYTES);
            let mut changed = seen();
            changed[at] = byte;
            assert!(Events::new(&changed).count() <= changed.len() / HEAD_BYTES);
        }
    }
}
