//! The shared structures under every interleaving of a few threads (loom, feature `model`): packet ids, key slots,
//! packets that came before their key, the table of peers, the FDB with what threads remember of it, the event queue.
//!
//! `cargo test -p bridged-worker --features model --lib models`. A thread yields at every atomic, lock and swap of
//! `sync.rs`; loom also reorders relaxed and acquire/release accesses as the memory model allows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::Arc;

use bridged_core::limits::MAX_PACKET_ID;
use bridged_core::packet::PacketRun;
use bridged_sys::address::Pin;
use bridged_sys::descriptor::{wait_readable, EventFd};
use loom::thread::spawn;
use zeroize::Zeroizing;

use crate::contract::{Cipher, Event, Framing, Key, KeyFormat, Mac, PeerSettings, Station};
use crate::control::events::EventQueue;
use crate::lan_to_wan::peer_batches::PeerBatcher;
use crate::plane::DataPlane;
use crate::settings::Settings;
use crate::sync::AtomicBool;
use crate::tables::packet_ids::PacketIds;
use crate::tables::stations::Ingress;
use crate::tables::switch::{Switch, Target};
use crate::test_rig::port_of;
use crate::transport::mixed_path::MixedOrigin;
use crate::transport::mixed_receiver::MixedReceiver;
use crate::transport::seam::{BatchReceiver, PeerPath, Transport};
use crate::wan_to_lan::opener::{find, follow};
use crate::wan_to_lan::scene::{Batch, WanScene};

const STATION: [u8; 6] = [2, 0, 0, 0, 0, 7];
const HOST: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// Every interleaving with up to `switches` preemptions.
fn model(switches: usize, scene: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(scene);
}

/// A data plane that has not started: its threads are those of the model. No socket, no route is asked for.
fn plane() -> Arc<DataPlane> {
    let descriptor = EventFd::new().unwrap();
    let tap = port_of(descriptor.as_raw_fd());
    let bind = Some("192.0.2.1:1194".parse().unwrap());
    let settings = Settings { wan_mtu: 1500, fdb_capacity: 16, ..Settings::new("model", tap, bind) };
    Arc::new(DataPlane::new(settings).unwrap())
}

fn join(plane: &DataPlane, handle: u64, endpoint: &str) {
    let peer = PeerSettings {
        handle,
        name: format!("peer-{handle}"),
        endpoint: endpoint.parse().unwrap(),
        receive_peer_id: Some(handle as u32),
        transmit_peer_id: Some(handle as u32),
        framing: Framing::None,
        fragment: 0,
        ping: None,
        ping_restart: None,
    };
    plane.add_peer(peer).unwrap();
}

fn key(key_id: u8) -> Key {
    Key {
        key_id,
        cipher: Cipher::ChaCha20Poly1305,
        format: KeyFormat::Aead,
        send_key: Zeroizing::new(vec![1; 32]),
        send_iv: Zeroizing::new([key_id; 8]),
        receive_key: Zeroizing::new(vec![2; 32]),
        receive_iv: Zeroizing::new([key_id; 8]),
    }
}

fn origin(source: &str) -> MixedOrigin {
    MixedOrigin { source: source.parse().unwrap(), pin: None }
}

fn frame(target: [u8; 6], source: [u8; 6]) -> Vec<u8> {
    [&target[..], &source[..], &[0x88, 0xb5]].concat()
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
        let plane = plane();
        join(&plane, 1, "192.0.2.7:1");
        plane.install_key(1, key(0)).unwrap();
        plane.use_key(1, 0).unwrap();
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
fn threads_that_send_to_the_same_peers_never_wait_in_a_circle() {
    model(3, || {
        let plane = plane();
        for handle in [1, 2] {
            join(&plane, handle, &format!("192.0.2.7:{handle}"));
            plane.install_key(handle, key(0)).unwrap();
            plane.use_key(handle, 0).unwrap();
        }
        let send = |cell: usize, order: [u64; 2]| {
            let plane = Arc::clone(&plane);
            move || {
                let table = plane.shared().peers.table.load_full();
                let mut batcher = PeerBatcher::new(cell);
                for handle in order {
                    batcher.place_copy(table.get(handle).unwrap(), None, &[0; 20]);
                }
                let link = plane.shared().transport.link(0);
                batcher.flush(&plane.shared().send_context(&link, 1));
            }
        };
        let threads = [spawn(send(0, [1, 2])), spawn(send(1, [2, 1]))];
        for thread in threads {
            thread.join().unwrap();
        }
        let table = plane.shared().peers.table.load_full();
        for handle in [1, 2] {
            let slot = table.get(handle).unwrap().key(0).unwrap();
            assert_eq!(slot.reserve(1).take(), Some(3), "each thread sealed one packet to each peer");
        }
    });
}

#[test]
fn a_removed_key_seals_nothing_more() {
    model(3, || {
        let plane = plane();
        join(&plane, 1, "192.0.2.7:1");
        plane.install_key(1, key(0)).unwrap();
        plane.use_key(1, 0).unwrap();
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

#[test]
fn what_a_thread_remembers_is_not_used_after_its_station_was_removed() {
    model(3, || {
        let plane = plane();
        join(&plane, 1, "192.0.2.7:1");
        let table = plane.shared().peers.table.load_full();
        let peer = Arc::clone(table.get(1).unwrap());
        Switch::new(1).decide(&plane.shared().stations, peer.ingress(), &frame(HOST, STATION), true, 1, |_| {});
        let is_removed = Arc::new(AtomicBool::new(false));
        let reader = {
            let (plane, is_removed) = (Arc::clone(&plane), Arc::clone(&is_removed));
            spawn(move || {
                let mut switch = Switch::new(2);
                for _ in 0..2 {
                    let was_removed = is_removed.load(Acquire);
                    let decision =
                        switch.decide(&plane.shared().stations, Ingress::TAP, &frame(STATION, HOST), true, 2, |_| {});
                    let target = decision.target.unwrap();
                    assert!(!was_removed || target == Target::Flood, "{target:?} was remembered beyond the removal");
                }
            })
        };
        plane.remove_station(Station::new(0, Mac::new(STATION)));
        is_removed.store(true, Release);
        reader.join().unwrap();
    });
}

#[test]
fn nothing_is_learned_of_a_removed_peer() {
    model(3, || {
        let plane = plane();
        join(&plane, 1, "192.0.2.7:1");
        let wire = {
            let plane = Arc::clone(&plane);
            spawn(move || {
                // As a wire thread does: the table of before the removal stays in use for a batch.
                let table = plane.shared().peers.table.load_full();
                let Ok(peer) = table.get(1) else { return };
                let mut switch = Switch::new(2);
                for _ in 0..2 {
                    switch.decide(&plane.shared().stations, peer.ingress(), &frame(HOST, STATION), true, 1, |_| {});
                }
                follow(plane.shared(), peer, &origin("192.0.2.8:2"), 1);
            })
        };
        plane.remove_peer(1).unwrap();
        wire.join().unwrap();
        assert_eq!(plane.shared().stations.figures().0, 0, "an address of a removed peer");
        let table = plane.shared().peers.table.load_full();
        for endpoint in ["192.0.2.7:1", "192.0.2.8:2"] {
            let found = plane.shared().peers.endpoints.at(&endpoint.parse().unwrap());
            assert!(found.is_none(), "a removed peer is found at {endpoint}");
        }
        assert!(table.find(1, &"192.0.2.8:2".parse().unwrap(), &plane.shared().peers.endpoints).is_none());
    });
}

#[test]
fn an_endpoint_has_one_holder_though_peers_float_and_come_at_once() {
    model(3, || {
        let plane = plane();
        join(&plane, 1, "192.0.2.7:1");
        join(&plane, 2, "192.0.2.7:2");
        let meeting = "192.0.2.8:3";
        let float = |handle: u64| {
            let plane = Arc::clone(&plane);
            move || {
                let table = plane.shared().peers.table.load_full();
                follow(plane.shared(), table.get(handle).unwrap(), &origin(meeting), 1)
            }
        };
        let threads = [spawn(float(1)), spawn(float(2))];
        join(&plane, 3, "192.0.2.9:4");
        let floated: Vec<bool> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(floated.iter().filter(|done| **done).count(), 1, "who comes second is refused");
        let holder = if floated[0] { 1 } else { 2 };
        let at = |endpoint: &str| plane.shared().peers.endpoints.at(&endpoint.parse().unwrap()).map(|peer| peer.handle);
        assert_eq!(at(meeting), Some(holder));
        assert_eq!(at("192.0.2.9:4"), Some(3));
        assert_eq!(at(&format!("192.0.2.7:{holder}")), None);
        let other = 3 - holder;
        assert_eq!(at(&format!("192.0.2.7:{other}")), Some(other));
    });
}

#[test]
fn every_event_comes_once_in_the_order_of_its_thread_and_the_descriptor_tells() {
    model(3, || {
        let queue = Arc::new(EventQueue::new(1).unwrap());
        let source = "192.0.2.7:1".parse().unwrap();
        let put = |first: u64| {
            let queue = Arc::clone(&queue);
            move || {
                assert!(queue.put(Event::PeerExpired { handle: first }));
                queue
                    .put_control(&[first as u8], source, 0, crate::control::control_queue::Sender::Peer(first))
                    .unwrap();
            }
        };
        let threads = [spawn(put(10)), spawn(put(20))];
        let mut taken = queue.take(1);
        taken.extend(queue.take(8));
        for thread in threads {
            thread.join().unwrap();
        }
        let left = queue.depths();
        let is_readable = wait_readable(&[queue.descriptor()], Some(0)) != 0;
        assert_eq!(is_readable, left != (0, 0), "{left:?} wait");
        taken.extend(queue.take(8));
        assert_eq!(queue.depths(), (0, 0));
        assert_eq!(wait_readable(&[queue.descriptor()], Some(0)), 0);
        for first in [10, 20u8] {
            let mine: Vec<&Event> = taken
                .iter()
                .filter(|event| match event {
                    Event::PeerExpired { handle } => *handle == u64::from(first),
                    Event::ControlReceived { datagram, .. } => datagram[0] == first,
                    _ => panic!("{event:?}"),
                })
                .collect();
            assert!(matches!(mine[..], [Event::PeerExpired { .. }, Event::ControlReceived { .. }]), "{taken:?}");
        }
    });
}

#[test]
fn what_is_told_once_is_heard_after_it_happened_whoever_reads_meanwhile() {
    model(3, || {
        let queue = Arc::new(EventQueue::new(1).unwrap());
        let expire = || {
            let queue = Arc::clone(&queue);
            move || assert!(queue.put(Event::PeerExpired { handle: 7 }))
        };
        let threads = [spawn(expire()), spawn(expire())];
        let before = queue.take(8).len();
        for thread in threads {
            thread.join().unwrap();
        }
        let is_readable = wait_readable(&[queue.descriptor()], Some(0)) != 0;
        let after = queue.take(8).len();
        assert_eq!(is_readable, after > 0);
        assert!((1..=2).contains(&(before + after)) && after <= 1, "{before} and {after}");
    });
}

#[test]
fn an_answer_goes_to_where_the_peer_is_though_its_local_address_changes_at_once() {
    model(3, || {
        let plane = plane();
        join(&plane, 1, "192.0.2.7:1");
        let peer = Arc::clone(plane.shared().peers.table.load_full().get(1).unwrap());
        let repin = {
            let (plane, peer) = (Arc::clone(&plane), Arc::clone(&peer));
            spawn(move || {
                let pin = Some(Pin::V4([192, 0, 2, 1]));
                let path = peer.path.load_full();
                plane.shared().transport.answer_along(&peer.path, &path, &MixedOrigin { pin, ..origin("192.0.2.7:1") });
            })
        };
        assert!(follow(plane.shared(), &peer, &origin("192.0.2.8:2"), 1));
        repin.join().unwrap();
        assert_eq!(peer.path.load().endpoint(), "192.0.2.8:2".parse().unwrap());
    });
}

#[test]
fn a_tap_that_vanished_is_told_once() {
    model(3, || {
        let plane = plane();
        let gone = plane.shared().adapter.tap.load_full().unwrap();
        let lose = || {
            let (plane, gone) = (Arc::clone(&plane), Arc::clone(&gone));
            move || plane.shared().detach_lost_tap(&gone, 19)
        };
        let threads = [spawn(lose()), spawn(lose())];
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(plane.poll_events(9), [Event::TapFailed { number: 19 }]);
        assert!(plane.shared().adapter.tap.load_full().is_none());
    });
}
