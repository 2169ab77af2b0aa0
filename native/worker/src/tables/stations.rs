//! Where the stations are: the forwarding database that all threads share.
//!
//! Source: IEEE 802.1D-2004, 7.8 and 7.9; docs/protocol/data.md#6-1; `bridged/dataplane/portable/tables/fdb.py`.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use bridged_core::fdb::{Entry, Fdb, FdbChanges, FdbSettings, Learned, Port, Station, StationEvents, TAP_PORT};
use bridged_core::{Nanos, SECOND};

use crate::contract::PeerHandle;
use crate::control::counters::Reason;
use crate::settings::Settings;
use crate::sync::{lock, AtomicBool, AtomicU64, Mutex};

pub const MOVES_REPORTED_PER_SECOND: f64 = 5.0;

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

/// Where a station is, as it may be remembered.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub port: Port,
    /// Void in any other generation.
    pub generation: u64,
    /// And from this moment.
    pub until: Nanos,
}

#[derive(Debug)]
struct Stations {
    fdb: Fdb,
    report_tokens: f64,
    reported_at: Nanos,
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
        let stations =
            Stations { fdb: Fdb::new(settings, seed), report_tokens: MOVES_REPORTED_PER_SECOND, reported_at: 0 };
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

    /// What threads remember holds for one generation.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// Learn the source of a frame; where it is from now on and how long that may be remembered. None: nothing was
    /// learned. `report` hears of a station that moved, a few times a second at most.
    ///
    /// # Errors
    /// The drop reason.
    pub fn learn(
        &self,
        ingress: Ingress<'_>,
        source: Station,
        now: Nanos,
        report: impl FnOnce(Move),
    ) -> Result<Option<Known>, Reason> {
        // Also of a peer that was removed, of which nothing is learned.
        if source.mac().is_group() {
            return Err(Reason::SourceMulticast);
        }
        if source.mac().is_zero() {
            return Err(Reason::ReservedAddress);
        }
        let port = ingress.port;
        let mut stations = lock(&self.stations);
        if ingress.is_removed.is_some_and(|is_removed| is_removed.load(Relaxed)) {
            return Ok(None);
        }
        let learned = stations.fdb.learn(source, port, now);
        self.publish(&stations.fdb);
        match learned.map_err(|refusal| Reason::named(refusal.code()).unwrap_or(Reason::MacLimit))? {
            // The next frame may be judged otherwise.
            Learned::Unlearned => return Ok(None),
            Learned::Moved { previous } => {
                if stations.may_report(now) {
                    report(Move { station: source, previous, current: port });
                }
            }
            Learned::Refreshed | Learned::Added => {}
        }
        let until = now.saturating_add(self.refresh.max(1));
        Ok(Some(Known { port, generation: stations.fdb.generation(), until }))
    }

    /// Where a station is, and how long that may be remembered.
    pub fn look_up(&self, target: Station, now: Nanos) -> Option<Known> {
        let stations = lock(&self.stations);
        let entry = stations.fdb.find(target, now)?;
        let ages_at = entry.heard.saturating_add(self.ageing).saturating_add(1);
        let until = if entry.is_static { Nanos::MAX } else { ages_at };
        Some(Known { port: entry.port, generation: stations.fdb.generation(), until })
    }

    fn publish(&self, fdb: &Fdb) {
        self.generation.store(fdb.generation(), Release);
    }
}

impl Stations {
    fn may_report(&mut self, now: Nanos) -> bool {
        let gained = now.saturating_sub(self.reported_at) as f64 / SECOND as f64 * MOVES_REPORTED_PER_SECOND;
        self.report_tokens = (self.report_tokens + gained).min(MOVES_REPORTED_PER_SECOND);
        self.reported_at = now;
        let may = self.report_tokens >= 1.0;
        if may {
            self.report_tokens -= 1.0;
        }
        may
    }
}

/// The peer at a port; None: the TAP.
pub fn handle_at(port: Port) -> Option<PeerHandle> {
    (port != TAP_PORT).then_some(port)
}

fn nanoseconds(seconds: f64) -> Nanos {
    (seconds.max(0.0) * SECOND as f64) as Nanos
}
