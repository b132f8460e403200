//! The table of keys of `[services.X.shadow]`.

use super::formats::{JSON_PATH, VERSION};
use super::kinds::{Key, Kind, Table, ms, secs};

pub(super) static SHADOW: Table = Table::new(
    "Copies of requests to a version that users do not see; its answers are compared with the baseline's.",
    &[
        Key::required("version", Kind::Text(&VERSION), "The version that gets the copies."),
        Key::default("share", Kind::Percent, "10", "Share of the eligible requests that are copied, in percent."),
        Key::default(
            "methods",
            Kind::List(&Kind::Choice(&["GET", "HEAD", "OPTIONS"]), 1),
            "[\"GET\", \"HEAD\"]",
            "Methods whose requests are eligible. Only safe ones, which change nothing.",
        ),
        Key::default(
            "credentials",
            Kind::Bool,
            "false",
            "Whether copies carry authorization, cookies, API keys and the like.",
        ),
        Key::default(
            "ignore",
            Kind::List(&Kind::Text(&JSON_PATH), 0),
            "[]",
            "Fields of JSON answers that may differ, with all below them.",
        ),
        Key::default(
            "noise_share",
            Kind::Percent,
            "10",
            "Share of the copied requests that are sent to the baseline a second time to learn which fields differ by \
             themselves, in percent; the first copies all are. 0: the baseline is never asked twice.",
        ),
        Key::default(
            "body",
            Kind::Size(0, 64 << 20),
            "\"256KiB\"",
            "Largest answer that is compared, compressed or not; of larger ones only status and latency are.",
        ),
        Key::default("timeout", Kind::Duration(ms(10), secs(60)), "\"5s\"", "How long a copy may take as a whole."),
        Key::default("concurrency", Kind::Integer(1, 10_000), "16", "Copies on their way at a time."),
        Key::default("queue", Kind::Integer(1, 100_000), "100", "Copies that may wait; more are dropped and counted."),
        Key::default(
            "max_difference",
            Kind::Percent,
            "1",
            "Share of the compared requests that may differ, in percent above 0; more is a breach.",
        ),
    ],
);
