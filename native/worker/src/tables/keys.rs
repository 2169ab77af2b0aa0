//! One data key: seal and open in place, packet ids, replay window, limits.
//!
//! Source: docs/protocol/data.md#2 and #3. The AEAD is that of aws-lc-rs: measured on a processor with VAES
//! (1400 bytes, AES-256-GCM) it needs 0.6 of the time that `ring` does, and has AES-192 as well. Against OpenSSL
//! 3.0.19 (`openssl speed -evp aes-256-gcm -bytes 1400`, in turn with bench `seal`, on a Granite Rapids): 175 against
//! 559 ns.
//!
//! No nonce can repeat: ids come from one counter that hands out each number once (`packet_ids.rs`), and
//! [`KeySlot::seal`] takes its number out of a [`Reserved`], which cannot be copied.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bridged_core::layout::{Format, Layout};
use bridged_core::limits::{KeyLimits, KeyUse, NextCheck, FAILED_TAGS_END, FAILED_TAGS_RENEGOTIATE, MAX_PACKET_ID};
use bridged_core::packet::{DataHeader, PacketRun, HEADER_V1, HEADER_V2, LEAST_FRAME_OCTETS, TAG_OCTETS};
use bridged_core::replay::ReplayWindow;

use crate::contract::{Cipher, Key, KeyFormat, LimitTrigger};
use crate::control::counters::Reason;
use crate::error::Error;
use crate::sync::{lock, Mutex, Padded};
use crate::tables::ciphers::aead::Aead;
use crate::tables::ciphers::cbc::Cbc;
use crate::tables::ciphers::epoch::Epoch;
use crate::tables::ciphers::{Opener, Unsealed};
use crate::tables::packet_ids::PacketIds;
pub use crate::tables::packet_ids::Reserved;

/// Bytes behind a packet that [`KeySlot::open`] uses, and puts back.
pub const SPARE_OCTETS: usize = TAG_OCTETS;

#[derive(Debug)]
struct Sent {
    ids: PacketIds,
    octets: AtomicU64,
}

#[derive(Debug)]
struct Received {
    window: ReplayWindow,
    packets: u64,
    octets: u64,
    failed_tags: u64,
}

/// Copies of the figures of [`Received`] that are read without its lock.
#[derive(Debug, Default)]
struct ReceivedSoFar {
    packets: AtomicU64,
    octets: AtomicU64,
}

/// What seals and opens. No call is dynamic; the rarer kinds lie elsewhere.
enum Engine {
    Aead(Aead),
    Epoch(Box<Epoch>),
    Cbc(Box<Cbc>),
}

/// One key id of one peer.
pub struct KeySlot {
    /// 0..=7.
    pub key_id: u8,
    /// Of both directions.
    pub cipher: Cipher,
    /// How it packs its payload.
    pub format: Format,
    /// Bytes of the shortest payload that `open` hands on.
    pub least_payload: usize,
    engine: Engine,
    limits: KeyLimits,
    sent: Padded<Sent>,
    received: Padded<Mutex<Received>>,
    so_far: ReceivedSoFar,
    check_packets: AtomicU64,
    check_octets: AtomicU64,
    is_told: AtomicBool,
}

impl std::fmt::Debug for KeySlot {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KeySlot")
            .field("key_id", &self.key_id)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

/// What came of a batch of packets.
#[derive(Debug, Default, Clone, Copy)]
pub struct Opened {
    /// Packets that were authentic and new, short ones included.
    pub fresh: usize,
    /// Their bytes.
    pub octets: usize,
    /// Packet ids that were jumped over.
    pub skipped: u64,
    /// Packets among `fresh` whose id had been jumped over.
    pub late: u64,
}

impl Opened {
    /// One more fresh packet, after those up to `highest`.
    #[inline]
    fn note(&mut self, id: u64, highest: u64) {
        self.fresh += 1;
        match id.checked_sub(highest) {
            Some(ahead) => self.skipped += ahead.saturating_sub(1),
            None => self.late += 1,
        }
    }
}

impl KeySlot {
    /// A key that seals from packet id 1 on.
    ///
    /// # Errors
    /// [`Error::BadSetting`]: key id or key length; [`Error::ReplayWindow`].
    pub fn new(key: &Key, replay_window: usize, limits: KeyLimits) -> Result<KeySlot, Error> {
        if key.key_id > 7 {
            return Err(Error::BadSetting(format!("key id {} is not in 0..7", key.key_id)));
        }
        let size = u32::try_from(replay_window).map_err(|_| Error::ReplayWindow(replay_window))?;
        let mut window = ReplayWindow::new(size).map_err(|_| Error::ReplayWindow(replay_window))?;
        let next = limits.next_check(&KeyUse::default());
        let (format, engine) = match &key.format {
            KeyFormat::Aead => (Format::Aead, Engine::Aead(Aead::new(key)?)),
            KeyFormat::Epoch => (Format::Epoch, Engine::Epoch(Box::new(Epoch::new(key, size)?))),
            KeyFormat::Cbc(hmacs) => {
                (Format::Cbc { mac: hmacs.digest.octets() as u8 }, Engine::Cbc(Box::new(Cbc::new(key, hmacs)?)))
            }
            KeyFormat::Static { hmacs, time, mark, origin } => {
                window.begin_behind(*mark & u64::from(u32::MAX));
                let cbc = Cbc::new(key, hmacs)?.with_clock(*time, (*mark >> 32) as u32, origin);
                (Format::Static { mac: hmacs.digest.octets() as u8 }, Engine::Cbc(Box::new(cbc)))
            }
        };
        let ids = if matches!(format, Format::Static { .. }) { PacketIds::endless() } else { PacketIds::new() };
        Ok(KeySlot {
            key_id: key.key_id,
            cipher: key.cipher,
            format,
            least_payload: LEAST_FRAME_OCTETS,
            engine,
            limits,
            sent: Padded(Sent { ids, octets: AtomicU64::new(0) }),
            received: Padded(Mutex::new(Received { window, packets: 0, octets: 0, failed_tags: 0 })),
            so_far: ReceivedSoFar::default(),
            check_packets: AtomicU64::new(next.packets),
            check_octets: AtomicU64::new(next.octets),
            is_told: AtomicBool::new(false),
        })
    }

    /// Up to `count` packet ids, fewer where they run out.
    pub fn reserve(&self, count: usize) -> Reserved {
        match &self.engine {
            Engine::Epoch(epoch) => {
                // The other counter only says how many packets there were.
                let _ = self.sent.0.ids.reserve(count);
                epoch.reserve(count)
            }
            _ => self.sent.0.ids.reserve(count),
        }
    }

    /// Seal `payload` bytes that stand in `packet` behind `front` bytes of the [`Layout`], in place, and write what
    /// belongs around them; `packet` has `sealed` bytes of it. False, and nothing done, where `ids` has none left or
    /// the packet has no payload.
    #[inline]
    pub fn seal(&self, header: &DataHeader, packet: &mut [u8], payload: usize, ids: &mut Reserved) -> bool {
        let layout = Layout::of(header, self.format);
        if payload == 0 || packet.len() != layout.sealed(payload) {
            return false;
        }
        match &self.engine {
            Engine::Aead(aead) => ids.take().is_some_and(|id| aead.seal(header, packet, id)),
            Engine::Cbc(cbc) => ids.take_number().is_some_and(|number| cbc.seal(header, packet, payload, number)),
            Engine::Epoch(_) => match ids.take_in_epoch() {
                Some((counter, epoch)) => epoch.seal(header, packet, payload, counter),
                None => false,
            },
        }
    }

    /// As [`seal`](Self::seal), of a payload that lies elsewhere; an AEAD cipher reads it there and copies nothing.
    #[inline]
    pub fn seal_from(&self, header: &DataHeader, payload: &[u8], packet: &mut [u8], ids: &mut Reserved) -> bool {
        let layout = Layout::of(header, self.format);
        if payload.is_empty() || packet.len() != layout.sealed(payload.len()) {
            return false;
        }
        match &self.engine {
            Engine::Aead(aead) => ids.take().is_some_and(|id| aead.seal_from(header, payload, packet, id)),
            Engine::Epoch(_) => match ids.take_in_epoch() {
                Some((counter, epoch)) => epoch.seal_from(header, payload, packet, counter),
                None => false,
            },
            Engine::Cbc(_) => {
                packet[layout.front..layout.front + payload.len()].copy_from_slice(payload);
                self.seal(header, packet, payload.len(), ids)
            }
        }
    }

    /// Count what was sealed, payload bytes.
    #[inline]
    pub fn count_sent(&self, octets: usize) {
        self.sent.0.octets.fetch_add(octets as u64, Relaxed);
        if let Engine::Epoch(epoch) = &self.engine {
            epoch.count_sent(octets as u64);
        }
    }

    /// Open packets in place: those of `run`, at the start of `octets`, behind which [`SPARE_OCTETS`] are ours to use
    /// meanwhile. All begin with the same header.
    ///
    /// `take` gets offset and length of each payload that is authentic, new, and not shorter than `least_payload`;
    /// `drop` the reason for each other packet. Ids are recorded only of authentic packets.
    pub fn open(
        &self,
        octets: &mut [u8],
        run: PacketRun,
        is_v2: bool,
        take: impl FnMut(usize, usize),
        drop: impl FnMut(Reason),
    ) -> Opened {
        match &self.engine {
            Engine::Aead(aead) => self.open_by(aead, octets, run, is_v2, take, drop),
            Engine::Cbc(cbc) => self.open_by(&**cbc, octets, run, is_v2, take, drop),
            Engine::Epoch(epoch) => self.open_by(&**epoch, octets, run, is_v2, take, drop),
        }
    }

    #[inline]
    #[allow(clippy::too_many_arguments, reason = "one call, for each kind of cipher")]
    fn open_by(
        &self,
        opener: &impl Opener,
        octets: &mut [u8],
        run: PacketRun,
        is_v2: bool,
        mut take: impl FnMut(usize, usize),
        mut drop: impl FnMut(Reason),
    ) -> Opened {
        let header = match self.format {
            Format::Static { .. } => 0,
            _ if is_v2 => HEADER_V2,
            _ => HEADER_V1,
        };
        let least = opener.least(header);
        let mut opened = Opened::default();
        let mut received = lock(&self.received.0);
        let mut turn = opener.begin();
        let is_dead = received.failed_tags >= FAILED_TAGS_END;
        let mut at = 0;
        while at < run.length {
            let octet_count = run.size.clamp(1, run.length - at);
            let packet = &mut octets[at..at + octet_count + SPARE_OCTETS];
            if is_dead {
                drop(Reason::KeyExpired);
            } else if octet_count <= least {
                drop(Reason::ShortPacket);
            } else {
                match opener.open_one(&mut turn, &mut received.window, packet, header, octet_count) {
                    Unsealed::Fresh(text) => {
                        opened.note(text.id, text.highest);
                        opened.octets += octet_count;
                        if text.length >= self.least_payload {
                            take(at + text.at, text.length);
                        } else {
                            drop(Reason::ShortFrame);
                        }
                    }
                    Unsealed::Refused(refusal) => drop(Reason::named(refusal.code()).unwrap_or(Reason::Replay)),
                    Unsealed::Reflected => drop(Reason::Reflected),
                    Unsealed::Forged => {
                        received.failed_tags += 1;
                        drop(Reason::TagMismatch);
                    }
                    Unsealed::Past => drop(Reason::ReplayTooOld),
                    Unsealed::Unknown => drop(Reason::UnknownKeyId),
                }
            }
            at += octet_count + run.gap;
        }
        received.packets += opened.fresh as u64;
        received.octets += opened.octets as u64;
        self.so_far.packets.store(received.packets, Relaxed);
        self.so_far.octets.store(received.octets, Relaxed);
        if received.failed_tags >= FAILED_TAGS_RENEGOTIATE && !self.is_told.load(Relaxed) {
            // Forgeries alone make no other limit due.
            self.check_packets.store(0, Relaxed);
        }
        opened
    }

    /// Why the key should be replaced; returned once. Cheap while no limit can have been reached.
    #[inline]
    pub fn limit_reached(&self) -> Option<LimitTrigger> {
        let packets = self.sent.0.ids.drawn() + self.so_far.packets.load(Relaxed);
        let octets = self.sent.0.octets.load(Relaxed) + self.so_far.octets.load(Relaxed);
        let next = NextCheck { packets: self.check_packets.load(Relaxed), octets: self.check_octets.load(Relaxed) };
        if next.is_due(packets, octets) {
            self.look_at_limits()
        } else {
            None
        }
    }

    #[cold]
    fn look_at_limits(&self) -> Option<LimitTrigger> {
        let usage = self.usage();
        let next = self.limits.next_check(&usage);
        self.check_packets.store(next.packets, Relaxed);
        self.check_octets.store(next.octets, Relaxed);
        let trigger = self.limits.reached(&usage)?;
        (!self.is_told.swap(true, Relaxed)).then_some(trigger)
    }

    fn usage(&self) -> KeyUse {
        let received = lock(&self.received.0);
        let sent = self.sent.0.ids.drawn().min(u64::from(MAX_PACKET_ID));
        KeyUse {
            packets_sent: sent,
            octets_sent: self.sent.0.octets.load(Relaxed),
            packets_received: received.packets,
            octets_received: received.octets,
            failed_tags: received.failed_tags,
            highest_packet_id: match &self.engine {
                Engine::Epoch(epoch) => epoch.highest_packet_id(),
                _ if matches!(self.format, Format::Static { .. }) => 0,
                _ => (received.window.highest() as u32).max(sent as u32),
            },
        }
    }

    /// Of a static key: time (upper 32 bits) and id of the newest packet that was accepted; else 0.
    pub fn replay_mark(&self) -> u64 {
        let Engine::Cbc(cbc) = &self.engine else { return 0 };
        // Time and window change together, under this lock.
        let received = lock(&self.received.0);
        cbc.newest_time().map_or(0, |time| u64::from(time) << 32 | received.window.highest())
    }

    /// Shares of the packet ids and of the AEAD limit that are used up, 0..1.
    pub fn used_ratios(&self) -> (f64, f64) {
        let usage = self.usage();
        (usage.packet_id_ratio(), self.limits.aead_ratio(&usage))
    }

    /// Continue from this packet id; for tests.
    #[cfg(test)]
    pub fn set_next_id(&self, id: u64) {
        self.sent.0.ids.set_next(id);
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
