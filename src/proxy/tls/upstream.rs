//! TLS towards endpoints: which authorities a version trusts and what the proxy shows of itself, as the files say now.
//!
//! Files are read when a version is first used and again when they change. What is wrong never replaces what was good.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use pingora::protocols::tls::CaType;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::certificates::certificates_in;
use super::{Stamp, TlsError, file_error};
use crate::config::Settings;
use crate::model::{ClientFiles, ServiceName, UpstreamTls, VersionName};
use crate::routing::{Routes, VersionRoute};
use crate::telemetry::Metrics;

/// What was read from the files of a version.
pub(in super::super) struct Identity {
    /// The only authorities that endpoints' certificates may come from; none: those of the system.
    pub ca: Option<Arc<CaType>>,
    /// What is shown to endpoints that ask.
    pub client: Option<Arc<CertKey>>,
    /// Different for different contents, so that connections made with others are not used again. Pingora's own key of a
    /// connection knows neither the authorities nor more of a certificate than its serial number.
    pub digest: u64,
    /// Where the client's certificate is, and when it ends in seconds since the Unix epoch.
    ends: Option<(PathBuf, i64)>,
}

impl Identity {
    /// Reads the files of a version.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub(super) fn read(folder: &Path, spec: &UpstreamTls) -> Result<Self, TlsError> {
        let mut identity = Self { ca: None, client: None, digest: 0, ends: None };
        if let Some(ca) = &spec.ca {
            identity.ca = Some(authorities(&folder.join(ca), &mut identity.digest)?);
        }
        if let Some(files) = &spec.client {
            let (client, ends_s) = client(folder, files, &mut identity.digest)?;
            identity.client = Some(client);
            identity.ends = Some((folder.join(&files.cert), ends_s));
        }
        Ok(identity)
    }
}

/// Pingora panics on what is no certificate, so each is looked at before.
fn checked(path: &Path, der: &[u8], digest: &mut u64) -> Result<(WrappedX509, i64), TlsError> {
    let (_, parsed) = X509Certificate::from_der(der).map_err(|e| file_error(path, e))?;
    let ends_s = parsed.validity().not_after.timestamp();
    *digest = xxh3_64_with_seed(der, *digest);
    Ok((WrappedX509::new(der.to_vec(), parse_x509), ends_s))
}

fn authorities(path: &Path, digest: &mut u64) -> Result<Arc<CaType>, TlsError> {
    let mut roots = RootCertStore::empty();
    let mut list = Vec::new();
    for authority in certificates_in(path)? {
        list.push(checked(path, &authority, digest)?.0);
        roots.add(authority).map_err(|e| file_error(path, e))?;
    }
    Ok(list.into())
}

fn client(folder: &Path, files: &ClientFiles, digest: &mut u64) -> Result<(Arc<CertKey>, i64), TlsError> {
    let (cert, key) = (folder.join(&files.cert), folder.join(&files.key));
    let chain = certificates_in(&cert)?;
    let private = PrivateKeyDer::from_pem_file(&key).map_err(|e| file_error(&key, e))?;
    let signing = any_supported_type(&private).map_err(|e| file_error(&key, e))?;
    let misfit = |e| file_error(&key, format!("does not fit {}: {e}", cert.display()));
    CertifiedKey::new(chain.clone(), signing).keys_match().map_err(misfit)?;
    let mut ends_s = i64::MAX;
    for certificate in &chain {
        ends_s = ends_s.min(checked(&cert, certificate, digest)?.1);
    }
    let private = private.secret_der().to_vec();
    *digest = xxh3_64_with_seed(&private, *digest);
    Ok((Arc::new(CertKey::new(chain.iter().map(|c| c.to_vec()).collect(), private)), ends_s))
}

/// The versions of the file that speak TLS.
pub(super) fn of_file(settings: &Settings) -> impl Iterator<Item = (&ServiceName, &VersionName, &UpstreamTls)> {
    let services = settings.structure.services.iter();
    services.flat_map(|(service, spec)| {
        spec.versions.iter().filter_map(move |(name, version)| Some((service, name, version.tls.as_ref()?)))
    })
}

/// What every version trusts and shows.
pub(in super::super) struct Identities {
    folder: PathBuf,
    metrics: Arc<Metrics>,
    known: papaya::HashMap<u64, Arc<Entry>>,
}

struct Entry {
    spec: UpstreamTls,
    /// None while its files have never been good.
    identity: ArcSwapOption<Identity>,
    stamps: Mutex<Vec<Option<Stamp>>>,
}

impl Identities {
    /// None is read yet; files are seen from this folder.
    pub(in super::super) fn new(folder: PathBuf, metrics: Arc<Metrics>) -> Self {
        Self { folder, metrics, known: papaya::HashMap::new() }
    }

    /// What a version trusts and shows; none when it has no files. Whoever asks first waits until they are read.
    ///
    /// # Errors
    /// Its files have never been good.
    pub(in super::super) async fn of(
        self: &Arc<Self>,
        version: &VersionRoute,
    ) -> pingora::Result<Option<Arc<Identity>>> {
        let Some(spec) = version.spec.tls.as_ref().filter(|tls| tls.ca.is_some() || tls.client.is_some()) else {
            return Ok(None);
        };
        // The key holds the names of the files, so it stands for no others.
        let known = self.known.pin().get(&version.group_key).cloned();
        let entry = match known {
            Some(entry) => entry,
            None => self.begin(version.group_key, spec).await?,
        };
        let unusable = || pingora::Error::explain(pingora::ErrorType::InvalidCert, "the version's TLS files are bad");
        entry.identity.load_full().map(Some).ok_or_else(|| unusable().into_up())
    }

    async fn begin(self: &Arc<Self>, key: u64, spec: &UpstreamTls) -> pingora::Result<Arc<Entry>> {
        let (this, spec) = (self.clone(), spec.clone());
        let read = tokio::task::spawn_blocking(move || {
            let stamps = stamps(&this.folder, &spec);
            let entry = Entry { spec, identity: ArcSwapOption::empty(), stamps: Mutex::new(stamps) };
            this.read(&entry);
            let entry = Arc::new(entry);
            this.known.pin().insert(key, entry.clone());
            entry
        });
        let broken = |e| pingora::Error::because(pingora::ErrorType::InternalError, "reading TLS files", e);
        read.await.map_err(broken)
    }

    /// Whether the files are good now; what was good before stays otherwise.
    fn read(&self, entry: &Entry) -> bool {
        match Identity::read(&self.folder, &entry.spec) {
            Ok(identity) => {
                if let Some((file, ends_s)) = &identity.ends {
                    self.metrics.set_certificate(file.display().to_string(), *ends_s);
                }
                entry.identity.store(Some(Arc::new(identity)));
                true
            }
            Err(error) => {
                let before = if entry.identity.load().is_some() { "; what was read before stays" } else { "" };
                tracing::error!(%error, "a file for TLS towards endpoints cannot be used{before}");
                false
            }
        }
    }

    /// Forgets versions that are gone and reads again what has changed.
    pub(in super::super) async fn refresh(self: &Arc<Self>, routes: &Routes) {
        if self.known.is_empty() {
            return;
        }
        let keys: HashSet<u64> = routes.services.iter().flat_map(|s| &s.versions).map(|v| v.group_key).collect();
        self.known.pin().retain(|key, _| keys.contains(key));
        let this = self.clone();
        // Files on a slow disk must not hold anything up.
        let look = tokio::task::spawn_blocking(move || this.known.pin().values().for_each(|entry| this.look(entry)));
        if let Err(error) = look.await {
            tracing::error!(%error, "files for TLS towards endpoints could not be looked at");
        }
    }

    fn look(&self, entry: &Entry) {
        let now = stamps(&self.folder, &entry.spec);
        let mut seen = entry.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return;
        }
        *seen = now;
        let good = self.read(entry);
        self.metrics.certificate_reload(good);
        if good {
            tracing::info!("files for TLS towards endpoints were read again because one had changed");
        }
    }
}

fn stamps(folder: &Path, spec: &UpstreamTls) -> Vec<Option<Stamp>> {
    let client = spec.client.iter().flat_map(|files| [&files.cert, &files.key]);
    spec.ca.iter().chain(client).map(|file| Stamp::of(&folder.join(file))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(ca: Option<&str>, client: Option<(&str, &str)>) -> UpstreamTls {
        let client = client.map(|(cert, key)| ClientFiles {
            cert: cert.to_owned(),
            key: key.to_owned(),
            unknown: Default::default(),
        });
        UpstreamTls { ca: ca.map(str::to_owned), client, verify: true, server_name: None, unknown: Default::default() }
    }

    #[test]
    fn files_must_hold_what_they_are_for() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let made = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
            std::fs::write(folder.path().join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
            std::fs::write(folder.path().join(format!("{name}.crt")), made.cert.pem()).unwrap();
        }
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(folder.path().join("broken.crt"), broken).unwrap();
        let read = |ca, client| Identity::read(folder.path(), &spec(ca, client));
        let both = read(Some("a.crt"), Some(("a.crt", "a.key"))).unwrap();
        assert!(both.ca.is_some() && both.client.is_some() && both.ends.is_some());
        let digests = [
            both.digest,
            read(None, None).unwrap().digest,
            read(Some("a.crt"), None).unwrap().digest,
            read(Some("b.crt"), None).unwrap().digest,
            read(None, Some(("a.crt", "a.key"))).unwrap().digest,
        ];
        assert_eq!(digests.iter().collect::<HashSet<_>>().len(), 5, "{digests:?}");
        for (ca, client, file) in [
            (Some("gone.crt"), None, "gone.crt"),
            (Some("a.key"), None, "a.key"),
            (Some("broken.crt"), None, "broken.crt"),
            (None, Some(("a.crt", "b.key")), "b.key"),
            (None, Some(("a.crt", "a.crt")), "a.crt"),
            (None, Some(("broken.crt", "a.key")), "broken.crt"),
        ] {
            let error = read(ca, client).map(|_| ()).unwrap_err();
            let TlsError::File { path, .. } = &error else { panic!("{error}") };
            // Whether the certificate or the key is to blame when both do not fit is for the library to say.
            assert!(path.ends_with(file) || path.ends_with("a.key"), "{error} is not about {file}");
        }
    }
}
