//! `[tenants]`: where the tenant of a request is named, and which tenants belong to a group.

use std::collections::BTreeMap;
use std::sync::Arc;

use jsonwebtoken::DecodingKey;

use super::keys_services::ALGORITHMS;
use super::view::View;
use super::{formats, windows};
use crate::model::{Conflict, GroupName, JwtKey, JwtSpec, TenantName, TenantSource, TenantsSpec, UnknownTenant};

/// `[tenants]`.
pub(super) fn tenants(view: &View<'_>) -> TenantsSpec {
    let spec = TenantsSpec {
        identify: view.tables("identify").iter().filter_map(source).collect(),
        conflict: match view.text("conflict") {
            Some("reject") => Conflict::Reject,
            _ => Conflict::First,
        },
        unknown: match view.text("unknown") {
            Some("reject") => UnknownTenant::Reject,
            _ => UnknownTenant::Default,
        },
        groups: groups(view),
        windows: windows::of_tenants(view),
    };
    if spec.unknown == UnknownTenant::Reject && view.list("identify").is_empty() {
        let message = "is \"reject\" and nothing identifies tenants, so every request would be refused; \
                       allowed is \"default\", or set tenants.identify";
        view.wrong_at("unknown", message);
    }
    spec
}

fn groups(view: &View<'_>) -> BTreeMap<GroupName, std::collections::BTreeSet<TenantName>> {
    let groups = view.entries("groups").iter().filter_map(|(name, _)| {
        // A group's name may have dots, so it is looked up as a key, never as a path.
        let members = view.table("groups").read_list(name, formats::name::<TenantName>);
        Some((GroupName::new(name).ok()?, members.into_iter().collect()))
    });
    groups.collect()
}

fn source(view: &View<'_>) -> Option<TenantSource> {
    if view.get("host").is_some() {
        let (prefix, suffix) = view.read("host", formats::tenant_host)?;
        Some(TenantSource::Host { prefix, suffix })
    } else if view.get("header").is_some() {
        let trusted_only = view.flag("trusted").unwrap_or(false);
        Some(TenantSource::Header { name: view.read("header", formats::header)?, trusted_only })
    } else if view.get("path").is_some() {
        let strip = view.flag("strip").unwrap_or(false);
        Some(TenantSource::Path { prefix: view.read("path", formats::tenant_path)?, strip })
    } else {
        view.get("jwt")?;
        jwt(&view.table("jwt")).map(|spec| TenantSource::Jwt(Arc::new(spec)))
    }
}

fn jwt(view: &View<'_>) -> Option<JwtSpec> {
    let claim = match view.get("claim") {
        Some(_) => view.read("claim", formats::not_empty)?,
        None => "tenant".to_owned(),
    };
    Some(JwtSpec {
        claim,
        keys: view.tables("keys").iter().filter_map(key).collect(),
        issuer: view.read("issuer", formats::not_empty),
        audience: view.read("audience", formats::not_empty),
    })
}

fn key(view: &View<'_>) -> Option<JwtKey> {
    let algorithm = view.text("algorithm").filter(|a| ALGORITHMS.contains(a))?;
    let shared = algorithm.starts_with("HS");
    // A public key taken for a shared secret would let anyone who knows it sign tokens.
    if shared && view.get("file").is_some() {
        view.wrong_at("file", format!("does not go with {algorithm}; allowed is secret"));
    } else if !shared && view.get("secret").is_some() {
        view.wrong_at("secret", format!("does not go with {algorithm}; allowed is file, a public key"));
    }
    let material = if shared { secret(view, algorithm)? } else { public_key(view, algorithm)? };
    Some(JwtKey { id: view.read("id", formats::not_empty), algorithm: algorithm.to_owned(), material })
}

fn secret(view: &View<'_>, algorithm: &str) -> Option<Vec<u8>> {
    let secret = view.read("secret", formats::not_empty)?.into_bytes();
    let least = match algorithm {
        "HS256" => 32,
        "HS384" => 48,
        _ => 64,
    };
    if secret.len() < least {
        let message = format!("has {} bytes; RFC 7518 wants at least {least} for {algorithm}", secret.len());
        view.warn_at("secret", &message);
    }
    Some(secret)
}

fn public_key(view: &View<'_>, algorithm: &str) -> Option<Vec<u8>> {
    let pem = view.cx.contents(view.get("file")?, view.text("file")?)?;
    let readable = match algorithm {
        "ES256" | "ES384" => DecodingKey::from_ec_pem(&pem),
        "EdDSA" => DecodingKey::from_ed_pem(&pem),
        _ => DecodingKey::from_rsa_pem(&pem),
    };
    if let Err(e) = readable {
        view.wrong_at("file", format!("holds no public key for {algorithm} ({e}); allowed is a PEM file with one"));
        return None;
    }
    Some(pem)
}
