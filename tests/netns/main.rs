//! The real programs in namespaces: real TUN devices, real kernel TCP, two routers in between.
//!
//! The topology is drawn in `adit_tests::lab`. Without root it needs user namespaces and an accessible
//! /dev/net/tun; where those are missing the ring says so, and fails only where `CI=true`.
//! One test: `cargo test -p adit-tests --test netns -- site`.

mod access;
mod bed;
mod certificates;
mod companies;
mod corporate;
mod crashes;
mod engines;
mod enrolment;
mod errors;
mod keeping;
mod leftovers;
mod load;
mod maximum;
mod mtu;
mod offline;
mod openssl;
mod page;
mod path;
mod places;
mod policy;
mod quickstart;
mod records;
mod recovery;
mod reload;
mod renewal;
mod resigning;
mod revocation;
mod rules;
mod second;
mod site;
mod spiffe;
mod tunnel;
mod verbosity;

use std::process::ExitCode;

use adit_tests::lab::{self, enter::tun_obstacle, missing, trial};
use adit_tests::programs::{self, Programs};
use anyhow::{Result, bail};
use libtest_mimic::{Arguments, Trial};

type Test = fn(&Programs) -> Result<()>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let prepared = programs::build().and_then(|programs| {
        lab::enter()?;
        tun_obstacle().map_or(Ok(programs), |reason| bail!(reason))
    });
    let trials = match prepared {
        Ok(programs) => TESTS
            .iter()
            .map(|(name, test)| bind(name, *test, &programs))
            .collect(),
        Err(error) => vec![missing("netns", &format!("{error:#}"))],
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn bind(name: &str, test: Test, programs: &Programs) -> Trial {
    let programs = programs.clone();
    trial(name, move || test(&programs))
}

const TESTS: &[(&str, Test)] = &[
    (
        "verbosity_is_obeyed_and_no_secret_is_told",
        verbosity::verbosity_is_obeyed_and_no_secret_is_told,
    ),
    (
        "a_laptop_pings_the_office_in_both_families",
        tunnel::a_laptop_pings_the_office,
    ),
    (
        "tcp_and_udp_both_ways_and_both_families",
        tunnel::tcp_and_udp_both_ways,
    ),
    (
        "three_clients_at_once_have_three_addresses",
        tunnel::three_clients_at_once,
    ),
    (
        "a_denied_destination_fails_at_once_with_icmp",
        tunnel::a_denied_destination_fails_at_once,
    ),
    (
        "clients_do_not_reach_each_other_without_a_rule",
        tunnel::clients_do_not_reach_each_other,
    ),
    (
        "clients_reach_each_other_where_the_policy_says_so",
        tunnel::clients_reach_each_other,
    ),
    (
        "a_full_tunnel_carries_everything_and_leaks_nothing",
        tunnel::a_full_tunnel_carries_everything,
    ),
    (
        "the_outer_path_may_be_ipv6",
        tunnel::the_outer_path_may_be_ipv6,
    ),
    (
        "status_of_both_ends_tells_the_same_story",
        tunnel::status_of_both_ends,
    ),
    (
        "the_quick_start_of_the_readme_is_true",
        quickstart::the_readme_is_true,
    ),
    (
        "the_root_of_the_readme_stays_in_its_drawer",
        offline::the_root_stays_in_its_drawer,
    ),
    (
        "the_page_of_the_readme_about_access_is_true",
        access::somebody_gets_access_and_loses_it,
    ),
    (
        "a_revoked_certificate_is_out_within_a_second_and_nobody_else_notices",
        revocation::a_revoked_certificate_is_out,
    ),
    (
        "a_list_that_is_old_foreign_or_cut_changes_nothing",
        revocation::a_wrong_list_changes_nothing,
    ),
    (
        "a_session_with_a_revoked_key_ends",
        revocation::a_revoked_key_is_out,
    ),
    (
        "a_renewed_certificate_is_taken_without_losing_a_packet",
        renewal::a_renewed_certificate_is_taken,
    ),
    (
        "a_renewal_that_is_wrong_changes_nothing_and_is_told",
        renewal::a_wrong_renewal_changes_nothing,
    ),
    (
        "a_hundred_sessions_end_within_a_second_of_their_certificates",
        renewal::a_hundred_sessions_end_with_their_certificates,
    ),
    (
        "a_session_moves_before_its_maximum_without_losing_a_packet",
        maximum::a_session_moves_before_it,
    ),
    (
        "who_cannot_move_is_closed_at_the_session_maximum",
        maximum::who_cannot_move_is_closed_at_it,
    ),
    (
        "a_gateway_signs_the_list_of_its_authority_anew_in_time",
        resigning::in_time,
    ),
    (
        "a_hundred_revocations_count_within_a_second_each",
        revocation::a_hundred_revocations,
    ),
    (
        "who_has_what_is_known_over_restarts_whoever_issued_it",
        certificates::are_known_over_restarts,
    ),
    (
        "another_companys_certificates_do_with_ecdsa_keys",
        companies::with_ecdsa_keys,
    ),
    (
        "another_companys_certificates_do_with_rsa_keys",
        companies::with_rsa_keys,
    ),
    (
        "spiffe_ids_are_principals_and_their_certificates_come_and_go",
        spiffe::ids_are_principals_and_their_certificates_come_and_go,
    ),
    (
        "a_damaged_inventory_is_set_aside_and_the_gateway_runs",
        certificates::a_damaged_inventory_is_set_aside,
    ),
    (
        "codes_are_good_once_and_guesses_are_few",
        enrolment::codes_are_good_once,
    ),
    (
        "what_cannot_work_is_noticed_before_the_code_is_spent",
        enrolment::what_cannot_work_is_noticed,
    ),
    (
        "a_certificate_renews_itself_until_it_is_revoked",
        enrolment::a_certificate_renews_itself,
    ),
    (
        "certificate_and_key_in_files_are_renewed_as_a_pair",
        keeping::files_are_renewed_as_a_pair,
    ),
    (
        "what_cannot_be_renewed_is_told_once_and_the_session_goes_on",
        keeping::what_cannot_be_renewed_is_told_once,
    ),
    ("several_engines_are_one_gateway", engines::are_one_gateway),
    ("site_to_site_between_two_lans", site::between_two_lans),
    (
        "a_bad_path_still_carries_a_whole_file",
        path::a_bad_path_still_carries_a_whole_file,
    ),
    (
        "a_new_address_of_the_client_does_not_end_the_session",
        path::a_new_address_is_followed,
    ),
    (
        "a_dead_first_gateway_address_is_passed_over",
        path::a_dead_first_address_is_passed_over,
    ),
    (
        "killed_at_each_write_of_its_state_the_gateway_keeps_what_it_promised",
        crashes::nobody_loses_an_address,
    ),
    (
        "killed_at_each_write_of_its_first_start_the_gateway_starts_again",
        crashes::a_first_start_is_whole_or_begun_anew,
    ),
    (
        "a_killed_gateway_is_found_again_with_the_same_address",
        recovery::a_killed_gateway,
    ),
    (
        "a_stopped_gateway_is_found_again",
        recovery::a_stopped_gateway,
    ),
    (
        "a_killed_client_comes_back_with_the_same_address",
        recovery::a_killed_client,
    ),
    (
        "a_long_interruption_is_survived",
        recovery::a_long_interruption,
    ),
    (
        "a_grant_counts_at_once_and_a_withdrawal_within_a_second",
        reload::a_grant_and_a_withdrawal,
    ),
    (
        "a_wrong_file_changes_nothing_and_is_named",
        reload::a_wrong_file_changes_nothing,
    ),
    (
        "sighup_reads_everything_again",
        reload::sighup_reads_everything_again,
    ),
    (
        "the_gateways_certificate_is_replaced_without_a_restart",
        reload::the_certificate_is_replaced,
    ),
    (
        "sessions_of_a_removed_authority_end_with_the_reason",
        reload::an_authority_is_removed,
    ),
    (
        "addresses_move_and_the_host_follows",
        reload::addresses_move_and_the_host_follows,
    ),
    (
        "a_dry_run_tells_and_changes_nothing",
        reload::a_dry_run_changes_nothing,
    ),
    (
        "socket_state_and_interface_change_under_traffic",
        places::all_change_under_traffic,
    ),
    (
        "a_failed_reload_leaves_socket_state_and_interface",
        places::a_failure_leaves_every_place_as_it_was,
    ),
    (
        "another_mtu_counts_for_sessions_that_run",
        places::another_mtu_counts_for_sessions_that_run,
    ),
    (
        "a_policy_that_fails_its_tests_is_refused",
        policy::that_fails_its_tests_is_refused,
    ),
    (
        "a_policy_is_explained_with_and_without_a_gateway",
        policy::is_explained_with_and_without_a_gateway,
    ),
    (
        "a_hundred_reloads_under_load_lose_nothing",
        load::a_hundred_reloads_under_load,
    ),
    (
        "what_happened_stands_in_the_audit_log",
        records::the_audit_log,
    ),
    ("what_was_used_is_kept_over_restarts", records::the_accounts),
    (
        "the_rate_of_a_rule_is_kept_and_used",
        rules::a_rate_is_kept_and_used,
    ),
    (
        "what_is_denied_stands_in_the_audit_log",
        rules::what_is_denied_stands_in_the_audit_log,
    ),
    (
        "rules_are_accounted_for_over_reloads_and_restarts",
        rules::rules_are_accounted_for,
    ),
    ("an_outer_path_of_1280_carries_a_file", mtu::path_1280),
    ("an_outer_path_of_1400_carries_a_file", mtu::path_1400),
    ("an_outer_path_of_1500_carries_a_file", mtu::path_1500),
    ("an_outer_path_of_9000_carries_a_file", mtu::path_9000),
    (
        "nothing_is_left_on_either_host_afterwards",
        leftovers::nothing_is_left_afterwards,
    ),
    (
        "kill_9_leftovers_are_undone_at_the_next_start",
        leftovers::kill_9_leftovers_are_undone,
    ),
    (
        "adit_down_ends_the_client_and_restores_the_host",
        leftovers::adit_down_restores_the_host,
    ),
    (
        "a_second_connection_replaces_the_first",
        second::replaces_the_first,
    ),
    (
        "a_second_connection_is_refused_where_configured",
        second::is_refused,
    ),
    (
        "refusals_that_retrying_cannot_cure_end_the_client",
        errors::incurable_refusals,
    ),
    (
        "without_rights_one_sentence_and_nothing_changed",
        errors::without_rights,
    ),
    ("a_port_in_use_is_named", errors::a_port_in_use),
    (
        "a_missing_tun_device_is_named",
        errors::a_missing_tun_device,
    ),
    (
        "a_key_others_can_read_is_refused",
        errors::a_key_others_can_read,
    ),
    (
        "a_wrong_or_half_written_file_is_named_with_its_line",
        errors::a_half_written_file,
    ),
];
