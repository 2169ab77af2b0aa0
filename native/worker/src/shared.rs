//! What the threads of one data plane share.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use bridged_core::fdb::TAP_PORT;
use bridged_core::priority::Priority;
use bridged_core::{Nanos, SECOND};
use bridged_sys::address::{Family, Pin, RawAddress};
use bridged_sys::descriptor::EventFd;
use bridged_sys::tap::mtu_of;
use bridged_sys::thread::CpuClock;
use bridged_sys::udp::{route_mtu, UdpSocket};
use bridged_sys::{
    Errno, EADDRNOTAVAIL, EAFNOSUPPORT, EAGAIN, ECONNREFUSED, EHOSTUNREACH, EMSGSIZE, ENETDOWN, ENETUNREACH, ENOBUFS,
    ENODEV, ENOMEM, EPERM,
};

use crate::contract::{Direction, Event, Settings, OCC_OCTETS};
use crate::control::answers::Answers;
use crate::control::counters::{Counter, Drops, Reason, ThreadCells};
use crate::control::events::EventQueue;
use crate::error::Error;
use crate::lan_to_wan::peer_batches::PeerBatcher;
use crate::sync::{lock, ArcSwap, ArcSwapOption, Mutex};
use crate::tables::endpoints::PeerEndpoints;
use crate::tables::peers::{Path, Peer, Table};
use crate::tables::stations::{Move, SharedFdb};
use crate::tap::{largest_frame, Tap};

const PINNED_SOURCES_MAX: usize = 4096;
/// A peer that floats has its new route asked for its MTU, but not more often than this.
const FLOAT_MTU_PAUSE: Nanos = SECOND;
/// The adapter is asked for its MTU again, but not more often than this.
const TAP_MTU_PAUSE: Nanos = SECOND / 10;
/// Octets of the socket's send buffer where urgent frames go first; the kernel takes twice as much, for its own overhead too.
const PRIORITY_SEND_BUFFER: usize = 128 * 1024;

/// Processor time of one thread.
#[derive(Debug, Clone, Copy)]
pub enum ThreadClock {
    /// It has not started.
    None,
    /// Ask its clock.
    Running(CpuClock),
    /// Nanoseconds in all.
    Ended(u64),
}

/// See the module.
pub struct Shared {
    /// As given; the sizes are those in `sizes`.
    pub settings: Settings,
    /// What TCP is fitted to; may change, see `DataPlane::use_sizes`.
    pub sizes: Sizes,
    /// All peers.
    pub table: ArcSwap<Table>,
    /// Held while the table changes.
    pub changing: Mutex<()>,
    /// Where the peers are.
    pub endpoints: PeerEndpoints,
    /// Peers whose timers have changed, or that have gone: the timer looks at them next.
    pub changed_timers: Mutex<Vec<Arc<Peer>>>,
    /// All stations.
    pub fdb: SharedFdb,
    /// Events for the control plane.
    pub events: EventQueue,
    /// The adapter; None: it vanished.
    pub tap: ArcSwapOption<Tap>,
    /// Octets of the largest frame that the adapter carries, as far as is known: see `tap_carries`.
    pub largest_frame: AtomicUsize,
    /// When its MTU was asked for last; monotonic.
    pub tap_mtu_asked_at: AtomicU64,
    /// Socket `i` is that of worker `i`, or all use the only one; none before there is one.
    pub sockets: ArcSwap<Vec<Arc<UdpSocket>>>,
    /// How to answer hard resets; none while the control plane answers nobody.
    pub answers: ArcSwapOption<Answers>,
    /// Lost frames and packets, those of no peer included.
    pub drops: Drops,
    /// By thread: TAP and wire thread of worker 0, of worker 1, ..., and last whoever holds `sending`.
    pub cells: Box<[ThreadCells]>,
    /// What all other threads send with: control plane and timer.
    pub sending: Mutex<PeerBatcher>,
    /// Datagrams that the kernel dropped: by sockets that are closed, and by worker.
    pub overflow: Overflow,
    /// Answer these from where they wrote to.
    pub pinned_sources: Mutex<PinnedSources>,
    /// One for each thread, the timer last; none once the threads have ended.
    pub wakes: ArcSwap<Vec<EventFd>>,
    /// By thread, as `wakes`.
    pub clocks: Mutex<Vec<ThreadClock>>,
    /// The threads shall end.
    pub is_stopping: AtomicBool,
    /// What sockets could not do when they were made: segment, GRO, choose by peer id.
    pub missing_offloads: [Counter; 3],
    /// Each peer's packets come to one of several sockets, chosen by its id.
    pub is_steered: AtomicBool,
    /// Super-frames that the TAP refused.
    pub coalesce_fallbacks: Counter,
}

/// See `Settings::wan_mtu` and `Settings::mss_limit`.
#[derive(Debug, Default)]
pub struct Sizes {
    /// Octets; 0: what the route takes.
    pub wan_mtu: AtomicU32,
    /// Octets; 0: no limit.
    pub mss_limit: AtomicU16,
}

impl Sizes {
    /// As given at the start.
    pub fn of(settings: &Settings) -> Self {
        Self { wan_mtu: AtomicU32::new(settings.wan_mtu), mss_limit: AtomicU16::new(settings.mss_limit) }
    }
}

/// See `Shared::overflow`.
#[derive(Debug, Default)]
pub struct Overflow {
    /// Of closed sockets.
    pub before: AtomicU64,
    /// Of the present socket of each worker.
    pub now: Box<[AtomicU64]>,
}

impl Overflow {
    /// In all.
    pub fn total(&self) -> u64 {
        self.before.load(Relaxed) + self.now.iter().map(|figure| figure.load(Relaxed)).sum::<u64>()
    }

    /// The sockets are new ones.
    pub fn restart(&self) {
        for figure in &self.now {
            self.before.fetch_add(figure.swap(0, Relaxed), Relaxed);
        }
    }
}

impl Shared {
    /// Threads that count: two for each worker, and one more for everybody else.
    pub fn threads_of(workers: usize) -> usize {
        2 * workers + 1
    }

    /// The place of everybody else in `cells` and `Peer::cells`.
    pub fn common_cell(&self) -> usize {
        self.cells.len() - 1
    }

    /// Count lost frames or packets.
    pub fn count_drops(&self, direction: Direction, reason: Reason, amount: u64, peer: Option<&Peer>) {
        if amount > 0 {
            self.drops.add(direction, reason, amount);
            if let Some(peer) = peer {
                peer.drops.add(direction, reason, amount);
            }
        }
    }

    /// Tell the control plane.
    pub fn report(&self, event: Event) {
        if !self.events.put(event) {
            self.count_drops(Direction::Receive, Reason::EventQueueFull, 1, None);
        }
    }

    /// Hand up an OCC message, if it may be one and its peer does not send too many.
    #[cold]
    pub fn report_occ(&self, peer: &Peer, payload: &[u8], now: Nanos) {
        if payload.len() > OCC_OCTETS {
            self.count_drops(Direction::Receive, Reason::OccLength, 1, Some(peer));
        } else if !peer.may_send_occ(now) {
            self.count_drops(Direction::Receive, Reason::OccRate, 1, Some(peer));
        } else {
            self.report(Event::OccReceived { handle: peer.handle, payload: payload.to_vec() });
        }
    }

    /// Tell of a station that moved.
    pub fn report_move(&self, table: &Table, station: Move) {
        let handle = |port| match port {
            TAP_PORT => None,
            port => table.at_port(port).map(|peer| peer.handle),
        };
        self.report(Event::StationMoved {
            address: station.address,
            previous: handle(station.previous),
            current: handle(station.current),
        });
    }

    /// Have all threads look at what changed.
    pub fn wake_all(&self) {
        for wake in self.wakes.load().iter() {
            wake.signal();
        }
    }

    /// Have a peer's timers looked at soon; they have changed.
    pub fn wake_timer(&self, peer: &Arc<Peer>) {
        lock(&self.changed_timers).push(Arc::clone(peer));
        if let Some(wake) = self.wakes.load().last() {
            wake.signal();
        }
    }

    /// The adapter vanished; told once for each.
    pub fn detach_lost_tap(&self, gone: &Arc<Tap>, number: Errno) {
        let was = self.tap.compare_and_swap(gone, None);
        if was.as_ref().is_some_and(|tap| Arc::ptr_eq(tap, gone)) {
            self.report(Event::TapFailed { number });
            self.wake_all();
        }
    }

    /// The family that the sockets have, or will have.
    pub fn family(&self) -> Family {
        match (self.sockets.load().first(), &self.settings.bind) {
            (Some(socket), _) => socket.family(),
            (None, Some(bind)) => Family::of(bind),
            (None, None) => Family::V6,
        }
    }

    /// The MTU of the way to an endpoint; None: not known.
    pub fn mtu_to(&self, endpoint: &SocketAddr) -> Option<u32> {
        match self.sizes.wan_mtu.load(Relaxed) {
            0 => route_mtu(endpoint),
            mtu => Some(mtu),
        }
    }

    /// The path to an endpoint, answering from the address it last wrote to.
    ///
    /// # Errors
    /// EAFNOSUPPORT.
    pub fn path(&self, endpoint: SocketAddr, pin: Option<Pin>, now: Nanos) -> Result<Path, Errno> {
        let raw = RawAddress::new(&endpoint, self.family())?;
        let pin = pin.or_else(|| lock(&self.pinned_sources).get(&endpoint));
        Ok(Path::new(endpoint, raw, pin, self.mtu_to(&endpoint), now))
    }

    /// The path of a control datagram: nobody asks for its MTU.
    ///
    /// # Errors
    /// EAFNOSUPPORT.
    pub fn control_path(&self, endpoint: SocketAddr) -> Result<Path, Errno> {
        let raw = RawAddress::new(&endpoint, self.family())?;
        Ok(Path::new(endpoint, raw, lock(&self.pinned_sources).get(&endpoint), None, 0))
    }

    /// Ask for the MTU of a peer's route again, at most once in `pause`; whether it changed.
    pub fn refresh_mtu(&self, path: &Path, now: Nanos, pause: Nanos) -> bool {
        let asked = path.asked_at.load(Relaxed);
        if self.sizes.wan_mtu.load(Relaxed) != 0 || now.saturating_sub(asked) < pause {
            return false;
        }
        path.asked_at.store(now, Relaxed);
        path.is_guess.store(false, Relaxed);
        path.set_mtu(route_mtu(&path.endpoint))
    }

    /// Whether the adapter carries a frame that is longer than what it was known to carry: its MTU follows the LAN's.
    #[cold]
    pub fn tap_carries(&self, octets: usize, now: Nanos) -> bool {
        if now.saturating_sub(self.tap_mtu_asked_at.load(Relaxed)) >= TAP_MTU_PAUSE {
            self.tap_mtu_asked_at.store(now, Relaxed);
            if let Some(mtu) = self.tap.load().as_ref().and_then(|tap| mtu_of(&tap.name)) {
                self.largest_frame.store(largest_frame(mtu), Relaxed);
            }
        }
        octets <= self.largest_frame.load(Relaxed)
    }

    /// Follow an authentic packet to its source; false where a peer of another name is there.
    pub fn float(&self, peer: &Arc<Peer>, source: SocketAddr, pin: Option<Pin>, now: Nanos) -> bool {
        // Nobody is asked for a route in vain.
        if self.endpoints.is_held_by_another(&source, peer) {
            return false;
        }
        let Ok(path) = self.path_after(&peer.path.load(), source, pin, now) else { return false };
        let Some(previous) = self.endpoints.float(peer, path) else { return false };
        if previous != source {
            self.report(Event::PeerFloated { handle: peer.handle, endpoint: source, previous });
        }
        true
    }

    /// The path of a peer that floated. Who sends from many ports in turn has a route asked once a second.
    fn path_after(&self, before: &Path, source: SocketAddr, pin: Option<Pin>, now: Nanos) -> Result<Path, Errno> {
        if now.saturating_sub(before.asked_at.load(Relaxed)) >= FLOAT_MTU_PAUSE {
            return self.path(source, pin, now);
        }
        let raw = RawAddress::new(&source, self.family())?;
        let pin = pin.or_else(|| lock(&self.pinned_sources).get(&source));
        Ok(before.elsewhere(source, raw, pin))
    }

    /// Have sockets that can reach `destination`: an unbound one is made for its family.
    ///
    /// # Errors
    /// [`Error::BindFailed`].
    pub fn ensure_socket(&self, destination: &SocketAddr) -> Result<(), Error> {
        if self.settings.bind.is_some() || self.is_stopping.load(Relaxed) {
            return Ok(());
        }
        let family = Family::of(destination);
        if self.sockets.load().first().is_some_and(|socket| socket.family() == family) {
            return Ok(());
        }
        let socket = self
            .open_socket(family, None, false)
            .map_err(|error| Error::BindFailed(format!("no UDP socket for {destination}: {}", plain(&error))))?;
        self.use_sockets(vec![socket]);
        Ok(())
    }

    /// Open a socket with the settings' options.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn open_socket(
        &self,
        family: Family,
        bind: Option<SocketAddr>,
        share: bool,
    ) -> std::io::Result<Arc<UdpSocket>> {
        self.tuned(UdpSocket::open(family, &self.socket_options(bind, share))?)
    }

    /// Use a socket that somebody else has opened, with the settings' options.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn adopt_socket(&self, descriptor: RawFd) -> std::io::Result<Arc<UdpSocket>> {
        self.tuned(UdpSocket::adopt(descriptor, &self.socket_options(None, false))?)
    }

    fn socket_options(&self, bind: Option<SocketAddr>, share: bool) -> bridged_sys::udp::Options {
        bridged_sys::udp::Options {
            bind,
            buffer: self.settings.socket_buffer,
            share,
            busy_poll: self.settings.busy_poll,
        }
    }

    fn tuned(&self, socket: UdpSocket) -> std::io::Result<Arc<UdpSocket>> {
        if self.settings.priority != Priority::Off {
            // Less waits where nothing can overtake it. Without it things go on, only later.
            let _ = socket.set_send_buffer(PRIORITY_SEND_BUFFER);
        }
        Ok(Arc::new(socket))
    }

    /// Go on with these sockets.
    pub fn use_sockets(&self, sockets: Vec<Arc<UdpSocket>>) {
        if let Some(socket) = sockets.first() {
            for (figure, is_there) in self.missing_offloads.iter().zip([socket.has_segment(), socket.has_gro()]) {
                figure.add_shared(u64::from(!is_there));
            }
        }
        self.overflow.restart();
        lock(&self.pinned_sources).clear();
        self.sockets.store(Arc::new(sockets));
        self.wake_all();
    }
}

/// The kernel's words without their number.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Why a datagram was lost, by the errno.
pub fn send_failure(number: Errno) -> Reason {
    match number {
        EAGAIN | ENOBUFS | ENOMEM => Reason::UdpSendFull,
        EMSGSIZE => Reason::Emsgsize,
        ENETUNREACH | EHOSTUNREACH | ENETDOWN | EADDRNOTAVAIL | EAFNOSUPPORT | ENODEV => Reason::Unreachable,
        ECONNREFUSED | EPERM => Reason::Refused,
        _ => Reason::IoError,
    }
}

/// The local addresses that sources of control datagrams wrote to; holds `PINNED_SOURCES_MAX`, and forgets the oldest first.
#[derive(Debug, Default)]
pub struct PinnedSources {
    known: HashMap<SocketAddr, (Pin, u64)>,
    order: VecDeque<(SocketAddr, u64)>,
    stamp: u64,
}

impl PinnedSources {
    /// The local address to answer from.
    pub fn get(&self, source: &SocketAddr) -> Option<Pin> {
        self.known.get(source).map(|(pin, _)| *pin)
    }

    /// Take note of where a source wrote to.
    pub fn remember(&mut self, source: SocketAddr, pin: Pin) {
        self.stamp += 1;
        self.known.insert(source, (pin, self.stamp));
        self.order.push_back((source, self.stamp));
        while self.known.len() > PINNED_SOURCES_MAX || self.order.len() > 2 * PINNED_SOURCES_MAX {
            let Some((oldest, stamp)) = self.order.pop_front() else { return };
            if self.known.get(&oldest).is_some_and(|(_, latest)| *latest == stamp) {
                self.known.remove(&oldest);
            }
        }
    }

    /// Forget one.
    pub fn forget(&mut self, source: &SocketAddr) {
        self.known.remove(source);
    }

    fn clear(&mut self) {
        self.known.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_bounded_and_the_oldest_goes_first() {
        let mut pinned_sources = PinnedSources::default();
        let source = |number: u32| SocketAddr::new(std::net::IpAddr::V4(number.into()), 1);
        for number in 0..PINNED_SOURCES_MAX as u32 + 10 {
            pinned_sources.remember(source(number), Pin::V4([1; 4]));
            pinned_sources.remember(source(0), Pin::V4([2; 4]));
        }
        assert!(
            pinned_sources.known.len() <= PINNED_SOURCES_MAX && pinned_sources.order.len() <= 2 * PINNED_SOURCES_MAX
        );
        assert_eq!(pinned_sources.get(&source(0)), Some(Pin::V4([2; 4])));
        assert_eq!(pinned_sources.get(&source(1)), None);
    }
}
