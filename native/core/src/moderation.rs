//! When a thread that is woken for packets had better let some more come first, as network cards do (interrupt
//! moderation).

use crate::Nanos;

/// Packets of at least this many bytes are bulk.
const BULK_OCTETS: usize = 1000;
/// Over which their rate is taken.
const WINDOW: Nanos = 1_000_000;
/// Reads of them in a window, from which on they come fast: 370 Mbit/s where each has one packet.
const FAST: u64 = 32;

/// The rate at which a thread reads bulk.
#[derive(Debug, Default)]
pub struct Moderation {
    /// When the window began.
    since: Nanos,
    /// Reads of bulk in it.
    reads: u64,
    /// They came fast in the last window.
    is_fast: bool,
}

impl Moderation {
    /// Record one read of packets of this size. True where it belongs to a fast stream, after which a rest pays. Never
    /// true: small packets, lone ones, the first millisecond of a stream, and the first after a pause.
    #[inline]
    pub fn observe(&mut self, packet_octets: usize, now: Nanos) -> bool {
        if packet_octets < BULK_OCTETS {
            return false;
        }
        self.reads += 1;
        let elapsed = now.saturating_sub(self.since);
        if elapsed >= WINDOW {
            let goes_on = elapsed < 2 * WINDOW;
            self.is_fast = goes_on && self.reads.saturating_mul(WINDOW) >= FAST.saturating_mul(elapsed);
            self.since = now;
            self.reads = 0;
        }
        self.is_fast
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads of packets of so many bytes, one each `pause`, from `at` on; how many could be followed by a rest.
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
        for (round, pause) in [2, 3, 17, 990].into_iter().enumerate() {
            let at = round as u64 * 2_000_000_000;
            assert!(rests(&mut moderation, 1464, 1_000, at, 9_990) > 0);
            let end = at + 9_990_000;
            assert!(!moderation.observe(1464, end + pause * 1_000_000), "{pause} ms");
            assert!(!moderation.observe(1464, end + pause * 1_000_000 + 10_000));
        }
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
