//! What holds for the packets of one read.

use bridged_core::Nanos;

use crate::shared::Shared;
use crate::tables::peer_table::Table;
use crate::transport::seam::Transport;

/// What holds for all packets of one read.
pub struct WanScene<'a, T: Transport> {
    pub shared: &'a Shared<T>,
    pub table: &'a Table<T>,
    pub link: &'a T::Link,
    pub now: Nanos,
}

/// Packets of one arrival with the same first bytes.
pub struct Batch<O> {
    pub origin: O,
    pub start: usize,
    pub length: usize,
    /// Bytes of each; the last may be shorter.
    pub size: usize,
}

impl<O> Batch<O> {
    /// How many.
    pub fn packets(&self) -> u64 {
        self.length.div_ceil(self.size) as u64
    }
}
