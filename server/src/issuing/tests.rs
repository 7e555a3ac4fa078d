//! The authority of a gateway in a folder, asked as the front desk asks.

use std::path::PathBuf;
use std::sync::Arc;

use adit_core::identity::{self, AuthorityRule, GroupSource, PrincipalSource};
use adit_pki::csr;
use adit_pki::invitation::Code;
use adit_pki::{AuthorityParams, IssueRequest, KeyType, Reason};
use adit_tunnel::tls::GatewayKey;
use rustls::pki_types::{CertificateSigningRequestDer, PrivateKeyDer};

use super::*;

/// The moment at which everything here begins, Unix time.
pub(crate) const NOW: i64 = 1_800_000_000;

/// A gateway with an intermediate of its own root, in a folder that goes with it.
pub(crate) struct House {
    pub(crate) root: PathBuf,
    pub(crate) issuing: Arc<Issuing>,
    /// The gateway's own.
    certificate: CertificateDer<'static>,
}

impl House {
    pub(crate) fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("adit-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        let params = AuthorityParams::new("Example", NOW);
        let ca = Authority::create(&root.join("ca"), &params, NOW).unwrap();
        let under = AuthorityParams::under(&ca, "Example", NOW);
        Authority::create_under(&ca, &root.join("issuing"), &under, NOW).unwrap();
        let config = EnrolmentConfig {
            folder: root.join("issuing"),
            passphrase_file: None,
            ca: None,
            gateways: vec!["vpn.example.com:443".to_owned()],
            renews: Vec::new(),
        };
        let credentials = gateway(&ca);
        let issuing = Issuing::open(&config, &credentials).unwrap();
        Self {
            root,
            issuing: Arc::new(issuing),
            certificate: credentials.chain[0].clone(),
        }
    }

    fn invite(&self) -> Standing {
        invited(self.code().secret())
    }

    fn code(&self) -> Code {
        let guest = Guest {
            principal: "bob@example.com".to_owned(),
            groups: vec!["staff".to_owned()],
            code_life: Duration::from_secs(3600),
            validity: Duration::from_secs(86_400),
        };
        let (code, _) = self.issuing.invite(&guest, NOW).unwrap();
        code.parse().unwrap()
    }

    fn ask(&self, standing: &Standing, request: &[u8]) -> Result<(Issued, Verdict), Denial> {
        let laptop = UserAgent::of_host("0.1.0", "linux", "laptop");
        self.issuing.sign(standing, request, Some(&laptop), NOW)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn gateway(ca: &Authority) -> Credentials {
    let issued = ca
        .issue(&IssueRequest::gateway("vpn.example.com", NOW), NOW)
        .unwrap();
    Credentials {
        chain: chain(&issued.certificate_pem),
        key: PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap(),
    }
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    let chain: Result<_, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    chain.unwrap()
}

fn invited(secret: &[u8; 16]) -> Standing {
    let secret: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    Standing::Invited(Secret::parse(&secret).unwrap())
}

fn holds(issued: &Issued) -> Standing {
    let certificate = chain(&issued.certificate).remove(0);
    let rule = AuthorityRule {
        name: "example".to_owned(),
        principal: vec![PrincipalSource::Email],
        groups: GroupSource::Ou,
        trust_domain: None,
    };
    let identity = identity::extract(&certificate, &rule).unwrap();
    Standing::Holds {
        identity,
        certificate,
    }
}

fn request(names: Option<&str>) -> Vec<u8> {
    let made = csr::make(names, KeyType::EcdsaP256).unwrap();
    let der = CertificateSigningRequestDer::from_pem_slice(made.request_pem.as_bytes());
    der.unwrap().to_vec()
}

#[test]
fn a_code_is_good_for_one_certificate_and_one_key() {
    let house = House::new("once");
    let (standing, mine) = (house.invite(), request(None));
    let (issued, verdict) = house.ask(&standing, &mine).unwrap();
    assert!(matches!(verdict, Verdict::Enrolled(facts) if facts.principal == "bob@example.com"));
    assert_eq!(chain(&issued.certificate).len(), 2, "with the intermediate");
    assert_eq!(chain(&issued.authorities).len(), 1);
    assert_eq!(issued.gateways, ["vpn.example.com:443"]);
    // The answer was lost: the same key may hear it once more, and no other.
    let (again, _) = house.ask(&standing, &mine).unwrap();
    assert_eq!(again.certificate, issued.certificate);
    let used = house.ask(&standing, &request(None)).unwrap_err();
    let unknown = house.ask(&invited(&[7; 16]), &request(None)).unwrap_err();
    assert_eq!((used.kind, unknown.kind), ("used", "unknown"));
    assert_eq!(used.told, unknown.told, "a guesser learns nothing");
}

#[test]
fn a_code_names_the_key_that_whoever_redeems_it_looks_for() {
    let house = House::new("pin");
    let looked_for = GatewayKey::new(*house.code().pin());
    let shown = GatewayKey::of_certificate(&house.certificate);
    assert_eq!(shown, Some(looked_for));
}

#[test]
fn the_index_has_the_name_of_the_device_and_a_long_one_costs_nobody_the_certificate() {
    let house = House::new("device");
    let long = UserAgent::of_host("0.1.0", "linux", &"h".repeat(64));
    let foreign = UserAgent::read(&[b'm'; 200]).unwrap();
    house.ask(&house.invite(), &request(None)).unwrap();
    for agent in [&long, &foreign] {
        let signed = house
            .issuing
            .sign(&house.invite(), &request(None), Some(agent), NOW);
        signed.unwrap();
    }
    let entries = house.issuing.authority().entries().unwrap();
    let devices: Vec<_> = entries.into_iter().filter_map(|one| one.device).collect();
    assert_eq!(
        devices,
        ["laptop".to_owned(), "h".repeat(64), "m".repeat(64)]
    );
}

#[test]
fn who_asks_for_more_gets_nothing_and_may_still_ask_for_what_was_granted() {
    let house = House::new("more");
    let standing = house.invite();
    let mut broken = request(None);
    let last = broken.len() - 1;
    broken[last] ^= 1;
    for wrong in [
        request(Some("root@example.com")),
        broken,
        b"rubbish".to_vec(),
    ] {
        let denial = house.ask(&standing, &wrong).unwrap_err();
        assert_eq!(denial.kind, "bad-request");
        assert_eq!(denial.told.kind, RefusalKind::CertificateRefused);
    }
    house
        .ask(&standing, &request(Some("bob@example.com")))
        .unwrap();
}

#[test]
fn a_certificate_is_renewed_with_what_it_had_until_it_is_revoked() {
    let house = House::new("renew");
    let (first, _) = house.ask(&house.invite(), &request(None)).unwrap();
    let later = NOW + 3600;
    let holder = holds(&first);
    let renew = |request: &[u8]| house.issuing.sign(&holder, request, None, later);
    let (second, verdict) = renew(&request(None)).unwrap();
    let (
        Standing::Holds {
            identity: before, ..
        },
        Standing::Holds {
            identity: after, ..
        },
    ) = (&holder, &holds(&second))
    else {
        panic!("two holders");
    };
    assert!(
        matches!(verdict, Verdict::Renewed { serial_before, .. } if serial_before == before.serial)
    );
    assert_eq!(
        (&after.principal, &after.groups),
        (&before.principal, &before.groups)
    );
    assert!(after.not_after > before.not_after);
    let more = renew(&request(Some("root@example.com"))).unwrap_err();
    assert_eq!(more.kind, "not-renewable");
    let serials = [before.serial.clone()];
    let (authority, life) = (house.issuing.authority(), time::Duration::days(7));
    authority
        .revoke(&serials, Reason::KeyCompromise, life, NOW)
        .unwrap();
    let denial = renew(&request(None)).unwrap_err();
    assert_eq!(denial.told.kind, RefusalKind::CertificateRefused);
    assert!(denial.reason.contains("revoked"), "{denial:?}");
    let elsewhere = House::new("elsewhere");
    let denial = elsewhere
        .issuing
        .sign(&holder, &request(None), None, later)
        .unwrap_err();
    assert_eq!(denial.told.kind, RefusalKind::NotIssuing);
}

#[test]
fn a_root_that_does_not_vouch_for_the_gateway_is_refused() {
    let house = House::new("foreign");
    let other = Authority::ephemeral("Other", NOW).unwrap();
    let config = EnrolmentConfig {
        folder: house.root.join("issuing"),
        passphrase_file: None,
        ca: None,
        gateways: Vec::new(),
        renews: Vec::new(),
    };
    let refused = Issuing::open(&config, &gateway(&other));
    assert!(matches!(refused, Err(LoadError::Foreign { .. })));
    let ca = house.root.join("other.pem");
    std::fs::write(&ca, other.certificate_pem()).unwrap();
    let config = EnrolmentConfig {
        ca: Some(ca),
        ..config
    };
    assert!(Issuing::open(&config, &gateway(&other)).is_ok());
}

#[test]
fn a_namesake_of_the_root_does_not_vouch_for_a_gateway_even_when_its_certificate_is_over() {
    let house = House::new("namesake");
    let ca = Authority::open(&house.root.join("ca")).unwrap();
    let over = IssueRequest::gateway("vpn.example.com", NOW - 800 * 86_400);
    let over = ca.issue(&over, NOW).unwrap();
    let credentials = Credentials {
        chain: chain(&over.certificate_pem),
        key: PrivateKeyDer::from_pem_slice(over.key_pem.as_bytes()).unwrap(),
    };
    let mut config = EnrolmentConfig {
        folder: house.root.join("issuing"),
        passphrase_file: None,
        ca: None,
        gateways: Vec::new(),
        renews: Vec::new(),
    };
    assert!(
        Issuing::open(&config, &credentials).is_ok(),
        "its time is not the root's business"
    );
    let namesake = house.root.join("namesake.pem");
    let other = Authority::ephemeral("Example", NOW).unwrap();
    std::fs::write(&namesake, other.certificate_pem()).unwrap();
    config.ca = Some(namesake);
    let refused = Issuing::open(&config, &credentials);
    assert!(matches!(refused, Err(LoadError::Foreign { .. })));
}

#[test]
fn who_enrols_is_let_in_by_the_gateways_own_authorities_or_the_folder_is_refused() {
    let house = House::new("stranger");
    let root = std::fs::read_to_string(house.root.join("ca/ca.pem")).unwrap();
    let namesake = Authority::ephemeral("Example", NOW).unwrap();
    let issuing = std::fs::read_to_string(house.root.join("issuing/ca.pem")).unwrap();
    let provider = Arc::new(Algorithms::for_this_cpu().provider());
    for (anchor, known) in [
        (root.as_str(), true),
        (issuing.as_str(), true),
        (namesake.certificate_pem(), false),
    ] {
        let rule = AuthorityRule {
            name: "example".to_owned(),
            principal: vec![PrincipalSource::Email],
            groups: GroupSource::Ou,
            trust_domain: None,
        };
        let authority = tls::Authority::new(rule, chain(anchor), &provider).unwrap();
        let authorities = Authorities::new(vec![authority], tls::ClientAuth::Optional);
        assert_eq!(house.issuing.is_known_to(&authorities), known);
    }
}

#[test]
fn an_encrypted_key_is_opened_with_the_passphrase_in_the_file_and_not_without() {
    let house = House::new("locked");
    let folder = house.root.join("issuing");
    let passphrase = Passphrase::new("correct horse".to_owned().into()).unwrap();
    Authority::change_passphrase(&folder, None, Some(&passphrase)).unwrap();
    let ca = Authority::open(&house.root.join("ca")).unwrap();
    let credentials = gateway(&ca);
    let file = house.root.join("passphrase");
    let config = |passphrase_file| EnrolmentConfig {
        folder: folder.clone(),
        passphrase_file,
        ca: None,
        gateways: Vec::new(),
        renews: Vec::new(),
    };
    for wrong in [None, Some("wrong\n")] {
        let given = wrong.map(|text: &str| {
            files::write_private(&file, text.as_bytes()).unwrap();
            file.clone()
        });
        let refused = Issuing::open(&config(given), &credentials);
        assert!(
            matches!(refused, Err(LoadError::Authority { .. })),
            "{wrong:?}"
        );
    }
    files::write_private(&file, b"correct horse\nsecond line").unwrap();
    assert!(Issuing::open(&config(Some(file)), &credentials).is_ok());
}

#[test]
fn a_secret_is_thirty_two_hexadecimal_digits_and_nothing_else() {
    let decoded = |text: &str| decoded(&Secret::parse(text).unwrap());
    let mut expected = [0; 16];
    expected[15] = 0xfe;
    assert_eq!(decoded("000000000000000000000000000000fE"), Some(expected));
    for wrong in ["fe", "+00000000000000000000000000000fe", &"0".repeat(33)] {
        assert_eq!(decoded(wrong), None, "{wrong}");
    }
}
