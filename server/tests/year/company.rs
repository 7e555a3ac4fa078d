//! The company as it is: a root in a safe, authorities that issue, a gateway, in folders of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_core::close::RefusalKind;
use adit_core::session::UserAgent;
use adit_core::session::certificate::Secret;
use adit_pki::csr;
use adit_pki::inventory::Filter;
use adit_pki::invitation::Code;
use adit_pki::revocation::LIST_LIFE;
use adit_pki::{Authority, AuthorityParams, IssueRequest, KeyType, Reason};
use adit_server::certificates::{Certificates, Listing};
use adit_server::issuing::{Guest, Issuing, Verdict};
use adit_server::lists::Newest;
use adit_server::load::{self, Loaded};
use adit_server::state::State;
use adit_tunnel::tls::{Algorithms, GatewayVerifier};
use adit_tunnel::{Holder, SessionId, SessionInfo, Standing};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;

use super::calendar::DAY;

/// How long the root's list is good: its key is seldom at hand.
pub const ROOT_LIST_LIFE: i64 = 90 * DAY;
/// How long a certificate is good, by invitation.
pub const VALIDITY: i64 = 120 * DAY;
/// How long a code is good.
pub const CODE_LIFE: i64 = 3 * DAY;

/// What the gateway is configured with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The authority that issues.
    pub issuing: usize,
    /// Those that issued before and whose certificates are renewed.
    pub former: Vec<usize>,
    /// Whether the want of a fresh list keeps newcomers out.
    pub hard: bool,
}

/// The company.
pub struct Company {
    folder: tempfile::TempDir,
    loaded: Loaded,
    certificates: Certificates,
    newest: Newest,
    sessions: u64,
}

impl Company {
    /// Founds it: a root, the first authority that issues, a gateway with a certificate.
    pub fn found(settings: &Settings, end: i64, now: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["safe", "gateway", "gateway/lists"] {
            fs::create_dir(path(name)).unwrap();
        }
        let root = Authority::create(
            &path("safe/root"),
            &AuthorityParams::new("Company", now),
            now,
        );
        fs::write(path("gateway/root.pem"), root.unwrap().certificate_pem()).unwrap();
        fs::write(path("gateway/policy.toml"), POLICY).unwrap();
        let root = Authority::open(&path("safe/root")).unwrap();
        certify_gateway(&root, folder.path(), now);
        make_issuing(&root, folder.path(), settings.issuing, "Company", end, now);
        root.renew_list(time::Duration::seconds(ROOT_LIST_LIFE), now)
            .unwrap();
        bring_lists(folder.path(), settings);
        let loaded = configured(folder.path(), settings);
        let state = State::open(&path("gateway/state")).unwrap();
        let mut newest = Newest::default();
        newest.remember(&loaded.authorities);
        Self {
            certificates: Certificates::open(&state).unwrap(),
            loaded,
            newest,
            sessions: 0,
            folder,
        }
    }

    /// Takes the root out of its safe and makes another authority that issues, until `end`.
    pub fn make_issuing(&self, number: usize, name: &str, end: i64, now: i64) {
        make_issuing(&self.root(), self.folder.path(), number, name, end, now);
    }

    /// Takes the root out of its safe and signs a fresh list.
    pub fn refresh_root_list(&self, now: i64) {
        let life = time::Duration::seconds(ROOT_LIST_LIFE);
        self.root().renew_list(life, now).unwrap();
    }

    /// Takes the root out of its safe and gives the gateway its next certificate.
    pub fn certify_gateway(&self, now: i64) {
        certify_gateway(&self.root(), self.folder.path(), now);
    }

    /// Takes the root out of its safe and revokes an authority that issues.
    pub fn revoke_issuing(&self, number: usize, now: i64) {
        let der = self.open(number).certificate_der().to_vec();
        let root = self.root();
        let entries = root.entries().unwrap();
        let entry = entries.iter().find(|entry| entry.certificate == der);
        let serial = entry.unwrap().serial.clone();
        let life = time::Duration::seconds(ROOT_LIST_LIFE);
        let list = root.revoke(&[serial], Reason::CaCompromise, life, now);
        assert_eq!(list.unwrap().entries, 1);
    }

    /// Signs a fresh list of an authority that issues.
    pub fn refresh_list(&self, number: usize, now: i64) {
        self.open(number).renew_list(LIST_LIFE, now).unwrap();
    }

    /// Takes everything of somebody back, as `adit-ca revoke` does; how many certificates, and whether there is a
    /// new list.
    pub fn revoke(&self, number: usize, who: &str, reason: Reason, now: i64) -> (usize, bool) {
        let stopped = self
            .open(number)
            .revoke_principal(who, reason, LIST_LIFE, now);
        let stopped = stopped.unwrap();
        (stopped.revoked.len(), stopped.list.is_some())
    }

    /// Copies the newest lists to the gateway, which reads them.
    pub fn bring_lists(&mut self, settings: &Settings) {
        bring_lists(self.folder.path(), settings);
        self.take_over(load::reread_lists(&self.loaded).unwrap());
    }

    /// Configures the gateway anew, and has it reload.
    pub fn configure(&mut self, settings: &Settings) {
        bring_lists(self.folder.path(), settings);
        self.take_over(configured(self.folder.path(), settings));
    }

    fn take_over(&mut self, loaded: Loaded) {
        self.newest.refuse_older(&loaded.authorities).unwrap();
        self.newest.remember(&loaded.authorities);
        self.loaded = loaded;
    }

    /// Somebody shows a chain at the gateway: a session, or why not. Both are in the inventory afterwards.
    pub fn connect(
        &mut self,
        chain: &[CertificateDer<'static>],
        device: &str,
        now: i64,
    ) -> Result<SessionInfo, RefusalKind> {
        let (authorities, policy) = (&self.loaded.authorities, &self.loaded.policy);
        let (unix, remote) = (unix(now), "192.0.2.7:4000".parse().unwrap());
        let agent = agent(device);
        let (leaf, intermediates) = chain.split_first().unwrap();
        let issuers: Vec<Vec<u8>> = intermediates.iter().map(|der| der.to_vec()).collect();
        let verified = authorities.verify_client_cert(leaf, intermediates, unix);
        let vouched = match verified {
            Ok(_) => Ok(authorities.identify(chain, unix).unwrap()),
            Err(_) => Err(authorities.vouch(chain, unix).unwrap_err()),
        };
        let admitted = vouched.and_then(|identity| policy.access(&identity, now).map(|_| identity));
        let identity = match admitted {
            Ok(identity) => identity,
            Err(refusal) => {
                let holder = Holder {
                    identity: authorities.recognise(chain, unix).expect("one of ours"),
                    certificate: leaf.as_ref().into(),
                    issuers: issuers.into(),
                    user_agent: Some(agent),
                };
                self.certificates.refused(remote, &holder, &refusal, now);
                return Err(refusal.kind);
            }
        };
        self.sessions += 1;
        let session = SessionInfo {
            id: SessionId(self.sessions),
            identity,
            certificate: leaf.as_ref().into(),
            issuers: issuers.into(),
            user_agent: Some(agent),
            groups: Vec::new(),
            addresses: Vec::new(),
            remote,
            since: now,
        };
        self.certificates.opened(&session, now);
        Ok(session)
    }

    /// Whether a session that is open stays so, and until when.
    pub fn still(&self, chain: &[CertificateDer<'static>], now: i64) -> Option<i64> {
        let authorities = &self.loaded.authorities;
        let identity = authorities.vouch_still(chain, unix(now)).ok()?;
        Some(authorities.ends(chain, unix(now), identity.not_after))
    }

    /// A session ends.
    pub fn close(&mut self, session: &SessionInfo, now: i64) {
        self.certificates.closed(session, now);
    }

    /// Whether a laptop that believes `authorities`, PEM, believes the gateway.
    pub fn is_believed(&self, authorities: &str, now: i64) -> bool {
        let anchors = pem(authorities);
        let provider = std::sync::Arc::new(Algorithms::for_this_cpu().provider());
        let verifier = GatewayVerifier::new(anchors, &provider).unwrap();
        let (leaf, above) = self.loaded.credentials.chain.split_first().unwrap();
        let name = ServerName::try_from("vpn.example.com").unwrap();
        verifier
            .verify_server_cert(leaf, above, &name, &[], unix(now))
            .is_ok()
    }

    /// Invites somebody; the secret of the code.
    pub fn invite(&self, who: &str, now: i64) -> [u8; 16] {
        let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        let guest = Guest {
            principal: who.to_owned(),
            groups: vec!["staff".to_owned()],
            code_life: seconds(CODE_LIFE),
            validity: seconds(VALIDITY),
        };
        let (code, expires) = self.issuing().invite(&guest, now).unwrap();
        assert_eq!(expires, now + CODE_LIFE);
        *code.parse::<Code>().unwrap().secret()
    }

    /// A laptop redeems a code.
    pub fn enrol(&self, secret: &[u8; 16], device: &str, now: i64) -> Result<Papers, &'static str> {
        let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let standing = Standing::Invited(Secret::parse(&digits).unwrap());
        self.ask(&standing, &agent(device), now)
    }

    /// A laptop asks in its session for the certificate that follows.
    pub fn renew(&self, session: &SessionInfo, now: i64) -> Result<Papers, &'static str> {
        let standing = Standing::Holds {
            identity: session.identity.clone(),
            certificate: CertificateDer::from(session.certificate.to_vec()),
        };
        self.ask(&standing, session.user_agent.as_ref().unwrap(), now)
    }

    fn ask(
        &self,
        standing: &Standing,
        agent: &UserAgent,
        now: i64,
    ) -> Result<Papers, &'static str> {
        let made = csr::make(None, KeyType::EcdsaP256).unwrap();
        let request = CertificateSigningRequestDer::from_pem_slice(made.request_pem.as_bytes());
        let (outcome, verdict) =
            self.issuing()
                .answer(standing, &request.unwrap(), Some(agent), now);
        match (outcome, verdict) {
            (Ok(issued), Verdict::Enrolled(_) | Verdict::Renewed { .. }) => Ok(Papers {
                chain: pem(&issued.certificate),
                authorities: issued.authorities,
            }),
            (Err(_), Verdict::Refused { kind, .. }) => Err(kind),
            other => panic!("{other:?}"),
        }
    }

    /// The whole inventory.
    pub fn inventory(&mut self, now: i64) -> Listing {
        let everything = Filter::default();
        let question = self.certificates.question(&self.loaded, now).unwrap();
        question.answer(None, &everything).unwrap()
    }

    fn issuing(&self) -> &Issuing {
        self.loaded.issuing.as_ref().unwrap()
    }

    fn root(&self) -> Authority {
        Authority::open(&self.folder.path().join("safe/root")).unwrap()
    }

    fn open(&self, number: usize) -> Authority {
        Authority::open(&issuing_folder(self.folder.path(), number)).unwrap()
    }
}

/// What a laptop gets.
pub struct Papers {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whom it believes the gateway, PEM.
    pub authorities: String,
}

fn make_issuing(root: &Authority, home: &Path, number: usize, name: &str, end: i64, now: i64) {
    let mut params = AuthorityParams::under(root, name, now);
    params.not_after = end;
    Authority::create_under(root, &issuing_folder(home, number), &params, now).unwrap();
}

fn certify_gateway(root: &Authority, home: &Path, now: i64) {
    let request = IssueRequest::gateway("vpn.example.com", now);
    let issued = root.issue(&request, now).unwrap();
    let path = |name: &str| home.join("gateway").join(name);
    fs::write(path("gateway.pem"), &issued.certificate_pem).unwrap();
    let _ = fs::remove_file(path("gateway.key"));
    let key = issued.key_pem.as_bytes();
    adit_net::files::write_private(&path("gateway.key"), key).unwrap();
}

fn issuing_folder(home: &Path, number: usize) -> PathBuf {
    home.join(format!("gateway/issuing-{number}"))
}

/// The authorities whose lists the gateway reads.
fn listed(settings: &Settings) -> impl Iterator<Item = usize> {
    let former = settings.former.iter().copied();
    former.chain(std::iter::once(settings.issuing))
}

fn bring_lists(home: &Path, settings: &Settings) {
    let lists = home.join("gateway/lists");
    fs::copy(home.join("safe/root/crl.pem"), lists.join("root.pem")).unwrap();
    for number in listed(settings) {
        let read = |name| fs::read_to_string(issuing_folder(home, number).join(name)).unwrap();
        // The authority's certificate beside its list tells who signed it.
        let both = read("ca.pem") + &read("crl.pem");
        fs::write(lists.join(format!("{number}.pem")), both).unwrap();
    }
}

fn configured(home: &Path, settings: &Settings) -> Loaded {
    let lists: String = listed(settings)
        .map(|number| format!(", \"lists/{number}.pem\""))
        .collect();
    let former: Vec<String> = settings
        .former
        .iter()
        .map(|number| format!("\"issuing-{number}/ca.pem\""))
        .collect();
    let text = format!(
        "listen = \"127.0.0.1:4433\"\ncertificate = \"gateway.pem\"\nkey = \"gateway.key\"\n\
         policy = \"policy.toml\"\nstate_directory = \"state\"\nadmin_socket = \"server.sock\"\n\
         [[authority]]\nname = \"company\"\ncertificates = \"root.pem\"\nprincipal = [\"email\"]\n\
         groups = \"ou\"\ncrls = [\"lists/root.pem\"{lists}]\ncrl_policy = \"{policy}\"\n\
         [enrolment]\nfolder = \"issuing-{issuing}\"\nrenews = [{former}]\n\
         [inside]\naddresses = [\"10.99.0.1/16\"]\n",
        policy = if settings.hard { "hard" } else { "soft" },
        issuing = settings.issuing,
        former = former.join(", "),
    );
    let path = home.join("gateway/server.toml");
    fs::write(&path, text).unwrap();
    load::load(&path).unwrap()
}

fn agent(device: &str) -> UserAgent {
    UserAgent::of_host("0.1.0", "linux", device)
}

fn pem(text: &str) -> Vec<CertificateDer<'static>> {
    let certificates: Result<_, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    certificates.unwrap()
}

fn unix(now: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(now.unsigned_abs()))
}

const POLICY: &str = "[pool]\nv4 = \"10.99.0.0/16\"\n\n\
    [[allow]]\nname = \"intranet\"\nwho = [\"group:staff\"]\nto = [\"10.0.0.0/16\"]\n";
