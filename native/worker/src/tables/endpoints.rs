//! Which peer is at which endpoint. Moving a peer costs the same with any number of peers; the table of peers does not
//! change.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use crate::contract::Endpoint;
use crate::sync::{lock, Mutex};
use crate::tables::peers::Peer;
use crate::transport::seam::{PeerPath, Transport};

/// See the module. A peer has one endpoint, that of its path: both change with the lock held.
pub struct PeerEndpoints<T: Transport> {
    holders: Mutex<HashMap<Endpoint, Arc<Peer<T>>>>,
}

impl<T: Transport> PeerEndpoints<T> {
    /// No peer is anywhere.
    pub fn new() -> PeerEndpoints<T> {
        PeerEndpoints { holders: Mutex::new(HashMap::new()) }
    }

    /// The peer that was heard last from an endpoint.
    pub fn at(&self, endpoint: &Endpoint) -> Option<Arc<Peer<T>>> {
        lock(&self.holders).get(endpoint).cloned()
    }

    /// Whether a peer is there.
    pub fn is_known(&self, endpoint: &Endpoint) -> bool {
        lock(&self.holders).contains_key(endpoint)
    }

    /// Add a peer. It gets its endpoint even if another peer holds it (it reconnected).
    pub fn arrive(&self, peer: &Arc<Peer<T>>) {
        lock(&self.holders).insert(peer.path.load().endpoint(), Arc::clone(peer));
    }

    /// A peer leaves: it has no endpoint any more, even if packets of it are still being handled.
    pub fn leave(&self, peer: &Arc<Peer<T>>) {
        let mut holders = lock(&self.holders);
        peer.is_removed.store(true, Relaxed);
        forget(&mut holders, peer);
    }

    /// Whether the endpoint is that of a peer of another name.
    pub fn is_held_by_another(&self, endpoint: &Endpoint, peer: &Arc<Peer<T>>) -> bool {
        lock(&self.holders).get(endpoint).is_some_and(|holder| is_another(holder, peer))
    }

    /// Move a peer to another path; a peer that held the endpoint loses it. Returns the previous endpoint. None: a peer
    /// of another name holds the endpoint, and nothing changed.
    pub fn float(&self, peer: &Arc<Peer<T>>, path: T::Path) -> Option<Endpoint> {
        let mut holders = lock(&self.holders);
        if holders.get(&path.endpoint()).is_some_and(|holder| is_another(holder, peer)) {
            return None;
        }
        forget(&mut holders, peer);
        if !peer.is_removed.load(Relaxed) {
            holders.insert(path.endpoint(), Arc::clone(peer));
        }
        Some(peer.path.swap(Arc::new(path)).endpoint())
    }
}

fn is_another<T: Transport>(holder: &Arc<Peer<T>>, peer: &Arc<Peer<T>>) -> bool {
    !Arc::ptr_eq(holder, peer) && holder.name != peer.name
}

fn forget<T: Transport>(holders: &mut HashMap<Endpoint, Arc<Peer<T>>>, peer: &Arc<Peer<T>>) {
    let endpoint = peer.path.load().endpoint();
    if holders.get(&endpoint).is_some_and(|holder| Arc::ptr_eq(holder, peer)) {
        holders.remove(&endpoint);
    }
}
