//! Packets in a stream: each stands behind its length, two bytes.
//!
//! Source: docs/protocol/data.md#2-1. Pure.

/// Bytes of a length.
pub const PREFIX_OCTETS: usize = 2;
/// Bytes of the longest packet, with its length.
pub const FRAMED_OCTETS: usize = PREFIX_OCTETS + u16::MAX as usize;

/// Packets of one length that stand one behind the other: the first one's bytes begin at `start`, and `length` bytes
/// reach to the end of the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FramedRun {
    pub start: usize,
    pub length: usize,
    pub size: usize,
}

/// A length of 0: nothing behind it can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadFraming;

/// Bytes of the packet that begins here; 0 while that cannot be known.
pub fn next_length(octets: &[u8]) -> usize {
    octets.first_chunk::<PREFIX_OCTETS>().map_or(0, |prefix| usize::from(u16::from_be_bytes(*prefix)))
}

/// The packets that are complete, and where the first incomplete one begins.
///
/// # Errors
/// [`BadFraming`].
pub fn find_packets(octets: &[u8], runs: &mut Vec<FramedRun>) -> Result<usize, BadFraming> {
    let mut at = 0;
    while let Some(prefix) = octets.get(at..).and_then(|rest| rest.first_chunk::<PREFIX_OCTETS>()) {
        let size = usize::from(u16::from_be_bytes(*prefix));
        if size == 0 {
            return Err(BadFraming);
        }
        let start = at + PREFIX_OCTETS;
        if octets.len() - start < size {
            break;
        }
        at = start + size;
        match runs.last_mut() {
            Some(run) if run.size == size => run.length = at - run.start,
            _ => runs.push(FramedRun { start, length: size, size }),
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(sizes: &[usize]) -> Vec<u8> {
        sizes.iter().flat_map(|size| [&(*size as u16).to_be_bytes()[..], &vec![7; *size]].concat()).collect()
    }

    #[test]
    fn packets_of_one_length_are_a_run_and_the_rest_waits() {
        let octets = framed(&[5, 5, 5, 3, 9]);
        let mut runs = Vec::new();
        assert_eq!(find_packets(&octets[..octets.len() - 1], &mut runs), Ok(26));
        let wanted = [FramedRun { start: 2, length: 19, size: 5 }, FramedRun { start: 23, length: 3, size: 3 }];
        assert_eq!(runs, wanted);
    }

    #[test]
    fn every_cut_waits_for_the_rest() {
        let octets = framed(&[1, 65_535, 2]);
        for end in [0, 1, 2, 3, 4, 5, 100, octets.len() - 4, octets.len() - 3, octets.len() - 1] {
            let mut runs = Vec::new();
            let used = find_packets(&octets[..end], &mut runs).unwrap();
            assert!(used <= end && end - used < FRAMED_OCTETS, "{end}");
            assert_eq!(find_packets(&octets[used..end], &mut Vec::new()), Ok(0));
        }
    }

    #[test]
    fn a_length_of_0_is_the_end() {
        assert_eq!(find_packets(&framed(&[4, 0, 4]), &mut Vec::new()), Err(BadFraming));
    }
}
