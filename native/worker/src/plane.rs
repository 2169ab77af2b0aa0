//! The data plane, put together: the contract's verbs.
//!
//! Source: bridged/dataplane/contract.py.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use bridged_core::fdb::TAP_PORT;
use bridged_core::limits::KeyLimits;
use bridged_core::priority::Priority;
use bridged_sys::address::Family;
use bridged_sys::descriptor::EventFd;
use bridged_sys::steer::steer_by_peer_id;
use bridged_sys::thread::{block_signals, now, CpuClock};

use crate::contract::{
    Direction, Event, FdbEntry, Key, PeerHandle, PeerSettings, PeerSnapshot, PeerUpdate, Settings, Snapshot, TapPort,
};
use crate::control::answers::Answers;
use crate::control::counters::{Counter, Drops, ThreadCells};
use crate::control::events::EventQueue;
use crate::control::snapshots;
use crate::control::timers;
use crate::error::Error;
use crate::lan_to_wan::peer_batches::PeerBatcher;
use crate::lan_to_wan::priority_reader::PriorityReader;
use crate::lan_to_wan::reader::LanReader;
use crate::shared::{plain, send_failure, Overflow, PinnedSources, Shared, Sizes, ThreadClock};
use crate::sync::{lock, ArcSwap, ArcSwapOption, Mutex};
use crate::tables::endpoints::PeerEndpoints;
use crate::tables::keys::KeySlot;
use crate::tables::peers::{Peer, Table};
use crate::tables::stations::SharedFdb;
use crate::tap::Tap;
use crate::wan_to_lan::receiver::WanReceiver;

const MAX_WORKERS: usize = 64;
const MAX_REPLAY_WINDOW: usize = 65_536;
/// Microseconds: whoever stops a data plane waits for a rest to end.
const MAX_MODERATION: u32 = 10_000_000;

/// One tunnel's frames; see the crate. Dropping it stops it.
pub struct DataPlane {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    next_port: AtomicU32,
    next_tap: AtomicU64,
    /// Cipher of the newest key, by its name.
    aead: Mutex<&'static str>,
    txqueue_dropped: AtomicU64,
}

impl DataPlane {
    /// A data plane that has not started yet. Duplicates the TAP's descriptors.
    ///
    /// # Errors
    /// [`Error::BadSetting`], [`Error::ReplayWindow`], [`Error::System`].
    pub fn new(settings: Settings) -> Result<DataPlane, Error> {
        check(&settings)?;
        let workers = settings.workers;
        let tap = Tap::new(&settings.tap, settings.coalesce, workers, 1)?;
        let threads = Shared::threads_of(workers);
        let mut wakes = Vec::with_capacity(threads);
        for _ in 0..threads {
            wakes.push(EventFd::new()?);
        }
        let fdb = SharedFdb::new(
            settings.fdb_capacity,
            settings.addresses_per_peer,
            settings.ageing,
            settings.move_hold,
            random()?,
        );
        let shared = Shared {
            sizes: Sizes::of(&settings),
            settings,
            table: ArcSwap::from_pointee(Table::default()),
            changing: Mutex::new(()),
            endpoints: PeerEndpoints::default(),
            changed_timers: Mutex::new(Vec::new()),
            fdb,
            events: EventQueue::new(random()?)?,
            largest_frame: AtomicUsize::new(tap.largest_frame),
            tap_mtu_asked_at: AtomicU64::new(0),
            tap: ArcSwapOption::from_pointee(tap),
            sockets: ArcSwap::from_pointee(Vec::new()),
            answers: ArcSwapOption::from_pointee(None),
            drops: Drops::default(),
            cells: (0..threads).map(|_| ThreadCells::default()).collect(),
            sending: Mutex::new(PeerBatcher::new(threads - 1)),
            overflow: Overflow { before: AtomicU64::new(0), now: (0..workers).map(|_| AtomicU64::new(0)).collect() },
            pinned_sources: Mutex::new(PinnedSources::default()),
            wakes: ArcSwap::from_pointee(wakes),
            clocks: Mutex::new(vec![ThreadClock::None; threads]),
            is_stopping: AtomicBool::new(false),
            missing_offloads: [Counter::default(), Counter::default(), Counter::default()],
            is_steered: AtomicBool::new(false),
            coalesce_fallbacks: Counter::default(),
        };
        Ok(DataPlane {
            shared: Arc::new(shared),
            threads: Mutex::new(Vec::new()),
            next_port: AtomicU32::new(TAP_PORT + 1),
            next_tap: AtomicU64::new(2),
            aead: Mutex::new(""),
            txqueue_dropped: AtomicU64::new(0),
        })
    }

    /// Open the UDP socket and begin; frames flow once a peer has a key in use.
    ///
    /// # Errors
    /// [`Error::BindFailed`] with endpoint and reason; [`Error::System`].
    pub fn start(&self) -> Result<(), Error> {
        let mut threads = lock(&self.threads);
        if !threads.is_empty() || self.shared.is_stopping.load(Relaxed) {
            return Ok(());
        }
        if let Some(bind) = self.shared.settings.bind {
            self.bind(bind)?;
        }
        for worker in 0..self.shared.settings.workers {
            let shared = Arc::clone(&self.shared);
            let mut inward = WanReceiver::new(Arc::clone(&self.shared), worker, random()?);
            let name = format!("tap-{worker}");
            threads.push(if shared.settings.priority == Priority::Off {
                let mut outward = LanReader::new(shared, worker, random()?);
                self.spawn(2 * worker, name, move || outward.run())?
            } else {
                let mut outward = PriorityReader::new(shared, worker, random()?);
                self.spawn(2 * worker, name, move || outward.run())?
            });
            threads.push(self.spawn(2 * worker + 1, format!("wire-{worker}"), move || inward.run())?);
        }
        let shared = Arc::clone(&self.shared);
        threads.push(self.spawn(shared.common_cell(), "timer".to_owned(), move || timers::run(&shared))?);
        Ok(())
    }

    /// End the threads, close the socket, zeroise all keys. Idempotent.
    pub fn stop(&self) {
        self.shared.is_stopping.store(true, Relaxed);
        self.shared.wake_all();
        for thread in lock(&self.threads).drain(..) {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
        let _changing = lock(&self.shared.changing);
        for peer in &self.shared.table.load().peers {
            self.shared.endpoints.leave(peer);
            peer.drop_keys();
        }
        self.shared.table.store(Arc::new(Table::default()));
        lock(&self.shared.changed_timers).clear();
        self.shared.sockets.store(Arc::new(Vec::new()));
        self.shared.tap.store(None);
        self.shared.wakes.store(Arc::new(Vec::new()));
        self.shared.events.close();
    }

    /// Where the socket is bound (None before `start`, or before an unbound socket has sent).
    pub fn local_endpoint(&self) -> Option<SocketAddr> {
        self.shared.sockets.load().first().and_then(|socket| socket.local_endpoint())
    }

    /// Go on with this adapter instead of the present one; frames in between are lost and counted.
    ///
    /// # Errors
    /// [`Error::BadSetting`], [`Error::System`].
    pub fn attach_tap(&self, tap: TapPort) -> Result<(), Error> {
        let number = self.next_tap.fetch_add(1, Relaxed);
        let tap = Tap::new(&tap, self.shared.settings.coalesce, self.shared.settings.workers, number)?;
        self.shared.largest_frame.store(tap.largest_frame, Relaxed);
        self.shared.tap.store(Some(Arc::new(tap)));
        self.shared.wake_all();
        Ok(())
    }

    /// Send and receive through a socket that somebody else has opened (through a descriptor of our own); None: through
    /// none.
    ///
    /// # Errors
    /// [`Error::System`]: it is no UDP socket, or there are no more descriptors.
    pub fn use_socket(&self, descriptor: Option<RawFd>) -> Result<(), Error> {
        let shared = &self.shared;
        let _changing = lock(&shared.changing);
        if shared.is_stopping.load(Relaxed) {
            return Ok(());
        }
        let sockets = match descriptor {
            Some(descriptor) => vec![shared.adopt_socket(descriptor)?],
            None => Vec::new(),
        };
        shared.use_sockets(sockets);
        Ok(())
    }

    /// Fit TCP to these sizes from now on; see `Settings`. Peers that are there already keep their path's MTU.
    ///
    /// # Errors
    /// [`Error::BadSetting`].
    pub fn use_sizes(&self, wan_mtu: u32, mss_limit: u16) -> Result<(), Error> {
        check_wan_mtu(wan_mtu)?;
        self.shared.sizes.wan_mtu.store(wan_mtu, Relaxed);
        self.shared.sizes.mss_limit.store(mss_limit, Relaxed);
        Ok(())
    }

    /// Take in a peer.
    ///
    /// # Errors
    /// [`Error::DuplicatePeer`], [`Error::BadSetting`], [`Error::BindFailed`].
    pub fn add_peer(&self, peer: PeerSettings) -> Result<(), Error> {
        let shared = &self.shared;
        let _changing = lock(&shared.changing);
        shared.ensure_socket(&peer.endpoint)?;
        let now = now();
        let path = shared.path(peer.endpoint, None, now).map_err(|number| {
            let reason = plain(&std::io::Error::from_raw_os_error(number));
            Error::BindFailed(format!("peer {}: {reason}", peer.name))
        })?;
        let port = self.next_port.fetch_add(1, Relaxed);
        let added = Arc::new(Peer::new(&peer, port, path, shared.cells.len(), now));
        let table = shared.table.load().with(&added, peer.receive_peer_id)?;
        shared.table.store(Arc::new(table));
        shared.endpoints.arrive(&added);
        shared.fdb.bump();
        shared.wake_timer(&added);
        Ok(())
    }

    /// Replace what negotiation has settled; timers start anew.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`], [`Error::DuplicatePeer`], [`Error::BadSetting`].
    pub fn update_peer(&self, handle: PeerHandle, update: PeerUpdate) -> Result<(), Error> {
        let shared = &self.shared;
        let _changing = lock(&shared.changing);
        let table = shared.table.load_full();
        let peer = table.get(handle)?;
        let changed = table.with_wire_id(peer, update.receive_peer_id)?;
        peer.identify(update.receive_peer_id, update.transmit_peer_id);
        shared.table.store(Arc::new(changed));
        peer.restart_timers(update.ping, update.ping_restart, now());
        shared.wake_timer(peer);
        Ok(())
    }

    /// Forget the peer, its keys (zeroised) and its addresses; the last figures come back.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`].
    pub fn remove_peer(&self, handle: PeerHandle) -> Result<PeerSnapshot, Error> {
        let shared = &self.shared;
        let _changing = lock(&shared.changing);
        let table = shared.table.load_full();
        let peer = table.get(handle)?;
        let snapshot = snapshots::of_peer(shared, peer);
        shared.endpoints.leave(peer);
        shared.table.store(Arc::new(table.without(peer)));
        peer.drop_keys();
        shared.fdb.flush(peer.port);
        shared.fdb.bump();
        shared.events.forget(handle);
        shared.wake_timer(peer);
        Ok(snapshot)
    }

    /// Accept packets under this key from now on; one of the same key id is replaced.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`], [`Error::BadSetting`].
    pub fn install_key(&self, handle: PeerHandle, key: Key) -> Result<(), Error> {
        let limits = KeyLimits {
            is_aes_gcm: key.cipher.is_aes_gcm(),
            renegotiate_bytes: self.shared.settings.renegotiate_bytes,
            renegotiate_packets: self.shared.settings.renegotiate_packets,
        };
        let slot = KeySlot::new(&key, self.shared.settings.replay_window, limits)?;
        let _changing = lock(&self.shared.changing);
        self.shared.table.load().get(handle)?.install(slot);
        *lock(&self.aead) = key.cipher.name();
        Ok(())
    }

    /// Seal with this key from the next frame on.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`], [`Error::UnknownKey`].
    pub fn use_key(&self, handle: PeerHandle, key_id: u8) -> Result<(), Error> {
        let _changing = lock(&self.shared.changing);
        let table = self.shared.table.load();
        let peer = table.get(handle)?;
        let slot = peer.key(key_id).ok_or_else(|| Error::UnknownKey { name: peer.name.clone(), key_id })?;
        peer.sealing.store(Some(slot));
        peer.has_sealed.store(true, Relaxed);
        self.shared.wake_timer(peer);
        Ok(())
    }

    /// Forget a key; unknown ones are ignored (it may have gone with its peer).
    pub fn remove_key(&self, handle: PeerHandle, key_id: u8) {
        let _changing = lock(&self.shared.changing);
        if let Ok(peer) = self.shared.table.load().get(handle) {
            peer.drop_key(key_id);
        }
    }

    /// Answer hard resets of strangers from now on; None: no more.
    pub fn answer_resets(&self, answers: Option<Answers>) {
        self.shared.answers.store(answers.map(Arc::new));
    }

    /// A session begins its handshake with this endpoint: what comes from there is not a stranger's.
    pub fn expect(&self, endpoint: SocketAddr) {
        self.shared.events.expect(endpoint);
    }

    /// A session that was expected is over.
    pub fn stop_expecting(&self, endpoint: SocketAddr) {
        self.shared.events.stop_expecting(&endpoint);
    }

    /// Send a control packet; a full socket drops it, counted (the reliability layer repeats it).
    ///
    /// # Errors
    /// [`Error::BindFailed`].
    pub fn send_control(&self, datagram: &[u8], destination: SocketAddr) -> Result<(), Error> {
        let shared = &self.shared;
        let _changing = lock(&shared.changing);
        shared.ensure_socket(&destination)?;
        let sent = match shared.control_path(destination) {
            Ok(path) => {
                let sockets = shared.sockets.load();
                let socket = sockets.first().map(Arc::as_ref);
                lock(&shared.sending).send_plain(shared, socket, datagram, &path)
            }
            Err(number) => Err(send_failure(number)),
        };
        if let Err(reason) = sent {
            shared.count_drops(Direction::Transmit, reason, 1, None);
        }
        Ok(())
    }

    /// Seal and send something that is not a frame (ping, OCC); ignored while no key is in use.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`].
    pub fn send_payload(&self, handle: PeerHandle, payload: &[u8]) -> Result<(), Error> {
        let table = self.shared.table.load_full();
        timers::send_payload(&self.shared, table.get(handle)?, payload, now());
        Ok(())
    }

    /// Forget the addresses learned at this peer, so that its frames are flooded until learned again.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`].
    pub fn flush(&self, handle: PeerHandle) -> Result<(), Error> {
        let port = self.shared.table.load().get(handle)?.port;
        self.shared.fdb.flush(port);
        Ok(())
    }

    /// Readable while events wait; -1 after `stop`.
    pub fn event_fd(&self) -> RawFd {
        self.shared.events.descriptor()
    }

    /// Take up to `limit` events, oldest first; never blocks.
    pub fn poll_events(&self, limit: usize) -> Vec<Event> {
        self.shared.events.take(limit)
    }

    /// All figures now.
    pub fn snapshot(&self) -> Snapshot {
        let aead = *lock(&self.aead);
        snapshots::of_plane(&self.shared, aead, &self.txqueue_dropped)
    }

    /// All stations that have not aged.
    pub fn fdb(&self) -> Vec<FdbEntry> {
        let now = now();
        let table = self.shared.table.load();
        let stations = self.shared.fdb.list(now);
        let entries = stations.iter().filter_map(|station| {
            let handle = match station.port {
                TAP_PORT => None,
                port => Some(table.at_port(port)?.handle),
            };
            let age = now.saturating_sub(station.heard) as f64 / 1e9;
            Some(FdbEntry { address: station.mac.octets(), handle, age })
        });
        entries.collect()
    }

    /// What the threads share; for tests.
    #[cfg(test)]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn bind(&self, bind: SocketAddr) -> Result<(), Error> {
        let workers = self.shared.settings.workers;
        let mut sockets = Vec::with_capacity(workers);
        let mut endpoint = bind;
        for _ in 0..workers {
            let socket = self.shared.open_socket(Family::of(&bind), Some(endpoint), workers > 1);
            let socket =
                socket.map_err(|error| Error::BindFailed(format!("cannot bind UDP {bind}: {}", plain(&error))))?;
            // Port 0 is another one for each; the others share that of the first.
            if let Some(found) = socket.local_endpoint() {
                endpoint.set_port(found.port());
            }
            sockets.push(socket);
        }
        if let Some(socket) = sockets.first().filter(|_| workers > 1) {
            // Without it the hash of addresses and ports spreads the peers, which may put all of them on one socket.
            let is_steered = steer_by_peer_id(socket, workers).is_ok();
            self.shared.is_steered.store(is_steered, Relaxed);
            self.shared.missing_offloads[2].add_shared(u64::from(!is_steered));
        }
        self.shared.use_sockets(sockets);
        Ok(())
    }

    fn spawn(
        &self,
        place: usize,
        name: String,
        mut work: impl FnMut() + Send + 'static,
    ) -> Result<JoinHandle<()>, Error> {
        let shared = Arc::clone(&self.shared);
        let body = move || {
            block_signals();
            let clock = CpuClock::of_this_thread();
            if let Some(clock) = clock {
                lock(&shared.clocks)[place] = ThreadClock::Running(clock);
            }
            // A bug must cost the batch it was met in, not the tunnel.
            while catch_unwind(AssertUnwindSafe(&mut work)).is_err() && !shared.is_stopping.load(Relaxed) {}
            if let Some(used) = clock.and_then(CpuClock::read) {
                lock(&shared.clocks)[place] = ThreadClock::Ended(used);
            }
        };
        Ok(Builder::new().name(name).spawn(body)?)
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

fn check(settings: &Settings) -> Result<(), Error> {
    if settings.replay_window > MAX_REPLAY_WINDOW {
        return Err(Error::ReplayWindow(settings.replay_window));
    }
    if settings.workers == 0 || settings.workers > MAX_WORKERS {
        return Err(Error::BadSetting(format!("workers: {} is not in 1..{MAX_WORKERS}", settings.workers)));
    }
    check_wan_mtu(settings.wan_mtu)?;
    if settings.moderation > MAX_MODERATION {
        return Err(Error::BadSetting(format!("moderation: {} is not in 0..{MAX_MODERATION}", settings.moderation)));
    }
    Ok(())
}

fn check_wan_mtu(wan_mtu: u32) -> Result<(), Error> {
    if wan_mtu != 0 && !(576..=65_535).contains(&wan_mtu) {
        return Err(Error::BadSetting(format!("wan_mtu: {wan_mtu} is not 0 or in 576..65535")));
    }
    Ok(())
}

fn random() -> Result<u64, Error> {
    let mut octets = [0; 8];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| Error::System(std::io::Error::other("no random numbers")))?;
    Ok(u64::from_ne_bytes(octets))
}
