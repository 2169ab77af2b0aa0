//! Forwarding database of one tunnel: which station is behind which peer, or behind the TAP.
//!
//! Source: IEEE 802.1D-2004, 7.8 and 7.9; `docs/protocol/data.md#6-1`; `bridged/dataplane/portable/tables/fdb.py` is
//! the same in Python. Stations lie densely in a vector, so that sweeping and listing go in order; a hash table says
//! where each one lies.

use std::collections::HashMap;

use thiserror::Error;

use crate::hashing::Seed;
use crate::station::EventLog;
pub use crate::station::{Change, Port, Station, StationEvent, StationEvents, STATION_EVENTS_KEPT, TAP_PORT};
use crate::{Nanos, SECOND};

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
    /// How late [`Fdb::learn`] may hear of a frame, because callers refresh a station only now and then; `move_hold`
    /// lasts that much longer. 0: every frame is passed to `learn`. See [`FdbSettings::refresh_for`].
    pub refresh: Nanos,
}

impl FdbSettings {
    /// How seldom a station may be refreshed so that neither ageing nor `move_hold` notices much: at most once a
    /// second.
    #[must_use]
    pub fn refresh_for(ageing: Nanos, move_hold: Nanos) -> Nanos {
        let hold = if move_hold == 0 { SECOND } else { move_hold / 4 };
        SECOND.min(hold).min(ageing / 16)
    }
}

/// What became of the source of a frame that may pass.
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
    /// There is no room to learn it: its frames pass, and frames to it are flooded.
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
    /// Heard from a peer just now, and now from the TAP: our own frame, reflected. Or it is static elsewhere.
    #[error("the station was heard from a peer just now, or is static elsewhere")]
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

/// Where one station is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The station.
    pub station: Station,
    /// Where it is.
    pub port: Port,
    /// The moment of its last frame (or up to `refresh` before).
    pub heard: Nanos,
    /// It neither ages nor moves.
    pub is_static: bool,
}

impl Entry {
    fn is_known(&self, now: Nanos, ageing: Nanos) -> bool {
        self.is_static || now.saturating_sub(self.heard) <= ageing
    }
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
    /// Not learned because there was no room.
    pub refused: u64,
}

/// Learned addresses, their ports and ages.
///
/// Holds at most `capacity` addresses, at most half of them behind one port, and at most `addresses_per_peer` behind
/// one peer. Where there is no room a new station stays unknown: invented addresses, on the LAN or behind a peer, must
/// not cut off others. Allocates while it grows.
#[derive(Debug)]
pub struct Fdb {
    settings: FdbSettings,
    entries: Vec<Entry>,
    places: HashMap<u64, u32, Seed>,
    counts: HashMap<Port, usize, Seed>,
    changes: FdbChanges,
    version: u64,
    generation: u64,
    /// Stations from here on were looked at in this sweep.
    swept_from: usize,
    events: EventLog,
}

impl Fdb {
    /// An empty one. `seed` is random and secret: strangers choose the addresses.
    #[must_use]
    pub fn new(settings: FdbSettings, seed: u64) -> Self {
        let settings = FdbSettings { capacity: settings.capacity.min(u32::MAX as usize), ..settings };
        Self {
            settings,
            entries: Vec::new(),
            places: HashMap::with_hasher(Seed::new(seed)),
            counts: HashMap::with_hasher(Seed::new(seed ^ 0x5bd1_e995)),
            changes: FdbChanges::default(),
            version: 0,
            generation: 0,
            swept_from: 0,
            events: EventLog::default(),
        }
    }

    /// Addresses in it, those that have aged and were not swept out yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
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

    /// Addresses that one port can fill, of those that nobody had before: half, so that no port fills it for the
    /// others.
    #[must_use]
    pub fn share(&self) -> usize {
        self.settings.capacity.div_ceil(2)
    }

    /// Addresses behind one port, those not yet swept out included.
    #[must_use]
    pub fn count(&self, port: Port) -> usize {
        self.counts.get(&port).copied().unwrap_or(0)
    }

    /// Record the source of a frame.
    ///
    /// # Errors
    /// [`LearnRefusal`]: the frame must be dropped.
    pub fn learn(&mut self, station: Station, port: Port, now: Nanos) -> Result<Learned, LearnRefusal> {
        if let Some((at, entry)) = self.entry(station) {
            if entry.is_known(now, self.settings.ageing) {
                return if entry.port == port { self.refresh(at, now) } else { self.move_to(at, entry, port, now) };
            }
            self.forget(at);
            self.changes.aged += 1;
        }
        if station.mac().is_group() {
            return Err(LearnRefusal::SourceMulticast);
        }
        if station.mac().is_zero() {
            return Err(LearnRefusal::ReservedAddress);
        }
        self.add(Entry { station, port, heard: now, is_static: false })
    }

    /// Where the station is, unless it is unknown or has aged.
    #[must_use]
    #[inline]
    pub fn find(&self, station: Station, now: Nanos) -> Option<Entry> {
        let (_, entry) = self.entry(station)?;
        entry.is_known(now, self.settings.ageing).then_some(entry)
    }

    /// Put a station behind a port, replacing what was known of it; false: no room for a new one.
    pub fn install(&mut self, station: Station, port: Port, now: Nanos, is_static: bool) -> bool {
        let new = Entry { station, port, heard: now, is_static };
        let Some((at, before)) = self.entry(station) else {
            let has_room = self.entries.len() < self.settings.capacity;
            if has_room {
                self.put(new);
            }
            return has_room;
        };
        if let Some(entry) = self.entries.get_mut(at) {
            *entry = new;
        }
        if before.port == port {
            // A static one may have been remembered for longer.
            self.bump();
        } else {
            self.moved(station, before.port, port);
        }
        true
    }

    /// Forget a station; unknown ones are ignored.
    pub fn remove(&mut self, station: Station) {
        if let Some((at, _)) = self.entry(station) {
            self.forget(at);
            self.changes.flushed += 1;
        }
    }

    /// The changes behind position `after` (0: since the start), as far as they are kept.
    #[must_use]
    pub fn events(&self, after: u64) -> StationEvents {
        self.events.after(after)
    }

    /// Forget all stations behind a port, static ones too; how many. Looks at all stations, where there are any of it.
    pub fn flush(&mut self, port: Port) -> usize {
        if self.count(port) == 0 {
            return 0;
        }
        let mut flushed = 0;
        for at in (0..self.entries.len()).rev() {
            if self.entries.get(at).is_some_and(|entry| entry.port == port) {
                self.forget(at);
                flushed += 1;
            }
        }
        self.changes.flushed += flushed as u64;
        flushed
    }

    /// Forget aged addresses; how many. Looks at [`SWEEP_STATIONS`] at most: call it again and again.
    pub fn sweep(&mut self, now: Nanos) -> usize {
        if self.swept_from == 0 || self.swept_from > self.entries.len() {
            self.swept_from = self.entries.len();
        }
        // Backwards: what takes the place of a forgotten station has been looked at already.
        let until = self.swept_from.saturating_sub(SWEEP_STATIONS);
        let mut aged = 0;
        while self.swept_from > until {
            self.swept_from -= 1;
            let at = self.swept_from;
            if self.entries.get(at).is_some_and(|entry| !entry.is_known(now, self.settings.ageing)) {
                self.forget(at);
                aged += 1;
            }
        }
        self.changes.aged += aged as u64;
        aged
    }

    /// Entries that have not aged; their age is `now - heard`.
    pub fn entries(&self, now: Nanos) -> impl Iterator<Item = &Entry> {
        let ageing = self.settings.ageing;
        self.entries.iter().filter(move |entry| entry.is_known(now, ageing))
    }

    fn entry(&self, station: Station) -> Option<(usize, Entry)> {
        let at = *self.places.get(&station.number())? as usize;
        Some((at, *self.entries.get(at)?))
    }

    fn refresh(&mut self, at: usize, now: Nanos) -> Result<Learned, LearnRefusal> {
        if let Some(entry) = self.entries.get_mut(at) {
            entry.heard = entry.heard.max(now);
        }
        Ok(Learned::Refreshed)
    }

    fn add(&mut self, entry: Entry) -> Result<Learned, LearnRefusal> {
        if self.is_full_for(entry.port) {
            return Err(LearnRefusal::MacLimit);
        }
        if self.entries.len() >= self.settings.capacity || self.count(entry.port) >= self.share() {
            self.changes.refused += 1;
            return Ok(Learned::Unlearned);
        }
        self.put(entry);
        Ok(Learned::Added)
    }

    fn put(&mut self, entry: Entry) {
        self.places.insert(entry.station.number(), self.entries.len() as u32);
        self.entries.push(entry);
        *self.counts.entry(entry.port).or_insert(0) += 1;
        self.changes.learned += 1;
        self.version += 1;
        self.events.record(Change::Learned, entry.station, entry.port);
    }

    fn move_to(&mut self, at: usize, entry: Entry, port: Port, now: Nanos) -> Result<Learned, LearnRefusal> {
        let (hold, silence) = (self.settings.move_hold, now.saturating_sub(entry.heard));
        // Stations that are refreshed late are held for longer; without a hold nothing is.
        let is_held = port == TAP_PORT && hold > 0 && silence < hold.saturating_add(self.settings.refresh);
        if entry.is_static || is_held {
            return Err(LearnRefusal::LoopGuard);
        }
        if self.is_full_for(port) {
            return Err(LearnRefusal::MacLimit);
        }
        if let Some(known) = self.entries.get_mut(at) {
            known.port = port;
            known.heard = entry.heard.max(now);
        }
        self.moved(entry.station, entry.port, port);
        Ok(Learned::Moved { previous: entry.port })
    }

    /// Whether a peer has as many stations as it may; counted where it has.
    fn is_full_for(&mut self, port: Port) -> bool {
        let is_full = port != TAP_PORT && self.count(port) >= self.settings.addresses_per_peer;
        self.changes.refused += u64::from(is_full);
        is_full
    }

    fn moved(&mut self, station: Station, previous: Port, port: Port) {
        self.uncount(previous);
        *self.counts.entry(port).or_insert(0) += 1;
        self.changes.moved += 1;
        self.bump();
        self.events.record(Change::Moved, station, port);
    }

    fn forget(&mut self, at: usize) {
        if at >= self.entries.len() {
            return;
        }
        let gone = self.entries.swap_remove(at);
        self.places.remove(&gone.station.number());
        if let Some(other) = self.entries.get(at) {
            self.places.insert(other.station.number(), at as u32);
        }
        self.uncount(gone.port);
        self.bump();
        self.events.record(Change::Removed, gone.station, gone.port);
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
