//! What holds for all frames of one turn, and whether it still does.
//!
//! A frame is forwarded by a table that is not older than the frame: a peer that was there when the LAN sent it gets it.
//! The thread may lose the processor between loading the table and reading the TAP, or read a burst for long.

use std::sync::Arc;

use bridged_sys::thread::now;

use crate::shared::Shared;
use crate::sync::Guard;
use crate::tables::peer_table::Table;
use crate::transport::seam::{SendContext, Transport};

/// The table and the sockets as they are now.
pub struct View<T: Transport> {
    version: u64,
    table: Guard<Arc<Table<T>>>,
    pub link: T::Link,
}

impl<T: Transport> View<T> {
    /// Of a worker.
    #[inline]
    pub fn of(shared: &Shared<T>, worker: usize) -> View<T> {
        let version = shared.peers.version();
        View { version, table: shared.peers.table.load(), link: shared.transport.link(worker) }
    }

    /// What forwarding takes; its time is now.
    #[inline]
    pub fn scene<'a>(&'a self, shared: &'a Shared<T>) -> Scene<'a, T> {
        Scene { shared, version: self.version, table: &self.table, send: shared.send_context(&self.link, now()) }
    }
}

/// See the module.
pub struct Scene<'a, T: Transport> {
    pub shared: &'a Shared<T>,
    version: u64,
    pub table: &'a Table<T>,
    pub send: SendContext<'a, T>,
}

impl<T: Transport> Scene<'_, T> {
    /// No peer came or went since; ask after reading a frame.
    #[inline]
    pub fn is_current(&self) -> bool {
        self.shared.peers.version() == self.version
    }
}
