//! When to look at which peer's timers. Finding the next one takes logarithmic time.

use std::collections::{BTreeSet, HashMap};

use bridged_core::Nanos;

use crate::contract::PeerHandle;

/// Holds at most one moment for each peer.
#[derive(Debug, Default)]
pub struct Schedule {
    due: BTreeSet<(Nanos, PeerHandle)>,
    moments: HashMap<PeerHandle, Nanos>,
}

impl Schedule {
    /// Look at the peer then, and not at the moment set before; None: never.
    pub fn set(&mut self, handle: PeerHandle, moment: Option<Nanos>) {
        let before = match moment {
            Some(moment) => self.moments.insert(handle, moment),
            None => self.moments.remove(&handle),
        };
        if let Some(before) = before {
            self.due.remove(&(before, handle));
        }
        if let Some(moment) = moment {
            self.due.insert((moment, handle));
        }
    }

    /// The earliest moment; None: there is none.
    pub fn next(&self) -> Option<Nanos> {
        self.due.first().map(|(moment, _)| *moment)
    }

    /// Take out a peer whose moment has come, the earliest first.
    pub fn take_due(&mut self, now: Nanos) -> Option<PeerHandle> {
        let &(moment, handle) = self.due.first().filter(|(moment, _)| *moment <= now)?;
        self.due.remove(&(moment, handle));
        self.moments.remove(&handle);
        Some(handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_is_looked_at_once_at_its_latest_moment_and_in_order() {
        let mut schedule = Schedule::default();
        assert_eq!((schedule.next(), schedule.take_due(u64::MAX)), (None, None));
        for (handle, moment) in [(1, Some(50)), (2, Some(20)), (3, Some(30)), (1, Some(10)), (2, None), (4, None)] {
            schedule.set(handle, moment);
        }
        assert_eq!(schedule.next(), Some(10));
        assert_eq!(schedule.take_due(9), None);
        assert_eq!(schedule.take_due(30), Some(1));
        schedule.set(1, Some(40));
        assert_eq!(schedule.take_due(30), Some(3));
        assert_eq!((schedule.take_due(30), schedule.next()), (None, Some(40)));
    }
}
