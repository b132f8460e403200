//! `[services.X.shadow]`: what is copied to a version that users do not see.

use super::formats;
use super::view::View;
use crate::model::{BasisPoints, ShadowSpec, VersionName};

/// The shadow of a service; `view` is the service's table. `None` without one, or without what it cannot do without.
pub(super) fn shadow(view: &View<'_>) -> Option<ShadowSpec> {
    let table = view.table("shadow");
    let version = table.read("version", formats::name::<VersionName>)?;
    check_version(view, &table, version.as_str());
    if table.share("max_difference") == Some(BasisPoints::ZERO) {
        table.wrong_at(
            "max_difference",
            "is 0, which nothing can be shown to keep; allowed is percent from 0.01 to 100",
        );
    }
    let without = ShadowSpec::new(version);
    let mut methods = table.read_list("methods", formats::method);
    methods.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    methods.dedup();
    Some(ShadowSpec {
        share: table.share("share").unwrap_or(without.share),
        methods: if methods.is_empty() { without.methods } else { methods },
        credentials: table.flag("credentials").unwrap_or(without.credentials),
        ignore: table.read_list("ignore", formats::json_path),
        noise_share: table.share("noise_share").unwrap_or(without.noise_share),
        body: table.size("body").unwrap_or(without.body),
        timeout: table.duration("timeout").unwrap_or(without.timeout),
        concurrency: table.integer("concurrency").unwrap_or(without.concurrency),
        queue: table.integer("queue").unwrap_or(without.queue),
        max_difference: table.share("max_difference").unwrap_or(without.max_difference),
        version: without.version,
    })
}

/// The version stands in the file, since it would else be unknown until the store is read; and it is not the baseline,
/// which would be compared with itself.
fn check_version(view: &View<'_>, table: &View<'_>, version: &str) {
    let versions = view.entries("versions");
    if view.get("versions").is_some() && !versions.iter().any(|(name, _)| name == version) {
        let listed = versions.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        table.wrong_at("version", format!("{version:?} is no version of this service; allowed are {listed}"));
    } else if view.text("baseline") == Some(version) {
        table
            .wrong_at("version", format!("{version:?} is the baseline; allowed is another version to compare with it"));
    }
}
