//! Peers whose key has come while packets waited for it, until the worker that holds these opens them.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::Arc;

use crate::sync::{lock, AtomicBool, Mutex};
use crate::tables::peers::Peer;
use crate::transport::seam::Transport;

/// A peer, and the id of its key.
type OfPeer<T> = (Arc<Peer<T>>, u8);

/// Those of one worker.
struct OfWorker<T: Transport> {
    is_any: AtomicBool,
    peers: Mutex<Vec<OfPeer<T>>>,
}

/// Those of all workers.
pub struct Released<T: Transport>(Box<[OfWorker<T>]>);

impl<T: Transport> Released<T> {
    /// None.
    pub fn new(workers: usize) -> Released<T> {
        let none = || OfWorker { is_any: AtomicBool::new(false), peers: Mutex::new(Vec::new()) };
        Released((0..workers).map(|_| none()).collect())
    }

    /// Have a peer's packets under this key opened.
    pub fn put(&self, worker: usize, peer: &Arc<Peer<T>>, key_id: u8) {
        let Some(of) = self.0.get(worker) else { return };
        lock(&of.peers).push((Arc::clone(peer), key_id));
        of.is_any.store(true, Release);
    }

    /// All of a worker; cheap where there are none.
    #[inline]
    pub fn take(&self, worker: usize) -> Vec<OfPeer<T>> {
        let Some(of) = self.0.get(worker) else { return Vec::new() };
        if !of.is_any.load(Relaxed) || !of.is_any.swap(false, Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&of.peers))
    }
}
