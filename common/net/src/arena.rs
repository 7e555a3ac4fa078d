//! Receive buffers that are reused instead of allocated.
//!
//! An [`Arena`] hands out writable space at its end and splits off what was filled. When a chunk is used up it
//! is put aside, and taken back once every packet split off it is dropped. In the steady state of a packet loop
//! no packet costs an allocation, and no byte is zeroed twice.

use std::collections::VecDeque;

use bytes::BytesMut;

/// A supply of initialised bytes for packets that live a short time.
#[derive(Debug, Default)]
pub struct Arena {
    chunk: BytesMut,
    retired: VecDeque<BytesMut>,
}

impl Arena {
    /// An arena that allocates its first chunk on use.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns at least `len` writable bytes, at most [`MAX_SPACE`]. Their contents are arbitrary.
    pub fn space(&mut self, len: usize) -> &mut [u8] {
        debug_assert!(len <= MAX_SPACE, "{len} bytes asked of an arena");
        self.rewind();
        if self.chunk.len() < len {
            self.renew();
        }
        &mut self.chunk[..]
    }

    /// Splits off the first `len` bytes of what [`space`](Self::space) returned.
    pub fn take(&mut self, len: usize) -> BytesMut {
        self.chunk.split_to(len)
    }

    /// Copies `bytes` into a packet of their own.
    pub fn copy(&mut self, bytes: &[u8]) -> BytesMut {
        self.space(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.take(bytes.len())
    }

    /// Begins the chunk anew when all that was split off is gone, as it is when packets are served one by one: the
    /// same bytes are still in the cache.
    fn rewind(&mut self) {
        let rest = self.chunk.len();
        self.chunk.clear();
        let len = if self.chunk.try_reclaim(CHUNK) {
            CHUNK
        } else {
            rest
        };
        // SAFETY: every chunk is made below with CHUNK initialised bytes, and `try_reclaim` never reallocates. Either it
        // made all CHUNK bytes of that same allocation available again, or it changed nothing, and these are the bytes
        // that were there before `clear`. Bytes once initialised stay so whatever the packets wrote into them.
        #[allow(unsafe_code)]
        unsafe {
            self.chunk.set_len(len);
        }
    }

    fn renew(&mut self) {
        let mut used = std::mem::take(&mut self.chunk);
        used.clear();
        if self.retired.len() == MAX_RETIRED {
            // The oldest chunk is held up by a packet in some queue; that packet frees it.
            self.retired.pop_front();
        }
        if used.capacity() > 0 {
            self.retired.push_back(used);
        }
        // The last one used is the one that is still in the cache.
        let free = (0..self.retired.len())
            .rev()
            .find(|&at| self.retired[at].try_reclaim(CHUNK));
        self.chunk = match free.and_then(|at| self.retired.remove(at)) {
            Some(mut chunk) => {
                // SAFETY: every chunk is made below with CHUNK initialised bytes, `try_reclaim` never
                // reallocates, and it made all CHUNK bytes of that same allocation available again. Bytes once
                // initialised stay so whatever the packets wrote into them.
                #[allow(unsafe_code)]
                unsafe {
                    chunk.set_len(CHUNK);
                }
                chunk
            }
            None => BytesMut::zeroed(CHUNK),
        };
    }
}

/// The largest space that can be asked for: one IP packet, or one batch of coalesced datagrams, with headroom.
pub const MAX_SPACE: usize = 68 * 1024;

/// Small enough to stay in a second-level cache, large enough that most of it is used before less than
/// [`MAX_SPACE`] is left.
const CHUNK: usize = 256 * 1024;

/// Chunks waiting for their packets. More are held up only by deep queues, which own them then.
const MAX_RETIRED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_reused_once_its_packets_are_gone() {
        let mut arena = Arena::new();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..10_000 {
            arena.space(MAX_SPACE);
            let packet = arena.take(1400);
            seen.insert(packet.as_ptr() as usize / CHUNK);
        }
        assert!(seen.len() <= 3, "{} places", seen.len());
    }

    #[test]
    fn a_packet_that_lives_long_keeps_its_bytes() {
        let mut arena = Arena::new();
        let kept: Vec<_> = (0..200u8).map(|n| arena.copy(&[n; 1400])).collect();
        for n in 0..20_000u32 {
            arena.copy(&n.to_be_bytes());
        }
        for (n, packet) in (0..200u8).zip(&kept) {
            assert_eq!(packet[..], [n; 1400]);
        }
    }
}
