//! Searches for inputs that break what parses outside bytes.
//!
//! The targets themselves are in `tests/src/fuzz.rs`, where the ordinary test run replays the
//! corpus on stable.

#[path = "../../tests/src/fuzz.rs"]
pub mod targets;
