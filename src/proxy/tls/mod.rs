//! TLS towards clients: certificates are chosen by the name that the client asks for, and read again when they change.
//! And towards endpoints: see [`upstream`].

mod certificates;
mod upstream;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, SupportedProtocolVersion, version};

use self::certificates::{ByName, Certificates, certificates_in};
pub(super) use self::upstream::{Identities, Identity};
use crate::config::{BadFile, Settings, TlsListener, TlsVersion};
use crate::model::{ServiceName, VersionName, VersionSpec};

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

/// What is wrong with the files of listeners and of versions; for `switchback check`.
pub fn bad_files(settings: &Settings) -> Vec<BadFile> {
    let listeners = settings.proxy.tls.iter().filter_map(|listener| Loaded::read(listener).err());
    let folder = folder(settings);
    let versions = upstream::of_file(settings).filter_map(|(_, _, tls)| Identity::read(&folder, tls).err());
    listeners.chain(versions).map(TlsError::into_bad_file).collect()
}

/// What is wrong with the files of a version's TLS, if it has any.
///
/// # Errors
/// [`TlsError`] names the file.
pub fn check_version(settings: &Settings, version: &VersionSpec) -> Result<(), TlsError> {
    let tls = version.tls.as_ref();
    tls.map_or(Ok(()), |tls| Identity::read(&folder(settings), tls).map(drop))
}

/// Looks at the files of the versions of the configuration.
///
/// # Errors
/// The first that cannot be used.
pub(super) fn check_versions(settings: &Settings) -> Result<(), (ServiceName, VersionName, TlsError)> {
    let folder = folder(settings);
    for (service, version, tls) in upstream::of_file(settings) {
        Identity::read(&folder, tls).map_err(|e| (service.clone(), version.clone(), e))?;
    }
    Ok(())
}

/// The folder from which a version's files are seen.
pub(super) fn folder(settings: &Settings) -> PathBuf {
    settings.file.parent().map(Path::to_path_buf).unwrap_or_default()
}

impl TlsError {
    fn into_bad_file(self) -> BadFile {
        match self {
            Self::File { path, detail } => BadFile { path: path.into(), detail: format!("cannot be used: {detail}") },
            Self::Setup(detail) => BadFile { path: PathBuf::new(), detail },
        }
    }
}

/// What one listener shows to clients and asks of them, as the files say now.
pub(super) struct ListenerTls {
    spec: TlsListener,
    loaded: ArcSwap<Loaded>,
    stamps: Mutex<Vec<Option<Stamp>>>,
}

/// What was read from the files of a listener.
struct Loaded {
    config: Arc<ServerConfig>,
    expiries: Vec<(PathBuf, i64)>,
}

/// By what a file is known to have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    #[cfg(unix)]
    inode: u64,
}

impl Loaded {
    /// Everything is made anew, session tickets too: who resumes a session is not asked for a certificate again, so
    /// sessions must not outlive the authorities that they were begun under.
    fn read(spec: &TlsListener) -> Result<Self, TlsError> {
        let setup = |e: rustls::Error| TlsError::Setup(e.to_string());
        let provider = Arc::new(ring::default_provider());
        let certificates = Certificates::read(spec)?;
        let expiries = certificates.expiries();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions(spec))
            .map_err(setup)?;
        let builder = match &spec.client_ca {
            Some(path) => {
                builder.with_client_cert_verifier(clients(path, spec.client_certificates_optional, provider)?)
            }
            None => builder.with_no_client_auth(),
        };
        let resolver = ByName { certificates, refuse_unknown: spec.refuse_unknown_names };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = ring::Ticketer::new().map_err(setup)?;
        Ok(Self { config: Arc::new(config), expiries })
    }
}

fn versions(spec: &TlsListener) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match spec.min_version {
        TlsVersion::V1_2 => &ALL,
        TlsVersion::V1_3 => &ALL[..1],
    }
}

/// Which clients have a certificate that counts.
fn clients(
    path: &Path,
    optional: bool,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates_in(path)? {
        roots.add(authority).map_err(|e| file_error(path, e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
    verifier.build().map_err(|e| file_error(path, e))
}

impl ListenerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub(super) fn new(spec: &TlsListener) -> Result<Self, TlsError> {
        // Stamps first: what changes while the files are read is then read again.
        let stamps = Mutex::new(stamps(spec));
        let loaded = ArcSwap::from_pointee(Loaded::read(spec)?);
        Ok(Self { spec: spec.clone(), loaded, stamps })
    }

    /// For the next handshake.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.loaded.load().config.clone()
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
        self.loaded.load().expiries.clone()
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
