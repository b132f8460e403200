//! The configuration file: text in, checked settings or a list of every mistake out.
//!
//! The text becomes a tree that knows its lines ([`tree`]); the tree is compared with one table of keys ([`keys`],
//! [`shape`]); what passes is read into settings and the model's structure, and what depends on several keys is checked
//! last. The same table makes the JSON Schema for editors, so what editors accept and what the proxy accepts agree.

mod context;
mod formats;
mod guard;
mod keys;
mod keys_limits;
mod keys_notify;
mod keys_services;
mod keys_shadow;
mod kinds;
mod limits;
mod maintenance;
mod mistake;
mod notify;
mod process;
mod schema;
mod services;
mod settings;
mod shadow;
mod shape;
mod store;
mod streams;
mod tenants;
mod tree;
mod version;
mod view;
mod windows;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use mistake::{FieldMistake, Mistake, Mistakes};
pub use notify::{Hidden, NotifyChannel, NotifyTarget, SmtpServer, SmtpTls};
pub use schema::schema;
pub use settings::{
    AccessLog, AdminSettings, CertificateFiles, EtcdSettings, FollowParent, Limits, MetricsSettings, ProxySettings,
    Role, Settings, StoreSettings, TlsListener, TlsVersion, Token, Tracing,
};
pub use version::{deprecation_to_json, version_from_json, version_to_json};

use crate::model::Structure;
use context::{Context, Named, unreadable};
use keys::FILE_TABLE;
use kinds::Kind;
use view::View;

/// Reads a duration such as `10m`, in whole milliseconds, as the file writes it.
///
/// # Errors
/// What is wrong, in words that follow the text.
pub fn read_duration(text: &str) -> Result<std::time::Duration, String> {
    formats::duration(text)
}

/// Reads a file, with the variables of the environment and the key files that it names. Certificates are not opened:
/// see [`check`].
///
/// # Errors
/// Every mistake, or that the file cannot be read.
pub fn load(path: &Path) -> Result<Settings, Mistakes> {
    let text = read_text(path)?;
    parse(&text, path, &variable)
}

/// What is wrong with a file that the configuration names: said by whoever uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFile {
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong, in words that follow its name.
    pub detail: String,
}

/// Reads a file like [`load`], and asks `look` what is wrong with the files that it names; that is then a mistake of the
/// line that names the file.
///
/// # Errors
/// Every mistake, or that the file cannot be read.
pub fn load_with(path: &Path, look: &dyn Fn(&Settings) -> Vec<BadFile>) -> Result<Settings, Mistakes> {
    let text = read_text(path)?;
    let (settings, mistakes, named) = examine(&text, path, &variable, &|file| std::fs::read(file));
    look_into_files(path, settings, mistakes, &named, look)
}

/// Reads a file like [`load_with`], and first sees whether all the files that it names can be read.
///
/// # Errors
/// Every mistake, or that the file cannot be read.
pub fn check(path: &Path, look: &dyn Fn(&Settings) -> Vec<BadFile>) -> Result<Settings, Mistakes> {
    let text = read_text(path)?;
    let (settings, mut mistakes, named) = examine(&text, path, &variable, &|file| std::fs::read(file));
    for Named { path, line, key } in &named {
        if let Err(e) = std::fs::File::open(path).and_then(|mut f| io::copy(&mut f, &mut io::sink())) {
            mistakes.push(Mistake { line: *line, key: key.clone(), message: unreadable(path, &e) });
        }
    }
    look_into_files(path, settings, mistakes, &named, look)
}

fn look_into_files(
    path: &Path,
    settings: Option<Settings>,
    mut mistakes: Vec<Mistake>,
    named: &[Named],
    look: &dyn Fn(&Settings) -> Vec<BadFile>,
) -> Result<Settings, Mistakes> {
    let found = settings.as_ref().filter(|_| mistakes.is_empty()).map(look).unwrap_or_default();
    for BadFile { path, detail } in found {
        let message = format!("the file {} {detail}", path.display());
        let places: Vec<_> = named.iter().filter(|n| n.path == path).map(|n| (n.line, n.key.clone())).collect();
        let places = if places.is_empty() { vec![(0, String::new())] } else { places };
        for (line, key) in places {
            let mistake = Mistake { line, key, message: message.clone() };
            if !mistakes.contains(&mistake) {
                mistakes.push(mistake);
            }
        }
    }
    conclude(path, settings, mistakes)
}

/// Reads a text as if it stood in the file at `path`, to whose folder relative paths are joined. `env` gives variables.
/// Nothing is opened but the public keys that `jwt` names.
///
/// # Errors
/// Every mistake; after a mistake of syntax only those of syntax.
pub fn parse(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Mistakes> {
    parse_with(text, path, env, &|file| std::fs::read(file))
}

/// Like [`parse`], with `read` in place of the file system: a pure function.
///
/// # Errors
/// Every mistake; after a mistake of syntax only those of syntax.
pub fn parse_with(
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Settings, Mistakes> {
    let (settings, mistakes, _) = examine(text, path, env, read);
    conclude(path, settings, mistakes)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read_text(path: &Path) -> Result<String, Mistakes> {
    let whole = |message| Mistakes::new(path.to_owned(), vec![Mistake { line: 0, key: String::new(), message }]);
    let bytes = std::fs::read(path).map_err(|e| whole(format!("cannot be read: {e}")))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
        let message = "is not UTF-8 from here; allowed is UTF-8".to_owned();
        Mistakes::new(path.to_owned(), vec![Mistake { line, key: String::new(), message }])
    })
}

fn conclude(path: &Path, settings: Option<Settings>, mut mistakes: Vec<Mistake>) -> Result<Settings, Mistakes> {
    match settings {
        Some(settings) if mistakes.is_empty() => Ok(settings),
        _ => {
            if mistakes.is_empty() {
                // Not reached while the table of keys and the readers agree; refusing is the safe side.
                let message = "cannot be used, and no mistake was found: please report this".to_owned();
                mistakes.push(Mistake { line: 0, key: String::new(), message });
            }
            Err(Mistakes::new(path.to_owned(), mistakes))
        }
    }
}

/// Settings as far as they could be read, mistakes, and the files that must be there.
fn examine(
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> (Option<Settings>, Vec<Mistake>, Vec<Named>) {
    let (root, mistakes) = tree::from_toml(text, env);
    let Some(root) = root else { return (None, mistakes, Vec::new()) };
    let cx = Context::new(path, mistakes, read);
    shape::check(&root, &Kind::Table(&FILE_TABLE), &cx);
    let settings = settings(&View::new(&root, &cx), path);
    let (mistakes, warnings, named) = cx.finish();
    (settings.map(|s| Settings { warnings, ..s }), mistakes, named)
}

fn settings(root: &View<'_>, path: &Path) -> Option<Settings> {
    let tenants = tenants::tenants(&root.table("tenants"));
    let entries = root.entries("services").iter();
    let services = entries.map(|(name, node)| services::service(name, &View::new(node, root.cx))).collect::<Vec<_>>();
    process::distinct_listeners(root);
    services::check_all(root);
    let settings = Settings {
        file: path.to_owned(),
        proxy: process::proxy(&root.table("proxy")),
        admin: process::admin(&root.table("admin")),
        store: store::store(&root.table("store")),
        metrics: process::metrics(&root.table("metrics")),
        notify: notify::targets(root),
        structure: Structure {
            tenants,
            services: services.into_iter().map(|s| s.map(|s| (s.name.clone(), Arc::new(s)))).collect::<Option<_>>()?,
        },
        warnings: Vec::new(),
    };
    store::warn(root, &settings.proxy, &settings.store);
    Some(settings)
}
