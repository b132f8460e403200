//! Tests of the whole room: texts in, settings or mistakes out.

mod limits;
mod loading;
mod maintenance;
mod mistakes;
mod notify;
mod random;
mod reference;
mod shadow;
mod streams;
mod versions;
mod windows;

use std::io;
use std::path::Path;

use super::{Mistakes, Settings, parse_with};

/// A file with one service, as small as can be; `{}` is where more of the service's keys can go.
const SMALL: &str = r#"[proxy]
listen = ["127.0.0.1:8080"]
[services.a]
match = [{ path = "/" }]
baseline = "1"
versions = { 1 = { endpoints = ["127.0.0.1:7001"] } }
"#;

fn env(name: &str) -> Option<String> {
    let value = match name {
        "PORT" => "8080",
        "COOKIE_SECRET" | "STORE_SECRET" | "TESTER_SECRET" | "JWT_SECRET" | "BYPASS_SECRET" => {
            "0123456789abcdef0123456789abcdef"
        }
        "SLACK_URL" | "WEBHOOK_URL" => "https://hooks.example.com/in",
        "PAGERDUTY_KEY" | "SMTP_PASSWORD" | "ETCD_PASSWORD" => "secret",
        "WEBHOOK_SECRET" => "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "CI_TOKEN_SHA256" => "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        _ => return None,
    };
    Some(value.to_owned())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    match path.to_str() {
        Some("/etc/sb/id.pem") => Ok(include_bytes!("rsa.pem").to_vec()),
        Some("/etc/sb/receivers.pem" | "/etc/sb/etcd-ca.pem" | "/etc/sb/proxy.crt" | "/etc/sb/proxy.key") => {
            let certificate = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).map_err(io::Error::other)?;
            Ok(certificate.cert.pem().into_bytes())
        }
        Some("/etc/sb/empty.pem") => Ok(Vec::new()),
        Some("/etc/sb/maintenance.html") => Ok(b"<p>{message}</p>".to_vec()),
        Some("/etc/sb/large.html") => Ok(vec![b' '; (64 << 10) + 1]),
        Some("/etc/sb/latin.html") => Ok(vec![0xE9]),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn load(text: &str) -> Result<Settings, Mistakes> {
    parse_with(text, Path::new("/etc/sb/sb.toml"), &env, &read)
}

/// The settings of a file that must be good.
fn good(text: &str) -> Settings {
    load(text).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"))
}

/// The mistakes of a file that must be bad, as `LINE key: message`.
fn bad(text: &str) -> Vec<String> {
    let mistakes = load(text).expect_err(text);
    mistakes.list().iter().map(|m| format!("{} {}: {}", m.line, m.key, m.message)).collect()
}
