//! Where a frame goes: the learning switch between the TAP and the peers.
//!
//! Source: IEEE 802.1D-2004, 7.7; docs/protocol/data.md#6-1; `bridged/dataplane/portable/tables/switch.py`.
//! The FDB is behind a lock, which is taken for what is new: each thread remembers what it asked.

use std::sync::atomic::Ordering;

use bridged_core::fdb::{Entry, Fdb, FdbChanges, FdbSettings, Learned, Port, Station, StationEvents, TAP_PORT};
use bridged_core::headers::{addresses, Mac};
use bridged_core::local_cache::LocalCache;
use bridged_core::stats::FrameKind;
use bridged_core::{Nanos, SECOND};

use crate::contract::{PeerHandle, Settings};
use crate::control::counters::Reason;
use crate::sync::{lock, AtomicBool, AtomicU64, Mutex};
use std::sync::atomic::Ordering::Relaxed;

/// Places of each cache of a thread, 32 octets each.
const CACHE_PLACES: usize = if cfg!(feature = "model") { 4 } else { 4096 };
/// Every frame is in this VLAN: the switch does not look at tags yet.
pub const VLAN: u16 = 0;
const MOVES_TOLD_PER_SECOND: f64 = 5.0;

/// Where a frame came from.
#[derive(Debug, Clone, Copy)]
pub struct Ingress<'a> {
    /// The TAP's port or the peer's.
    pub port: Port,
    /// Of a peer: it left the table, and nothing is learned of it any more. None: the TAP.
    pub is_removed: Option<&'a AtomicBool>,
}

impl Ingress<'_> {
    /// The TAP.
    pub const TAP: Ingress<'static> = Ingress { port: TAP_PORT, is_removed: None };
}

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

/// A station that moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Who.
    pub station: Station,
    /// Where it was.
    pub previous: Port,
    /// Where it is.
    pub current: Port,
}

#[derive(Debug)]
struct Stations {
    fdb: Fdb,
    tell_tokens: f64,
    told_at: Nanos,
}

/// The forwarding database that all threads share.
#[derive(Debug)]
pub struct SharedFdb {
    stations: Mutex<Stations>,
    generation: AtomicU64,
    refresh: Nanos,
    ageing: Nanos,
    capacity: usize,
}

impl SharedFdb {
    /// An empty one.
    pub fn new(settings: &Settings, seed: u64) -> SharedFdb {
        let (capacity, addresses_per_peer) = (settings.fdb_capacity, settings.addresses_per_peer);
        let (ageing, move_hold) = (nanoseconds(settings.ageing), nanoseconds(settings.move_hold));
        let refresh = FdbSettings::refresh_for(ageing, move_hold);
        let settings = FdbSettings { capacity, addresses_per_peer, ageing, move_hold, refresh };
        let stations = Stations { fdb: Fdb::new(settings, seed), tell_tokens: MOVES_TOLD_PER_SECOND, told_at: 0 };
        SharedFdb { stations: Mutex::new(stations), generation: AtomicU64::new(0), refresh, ageing, capacity }
    }

    /// Addresses at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Addresses now, and totals of all changes.
    pub fn figures(&self) -> (usize, FdbChanges) {
        let stations = lock(&self.stations);
        (stations.fdb.len(), stations.fdb.changes())
    }

    /// Addresses behind one port.
    pub fn count(&self, port: Port) -> usize {
        lock(&self.stations).fdb.count(port)
    }

    /// Stations that have not aged.
    pub fn list(&self, now: Nanos) -> Vec<Entry> {
        lock(&self.stations).fdb.entries(now).copied().collect()
    }

    /// Where a station is.
    pub fn find(&self, station: Station, now: Nanos) -> Option<Entry> {
        lock(&self.stations).fdb.find(station, now)
    }

    /// Put a station behind a port; false where there is no room for a new one.
    pub fn install(&self, station: Station, port: Port, now: Nanos, is_static: bool) -> bool {
        let mut stations = lock(&self.stations);
        let is_done = stations.fdb.install(station, port, now, is_static);
        self.publish(&stations.fdb);
        is_done
    }

    /// Forget a station.
    pub fn remove(&self, station: Station) {
        let mut stations = lock(&self.stations);
        stations.fdb.remove(station);
        self.publish(&stations.fdb);
    }

    /// The changes behind a position.
    pub fn events(&self, after: u64) -> StationEvents {
        lock(&self.stations).fdb.events(after)
    }

    /// Forget what was learned behind a port.
    pub fn flush(&self, port: Port) {
        let mut stations = lock(&self.stations);
        stations.fdb.flush(port);
        self.publish(&stations.fdb);
    }

    /// Void all that threads remember: the set of peers has changed.
    pub fn bump(&self) {
        let mut stations = lock(&self.stations);
        stations.fdb.bump();
        self.publish(&stations.fdb);
    }

    /// Forget some of the aged addresses.
    pub fn sweep(&self, now: Nanos) {
        let mut stations = lock(&self.stations);
        stations.fdb.sweep(now);
        self.publish(&stations.fdb);
    }

    fn publish(&self, fdb: &Fdb) {
        self.generation.store(fdb.generation(), Ordering::Release);
    }
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

    /// Learn the source of a frame of 14 octets or more, and decide. `ingress` None: it came from the TAP. `tell` hears
    /// of a station that moved, a few times a second at most: beyond that moves are only counted.
    #[inline]
    pub fn decide(
        &mut self,
        fdb: &SharedFdb,
        ingress: Ingress<'_>,
        frame: &[u8],
        forward_between_peers: bool,
        now: Nanos,
        tell: impl FnMut(Move),
    ) -> Decision {
        let Some((target, source)) = addresses(frame) else {
            return Decision { kind: FrameKind::UnknownUnicast, target: Err(Reason::ShortFrame) };
        };
        let port = ingress.port;
        let kind = kind_of(target);
        let (target, source) = (Station::new(VLAN, target), Station::new(VLAN, source));
        let generation = fdb.generation.load(Ordering::Acquire);
        if self.sources.get(source, generation, now) != Some(port) {
            if let Err(reason) = self.learn(fdb, ingress, source, now, tell) {
                return Decision { kind, target: Err(reason) };
            }
        }
        if kind != FrameKind::UnknownUnicast {
            return Decision { kind, target: Ok(Target::Flood) };
        }
        let generation = fdb.generation.load(Ordering::Acquire);
        let found = self.targets.get(target, generation, now).or_else(|| self.look_up(fdb, target, now));
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
        mut tell: impl FnMut(Move),
    ) -> Result<(), Reason> {
        let port = ingress.port;
        // Also of a peer that has gone, of which nothing is learned.
        if source.mac().is_group() {
            return Err(Reason::SourceMulticast);
        }
        if source.mac().is_zero() {
            return Err(Reason::ReservedAddress);
        }
        let mut stations = lock(&fdb.stations);
        if ingress.is_removed.is_some_and(|is_removed| is_removed.load(Relaxed)) {
            return Ok(());
        }
        let learned = stations.fdb.learn(source, port, now);
        let learned = learned.map_err(|refusal| Reason::named(refusal.code()).unwrap_or(Reason::MacLimit));
        fdb.publish(&stations.fdb);
        match learned? {
            // Where nothing was learned, the next frame may be judged otherwise.
            Learned::Unlearned => return Ok(()),
            Learned::Moved { previous } => {
                if stations.may_tell(now) {
                    tell(Move { station: source, previous, current: port });
                }
            }
            Learned::Refreshed | Learned::Added => {}
        }
        let generation = stations.fdb.generation();
        self.sources.put(source, port, generation, now.saturating_add(fdb.refresh.max(1)));
        Ok(())
    }

    #[cold]
    fn look_up(&mut self, fdb: &SharedFdb, target: Station, now: Nanos) -> Option<Port> {
        let stations = lock(&fdb.stations);
        let entry = stations.fdb.find(target, now)?;
        let until = if entry.is_static { Nanos::MAX } else { entry.heard.saturating_add(fdb.ageing).saturating_add(1) };
        self.targets.put(target, entry.port, stations.fdb.generation(), until);
        Some(entry.port)
    }
}

impl Stations {
    fn may_tell(&mut self, now: Nanos) -> bool {
        let gained = now.saturating_sub(self.told_at) as f64 / SECOND as f64 * MOVES_TOLD_PER_SECOND;
        self.tell_tokens = (self.tell_tokens + gained).min(MOVES_TOLD_PER_SECOND);
        self.told_at = now;
        let may = self.tell_tokens >= 1.0;
        if may {
            self.tell_tokens -= 1.0;
        }
        may
    }
}

/// The peer at a port; None: the TAP.
pub fn handle_at(port: Port) -> Option<PeerHandle> {
    (port != TAP_PORT).then_some(port)
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

fn nanoseconds(seconds: f64) -> Nanos {
    (seconds.max(0.0) * SECOND as f64) as Nanos
}

#[cfg(test)]
#[path = "stations_tests.rs"]
mod tests;
