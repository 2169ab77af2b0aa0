//! The policy stage of frames from a peer.
//!
//! Source: docs/protocol/data.md#6-1, #6-3.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::Nanos;

use crate::contract::OCC_OCTETS;
use crate::control::counters::Reason;
use crate::policy::link_layer::{link_layer, LinkLayer};
use crate::shared::Shared;
use crate::tables::peers::Peer;
use crate::tables::switch::Decision;
use crate::transport::seam::Transport;

/// What a decision depends on within one batch of one peer: both addresses.
type Key = [u8; 12];

/// See the module. Of one thread.
pub struct PeerPolicy {
    link_layer: LinkLayer,
}

/// The stage for one batch of one peer.
pub struct BatchPolicy<'a, T: Transport> {
    link_layer: &'a mut LinkLayer,
    shared: &'a Shared<T>,
    peer: &'a Arc<Peer<T>>,
    now: Nanos,
    /// Octets of the largest frame that the TAP is known to carry.
    largest: usize,
    known: Option<(Key, Decision)>,
}

impl PeerPolicy {
    /// `seed` is random.
    pub fn new(seed: u64) -> PeerPolicy {
        PeerPolicy { link_layer: link_layer(seed) }
    }

    /// Begin a batch of one peer.
    #[inline]
    pub fn batch<'a, T: Transport>(
        &'a mut self,
        shared: &'a Shared<T>,
        peer: &'a Arc<Peer<T>>,
        now: Nanos,
    ) -> BatchPolicy<'a, T> {
        let largest = shared.adapter.largest_frame.load(Relaxed);
        BatchPolicy { link_layer: &mut self.link_layer, shared, peer, now, largest, known: None }
    }
}

impl<T: Transport> BatchPolicy<'_, T> {
    /// Decide where a frame goes. Neighbours with the same addresses share a decision. A decision whose target is a
    /// refusal: the frame counts as received, then is dropped.
    ///
    /// # Errors
    /// The drop reason of a frame that does not count as received.
    #[inline]
    pub fn judge(&mut self, frame: &[u8]) -> Result<Decision, Reason> {
        let length = frame.len();
        if length > self.largest && !self.shared.adapter.carries(length, self.now) {
            return Err(Reason::LongFrame);
        }
        let Some(&key) = frame.first_chunk() else { return Err(Reason::ShortFrame) };
        match self.known {
            Some((before, decision)) if before == key => Ok(decision),
            _ => Ok(self.decide(key, frame)),
        }
    }

    fn decide(&mut self, key: Key, frame: &[u8]) -> Decision {
        let shared = self.shared;
        let forwards = shared.settings.forward_between_peers;
        let report = |station| shared.report_move(station);
        let ingress = self.peer.ingress();
        let decision = self.link_layer.decide(&shared.stations, ingress, frame, forwards, self.now, report);
        self.known = decision.target.is_ok().then_some((key, decision));
        decision
    }
}

/// Of a kind that is filled up to a size: what comes late in it means nothing.
fn is_filled(payload: &[u8]) -> bool {
    const MTU_LOAD_REQUEST: u8 = 2;
    const MTU_LOAD: u8 = 3;
    matches!(payload.get(16), Some(&(MTU_LOAD_REQUEST | MTU_LOAD)))
}

/// Whether an OCC message may go up: it may be one, and its peer does not send too many.
///
/// # Errors
/// The drop reason.
pub fn admit_occ<T: Transport>(peer: &Peer<T>, payload: &[u8], now: Nanos) -> Result<(), Reason> {
    if payload.len() > OCC_OCTETS && !is_filled(payload) {
        return Err(Reason::OccLength);
    }
    if !peer.may_send_occ(now) {
        return Err(Reason::OccRate);
    }
    Ok(())
}

#[cfg(test)]
#[path = "from_peer_tests.rs"]
mod tests;
