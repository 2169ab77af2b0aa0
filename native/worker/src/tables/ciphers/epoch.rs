//! AEAD ciphers in the epoch format: keys that follow one another, 64-bit packet ids, the tag at the end.
//!
//! Source: docs/protocol/data.md#2-3; `bridged/protocol/keys/epoch_keys.py`.
//! No nonce can repeat: each epoch has a key of its own, and one counter that hands out each number once.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use aws_lc_rs::aead::Aad;
use bridged_core::layout::EPOCH_IDENTITY_OCTETS as IDENTITY_OCTETS;
use bridged_core::limits::{AES_GCM_RENEGOTIATE, RENEGOTIATE_PACKET_ID};
use bridged_core::packet::TAG_OCTETS;
use bridged_core::replay::ReplayWindow;
use zeroize::Zeroizing;

use super::epoch_key::{EpochKey, SendEpoch, SECRET_OCTETS};
use super::{Opener, Text, Unsealed};
use crate::contract::Key;
use crate::error::Error;
use crate::sync::{lock, ArcSwap, Mutex, MutexGuard};
use crate::tables::packet_ids::Reserved;

const LAST_EPOCH: u16 = u16::MAX;
/// Renegotiate from this epoch on.
const RENEGOTIATE_EPOCH: u16 = 0xF000;
/// How many epochs a receiver is ahead.
const FUTURE_EPOCHS: usize = 4;
/// The next epoch begins from this counter on; from the end on there are no more.
const COUNTER_WORN: u64 = COUNTER_END - (1 << 32);
const COUNTER_END: u64 = 1 << 48;

struct EpochLimits {
    blocks: u64,
    packets: u64,
}

impl EpochLimits {
    fn are_reached(&self, epoch: &SendEpoch) -> bool {
        epoch.next.load(Relaxed) >= COUNTER_WORN.min(self.packets) || epoch.used() >= self.blocks
    }
}

/// An epoch of the peer.
struct ReceiveEpoch {
    key: EpochKey,
    window: ReplayWindow,
}

/// The epochs of the peer that its packets may be of.
pub struct Receiving {
    now: ReceiveEpoch,
    before: Option<ReceiveEpoch>,
    future: VecDeque<ReceiveEpoch>,
    /// Of each replay window.
    size: u32,
}

/// See the module.
pub struct Epoch {
    sending: ArcSwap<SendEpoch>,
    changing: Mutex<()>,
    receiving: Mutex<Receiving>,
    limits: EpochLimits,
}

impl Epoch {
    /// Both directions begin in epoch 1. `size`: of the replay windows.
    ///
    /// # Errors
    /// [`Error::BadSetting`]: key lengths, no AEAD cipher; [`Error::ReplayWindow`].
    pub fn new(key: &Key, size: u32) -> Result<Epoch, Error> {
        let first = |octets: &[u8]| {
            let secret = octets.first_chunk::<SECRET_OCTETS>().filter(|_| octets.len() == SECRET_OCTETS);
            let secret =
                secret.ok_or_else(|| Error::BadSetting(format!("a key of epochs has {SECRET_OCTETS} bytes")))?;
            EpochKey::new(1, Zeroizing::new(*secret), key.cipher)
        };
        let now = ReceiveEpoch { key: first(&key.receive_key)?, window: window(size)? };
        let mut receiving = Receiving { now, before: None, future: VecDeque::with_capacity(FUTURE_EPOCHS), size };
        receiving.look_ahead()?;
        let blocks = if key.cipher.is_aes_gcm() { AES_GCM_RENEGOTIATE } else { u64::MAX };
        Ok(Epoch {
            sending: ArcSwap::from_pointee(SendEpoch::new(first(&key.send_key)?)),
            changing: Mutex::new(()),
            receiving: Mutex::new(receiving),
            limits: EpochLimits { blocks, packets: u64::MAX },
        })
    }

    /// End each epoch after this many packets; for tests.
    #[cfg(test)]
    pub fn limit_packets(&mut self, packets: u64) {
        self.limits.packets = packets;
    }

    /// Counters of the present epoch, up to `count`; none where all epochs are used up.
    pub fn reserve(&self, count: usize) -> Reserved {
        let mut epoch = self.sending.load_full();
        if self.limits.are_reached(&epoch) {
            if let Some(next) = self.move_sending(epoch.key.epoch.saturating_add(1)) {
                epoch = next;
            }
        }
        let next = epoch.next.fetch_add(count as u64, Relaxed);
        let end = next.saturating_add(count as u64).min(COUNTER_END);
        Reserved::in_epoch(next.min(end), end, epoch)
    }

    /// Count what was sealed, payload bytes: in the present epoch, although the last of it may be of the one before.
    #[inline]
    pub fn count_sent(&self, octets: u64) {
        self.sending.load().octets.fetch_add(octets, Relaxed);
    }

    /// Seal in this epoch or a later one from now on.
    #[cold]
    fn move_sending(&self, wanted: u16) -> Option<Arc<SendEpoch>> {
        let _changing = lock(&self.changing);
        let mut present = self.sending.load_full();
        while present.key.epoch < wanted && present.key.epoch < LAST_EPOCH {
            present = Arc::new(SendEpoch::new(present.key.next().ok()?));
        }
        self.sending.store(Arc::clone(&present));
        Some(present)
    }

    /// The later one of the epochs sent and received, so that RENEGOTIATE_EPOCH is RENEGOTIATE_PACKET_ID.
    pub fn highest_packet_id(&self) -> u32 {
        let received = lock(&self.receiving).now.key.epoch;
        let highest = u32::from(self.sending.load().key.epoch.max(received));
        highest.saturating_mul(RENEGOTIATE_PACKET_ID / u32::from(RENEGOTIATE_EPOCH))
    }

    /// An authentic packet of a later epoch: that is the present one now, for sealing as well.
    #[cold]
    fn follow(&self, receiving: &mut Receiving, index: usize) {
        for _ in 0..=index {
            let Some(next) = receiving.future.pop_front() else { break };
            receiving.before = Some(std::mem::replace(&mut receiving.now, next));
        }
        // It derives keys, which does not fail for keys that were derived before.
        let _ = receiving.look_ahead();
        let epoch = receiving.now.key.epoch;
        if self.sending.load().key.epoch < epoch {
            self.move_sending(epoch);
        }
    }
}

impl Opener for Epoch {
    type Turn<'a> = MutexGuard<'a, Receiving>;

    #[inline]
    fn begin(&self) -> MutexGuard<'_, Receiving> {
        lock(&self.receiving)
    }

    #[inline]
    fn least(&self, header: usize) -> usize {
        header + IDENTITY_OCTETS + TAG_OCTETS
    }

    #[inline]
    fn open_one(
        &self,
        receiving: &mut MutexGuard<'_, Receiving>,
        _: &mut ReplayWindow,
        packet: &mut [u8],
        header: usize,
        length: usize,
    ) -> Unsealed {
        let body = header + IDENTITY_OCTETS;
        let Some(&identity) = packet.get(header..).and_then(|rest| rest.first_chunk::<IDENTITY_OCTETS>()) else {
            return Unsealed::Forged;
        };
        let [a, b, ..] = identity;
        let (epoch, counter) = (u16::from_be_bytes([a, b]), counter_of(identity));
        let Some(place) = receiving.find(epoch) else {
            return if epoch < receiving.now.key.epoch { Unsealed::Past } else { Unsealed::Unknown };
        };
        let Some(found) = receiving.at(place) else { return Unsealed::Unknown };
        let nonce = found.key.nonce(identity);
        let (additional, text) = packet[..length].split_at_mut(body);
        if found.key.key.open_in_place(nonce, Aad::from(&*additional), text).is_err() {
            return Unsealed::Forged;
        }
        if let Place::Future(index) = place {
            self.follow(receiving, index);
        }
        let place = if matches!(place, Place::Before) { Place::Before } else { Place::Now };
        let Some(found) = receiving.at(place) else { return Unsealed::Unknown };
        let highest = found.window.highest();
        match found.window.accept(counter) {
            Ok(()) => Unsealed::Fresh(Text { id: counter, highest, at: body, length: length - body - TAG_OCTETS }),
            Err(refusal) => Unsealed::Refused(refusal),
        }
    }
}

#[derive(Clone, Copy)]
enum Place {
    Now,
    Before,
    Future(usize),
}

impl Receiving {
    fn find(&self, epoch: u16) -> Option<Place> {
        if epoch == self.now.key.epoch {
            return Some(Place::Now);
        }
        if self.before.as_ref().is_some_and(|before| before.key.epoch == epoch) {
            return Some(Place::Before);
        }
        self.future.iter().position(|next| next.key.epoch == epoch).map(Place::Future)
    }

    fn at(&mut self, place: Place) -> Option<&mut ReceiveEpoch> {
        match place {
            Place::Now => Some(&mut self.now),
            Place::Before => self.before.as_mut(),
            Place::Future(index) => self.future.get_mut(index),
        }
    }

    fn look_ahead(&mut self) -> Result<(), Error> {
        while self.future.len() < FUTURE_EPOCHS {
            let latest = self.future.back().map_or(&self.now.key, |next| &next.key);
            if latest.epoch == LAST_EPOCH {
                break;
            }
            let next = ReceiveEpoch { key: latest.next()?, window: window(self.size)? };
            self.future.push_back(next);
        }
        Ok(())
    }
}

fn window(size: u32) -> Result<ReplayWindow, Error> {
    ReplayWindow::new(size).map_err(|_| Error::ReplayWindow(size as usize))
}

fn counter_of(identity: [u8; IDENTITY_OCTETS]) -> u64 {
    u64::from_be_bytes(identity) & (COUNTER_END - 1)
}
