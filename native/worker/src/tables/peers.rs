//! One peer of a data plane: who it is, its keys, path, timers and totals.
//!
//! Source: bridged/dataplane/contract/settings.py, `PeerSettings`; docs/protocol/data.md#2-5, #5-1, #6-3.

use std::sync::atomic::{
    AtomicU32, AtomicU64, AtomicU8,
    Ordering::{Acquire, Relaxed},
};
use std::sync::Arc;

use bridged_core::allowance::Allowance;
use bridged_core::fdb::Port;
use bridged_core::fragment::{Reassembly, FRAGMENT_HEADER};
use bridged_core::framing::Framing;
use bridged_core::layout::{Format, Layout};
use bridged_core::packet::DataHeader;
use bridged_core::{Nanos, SECOND};

use crate::contract::{PeerHandle, PeerSettings};
use crate::control::counters::{Drops, PeerCells};
use crate::sync::{lock, ArcSwap, ArcSwapOption, AtomicBool, Guard, Mutex};
use crate::tables::early_packets::EarlyPackets;
use crate::tables::keys::KeySlot;
use crate::tables::stations::Ingress;
use crate::transport::seam::Transport;

/// No peer id, in the atomics that hold one.
const NONE: u32 = u32::MAX;
const KEY_IDS: usize = 8;
/// OCC messages that one peer may send at once, and in each second after that: two ends that probe their path send two
/// each.
pub(crate) const OCC_BURST: u32 = 16;
const OCC_PER_SECOND: u32 = 4;

/// Timers of one peer, in nanoseconds; 0: never.
#[derive(Debug, Default)]
pub struct Timers {
    /// Send a ping after this long without sending.
    pub ping: AtomicU64,
    /// Report the peer as expired after this long without hearing it.
    pub ping_restart: AtomicU64,
    /// Both began here at the earliest.
    pub since: AtomicU64,
    /// `PeerExpired` was reported.
    pub is_expired: std::sync::atomic::AtomicBool,
}

/// One peer.
pub struct Peer<T: Transport> {
    /// Its handle.
    pub handle: PeerHandle,
    /// Its authenticated name.
    pub name: String,
    /// Its port of the switch: the handle.
    pub port: Port,
    /// How its payloads are framed, both ways.
    pub framing: Framing,
    /// Bytes of the largest packet; payloads that need more are cut. 0: none are, or joined.
    pub fragment: usize,
    /// Number of the next payload that is cut.
    pub fragment_sequence: std::sync::atomic::AtomicU8,
    /// Parts of its payloads that wait for others; None: it cuts none.
    pub reassembly: Option<Mutex<Reassembly>>,
    /// `FramingRefused` was reported.
    pub is_framing_told: std::sync::atomic::AtomicBool,
    receive_peer_id: AtomicU32,
    transmit_peer_id: AtomicU32,
    keys: [ArcSwapOption<KeySlot>; KEY_IDS],
    /// The key to seal with.
    pub sealing: ArcSwapOption<KeySlot>,
    /// How it packs frames.
    format: AtomicU8,
    /// It has had a key to seal with: before that it is not there yet.
    pub has_sealed: AtomicBool,
    /// Where it is.
    pub path: ArcSwap<T::Path>,
    /// Its timers.
    pub timers: Timers,
    /// By thread.
    pub cells: Box<[PeerCells]>,
    /// Lost frames and packets.
    pub drops: Drops,
    /// Held while packets are sealed and sent, so that packet ids leave in order whichever thread sends.
    pub send_lock: Mutex<()>,
    /// It has left the table: learn nothing of it any more.
    pub is_removed: AtomicBool,
    /// Packets that came before their key.
    pub early: EarlyPackets<T::Origin>,
    occ: Mutex<Allowance>,
}

impl<T: Transport> Peer<T> {
    /// A peer without keys. `threads`: how many count its frames.
    pub fn new(settings: &PeerSettings, path: T::Path, threads: usize, now: Nanos) -> Peer<T> {
        let peer = Peer {
            handle: settings.handle,
            name: settings.name.clone(),
            port: settings.handle,
            framing: settings.framing,
            fragment: settings.fragment,
            fragment_sequence: std::sync::atomic::AtomicU8::new(now as u8),
            reassembly: (settings.fragment > 0).then(|| Mutex::new(Reassembly::default())),
            is_framing_told: std::sync::atomic::AtomicBool::new(false),
            receive_peer_id: AtomicU32::new(NONE),
            transmit_peer_id: AtomicU32::new(NONE),
            keys: std::array::from_fn(|_| ArcSwapOption::empty()),
            sealing: ArcSwapOption::empty(),
            format: AtomicU8::new(Format::Aead.to_byte()),
            has_sealed: AtomicBool::new(false),
            path: ArcSwap::from_pointee(path),
            timers: Timers::default(),
            cells: (0..threads).map(|_| PeerCells::default()).collect(),
            drops: Drops::default(),
            send_lock: Mutex::new(()),
            is_removed: AtomicBool::new(false),
            early: EarlyPackets::new(),
            occ: Mutex::new(Allowance::new(OCC_BURST, OCC_PER_SECOND)),
        };
        peer.identify(settings.receive_peer_id, settings.transmit_peer_id);
        peer.restart_timers(settings.ping, settings.ping_restart, now);
        peer
    }

    /// Set the peer ids.
    pub fn identify(&self, receive: Option<u32>, transmit: Option<u32>) {
        self.receive_peer_id.store(receive.unwrap_or(NONE), Relaxed);
        self.transmit_peer_id.store(transmit.unwrap_or(NONE), Relaxed);
    }

    /// What the switch sees of frames from this peer.
    #[inline]
    pub fn ingress(&self) -> Ingress<'_> {
        Ingress { port: self.port, is_removed: Some(&self.is_removed) }
    }

    /// The id that selects it.
    pub fn receive_peer_id(&self) -> Option<u32> {
        Some(self.receive_peer_id.load(Relaxed)).filter(|id| *id != NONE)
    }

    /// Set the timers in seconds; they begin now.
    pub fn restart_timers(&self, ping: Option<f64>, ping_restart: Option<f64>, now: Nanos) {
        self.timers.ping.store(nanoseconds(ping), Relaxed);
        self.timers.ping_restart.store(nanoseconds(ping_restart), Relaxed);
        self.timers.since.store(now, Relaxed);
        self.timers.is_expired.store(false, Relaxed);
    }

    /// What packets sealed with this key begin with.
    pub fn header(&self, key_id: u8) -> DataHeader {
        let id = self.transmit_peer_id.load(Relaxed);
        DataHeader { key_id, peer_id: (id != NONE).then_some(id) }
    }

    /// Whether senders count it as there: from its first key to seal with until it leaves the table.
    pub fn is_here(&self) -> bool {
        self.has_sealed.load(Acquire) && !self.is_removed.load(Acquire)
    }

    /// The key of this id.
    pub fn key(&self, key_id: u8) -> Option<Arc<KeySlot>> {
        self.keys.get(usize::from(key_id)).and_then(ArcSwapOption::load_full)
    }

    /// The key of this id, for as long as a batch takes.
    pub fn key_guard(&self, key_id: u8) -> Guard<Option<Arc<KeySlot>>> {
        self.keys[usize::from(key_id & 7)].load()
    }

    /// Put a key in; one of the same id goes, and is no longer sealed with.
    pub fn install(&self, mut slot: KeySlot) {
        let key_id = slot.key_id;
        if self.reassembly.is_some() {
            // The last part of a payload may be short.
            slot.least_payload = 1;
        }
        self.drop_key(key_id);
        self.keys[usize::from(key_id & 7)].store(Some(Arc::new(slot)));
    }

    /// Forget a key; unknown ones are ignored.
    pub fn drop_key(&self, key_id: u8) {
        let Some(place) = self.keys.get(usize::from(key_id)) else { return };
        let Some(slot) = place.swap(None) else { return };
        if self.sealing.load().as_ref().is_some_and(|sealing| Arc::ptr_eq(sealing, &slot)) {
            self.sealing.store(None);
        }
    }

    /// Seal with this key from now on.
    pub fn seal_with(&self, slot: Arc<KeySlot>) {
        self.format.store(slot.format.to_byte(), Relaxed);
        self.sealing.store(Some(slot));
    }

    /// How packets that are sealed for it are laid out.
    #[inline]
    pub fn layout(&self) -> Layout {
        Layout::of(&self.header(0), Format::from_byte(self.format.load(Relaxed)))
    }

    /// Something stands around its frames inside of a packet.
    #[inline]
    pub fn is_framed(&self) -> bool {
        self.framing != Framing::None || self.fragment > 0
    }

    /// Bytes of the largest frame in a packet of at most so many bytes.
    #[inline]
    pub fn fit(&self, packet: usize) -> usize {
        let packet = if self.fragment > 0 { packet.min(self.fragment) } else { packet };
        self.layout().fit(packet).saturating_sub(self.around_frames())
    }

    /// Bytes of the largest frame of at most so many bytes that fills whole AES blocks of its packet.
    #[inline]
    pub fn whole_blocks(&self, frame: usize) -> usize {
        let around = self.around_frames();
        self.layout().whole_blocks(frame.saturating_add(around)).saturating_sub(around)
    }

    /// Bytes that stand around its frames inside of a packet.
    #[inline]
    fn around_frames(&self) -> usize {
        self.framing.most() + if self.fragment > 0 { FRAGMENT_HEADER } else { 0 }
    }

    /// Forget all keys.
    pub fn drop_keys(&self) {
        self.sealing.store(None);
        for place in &self.keys {
            place.store(None);
        }
    }

    /// All keys.
    pub fn all_keys(&self) -> Vec<Arc<KeySlot>> {
        self.keys.iter().filter_map(ArcSwapOption::load_full).collect()
    }

    /// Whether one more OCC message of it may go up.
    pub fn may_send_occ(&self, now: Nanos) -> bool {
        lock(&self.occ).take(now)
    }

    /// When something was sent last, or the timers began.
    pub fn sent_at(&self) -> Nanos {
        let newest = self.cells.iter().map(|cell| cell.sent_at.get()).max().unwrap_or(0);
        newest.max(self.timers.since.load(Relaxed))
    }

    /// When something authentic was heard last; None: never.
    pub fn seen_at(&self) -> Option<Nanos> {
        self.cells.iter().map(|cell| cell.heard_at.get()).max().filter(|newest| *newest > 0)
    }

    /// When a ping is due, or the peer's expiry; None: never.
    pub fn deadlines(&self) -> (Option<Nanos>, Option<Nanos>) {
        let (ping, restart) = (self.timers.ping.load(Relaxed), self.timers.ping_restart.load(Relaxed));
        let ping_at = (ping > 0 && self.sealing.load().is_some()).then(|| self.sent_at().saturating_add(ping));
        let heard = self.seen_at().unwrap_or(0).max(self.timers.since.load(Relaxed));
        let waits = restart > 0 && !self.timers.is_expired.load(Relaxed);
        (ping_at, waits.then(|| heard.saturating_add(restart)))
    }
}

fn nanoseconds(seconds: Option<f64>) -> Nanos {
    seconds.map_or(0, |seconds| ((seconds * SECOND as f64) as Nanos).max(1))
}
