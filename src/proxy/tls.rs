//! TLS towards clients: the certificate is chosen by the name that the client asks for.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use pingora::listeners::tls::TlsSettings;
use rustls::RootCertStore;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use crate::config::TlsListener;

/// Why a listener cannot serve TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {detail}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        detail: String,
    },
    /// The TLS library refuses the settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

fn file_error(path: &Path, detail: impl std::fmt::Display) -> TlsError {
    TlsError::File { path: path.display().to_string(), detail: detail.to_string() }
}

/// The settings of one listener.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn settings(listener: &TlsListener) -> Result<TlsSettings, TlsError> {
    let certificates = load(listener)?;
    let setup = |e: Box<pingora::Error>| TlsError::Setup(e.to_string());
    let mut settings = TlsSettings::with_callbacks(Box::new(NoCallbacks)).map_err(setup)?;
    settings.set_cert_resolver(Arc::new(certificates));
    settings.enable_h2();
    if let Some(path) = &listener.client_ca {
        let mut roots = RootCertStore::empty();
        for authority in certificates_in(path)? {
            roots.add(authority).map_err(|e| file_error(path, e))?;
        }
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(|e| file_error(path, e))?;
        settings.set_client_cert_verifier(verifier);
    }
    Ok(settings)
}

/// Whether the files of a listener can be used; for `switchback check`.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn check(listener: &TlsListener) -> Result<(), TlsError> {
    load(listener)?;
    listener.client_ca.as_ref().map_or(Ok(()), |path| certificates_in(path).map(drop))
}

struct NoCallbacks;

#[async_trait::async_trait]
impl pingora::listeners::TlsAccept for NoCallbacks {}

/// Certificates with the names they are for.
#[derive(Debug)]
struct Certificates {
    entries: Vec<(webpki_names::Names, Arc<CertifiedKey>)>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let wanted = hello.server_name();
        let fits = wanted.and_then(|name| self.entries.iter().find(|(names, _)| names.contains(name)));
        fits.or_else(|| self.entries.first()).map(|(_, key)| key.clone())
    }
}

fn load(listener: &TlsListener) -> Result<Certificates, TlsError> {
    let entries = listener.certificates.iter().map(|files| {
        let chain = certificates_in(&files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| file_error(&files.key, e))?;
        let key = any_supported_type(&key).map_err(|e| file_error(&files.key, e))?;
        let certified = CertifiedKey::new(chain, key);
        certified
            .keys_match()
            .map_err(|e| file_error(&files.key, format!("does not fit {}: {e}", files.cert.display())))?;
        let names = webpki_names::Names::of(&certified.cert[0]).map_err(|e| file_error(&files.cert, e))?;
        Ok((names, Arc::new(certified)))
    });
    Ok(Certificates { entries: entries.collect::<Result<_, TlsError>>()? })
}

fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = fs::read(path).map_err(|e| file_error(path, e))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(file_error(path, "holds no certificate")),
        Err(e) => Err(file_error(path, e)),
    }
}

/// The DNS names that a certificate is for.
mod webpki_names {
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::server::ParsedCertificate;

    /// A certificate, kept so that names can be held against it.
    #[derive(Debug)]
    pub struct Names(CertificateDer<'static>);

    impl Names {
        pub fn of(certificate: &CertificateDer<'static>) -> Result<Self, rustls::Error> {
            ParsedCertificate::try_from(certificate)?;
            Ok(Self(certificate.clone()))
        }

        pub fn contains(&self, name: &str) -> bool {
            let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(&self.0), ServerName::try_from(name)) else {
                return false;
            };
            rustls::client::verify_server_name(&parsed, &name).is_ok()
        }
    }
}
