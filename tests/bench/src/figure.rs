//! The figures by name.

use anyhow::Result;
use clap::ValueEnum;
use harness::View;
use serde::Serialize;

use crate::figures::{cpu, epochs, first_pass, first_read, half, kept, large, million, peak, start, walk};
use crate::lab::Lab;
use crate::row::Row;

/// What is measured at once and can be repeated alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Figure {
    /// Kernel view: the cached large file, page cache hot: sequential, random, mapped.
    Large,
    /// Kernel view: the cached large file with the page cache dropped.
    LargeDropped,
    /// Kernel view: the cached small files, page cache hot.
    Small,
    /// Kernel view: the cached small files, all caches dropped.
    SmallDropped,
    /// CPU time of a hot pass over the small files, beyond native.
    Cpu,
    /// FUSE view: the large file and the small files, hot.
    Fuse,
    /// Command to first byte, of a source that is catalogued and cached.
    Start,
    /// Kernel view: find and ls -lR.
    Walk,
    /// The large file, cold, beside a plain program that fetches it.
    FirstRead,
    /// The small files, cold, beside a plain program that fetches them; and the second pass right after.
    FirstPass,
    /// Bytes from the origin in three epochs.
    Epochs,
    /// Hit rates of a cache of half the data.
    Half,
    /// A million files: listing, image, mount, find, stat.
    Million,
    /// The most memory in all of it.
    Memory,
}

impl Figure {
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    pub(crate) fn measure(self, lab: &mut Lab) -> Result<Vec<Row>> {
        match self {
            Self::Large => large::measure(lab),
            Self::LargeDropped => kept::large_dropped(lab),
            Self::Small => kept::small(lab),
            Self::SmallDropped => kept::small_dropped(lab),
            Self::Cpu => cpu::measure(lab),
            Self::Fuse => {
                let mut rows = large::in_view(lab, View::Fuse)?;
                rows.extend(kept::small_in_view(lab, View::Fuse)?);
                Ok(rows)
            }
            Self::Start => start::measure(lab),
            Self::Walk => walk::measure(lab),
            Self::FirstRead => first_read::measure(lab),
            Self::FirstPass => first_pass::measure(lab),
            Self::Epochs => epochs::measure(lab),
            Self::Half => half::measure(lab),
            Self::Million => million::measure(lab),
            Self::Memory => peak::measure(lab),
        }
    }
}
