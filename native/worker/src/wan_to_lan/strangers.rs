//! What belongs to no peer, or is no data: control packets go up, hard resets and lost clients are answered here.
//!
//! Source: docs/protocol/control.md#2-2 to #2-5, #4-2.

use bridged_core::packet::{unknown_session_notice, NOTICE_OCTETS};
use bridged_sys::thread::unix_seconds;

use crate::contract::Direction::Receive;
use crate::control::answers::Stranger;
use crate::control::control_queue::Sender;
use crate::control::counters::Reason;
use crate::control::wraps::ANSWER_OCTETS;
use crate::transport::seam::{BatchReceiver, Origin, Transport};
use crate::wan_to_lan::scene::{Batch, WanScene};

/// A data packet without a known peer: tell its sender that its session is gone.
#[cold]
pub fn notify_stranger<T: Transport>(scene: &WanScene<'_, T>, receiver: &mut T::Receiver, batch: &Batch<T::Origin>) {
    let shared = scene.shared;
    let source = batch.origin.endpoint();
    let is_server = shared.answers.load().is_some();
    if !is_server || batch.run.size <= NOTICE_OCTETS || shared.peers.endpoints.is_known(source) {
        return;
    }
    if shared.events.may_notify(source, scene.now) {
        let key_id = receiver.octets()[batch.start] & 7;
        receiver.reply(&unknown_session_notice(key_id), &batch.origin, &shared.transport);
    }
}

/// Hand control packets up, or answer them at once.
pub fn read_control<T: Transport>(scene: &WanScene<'_, T>, receiver: &mut T::Receiver, batch: &Batch<T::Origin>) {
    let shared = scene.shared;
    let source = batch.origin.endpoint();
    let peer = shared.peers.endpoints.at(source).map(|peer| peer.handle);
    let answers = shared.answers.load();
    let answers = answers.as_deref().filter(|_| peer.is_none() && !shared.events.expects(source));
    let mut is_remembered = false;
    for span in batch.run.spans() {
        let packet = &receiver.octets()[batch.start..][span];
        if let Some(session) = answers.and_then(|answers| answers.session_with_key(packet)) {
            if !shared.events.may_open_key(&session, scene.now) {
                shared.counters.count_drops(Receive, Reason::HandshakeRate, 1, None);
                continue;
            }
        }
        let sender = match answers.map(|answers| (answers, answers.judge(packet, source, scene.now))) {
            None => peer.map_or(Sender::Stranger, Sender::Peer),
            Some((answers, Ok(Stranger::Reset(reset)))) => {
                if shared.events.may_answer(source, &reset.session, scene.now) {
                    let mut answer = [0; ANSWER_OCTETS];
                    let unix = unix_seconds() as u32;
                    let length = answers.answer(&reset, source, scene.now, unix, &mut answer);
                    receiver.reply(&answer[..length], &batch.origin, &shared.transport);
                } else {
                    shared.counters.count_drops(Receive, Reason::HandshakeRate, 1, None);
                }
                continue;
            }
            // It may go on without its key, as if it had returned its cookie.
            Some((_, Ok(Stranger::KeyOnlyOnce(session))))
                if shared.events.may_remember(source, &session, scene.now) =>
            {
                Sender::Remembered
            }
            Some((_, Ok(Stranger::KeyOnlyOnce(_)))) => {
                shared.counters.count_drops(Receive, Reason::HandshakeRate, 1, None);
                continue;
            }
            Some((_, Ok(Stranger::Proven))) => Sender::Proven,
            Some((_, Ok(Stranger::Unproven))) => Sender::Unproven,
            Some((_, Err(reason))) => Sender::Useless(reason),
        };
        match shared.events.put_control(packet, *source, scene.now, sender) {
            Ok(()) if !is_remembered => {
                // The answer is sent from the address that this was sent to.
                is_remembered = true;
                shared.transport.remember(&batch.origin);
            }
            Ok(()) => {}
            Err(reason) => shared.counters.count_drops(Receive, reason, 1, None),
        }
    }
}
