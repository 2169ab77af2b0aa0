//! The peers of a data plane: who they are, their keys, paths, timers and totals; and the table of all of them.
//!
//! Source: bridged/dataplane/contract.py, `PeerSettings`; docs/protocol/data.md#2-5, #5-1, #6-3.
//! A table never changes: a changed copy takes its place, so that threads read it without a lock. Where peers are, which changes
//! with a packet, is not part of it (`endpoints.rs`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use bridged_core::allowance::Allowance;
use bridged_core::fdb::Port;
use bridged_core::packet::DataHeader;
use bridged_core::{Nanos, SECOND};
use bridged_sys::address::{Pin, RawAddress};

use crate::contract::{PeerHandle, PeerSettings};
use crate::control::counters::{Drops, PeerCells};
use crate::error::Error;
use crate::sync::{lock, ArcSwap, ArcSwapOption, AtomicBool, Guard, Mutex};
use crate::tables::endpoints::PeerEndpoints;
use crate::tables::keys::KeySlot;

/// No peer id, in the atomics that hold one.
const NONE: u32 = u32::MAX;
/// The largest peer id that fits into DATA_V2 (and names no peer itself).
const MAX_WIRE_ID: u32 = 0x00FF_FFFF;
const KEY_IDS: usize = 8;
const IP_UDP_OCTETS: [u32; 2] = [20 + 8, 40 + 8];
/// OCC messages of one peer: so many at once, and a second. OpenVPN sends one in ten seconds, or three of a farewell.
const OCC_BURST: u32 = 8;
const OCC_PER_SECOND: u32 = 1;

/// Where a peer is, as the socket sees it, and what its path bears.
#[derive(Debug)]
pub struct Path {
    /// Where.
    pub endpoint: SocketAddr,
    /// The same for the socket.
    pub raw: RawAddress,
    /// The local address to answer from.
    pub pin: Option<Pin>,
    /// UDP payload octets that cross without IP fragmentation; `usize::MAX`: not known.
    pub fitting: AtomicUsize,
    /// Larger datagrams are not sent as segments of a run until `retry_at`.
    pub segment_limit: AtomicUsize,
    /// See `segment_limit`; monotonic.
    pub retry_at: AtomicU64,
    /// When the MTU of the route was asked for last; monotonic.
    pub asked_at: AtomicU64,
    /// `fitting` is that of the path before: the route has not been asked yet.
    pub is_guess: std::sync::atomic::AtomicBool,
}

impl Path {
    /// A path on which nothing has failed yet. `mtu`: of the outer IP packet; None: not known.
    pub fn new(endpoint: SocketAddr, raw: RawAddress, pin: Option<Pin>, mtu: Option<u32>, now: Nanos) -> Path {
        let path = Path {
            endpoint,
            raw,
            pin,
            fitting: AtomicUsize::new(usize::MAX),
            segment_limit: AtomicUsize::new(usize::MAX),
            retry_at: AtomicU64::new(0),
            asked_at: AtomicU64::new(now),
            is_guess: std::sync::atomic::AtomicBool::new(false),
        };
        path.set_mtu(mtu);
        path
    }

    /// Take note of the MTU; whether it is another one than before.
    pub fn set_mtu(&self, mtu: Option<u32>) -> bool {
        let headers = IP_UDP_OCTETS[usize::from(self.endpoint.is_ipv6())];
        let fitting = mtu.map_or(usize::MAX, |mtu| mtu.saturating_sub(headers) as usize);
        self.fitting.swap(fitting, Relaxed) != fitting
    }

    /// The same path from another local address.
    pub fn pinned(&self, pin: Option<Pin>) -> Path {
        Path {
            endpoint: self.endpoint,
            raw: self.raw,
            pin,
            fitting: AtomicUsize::new(self.fitting.load(Relaxed)),
            segment_limit: AtomicUsize::new(self.segment_limit.load(Relaxed)),
            retry_at: AtomicU64::new(self.retry_at.load(Relaxed)),
            asked_at: AtomicU64::new(self.asked_at.load(Relaxed)),
            is_guess: std::sync::atomic::AtomicBool::new(self.is_guess.load(Relaxed)),
        }
    }

    /// A path to another endpoint, taken to bear what this one does until its route is asked.
    pub fn elsewhere(&self, endpoint: SocketAddr, raw: RawAddress, pin: Option<Pin>) -> Path {
        let headers = IP_UDP_OCTETS[usize::from(self.endpoint.is_ipv6())];
        let mtu = match self.fitting.load(Relaxed) {
            usize::MAX => None,
            fitting => Some(fitting as u32 + headers),
        };
        let path = Path::new(endpoint, raw, pin, mtu, self.asked_at.load(Relaxed));
        path.is_guess.store(true, Relaxed);
        path
    }
}

/// Timers of one peer, in nanoseconds; 0: never.
#[derive(Debug, Default)]
pub struct Timers {
    /// Send a ping when nothing was sent for so long.
    pub ping: AtomicU64,
    /// The peer is gone when nothing was heard for so long.
    pub ping_restart: AtomicU64,
    /// Both began here at the earliest.
    pub since: AtomicU64,
    /// `PeerExpired` was told.
    pub is_expired: std::sync::atomic::AtomicBool,
}

/// One peer.
#[derive(Debug)]
pub struct Peer {
    /// Its handle.
    pub handle: PeerHandle,
    /// Its authenticated name.
    pub name: String,
    /// Its port of the switch; never used again for another one.
    pub port: Port,
    receive_peer_id: AtomicU32,
    transmit_peer_id: AtomicU32,
    keys: [ArcSwapOption<KeySlot>; KEY_IDS],
    /// The key to seal with.
    pub sealing: ArcSwapOption<KeySlot>,
    /// It has had a key to seal with: before that it is not there yet.
    pub has_sealed: AtomicBool,
    /// Where it is.
    pub path: ArcSwap<Path>,
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
    occ: Mutex<Allowance>,
}

impl Peer {
    /// A peer without keys. `threads`: how many count its frames.
    pub fn new(settings: &PeerSettings, port: Port, path: Path, threads: usize, now: Nanos) -> Peer {
        let peer = Peer {
            handle: settings.handle,
            name: settings.name.clone(),
            port,
            receive_peer_id: AtomicU32::new(NONE),
            transmit_peer_id: AtomicU32::new(NONE),
            keys: std::array::from_fn(|_| ArcSwapOption::empty()),
            sealing: ArcSwapOption::empty(),
            has_sealed: AtomicBool::new(false),
            path: ArcSwap::from_pointee(path),
            timers: Timers::default(),
            cells: (0..threads).map(|_| PeerCells::default()).collect(),
            drops: Drops::default(),
            send_lock: Mutex::new(()),
            is_removed: AtomicBool::new(false),
            occ: Mutex::new(Allowance::new(OCC_BURST, OCC_PER_SECOND)),
        };
        peer.identify(settings.receive_peer_id, settings.transmit_peer_id);
        peer.restart_timers(settings.ping, settings.ping_restart, now);
        peer
    }

    /// Other peer ids.
    pub fn identify(&self, receive: Option<u32>, transmit: Option<u32>) {
        self.receive_peer_id.store(receive.unwrap_or(NONE), Relaxed);
        self.transmit_peer_id.store(transmit.unwrap_or(NONE), Relaxed);
    }

    /// The id that selects it.
    pub fn receive_peer_id(&self) -> Option<u32> {
        Some(self.receive_peer_id.load(Relaxed)).filter(|id| *id != NONE)
    }

    /// Other timers; they begin now. Seconds.
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

    /// The key of this id.
    pub fn key(&self, key_id: u8) -> Option<Arc<KeySlot>> {
        self.keys.get(usize::from(key_id)).and_then(ArcSwapOption::load_full)
    }

    /// The key of this id, for as long as a batch takes.
    pub fn key_guard(&self, key_id: u8) -> Guard<Option<Arc<KeySlot>>> {
        self.keys[usize::from(key_id & 7)].load()
    }

    /// Put a key in; one of the same id goes, and is no longer sealed with.
    pub fn install(&self, slot: KeySlot) {
        let key_id = slot.key_id;
        self.drop_key(key_id);
        self.keys[usize::from(key_id & 7)].store(Some(Arc::new(slot)));
    }

    /// Forget a key; unknown ones are passed over.
    pub fn drop_key(&self, key_id: u8) {
        let Some(place) = self.keys.get(usize::from(key_id)) else { return };
        let Some(slot) = place.swap(None) else { return };
        if self.sealing.load().as_ref().is_some_and(|sealing| Arc::ptr_eq(sealing, &slot)) {
            self.sealing.store(None);
        }
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

/// All peers, and the directions to find one: handle, port, wire peer id.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// In the order in which they came.
    pub peers: Vec<Arc<Peer>>,
    by_handle: HashMap<PeerHandle, Arc<Peer>>,
    by_port: HashMap<Port, Arc<Peer>>,
    by_wire_id: HashMap<u32, Arc<Peer>>,
    take_any: Vec<Arc<Peer>>,
}

impl Table {
    /// The peer of a handle.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`].
    pub fn get(&self, handle: PeerHandle) -> Result<&Arc<Peer>, Error> {
        self.by_handle.get(&handle).ok_or(Error::UnknownPeer(handle))
    }

    /// The peer at a port of the switch.
    #[inline]
    pub fn at_port(&self, port: Port) -> Option<&Arc<Peer>> {
        match self.peers.as_slice() {
            [only] => (only.port == port).then_some(only),
            _ => self.by_port.get(&port),
        }
    }

    /// The peer of a DATA_V2 packet: an id that nobody has is taken by the peer at `source`, or by the only
    /// one, if that takes any.
    pub fn find(&self, wire_id: u32, source: &SocketAddr, endpoints: &PeerEndpoints) -> Option<Cow<'_, Arc<Peer>>> {
        if let Some(peer) = self.by_wire_id.get(&wire_id) {
            return Some(Cow::Borrowed(peer));
        }
        match self.take_any.as_slice() {
            [] => None,
            [only] => Some(Cow::Borrowed(only)),
            _ => endpoints.at(source).filter(|peer| peer.receive_peer_id().is_none()).map(Cow::Owned),
        }
    }

    /// A table with one more peer.
    ///
    /// # Errors
    /// [`Error::DuplicatePeer`]: handle or wire peer id are in use; [`Error::BadSetting`]: an id that does not fit.
    pub fn with(&self, peer: &Arc<Peer>, wire_id: Option<u32>) -> Result<Table, Error> {
        if self.by_handle.contains_key(&peer.handle) {
            return Err(Error::DuplicatePeer(format!("peer handle {}", peer.handle)));
        }
        self.check_wire_id(peer, wire_id)?;
        let mut table = self.clone();
        table.peers.push(Arc::clone(peer));
        table.by_handle.insert(peer.handle, Arc::clone(peer));
        table.by_port.insert(peer.port, Arc::clone(peer));
        table.index_wire_id(peer, wire_id);
        Ok(table)
    }

    /// A table without a peer.
    pub fn without(&self, peer: &Arc<Peer>) -> Table {
        let mut table = self.clone();
        let is_other = |other: &Arc<Peer>| !Arc::ptr_eq(other, peer);
        table.peers.retain(is_other);
        table.by_handle.remove(&peer.handle);
        table.by_port.remove(&peer.port);
        table.unindex_wire_id(peer);
        table
    }

    /// A table in which a peer has another wire id.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn with_wire_id(&self, peer: &Arc<Peer>, wire_id: Option<u32>) -> Result<Table, Error> {
        self.check_wire_id(peer, wire_id)?;
        let mut table = self.clone();
        table.unindex_wire_id(peer);
        table.index_wire_id(peer, wire_id);
        Ok(table)
    }

    fn check_wire_id(&self, peer: &Arc<Peer>, wire_id: Option<u32>) -> Result<(), Error> {
        let Some(id) = wire_id else { return Ok(()) };
        if id > MAX_WIRE_ID {
            return Err(Error::BadSetting(format!("peer id {id} does not fit 24 bits")));
        }
        match self.by_wire_id.get(&id) {
            Some(other) if !Arc::ptr_eq(other, peer) => Err(Error::DuplicatePeer(format!("peer id {id}"))),
            _ => Ok(()),
        }
    }

    fn index_wire_id(&mut self, peer: &Arc<Peer>, wire_id: Option<u32>) {
        match wire_id {
            Some(id) => {
                self.by_wire_id.insert(id, Arc::clone(peer));
            }
            None => self.take_any.push(Arc::clone(peer)),
        }
    }

    fn unindex_wire_id(&mut self, peer: &Arc<Peer>) {
        self.by_wire_id.retain(|_, other| !Arc::ptr_eq(other, peer));
        self.take_any.retain(|other| !Arc::ptr_eq(other, peer));
    }
}
