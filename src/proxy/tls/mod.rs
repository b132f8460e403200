//! TLS towards clients: certificates are chosen by the name that the client asks for, and read again when they change.

mod certificates;
mod clients;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::tls::TlsRef;
use pingora::proxy::Session;

use self::certificates::Certificates;
use self::clients::Clients;
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

/// Whether the files of a listener can be used; for `switchback check`.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn check(listener: &TlsListener) -> Result<(), TlsError> {
    Loaded::read(listener).map(drop)
}

/// What one listener shows to clients and asks of them, as the files say now.
pub(super) struct ListenerTls {
    spec: TlsListener,
    loaded: Arc<ArcSwap<Loaded>>,
    stamps: Mutex<Vec<Option<Stamp>>>,
}

/// What was read from the files of a listener.
pub(super) struct Loaded {
    certificates: Certificates,
    clients: Option<Clients>,
}

/// By what a file is known to have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    #[cfg(unix)]
    inode: u64,
}

/// What is remembered of a handshake.
pub(super) struct Handshake {
    /// The name that the client asked for, lower case.
    pub server_name: Option<Box<str>>,
    /// Whether the client has shown a certificate, which was then verified.
    pub certified: bool,
}

impl Loaded {
    fn read(spec: &TlsListener) -> Result<Self, TlsError> {
        let certificates = Certificates::read(spec)?;
        let clients = spec.client_ca.as_deref().map(Clients::read).transpose()?;
        Ok(Self { certificates, clients })
    }
}

impl ListenerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub(super) fn new(spec: &TlsListener) -> Result<Self, TlsError> {
        // Stamps first: what changes while the files are read is then read again.
        let stamps = Mutex::new(stamps(spec));
        let loaded = Arc::new(ArcSwap::from_pointee(Loaded::read(spec)?));
        Ok(Self { spec: spec.clone(), loaded, stamps })
    }

    /// The settings of Pingora's listener; they see what is read later.
    ///
    /// # Errors
    /// [`TlsError::Setup`].
    pub(super) fn settings(&self) -> Result<TlsSettings, TlsError> {
        let setup = |e: Box<pingora::Error>| TlsError::Setup(e.to_string());
        let mut settings = TlsSettings::with_callbacks(Box::new(Remember)).map_err(setup)?;
        settings.set_cert_resolver(Arc::new(certificates::ByName {
            loaded: self.loaded.clone(),
            refuse_unknown: self.spec.refuse_unknown_names,
        }));
        settings.enable_h2();
        if self.spec.client_ca.is_some() {
            let mandatory = !self.spec.client_certificates_optional;
            settings.set_client_cert_verifier(Arc::new(clients::Current { loaded: self.loaded.clone(), mandatory }));
        }
        Ok(settings)
    }

    /// Reads the files again if one of them changed; what is wrong leaves everything as it was. None: nothing changed.
    pub(super) fn refresh(&self) -> Option<Result<(), TlsError>> {
        let now = stamps(&self.spec);
        let mut seen = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return None;
        }
        *seen = now;
        Some(Loaded::read(&self.spec).map(|loaded| self.loaded.store(Arc::new(loaded))))
    }

    /// The file of each certificate, and when it ends in seconds since the Unix epoch.
    pub(super) fn expiries(&self) -> Vec<(PathBuf, i64)> {
        self.loaded.load().certificates.expiries()
    }
}

fn stamps(spec: &TlsListener) -> Vec<Option<Stamp>> {
    let pairs = spec.certificates.iter().flat_map(|files| [&files.cert, &files.key]);
    pairs.chain(&spec.client_ca).map(|path| Stamp::of(path)).collect()
}

impl Stamp {
    /// Links are followed: that is how mounted secrets are replaced.
    fn of(path: &Path) -> Option<Self> {
        let data = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: data.modified().ok(),
            length: data.len(),
            #[cfg(unix)]
            inode: std::os::unix::fs::MetadataExt::ino(&data),
        })
    }
}

struct Remember;

#[async_trait::async_trait]
impl pingora::listeners::TlsAccept for Remember {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        let server_name = tls.server_name().map(|name| name.to_ascii_lowercase().into_boxed_str());
        let certified = tls.peer_certificate_der().is_some();
        Some(Arc::new(Handshake { server_name, certified }))
    }
}

/// What is remembered of the handshake of a request's connection; none without TLS.
pub(super) fn handshake(session: &Session) -> Option<&Handshake> {
    session.digest()?.ssl_digest.as_ref()?.extension.get()
}
