//! The threads of a data plane: how they are started, woken, measured and ended.

use std::collections::BTreeMap;
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use bridged_sys::descriptor::EventFd;
use bridged_sys::thread::{block_signals, CpuClock};

use crate::sync::{lock, ArcSwap, Guard, Mutex};

/// The place of a worker's LAN thread among all threads.
pub fn lan_thread(worker: usize) -> usize {
    2 * worker
}

/// The place of a worker's WAN thread.
pub fn wan_thread(worker: usize) -> usize {
    2 * worker + 1
}

/// Processor time of one thread.
#[derive(Debug, Clone, Copy)]
enum Clock {
    NotStarted,
    Running(CpuClock),
    /// Nanoseconds in all.
    Ended(u64),
}

/// LAN and WAN thread of worker 0, of worker 1, ..., and the timer thread last.
#[derive(Debug)]
pub struct Threads {
    /// One for each thread; none once they have ended.
    wakes: ArcSwap<Vec<EventFd>>,
    clocks: Mutex<Vec<Clock>>,
    is_stopping: AtomicBool,
    /// Number of the newest question whether the threads still work.
    question: AtomicU64,
    /// The newest question that each thread has seen.
    answers: Box<[AtomicU64]>,
    count: usize,
}

impl Threads {
    /// For this many workers; none has started.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn new(workers: usize) -> io::Result<Threads> {
        let count = 2 * workers + 1;
        let mut wakes = Vec::with_capacity(count);
        for _ in 0..count {
            wakes.push(EventFd::new()?);
        }
        Ok(Threads {
            wakes: ArcSwap::from_pointee(wakes),
            clocks: Mutex::new(vec![Clock::NotStarted; count]),
            is_stopping: AtomicBool::new(false),
            question: AtomicU64::new(0),
            answers: (0..count).map(|_| AtomicU64::new(0)).collect(),
            count,
        })
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The place of the timer thread; the control plane's own sends are counted there, too.
    pub fn timer(&self) -> usize {
        self.count - 1
    }

    /// The threads are asked to end.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Relaxed)
    }

    /// Have the threads end; returns at once.
    pub fn stop(&self) {
        self.is_stopping.store(true, Relaxed);
        self.wake_all();
    }

    /// Close what threads wait on: none is left.
    pub fn close(&self) {
        self.wakes.store(Arc::new(Vec::new()));
    }

    /// What each thread waits on, by its place.
    pub fn wakes(&self) -> Arc<Vec<EventFd>> {
        self.wakes.load_full()
    }

    /// Have all threads look at what changed.
    pub fn wake_all(&self) {
        for wake in self.wakes.load().iter() {
            wake.signal();
        }
    }

    /// Ask all threads for a sign of life.
    pub fn ask(&self) {
        self.question.fetch_add(1, Relaxed);
        self.wake_all();
    }

    /// The thread of a place has come round; once in each turn. It writes only where there is a new question.
    #[inline]
    pub fn answer(&self, place: usize) {
        let question = self.question.load(Relaxed);
        if let Some(answer) = self.answers.get(place) {
            if answer.load(Relaxed) != question {
                answer.store(question, Relaxed);
            }
        }
    }

    /// Names of the threads that have not answered the newest question.
    pub fn silent(&self) -> Vec<String> {
        let question = self.question.load(Relaxed);
        let places = self.answers.iter().enumerate().filter(|(_, answer)| answer.load(Relaxed) != question);
        places.map(|(place, _)| self.name(place)).collect()
    }

    /// Have the thread of a place look at what changed.
    pub fn wake(&self, place: usize) {
        let wakes: Guard<Arc<Vec<EventFd>>> = self.wakes.load();
        if let Some(wake) = wakes.get(place) {
            wake.signal();
        }
    }

    /// Have the timer thread look at what changed.
    pub fn wake_timer(&self) {
        self.wake(self.timer());
    }

    /// Processor seconds by thread name: `tap-0`, `wire-0`, ..., `timer`.
    pub fn cpu_seconds(&self) -> BTreeMap<String, f64> {
        let clocks = lock(&self.clocks);
        let used = clocks.iter().map(|clock| match clock {
            Clock::NotStarted => 0,
            Clock::Running(clock) => clock.read().unwrap_or(0),
            Clock::Ended(used) => *used,
        });
        used.enumerate().map(|(place, used)| (self.name(place), used as f64 / 1e9)).collect()
    }

    fn name(&self, place: usize) -> String {
        match place {
            place if place == self.timer() => "timer".to_owned(),
            place if place % 2 == 0 => format!("tap-{}", place / 2),
            place => format!("wire-{}", place / 2),
        }
    }
}

/// Start the thread of a place; `threads` finds what all of them share.
///
/// # Errors
/// EAGAIN.
pub fn spawn<Shared: Send + Sync + 'static>(
    shared: &Arc<Shared>,
    threads: fn(&Shared) -> &Threads,
    place: usize,
    mut work: impl FnMut() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let name = threads(shared).name(place);
    let shared = Arc::clone(shared);
    let body = move || {
        let threads = threads(&shared);
        block_signals();
        let clock = CpuClock::of_this_thread();
        if let Some(clock) = clock {
            lock(&threads.clocks)[place] = Clock::Running(clock);
        }
        // A bug must cost the batch it was met in, not the tunnel.
        while catch_unwind(AssertUnwindSafe(&mut work)).is_err() && !threads.is_stopping() {}
        if let Some(used) = clock.and_then(CpuClock::read) {
            lock(&threads.clocks)[place] = Clock::Ended(used);
        }
    };
    Builder::new().name(name).spawn(body)
}
