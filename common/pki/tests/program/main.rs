//! `adit-ca` as operators and devices meet it: requests, intermediates, codes, passphrases, and what is
//! left when it is ended at any of its writes.
#![allow(clippy::unwrap_used)]

mod commands;
mod crashes;
mod crowd;
mod desk;
mod operator;
mod passphrases;
mod terminal;
