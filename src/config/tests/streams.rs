//! `[services.X.streams]`.

use std::time::Duration;

use super::{SMALL, bad, good};
use crate::model::{OnShift, StreamsSpec};

fn with(keys: &str) -> String {
    format!("{SMALL}[services.a.streams]\n{keys}\n")
}

fn read(keys: &str) -> StreamsSpec {
    good(&with(keys)).structure.services["a"].streams
}

#[test]
fn streams_are_left_alone_until_somebody_asks() {
    assert_eq!(good(SMALL).structure.services["a"].streams, StreamsSpec::default());
    assert_eq!(StreamsSpec::default().on_shift, OnShift::Leave);
    let idle = good(&with("pace = 5")).warnings;
    assert!(idle[0].starts_with("services.a.streams.on_shift: is not there"), "{idle:?}");
}

#[test]
fn every_key_is_read() {
    let wanted = StreamsSpec { on_shift: OnShift::Close, pace: 7, deadline: Duration::from_secs(90) };
    assert_eq!(read("on_shift = \"close\"\npace = 7\ndeadline = \"90s\""), wanted);
    assert_eq!(read("on_shift = \"close\""), StreamsSpec { on_shift: OnShift::Close, ..StreamsSpec::default() });
    assert_eq!(read("on_shift = \"leave\""), StreamsSpec::default());
}

#[test]
fn what_is_not_allowed_is_named() {
    for (keys, key) in [
        ("on_shift = \"cut\"", "on_shift"),
        ("pace = 0", "pace"),
        ("deadline = \"500ms\"", "deadline"),
        ("deadlin = \"5s\"", "deadlin"),
    ] {
        let mistakes = bad(&with(keys));
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].contains(&format!("services.a.streams.{key}: ")), "{mistakes:?}");
    }
}
