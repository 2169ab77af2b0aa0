//! The data plane, put together: the contract's verbs.
//!
//! Source: bridged/dataplane/contract/verbs.py.

use std::os::fd::RawFd;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, Release},
};
use std::sync::Arc;
use std::thread::JoinHandle;

use bridged_core::fdb::{Entry, TAP_PORT};
use bridged_core::limits::KeyLimits;
use bridged_core::priority::Priority;
use bridged_core::Nanos;
use bridged_sys::thread::now;

use crate::contract::{
    Carrier, Endpoint, Event, FdbEntry, Key, KeyFormat, PeerHandle, PeerSettings, PeerSnapshot, Snapshot, Station,
    StationEvents, TapPort,
};
use crate::control::answers::Answers;
use crate::control::control_sender::ControlSender;
use crate::control::{path_probe, snapshots, timers};
use crate::error::Error;
use crate::lan_to_wan::priority_reader::PriorityReader;
use crate::lan_to_wan::reader::LanReader;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::sync::{lock, Mutex};
use crate::tables::keys::KeySlot;
use crate::tables::peers::Peer;
use crate::tables::stations::handle_at;
use crate::tables::switch::VLAN;
use crate::tap::Tap;
use crate::threads::{lan_thread, spawn, wan_thread, Threads};
use crate::transport::mixed::MixedTransport;
use crate::transport::seam::{PeerPath, Transport};
use crate::transport::udp::send_failure::plain;
use crate::wan_to_lan::receiver::WanReceiver;

/// One tunnel's frames; see the crate. Dropping it stops it.
pub struct DataPlane {
    shared: Arc<Shared<MixedTransport>>,
    sender: Arc<ControlSender<MixedTransport>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    next_tap: AtomicU64,
    /// Cipher of the newest key, by its name.
    aead: Mutex<&'static str>,
    txqueue_dropped: AtomicU64,
}

impl DataPlane {
    /// A data plane that has not started yet. Duplicates the TAP's descriptors.
    ///
    /// # Errors
    /// [`Error::BadSetting`], [`Error::System`].
    pub fn new(settings: Settings) -> Result<DataPlane, Error> {
        settings.check()?;
        DataPlane::build(settings)
    }

    /// A data plane of settings that nobody checks: tests wait so long that nobody can miss it.
    pub(crate) fn build(settings: Settings) -> Result<DataPlane, Error> {
        let tap = Tap::new(&settings.tap, settings.coalesce, settings.workers, 1)?;
        let transport = MixedTransport::new(&settings);
        let shared = Arc::new(Shared::new(settings, transport, tap, [random()?, random()?])?);
        Ok(DataPlane {
            sender: Arc::new(ControlSender::new(shared.threads.timer())),
            shared,
            threads: Mutex::new(Vec::new()),
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
        let shared = &self.shared;
        if !threads.is_empty() || shared.threads.is_stopping() {
            return Ok(());
        }
        shared.transport.udp.bind()?;
        let find: fn(&Shared<MixedTransport>) -> &Threads = |shared| &shared.threads;
        for worker in 0..shared.settings.workers {
            let mut wan = WanReceiver::new(Arc::clone(shared), worker, random()?);
            threads.push(if shared.settings.priority == Priority::Off {
                let mut lan = LanReader::new(Arc::clone(shared), worker, random()?);
                spawn(shared, find, lan_thread(worker), move || lan.run())?
            } else {
                let mut lan = PriorityReader::new(Arc::clone(shared), worker, random()?);
                spawn(shared, find, lan_thread(worker), move || lan.run())?
            });
            threads.push(spawn(shared, find, wan_thread(worker), move || wan.run())?);
        }
        let (parts, sender) = (Arc::clone(shared), Arc::clone(&self.sender));
        threads.push(spawn(shared, find, shared.threads.timer(), move || timers::run(&parts, &sender))?);
        Ok(())
    }

    /// End the threads, close the socket, zeroise all keys. Idempotent.
    pub fn stop(&self) {
        let shared = &self.shared;
        shared.threads.stop();
        for thread in lock(&self.threads).drain(..) {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
        shared.peers.clear();
        shared.transport.close();
        shared.adapter.tap.store(None);
        shared.threads.close();
        shared.events.close();
    }

    /// Where the socket is bound (None before `start`, or before an unbound socket has sent).
    pub fn local_endpoint(&self) -> Option<Endpoint> {
        self.shared.transport.udp.local_endpoint().map(Endpoint::from)
    }

    /// Replace the adapter; frames in between are lost and counted.
    ///
    /// # Errors
    /// [`Error::BadSetting`], [`Error::System`].
    pub fn attach_tap(&self, tap: TapPort) -> Result<(), Error> {
        let number = self.next_tap.fetch_add(1, Relaxed);
        let tap = Tap::new(&tap, self.shared.settings.coalesce, self.shared.settings.workers, number)?;
        self.shared.adapter.attach(tap);
        self.shared.threads.wake_all();
        Ok(())
    }

    /// Send and receive through a socket that somebody else has opened (through a descriptor of our own); None: through
    /// none.
    ///
    /// # Errors
    /// [`Error::System`]: it is no UDP socket, or there are no more descriptors.
    pub fn use_socket(&self, descriptor: Option<RawFd>) -> Result<(), Error> {
        let shared = &self.shared;
        let _changing = lock(&shared.peers.changing);
        if shared.threads.is_stopping() {
            return Ok(());
        }
        shared.transport.udp.adopt(descriptor)?;
        shared.threads.wake_all();
        Ok(())
    }

    /// Reach an endpoint through this connection (through a descriptor of our own), of which `received` was read
    /// already. Until a peer is there, a packet of more than `packet_octets` ends it.
    ///
    /// # Errors
    /// [`Error::System`]: it is no connected stream, or there are no more descriptors.
    pub fn adopt_stream(
        &self,
        descriptor: RawFd,
        endpoint: Endpoint,
        received: &[u8],
        packet_octets: usize,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        let streams = &shared.transport.streams;
        if let Some(worker) = streams.adopt(descriptor, endpoint, received, packet_octets, &shared.events)? {
            shared.threads.wake(wan_thread(worker));
        }
        Ok(())
    }

    /// End a stream once what waits for it has been sent; ignored where there is none.
    pub fn close_stream(&self, endpoint: &Endpoint) {
        self.shared.transport.streams.close_stream(endpoint, now(), &self.shared.events);
    }

    /// At `start`, use these bound sockets (one for each worker, through descriptors of our own) instead of binding.
    ///
    /// # Errors
    /// [`Error::System`]: one is no UDP socket, or there are no more descriptors; [`Error::BadSetting`]: their number
    /// is not that of the workers.
    pub fn inherit_sockets(&self, descriptors: &[RawFd]) -> Result<(), Error> {
        self.shared.transport.udp.inherit(descriptors)
    }

    /// The descriptors of the sockets now; they stay the data plane's.
    pub fn socket_descriptors(&self) -> Vec<RawFd> {
        self.shared.transport.udp.descriptors()
    }

    /// Leave frames in the adapter (`lan`) and datagrams in the sockets (`wan`), or read them again.
    pub fn hold(&self, lan: bool, wan: bool) {
        self.shared.adapter.hold(lan);
        self.shared.is_wan_held.store(wan, Relaxed);
        self.shared.threads.wake_all();
    }

    /// Ask all threads for a sign of life.
    pub fn ask_threads(&self) {
        self.shared.threads.ask();
    }

    /// Names of the threads that have not answered the newest `ask_threads`.
    pub fn silent_threads(&self) -> Vec<String> {
        self.shared.threads.silent()
    }

    /// Fit TCP to these sizes; see `Settings`. Existing peers keep their path's MTU.
    ///
    /// # Errors
    /// [`Error::BadSetting`].
    pub fn use_sizes(&self, wan_mtu: u32, mss_limit: u16) -> Result<(), Error> {
        Settings { wan_mtu, mss_limit, ..self.shared.settings.clone() }.check()?;
        self.shared.transport.udp.set_mtu(wan_mtu);
        self.shared.mss_limit.store(mss_limit, Relaxed);
        Ok(())
    }

    /// Add a peer.
    ///
    /// # Errors
    /// [`Error::DuplicatePeer`], [`Error::BadSetting`], [`Error::BindFailed`].
    pub fn add_peer(&self, peer: PeerSettings) -> Result<(), Error> {
        let shared = &self.shared;
        let _changing = lock(&shared.peers.changing);
        self.ensure_socket(&peer.endpoint)?;
        let now = now();
        let path = shared.transport.path_to(peer.endpoint, now).map_err(|number| {
            let reason = plain(&std::io::Error::from_raw_os_error(number));
            Error::BindFailed(format!("peer {}: {reason}", peer.name))
        })?;
        let added = Arc::new(Peer::new(&peer, path, shared.threads.count(), now));
        let table = shared.peers.table.load().with(&added, peer.receive_peer_id)?;
        shared.peers.replace(table);
        shared.peers.endpoints.arrive(&added);
        shared.stations.bump();
        shared.wake_timer(&added);
        Ok(())
    }

    /// Forget the peer, its keys (zeroised) and its addresses; the last figures come back.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`].
    pub fn remove_peer(&self, handle: PeerHandle) -> Result<PeerSnapshot, Error> {
        let shared = &self.shared;
        let _changing = lock(&shared.peers.changing);
        let table = shared.peers.table.load_full();
        let peer = table.get(handle)?;
        shared.count_early(peer, peer.early.clear());
        let snapshot = snapshots::of_peer(shared, peer);
        shared.peers.endpoints.leave(peer);
        shared.peers.replace(table.without(peer));
        peer.drop_keys();
        shared.stations.flush(peer.port);
        shared.stations.bump();
        shared.events.forget(handle);
        shared.wake_timer(peer);
        Ok(snapshot)
    }

    /// Packets under this key that come before it wait for it.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`].
    pub fn expect_key(&self, handle: PeerHandle, key_id: u8) -> Result<(), Error> {
        let _changing = lock(&self.shared.peers.changing);
        let table = self.shared.peers.table.load();
        let peer = table.get(handle)?;
        self.shared.count_early(peer, peer.early.expect(key_id));
        Ok(())
    }

    /// Accept packets under this key from now on; one of the same key id is replaced.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`], [`Error::BadSetting`].
    pub fn install_key(&self, handle: PeerHandle, key: Key) -> Result<(), Error> {
        let limits = KeyLimits {
            // Epochs end before their keys are worn.
            is_aes_gcm: key.cipher.is_aes_gcm() && !matches!(key.format, KeyFormat::Epoch),
            renegotiate_bytes: self.shared.settings.renegotiate_bytes,
            renegotiate_packets: self.shared.settings.renegotiate_packets,
        };
        let _changing = lock(&self.shared.peers.changing);
        let table = self.shared.peers.table.load();
        let peer = table.get(handle)?;
        // Where the order is kept, ids have to rise.
        let window = if peer.path.load().keeps_order() { 0 } else { self.shared.settings.replay_window };
        let slot = KeySlot::new(&key, window, limits)?;
        peer.install(slot);
        *lock(&self.aead) = key.cipher.name();
        if let Some(worker) = peer.early.release(key.key_id) {
            self.shared.released.put(worker, peer, key.key_id);
            self.shared.threads.wake(wan_thread(worker));
        }
        Ok(())
    }

    /// Seal with this key from the next frame on.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`], [`Error::UnknownKey`].
    pub fn use_key(&self, handle: PeerHandle, key_id: u8) -> Result<(), Error> {
        let _changing = lock(&self.shared.peers.changing);
        let table = self.shared.peers.table.load();
        let peer = table.get(handle)?;
        let slot = peer.key(key_id).ok_or_else(|| Error::UnknownKey { name: peer.name.clone(), key_id })?;
        peer.seal_with(slot);
        peer.has_sealed.store(true, Release);
        self.shared.wake_timer(peer);
        Ok(())
    }

    /// Forget a key; unknown ones are ignored (it may have gone with its peer).
    pub fn remove_key(&self, handle: PeerHandle, key_id: u8) {
        let _changing = lock(&self.shared.peers.changing);
        if let Ok(peer) = self.shared.peers.table.load().get(handle) {
            peer.drop_key(key_id);
            self.shared.count_early(peer, peer.early.give_up(key_id));
        }
    }

    /// Answer hard resets of strangers from now on; None: no more.
    pub fn answer_resets(&self, answers: Option<Answers>) {
        self.shared.answers.store(answers.map(Arc::new));
    }

    /// A session begins its handshake with this endpoint: what comes from there is not a stranger's.
    pub fn expect(&self, endpoint: Endpoint) {
        self.shared.events.expect(endpoint);
    }

    /// A session that was expected is over.
    pub fn stop_expecting(&self, endpoint: Endpoint) {
        self.shared.events.stop_expecting(&endpoint);
    }

    /// Send a control packet; a full socket drops it, counted (the reliability layer repeats it).
    ///
    /// # Errors
    /// [`Error::BindFailed`].
    pub fn send_control(&self, datagram: &[u8], destination: Endpoint) -> Result<(), Error> {
        let _changing = lock(&self.shared.peers.changing);
        self.ensure_socket(&destination)?;
        self.sender.send_control(&self.shared, datagram, destination, now());
        Ok(())
    }

    /// Seal and send something that is not a frame (ping, OCC); ignored while no key is in use.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`].
    pub fn send_payload(&self, handle: PeerHandle, payload: &[u8]) -> Result<(), Error> {
        let table = self.shared.peers.table.load_full();
        self.sender.send_payload(&self.shared, table.get(handle)?, payload, now());
        Ok(())
    }

    /// Seal as much of `payload` as an outer IP packet of `octets` bytes holds, and send it in one piece; bytes of the
    /// outer packet. 0: the link here takes none so large.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`].
    pub fn probe_path(&self, handle: PeerHandle, payload: &[u8], octets: usize) -> Result<usize, Error> {
        let table = self.shared.peers.table.load_full();
        Ok(path_probe::send(&self.shared, &self.sender, table.get(handle)?, payload, octets, now()))
    }

    /// Fit what goes to the peer to outer packets of `octets` bytes until it floats; 0: as configured.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`].
    pub fn use_path_mtu(&self, handle: PeerHandle, octets: u32) -> Result<(), Error> {
        let table = self.shared.peers.table.load_full();
        let path = table.get(handle)?.path.load_full();
        if path.udp().is_some_and(|path| self.shared.transport.udp.use_mtu(path, octets)) {
            self.sender.count_mtu_change(&self.shared);
        }
        Ok(())
    }

    /// Readable while events wait; -1 after `stop`.
    pub fn event_fd(&self) -> RawFd {
        self.shared.events.descriptor()
    }

    /// Take up to `limit` events, oldest first. Never blocks.
    pub fn poll_events(&self, limit: usize) -> Vec<Event> {
        self.shared.events.take(limit)
    }

    /// All figures now.
    pub fn snapshot(&self) -> Snapshot {
        let aead = *lock(&self.aead);
        snapshots::of_plane(&self.shared, aead, &self.txqueue_dropped)
    }

    /// All stations that have not aged: a copy of the whole table, for people rather than watchers.
    pub fn fdb(&self) -> Vec<FdbEntry> {
        let now = now();
        self.shared.stations.list(now).into_iter().map(|entry| fdb_entry(entry, now)).collect()
    }

    /// Where a station is; None where it is unknown or has aged.
    pub fn find_station(&self, station: Station) -> Option<FdbEntry> {
        let now = now();
        self.shared.stations.find(station, now).map(|entry| fdb_entry(entry, now))
    }

    /// Put a station behind a peer (None: the TAP), replacing what was known of it. A static one neither ages nor
    /// moves.
    ///
    /// # Errors
    /// [`Error::UnknownPeer`], [`Error::BadStation`], [`Error::FdbFull`].
    pub fn install_station(&self, station: Station, handle: Option<PeerHandle>, is_static: bool) -> Result<(), Error> {
        let mac = station.mac();
        if station.vlan() != VLAN || mac.is_group() || mac.is_zero() {
            return Err(Error::BadStation(format!("{:02x?} in VLAN {}", mac.octets(), station.vlan())));
        }
        // A peer that goes meanwhile takes its stations with it.
        let _changing = lock(&self.shared.peers.changing);
        let port = match handle {
            Some(handle) => self.shared.peers.table.load().get(handle)?.port,
            None => TAP_PORT,
        };
        if !self.shared.stations.install(station, port, now(), is_static) {
            return Err(Error::FdbFull(self.shared.stations.capacity()));
        }
        Ok(())
    }

    /// Forget a station, installed or learned; unknown ones are ignored.
    pub fn remove_station(&self, station: Station) {
        self.shared.stations.remove(station);
    }

    /// Changes of the FDB since the call that returned `after` as `next` (0: since the start).
    pub fn station_events(&self, after: u64) -> StationEvents {
        self.shared.stations.events(after)
    }

    /// What the threads share; for tests.
    #[cfg(test)]
    pub fn shared(&self) -> &Arc<Shared<MixedTransport>> {
        &self.shared
    }

    fn ensure_socket(&self, destination: &Endpoint) -> Result<(), Error> {
        let shared = &self.shared;
        let is_udp = destination.carrier == Carrier::Udp && !shared.threads.is_stopping();
        if is_udp && shared.transport.udp.ensure_socket(destination)? {
            shared.threads.wake_all();
        }
        Ok(())
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

fn fdb_entry(entry: Entry, now: Nanos) -> FdbEntry {
    let age = if entry.is_static { 0.0 } else { now.saturating_sub(entry.heard) as f64 / 1e9 };
    FdbEntry { station: entry.station, handle: handle_at(entry.port), age, is_static: entry.is_static }
}

fn random() -> Result<u64, Error> {
    let mut octets = [0; 8];
    aws_lc_rs::rand::fill(&mut octets).map_err(|_| Error::System(std::io::Error::other("no random numbers")))?;
    Ok(u64::from_ne_bytes(octets))
}
