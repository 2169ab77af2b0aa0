//! An opened frame finds its destination: the TAP, other peers, or both.
//!
//! Source: docs/protocol/data.md#6-1, #6-3.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::mss::{clamp_mss, clamp_mss_to_frame};
use bridged_core::packet::{classify, Payload};
use bridged_core::stats::FrameKind;
use bridged_core::Nanos;

use crate::contract::Direction::Receive;
use crate::contract::{Event, OCC_OCTETS};
use crate::control::counters::{Count, ThreadCells};
use crate::lan_to_wan::peer_batches::PeerBatcher;
use crate::lan_to_wan::too_big::{fit_of_segments, is_too_big, place_fitting, TooBig};
use crate::policy::from_peer::{admit_occ, PeerPolicy};
use crate::shared::Shared;
use crate::tables::peers::Peer;
use crate::tables::switch::{Decision, Target};
use crate::threads::wan_thread;
use crate::transport::seam::Transport;
use crate::wan_to_lan::scene::WanScene;
use crate::wan_to_lan::tap_writer::{Frame, TapWriter};

/// See the module.
pub struct Delivery<T: Transport> {
    thread: usize,
    policy: PeerPolicy,
    outlets: Outlets<T>,
}

/// Where frames leave to.
struct Outlets<T: Transport> {
    thread: usize,
    to_tap: TapWriter,
    to_peers: PeerBatcher<T>,
    too_big: TooBig,
}

impl<T: Transport> Delivery<T> {
    /// Of a worker; `seed` is random.
    pub fn new(worker: usize, seed: u64) -> Delivery<T> {
        let thread = wan_thread(worker);
        Delivery {
            thread,
            policy: PeerPolicy::new(seed),
            outlets: Outlets {
                thread,
                to_tap: TapWriter::new(worker, thread, seed),
                to_peers: PeerBatcher::new(thread),
                too_big: TooBig::new(thread, seed),
            },
        }
    }

    /// Write and send all that waits; it lies in `octets`.
    pub fn finish(&mut self, shared: &Shared<T>, link: &T::Link, octets: &mut [u8], now: Nanos) {
        self.outlets.to_tap.write(shared, octets);
        self.outlets.to_peers.flush_from(octets, &shared.send_context(link, now));
    }

    /// Find the destination of a peer's opened frames, which lie in `octets`.
    pub fn deliver(&mut self, scene: &WanScene<'_, T>, peer: &Arc<Peer<T>>, octets: &mut [u8], opened: &[Frame]) {
        let shared = scene.shared;
        let direction = peer.cells[self.thread].direction(Receive);
        let clamp = MssClamp::for_frames_from(shared, peer);
        let mut policy = self.policy.batch(shared, peer, scene.now);
        let mut counted: (FrameKind, u64, u64) = (FrameKind::Unicast, 0, 0);
        for &Frame { start, length } in opened {
            let frame = &mut octets[start..start + length];
            match classify(frame) {
                Payload::Frame => {}
                Payload::Occ => {
                    report_occ(shared, peer, frame, scene.now);
                    continue;
                }
                Payload::Ping | Payload::Short => continue,
            }
            let decision = match policy.judge(frame) {
                Ok(decision) => decision,
                Err(reason) => {
                    shared.counters.count_drops(Receive, reason, 1, Some(&peer.drops));
                    continue;
                }
            };
            clamp.apply(frame, &shared.counters.threads[self.thread]);
            if decision.kind != counted.0 {
                direction.count(counted.0, counted.1, counted.2);
                counted = (decision.kind, 0, 0);
            }
            counted.1 += 1;
            counted.2 += length as u64;
            self.outlets.forward(scene, peer, octets, &decision, Frame { start, length });
        }
        direction.count(counted.0, counted.1, counted.2);
    }
}

/// What SYN segments of one batch are clamped to.
struct MssClamp {
    /// The largest MSS for IPv4; 0: no limit.
    limit: u16,
    /// Bytes of the largest frame that the peer's path bears; `usize::MAX`: not known, or not asked for.
    fit: usize,
}

impl MssClamp {
    fn for_frames_from<T: Transport>(shared: &Shared<T>, peer: &Peer<T>) -> MssClamp {
        // The answering host's segments take the path that this SYN came by.
        let fit = if shared.settings.mss_fits_path { fit_of_segments(peer) } else { usize::MAX };
        MssClamp { limit: shared.mss_limit.load(Relaxed), fit }
    }

    #[inline]
    fn apply(&self, frame: &mut [u8], counters: &ThreadCells) {
        if self.limit > 0 && clamp_mss(frame, self.limit) {
            counters.count(Count::MssClamped, 1);
        }
        if self.fit != usize::MAX && clamp_mss_to_frame(frame, self.fit) {
            counters.count(Count::MssClamped, 1);
        }
    }
}

impl<T: Transport> Outlets<T> {
    #[inline]
    fn forward(
        &mut self,
        scene: &WanScene<'_, T>,
        peer: &Arc<Peer<T>>,
        octets: &mut [u8],
        decision: &Decision,
        frame: Frame,
    ) {
        match decision.target {
            Ok(Target::Tap) => self.to_tap.push(frame),
            Ok(Target::Nowhere) => {}
            Ok(Target::Peer(port)) => match scene.table.at_port(port) {
                Some(other) => {
                    if !self.refuses(scene, peer, other, octets, frame) {
                        self.relay(scene, other, octets, decision.kind, frame);
                    }
                }
                None => self.flood(scene, peer, octets, decision.kind, frame),
            },
            Ok(Target::Flood) => self.flood(scene, peer, octets, decision.kind, frame),
            Err(reason) => scene.shared.counters.count_drops(Receive, reason, 1, Some(&peer.drops)),
        }
    }

    fn flood(
        &mut self,
        scene: &WanScene<'_, T>,
        peer: &Arc<Peer<T>>,
        octets: &mut [u8],
        kind: FrameKind,
        frame: Frame,
    ) {
        self.to_tap.push(frame);
        if scene.shared.settings.forward_between_peers {
            for other in &scene.table.peers {
                if !Arc::ptr_eq(other, peer) {
                    self.relay(scene, other, octets, kind, frame);
                }
            }
        }
    }

    /// Whether a frame for another peer was too large for its path and must not be cut: the peer that it came from
    /// gets the answer.
    #[inline]
    fn refuses(
        &mut self,
        scene: &WanScene<'_, T>,
        peer: &Arc<Peer<T>>,
        other: &Arc<Peer<T>>,
        octets: &mut [u8],
        frame: Frame,
    ) -> bool {
        let shared = scene.shared;
        if !is_too_big(shared, other, frame.length) {
            return false;
        }
        self.make_room(scene, octets, frame.length);
        let (to_peers, frame) = (&mut self.to_peers, &octets[frame.start..frame.start + frame.length]);
        self.too_big.refuses(shared, other, frame, 1, scene.now, |answer| {
            to_peers.set_class(0);
            to_peers.place_copy(peer, Some(FrameKind::Unicast), answer);
            true
        })
    }

    /// Send what waits for other peers if a frame of so many bytes has no room beside it.
    #[inline]
    fn make_room(&mut self, scene: &WanScene<'_, T>, octets: &mut [u8], length: usize) {
        if !self.to_peers.has_room(length) {
            self.to_peers.flush_from(octets, &scene.shared.send_context(scene.link, scene.now));
        }
    }

    /// Queue a frame for another peer.
    fn relay(
        &mut self,
        scene: &WanScene<'_, T>,
        other: &Arc<Peer<T>>,
        octets: &mut [u8],
        kind: FrameKind,
        frame: Frame,
    ) {
        let shared = scene.shared;
        self.make_room(scene, octets, frame.length);
        let class = shared.settings.priority.dscp(&octets[frame.start..frame.start + frame.length]) << 2;
        self.to_peers.set_class(class);
        if is_too_big(shared, other, frame.length) {
            return self.relay_large(scene, other, octets, kind, frame);
        }
        if self.to_peers.is_cut(other, frame.length) {
            self.to_peers.place_copy(other, Some(kind), &octets[frame.start..frame.start + frame.length]);
        } else {
            self.to_peers.place_from(other, kind, frame.start, frame.length);
        }
    }

    /// The same for one that is too large for the other peer's path.
    #[cold]
    fn relay_large(
        &mut self,
        scene: &WanScene<'_, T>,
        other: &Arc<Peer<T>>,
        octets: &mut [u8],
        kind: FrameKind,
        frame: Frame,
    ) {
        let shared = scene.shared;
        // Others that wait lie in `octets`, which sealing needs.
        let copy = octets[frame.start..frame.start + frame.length].to_vec();
        let context = shared.send_context(scene.link, scene.now);
        let flush = |batcher: &mut PeerBatcher<T>| batcher.flush_from(octets, &context);
        place_fitting(&mut self.to_peers, shared, self.thread, other, kind, &copy, flush);
    }
}

/// Hand up an OCC message.
#[cold]
fn report_occ<T: Transport>(shared: &Shared<T>, peer: &Peer<T>, payload: &[u8], now: Nanos) {
    match admit_occ(peer, payload, now) {
        Ok(()) => {
            let (kept, left_out) = payload.split_at(payload.len().min(OCC_OCTETS));
            let event = Event::OccReceived { handle: peer.handle, payload: kept.to_vec(), left_out: left_out.len() };
            shared.report(event);
        }
        Err(reason) => shared.counters.count_drops(Receive, reason, 1, Some(&peer.drops)),
    }
}
