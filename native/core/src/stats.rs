//! Kinds of frames, and the buckets of batch sizes.

/// Upper bounds of the batch histogram's buckets; one more bucket is above them all.
pub const BATCH_BOUNDS: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Buckets of a batch histogram.
pub const BATCH_BUCKETS: usize = BATCH_BOUNDS.len() + 1;

/// The bucket of a batch of `size`: bucket `i` counts sizes in (`BATCH_BOUNDS[i-1]`, `BATCH_BOUNDS[i]`].
#[must_use]
pub fn bucket(size: usize) -> usize {
    let above = size.saturating_sub(1) as u64;
    ((u64::BITS - above.leading_zeros()) as usize).min(BATCH_BUCKETS - 1)
}

/// Frames by their destination; the order is that of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// To a station that the FDB knows.
    Unicast = 0,
    /// To a station that it does not: flooded.
    UnknownUnicast = 1,
    /// To everybody.
    Broadcast = 2,
    /// To a group.
    Multicast = 3,
}

/// How many [`FrameKind`]s there are.
pub const FRAME_KINDS: usize = 4;

impl FrameKind {
    /// All kinds, by index.
    pub const ALL: [Self; FRAME_KINDS] = [Self::Unicast, Self::UnknownUnicast, Self::Broadcast, Self::Multicast];

    /// The label that metrics use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::UnknownUnicast => "unknown_unicast",
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_falls_into_the_first_bucket_whose_bound_holds_it() {
        for size in 0..=200usize {
            let expected = BATCH_BOUNDS.iter().position(|&bound| size <= bound as usize).unwrap_or(7);
            assert_eq!(bucket(size), expected, "{size}");
        }
        assert_eq!(bucket(usize::MAX), 7);
    }
}
