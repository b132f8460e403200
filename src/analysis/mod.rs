//! Counts in, verdicts out: is the canary worse than the baseline, and may traffic move on or must it go back?
//!
//! The method is a bet. The proxy itself flips the coin that sends a request to the canary with a known probability,
//! the share. If the canary is no worse than the baseline, each failure belongs to the canary with about that
//! probability, whatever the failure rate is and however it drifts. A capital of 1 is staked against this; it
//! multiplies by a factor with mean at most 1 while the canary is fine, so that reaching 10,000 is a one in 10,000
//! event (Ville's inequality) no matter how often one looks. The same bet judges absolute limits ([`Ceiling`]),
//! promotion ([`Promoter`]), the split itself ([`SplitCheck`]) and all scopes together ([`Fleet`]).
//!
//! [`Comparison`] joins the parts for one scope; most callers need only it, [`Parameters`] and [`Fleet`].
//!
//! The room is pure: no I/O, no clock. Time is `now_ms`, milliseconds on any axis that does not run backwards, so
//! that the planner's simulator and the tests can drive it in virtual time. All evidence is in natural logarithms,
//! because capitals overflow and their logarithms do not.

mod batch;
mod bet;
mod ceiling;
mod channel;
mod comparison;
mod decision;
mod detector;
mod excess;
mod fleet;
mod latency;
mod limits;
mod logs;
mod parameters;
mod promotion;
pub mod sentence;
mod signal;
#[cfg(test)]
mod simulation;
mod split_check;
mod window;

pub use batch::{Batch, RawCounts};
pub use bet::{Bet, bet, log_evalue, stake};
pub use ceiling::Ceiling;
pub use comparison::Comparison;
pub use decision::{Action, Assessment, SignalEvidence, Verdict, decide};
pub use detector::{BRAKE_CALM_MS, Detector, brake_share};
pub use excess::{excess_failures, excess_slow};
pub use fleet::{Fleet, ebh};
pub use latency::LogHistogram;
pub use limits::{Rate, Recent, Tripped, check_limits};
pub use parameters::{ChannelParameters, Parameters};
pub use promotion::Promoter;
pub use signal::{ArmCounts, Signal, SignalCounts, Signals};
pub use split_check::SplitCheck;
pub use window::EvidenceWindow;
