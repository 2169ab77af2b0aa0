//! Takes off what the peer put around its frames: joins the parts of payloads that it cut, and removes their framing.
//!
//! Source: docs/protocol/data.md#4.

use std::sync::atomic::Ordering::Relaxed;

use bridged_core::fragment::{Joined, FRAGMENT_HEADER};
use bridged_core::framing::Unframed;
use bridged_core::packet::LEAST_FRAME_OCTETS;
use bridged_core::Nanos;

use crate::contract::Direction::Receive;
use crate::contract::Event;
use crate::control::counters::Reason;
use crate::shared::Shared;
use crate::sync::lock;
use crate::tables::peers::Peer;
use crate::transport::seam::Transport;
use crate::wan_to_lan::tap_writer::Frame;

/// Bytes in front of a joined frame, as a packet's header leaves them, and behind the last one.
const ROOM: usize = 32;

/// Joins parts. What was joined lies in `octets`, until the next call.
#[derive(Default)]
pub struct Joiner {
    pub octets: Vec<u8>,
    /// Payloads that are complete, and how many whole ones came before.
    complete: Vec<(usize, Vec<u8>)>,
}

impl Joiner {
    /// Keep of the opened payloads, which lie in `octets`, those that are whole, without their header. True: some were
    /// joined, and all have moved to `self.octets`, in order.
    pub fn join<T: Transport>(
        &mut self,
        shared: &Shared<T>,
        peer: &Peer<T>,
        octets: &[u8],
        opened: &mut Vec<Frame>,
        now: Nanos,
    ) -> bool {
        let Some(reassembly) = &peer.reassembly else { return false };
        let mut reassembly = lock(reassembly);
        let (mut whole, mut bad) = (0, 0);
        opened.retain_mut(|frame| match reassembly.take(&octets[frame.start..frame.start + frame.length], now) {
            Joined::Whole => {
                frame.start += FRAGMENT_HEADER;
                frame.length -= FRAGMENT_HEADER;
                whole += 1;
                true
            }
            Joined::Complete(payload) => {
                self.complete.push((whole, payload));
                false
            }
            Joined::Missing => false,
            Joined::Bad => {
                bad += 1;
                false
            }
        });
        let lost = reassembly.take_lost();
        drop(reassembly);
        for (reason, count) in [(Reason::BadFragment, bad), (Reason::FragmentIncomplete, lost)] {
            if count > 0 {
                shared.counters.count_drops(Receive, reason, count, Some(&peer.drops));
            }
        }
        if self.complete.is_empty() {
            return false;
        }
        self.move_all(octets, opened);
        true
    }

    fn move_all(&mut self, octets: &[u8], opened: &mut Vec<Frame>) {
        let Joiner { octets: joined, complete } = self;
        joined.clear();
        let mut add = |payload: &[u8]| {
            joined.resize(joined.len() + ROOM, 0);
            let start = joined.len();
            joined.extend_from_slice(payload);
            Frame { start, length: payload.len() }
        };
        let mut waiting = complete.drain(..).peekable();
        let mut frames = Vec::with_capacity(opened.len() + 1);
        for number in 0..=opened.len() {
            while let Some((_, payload)) = waiting.next_if(|(before, _)| *before == number) {
                frames.push(add(&payload));
            }
            if let Some(frame) = opened.get(number) {
                frames.push(add(&octets[frame.start..frame.start + frame.length]));
            }
        }
        drop(waiting);
        joined.resize(joined.len() + ROOM, 0);
        *opened = frames;
    }
}

/// Take the framing off payloads, which lie in `octets`; those that then are no frames are dropped.
pub fn unframe<T: Transport>(shared: &Shared<T>, peer: &Peer<T>, octets: &mut [u8], opened: &mut Vec<Frame>) {
    opened.retain_mut(|frame| {
        let reason = match peer.framing.unwrap(&mut octets[frame.start..frame.start + frame.length]) {
            Ok((skip, length)) if length >= LEAST_FRAME_OCTETS => {
                *frame = Frame { start: frame.start + skip, length };
                return true;
            }
            Ok(_) => Reason::ShortFrame,
            Err(unframed) => {
                let is_compressed = unframed == Unframed::Compressed;
                if !peer.is_framing_told.swap(true, Relaxed) {
                    shared.report(Event::FramingRefused { handle: peer.handle, is_compressed });
                }
                if is_compressed {
                    Reason::Compressed
                } else {
                    Reason::BadFraming
                }
            }
        };
        shared.counters.count_drops(Receive, reason, 1, Some(&peer.drops));
        false
    });
}
