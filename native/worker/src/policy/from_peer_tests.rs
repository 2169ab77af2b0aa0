use bridged_core::fdb::{Station, TAP_PORT};
use bridged_core::headers::Mac;
use bridged_core::stats::FrameKind;
use bridged_sys::thread::now;

use super::*;
use crate::tables::peers::OCC_BURST;
use crate::tables::switch::Target;
use crate::test_rig::Rig;

const STATION: [u8; 6] = [2, 0, 0, 0, 0, 7];

fn frame(octets: usize) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &STATION, &[0x88, 0xb5]].concat();
    frame.resize(octets, 0);
    frame
}

fn flooded() -> Result<Decision, Reason> {
    Ok(Decision { kind: FrameKind::Broadcast, target: Ok(Target::Flood) })
}

fn refused(reason: Reason) -> Result<Decision, Reason> {
    Ok(Decision { kind: FrameKind::Broadcast, target: Err(reason) })
}

#[test]
fn neighbours_share_a_decision_for_one_batch() {
    let rig = Rig::new(|_| {});
    let (far, shared) = (rig.join(1, Some(1)), rig.shared());
    let mut policy = PeerPolicy::new(1);
    let mut batch = policy.batch(shared, &far.peer, now());
    assert_eq!(batch.judge(&frame(60)), flooded());
    shared.stations.install(Station::new(0, Mac::new(STATION)), TAP_PORT, now(), true);
    assert_eq!(batch.judge(&frame(90)), flooded());
    assert_eq!(policy.batch(shared, &far.peer, now()).judge(&frame(60)), refused(Reason::LoopGuard));
}

#[test]
fn a_refusal_is_asked_for_again() {
    let rig = Rig::new(|_| {});
    let (far, shared) = (rig.join(1, Some(1)), rig.shared());
    let station = Station::new(0, Mac::new(STATION));
    shared.stations.install(station, TAP_PORT, now(), true);
    let mut policy = PeerPolicy::new(1);
    let mut batch = policy.batch(shared, &far.peer, now());
    assert_eq!(batch.judge(&frame(60)), refused(Reason::LoopGuard));
    shared.stations.remove(station);
    assert_eq!(batch.judge(&frame(60)), flooded());
}

#[test]
fn what_the_tap_does_not_carry_is_refused_and_not_learned() {
    let rig = Rig::new(|_| {});
    let (far, shared) = (rig.join(1, Some(1)), rig.shared());
    let mut policy = PeerPolicy::new(1);
    let mut batch = policy.batch(shared, &far.peer, now());
    assert_eq!(batch.judge(&frame(1500 + 22 + 1)), Err(Reason::LongFrame));
    assert_eq!(shared.stations.figures().0, 0);
    assert_eq!(batch.judge(&frame(1500 + 22)), flooded());
}

#[test]
fn occ_is_bounded_in_length_and_in_rate() {
    let rig = Rig::new(|_| {});
    let far = rig.join(1, Some(1));
    let now = now();
    assert_eq!(admit_occ(&far.peer, &[0; OCC_OCTETS + 1], now), Err(Reason::OccLength));
    let admitted = (0..100).filter(|_| admit_occ(&far.peer, &[0; 17], now).is_ok()).count();
    assert_eq!((admitted, admit_occ(&far.peer, &[0; 17], now)), (OCC_BURST as usize, Err(Reason::OccRate)));
}
