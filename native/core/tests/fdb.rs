//! The forwarding database, and against a model that does everything the slow way.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bridged_core::fdb::{
    Change, Fdb, FdbChanges, FdbSettings, LearnRefusal, Learned, Port, Station, StationEvent, STATION_EVENTS_KEPT,
    SWEEP_STATIONS, TAP_PORT,
};
use bridged_core::headers::Mac;
use bridged_core::{Nanos, SECOND};
use proptest::prelude::*;

const SETTINGS: FdbSettings =
    FdbSettings { capacity: 6, addresses_per_peer: 3, ageing: 300 * SECOND, move_hold: SECOND / 4, refresh: 0 };

fn mac(number: u64) -> Station {
    let [_, _, _, _, a, b, c, d] = number.to_be_bytes();
    Station::new(0, Mac::new([2, 0, a, b, c, d]))
}

fn fdb() -> Fdb {
    Fdb::new(SETTINGS, 42)
}

#[test]
fn a_station_is_found_where_it_was_heard() {
    let mut fdb = fdb();
    assert_eq!(fdb.learn(mac(1), 5, 0), Ok(Learned::Added));
    assert_eq!(fdb.learn(mac(1), 5, SECOND), Ok(Learned::Refreshed));
    let station = fdb.find(mac(1), SECOND).unwrap();
    assert_eq!((station.port, station.heard), (5, SECOND));
    assert_eq!(fdb.find(mac(2), 0), None);
    assert_eq!((fdb.len(), fdb.count(5), fdb.count(6)), (1, 1, 0));
}

#[test]
fn an_aged_station_is_unknown_and_is_learned_anew_anywhere() {
    let mut fdb = fdb();
    fdb.learn(mac(1), 5, 0).unwrap();
    assert!(fdb.find(mac(1), 300 * SECOND).is_some());
    assert!(fdb.find(mac(1), 300 * SECOND + 1).is_none());
    assert_eq!(fdb.entries(300 * SECOND + 1).count(), 0);
    assert_eq!(fdb.learn(mac(1), TAP_PORT, 300 * SECOND + 1), Ok(Learned::Added));
    assert_eq!(fdb.changes(), FdbChanges { learned: 2, aged: 1, ..FdbChanges::default() });
}

#[test]
fn a_station_moves_and_what_was_remembered_is_void() {
    let mut fdb = fdb();
    fdb.learn(mac(1), 5, 0).unwrap();
    let generation = fdb.generation();
    fdb.learn(mac(2), 5, 0).unwrap();
    assert_eq!(fdb.generation(), generation, "a new station voids nothing that is known");
    assert_eq!(fdb.learn(mac(1), 6, 1), Ok(Learned::Moved { previous: 5 }));
    assert_ne!(fdb.generation(), generation);
    assert_eq!((fdb.count(5), fdb.count(6)), (1, 1));
}

#[test]
fn a_reflected_frame_does_not_move_its_station_to_the_tap() {
    let mut fdb = fdb();
    fdb.learn(mac(1), 5, SECOND).unwrap();
    assert_eq!(fdb.learn(mac(1), TAP_PORT, SECOND + SECOND / 4 - 1), Err(LearnRefusal::LoopGuard));
    assert_eq!(fdb.learn(mac(1), TAP_PORT, SECOND + SECOND / 4), Ok(Learned::Moved { previous: 5 }));
}

#[test]
fn a_station_that_is_refreshed_seldom_is_held_for_longer() {
    let refresh = FdbSettings::refresh_for(SETTINGS.ageing, SETTINGS.move_hold);
    assert_eq!(refresh, SECOND / 16);
    let mut fdb = Fdb::new(FdbSettings { refresh, ..SETTINGS }, 1);
    fdb.learn(mac(1), 5, 0).unwrap();
    let hold = SECOND / 4 + SECOND / 16;
    assert_eq!(fdb.learn(mac(1), TAP_PORT, hold - 1), Err(LearnRefusal::LoopGuard));
    assert_eq!(fdb.learn(mac(1), TAP_PORT, hold), Ok(Learned::Moved { previous: 5 }));
    let mut unheld = Fdb::new(FdbSettings { refresh, move_hold: 0, ..SETTINGS }, 1);
    unheld.learn(mac(1), 5, 0).unwrap();
    assert_eq!(unheld.learn(mac(1), TAP_PORT, 0), Ok(Learned::Moved { previous: 5 }));
    assert_eq!(FdbSettings::refresh_for(300 * SECOND, 0), SECOND);
    assert_eq!(FdbSettings::refresh_for(SECOND, 0), SECOND / 16);
}

#[test]
fn some_addresses_are_no_stations() {
    let mut fdb = fdb();
    assert_eq!(fdb.learn(Station::new(0, Mac::BROADCAST), 5, 0), Err(LearnRefusal::SourceMulticast));
    assert_eq!(fdb.learn(Station::new(0, Mac::new([0; 6])), 5, 0), Err(LearnRefusal::ReservedAddress));
    assert!(fdb.is_empty());
}

#[test]
fn a_full_database_cuts_off_nobody() {
    let mut fdb = fdb();
    for number in 0..3 {
        fdb.learn(mac(number), 5, 0).unwrap();
    }
    assert_eq!(fdb.learn(mac(3), 5, 0), Err(LearnRefusal::MacLimit));
    for number in 3..6 {
        fdb.learn(mac(number), TAP_PORT, 0).unwrap();
    }
    assert_eq!(fdb.learn(mac(6), 6, 0), Ok(Learned::Unlearned));
    assert_eq!(fdb.learn(mac(6), TAP_PORT, 0), Ok(Learned::Unlearned));
    assert_eq!(fdb.learn(mac(5), 5, SECOND), Err(LearnRefusal::MacLimit));
    assert_eq!(fdb.changes().refused, 4);
    assert_eq!(LearnRefusal::MacLimit.code(), "mac_limit");
}

#[test]
fn no_port_fills_the_database_for_the_others() {
    for port in [TAP_PORT, 5] {
        let mut fdb = Fdb::new(FdbSettings { capacity: 100, addresses_per_peer: 100, ..SETTINGS }, 3);
        let learned = (0..1000).filter(|number| fdb.learn(mac(*number), port, 0) == Ok(Learned::Added)).count();
        assert_eq!(learned, 50);
        assert_eq!(fdb.learn(mac(1000), 6, 0), Ok(Learned::Added));
        assert_eq!(fdb.learn(mac(0), 6, SECOND), Ok(Learned::Moved { previous: port }), "stations still move");
    }
}

#[test]
fn flushing_a_port_forgets_its_stations_only() {
    let mut fdb = fdb();
    for number in 0..5 {
        fdb.learn(mac(number), (number % 2) as Port, 0).unwrap();
    }
    assert_eq!(fdb.flush(1), 2);
    assert_eq!(fdb.flush(1), 0);
    assert_eq!((fdb.len(), fdb.count(0), fdb.count(1)), (3, 3, 0));
    assert!(fdb.find(mac(1), 0).is_none() && fdb.find(mac(4), 0).is_some());
}

#[test]
fn a_hundred_thousand_stations_are_swept_bit_by_bit() {
    let settings = FdbSettings { capacity: 200_000, addresses_per_peer: 100_000, ..SETTINGS };
    let mut fdb = Fdb::new(settings, 7);
    for number in 0..100_000u64 {
        fdb.learn(mac(number), 3, number % 2 * 200 * SECOND).unwrap();
    }
    assert_eq!(fdb.learn(mac(100_000), 3, 0), Err(LearnRefusal::MacLimit));
    let now = 301 * SECOND;
    assert!(fdb.sweep(now) <= SWEEP_STATIONS);
    for _ in 0..100_000 / SWEEP_STATIONS {
        fdb.sweep(now);
    }
    assert_eq!((fdb.len(), fdb.changes().aged), (50_000, 50_000));
    assert!((0..100_000).all(|number| fdb.find(mac(number), now).is_some() == (number % 2 == 1)));
}

#[test]
fn a_static_station_neither_ages_nor_moves_and_goes_with_its_port() {
    let mut fdb = fdb();
    assert!(fdb.install(mac(1), 5, 0, true));
    let later = 1000 * SECOND;
    assert_eq!(fdb.learn(mac(1), 6, later), Err(LearnRefusal::LoopGuard));
    assert_eq!(fdb.learn(mac(1), TAP_PORT, later), Err(LearnRefusal::LoopGuard));
    assert_eq!(fdb.learn(mac(1), 5, later), Ok(Learned::Refreshed));
    assert_eq!((fdb.sweep(2 * later), fdb.find(mac(1), 2 * later).map(|entry| entry.port)), (0, Some(5)));
    assert_eq!((fdb.flush(5), fdb.find(mac(1), later)), (1, None));
}

#[test]
fn an_installed_station_replaces_what_was_known_and_voids_what_was_remembered() {
    let mut fdb = fdb();
    fdb.learn(mac(1), 5, 0).unwrap();
    let generation = fdb.generation();
    assert!(fdb.install(mac(1), TAP_PORT, 1, true));
    assert_ne!(fdb.generation(), generation);
    assert_eq!((fdb.count(5), fdb.count(TAP_PORT)), (0, 1));
    let generation = fdb.generation();
    assert!(fdb.install(mac(1), TAP_PORT, 1, false));
    assert_ne!(fdb.generation(), generation, "it ages again");
    assert_eq!(fdb.find(mac(1), 301 * SECOND), None);
    for number in 2..7 {
        assert!(fdb.install(mac(number), 5, 0, false), "no peer's limit applies");
    }
    assert!(!fdb.install(mac(7), 5, 0, true), "it is full");
}

#[test]
fn one_address_in_two_vlans_is_two_stations() {
    let mut fdb = fdb();
    let [one, other] = [0, 7].map(|vlan| Station::new(vlan, mac(1).mac()));
    fdb.learn(one, 5, 0).unwrap();
    fdb.learn(other, 6, 0).unwrap();
    assert_eq!((fdb.find(one, 0).unwrap().port, fdb.find(other, 0).unwrap().port), (5, 6));
    assert_eq!((other.vlan(), other.mac(), one.vlan()), (7, one.mac(), 0));
}

#[test]
fn changes_are_kept_in_order_and_a_slow_reader_hears_how_many_it_lost() {
    let mut fdb = fdb();
    fdb.learn(mac(1), 5, 0).unwrap();
    fdb.learn(mac(1), 6, 0).unwrap();
    fdb.remove(mac(1));
    fdb.remove(mac(1));
    let event = |change, port| StationEvent { change, station: mac(1), port };
    let told = fdb.events(0);
    assert_eq!(told.events, [event(Change::Learned, 5), event(Change::Moved, 6), event(Change::Removed, 6)]);
    assert_eq!((told.next, told.lost), (3, 0));
    assert_eq!(fdb.events(2).events, [event(Change::Removed, 6)]);
    assert!(fdb.events(3).events.is_empty() && fdb.events(99).events.is_empty());
    for _ in 0..STATION_EVENTS_KEPT / 2 {
        fdb.install(mac(2), 5, 0, false);
        fdb.remove(mac(2));
    }
    let late = fdb.events(1);
    assert_eq!((late.events.len(), late.next, late.lost), (STATION_EVENTS_KEPT, 3 + STATION_EVENTS_KEPT as u64, 2));
}

/// The rules once more, with nothing but a map.
#[derive(Default)]
struct Model {
    stations: BTreeMap<u64, (Port, Nanos)>,
    changes: FdbChanges,
}

impl Model {
    fn count(&self, port: Port) -> usize {
        self.stations.values().filter(|station| station.0 == port).count()
    }

    fn learn(&mut self, number: u64, port: Port, now: Nanos) -> Result<Learned, LearnRefusal> {
        if let Some(&(previous, heard)) = self.stations.get(&number) {
            let is_fresh = now - heard <= SETTINGS.ageing;
            if is_fresh && previous == port {
                self.stations.insert(number, (port, now));
                return Ok(Learned::Refreshed);
            }
            if is_fresh && port == TAP_PORT && now - heard < SETTINGS.move_hold {
                return Err(LearnRefusal::LoopGuard);
            }
            if is_fresh && port != TAP_PORT && self.count(port) >= SETTINGS.addresses_per_peer {
                self.changes.refused += 1;
                return Err(LearnRefusal::MacLimit);
            }
            if is_fresh {
                self.stations.insert(number, (port, now));
                self.changes.moved += 1;
                return Ok(Learned::Moved { previous });
            }
            self.stations.remove(&number);
            self.changes.aged += 1;
        }
        if port != TAP_PORT && self.count(port) >= SETTINGS.addresses_per_peer {
            self.changes.refused += 1;
            return Err(LearnRefusal::MacLimit);
        }
        if self.stations.len() >= SETTINGS.capacity || self.count(port) >= SETTINGS.capacity / 2 {
            self.changes.refused += 1;
            return Ok(Learned::Unlearned);
        }
        self.stations.insert(number, (port, now));
        self.changes.learned += 1;
        Ok(Learned::Added)
    }

    fn remove(&mut self, is_gone: impl Fn(&(Port, Nanos)) -> bool) -> usize {
        let before = self.stations.len();
        self.stations.retain(|_, station| !is_gone(station));
        before - self.stations.len()
    }
}

proptest! {
    #[test]
    fn it_agrees_with_the_model(
        seed: u64,
        steps in proptest::collection::vec((0u8..20, 0u64..10, 0u64..3, 0u64..400), 1..200),
    ) {
        let (mut fdb, mut model, mut now) = (Fdb::new(SETTINGS, seed), Model::default(), 0);
        for (kind, number, port, wait) in steps {
            let (version, generation) = (fdb.version(), fdb.generation());
            let known: Vec<_> = (0..10).map(|number| fdb.find(mac(number), now).map(|station| station.port)).collect();
            match kind {
                0..=12 => prop_assert_eq!(fdb.learn(mac(number), port, now), model.learn(number, port, now)),
                13 => {
                    let flushed = model.remove(|station| station.0 == port);
                    model.changes.flushed += flushed as u64;
                    prop_assert_eq!(fdb.flush(port), flushed);
                }
                14 => {
                    let aged = model.remove(|station| now - station.1 > SETTINGS.ageing);
                    model.changes.aged += aged as u64;
                    prop_assert_eq!(fdb.sweep(now), aged);
                }
                15 => now += wait * SECOND,
                _ => now += wait * SECOND / 1000,
            }
            for number in 0..10 {
                let expected = model.stations.get(&number).filter(|station| now - station.1 <= SETTINGS.ageing);
                let found = fdb.find(mac(number), now);
                prop_assert_eq!(found.map(|station| (station.port, station.heard)), expected.copied());
                // What the counters promise to those who remember.
                if kind <= 14 && known[number as usize] != found.map(|station| station.port) {
                    prop_assert_ne!(fdb.version(), version);
                    prop_assert!(known[number as usize].is_none() || fdb.generation() != generation);
                }
            }
            prop_assert_eq!(fdb.changes(), model.changes);
            prop_assert_eq!(fdb.len(), model.stations.len());
            prop_assert!((0..3).all(|port| fdb.count(port) == model.count(port)));
        }
    }
}
