use std::sync::atomic::Ordering::Relaxed;

use bridged_core::SECOND;

use super::*;
use crate::settings::Settings;
use crate::tables::stations::MOVES_REPORTED_PER_SECOND;
use crate::test_rig::{Far, Rig};

const BROADCAST: u8 = 0xff;
const AGEING: f64 = 300.0;
const START: Nanos = 1_000 * SECOND;

fn address(number: u8) -> [u8; 6] {
    match number {
        BROADCAST => [0xff; 6],
        number => [2, 0, 0, 0, 0, number],
    }
}

fn frame(destination: u8, source: u8) -> Vec<u8> {
    [&address(destination)[..], &address(source), &[0x88, 0xb5, 1, 2]].concat()
}

/// An FDB, what one thread remembers of it, and two peers.
struct Scene {
    fdb: SharedFdb,
    switch: Switch,
    first: Far,
    second: Far,
    moves: Vec<Move>,
    _rig: Rig,
}

impl Scene {
    fn new() -> Scene {
        Scene::with(100, 50)
    }

    fn with(capacity: usize, addresses_per_peer: usize) -> Scene {
        let rig = Rig::new(|_| {});
        let settings =
            Settings { fdb_capacity: capacity, addresses_per_peer, ageing: AGEING, ..rig.shared().settings.clone() };
        Scene {
            fdb: SharedFdb::new(&settings, 1),
            switch: Switch::new(2),
            first: rig.join(1, Some(1)),
            second: rig.join(2, Some(2)),
            moves: Vec::new(),
            _rig: rig,
        }
    }

    fn tap_sends(&mut self, destination: u8, source: u8, now: Nanos) -> Decision {
        let octets = frame(destination, source);
        self.switch.decide(&self.fdb, Ingress::TAP, &octets, true, now, |station| self.moves.push(station))
    }

    fn first_sends(&mut self, destination: u8, source: u8, now: Nanos) -> Decision {
        let octets = frame(destination, source);
        let peer = self.first.peer.ingress();
        self.switch.decide(&self.fdb, peer, &octets, true, now, |station| self.moves.push(station))
    }

    fn second_sends(&mut self, destination: u8, source: u8, now: Nanos) -> Decision {
        let octets = frame(destination, source);
        let peer = self.second.peer.ingress();
        self.switch.decide(&self.fdb, peer, &octets, true, now, |station| self.moves.push(station))
    }
}

fn known(target: Target) -> Decision {
    Decision { kind: FrameKind::Unicast, target: Ok(target) }
}

const FLOODED: Decision = Decision { kind: FrameKind::UnknownUnicast, target: Ok(Target::Flood) };

#[test]
fn a_frame_is_flooded_until_its_station_was_heard() {
    let mut scene = Scene::new();
    assert_eq!(scene.tap_sends(11, 1, START), FLOODED);
    let broadcast = scene.first_sends(BROADCAST, 11, START);
    assert_eq!(broadcast, Decision { kind: FrameKind::Broadcast, target: Ok(Target::Flood) });
    assert_eq!(scene.tap_sends(11, 1, START), known(Target::Peer(scene.first.peer.port)));
    assert_eq!(scene.second_sends(11, 12, START), known(Target::Peer(scene.first.peer.port)));
    assert_eq!(scene.second_sends(1, 12, START), known(Target::Tap));
    assert_eq!(scene.first_sends(11, 13, START), known(Target::Nowhere), "both are behind the first peer");
    assert_eq!(scene.tap_sends(1, 2, START), known(Target::Nowhere));
    assert!(scene.moves.is_empty());
}

#[test]
fn peers_that_are_kept_apart_reach_the_tap_only() {
    let mut scene = Scene::new();
    scene.first_sends(BROADCAST, 11, START);
    let octets = frame(11, 12);
    let peer = scene.second.peer.ingress();
    let decision = scene.switch.decide(&scene.fdb, peer, &octets, false, START, |_| {});
    assert_eq!(decision, known(Target::Tap));
}

#[test]
fn a_station_that_moves_is_followed_by_every_thread_and_told() {
    let mut scene = Scene::new();
    let mut other = Switch::new(3);
    let mut elsewhere = |scene: &Scene, now| {
        let octets = frame(11, 1);
        other.decide(&scene.fdb, Ingress::TAP, &octets, true, now, |_| {})
    };
    scene.first_sends(BROADCAST, 11, START);
    assert_eq!(elsewhere(&scene, START), known(Target::Peer(scene.first.peer.port)));
    scene.second_sends(BROADCAST, 11, START + SECOND);
    let second = scene.second.peer.port;
    assert_eq!(elsewhere(&scene, START + SECOND), known(Target::Peer(second)), "what it remembered is void");
    assert_eq!(scene.tap_sends(11, 1, START + SECOND), known(Target::Peer(second)));
    let wanted =
        Move { station: Station::new(VLAN, Mac::new(address(11))), previous: scene.first.peer.port, current: second };
    assert_eq!(scene.moves, [wanted]);
}

#[test]
fn moves_are_told_a_few_times_a_second_and_all_are_followed() {
    let mut scene = Scene::new();
    for turn in 0..100 {
        let now = START + turn * SECOND / 1000;
        scene.first_sends(BROADCAST, 11, now);
        scene.second_sends(BROADCAST, 11, now);
    }
    assert_eq!(scene.moves.len(), MOVES_REPORTED_PER_SECOND as usize);
    assert_eq!(scene.fdb.figures().1.moved, 199);
    scene.first_sends(BROADCAST, 11, START + 2 * SECOND);
    assert_eq!(scene.moves.len(), MOVES_REPORTED_PER_SECOND as usize + 1);
}

#[test]
fn what_was_flushed_or_has_aged_is_flooded_again() {
    let mut scene = Scene::new();
    scene.first_sends(BROADCAST, 11, START);
    scene.second_sends(BROADCAST, 12, START);
    let (first, second) = (scene.first.peer.port, scene.second.peer.port);
    assert_eq!(scene.tap_sends(11, 1, START), known(Target::Peer(first)));
    assert_eq!((scene.fdb.count(first), scene.fdb.list(START).len()), (1, 3));
    scene.fdb.flush(first);
    assert_eq!(scene.tap_sends(11, 1, START), FLOODED);
    assert_eq!(scene.tap_sends(12, 1, START), known(Target::Peer(second)));
    let later = START + (AGEING as Nanos) * SECOND;
    assert_eq!(scene.tap_sends(12, 1, later - SECOND), known(Target::Peer(second)));
    assert_eq!(scene.tap_sends(12, 1, later + SECOND), FLOODED);
    scene.fdb.sweep(later + SECOND);
    assert_eq!(scene.fdb.figures().1.aged, 1);
}

#[test]
fn traffic_keeps_a_station_young_although_threads_remember_it() {
    let mut scene = Scene::new();
    let end = START + 3 * (AGEING as Nanos) * SECOND;
    let mut now = START;
    while now < end {
        scene.first_sends(1, 11, now);
        now += SECOND / 2;
    }
    assert_eq!(scene.tap_sends(11, 1, now), known(Target::Peer(scene.first.peer.port)));
}

#[test]
fn nothing_is_learned_of_a_peer_that_has_gone() {
    let mut scene = Scene::new();
    scene.first.peer.is_removed.store(true, Relaxed);
    scene.first_sends(BROADCAST, 11, START);
    assert_eq!(scene.fdb.figures().0, 0);
    assert_eq!(scene.tap_sends(11, 1, START), FLOODED);
}

#[test]
fn a_source_that_is_no_station_is_named_also_where_nothing_is_learned() {
    let mut scene = Scene::new();
    scene.first.peer.is_removed.store(true, Relaxed);
    for (source, reason) in [([0xff; 6], Reason::SourceMulticast), ([0; 6], Reason::ReservedAddress)] {
        let octets = [&address(1)[..], &source, &[0x88, 0xb5]].concat();
        let decision = scene.switch.decide(&scene.fdb, scene.first.peer.ingress(), &octets, true, START, |_| {});
        assert_eq!(decision.target, Err(reason));
    }
}

#[test]
fn bad_sources_and_full_tables_are_named() {
    let mut scene = Scene::with(4, 2);
    let octets = [&address(1)[..], &address(BROADCAST), &[0x88, 0xb5]].concat();
    let decision = scene.switch.decide(&scene.fdb, Ingress::TAP, &octets, true, START, |_| {});
    assert_eq!(decision.target, Err(Reason::SourceMulticast));
    let decision = scene.switch.decide(&scene.fdb, Ingress::TAP, &octets[..11], true, START, |_| {});
    assert_eq!(decision.target, Err(Reason::ShortFrame));
    for source in [11, 12] {
        assert!(scene.first_sends(BROADCAST, source, START).target.is_ok());
    }
    assert_eq!(scene.first_sends(BROADCAST, 13, START).target, Err(Reason::MacLimit));
    assert!(scene.second_sends(BROADCAST, 14, START).target.is_ok());
    assert_eq!(scene.tap_sends(14, 1, START), known(Target::Peer(scene.second.peer.port)));
    assert_eq!(scene.fdb.figures().0, scene.fdb.capacity());
    for _ in 0..2 {
        assert_eq!(
            scene.second_sends(11, 15, START),
            known(Target::Peer(scene.first.peer.port)),
            "unlearned, it goes on"
        );
        assert_eq!(scene.tap_sends(15, 1, START), FLOODED);
    }
    assert!(scene.first_sends(BROADCAST, 11, START).target.is_ok(), "who is known stays");
}
