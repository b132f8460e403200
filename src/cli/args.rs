//! The command line: global options and verbs, as clap reads them. The texts here are the help that users see.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::complete::Asking;
use super::global_args::{FreezeArgs, SnapshotVerb, UnfreezeArgs};
use super::rollout_args::{RolloutVerb, SimulateArgs};
use super::verb_args::{BaselineArgs, KeysVerb, NotifyVerb, ReleaseArgs};
use super::verb_args::{
    CompareArgs, EventsArgs, ExplainArgs, HoldArgs, MaintenanceVerb, PinArgs, RollbackArgs, ServicesVerb, ShadowArgs,
    SplitVerb, StatsArgs, StatusArgs, TenantsVerb, TopArgs, UnpinArgs, VersionsVerb,
};

/// Where the admin API listens unless it is told otherwise.
pub const DEFAULT_ADMIN: &str = "http://127.0.0.1:9900";

/// The whole command line.
#[derive(Parser)]
#[command(
    name = "switchback",
    version,
    about = "Splits tenants' traffic between versions of services and shifts it back by itself",
    propagate_version = false,
    arg_required_else_help = true,
    infer_long_args = false
)]
pub struct CommandLine {
    /// Options of all verbs.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of all verbs.
#[derive(Args, Clone)]
#[command(next_help_heading = "Options of all verbs")]
pub struct Global {
    /// Address of the admin API
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SWITCHBACK_ADMIN",
        default_value = DEFAULT_ADMIN,
        display_order = 900
    )]
    // Checked only by verbs that use it, so that a bad variable in the environment does not keep the proxy from running.
    pub admin: String,
    /// Token for the admin API; others can see it in the list of processes, SWITCHBACK_TOKEN and --token-file are safer
    // Read from the environment by hand: there, it must give way to --token-file, which clap cannot express.
    #[arg(long, global = true, value_name = "TOKEN", conflicts_with = "token_file", display_order = 901)]
    pub token: Option<String>,
    /// File that holds the token
    #[arg(long, global = true, value_name = "FILE", display_order = 902)]
    pub token_file: Option<PathBuf>,
    /// Form of the output
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORM",
        default_value_t = Format::Table,
        hide_possible_values = true,
        help = "Form of the output: table, json or yaml",
        display_order = 903
    )]
    pub output: Format,
    /// No colours, even on a terminal
    #[arg(long, global = true, display_order = 904)]
    pub no_color: bool,
}

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// The API's documents, unchanged.
    Json,
    /// The API's documents as YAML.
    Yaml,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run the proxy
    Serve(ServeArgs),
    /// Say what is wrong with the configuration; starts nothing
    Check(ConfigArgs),
    /// Show a canary that goes bad and is shifted back
    Demo {
        /// Stay when the show is over
        #[arg(long)]
        keep: bool,
        /// Plain lines without colours and redrawing
        #[arg(long)]
        plain: bool,
    },
    /// Print the JSON Schema of the configuration
    Schema,
    /// Print a configuration made from Flagger or ingress-nginx
    Import {
        /// YAML or JSON, such as of kubectl get ingress,canary,service -o yaml; - reads standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Services, splits, rates and verdicts
    Status(StatusArgs),
    /// Whether the proxy takes traffic; for health checks
    Health,
    /// Services, versions and evidence on one screen, always fresh
    Top(TopArgs),
    /// Services of the proxy
    Services {
        /// What to do; without it, the list.
        #[command(subcommand)]
        verb: Option<ServicesVerb>,
    },
    /// Which version gets which share
    #[command(subcommand)]
    Split(SplitVerb),
    /// Versions of a service
    #[command(subcommand)]
    Versions(VersionsVerb),
    /// Tenants with a split of their own
    #[command(subcommand)]
    Tenants(TenantsVerb),
    /// Send a tenant, user or group to one version, or keep it away
    Pin(PinArgs),
    /// Remove a pin
    Unpin(UnpinArgs),
    /// Forbid automation to advance; it may still shift back
    Hold(HoldArgs),
    /// Allow automation to advance again
    Release(ReleaseArgs),
    /// Forbid automation to advance anything; it may still shift back
    Freeze(FreezeArgs),
    /// Allow automation to advance again
    Unfreeze(UnfreezeArgs),
    /// Points to go back to: all splits, pins and holds of one moment
    #[command(subcommand)]
    Snapshot(SnapshotVerb),
    /// Trust another version: rollbacks lead to it from now on
    Baseline(BaselineArgs),
    /// Answer a service's or a tenant's requests with 503 for a while
    #[command(subcommand)]
    Maintenance(MaintenanceVerb),
    /// Planned moves from one version to another
    #[command(subcommand)]
    Rollout(RolloutVerb),
    /// What a rollout would do, and how soon a bad version is caught
    Simulate(Box<SimulateArgs>),
    /// All traffic back to the baseline, at once
    Rollback(RollbackArgs),
    /// Two versions side by side
    Compare(CompareArgs),
    /// What copies to a version that users do not see have shown
    Shadow(ShadowArgs),
    /// Requests, failures, latencies and evidence of each version
    Stats(StatsArgs),
    /// Why a request goes to the version it goes to
    Explain(ExplainArgs),
    /// What happened
    Events(EventsArgs),
    /// Keys that sign the proxy's cookies
    #[command(subcommand)]
    Keys(KeysVerb),
    /// Who is told of what happens
    Notify {
        /// What to do; without it, the list.
        #[command(subcommand)]
        verb: Option<NotifyVerb>,
    },
    /// Make the proxy read its configuration again
    Reload,
    /// Start the program anew and let it take over, losing nothing
    Upgrade,
    /// Print a script that completes commands and names in a shell
    Completions {
        /// For which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// What may come next in a command line; for the scripts of `completions`
    #[command(hide = true)]
    Complete {
        /// Which script asks
        #[arg(long, value_enum)]
        shell: Asking,
        /// The words after the program's name, up to the cursor
        #[arg(last = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Write manual pages into a folder, one for each command
    Man {
        /// The folder; made if there is none
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Print the version of this program
    Version,
}

/// What to serve, and from whom.
#[derive(Args)]
pub struct ServeArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Take over from the process that serves with this configuration
    #[arg(long)]
    pub take_over: bool,
}

/// Where the configuration is.
#[derive(Args)]
pub struct ConfigArgs {
    /// The configuration
    #[arg(short, long, value_name = "FILE", env = "SWITCHBACK_CONFIG")]
    pub config: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn global_options_stand_anywhere() {
        let line = parse("switchback -o json services get accounting --admin http://h:1 --no-color").unwrap();
        assert_eq!(line.global.output, Format::Json);
        assert_eq!(line.global.admin, "http://h:1");
        assert!(line.global.no_color);
    }

    #[test]
    fn wrong_usage_is_explained() {
        let error = |line: &str| parse(line).map(drop).unwrap_err();
        assert_eq!(error("switchback").kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        assert!(error("switchback rolback").to_string().contains("'rollback'"), "suggestion");
        assert_eq!(error("switchback rollback accounting").kind(), ErrorKind::MissingRequiredArgument);
        assert_eq!(error("switchback split set accounting").kind(), ErrorKind::MissingRequiredArgument);
        assert_eq!(error("switchback split clear accounting").kind(), ErrorKind::MissingRequiredArgument);
        assert_eq!(error("switchback split get a --tenant t --group g").kind(), ErrorKind::ArgumentConflict);
        assert_eq!(error("switchback status --token a --token-file b").kind(), ErrorKind::ArgumentConflict);
        assert_eq!(error("switchback events --kind rolback").kind(), ErrorKind::InvalidValue);
        assert_eq!(error("switchback versions register a 1").kind(), ErrorKind::MissingRequiredArgument);
        let text = error("switchback split set a 2.0.0=ten").to_string();
        assert!(text.contains("\"ten\" is no share; allowed are numbers"), "{text}");
        let text = error("switchback stats a --window 5").to_string();
        assert!(text.contains("\"5\" is no duration; allowed"), "{text}");
        let text = error("switchback versions register a 1 --endpoint nowhere").to_string();
        assert!(text.contains("is not an endpoint; allowed is host:port"), "{text}");
        let text = error("switchback explain a --header nonsense").to_string();
        assert!(text.contains("\"nonsense\" is no header; allowed is NAME:VALUE"), "{text}");
    }
}
