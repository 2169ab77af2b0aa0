//! Frames on their way to peers: collected in one buffer, and sealed there in place.
//!
//! Source: docs/protocol/data.md, section 2.1.
//! Packets lie end to end, so that equal ones of one peer are a UDP_SEGMENT run as they are. Packet ids are taken, and packets
//! sent, with the peer's turn held: they leave in order whichever thread sends (OpenVPN's replay window has 64 places).

use std::sync::Arc;

use bridged_core::packet::{DataHeader, OVERHEAD_V1, OVERHEAD_V2};
use bridged_core::stats::FrameKind;
use bridged_core::Nanos;
use bridged_sys::udp::UdpSocket;

use crate::contract::{Direction, Event};
use crate::counters::Reason;
use crate::dispatch::{most_segments, segment_limit, together, Dispatch, Packet};
use crate::peers::{Path, Peer};
use crate::shared::Shared;
use crate::sync::lock;

/// Octets of the buffer.
const ARENA_OCTETS: usize = 256 * 1024;

/// Consecutive packets to one peer.
#[derive(Debug)]
struct Run {
    peer: Arc<Peer>,
    peer_id: Option<u32>,
    kind: Option<FrameKind>,
    first: usize,
    count: usize,
}

/// See the module. `cell`: its owner's place among those who count.
pub struct Outbox {
    cell: usize,
    arena: Box<[u8]>,
    used: usize,
    packets: Vec<Packet>,
    runs: Vec<Run>,
    dispatch: Dispatch,
}

impl Outbox {
    /// An empty one.
    pub fn new(cell: usize) -> Outbox {
        Outbox {
            cell,
            arena: vec![0; ARENA_OCTETS].into_boxed_slice(),
            used: 0,
            packets: Vec::with_capacity(2048),
            runs: Vec::with_capacity(64),
            dispatch: Dispatch::new(cell),
        }
    }

    /// Octets that wait.
    #[inline]
    pub fn octets(&self) -> usize {
        self.used
    }

    /// Nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether a frame of so many octets still fits.
    #[inline]
    pub fn has_room(&self, frame: usize) -> bool {
        self.used + OVERHEAD_V2 + frame <= self.arena.len()
    }

    /// Where the next frame is to be put, with `before` octets in front of it (at most 24).
    #[inline]
    pub fn landing(&mut self, before: usize) -> &mut [u8] {
        let at = (self.used + OVERHEAD_V2 - before).min(self.arena.len());
        &mut self.arena[at..]
    }

    /// Queue the frame that was put at `landing` for a peer. `kind` None: it is no frame, and not counted as one.
    #[inline]
    pub fn place(&mut self, peer: &Arc<Peer>, kind: Option<FrameKind>, length: usize) {
        let peer_id = self.begin(peer, kind);
        let landed = self.used + OVERHEAD_V2;
        let overhead = overhead(peer_id);
        if overhead != OVERHEAD_V2 {
            self.arena.copy_within(landed..landed + length, self.used + overhead);
        }
        self.finish(overhead + length);
    }

    /// Queue a frame that lies elsewhere, as far as it fits (ask `has_room` before).
    #[inline]
    pub fn place_copy(&mut self, peer: &Arc<Peer>, kind: Option<FrameKind>, frame: &[u8]) {
        let overhead = overhead(self.begin(peer, kind));
        let at = self.used + overhead;
        let Some(room) = self.arena.get_mut(at..at + frame.len()) else { return };
        room.copy_from_slice(frame);
        self.finish(overhead + frame.len());
    }

    /// Queue the payload of the newest packet for another peer as well.
    pub fn place_again(&mut self, peer: &Arc<Peer>, kind: Option<FrameKind>, length: usize) {
        let Some(newest) = self.packets.last() else { return };
        let end = newest.start + newest.length;
        let overhead = overhead(self.begin(peer, kind));
        self.arena.copy_within(end - length..end, self.used + overhead);
        self.finish(overhead + length);
    }

    /// The last `length` octets of what was queued last.
    pub fn newest_payload(&self, length: usize) -> &[u8] {
        &self.arena[self.used - length..self.used]
    }

    /// Where a frame to this peer is to be written, for `place_written`.
    #[inline]
    pub fn room_for(&mut self, peer: &Arc<Peer>, kind: FrameKind) -> &mut [u8] {
        let at = self.used + overhead(self.begin(peer, Some(kind)));
        &mut self.arena[at..]
    }

    /// Queue the frame that was written to `room_for` this peer.
    #[inline]
    pub fn place_written(&mut self, length: usize) {
        let peer_id = self.runs.last().and_then(|run| run.peer_id);
        self.finish(overhead(peer_id) + length);
    }

    #[inline]
    fn begin(&mut self, peer: &Arc<Peer>, kind: Option<FrameKind>) -> Option<u32> {
        if let Some(run) = self.runs.last() {
            if Arc::ptr_eq(&run.peer, peer) && run.kind == kind {
                return run.peer_id;
            }
        }
        let peer_id = peer.header(0).peer_id;
        self.runs.push(Run { peer: Arc::clone(peer), peer_id, kind, first: self.packets.len(), count: 0 });
        peer_id
    }

    #[inline]
    fn finish(&mut self, length: usize) {
        self.packets.push(Packet { start: self.used, length });
        self.used += length;
        if let Some(run) = self.runs.last_mut() {
            run.count += 1;
        }
    }

    /// Seal and send all that waits.
    pub fn flush(&mut self, shared: &Shared, socket: Option<&UdpSocket>, now: Nanos) {
        self.send_runs(shared, socket, now);
        self.packets.clear();
        self.used = 0;
    }

    /// As [`flush`](Self::flush), but keep a last part that more of the same can make a larger send: for one who looks for more
    /// at once.
    pub fn flush_full(&mut self, shared: &Shared, socket: Option<&UdpSocket>, now: Nanos) {
        let Some(last) = self.runs.last() else { return };
        let kept = self.open_end(last, shared, socket);
        if kept == 0 {
            return self.flush(shared, socket, now);
        }
        let (peer, peer_id, kind) = (Arc::clone(&last.peer), last.peer_id, last.kind);
        let first = self.packets.len() - kept;
        if let Some(last) = self.runs.last_mut() {
            last.count -= kept;
        }
        self.send_runs(shared, socket, now);
        let start = self.packets[first].start;
        self.arena.copy_within(start..self.used, 0);
        self.used -= start;
        self.packets.drain(..first);
        for packet in &mut self.packets {
            packet.start -= start;
        }
        self.runs.push(Run { peer, peer_id, kind, first: 0, count: kept });
    }

    /// Packets at the end of a run that are less than one send could take.
    fn open_end(&self, run: &Run, shared: &Shared, socket: Option<&UdpSocket>) -> usize {
        let Some(socket) = socket else { return 0 };
        let limit = segment_limit(shared, &run.peer.path.load(), socket);
        let packets = &self.packets[run.first..run.first + run.count];
        let mut at = 0;
        while at < packets.len() {
            let end = at + together(&packets[at..], limit);
            let size = packets[at].length;
            let is_open = end == packets.len() && packets[end - 1].length == size && end - at < most_segments(size);
            if is_open && size <= limit {
                return end - at;
            }
            at = end;
        }
        0
    }

    /// Send one datagram as it is.
    ///
    /// # Errors
    /// The drop reason.
    pub fn send_plain(
        &mut self,
        shared: &Shared,
        socket: Option<&UdpSocket>,
        datagram: &[u8],
        path: &Path,
    ) -> Result<(), Reason> {
        self.dispatch.send_plain(shared, socket, datagram, path)
    }

    fn send_runs(&mut self, shared: &Shared, socket: Option<&UdpSocket>, now: Nanos) {
        let mut runs = std::mem::take(&mut self.runs);
        for run in &runs {
            self.send_run(run, shared, socket, now);
        }
        runs.clear();
        self.runs = runs;
    }

    fn send_run(&mut self, run: &Run, shared: &Shared, socket: Option<&UdpSocket>, now: Nanos) {
        let Run { peer, peer_id, kind, first, count } = run;
        let (peer_id, kind, first, count) = (*peer_id, *kind, *first, *count);
        if count == 0 {
            return;
        }
        let slot = peer.sealing.load();
        let Some(slot) = slot.as_ref() else {
            if kind.is_some() {
                shared.lose(Direction::Transmit, Reason::NoKey, count as u64, Some(peer));
            }
            return;
        };
        let header = DataHeader { key_id: slot.key_id, peer_id };
        let turn = lock(&peer.turn);
        let mut ids = slot.reserve(count);
        let able = ids.left();
        let (mut sealed, mut octets) = (0, 0);
        for packet in &self.packets[first..first + able] {
            let room = &mut self.arena[packet.start..packet.start + packet.length];
            if !slot.seal(&header, room, &mut ids) {
                break;
            }
            sealed += 1;
            octets += packet.length;
        }
        let payload = octets - sealed * header.overhead();
        slot.count_sent(payload);
        let cells = &peer.cells[self.cell];
        if sealed > 0 {
            let packets = &self.packets[first..first + sealed];
            let taken = self.dispatch.send(&self.arena, packets, shared, socket, peer, now);
            drop(turn);
            let way = cells.way(Direction::Transmit);
            way.wire.add(sealed as u64);
            way.wire_octets.add(taken as u64);
            if let Some(kind) = kind {
                way.count(kind, sealed as u64, payload as u64);
            }
        }
        cells.sent_at.set(now);
        if sealed < count && kind.is_some() {
            shared.lose(Direction::Transmit, Reason::KeyExpired, (count - sealed) as u64, Some(peer));
        }
        if let Some(trigger) = slot.limit_reached() {
            shared.tell(Event::KeyNearLimit { handle: peer.handle, key_id: slot.key_id, trigger });
        }
    }
}

fn overhead(peer_id: Option<u32>) -> usize {
    if peer_id.is_some() {
        OVERHEAD_V2
    } else {
        OVERHEAD_V1
    }
}
