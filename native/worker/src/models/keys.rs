//! Packet ids, key slots, and packets that came before their key.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::Arc;

use bridged_core::limits::MAX_PACKET_ID;
use bridged_core::packet::PacketRun;
use loom::thread::spawn;

use super::{join, key, model, origin, plane};
use crate::plane::DataPlane;
use crate::sync::AtomicBool;
use crate::tables::packet_ids::PacketIds;
use crate::transport::mixed_receiver::MixedReceiver;
use crate::transport::seam::{BatchReceiver, Transport};
use crate::wan_to_lan::opener::find;
use crate::wan_to_lan::scene::{Batch, WanScene};

/// Its peer 1 seals with key 0.
fn sealing_plane() -> Arc<DataPlane> {
    let plane = plane();
    join(&plane, 1, "192.0.2.7:1");
    plane.install_key(1, key(0)).unwrap();
    plane.use_key(1, 0).unwrap();
    plane
}

#[test]
fn none_overtakes_what_waited_for_its_key() {
    model(4, || {
        let plane = plane();
        join(&plane, 1, "192.0.2.7:1194");
        plane.expect_key(1, 1).unwrap();
        let reader = {
            let plane = Arc::clone(&plane);
            move || {
                let shared = plane.shared();
                let (table, link) = (shared.peers.table.load(), shared.transport.link(0));
                let scene = WanScene { shared, table: &table, link: &link, now: 1 };
                let mut receiver = MixedReceiver::new(0);
                let mut opened = Vec::new();
                for number in 1..=3 {
                    receiver.octets()[..5].copy_from_slice(&[9 << 3 | 1, 0, 0, 1, number]);
                    let batch = Batch { origin: origin("192.0.2.7:1194"), start: 0, run: PacketRun::of(5, 5) };
                    let Some((peer, _)) = find(&scene, &mut receiver, &batch, 0) else { continue };
                    if peer.early.has(1) {
                        opened.extend(peer.early.take(1).iter().map(|early| early.octets[4]));
                    }
                    opened.push(number);
                }
                opened
            }
        };
        let reading = spawn(reader);
        plane.install_key(1, key(1)).unwrap();
        let mut opened = reading.join().unwrap();
        for (peer, key_id) in plane.shared().released.take(0) {
            opened.extend(peer.early.take(key_id).iter().map(|early| early.octets[4]));
        }
        assert_eq!(opened, [1, 2, 3]);
    });
}

#[test]
fn no_packet_id_is_drawn_twice_nor_past_the_limit() {
    model(4, || {
        let ids = Arc::new(PacketIds::new());
        ids.set_next(u64::from(MAX_PACKET_ID) - 3);
        let draw = |count: usize| {
            let ids = Arc::clone(&ids);
            move || {
                let mut drawn = Vec::new();
                for _ in 0..2 {
                    let mut reserved = ids.reserve(count);
                    let before = (reserved.left(), drawn.len());
                    drawn.extend(std::iter::from_fn(|| reserved.take()));
                    assert_eq!(drawn.len() - before.1, before.0, "all that it says it has");
                }
                drawn
            }
        };
        let threads = [spawn(draw(1)), spawn(draw(2))];
        let mut drawn = draw(3)();
        for thread in threads {
            drawn.extend(thread.join().unwrap());
        }
        let all: Vec<u32> = (MAX_PACKET_ID - 3..=MAX_PACKET_ID).collect();
        drawn.sort_unstable();
        assert_eq!(drawn, all, "each once, and none above");
    });
}

#[test]
fn a_key_is_changed_and_every_nonce_is_used_once() {
    model(3, || {
        let plane = sealing_plane();
        let is_gone = Arc::new(AtomicBool::new(false));
        let seal = || {
            let (plane, is_gone) = (Arc::clone(&plane), Arc::clone(&is_gone));
            move || {
                let mut used = Vec::new();
                for _ in 0..2 {
                    let was_gone = is_gone.load(Acquire);
                    let table = plane.shared().peers.table.load_full();
                    let slot = table.get(1).unwrap().sealing.load_full().expect("there is always a key to seal with");
                    assert!(!(was_gone && slot.key_id == 0), "sealed with a key after it was removed");
                    let mut reserved = slot.reserve(1);
                    used.push((slot.key_id, reserved.take().unwrap()));
                }
                used
            }
        };
        let threads = [spawn(seal()), spawn(seal())];
        plane.install_key(1, key(1)).unwrap();
        plane.use_key(1, 1).unwrap();
        plane.remove_key(1, 0);
        is_gone.store(true, Release);
        let mut used = Vec::new();
        for thread in threads {
            used.extend(thread.join().unwrap());
        }
        let unique: BTreeSet<_> = used.iter().copied().collect();
        assert_eq!(unique.len(), used.len(), "a nonce was used twice: {used:?}");
        let table = plane.shared().peers.table.load_full();
        assert!(table.get(1).unwrap().key(0).is_none());
    });
}

#[test]
fn a_removed_key_seals_nothing_more() {
    model(3, || {
        let plane = sealing_plane();
        let is_gone = Arc::new(AtomicBool::new(false));
        let sealing = {
            let (plane, is_gone) = (Arc::clone(&plane), Arc::clone(&is_gone));
            spawn(move || {
                for _ in 0..2 {
                    let was_gone = is_gone.load(Acquire);
                    let table = plane.shared().peers.table.load_full();
                    let slot = table.get(1).unwrap().sealing.load_full();
                    assert!(!was_gone || slot.is_none());
                }
            })
        };
        plane.remove_key(1, 0);
        is_gone.store(true, Release);
        sealing.join().unwrap();
    });
}
