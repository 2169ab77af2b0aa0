//! What the threads of one data plane share.

use std::sync::atomic::{AtomicBool, AtomicU16};
use std::sync::Arc;

use bridged_sys::Errno;

use crate::contract::{Direction, Event};
use crate::control::answers::Answers;
use crate::control::counters::{Counters, Reason};
use crate::control::events::EventQueue;
use crate::error::Error;
use crate::settings::Settings;
use crate::sync::{lock, ArcSwapOption};
use crate::tables::peer_table::Peers;
use crate::tables::peers::Peer;
use crate::tables::released::Released;
use crate::tables::stations::{handle_at, Move, SharedFdb};
use crate::tap::{Adapter, Tap};
use crate::threads::Threads;
use crate::transport::seam::{SendContext, Transport};

/// See the module.
pub struct Shared<T: Transport> {
    /// As given at the start.
    pub settings: Settings,
    /// Largest MSS for IPv4; 0: no limit. May change, see `DataPlane::use_sizes`.
    pub mss_limit: AtomicU16,
    /// The peers and their endpoints.
    pub peers: Peers<T>,
    /// Where the stations are.
    pub stations: SharedFdb,
    /// What carries packets to the peers.
    pub transport: T,
    /// Datagrams wait in the sockets, unread.
    pub is_wan_held: AtomicBool,
    /// The TAP.
    pub adapter: Adapter,
    /// Events for the control plane.
    pub events: EventQueue,
    /// How to answer hard resets; none while the control plane answers nobody.
    pub answers: ArcSwapOption<Answers>,
    /// What was counted.
    pub counters: Counters,
    /// Peers whose key has come while packets waited for it.
    pub released: Released<T>,
    /// The threads themselves.
    pub threads: Threads,
}

impl<T: Transport> Shared<T> {
    /// Of a data plane that has not started; `seeds` are random.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn new(settings: Settings, transport: T, tap: Tap, seeds: [u64; 2]) -> Result<Shared<T>, Error> {
        let threads = Threads::new(settings.workers)?;
        Ok(Shared {
            mss_limit: AtomicU16::new(settings.mss_limit),
            peers: Peers::new(),
            stations: SharedFdb::new(&settings, seeds[0]),
            transport,
            is_wan_held: AtomicBool::new(false),
            adapter: Adapter::new(tap),
            events: EventQueue::new(seeds[1])?,
            answers: ArcSwapOption::from_pointee(None),
            counters: Counters::new(threads.count()),
            released: Released::new(settings.workers),
            threads,
            settings,
        })
    }

    /// Report an event to the control plane; where there is no room it is counted.
    pub fn report(&self, event: Event) {
        if !self.events.put(event) {
            self.counters.count_drops(Direction::Receive, Reason::EventQueueFull, 1, None);
        }
    }

    /// Report a station that moved.
    pub fn report_move(&self, station: Move) {
        let (previous, current) = (handle_at(station.previous), handle_at(station.current));
        self.report(Event::StationMoved { station: station.station, previous, current });
    }

    /// Count packets of a peer whose key did not come in time.
    pub fn count_early(&self, peer: &Peer<T>, packets: u64) {
        if packets > 0 {
            self.counters.count_drops(Direction::Receive, Reason::UnknownKeyId, packets, Some(&peer.drops));
        }
    }

    /// Detach an adapter that vanished, and report it; once for each.
    pub fn detach_lost_tap(&self, gone: &Arc<Tap>, number: Errno) {
        if self.adapter.detach(gone) {
            self.report(Event::TapFailed { number });
            self.threads.wake_all();
        }
    }

    /// Have a peer's timers looked at soon; they changed.
    pub fn wake_timer(&self, peer: &Arc<Peer<T>>) {
        lock(&self.peers.changed_timers).push(Arc::clone(peer));
        self.threads.wake_timer();
    }

    /// What sending takes through this link at this moment.
    #[inline]
    pub fn send_context<'a>(&'a self, link: &'a T::Link, now: bridged_core::Nanos) -> SendContext<'a, T> {
        SendContext { transport: &self.transport, link, counters: &self.counters, events: &self.events, now }
    }
}
