//! The key that signs tokens, and what is minted and taken by it.

use std::{
    fmt, fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Once,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, crypto::rust_crypto, decode, decode_header,
    encode, errors::ErrorKind, jwk::Jwk,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use waypost_schemas::{
    id::{DeviceName, UserId},
    time::Micros,
};

use super::{Identity, Role};
use crate::{
    config,
    http::{Code, codes},
};

/// The key's file in the data directory.
const FILE: &str = "token.key";
/// Whom tokens are for.
const AUDIENCE: &str = "waypost";
/// The longest token that is looked at, in bytes: ours are about 400.
const TOKEN_BYTES_MAX: usize = 4096;
/// How long an Ed25519 seed is, in bytes.
const SEED_BYTES: usize = 32;
/// What stands before the seed in a PKCS #8 document of an Ed25519 key (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const PEM_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("{} cannot be {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Others can read the file.
    #[error("{} can be read by others (mode {mode:o}); chmod 600 it, or delete it to have a new key", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds no Ed25519 key.
    #[error("{} is no PKCS #8 PEM of an Ed25519 key; delete it to have a new key", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// Signing or checking does not work in this process.
    #[error("a test signature failed")]
    Crypto(#[source] jsonwebtoken::errors::Error),
}

/// Why a token is not taken. What it says goes to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is none.
    #[error("no token")]
    Missing,
    /// It is not one of ours, or not for us.
    #[error("{0}")]
    Bad(&'static str),
    /// It was good once.
    #[error("the token is no longer good; ask for a new one")]
    Expired,
    /// It is good, but not for this.
    #[error("this needs an operator's token")]
    Forbidden,
}

impl Refusal {
    /// The refusal's stable code.
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Missing => &codes::TOKEN_MISSING,
            Self::Bad(_) => &codes::TOKEN_BAD,
            Self::Expired => &codes::TOKEN_EXPIRED,
            Self::Forbidden => &codes::FORBIDDEN,
        }
    }
}

/// What a token is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The user.
    pub user: UserId,
    /// The device; named as the user where none is given.
    pub device: Option<DeviceName>,
    /// What it allows.
    pub role: Role,
}

/// A token that was minted.
#[derive(Clone)]
pub struct Minted {
    /// The token.
    pub token: String,
    /// When it ends.
    pub expires: Micros,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// A token's body, as it stands in JSON.
#[derive(Serialize, Deserialize)]
struct Body {
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dev: Option<String>,
    role: Role,
    iss: String,
    aud: String,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    exp: i64,
}

/// The key pair that signs and checks tokens.
pub struct Keys {
    sign: EncodingKey,
    check: DecodingKey,
    kid: String,
    validation: Validation,
    issuer: String,
    lifetime: Duration,
    skew: Duration,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads `token.key` of a directory, or makes it (mode 0600) where there is none; two processes that make it at
    /// once end with the same key. Tests a signature.
    pub fn load_or_create(dir: &Path, settings: &config::Auth) -> Result<Self, Error> {
        let path = dir.join(FILE);
        if load(&path)?.is_none() {
            create(dir, &path)?;
        }
        let seed = load(&path)?.ok_or(Error::Format { path })?;
        Self::from_seed(&seed, settings)
    }

    /// The key pair of a seed, for tests that need a fixed one. Tests a signature.
    pub fn from_seed(seed: &[u8; SEED_BYTES], settings: &config::Auth) -> Result<Self, Error> {
        install_provider();
        let sign = EncodingKey::from_ed_der(&pkcs8(seed));
        let jwk = Jwk::from_encoding_key(&sign, Algorithm::EdDSA).map_err(Error::Crypto)?;
        let check = DecodingKey::from_jwk(&jwk).map_err(Error::Crypto)?;
        let public = check.try_get_as_bytes().map_err(Error::Crypto)?;
        let kid = hex(&Sha256::digest(public)[..8]);

        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[&settings.issuer]);
        validation.set_required_spec_claims(&["aud", "iss", "sub"]);
        // Times are checked against the clock that is an argument.
        validation.validate_exp = false;
        validation.validate_nbf = false;

        let keys = Self {
            sign,
            check,
            kid,
            validation,
            issuer: settings.issuer.clone(),
            lifetime: settings.token_lifetime,
            skew: settings.clock_skew,
        };
        keys.test()?;
        Ok(keys)
    }

    /// The key's id: the beginning of the public key's SHA-256, in hex.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Mints a token that is good from now on for the configured lifetime.
    pub fn mint(&self, claims: &Claims, now: Micros) -> Result<Minted, Error> {
        let iat = now.0.div_euclid(Micros::SECOND);
        let exp = iat.saturating_add(seconds(self.lifetime));
        let device = claims.device.as_ref().map_or(claims.user.as_str(), DeviceName::as_str);
        let body = Body {
            sub: claims.user.to_string(),
            dev: Some(device.to_owned()),
            role: claims.role,
            iss: self.issuer.clone(),
            aud: AUDIENCE.to_owned(),
            iat,
            nbf: None,
            exp,
        };
        let token = self.sign(&body)?;
        Ok(Minted { token, expires: Micros(exp.saturating_mul(Micros::SECOND)) })
    }

    /// Says who a token is from, or why it is not taken.
    pub fn verify(&self, token: &str, now: Micros) -> Result<Identity, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Bad("the token is too long"));
        }
        let header = decode_header(token).map_err(|_| Refusal::Bad("the token is no JWT signed by EdDSA"))?;
        if header.alg != Algorithm::EdDSA {
            return Err(Refusal::Bad("the token is not signed by EdDSA"));
        }
        if header.kid.as_deref() != Some(&self.kid) {
            return Err(Refusal::Bad("the token is signed by a key that is not known here"));
        }
        let body = decode::<Body>(token, &self.check, &self.validation)
            .map_err(|error| refusal(error.kind()))?
            .claims;
        self.in_time(&body, now)?;
        let user = UserId::new(body.sub).map_err(|_| Refusal::Bad("the token's sub is no user id"))?;
        let device = DeviceName::new(body.dev.unwrap_or_else(|| user.to_string()))
            .map_err(|_| Refusal::Bad("the token's dev is no device name"))?;
        Ok(Identity { user, device, role: body.role })
    }

    fn in_time(&self, body: &Body, now: Micros) -> Result<(), Refusal> {
        let (now, skew) = (now.0.div_euclid(Micros::SECOND), seconds(self.skew));
        if body.exp.saturating_add(skew) <= now {
            return Err(Refusal::Expired);
        }
        if body.iat.max(body.nbf.unwrap_or(body.iat)).saturating_sub(skew) > now {
            return Err(Refusal::Bad("the token is not good yet; are the clocks apart?"));
        }
        Ok(())
    }

    fn sign(&self, body: &Body) -> Result<String, Error> {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        encode(&header, body, &self.sign).map_err(Error::Crypto)
    }

    fn test(&self) -> Result<(), Error> {
        let message = b"waypost";
        let signature =
            jsonwebtoken::crypto::sign(message, &self.sign, Algorithm::EdDSA).map_err(Error::Crypto)?;
        match jsonwebtoken::crypto::verify(&signature, message, &self.check, Algorithm::EdDSA) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Crypto(ErrorKind::InvalidSignature.into())),
            Err(error) => Err(Error::Crypto(error)),
        }
    }
}

fn refusal(kind: &ErrorKind) -> Refusal {
    Refusal::Bad(match kind {
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::InvalidIssuer => "the token's iss is another",
        ErrorKind::InvalidAudience => "the token's aud is not waypost",
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_) => {
            "the token lacks a claim: sub, role, iss, aud, iat, exp"
        }
        _ => "the token is broken",
    })
}

/// Installs the signatures' implementation once: two of them, or none, make the library panic later.
fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Refused where another was installed; the test signature says whether it works.
        let _ = rust_crypto::DEFAULT_PROVIDER.install_default();
    });
}

fn load(path: &Path) -> Result<Option<[u8; SEED_BYTES]>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), what: "read", source };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::Exposed { path: path.to_owned(), mode });
    }
    from_pem(&text).map(Some).ok_or_else(|| Error::Format { path: path.to_owned() })
}

fn create(dir: &Path, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_owned(), what: "written", source };
    let mut seed = [0; SEED_BYTES];
    fill_random(&mut seed).map_err(failed)?;
    fs::create_dir_all(dir).map_err(failed)?;
    let draft = dir.join(format!("{FILE}.{}", hex(&Sha256::digest(seed)[..8])));
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&draft).map_err(failed)?;
    file.write_all(to_pem(&seed).as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    // A link, unlike a rename, never replaces the key that another process has just made.
    let linked = fs::hard_link(&draft, path);
    let _ = fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}

fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}

pub(super) fn pkcs8(seed: &[u8; SEED_BYTES]) -> Vec<u8> {
    [&PKCS8_PREFIX[..], seed].concat()
}

fn to_pem(seed: &[u8; SEED_BYTES]) -> String {
    format!("{PEM_BEGIN}\n{}\n{PEM_END}\n", STANDARD.encode(pkcs8(seed)))
}

fn from_pem(text: &str) -> Option<[u8; SEED_BYTES]> {
    let body = text.trim().strip_prefix(PEM_BEGIN)?.strip_suffix(PEM_END)?;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()?.strip_prefix(&PKCS8_PREFIX)?.try_into().ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
