//! Stations, the ports they are behind, and the log of their changes.

use std::collections::VecDeque;

use crate::headers::Mac;

/// A port: 0 is the TAP, anything else a peer's handle.
pub type Port = u64;
/// The TAP.
pub const TAP_PORT: Port = 0;
/// An FDB keeps this many of its latest changes for [`Fdb::events`].
pub const STATION_EVENTS_KEPT: usize = 4096;

/// The key of the FDB: a MAC address in one VLAN (0..=4094; today every frame is in VLAN 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Station(u64);

impl Station {
    /// An address in a VLAN.
    #[must_use]
    #[inline]
    pub const fn new(vlan: u16, mac: Mac) -> Self {
        Self((vlan as u64) << 48 | mac.number())
    }

    /// Its VLAN.
    #[must_use]
    pub const fn vlan(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Its address.
    #[must_use]
    #[inline]
    pub const fn mac(self) -> Mac {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        Mac::new([a, b, c, d, e, f])
    }

    /// VLAN and address as one number.
    #[must_use]
    #[inline]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// What happened to a station.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is known now.
    Learned,
    /// It is behind another port.
    Moved,
    /// It is unknown now.
    Removed,
}

impl Change {
    /// Its name in the contract.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Moved => "moved",
            Self::Removed => "removed",
        }
    }
}

/// A change of the FDB. `port`: where the station is after it, or of `Removed` where it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StationEvent {
    /// What happened.
    pub change: Change,
    /// To whom.
    pub station: Station,
    /// Where.
    pub port: Port,
}

/// Changes in order. Pass `next` to the next call; `lost` came before `events` and are no longer kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StationEvents {
    /// Oldest first.
    pub events: Vec<StationEvent>,
    /// The position behind them.
    pub next: u64,
    /// How many were missed.
    pub lost: u64,
}

/// The latest changes of an FDB, oldest first. Reading takes nothing away.
#[derive(Debug, Default)]
pub(crate) struct EventLog {
    events: VecDeque<StationEvent>,
    /// How many there were in all.
    ever: u64,
}

impl EventLog {
    pub(crate) fn record(&mut self, change: Change, station: Station, port: Port) {
        if self.events.len() == STATION_EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(StationEvent { change, station, port });
        self.ever += 1;
    }

    /// Those behind a position, as far as they are kept.
    pub(crate) fn after(&self, position: u64) -> StationEvents {
        let oldest = self.ever - self.events.len() as u64;
        let skipped = position.saturating_sub(oldest).min(self.events.len() as u64) as usize;
        let events = self.events.iter().skip(skipped).copied().collect();
        StationEvents { events, next: self.ever, lost: oldest.saturating_sub(position) }
    }
}
