//! The operating-system shell of Adit: everything a program needs from the host and nothing else.
//!
//! The packet path uses [`tun`], [`udp`] and [`poll`]: plain system calls on one thread, no async runtime,
//! no lock; [`data_loop`] joins them, and [`foothold`] keeps that thread on its core. The control plane uses [`host`]
//! (addresses, routes, rules, forwarding, masquerading; journalled before they are made and undone afterwards),
//! [`files`], [`record`], [`control_socket`], [`signals`], [`clock`], [`log`], [`priority`] and [`exit`].
//!
//! This crate decides nothing about packets or peers. It holds the only `unsafe` code of the workspace and the
//! only code that knows an operating system: `<module>/linux.rs`, beside which an `unsupported.rs` keeps the
//! workspace compiling everywhere else.
//!
//! Every error type here is about the environment (exit status 3). Its `Display` says what failed and where; its
//! `hint()` says what to do about it.

#![warn(missing_docs)]

pub mod arena;
pub mod clock;
pub mod control_socket;
pub mod data_loop;
pub mod exit;
pub mod files;
pub mod foothold;
pub mod host;
pub mod log;
pub mod poll;
pub mod priority;
pub mod record;
pub mod signals;
pub mod tun;
pub mod udp;
