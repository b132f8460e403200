//! What a rollout does next, and why it waits: pure functions of the rollout, the evidence and the time.
//!
//! Deciding is here, doing is elsewhere: a plan is one next thing, which the one writer checks again before it happens. So
//! planning may be asked as often as one likes, after a crash too, and the same situation always gives the same answer.

mod calendar;
mod evidence;
mod order;
mod path;
mod place;
mod plan;
mod validate;
mod waiting;

pub use calendar::{Opening, is_open, open};
pub use evidence::{ScopeEvidence, StageEvidence};
pub use order::{Candidate, batches};
pub use path::{NoPath, path};
pub use place::Place;
pub use plan::{Next, PROVEN_AT, Question, Situation, plan};
pub use validate::{Check, Facts, PlannedStep, Report, validate};
pub use waiting::{WaitFor, Waiting};
