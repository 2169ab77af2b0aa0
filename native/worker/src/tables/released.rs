//! Packets whose key has come since they arrived, until a WAN thread opens them.

use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::Arc;

use crate::sync::{lock, Mutex};
use crate::tables::early_packets::Early;
use crate::tables::peers::Peer;
use crate::transport::seam::Transport;

/// Packets of one peer.
type OfPeer<T> = (Arc<Peer<T>>, Early<<T as Transport>::Origin>);

/// Those of all peers.
pub struct Released<T: Transport> {
    is_waiting: AtomicBool,
    packets: Mutex<Vec<OfPeer<T>>>,
}

impl<T: Transport> Released<T> {
    /// None.
    pub fn new() -> Released<T> {
        Released { is_waiting: AtomicBool::new(false), packets: Mutex::new(Vec::new()) }
    }

    /// Have them opened.
    pub fn put(&self, peer: &Arc<Peer<T>>, packets: Vec<Early<T::Origin>>) {
        lock(&self.packets).extend(packets.into_iter().map(|early| (Arc::clone(peer), early)));
        self.is_waiting.store(true, Release);
    }

    /// All that wait; cheap where none do.
    #[inline]
    pub fn take(&self) -> Vec<OfPeer<T>> {
        if !self.is_waiting.load(Relaxed) || !self.is_waiting.swap(false, Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&self.packets))
    }
}
