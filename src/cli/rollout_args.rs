//! The arguments of `rollout …`. The texts here are the help that users see.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand, ValueEnum};

use super::values::{duration, interval};
use super::verb_args::ChangeArgs;

/// `rollout …`.
#[derive(Subcommand)]
pub enum RolloutVerb {
    /// Move a service, groups or tenants to another version, step by step
    Start(Box<StartArgs>),
    /// Rollouts, the newest first
    List {
        /// Only of this service
        #[arg(long, value_name = "SERVICE")]
        service: Option<String>,
        /// Only in this phase
        #[arg(long, value_name = "PHASE")]
        phase: Option<String>,
        /// At most this many
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// One rollout
    Get {
        /// Name of the rollout
        id: String,
        /// Keep showing until it is over or Ctrl-C
        #[arg(short, long)]
        watch: bool,
        /// Time between two looks
        #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = interval)]
        interval: Duration,
    },
    /// Wait until a rollout is over; exit code 1 when it ends badly or not in time
    Status {
        /// Name of the rollout
        id: String,
        /// How long to wait; 0s: only look
        #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
        timeout: String,
    },
    /// Stop the clock of a rollout; the guard goes on
    Pause(ChangedArgs),
    /// Let a rollout go on
    Resume(ChangedArgs),
    /// Approve the next step, end the bake of this one, or move everyone at once
    Promote {
        /// Which rollout.
        #[command(flatten)]
        of: ChangedArgs,
        /// The step to enter next, such as 2, or 3.2 for the second step of the third batch
        #[arg(long, value_name = "STEP", conflicts_with = "full")]
        step: Option<String>,
        /// Everyone who is left, wholly
        #[arg(long)]
        full: bool,
    },
    /// End a rollout and take its traffic back
    Abort(EndArgs),
    /// Begin a rollout that went back again
    Retry(ChangedArgs),
    /// Take a completed rollout back
    Undo(EndArgs),
    /// Take one tenant of a rollout back
    Rollback {
        /// Which rollout.
        #[command(flatten)]
        of: EndArgs,
        /// The tenant
        #[arg(long, value_name = "TENANT")]
        tenant: String,
    },
    /// What became of each tenant, and what happened
    Logs {
        /// Name of the rollout
        id: String,
        /// Only this tenant
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// Only tenants of this status, such as rolled_back
        #[arg(long, value_name = "STATUS")]
        status: Option<String>,
        /// At most this many tenants and events
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// How rollouts went
    Statistics {
        /// Only of this service
        #[arg(long, value_name = "SERVICE")]
        service: Option<String>,
    },
}

/// A rollout and how it is changed.
#[derive(Args)]
pub struct ChangedArgs {
    /// Name of the rollout
    pub id: String,
    /// How to change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// A rollout that goes back.
#[derive(Args)]
pub struct EndArgs {
    /// Name of the rollout
    pub id: String,
    /// Why; it stands in the history
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub reason: String,
    /// Even past the point of no return
    #[arg(long)]
    pub force: bool,
    /// How to change.
    #[command(flatten)]
    pub how: super::verb_args::HowArgs,
}

/// `rollout start`.
#[derive(Args)]
pub struct StartArgs {
    /// What it does.
    #[command(flatten)]
    pub plan: PlanArgs,
    /// Start although the checks speak against it
    #[arg(long)]
    pub force: bool,
    /// Show what it would do, and start nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Why; it stands in the history
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub reason: Option<String>,
}

/// `simulate`.
#[derive(Args)]
pub struct SimulateArgs {
    /// What the rollout would do.
    #[command(flatten)]
    pub plan: PlanArgs,
    /// Requests per second, of all tenants together
    #[arg(long, value_name = "N", required_unless_present = "recorded")]
    pub rate: Option<f64>,
    /// The service's own traffic of the last fifteen minutes
    #[arg(long, conflicts_with_all = ["rate", "tenant_count", "zipf"])]
    pub recorded: bool,
    /// How many tenants the requests are of; of none unless given
    #[arg(long = "tenants", value_name = "N")]
    pub tenant_count: Option<u64>,
    /// The n-th tenant has an n-th of the requests of the first, instead of as many
    #[arg(long)]
    pub zipf: bool,
    /// Percent of the requests that the old version fails; 0, or as recorded, unless given
    #[arg(long, value_name = "PERCENT")]
    pub errors: Option<f64>,
    /// Percent of the requests that the new version fails more than that
    #[arg(long, value_name = "PERCENT")]
    pub regression: Option<f64>,
    /// Percent of the requests that the new version fails in all
    #[arg(long, value_name = "PERCENT", conflicts_with = "regression")]
    pub new_errors: Option<f64>,
    /// Latencies of the new version are those of the old one times this
    #[arg(long, value_name = "FACTOR")]
    pub latency_factor: Option<f64>,
    /// The new version is good until so long after the start
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub after: Option<String>,
    /// Rollouts with the bad version; 200 unless given
    #[arg(long, value_name = "N")]
    pub runs: Option<u32>,
    /// Rollouts with a good version; 1000 unless given
    #[arg(long, value_name = "N")]
    pub healthy_runs: Option<u32>,
    /// The same seed gives the same answer; 1 unless given
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// The plan of a rollout. What is not given is what the API has as default.
#[derive(Args)]
pub struct PlanArgs {
    /// The service
    pub service: String,
    /// The version to move to
    pub version: String,
    /// A plan as JSON, with the fields of the API; options come before it
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Where traffic is; the baseline unless given
    #[arg(long, value_name = "VERSION")]
    pub from: Option<String>,
    /// How to go about it
    #[arg(long, value_enum, value_name = "STRATEGY")]
    pub strategy: Option<StrategyArg>,
    /// Shares in percent, rising to 100
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',')]
    pub steps: Vec<f64>,
    /// The shortest time in each step
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub bake: Option<String>,
    /// How long to wait for proof in each step
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub max_bake: Option<String>,
    /// Tenants at a time
    #[arg(long, value_name = "N")]
    pub batch: Option<u32>,
    /// From the end of one batch to the begin of the next
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "batch")]
    pub delay: Option<String>,
    /// Percent of the tenants that go first
    #[arg(long, value_name = "PERCENT")]
    pub canary: Option<f64>,
    /// Only this tenant; may be given several times
    #[arg(long = "tenant", value_name = "TENANT", conflicts_with = "groups")]
    pub tenants: Vec<String>,
    /// Only the tenants of this group; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// A tenant that stays where it is; may be given several times
    #[arg(long, value_name = "TENANT")]
    pub exclude: Vec<String>,
    /// What happens when nothing is proven
    #[arg(long, value_enum, value_name = "WHAT")]
    pub on_insufficient: Option<InsufficientArg>,
    /// Requests of the new version that are needed to go on without proof
    #[arg(long, value_name = "N")]
    pub min_requests: Option<u64>,
    /// Not before this time, such as 2026-12-01T06:00:00Z
    #[arg(long, value_name = "TIME")]
    pub start_at: Option<String>,
}

/// How a rollout goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StrategyArg {
    /// Shares of the keys, rising.
    Steps,
    /// Tenants, some at a time.
    Batch,
    /// A share of the tenants first.
    Canary,
    /// Everyone at once.
    All,
}

/// What happens when nothing is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InsufficientArg {
    /// A person decides.
    Hold,
    /// It goes on.
    Advance,
    /// It goes back.
    Abort,
}
