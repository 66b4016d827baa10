//! The certificate, which may change while connections are open: new ones get the new one, the others keep theirs.

use std::{
    fmt, fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::error::BuildError;

/// Where the certificate comes from.
pub(crate) enum Origin {
    /// Chain and key, as PEM.
    Given(Vec<u8>, Vec<u8>),
    /// Files of them, which are looked at again.
    Files(PathBuf, PathBuf),
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given(..) => "Given(****)",
            Self::Files(..) => "Files(..)",
        })
    }
}

impl Origin {
    fn read(&self) -> Result<(Vec<u8>, Vec<u8>), BuildError> {
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|error| wrong(format!("{} cannot be read: {error}", path.display())))
        };
        match self {
            Self::Given(chain, key) => Ok((chain.clone(), key.clone())),
            Self::Files(chain, key) => Ok((read(chain)?, read(key)?)),
        }
    }
}

/// TLS with the certificate of the moment.
pub(crate) struct Tls {
    origin: Origin,
    now: Mutex<Now>,
}

struct Now {
    acceptor: TlsAcceptor,
    /// Of chain and key as they were read.
    hash: blake3::Hash,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the certificate.
    pub(crate) fn new(origin: Origin) -> Result<Self, BuildError> {
        let (chain, key) = origin.read()?;
        let now = Now { acceptor: acceptor(&chain, &key)?, hash: hash(&chain, &key) };
        Ok(Self { origin, now: Mutex::new(now) })
    }

    /// For a new connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).acceptor.clone()
    }

    /// Looks whether the files have changed; `true` when the certificate is another one now. The old one stays when the
    /// new one cannot be used, as while only one of two files is written.
    pub(crate) fn look_again(&self) -> Result<bool, BuildError> {
        if matches!(self.origin, Origin::Given(..)) {
            return Ok(false);
        }
        let (chain, key) = self.origin.read()?;
        let hash = hash(&chain, &key);
        if self.now.lock().unwrap_or_else(PoisonError::into_inner).hash == hash {
            return Ok(false);
        }
        let acceptor = acceptor(&chain, &key)?;
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Now { acceptor, hash };
        Ok(true)
    }
}

fn hash(chain: &[u8], key: &[u8]) -> blake3::Hash {
    blake3::hash(&[chain, b"\0", key].concat())
}

fn wrong(reason: impl Into<String>) -> BuildError {
    BuildError::Certificate { reason: reason.into() }
}

fn acceptor(chain: &[u8], key: &[u8]) -> Result<TlsAcceptor, BuildError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong("the certificate file is not PEM"))?;
    if chain.is_empty() {
        return Err(wrong("there is no certificate in the file"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| wrong("there is no private key in the file"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong(error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
