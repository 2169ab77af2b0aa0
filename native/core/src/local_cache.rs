//! What one thread remembers of the FDB, so that most frames need no lock.
//!
//! Direct-mapped: a station has one place, and a newcomer takes it. What is remembered holds for one generation of the
//! FDB ([`Fdb::generation`](crate::fdb::Fdb::generation)) and until a time. Use one for destinations (until the station
//! would age) and one for sources (for [`FdbSettings::refresh`](crate::fdb::FdbSettings::refresh)).

use crate::fdb::{Port, Station};
use crate::hashing::{mix, Seed};
use crate::Nanos;

/// Most places that a cache may have.
pub const MAX_PLACES: usize = 1 << 20;

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// `u64::MAX`, which is no station, in an empty place.
    station: u64,
    generation: u64,
    until: Nanos,
    port: Port,
}

const EMPTY: Entry = Entry { station: u64::MAX, generation: 0, until: 0, port: 0 };

/// See the module.
#[derive(Debug)]
pub struct LocalCache {
    entries: Box<[Entry]>,
    seed: Seed,
}

impl LocalCache {
    /// A cache of `places` (rounded up to a power of two, 1 to [`MAX_PLACES`]), 32 bytes each. `seed` is random.
    /// Allocates.
    #[must_use]
    pub fn new(places: usize, seed: u64) -> Self {
        let places = places.clamp(1, MAX_PLACES).next_power_of_two();
        Self { entries: vec![EMPTY; places].into_boxed_slice(), seed: Seed::new(seed) }
    }

    /// The port of a station, if it is remembered, of this generation, and `now` is before its end.
    #[must_use]
    #[inline]
    pub fn get(&self, station: Station, generation: u64, now: Nanos) -> Option<Port> {
        let entry = self.entries.get(self.place(station))?;
        let holds = entry.station == station.number() && entry.generation == generation && now < entry.until;
        holds.then_some(entry.port)
    }

    /// Remember a station until a time. `generation` must have been read before the FDB was asked.
    #[inline]
    pub fn put(&mut self, station: Station, port: Port, generation: u64, until: Nanos) {
        let place = self.place(station);
        if let Some(entry) = self.entries.get_mut(place) {
            *entry = Entry { station: station.number(), generation, until, port };
        }
    }

    /// Remember nothing.
    pub fn clear(&mut self) {
        self.entries.fill(EMPTY);
    }

    #[inline]
    fn place(&self, station: Station) -> usize {
        mix(station.number(), self.seed) as usize & (self.entries.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Mac;

    fn station(number: u8) -> Station {
        Station::new(0, Mac::new([2, 0, 0, 0, 0, number]))
    }

    #[test]
    fn an_entry_holds_for_its_generation_and_time() {
        let mut cache = LocalCache::new(64, 1);
        let one = station(1);
        assert_eq!(cache.get(one, 0, 0), None);
        cache.put(one, 7, 3, 100);
        assert_eq!(cache.get(one, 3, 99), Some(7));
        assert_eq!(cache.get(one, 3, 100), None);
        assert_eq!(cache.get(one, 4, 0), None);
        assert_eq!(cache.get(station(2), 3, 0), None);
        cache.clear();
        assert_eq!(cache.get(one, 3, 0), None);
    }

    #[test]
    fn a_newcomer_takes_the_place_of_another() {
        let mut cache = LocalCache::new(1, 1);
        let (one, two) = (station(1), station(2));
        cache.put(one, 1, 0, 10);
        cache.put(two, 2, 0, 10);
        assert_eq!((cache.get(one, 0, 0), cache.get(two, 0, 0)), (None, Some(2)));
    }
}
