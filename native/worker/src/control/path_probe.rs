//! Probes of a path: one sealed packet of a chosen size that nobody may cut.
//!
//! Source: bridged/dataplane/contract/verbs.py, `probe_path`; RFC 8899.

use bridged_core::layout::Layout;
use bridged_core::Nanos;

use crate::contract::Direction::Transmit;
use crate::contract::Endpoint;
use crate::control::control_sender::ControlSender;
use crate::control::counters::Reason;
use crate::shared::Shared;
use crate::sync::lock;
use crate::tables::peers::Peer;
use crate::transport::mixed::MixedTransport;
use crate::transport::seam::Transport;
use crate::transport::udp::path::IP_UDP_OCTETS;

/// Seal as much of `payload` as an outer packet of `octets` bytes holds, and send it; bytes of the outer packet.
///
/// 0: the link here takes none so large. What is not sent for another reason counts as sent.
#[cold]
pub fn send(
    shared: &Shared<MixedTransport>,
    sender: &ControlSender<MixedTransport>,
    peer: &Peer<MixedTransport>,
    payload: &[u8],
    octets: usize,
    now: Nanos,
) -> usize {
    let path = peer.path.load_full();
    let sealing = peer.sealing.load_full();
    let (Some(path), Some(slot), 0) = (path.udp(), sealing, peer.fragment) else { return octets };
    let headers = IP_UDP_OCTETS[usize::from(path.endpoint.is_ipv6())] as usize;
    let header = peer.header(slot.key_id);
    let layout = Layout::of(&header, slot.format);
    let room = layout.fit(octets.saturating_sub(headers)).saturating_sub(peer.framing.most());
    let length = payload.len().min(room);
    if length == 0 {
        return octets;
    }
    let mut packet = vec![0; layout.sealed(length + peer.framing.most()) + layout.front];
    let start = layout.front + peer.framing.front();
    packet[start..start + length].copy_from_slice(&payload[..length]);
    let framed = length + peer.framing.wrap(&mut packet[layout.front..], length);
    packet.truncate(layout.sealed(framed));
    let link = shared.transport.link(0);
    sender.with_batcher(|batcher| {
        // Packet ids leave in order.
        let _turn = lock(&peer.send_lock);
        if !slot.seal(&header, &mut packet, framed, &mut slot.reserve(1)) {
            return octets;
        }
        slot.count_sent(framed);
        let context = shared.send_context(&link, now);
        let endpoint = Endpoint::from(path.endpoint);
        match link.udp.whole(|| batcher.send_control(&packet, endpoint, &context)) {
            Err(Reason::Emsgsize) => return 0,
            Err(_) => {}
            Ok(()) => {
                let cells = &peer.cells[shared.threads.timer()];
                let way = cells.direction(Transmit);
                way.wire.add(1);
                way.wire_octets.add(packet.len() as u64);
                cells.sent_at.set(now);
            }
        }
        headers + packet.len()
    })
}
