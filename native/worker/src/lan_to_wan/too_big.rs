//! Frames that are too large for their peer's path: what must not be cut is answered, so that its host sends smaller
//! ones; IPv4 that may be cut is cut, as a router does.
//!
//! Source: `bridged_core::too_big`, `bridged_core::ipv4_cut`; decisions 104 and 108. All is off the fast path.

use std::sync::Arc;

use bridged_core::headers::addresses;
use bridged_core::ipv4_cut::Ipv4Cut;
use bridged_core::policer::{Rate, Source, SourceLimit};
use bridged_core::segment::SuperFrame;
use bridged_core::stats::FrameKind;
use bridged_core::too_big::{answer, ANSWER_OCTETS};
use bridged_core::vnet::LONG_OCTETS;
use bridged_core::Nanos;
use bridged_sys::descriptor::write;

use crate::contract::Direction::Transmit;
use crate::control::counters::{Count, Reason};
use crate::lan_to_wan::peer_batches::PeerBatcher;
use crate::shared::Shared;
use crate::tables::peers::Peer;
use crate::transport::seam::{PeerPath, Transport};

/// Frames up to this many bytes fit every path.
pub const SMALL_OCTETS: usize = 512;
/// Stations whose answers are limited one by one.
const SOURCES: usize = 256;
/// Answers to one station.
const RATE: Rate = Rate { burst: 32, per_second: 16 };
/// Answers to all of them: a station can make up source addresses.
const TOTAL: Rate = Rate { burst: 256, per_second: 256 };
const EVERYBODY: Source = Source { address: u128::MAX, port: 0 };

/// See the module. Of one thread.
pub struct TooBig {
    thread: usize,
    limit: SourceLimit,
    total: SourceLimit,
}

impl TooBig {
    /// `seed` is random.
    pub fn new(thread: usize, seed: u64) -> TooBig {
        TooBig { thread, limit: SourceLimit::with_capacity(SOURCES, seed), total: SourceLimit::with_capacity(1, seed) }
    }

    /// Whether a frame to this peer was too large and must not be cut: it is dropped, and mostly answered.
    ///
    /// `frames`: how many are like this one. `tell` takes the answer to where the frame came from, and says whether
    /// it could.
    #[cold]
    pub fn refuses<T: Transport>(
        &mut self,
        shared: &Shared<T>,
        peer: &Peer<T>,
        frame: &[u8],
        frames: usize,
        now: Nanos,
        tell: impl FnOnce(&[u8]) -> bool,
    ) -> bool {
        let fit = fit_of(peer);
        if !is_too_big(shared, peer, frame.len()) {
            return false;
        }
        let mut octets = [0; ANSWER_OCTETS];
        let Some(length) = answer(frame, fit, &mut octets) else { return false };
        shared.counters.count_drops(Transmit, Reason::TooBig, frames as u64, Some(&peer.drops));
        if self.may_answer(frame, now) && tell(&octets[..length]) {
            shared.counters.threads[self.thread].count(Count::TooBigAnswered, 1);
        }
        true
    }

    /// The same for a frame from the TAP.
    #[cold]
    pub fn refuses_of_lan<T: Transport>(
        &mut self,
        shared: &Shared<T>,
        peer: &Peer<T>,
        frame: &[u8],
        frames: usize,
        now: Nanos,
    ) -> bool {
        let thread = self.thread;
        self.refuses(shared, peer, frame, frames, now, |octets| write_to_tap(shared, thread, octets))
    }

    /// The same for a super-frame of datagrams, which keep their size: how many of its first frames were refused.
    pub fn refuses_of_super<T: Transport>(
        &mut self,
        shared: &Shared<T>,
        peer: &Peer<T>,
        parsed: &SuperFrame<'_>,
        room: &mut [u8],
        now: Nanos,
    ) -> usize {
        let fit = fit_of(peer);
        let cut = parsed.cut(if fit == usize::MAX { 0 } else { fit });
        if !is_too_big(shared, peer, cut.first_len) {
            return 0;
        }
        let written = parsed.write(&cut, 0, room);
        // The last one may be smaller, and fit.
        let large = if cut.last_len <= fit { cut.count - 1 } else { cut.count };
        match self.refuses_of_lan(shared, peer, &room[..written], large, now) {
            true => large,
            false => 0,
        }
    }

    fn may_answer(&mut self, frame: &[u8], now: Nanos) -> bool {
        let Some((_, station)) = addresses(frame) else { return false };
        let source = Source { address: u128::from(station.number()), port: 0 };
        self.limit.allows(source, now, RATE) && self.total.allows(EVERYBODY, now, TOTAL)
    }
}

/// Bytes of the largest frame that crosses the peer's path in one piece; `usize::MAX`: not known.
#[inline]
pub fn fit_of<T: Transport>(peer: &Peer<T>) -> usize {
    match (peer.path.load().fitting(), peer.fragment) {
        (usize::MAX, 0) => usize::MAX,
        (fitting, _) => peer.fit(fitting),
    }
}

/// As [`fit_of`], for full segments of TCP: no partial AES block (docs/decisions/0123-tcp-fills-whole-aes-blocks.md).
#[inline]
pub fn fit_of_segments<T: Transport>(peer: &Peer<T>) -> usize {
    match fit_of(peer) {
        usize::MAX => usize::MAX,
        fit => peer.whole_blocks(fit),
    }
}

/// Whether a frame of so many bytes has to be answered or cut. What `fragment` cuts is not.
#[inline]
pub fn is_too_big<T: Transport>(shared: &Shared<T>, peer: &Peer<T>, octets: usize) -> bool {
    shared.settings.answer_too_big && octets > SMALL_OCTETS && peer.fragment == 0 && octets > fit_of(peer)
}

/// Queue a copy of a frame for a peer; cut into IP fragments where it is IPv4, too large for the path, and may be cut.
/// `flush` makes room.
#[cold]
pub fn place_fitting<T: Transport>(
    batcher: &mut PeerBatcher<T>,
    shared: &Shared<T>,
    thread: usize,
    peer: &Arc<Peer<T>>,
    kind: FrameKind,
    frame: &[u8],
    mut flush: impl FnMut(&mut PeerBatcher<T>),
) {
    let cut = if is_too_big(shared, peer, frame.len()) { Ipv4Cut::of(frame, fit_of(peer)) } else { None };
    let Some(cut) = cut else {
        if !batcher.has_room(frame.len()) {
            flush(batcher);
        }
        return batcher.place_copy(peer, Some(kind), frame);
    };
    shared.counters.threads[thread].count(Count::Ipv4Cut, 1);
    for index in 0..cut.count() {
        if !batcher.has_room(cut.most()) {
            flush(batcher);
        }
        let written = cut.write(index, batcher.room_for(peer));
        batcher.place_written(kind, written);
    }
}

/// Write an answer to the TAP; where it takes none, the station asks again with its next frame.
fn write_to_tap<T: Transport>(shared: &Shared<T>, thread: usize, octets: &[u8]) -> bool {
    let tap = shared.adapter.tap.load();
    let Some(tap) = tap.as_ref() else { return false };
    let mut packet = [0; LONG_OCTETS + ANSWER_OCTETS];
    let end = tap.vnet + octets.len();
    packet[tap.vnet..end].copy_from_slice(octets);
    write(tap.queue(thread), &packet[..end]).is_ok()
}
