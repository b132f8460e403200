//! The card that a process shows the other members of its fleet, and the list of all of them.
//!
//! Cards are JSON, so that another release reads what it knows of them and people read them with `etcdctl`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior};

use super::start::now_ms;
use super::{Control, Refused};
use crate::store::{Membership, Note, Role};

/// How often the card is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often it is written although nothing changed, so that others see that the process is well.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// How often it is written at most.
const WRITE_AFTER: Duration = Duration::from_secs(1);

/// What a process says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// Name of the process, as in its own status.
    pub instance: String,
    /// Its release.
    pub release: String,
    /// Revision of the state that is in effect there.
    pub revision: u64,
    /// The state of the store that does not fit it, if there is one.
    pub refused: Option<Refused>,
    /// Whether every change that is in effect there is in the store.
    pub confirmed: bool,
    /// `starting`, `ready` or `draining`.
    pub phase: String,
    /// Since when it runs, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it wrote this, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// One process of the fleet, as this one knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetMember {
    /// Its card; none: it has not written one, or it cannot be read.
    pub card: Option<Card>,
    /// What it does.
    pub role: Role,
    /// Whether it is this process.
    pub here: bool,
}

/// The fleet, as this process knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Fleet {
    /// What this process does.
    pub role: Role,
    /// Everybody who is known, in the order in which they joined.
    pub members: Vec<FleetMember>,
}

impl Fleet {
    /// Whether this process leads and another one could, which the state fits.
    fn has_another_judge(&self) -> bool {
        let fits = |member: &FleetMember| member.card.as_ref().is_some_and(|card| card.refused.is_none());
        self.role == Role::Leader && self.members.iter().any(|member| !member.here && fits(member))
    }
}

impl Control {
    /// The fleet as this process knows it; none when it is alone with its store.
    pub fn fleet(&self) -> Option<Fleet> {
        let standing = self.membership()?.standing().borrow().clone();
        let role = standing.role(Instant::now());
        let mut members: Vec<_> = standing.members.iter().collect();
        members.sort_by_key(|member| member.joined);
        let role_of = |place: usize| match place {
            0 => Role::Leader,
            1 => Role::Standby,
            _ => Role::Follower,
        };
        let members = members.into_iter().enumerate().map(|(place, member)| FleetMember {
            card: serde_json::from_slice(&member.card).ok(),
            role: role_of(place),
            here: standing.joined == Some(member.joined),
        });
        Some(Fleet { role, members: members.collect() })
    }

    /// Shows the other members what this process is, for as long as it runs. `about` says what others cannot see from the
    /// state: who it is and what it does.
    pub async fn show_card(self, about: impl Fn() -> Card + Send) {
        let Some(membership) = self.membership() else { return };
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut written: Option<(Card, Instant, Option<u64>)> = None;
        loop {
            every.tick().await;
            let view = self.view();
            if view.refused.is_some() && self.fleet().is_some_and(|fleet| fleet.has_another_judge()) {
                tracing::warn!("the store's state does not fit this process; another one is to lead the fleet");
                membership.stand_back().await;
            }
            let refused = view.refused.as_deref().cloned();
            let card = Card { revision: view.state.revision, refused, confirmed: view.confirmed, ..about() };
            let joined = membership.standing().borrow().joined;
            let due = joined.is_some()
                && written.as_ref().is_none_or(|(before, at, as_member)| {
                    let waited = at.elapsed();
                    waited >= WRITE_EVERY || *as_member != joined || waited >= WRITE_AFTER && *before != card
                });
            if due && write(&*membership, &card).await {
                written = Some((card, Instant::now(), joined));
            }
        }
    }
}

async fn write(membership: &dyn Membership, card: &Card) -> bool {
    let card = Card { at_ms: now_ms(), ..card.clone() };
    let body = serde_json::to_vec(&card).ok();
    let answer = membership.write(vec![Note { name: "card".to_owned(), body }]).await;
    if let Err(error) = &answer {
        tracing::debug!(%error, "the other members do not see this one's card");
    }
    answer.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_releases_card_is_read_as_far_as_it_is_known() {
        let text = r#"{"release": "9.0.0", "revision": 7, "mood": {"good": true}}"#;
        let card: Card = serde_json::from_str(text).unwrap();
        assert_eq!((card.release.as_str(), card.revision, card.confirmed), ("9.0.0", 7, false));
    }
}
