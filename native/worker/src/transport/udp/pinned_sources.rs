//! The local addresses to answer from, by the source that wrote to them.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use bridged_sys::address::Pin;

const PINNED_SOURCES_MAX: usize = 4096;

/// The local addresses that sources of control datagrams wrote to: the newest `PINNED_SOURCES_MAX` of them.
#[derive(Debug, Default)]
pub struct PinnedSources {
    known: HashMap<SocketAddr, (Pin, u64)>,
    order: VecDeque<(SocketAddr, u64)>,
    stamp: u64,
}

impl PinnedSources {
    /// The local address to answer from.
    pub fn get(&self, source: &SocketAddr) -> Option<Pin> {
        self.known.get(source).map(|(pin, _)| *pin)
    }

    /// Record where a source wrote to.
    pub fn remember(&mut self, source: SocketAddr, pin: Pin) {
        self.stamp += 1;
        self.known.insert(source, (pin, self.stamp));
        self.order.push_back((source, self.stamp));
        while self.known.len() > PINNED_SOURCES_MAX || self.order.len() > 2 * PINNED_SOURCES_MAX {
            let Some((oldest, stamp)) = self.order.pop_front() else { return };
            if self.known.get(&oldest).is_some_and(|(_, latest)| *latest == stamp) {
                self.known.remove(&oldest);
            }
        }
    }

    /// Forget one.
    pub fn forget(&mut self, source: &SocketAddr) {
        self.known.remove(source);
    }

    /// Forget all: the sockets are new ones.
    pub fn clear(&mut self) {
        self.known.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_bounded_and_the_oldest_goes_first() {
        let mut pinned_sources = PinnedSources::default();
        let source = |number: u32| SocketAddr::new(std::net::IpAddr::V4(number.into()), 1);
        for number in 0..PINNED_SOURCES_MAX as u32 + 10 {
            pinned_sources.remember(source(number), Pin::V4([1; 4]));
            pinned_sources.remember(source(0), Pin::V4([2; 4]));
        }
        assert!(
            pinned_sources.known.len() <= PINNED_SOURCES_MAX && pinned_sources.order.len() <= 2 * PINNED_SOURCES_MAX
        );
        assert_eq!(pinned_sources.get(&source(0)), Some(Pin::V4([2; 4])));
        assert_eq!(pinned_sources.get(&source(1)), None);
    }
}
