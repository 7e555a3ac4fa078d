//! Which work an interface may leave to its (pretended) hardware: what `ethtool -K` switches.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};

use super::Namespace;

impl Namespace {
    /// Switches every feature of `interface` whose kernel name is in `names`; fails unless the kernel
    /// then reports what was asked for.
    ///
    /// The names are the kernel's (`ethtool -k` translates some): [`SEGMENTATION`] and [`RECEIVE`].
    pub fn set_features(&self, interface: &str, names: &[&str], on: bool) -> Result<()> {
        self.run(|| switch(interface, names, on))
            .with_context(|| format!("cannot switch {names:?} of {interface} in {}", self.name()))
    }
}

/// Cutting super-packets: without these, every packet that leaves is one that fits the link.
pub const SEGMENTATION: &[&str] = &[
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
    "tx-generic-segmentation",
    "tx-udp-segmentation",
];

/// Joining packets on arrival.
pub const RECEIVE: &[&str] = &["rx-gro"];

fn switch(interface: &str, names: &[&str], on: bool) -> Result<()> {
    let control = Control::of(interface)?;
    let features = control.names()?;
    let mut bits = BTreeSet::new();
    for name in names {
        let bit = features.iter().position(|feature| feature == name);
        bits.insert(bit.with_context(|| format!("this kernel has no feature {name}"))?);
    }
    let blocks = features.len().div_ceil(32);
    let mut request = vec![ETHTOOL_SFEATURES, u32::try_from(blocks)?];
    for block in 0..blocks {
        let valid = (0..32)
            .filter(|bit| bits.contains(&(block * 32 + bit)))
            .fold(0, |mask, bit| mask | 1u32 << bit);
        request.extend([valid, if on { valid } else { 0 }]);
    }
    control.ask(&mut request)?;
    // The kernel may refuse a single feature without an error.
    let mut answer = vec![ETHTOOL_GFEATURES, u32::try_from(blocks)?];
    // Four words a block: available, requested, active, never changed.
    answer.resize(2 + blocks * 4, 0);
    control.ask(&mut answer)?;
    for bit in bits {
        let active = answer[2 + bit / 32 * 4 + 2] & (1 << (bit % 32)) != 0;
        if active != on {
            bail!("{} stays {}", features[bit], if on { "off" } else { "on" });
        }
    }
    Ok(())
}

/// A socket to send SIOCETHTOOL through, and the interface it is about.
struct Control {
    socket: Socket,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Control {
    fn of(interface: &str) -> io::Result<Self> {
        let mut name = [0; libc::IFNAMSIZ];
        // The last byte stays zero.
        if interface.len() >= name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        Ok(Self { socket, name })
    }

    /// The names of all features; the place in the list is the number of the bit.
    fn names(&self) -> Result<Vec<String>> {
        // struct ethtool_sset_info: command, reserved, a mask of 64 bits, then one length per bit.
        let mut count = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
        self.ask(&mut count)?;
        let length = usize::try_from(count[4])?;
        // struct ethtool_gstrings: command, set, length, then the strings.
        let mut strings = vec![ETHTOOL_GSTRINGS, ETH_SS_FEATURES, count[4]];
        strings.resize(3 + length * ETH_GSTRING_LEN / 4, 0);
        self.ask(&mut strings)?;
        let bytes: Vec<u8> = strings[3..]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let name = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0);
            String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
        };
        Ok(bytes.chunks(ETH_GSTRING_LEN).map(name).collect())
    }

    /// One request; `words` is one of the kernel's ethtool structures, long enough for the answer.
    fn ask(&self, words: &mut [u32]) -> io::Result<()> {
        let mut request = libc::ifreq {
            ifr_name: self.name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: words.as_mut_ptr().cast(),
            },
        };
        // SAFETY: the descriptor is open, `request` is a live ifreq, and its pointer leads to a live
        // structure whose own length field (or command) says no more than what was allocated for it.
        let result = unsafe {
            libc::ioctl(
                self.socket.as_raw_fd(),
                SIOCETHTOOL,
                std::ptr::from_mut(&mut request),
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// linux/sockios.h; the libc crate leaves it out.
const SIOCETHTOOL: libc::Ioctl = 0x8946;

// linux/ethtool.h.
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;
