//! `[services.X.streams]`: what becomes of answers that last, when a shift takes their key to another version.

use super::kinds::{Key, Kind, Table, hours, secs};
use super::view::View;
use crate::model::{OnShift, StreamsSpec};

pub(super) static STREAMS: Table = Table::new(
    "WebSockets, server-sent events and gRPC calls on a version that their next request would not get.",
    &[
        Key::default(
            "on_shift",
            Kind::Choice(&["leave", "close"]),
            "\"leave\"",
            "\"leave\": they stay until they end by themselves. \"close\": they are told to come again, and come to the \
             version of now.",
        ),
        Key::default(
            "pace",
            Kind::Integer(1, 100_000),
            "50",
            "How many of them are closed per second, so that not all clients come again at once.",
        ),
        Key::default(
            "deadline",
            Kind::Duration(secs(1), hours(24)),
            "\"1m\"",
            "From the shift until the last one is closed; where the pace is too slow for that, it gives way.",
        ),
    ],
);

/// The table of a service.
pub(super) fn streams(view: &View<'_>) -> StreamsSpec {
    let without = StreamsSpec::default();
    let on_shift = match view.text("on_shift") {
        Some("close") => OnShift::Close,
        _ => OnShift::Leave,
    };
    if view.get("on_shift").is_none() && (view.get("pace").is_some() || view.get("deadline").is_some()) {
        view.warn_at("on_shift", "is not there, so streams are left alone; pace and deadline have no effect");
    }
    StreamsSpec {
        on_shift,
        pace: view.integer("pace").unwrap_or(without.pace),
        deadline: view.duration("deadline").unwrap_or(without.deadline),
    }
}
