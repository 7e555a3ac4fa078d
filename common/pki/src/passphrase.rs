//! The passphrase of an authority's key.
//!
//! The key is then kept in the encrypted form of PKCS #8 (RFC 5958 §3) by PBES2 with scrypt and
//! AES-256-CBC (RFC 8018, RFC 7914), which `openssl pkey` reads, too.

use std::fmt;

use pkcs8::pkcs5::pbes2::Parameters;
use pkcs8::pkcs5::scrypt;
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::certificate;

/// A passphrase: wiped when it is let go, and never shown by `Debug`.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// A passphrase; an empty one is none.
    pub fn new(text: Zeroizing<String>) -> Option<Self> {
        (!text.is_empty()).then_some(Self(text))
    }

    /// Whether it is `text`.
    pub fn is(&self, text: &str) -> bool {
        self.0.as_str() == text
    }

    /// The key in `der`, PKCS #8, as an encrypted PEM block; `None` if the system has no random numbers or
    /// `der` is no key.
    pub(crate) fn encrypt(&self, der: &[u8]) -> Option<String> {
        let (mut salt, mut iv) = ([0; 16], [0; 16]);
        let random = SystemRandom::new();
        random.fill(&mut salt).ok()?;
        random.fill(&mut iv).ok()?;
        let cost = scrypt::Params::new(LOG_N, BLOCK, PASSES).ok()?;
        let parameters = Parameters::generate_scrypt_aes256cbc(cost, &salt, iv).ok()?;
        let key = PrivateKeyInfoRef::try_from(der).ok()?;
        let encrypted = key
            .encrypt_with_params(parameters, self.0.as_bytes())
            .ok()?;
        Some(certificate::armoured(LABEL, encrypted.as_bytes()))
    }

    /// The key in the encrypted PEM block `text`, as an open one; `None` if the passphrase is wrong or
    /// `text` no such block.
    pub(crate) fn decrypt(&self, text: &str) -> Option<Zeroizing<String>> {
        let block = pem::parse(text).ok()?;
        let key = EncryptedPrivateKeyInfoRef::try_from(block.contents()).ok()?;
        let open = key.decrypt(self.0.as_bytes()).ok()?;
        Some(Zeroizing::new(certificate::armoured(
            "PRIVATE KEY",
            open.as_bytes(),
        )))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

/// Whether a key in PEM needs a passphrase.
pub(crate) fn is_encrypted(text: &str) -> bool {
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

const LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// 16 MiB, because OpenSSL reads nothing of more than 32, and five passes over them in place of more
/// memory: the OWASP cheat sheet holds that for as good as 128 MiB once.
const LOG_N: u8 = 14;
const BLOCK: u32 = 8;
const PASSES: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyType;
    use crate::certificate::key::PrivateKey;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
    }

    #[test]
    fn a_key_comes_back_with_the_right_passphrase_only() {
        for kind in [KeyType::EcdsaP256, KeyType::Ed25519] {
            let key = PrivateKey::generate(kind).unwrap().to_pem();
            let der = pem::parse(&*key).unwrap().into_contents();
            let encrypted = passphrase("correct horse").encrypt(&der).unwrap();
            assert!(is_encrypted(&encrypted) && !is_encrypted(&key));
            let opened = passphrase("correct horse").decrypt(&encrypted).unwrap();
            assert_eq!(pem::parse(&*opened).unwrap().contents(), der);
            assert!(PrivateKey::from_pem(&opened).is_ok());
            assert!(passphrase("wrong").decrypt(&encrypted).is_none());
        }
        assert!(Passphrase::new(Zeroizing::default()).is_none());
        assert_eq!(format!("{:?}", passphrase("secret")), "Passphrase");
    }
}
