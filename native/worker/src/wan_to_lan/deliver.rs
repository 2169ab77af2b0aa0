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
use crate::control::counters::Reason;
use crate::lan_to_wan::forwarding::fit_of;
use crate::lan_to_wan::peer_batches::PeerBatcher;
use crate::shared::Shared;
use crate::tables::peers::Peer;
use crate::tables::stations::{Decision, Switch, Target};
use crate::threads::wan_thread;
use crate::transport::seam::Transport;
use crate::wan_to_lan::scene::WanScene;
use crate::wan_to_lan::tap_writer::{Frame, TapWriter};

/// See the module.
pub struct Delivery<T: Transport> {
    thread: usize,
    switch: Switch,
    to_tap: TapWriter,
    /// Frames for other peers.
    to_peers: PeerBatcher<T>,
}

impl<T: Transport> Delivery<T> {
    /// Of a worker; `seed` is random.
    pub fn new(worker: usize, seed: u64) -> Delivery<T> {
        let thread = wan_thread(worker);
        Delivery {
            thread,
            switch: Switch::new(seed),
            to_tap: TapWriter::new(worker, thread, seed),
            to_peers: PeerBatcher::new(thread),
        }
    }

    /// Write and send all that waits; it lies in `octets`.
    pub fn finish(&mut self, shared: &Shared<T>, link: &T::Link, octets: &mut [u8], now: Nanos) {
        self.to_tap.write(shared, octets);
        self.to_peers.flush_from(octets, &shared.send_context(link, now));
    }

    /// Find the destination of a peer's opened frames, which lie in `octets`.
    pub fn deliver(&mut self, scene: &WanScene<'_, T>, peer: &Arc<Peer<T>>, octets: &mut [u8], opened: &[Frame]) {
        let shared = scene.shared;
        let direction = peer.cells[self.thread].direction(Receive);
        let forwards = shared.settings.forward_between_peers;
        let mss_limit = shared.mss_limit.load(Relaxed);
        // The answering host's segments go out by the way this SYN came.
        let fit = if shared.settings.mss_fits_path { fit_of(peer) } else { usize::MAX };
        let largest = shared.adapter.largest_frame.load(Relaxed);
        let mut known: Option<([u8; 12], Decision)> = None;
        let mut counted: (FrameKind, u64, u64) = (FrameKind::Unicast, 0, 0);
        for &Frame { start, length } in opened {
            let frame = &mut octets[start..start + length];
            match classify(frame) {
                Payload::Frame if length <= largest || shared.adapter.carries(length, scene.now) => {}
                Payload::Frame => {
                    shared.counters.count_drops(Receive, Reason::LongFrame, 1, Some(&peer.drops));
                    continue;
                }
                Payload::Occ => {
                    report_occ(shared, peer, frame, scene.now);
                    continue;
                }
                Payload::Ping | Payload::Short => continue,
            }
            if mss_limit > 0 && clamp_mss(frame, mss_limit) {
                shared.counters.threads[self.thread].mss_clamped.add(1);
            }
            if fit != usize::MAX && clamp_mss_to_frame(frame, fit) {
                shared.counters.threads[self.thread].mss_clamped.add(1);
            }
            let Some(&addresses) = frame.first_chunk::<12>() else { continue };
            let decision = match known {
                Some((before, decision)) if before == addresses => decision,
                _ => {
                    let decision =
                        self.switch.decide(&shared.stations, peer.ingress(), frame, forwards, scene.now, |station| {
                            shared.report_move(station);
                        });
                    known = decision.target.is_ok().then_some((addresses, decision));
                    decision
                }
            };
            if decision.kind != counted.0 {
                direction.count(counted.0, counted.1, counted.2);
                counted = (decision.kind, 0, 0);
            }
            counted.1 += 1;
            counted.2 += length as u64;
            self.forward(scene, peer, octets, &decision, Frame { start, length });
        }
        direction.count(counted.0, counted.1, counted.2);
    }

    #[inline]
    fn forward(
        &mut self,
        scene: &WanScene<'_, T>,
        peer: &Arc<Peer<T>>,
        octets: &[u8],
        decision: &Decision,
        frame: Frame,
    ) {
        match decision.target {
            Ok(Target::Tap) => self.to_tap.push(frame),
            Ok(Target::Nowhere) => {}
            Ok(Target::Peer(port)) => match scene.table.at_port(port) {
                Some(other) => self.relay(scene, other, octets, decision.kind, frame),
                None => self.flood(scene, peer, octets, decision.kind, frame),
            },
            Ok(Target::Flood) => self.flood(scene, peer, octets, decision.kind, frame),
            Err(reason) => scene.shared.counters.count_drops(Receive, reason, 1, Some(&peer.drops)),
        }
    }

    fn flood(&mut self, scene: &WanScene<'_, T>, peer: &Arc<Peer<T>>, octets: &[u8], kind: FrameKind, frame: Frame) {
        self.to_tap.push(frame);
        if scene.shared.settings.forward_between_peers {
            for other in &scene.table.peers {
                if !Arc::ptr_eq(other, peer) {
                    self.relay(scene, other, octets, kind, frame);
                }
            }
        }
    }

    /// Queue a frame for another peer.
    fn relay(&mut self, scene: &WanScene<'_, T>, other: &Arc<Peer<T>>, octets: &[u8], kind: FrameKind, frame: Frame) {
        let shared = scene.shared;
        if !self.to_peers.has_room(frame.length) {
            self.to_peers.flush_from(octets, &shared.send_context(scene.link, scene.now));
        }
        let class = shared.settings.priority.dscp(&octets[frame.start..frame.start + frame.length]) << 2;
        self.to_peers.set_class(class);
        self.to_peers.place_from(other, kind, frame.start, frame.length);
    }
}

/// Hand up an OCC message, if it may be one and its peer does not send too many.
#[cold]
fn report_occ<T: Transport>(shared: &Shared<T>, peer: &Peer<T>, payload: &[u8], now: Nanos) {
    let refusal = match () {
        () if payload.len() > OCC_OCTETS => Reason::OccLength,
        () if !peer.may_send_occ(now) => Reason::OccRate,
        () => return shared.report(Event::OccReceived { handle: peer.handle, payload: payload.to_vec() }),
    };
    shared.counters.count_drops(Receive, refusal, 1, Some(&peer.drops));
}
