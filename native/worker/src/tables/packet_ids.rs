//! The packet ids of one key, each given out once.
//!
//! Source: docs/protocol/data.md#3-1.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::limits::MAX_PACKET_ID;

use crate::sync::AtomicU64;
use crate::tables::ciphers::epoch_key::SendEpoch;

/// Packet ids that nobody else has.
#[derive(Debug)]
pub struct Reserved {
    next: u64,
    end: u64,
    /// They are counters of this epoch.
    epoch: Option<Arc<SendEpoch>>,
}

impl Reserved {
    /// How many are left.
    pub fn left(&self) -> usize {
        (self.end - self.next) as usize
    }

    /// Counters of an epoch.
    pub fn in_epoch(next: u64, end: u64, epoch: Arc<SendEpoch>) -> Reserved {
        Reserved { next, end, epoch: Some(epoch) }
    }

    /// The next counter, and its epoch; None where there are no more.
    #[inline]
    pub fn take_in_epoch(&mut self) -> Option<(u64, &SendEpoch)> {
        let epoch = self.epoch.as_deref()?;
        if self.next >= self.end {
            return None;
        }
        self.next += 1;
        Some((self.next - 1, epoch))
    }

    /// The next number; None where there are no more.
    #[inline]
    pub fn take_number(&mut self) -> Option<u64> {
        if self.next >= self.end {
            return None;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    /// The next one; None where there are no more.
    #[inline]
    pub fn take(&mut self) -> Option<u32> {
        if self.next >= self.end {
            return None;
        }
        let id = u32::try_from(self.next).ok()?;
        self.next += 1;
        Some(id)
    }
}

/// The counter. It only grows; it would wrap at 2^64, after centuries.
#[derive(Debug)]
pub struct PacketIds {
    /// The id that comes next; above [`MAX_PACKET_ID`] there are no more.
    next: AtomicU64,
    /// There is none from here on.
    end: u64,
}

impl PacketIds {
    /// From 1 on.
    pub fn new() -> PacketIds {
        PacketIds { next: AtomicU64::new(1), end: u64::from(MAX_PACKET_ID) + 1 }
    }

    /// From 1 on without an end in practice, for [`Reserved::take_number`].
    pub fn endless() -> PacketIds {
        PacketIds { next: AtomicU64::new(1), end: 1 << 60 }
    }

    /// Up to `count` ids, fewer where they run out.
    #[inline]
    pub fn reserve(&self, count: usize) -> Reserved {
        let next = self.next.fetch_add(count as u64, Relaxed);
        let end = next.saturating_add(count as u64).min(self.end);
        Reserved { next: next.min(end), end, epoch: None }
    }

    /// How many were asked for so far.
    #[inline]
    pub fn drawn(&self) -> u64 {
        self.next.load(Relaxed) - 1
    }

    /// Continue from this id.
    #[cfg(test)]
    pub fn set_next(&self, id: u64) {
        self.next.store(id, Relaxed);
    }
}
