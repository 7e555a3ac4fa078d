//! The tables of a gateway: who owns an address, and who holds which lease.

pub mod leases;
pub mod owners;
