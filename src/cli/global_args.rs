//! The arguments of the verbs that concern the whole proxy. The texts here are the help that users see.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use super::values::duration;
use super::verb_args::{ChangeArgs, HowArgs};

/// `freeze`.
#[derive(Args)]
pub struct FreezeArgs {
    /// For how long, up to 366d; without it and --until, until somebody ends it
    #[arg(long = "for", value_name = "DURATION", conflicts_with = "until", value_parser = duration)]
    pub span: Option<String>,
    /// Until when, such as 2026-12-01T06:00:00Z
    #[arg(long, value_name = "TIME", value_parser = NonEmptyStringValueParser::new())]
    pub until: Option<String>,
    /// Why; people who wait for their rollout read it
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub reason: String,
    /// How.
    #[command(flatten)]
    pub how: HowArgs,
}

/// `unfreeze`.
#[derive(Args)]
pub struct UnfreezeArgs {
    /// Why and how.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `snapshot …`.
#[derive(Subcommand)]
pub enum SnapshotVerb {
    /// Take one of the splits, pins, holds and baselines of now
    Create {
        /// Its name; the time of now unless given
        name: Option<String>,
        /// Only this service, may be repeated
        #[arg(long = "service", value_name = "SERVICE")]
        services: Vec<String>,
        /// Why; it stands in the list and in the history
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: Option<String>,
        /// Check and show the outcome, change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// All snapshots, the newest first
    List,
    /// What one has
    Get {
        /// Name of the snapshot
        name: String,
    },
    /// What going back to one would change
    Diff {
        /// Name of the snapshot
        name: String,
        /// Only this service, may be repeated
        #[arg(long = "service", value_name = "SERVICE")]
        services: Vec<String>,
        /// As if restored with --force
        #[arg(long)]
        force: bool,
        /// Entries of each kind to list, 1 to 1000
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: Option<u16>,
    },
    /// Go back to one; disabled versions and those rolled back since stay away
    Restore {
        /// Name of the snapshot
        name: String,
        /// Only this service, may be repeated
        #[arg(long = "service", value_name = "SERVICE")]
        services: Vec<String>,
        /// Give versions that were rolled back since their traffic again
        #[arg(long)]
        force: bool,
        /// Why; it stands in the history
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
        /// Check and show the outcome, change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Forget one
    Delete {
        /// Name of the snapshot
        name: String,
        /// Why; it stands in the history
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: Option<String>,
        /// Check and show the outcome, change nothing
        #[arg(long)]
        dry_run: bool,
    },
}
