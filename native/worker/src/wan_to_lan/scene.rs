//! What holds for the packets of one read.

use std::ops::Range;

use bridged_core::packet::PacketRun;
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
    pub run: PacketRun,
}

impl<O> Batch<O> {
    /// Where the first packet lies.
    pub fn first(&self) -> Range<usize> {
        self.start..self.start + self.run.length.min(self.run.size)
    }

    /// Where they all lie.
    pub fn all(&self) -> Range<usize> {
        self.start..self.start + self.run.length
    }

    /// How many.
    pub fn packets(&self) -> u64 {
        self.run.packets() as u64
    }
}
