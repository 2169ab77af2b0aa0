//! The policy stage of frames from the LAN.
//!
//! Source: docs/protocol/data.md#5-1, #6-1.

use bridged_core::packet::{begins_as_housekeeping, LEAST_FRAME_OCTETS};
use bridged_core::stats::FrameKind;
use bridged_core::Nanos;

use crate::control::counters::Reason;
use crate::policy::link_layer::{link_layer, LinkLayer};
use crate::shared::Shared;
use crate::tables::stations::Ingress;
use crate::tables::switch::Target;
use crate::transport::seam::Transport;

/// See the module. Of one thread.
pub struct LanPolicy {
    link_layer: LinkLayer,
}

impl LanPolicy {
    /// `seed` is random.
    pub fn new(seed: u64) -> LanPolicy {
        LanPolicy { link_layer: link_layer(seed) }
    }

    /// What a frame is and where it goes; its checksum is complete.
    ///
    /// # Errors
    /// The drop reason.
    #[inline]
    pub fn judge<T: Transport>(
        &mut self,
        shared: &Shared<T>,
        frame: &[u8],
        now: Nanos,
    ) -> Result<(FrameKind, Target), Reason> {
        admit(frame)?;
        let report = |station| shared.report_move(station);
        let decision = self.link_layer.decide(&shared.stations, Ingress::TAP, frame, true, now, report);
        decision.target.map(|target| (decision.kind, target))
    }
}

/// Whether a frame, or the super-frame that it begins, can be sent: the far end must not take it for a ping or for OCC.
///
/// # Errors
/// The drop reason.
#[inline]
pub fn admit(frame: &[u8]) -> Result<(), Reason> {
    if begins_as_housekeeping(frame) {
        return Err(Reason::HousekeepingMagic);
    }
    Ok(())
}

/// Octets of the frame in a read of the TAP, of which `header` are the virtio-net header's.
///
/// # Errors
/// The drop reason.
#[inline]
pub fn frame_octets(read: usize, header: usize) -> Result<usize, Reason> {
    match read.checked_sub(header) {
        Some(octets) if octets >= LEAST_FRAME_OCTETS => Ok(octets),
        _ => Err(Reason::ShortFrame),
    }
}

#[cfg(test)]
mod tests {
    use bridged_core::packet::PING;
    use bridged_sys::thread::now;

    use super::*;
    use crate::test_rig::Rig;

    #[test]
    fn what_the_far_end_would_take_for_a_ping_is_refused_and_teaches_nothing() {
        let rig = Rig::new(|_| {});
        let frame = [&PING[..], &[0; 50]].concat();
        let judged = LanPolicy::new(1).judge(rig.shared(), &frame, now());
        assert_eq!((judged, rig.shared().stations.figures().0), (Err(Reason::HousekeepingMagic), 0));
    }

    #[test]
    fn a_read_without_a_whole_ethernet_header_is_no_frame() {
        assert_eq!(frame_octets(14, 0), Ok(14));
        assert_eq!(frame_octets(26, 12), Ok(14));
        assert_eq!([frame_octets(25, 12), frame_octets(5, 12)], [Err(Reason::ShortFrame); 2]);
    }
}
