//! The `Range` header.

use std::ops::Range;

/// What a `Range` header asks for, of an object of a given length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// No range, or one that is ignored (several ranges, another unit, nonsense): 200 and everything.
    Whole,
    /// 206 and these bytes.
    Part(Range<u64>),
    /// 416.
    Unsatisfiable,
}

pub(crate) fn asked(header: Option<&str>, len: u64) -> Asked {
    let Some((first, last)) = header
        .and_then(|value| value.trim().strip_prefix("bytes="))
        .and_then(|range| range.split_once('-'))
    else {
        return Asked::Whole;
    };
    match (first.trim(), last.trim()) {
        ("", suffix) => match suffix.parse::<u64>() {
            Ok(0) => Asked::Unsatisfiable,
            Ok(_) if len == 0 => Asked::Unsatisfiable,
            Ok(count) => Asked::Part(len.saturating_sub(count)..len),
            Err(_) => Asked::Whole,
        },
        (first, "") => match first.parse::<u64>() {
            Ok(first) if first < len => Asked::Part(first..len),
            Ok(_) => Asked::Unsatisfiable,
            Err(_) => Asked::Whole,
        },
        (first, last) => match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) if first > last => Asked::Whole,
            (Ok(first), Ok(_)) if first >= len => Asked::Unsatisfiable,
            (Ok(first), Ok(last)) => Asked::Part(first..last.saturating_add(1).min(len)),
            _ => Asked::Whole,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let table = [
            (None, 10, Asked::Whole),
            (Some("bytes=0-0"), 10, Asked::Part(0..1)),
            (Some("bytes=3-5"), 10, Asked::Part(3..6)),
            (Some("bytes=3-500"), 10, Asked::Part(3..10)),
            (Some("bytes=3-18446744073709551615"), 10, Asked::Part(3..10)),
            (Some("bytes=3-"), 10, Asked::Part(3..10)),
            (Some("bytes=-3"), 10, Asked::Part(7..10)),
            (Some("bytes=-30"), 10, Asked::Part(0..10)),
            (Some("bytes=10-"), 10, Asked::Unsatisfiable),
            (Some("bytes=10-11"), 10, Asked::Unsatisfiable),
            (Some("bytes=-0"), 10, Asked::Unsatisfiable),
            (Some("bytes=0-"), 0, Asked::Unsatisfiable),
            (Some("bytes=5-3"), 10, Asked::Whole),
            (Some("bytes=0-1,3-4"), 10, Asked::Whole),
            (Some("items=0-1"), 10, Asked::Whole),
            (Some("bytes=a-b"), 10, Asked::Whole),
            (Some("bytes="), 10, Asked::Whole),
        ];
        for (header, len, expected) in table {
            assert_eq!(asked(header, len), expected, "{header:?} of {len}");
        }
    }
}
