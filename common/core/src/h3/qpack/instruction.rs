//! The peer's QPACK encoder and decoder streams (RFC 9204 §4.3 and §4.4).
//!
//! Without a dynamic table almost every instruction is an error: the encoder may only set the
//! capacity to 0, and the decoder may only cancel streams.

use thiserror::Error;

/// Checks the instructions on the peer's encoder stream.
#[derive(Debug, Default)]
pub struct EncoderStream {
    number: Option<PrefixedInteger>,
}

impl EncoderStream {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, data: &[u8]) -> Result<(), InstructionError> {
        each(&mut self.number, data, 5, |flags, capacity| {
            match (flags, capacity) {
                // RFC 9204 §4.3.1: Set Dynamic Table Capacity, at most what we announced.
                (0x20, 0) => Ok(()),
                (0x20, _) => Err(InstructionError::Capacity { capacity }),
                // RFC 9204 §3.2.2: nothing fits into a table of capacity 0.
                _ => Err(InstructionError::Insert),
            }
        })
    }
}

/// Checks the instructions on the peer's decoder stream.
#[derive(Debug, Default)]
pub struct DecoderStream {
    number: Option<PrefixedInteger>,
}

impl DecoderStream {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, data: &[u8]) -> Result<(), InstructionError> {
        each(&mut self.number, data, 6, |flags, _| match flags {
            // RFC 9204 §4.4.2: Stream Cancellation.
            0x40 => Ok(()),
            // RFC 9204 §4.4.1 and §4.4.3: we never inserted anything to acknowledge.
            _ => Err(InstructionError::Acknowledgement),
        })
    }
}

/// An instruction that cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InstructionError {
    /// A capacity above the announced 0.
    #[error("the encoder sets a table capacity of {capacity}, the limit is 0")]
    Capacity {
        /// The capacity.
        capacity: u64,
    },
    /// An insertion into a table of capacity 0.
    #[error("the encoder inserts into a table of capacity 0")]
    Insert,
    /// An acknowledgement of what was never sent.
    #[error("the decoder acknowledges what was never sent")]
    Acknowledgement,
    /// A number with more than 62 bits.
    #[error("an integer is too large")]
    Integer,
}

/// A prefixed integer (RFC 7541 §5.1) whose bytes arrive one by one.
#[derive(Debug, Clone, Copy)]
pub(super) struct PrefixedInteger {
    flags: u8,
    value: u64,
    shift: u32,
    complete: bool,
}

impl PrefixedInteger {
    /// Starts with the first byte, of which the low `prefix` bits belong to the number.
    pub(super) const fn new(first: u8, prefix: u8) -> Self {
        let max = ((1_u16 << prefix) - 1) as u8;
        Self {
            flags: first & !max,
            value: (first & max) as u64,
            shift: 0,
            complete: first & max != max,
        }
    }

    /// Takes the next byte; `None` if the number gets larger than 62 bits (RFC 9204 §4.1.1).
    pub(super) fn push(&mut self, byte: u8) -> Option<()> {
        if self.shift > MAX_SHIFT {
            return None;
        }
        let value = u64::from(byte & 0x7f) << self.shift;
        self.value = self
            .value
            .checked_add(value)
            .filter(|value| *value < 1 << 62)?;
        self.shift += 7;
        self.complete = byte & 0x80 == 0;
        Some(())
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// The bits of the first byte that do not belong to the number.
    pub(super) const fn flags(&self) -> u8 {
        self.flags
    }

    pub(super) const fn value(&self) -> u64 {
        self.value
    }
}

/// Hands each instruction's flags and number to `check`, and the flags alone as soon as they are
/// known to be forbidden whatever the number.
fn each(
    number: &mut Option<PrefixedInteger>,
    data: &[u8],
    prefix: u8,
    check: impl Fn(u8, u64) -> Result<(), InstructionError>,
) -> Result<(), InstructionError> {
    for &byte in data {
        let mut current = match number.take() {
            None => {
                let first = PrefixedInteger::new(byte, prefix);
                check(first.flags(), 0)?;
                first
            }
            Some(mut current) => {
                current.push(byte).ok_or(InstructionError::Integer)?;
                current
            }
        };
        if current.is_complete() {
            check(current.flags(), current.value())?;
        } else {
            current.complete = false;
            *number = Some(current);
        }
    }
    Ok(())
}

/// The last place at which seven bits still begin inside 62.
const MAX_SHIFT: u32 = 56;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoder_may_set_the_capacity_to_zero_and_nothing_else() {
        let mut stream = EncoderStream::default();
        assert_eq!(stream.push(&[0x20, 0x20]), Ok(()));
        assert_eq!(
            stream.push(&[0x21]),
            Err(InstructionError::Capacity { capacity: 1 })
        );
        for first in [0x80, 0xc0, 0x40, 0x60, 0x00, 0x1f] {
            let mut stream = EncoderStream::default();
            assert_eq!(
                stream.push(&[first]),
                Err(InstructionError::Insert),
                "{first:#x}"
            );
        }
    }

    #[test]
    fn a_decoder_may_cancel_streams_and_nothing_else() {
        let mut stream = DecoderStream::default();
        assert_eq!(stream.push(&[0x40, 0x44, 0x7f]), Ok(()));
        assert_eq!(stream.push(&[0x80]), Ok(()));
        assert_eq!(stream.push(&[0x01]), Ok(()));
        for first in [0x80, 0x84, 0x00, 0x01] {
            let mut stream = DecoderStream::default();
            assert_eq!(
                stream.push(&[first]),
                Err(InstructionError::Acknowledgement)
            );
        }
    }

    #[test]
    fn an_endless_number_is_refused() {
        let mut stream = DecoderStream::default();
        assert_eq!(stream.push(&[0x7f]), Ok(()));
        assert_eq!(stream.push(&[0xff; 64]), Err(InstructionError::Integer));
    }
}
