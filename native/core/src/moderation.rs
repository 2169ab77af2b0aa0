//! When a thread that is woken for packets had better let some more come first, as network cards do (interrupt moderation).

use crate::Nanos;

/// Reads of so many octets at least count: nobody waits for one of them alone.
const LARGE_OCTETS: usize = 1000;
/// Over which their rate is taken.
const WINDOW: Nanos = 1_000_000;
/// Of them in a window, from which on they come fast: 370 Mbit/s where each is one packet.
const FAST: u64 = 32;

/// The rate of large reads, of one thread.
#[derive(Debug, Default)]
pub struct Moderation {
    /// When the window began.
    since: Nanos,
    /// Large reads in it.
    reads: u64,
    /// They came fast in the last window.
    is_fast: bool,
}

impl Moderation {
    /// Take note of one read of so many octets. True where it is one of many: resting after it costs nobody a wait that he
    /// could tell from what the others make him wait. A lone read, a small one, and the first of a stream are never followed by
    /// a rest.
    #[inline]
    pub fn observe(&mut self, octets: usize, now: Nanos) -> bool {
        if octets < LARGE_OCTETS {
            return false;
        }
        self.reads += 1;
        let elapsed = now.saturating_sub(self.since);
        if elapsed >= WINDOW {
            self.is_fast = self.reads.saturating_mul(WINDOW) >= FAST.saturating_mul(elapsed);
            self.since = now;
            self.reads = 0;
        }
        self.is_fast
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads of so many octets, one each `pause`, from `at` on; how many could be followed by a rest.
    fn rests(moderation: &mut Moderation, octets: usize, pause: Nanos, at: Nanos, count: u64) -> u64 {
        (0..count).filter(|number| moderation.observe(octets, at + number * pause)).count() as u64
    }

    #[test]
    fn a_fast_stream_of_large_reads_is_rested_in_after_its_first_millisecond() {
        let mut moderation = Moderation::default();
        // The first window is that since the clock's beginning.
        let found = rests(&mut moderation, 1464, 10_000, 5_000_000_000, 1000);
        assert!((1000 - 102..1000 - 98).contains(&found), "{found}");
    }

    #[test]
    fn slow_and_small_and_lone_ones_never_are() {
        for (octets, pause) in [(1464, 35_000), (1464, 1_000_000), (1464, 1_000_000_000), (200, 1_000), (999, 1_000)] {
            assert_eq!(rests(&mut Moderation::default(), octets, pause, 5_000_000_000, 10_000), 0, "{octets} {pause}");
        }
    }

    #[test]
    fn the_first_one_after_a_stream_has_ended_is_not() {
        let mut moderation = Moderation::default();
        assert!(rests(&mut moderation, 1464, 10_000, 0, 1000) > 0);
        assert!(!moderation.observe(1464, 1_000_000_000));
        assert!(!moderation.observe(1464, 1_000_010_000));
    }

    #[test]
    fn small_ones_amid_a_stream_change_nothing() {
        let mut moderation = Moderation::default();
        let mut found = 0;
        for number in 0..1000 {
            found += u64::from(moderation.observe(1464, number * 10_000));
            assert!(!moderation.observe(100, number * 10_000 + 5_000));
        }
        assert!(found > 890, "{found}");
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_harms_nothing() {
        let mut moderation = Moderation::default();
        for now in [7, 7, 3, 0, u64::MAX, 0, u64::MAX] {
            moderation.observe(usize::MAX, now);
        }
    }
}
