//! The certificates of a listener, and which of them a client is shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{TlsError, file_error};
use crate::config::{CertificateFiles, TlsListener};

/// Certificates in the order of the configuration.
#[derive(Debug)]
pub(super) struct Certificates(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    file: PathBuf,
    ends_s: i64,
    key: Arc<CertifiedKey>,
}

impl Certificates {
    pub(super) fn read(spec: &TlsListener) -> Result<Self, TlsError> {
        spec.certificates.iter().map(Entry::read).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn expiries(&self) -> Vec<(PathBuf, i64)> {
        self.0.iter().map(|entry| (entry.file.clone(), entry.ends_s)).collect()
    }

    /// The certificate for a name: one that was made for it, else the first unless that is refused.
    fn choose(&self, name: Option<&str>, refuse_unknown: bool) -> Option<Arc<CertifiedKey>> {
        let fits = name.and_then(|name| self.0.iter().find(|entry| entry.is_for(name)));
        let chosen = fits.or_else(|| self.0.first().filter(|_| !refuse_unknown));
        chosen.map(|entry| entry.key.clone())
    }
}

impl Entry {
    fn read(files: &CertificateFiles) -> Result<Self, TlsError> {
        let chain = certificates_in(&files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| file_error(&files.key, e))?;
        let key = any_supported_type(&key).map_err(|e| file_error(&files.key, e))?;
        let certified = CertifiedKey::new(chain, key);
        let misfit = |e| file_error(&files.key, format!("does not fit {}: {e}", files.cert.display()));
        certified.keys_match().map_err(misfit)?;
        let leaf = certified.cert.first().ok_or_else(|| file_error(&files.cert, "holds no certificate"))?;
        ParsedCertificate::try_from(leaf).map_err(|e| file_error(&files.cert, e))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| file_error(&files.cert, e))?;
        let ends_s = parsed.validity().not_after.timestamp();
        Ok(Self { file: files.cert.clone(), ends_s, key: Arc::new(certified) })
    }

    /// Wildcards included, as clients understand them.
    fn is_for(&self, name: &str) -> bool {
        let parsed = self.key.cert.first().and_then(|leaf| ParsedCertificate::try_from(leaf).ok());
        let (Some(parsed), Ok(name)) = (parsed, ServerName::try_from(name)) else { return false };
        rustls::client::verify_server_name(&parsed, &name).is_ok()
    }
}

/// The certificates of a PEM file, at least one.
pub(super) fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = fs::read(path).map_err(|e| file_error(path, e))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(file_error(path, "holds no certificate")),
        Err(e) => Err(file_error(path, e)),
    }
}

/// Chooses the certificate by the name that a client asks for.
#[derive(Debug)]
pub(super) struct ByName {
    pub(super) certificates: Certificates,
    pub(super) refuse_unknown: bool,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certificates.choose(hello.server_name(), self.refuse_unknown)
    }
}
