//! Sliding replay window over packet ids, of 32 bits or (in the epoch format) 48.
//!
//! Source: `docs/protocol/data.md#3-2`; `bridged/protocol/keys/replay.py`. The bitmap is a ring, as RFC 6479 has it:
//! moving the window forward clears whole words and never shifts.

use thiserror::Error;

/// Largest window.
pub const MAX_WINDOW: u32 = 65536;

const WORD_BITS: u32 = u64::BITS;

/// A window size outside 0..65536.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a replay window of {0} packets is not in 0..{MAX_WINDOW}")]
pub struct BadWindow(pub u32);

/// Why a packet id is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// Seen before, or 0.
    #[error("the packet id was seen before")]
    Replay,
    /// Behind the window.
    #[error("the packet id is older than the window")]
    TooOld,
}

impl ReplayError {
    /// The drop reason of metrics.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::TooOld => "replay_too_old",
        }
    }
}

/// The ids seen under one key in one direction: the highest, and a bit for each of the last `size`.
///
/// Ask only after the packet was authenticated. Size 0 takes rising ids only. Memory: at most 16 KiB.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    size: u32,
    highest: u64,
    /// Bit `id % (64 * len)`: that id was accepted. A power of two of words, one more than the window needs.
    words: Box<[u64]>,
}

impl ReplayWindow {
    /// A window in which nothing was seen yet. Allocates.
    ///
    /// # Errors
    /// [`BadWindow`]: `size` above 65536.
    pub fn new(size: u32) -> Result<Self, BadWindow> {
        if size > MAX_WINDOW {
            return Err(BadWindow(size));
        }
        let words = (size.div_ceil(WORD_BITS) as usize + 1).next_power_of_two();
        Ok(Self { size, highest: 0, words: vec![0; words].into_boxed_slice() })
    }

    /// Forget all ids.
    pub fn clear(&mut self) {
        self.highest = 0;
        self.words.fill(0);
    }

    /// As if all ids up to this one had been accepted.
    pub fn begin_behind(&mut self, highest: u64) {
        self.clear();
        self.highest = highest;
        for id in highest.saturating_sub(u64::from(self.size))..=highest {
            let (word, bit) = self.place(id);
            if let Some(seen) = self.words.get_mut(word) {
                *seen |= bit;
            }
        }
    }

    /// Packets behind the highest that are remembered.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Highest accepted id; 0 before the first.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether the id may be accepted; changes nothing.
    ///
    /// # Errors
    /// [`ReplayError`], the drop reason.
    #[inline]
    pub fn verdict(&self, packet_id: u64) -> Result<(), ReplayError> {
        if packet_id > self.highest {
            return Ok(());
        }
        if packet_id == 0 || packet_id == self.highest {
            return Err(ReplayError::Replay);
        }
        if self.highest - packet_id >= u64::from(self.size) {
            return Err(ReplayError::TooOld);
        }
        let (word, bit) = self.place(packet_id);
        if self.words.get(word).is_some_and(|seen| seen & bit == 0) {
            Ok(())
        } else {
            Err(ReplayError::Replay)
        }
    }

    /// Record the id.
    ///
    /// # Errors
    /// [`ReplayError`], as [`verdict`](Self::verdict); nothing is recorded then.
    #[inline]
    pub fn accept(&mut self, packet_id: u64) -> Result<(), ReplayError> {
        self.verdict(packet_id)?;
        if packet_id > self.highest {
            self.advance(packet_id);
        }
        let (word, bit) = self.place(packet_id);
        if let Some(seen) = self.words.get_mut(word) {
            *seen |= bit;
        }
        Ok(())
    }

    #[inline]
    fn place(&self, packet_id: u64) -> (usize, u64) {
        let bits = u64::from(WORD_BITS);
        let word = (packet_id / bits) as usize & (self.words.len() - 1);
        (word, 1 << (packet_id % bits))
    }

    /// Make `highest` the highest id: the words it comes into are those of ids that are now too old.
    #[inline]
    fn advance(&mut self, highest: u64) {
        let bits = u64::from(WORD_BITS);
        let (from, to) = (self.highest / bits, highest / bits);
        let mask = self.words.len() - 1;
        for step in 1..=(to - from).min(self.words.len() as u64) as usize {
            if let Some(word) = self.words.get_mut((from as usize).wrapping_add(step) & mask) {
                *word = 0;
            }
        }
        self.highest = highest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn a_window_above_65536_is_refused() {
        assert_eq!(ReplayWindow::new(65537).unwrap_err(), BadWindow(65537));
        assert!(ReplayWindow::new(65536).is_ok());
    }

    #[test]
    fn size_0_takes_rising_ids_only() {
        let mut window = ReplayWindow::new(0).unwrap();
        assert_eq!(window.accept(5), Ok(()));
        assert_eq!(window.accept(5), Err(ReplayError::Replay));
        assert_eq!(window.accept(4), Err(ReplayError::TooOld));
        assert_eq!(window.accept(6), Ok(()));
    }

    #[test]
    fn the_last_id_can_be_accepted_once() {
        let mut window = ReplayWindow::new(64).unwrap();
        assert_eq!(window.accept(u64::MAX), Ok(()));
        assert_eq!(window.accept(u64::MAX), Err(ReplayError::Replay));
        assert_eq!(window.accept(u64::MAX - 63), Ok(()));
        assert_eq!(window.accept(u64::MAX - 64), Err(ReplayError::TooOld));
        assert_eq!(window.accept(0), Err(ReplayError::Replay));
    }

    #[test]
    fn what_begins_behind_an_id_takes_none_up_to_it_and_each_later_one_once() {
        for (size, highest) in [(0, 0), (0, 7), (64, 0), (64, 5), (64, 100), (64, 128), (65536, 1000)] {
            let mut window = ReplayWindow::new(size).unwrap();
            window.begin_behind(highest);
            assert!((0..=highest).all(|id| window.accept(id).is_err()), "{size} {highest}");
            assert_eq!(window.accept(highest + 3), Ok(()));
            assert_eq!(window.accept(highest + 3), Err(ReplayError::Replay));
            assert_eq!(window.accept(highest + 1).is_ok(), size > 2, "{size} {highest}");
            assert!(window.accept(highest).is_err());
        }
    }

    fn model(seen: &HashSet<u64>, highest: u64, size: u32, id: u64) -> Result<(), ReplayError> {
        if id > highest {
            Ok(())
        } else if id == 0 || id == highest {
            Err(ReplayError::Replay)
        } else if highest - id >= u64::from(size) {
            Err(ReplayError::TooOld)
        } else if seen.contains(&id) {
            Err(ReplayError::Replay)
        } else {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_all_ids(
            size in prop_oneof![0u32..200, Just(4096u32), Just(65536)],
            steps in proptest::collection::vec((0u8..8, 0u64..300), 1..400),
        ) {
            let mut window = ReplayWindow::new(size).unwrap();
            let (mut seen, mut highest) = (HashSet::new(), 0u64);
            for (kind, distance) in steps {
                let id = match kind {
                    0 => highest.saturating_add((distance * 1000) << (distance % 30)),
                    1..=3 => highest.saturating_add(distance % 4),
                    _ => highest.saturating_sub(distance),
                };
                let expected = model(&seen, highest, size, id);
                prop_assert_eq!(window.verdict(id), expected);
                prop_assert_eq!(window.accept(id), expected);
                if expected.is_ok() {
                    seen.insert(id);
                    highest = highest.max(id);
                }
                prop_assert_eq!(window.highest(), highest);
            }
        }
    }
}
