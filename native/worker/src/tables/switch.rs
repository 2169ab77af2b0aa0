//! Where a frame goes: the learning switch between the TAP and the peers.
//!
//! Source: IEEE 802.1D-2004, 7.7; docs/protocol/data.md#6-1; `bridged/dataplane/portable/tables/switch.py`.
//! The FDB is behind a lock, which is taken for what is new: each thread remembers what it asked.

use bridged_core::fdb::{Port, Station, TAP_PORT};
use bridged_core::headers::{addresses, Mac};
use bridged_core::local_cache::LocalCache;
use bridged_core::stats::FrameKind;
use bridged_core::Nanos;

use crate::control::counters::Reason;
use crate::tables::stations::{Ingress, Move, SharedFdb};

/// Places of each cache of a thread, 32 bytes each.
const CACHE_PLACES: usize = if cfg!(feature = "model") { 4 } else { 4096 };
/// Every frame is in this VLAN: the switch does not look at tags yet.
pub const VLAN: u16 = 0;

/// Where frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Nowhere: the station is on the side they came from.
    Nowhere,
    /// To the TAP.
    Tap,
    /// To one peer.
    Peer(Port),
    /// To all peers but the one they came from and, where they came from one, to the TAP.
    Flood,
}

/// What becomes of frames from one port with the same two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What their destination is.
    pub kind: FrameKind,
    /// Where they go, or why nowhere.
    pub target: Result<Target, Reason>,
}

/// One thread's view of the switch.
#[derive(Debug)]
pub struct Switch {
    sources: LocalCache,
    targets: LocalCache,
}

impl Switch {
    /// One that remembers nothing; `seed` is random.
    pub fn new(seed: u64) -> Switch {
        Switch {
            sources: LocalCache::new(CACHE_PLACES, seed),
            targets: LocalCache::new(CACHE_PLACES, seed.rotate_left(32)),
        }
    }

    /// Learn the source of a frame of 14 bytes or more, and decide. `report` hears of a station that moved, a few
    /// times a second at most: beyond that moves are only counted.
    #[inline]
    pub fn decide(
        &mut self,
        fdb: &SharedFdb,
        ingress: Ingress<'_>,
        frame: &[u8],
        forward_between_peers: bool,
        now: Nanos,
        report: impl FnOnce(Move),
    ) -> Decision {
        let Some((target, source)) = addresses(frame) else {
            return Decision { kind: FrameKind::UnknownUnicast, target: Err(Reason::ShortFrame) };
        };
        let port = ingress.port;
        let kind = kind_of(target);
        let (target, source) = (Station::new(VLAN, target), Station::new(VLAN, source));
        if self.sources.get(source, fdb.generation(), now) != Some(port) {
            if let Err(reason) = self.learn(fdb, ingress, source, now, report) {
                return Decision { kind, target: Err(reason) };
            }
        }
        if kind != FrameKind::UnknownUnicast {
            return Decision { kind, target: Ok(Target::Flood) };
        }
        let found = self.targets.get(target, fdb.generation(), now).or_else(|| self.look_up(fdb, target, now));
        let Some(found) = found else { return Decision { kind, target: Ok(Target::Flood) } };
        let target = match (found, ingress.is_removed) {
            (TAP_PORT, Some(_)) => Target::Tap,
            (found, _) if found == port => Target::Nowhere,
            // As OpenVPN without client-to-client: the kernel's bridge decides.
            (_, Some(_)) if !forward_between_peers => Target::Tap,
            (found, _) => Target::Peer(found),
        };
        Decision { kind: FrameKind::Unicast, target: Ok(target) }
    }

    #[cold]
    fn learn(
        &mut self,
        fdb: &SharedFdb,
        ingress: Ingress<'_>,
        source: Station,
        now: Nanos,
        report: impl FnOnce(Move),
    ) -> Result<(), Reason> {
        if let Some(known) = fdb.learn(ingress, source, now, report)? {
            self.sources.put(source, known.port, known.generation, known.until);
        }
        Ok(())
    }

    #[cold]
    fn look_up(&mut self, fdb: &SharedFdb, target: Station, now: Nanos) -> Option<Port> {
        let known = fdb.look_up(target, now)?;
        self.targets.put(target, known.port, known.generation, known.until);
        Some(known.port)
    }
}

/// What a destination is, as far as its address tells.
fn kind_of(target: Mac) -> FrameKind {
    if target == Mac::BROADCAST {
        FrameKind::Broadcast
    } else if target.is_group() {
        FrameKind::Multicast
    } else {
        FrameKind::UnknownUnicast
    }
}

#[cfg(test)]
#[path = "switch_tests.rs"]
mod tests;
