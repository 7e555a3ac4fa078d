//! Memory for packets that live until the next transmit: reused instead of allocated.

use std::collections::VecDeque;

use adit_core::offload::split::Segments;
use adit_core::wire::datagram;
use bytes::{Bytes, BytesMut};

/// A supply of writable bytes. What is split off the end of a chunk keeps it alive; once all of it
/// is dropped, the chunk serves again.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    chunk: BytesMut,
    retired: VecDeque<BytesMut>,
}

impl Chunks {
    /// An empty buffer with room for `len` bytes; `split` what was written off it.
    pub(crate) fn room(&mut self, len: usize) -> &mut BytesMut {
        let size = len.max(CHUNK);
        if self.chunk.capacity() < len && !self.chunk.try_reclaim(size) {
            let used = std::mem::take(&mut self.chunk);
            if used.capacity() > 0 {
                self.retired.push_back(used);
            }
            // The last one used is the one that is still in the cache.
            let free = (0..self.retired.len())
                .rev()
                .find(|&at| self.retired[at].try_reclaim(size));
            self.chunk = free
                .and_then(|at| self.retired.remove(at))
                .unwrap_or_else(|| BytesMut::with_capacity(size));
            if self.retired.len() > MAX_RETIRED {
                // Held up by a packet in some queue, which frees it.
                self.retired.pop_front();
            }
        }
        &mut self.chunk
    }

    /// Cuts a packet into datagrams of the request stream `stream`, each with the length of the packet
    /// in it. Every byte is copied once, behind the prefix.
    pub(crate) fn datagrams(
        &mut self,
        stream: u64,
        segments: &Segments<'_>,
    ) -> impl Iterator<Item = (Bytes, usize)> {
        let prefix = datagram::prefix_len(stream);
        let room = self.room(segments.total() + segments.count() * prefix);
        (0..segments.count()).map(move |index| {
            room.resize(prefix, 0);
            datagram::write_prefix(stream, room);
            let length = segments.append(index, room);
            (room.split().freeze(), length)
        })
    }
}

/// One packet of 64 KiB cut into usual segments, headers and prefixes included: two or three of these, with what is read
/// and what is sent, stay in a second-level cache.
const CHUNK: usize = 80 * 1024;
/// Chunks waiting for their packets to be sent.
const MAX_RETIRED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_serves_again_once_its_packets_are_gone() {
        let mut chunks = Chunks::default();
        let mut places = std::collections::BTreeSet::new();
        for round in 0..10_000 {
            let room = chunks.room(60_000);
            room.extend_from_slice(&[7; 1400]);
            let packet = room.split();
            if round % 100 == 0 {
                places.insert(packet.as_ptr() as usize / CHUNK);
            }
        }
        assert!(places.len() <= 3, "{} places", places.len());
    }

    #[test]
    fn what_was_split_off_keeps_its_bytes() {
        let mut chunks = Chunks::default();
        let kept: Vec<_> = (0..200u8)
            .map(|n| {
                let room = chunks.room(60_000);
                room.extend_from_slice(&[n; 1400]);
                room.split()
            })
            .collect();
        for (n, packet) in (0..200u8).zip(&kept) {
            assert_eq!(packet[..], [n; 1400]);
        }
    }
}
