//! Finds the peers of a frame from the TAP and queues it for them, cut to fit each one's path.
//!
//! Source: docs/protocol/data.md#5-1 and #5-4.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::layout::BLOCK_OCTETS;
use bridged_core::mss::{clamp_mss, clamp_mss_to_frame, is_syn};
use bridged_core::segment::{complete_checksum, SuperFrame};
use bridged_core::stats::FrameKind;
use bridged_core::vnet::VnetHeader;
use bridged_sys::memory::resident;

use crate::contract::Direction::Transmit;
use crate::control::counters::{Count, Reason};
use crate::lan_to_wan::peer_batches::PeerBatcher;
use crate::lan_to_wan::scene::Scene;
use crate::lan_to_wan::too_big::{fit_of, fit_of_segments, is_too_big, place_fitting, TooBig, SMALL_OCTETS};
use crate::policy::from_lan::{admit, LanPolicy};
use crate::tables::peers::Peer;
use crate::tables::switch::Target;
use crate::tap::SUPER_FRAME_OCTETS;
use crate::transport::seam::Transport;

/// Send at once when this many bytes wait.
pub const FLUSH_OCTETS: usize = 64_000;

/// See the module. Plain frames are expected in the write slot of `batcher`.
pub struct Forwarding<T: Transport> {
    thread: usize,
    policy: LanPolicy,
    pub batcher: PeerBatcher<T>,
    /// A copy of the frame for peers that do not have it yet.
    spare: Box<[u8]>,
    too_big: TooBig,
}

impl<T: Transport> Forwarding<T> {
    /// For a thread; `seed` is random.
    pub fn new(thread: usize, seed: u64) -> Forwarding<T> {
        Forwarding {
            thread,
            policy: LanPolicy::new(seed),
            batcher: PeerBatcher::new(thread),
            spare: resident(SUPER_FRAME_OCTETS),
            too_big: TooBig::new(thread, seed),
        }
    }

    /// Forward the frame of `length` bytes in the batcher's write slot.
    pub fn forward_plain(&mut self, scene: &Scene<'_, T>, vnet: &VnetHeader, length: usize) {
        let shared = scene.shared;
        let frame = &mut self.batcher.write_slot(0)[..length];
        if vnet.needs_checksum() && complete_checksum(vnet, frame).is_err() {
            shared.counters.count_drops(Transmit, Reason::BadLength, 1, None);
            return;
        }
        // Behind the checksum, which a virtual machine may have put anywhere.
        let (kind, target) = match self.policy.judge(shared, frame, scene.send.now) {
            Ok(found) => found,
            Err(reason) => {
                shared.counters.count_drops(Transmit, reason, 1, None);
                return;
            }
        };
        let mss_limit = shared.mss_limit.load(Relaxed);
        if mss_limit > 0 && clamp_mss(frame, mss_limit) {
            shared.counters.threads[self.thread].count(Count::MssClamped, 1);
        }
        if shared.settings.mss_fits_path {
            self.fit_mss(scene, target, length);
        }
        match target {
            Target::Nowhere | Target::Tap => {}
            Target::Peer(port) => match scene.table.at_port(port) {
                Some(peer) if fits(length, peer) => self.batcher.place(peer, Some(kind), length),
                Some(peer) => self.cut_plain(scene, std::slice::from_ref(peer), kind, length),
                None => self.flood_plain(scene, kind, length),
            },
            Target::Flood => self.flood_plain(scene, kind, length),
        }
    }

    /// Lower the MSS of a SYN in the write slot to what one packet to each of its targets carries.
    fn fit_mss(&mut self, scene: &Scene<'_, T>, target: Target, length: usize) {
        let frame = &mut self.batcher.write_slot(0)[..length];
        if !is_syn(frame) {
            return;
        }
        let one = match target {
            Target::Peer(port) => scene.table.at_port(port),
            _ => None,
        };
        let peers = one.map_or(&scene.table.peers[..], std::slice::from_ref);
        let fit = peers.iter().map(|peer| fit_of_segments(peer)).min().unwrap_or(usize::MAX);
        if clamp_mss_to_frame(frame, fit) {
            scene.shared.counters.threads[self.thread].count(Count::MssClamped, 1);
        }
    }

    fn flood_plain(&mut self, scene: &Scene<'_, T>, kind: FrameKind, length: usize) {
        let peers = &scene.table.peers;
        if peers.is_empty() {
            // Without peers there is no destination.
            scene.shared.counters.count_drops(Transmit, Reason::NoPeer, 1, None);
        } else if peers.iter().all(|peer| fits(length, peer)) {
            self.batcher.flood(peers, kind, length, &scene.send);
        } else {
            self.cut_plain(scene, peers, kind, length);
        }
    }

    /// The frame in the write slot is too large for some path: cut it for those if it is TCP or IPv4 that can be cut,
    /// or answer it.
    fn cut_plain(&mut self, scene: &Scene<'_, T>, peers: &[Arc<Peer<T>>], kind: FrameKind, length: usize) {
        self.spare[..length].copy_from_slice(&self.batcher.write_slot(0)[..length]);
        let frame = &self.spare[..length];
        let segment = SuperFrame::of_segment(frame);
        // Where several peers may have the station, nobody knows whose path counts.
        if let (None, [peer]) = (&segment, peers) {
            if self.too_big.refuses_of_lan(scene.shared, peer, frame, 1, scene.send.now) {
                return;
            }
        }
        for peer in peers {
            match &segment {
                Some(segment) if !fits(length, peer) => {
                    place_cut(&mut self.batcher, self.thread, scene, segment, length, peer, kind, 0);
                }
                _ => {
                    let flush = |batcher: &mut PeerBatcher<T>| batcher.flush(&scene.send);
                    place_fitting(&mut self.batcher, scene.shared, self.thread, peer, kind, frame, flush);
                }
            }
        }
    }

    /// Forward a super-frame from another buffer.
    pub fn forward_super(&mut self, scene: &Scene<'_, T>, vnet: &VnetHeader, frame: &[u8]) {
        let Scene { shared, table, .. } = *scene;
        if let Err(reason) = admit(frame) {
            return shared.counters.count_drops(Transmit, reason, 1, None);
        }
        let Ok(parsed) = SuperFrame::parse(vnet, frame) else {
            shared.counters.count_drops(Transmit, Reason::BadLength, 1, None);
            return;
        };
        let count = parsed.cut(0).count as u64;
        let (kind, target) = match self.policy.judge(shared, frame, scene.send.now) {
            Ok(found) => found,
            Err(reason) => {
                shared.counters.count_drops(Transmit, reason, count, None);
                return;
            }
        };
        let peers = match target {
            Target::Nowhere | Target::Tap => return,
            Target::Peer(port) => table.at_port(port).map_or(&table.peers[..], std::slice::from_ref),
            Target::Flood => &table.peers,
        };
        if peers.is_empty() {
            shared.counters.count_drops(Transmit, Reason::NoPeer, count, None);
        }
        let refused = match peers {
            [peer] if shared.settings.answer_too_big => {
                self.too_big.refuses_of_super(shared, peer, &parsed, &mut self.spare, scene.send.now)
            }
            _ => 0,
        };
        for peer in peers {
            if is_too_big(shared, peer, parsed.cut(fit_of(peer)).first_len) {
                self.place_datagrams(scene, &parsed, peer, kind, refused);
            } else {
                place_cut(&mut self.batcher, self.thread, scene, &parsed, frame.len(), peer, kind, refused);
            }
        }
    }

    /// Queue the datagrams of a super-frame but for the first `refused`; they are too large for the peer's path.
    #[cold]
    fn place_datagrams(
        &mut self,
        scene: &Scene<'_, T>,
        parsed: &SuperFrame<'_>,
        peer: &Arc<Peer<T>>,
        kind: FrameKind,
        refused: usize,
    ) {
        let cut = parsed.cut(fit_of(peer));
        for index in refused..cut.count {
            let written = parsed.write(&cut, index, &mut self.spare);
            let flush = |batcher: &mut PeerBatcher<T>| batcher.flush(&scene.send);
            let frame = &self.spare[..written];
            place_fitting(&mut self.batcher, scene.shared, self.thread, peer, kind, frame, flush);
        }
    }
}

/// Cut a frame of `octets` to fit the peer's path, and queue the parts but for the first `refused`.
#[allow(clippy::too_many_arguments, reason = "one call, for frames and super-frames")]
fn place_cut<T: Transport>(
    batcher: &mut PeerBatcher<T>,
    thread: usize,
    scene: &Scene<'_, T>,
    parsed: &SuperFrame<'_>,
    octets: usize,
    peer: &Arc<Peer<T>>,
    kind: FrameKind,
    refused: usize,
) {
    let fit = fit_of(peer);
    let mut cut = parsed.cut(if fit == usize::MAX { 0 } else { fit });
    if cut.payload < parsed.cut(0).payload {
        scene.shared.counters.threads[thread].count(Count::MssFitted, 1);
        // As many segments, of about equal size: a small last one would cost as much as a full one.
        let payload = octets - parsed.header_len();
        let even = parsed.header_len() + payload.div_ceil(cut.count);
        cut = parsed.cut(peer.whole_blocks(even + BLOCK_OCTETS - 1).clamp(even, fit));
    }
    for index in refused..cut.count {
        if !batcher.has_room(cut.first_len) || batcher.octets() >= FLUSH_OCTETS * 2 {
            batcher.flush_full(&scene.send);
        }
        let written = parsed.write(&cut, index, batcher.room_for(peer));
        if written == 0 {
            scene.shared.counters.count_drops(Transmit, Reason::BadLength, 1, Some(&peer.drops));
        } else {
            batcher.place_written(kind, written);
        }
    }
}

/// Whether a frame goes to the peer in one piece.
#[inline]
fn fits<T: Transport>(length: usize, peer: &Peer<T>) -> bool {
    length <= SMALL_OCTETS || length <= fit_of(peer)
}
