//! Answers frames that are too large for their peer's path, so that their host sends smaller ones.
//!
//! Source: `bridged_core::too_big`; decision 104. Everything here is off the fast path.

use bridged_core::headers::addresses;
use bridged_core::policer::{Rate, Source, SourceLimit};
use bridged_core::segment::SuperFrame;
use bridged_core::too_big::{answer, ANSWER_OCTETS};
use bridged_core::vnet::LONG_OCTETS;
use bridged_core::Nanos;
use bridged_sys::descriptor::write;

use crate::contract::Direction::Transmit;
use crate::control::counters::{Count, Reason};
use crate::shared::Shared;
use crate::tables::peers::Peer;
use crate::transport::seam::Transport;

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
    /// `fit`: bytes of the largest frame that crosses in one piece; `frames`: how many are like this one.
    #[cold]
    pub fn refuses<T: Transport>(
        &mut self,
        shared: &Shared<T>,
        peer: &Peer<T>,
        fit: usize,
        frame: &[u8],
        frames: usize,
        now: Nanos,
    ) -> bool {
        // What `fragment` cuts needs no answer.
        if !shared.settings.answer_too_big || frame.len() <= fit || peer.fragment > 0 {
            return false;
        }
        let mut octets = [0; ANSWER_OCTETS];
        let Some(length) = answer(frame, fit, &mut octets) else { return false };
        shared.counters.count_drops(Transmit, Reason::TooBig, frames as u64, Some(&peer.drops));
        if self.may_answer(frame, now) && self.write(shared, &octets[..length]) {
            shared.counters.threads[self.thread].count(Count::TooBigAnswered, 1);
        }
        true
    }

    /// The same for a super-frame of datagrams, which keep their size: how many of its first frames were refused.
    pub fn refuses_of_super<T: Transport>(
        &mut self,
        shared: &Shared<T>,
        peer: &Peer<T>,
        fit: usize,
        parsed: &SuperFrame<'_>,
        room: &mut [u8],
        now: Nanos,
    ) -> usize {
        let cut = parsed.cut(if fit == usize::MAX { 0 } else { fit });
        if cut.first_len <= fit {
            return 0;
        }
        let written = parsed.write(&cut, 0, room);
        // The last one may be smaller, and fit.
        let large = if cut.last_len <= fit { cut.count - 1 } else { cut.count };
        match self.refuses(shared, peer, fit, &room[..written], large, now) {
            true => large,
            false => 0,
        }
    }

    fn may_answer(&mut self, frame: &[u8], now: Nanos) -> bool {
        let Some((_, station)) = addresses(frame) else { return false };
        let source = Source { address: u128::from(station.number()), port: 0 };
        self.limit.allows(source, now, RATE) && self.total.allows(EVERYBODY, now, TOTAL)
    }

    /// Write an answer to the TAP; where it takes none, the station asks again with its next frame.
    fn write<T: Transport>(&self, shared: &Shared<T>, octets: &[u8]) -> bool {
        let tap = shared.adapter.tap.load();
        let Some(tap) = tap.as_ref() else { return false };
        let mut packet = [0; LONG_OCTETS + ANSWER_OCTETS];
        let end = tap.vnet + octets.len();
        packet[tap.vnet..end].copy_from_slice(octets);
        write(tap.queue(self.thread), &packet[..end]).is_ok()
    }
}
