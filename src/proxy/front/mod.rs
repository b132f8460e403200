//! In front of Pingora's HTTP server: our own accept loop, which bounds what a client can cost before anybody acts on
//! what it says. How many connections there are, in all and for each address; how long a handshake and a head may take;
//! what a head and a body must look like; how many frames without content a connection may send. Pingora has none of
//! these, or only for all connections alike.

mod accept;
pub(super) mod bare;
mod chunks;
mod connection;
mod h2_frames;
mod head;
mod link;
mod places;
mod proxy_protocol;
mod transport;
mod turned_away;
mod wire;

use std::sync::Arc;

use pingora::proxy::HttpProxy;

use super::clock::Clock;
use super::files::Room;
use super::gateway::Gateway;
use crate::config::Settings;

pub(super) use self::accept::{Listening, Watches, accept};
pub(super) use self::head::is_authority;
pub(super) use self::link::{Handshake, Link};
pub(super) use self::places::Places;
pub(super) use self::turned_away::TurnedAway;
pub(super) use self::wire::Pace;

/// What every connection needs.
pub(super) struct Front {
    pub proxy: Arc<HttpProxy<Gateway>>,
    pub settings: Arc<dyn Fn() -> Arc<Settings> + Send + Sync>,
    /// Counts a refusal under one word.
    pub refused: Arc<dyn Fn(&'static str) + Send + Sync>,
    pub places: Arc<Places>,
    pub turned_away: TurnedAway,
    /// What the limit of open files allows.
    pub room: Room,
    pub clock: Clock,
}
