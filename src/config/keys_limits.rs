//! The table of keys: what each tenant may use of a service.

use super::formats::{GROUP, TENANT};
use super::kinds::{Key, Kind, Table};
use crate::model::{Limit, Rate};

static RATE: Kind = Kind::Number(Rate::MIN, Rate::MAX);
static NONE: Kind = Kind::Choice(&["none"]);
static CONCURRENCY: Kind = Kind::Integer(1, Limit::MAX_CONCURRENCY as i64);

/// What holds for each tenant.
pub(super) static LIMITS: Table = Table::new(
    "What each tenant may use of the service; more is answered with 429 and retry-after.",
    &[
        Key::optional("rate", Kind::Either(&RATE, &NONE), "no limit", "Requests per second."),
        Key::optional(
            "burst",
            Kind::Integer(1, Rate::MAX_BURST as i64),
            "one second's worth of rate",
            "Requests at once, after a while without any.",
        )
        .with("rate"),
        Key::optional(
            "concurrency",
            Kind::Either(&CONCURRENCY, &NONE),
            "no limit",
            "Requests at a time; WebSockets and other streams count as long as they are open.",
        ),
        Key::default(
            "without_tenant",
            Kind::Choice(&["address", "together", "unlimited"]),
            "\"address\"",
            "Requests without a tenant: each client address is limited like a tenant, all together are, or none.",
        ),
        Key::default(
            "groups",
            Kind::Map(&GROUP, &Kind::Table(&LIMIT)),
            "{}",
            "What is different for each tenant of a group; of several groups, the first by name counts.",
        ),
        Key::default(
            "tenants",
            Kind::Map(&TENANT, &Kind::Table(&LIMIT)),
            "{}",
            "What is different for single tenants; goes before the groups.",
        ),
    ],
);

/// What is different for some.
static LIMIT: Table = Table::new(
    "What is different for some tenants.",
    &[
        Key::optional("rate", Kind::Either(&RATE, &NONE), "as for the others", "Requests per second; \"none\": any."),
        Key::optional(
            "burst",
            Kind::Integer(1, Rate::MAX_BURST as i64),
            "one second's worth of rate",
            "Requests at once, after a while without any.",
        )
        .with("rate"),
        Key::optional(
            "concurrency",
            Kind::Either(&CONCURRENCY, &NONE),
            "as for the others",
            "Requests at a time; \"none\": any.",
        ),
    ],
)
.any_of(&["rate", "concurrency"]);
