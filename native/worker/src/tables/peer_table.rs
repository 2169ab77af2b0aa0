//! All peers of a data plane, and how to find one.
//!
//! A table never changes: a changed copy takes its place, so threads read it without a lock. Where peers are changes
//! with a packet and is not part of it (`endpoints`).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::Arc;

use bridged_core::fdb::{Port, TAP_PORT};
use bridged_core::packet::NO_PEER_ID;

use crate::contract::{Endpoint, PeerHandle};
use crate::error::Error;
use crate::sync::{lock, ArcSwap, AtomicU64, Mutex};
use crate::tables::endpoints::PeerEndpoints;
use crate::tables::peers::Peer;
use crate::transport::seam::Transport;

/// The current table of peers, and what changes beside it.
pub struct Peers<T: Transport> {
    /// All peers.
    pub table: ArcSwap<Table<T>>,
    /// How often another table took its place.
    replaced: AtomicU64,
    /// Held while the table changes.
    pub changing: Mutex<()>,
    /// Where the peers are.
    pub endpoints: PeerEndpoints<T>,
    /// Peers whose timers changed, or that have gone: the timer thread looks at them next.
    pub changed_timers: Mutex<Vec<Arc<Peer<T>>>>,
}

impl<T: Transport> Peers<T> {
    /// No peers.
    pub fn new() -> Peers<T> {
        Peers {
            table: ArcSwap::from_pointee(Table::new()),
            replaced: AtomicU64::new(0),
            changing: Mutex::new(()),
            endpoints: PeerEndpoints::new(),
            changed_timers: Mutex::new(Vec::new()),
        }
    }

    /// Forget all peers and their keys.
    pub fn clear(&self) {
        let _changing = lock(&self.changing);
        for peer in &self.table.load().peers {
            self.endpoints.leave(peer);
            peer.drop_keys();
        }
        self.replace(Table::new());
        lock(&self.changed_timers).clear();
    }

    /// Put another table in its place; the caller holds `changing`.
    pub fn replace(&self, table: Table<T>) {
        self.table.store(Arc::new(table));
        self.replaced.fetch_add(1, Release);
    }

    /// Ask before loading the table: that table is the current one for as long as the answer stays the same.
    #[inline]
    pub fn version(&self) -> u64 {
        self.replaced.load(Acquire)
    }
}

/// All peers, found by handle (which is its port of the switch) or wire peer id.
pub struct Table<T: Transport> {
    /// In the order in which they came.
    pub peers: Vec<Arc<Peer<T>>>,
    by_handle: HashMap<PeerHandle, Arc<Peer<T>>>,
    by_wire_id: HashMap<u32, Arc<Peer<T>>>,
    take_any: Vec<Arc<Peer<T>>>,
}

impl<T: Transport> Table<T> {
    /// Without peers.
    pub fn new() -> Table<T> {
        Table { peers: Vec::new(), by_handle: HashMap::new(), by_wire_id: HashMap::new(), take_any: Vec::new() }
    }

    fn copy(&self) -> Table<T> {
        Table {
            peers: self.peers.clone(),
            by_handle: self.by_handle.clone(),
            by_wire_id: self.by_wire_id.clone(),
            take_any: self.take_any.clone(),
        }
    }

    /// The peer of a handle.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`].
    pub fn get(&self, handle: PeerHandle) -> Result<&Arc<Peer<T>>, Error> {
        self.by_handle.get(&handle).ok_or(Error::UnknownPeer(handle))
    }

    /// The peer at a port of the switch.
    #[inline]
    pub fn at_port(&self, port: Port) -> Option<&Arc<Peer<T>>> {
        match self.peers.as_slice() {
            [only] => (only.port == port).then_some(only),
            _ => self.by_handle.get(&port),
        }
    }

    /// The peer of a DATA_V2 packet: an id that nobody has is taken by the peer at `source`, or by the only
    /// one, if that takes any.
    pub fn find(&self, wire_id: u32, source: &Endpoint, endpoints: &PeerEndpoints<T>) -> Option<Cow<'_, Arc<Peer<T>>>> {
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
    pub fn with(&self, peer: &Arc<Peer<T>>, wire_id: Option<u32>) -> Result<Table<T>, Error> {
        if peer.port == TAP_PORT {
            return Err(Error::BadSetting("peer handle 0 is the TAP's port".to_owned()));
        }
        if self.by_handle.contains_key(&peer.handle) {
            return Err(Error::DuplicatePeer(format!("peer handle {}", peer.handle)));
        }
        self.check_wire_id(peer, wire_id)?;
        let mut table = self.copy();
        table.peers.push(Arc::clone(peer));
        table.by_handle.insert(peer.handle, Arc::clone(peer));
        table.index_wire_id(peer, wire_id);
        Ok(table)
    }

    /// A table without a peer.
    pub fn without(&self, peer: &Arc<Peer<T>>) -> Table<T> {
        let mut table = self.copy();
        let is_other = |other: &Arc<Peer<T>>| !Arc::ptr_eq(other, peer);
        table.peers.retain(is_other);
        table.by_handle.remove(&peer.handle);
        table.unindex_wire_id(peer);
        table
    }

    fn check_wire_id(&self, peer: &Arc<Peer<T>>, wire_id: Option<u32>) -> Result<(), Error> {
        let Some(id) = wire_id else { return Ok(()) };
        if id > NO_PEER_ID {
            return Err(Error::BadSetting(format!("peer id {id} does not fit 24 bits")));
        }
        match self.by_wire_id.get(&id) {
            Some(other) if !Arc::ptr_eq(other, peer) => Err(Error::DuplicatePeer(format!("peer id {id}"))),
            _ => Ok(()),
        }
    }

    fn index_wire_id(&mut self, peer: &Arc<Peer<T>>, wire_id: Option<u32>) {
        match wire_id {
            Some(id) => {
                self.by_wire_id.insert(id, Arc::clone(peer));
            }
            None => self.take_any.push(Arc::clone(peer)),
        }
    }

    fn unindex_wire_id(&mut self, peer: &Arc<Peer<T>>) {
        self.by_wire_id.retain(|_, other| !Arc::ptr_eq(other, peer));
        self.take_any.retain(|other| !Arc::ptr_eq(other, peer));
    }
}
