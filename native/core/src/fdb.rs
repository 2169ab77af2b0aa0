//! Forwarding database of one tunnel: which station is behind which peer, or behind the TAP.
//!
//! Source: IEEE 802.1D-2004, 7.8 and 7.9; `docs/protocol/data.md#6-1`; `bridged/dataplane/portable/tables/fdb.py` is the same in Python.
//! Stations lie densely in a vector, so that sweeping and listing go in order; a hash table says where each one lies.

use std::collections::HashMap;

use thiserror::Error;

use crate::hashing::Seed;
use crate::headers::Mac;
use crate::{Nanos, SECOND};

/// A port: 0 is the TAP, anything else a peer's slot.
pub type Port = u32;
/// The TAP.
pub const TAP_PORT: Port = 0;
/// Stations that one call of [`Fdb::sweep`] looks at.
pub const SWEEP_STATIONS: usize = 4096;

/// What is fixed for the life of an FDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdbSettings {
    /// Addresses in all.
    pub capacity: usize,
    /// Addresses behind one peer.
    pub addresses_per_peer: usize,
    /// How long an address is kept that is not heard.
    pub ageing: Nanos,
    /// How long after it was heard from a peer a station is not moved to the TAP.
    pub move_hold: Nanos,
    /// How late [`Fdb::learn`] may hear of a frame, because callers refresh a station only so often; `move_hold` is kept for as
    /// much longer. 0: every frame is told. See [`FdbSettings::refresh_for`].
    pub refresh: Nanos,
}

impl FdbSettings {
    /// How seldom a station may be refreshed so that neither ageing nor `move_hold` notices much: at most once a second.
    #[must_use]
    pub fn refresh_for(ageing: Nanos, move_hold: Nanos) -> Nanos {
        let hold = if move_hold == 0 { SECOND } else { move_hold / 4 };
        SECOND.min(hold).min(ageing / 16)
    }
}

/// What became of a source address whose frame may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learned {
    /// Known there already; its age is 0 again.
    Refreshed,
    /// New.
    Added,
    /// It was behind another port before.
    Moved {
        /// That port.
        previous: Port,
    },
    /// There is no room to learn it: its frames go on, and frames to it are flooded.
    Unlearned,
}

/// Why a frame is dropped for its source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LearnRefusal {
    /// A group address.
    #[error("the source is a group address")]
    SourceMulticast,
    /// All zero.
    #[error("the source address is all zero")]
    ReservedAddress,
    /// Heard from a peer just now, and now from the TAP: our own frame, reflected.
    #[error("the station was heard from a peer just now")]
    LoopGuard,
    /// Too many addresses behind this peer.
    #[error("too many addresses behind the peer")]
    MacLimit,
}

impl LearnRefusal {
    /// The drop reason of metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::SourceMulticast => "source_multicast",
            Self::ReservedAddress => "reserved_address",
            Self::LoopGuard => "loop_guard",
            Self::MacLimit => "mac_limit",
        }
    }
}

/// One learned address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Station {
    /// Its address.
    pub mac: Mac,
    /// Where it is.
    pub port: Port,
    /// The moment of its last frame (or up to `refresh` before).
    pub heard: Nanos,
}

/// How often each thing happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FdbChanges {
    /// New addresses.
    pub learned: u64,
    /// Forgotten because they were not heard.
    pub aged: u64,
    /// Moved to another port.
    pub moved: u64,
    /// Forgotten on request.
    pub flushed: u64,
    /// Not learned for want of room.
    pub refused: u64,
}

/// Learned addresses, their ports and ages.
///
/// Holds at most `capacity` addresses, at most half of them behind one port, and at most `addresses_per_peer` behind one peer. Where
/// there is no room a new station goes unlearned: whoever invents addresses, on the LAN or behind a peer, must not cut off others.
/// Allocates while it grows.
#[derive(Debug)]
pub struct Fdb {
    settings: FdbSettings,
    stations: Vec<Station>,
    places: HashMap<u64, u32, Seed>,
    counts: HashMap<Port, usize, Seed>,
    changes: FdbChanges,
    version: u64,
    generation: u64,
    /// Stations from here on were looked at in this sweep.
    swept_from: usize,
}

impl Fdb {
    /// An empty one. `seed` is random and secret: strangers choose the addresses.
    #[must_use]
    pub fn new(settings: FdbSettings, seed: u64) -> Self {
        let settings = FdbSettings { capacity: settings.capacity.min(u32::MAX as usize), ..settings };
        Self {
            settings,
            stations: Vec::new(),
            places: HashMap::with_hasher(Seed::new(seed)),
            counts: HashMap::with_hasher(Seed::new(seed ^ 0x5bd1_e995)),
            changes: FdbChanges::default(),
            version: 0,
            generation: 0,
            swept_from: 0,
        }
    }

    /// Addresses in it, those that have aged and were not swept out yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.stations.len()
    }

    /// Nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stations.is_empty()
    }

    /// What is fixed.
    #[must_use]
    pub fn settings(&self) -> &FdbSettings {
        &self.settings
    }

    /// Totals of all changes.
    #[must_use]
    pub fn changes(&self) -> FdbChanges {
        self.changes
    }

    /// Changes whenever an answer of [`find`](Self::find) may have changed for another reason than age.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Changes whenever a station moved or was forgotten: what was remembered of known stations is void then.
    /// (A new station voids only what was remembered of unknown ones: see [`version`](Self::version).)
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Void everything that was remembered, because the set of peers changed.
    pub fn bump(&mut self) {
        self.version += 1;
        self.generation += 1;
    }

    /// Addresses that one port can fill, of those that nobody had before: half, so that no port fills it for the others.
    #[must_use]
    pub fn share(&self) -> usize {
        self.settings.capacity.div_ceil(2)
    }

    /// Addresses behind one port, those not yet swept out included.
    #[must_use]
    pub fn count(&self, port: Port) -> usize {
        self.counts.get(&port).copied().unwrap_or(0)
    }

    /// Take note of a frame's source address.
    ///
    /// # Errors
    /// [`LearnRefusal`]: the frame must be dropped.
    pub fn learn(&mut self, mac: Mac, port: Port, now: Nanos) -> Result<Learned, LearnRefusal> {
        let place = self.places.get(&mac.number()).copied();
        if let Some((at, station)) = place.and_then(|at| Some((at, self.stations.get_mut(at as usize)?))) {
            let silence = now.saturating_sub(station.heard);
            if silence <= self.settings.ageing {
                if station.port == port {
                    station.heard = station.heard.max(now);
                    return Ok(Learned::Refreshed);
                }
                let previous = station.port;
                return self.move_station(at, previous, port, silence, now);
            }
            self.forget(at as usize);
            self.changes.aged += 1;
        }
        if mac.is_group() {
            return Err(LearnRefusal::SourceMulticast);
        }
        if mac.is_zero() {
            return Err(LearnRefusal::ReservedAddress);
        }
        self.add(Station { mac, port, heard: now })
    }

    /// The station, unless it is unknown or has aged.
    #[must_use]
    #[inline]
    pub fn find(&self, mac: Mac, now: Nanos) -> Option<Station> {
        let &at = self.places.get(&mac.number())?;
        let station = self.stations.get(at as usize)?;
        (now.saturating_sub(station.heard) <= self.settings.ageing).then_some(*station)
    }

    /// Forget what was learned behind a port; how many addresses that were. Looks at all stations, where there are any of it.
    pub fn flush(&mut self, port: Port) -> usize {
        if self.count(port) == 0 {
            return 0;
        }
        let mut flushed = 0;
        for at in (0..self.stations.len()).rev() {
            if self.stations.get(at).is_some_and(|station| station.port == port) {
                self.forget(at);
                flushed += 1;
            }
        }
        self.changes.flushed += flushed as u64;
        flushed
    }

    /// Forget aged addresses; how many. Looks at [`SWEEP_STATIONS`] at most: call it again and again.
    pub fn sweep(&mut self, now: Nanos) -> usize {
        if self.swept_from == 0 || self.swept_from > self.stations.len() {
            self.swept_from = self.stations.len();
        }
        // Backwards: what takes the place of a forgotten station has been looked at already.
        let until = self.swept_from.saturating_sub(SWEEP_STATIONS);
        let mut aged = 0;
        while self.swept_from > until {
            self.swept_from -= 1;
            let at = self.swept_from;
            let heard = self.stations.get(at).map_or(now, |station| station.heard);
            if now.saturating_sub(heard) > self.settings.ageing {
                self.forget(at);
                aged += 1;
            }
        }
        self.changes.aged += aged as u64;
        aged
    }

    /// Stations that have not aged; their age is `now - heard`.
    pub fn stations(&self, now: Nanos) -> impl Iterator<Item = &Station> {
        let ageing = self.settings.ageing;
        self.stations.iter().filter(move |station| now.saturating_sub(station.heard) <= ageing)
    }

    fn add(&mut self, station: Station) -> Result<Learned, LearnRefusal> {
        let port = station.port;
        if port != TAP_PORT && self.count(port) >= self.settings.addresses_per_peer {
            self.changes.refused += 1;
            return Err(LearnRefusal::MacLimit);
        }
        if self.stations.len() >= self.settings.capacity || self.count(port) >= self.share() {
            self.changes.refused += 1;
            return Ok(Learned::Unlearned);
        }
        self.places.insert(station.mac.number(), self.stations.len() as u32);
        self.stations.push(station);
        *self.counts.entry(port).or_insert(0) += 1;
        self.changes.learned += 1;
        self.version += 1;
        Ok(Learned::Added)
    }

    fn move_station(
        &mut self,
        at: u32,
        previous: Port,
        port: Port,
        silence: Nanos,
        now: Nanos,
    ) -> Result<Learned, LearnRefusal> {
        let hold = self.settings.move_hold;
        // What is told late is held for longer; without a hold nothing is.
        if port == TAP_PORT && hold > 0 && silence < hold.saturating_add(self.settings.refresh) {
            return Err(LearnRefusal::LoopGuard);
        }
        if port != TAP_PORT && self.count(port) >= self.settings.addresses_per_peer {
            self.changes.refused += 1;
            return Err(LearnRefusal::MacLimit);
        }
        if let Some(station) = self.stations.get_mut(at as usize) {
            station.port = port;
            station.heard = station.heard.max(now);
        }
        self.uncount(previous);
        *self.counts.entry(port).or_insert(0) += 1;
        self.changes.moved += 1;
        self.bump();
        Ok(Learned::Moved { previous })
    }

    fn forget(&mut self, at: usize) {
        if at >= self.stations.len() {
            return;
        }
        let gone = self.stations.swap_remove(at);
        self.places.remove(&gone.mac.number());
        if let Some(other) = self.stations.get(at) {
            self.places.insert(other.mac.number(), at as u32);
        }
        self.uncount(gone.port);
        self.bump();
    }

    fn uncount(&mut self, port: Port) {
        if let Some(count) = self.counts.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&port);
            }
        }
    }
}
