//! A year of a company with 500 employees: people join, renew, travel, lose laptops and leave; lists come late,
//! authorities are replaced, clocks are wrong by minutes.
//!
//! What decides is the real thing: folders of authorities, the gateway's configuration, its revocation lists, its
//! verifier, its issuing and its inventory. What they should say is written down beside by a [`ledger`] that knows
//! nothing of certificates but who has which, from when until when. Both are compared all the time: who gets in, who
//! gets a certificate, and every tenth evening what the inventory says of each. Time is an argument; a year takes
//! seconds.
#![allow(clippy::unwrap_used, clippy::unwrap_in_result, unreachable_pub)]

mod calendar;
mod company;
mod ledger;
mod story;

#[test]
fn in_a_year_of_five_hundred_employees_nobody_is_locked_out_or_let_in_wrongly() {
    story::Story::new(1).live();
}

#[test]
fn in_another_year_neither() {
    story::Story::new(2).live();
}
