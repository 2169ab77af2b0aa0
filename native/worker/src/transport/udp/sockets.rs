//! UDP as a transport: its sockets, one for each worker where it is bound, and the paths to peers.
//!
//! Source: udp(7), socket(7) (SO_REUSEPORT).

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use bridged_core::priority::Priority;
use bridged_core::Nanos;
use bridged_sys::address::{Family, Pin, RawAddress};
use bridged_sys::descriptor::wait_writable;
use bridged_sys::steer::steer_by_peer_id;
use bridged_sys::udp::{route_mtu, Options, UdpSocket};
use bridged_sys::Errno;

use crate::control::counters::Counter;
use crate::error::Error;
use crate::settings::Settings;
use crate::sync::{lock, ArcSwap, Guard, Mutex};
use crate::transport::mixed_path::MixedPath;
use crate::transport::seam::TransportFigures;
use crate::transport::udp::path::UdpPath;
use crate::transport::udp::pinned_sources::PinnedSources;
use crate::transport::udp::send_failure::plain;

/// Bytes of the send buffer where urgent frames go first; the kernel takes twice as much, for its own overhead too.
const PRIORITY_SEND_BUFFER: usize = 128 * 1024;

/// See the module.
pub struct UdpTransport {
    bind: Option<SocketAddr>,
    workers: usize,
    options: Options,
    has_priority: bool,
    /// Socket `i` is that of worker `i`, or all use the only one; none before there is one.
    sockets: ArcSwap<Vec<Arc<UdpSocket>>>,
    /// Bound sockets of a predecessor, one for each worker, until `bind` takes them.
    inherited: Mutex<Vec<UdpSocket>>,
    /// MTU of the WAN in bytes, as configured; 0: ask each route.
    configured_mtu: AtomicU32,
    /// Answer these from the address that they wrote to.
    pub pinned_sources: Mutex<PinnedSources>,
    overflow: Overflow,
    /// What sockets could not do when they were made: segment, GRO, choose by peer id.
    missing_offloads: [Counter; 3],
    is_steered: AtomicBool,
}

/// Datagrams that the kernel dropped because a socket's buffer was full.
#[derive(Debug, Default)]
struct Overflow {
    of_closed_sockets: AtomicU64,
    by_worker: Box<[AtomicU64]>,
}

impl Overflow {
    fn total(&self) -> u64 {
        self.of_closed_sockets.load(Relaxed) + self.by_worker.iter().map(|count| count.load(Relaxed)).sum::<u64>()
    }

    fn restart(&self) {
        for count in &self.by_worker {
            self.of_closed_sockets.fetch_add(count.swap(0, Relaxed), Relaxed);
        }
    }
}

/// The sockets as they were when a worker looked.
pub struct UdpLink {
    sockets: Guard<Arc<Vec<Arc<UdpSocket>>>>,
    worker: usize,
}

impl UdpLink {
    /// The socket that the worker receives through.
    #[inline]
    pub fn own(&self) -> Option<&UdpSocket> {
        self.sockets.get(self.worker).map(Arc::as_ref)
    }

    /// The socket that the worker sends through: its own, or the only one.
    #[inline]
    pub fn any(&self) -> Option<&UdpSocket> {
        self.own().or(self.sockets.first().map(Arc::as_ref))
    }
}

impl UdpLink {
    /// Send while nobody may cut what leaves through the socket of `any`.
    ///
    /// What other threads send meanwhile is not cut either: no more than a moment's packets that are too large.
    pub fn whole<R>(&self, send: impl FnOnce() -> R) -> R {
        let socket = self.any();
        if let Some(socket) = socket {
            socket.forbid_fragments(true);
        }
        let result = send();
        if let Some(socket) = socket {
            socket.forbid_fragments(false);
        }
        result
    }

    /// See [`Link`](crate::transport::seam::Link); so the others.
    pub fn readable(&self) -> Option<RawFd> {
        self.own().map(AsRawFd::as_raw_fd)
    }

    pub fn writable(&self) -> Option<RawFd> {
        self.any().map(AsRawFd::as_raw_fd)
    }

    pub fn has_room(&self) -> bool {
        self.any().is_none_or(|socket| wait_writable(socket.as_fd(), 0))
    }
}

impl UdpTransport {
    /// Without a socket; nothing is opened yet.
    pub fn new(settings: &Settings) -> UdpTransport {
        let options =
            Options { bind: None, buffer: settings.socket_buffer, share: false, busy_poll: settings.busy_poll };
        UdpTransport {
            bind: settings.bind,
            workers: settings.workers,
            options,
            has_priority: settings.priority != Priority::Off,
            sockets: ArcSwap::from_pointee(Vec::new()),
            inherited: Mutex::new(Vec::new()),
            configured_mtu: AtomicU32::new(settings.wan_mtu),
            pinned_sources: Mutex::new(PinnedSources::default()),
            overflow: Overflow {
                of_closed_sockets: AtomicU64::new(0),
                by_worker: (0..settings.workers).map(|_| AtomicU64::new(0)).collect(),
            },
            missing_offloads: std::array::from_fn(|_| Counter::default()),
            is_steered: AtomicBool::new(false),
        }
    }

    /// Have `bind` use these sockets.
    ///
    /// # Errors
    /// [`Error::System`]; [`Error::BadSetting`]: their number is not that of the workers.
    pub fn inherit(&self, descriptors: &[RawFd]) -> Result<(), Error> {
        if descriptors.len() != self.workers {
            let text = format!("{} sockets were inherited, but there are {} workers", descriptors.len(), self.workers);
            return Err(Error::BadSetting(text));
        }
        let sockets: std::io::Result<Vec<_>> =
            descriptors.iter().map(|descriptor| UdpSocket::adopt(*descriptor, &self.options)).collect();
        *lock(&self.inherited) = sockets?;
        Ok(())
    }

    /// The descriptors of the sockets now.
    pub fn descriptors(&self) -> Vec<RawFd> {
        self.sockets.load().iter().map(|socket| socket.as_raw_fd()).collect()
    }

    /// Open and bind a socket for each worker, where the settings say where to; or use what was inherited.
    ///
    /// # Errors
    /// [`Error::BindFailed`].
    pub fn bind(&self) -> Result<(), Error> {
        let Some(bind) = self.bind else { return Ok(()) };
        let mut sockets = Vec::with_capacity(self.workers);
        let mut endpoint = bind;
        let inherited = std::mem::take(&mut *lock(&self.inherited));
        let missing = self.workers - inherited.len().min(self.workers);
        sockets.extend(inherited.into_iter().map(|socket| self.tuned(socket)));
        for _ in 0..missing {
            let options = Options { bind: Some(endpoint), share: self.workers > 1, ..self.options };
            let socket = UdpSocket::open(Family::of(&bind), &options)
                .map_err(|error| Error::BindFailed(format!("cannot bind UDP {bind}: {}", plain(&error))))?;
            // Port 0 is another one for each; the others share that of the first.
            if let Some(found) = socket.local_endpoint() {
                endpoint.set_port(found.port());
            }
            sockets.push(self.tuned(socket));
        }
        if let Some(socket) = sockets.first().filter(|_| self.workers > 1) {
            // Without it the hash of addresses and ports spreads the peers, which may put all of them on one socket.
            let is_steered = steer_by_peer_id(socket, self.workers).is_ok();
            self.is_steered.store(is_steered, Relaxed);
            self.missing_offloads[2].add_shared(u64::from(!is_steered));
        }
        self.use_sockets(sockets);
        Ok(())
    }

    /// Send and receive through a socket that the caller opened; None: through none.
    ///
    /// # Errors
    /// [`Error::System`]: it is no UDP socket, or there are no more descriptors.
    pub fn adopt(&self, descriptor: Option<RawFd>) -> Result<(), Error> {
        let sockets = match descriptor {
            Some(descriptor) => vec![self.tuned(UdpSocket::adopt(descriptor, &self.options)?)],
            None => Vec::new(),
        };
        self.use_sockets(sockets);
        Ok(())
    }

    /// Have a socket that can reach `destination`: an unbound one is made for its family. Whether there is another one
    /// now.
    ///
    /// # Errors
    /// [`Error::BindFailed`].
    pub fn ensure_socket(&self, destination: &SocketAddr) -> Result<bool, Error> {
        let family = Family::of(destination);
        if self.bind.is_some() || self.sockets.load().first().is_some_and(|socket| socket.family() == family) {
            return Ok(false);
        }
        let socket = UdpSocket::open(family, &self.options)
            .map_err(|error| Error::BindFailed(format!("no UDP socket for {destination}: {}", plain(&error))))?;
        self.use_sockets(vec![self.tuned(socket)]);
        Ok(true)
    }

    /// Close all sockets.
    pub fn close(&self) {
        self.sockets.store(Arc::new(Vec::new()));
    }

    /// Where it is bound; None while it has no port.
    pub fn local_endpoint(&self) -> Option<SocketAddr> {
        self.sockets.load().first().and_then(|socket| socket.local_endpoint())
    }

    /// The largest outer IP packet, in bytes, of paths to new peers; 0: ask each route.
    pub fn set_mtu(&self, mtu: u32) {
        self.configured_mtu.store(mtu, Relaxed);
    }

    /// The current value of `set_mtu`.
    pub fn configured_mtu(&self) -> u32 {
        self.configured_mtu.load(Relaxed)
    }

    /// The address of an endpoint for the present socket, and the local address to answer it from.
    ///
    /// # Errors
    /// EAFNOSUPPORT.
    pub fn address_of(&self, endpoint: &SocketAddr) -> Result<(RawAddress, Option<Pin>), Errno> {
        Ok((RawAddress::new(endpoint, self.family())?, lock(&self.pinned_sources).get(endpoint)))
    }

    /// Record what a worker's socket has dropped so far.
    pub fn set_overflow(&self, worker: usize, datagrams: u32) {
        if let Some(count) = self.overflow.by_worker.get(worker) {
            count.store(u64::from(datagrams), Relaxed);
        }
    }

    /// The pinned source of a path went away with its link or lease: let the kernel choose.
    pub fn unpin(&self, slot: &ArcSwap<MixedPath>) {
        let path = slot.load_full();
        let MixedPath::Udp(udp) = &*path else { return };
        lock(&self.pinned_sources).forget(&udp.endpoint);
        slot.compare_and_swap(&path, Arc::new(MixedPath::Udp(udp.pinned(None))));
    }

    /// Ask for the MTU of a path again; whether it changed.
    pub fn refresh_mtu(&self, path: &UdpPath, now: Nanos) -> bool {
        if self.configured_mtu() != 0 {
            return false;
        }
        path.asked_at.store(now, Relaxed);
        path.is_guess.store(false, Relaxed);
        path.set_mtu(route_mtu(&path.endpoint))
    }

    /// A path bears outer packets of so many bytes; 0: as configured. Whether that is news.
    pub fn use_mtu(&self, path: &UdpPath, octets: u32) -> bool {
        path.set_mtu(if octets > 0 { Some(octets) } else { self.mtu_to(&path.endpoint) })
    }

    /// The sockets now, for a worker.
    #[inline]
    pub fn sockets(&self, worker: usize) -> UdpLink {
        UdpLink { sockets: self.sockets.load(), worker }
    }

    /// Its counters and abilities now.
    pub fn socket_figures(&self) -> TransportFigures {
        let sockets = self.sockets.load();
        let first = sockets.first();
        TransportFigures {
            has_segment: first.is_some_and(|socket| socket.has_segment()),
            has_gro: first.is_some_and(|socket| socket.has_gro()),
            is_steered: self.is_steered.load(Relaxed),
            missing: std::array::from_fn(|index| self.missing_offloads[index].get()),
            receive_overflow: self.overflow.total(),
        }
    }

    /// The family that the sockets have, or will have.
    fn family(&self) -> Family {
        match (self.sockets.load().first(), &self.bind) {
            (Some(socket), _) => socket.family(),
            (None, Some(bind)) => Family::of(bind),
            (None, None) => Family::V6,
        }
    }

    fn mtu_to(&self, endpoint: &SocketAddr) -> Option<u32> {
        match self.configured_mtu() {
            0 => route_mtu(endpoint),
            mtu => Some(mtu),
        }
    }

    /// The path to an endpoint, answering from `pin` or the address that it last wrote to.
    ///
    /// # Errors
    /// EAFNOSUPPORT.
    pub fn path(&self, endpoint: SocketAddr, pin: Option<Pin>, now: Nanos) -> Result<UdpPath, Errno> {
        let (raw, remembered) = self.address_of(&endpoint)?;
        Ok(UdpPath::new(endpoint, raw, pin.or(remembered), self.mtu_to(&endpoint), now))
    }

    fn tuned(&self, socket: UdpSocket) -> Arc<UdpSocket> {
        if self.has_priority {
            // Frames in the socket cannot be overtaken, so keep few there. A failure only costs latency.
            let _ = socket.set_send_buffer(PRIORITY_SEND_BUFFER);
        }
        Arc::new(socket)
    }

    fn use_sockets(&self, sockets: Vec<Arc<UdpSocket>>) {
        if let Some(socket) = sockets.first() {
            for (count, is_there) in self.missing_offloads.iter().zip([socket.has_segment(), socket.has_gro()]) {
                count.add_shared(u64::from(!is_there));
            }
        }
        self.overflow.restart();
        lock(&self.pinned_sources).clear();
        self.sockets.store(Arc::new(sockets));
    }
}
