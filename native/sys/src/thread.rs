//! Threads and clocks.
//!
//! Source: clock_gettime(2), nanosleep(2), prctl(2) (PR_SET_TIMERSLACK), pthread_getcpuclockid(3), pthread_sigmask(3).

/// Monotonic nanoseconds.
pub fn now() -> u64 {
    read_clock(libc::CLOCK_MONOTONIC)
}

/// Seconds since 1970-01-01 UTC.
pub fn unix_seconds() -> f64 {
    read_clock(libc::CLOCK_REALTIME) as f64 / 1e9
}

/// Wait this many nanoseconds, with little delay.
pub fn rest(nanoseconds: u64) {
    let time = libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000) as libc::time_t,
        tv_nsec: (nanoseconds % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: the kernel reads `time`; what is left of an interrupted wait is not asked for.
    unsafe { libc::nanosleep(&time, std::ptr::null_mut()) };
}

/// Have the waits of this thread end on time: the kernel may make them 50 microseconds longer otherwise, to end some at
/// once.
pub fn wait_exactly() {
    // SAFETY: no memory is passed; one nanosecond is the least that it takes (0 is the default).
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Let no signal handler run on this thread: they belong to the threads of the embedding program.
pub fn block_signals() {
    // SAFETY: sigset_t is plain data which sigfillset initialises; the calls touch nothing else.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
    }
}

/// The processor time of a thread, readable by others while it runs.
#[derive(Debug, Clone, Copy)]
pub struct CpuClock(libc::clockid_t);

impl CpuClock {
    /// Of the calling thread; None where the kernel has none.
    pub fn of_this_thread() -> Option<CpuClock> {
        let mut clock: libc::clockid_t = 0;
        // SAFETY: pthread_self is always valid on the calling thread; `clock` is writable.
        let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
        (failed == 0).then_some(CpuClock(clock))
    }

    /// Nanoseconds so far; None once the thread has ended.
    pub fn read(self) -> Option<u64> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is writable; a clock of an ended thread is an error.
        let failed = unsafe { libc::clock_gettime(self.0, &mut time) };
        (failed == 0).then(|| nanoseconds(time))
    }
}

fn read_clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; these clocks always exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    nanoseconds(time)
}

fn nanoseconds(time: libc::timespec) -> u64 {
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_on() {
        let (before, cpu) = (now(), CpuClock::of_this_thread().unwrap());
        let used = cpu.read().unwrap();
        let mut sum = 0u64;
        for step in 0..100_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(step));
        }
        assert!(now() > before);
        assert!(cpu.read().unwrap() > used);
        assert!(unix_seconds() > 1.7e9);
    }

    #[test]
    fn the_clock_of_an_ended_thread_cannot_be_read() {
        let clock = std::thread::spawn(CpuClock::of_this_thread).join().unwrap().unwrap();
        for _ in 0..1000 {
            if clock.read().is_none() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("it still runs");
    }
}
